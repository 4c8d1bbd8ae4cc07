"""Takes Trainer's own loop through the rounds of a run."""

from collections.abc import Callable
from typing import Any

import numpy as np
from transformers import Trainer

from ..measure.meter import Meter
from ..measure.recorder import Recorder
from ..records.trace import Trace
from .engine import Engine
from .events import PlainLoader, RoundEvents, show_total
from .loading import begun_loaders, draw_apart
from .logs import Logs
from .rates import Rates
from .rescore import rescore
from .rows import TrainingRows
from .schedule import Place
from .steps import Steps


class Loop:
    """One `train()` call: Trainer takes the steps, the engine says on which rows.

    Args:
        trainer: Trains.
        engine: Of the run.
        meter: Reads the batches.
        training: What is trained on.
        rates: The trainer's learning rates.
        warn: Is told what a user should know, on the main process.
        earlier_cost: What the runs had cost whose History this one begins with; None = it begins with none.

    Attributes:
        engine: As given.
        meter: As given.
        training: As given.
        earlier_cost: As given.
        trace: Writes what each round measured; None on a process that writes no files.
        steps: Measures the batches.
        logs: Writes into the trainer's logs.
        begun_loaders: Which loaders had begun before the checkpoint that was resumed from, see `loading`.
    """

    def __init__(
        self,
        trainer: Trainer,
        engine: Engine,
        meter: Meter,
        training: TrainingRows,
        rates: Rates,
        warn: Callable[[str], None],
        earlier_cost: dict[str, float] | None,
    ):
        self.trainer = trainer
        self.engine = engine
        self.meter = meter
        self.training = training
        self.earlier_cost = earlier_cost
        self.trace: Trace | None = None
        self.steps = Steps(trainer, engine, meter, training.collator)
        self.logs = Logs(trainer, engine)
        self.begun_loaders: frozenset[str] = frozenset()
        self._rates = rates
        self._warn = warn

    # ---- Beginning ----

    def is_finished(self) -> bool:
        """Whether a run of so many steps has done them all, in the checkpoint that it goes on from."""
        full = self.engine.schedule
        return full.by_steps and self.trainer.state.global_step >= full.steps

    def restore(self, checkpoint: str, epochs: int) -> tuple[int, int]:
        """Go on from a checkpoint that holds a pruning state.

        Args:
            checkpoint: Its folder; Trainer's state has been read from it.
            epochs: Of Trainer's loop.

        Returns:
            For Trainer's loop: the epoch to go on in, from 0, and the batches of it to skip.
        """
        trainer, engine, step = self.trainer, self.engine, self.trainer.state.global_step
        self.begun_loaders = begun_loaders(trainer.state.log_history)
        engine.restore(checkpoint, step, self._warn)
        self._begin_trace(engine.next_round)
        self._show_total()
        if self.is_finished():
            return epochs, 0
        epoch, done = engine.stands_at(step)
        if done and trainer.args.ignore_data_skip:
            self._warn(f"ignore_data_skip=True: the rows of {done} steps of this epoch are trained twice.")
        return epoch, 0 if trainer.args.ignore_data_skip else done * trainer.args.gradient_accumulation_steps

    def begin(self, trace: Trace | None) -> None:
        """The run begins.

        Args:
            trace: Writes what each round measured; None on a process that writes no files.
        """
        self.trace = trace
        if trace is not None:
            self.engine.name = trace.name

    def begin_anew(self) -> None:
        """The run begins with its first round."""
        self._begin_trace(0)

    def _begin_trace(self, round: int) -> None:
        if self.trace is not None:
            self.trace.name = self.engine.name or self.trace.name  # a run that is resumed keeps its own
            self.trace.begin(round)

    def prepare(self, loader: Any) -> None:
        """Trainer has made optimizer and schedule: put the schedule on the clock.

        Args:
            loader: That which is trained on.

        Raises:
            ValueError: The schedule can't follow, see `Rates.follow`.
        """
        if "train" in self.begun_loaders:
            draw_apart(loader)
        handler: Any = self.trainer.callback_handler
        handler.train_dataloader = PlainLoader(handler.train_dataloader)
        self._rates.follow(self.trainer.lr_scheduler, self.engine, self.trainer.state.global_step)

    # ---- Rounds ----

    def run_epoch(self, stock: Callable[..., None], kwargs: dict[str, Any]) -> None:
        """Train an epoch, round by round.

        Args:
            stock: Trainer's `_run_epoch`, which trains a round as if it were an epoch.
            kwargs: Of it.
        """
        if self.trainer.control.should_training_stop:
            return  # a callback had ended the run that is resumed
        epoch = kwargs["epoch"]
        at = self.engine.first_place(epoch, self.trainer.state.global_step)
        while True:
            self.open_round(at)
            self._train_round(at, stock, kwargs)
            self.close_round(at)
            at, control = at.next(), self.trainer.control
            if at.epoch > epoch or control.should_epoch_stop or control.should_training_stop:
                break
            kwargs |= {"resume_from_checkpoint": None, "steps_trained_in_current_epoch": 0}

    def open_round(self, at: Place) -> None:
        """Select the rows of a round, and tell everybody; one that a checkpoint has left unfinished is selected.

        Args:
            at: Which.
        """
        engine, step = self.engine, self.trainer.state.global_step
        if not engine.goes_on(step):
            if engine.state.round is not None:  # it was saved at its end, before it was closed
                self._close(self._rescore)
            self._warn_of_update("Mend it and go on from the last checkpoint: train(resume_from_checkpoint=True).")
            engine.open_round(at, step)
        engine.plan()
        self.training.numbered.total_dataset_length = len(self.training.sampler)
        self.steps.weights = engine.weights(self.trainer.args.device)
        if not self._rates.set() and (scale := engine.lr_scale()) != 1:
            self._warn(
                f"policy={engine.policy!r} multiplies the learning rate of this round by {scale:.3g}, which only a "
                f"LambdaLR (as lr_scheduler_type gives) can do; {type(self.trainer.lr_scheduler).__name__} goes on as "
                "it is."
            )
        self._show_total()

    def _train_round(self, at: Place, stock: Callable[..., None], kwargs: dict[str, Any]) -> None:
        engine, trainer, current = self.engine, self.trainer, self.engine.state.current
        handler = trainer.callback_handler
        plan, share_before, full = current.plan, current.share_before, engine.schedule
        engine.start_timing()
        if at.parts > 1 or share_before:
            before = at.epoch * full.updates
            begin, end = full.begin(at) - before, full.begin(at.next()) - before
            begin += share_before * (end - begin)
            # Trainer takes the round for an epoch: callbacks see one epoch, however many rounds it has
            events: Any = RoundEvents(handler, at.epoch, begin, end, full.updates)
            trainer.callback_handler = events
        counts = {"steps_in_epoch": len(kwargs["train_dataloader"]), "num_update_steps_per_epoch": plan.updates}
        try:
            stock(**{**kwargs, **counts})
        finally:
            trainer.callback_handler = handler
        engine.stop_timing()

    def close_round(self, at: Place) -> None:
        """Bring what a round has measured into the History.

        Args:
            at: Which.
        """
        engine = self.engine
        ends = self.trainer.control.should_training_stop or engine.schedule.is_last(engine.state.current.plan)
        self._close(None if ends else self._rescore)
        if finding := self.meter.finding():
            self._warn(finding)
        if rounds := engine.idle.idle_rounds(at.round, ends):
            self._warn(
                f"policy={engine.policy!r} has left no row out in {rounds} rounds: so far, as many are trained as "
                "without a policy. Other settings, more epochs or another rule may be needed to save something."
            )

    def _close(self, rescore: Callable[[np.ndarray, Recorder], None] | None = None) -> None:
        """Close the round in progress, if there is one, and hand on what it measured."""
        result = self.engine.close_round(self.trainer.state.global_step, rescore)
        if result is not None and self.trace is not None:
            with self.engine.overhead():
                self.trace.write(result.clock, result.lr_scale, result.seconds, result.rows, result.losses)

    def _rescore(self, rows: np.ndarray, recorder: Recorder) -> None:
        rescore(self.trainer, self.training, rows, self.meter, recorder)

    def _warn_of_update(self, hint: str) -> None:
        if self.engine.learner.failure is not None:
            error, clock = self.engine.learner.failure
            reason = f"{type(error).__name__}: {error}"
            self._warn(
                f"policy={self.engine.policy!r} failed in its update after round {clock.round} ({reason}). {hint}"
            )

    def _show_total(self) -> None:
        """Show how many steps the run will take, as far as can be said now."""
        steps, epochs = self.engine.forecast()
        self.trainer.state.max_steps = steps
        if self.engine.schedule.by_steps:
            self.trainer.state.num_train_epochs = epochs
        show_total(self.trainer.callback_handler, steps)

    # ---- Ends ----

    def save(self, checkpoint: str) -> None:
        """Write the pruning state into a checkpoint; every process must call this."""
        trainer, stopped = self.trainer, self.trainer.control.should_epoch_stop
        self.engine.save(checkpoint, trainer.state.global_step, trainer.args.should_save, stopped)

    def finish(self) -> float:
        """Training has ended; how many rows Trainer should say that it has trained."""
        state, engine = self.trainer.state, self.engine
        self._close()  # resumed from the end of the last epoch
        engine.learner.wait()
        self._warn_of_update("No round was left to select: training is whole, but the History lacks its notes.")
        rows = sum(epoch["rows"] for epoch in engine.state.epochs)
        if hasattr(self.trainer, "_initial_global_step"):  # then stock takes them for those of max_steps
            rows *= state.max_steps / max(1, state.global_step)
        return rows
