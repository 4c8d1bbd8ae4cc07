"""Whether pruning paid: runs of several arms with the same seeds, compared in numbers and in sentences.

A comparison is a folder. `command.json` says what to run, and `store` says where the ended runs are. Everything else is
made from these.
"""

import os
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np

from ..report.account import NOTHING
from ..report.scales import scale_of
from .intervals import interval, resample_rows
from .plan import COMMAND, KINDS, Plan
from .result import RunResult
from .store import load_runs

CLOSE = 0.1  # two arms read as much if what they read differs by no more than this share
_SURROUNDINGS = ("parameters", "hardware", "versions", "commit")


class Comparison:
    """The runs of a folder, compared.

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
    def load(cls, folder: str | os.PathLike[str]) -> "Comparison":
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

    # ---- Numbers ----

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
        seeds = sorted(set(self.seeds(arm)) & set(self.seeds(to)))
        if not seeds:
            return None
        value, other = (dict(zip(self.seeds(name), self.values(name), strict=True)) for name in (arm, to))
        differences, resampled = np.array([value[seed] - other[seed] for seed in seeds]), None
        if self.by_rows:
            resampled = np.array([self._resampled[arm, seed] - self._resampled[to, seed] for seed in seeds])
        low, high = interval(differences, resampled) or (None, None)
        saved = 1 - self.cost(arm, seeds)["all"] / self.cost(to, seeds)["all"]
        mean = float(differences.mean())
        return {"to": to, "seeds": len(seeds), "mean": mean, "low": low, "high": high, "saved": saved}

    def rival(self, arm: str, kind: str) -> str | None:
        """The arm to compare an arm with: `full`, or the closest one that read as much within a tenth.

        Args:
            arm: Name of the arm.
            kind: Kind of the arm to compare with, one of `KINDS`; an arm has no rival of its own or a later kind.
        """
        rivals = [name for name, other in self.plan.arms.items() if other.kind == kind and self.seeds(name)]
        if not rivals or KINDS.index(kind) >= KINDS.index(self.plan.arms[arm].kind):
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

    # ---- Words ----

    def _verdicts(self, arm: str, differences: dict[str, dict[str, Any] | None]) -> list[str]:
        """What each difference supports, and what to run if `full` is the only arm to compare with."""
        known = [self.runs["full", seed].is_constant for seed in self.seeds("full")]
        if known and all(known):
            return ["no conclusion, because full gives every row the same answer: it has learnt nothing"]
        verdicts = [self._verdict(difference) for difference in differences.values() if difference]
        full = differences["full"]
        if self.plan.arms[arm].kind == "policy" and full and abs(full["saved"]) < NOTHING:
            verdicts.append("it pruned nothing")
        alone = self.plan.arms[arm].kind == "policy" and not (differences["short"] or differences["uniform"])
        if alone and full and full["saved"] > CLOSE:
            share = 1 - full["saved"]
            planned = [other.budget for other in self.plan.arms.values() if other.kind == "short" and other.budget]
            if not any(abs(1 - share / budget) <= CLOSE for budget in planned):  # else that baseline has not ended yet
                verdicts.append(f"no baseline read as much: add --budgets {share:.2f}")
        return verdicts

    def _verdict(self, difference: dict[str, Any]) -> str:
        to, low, high = difference["to"], difference["low"], difference["high"]
        saved, digits = difference["saved"], self.scale.digits
        amount = f"{abs(saved):.1%}".replace("%", " %")
        read = (
            f"as many {self.unit}" if amount == "0.0 %" else f"{amount} {'fewer' if saved > 0 else 'more'} {self.unit}"
        )
        mean = f"{difference['mean']:+.{digits}f} {self.scale.unit}"
        if low is None:
            known = "one seed" if difference["seeds"] == 1 else "the same with every seed"
            return f"{mean} compared with {to} ({known}, so no interval) with {read}"
        one = "with one seed, " if difference["seeds"] == 1 else ""
        numbers = f"{mean}, 95 % CI {low:+.{digits}f} to {high:+.{digits}f}{' over rows only' if one else ''}"
        worst, best = sorted((self.sign * low, self.sign * high))
        margin, rows = self.margin, self.tested["rows"] * difference["seeds"]
        # an interval without width: no row differs. By the rule of three, 3 / rows of all rows may still differ
        enough = margin is None or low < high or 3 * self.scale.factor / rows <= margin
        if margin is not None and max(abs(low), abs(high)) <= margin and enough:
            return f"{one}same quality as {to} within {margin:g} ({numbers}) with {read}"
        if worst > 0 or best < 0:
            return f"{one}{'better' if worst > 0 else 'worse'} than {to} ({numbers}) with {read}"
        flaw = "" if margin is None else f", too {'wide' if enough else 'few rows'} to show the same within {margin:g}"
        return f"{one}no significant difference from {to} ({numbers}{flaw}) with {read}"

    def to_dict(self) -> dict[str, Any]:
        """All numbers and conclusions, as plain values; qualities and differences in the unit that is shown."""
        arms = []
        for name, arm in self.plan.arms.items():
            if not (seeds := self.seeds(name)):
                continue
            rivals = {kind: self.rival(name, kind) for kind in KINDS[:-1]}
            differences = {kind: self.difference(name, to) if to else None for kind, to in rivals.items()}
            verdicts = "; ".join(self._verdicts(name, differences))
            verdicts = verdicts or ("the baseline of the other arms" if arm.kind == "full" else "not yet compared")
            if lost := sum(arm == name for arm, _ in self.diverged):
                verdicts = f"diverged with {lost} of {lost + len(seeds)} seeds; with the others, {verdicts}"
            values, (reached, tried) = self.values(name), self.seconds_to_full(name)
            arms.append(
                {
                    "arm": name,
                    "kind": arm.kind,
                    "budget": arm.budget,
                    "flags": list(arm.flags),
                    "policy": self.runs[name, seeds[0]].results["policy"],
                    "seeds": seeds,
                    "quality": values.tolist(),
                    "mean": float(values.mean()),
                    "standard_deviation": float(values.std(ddof=1)) if len(values) > 1 else None,
                    "differences": differences,
                    self.unit: {key: self.cost(name)[key] for key in ("trained", "forward_only", "earlier", "all")},
                    **({"tokens": self.tokens(name)} if self.unit == "positions" else {}),
                    "steps": self.cost(name)["steps"],
                    "seconds": self.cost(name)["seconds"],
                    "seconds_to_full": float(np.mean(reached)) if reached else None,
                    "seeds_that_reached_full": [len(reached), tried],
                    "conclusion": f"{name}: {verdicts}.",
                }
            )
        diverged = [f"{arm}, seed {seed}" for arm, seed in self.diverged]
        missing = [f"{arm}, seed {seed}" for arm, seed in self.plan.runs() if (arm, seed) not in self.runs]
        missing = [run for run in missing if run not in diverged]
        made = {name: _distinct(run.results[name] for run in self.runs.values()) for name in _SURROUNDINGS}
        quality = {"metric": self.metric, "unit": self.scale.title, "digits": self.scale.digits, "margin": self.margin}
        tested = {name: self.tested[name] for name in ("greater_is_better", "split", "rows")}
        intervals = {"level": 0.95, "over_rows": self.by_rows}
        plan = {name: value for name, value in asdict(self.plan).items() if name not in ("arms", "margin", "paths")}
        return {
            "plan": plan,
            "quality": quality | tested,
            "intervals": intervals,
            "arms": arms,
            "missing": missing,
            "diverged": diverged,
        } | made


def _distinct(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found
