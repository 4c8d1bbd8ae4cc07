"""Whether the losses of a run tell wrong labels from right ones: one judgement for advice, report, card and audit."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..common.foreign import of_kind, setting
from ..core.mixture import FEWEST

STATES = ("found", "none", "unsure", "early", "unmeasured", "diverged")
_SMALL = 0.35  # nats: a median loss below it gives labels or tokens a probability above 0.7
_FALLEN = 0.5  # of the first epoch's median loss: below it, a model has learnt; of the last but one's: it still learns
_FALLING = 0.5  # of the band that holds 80 % of an epoch's losses: a median that falls by more still moves all rows
_LEARNT = 1 / 3  # of what chance leaves to learn: a model that has learnt less doesn't know which labels are odd
_FEW = 0.01  # share of the rows: fewer can't be told from none
_KNOWN = 0.95  # share of labels predicted as given: above it, there is little left to learn
BETTER = "more epochs, a larger or a pretrained model may part them"
LONGER = "train longer, until the model knows most of its rows"


@dataclass(frozen=True)
class Judgement:
    """What the losses of a run say about wrong labels or pairs.

    Args:
        state: "found"; "none", if the losses don't fall into two groups; "unsure", if they may do so by chance;
            "early", if the model has not learnt enough for an estimate to be meaningful; "unmeasured", if no row was
            measured in two epochs, or too few rows; "diverged", if no epoch had a median loss that is a number.
        said: It in words, without a stop at the end.
        cure: What would make it meaningful, in words; "" if there is nothing to do.
    """

    state: str
    said: str
    cure: str = ""

    @property
    def is_meaningful(self) -> bool:
        """Whether there is an estimate, be it that no label is wrong."""
        return self.state in ("found", "none", "unsure")

    def to_json(self) -> str:
        """For `of_json`."""
        return json.dumps(vars(self), ensure_ascii=False)

    @classmethod
    def of_json(cls, text: str) -> "Judgement":
        """Read what `to_json` wrote.

        Raises:
            ValueError: It did not write this.
        """
        found = of_kind(json.loads(text), "the judgement", dict)
        words = [setting(found.get(name), name) for name in ("state", "said", "cure")]
        if words[0] not in STATES:
            raise ValueError(f"the state {words[0]!r} is none of {', '.join(STATES)}")
        return cls(*words)

    @property
    def line(self) -> str:
        """All of it on one line."""
        return f"{self.said}: {self.cure}." if self.cure else f"{self.said}."


def judge(facts: Mapping[str, Any]) -> Judgement:
    """Judge whether the losses of a run tell wrong labels.

    Args:
        facts: What training showed of the rows, see `row_facts`; what an earlier version did not measure is not judged.
    """
    upper = facts.get("upper")
    if upper is None and "medians" not in facts:
        said = "the rounds of the run can't be read, so the share of wrong labels or pairs is not known"
        return Judgement("unmeasured", said, "take the whole folder of the run, with _pruning inside")
    medians = [value for value in facts.get("medians", ()) if value is not None and math.isfinite(value)]
    if not medians:
        return Judgement("diverged", "no epoch had losses that are numbers: the run has diverged")
    if upper is None:
        said = "no row was measured in two epochs, so the share of wrong labels or pairs is not known"
        return Judgement("unmeasured", said, "train two epochs or more with --policy uniform --keep 1")
    if facts.get("measured", FEWEST) < FEWEST:
        said = f"only {facts['measured']:,} rows have losses, so the share of wrong labels or pairs is not known"
        return Judgement("unmeasured", said, f"it takes {FEWEST} or more")
    if why := _not_learnt(medians, facts):
        return Judgement("early", f"no estimate of wrong labels is meaningful yet, for {why}", LONGER)
    share, low, high = (upper[name] for name in ("share", "low", "high"))
    if share == 0:
        said = "the losses don't fall into two groups, so wrong labels, if there are any, can't be told from hard rows"
        return Judgement("none", said, "" if facts.get("accuracy", 0) > _KNOWN else BETTER)
    if low < _FEW:
        said = f"{100 * share:.0f} % of the rows may have wrong labels, but the 95 % interval, {100 * low:.0f} to "
        return Judgement("unsure", f"{said}{100 * high:.0f} %, does not exclude that none has")
    said = f"{100 * share:.0f} % of the rows (95 % interval {100 * low:.0f} to {100 * high:.0f}) have losses apart from"
    return Judgement("found", f"{said} the others', as wrong labels or pairs have")


def _not_learnt(medians: list[float], facts: Mapping[str, Any]) -> str:
    """Why the model has not learnt enough, in words; "" if it has."""
    accuracy, chance = facts.get("accuracy"), facts.get("chance")
    if accuracy is not None and chance is not None:
        if accuracy < chance + _LEARNT * (1 - chance):  # many wrong labels keep losses high, so these say less
            return (
                f"the model predicts {100 * accuracy:.0f} % of the labels as given, and the most frequent class alone "
                f"is {100 * chance:.0f} % of the rows"
            )
    elif medians[-1] > max(_FALLEN * medians[0], _SMALL):
        return f"the median loss only went from {medians[0]:.3g} to {medians[-1]:.3g} nats"
    if len(medians) > 1 and medians[-2] > _SMALL and medians[-1] < _FALLEN * medians[-2]:
        return f"the median loss still fell from {medians[-2]:.3g} to {medians[-1]:.3g} nats in the last epoch"
    band = facts.get("band")
    if band is not None and len(medians) > 1 and medians[-2] - medians[-1] > _FALLING * band:
        return (
            f"the median loss still fell by {medians[-2] - medians[-1]:.3g} nats in the last epoch, which is much "
            f"beside the differences between rows (80 % of them lie within {band:.3g} nats)"
        )
    return ""
