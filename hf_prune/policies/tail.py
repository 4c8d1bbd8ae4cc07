"""Tail: drop the rows whose loss has fallen furthest since the first visit (TailSFT, Malladi et al., 2026); by row.

With l_i the latest loss of row i, l0_i its loss at its first visit and t the share of training done

    m_i = l_i - l0_i;   f(t) = ratio * min(1, t / ramp)       the share f of rows of smallest m_i is dropped

So what is left is the tail: rows that training has improved little or not at all. A row is first dropped after two
visits. Every `revisit` rounds, a forward pass measures the dropped rows; one that is forgotten comes back.

Needs      loss, which the training forward pass gives, and a forward pass on dropped rows, if revisit > 0. 5 bytes per
           row: notes `first` (float32) and `again` (bool).
Good for   fine-tuning a pretrained model over several epochs, where answers are to stay diverse (pass@k), or where
           reinforcement learning follows.
Not for    wrong labels, which gain least and stay (`trim` drops these); one or two epochs.
Defaults   ratio = 0.5 (the largest share that the method is described with), ramp = 1: f grows through all of training
           (ours), revisit = 1: ours; the method measures every row in every epoch.
Deviates   margins are ranked over all rows, but TRL's example ranks those of one batch over all processes; l0 is the
           loss at the first visit, in training, but there a forward pass of the initial model gives it: history= of a
           run with learning_rate=0 does that here. A dropped row costs no training step. "Has gained least" could also
           be read as the largest m_i: that would drop the rows that do not learn. Whole optimizer steps.
Reference  S. Malladi et al., "TailSFT", 2026, https://arxiv.org/abs/2608.25756;
           https://github.com/huggingface/trl/pull/7212 (the example)
"""

import math
from dataclasses import dataclass

import numpy as np

from ..core import Clock, History, Policy, Selection, whole_steps
from ..core.ranking import marked, top


@dataclass(frozen=True)
class Tail(Policy):
    """Drop the rows that training has improved most.

    Args:
        ratio: Share of the rows that is dropped once the ramp is over, in [0, 1).
        ramp: Share of training in which the dropped share grows from 0 to `ratio`, in (0, 1].
        revisit: Rounds from one measurement of the dropped rows to the next, in [0, inf); 0 = they stay dropped.

    Examples:
        >>> history, policy, rng = History.empty(4), Tail(ratio=0.5, ramp=0.4), np.random.default_rng(0)
        >>> policy.begin(history, None)
        >>> for round, losses in enumerate([[2.0, 3.0, 2.5, 1.0], [0.5, 2.9, 2.5, 0.2]]):
        ...     history.record(np.arange(4), np.float32(losses), round)
        ...     policy.update(history, Clock(round, round, 5, round / 5), rng)
        >>> policy.select(history, Clock(2, 2, 5, 0.4), rng).rows.tolist()  # margins -1.5, -0.1, 0, -0.8
        [1, 2]
    """

    ratio: float = 0.5
    ramp: float = 1.0
    revisit: int = 1

    def __post_init__(self):
        self.check_range("ratio", "[0, 1)")
        self.check_range("ramp", "(0, 1]")
        self.check_range("revisit", "[0, inf)")

    def begin(self, history: History, earlier: History | None) -> None:
        super().begin(history, earlier)
        history.notes["first"] = (
            np.full(len(history), np.nan, np.float32) if earlier is None else np.array(earlier.loss)
        )
        history.notes["again"] = np.zeros(len(history), bool)

    def select(self, history: History, clock: Clock, rng: np.random.Generator) -> Selection:
        n, again = len(history), history.notes["again"]
        k = n - self._kept(n, n - int(np.count_nonzero(again)), clock)
        margin = np.where(again, history.loss - history.notes["first"], np.float32(np.inf))
        dropped = marked(top(-margin, k, rng), n)
        due = self.revisit > 0 and clock.round % self.revisit == 0
        return Selection(np.flatnonzero(~dropped), rescore=np.flatnonzero(dropped) if due and k else None)

    def update(self, history: History, clock: Clock, rng: np.random.Generator) -> None:
        first, again = history.notes["first"], history.notes["again"]
        measured = history.last_round == clock.round
        is_new = measured & np.isnan(first)
        again[measured & ~is_new] = True
        first[is_new] = history.loss[is_new]

    def forecast(self, history: History, clock: Clock) -> int:
        return self._kept(len(history), len(history) if clock.round < 2 else 0, clock)

    def _kept(self, n: int, unsure: int, clock: Clock) -> int:
        """Return how many rows to train, in whole optimizer steps: at least those whose margin is not known."""
        share = 1 - self.ratio * min(1.0, clock.share / self.ramp)
        return min(n, whole_steps(max(math.ceil(share * n - 1e-9), unsure, 1), clock.step_rows))
