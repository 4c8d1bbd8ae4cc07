"""Brings what a round measured into the History."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..core import History
from ..measure.meter import blend


class Measuring(Protocol):
    """What measures the batches, as far as an engine must know: a `Meter`, or `Signals`.

    Attributes:
        signals: Names of what is measured of a row, the loss first; none = nothing is.
        by_batch: Whether a row's loss is that of its batch, for want of its own.
        scale: Which of `SCALES` the weighted loss goes by; None = it was not needed yet.
    """

    signals: tuple[str, ...]
    by_batch: bool

    @property
    def scale(self) -> str | None: ...

    @scale.setter
    def scale(self, scale: str | None) -> None: ...


@dataclass
class Signals:
    """A `Measuring` without a model: whoever adds to the recorder knows what it adds."""

    signals: tuple[str, ...] = ("loss",)
    by_batch: bool = False
    scale: str | None = None


def record(
    history: History,
    round: int,
    measuring: Measuring,
    rows: np.ndarray,
    tokens: np.ndarray,
    values: np.ndarray,
) -> np.ndarray:
    """Tell a History what a round measured.

    Args:
        history: Takes it in.
        round: Number of the round.
        measuring: Names the values.
        rows: (K,) int64, distinct.
        tokens: (K,) int64, real tokens of the rows; -1 = not told apart.
        values: (S, K) float32, see `Measurements`.

    Returns:
        (K,) float32 losses as the History has them, NaN where the visit did not tell.
    """
    losses = np.full(len(rows), np.nan, np.float32)
    told = tokens > 0
    everywhere = told.all()  # else some batch did not tell
    history.tokens[rows if everywhere else rows[told]] = tokens if everywhere else tokens[told]
    if len(values):
        history.record_blanks(rows[np.isneginf(values[0])])
        read = values[0] > -np.inf  # NaN compares false
        if not read.all():
            rows, values = rows[read], values[:, read]
        loss, *signals = values
        if measuring.by_batch:
            loss = blend(history.loss[rows], loss)
        losses[read] = loss
        history.record(rows, loss, round, **dict(zip(measuring.signals[1:], signals, strict=True)))
    return losses
