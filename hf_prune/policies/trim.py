"""Trim: prune the rows of largest recent loss, as many as there seem to be wrong labels; ours, after Han et al. (2018).

With l_i the loss of row i when it is visited, m_i its recent mean, and t the share of training done

    m_i <- (m_i + l_i) / 2                          at first l_i
    keep(t) = 1 - noise * min(1, t / ramp)          the rows of largest m_i are pruned

Without `noise`, two normal components are fitted to log m_i after each round. The upper one is taken for the wrong rows
if the fitted density has a valley below half of its lower peak, and if it holds no more than 60 % of the rows. noise is
then the largest share that two rounds in a row have found, for a model that memorises wrong rows hides them later, and
there is no ramp: keep = 1 - noise. Every `revisit` rounds, a forward pass measures the pruned rows; one that the model
now predicts as labelled comes back.

Needs      loss, which the training forward pass gives, and correct, if revisit > 0. 5 bytes per row: notes `recent`
           (float32, m_i; NaN = not visited) and `back` (uint8); `noise` and `estimate` are one number each.
Good for   wrong labels or wrong pairs, and a model that would memorise them: many epochs, or a pretrained one.
Not for    clean data, whose largest losses are the hard rows (without `noise`, nothing is pruned there);
           noise of low loss, as copied targets; runs so short that wrong rows are not learned anyway; many rare
           classes, which a model learns last: their rows look like wrong ones.
Defaults   noise = None, revisit = 3 rounds: ours. ramp = 0.5: ours; a shorter one prunes rows before their losses tell
           anything (with 37 % wrong digits: 85 to 86 % of accuracy with 0.1, 95 to 97 % with 0.5 or without `noise`).
Deviates   Co-teaching: two networks, losses of the batch, every row in each forward pass, the ramp in epochs. Here
           whole optimizer steps are kept.
Reference  B. Han et al., "Co-teaching", NeurIPS 2018, https://arxiv.org/abs/1804.06872 (the schedule);
           https://arxiv.org/abs/1904.11238 (two components)
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..core import Clock, History, Policy, Selection, whole_steps
from ..core.mixture import upper_share
from ..core.ranking import TIES, first_of_groups, marked, ranked, top


@dataclass(frozen=True)
class Trim(Policy):
    """Prune the rows of largest recent loss, which are likely to be wrong.

    Args:
        noise: Share of the rows that is pruned once the ramp is over, in [0, 1); None or "auto" = as the losses say.
        ramp: Share of training in which the pruned share grows to a `noise` that is given, in (0, 1].
        per_class: Whether `noise` holds for each class, so that no class is pruned more than another.
        revisit: Rounds from one measurement of the pruned rows to the next, in [0, inf); 0 = they stay pruned.

    Examples:
        >>> history, policy = History.empty(4, ("correct",)), Trim(noise=0.25, ramp=0.1)
        >>> history.record(np.arange(4), np.float32([0.1, 2.0, 0.2, 0.4]), 0, correct=np.float32([1, 0, 1, 1]))
        >>> policy.update(history, Clock(0, 0, 10, 0.0), np.random.default_rng(0))
        >>> policy.select(history, Clock(1, 1, 10, 0.1), np.random.default_rng(0)).rows.tolist()
        [0, 2, 3]
    """

    instead: ClassVar[Mapping[str, Any]] = {"revisit": 0}

    noise: float | str | None = None  # no text but "auto"
    ramp: float = 0.5
    per_class: bool = False
    revisit: int = 3

    def __post_init__(self):
        if self.noise == "auto":
            object.__setattr__(self, "noise", None)
        if self.noise is not None:
            self.check_range("noise", "[0, 1)")
        self.check_range("ramp", "(0, 1]")
        self.check_switch("per_class")
        self.check_range("revisit", "[0, inf)")

    @property
    def needs(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return frozenset({"loss", *["classes"] * self.per_class, *["correct"] * (self.revisit > 0)})

    def select(self, history: History, clock: Clock, rng: np.random.Generator) -> Selection:
        pruned = self._pruned(history, clock)
        due = self.revisit > 0 and clock.round % self.revisit == 0
        return Selection(np.flatnonzero(~pruned), rescore=np.flatnonzero(pruned) if due and pruned.any() else None)

    def update(self, history: History, clock: Clock, rng: np.random.Generator) -> None:
        n, notes = len(history), history.notes
        pruned = self._pruned(history, clock)  # as `select` said: it draws nothing
        measured = history.last_round == clock.round
        recent = notes.setdefault("recent", np.full(n, np.nan, np.float32))
        back = notes.setdefault("back", np.zeros(n, np.uint8))
        trained = measured & ~pruned
        before, loss = recent[trained], history.loss[trained]
        recent[trained] = np.where(np.isnan(before), loss, (before + loss) / 2)
        if self.revisit > 0:
            back[measured & pruned & (history.signals["correct"] == 1)] = 1
        if self.noise is None:  # once a round: every forecast reads it
            before, estimate = notes.get("estimate", np.zeros(1)), np.array([upper_share(recent)])
            notes["noise"] = np.maximum(notes.get("noise", np.zeros(1)), np.minimum(before, estimate))
            notes["estimate"] = estimate

    def forecast(self, history: History, clock: Clock) -> int:
        return len(history) - self._budget(history, clock)  # a row that came back is one more

    def _budget(self, history: History, clock: Clock) -> int:
        """Return how many rows to prune, before those that came back: what is left fills whole optimizer steps."""
        n, notes = len(history), history.notes
        if "recent" not in notes:
            return 0
        if self.noise is None:
            pruned = float(notes["noise"][0]) if "noise" in notes else 0.0
        else:
            pruned = float(self.noise) * min(1.0, clock.share / self.ramp)
        return max(0, n - whole_steps(max(1, math.ceil((1 - pruned) * n - 1e-9)), clock.step_rows))

    def _pruned(self, history: History, clock: Clock) -> np.ndarray:
        """Return (N,) bool; the same for the same notes and clock."""
        n, k = len(history), self._budget(history, clock)
        if k == 0:
            return np.zeros(n, bool)
        recent, rng = history.notes["recent"], np.random.default_rng(TIES)
        score = np.where(np.isnan(recent), -np.inf, recent)
        classes = history.features.classes if self.per_class else None
        rows = top(score, k, rng) if classes is None else first_of_groups(ranked(score, rng), classes, k / n)
        return marked(rows, n) & ~np.isnan(recent) & (history.notes["back"] == 0)
