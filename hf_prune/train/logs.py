"""The pruning values in a run's log, and the seconds that evaluations take."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import Trainer

from .engine import Engine
from .owned import Owned


class Logs(Owned):
    """Adds to a trainer's logs what a run has kept, trained and measured.

    Args:
        trainer: The trainer; it logs and evaluates.
        engine: The engine of the run.
    """

    def __init__(self, trainer: Trainer, engine: Engine):
        super().__init__(trainer)
        self.engine = engine
        self._is_evaluating = False

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Within the block, the trainer evaluates. If this happens during training, the seconds are counted."""
        if not self.trainer.is_in_train:
            yield
            return
        self._count()
        if self.trainer.args.dataloader_num_workers:
            self.engine.learner.wait()  # its thread must not run while the loader forks its workers
        state, start = self.engine.state, time.perf_counter()
        before, was = state.seconds_evaluating, self._is_evaluating
        self._is_evaluating = True
        try:
            with self.engine.pause():
                yield  # may nest: with a dictionary of data sets, `evaluate` calls itself for each
        finally:
            self._is_evaluating = was
            state.seconds_evaluating = before + time.perf_counter() - start

    def write(self, stock: Callable[..., None], logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log as Trainer does. During a round, add the pruning values to the logs of losses and evaluations.

        Args:
            stock: Trainer's `log`.
            logs: See `Trainer.log`.
            *args: See `Trainer.log`.
            **kwargs: See `Trainer.log`.
        """
        counts = {}
        if self.engine.state.round is not None and ("loss" in logs or self._is_evaluating):
            counts = self.engine.counts()
        if counts and not self._is_evaluating:
            logs = {**logs, **self.engine.progress(), **counts}
        state = self.trainer.state
        entries = len(state.log_history)
        stock(logs, *args, **kwargs)
        if self._is_evaluating and len(state.log_history) > entries:
            state.log_history[-1] |= counts  # not into `logs`: the caller of `evaluate` gets those as its metrics

    @contextmanager
    def between_steps(self) -> Iterator[None]:
        """Within the block, Trainer logs, evaluates and saves if it is time to. This does not count as training."""
        self.engine.check_begun()
        with self.engine.pause():
            control, step = self.trainer.control, self.trainer.state.global_step
            if control.should_log and step > self.trainer._globalstep_last_logged:  # Trainer's own condition
                self._count()
            yield

    def _count(self) -> None:
        """Count what all processes have trained. We do it here because `log` may run on one process only."""
        self.engine.count()
