"""Lets a policy learn from a round that has ended: at once, or beside the next round without holding it up."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from ..core import Clock, Policy
from ..records.history import History


class Learner:
    """Calls `policy.update`, in a thread where `policy.in_background`.

    The thread starts with the first step of the next round (`start`): loader workers, which are forked before, find no
    other thread. It is waited for before anything else touches the History (`wait`). What fails holds up nothing that
    is under way: no further round is taught, and `check` raises the error where the next would be selected.

    Attributes:
        failure: The error in `update` and the clock of the round that it was to learn from; None where all went well.
    """

    def __init__(self, policy: Policy):
        self._policy = policy
        self._waiting: tuple[History, Clock, np.random.Generator] | None = None
        self._running: tuple[Clock, Future[None]] | None = None
        self.failure: tuple[Exception, Clock] | None = None

    def teach(self, history: History, clock: Clock, rng: np.random.Generator) -> None:
        """Take in a round that has ended and been recorded.

        Args:
            history: What the policy learns from, and writes its notes into.
            clock: That of the round.
            rng: The policy's only source of chance.
        """
        if self.failure is not None:
            return
        self._waiting = (history, clock, rng)
        if not self._policy.in_background:
            self.wait()

    def start(self) -> None:
        """Begin with what is waiting, if anything is."""
        if self._waiting is None:
            return
        (history, clock, rng), self._waiting = self._waiting, None
        if self._policy.in_background:
            thread = ThreadPoolExecutor(1, "hf_prune")
            self._running = clock, thread.submit(self._learn, history, clock, rng)
            thread.shutdown(wait=False)  # ends with what it was given
        else:
            with self._noting_failure(clock):
                self._learn(history, clock, rng)

    def _learn(self, history: History, clock: Clock, rng: np.random.Generator) -> None:
        before = dict(history.notes)
        self._policy.update(history, clock, rng)
        try:
            history.check_notes(self._policy)
        except TypeError:
            history.notes = before  # a checkpoint can hold these
            raise

    def wait(self) -> None:
        """Return when all that was taught is learnt, or has failed."""
        self.start()
        if self._running is not None:
            (clock, running), self._running = self._running, None
            with self._noting_failure(clock):
                running.result()

    def check(self) -> None:
        """Let nobody go on after a failure.

        Raises:
            Exception: What `update` has failed with, if it has.
        """
        if self.failure is not None:
            raise self.failure[0]

    @contextmanager
    def _noting_failure(self, clock: Clock) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.failure = error, clock
