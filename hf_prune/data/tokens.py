"""Tokens and lengths of every row, counted before training."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..common.generators import unchanged_generators
from ..core import IGNORED
from .kinds import SAMPLES, is_arrow, names_of

ROWS_AT_A_TIME = 100_000


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
        raise ValueError("The policy counts tokens, but no row has one. Check the data set, or count rows.")
    return tokens


def row_lengths(dataset: Any, column: str | None, inputs: str, targets_too: bool) -> np.ndarray:
    """Length of every row, read before training; rows are grouped by it, so that batches need little padding.

    Args:
        dataset: A `datasets.Dataset` is read in bulk unless it makes its rows as they are read, any other row by row.
        column: Name of a column of lengths, used where a `datasets.Dataset` has it; None = there is none.
        inputs: Name of the model's main input, whose length is used where there is no such column.
        targets_too: Measure `labels` as well, where they are lists (an encoder-decoder reads both).

    Returns:
        (N,) numbers, or (N, 2) of input and labels.

    Raises:
        ValueError: Rows have neither.
    """
    columns = dataset.column_names if is_arrow(dataset) else []
    if column in columns:
        rows = dataset.select_columns([column]).with_format("arrow")
        lengths = np.concatenate([np.asarray(part[column]) for part in rows.iter(ROWS_AT_A_TIME)])
        if lengths.dtype.kind not in "iuf" or not np.isfinite(lengths).all():
            _refuse_lengths(f"column {column!r} has a row without a number", column)
        return lengths
    with unchanged_generators():
        first = dataset[0]
        if not isinstance(first, Mapping) or not _is_list(first.get(inputs)):
            _refuse_lengths(f"a row has {names_of(first)}, and no list {inputs!r} to measure", column)
        names = [inputs, "labels"] if targets_too and _is_list(first.get("labels")) else [inputs]
        if set(names) <= set(columns) and dataset.format["type"] != "custom":
            rows = dataset.select_columns(names).with_format("arrow")
            parts = [[_lengths(_stored_lists(part[name])) for name in names] for part in rows.iter(ROWS_AT_A_TIME)]
            lengths = np.concatenate(parts, axis=1).T
        else:
            rows = tqdm(range(len(dataset)), "Measuring rows", disable=len(dataset) < SAMPLES)
            lengths = np.array([[len(example[name]) for name in names] for example in map(dataset.__getitem__, rows)])
    return lengths if len(names) > 1 else lengths[:, 0]


def _is_list(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str) and getattr(value, "ndim", 1) > 0


def _refuse_lengths(reason: str, column: str | None) -> None:
    raise ValueError(
        f"train_sampling_strategy='group_by_length': {reason}. Give the length of each row as a number in the column "
        f"{column!r} (length_column_name names it) of a datasets.Dataset, or take 'random'."
    )


def _arrow_tokens(dataset: Any, targets_too: bool) -> Iterator[int]:
    if "input_ids" not in dataset.column_names:
        _refuse_tokens(", ".join(dataset.column_names))
    names = [name for name in ("input_ids", "attention_mask", "labels") if name in dataset.column_names]
    table = dataset.select_columns(names).with_format("arrow")
    for batch in table.iter(ROWS_AT_A_TIME):
        mask = "attention_mask" in names
        counts = _count(batch["attention_mask" if mask else "input_ids"], 0 if mask else None)
        if targets_too and "labels" in names and hasattr(batch["labels"].type, "value_type"):  # a class is no token
            counts = counts + _count(batch["labels"], IGNORED)
        yield from counts.tolist()


def _count(column: Any, left_out: int | None) -> np.ndarray:
    """Entries of each list of an Arrow column, those equal to `left_out` not counted."""
    entries, lengths = lists_of(column)
    if left_out is None:
        return lengths
    ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return np.diff(np.concatenate([[0], np.cumsum(entries != left_out)])[ends])


def _example_tokens(dataset: Any, targets_too: bool) -> Iterator[int]:
    for row in tqdm(range(len(dataset)), "Counting tokens"):
        example = dataset[row]
        if not isinstance(example, Mapping) or "input_ids" not in example:
            _refuse_tokens(names_of(example))
        mask = example.get("attention_mask")
        count = len(numbers_of(example, "input_ids", row))
        if mask is not None:
            count = int(np.count_nonzero(numbers_of(example, "attention_mask", row)))
        if targets_too and is_text(example.get("labels")):
            count += int(np.count_nonzero(numbers_of(example, "labels", row) != IGNORED))
        yield count


def _refuse_tokens(names: str) -> None:
    raise ValueError(
        f"The policy counts tokens by 'input_ids', but the rows have {names}: tokenize them first, give unit='rows' "
        "where unit='tokens' asked for it, or choose a rule that needs no tokens."
    )


def lists_of(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """All entries of an Arrow column of lists, or of lists of lists, one after another, and how many each row has.

    Raises:
        ValueError: It holds no lists.
    """
    column = _stored_lists(column)
    if not hasattr(column.type, "value_type"):
        raise ValueError(
            f"The policy reads lists of tokens, and rows have a {column.type} there: tokenize them first, or choose a "
            "rule that needs no tokens."
        )
    lengths, entries = _lengths(column), column.flatten()
    if not hasattr(entries.type, "value_type"):
        return np.asarray(entries), lengths
    entries, inner = lists_of(entries)
    ends = np.concatenate([[0], np.cumsum(inner, dtype=np.int64)])
    return entries, np.diff(ends[np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])])


def _stored_lists(column: Any) -> Any:
    column = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    return getattr(column, "storage", column)  # of arrays of a fixed shape


def _lengths(column: Any) -> np.ndarray:
    """The length of each list of an Arrow column of lists."""
    fixed = getattr(column.type, "list_size", None)
    return np.full(len(column), fixed) if fixed else np.asarray(column.value_lengths().fill_null(0))


def numbers_of(example: Mapping[str, Any], name: str, row: int) -> np.ndarray:
    """What a row has under a name: numbers, or numbers for each of the texts to choose from.

    Args:
        example: The row.
        name: Of its tokens, mask or labels.
        row: Its number, for the message.

    Returns:
        (T,) int64.

    Raises:
        ValueError: It has something else there.
    """
    values = example[name]
    try:
        is_nested = len(values) > 0 and np.ndim(values[0]) > 0
        if is_nested:
            return np.concatenate([np.asarray(one, np.int64).reshape(-1) for one in values])
        if not isinstance(values, str | bytes):
            return np.asarray(values, np.int64)
    except (TypeError, ValueError, LookupError):  # said below
        pass
    raise ValueError(
        f"The policy reads the tokens of each row, but row {row} has {values!r:.60} as {name!r}: give a list of "
        "numbers, [] where there are none, or choose a rule that needs no tokens."
    )


def is_text(labels: Any) -> bool:
    """Whether the labels of a row are several, which a decoder reads, and no class."""
    return isinstance(labels, list | tuple) or np.ndim(labels) > 0
