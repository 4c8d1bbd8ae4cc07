"""How many seeds tell a difference between two arms from noise, and how strict looks before the last seed are.

The interval of a difference has two parts, see intervals.py: one over seeds, one over test rows. `Spread` has their
variances. If one seed's difference has the variance S, and the test rows alone blur the mean over any number of seeds
by the variance R, then n seeds give an interval of the half-width

    h_n = sqrt(t(0.975, n - 1)^2 S / n + z(0.975)^2 R)

`Spread.seeds_needed` is the smallest n for which a difference of the size asked for is farther than h_n from 0 in 80 %
of cases, by the noncentral t distribution; for R = 0, it is the usual sample size of a paired t test. Two seeds of one
arm hardly show S: its 95 % interval reaches from 0.2 S to 1,000 S. So `pooled` joins the variances of several arms,
weighted by their degrees of freedom. The range of `seeds_needed` comes from the chi-square interval of the joined
variance. It is somewhat too narrow, because arms share a rival.

To stop an arm as soon as its interval excludes 0 would find differences by chance: with a look at each of two to eight
seeds, in 17 % of cases (simulated) and not in 5 %. A look before the last seed therefore takes the interval h_n of
99.9 % (`LOOK`; Haybittle 1971, Peto et al. 1976). Then the last look may keep its 95 %: both together find one in 5.1 %
of cases. Where several arms could be named the winner, `holm` corrects their p-values for their number (Holm 1979).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import chdtri, nctdtr, nctdtrinc, ndtri, stdtr, stdtrit  # pyright: ignore[reportAttributeAccessIssue]

LOOK = 0.999  # level of intervals by which an arm is stopped before its last seed
POWER = 0.8  # share of cases in which a difference is to be told from noise
MOST_SEEDS = 1000  # a plan of more is no plan


@dataclass(frozen=True)
class Spread:
    """How much the mean difference of two arms varies.

    Args:
        seeds: Variance of the difference of one seed, in squared units; it falls with the number of seeds.
        rows: Variance by the test rows, which no number of seeds takes away.
        freedom: Degrees of freedom of `seeds`, at least 1.
    """

    seeds: float
    rows: float
    freedom: int

    @classmethod
    def of(cls, differences: np.ndarray, resampled: np.ndarray | None = None) -> "Spread":
        """Measure it, with the arguments of `interval`; there are two seeds or more."""
        n, seeds = len(differences), float(differences.var(ddof=1))
        if resampled is None:
            return cls(seeds, 0.0, n - 1)
        covariance = np.cov(resampled)
        own = float(np.trace(covariance)) / n
        shared = max(0.0, (float(covariance.sum()) - n * own) / (n * (n - 1)))  # what all seeds have of the rows
        return cls(seeds + own - shared, shared, n - 1)

    def error(self, n: int) -> float:
        """The standard error of the mean over n seeds."""
        return (self.seeds / n + self.rows) ** 0.5

    def half(self, n: int | np.ndarray, level: float = 0.95) -> Any:
        """Half the width of the interval over n seeds, which is h_n.

        Args:
            n: Number of seeds, 2 or more, or several such numbers.
            level: Share of cases in which such an interval should hold the true difference.
        """
        tail = (1 + level) / 2
        return np.sqrt(stdtrit(n - 1, tail) ** 2 * self.seeds / n + ndtri(tail) ** 2 * self.rows)

    def seeds_needed(self, difference: float) -> int | None:
        """The number of seeds that tells a true difference of this size from 0; None = more than `MOST_SEEDS`."""
        if self.seeds + self.rows == 0:
            return 2
        n = np.arange(2, MOST_SEEDS + 1)
        error = np.sqrt(self.seeds / n + self.rows)
        missed = np.nan_to_num(nctdtr(n - 1, difference / error, self.half(n) / error))  # NaN far out, where it is 0
        enough = np.flatnonzero(missed <= 1 - POWER)
        return int(n[enough[0]]) if len(enough) else None

    def range_needed(self, difference: float) -> tuple[int | None, int | None]:
        """`seeds_needed` for both ends of the 95 % interval of the variance over seeds."""
        low, high = (self.seeds * self.freedom / chdtri(self.freedom, tail) for tail in (0.025, 0.975))
        few, many = (Spread(float(seeds), self.rows, self.freedom).seeds_needed(difference) for seeds in (low, high))
        return few, many

    def detectable(self, n: int) -> float:
        """The smallest true difference that n seeds tell from 0."""
        error = self.error(n)
        return error and float(nctdtrinc(n - 1, 1 - POWER, self.half(n) / error)) * error

    def p_value(self, mean: float, n: int) -> float:
        """The two-sided p-value of a mean difference over n seeds, by Student's t."""
        if not (error := self.error(n)):
            return float(mean == 0)
        return float(2 * stdtr(n - 1, -abs(mean) / error))


def pooled(spreads: Sequence[Spread]) -> Spread:
    """The spreads of several arms, at least one, as one: variances weighted by their degrees of freedom."""
    freedom = [spread.freedom for spread in spreads]
    seeds, rows = (np.average([getattr(one, part) for one in spreads], weights=freedom) for part in ("seeds", "rows"))
    return Spread(float(seeds), float(rows), sum(freedom))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number: 0.05 then bounds the chance that any true hypothesis is rejected."""
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1)
    found = np.empty(len(p_values))
    found[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return found.tolist()
