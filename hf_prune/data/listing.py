"""Rows of a training set that a file lists, by number or by key."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..core.features import FILE_ROW
from ..core.ranking import marked
from .columns import file_rows_of
from .keys import digest

_ROW = "row"  # number of a row in the training set, as in history.parquet
_BARE = ""  # stands for the name of a list that has none
SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".npy", ".parquet")
_SHOWN = 3  # values that a message names


def listed_rows(
    dataset: Any, path: str, key: str | None, keys: np.ndarray | None, warn: Callable[[str], None]
) -> np.ndarray:
    """The rows of a training set that a file lists.

    A table names them in the column that is called as `key`, else `file_row` (if the data set has such numbers, too),
    else `row`, else in its only column. A list without a name, and a single column of another name, hold keys if there
    are `keys`. Otherwise they hold numbers: those of the data set's column `file_row`, or without it 0 to N - 1.

    Args:
        dataset: The training set, of N rows.
        path: A list of one value a line (.txt), an array (.npy), a table (.csv, .tsv, .jsonl, .parquet), or a list or a
            table (.json).
        key: Column of the training set that names each row; None = there is none.
        keys: (N,) uint64, the hashes of its values.
        warn: Called with a message if the training set has not all the rows that are listed.

    Returns:
        (N,) bool.

    Raises:
        ValueError: The file can't be read; it names rows in a way that is not known here; a row number is not in the
            training set; or no number in a file, and no key, is in it.
    """
    n, file_rows = len(dataset), file_rows_of(dataset)
    wanted = [name for name in (key, None if file_rows is None else FILE_ROW, _ROW) if name is not None]
    name, values = _read(path, wanted)
    if key is not None and keys is not None and name not in (FILE_ROW, _ROW):
        by, own = key, keys
        named = np.fromiter((_hash(value, path) for value in values), np.uint64, len(values))
    else:
        named = np.fromiter((_number(value, path) for value in values), np.int64, len(values))
        if file_rows is None or name == _ROW:
            if len(named) and named.max() >= n:
                raise ValueError(f"file={path!r} lists row {named.max()}, but the training set has 0 to {n - 1}.")
            return marked(named, n)
        by, own = FILE_ROW, file_rows
    lost = np.flatnonzero(~np.isin(named, own))
    if len(lost):
        shown = ", ".join(str(values[at]) for at in lost[:_SHOWN])
        what = f"file={path!r} names rows by {by}" + ", their number in their own file" * (by == FILE_ROW)
        if len(lost) == len(named):
            raise ValueError(f"{what}, and the training set has none of them ({shown} ...): list others.")
        warn(
            f"{what}, and the training set lacks {len(lost):,} of the {len(named):,} ({shown} ...). They may be held "
            "out, or were left out when the data were read."
        )
    return np.isin(own, named)


def _hash(value: Any, path: str) -> int:
    found = digest(value)
    if found is None:
        raise ValueError(f"file={path!r} has {value!r}, which is neither a text nor a whole number: it is no key.")
    return found


def _number(value: Any, path: str) -> int:
    try:
        if not isinstance(value, bool) and int(value) == float(value) and 0 <= int(value) < 2**63:
            return int(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(
        f"file={path!r} has {value!r}, which is no number of a row. List numbers from 0, or, with history_key, the "
        "values of that column."
    )


# ---- Files ----


def _read(path: str, wanted: list[str]) -> tuple[str, list[Any]]:
    """The name of the column that names rows, and its values.

    Args:
        path: The file.
        wanted: Names of the column, the best first.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"file={path!r}: suffix {suffix!r} is not known; give one of {', '.join(SUFFIXES)}.")
    try:
        if suffix == ".parquet":
            return _read_parquet(path, wanted)
        if suffix == ".npy":
            return _BARE, _read_array(path)
        text = Path(path).read_text(encoding="utf-8-sig")
        if suffix in (".csv", ".tsv"):
            return _read_table(text, "\t" if suffix == ".tsv" else ",", path, wanted)
        lines = [line.strip() for line in text.split("\n") if line.strip()]  # a key may have a rarer line break in it
        if suffix == ".txt":
            return _BARE, lines
        return _of_json(json.loads(text) if suffix == ".json" else list(map(json.loads, lines)), path, wanted)
    except (OSError, ValueError, EOFError, csv.Error, RecursionError) as error:
        if str(error).startswith("file="):
            raise
        raise ValueError(f"file={path!r} can't be read as {suffix}: {error}") from error


def _read_table(text: str, separator: str, path: str, wanted: list[str]) -> tuple[str, list[Any]]:
    lines = [line for line in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if line]
    header = lines[0] if lines else [_BARE]
    if len(header) == 1 and header[0].strip().isdecimal():  # numbers without a name above them
        return _BARE, [line[0] for line in lines]
    at = header.index(_pick(header, path, wanted))
    if short := next((line for line in lines if len(line) <= at), None):
        raise ValueError(f"file={path!r} has the line {separator.join(short)!r}, without a value for {header[at]!r}.")
    return header[at], [line[at] for line in lines[1:]]


def _pick(names: list[str], path: str, wanted: list[str]) -> str:
    found = next((name for name in wanted if name in names), names[0] if len(names) == 1 else None)
    if found is None or (found == FILE_ROW and FILE_ROW not in wanted):
        cure = " or ".join(wanted)
        raise ValueError(f"file={path!r} has the columns {', '.join(names)}: call the one that names rows {cure}.")
    return found


def _read_parquet(path: str, wanted: list[str]) -> tuple[str, list[Any]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(f"file={path!r} needs pyarrow: pip install pyarrow, or install datasets.") from error
    with parquet.ParquetFile(path) as file:
        name = _pick(file.schema_arrow.names, path, wanted)
        return name, file.read([name])[name].to_pylist()


def _read_array(path: str) -> list[Any]:
    with open(path, "rb") as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
    if array.ndim != 1 or array.dtype.kind not in "iuU":
        cure = " Of a mask, save np.flatnonzero(mask)." if array.dtype.kind == "b" else ""
        raise ValueError(f"file={path!r} must be a (K,) array of row numbers, got {array.dtype} {array.shape}.{cure}")
    return array.tolist()


def _of_json(found: Any, path: str, wanted: list[str]) -> tuple[str, list[Any]]:
    if isinstance(found, list) and not any(isinstance(entry, (dict, list)) for entry in found):
        return _BARE, found
    if not isinstance(found, list) or not all(isinstance(entry, dict) and entry for entry in found):
        raise ValueError(f"file={path!r} must hold a list of values, or of rows with names, got {str(found)[:60]}.")
    name = _pick(list(found[0]), path, wanted)
    return name, [entry.get(name) for entry in found]
