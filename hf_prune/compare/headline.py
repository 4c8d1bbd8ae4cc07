"""The verdict of a comparison in one line: which rule wins, that none does, or what would decide it.

A rule is an arm of the kinds `policy` and `baseline`. It wins in one of two ways:

1. It is better than the short arm that read as much (than full, if it read as much as full).
2. It is as good as full within the margin, and read at least a tenth less than any short arm that is, and than full.

The 95 % interval must show it, and so must a t test whose p-value Holm's method has corrected for the number of rules:
of twenty rules that do nothing, one would win otherwise. Of several winners, the one with the best score is named, for
their gains are over arms of different lengths. Nothing wins where no interval leaves room for a gain of more than the
margin. All else is not decided. An oracle is no rule. It shows whether there is headroom.
"""

from dataclasses import dataclass
from typing import Any

from ..report.account import NOTHING
from .enough import Need, duration, needs, seconds_to
from .measured import CLOSE, Measured
from .power import MOST_SEEDS, holm, pooled

_CONFIDENT = 0.05  # largest corrected p-value of a winner
_ERRORS = 2.8  # standard errors of a difference that is found in 80 % of cases: 1.96 + 0.84


@dataclass(frozen=True)
class _Rule:
    """A rule, and its difference to the arm that it has to beat; None where there is none."""

    arm: str
    difference: dict[str, Any] | None
    ends: tuple[float, float] | None  # of its interval: worst, best; a gain is above 0


def headline(found: Measured) -> dict[str, Any]:
    """`line`, the verdict; `state`: won, lost, open or none; `arm`, the best winner or None; `rules`, their number.

    Args:
        found: The comparison.
    """
    rules = [_rule(found, name) for name, arm in found.plan.arms.items() if arm.kind in ("baseline", "policy")]
    rules = [rule for rule in rules if found.seeds(rule.arm)]
    share = _enough_epochs(found)
    if not found.has_learnt:
        line, state, arm = "no conclusion: full gives every row the same answer, it has learnt nothing", "none", None
    elif not rules:
        line, state, arm = f"no rule has run; {share} are as good as all" if share else "no rule has run", "none", None
    elif winners := _winners(found, rules):
        arm, line = winners[0]
        line, state = f"{line}; {_count(len(winners), len(rules))}", "won"
    elif all(_lost(found, rule) for rule in rules):
        gain = "" if found.margin is None else f" by more than {found.margin:g}"
        seeds = min(rule.difference["seeds"] for rule in rules if rule.difference)
        line = f"nothing beats {share or 'fewer epochs'} here ({seeds} seeds; none of {len(rules)} "
        line += f"rule{'s' * (len(rules) > 1)} is better than as many {found.unit} of all rows{gain})"
        state, arm = "lost", None
    else:
        line, state, arm = _open(found, rules), "open", None
    return {"line": line, "state": state, "arm": arm, "rules": len(rules)}


def _count(winners: int, rules: int) -> str:
    if rules == 1:
        return "it is the only rule"
    return f"{winners} of {rules} rules win{'s' * (winners == 1)}"


def _rule(found: Measured, arm: str) -> _Rule:
    difference = found.difference(arm, to) if (to := found.opponent(arm)) else None
    return _Rule(arm, difference, _ends(found, difference))


def _ends(found: Measured, difference: dict[str, Any] | None) -> tuple[float, float] | None:
    """The worst and the best end of an interval over several seeds, a gain above 0; None if there is none."""
    if difference is None or difference["seeds"] < 2 or difference["low"] is None:
        return None
    worst, best = sorted(found.sign * difference[end] for end in ("low", "high"))
    return worst, best


def _lost(found: Measured, rule: _Rule) -> bool:
    """Whether no gain is left in its interval that would count."""
    return rule.ends is not None and rule.ends[1] <= (found.margin or 0)


