"""Columns of a training set that a policy names."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..core.features import FILE_ROW
from .kinds import is_arrow, names_of


def read_columns(dataset: Any, names: Sequence[str], reader: str) -> dict[str, np.ndarray]:
    """The values of some columns.

    Args:
        dataset: A `datasets.Dataset`, which is read in bulk, or any data set of mappings, which is read row by row.
        names: Names of the columns.
        reader: Who reads them, for a message.

    Returns:
        For each name (N,): bool, integers or floats if every row has such a value; else objects, None = missing.

    Raises:
        ValueError: A row has no such column.
    """
    if not names:
        return {}
    if not is_arrow(dataset):
        values: dict[str, list[Any]] = {name: [] for name in names}
        for row in range(len(dataset)):
            example = dataset[row]
            for name in names:
                if not isinstance(example, Mapping) or name not in example:
                    raise _missing(name, names_of(example), reader)
                values[name].append(_plain(example[name]))
        return {name: _array(column) for name, column in values.items()}
    for name in names:
        if name not in dataset.column_names:
            raise _missing(name, ", ".join(dataset.column_names), reader)
    return {name: _stored(dataset, name) for name in names}


def file_rows_of(data: Any) -> np.ndarray | None:
    """Return the number of each row in the file that it was read from, (N,) int; None = not known."""
    if not is_arrow(data) or FILE_ROW not in data.column_names:
        return None
    numbers = _stored(data, FILE_ROW)
    return numbers if numbers.dtype.kind in "iu" else None  # a column of that name may hold anything


def _missing(name: str, there: str, reader: str) -> ValueError:
    return ValueError(
        f"{reader} reads the column {name!r}, but the rows have {there}. Name one of these, or keep that column from "
        "being removed."
    )


def _stored(dataset: Any, name: str) -> np.ndarray:
    column = dataset.select_columns([name]).with_format("arrow")[:][name]
    kind = str(column.type)
    if not column.null_count and (kind == "bool" or kind.startswith(("int", "uint", "float", "double"))):
        return column.to_numpy()
    return _array(column.to_pylist())


def _array(values: list[Any]) -> np.ndarray:
    kinds = set(map(type, values))
    if len(kinds) == 1 and kinds <= {bool, int, float}:
        return np.array(values)
    return np.fromiter(values, object, len(values))  # np.array would look into lists


def _plain(value: Any) -> Any:
    """A scalar of numpy or PyTorch as a plain value; anything else unchanged."""
    return value.item() if hasattr(value, "item") and np.ndim(value) == 0 else value
