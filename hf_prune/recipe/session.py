"""How a recipe's run begins, where it goes on, and how it ends, well or not."""

import contextlib
import inspect
import json
import logging
import os
import shlex
import sys
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import EarlyStoppingCallback, SchedulerType, TrainerCallback, TrainingArguments
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

from ..common.command import MISTAKES, again, interruptible, refuse, stage
from ..common.privacy import hide, public, public_arguments, public_value
from ..common.storage import write_text
from ..compare.result import PREDICTIONS, RESULTS
from ..core import Policy
from ..records.trace import FOLDER
from ..report.account import plain, surroundings
from ..report.page import REPORT
from ..train.checkpoint import TRAINER_STATE, last_whole
from ..train.lock import holder

logger = logging.getLogger(__name__)

_BEGUN = "_begun.json"  # in output_dir: what a run that may be interrupted is of
_FIXED = (  # training arguments that make another run
    *("seed", "data_seed", "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "optim"),
    *("label_smoothing_factor", "train_sampling_strategy"),
)
_LINE = 300  # characters of a sample's line that are printed


def run(main: Callable[[], None]) -> None:
    """Run a recipe as a command.

    What its user got wrong, and Ctrl-C, end it in one line, with status 2 and 130; other errors, and all that come
    after the first optimizer step, keep their traceback.
    """
    stage.output_dir, stage.has_begun = None, False
    with interruptible(_how_to_go_on):
        try:
            main()
        except MISTAKES as error:
            if stage.has_begun:
                raise
            refuse(error)
        except RuntimeError as error:
            if stage.has_begun or "to be installed" not in str(error):  # so does transformers say what report_to needs
                raise
            refuse(f"report_to: {error}")


def _how_to_go_on() -> str:
    """What is left of a run that Ctrl-C has ended, and the command that goes on with it."""
    folder, flag = stage.output_dir, "resume_from_checkpoint"
    if folder is None:
        return f"Nothing had begun; this begins: {again()}"
    if (folder / RESULTS).exists():
        return f"The run had ended: its results are in {folder}."
    checkpoint = last_whole(folder, lambda reason: None)
    if checkpoint is None:
        return f"No checkpoint had been saved; this begins anew: {again(flag)}"
    return f"This goes on from {checkpoint}: {again(flag)}"


class _Begins(TrainerCallback):
    """Notes that training has begun."""

    def on_step_end(self, args, state, control, **kwargs):
        stage.has_begun = True


def train(trainer: Any, checkpoint: str | bool) -> None:
    """Train, from a checkpoint where there is one, and save the model and the state.

    Raises:
        ValueError: Arguments that would end the run after a while, or train nothing.
    """
    _check_arguments(trainer, trainer.args)
    trainer.add_callback(_Begins())
    trainer.train(resume_from_checkpoint=checkpoint)
    stage.has_begun = True  # also where no step was left
    trainer.args.dataloader_drop_last = False  # for the scores, which are of all rows
    trainer.save_model()
    trainer.save_state()


def _check_arguments(trainer: Any, args: TrainingArguments) -> None:
    """Refuse what transformers finds out late, or in words without a flag."""
    stops_early = any(isinstance(one, EarlyStoppingCallback) for one in trainer.callback_handler.callbacks)
    if stops_early and args.eval_strategy == "no":
        raise ValueError("early_stopping_patience: there are no validations to stop by; leave out eval_strategy='no'.")
    if args.dataloader_drop_last:
        sizes = {"train": args.train_batch_size, "eval": args.eval_batch_size}
        for split, rows in (("train", trainer.train_dataset), ("eval", trainer.eval_dataset)):
            if len(rows) < (size := sizes[split] * args.world_size):
                raise ValueError(
                    f"dataloader_drop_last=True leaves nothing of {len(rows)} rows in batches of {size}: take a "
                    f"smaller per_device_{split}_batch_size, or leave it out."
                )
    takes = inspect.signature(TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(args.lr_scheduler_type)]).parameters
    takes_all = any(one.kind is one.VAR_KEYWORD for one in takes.values())
    if not takes_all and (unknown := sorted({*(args.lr_scheduler_kwargs or {})} - {*takes})):
        kind = SchedulerType(args.lr_scheduler_type).value
        raise ValueError(f"lr_scheduler_kwargs: {kind} takes no {unknown[0]!r}.")
    if unknown := sorted({*(args.label_names or [])} - {*trainer.train_dataset.column_names, "labels"}):
        raise ValueError(f"label_names: there are no {unknown[0]!r} in a batch; leave it out.")


