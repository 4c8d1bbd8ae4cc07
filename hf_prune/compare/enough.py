"""Whether the arms of a comparison have enough seeds: how many each needs, what they cost, and which are decided."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .measured import Measured
from .plan import Plan
from .power import LOOK, Spread, pooled

RULES = ("baseline", "policy", "oracle")  # kinds of arms that have to beat fewer epochs
_FEW = 5  # with fewer seeds, an arm's own spread over seeds says too little: that of all arms is used
_FIRST_LOOK = 3  # seeds; two differences may agree by chance


@dataclass(frozen=True)
class Need:
    """How many seeds an arm needs to tell the margin from noise.

    Args:
        arm: Name of the arm.
        to: The arm that it has to beat.
        seeds: Number of seeds that both have, at least two.
        spread: How much their difference varies; with few seeds, that of all arms.
        needed: Number of seeds that tell the margin from 0; None = more than can be planned.
        between: The smallest and the largest number that the spread allows, None as above.
        seconds: Of the runs of both that this takes, one after another; None if `needed` is.
    """

    arm: str
    to: str
    seeds: int
    spread: Spread
    needed: int | None
    between: tuple[int | None, int | None]
    seconds: float | None

    def to_dict(self, digits: int) -> dict[str, Any]:
        """Plain values; the deviation of one seed's difference in place of the spread."""
        few, many = self.between
        values = {"arm": self.arm, "to": self.to, "seeds": self.seeds, "needed": self.needed, "at_least": few}
        return values | {"at_most": many, "deviation": round(self.spread.seeds**0.5, digits), "seconds": self.seconds}


def planning_spreads(found: Measured) -> dict[str, tuple[str, Spread]]:
    """For each rule with two seeds or more: the arm that it has to beat, and the spread to plan with."""
    opponents = {name: found.opponent(name) for name, arm in found.plan.arms.items() if arm.kind in RULES}
    spreads = {name: (to, found.spread(name, to)) for name, to in opponents.items() if to}
    known = {name: (to, spread) for name, (to, spread) in spreads.items() if spread}
    if not known:
        return {}
    of_all = pooled([spread for _, spread in known.values()])
    few = {name for name, (_, spread) in known.items() if spread.freedom < _FEW - 1}
    joined = {name: Spread(of_all.seeds, known[name][1].rows, of_all.freedom) for name in few}
    return {name: (to, joined.get(name, spread)) for name, (to, spread) in known.items()}


def needs(found: Measured) -> list[Need]:
    """What each rule needs that has two seeds or more; nothing where no margin is known."""
    made = []
    for arm, (to, spread) in planning_spreads(found).items() if found.margin else ():
        needed = spread.seeds_needed(found.margin or 0)
        seconds = None if needed is None else seconds_to(found, needed, (arm, to))
        seeds = len(found.common_seeds(arm, to))
        made.append(Need(arm, to, seeds, spread, needed, spread.range_needed(found.margin or 0), seconds))
    return made


def seconds_to(found: Measured, seeds: int, arms: Iterable[str]) -> float:
    """Seconds until these arms have so many seeds, by the runs that have ended and with as many runs at once.

    Args:
        found: The comparison.
        seeds: Number of seeds that each arm is to have.
        arms: Names of arms that have a run.
    """
    missing = {arm: max(0, seeds - len(found.seeds(arm))) for arm in arms}
    return sum(count * found.seconds(arm) for arm, count in missing.items()) / found.plan.jobs


def duration(seconds: float) -> str:
    """A time in words, rounded."""
    for unit, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 1.5 * unit:
            return f"{seconds / unit:.0f} {name}s"
    return f"{max(1, round(seconds))} second{'s' * (round(seconds) > 1)}"


# ---- Before the last seed ----


def stopped(found: Measured, plan: Plan) -> dict[str, str]:
    """The arms that need no more seeds, and why: decided rules, and baselines that no undecided rule needs.

    Args:
        found: The runs that have ended. An arm that its plan has stopped stays so.
        plan: The arms that run, and the largest number of seeds.
    """
    rules = [name for name, arm in plan.arms.items() if arm.kind in RULES]
    reasons = {name: found.plan.arms[name].stopped or _decided(found, name, plan.seeds) for name in rules}
    decided = {name: reason for name, reason in reasons.items() if reason}
    if not decided:
        return {}
    undecided = [name for name in rules if name not in decided]
    if not all(found.seeds(name) for name in undecided):
        return decided  # what these will read, and so whom they need, is not known yet
    needed = {found.rival(name, kind) for name in undecided for kind in ("full", "short", "uniform")}
    idle = [name for name, arm in plan.arms.items() if arm.kind not in RULES and name not in needed]
    return decided | dict.fromkeys(idle, "no undecided arm needs it")


def _decided(found: Measured, arm: str, most: int) -> str | None:
    """Why a rule is decided; None if it is not."""
    to = found.opponent(arm)
    n = len(found.common_seeds(arm, to)) if to else 0
    difference, spread = (found.difference(arm, to), found.spread(arm, to)) if to else (None, None)
    if difference is None or spread is None or not _FIRST_LOOK <= n < most:
        return None
    mean, half, digits, margin = difference["mean"], spread.half(n, LOOK), found.scale.digits, found.margin or 0
    low, high = mean - half, mean + half
    numbers = f"{100 * LOOK:g} % CI {low:+.{digits}f} to {high:+.{digits}f} with {n} seeds"
    if half and max(abs(low), abs(high)) <= margin:
        return f"same quality as {to} within {margin:g}, {numbers}"
    if half and (low > 0 or high < 0):
        return f"{'better' if found.sign * mean > 0 else 'worse'} than {to}, {numbers}"
    plan = planning_spreads(found)[arm][1]
    likely = max(margin, abs(mean) + plan.half(n))  # the largest difference that is not refuted
    needed = plan.seeds_needed(likely) if likely else None
    if likely and (needed is None or needed > most):
        told = "more than can be planned" if needed is None else needed
        return f"{most} seeds would decide nothing, even a difference from {to} of {likely:.{digits}f} needs {told}"
    return None
