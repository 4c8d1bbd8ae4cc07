"""Facts about a training set that are read without training: tokens of each row, and a fingerprint of its content."""

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from .core import IGNORED

_ROWS_AT_A_TIME = 100_000
_SAMPLES = 64  # rows whose content makes the fingerprint


def is_arrow(dataset: Any) -> bool:
    """Whether this is a `datasets.Dataset`, told by what it does so that the library need not be installed."""
    return hasattr(dataset, "column_names") and hasattr(dataset, "with_format")


def row_tokens(dataset: Any, targets_too: bool) -> np.ndarray:
    """Real tokens of every row, counted before training.

    Args:
        dataset: Rows with `input_ids` (and `attention_mask` where padded). A `datasets.Dataset` is counted in bulk, any
            other data set row by row.
        targets_too: Count `labels` as well (an encoder-decoder reads and writes).

    Returns:
        (N,) int32.

    Raises:
        ValueError: Rows have no `input_ids`.
    """
    count = _arrow_tokens if is_arrow(dataset) else _example_tokens
    tokens = np.fromiter(count(dataset, targets_too), np.int32, len(dataset))
    if not tokens.any():
        raise ValueError("unit='tokens', but no row has a token. Check the data set, or give unit='rows'.")
    return tokens


def fingerprint(dataset: Any) -> int | None:
    """A checksum of a sample of rows, equal for equal content however it was made; None where rows may be random.

    Only a `datasets.Dataset` has one: another data set's rows may change from read to read (augmentation).
    """
    if not is_arrow(dataset):
        return None
    rows = np.unique(np.linspace(0, len(dataset) - 1, _SAMPLES).astype(np.int64))
    content = dataset.with_format("arrow")[rows.tolist()]
    return zlib.crc32(repr(content.to_pydict()).encode(), len(dataset))


def _arrow_tokens(dataset: Any, targets_too: bool) -> Iterator[int]:
    _require("input_ids", dataset.column_names)
    names = [name for name in ("input_ids", "attention_mask", "labels") if name in dataset.column_names]
    table = dataset.select_columns(names).with_format("arrow")
    for batch in table.iter(_ROWS_AT_A_TIME):
        mask = "attention_mask" in names
        counts = _count(batch["attention_mask" if mask else "input_ids"], 0 if mask else None)
        if targets_too and "labels" in names:
            counts = counts + _count(batch["labels"], IGNORED)
        yield from counts.tolist()


def _count(column: Any, left_out: int | None) -> np.ndarray:
    """Entries of each list of an Arrow column, those equal to `left_out` not counted."""
    column = column.combine_chunks()
    offsets = np.asarray(column.offsets)
    if left_out is None:
        return np.diff(offsets)
    counted = np.asarray(column.values) != left_out
    return np.diff(np.concatenate([[0], np.cumsum(counted)])[offsets])


def _example_tokens(dataset: Any, targets_too: bool) -> Iterator[int]:
    for example in tqdm((dataset[row] for row in range(len(dataset))), "Counting tokens", total=len(dataset)):
        _require("input_ids", list(example))
        mask = example.get("attention_mask")
        count = len(example["input_ids"]) if mask is None else int(np.count_nonzero(mask))
        if targets_too and "labels" in example:
            count += int(np.count_nonzero(np.asarray(example["labels"]) != IGNORED))
        yield count


def _require(name: str, seen: list[str]) -> None:
    if name not in seen:
        raise ValueError(f"unit='tokens' counts {name!r}, but the rows have {', '.join(seen)}. Give unit='rows'.")
