"""Uniform: train on a fresh random share of the rows each round (Raju et al., 2021; RS2: Okanovic et al., 2024).

With K = keep * N

    S_e = K rows drawn uniformly without replacement from all N rows, anew every round
    S_e = the next K rows of one random order, drawn anew when used up                     (cover)

Needs      nothing: no signal, no extra pass, 0 bytes per row; with `cover` the loss, which shows what was trained, and
           4 bytes.
Good for   the control that every other rule has to beat; strong at 30-50 % pruning.
Not for    runs where most rows are already learned: it spends as much on them as on the others.
Defaults   keep = 0.7 (ours; the papers leave the budget to the user); redrawn every round (RS2).
Deviates   K is rounded up to whole optimizer steps; the budget may be a share of tokens instead of rows; the round that
           uses up an order is filled from the next one.
Reference  https://arxiv.org/abs/2111.12621, https://arxiv.org/abs/2305.18424
"""

from dataclasses import dataclass

import numpy as np

from ..core import BudgetPolicy, Clock, History, Selection


@dataclass(frozen=True)
class Uniform(BudgetPolicy):
    """Train on a fresh random share of the rows each round.

    Args:
        keep: Share of the data to train on in each round, in (0, 1].
        unit: What `keep` is a share of: "rows", or "tokens" (a pruned short sentence saves little).
        cover: Whether every row is trained once before any is trained twice.

    Examples:
        >>> clock = Clock(round=0, epoch=0, epochs=3, share=0.0)
        >>> chosen = Uniform(keep=0.5).select(History.empty(8), clock, np.random.default_rng(0))
        >>> len(chosen.rows), chosen.weights
        (4, None)
    """

    cover: bool = False

    def __post_init__(self):
        super().__post_init__()
        self.check_switch("cover")

    @property
    def needs(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The loss, with `cover`: it shows which rows were trained."""
        return frozenset({"loss"} if self.cover else ())

    def begin(self, history: History, earlier: History | None) -> None:
        super().begin(history, None if self.cover else earlier)  # rows of another run do not count as covered

    def select(self, history: History, clock: Clock, rng: np.random.Generator) -> Selection:
        n = len(history)
        score = -history.notes.get("visits", np.zeros(n, np.int32)) if self.cover else rng.random(n, np.float32)
        return Selection(self.best(score, history, clock, rng))

    def update(self, history: History, clock: Clock, rng: np.random.Generator) -> None:
        if self.cover:
            visits = history.notes.get("visits", np.zeros(len(history), np.int32))
            history.notes["visits"] = visits + (history.last_round == clock.round)
