"""Columns of rows: how flags name them, what they must hold, and which rows are left out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, Value

from ..data.tokens import row_lengths
from ..records.table import FILE_ROW

KNOWN_TEXTS = (  # the names of GLUE's tasks and of common data sets
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text",),
    ("sentence",),
)


def columns_of(rows: Dataset) -> str:
    """The names of the columns that rows have in their file, as a text."""
    return ", ".join(column for column in rows.column_names if column != FILE_ROW)


def find_column(rows: Dataset, flag: str, column: str, name: str) -> str:
    """`column`, if the rows have it.

    Raises:
        ValueError: They don't have it; the message has `flag`, the name of the rows, and their columns.
    """
    if column not in rows.column_names:
        plain = {other.strip().casefold(): other for other in rows.column_names}
        near = plain.get(column.strip().casefold())
        hint = f" Did you mean {near!r}?" if near else ""
        raise ValueError(f"{flag}={column!r}: {name} has no such column; it has {columns_of(rows)}.{hint}")
    return column


def find_text(rows: Dataset, flag: str, column: str, name: str) -> str:
    """`column`, if the rows have texts there.

    Raises:
        ValueError: `find_column` refuses it, or the column holds something else.
    """
    feature = rows.features[find_column(rows, flag, column, name)]
    if feature not in (Value("string"), Value("large_string"), Value("null")):
        raise ValueError(
            f"{flag}={column!r}: {name} has {feature} there, no text. Name another column, or store text in it (in "
            "Parquet or JSON lines, where 7 and '7' differ)."
        )
    return column


def find_texts(rows: Dataset, columns: Sequence[str], label_column: str, name: str) -> list[str]:
    """The columns of the text, or of the pair of texts.

    Args:
        rows: The rows that have these columns.
        columns: Columns that `text_columns` names, if any.
        label_column: Column of the labels, which is never one of them.
        name: The name of the rows in messages.

    Raises:
        ValueError: A column is missing, has no text or is that of the labels; there are more than two; or none has a
            known name while several could be meant.
    """
    if columns:
        if len(columns) > 2:
            raise ValueError(f"text_columns={columns}: give one column, or two for pairs of texts.")
        if len(set(columns)) < len(columns):
            raise ValueError(f"text_columns={columns}: give two different columns, or one.")
        if label_column in columns:
            raise ValueError(f"text_columns={columns} has the label_column; name the text alone.")
        return [find_text(rows, "text_columns", column, name) for column in columns]
    for known in KNOWN_TEXTS:
        if set(known) <= set(rows.column_names):
            return list(known)
    others = [column for column in rows.column_names if column != label_column]
    texts = [column for column in others if rows.features[column] in (Value("string"), Value("large_string"))]
    if len(texts) != 1:
        raise ValueError(
            f"text_columns: {name} has {len(texts)} columns of texts, none by a name that is known; name one or two of "
            f"{columns_of(rows.select_columns(others))}."
        )
    return texts


def keep_rows(rows: Dataset, is_whole: Callable[[Any], bool], what: str, name: str, say: Callable[[str], None]):
    """The rows that are complete; `say` is told how many are left out.

    Raises:
        ValueError: No row is complete; the message names the rows and what they lack.
    """
    kept = rows.filter(is_whole)
    if not len(kept):
        raise ValueError(f"{name} has no row with {what} ({len(rows)} rows read).")
    if lost := len(rows) - len(kept):
        say(f"{name}: {lost:,} of {len(rows):,} rows are left out, for only those with {what} can serve.")
    return kept


def encode_splits(
    splits: DatasetDict, encode: Callable[[Any], Any], columns: Sequence[str], desc: str = "Tokenize"
) -> DatasetDict:
    """The splits with what `encode` makes of their batches in place of the columns; a split may lack some of these."""
    return DatasetDict(
        {
            split: rows.map(
                encode, batched=True, remove_columns=[name for name in columns if name in rows.column_names], desc=desc
            )
            for split, rows in splits.items()
        }
    )


def count_rows(splits: Mapping[str, Dataset]) -> str:
    """A text with the number of rows in each split."""
    return ", ".join(f"{len(rows):,} {name}" for name, rows in splits.items()) + " rows"


def tell_cuts(rows: Dataset, max_length: int, say: Callable[[str], None]) -> None:
    """Say how many training rows have an input or a target of `max_length` tokens, which may be cut."""
    lengths = row_lengths(rows, None, "input_ids", targets_too=True)
    if full := int(np.count_nonzero(lengths.reshape(len(rows), -1).max(1) >= max_length)):
        say(f"{full:,} of {len(rows):,} training rows fill max_length={max_length} and may be cut")


def tell_length(rows: Dataset, split: str, read: int, max_length: int | None) -> str:
    """A text that says how many of the rows that were read are left, and how many reach the maximum length.

    Args:
        rows: Rows with `input_ids`, or packs of such rows.
        split: Name of their split.
        read: Number of rows that were read.
        max_length: Maximum number of tokens in a row.

    Raises:
        ValueError: No row is left.
    """
    if not len(rows):
        raise ValueError(f"max_length={max_length} leaves no row of split {split} a response; give a larger one.")
    if "seq_lengths" in rows.column_names:
        return f"{len(rows):,} {split} packs of {read:,} rows"
    words = [f"{len(rows):,} {split} rows"]
    if len(rows) < read:
        words.append(f"{read - len(rows):,} more are left out, for their prompt fills max_length")
    if full := sum(len(ids) == max_length for ids in rows["input_ids"][:]):
        words.append(f"{full:,} fill max_length={max_length} and may be cut")
    return "; ".join(words)
