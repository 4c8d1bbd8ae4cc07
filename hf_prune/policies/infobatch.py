"""InfoBatch: prune easy rows at random and up-weight those that stay (Qin et al., ICLR 2024).

With H_i the latest loss of row i and Hbar its mean over the data set

    P(prune i) = r   and   w_i = 1 / (1 - r)    where H_i < Hbar
    P(prune i) = 0   and   w_i = 1              elsewhere

so that E[sum of w_i * grad_i] is the full gradient. Nothing is pruned in the last (1 - delta) of training.

Needs      loss, which the training forward pass gives: no extra pass, 4 bytes per row.
Good for   many epochs, skewed losses, clean labels.
Not for    one to three epochs (the first has no losses yet, the last ones prune nothing); uniform losses.
Defaults   r = 0.5, delta = 0.875: the authors' code.
Deviates   rows never seen are kept at weight 1, but the code starts every score at 3; each easy row is pruned
           independently, as in the paper, but the code keeps exactly int((1 - r) n) of them and falls short of the full
           sum; r is never clamped, but the code reduces values above 0.9 to 0.9.
Reference  https://arxiv.org/abs/2303.04947
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..core import Clock, History, Policy, Selection


@dataclass(frozen=True)
class InfoBatch(Policy):
    """Prune rows below the mean loss at random and up-weight those that stay.

    Args:
        ratio: r, share of the below-mean rows that is pruned in each round, in [0, 1).
        anneal: delta, share of training after which nothing is pruned, in (0, 1].

    Examples:
        >>> history = History.empty(4)
        >>> history.record(np.arange(4), np.array([0.1, 0.1, 0.1, 3.7], np.float32), round=0)  # mean 1.0
        >>> clock = Clock(round=1, epoch=1, epochs=10, share=0.1)
        >>> chosen = InfoBatch(ratio=0.5).select(history, clock, np.random.default_rng(2))
        >>> chosen.rows.tolist(), chosen.weights.tolist()
        ([0, 3], [2.0, 1.0])
    """

    weighs: ClassVar[bool] = True

    ratio: float = 0.5
    anneal: float = 0.875

    def __post_init__(self):
        self.check_range("ratio", "[0, 1)")
        self.check_range("anneal", "(0, 1]")

    def select(self, history: History, clock: Clock, rng: np.random.Generator) -> Selection:
        n = len(history)
        known = np.isfinite(history.loss)
        annealing = clock.share_after > self.anneal + 1e-9  # floor(delta * epochs) epochs are pruned
        if self.ratio == 0 or annealing or not known.any():
            return Selection(np.arange(n))
        mean = np.float32(history.loss.mean(dtype=np.float64, where=known))
        easy = history.loss < mean  # NaN compares false: rows never seen are hard
        rows = np.flatnonzero(~easy | (rng.random(n, np.float32) >= self.ratio))
        return Selection(rows, np.where(easy[rows], np.float32(1 / (1 - self.ratio)), np.float32(1)))
