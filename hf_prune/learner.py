"""Lets a policy learn from a round that has ended: at once, or beside the next round without holding it up."""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from .core import Clock, History, Policy


class Learner:
    """Calls `policy.update`, in a thread where `policy.in_background`.

    The thread starts with the first step of the next round (`start`): loader workers, which are forked before, find no
    other thread. It is waited for before anything else touches the History (`finish`).
    """

    def __init__(self, policy: Policy):
        self._policy = policy
        self._waiting: tuple[History, Clock, np.random.Generator] | None = None
        self._running: Future[None] | None = None

    def teach(self, history: History, clock: Clock, rng: np.random.Generator) -> None:
        """Take in the round of `clock`, which has ended and been recorded."""
        self._waiting = (history, clock, rng)
        if not self._policy.in_background:
            self.finish()

    def start(self) -> None:
        """Begin with what is waiting, if anything is."""
        if self._waiting is None:
            return
        if self._policy.in_background:
            thread = ThreadPoolExecutor(1, "hf_prune")
            self._running = thread.submit(self._learn, *self._waiting)
            thread.shutdown(wait=False)  # ends with what it was given
        else:
            self._learn(*self._waiting)
        self._waiting = None

    def _learn(self, history: History, clock: Clock, rng: np.random.Generator) -> None:
        self._policy.update(history, clock, rng)
        history.check_notes(self._policy)

    def finish(self) -> None:
        """Return when all that was taught is learnt; an error in `update` is raised here."""
        self.start()
        if self._running is not None:
            self._running, running = None, self._running
            running.result()
