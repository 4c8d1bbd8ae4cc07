"""The runs of a comparison in numbers: qualities, costs, differences paired by seeds, and who is compared with whom."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..report.scales import scale_of
from .intervals import interval, resample_rows
from .plan import COMMAND, KINDS, Plan
from .power import Spread
from .result import RunResult
from .store import load_runs

if TYPE_CHECKING:
    from typing_extensions import Self

CLOSE = 0.1  # two arms read as much if what they read differs by no more than this share


class Measured:
    """The runs of a folder, compared in numbers.

    Args:
        plan: The plan that was to be run.
        runs: The runs that have ended, by arm and seed. Diverged runs are in no number, but they are named.

    Raises:
        ValueError: All runs have diverged, have different metrics, or were tested on different rows.
    """

    def __init__(self, plan: Plan, runs: dict[tuple[str, int], RunResult]):
        self.diverged = [key for key, run in runs.items() if run.has_diverged]
        runs = {key: run for key, run in runs.items() if not run.has_diverged}
        if not runs:
            raise ValueError("The quality of every run that has ended is no number: they have diverged.")
        self.plan, self.runs = plan, runs
        first = next(iter(runs.values()))
        for (arm, seed), run in runs.items():
            same = ("metric", "greater_is_better", "split", "rows")
            if any(run.results["quality"][name] != first.results["quality"][name] for name in same) or (
                run.tested_on != first.tested_on
            ):
                raise ValueError(f"{arm}, seed {seed} was tested on other rows, or by another metric, than the others.")
        self.metric = first.results["quality"]["metric"]
        self.unit, self.tested = first.unit, first.results["quality"]
        self.scale = scale_of(self.metric)
        self.margin = self.scale.margin if plan.margin is None else plan.margin
        self.sign = 1 if self.tested["greater_is_better"] else -1
        self.by_rows = all(run.rows is not None for run in runs.values())
        if self.by_rows:
            resampled = resample_rows([run.rows for run in runs.values() if run.rows]) * self.scale.factor
            self._resampled = dict(zip(runs, resampled, strict=True))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Self":
        """Read the runs of a folder that have ended.

        Raises:
            ValueError: It is not the folder of a comparison, no run has ended, or one can't be compared.
        """
        plan = Plan.load(folder)
        if plan is None:
            raise ValueError(f"{folder} has no {COMMAND}, so it is not the folder of a comparison.")
        runs = load_runs(folder, plan.runs())
        if not runs:
            raise ValueError(f"{folder} has no run that has ended.")
        return cls(plan, runs)

    @property
    def has_learnt(self) -> bool:
        """Whether the full arm has; if it gives every row the same answer, no difference means anything."""
        known = [self.runs["full", seed].is_constant for seed in self.seeds("full")]
        return not (known and all(known))

    def seeds(self, arm: str) -> list[int]:
        """Seeds of the runs of an arm that have ended."""
        return [seed for name, seed in self.runs if name == arm]

    def values(self, arm: str) -> np.ndarray:
        """(n,) quality for each of these seeds, in the unit that is shown."""
        found = [self.runs[arm, seed].results["quality"]["value"] for seed in self.seeds(arm)]
        return np.array(found) * self.scale.factor

    def cost(self, arm: str, seeds: Iterable[int] | None = None) -> dict[str, float]:
        """Means over seeds of the numbers of `RunResult.cost`.

        Args:
            arm: Name of the arm.
            seeds: The seeds to use; None = all that have ended.
        """
        costs = [self.runs[arm, seed].cost() for seed in seeds or self.seeds(arm)]
        return {name: float(np.mean([cost[name] for cost in costs])) for name in costs[0]}

    def seconds(self, arm: str) -> float:
        """Seconds of a whole run, mean over seeds."""
        return float(np.mean([self.runs[arm, seed].seconds for seed in self.seeds(arm)]))

    def tokens(self, arm: str) -> float | None:
        """Real tokens trained, mean over seeds; None if it is not known for all."""
        found = [self.runs[arm, seed].tokens for seed in self.seeds(arm)]
        return None if None in found else float(np.mean(np.array(found, dtype=float)))

    def difference(self, arm: str, to: str) -> dict[str, Any] | None:
        """How much higher the quality of `arm` is, paired by seeds; None if the two arms have no seed in common.

        Args:
            arm: Name of the arm.
            to: The arm that it is compared with.

        Returns:
            `to`, `seeds`, `mean`, `low` and `high` (the 95 % confidence interval; None if there is none), and `saved`,
            the share of what `to` read that `arm` did not read.
        """
        seeds = self.common_seeds(arm, to)
        if not seeds:
            return None
        differences, resampled = self._paired(arm, to)
        low, high = interval(differences, resampled) or (None, None)
        saved = 1 - self.cost(arm, seeds)["all"] / self.cost(to, seeds)["all"]
        mean = float(differences.mean())
        return {"to": to, "seeds": len(seeds), "mean": mean, "low": low, "high": high, "saved": saved}

    def common_seeds(self, arm: str, to: str) -> list[int]:
        """Seeds with which two arms have both ended."""
        return sorted(set(self.seeds(arm)) & set(self.seeds(to)))

    def _paired(self, arm: str, to: str) -> tuple[np.ndarray, np.ndarray | None]:
        """(n,) differences for each common seed, and (n, B) those on resampled rows."""
        seeds, resampled = self.common_seeds(arm, to), None
        value, other = (dict(zip(self.seeds(name), self.values(name), strict=True)) for name in (arm, to))
        if self.by_rows:
            resampled = np.array([self._resampled[arm, seed] - self._resampled[to, seed] for seed in seeds])
        return np.array([value[seed] - other[seed] for seed in seeds]), resampled

    def spread(self, arm: str, to: str) -> Spread | None:
        """How much the difference of two arms varies; None if they have fewer than two seeds in common."""
        return Spread.of(*self._paired(arm, to)) if len(self.common_seeds(arm, to)) > 1 else None

    def opponent(self, arm: str) -> str | None:
        """The arm that a rule has to beat: the short arm that read as much, or full if the rule read as much."""
        full = self.rival(arm, "full")
        if (short := self.rival(arm, "short")) or full is None:
            return short
        return full if abs(1 - self.cost(arm)["all"] / self.cost(full)["all"]) <= CLOSE else None

    def rival(self, arm: str, kind: str) -> str | None:
        """The arm to compare an arm with: `full`, or the closest one that read as much within a tenth.

        Args:
            arm: Name of the arm.
            kind: Kind of the arm to compare with, one of `RIVALS`; an arm has no rival of its own or a later kind.
        """
        rivals = [name for name, other in self.plan.arms.items() if other.kind == kind and self.seeds(name)]
        if not rivals or not self.seeds(arm) or KINDS.index(kind) >= KINDS.index(self.plan.arms[arm].kind):
            return None
        read = self.cost(arm)["all"]
        closest = min(rivals, key=lambda name: abs(self.cost(name)["all"] - read))
        return closest if kind == "full" or abs(1 - read / self.cost(closest)["all"]) <= CLOSE else None

    def seconds_to_full(self, arm: str) -> tuple[list[float], int]:
        """Seconds until a validation was as good as the full arm's last, for seeds that got there; number of seeds."""
        found, seeds = [], [seed for seed in self.seeds(arm) if ("full", seed) in self.runs]
        for seed in seeds:
            goal, curve = self.runs["full", seed].curve(self.metric), self.runs[arm, seed].curve(self.metric)
            reached = curve[self.sign * curve[:, 2] >= self.sign * goal[-1:, 2]] if len(goal) else goal
            found += [float(reached[0, 1])] if len(reached) else []
        return found, len(seeds)

    def curves(self, arm: str) -> tuple[np.ndarray, np.ndarray]:
        """(E, 3) what was trained, seconds and quality at each evaluation, mean over seeds; (E,) deviation of quality.

        Evaluations are paired by their number; if a seed stopped early, the last ones of the other seeds are left out.
        """
        curves = [self.runs[arm, seed].curve(self.metric) * [1, 1, self.scale.factor] for seed in self.seeds(arm)]
        shortest = min(map(len, curves))
        stacked = np.stack([curve[:shortest] for curve in curves])
        spread = stacked[:, :, 2].std(axis=0, ddof=1) if len(stacked) > 1 else np.zeros(shortest)
        return stacked.mean(axis=0), spread
