"""The drop-in trainers: stock `Trainer` steps, on the rows that a policy selects, on a clock that follows them."""

import inspect
import logging
import math
import os
import time
from collections.abc import Callable, MutableMapping
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import IterableDataset
from transformers import Seq2SeqTrainer, Trainer
from transformers.trainer_utils import unwrap_peft_model

from . import policies
from .checkpoint import STATE, PruningState, Round, last_whole
from .core import Clock, History, Policy, Selection
from .data import fingerprint, is_arrow, row_tokens
from .meter import Meter
from .recorder import Recorder
from .report import PruningReport
from .sampler import ROW, PruningSampler, RowCollator, RowDataset
from .schedule import FullRun, follow_clock, set_rate

logger = logging.getLogger(__name__)

# What `PruningMixin` overrides of Trainer's own insides, with the parameters that it counts on.
SEAMS = {
    "_get_train_sampler": ("train_dataset",),
    "set_initial_training_values": ("args", "dataloader"),
    "_init_training_state": (
        "max_steps",
        "num_update_steps_per_epoch",
        "num_train_epochs",
        "resume_from_checkpoint",
        "trial",
    ),
    "_run_epoch": ("epoch", "train_dataloader", "steps_in_epoch", "num_update_steps_per_epoch"),
    "_maybe_log_save_evaluate": (),
    "_save_rng_state": ("output_dir",),
    "_finalize_training": ("trial", "num_train_samples", "start_time"),
    "_remove_unused_columns": ("dataset",),
    "_get_collator_with_removed_columns": ("data_collator",),
}


def check_seams(trainer: type = Trainer) -> None:
    """Make sure that this version of transformers has the methods that the mixin overrides.

    Raises:
        ImportError: One is gone or takes other arguments; names it, the versions, and what to install.
    """
    for name, parameters in SEAMS.items():
        method = getattr(trainer, name, None)
        found = inspect.signature(method).parameters if method else {}
        if method is None or not set(parameters) <= set(found):
            raise ImportError(
                f"hf_prune overrides Trainer.{name}({', '.join(parameters)}), which transformers {version('transformers')} "
                f"{'lacks' if method is None else f'has as ({chr(44).join(found)})'}. "
                "Install a version that it knows: pip install 'transformers>=5.3,<6'."
            )


check_seams()