def check_metric(args: TrainingArguments, names: Iterable[str]) -> None:
    """Refuse to choose the best model by what is not measured, before hours are spent.

    Args:
        args: Of the run.
        names: What validations measure, beside the loss.

    Raises:
        ValueError: `metric_for_best_model` is none of them.
    """
    known = [*names, "loss"]
    if (metric := args.metric_for_best_model) is not None and metric.removeprefix("eval_") not in known:
        raise ValueError(f"metric_for_best_model={metric!r} is not measured; give one of {', '.join(known)}.")


@contextlib.contextmanager
def loading(model: str, *kinds: type[Exception]) -> Iterator[None]:
    """Say of errors of these kinds in the block, else of all that loading can bring about, which model it was.

    Raises:
        ValueError: It can't be loaded.
    """
    kinds = kinds or (*MISTAKES, KeyError, RuntimeError, SafetensorError)
    try:
        yield
    except kinds as error:
        what = "is no folder here, and no model of the Hub that this machine reaches"
        if Path(model).exists():
            reason = " ".join(str(error).split()).rstrip(".")[:_LINE]
            what = f"can't be loaded ({type(error).__name__}: {reason})"
        raise ValueError(
            f"model_name_or_path={model!r} {what}. Give a folder that save_pretrained has written, or a name."
        ) from error


def find_checkpoint(args: TrainingArguments, policy: Policy | None, *made_with: Any) -> str | bool:
    """What to resume from: the checkpoint asked for, or the last whole one in output_dir, False where there is none.

    Args:
        args: Of the run.
        policy: Of the run.
        *made_with: Dataclasses of the flags that say which data and which model it is of.

    Raises:
        ValueError: output_dir can't be written to, holds a finished run, one that trains at this moment, or an
            unfinished one of other data, another model or policy, another seed or another learning rate; or there is no
            such checkpoint.
    """
    asked = args.resume_from_checkpoint
    stage.output_dir, stage.has_begun = Path(str(args.output_dir)), False
    if args.process_index == 0:
        _make(stage.output_dir)
    if asked is not None and str(asked).lower() not in ("true", "false"):
        if not Path(asked).is_dir():
            raise ValueError(f"resume_from_checkpoint={asked!r}: there is no such folder.")
        if not Path(asked, TRAINER_STATE).is_file():
            inside = sorted(path.parent.name for path in Path(asked).glob(f"checkpoint-*/{TRAINER_STATE}"))
            cure = f" It holds {', '.join(inside)}: name one of them." if inside else ""
            raise ValueError(f"resume_from_checkpoint={asked!r}: Can't find a valid checkpoint at {asked}.{cure}")
        return asked
    folder = stage.output_dir
    if (folder / RESULTS).exists():
        raise ValueError(f"output_dir={str(folder)!r} holds a finished run; give another, or remove it.")
    if args.process_index == 0 and (other := holder(folder / FOLDER)):
        raise ValueError(f"output_dir={str(folder)!r} is in use: {other} trains there; give another.")
    if str(asked).lower() == "false":
        return False
    checkpoint = last_whole(folder, warnings.warn)  # one that was being written when the run died is none
    now = {name: _told_apart(value) for given in made_with for name, value in asdict(given).items()}
    now |= {name: getattr(args, name) for name in _FIXED} | {"policy": hide(repr(policy))}
    now = json.loads(json.dumps(plain(now), default=str))
    if checkpoint and (folder / _BEGUN).exists():
        begun = _read_begun(folder / _BEGUN)
        if changed := [f"{name} {begun.get(name)!r} -> {now[name]!r}" for name in now if begun.get(name) != now[name]]:
            raise ValueError(
                f"output_dir={str(folder)!r} holds an unfinished run of other settings ({', '.join(changed)}). Give "
                "another output_dir, remove that one, or go on with its settings."
            )
    elif args.process_index == 0:
        write_text(folder / _BEGUN, json.dumps(now, indent=2) + "\n")
    if checkpoint and args.process_index == 0:
        sys.stdout.write(f"Going on from {checkpoint}\n")
    return checkpoint or False


def _make(folder: Path) -> None:
    """Make the folder of a run, which may be there.

    Raises:
        ValueError: It can't be made, or not written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"output_dir={str(folder)!r} can't be made: {error.strerror}. Give another.") from error
    if not os.access(folder, os.W_OK):
        raise ValueError(f"output_dir={str(folder)!r} can't be written to. Give another.")


def _read_begun(path: Path) -> dict[str, Any]:
    try:
        begun = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}). Give another output_dir, or remove that one.") from error
    if not isinstance(begun, dict):
        raise ValueError(f"{path} is of no recipe. Give another output_dir, or remove that one.")
    return begun


def _told_apart(value: Any) -> Any:
    """As it may be shown, a path that is shortened with a number of its own: two files may have one name."""
    if not isinstance(value, str):
        return value
    shown, value = public(value), hide(value)
    return shown if shown == value else f"{shown} ({zlib.crc32(value.encode()):08x})"


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
