"""What each round measured, in one file per round: memory does not grow, and a resumed run adds to the same files.

Size: the fields of `TracedRound` are the header of a round's file; only the reader below makes one.
"""

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import numpy as np
from safetensors import safe_open

from ..common import storage
from ..common.foreign import MOST, number, of_kind, why
from ..core import Clock

FOLDER = "_pruning"  # in a run's folder; `push_to_hub` leaves out names that begin with "_"
_PATTERN = "round-*.safetensors"
_LARGEST = float(np.finfo(np.float16).max)
_NOTHING = float(np.finfo(np.float16).smallest_subnormal) / 2  # a smaller loss rounds to 0 in float16
_MOST_ROUNDS = 1 << 31  # in a run
_EXTRAS = "extras/"  # the names of such arrays in a file begin with it
_KINDS = ("int16", "int32", "float32")  # of their values
_CHUNK = 1 << 16  # losses handled at a time; so many fit in a processor's cache


class Trace:
    """Writes the rounds of a run, about 2.2 bytes for each row that a round measured, and 2 or 4 for each extra.

    Losses are rounded to float16. The error is at most 1 part in 2,048, or 3e-8 for losses below 6e-5. If a loss would
    round to 0 or is above 65,504, all losses of its round stay float32, which takes 4.2 bytes a row.

    Args:
        run: Folder of the run.
        learning_rates: Returns the current learning rates, one for each group of parameters.
        warn: Called once with a message if a round can't be written; training goes on.

    Attributes:
        name: Name of the run, written into the file of each round; a resumed run keeps it.
    """

    def __init__(
        self, run: str | os.PathLike[str], learning_rates: Callable[[], list[float]], warn: Callable[[str], None]
    ):
        self.run = Path(run)
        self.name = uuid4().hex
        self._learning_rates = learning_rates
        self._warn = warn
        self._has_warned = False

    def begin(self, round: int) -> None:
        """Remove the files of `round` and of later rounds, which another run wrote, or this one before it was resumed.

        Unfinished files that killed processes left in the run's folder are removed, too.
        """
        for path in Path(self.run, FOLDER).glob(_PATTERN):
            if _number(path) >= round:
                self._try(path.unlink)
        for folder in (self.run, self.run / FOLDER, *self.run.glob("checkpoint-*")):
            self._try(functools.partial(storage.sweep, folder))

    def write(
        self,
        clock: Clock,
        lr_scale: float,
        seconds: float,
        rows: int,
        measured: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
        extras: Sequence[Mapping[str, np.ndarray]] = (),
        account: Mapping[str, Any] | None = None,
        policy: str | None = None,
    ) -> None:
        """Write a round that has ended.

        Args:
            clock: When the round began.
            lr_scale: Factor on its learning rate.
            seconds: Time spent in its steps.
            rows: N, number of rows in the training set.
            measured: The trained rows and, if there are any, the rescored rows. For each of the two: (N,) bool, which
                rows; (K,) int64, the same rows in any order; (K,) float32, their losses in nats, NaN = not read,
                infinite = a fault.
            extras: For each of `measured`, name -> (K,) float32, what else was measured of its rows, NaN = nothing; see
                `measure.prediction.EXTRAS`.
            account: Its cost, for the report of a run that has not ended.
            policy: The policy, without secrets.
        """
        losses = np.full(rows, np.nan, np.float16 if all(_fit(values) for *_, values in measured) else np.float32)
        for _, chosen, values in measured:
            for begin in range(0, len(chosen), _CHUNK):
                losses[chosen[begin : begin + _CHUNK]] = values[begin : begin + _CHUNK]
        marks = [mark for mark, _, _ in measured]
        together = functools.reduce(np.logical_or, marks)
        arrays = {"losses": losses[together]}
        for name in extras[0] if extras else ():
            whole = np.full(rows, np.nan, np.float32)
            for (_, chosen, _), values in zip(measured, extras, strict=True):
                whole[chosen] = values[name]
            if not np.isnan(whole).all():  # a task may have no such extra
                arrays[f"{_EXTRAS}{name}"] = _packed(whole[together])
        arrays |= {name: np.packbits(mark) for name, mark in zip(("trained", "rescored"), marks, strict=False)}
        header = {"kind": "round", "rows": rows, "round": clock.round, "epoch": clock.epoch, "seconds": seconds}
        header |= {"lr_scale": lr_scale, "learning_rates": self._learning_rates(), "run": self.name}
        header |= {"account": dict(account or {}), "policy": policy}
        path = Path(self.run, FOLDER, f"round-{clock.round:05d}.safetensors")
        self._try(lambda: storage.save(path, arrays, header))

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            if not self._has_warned:
                self._warn(f"{error}. The report of this run will lack rounds; training goes on.")
            self._has_warned = True


