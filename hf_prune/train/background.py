"""Lets a policy learn from a round that has ended: at once, or in a thread during the next round."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from ..core import Clock, Policy
from ..records.history import History


class Learner:
    """Calls `policy.update`, in a thread if `policy.in_background` is true.

    The thread starts with the first step of the next round (`start`). The loader workers are forked before that, so no
    fork happens while the thread runs. Everything else that touches the History first waits for the thread (`wait`). An
    error in `update` does not stop the round in progress: the policy learns from no further round, and `check` raises
    the error before the next round is selected.

    Attributes:
        failure: The error in `update` and the clock of the round that it was called for; None = no error.
    """

    def __init__(self, policy: Policy):
        self._policy = policy
        self._waiting: tuple[History, Clock, np.random.Generator] | None = None
        self._running: tuple[Clock, Future[None]] | None = None
        self.failure: tuple[Exception, Clock] | None = None

    def teach(self, history: History, clock: Clock, rng: np.random.Generator) -> None:
        """Schedule `policy.update` for a round that has ended and been recorded.

        Args:
            history: The policy reads it and writes its notes into it.
            clock: The clock of the round.
            rng: The policy's only random generator.
        """
        if self.failure is not None:
            return
        self._waiting = (history, clock, rng)
        if not self._policy.in_background:
            self.wait()

    def start(self) -> None:
        """Start the scheduled update, if there is one."""
        if self._waiting is None:
            return
        (history, clock, rng), self._waiting = self._waiting, None
        if self._policy.in_background:
            thread = ThreadPoolExecutor(1, "hf_prune")
            self._running = clock, thread.submit(self._learn, history, clock, rng)
            thread.shutdown(wait=False)  # the thread ends after this one task
        else:
            with self._noting_failure(clock):
                self._learn(history, clock, rng)

    def _learn(self, history: History, clock: Clock, rng: np.random.Generator) -> None:
        before = dict(history.notes)
        self._policy.update(history, clock, rng)
        try:
            history.check_notes(self._policy)
        except TypeError:
            history.notes = before  # a checkpoint can save the old notes, but not the new ones
            raise

    def wait(self) -> None:
        """Return when the scheduled update has ended, or has failed."""
        self.start()
        if self._running is not None:
            (clock, running), self._running = self._running, None
            with self._noting_failure(clock):
                running.result()

    def check(self) -> None:
        """Raise the error of an earlier update, if there was one.

        Raises:
            Exception: The error that `update` raised.
        """
        if self.failure is not None:
            raise self.failure[0]

    @contextmanager
    def _noting_failure(self, clock: Clock) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.failure = error, clock
