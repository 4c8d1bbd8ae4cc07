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

_COMPARED = 16  # rows that processes compare with each other, where a data set has no fingerprint


def fingerprint(dataset: Any) -> int | None:
    """A checksum of a sample of rows, equal for equal content however it was made; None where rows may be random.

    Only a `datasets.Dataset` has one: another data set's rows may change from read to read (augmentation).
    """
    if not is_arrow(dataset):
        return None
    columns = dataset.with_format("arrow")[spread(len(dataset))].to_pydict()
    content = {name: [_without_path(value) for value in values] for name, values in columns.items()}
    return zlib.crc32(repr(content).encode(), len(dataset))


def row_checksums(dataset: Any) -> list[int | None]:
    """Checksums that tell whether processes hold the same rows, of any data set, in the same order.

    A `datasets.Dataset` has one, its fingerprint. Of any other data set, some rows are read twice, with generators that
    are seeded alike in all processes. Random augmentation then gives equal rows; a row that differs the second time
    says nothing.

    Args:
        dataset: The training set. A shallow copy is read, so that files which it opens when it is first read are not
            shared with the loader's workers.

    Returns:
        As many for every data set; None = says nothing.
    """
    if is_arrow(dataset):
        return [fingerprint(dataset)] + [None] * (_COMPARED - 1)
    rows = np.unique(np.linspace(0, len(dataset) - 1, _COMPARED).astype(np.int64)).tolist()
    try:
        dataset = dataset if isinstance(dataset, np.ndarray | list | tuple) else copy.copy(dataset)
        found = [_row_checksum(dataset, row) for row in rows]
    except Exception:  # what can't be read here, outside of a loader, says nothing
        found = []
    return found + [None] * (_COMPARED - len(found))


def _row_checksum(dataset: Any, row: int) -> int | None:
    found = set()
    for _ in range(2):
        with seeded_generators():
            found.add(zlib.crc32(_content(dataset[row]).encode("utf-8", "surrogatepass")))
    return found.pop() if len(found) == 1 else None


def _content(value: Any) -> str:
    """A text for a value, the same on every machine: whole numbers and texts as they are, others by their mean size."""
    if isinstance(value, Mapping):
        return repr([(str(name), _content(value[name])) for name in value])
    if isinstance(value, str):
        return repr(os.path.basename(value))  # of a file, wherever it lies
    if isinstance(value, bytes | bool | int | None):
        return repr(value)
    if is_dataclass(value) and not isinstance(value, type):
        return _content(vars(value))
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # of unequal lengths, or of numbers that numpy does not know
        array = np.array(None)
    if array.dtype.kind in "iub" and array.dtype != np.uint8:
        return f"{array.shape} {zlib.crc32(np.ascontiguousarray(array, np.int64).data)}"
    if array.dtype.kind in "uf":  # pictures and the like, which another machine may round otherwise
        return f"{array.shape} {np.abs(array).mean(dtype=np.float64) if array.size else 0:.3g}"
    return repr(list(map(_content, value))) if isinstance(value, list | tuple) else type(value).__name__


def _without_path(value: Any) -> Any:
    """The content of a file that lies beside the data set, in place of where it lies; anything else as it is."""
    is_file = isinstance(value, dict) and value.keys() == {"bytes", "path"} and value["bytes"] is None
    try:
        return zlib.crc32(Path(value["path"]).read_bytes()) if is_file else value
    except (OSError, TypeError):  # within an archive, on another machine, or there is none
        return value
