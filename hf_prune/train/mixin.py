"""What makes a trainer prune: stock steps, on the rows that a policy selects, on a clock that follows them."""

import inspect
import logging
import os
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import unwrap_peft_model

from .. import policies
from ..common.generators import unchanged_generators
from ..common.privacy import hide, public
from ..core import BudgetPolicy, Policy, Selection
from ..data.fingerprint import fingerprint
from ..data.kinds import has_own_loss, is_arrow
from ..measure.meter import Meter
from ..measure.recorder import Recorder
from ..records.history import History
from ..records.trace import FOLDER, Trace
from ..records.warm_start import Facts
from ..report.page import RunReport
from . import seal
from .checkpoint import STATE, TRAINER_STATE, Setup, choose, without_state
from .collator import Batch
from .compat import check_seams
from .engine import Engine
from .events import PlainLoader, RoundEvents, show_total
from .idle import why_idle
from .loading import LoadingMixin
from .lock import RunLock
from .logs import LogsMixin
from .ranks import Ranks
from .rescore import rescore
from .resume import check_at_epochs_end
from .rows import RowsMixin
from .sampler import PruningSampler, check_equal_batches
from .schedule import Place, UnprunedSchedule, follow_clock, set_rate
from .sentences import SentencesMixin, cuts_batches
from .sharing import SharingMixin
from .steps import StepsMixin

logger = logging.getLogger(__name__)

check_seams(Trainer)


