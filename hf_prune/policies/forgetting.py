"""Forgetting: keep the rows that are forgotten most often, once (Toneva et al., ICLR 2019).

With acc_i^t = 1 if the model predicts row i correctly when the row is trained for the t-th time, else 0

    score_i = number of t with acc_i^t > acc_i^(t+1);  infinity where acc_i^t = 0 for all t
    S       = the K = keep * N rows of largest score, in every round; equal scores at random

Scores are made first, by `hf-prune score --policy forgetting --seeds 1 --output_dir scores -- SCRIPT ARGS`: keep = 1
trains on all rows and counts. `history="scores"` then gives the counts to this run.

Needs      the scores, 4 bytes per row. Counting needs correct, from training's own forward pass, and 1 byte more per
           row. The cost is one full run; the report includes it.
Good for   later runs on one data set, and cleaning: rows with a score of 0 are unforgettable, infinity never learned.
Not for    a single short run; counts of few epochs are almost all 0 or infinity. Text generation has no `correct`:
           there, `threshold` [ours] is the lowest confidence at which a row counts as correct.
Defaults   keep = 0.7 (ours; the paper sweeps it); counts of a whole run (paper), of one seed.
Deviates   a visit whose loss was not finite does not count; ties are broken in the same way in every run; rows without
           a score are kept first. Otherwise nothing.
Reference  https://arxiv.org/abs/1812.05159
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..core import Clock, History
from ._static import StaticPolicy


@dataclass(frozen=True)
class Forgetting(StaticPolicy):
    """Keep the rows that earlier runs have forgotten most often.

    Args:
        keep: Share of the data to train on, in (0, 1]; 1 = train on all rows and count.
        unit: What `keep` is a share of: "rows", or "tokens" (a pruned short sentence saves little).
        skip: Share of the scored rows that is left out from the top of the order, in [0, 1 - keep].
        threshold: Lowest confidence at which a row counts as correct, for tasks without `correct`, in (0, 1]; None =
            use `correct`.

    Examples:
        >>> history, policy = History.empty(3, ("correct",)), Forgetting(keep=1)
        >>> for t, correct in enumerate([[1, 0, 0], [0, 1, 0], [1, 1, 0]]):
        ...     history.record(np.arange(3), np.ones(3, np.float32), t, correct=np.array(correct, np.float32))
        ...     policy.update(history, Clock(t, t, 3, t / 3), np.random.default_rng(0))
        >>> history.notes["score"].tolist()
        [1.0, 0.0, inf]
    """

    instead: ClassVar[Mapping[str, Any]] = {"threshold": 0.5}

    threshold: float | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.threshold is not None:
            self.check_range("threshold", "(0, 1]")

    @property
    def needs(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        if self.keep != 1:
            return frozenset()
        return frozenset({"correct" if self.threshold is None else "confidence"})

    def update(self, history: History, clock: Clock, rng: np.random.Generator) -> None:
        if self.keep != 1:
            return
        n, notes = len(history), history.notes
        score = notes.setdefault("score", np.full(n, np.nan, np.float32))
        right = notes.setdefault("right", np.zeros(n, np.uint8))  # at the last visit
        presented = history.last_round == clock.round
        if self.threshold is None:
            now = presented & (history.signals["correct"] == 1)
        else:
            now = presented & (history.signals["confidence"] >= self.threshold)
        score[presented & np.isnan(score)] = np.inf
        score[now & np.isinf(score)] = 0
        score[presented & ~now & (right == 1)] += 1
        right[presented] = now[presented]
