"""Training dynamics: what a run's rounds show about each row, and which rows were never learned or learned at once.

Size: the fields of `Dynamics` are the arrays that `Dynamics.read` makes together in one pass; nothing else makes one.
"""

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..core import History
from .trace import TracedRound, read_trace

_QUANTILES = (0.1, 0.5, 0.9)
_AT_A_TIME = 1 << 17  # rows


@dataclass(frozen=True)
class Dynamics:
    """What was measured of N rows in E epochs.

    Attributes:
        rounds: The rounds that can be read, in order.
        flaws: What is wrong with the other rounds, one line each.
        epochs: (E,) int64, the epochs of these rounds, from 0.
        times_trained: (N,) int32.
        times_measured: (N,) int32, number of finite losses, from training and rescoring.
        mean: (N,) float32, mean of these losses in nats; NaN = none.
        variability: (N,) float32, their standard deviation; NaN = none.
        excess: (N,) float32, how far the row's loss was above the mean of all rows' latest losses at the end of a
            round, in nats: a weighted mean over rounds. Round r, counted from 1, has weight r, because early losses say
            little. One more excess of 0, with the weight of the last round, pulls rows with few losses towards 0. NaN =
            no loss.
        never_learnt: (N,) bool. The row was measured at least twice, was never below the mean of all rows' latest
            losses, and was predicted wrongly at the end, if predictions were measured.
        learnt_at_once: (N,) bool. The row was measured at least twice, and from the second time on it was always in the
            quarter of all rows with the lowest latest losses.
        level: Mean of all rows' latest losses in nats; NaN = none.
        trained: (E, 3) float64, 10 %, 50 % and 90 % quantiles of the losses of the rows that the epoch trained.
        left_out: (E, 3) float64, the same for the latest losses of the rows that it did not train; NaN = no such row.
        rows_rescored: (E,) int64.
        tokens_rescored: (E,) int64, real tokens.
        extras: Name -> (N,) float32, what the latest round that measured the row has of it, NaN = nothing, see
            `measure.prediction.EXTRAS`; without the names that no round has.
    """

    rounds: list[TracedRound]
    flaws: list[str]
    epochs: np.ndarray
    times_trained: np.ndarray
    times_measured: np.ndarray
    mean: np.ndarray
    variability: np.ndarray
    excess: np.ndarray
    never_learnt: np.ndarray
    learnt_at_once: np.ndarray
    level: float
    trained: np.ndarray
    left_out: np.ndarray
    rows_rescored: np.ndarray
    tokens_rescored: np.ndarray
    extras: dict[str, np.ndarray]

    @classmethod
    def read(cls, run: str | os.PathLike[str], history: History) -> "Dynamics | None":
        """Read the rounds of a run, one at a time.

        Args:
            run: Folder of the run.
            history: The History of the run at its end.

        Returns:
            The dynamics; None if no round can be read.
        """
        n, tokens = len(history), history.tokens
        rounds, flaws = read_trace(run, n, history.facts.get("run"))
        if not rounds:
            return None
        losses, times_trained = _Losses(n), np.zeros(n, np.int32)
        epochs: list[int] = []
        trained_quantiles: list[np.ndarray] = []
        left_quantiles: list[np.ndarray] = []
        rescored_counts: list[np.ndarray] = []
        extras: dict[str, np.ndarray] = {}
        for epoch, parts in itertools.groupby(rounds, lambda round: round.epoch):
            in_epoch, again = np.zeros(n, bool), np.zeros(2, np.int64)
            for part in parts:
                trained, rescored, measured = part.read()
                times_trained += trained
                in_epoch |= trained
                again += np.count_nonzero(rescored), tokens[rescored].sum(dtype=np.int64)
                losses.add(part.round, measured)
                _keep_latest(extras, part)
            epochs.append(epoch)
            rescored_counts.append(again)
            trained_quantiles.append(_quantiles(losses.latest[in_epoch]))
            left_quantiles.append(_quantiles(losses.latest[~in_epoch]))
        times, weights = losses.times, losses.weights
        known, repeated = times > 0, times > 1
        level = float(np.mean(losses.latest[known], dtype=np.float64)) if known.any() else np.nan
        wrong = history.signals.get("correct", np.zeros(1, np.float32)) != 1
        nothing = np.where(known, np.float32(0), np.float32(np.nan))
        return cls(
            rounds=rounds,
            flaws=flaws,
            epochs=np.array(epochs),
            times_trained=times_trained,
            times_measured=times,
            mean=losses.mean + nothing,
            variability=losses.variability + nothing,
            excess=losses.excess * (weights / (weights + rounds[-1].round + 1)) + nothing,
            never_learnt=repeated & (losses.lowest >= level) & wrong,
            learnt_at_once=repeated & losses.is_easy,
            level=level,
            trained=np.array(trained_quantiles),
            left_out=np.array(left_quantiles),
            rows_rescored=np.array(rescored_counts)[:, 0],
            tokens_rescored=np.array(rescored_counts)[:, 1],
            extras=extras,
        )

    def losses_by_epoch(self, size: int) -> Iterator[np.ndarray]:
        """The losses of the rows in order, `size` rows at a time, a multiple of 8.

        Yields:
            (size, E) float32, nats, the row's last loss in each epoch; NaN = not measured in it.
        """
        place = {epoch: number for number, epoch in enumerate(self.epochs.tolist())}
        for blocks in zip(*(round.blocks(size) for round in self.rounds), strict=True):
            table = np.full((len(blocks[0][2]), len(place)), np.nan, np.float32)
            for round, (_, _, losses) in zip(self.rounds, blocks, strict=True):
                column = table[:, place[round.epoch]]
                np.copyto(column, losses, where=np.isfinite(losses))
            yield table

    def losses_of(self, rows: np.ndarray) -> np.ndarray:
        """(K, E) float32, the same for the rows (K,) int64 alone."""
        size = _AT_A_TIME
        parts: list[tuple[np.ndarray, np.ndarray]] = []
        for number, table in enumerate(self.losses_by_epoch(size)):
            inside = (rows >= number * size) & (rows < (number + 1) * size)
            parts.append((np.flatnonzero(inside), table[rows[inside] - number * size]))
        found = np.full((len(rows), len(self.epochs)), np.nan, np.float32)
        for places, values in parts:
            found[places] = values
        return found

    def mean_until(self, epoch: int, kind: str = "all") -> np.ndarray:
        """(N,) float64, a mean (see `MEANS`) of a row's losses by epoch up to that of number `epoch`; NaN = none."""
        upto, means = self.epochs <= epoch, MEANS[kind]
        return np.concatenate([means(losses[:, upto])[:, -1] for losses in self.losses_by_epoch(_AT_A_TIME)])

    def extras_until(self, epoch: int) -> dict[str, np.ndarray]:
        """What `extras` held at the end of the epoch of number `epoch`."""
        extras: dict[str, np.ndarray] = {}
        for round in self.rounds:
            if round.epoch <= epoch:
                _keep_latest(extras, round)
        return extras

    @property
    def is_repeated(self) -> bool:
        """Whether any row was measured twice; else nobody can know which rows are merely not learned yet."""
        return bool((self.times_measured > 1).any())

    def hardest(self, count: int) -> np.ndarray:
        """(<= count,) int64, rows never learned, largest excess first; among all rows unless `is_repeated`."""
        return _first(self.never_learnt if self.is_repeated else self.times_measured > 0, -self.excess, count)

    def easiest(self, count: int) -> np.ndarray:
        """(<= count,) int64, rows learned at once, lowest mean loss first; among all rows unless `is_repeated`."""
        return _first(self.learnt_at_once if self.is_repeated else self.times_measured > 0, self.mean, count)


