"""How many rows of a data set repeat an earlier row, byte for byte."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .kinds import is_arrow
from .pixels import PICTURES
from .tokens import ROWS_AT_A_TIME, lists_of

_LABELS = ("label", "labels")


def count_repeats(dataset: Any) -> int | None:
    """Count the rows with the same tokens, picture or texts, and the same label, as an earlier row.

    It takes some 8 bytes per row, and a second for some hundred thousand short texts.

    Args:
        dataset: A `datasets.Dataset`, read as stored.

    Returns:
        The number of rows; None if the data set is of another kind, or has neither tokens nor pictures nor texts.
    """
    if not is_arrow(dataset) or not (names := _contents(dataset)):
        return None
    columns = dataset.select_columns(names).with_format("arrow")
    hashes = np.zeros(len(dataset), np.uint64)
    begin = 0
    for batch in columns.iter(ROWS_AT_A_TIME):
        values = zip(*(_values(batch[name]) for name in names), strict=True)
        found = np.fromiter((hash(value) & 0xFFFFFFFFFFFFFFFF for value in values), np.uint64)
        hashes[begin : begin + len(found)] = found
        begin += len(found)
    return len(hashes) - len(np.unique(hashes))


def _contents(dataset: Any) -> list[str]:
    """The columns that make a row what it is, the label last; none if there is only a label."""
    names = dataset.column_names
    inputs = [name for name in ("input_ids",) if name in names] or [name for name in PICTURES if name in names][:1]
    if not inputs:
        inputs = [name for name in names if str(getattr(dataset.features[name], "dtype", "")) == "string"]
    labels = [name for name in _LABELS if name in names and name not in inputs]
    return inputs + labels if inputs else []


def _values(column: Any) -> Iterator[Any]:
    """A hashable value for each row of an Arrow column; a list of numbers is its bytes."""
    column = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    if hasattr(column.type, "value_type") and str(getattr(column.type, "value_type", "")).startswith(("int", "uint")):
        entries, lengths = lists_of(column)
        ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).tolist()
        return (entries[start:end].tobytes() for start, end in zip(ends, ends[1:], strict=False))
    return (_hashable(value) for value in column.to_pylist())


def _hashable(value: Any) -> Any:
    return repr(value) if isinstance(value, (dict, list)) else value
