"""StaleSB: train rows with a higher stored loss more often (Selective-Backprop; Jiang et al., 2019).

With percentile_i the share of stored losses below l_i, equal ones counted half, and beta = 1 / keep - 1

    P(train i) = percentile_i ^ beta

drawn for each row independently, so that 1 / (1 + beta) = keep of the rows are trained on average. The stored loss
replaces the forward pass of the original. A row whose loss is older than `stale` rounds is trained.

Needs      loss, which the training forward pass gives: no extra pass, 8 bytes per row.
Good for   many easy rows; training from scratch with SGD.
Not for    noisy labels (it favours them, without weights to make up for it); few epochs.
Defaults   keep = 0.25 (beta = 3), stale = 3: the authors' script.
Deviates   one percentile over all stored losses instead of a running histogram of the last 1024; ties count half, but
           the code counts rows strictly below and never trains the row of lowest loss; stale rows are trained, but the
           original only runs a forward pass on them: they come in bursts on top of `keep` (in a simulation with
           constant losses, 40 % of the rows in all at the defaults); rows never seen are trained; if fewer rows are
           drawn than an optimizer step needs, the rows of highest chance fill it.
Reference  https://arxiv.org/abs/1910.00762
"""

import math
from dataclasses import dataclass

import numpy as np

from ..core import Clock, History, Policy, Selection
from ..core.ranking import top


@dataclass(frozen=True)
class StaleSB(Policy):
    """Train each row with a chance that grows with the rank of its loss.

    Args:
        keep: Share of the seen rows to train on average, without the stale ones, in (0, 1]; 1 / (1 + beta).
        stale: Largest age of a stored loss in rounds; a row with an older loss is always trained, in [1, inf].

    Examples:
        >>> history = History.empty(4)
        >>> history.record(np.arange(4), np.array([0.1, 0.2, 0.3, 3.7], np.float32), round=0)
        >>> clock = Clock(round=1, epoch=1, epochs=10, share=0.1)
        >>> StaleSB(keep=0.5).chance(history, clock).tolist()
        [0.125, 0.375, 0.625, 0.875]
    """

    keep: float = 0.25
    stale: float = 3

    def __post_init__(self):
        self.check_range("keep", "(0, 1]")
        self.check_range("stale", "[1, inf]")

    def chance(self, history: History, clock: Clock) -> np.ndarray:
        """Compute the chance of each row to be trained.

        Args:
            history: Gives the losses and their rounds.
            clock: Gives the round that begins.

        Returns:
            (N,) float64 in [0, 1].
        """
        known = ~np.isnan(history.loss)
        loss = history.loss[known]
        order = np.argsort(loss)
        first = np.flatnonzero(np.diff(loss[order], prepend=-np.inf))  # of each run of equal losses
        ties = np.diff(first, append=len(loss))
        percentile = np.empty(len(loss))
        percentile[order] = np.repeat((first + ties / 2) / len(loss), ties)
        chance = np.ones(len(history))
        chance[known] = percentile ** (1 / self.keep - 1)
        chance[clock.round - history.last_round > self.stale] = 1
        return np.minimum(chance, history.hope)

    def select(self, history: History, clock: Clock, rng: np.random.Generator) -> Selection:
        chance = self.chance(history, clock)
        drawn = rng.random(len(history), np.float32) < chance
        if np.count_nonzero(drawn) < clock.step_rows:
            return Selection(top(np.where(drawn, 2, chance), clock.step_rows, rng))
        return Selection(np.flatnonzero(drawn))

    def forecast(self, history: History, clock: Clock) -> int:
        share = 1.0 if clock.round == 0 else self.keep
        return min(len(history), max(math.ceil(share * len(history) - 1e-9), clock.step_rows))