def _means_of_all(losses: np.ndarray) -> np.ndarray:
    """(K, E) float64, the mean of (K, E) losses of a row up to each epoch; NaN = not measured, or not yet."""
    known = ~np.isnan(losses)
    times = known.cumsum(axis=1)
    sums = np.where(known, losses, 0).cumsum(axis=1, dtype=np.float64)
    return np.where(times > 0, sums / np.maximum(times, 1), np.nan)


def _means_of_recent(losses: np.ndarray) -> np.ndarray:
    """The same, but each new loss counts as much as all before it together, so that the first epochs are forgotten."""
    means = losses.astype(np.float64)
    for epoch in range(1, means.shape[1]):
        before, now = means[:, epoch - 1], means[:, epoch]
        both = (before + now) / 2
        means[:, epoch] = np.where(np.isnan(now), before, np.where(np.isnan(before), now, both))
    return means


MEANS = {"all": _means_of_all, "recent": _means_of_recent}


def _keep_latest(extras: dict[str, np.ndarray], round: TracedRound) -> None:
    for name, values in round.extras().items():
        extras[name] = np.where(np.isnan(values), extras.get(name, values), values)


class _Losses:
    """Statistics of the losses that the rounds so far have measured of N rows."""

    def __init__(self, rows: int):
        self.times = np.zeros(rows, np.int32)
        self.mean, self.variability, self.excess, self.weights = (np.zeros(rows, np.float32) for _ in range(4))
        self.lowest, self.latest = np.full(rows, np.inf, np.float32), np.full(rows, np.nan, np.float32)
        self.is_easy = np.ones(rows, bool)

    def add(self, round: int, measured: np.ndarray) -> None:
        """Add the losses that a round measured.

        Args:
            round: Number of the round, from 0.
            measured: (N,) float32, losses in nats; NaN = not measured, infinite = a fault, which is left out.
        """
        rows = np.flatnonzero(np.isfinite(measured))
        losses = measured[rows]
        self.latest[rows] = losses
        self.times[rows] += 1
        # Welford's running mean and sum of squares: squares of the largest float32 losses need float64
        times = self.times[rows]
        change = np.subtract(losses, self.mean[rows], dtype=np.float64)
        squares = (times - 1) * np.square(self.variability[rows], dtype=np.float64)
        squares += change * (change - change / times)
        self.mean[rows] += change / times
        self.variability[rows] = np.sqrt(squares / times)
        self.lowest[rows] = np.minimum(self.lowest[rows], losses)
        if len(rows):
            self.weights[rows] += round + 1
            exceeds = losses - np.nanmean(self.latest, dtype=np.float64)
            self.excess[rows] += (exceeds - self.excess[rows]) * ((round + 1) / self.weights[rows])
            self.is_easy[rows] &= (losses <= np.nanquantile(self.latest, 0.25)) | (times == 1)


def _first(candidates: np.ndarray, key: np.ndarray, count: int) -> np.ndarray:
    rows = np.flatnonzero(candidates)
    return rows[np.argsort(key[rows], kind="stable")[:count]]


def _quantiles(losses: np.ndarray) -> np.ndarray:
    losses = losses[~np.isnan(losses)]
    return np.quantile(losses, _QUANTILES) if len(losses) else np.full(len(_QUANTILES), np.nan)
