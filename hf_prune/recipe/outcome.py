"""What a recipe found out, and the files in which it says so."""

import json
import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from ..common.privacy import public, public_arguments, public_value
from ..common.storage import write_text
from ..compare.result import PREDICTIONS, RESULTS
from ..core import Policy
from ..report.account import plain, surroundings
from ..report.page import REPORT

logger = logging.getLogger(__name__)

_LINE = 300  # characters of a sample's line that are printed


def arguments_of(*dataclasses: Any) -> dict[str, Any]:
    """All arguments of a run by name, as `results.json` has them; without tokens, and of paths the last part alone."""
    found: dict[str, Any] = {}
    for given in dataclasses:
        found |= given.to_dict() if isinstance(given, TrainingArguments) else asdict(given)
    return {name: public_value(name, value) for name, value in found.items()}


@dataclass
class Outcome:
    """What a recipe found out about its model.

    Args:
        metric: The one of `scores` that counts, such as "bleu"; `eval_{metric}` is its name in validations.
        scores: By name; numbers, and signatures where a metric has one.
        split: What was scored: "test" or "validation".
        predictions: Lists by name, with an entry for each row of the split, in its order.
        lines: The scores in words, a line each.
        samples: Examples of what the model does, a text each.
        greater_is_better: Whether a higher value of the metric is better.
    """

    metric: str
    scores: dict[str, Any]
    split: str
    predictions: dict[str, Sequence[Any]]
    lines: Sequence[str]
    samples: Sequence[str] = ()
    greater_is_better: bool = True

    @property
    def rows(self) -> int:
        """Rows of the split."""
        return len(next(iter(self.predictions.values())))


def finish(
    trainer: Any,
    policy: Policy | None,
    arguments: dict[str, Any],
    outcome: Outcome,
    seconds: dict[str, float],
    card: dict[str, Any],
    script: str | os.PathLike[str],
) -> None:
    """End a run on every process: print the account, write figure, report, card, predictions and results, and push.

    Args:
        trainer: Has trained, and saved its model.
        policy: Of the run.
        arguments: All arguments of the run, see `arguments_of`.
        outcome: The scores.
        seconds: By part of the run, beside those that the report has.
        card: Arguments of `trainer.create_model_card`.
        script: The recipe, as `__file__` names it.
    """
    args, folder = trainer.args, Path(trainer.args.output_dir)
    logged = {f"eval_{outcome.metric}", *(name for entry in trainer.state.log_history for name in entry)}
    metrics = {name: score for name, score in outcome.scores.items() if f"eval_{name}" in logged}
    card = {"metrics": metrics, "split": outcome.split, "command": _command(script), **card}
    if trainer.is_world_process_zero():
        report = trainer.pruning_report() if policy is not None else None
        lines = [*outcome.lines]
        if report is not None:
            parts = ("training", "selecting", "rescoring", "evaluating")
            seconds = seconds | {name: report.totals()[f"seconds_{name}"] for name in parts}
            curves = list(dict.fromkeys(("eval_loss", f"eval_{outcome.metric}")))
            _try_to_write(folder / "run.png", lambda path: report.figure(path, curves))
            lines += ["", report.summary()]
            for said in (report.idle(), report.padding(is_command=True)):
                lines += ["", said] if said else []
            if _try_to_write(folder / REPORT, report.html):
                lines += ["", f"the rows, round by round: {folder / REPORT}"]
        lines.append("seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in seconds.items()))
        texts = (line for sample in outcome.samples for line in ["", *sample.splitlines()])
        shown = (line if len(line) <= _LINE else f"{line[:_LINE]} ..." for line in texts)
        said, encoding = "\n".join([*lines, *shown]), sys.stdout.encoding or "utf-8"
        print(said.encode(encoding, "backslashreplace").decode(encoding))  # noqa: T201
        _try_to_write(folder / "README.md", lambda _: trainer.create_model_card(**card))
        quality = {"metric": outcome.metric, "value": outcome.scores[outcome.metric]}
        quality |= {"greater_is_better": outcome.greater_is_better, "split": outcome.split, "rows": outcome.rows}
        results = {"arguments": arguments, "policy": policy and public(repr(policy)), "quality": quality}
        results |= {"parameters": trainer.accelerator.unwrap_model(trainer.model).num_parameters()}
        results["scores"] = {"split": outcome.split, "rows": outcome.rows} | outcome.scores
        results["pruning"] = report and report.to_dict()
        results |= {"seconds": seconds} | surroundings(script)
        write_text(folder / PREDICTIONS, json.dumps(plain(outcome.predictions), ensure_ascii=False) + "\n")
        text = json.dumps(plain(results), indent=2, default=str)
        write_text(folder / RESULTS, text + "\n")  # last: it marks a finished run
    if args.push_to_hub:
        trainer.push_to_hub(**card)


def _try_to_write(path: Path, write: Callable[[Path], None]) -> bool:
    """Write what is for people alone; where that fails, say so: the scores are still to come."""
    try:
        write(path)
    except Exception as error:  # whatever it is: the run has ended well
        logger.warning("%s could not be written (%s: %s).", path, type(error).__name__, error)
        return False
    return True


def _command(script: str | os.PathLike[str]) -> str | None:
    """What started the recipe, as others may see it; None where something else did."""
    name = Path(script).name
    if Path(sys.argv[0]).name != name:
        return None
    return shlex.join(public_arguments(["accelerate", "launch", f"recipes/{name}", *sys.argv[1:]]))
