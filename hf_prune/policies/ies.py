"""IES: stop training a row once its loss curve no longer bends (Yuan et al., ICLR 2025).

With l_t the loss of a row at its t-th visit

    d_t = l_t - 2 l_(t-1) + l_(t-2)
    mastered where the mean of the last 3 |d| is below delta

Mastered rows are not trained. A forward pass measures them at the end of each round, and a row whose curve bends again
comes back. Both training and these passes count as visits, so each row's curve has one point per round.

Needs      loss; one forward pass per mastered row and round, about a third of what training it costs; 24 bytes per row:
           notes `lately` (2, N) the last two losses, `bends` (3, N) the last |d|, visit t in slot t mod 3, float32,
           NaN = none; `visits` (N,) int32.
Good for   long, quiet runs; one threshold serves rows of every loss level.
Not for    under 7 epochs (a row needs 6 losses); strong dropout (forward passes run without it, so the change from
           training to forward pass looks like a bend); losses that fall in a straight line (they have d = 0 and count
           as mastered at any height: also_low=True [ours] also requires a loss below the mean).
Defaults   delta = 1e-3, window 3: the authors' code for CIFAR-10 (2e-3 for CIFAR-100; they advise 1e-5 to 1e-1).
Deviates   if no row is mastered any more, all are trained (the code keeps its old loaders); if fewer rows are left than
           an optimizer step needs, one step is filled with the rows of largest mean |d|; each row has its full history
           (the code's first loader drops a short last batch).
Reference  https://arxiv.org/abs/2502.07547
"""

from dataclasses import dataclass

import numpy as np

from ..core import Clock, History, Policy, Selection
from ..core.ranking import top


@dataclass(frozen=True)
class IES(Policy):
    """Leave out the rows whose loss curve is straight, and watch them by forward passes.

    Args:
        threshold: delta, mean |second difference| in nats below which a row is mastered, in (0, inf).
        window: Second differences in that mean, a whole number from 1; a row is judged from window + 3 visits on.
        also_low: Whether a mastered row's loss must be below the mean loss, too.

    Examples:
        >>> history, policy, rng = History.empty(2), IES(), np.random.default_rng(0)
        >>> for t, losses in enumerate([[0.1, 3.0], [0.1, 2.0], [0.1, 1.4], [0.1, 1.0], [0.1, 0.8], [0.1, 0.7]]):
        ...     history.record(np.arange(2), np.array(losses, np.float32), round=t)
        ...     policy.update(history, Clock(t, t, 20, t / 20), rng)
        >>> chosen = policy.select(history, Clock(6, 6, 20, 0.3), rng)
        >>> chosen.rows.tolist(), chosen.rescore.tolist()
        ([1], [0])
    """

    threshold: float = 1e-3
    window: int = 3
    also_low: bool = False

    def __post_init__(self):
        self.check_range("threshold", "(0, inf)")
        self.check_range("window", "[1, inf)")
        self.check_switch("also_low")

    def select(self, history: History, clock: Clock, rng: np.random.Generator) -> Selection:
        n = len(history)
        if "visits" not in history.notes:
            return Selection(np.arange(n))
        bend = history.notes["bends"].mean(axis=0)
        mastered = (bend < self.threshold) & (history.notes["visits"] >= self.window + 3)
        if self.also_low and mastered.any():
            mastered &= history.loss < np.float32(np.nanmean(history.loss, dtype=np.float64))
        if n - np.count_nonzero(mastered) < clock.step_rows:
            mastered[top(bend, clock.step_rows, rng)] = False
        return Selection(np.flatnonzero(~mastered), rescore=np.flatnonzero(mastered))

    def update(self, history: History, clock: Clock, rng: np.random.Generator) -> None:
        n, notes = len(history), history.notes
        if "visits" not in notes:
            notes["lately"] = np.full((2, n), np.nan, np.float32)
            notes["bends"] = np.full((self.window, n), np.nan, np.float32)
            notes["visits"] = np.zeros(n, np.int32)
        measured = history.last_round == clock.round
        last, before = notes["lately"]
        with np.errstate(over="ignore", invalid="ignore"):  # an overflow gives inf or NaN: not mastered
            bend = np.abs(history.loss - 2 * last + before)
        slot = notes["visits"] % self.window
        for k, bends in enumerate(notes["bends"]):
            np.copyto(bends, bend, where=measured & (slot == k))
        np.copyto(before, last, where=measured)
        np.copyto(last, history.loss, where=measured)
        notes["visits"] += measured
