"""What a pruning trainer writes for others: the account beside the weights, the card, and both on the Hub."""

import inspect
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

from transformers import Trainer
from transformers import trainer as hf_trainer
from transformers.modelcard import TASK_MAPPING
from transformers.trainer_utils import unwrap_peft_model

from ..common.generators import unchanged_generators
from ..common.privacy import holds_secret, public
from ..data.kinds import is_arrow
from ..records.history_file import HISTORY
from ..records.hub import first_line
from ..records.table import FILE_ROW, ROWS
from ..report import card
from ..report.account import NUMBERS
from ..report.page import EXAMPLES

logger = logging.getLogger(__name__)

_PLACES = ("dataset", "dataset_tags", "dataset_name", "finetuned_from")  # arguments that may name a path
_FORMATS = ("csv", "json", "pandas", "parquet", "text", "generator", "imagefolder")  # builders, no data sets of the Hub
_COSTS = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")  # no scores
# What no upload takes, in whichever folder: Trainer's own pattern, "_*", looks at the beginning of a path alone. "__"
# begins the names of a checkpoint's shards, and those of what earlier versions left unfinished.
_PRIVATE = ["_[!_]*", "*/_[!_]*", "__*.tmp", "*/__*.tmp"]


class Secret(str):
    """A token that no pickle holds: Trainer saves its arguments, and pushes them."""

    def __reduce__(self):
        return type(None), ()

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self


@contextmanager
def _rows_kept() -> Iterator[None]:
    """Within the block, Trainer's uploads leave out what shows rows, in the folders of runs inside a run's too.

    Trainer takes no patterns of others: for as long as it pushes, what it uploads by is one that adds them.
    """
    place: Any = hf_trainer
    name = "hf_api" if hasattr(place, "hf_api") else "upload_folder"  # which earlier versions call by itself
    own = getattr(place, name)
    setattr(place, name, (lambda: _Uploads(own())) if name == "hf_api" else _filtered(own))
    try:
        yield
    finally:
        setattr(place, name, own)


def _filtered(upload: Any) -> Any:
    """`upload_folder` that leaves out what shows rows."""

    def upload_folder(*args, **kwargs):
        given = kwargs.get("ignore_patterns") or []
        kwargs["ignore_patterns"] = [*([given] if isinstance(given, str) else given), *_PRIVATE]
        return upload(*args, **kwargs)

    return upload_folder


class _Uploads:
    """What Trainer uploads by, with the filter."""

    def __init__(self, api: Any):
        self._api = api

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._api, name)
        return _filtered(value) if name == "upload_folder" else value