def _p_value(found: Measured, arm: str, to: str, shift: float = 0.0) -> float:
    """Of the gain of an arm and a shift being 0; 1 if it is not above 0, or not known."""
    difference, spread = found.difference(arm, to), found.spread(arm, to)
    if difference is None or spread is None or (gain := found.sign * difference["mean"] + shift) <= 0:
        return 1.0
    return spread.p_value(gain, difference["seeds"])


def _winners(found: Measured, rules: list[_Rule]) -> list[tuple[str, str]]:
    """Name and words of each rule that wins, the best first."""
    values = holm([_p_value(found, rule.arm, rule.difference["to"]) if rule.difference else 1.0 for rule in rules])
    better = [(rule, rule.ends) for rule, value in zip(rules, values, strict=True) if rule.ends and value <= _CONFIDENT]
    better = sorted(
        (one for one in better if one[1][0] > 0), key=lambda one: -found.sign * found.values(one[0].arm).mean()
    )
    won = [(rule.arm, _gain(found, rule)) for rule, _ in better]
    if found.margin is None or not found.seeds("full"):
        return won
    values = holm([_p_value(found, rule.arm, "full", found.margin) for rule in rules])
    good = [
        rule for rule, value in zip(rules, values, strict=True) if value <= _CONFIDENT and _as_good(found, rule.arm)
    ]
    shorts = [name for name, arm in found.plan.arms.items() if arm.kind == "short" and _as_good(found, name)]
    least = min(found.cost(name)["all"] for name in ("full", *shorts))
    cheap = [rule for rule in good if found.cost(rule.arm)["all"] < (1 - CLOSE) * least]
    cheap = [rule for rule in cheap if rule.difference is None or found.sign * rule.difference["mean"] > 0]
    cheap.sort(key=lambda rule: found.cost(rule.arm)["all"])
    named = dict(won)
    return won + [(rule.arm, _thrift(found, rule.arm)) for rule in cheap if rule.arm not in named]


def _as_good(found: Measured, arm: str) -> bool:
    """Whether the interval of an arm's difference to full shows that it loses no more than the margin."""
    ends = _ends(found, found.difference(arm, "full")) if found.seeds(arm) else None
    return ends is not None and found.margin is not None and ends[0] > -found.margin


def _gain(found: Measured, rule: _Rule) -> str:
    difference = rule.difference
    assert difference is not None
    full = found.difference(rule.arm, "full") if difference["to"] != "full" and found.seeds("full") else None
    beside = f", {full['mean']:+.{found.scale.digits}f} against full" if full else ""
    return f"{rule.arm}: {_told(found, difference)} against {difference['to']}{beside}, {_saved(found, rule.arm)}"


def _thrift(found: Measured, arm: str) -> str:
    full = found.difference(arm, "full")
    assert full is not None
    return f"{arm}: as good as full within {found.margin:g} ({_told(found, full)}), {_saved(found, arm)}"


def _told(found: Measured, difference: dict[str, Any]) -> str:
    """A difference with its seeds and its interval."""
    low, high, mean = (f"{difference[name]:+.{found.scale.digits}f}" for name in ("low", "high", "mean"))
    return f"{mean} {found.scale.unit} ({difference['seeds']} seeds, 95 % CI {low} to {high})"


def _saved(found: Measured, arm: str) -> str:
    saved = 1 - found.cost(arm)["all"] / found.cost("full")["all"] if found.seeds("full") else 0
    if abs(saved) < NOTHING:
        return f"at as many {found.unit} as full"
    return f"at {100 * abs(saved):.0f} % {'fewer' if saved > 0 else 'more'} {found.unit} than full"


def _enough_epochs(found: Measured) -> str:
    """The smallest share of the epochs whose short arm is as good as full; "" if none is known to be."""
    shorts = [arm.budget for name, arm in found.plan.arms.items() if arm.kind == "short" and _as_good(found, name)]
    return f"{100 * min(filter(None, shorts)):g} % of the epochs" if any(shorts) else ""