class PruningMixin:
    """Puts a pruning policy into any trainer that descends from `Trainer`; it must come before that class.

    Args:
        *args: The trainer's own.
        policy: Chooses the rows of each round: an object, a name, a name with fields such as "infobatch:ratio=0.3", or
            the dotted path of your own module. None = the plain trainer.
        example_loss_func: (outputs, inputs) -> (B,) losses of the batch's examples in nats, for a model whose loss the
            library has no recipe for. Called on every training batch; the gradient passes through where the policy
            gives weights.
        **kwargs: The trainer's own.

    Attributes:
        policy: The policy in force.

    Raises:
        ValueError: Unknown policy or bad field; a data set whose rows have no number; a signal that the model can't give.
        TypeError: `policy` is neither a policy nor a string.
    """

    def __init__(
        self,
        *args,
        policy: str | Policy | None = None,
        example_loss_func: Callable[[Any, MutableMapping], torch.Tensor] | None = None,
        **kwargs,
    ):
        self.policy = policies.make(policy)
        self.example_loss_func = example_loss_func
        self._pruning: PruningState | None = None
        self._clocked_scheduler = None
        super().__init__(*args, **kwargs)
        if self.policy is not None:
            self._check_dataset()
            self._meter = self._make_meter()

    # ---- What the user sees ----

    @property
    def history(self) -> History | None:
        """What is known of every row, equal on every rank once a round has ended; None before training."""
        return self._pruning and self._pruning.history

    @property
    def selection(self) -> Selection | None:
        """The rows of the round in progress, and what goes with them; None between rounds."""
        return self._pruning and self._pruning.round and self._pruning.round.selection

    def pruning_report(self) -> PruningReport:
        """What was kept and what was left out, so far.

        Raises:
            ValueError: There is no policy, or training has not begun.
        """
        if self._pruning is None:
            raise ValueError("pruning_report(): nothing to report; give the trainer a policy and call train() first.")
        return PruningReport(
            policy=repr(self.policy),
            epochs=list(self._pruning.epochs),
            log_history=self.state.log_history,
            rows=len(self.history),
            faults=int(np.count_nonzero(self.history.faults)),
            seconds_evaluating=self._pruning.seconds_evaluating,
            steps_full=self._full.steps,
        )

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        """Train as `Trainer` does; `resume_from_checkpoint=True` passes over a checkpoint that was not saved whole."""
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_whole(self.args.output_dir, logger.warning) or True
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def log(self, logs, *args, **kwargs):
        """Adds what pruning has done so far to the training logs."""
        if self.policy is not None and "loss" in logs and self._pruning.round is not None:
            logs = {**logs, **self._progress()}
        super().log(logs, *args, **kwargs)

    def create_model_card(self, *args, **kwargs):
        """The stock card with a section on data pruning."""
        if self._pruning is None:
            return super().create_model_card(*args, **kwargs)
        tags = kwargs.get("tags") or []
        kwargs["tags"] = [*([tags] if isinstance(tags, str) else tags), "hf_prune"]
        super().create_model_card(*args, **kwargs)
        if self.is_world_process_zero():
            with open(os.path.join(self.args.output_dir, "README.md"), "a", encoding="utf-8") as card:
                card.write(f"\n{self.pruning_report().card()}\n")

    def evaluate(self, *args, **kwargs):
        """As stock; its seconds are counted."""
        start = time.perf_counter()
        metrics = super().evaluate(*args, **kwargs)
        if self._pruning is not None:
            self._pruning.seconds_evaluating += time.perf_counter() - start
        return metrics

    # ---- Rows ----

    def _check_dataset(self):
        data = self.train_dataset
        if data is not None and (isinstance(data, IterableDataset) or not hasattr(data, "__len__")):
            raise ValueError(
                f"policy={self.policy!r} chooses rows by number, but the rows of train_dataset, a "
                f"{type(data).__name__}, have none. Give a data set with a length, or train without a policy."
            )

    def get_train_dataloader(self):
        """The stock loader over numbered rows."""
        if self.policy is None or self.train_dataset is None:
            return super().get_train_dataloader()
        self._check_dataset()
        data, collator = self.train_dataset, self.data_collator
        if is_arrow(data):
            rows, numbering = self._remove_unused_columns(data, description="Training"), RowCollator(collator)
        else:
            rows, numbering = data, RowCollator(self._get_collator_with_removed_columns(collator, "Training"))
        self._rows, self._raw_dataset, self._sampler = RowDataset(rows), data, None
        self.train_dataset, self.data_collator = self._rows, numbering
        try:
            loader = super().get_train_dataloader()
        finally:
            self.train_dataset, self.data_collator = data, collator
        if self._sampler is None:
            raise ValueError(
                f"{type(self).__name__} builds its training batches without Trainer's sampler, so a policy can't "
                "choose their rows. Train without a policy."
            )
        return loader

    def _get_train_sampler(self, train_dataset=None):
        if not isinstance(train_dataset, RowDataset):
            return super()._get_train_sampler(train_dataset)
        base = super()._get_train_sampler(self._raw_dataset)  # raw: the length column is still there
        seed = torch.initial_seed() if self.args.data_seed is None else self.args.data_seed
        self._sampler = PruningSampler(base, len(self._raw_dataset), seed)
        return self._sampler

    # ---- The run ----

    def set_initial_training_values(self, args, dataloader):
        """The stock numbers make the full run, which the clock follows; the steps of the pruned run are forecast."""
        values = super().set_initial_training_values(args, dataloader)
        if self.policy is None:
            return values
        epochs, updates, *others, steps = values
        by_steps = args.max_steps > 0
        self._full = FullRun(updates, steps, steps / updates if by_steps else args.num_train_epochs, by_steps)
        self._loader = dataloader
        self._begin()
        steps, planned = self._full.total_steps(self._full.plan(0, 0, self._forecast(0, 0)), self._forecast)
        self._planned_epochs = planned if by_steps else epochs
        # Under max_steps the epochs follow; each takes a step at least, and DefaultFlowCallback ends the run.
        return (steps if by_steps else epochs, updates, *others, steps)

    def _begin(self):
        n, data = len(self._raw_dataset), self._raw_dataset
        self._meter = self._make_meter()
        self._recorder = Recorder(len(self._meter.signals))
        history = History.empty(n, self._meter.signals)
        if getattr(self.policy, "unit", "rows") == "tokens":
            config = getattr(self.accelerator.unwrap_model(self.model), "config", None)
            history.tokens[:] = row_tokens(data, bool(getattr(config, "is_encoder_decoder", False)))
        if self.policy.needs and self._full.epochs <= 1:
            logger.warning(f"policy={self.policy!r} learns from earlier epochs; a run of one epoch has none to prune.")
        facts = {
            "policy": repr(self.policy),
            "data": fingerprint(data),
            "batch": self._train_batch_size,
            "accumulation": self.args.gradient_accumulation_steps,
            "processes": self.args.world_size,
        }
        self._pruning = PruningState(history, self._sampler.seed, facts)
        self._weights, self._lr_scale, self._resumed = None, 1.0, False

    def _make_meter(self) -> Meter:
        model = unwrap_peft_model(self.accelerator.unwrap_model(self.model))
        return Meter(model, self.policy, self.example_loss_func)

    def _init_training_state(
        self, max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
    ):
        answer = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )
        if self.policy is None:
            return answer
        self.state.num_train_epochs = self._planned_epochs
        if resume_from_checkpoint is None:
            return answer
        if not os.path.isfile(os.path.join(resume_from_checkpoint, STATE)):
            logger.warning(
                f"{resume_from_checkpoint} holds no {STATE} (it was saved without a policy or with save_only_model): "
                "the policy begins anew and knows nothing of the rows."
            )
            return answer
        facts = self._pruning.facts
        self._pruning, measured = PruningState.load(resume_from_checkpoint, len(self._raw_dataset))
        self._compare(self._pruning.facts, facts, resume_from_checkpoint)
        self._pruning.facts = facts
        self._sampler.seed = self._pruning.seed
        if self._pruning.round is None:
            return len(self._pruning.epochs), 0
        if self.is_world_process_zero():  # the other ranks' measurements are in it
            self._recorder.restore(measured)
        plan = self._pruning.round.plan
        done = self.state.global_step - plan.first_step
        if done >= plan.steps:
            return plan.epoch + 1, 0
        self._resumed = True
        return plan.epoch, 0 if self.args.ignore_data_skip else done * self.args.gradient_accumulation_steps

    def _compare(self, saved: dict[str, Any], ours: dict[str, Any], folder: str):
        if saved["data"] != ours["data"]:
            raise ValueError(
                f"resume_from_checkpoint={folder!r} was saved while training on another data set (its rows differ from "
                "those of train_dataset). Resume with the data set it was made with, in the same order."
            )
        geometry = ("batch", "accumulation", "processes")
        changed = [f"{name} {saved[name]} -> {ours[name]}" for name in geometry if saved[name] != ours[name]]
        if changed and self._pruning.round is not None:
            raise ValueError(
                f"resume_from_checkpoint={folder!r} was saved inside an epoch that was cut into other batches "
                f"({', '.join(changed)}). Resume with the sizes it was made with."
            )
        if saved["policy"] != ours["policy"]:
            logger.warning(
                f"{folder} was saved under {saved['policy']}; from the next epoch on, {self.policy!r} chooses."
            )

    def create_scheduler(self, num_training_steps, optimizer=None):
        """The stock schedule of the full run, read through the clock of the pruned one.

        Raises:
            ValueError: A scheduler that counts its own steps, and so would end before or after the run.
        """
        if self.policy is None:
            return super().create_scheduler(num_training_steps, optimizer)
        scheduler = super().create_scheduler(self._full.steps, optimizer)
        if isinstance(scheduler, LambdaLR):
            if scheduler is not self._clocked_scheduler:  # the user's own comes again at the next train()
                follow_clock(scheduler, self._position, lambda: self._lr_scale)
                self._clocked_scheduler = scheduler
        elif not (self._full.by_steps or hasattr(scheduler, "best")):  # those that follow a metric count no steps
            raise ValueError(
                f"The learning-rate scheduler {type(scheduler).__name__} counts its own steps, and a pruned run has fewer "
                "than the full one. Use a LambdaLR (all of lr_scheduler_type are), or fix the steps by max_steps."
            )
        return scheduler

    def _position(self, step: int) -> float:
        current = self._pruning.round
        return step if current is None or self._full.by_steps else current.plan.position(step)

    # ---- Rounds ----

    def _run_epoch(self, **kwargs):
        if self.policy is None:
            return super()._run_epoch(**kwargs)
        if self._resumed:
            self._resumed = False
        else:
            self._close_round()  # one whose end was saved, but not yet closed
            self._open_round(kwargs["epoch"])
        current = self._pruning.round
        self._sampler.plan(current.clock.epoch, current.selection.rows)
        self._rows.total_dataset_length = len(self._sampler)
        weights = current.selection.weights
        if weights is not None:
            table = torch.ones(len(self.history))
            table[torch.from_numpy(current.selection.rows)] = torch.from_numpy(weights)
            weights = table.to(self.args.device)
        self._weights, self._lr_scale = weights, current.selection.lr_scale
        if self.lr_scheduler is self._clocked_scheduler:
            set_rate(self.lr_scheduler)
        self._show_total(*self._full.total_steps(current.plan, self._forecast))
        kwargs |= {
            "steps_in_epoch": len(kwargs["train_dataloader"]),
            "num_update_steps_per_epoch": current.plan.updates,
        }
        self._mark = time.perf_counter()
        super()._run_epoch(**kwargs)
        self._count_training()
        self._close_round()

    def _open_round(self, epoch: int):
        start = time.perf_counter()
        step = self.state.global_step
        clock = self._clock(epoch, step)
        selection = self.policy.select(self.history, clock, self._rng(epoch)).check(len(self.history))
        if selection.weights is not None and not self.policy.weighs:
            raise ValueError(f"{type(self.policy).__name__} gave weights, but does not declare `weighs = True`.")
        plan = self._full.plan(epoch, step, self._updates(len(selection.rows)))
        self._pruning.round = Round(clock, plan, selection, time.perf_counter() - start)

    def _close_round(self):
        current = self._pruning.round
        if current is None:
            return
        start = time.perf_counter()
        measured = self._recorder.collect(self._gather)
        rows, tokens, values = measured.by_row()
        history = self.history
        history.tokens[rows] = tokens
        if len(values):
            history.record(rows, values[0], current.clock.round, **dict(zip(self._meter.signals[1:], values[1:])))
        self.policy.update(history, current.clock, self._rng(current.clock.epoch, 1))
        known = history.tokens > 0
        steps = self.state.global_step - current.plan.first_step
        offered = len(history) * steps / current.plan.updates  # a last epoch may be a part of one
        self._pruning.epochs.append(
            {
                "epoch": current.clock.epoch,
                "rows_offered": round(offered),
                "rows": len(measured.rows),
                "tokens_offered": round(offered * float(history.tokens[known].mean())) if known.any() else 0,
                "tokens": int(measured.tokens.sum()),
                "padded_tokens": measured.padded_tokens,
                "steps": steps,
                "seconds_training": current.seconds_training,
                "seconds_selecting": current.seconds_selecting + time.perf_counter() - start,
            }
        )
        self._recorder = Recorder(len(self._meter.signals))
        self._pruning.round = None

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self._pruning.seed % 2**64, *key])

    def _clock(self, epoch: int, step: int) -> Clock:
        step_rows = self.get_total_train_batch_size(self.args)
        return Clock(epoch, epoch, self._full.epochs, self._full.share(epoch, step), step_rows)

    def _updates(self, rows: int) -> int:
        """Optimizer steps over `rows` rows; asks the loader, which knows every way to cut batches."""
        planned, self._sampler.length = self._sampler.length, rows
        batches = len(self._loader)
        self._sampler.length = planned
        if batches == 0:
            raise ValueError(
                f"policy={self.policy!r} keeps {rows} rows, which fill no batch of {self._train_batch_size}. Keep more, or "
                "train without dataloader_drop_last."
            )
        return math.ceil(batches / self.args.gradient_accumulation_steps)

    def _forecast(self, epoch: int, step: int) -> int:
        return self._updates(self.policy.forecast(self.history, self._clock(epoch, step)))

    def _show_total(self, steps: int, epochs: int):
        self.state.max_steps = steps
        if self._full.by_steps:
            self.state.num_train_epochs = epochs
        for callback in self.callback_handler.callbacks:
            bar = getattr(callback, "training_bar", None) or getattr(callback, "training_tracker", None)
            if bar is not None:
                bar.total = steps

    def _gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Joins (S, V) arrays of all ranks along V, which may differ; nothing to do for one rank."""
        if self.args.world_size == 1:
            return tensor
        columns = tensor.T.contiguous().to(self.accelerator.device)
        sizes = self.accelerator.gather(torch.tensor([len(columns)], device=columns.device)).tolist()
        padded = columns.new_zeros(max(sizes), columns.shape[1])
        padded[: len(columns)] = columns
        joined = self.accelerator.gather(padded).cpu().split(max(sizes))
        return torch.cat([part[:size] for part, size in zip(joined, sizes, strict=True)]).T

    # ---- Steps ----

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        """The stock loss; what it tells of each row is recorded on the side, and weighted where the policy says so."""
        rows = None if self.policy is None else inputs.pop(ROW, None)
        if rows is None or not (model.training and torch.is_grad_enabled()):
            return super().compute_loss(model, inputs, return_outputs=return_outputs, **kwargs)
        smoothing = self.args.label_smoothing_factor if self.label_smoother and "labels" in inputs else 0.0
        with self._meter.watch(model, inputs) as seen:
            result = super().compute_loss(model, inputs, return_outputs=return_outputs, **kwargs)
        loss, *rest = result if return_outputs else (result,)
        weights = None if self._weights is None else self._weights[rows]
        items = kwargs.get("num_items_in_batch")
        loss = self._meter.measure(rows, seen, loss, self._recorder, weights, smoothing, items, self.args.world_size)
        return (loss, *rest) if return_outputs else loss

    def _progress(self) -> dict[str, float]:
        current, epochs = self._pruning.round, self._pruning.epochs
        losses = self._recorder.drain()
        losses = losses[np.isfinite(losses)]
        counts = torch.tensor([self._recorder.counts()], device=self.accelerator.device)
        rows, tokens = self.accelerator.reduce(counts)[0].tolist()
        logs = {
            "prune/kept": len(current.selection.rows) / len(self.history),
            "prune/rows": rows + sum(epoch["rows"] for epoch in epochs),
            "prune/tokens": tokens + sum(epoch["padded_tokens"] for epoch in epochs),
            "prune/seconds": current.seconds_selecting + sum(epoch["seconds_selecting"] for epoch in epochs),
        }
        if len(losses):
            quantiles = np.quantile(losses, (0.1, 0.5, 0.9)).tolist()
            logs |= dict(zip(("prune/loss_p10", "prune/loss_p50", "prune/loss_p90"), quantiles, strict=True))
        return logs

    def _count_training(self):
        now = time.perf_counter()
        self._pruning.round.seconds_training += now - self._mark
        self._mark = now

    def _maybe_log_save_evaluate(self, *args, **kwargs):
        if self.policy is None:
            return super()._maybe_log_save_evaluate(*args, **kwargs)
        self._count_training()
        super()._maybe_log_save_evaluate(*args, **kwargs)
        self._mark = time.perf_counter()

    # ---- Ends ----

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        if self.policy is not None:
            measured = self._recorder.collect(self._gather)
            if self.args.should_save:
                self._pruning.save(output_dir, measured)

    def _finalize_training(self, trial, num_train_samples, start_time):
        if self.policy is not None:
            self._close_round()  # resumed from the end of the last epoch
            num_train_samples = sum(epoch["rows"] for epoch in self._pruning.epochs)
        return super()._finalize_training(trial, num_train_samples, start_time)


class PruningTrainer(PruningMixin, Trainer):
    """`transformers.Trainer` with a `policy`; everything else is as there.

    Examples:
        trainer = PruningTrainer(model=model, args=args, train_dataset=train, policy="infobatch")
    """


class PruningSeq2SeqTrainer(PruningMixin, Seq2SeqTrainer):
    """`transformers.Seq2SeqTrainer` with a `policy`; everything else is as there."""
