"""Files that a pruning trainer writes for people and for other runs: the account beside the weights, and the card."""

import inspect
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import Trainer
from transformers.modelcard import TASK_MAPPING
from transformers.trainer_utils import unwrap_peft_model

from ..common.generators import unchanged_generators
from ..common.privacy import public
from ..data import Brief
from ..data.columns import file_rows_of
from ..data.kinds import is_arrow
from ..records.history_file import HISTORY
from ..records.hub import first_line
from ..records.table import ROWS
from ..report import card
from ..report.account import NUMBERS
from ..report.entries import COSTS
from ..report.page import EXAMPLES, RunReport
from ..report.rows import BRIEF
from .loop import Loop
from .owned import Owned
from .rows import padding_causes
from .uploads import uploads_of

_PLACES = ("dataset", "dataset_tags", "dataset_name", "finetuned_from")  # arguments that may name a path
_FORMATS = ("csv", "json", "pandas", "parquet", "text", "generator", "imagefolder")  # builders, not Hub data sets


class Sharing(Owned):
    """Writes what a trainer's latest run did, for people and for other runs. A failed write never stops the run.

    Args:
        trainer: The trainer.
        warn: Called with what could not be written.

    Attributes:
        loop: The latest run; None before the first run, or if the latest run had no policy.
    """

    def __init__(self, trainer: Trainer, warn: Callable[[str], None]):
        super().__init__(trainer)
        self.loop: Loop | None = None
        self._warn = warn
        self._missing: dict[str, str] = {}  # what the latest account lacks, and why
        self._warned: set[str] = set()

    def report(self) -> RunReport:
        """Report what was kept and pruned so far.

        Raises:
            ValueError: There is no policy, or training has not begun.
        """
        if (loop := self.loop) is None:
            raise ValueError("pruning_report(): nothing to report; give the trainer a policy and call train() first.")
        engine, output_dir = loop.engine, str(self.trainer.args.output_dir)
        history, epochs = engine.state.history, engine.state.epochs
        return RunReport(
            policy=public(repr(engine.policy)),
            epochs=list(epochs),
            log_history=self.trainer.state.log_history,
            rows=len(history),
            faults=int(np.count_nonzero(history.faults)),
            seconds_evaluating=engine.state.seconds_evaluating,
            steps_full=round(sum(epoch["steps_full"] for epoch in epochs)),
            earlier=loop.earlier_cost,
            missing=dict(self._missing),
            padding_causes=padding_causes(self.trainer, loop.training, engine, loop.meter),
            about=self._about_run(output_dir, loop.training.data),
            run=Path(output_dir) if loop.trace is None else loop.trace.run,
            history=history,
            source=self._brief(loop),
        )

    def _about_run(self, output_dir: str, data: Any) -> dict[str, str]:
        """Return the names of the run, the model and the data, as anybody may see them."""
        model = self._model()
        base = getattr(getattr(model, "config", None), "_name_or_path", "") or ""
        kind = type(model).__name__
        found = {
            "run": public(str(self.trainer.args.run_name or "")) or Path(output_dir).absolute().name,
            "model": f"{Path(public(base)).name if Path(base).is_dir() else public(base)} ({kind})" if base else kind,
        }
        if is_arrow(data) and data.builder_name and data.builder_name not in _FORMATS:
            found["data"] = data.builder_name
        return found

    def _brief(self, loop: Loop) -> Brief:
        names = getattr(getattr(self.trainer.model, "config", None), "id2label", None)
        return Brief(loop.training.data, self.trainer.processing_class, names or {}, loop.meter.is_encoder_decoder)

    def told(self) -> RunReport:
        """Return the report that the user gets; a subclass may override it."""
        trainer: Any = self.trainer
        return trainer.pruning_report()

    # ---- The account ----

    def save_account(self, folder: str) -> None:
        """Write the account of the run into a folder. A failed write is only warned about."""
        if (loop := self.loop) is None or not self.trainer.args.should_save:
            return
        self._missing = {}  # the report names these
        self._attempt(HISTORY, lambda: loop.engine.save_history(os.path.join(folder, HISTORY)))
        self._attempt("the report", lambda: self._save_report(folder, loop))
        if HISTORY in self._missing:
            self._warn_once(
                f"{folder}: {HISTORY} COULD NOT BE WRITTEN ({self._missing[HISTORY]}). Without it no other run can "
                "begin with what this one has learnt, and there is no report. This run goes on; mend the cause, and "
                "call trainer.save_model() again."
            )
        if others := [f"{name} ({error})" for name, error in self._missing.items() if name != HISTORY]:
            self._warn_once(f"{folder}: the account of this run lacks {'; '.join(others)}. The run itself goes on.")

    def _save_report(self, folder: str, loop: Loop) -> None:
        report, data, config = self.told(), loop.training.data, getattr(self.trainer.model, "config", None)

        def save_examples():
            with unchanged_generators():  # training may continue, and reading a row may draw random numbers
                report.save_examples(data, self.trainer.processing_class, getattr(config, "id2label", None))

        def save_brief():
            with unchanged_generators():
                report.save_brief()

        self._attempt(ROWS, lambda: report.save_rows(folder, file_rows_of(data)))
        self._attempt(BRIEF, save_brief)
        self._attempt(EXAMPLES, save_examples)
        self._attempt(NUMBERS, lambda: replace(report, missing=self._missing).save(Path(folder, NUMBERS)))
        if loop.engine.state.epochs and report.flaws:
            self._warn_once(f"{folder}: {' '.join(report.flaws)}")

    def _attempt(self, name: str, write: Callable[[], Any]) -> None:
        if (error := _error_of(write)) is not None:
            self._missing[name] = error

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            self._warn(message)

    # ---- The card ----

    def make_card(
        self,
        stock: Callable[..., None],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        metrics: dict[str, float] | None,
        split: str | None,
        command: str | None,
    ) -> None:
        """Write the trainer's own card, and add what `PruningMixin.create_model_card` describes.

        Args:
            stock: `create_model_card` of Trainer, or of another trainer, which may take fewer arguments.
            args: Positional arguments of `stock`.
            kwargs: Keyword arguments of `stock`.
            metrics: See `PruningMixin.create_model_card`.
            split: See `PruningMixin.create_model_card`.
            command: See `PruningMixin.create_model_card`.
        """
        if self.loop is None and not metrics:
            return stock(*args, **kwargs)
        for name in set(_PLACES) & set(kwargs):
            named = kwargs[name]
            kwargs[name] = [*map(public, named)] if isinstance(named, (list, tuple)) else named and public(named)
        takes = inspect.signature(stock).parameters
        given = {**dict(zip(takes, args, strict=False)), **kwargs}
        known = inspect.signature(Trainer.create_model_card).parameters
        kwargs = {name: value for name, value in kwargs.items() if name in takes or name not in known}
        if self.loop is not None:
            tags = kwargs.get("tags") or []
            kwargs["tags"] = [*([tags] if isinstance(tags, str) else tags), *card.tags_of(self.loop.engine.policy)]
        self._make_public(stock, args, kwargs)
        if self.trainer.is_world_process_zero():
            error = _error_of(lambda: self._add_to_card(metrics, split, command, given))
            if error is not None:
                self._warn_once(f"The model card lacks its section on data pruning, and the scores ({error}).")

    def _make_public(self, stock: Callable[..., None], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Write the trainer's own card. It reads its values from the trainer, so we hide private ones meanwhile."""
        state, settings = self.trainer.state, self.trainer.args
        log = state.log_history  # the card takes every number beside an evaluation for a score
        state.log_history = [
            {name: value for name, value in entry.items() if not name.startswith("prune/")} for entry in log
        ]
        optim_args = settings.optim_args  # the only free text among the hyper-parameters of the card
        settings.optim_args = optim_args and public(optim_args)
        try:
            stock(*args, **kwargs)
        finally:
            state.log_history, settings.optim_args = log, optim_args

    def _add_to_card(
        self, metrics: dict[str, float] | None, split: str | None, command: str | None, given: dict[str, Any]
    ) -> None:
        """Add our sections and the scores to the trainer's own card."""
        sections = [] if self.loop is None else self._sections(command, self.loop)
        scores = metrics or self._last_scores()
        base = getattr(getattr(self._model(), "config", None), "_name_or_path", "") or ""
        is_local = Path(base).name and (Path(base).is_dir() or public(base) != base)
        base = Path(public(base)).absolute().name if is_local else None
        path = Path(str(self.trainer.args.output_dir), "README.md")
        card.write_card(path, sections, scores, base, dataset_split=split, **self._about_scores(given))

    def _sections(self, command: str | None, loop: Loop) -> list[str]:
        engine, args, earlier = loop.engine, self.trainer.args, loop.earlier_cost
        setup = engine.state.setup
        known = {
            "rows of the training set": f"{len(engine.state.history):,}",
            "fingerprint of the training set": setup.data,
            "seed": args.seed,
            "seed of the order and of every selection": engine.state.seed,
            "rows in an optimizer step": f"{setup.batch} x {setup.accumulation}",
            "earlier runs that this one began with": earlier and earlier["runs"],
        }
        report = self.told()
        judged = f"What the losses say about labels: {report.judgement.line}"
        said = [line for line in (report.left_out_by_list, judged) if line is not None]
        return [
            report.card(),
            " ".join(said),
            card.budget(engine.policy),
            card.baselines(str(args.output_dir)),
            card.reproduction(engine.policy, command, known),
        ]

    def _about_scores(self, given: dict[str, Any]) -> dict[str, str | None]:
        """Return the task and the data set of the scores, if they are given or can be inferred."""
        task = given.get("tasks")
        if not task:
            name = type(self._model()).__name__
            task = next((task for task, models in TASK_MAPPING.items() if name in models.values()), None)
        dataset = next((given[name] for name in _PLACES[:3] if given.get(name)), None)
        config = None
        data: Any = self.trainer.train_dataset if self.trainer.eval_dataset is None else self.trainer.eval_dataset
        if not dataset and is_arrow(data) and data.builder_name not in _FORMATS:
            dataset, config = data.builder_name, data.config_name
        task, dataset = (value if isinstance(value, str) or not value else value[0] for value in (task, dataset))
        return {
            "task_type": task,
            "dataset_type": dataset and dataset.replace(" ", "-"),
            "dataset_name": dataset,
            "dataset_config": config,
        }

    def _model(self) -> Any:
        """Return the user's model, without wrappers."""
        model: Any = self.trainer.accelerator.unwrap_model(self.trainer.model)
        return unwrap_peft_model(model)

    def _last_scores(self) -> dict[str, float]:
        for entry in reversed(self.trainer.state.log_history):
            found = {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_")}
            if found:
                return {name: value for name, value in found.items() if not name.endswith(COSTS)}
        return {}

    # ---- The Hub ----

    def prepare_push(self) -> list[Any]:
        """Write account and card, if a checkpoint will be uploaded. Return the uploads in progress."""
        before, args = uploads_of(self.trainer), self.trainer.args
        waits = not args.hub_always_push and not all(job.done() for job in before)  # then Trainer skips this push
        pushes = self.trainer.is_world_process_zero() and args.hub_strategy != "end" and not waits
        if self.loop is not None and pushes:
            self.save_account(str(args.output_dir))
            name: Any = self.trainer.hub_model_id
            error = _error_of(lambda: self.trainer.create_model_card(model_name=name.split("/")[-1]))
            if error is not None:
                self._warn_once(f"The model card could not be written ({error}); training goes on without it.")
        return before

    def watch_push(self, before: list[Any]) -> None:
        """Warn if an upload that started since `prepare_push` fails: Trainer does not report such errors.

        Args:
            before: The result of `prepare_push`.
        """
        for job in uploads_of(self.trainer):
            if job not in before:
                job.add_done_callback(self._tell_failure)

    def _tell_failure(self, job: Any) -> None:
        if not job.cancelled() and (error := job.exception()):
            self._warn(
                f"An upload to the Hub failed ({first_line(error)}); training goes on, and the next save uploads what "
                "is then there. After training, call trainer.push_to_hub()."
            )


def _error_of(write: Callable[[], Any]) -> str | None:
    """Call `write`. Return the reason of a failure in one line; None = it succeeded.

    We catch every error (a full disk, a missing library, a text that can't be encoded): none is worth losing a run.
    """
    try:
        write()
    except Exception as error:
        return f"{type(error).__name__}: {first_line(error)}"
    return None
