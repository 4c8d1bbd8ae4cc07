"""Writes the measurements of a round into the History."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..core import History
from ..measure.meter import blend


class Measuring(Protocol):
    """What the engine must know about the object that measures the batches: a `Meter`, or `Signals`.

    Attributes:
        signals: Names of the signals measured for each row, the loss first; empty = nothing is measured.
        extras: Names of what is measured besides, for people, see `measure.prediction.EXTRAS`.
        by_batch: Whether each row gets the loss of its batch, because the model gives no losses per row.
        scale: The entry of `SCALES` that the weighted loss uses; None = it was not needed yet.
    """

    signals: tuple[str, ...]
    extras: tuple[str, ...]
    by_batch: bool

    @property
    def scale(self) -> str | None: ...

    @scale.setter
    def scale(self, scale: str | None) -> None: ...


@dataclass
class Signals:
    """A `Measuring` without a model, for code that fills the recorder itself."""

    signals: tuple[str, ...] = ("loss",)
    by_batch: bool = False
    scale: str | None = None
    extras: tuple[str, ...] = ()


def record(
    history: History,
    round: int,
    measuring: Measuring,
    rows: np.ndarray,
    tokens: np.ndarray,
    values: np.ndarray,
) -> np.ndarray:
    """Write the measurements of a round into a History.

    Args:
        history: The History to write to.
        round: Number of the round.
        measuring: Names the values.
        rows: (K,) int64, distinct.
        tokens: (K,) int64, real tokens of the rows; -1 = padding could not be told from tokens.
        values: (S, K) float32, one line a signal, see `Measurements`.

    Returns:
        (K,) float32 losses as the History has them; NaN = the visit gave no loss.
    """
    losses = np.full(len(rows), np.nan, np.float32)
    told = tokens > 0
    everywhere = told.all()  # then the rows need no mask, which would copy them
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
