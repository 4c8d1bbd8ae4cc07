"""EpsilonGreedy: the highest mean losses and a random share, per period (Raju et al., 2021; reconstruction).

After each round, for the rows i that it trained, and once per period of T rounds with K = keep * N

    mu_i <- (1 - alpha) * mu_i + alpha * l_i        first loss: mu_i = l_i
    S     = (1 - epsilon) K rows of largest mu, and epsilon K drawn uniformly from the others

S is trained for T rounds; a row left out may return in any later selection.

Needs      loss, which the training forward pass gives: no extra pass, 5 more bytes per row.
Good for   many epochs, clean labels, high pruning rates.
Not for    noisy labels (it favours them); few epochs, unless period is 1 or 2.
Defaults   T = 10, epsilon = 0.1, alpha = 0.8: a third-party re-implementation (the paper's are not public); keep = 0.7,
           patience = 5: ours.
Deviates   until every row was tried, each round is chosen anew within the budget, with rows never seen first (with one
           random share for the first period, the other rows would stay unseen for T rounds); mu starts at the first
           loss instead of 1 and does follow the losses; training losses instead of a scoring pass; ties are broken at
           random; a row that was passed over `patience` times comes first. K fills whole optimizer steps.
Reference  https://arxiv.org/abs/2111.12621
"""

import math
from dataclasses import dataclass

import numpy as np

from ..core import Clock, History
from ..core.ranking import top
from ._bandit import Bandit


@dataclass(frozen=True)
class EpsilonGreedy(Bandit):
    """Train on the rows of highest mean loss and a random share of the others, chosen once per period.

    Args:
        keep: Share of the data to train on in each round, in (0, 1].
        unit: What `keep` is a share of: "rows", or "tokens" (a pruned short sentence saves little).
        period: T, rounds that a selection stands for, at least 1.
        decay: alpha, weight of the newest loss in a row's mean, in (0, 1].
        patience: Selections in a row that may pass a row over before one must take it, at least 1; 0 = any number.
        epsilon: Share of the chosen rows that is drawn at random, in [0, 1].

    Examples:
        >>> policy, rng = EpsilonGreedy(keep=0.5, epsilon=0.5), np.random.default_rng(0)
        >>> history = History.empty(4)
        >>> history.record(np.arange(4), np.array([0.1, 5.0, 0.2, 0.3], np.float32), round=0)
        >>> policy.update(history, Clock(round=0, epoch=0, epochs=10, share=0.0), rng)
        >>> chosen = policy.select(history, Clock(round=1, epoch=1, epochs=10, share=0.1), rng)
        >>> len(chosen.rows), 1 in chosen.rows
        (2, True)
    """

    epsilon: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        self.check_range("epsilon", "[0, 1]")

    def score(self, history: History) -> np.ndarray:
        return history.notes["mean"]

    def choose(self, score: np.ndarray, history: History, clock: Clock, rng: np.random.Generator) -> np.ndarray:
        best = self.best(score, history, clock, rng)
        explored = math.floor(self.epsilon * len(best) + 1e-9)
        greedy = best[top(score[best], len(best) - explored, rng)]
        priority = np.where(np.isfinite(score), rng.random(len(score)), score)
        priority[greedy] = np.nan
        return self.best(priority, history, clock, rng)