class SharingMixin:
    """The part of `PruningMixin` that saves and pushes."""

    def save_model(self, output_dir=None, _internal_call=False):
        """As stock; with what was learnt of every row beside it, for other runs and for `hf-prune report`."""
        self._keep_secrets()
        super().save_model(output_dir, _internal_call)  # the weights first: nothing that follows can cost them
        if not _internal_call:
            self._save_account(output_dir or self.args.output_dir)

    def _save(self, *args, **kwargs):
        self._keep_secrets()
        super()._save(*args, **kwargs)

    def _keep_secrets(self):
        """Leave in the arguments no secret that a pickle of them would hold, whenever it was put there."""
        _keep_in(self.args)

    def create_model_card(
        self,
        *args,
        metrics: dict[str, float] | None = None,
        split: str | None = None,
        command: str | None = None,
        **kwargs,
    ):
        """The stock card with a section on data pruning, tags, and the scores where the Hub looks for them.

        Args:
            *args: As stock; names of data sets that are paths are shortened.
            metrics: Final scores by the names that `evaluate` and the Hub know; None = those of the last evaluation.
            split: The split that they were measured on.
            command: What started the run, for whoever wants to do it again.
            **kwargs: As stock. What the card of another trainer, as of TRL's, has no place for serves the scores alone.
        """
        if self._run is None and not metrics:
            return super().create_model_card(*args, **kwargs)
        for name in set(_PLACES) & set(kwargs):
            named = kwargs[name]
            kwargs[name] = [*map(public, named)] if isinstance(named, (list, tuple)) else named and public(named)
        takes = inspect.signature(super().create_model_card).parameters
        given = {**dict(zip(takes, args, strict=False)), **kwargs}
        stock = inspect.signature(Trainer.create_model_card).parameters
        kwargs = {name: value for name, value in kwargs.items() if name in takes or name not in stock}
        if self._run is not None:
            tags = kwargs.get("tags") or []
            kwargs["tags"] = [*([tags] if isinstance(tags, str) else tags), *card.tags_of(self._run.policy)]
        log = self.state.log_history  # stock takes every number beside an evaluation for a score
        self.state.log_history = [
            {name: value for name, value in entry.items() if not name.startswith("prune/")} for entry in log
        ]
        optim_args = self.args.optim_args  # the one free text that stock's list of hyper-parameters has
        self.args.optim_args = optim_args and public(optim_args)
        try:
            super().create_model_card(*args, **kwargs)
        finally:
            self.state.log_history, self.args.optim_args = log, optim_args
        if self.is_world_process_zero():
            error = _error_of(lambda: self._write_card(metrics, split, command, given))
            if error is not None:
                self._warn_once(f"The model card lacks its section on data pruning, and the scores ({error}).")

    def _write_card(self, metrics: dict[str, float] | None, split: str | None, command: str | None, given):
        """Add to the card that stock has written."""
        sections = [] if self._run is None else self._card_sections(command)
        scores, path = metrics or self._last_scores(), Path(self.args.output_dir, "README.md")
        model = unwrap_peft_model(self.accelerator.unwrap_model(self.model))
        base = getattr(getattr(model, "config", None), "_name_or_path", "") or ""
        is_local = Path(base).name and (Path(base).is_dir() or public(base) != base)
        base = Path(public(base)).absolute().name if is_local else None
        card.write_card(path, sections, scores, base, dataset_split=split, **self._about_scores(given))

    def push_to_hub(self, *args, **kwargs):
        """As stock, with the account of the run beside the weights; arguments of `create_model_card` go on to it."""
        self._save_account(self.args.output_dir)
        try:
            with _rows_kept():
                return super().push_to_hub(*args, **kwargs)
        except Exception:
            self._warn(
                "The upload to the Hub failed, for the reason below; all of it lies in output_dir. Call "
                "trainer.push_to_hub() again: what had arrived is not sent twice."
            )
            raise

    def _push_from_checkpoint(self, checkpoint_folder):
        before, args = self._uploads(), self.args
        waits = not args.hub_always_push and not all(job.done() for job in before)  # then stock leaves this push out
        if self._run is not None and self.is_world_process_zero() and args.hub_strategy != "end" and not waits:
            self._save_account(args.output_dir)
            error = _error_of(lambda: self.create_model_card(model_name=self.hub_model_id.split("/")[-1]))
            if error is not None:
                self._warn_once(f"The model card could not be written ({error}); training goes on without it.")
        self._keep_secrets()
        with _rows_kept():
            super()._push_from_checkpoint(checkpoint_folder)
        for job in self._uploads():
            if job not in before:
                job.add_done_callback(self._tell_failure)  # stock leaves its error where nobody looks

    def _uploads(self) -> list[Any]:
        """Those that run beside training, or have lately."""
        pushes = getattr(self, "push_in_progress", None)
        return list(pushes.jobs) if pushes else []

    def _tell_failure(self, job):
        if not job.cancelled() and (error := job.exception()):
            self._warn(
                f"An upload to the Hub failed ({first_line(error)}); training goes on, and the next save uploads what "
                "is then there. After training, call trainer.push_to_hub()."
            )

    def _save_account(self, folder):
        """Write what is for people, and for other runs; what can't be written is named, and costs this run nothing."""
        if self._run is None or not self.args.should_save:
            return
        self._missing = {}  # which the report tells from now on
        self._attempt(HISTORY, lambda: self._run.save_history(os.path.join(folder, HISTORY)))
        self._attempt("the report", lambda: self._save_report(folder))
        if HISTORY in self._missing:
            self._warn_once(
                f"{folder}: {HISTORY} COULD NOT BE WRITTEN ({self._missing[HISTORY]}). Without it no other run can "
                "begin with what this one has learnt, and there is no report. This run goes on; mend the cause, and "
                "call trainer.save_model() again."
            )
        if others := [f"{name} ({error})" for name, error in self._missing.items() if name != HISTORY]:
            self._warn_once(f"{folder}: the account of this run lacks {'; '.join(others)}. The run itself goes on.")

    def _save_report(self, folder: str):
        report, data, config = self.pruning_report(), self._raw_dataset, getattr(self.model, "config", None)

        def save_rows():
            is_numbered = is_arrow(data) and FILE_ROW in data.column_names
            report.save_rows(folder, data.with_format("numpy")[FILE_ROW][:] if is_numbered else None)

        def save_examples():
            with unchanged_generators():  # training may go on, and reading a row may draw from them
                report.save_examples(data, self.processing_class, getattr(config, "id2label", None))

        self._attempt(ROWS, save_rows)
        self._attempt(EXAMPLES, save_examples)
        self._attempt(NUMBERS, lambda: replace(report, missing=self._missing).save(Path(folder, NUMBERS)))
        if self._run.state.epochs and report.flaws:
            self._warn_once(f"{folder}: {' '.join(report.flaws)}")

    def _attempt(self, name: str, write: Callable[[], None]):
        if (error := _error_of(write)) is not None:
            self._missing[name] = error

    def _warn_once(self, message: str):
        if message not in self._told:
            self._told.add(message)
            self._warn(message)

    def _card_sections(self, command: str | None) -> list[str]:
        setup, args = self._run.state.setup, self.args
        known = {
            "rows of the training set": f"{len(self.history):,}",
            "fingerprint of the training set": setup.data,
            "seed": args.seed,
            "seed of the order and of every selection": self._run.state.seed,
            "rows in an optimizer step": f"{setup.batch} x {setup.accumulation}",
            "earlier runs that this one began with": self._earlier_cost and self._earlier_cost["runs"],
        }
        return [
            self.pruning_report().card(),
            card.budget(self._run.policy),
            card.baselines(args.output_dir),
            card.reproduction(self._run.policy, command, known),
        ]

    def _about_scores(self, given: dict[str, Any]) -> dict[str, str | None]:
        """The task and the data set of the scores, as far as they are told or can be seen."""
        task = given.get("tasks")
        if not task:
            name = type(unwrap_peft_model(self.accelerator.unwrap_model(self.model))).__name__
            task = next((task for task, models in TASK_MAPPING.items() if name in models.values()), None)
        dataset = next((given[name] for name in _PLACES[:3] if given.get(name)), None)
        config = None
        data = self.train_dataset if self.eval_dataset is None else self.eval_dataset
        if not dataset and is_arrow(data) and data.builder_name not in _FORMATS:
            dataset, config = data.builder_name, data.config_name
        task, dataset = (value if isinstance(value, str) or not value else value[0] for value in (task, dataset))
        return {
            "task_type": task,
            "dataset_type": dataset and dataset.replace(" ", "-"),
            "dataset_name": dataset,
            "dataset_config": config,
        }

    def _last_scores(self) -> dict[str, float]:
        for entry in reversed(self.state.log_history):
            found = {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_")}
            if found:
                return {name: value for name, value in found.items() if not name.endswith(_COSTS)}
        return {}


def _error_of(write: Callable[[], None]) -> str | None:
    """Write something for people; why that failed, in a line, None where it did not.

    Whatever it is, it is no reason to lose a run: a full disk, a library that is missing, a text that can't be encoded.
    """
    try:
        write()
    except Exception as error:
        return f"{type(error).__name__}: {first_line(error)}"
    return None


def _keep_in(owner: Any) -> None:
    """Replace the secrets among an object's fields by texts that no pickle holds."""
    for name, value in list(vars(owner).items()):
        kept = _kept(name, value)
        if kept is not value:
            object.__setattr__(owner, name, kept)


def _kept(name: str, value: Any) -> Any:
    """The same value, or a copy in which secrets are kept from pickles."""
    if isinstance(value, str):
        return Secret(value) if not isinstance(value, Secret) and holds_secret(name, value) else value
    if type(value) is dict:
        copy = {key: _kept(str(key), entry) for key, entry in value.items()}
        return copy if any(copy[key] is not value[key] for key in value) else value
    if type(value) in (list, tuple):
        copy = type(value)(_kept(name, entry) for entry in value)
        return copy if any(a is not b for a, b in zip(copy, value, strict=True)) else value
    if is_dataclass(value) and not isinstance(value, type):
        _keep_in(value)
    return value
