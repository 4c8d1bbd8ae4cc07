"""How a recipe's run begins, where it resumes, and how its user's mistakes are reported."""

import inspect
import json
import logging
import os
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, SchedulerType, TrainerCallback, TrainingArguments
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION
from transformers.utils.import_utils import is_torch_bf16_gpu_available

from ..common.command import MISTAKES, again, interruptible, refuse, stage
from ..common.privacy import hide, public
from ..common.storage import write_text
from ..compare.result import RESULTS
from ..core import Policy
from ..records.trace import FOLDER
from ..report.account import plain
from ..train.checkpoint import TRAINER_STATE, last_whole
from ..train.lock import holder

logger = logging.getLogger(__name__)

_BEGUN = "_begun.json"  # in output_dir: the settings of a run that may be interrupted
_FIXED = (  # training arguments that must stay the same when a run resumes
    *("seed", "data_seed", "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "optim"),
    *("label_smoothing_factor", "train_sampling_strategy"),
)

DEFAULTS: dict[str, Any] = dict(  # for every recipe
    policy="infobatch",  # its weights keep the gradient unbiased
    bf16=is_torch_bf16_gpu_available(),
    dataloader_pin_memory=torch.accelerator.is_available(),
    eval_strategy="epoch",
    save_strategy="epoch",
    save_total_limit=2,
    load_best_model_at_end=True,
    logging_steps=50,
)


def run(main: Callable[[], None]) -> None:
    """Run a recipe as a command.

    A user's mistake and Ctrl-C end it with one line, with status 2 and 130. Other errors, and all errors after the
    first optimizer step, keep their traceback.
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
            if stage.has_begun or "to be installed" not in str(error):  # transformers' words for what report_to needs
                raise
            refuse(f"report_to: {error}")


def _how_to_go_on() -> str:
    """What remains of a run that Ctrl-C has ended, and the command that continues it."""
    folder, flag = stage.output_dir, "resume_from_checkpoint"
    if stage.scores is not None:
        return f"What has been scored is kept; this goes on: {again()}"
    if folder is None:
        return f"Nothing had begun; this begins: {again()}"
    if (folder / RESULTS).exists():
        return f"The run had ended: its results are in {folder}."
    checkpoint = last_whole(folder, lambda reason: None)
    if checkpoint is None:
        return f"No checkpoint had been saved; this begins anew: {again(flag)}"
    return f"This goes on from {checkpoint}: {again(flag)}"


class Laps(dict[str, float]):
    """Seconds of each part of a run; the parts follow each other."""

    def __init__(self):
        super().__init__()
        self._last = time.perf_counter()

    def end(self, part: str) -> None:
        """Give `part` the seconds since the end of the part before it."""
        now = time.perf_counter()
        self[part], self._last = now - self._last, now


class _Begins(TrainerCallback):
    """Notes that training has begun."""

    def on_step_end(self, args, state, control, **kwargs):
        stage.has_begun = True


def train(trainer: Any, checkpoint: str | bool) -> None:
    """Train, from a checkpoint if there is one, and save the model and the state; nothing if a model is scored alone.

    Raises:
        ValueError: Arguments would end the run later with an error, or would train nothing.
    """
    if trainer.args.do_predict and not trainer.args.do_train:  # a saved model is scored alone
        trainer.args.dataloader_drop_last = False
        return
    _check_arguments(trainer, trainer.args)
    trainer.add_callback(_Begins())
    trainer.train(resume_from_checkpoint=checkpoint)
    stage.has_begun = True  # also if no step was left
    trainer.args.dataloader_drop_last = False  # scores need all rows
    trainer.save_model()
    trainer.save_state()


def _check_arguments(trainer: Any, args: TrainingArguments) -> None:
    """Refuse arguments that transformers refuses late, or without naming the flag."""
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
    """Refuse to choose the best model by a metric that is not measured, before hours are spent.

    Args:
        args: Training arguments of the run.
        names: Names of the metrics in validations, beside the loss.

    Raises:
        ValueError: `metric_for_best_model` is not among them.
    """
    known = [*names, "loss"]
    if (metric := args.metric_for_best_model) is not None and metric.removeprefix("eval_") not in known:
        raise ValueError(f"metric_for_best_model={metric!r} is not measured; give one of {', '.join(known)}.")


def find_checkpoint(args: TrainingArguments, policy: Policy | None, *made_with: Any) -> str | bool:
    """The checkpoint to resume from: the one asked for, or the last complete one in output_dir; False if there is none.

    Args:
        args: Training arguments of the run.
        policy: The policy of the run.
        *made_with: Dataclasses of the flags that choose its data and its model.

    Raises:
        ValueError: output_dir can't be written to, or holds a finished run, a run that trains at this moment, or an
            unfinished run with other data, another model, policy, seed or learning rate; or there is no such
            checkpoint.
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
    if str(asked).lower() == "false" or (args.do_predict and not args.do_train):
        return False
    checkpoint = last_whole(folder, warnings.warn)  # one that was being written when the run died does not count
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
    """Make the folder of a run; it may exist already.

    Raises:
        ValueError: It can't be made, or can't be written to.
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
    """A value as it may be shown; a shortened path gets a checksum, because two files may have the same name."""
    if not isinstance(value, str):
        return value
    shown, value = public(value), hide(value)
    return shown if shown == value else f"{shown} ({zlib.crc32(value.encode()):08x})"
