"""Runs Trainer's own training loop round by round."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from transformers import Trainer

from ..common.privacy import public
from ..measure.meter import Meter
from ..measure.recorder import Recorder
from ..records.trace import Trace
from .engine import Engine
from .events import PlainLoader, RoundEvents, show_total
from .loading import begun_loaders, draw_apart
from .logs import Logs
from .owned import Owned
from .progress import Progress
from .rates import Rates
from .rescore import rescore
from .rows import TrainingRows
from .schedule import Place
from .steps import Steps


class Loop(Owned):
    """One `train()` call: Trainer takes the steps, the engine decides on which rows.

    Args:
        trainer: The trainer.
        engine: The engine of the run.
        meter: Measures the batches.
        training: The numbered training rows.
        rates: The trainer's learning rates.
        warn: Logs a warning, on the main process only.
        earlier_cost: Cost of the runs whose History this run starts from; None = it starts from none.

    Attributes:
        engine: The argument.
        meter: The argument.
        training: The argument.
        earlier_cost: The argument.
        trace: Writes the measurements of each round; None on a process that writes no files.
        steps: Measures the batches during a step.
        logs: Writes into the trainer's logs.
        progress: Writes on the trainer's progress bar.
        begun_loaders: Loaders that had started before the checkpoint of a resumed run, see `loading`.
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
        super().__init__(trainer)
        self.engine = engine
        self.meter = meter
        self.training = training
        self.earlier_cost = earlier_cost
        self.trace: Trace | None = None
        self.steps = Steps(trainer, engine, meter, training.collator)
        self.logs = Logs(trainer, engine)
        self.progress = Progress(trainer)
        self.begun_loaders: frozenset[str] = frozenset()
        self._rates = rates
        self._warn = warn

    # ---- Beginning ----

    def is_finished(self) -> bool:
        """Whether a run with `max_steps` had already done all its steps in the checkpoint that it resumes from."""
        full = self.engine.schedule
        return full.by_steps and self.trainer.state.global_step >= full.steps

    def restore(self, checkpoint: str, epochs: int) -> tuple[int, int]:
        """Resume from a checkpoint that holds a pruning state.

        Args:
            checkpoint: Its folder; Trainer's state has already been read from it.
            epochs: Epochs of Trainer's loop.

        Returns:
            The epoch in which Trainer's loop resumes, from 0, and the number of its batches to skip.
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
        """Begin the run.

        Args:
            trace: Writes the measurements of each round; None on a process that writes no files.
        """
        self.trace = trace
        if trace is not None:
            self.engine.name = trace.name

    def begin_anew(self) -> None:
        """Begin a run that does not resume: its first round is round 0."""
        self._begin_trace(0)

    def _begin_trace(self, round: int) -> None:
        if self.trace is not None:
            self.trace.name = self.engine.name or self.trace.name  # a resumed run keeps its name
            self.trace.begin(round)

    def prepare(self, loader: Any) -> None:
        """Let the learning-rate schedule follow the clock of the rounds, after Trainer has made it.

        Args:
            loader: The training loader.

        Raises:
            ValueError: The schedule can't follow the clock, see `Rates.follow`.
        """
        if "train" in self.begun_loaders:
            draw_apart(loader)
        self.progress.begin()
        handler: Any = self.trainer.callback_handler
        handler.train_dataloader = PlainLoader(handler.train_dataloader)
        self._rates.follow(self.trainer.lr_scheduler, self.engine, self.trainer.state.global_step)

    # ---- Rounds ----

    def run_epoch(self, stock: Callable[..., None], kwargs: dict[str, Any]) -> None:
        """Train an epoch, round by round.

        Args:
            stock: Trainer's `_run_epoch`, which trains a round as if it were an epoch.
            kwargs: The arguments of `stock`.
        """
        if self.trainer.control.should_training_stop:
            return  # a callback had ended this run before the checkpoint
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
        state, full = self.engine.state, self.engine.schedule
        self.progress.end_epoch(state.epochs[-1], full.epochs, state.history)

    def open_round(self, at: Place) -> None:
        """Open a round: select its rows, and pass them to sampler, steps and learning rates.

        A round that a checkpoint left unfinished keeps its selection.

        Args:
            at: The round.
        """
        engine, step = self.engine, self.trainer.state.global_step
        if not engine.goes_on(step):
            if engine.state.round is not None:  # the checkpoint was saved at the end of a round, before it was closed
                self._close(self._rescore)
            self._warn_of_update("Mend it and go on from the last checkpoint: train(resume_from_checkpoint=True).")
            with self.progress.part("selecting"):
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
            # Trainer counts each round as an epoch; the wrapper shows callbacks the real epoch
            events: Any = RoundEvents(handler, at.epoch, begin, end, full.updates)
            trainer.callback_handler = events
        counts = {"steps_in_epoch": len(kwargs["train_dataloader"]), "num_update_steps_per_epoch": plan.updates}
        try:
            stock(**{**kwargs, **counts})
        finally:
            trainer.callback_handler = handler
        engine.stop_timing()

    def close_round(self, at: Place) -> None:
        """Close a round: write its measurements into the History, and warn about a policy that prunes nothing.

        Args:
            at: The round.
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
        """Close the round in progress, if there is one, and write its trace."""
        result = self.engine.close_round(self.trainer.state.global_step, rescore)
        if result is not None:
            self.progress.see(result)
        if result is not None and self.trace is not None:
            with self.engine.overhead():
                written = result.clock, result.lr_scale, result.seconds, result.rows, result.losses, result.extras
                self.trace.write(*written, result.account, public(repr(self.engine.policy)))

    def _rescore(self, rows: np.ndarray, recorder: Recorder) -> None:
        watch = partial(self.progress.over, "rescoring")
        rescore(self.trainer, self.training, rows, self.meter, recorder, watch)

    def _warn_of_update(self, hint: str) -> None:
        if self.engine.learner.failure is not None:
            error, clock = self.engine.learner.failure
            reason = f"{type(error).__name__}: {error}"
            self._warn(
                f"policy={self.engine.policy!r} failed in its update after round {clock.round} ({reason}). {hint}"
            )

    def _show_total(self) -> None:
        """Show the forecast of the number of steps of the run."""
        steps, epochs = self.engine.forecast()
        self.trainer.state.max_steps = steps
        if self.engine.schedule.by_steps:
            self.trainer.state.num_train_epochs = epochs
        show_total(self.trainer.callback_handler, steps)

    # ---- Ends ----

    def save(self, checkpoint: str) -> None:
        """Write the pruning state into a checkpoint. Every process must call this."""
        trainer, stopped = self.trainer, self.trainer.control.should_epoch_stop
        self.engine.save(checkpoint, trainer.state.global_step, trainer.args.should_save, stopped)

    def finish(self) -> float:
        """End the run after training. Return the number of trained rows that Trainer reports."""
        state, engine = self.trainer.state, self.engine
        self._close()  # a round is still open if the run resumed at the end of its last epoch
        engine.learner.wait()
        self._warn_of_update("No round was left to select: training is whole, but the History lacks its notes.")
        rows = sum(epoch["rows"] for epoch in engine.state.epochs)
        if hasattr(self.trainer, "_initial_global_step"):  # then Trainer expects the rows of `max_steps` steps
            rows *= state.max_steps / max(1, state.global_step)
        return rows
