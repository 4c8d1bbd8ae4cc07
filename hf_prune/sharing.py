"""What a pruning trainer writes for others: the account beside the weights, the card, and both on the Hub."""

import inspect
import logging
import os
from pathlib import Path
from typing import Any

from transformers import Trainer
from transformers.modelcard import TASK_MAPPING
from transformers.trainer_utils import unwrap_peft_model

from . import card
from .beginning import HISTORY
from .data import is_arrow
from .export import FILE_ROW
from .generators import unchanged_generators
from .hub import first_line

logger = logging.getLogger(__name__)

_PLACES = ("dataset", "dataset_tags", "dataset_name", "finetuned_from")  # arguments that may name a path
_FORMATS = ("csv", "json", "pandas", "parquet", "text", "generator", "imagefolder")  # builders, no data sets of the Hub
_COSTS = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")  # no scores


class Secret(str):
    """A token that no pickle holds: Trainer saves its arguments, and pushes them."""

    def __reduce__(self):
        return type(None), ()

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self


class SharingMixin:
    """The part of `PruningMixin` that saves and pushes."""

    def save_model(self, output_dir=None, _internal_call=False):
        """As stock; with what was learnt of every row beside it, for other runs and for `hf-prune report`."""
        super().save_model(output_dir, _internal_call)  # the weights first: nothing that follows can cost them
        if not _internal_call:
            self._save_account(output_dir or self.args.output_dir)

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
            kwargs[name] = (
                [*map(card.public, named)] if isinstance(named, (list, tuple)) else named and card.public(named)
            )
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
        try:
            super().create_model_card(*args, **kwargs)
        finally:
            self.state.log_history = log
        if self.is_world_process_zero():
            sections = [] if self._run is None else self._card_sections(command)
            scores, path = metrics or self._last_scores(), Path(self.args.output_dir, "README.md")
            model = unwrap_peft_model(self.accelerator.unwrap_model(self.model))
            base = getattr(getattr(model, "config", None), "_name_or_path", "") or ""
            is_local = Path(base).name and (Path(base).is_dir() or card.public(base) != base)
            base = Path(base).absolute().name if is_local else None
            card.write_card(path, sections, scores, base, dataset_split=split, **self._about_scores(given))

    def push_to_hub(self, *args, **kwargs):
        """As stock, with the account of the run beside the weights; arguments of `create_model_card` go on to it."""
        self._save_account(self.args.output_dir)
        try:
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
            self.create_model_card(model_name=self.hub_model_id.split("/")[-1])
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
        if self._run is None or not self.args.should_save:
            return
        self._run.save_history(os.path.join(folder, HISTORY))
        report, data, config = self.pruning_report(), self._raw_dataset, getattr(self.model, "config", None)
        is_numbered = is_arrow(data) and FILE_ROW in data.column_names
        try:
            report.save_account(folder, data.with_format("numpy")[FILE_ROW][:] if is_numbered else None)
        except ImportError as error:
            self._warn(str(error))
        with unchanged_generators():  # training may go on, and reading a row may draw from them
            report.save_examples(data, self.processing_class, getattr(config, "id2label", None))
        if self._run.state.epochs and report.flaws:
            self._warn(f"{folder}: {' '.join(report.flaws)}")

    def _card_sections(self, command: str | None) -> list[str]:
        facts, args = self._run.state.facts, self.args
        known = {
            "rows of the training set": f"{len(self.history):,}",
            "fingerprint of the training set": facts["data"],
            "seed": args.seed,
            "seed of the order and of every selection": self._run.state.seed,
            "rows in an optimizer step": f"{facts['batch']} x {facts['accumulation']}",
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
