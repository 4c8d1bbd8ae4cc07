"""LargeBatchFilter: leave out outliers, once, for large global batches; a reconstruction (Gahlot et al., 2020).

With n_i the loss of row i in an earlier, short run (or its distance to the centroid of its class), in each cell of
class x length bucket

    left out = the floor(q * size) rows of largest n_i

and the rest is trained with a large batch B at eta0 * sqrt(B / B0) or eta0 * B / B0: `scaled_learning_rate`.

Needs      the History of a probe (one short run on all rows with small batches; the report includes its cost), or
           features; classes and token counts if there are cells. 5 bytes per row: notes `noise` (n_i), `kept`.
Good for   web-crawled or machine-labelled data, long runs.
Not for    clean data. Outlier filters hurt rare classes and rare words: hence the cells, and a control of as many
           randomly filtered rows (Uniform). Many classes x a large vocabulary: the centroids are dense.
Defaults   all ours: q = 0.1 (try 0.05 to 0.3), no cells (per_class, buckets ask for them), duplicates stay; the square
           root for Adam, linear for SGD, both with warm-up.
Deviates   unknown: it is published that a model's output is used "to remove noisy data", for large batches; technique,
           inputs, thresholds and numbers are not published. Only exact duplicates can be left out, not near ones. Rows
           without a probe loss stay.
Reference  https://arxiv.org/abs/2012.09272
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..core import Clock, History, Policy, Selection
from ..core.ranking import TIES, first_of_groups, length_buckets, ranked
from ._outliers import distances, repeats


def scaled_learning_rate(
    learning_rate: float, batch: int, base_batch: int, rule: Literal["sqrt", "linear"] = "sqrt"
) -> float:
    """Compute the learning rate for a larger global batch. Use warm-up: it may be too high for the first steps.

    Args:
        learning_rate: eta0, which suits `base_batch`.
        batch: B, rows in an optimizer step: batch x accumulation x processes.
        base_batch: B0, likewise.
        rule: "sqrt" for Adam, "linear" for SGD.

    Raises:
        ValueError: The rule is unknown, or a batch is below 1.

    Examples:
        >>> scaled_learning_rate(5e-5, batch=256, base_batch=32, rule="linear")
        0.0004
    """
    if rule not in ("sqrt", "linear"):
        raise ValueError(f"scaled_learning_rate(rule=...) must be 'sqrt' or 'linear', got {rule!r}.")
    if batch < 1 or base_batch < 1:
        raise ValueError(f"scaled_learning_rate(): batches must be at least 1, got {batch=} and {base_batch=}.")
    factor = batch / base_batch
    return learning_rate * (factor if rule == "linear" else math.sqrt(factor))


@dataclass(frozen=True)
class LargeBatchFilter(Policy):
    """Leave out the rows that look most like noise, the same in every round.

    Args:
        ratio: q, share of each cell that is left out, in [0, 1).
        by: The measure of noise: "loss", in the earlier run given by `history`, or "centroid", the distance to the mean
            of all rows' words or pixels.
        per_class: Whether each class is a cell, and has a centroid, of its own.
        buckets: Ranges of length, of about equal size, that are cells; 1 = none.
        duplicates: Whether rows with the words or pixels of an earlier row of their cell are left out first.

    Examples:
        >>> probe, history = History.empty(4), History.empty(4)
        >>> probe.record(np.arange(4), np.array([0.1, 6.0, 0.3, 0.2], np.float32), round=0)
        >>> policy = LargeBatchFilter(ratio=0.25)
        >>> policy.begin(history, probe)
        >>> policy.select(history, Clock(0, 0, 3, 0.0), np.random.default_rng(0)).rows.tolist()
        [0, 2, 3]
    """

    ratio: float = 0.1
    by: Literal["loss", "centroid"] = "loss"
    per_class: bool = False
    buckets: int = 1
    duplicates: bool = False

    def __post_init__(self):
        self.check_range("ratio", "[0, 1)")
        self.check_range("buckets", "[1, inf)")
        self.check_switch("per_class")
        self.check_switch("duplicates")
        if self.by not in ("loss", "centroid"):
            raise ValueError(f"LargeBatchFilter(by=...) must be 'loss' or 'centroid', got {self.by!r}.")

    @property
    def needs(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        asked = {"features": self.by == "centroid" or self.duplicates}
        asked |= {"classes": self.per_class, "tokens": self.buckets > 1}
        return frozenset(name for name, wanted in asked.items() if wanted)

    def begin(self, history: History, earlier: History | None) -> None:
        super().begin(history, earlier)
        features = history.features
        classes = features.classes if self.per_class else None
        if classes is None:
            classes = np.zeros(len(history), np.int64)
        if self.by == "centroid":
            noise = distances(features, classes)
        elif earlier is not None and np.isfinite(earlier.loss).any():
            noise = np.array(earlier.loss)
        else:
            raise ValueError(
                f"{self!r} filters by the losses of an earlier run on these rows, and there are none: train briefly "
                "with policy='uniform:keep=1', save_model('probe') and give history='probe', or take by='centroid'."
            )
        cells = classes * self.buckets + length_buckets(history.tokens, self.buckets)
        kept = ~repeats(features, cells) if self.duplicates else np.ones(len(history), bool)
        rows = np.flatnonzero(kept)
        order = ranked(noise[rows], np.random.default_rng(TIES))
        order = order[np.isfinite(noise[rows][order])]
        kept[rows[first_of_groups(order, cells[rows], self.ratio)]] = False
        history.notes |= {"noise": noise, "kept": kept}

    def select(self, history: History, clock: Clock, rng: np.random.Generator) -> Selection:
        return Selection(np.flatnonzero(self._kept(history)))

    def forecast(self, history: History, clock: Clock) -> int:
        return int(np.count_nonzero(self._kept(history)))

    def _kept(self, history: History) -> np.ndarray:
        return history.notes.get("kept", np.ones(len(history), bool))