def _fit(losses: np.ndarray) -> bool:
    """Whether float16 holds each of (K,) float32 losses: finite ones stay finite, and only 0 becomes 0."""
    for begin in range(0, len(losses), _CHUNK):
        size = np.abs(losses[begin : begin + _CHUNK])
        if (((size > _LARGEST) & (size < np.inf)) | ((size > 0) & (size <= _NOTHING))).any():
            return False
    return True


def _packed(values: np.ndarray) -> np.ndarray:
    """(K,) float32, NaN = nothing, as (K,) int16 or int32, -1 = nothing, if all are whole numbers of 0 or more."""
    known = values[~np.isnan(values)]
    if (known < 0).any() or (known != np.floor(known)).any() or known.max() >= 1 << 24:
        return values
    kind = np.int16 if known.max() < 1 << 15 else np.int32
    return np.where(np.isnan(values), -1, values).astype(kind)


@dataclass(frozen=True)
class TracedRound:
    """A round on disk.

    Attributes:
        path: Its file.
        rows: N, number of rows in the training set.
        round: Number of the round, from 0.
        epoch: Number of its epoch, from 0.
        lr_scale: Factor on its learning rate.
        learning_rates: Learning rates when it had ended, one for each group of parameters.
        seconds: Time spent in its steps.
        run: Name of its run.
        account: Its cost, under the names of `PruningReport.epochs`; empty in files of earlier versions.
        policy: The policy of the run, without secrets; None in files of earlier versions.
    """

    path: Path
    rows: int
    round: int
    epoch: int
    lr_scale: float
    learning_rates: list[float]
    seconds: float
    run: str
    account: dict[str, Any] = field(default_factory=dict[str, Any])
    policy: str | None = None

    def blocks(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The rows of the training set in order, `size` at a time, a multiple of 8.

        Yields:
            (size,) bool, which were trained; (size,) bool, which were rescored; (size,) float32, their losses in nats,
            NaN if not measured, infinite for a fault. The last arrays may be shorter.
        """
        at = 0
        for begin in range(0, self.rows, size):
            end = min(begin + size, self.rows)
            with cast(Any, safe_open(self.path, framework="numpy")) as file:
                marks = [
                    np.unpackbits(file.get_slice(name)[begin // 8 : -(-end // 8)], count=end - begin).astype(bool)
                    if name in file.keys()  # noqa: SIM118
                    else np.zeros(end - begin, bool)
                    for name in ("trained", "rescored")
                ]
                measured = marks[0] | marks[1]
                count = int(np.count_nonzero(measured))
                losses = np.full(end - begin, np.nan, np.float32)
                if count:
                    losses[measured] = file.get_slice("losses")[at : at + count]
            at += count
            yield marks[0], marks[1], losses

    def extras(self) -> dict[str, np.ndarray]:
        """What else was measured, see `Trace.write`: name -> (N,) float32, NaN = nothing."""
        arrays, _ = storage.load(self.path)
        measured = _marks(arrays, self.rows)
        found: dict[str, np.ndarray] = {}
        for name, values in arrays.items():
            if name.startswith(_EXTRAS):
                whole = np.full(self.rows, np.nan, np.float32)
                whole[measured] = values if values.dtype.kind == "f" else np.where(values < 0, np.nan, values)
                found[name.removeprefix(_EXTRAS)] = whole
        return found

    def read(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All rows at once, as `blocks` yields them."""
        return next(self.blocks(-(-self.rows // 8) * 8))


def read_trace(run: str | os.PathLike[str], rows: int, name: str | None = None) -> tuple[list[TracedRound], list[str]]:
    """Read the rounds of a run.

    Args:
        run: Folder of the run.
        rows: N, number of rows in its training set; files of other data are skipped.
        name: Name of the run; rounds that a later run wrote into the same folder are skipped. None = not known.

    Returns:
        The rounds that can be read, in order, and what is wrong with the others, one line each.
    """
    found: list[TracedRound] = []
    flaws: list[str] = []
    others = 0
    for path in sorted(Path(run, FOLDER).glob(_PATTERN), key=_number):
        try:
            arrays, header = storage.load(path)
            if header.pop("kind") != "round" or header["rows"] != rows:
                raise ValueError(f"it is not of a training set of {rows:,} rows")
            traced = _checked(TracedRound(path, **header), arrays)
            if name in (None, traced.run):
                found.append(traced)
            else:
                others += 1
        except (OSError, ValueError) as error:
            flaws.append(f"{path.name} is left out: {str(error).replace(str(path), 'it')}")
        except (KeyError, TypeError) as error:
            flaws.append(f"{path.name} is left out: {why(error)}")
    if others:
        flaws.append(f"Another run wrote {others} rounds into this folder, which are left out: give each run its own.")
    known = sorted({round.round for round in found})
    missing = known[-1] + 1 - len(known) if known else 0
    if missing:
        first = next((place for place, number in enumerate(known) if place != number), len(known))
        flaws.append(f"Of the rounds before the last, {missing:,} can't be read, the first of them {first}.")
    return found, flaws


def newest_round(run: str | os.PathLike[str]) -> tuple[int, str] | None:
    """Return the number of rows and the name of the run that wrote the last round of a folder; None = no round."""
    for path in sorted(Path(run, FOLDER).glob(_PATTERN), key=_number, reverse=True):
        try:
            header = storage.load(path)[1]
            return number(header["rows"], "rows", 1, whole=True), of_kind(header["run"], "its run", str)
        except (OSError, ValueError, KeyError):
            continue
    return None


def _checked(round: TracedRound, arrays: dict[str, np.ndarray]) -> TracedRound:
    """Check that a round's numbers are in range and that its arrays fit its number of rows.

    Raises:
        ValueError: One of them does not.
    """
    number(round.round, "its round", 0, _MOST_ROUNDS, whole=True)
    number(round.epoch, "its epoch", 0, round.round, whole=True)
    number(round.seconds, "its seconds")
    number(round.lr_scale, "lr_scale")
    for rate in of_kind(round.learning_rates, "learning_rates", list):
        number(rate, "a learning rate", -MOST)
    of_kind(round.run, "its run", str)
    for name, value in of_kind(round.account, "its account", dict).items():
        number(value, name, -MOST)
    of_kind(round.policy, "its policy", str, type(None))
    if round.round != _number(round.path):
        raise ValueError(f"it is of round {round.round:,}")
    marks = [arrays[name] for name in ("trained", "rescored") if name in arrays]
    if not marks or any(mark.dtype != np.uint8 or mark.shape != (-(-round.rows // 8),) for mark in marks):
        raise ValueError("it does not say which rows it measured")
    measured = np.count_nonzero(_marks(arrays, round.rows))
    losses = arrays["losses"]
    if losses.shape != (measured,):
        raise ValueError(f"it has {losses.shape} losses of {measured:,} rows")
    for name, values in arrays.items():
        if name.startswith(_EXTRAS) and (values.shape != losses.shape or str(values.dtype) not in _KINDS):
            raise ValueError(f"its {name} are {values.dtype} {values.shape}")
    return round


def _marks(arrays: dict[str, np.ndarray], rows: int) -> np.ndarray:
    """(N,) bool, which rows a round measured."""
    marks = [arrays[name] for name in ("trained", "rescored") if name in arrays]
    return np.unpackbits(functools.reduce(np.bitwise_or, marks), count=rows).astype(bool)


def _number(path: Path) -> int:
    digits = path.stem.removeprefix("round-")
    return int(digits) if digits.isdigit() else -1
