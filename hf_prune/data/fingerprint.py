"""Checksums that tell one data set from another, and whether processes hold the same one."""

import copy
import os
import zlib
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..common.generators import seeded_generators
from .kinds import is_arrow, spread

_COMPARED = 16  # rows that processes compare if the data set has no fingerprint


def fingerprint(dataset: Any) -> int | None:
    """A checksum of a sample of rows: equal content gives an equal checksum. None if rows may be random.

    Only a `datasets.Dataset` has one: rows of another data set may change from read to read (augmentation).
    """
    if not is_arrow(dataset):
        return None
    columns = dataset.with_format("arrow")[spread(len(dataset))].to_pydict()
    content = {name: [_without_path(value) for value in values] for name, values in columns.items()}
    return zlib.crc32(repr(content).encode(), len(dataset))


def row_checksums(dataset: Any) -> list[int | None]:
    """Checksums that show whether processes hold the same rows in the same order, for any data set.

    A `datasets.Dataset` has one, its fingerprint. For any other data set, some rows are read twice, with random
    generators that are seeded alike in all processes, so that random augmentation gives equal rows. A row that still
    differs the second time gives None.

    Args:
        dataset: The training set. A shallow copy is read, so that the files that its first read opens are not shared
            with the loader's workers.

    Returns:
        A list of the same length for every data set; None = nothing is known about a row.
    """
    if is_arrow(dataset):
        return [fingerprint(dataset)] + [None] * (_COMPARED - 1)
    rows = np.unique(np.linspace(0, len(dataset) - 1, _COMPARED).astype(np.int64)).tolist()
    try:
        dataset = dataset if isinstance(dataset, np.ndarray | list | tuple) else copy.copy(dataset)
        found = [_row_checksum(dataset, row) for row in rows]
    except Exception:  # rows that can't be read outside of a loader are not compared
        found = []
    return found + [None] * (_COMPARED - len(found))


def _row_checksum(dataset: Any, row: int) -> int | None:
    found = set()
    for _ in range(2):
        with seeded_generators():
            found.add(zlib.crc32(_content(dataset[row]).encode("utf-8", "surrogatepass")))
    return found.pop() if len(found) == 1 else None


def _content(value: Any) -> str:
    """A text for a value, the same on every machine: whole numbers and texts exactly, others by mean size."""
    if isinstance(value, Mapping):
        return repr([(str(name), _content(value[name])) for name in value])
    if isinstance(value, str):
        return repr(os.path.basename(value))  # a file's name, wherever the file is
    if isinstance(value, bytes | bool | int | None):
        return repr(value)
    if is_dataclass(value) and not isinstance(value, type):
        return _content(vars(value))
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # lists of unequal lengths, or a type that numpy does not know
        array = np.array(None)
    if array.dtype.kind in "iub" and array.dtype != np.uint8:
        return f"{array.shape} {zlib.crc32(np.ascontiguousarray(array, np.int64).data)}"
    if array.dtype.kind in "uf":  # pictures and the like, which another machine may round differently
        return f"{array.shape} {np.abs(array).mean(dtype=np.float64) if array.size else 0:.3g}"
    return repr(list(map(_content, value))) if isinstance(value, list | tuple) else type(value).__name__


def _without_path(value: Any) -> Any:
    """The content of a file beside the data set, in place of its path; anything else as it is."""
    is_file = isinstance(value, dict) and value.keys() == {"bytes", "path"} and value["bytes"] is None
    try:
        return zlib.crc32(Path(value["path"]).read_bytes()) if is_file else value
    except (OSError, TypeError):  # the file is in an archive, on another machine, or missing
        return value
