"""Names of rows: a column of unique values shows which rows of two training sets are the same."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from ..core import History
from .kinds import is_arrow

_ROWS_AT_A_TIME = 100_000
Kept = TypeVar("Kept", bound=History)
_SHOWN = 3  # values that a message names


def row_keys(dataset: Any, column: str) -> np.ndarray:
    """A hash of each row's value in a column: equal values have equal hashes, in any data set and at any place.

    Args:
        dataset: A `datasets.Dataset`, which is read in bulk, or any data set of mappings, which is read row by row.
        column: Name of the column. Its values are texts or whole numbers (7 and "7" are the same), all different.

    Returns:
        (N,) uint64, the first 8 bytes of blake2b; all distinct.

    Raises:
        ValueError: There is no such column; a value is missing, or is neither a text nor a whole number; two values are
            equal, or have the same hash.
    """
    if is_arrow(dataset):
        _require(column, dataset.column_names)
        dataset = dataset.select_columns([column]).with_format(None)
        values = _stored(dataset, column)
    else:
        values = _read(dataset, column)
    keys = np.fromiter((_hash(value, row, column) for row, value in enumerate(values)), np.uint64, len(dataset))
    order = np.argsort(keys, kind="stable")
    again = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    if not len(again):
        return keys
    pairs = [(order[at], order[at + 1]) for at in again[:_SHOWN]]
    named = [(_text(dataset[int(a)][column]), _text(dataset[int(b)][column])) for a, b in pairs]
    if equal := [one.decode() for one, other in named if one is not None and one == other]:
        raise ValueError(
            f"history_key={column!r} must name each row, but {len(again):,} values of that column are there again, "
            f"such as {', '.join(map(repr, equal))} (rows {pairs[0][0]} and {pairs[0][1]}). Name a column without "
            "duplicates, or add one that numbers the rows before they are filtered."
        )
    raise ValueError(
        f"history_key={column!r}: the values of rows {pairs[0][0]} and {pairs[0][1]} have the same hash; change one."
    )


def match(earlier: Kept, keys: np.ndarray) -> tuple[Kept, int]:
    """Bring an earlier History into the order of a new training set.

    Args:
        earlier: A History with keys.
        keys: (N,) uint64, the keys of the new training set.

    Returns:
        A History of N rows, and how many of these rows `earlier` has. The other rows count as never seen. Notes that
        are float arrays with one entry per row are kept, with NaN for the other rows. All other notes are left out.
    """
    assert earlier.keys is not None
    order = np.argsort(earlier.keys)
    place = np.minimum(np.searchsorted(earlier.keys, keys, sorter=order), len(order) - 1)
    rows = order[place]
    found = earlier.keys[rows] == keys
    rows, known = rows[found], np.flatnonzero(found)
    history = type(earlier).empty(len(keys), tuple(earlier.signals))
    history.keys, history.facts = keys, earlier.facts
    for name, array in history.arrays().items():
        array[known] = earlier.arrays()[name][rows]
    for name, note in earlier.notes.items():
        if note.shape == earlier.loss.shape and note.dtype.kind == "f":
            history.notes[name] = np.full(len(keys), np.nan, note.dtype)
            history.notes[name][known] = note[rows]
    return history, len(rows)


def _require(column: str, seen: list[str]) -> None:
    if column not in seen:
        raise ValueError(
            f"history_key={column!r}: the rows have {', '.join(seen)}. Name a column of unique values, or leave it out."
        )


def _stored(dataset: Any, column: str) -> Iterator[Any]:
    for batch in dataset.with_format("arrow").iter(_ROWS_AT_A_TIME):
        yield from batch[column].to_pylist()


def _read(dataset: Any, column: str) -> Iterator[Any]:
    for row in range(len(dataset)):
        example = dataset[row]
        _require(column, list(example) if isinstance(example, Mapping) else ["no names"])
        yield example[column]


def _hash(value: Any, row: int, column: str) -> int:
    found = digest(value)
    if found is None:
        raise ValueError(
            f"history_key={column!r}: row {row} has {value!r} there, which is neither text nor a whole number. "
            "Fill that column, or name another."
        )
    return found


def digest(value: Any) -> int | None:
    """The hash of a value that names a row, as in `row_keys`; None if it is neither a text nor a whole number."""
    text = _text(value)
    return None if text is None else int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _text(value: Any) -> bytes | None:
    """The bytes that stand for a value; None if the value can't name a row."""
    if isinstance(value, bytes):
        return value
    if hasattr(value, "item") and np.ndim(value) == 0:
        value = value.item()  # a scalar of numpy or PyTorch
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value).encode()
    return None
