"""What a run's log says beside the losses, and the seconds that evaluations take."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import Trainer

from .engine import Engine


class Logs:
    """Writes into a trainer's logs what a run has kept, trained and measured.

    Args:
        trainer: Logs and evaluates.
        engine: Of the run.
    """

    def __init__(self, trainer: Trainer, engine: Engine):
        self.trainer = trainer
        self.engine = engine
        self._is_evaluating = False

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """The block evaluates: its seconds are counted, where it does so in training."""
        if not self.trainer.is_in_train:
            yield
            return
        self._count()
        if self.trainer.args.dataloader_num_workers:
            self.engine.learner.wait()  # its thread must not run where the loader forks
        state, start = self.engine.state, time.perf_counter()
        before, was = state.seconds_evaluating, self._is_evaluating
        self._is_evaluating = True
        try:
            with self.engine.pause():
                yield  # may come here again: a dictionary of data sets makes an evaluation of each
        finally:
            self._is_evaluating = was
            state.seconds_evaluating = before + time.perf_counter() - start

    def write(self, stock: Callable[..., None], logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As stock; in a round, logs of losses and evaluations also say what was kept, trained and measured so far.

        Args:
            stock: Trainer's `log`.
            logs: As there.
            *args: As there.
            **kwargs: As there.
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
            state.log_history[-1] |= counts  # the metrics themselves are whoever evaluates'

    @contextmanager
    def between_steps(self) -> Iterator[None]:
        """The block logs, evaluates and saves, where it is time to: it is no training."""
        self.engine.check_begun()
        with self.engine.pause():
            control, step = self.trainer.control, self.trainer.state.global_step
            if control.should_log and step > self.trainer._globalstep_last_logged:  # as stock logs
                self._count()
            yield

    def _count(self) -> None:
        """What all processes have trained so far, for the log: that may be written on one of them alone."""
        self.engine.count()
