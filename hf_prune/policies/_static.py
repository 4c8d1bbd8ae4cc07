"""The base class of EL2N, GraNd and Forgetting: rows are chosen once, by scores of earlier runs."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..core import BudgetPolicy, Clock, History, Selection
from ..core.ranking import TIES, top


@dataclass(frozen=True)
class StaticPolicy(BudgetPolicy):
    """Keeps the rows with the highest `notes["score"]`, the same in every round. With keep = 1, makes these scores.

    Args:
        keep: Share of the data to train on, in (0, 1]; 1 = train on all rows and score them.
        unit: What `keep` is a share of: "rows", or "tokens" (a pruned short sentence saves little).
        skip: Share of the scored rows that is left out from the top of the order, in [0, 1 - keep].

    Attributes:
        signal: The signal that is the score; "" = the score is computed in another way.
    """

    signal: ClassVar[str] = ""

    skip: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        self.check_range("skip", "[0, 1)")
        if self.budget.highest + self.skip > 1:
            raise ValueError(
                f"{type(self).__name__}(skip=...) must be in [0, 1 - keep], got {self.skip} with keep={self.keep}."
            )

    @property
    def needs(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return frozenset({self.signal}) if self.keep == 1 else frozenset()

    def begin(self, history: History, earlier: History | None) -> None:
        if self.keep == 1:
            super().begin(history, earlier)
            return
        known = {} if earlier is None else earlier.signals | earlier.notes
        score = known.get("score", known.get(self.signal))
        if score is None:
            name = type(self).__module__.rpartition(".")[2]
            raise ValueError(
                f"{self!r} chooses by scores of earlier runs, and there are none: make scores with `hf-prune score "
                f"--policy {name} --output_dir scores -- SCRIPT ARGS` and give history='scores'."
            )
        history.notes["score"] = score.astype(np.float32)

    def select(self, history: History, clock: Clock, rng: np.random.Generator) -> Selection:
        n = len(history)
        if self.keep == 1:
            return Selection(np.arange(n))
        score = history.notes.get("score", np.full(n, np.nan, np.float32))
        ties = np.random.default_rng(TIES)
        if self.skip:
            known = np.flatnonzero(~np.isnan(score))
            highest = known[top(score[known], int(self.skip * len(known) + 1e-9), ties)]
            score = np.array(score)
            score[highest] = -np.inf
        return Selection(self.best(score, history, clock, ties))

    def update(self, history: History, clock: Clock, rng: np.random.Generator) -> None:
        if self.keep == 1:
            history.notes["score"] = np.array(history.signals[self.signal])
