"""The input and the output of a policy besides the History: a `Clock` and a `Selection`."""

import math
import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .ranking import marked


@dataclass(frozen=True)
class Clock:
    """The progress of training when a round begins.

    Attributes:
        round: Number of the round, from 0; losses of earlier rounds are in the History.
        epoch: Number of the epoch, from 0.
        epochs: Planned passes over the data set; may be fractional, by `num_train_epochs` or `max_steps`.
        share: Share of training done, in [0, 1).
        step_rows: Rows in one optimizer step (batch x accumulation x processes).
        rounds: Rounds in an epoch.
    """

    round: int
    epoch: int
    epochs: float
    share: float
    step_rows: int = 1
    rounds: int = 1

    @property
    def share_after(self) -> float:
        """Share of training done after one more full round, at most 1."""
        return min(1.0, self.share + 1 / (self.epochs * self.rounds)) if self.epochs else 1.0


@dataclass(frozen=True)
class Selection:
    """What to do in one round.

    Attributes:
        rows: (K,) int64, distinct, in [0, N), the rows to train; their order has no meaning.
        weights: (K,) float32 > 0, factor on each row's loss; None = all are 1, and the loss is not changed.
        lr_scale: Factor on the learning rate of this round.
        rescore: (H,) int64, distinct, none of them in `rows`: rows to measure by a forward pass without gradient after
            the round, unless training ends there; None = no rows.
    """

    rows: np.ndarray
    weights: np.ndarray | None = None
    lr_scale: float = 1.0
    rescore: np.ndarray | None = None

    def check(self, n: int, offered: np.ndarray | None = None) -> "Selection":
        """Check that the selection is valid for `n` rows. Return it, converted to the types above.

        Row numbers of other integer types, weights of other number types and a factor of a numpy type are converted.

        Args:
            n: Rows of the training set.
            offered: (M,) int64, rows that the round may choose among; None = all.

        Raises:
            TypeError: A value is not a numpy array or not a number, as required.
            ValueError: There are no rows, or rows repeat, lie outside [0, n) or were not offered; weights have another
                shape, or are not above 0 and finite in float32; a row to rescore is also trained; the factor is not
                above 0.
        """
        for name in ("rows", "weights", "rescore"):
            if name == "rows" or getattr(self, name) is not None:
                _check_array(name, getattr(self, name))
        rows, more = self.rows, self.rescore
        if len(rows) == 0:
            raise ValueError("Selection(rows=...) keeps 0 rows; keep at least one.")
        if rows.min() < 0 or rows.max() >= n:
            raise ValueError(f"Selection(rows=...) must lie in [0, {n}), got {rows.min()} to {rows.max()}.")
        rows = rows.astype(np.int64, copy=False)
        marks = marked(rows, n)
        if np.count_nonzero(marks) < len(rows):
            raise ValueError("Selection(rows=...) must be distinct, but some rows repeat.")
        if offered is not None and not marked(offered, n)[rows].all():
            raise ValueError(
                "Selection(rows=...) must be among history.offered, which in a policy with several rounds an epoch is "
                "the part of the data set that the round trains."
            )
        if more is not None:
            fits = more.min(initial=0) >= 0 and more.max(initial=0) < n
            more = more.astype(np.int64, copy=False)
            if fits:
                marks[more] = True
            if not fits or np.count_nonzero(marks) < len(rows) + len(more):
                raise ValueError(
                    f"Selection(rescore=...) must be distinct int64 rows in [0, {n}), none of them among `rows`."
                )
        weights = self.weights
        if weights is not None:
            with np.errstate(over="ignore"):  # an overflow is reported below
                weights = weights.astype(np.float32, copy=False)
            if weights.shape != rows.shape or not (np.isfinite(weights) & (weights > 0)).all():
                raise ValueError(
                    f"Selection(weights=...) must be a ({len(rows)},) array of numbers above 0 and finite in float32, "
                    f"got {len(weights)} of them, {weights.min(initial=np.inf)} to {weights.max(initial=-np.inf)}."
                )
        scale = plain(self.lr_scale)
        if isinstance(scale, bool) or not isinstance(scale, int | float):
            raise TypeError(f"Selection(lr_scale=...) must be a number, got a {type(scale).__name__}.")
        if not 0 < scale <= sys.float_info.max:
            raise ValueError(f"Selection(lr_scale=...) must be finite and above 0, got {scale}.")
        return replace(self, rows=rows, weights=weights, lr_scale=float(scale), rescore=more)


def _check_array(name: str, value: Any) -> None:
    kind, kinds = ("float32", "iuf") if name == "weights" else ("int64", "iu")
    if not issubclass(type(value), np.ndarray):
        raise TypeError(f"Selection({name}=...) must be a numpy array, got a {type(value).__name__}.")
    if value.dtype.kind not in kinds or value.ndim != 1:
        cure = " Of a mask, give np.flatnonzero(mask)." if value.dtype.kind == "b" else ""
        raise ValueError(f"Selection({name}=...) must be a (K,) {kind} array, got {value.dtype} {value.shape}.{cure}")


def plain(value: Any) -> Any:
    """Convert a numpy scalar to a plain Python number, string or boolean; return anything else unchanged."""
    is_numpy = issubclass(type(value), np.generic | np.ndarray)
    return value.item() if is_numpy and value.ndim == 0 else value


def whole_steps(rows: int, step_rows: int) -> int:
    """Round a number of rows up to whole optimizer steps.

    Args:
        rows: Number of rows.
        step_rows: Rows in one optimizer step.
    """
    return math.ceil(rows / step_rows) * step_rows
