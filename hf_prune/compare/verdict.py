"""Whether pruning paid: what the runs of several arms with the same seeds support, in sentences.

A comparison is a folder. `command.json` says what to run, and `store` says where the ended runs are. Everything else is
made from these.
"""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np

from ..report.account import NOTHING
from .classes import by_class
from .enough import RULES, needs
from .headline import headline, headroom, share_of_oracle
from .measured import CLOSE, Measured
from .plan import RIVALS
from .power import LOOK, POWER

_SURROUNDINGS = ("parameters", "hardware", "versions", "commit")


class Comparison(Measured):
    """The runs of a folder, compared in numbers and in sentences; arguments as of `Measured`."""

    def _verdicts(self, arm: str, differences: dict[str, dict[str, Any] | None]) -> list[str]:
        """What each difference supports, and what to run if `full` is the only arm to compare with."""
        if not self.has_learnt:
            return ["no conclusion, because full gives every row the same answer: it has learnt nothing"]
        verdicts = [self._verdict(difference) for difference in differences.values() if difference]
        full, is_rule = differences["full"], self.plan.arms[arm].kind in RULES
        if self.plan.arms[arm].kind in ("policy", "oracle") and full and abs(full["saved"]) < NOTHING:
            verdicts.append("it pruned nothing")
        alone = is_rule and not (differences["short"] or differences["uniform"])
        if alone and full and full["saved"] > CLOSE:
            share = 1 - full["saved"]
            planned = [other.budget for other in self.plan.arms.values() if other.kind == "short" and other.budget]
            if not any(abs(1 - share / budget) <= CLOSE for budget in planned):  # else that baseline has not ended yet
                verdicts.append(f"no baseline read as much: add --budgets {share:.2f}")
        if is_rule and self.plan.arms[arm].kind != "oracle" and (share := share_of_oracle(self, arm)) is not None:
            verdicts.append(f"{f'{100 * share:.0f} %' if share > 0 else 'none'} of what the oracle gains")
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

    def _seeds_needed(self) -> dict[str, Any]:
        """How many seeds each rule needs, and for which difference at which level and power."""
        found = [need.to_dict(self.scale.digits + 1) for need in needs(self)]
        return {"difference": self.margin, "level": 0.95, "power": POWER, "arms": found}

    def to_dict(self) -> dict[str, Any]:
        """All numbers and conclusions, as plain values; qualities and differences in the unit that is shown."""
        arms = []
        for name, arm in self.plan.arms.items():
            if not (seeds := self.seeds(name)):
                continue
            rivals = {kind: self.rival(name, kind) for kind in RIVALS}
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
                    **({"stopped": arm.stopped} if arm.stopped else {}),
                    "policy": self.runs[name, seeds[0]].results["policy"],
                    "seeds": seeds,
                    "quality": values.tolist(),
                    "mean": float(values.mean()),
                    "standard_deviation": float(values.std(ddof=1)) if len(values) > 1 else None,
                    **({"by_class": classes} if (classes := by_class(self, name)) else {}),
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
        waiting = [key for key in self.plan.runs() if key not in self.runs and not self.plan.arms[key[0]].stopped]
        missing = [f"{arm}, seed {seed}" for arm, seed in waiting]
        missing = [run for run in missing if run not in diverged]
        made = {name: _distinct(run.results[name] for run in self.runs.values()) for name in _SURROUNDINGS}
        quality = {"metric": self.metric, "unit": self.scale.title, "digits": self.scale.digits, "margin": self.margin}
        tested = {name: self.tested[name] for name in ("greater_is_better", "split", "rows")}
        intervals = {"level": 0.95, "level_of_looks": LOOK, "over_rows": self.by_rows}
        plan = {name: value for name, value in asdict(self.plan).items() if name not in ("arms", "margin", "paths")}
        return {
            "verdict": headline(self),
            "headroom": headroom(self),
            "plan": plan,
            "quality": quality | tested,
            "intervals": intervals,
            "arms": arms,
            "seeds_needed": self._seeds_needed(),
            "missing": missing,
            "diverged": diverged,
        } | made


def _distinct(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found