class PruningMixin(StepsMixin, LogsMixin, RowsMixin, SentencesMixin, SharingMixin, LoadingMixin):
    """Puts a pruning policy into any trainer that descends from `Trainer`; it must come before that class.

    Args:
        *args: The trainer's own.
        policy: Chooses the rows of each round: an object, a name, a name with fields such as "infobatch:ratio=0.3", or
            the dotted path of your own module. None = the plain trainer.
        history: What an earlier run learnt of the same rows, which the policy takes in before its first round: a
            `History`, its file, the folder that a run saved its model in, or a repository of the Hub that holds it.
        history_key: Column of the training set that names each row by a text or whole number of its own. It is saved
            with the History (as hashes), and rows of an earlier one that has such names are matched by them, whatever
            was filtered, added or put in another order since. Any other data set than a `datasets.Dataset` is read
            once for it. None = rows go by their place.
        example_loss_func: (outputs, inputs) -> (B,) losses of the batch's examples in nats, for a model whose loss the
            library has no recipe for. Called on every training batch; the gradient passes through where the policy
            gives weights. Of sentence-transformers, `outputs` are the embeddings (B, H) of each text column, or a
            cross-encoder's scores, in a list.
        **kwargs: The trainer's own.

    Raises:
        ValueError: Unknown policy or bad field; rows that have no number; a signal that the model or a fact that the
            data set can't give; an earlier history of other rows, or none where the policy needs one.
        TypeError: `policy` is neither a policy nor a string.
    """

    def __init__(
        self,
        *args,
        policy: str | Policy | None = None,
        history: str | os.PathLike | History | None = None,
        history_key: str | None = None,
        example_loss_func: Callable[[Any, MutableMapping], torch.Tensor] | None = None,
        **kwargs,
    ):
        self.policy = policy
        if self.policy is None and (history, history_key) != (None, None):
            name = "history" if history_key is None else "history_key"
            raise ValueError(f"{name}=...: only a policy can use an earlier history; give policy=, or leave it out.")
        self.example_loss_func = example_loss_func
        self._run: Engine | None = None
        self._meter: Meter | None = None
        self._trace: Trace | None = None
        self._clocked_scheduler = None
        self._facts: Facts | None = None
        self._earlier = history
        self._key = history_key
        self._is_evaluating = False
        self._makes_loader = False
        self._has_begun: bool | None = None  # whether the `train` in progress has come to Trainer's loop
        self._batch: Batch | None = None
        self._sampler: PruningSampler | None = None
        self._lock = RunLock()
        self._missing: dict[str, str] = {}
        self._told: set[str] = set()
        super().__init__(*args, **kwargs)
        self._keep_secrets()
        if self.policy is not None:
            self._check_dataset()
            self._check_own_sampler()
            meter = self._make_meter()
            if self.train_dataset is not None:
                self._begin_history(self.train_dataset, meter)

    # ---- What the user sees ----

    @property
    def policy(self) -> Policy | None:
        """The policy in force; another one, given as to the constructor, chooses from the next `train()` on."""
        return self._policy

    @policy.setter
    def policy(self, policy: str | Policy | None):
        self._policy = policies.make(policy)

    @property
    def history(self) -> History | None:
        """What is known of every row, equal on every rank once a round has ended; None before training."""
        return self._run and self._run.state.history

    @property
    def selection(self) -> Selection | None:
        """The rows of the round in progress, and what goes with them; None between rounds."""
        return self._run and self._run.state.round and self._run.state.round.selection

    def pruning_report(self) -> RunReport:
        """What was kept and what was left out, so far, as numbers, Markdown, figures and a page.

        Raises:
            ValueError: There is no policy, or training has not begun.
        """
        if self._run is None:
            raise ValueError("pruning_report(): nothing to report; give the trainer a policy and call train() first.")
        return RunReport(
            policy=public(repr(self._run.policy)),
            epochs=list(self._run.state.epochs),
            log_history=self.state.log_history,
            rows=len(self.history),
            faults=int(np.count_nonzero(self.history.faults)),
            seconds_evaluating=self._run.state.seconds_evaluating,
            steps_full=round(sum(epoch["steps_full"] for epoch in self._run.state.epochs)),
            earlier=self._earlier_cost,
            missing=dict(self._missing),
            padding_causes=self._padding_causes(),
            run=Path(self.args.output_dir) if self._trace is None else self._trace.run,
            history=self.history,
        )

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        """Train as `Trainer` does; `resume_from_checkpoint=True` passes over a checkpoint that is not whole.

        Raises:
            ValueError: The checkpoint that was asked for is not whole, or there is none; or another run trains in
                `output_dir` at this moment.
        """
        if self.policy is None:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        if resume_from_checkpoint not in (None, False):
            # all go on from the main process's, whatever each of them can read
            found = [None]
            if self.is_world_process_zero():
                found = [choose(resume_from_checkpoint, self.args.output_dir, self._warn)]
            resume_from_checkpoint, refusal = broadcast_object_list(found)[0]
            if refusal is not None:
                raise ValueError(refusal)
        self._has_begun = False
        try:
            output = super().train(resume_from_checkpoint, *args, **kwargs)
            if self._has_begun is False:
                self._warn(
                    f"policy={self.policy!r} has chosen nothing: {type(self).__name__}.train trains without Trainer's "
                    "own loop."
                )
            elif wasted := self.pruning_report().padding():
                self._warn(wasted)
            return output
        finally:
            self._has_begun = None
            self._lock.release()

    def _warn(self, message: str):
        if self.is_world_process_zero():
            logger.warning(message)

    # ---- The run ----

    def _inner_training_loop(self, *args, **kwargs):
        self._has_begun = True
        self._makes_loader = True  # until `set_initial_training_values`; who asks for one later gets the stock one
        return super()._inner_training_loop(*args, **kwargs)

    def set_initial_training_values(self, args, dataloader):
        """The stock numbers make the full run, which the clock follows; the steps of the pruned run are forecast."""
        values = super().set_initial_training_values(args, dataloader)
        self._makes_loader = False
        if self.policy is None:
            return values
        epochs, updates, *others, steps = values
        by_steps = args.max_steps > 0
        full = UnprunedSchedule(updates, steps, steps / updates if by_steps else args.num_train_epochs, by_steps)
        self._next_run = self._make_run(full, dataloader)  # begins in `_init_training_state`: others may ask too
        steps, begun = self._next_run.forecast()
        self._planned_epochs = begun if by_steps else epochs
        # Under max_steps the epochs follow; each takes a step at least, and DefaultFlowCallback ends the run.
        return (steps if by_steps else epochs, updates, *others, steps)

    def _make_meter(self) -> Meter:
        if "grad_norm" in self.policy.needs and (self.args.torch_compile or self.args.n_gpu > 1):
            raise ValueError(
                f"policy={self.policy!r} reads what goes into the model's head, which torch_compile=True and "
                "nn.DataParallel hide. Train without torch_compile, with a process for each GPU (accelerate launch)."
            )
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        peft = getattr(model, "active_peft_config", None)
        self._set_signature_columns_if_needed()
        if cuts_batches(self):
            return Meter(model, self.policy, self._row_losses(), self._signature_columns, reads_all=True)
        columns = set(self._signature_columns)
        if is_arrow(self.train_dataset) and has_own_loss(self.train_dataset.column_names):
            columns = set(self.train_dataset.column_names) - {"label"}
        shares = {1.0, 1 / self.args.gradient_accumulation_steps}
        multiples = {factor * share for factor in (1, self._loss_factor) for share in shares}
        if self.label_smoother is not None and self.compute_loss_func is None:
            multiples = set()
        return Meter(unwrap_peft_model(model), self.policy, self.example_loss_func, columns, multiples, peft)

    def _check_own_sampler(self):
        if self.train_dataset is None or self._own_sampler is None:
            return
        try:
            with unchanged_generators():
                PruningSampler(self._own_sampler(self.train_dataset), len(self.train_dataset), 0)
        except ValueError as error:
            raise ValueError(f"{type(self).__name__} has a training sampler of its own. {error}") from error

    def _make_run(self, full: UnprunedSchedule, loader: DataLoader) -> Engine:
        self._check_sampler()
        shared = getattr(self.accelerator, "parallelism_config", None)
        if shared is not None and (shared.cp_enabled or getattr(shared, "sp_enabled", False)):
            raise ValueError(
                f"policy={self.policy!r} needs whole rows, but context and sequence parallelism give each process "
                "a part of a row's tokens. Train without them, or without a policy."
            )
        data, sampler, meter = self._raw_dataset, self._sampler, self._make_meter()
        (sampler.seed,) = broadcast_object_list([sampler.seed])  # a script may seed each process by itself
        self._check_equal_rows(data)
        if self.is_world_process_zero():
            meter.warn_if_blind()
        history = self._begin_history(data, meter)
        if not isinstance(self.policy, BudgetPolicy):  # that one keeps whole optimizer steps
            check_equal_batches(loader)
        sampler.is_cut_by(loader, self.args.gradient_accumulation_steps)
        setup = Setup(
            policy=hide(repr(self.policy)),  # a checkpoint may be pushed
            data=fingerprint(data),
            batch=self._unit,
            accumulation=self.args.gradient_accumulation_steps,
            order=sampler.kind,
            key=self._key,
        )
        self._meter = meter
        run = Engine(self.policy, full, history, sampler, meter, setup, Ranks(self.accelerator))
        if reason := why_idle(self.policy, full, len(history), setup.step_rows, self._earlier is not None):
            run.idle.close()  # once is enough
            self._warn(reason)
        return run

    def _init_training_state(
        self, max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
    ):
        answer = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )
        if self.policy is None:
            self._run = None
            return answer
        self._hold(trial)
        self._run = self._next_run
        self._trace = None
        if self.args.should_save:
            self._trace = Trace(self._trace_folder(trial), self._rates, self._warn)
            self._run.name = self._trace.name
        self.state.num_train_epochs = self._planned_epochs
        begins_anew = resume_from_checkpoint is None
        if not begins_anew:
            (begins_anew,) = broadcast_object_list([not os.path.isfile(os.path.join(resume_from_checkpoint, STATE))])
        self._find_begun_loaders(not begins_anew)
        full, step = self._run.schedule, self.state.global_step
        finished = full.by_steps and step >= full.steps
        if begins_anew and resume_from_checkpoint is not None:
            check_at_epochs_end(resume_from_checkpoint, 0 if finished else answer[1])
            if self.is_world_process_zero():
                self._warn(without_state(resume_from_checkpoint))
        if not begins_anew:
            self._run.restore(resume_from_checkpoint, step, self._warn)
        if self._trace is not None:
            self._trace.name = self._run.name
            self._trace.begin(0 if begins_anew else self._run.next_round)
        if begins_anew:
            return (num_train_epochs, 0) if finished else answer
        self._show_total(*self._run.forecast())
        if finished:
            return num_train_epochs, 0
        epoch, done = self._run.stands_at(step)
        if done and self.args.ignore_data_skip:
            self._warn(f"ignore_data_skip=True: the rows of {done} steps of this epoch are trained twice.")
        return epoch, 0 if self.args.ignore_data_skip else done * self.args.gradient_accumulation_steps

    def _hold(self, trial):
        """Keep other runs out of the folder, before anything in it is deleted."""
        folder = self._trace_folder(trial)
        (other,) = broadcast_object_list([self.is_world_process_zero() and self._lock.take(Path(folder, FOLDER))])
        if other:
            raise ValueError(
                f"output_dir={self.args.output_dir!r} is in use: {other} trains there, and this run would delete what "
                "that one has written. Give another output_dir, or end that run."
            )

    def _trace_folder(self, trial) -> str:
        """The folder of the run, and for a trial of a search one that no upload takes: rows are shown in it."""
        output_dir, run = self.args.output_dir, self._get_output_dir(trial=trial)
        return run if run == output_dir else os.path.join(output_dir, f"_{os.path.relpath(run, output_dir)}")

    def _rates(self) -> list[float]:
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def _prepare_for_training(self, max_steps, train_dataloader, resume_from_checkpoint):
        """As stock; the schedule is made for the full run, and read through the clock of the pruned one.

        Raises:
            ValueError: A scheduler that counts its own steps, and so would end before or after the run.
        """
        if self.policy is None:
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        full = self._run.schedule
        answer = super()._prepare_for_training(full.steps, train_dataloader, resume_from_checkpoint)
        if "train" in self._begun_loaders:
            self._draw_apart(answer[1])
        self.callback_handler.train_dataloader = PlainLoader(self.callback_handler.train_dataloader)
        scheduler = getattr(self.lr_scheduler, "scheduler", self.lr_scheduler)  # DeepSpeed's stands in a wrapper
        if isinstance(scheduler, LambdaLR):
            # above 0 for the user's own, which comes again at the next train() and counts on
            self._steps_before = max(0, scheduler.last_epoch - self.state.global_step)
            if scheduler is not self._clocked_scheduler:
                follow_clock(scheduler, self._position, lambda: self._run.lr_scale())
        elif not (full.by_steps or "metrics" in inspect.signature(scheduler.step).parameters):
            raise ValueError(
                f"The learning-rate scheduler {type(scheduler).__name__} counts its own steps, and a pruned run has "
                "fewer than the full one. Use a LambdaLR (as lr_scheduler_type gives), or fix the steps by max_steps."
            )
        self._clocked_scheduler = scheduler if isinstance(scheduler, LambdaLR) else None
        return answer

    def _position(self, step: int) -> float:
        return self._steps_before + self._run.position(step - self._steps_before)

    def _run_epoch(self, **kwargs):
        if self.policy is None:
            return super()._run_epoch(**kwargs)
        if self.control.should_training_stop:
            return None  # a callback had ended the run that is resumed
        epoch = kwargs["epoch"]
        at = self._run.first_place(epoch, self.state.global_step)
        while True:
            self._run_round(at, kwargs)
            at = at.next()
            if at.epoch > epoch or self.control.should_epoch_stop or self.control.should_training_stop:
                break
            kwargs |= {"resume_from_checkpoint": None, "steps_trained_in_current_epoch": 0}

    def _run_round(self, at: Place, kwargs: dict[str, Any]):
        run, loader = self._run, kwargs["train_dataloader"]
        if not run.goes_on(self.state.global_step):
            self._close_round(self._rescore)  # one that was saved at its end, before it was closed
            self._warn_of_update("Mend it and go on from the last checkpoint: train(resume_from_checkpoint=True).")
            run.open_round(at, self.state.global_step)
        run.plan()
        self._rows.total_dataset_length = len(self._sampler)
        self._weights = run.weights(self.args.device)
        if self._clocked_scheduler is not None:
            set_rate(self._clocked_scheduler)
        elif (scale := run.lr_scale()) != 1:
            self._warn(
                f"policy={self.policy!r} multiplies the learning rate of this round by {scale:.3g}, which only a "
                f"LambdaLR (as lr_scheduler_type gives) can do; {type(self.lr_scheduler).__name__} goes on as it is."
            )
        self._show_total(*run.forecast())
        current, handler = run.state.round, self.callback_handler
        plan, share_before = current.plan, current.share_before
        run.start_timing()
        if at.parts > 1 or share_before:
            before = at.epoch * run.schedule.updates
            begin, end = run.schedule.begin(at) - before, run.schedule.begin(at.next()) - before
            begin += share_before * (end - begin)
            self.callback_handler = RoundEvents(handler, at.epoch, begin, end, run.schedule.updates)
        try:
            super()._run_epoch(**{**kwargs, "steps_in_epoch": len(loader), "num_update_steps_per_epoch": plan.updates})
        finally:
            self.callback_handler = handler
        run.stop_timing()
        ends = self.control.should_training_stop or run.schedule.is_last(plan)
        self._close_round(None if ends else self._rescore)
        if finding := self._meter.finding():
            self._warn(finding)
        if rounds := run.idle.idle_rounds(at.round, ends):
            self._warn(
                f"policy={self.policy!r} has left no row out in {rounds} rounds: so far, as many are trained as "
                "without a policy. Other settings, more epochs or another rule may be needed to save something."
            )

    def _close_round(self, rescore: Callable | None = None):
        result = self._run.close_round(self.state.global_step, rescore)
        if result is not None and self._trace is not None:
            with self._run.overhead():
                self._trace.write(result.clock, result.lr_scale, result.seconds, result.rows, result.losses)

    def _rescore(self, rows: np.ndarray, recorder: Recorder):
        rescore(self, self._rows, self._numbering, rows, self._meter, recorder)

    def _warn_of_update(self, hint: str):
        if self._run.learner.failure is not None:
            error, clock = self._run.learner.failure
            reason = f"{type(error).__name__}: {error}"
            self._warn(f"policy={self._run.policy!r} failed in its update after round {clock.round} ({reason}). {hint}")

    def _show_total(self, steps: int, epochs: int):
        self.state.max_steps = steps
        if self._run.schedule.by_steps:
            self.state.num_train_epochs = epochs
        show_total(self.callback_handler, steps)

    # ---- Ends ----

    def _save_checkpoint(self, model, trial):
        args = self.args
        if not args.should_save:
            return super()._save_checkpoint(model, trial)
        folder = os.path.join(self._get_output_dir(trial=trial), f"checkpoint-{self.state.global_step}")
        last, write = os.path.join(folder, TRAINER_STATE), self.state.save_to_json
        # Written last, the first says that a checkpoint is whole: one that is written again is not, until it is again,
        # and what is not written again is of another run.
        for name in (TRAINER_STATE, STATE, seal.SEAL):
            Path(folder, name).unlink(missing_ok=True)
        if self.policy is None:
            return super()._save_checkpoint(model, trial)

        def save_to_json(path):
            # without the states of the generators, nobody waits until all processes have written theirs
            is_all = not args.save_only_model or args.world_size == 1
            return seal.close(folder, TRAINER_STATE, write) if path == last and is_all else write(path)

        self.state.save_to_json = save_to_json  # what follows, an upload or older checkpoints' end, finds it sealed
        try:
            return super()._save_checkpoint(model, trial)
        finally:
            del self.state.save_to_json

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        if self.policy is not None:
            step, stopped = self.state.global_step, self.control.should_epoch_stop
            self._run.save(output_dir, step, self.args.should_save, stopped)

    def _finalize_training(self, trial, num_train_samples, start_time):
        if self.policy is not None:
            self._close_round()  # resumed from the end of the last epoch
            self._run.learner.wait()
            self._warn_of_update("No round was left to select: training is whole, but the History lacks its notes.")
            num_train_samples = sum(epoch["rows"] for epoch in self._run.state.epochs)
            if hasattr(self, "_initial_global_step"):  # then stock takes them for those of max_steps
                num_train_samples *= self.state.max_steps / max(1, self.state.global_step)
        return super()._finalize_training(trial, num_train_samples, start_time)