def _open(found: Measured, rules: list[_Rule]) -> str:
    """What is not decided, and what would decide it."""
    undecided = [rule for rule in rules if not _lost(found, rule)]
    line = f"not decided for {len(undecided)} of {len(rules)} rules" if len(rules) > 1 else "not decided"
    alone = [rule.arm for rule in undecided if rule.difference is None]
    if len(alone) == len(undecided):
        return f"{line}: no arm with fewer epochs read as much; run again with --budgets auto"
    of_seeds = {rule.arm: rule.difference["seeds"] for rule in undecided if rule.difference}
    if min(of_seeds.values()) == 1:
        return f"{line}: one seed says nothing about others; two show how many are needed"
    lucky = [rule.arm for rule in undecided if rule.ends and rule.ends[0] > 0]
    more = f"; {lucky[0]} looks better, as one of {len(rules)} rules may by chance" if lucky else ""
    needed = [need for need in needs(found) if need.arm in of_seeds]
    return f"{line}: {_needed(found, needed) if needed else 'no margin is known: give --margin'}{more}"


def _needed(found: Measured, needed: list[Need]) -> str:
    """How little can be seen now, and how many seeds would show the margin."""
    margin, seeds, unit = found.margin or 0, min(need.seeds for need in needed), found.scale.unit
    seen = pooled([need.spread for need in needed]).detectable(seeds)
    told = f"{seeds} seeds tell nothing below {seen:.2g} {unit}"
    known = [need.needed for need in needed if need.needed is not None]
    if not known:
        rows = min(need.spread.rows for need in needed) ** 0.5
        many = f"no number of seeds would tell {margin:g} with {found.tested['rows']:,} test rows"
        return f"{told}; {many if _ERRORS * rows > margin else f'{MOST_SEEDS:,} would not tell {margin:g}'}"
    going_on = [name for name, arm in found.plan.arms.items() if found.seeds(name) and not arm.stopped]
    cost = duration(seconds_to(found, max(known), going_on))
    some = f" for {len(known)} of these {len(needed)}" if len(known) < len(needed) else ""
    return f"{told}; {max(known)} seeds would tell {margin:g}{some} ({cost} more)"


# ---- The oracle ----


def _oracle(found: Measured) -> _Rule | None:
    """The best arm that chooses by what no rule can know; None if none has run."""
    rules = [_rule(found, name) for name, arm in found.plan.arms.items() if arm.kind == "oracle" and found.seeds(name)]
    known = [rule for rule in rules if rule.difference]
    return max(known or rules, key=lambda rule: found.sign * (rule.difference or {"mean": 0})["mean"], default=None)


def headroom(found: Measured) -> str | None:
    """Whether a rule could win at all, by an oracle; None if no oracle has run."""
    if (oracle := _oracle(found)) is None:
        return None
    if oracle.difference is None:
        return f"headroom not known: no arm with fewer epochs read as much as {oracle.arm}; add --budgets auto"
    told, to = _told(found, oracle.difference) if oracle.ends else "", oracle.difference["to"]
    if oracle.ends and oracle.ends[0] > 0:
        return f"headroom: {oracle.arm} gains {told} against {to}"
    if _lost(found, oracle):
        return f"no headroom: even {oracle.arm} does not beat {to}, {told}"
    return f"headroom not decided: {oracle.arm} against {to}{f', {told}' if told else ' has no interval yet'}"


def share_of_oracle(found: Measured, arm: str) -> float | None:
    """The gain of a rule as a share of the oracle's gain; None if either has nobody to beat, or there is no headroom.

    Args:
        found: The comparison.
        arm: Name of the rule.
    """
    oracle, rule = _oracle(found), _rule(found, arm)
    if oracle is None or oracle.difference is None or not oracle.ends or oracle.ends[0] <= 0 or not rule.difference:
        return None
    return rule.difference["mean"] / oracle.difference["mean"]
