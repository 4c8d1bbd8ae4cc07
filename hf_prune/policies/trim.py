"""Trim: prune the rows of largest mean loss, as many as there seem to be wrong labels; ours, after Han et al. (2018).

With m_i the mean loss of row i over its visits and t the share of training done

    keep(t) = 1 - noise * min(1, t / ramp)          the rows of largest m_i are pruned

Without `noise`, two normal components are fitted to log m_i after each round. The upper one is taken for the wrong rows
if the fitted density has a valley below half of its lower peak. noise is the largest share that two rounds in a row
have found, for a model that memorises wrong rows hides them later. Every `revisit` rounds, a forward pass measures the
pruned rows; one that the model now predicts as labelled comes back.

Needs      loss, which the training forward pass gives, and correct, if revisit > 0. 9 bytes per row: notes `total`
           (float32, sum of losses), `visits` (int32), `back` (uint8); `noise` and `estimate` are one number each.
Good for   wrong labels or wrong pairs, and a model that would memorise them: many epochs, or a pretrained one.
Not for    clean data, whose largest losses are the hard rows (without `noise`, nothing is pruned there);
           noise of low loss, as copied targets; runs so short that wrong rows are not learned anyway.
Defaults   noise = None, ramp = 0.1 (better than 0.3 for a model that memorises early), revisit = 3 rounds: ours.
Deviates   Co-teaching: two networks, losses of the batch, every row in each forward pass, the ramp in epochs. Here
           whole optimizer steps are kept.
Reference  B. Han et al., "Co-teaching", NeurIPS 2018, https://arxiv.org/abs/1804.06872 (the schedule);
           https://arxiv.org/abs/2001.10528 (means over visits); https://arxiv.org/abs/1904.11238 (two components)
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..core import Clock, History, Policy, Selection, whole_steps
from ..core.ranking import TIES, first_of_groups, marked, ranked, top

_BINS, _STEPS, _VALLEY = 512, 200, 0.5


def upper_share(losses: np.ndarray) -> float:
    """Share of the rows in a second component of larger losses (N,), 0 where there is none; NaN = not known."""
    logs = np.log(losses[np.isfinite(losses)].astype(np.float64) + 1e-6)
    if len(logs) < 100 or not np.ptp(logs) > 0:  # too few to see two shapes in
        return 0.0
    counts, edges = np.histogram(logs, _BINS)  # so that the fit costs the same for any number of rows
    x, n = (edges[1:] + edges[:-1]) / 2, counts.sum()
    weight, mean, spread = np.array([0.8, 0.2]), np.quantile(logs, [0.25, 0.95]), np.full(2, logs.std() / 2)
    least = edges[1] - edges[0]
    for _ in range(_STEPS):  # expectation maximisation
        of_each = _densities(x, weight, mean, spread)
        belongs = counts[:, None] * of_each / np.maximum(of_each.sum(axis=1, keepdims=True), 1e-300)
        size = belongs.sum(axis=0) + 1e-9
        mean = (belongs * x[:, None]).sum(axis=0) / size
        spread = np.sqrt((belongs * (x[:, None] - mean) ** 2).sum(axis=0) / size) + least
        weight = size / n
    low, high = np.argsort(mean)
    between = _densities(np.linspace(mean[low], mean[high], 200), weight, mean, spread).sum(axis=1)
    has_valley = between.min() < _VALLEY * min(between[0], between[-1])
    return float(weight[high]) if has_valley else 0.0


def _densities(x: np.ndarray, weight: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Return (M, 2): both components at (M,) places, without the constant that they share."""
    return weight / spread * np.exp(-0.5 * ((x[:, None] - mean) / spread) ** 2)


@dataclass(frozen=True)
class Trim(Policy):
    """Prune the rows of largest mean loss, which are likely to be wrong.

    Args:
        noise: Share of the rows that is pruned once the ramp is over, in [0, 1); None or "auto" = as the losses say.
        ramp: Share of training in which the pruned share grows to `noise`, in (0, 1].
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
    ramp: float = 0.1
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
        total = notes.setdefault("total", np.zeros(n, np.float32))
        visits = notes.setdefault("visits", np.zeros(n, np.int32))
        back = notes.setdefault("back", np.zeros(n, np.uint8))
        trained = measured & ~pruned
        total[trained] += history.loss[trained]
        visits[trained] += 1
        if self.revisit > 0:
            back[measured & pruned & (history.signals["correct"] == 1)] = 1
        if self.noise is None:  # once a round: every forecast reads it
            before, estimate = notes.get("estimate", np.zeros(1)), np.array([upper_share(_mean(notes))])
            notes["noise"] = np.maximum(notes.get("noise", np.zeros(1)), np.minimum(before, estimate))
            notes["estimate"] = estimate

    def forecast(self, history: History, clock: Clock) -> int:
        return len(history) - self._budget(history, clock)  # a row that came back is one more

    def _budget(self, history: History, clock: Clock) -> int:
        """Return how many rows to prune, before those that came back: what is left fills whole optimizer steps."""
        n, notes = len(history), history.notes
        if "visits" not in notes:
            return 0
        noise = float(notes["noise"][0]) if self.noise is None and "noise" in notes else float(self.noise or 0)
        kept = (1 - noise * min(1.0, clock.share / self.ramp)) * n
        return max(0, n - whole_steps(max(1, math.ceil(kept - 1e-9)), clock.step_rows))

    def _pruned(self, history: History, clock: Clock) -> np.ndarray:
        """Return (N,) bool; the same for the same notes and clock."""
        n, k = len(history), self._budget(history, clock)
        if k == 0:
            return np.zeros(n, bool)
        mean, rng = _mean(history.notes), np.random.default_rng(TIES)
        score = np.where(np.isnan(mean), -np.inf, mean)
        classes = history.features.classes if self.per_class else None
        rows = top(score, k, rng) if classes is None else first_of_groups(ranked(score, rng), classes, k / n)
        return marked(rows, n) & ~np.isnan(mean) & (history.notes["back"] == 0)


def _mean(notes: dict[str, np.ndarray]) -> np.ndarray:
    """(N,) mean loss of each row over its visits; NaN = none."""
    return np.where(notes["visits"] > 0, notes["total"] / np.maximum(notes["visits"], 1), np.nan)
