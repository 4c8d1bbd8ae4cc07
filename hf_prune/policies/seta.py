"""SeTa: slide a window over groups of rows from easy to hard (Zhou et al., CVPR 2025).

In epoch t, with r, G, alpha and delta the fields below in their order

    1. draw a random (1 - r) share of all rows
    2. cut their last losses into G groups by 1-D k-means, ordered from easy to hard
    3. keep W = round(alpha G) neighbouring groups from number t mod (G - W + 1) on; all groups where t = 0

The last (1 - delta) of training keeps step 1 alone ("partial annealing"). No weights.

Needs      loss, which the training forward pass gives: no extra pass, 4 bytes per row.
Good for   large redundant sets, skewed losses, noisy tails.
Not for    data where the hard rows are rare and important; few epochs (a cycle takes G - W + 1 of them).
Defaults   r = 0.1, G = 5, alpha = 0.9, delta = 0.875: the authors' code for CIFAR. Its ImageNet runs take r = 0, G = 5,
           alpha = 0.6; its class defaults are r = 0, G = 10, alpha = 0.5.
Deviates   k-means starts at quantiles of the distinct losses, but the code uses a library's start; empty groups are
           dropped, and W is then round(alpha x groups left), at least 1; if more than a million rows are drawn, the
           borders come from the losses of a million of them, sampled with replacement. Rows never seen come first in
           the draw and are kept, but the code starts every loss at 3.
Reference  https://arxiv.org/abs/2503.13385
"""

from dataclasses import dataclass

import numpy as np

from ..core import Clock, History, Policy, Selection

SAMPLE = 2**20
ITERATIONS = 1000  # of k-means at most: cheap, each looks at G borders alone


@dataclass(frozen=True)
class SeTa(Policy):
    """Train on a band of difficulty that moves from easy to hard, again and again.

    Args:
        ratio: r, share of all rows that is left out at random in each round, in [0, 1).
        groups: G, number of groups of losses, a whole number from 1.
        window: alpha, share of the groups that a round keeps, in (0, 1]; at least one of them.
        anneal: delta, share of training after which all groups are kept, in (0, 1].

    Examples:
        >>> history = History.empty(8)
        >>> losses = np.array([0.10, 0.12, 0.50, 0.52, 1.00, 1.05, 2.00, 2.20], np.float32)
        >>> history.record(np.arange(8), losses, round=0)
        >>> policy, rng = SeTa(ratio=0, groups=4, window=0.5), np.random.default_rng(0)
        >>> [policy.select(history, Clock(t, t, 10, t / 10), rng).rows.tolist() for t in (1, 2, 3)]
        [[2, 3, 4, 5], [4, 5, 6, 7], [0, 1, 2, 3]]
    """

    ratio: float = 0.1
    groups: int = 5
    window: float = 0.9
    anneal: float = 0.875

    def __post_init__(self):
        self.check_range("ratio", "[0, 1)")
        self.check_range("groups", "[1, inf)")
        self.check_range("window", "(0, 1]")
        self.check_range("anneal", "(0, 1]")
        if round(self.window * self.groups) < 1:
            raise ValueError(
                f"SeTa(window=...) must be above {0.5 / self.groups:g}, so that it holds one of groups={self.groups}, "
                f"got {self.window!r}."
            )

    def select(self, history: History, clock: Clock, rng: np.random.Generator) -> Selection:
        loss, seen = history.loss, ~np.isnan(history.loss)
        keep = self._draw(seen, rng)
        known = loss[keep & seen]
        annealing = clock.share_after > self.anneal + 1e-9
        if clock.round > 0 and not annealing and len(known):
            if len(known) > SAMPLE:
                known = known[rng.integers(len(known), size=SAMPLE)]
            borders = _borders(known, self.groups)
            count = len(borders) - 1
            width = max(1, round(self.window * count))
            start = clock.round % (count - width + 1)
            keep &= ~seen | ((loss >= borders[start]) & (loss < borders[start + width]))
        return Selection(np.flatnonzero(keep))

    def forecast(self, history: History, clock: Clock) -> int:
        return len(history) - self._left_out(len(history))

    def _left_out(self, n: int) -> int:
        return int(self.ratio * n + 1e-9)

    def _draw(self, seen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw a random (1 - r) share of the rows, (N,) bool. Seen rows are left out first."""
        drawn = np.ones(len(seen), bool)
        spare = self._left_out(len(seen))
        for rows in (seen, ~seen):
            out = min(spare, int(rows.sum()))
            if out:
                drawn[rng.choice(np.flatnonzero(rows), out, replace=False, shuffle=False)] = False
            spare -= out
        return drawn


def _borders(losses: np.ndarray, groups: int) -> np.ndarray:
    """Compute the borders of the G' non-empty groups of the 1-D k-means: (G' + 1,) float32.

    Group j has the losses in [borders[j], borders[j + 1]).
    """
    values, counts = np.unique(losses, return_counts=True)
    mass = np.concatenate([[0], np.cumsum(counts)])
    moment = np.concatenate([[0.0], np.cumsum(values * counts.astype(np.float64))])
    centres = values[(2 * np.arange(groups) + 1) * len(values) // (2 * groups)].astype(np.float64)
    cuts, edges = np.array([]), np.array([], np.int64)
    for _ in range(ITERATIONS):
        cuts = (centres[:-1] + centres[1:]) / 2
        previous, edges = edges, np.searchsorted(values, cuts)
        if np.array_equal(edges, previous):
            break
        ends = np.concatenate([[0], edges, [len(values)]])
        size = np.diff(mass[ends])
        centres = np.where(size > 0, np.diff(moment[ends]) / np.maximum(size, 1), centres)  # an empty group stays
    inner, first = np.unique(edges, return_index=True)
    first, inner = first[(inner > 0) & (inner < len(values))], inner[(inner > 0) & (inner < len(values))]
    above = np.nextafter(values[inner - 1], np.float32(np.inf))  # rounding a cut may not move a loss across it
    return np.concatenate([[-np.inf], np.maximum(cuts[first].astype(np.float32), above), [np.inf]], dtype=np.float32)
