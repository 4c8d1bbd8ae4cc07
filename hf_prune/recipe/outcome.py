"""The outcome of a recipe's run, and the files in which it is saved."""

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
from ..report.advice import advise, as_text
from ..report.facts import data_facts
from ..report.page import REPORT, RunReport
from ..report.topics import first

logger = logging.getLogger(__name__)

_LINE = 300  # characters printed of each line of a sample


def arguments_of(*dataclasses: Any) -> dict[str, Any]:
    """All arguments of a run by name, for `results.json`: without secret tokens, and only the last part of paths."""
    found: dict[str, Any] = {}
    for given in dataclasses:
        found |= given.to_dict() if isinstance(given, TrainingArguments) else asdict(given)
    return {name: public_value(name, value) for name, value in found.items()}


@dataclass
class Outcome:
    """What a recipe found out about its model.

    Args:
        metric: Name of the main score in `scores`, such as "bleu"; `eval_{metric}` is its name in validations. None =
            no row has a label.
        scores: Scores by name: numbers, and signatures if a metric has one.
        split: The split that was scored: "test" or "validation".
        predictions: Lists by name, with one entry for each row of the split, in its order.
        lines: The scores in words, one line each.
        samples: Examples of what the model does, one text each.
        greater_is_better: Whether a higher value of the metric is better.
    """

    metric: str | None
    scores: dict[str, Any]
    split: str
    predictions: dict[str, Sequence[Any]]
    lines: Sequence[str]
    samples: Sequence[str] = ()
    greater_is_better: bool = True

    @property
    def rows(self) -> int:
        """Number of rows in the split."""
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
        trainer: The trainer; it has trained and saved its model.
        policy: The policy of the run.
        arguments: All arguments of the run, see `arguments_of`.
        outcome: The scores.
        seconds: Seconds by part of the run, beside those in the report.
        card: Arguments of `trainer.create_model_card`.
        script: The recipe, as its `__file__`.
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
        quality = {"metric": outcome.metric, "value": outcome.scores.get(str(outcome.metric))}
        quality |= {"greater_is_better": outcome.greater_is_better, "split": outcome.split, "rows": outcome.rows}
        results = {"arguments": arguments, "policy": policy and public(repr(policy)), "quality": quality}
        results["pruning"] = report and report.to_dict()
        _try_to_write(folder / "the advice", lambda _: lines.extend(_advise(trainer, results, report)))
        lines.append("seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in seconds.items()))
        texts = (line for sample in outcome.samples for line in ["", *sample.splitlines()])
        shown = (line if len(line) <= _LINE else f"{line[:_LINE]} ..." for line in texts)
        said, encoding = "\n".join([*lines, *shown]), sys.stdout.encoding or "utf-8"
        print(said.encode(encoding, "backslashreplace").decode(encoding))  # noqa: T201
        if args.do_train or not args.do_predict:  # otherwise a saved model was scored alone, and has its card
            _try_to_write(folder / "README.md", lambda _: trainer.create_model_card(**card))
        results |= {"parameters": trainer.accelerator.unwrap_model(trainer.model).num_parameters()}
        results["scores"] = {"split": outcome.split, "rows": outcome.rows} | outcome.scores
        results |= {"seconds": seconds} | surroundings(script)
        write_text(folder / PREDICTIONS, json.dumps(plain(outcome.predictions), ensure_ascii=False) + "\n")
        text = json.dumps(plain(results), indent=2, default=str)
        write_text(folder / RESULTS, text + "\n")  # last: it marks a finished run
    if args.push_to_hub:
        trainer.push_to_hub(**card)


def _advise(trainer: Any, results: dict[str, Any], report: RunReport | None) -> list[str]:
    """Keep what advice goes by in the results of a run, and return the advice that matters most, line by line."""
    known = {} if report is None else report.facts
    results["facts"] = known | data_facts(trainer.train_dataset, report and report.history)
    if report is None:
        return []
    told = ["padding"] if report.padding() else []
    return ["", "what to do about it (all of it: hf-prune advise):", as_text(first(advise(results), told)), ""]


def _try_to_write(path: Path, write: Callable[[Path], None]) -> bool:
    """Write a file that is only for people. If that fails, warn and continue: the scores must still be saved."""
    try:
        write(path)
    except Exception as error:  # any error: the run itself has ended well
        logger.warning("%s could not be written (%s: %s).", path, type(error).__name__, error)
        return False
    return True


def _command(script: str | os.PathLike[str]) -> str | None:
    """The command that started the recipe, without secrets; None if something else started it."""
    name = Path(script).name
    if Path(sys.argv[0]).name != name:
        return None
    return shlex.join(public_arguments(["accelerate", "launch", f"recipes/{name}", *sys.argv[1:]]))
