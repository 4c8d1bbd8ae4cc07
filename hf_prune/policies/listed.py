"""Listed: train the rows, or all but the rows, that a column or a file names; one of each group, if you want (ours).

With L the rows that `column` or `file` names, and g_i the group of row i in the column `one_of`

    S = L, or with `drop` all rows but L, the same in every round
    S = one row of each group among these, drawn anew in each round                    (one_of)

Needs      the column, or a file of row numbers or keys: .txt, .csv, .tsv, .json, .jsonl, .npy, .parquet. No signal, no
           extra pass; 1 byte per row, with `one_of` 9.
Good for   acting on an audit: leave out the rows that a report flags. The oracle of a comparison: with rows known to be
           clean, or known groups of duplicates, it shows what the best rule of that kind could gain.
Not for    choosing rows: it trusts the list.
Defaults   drop = False. There is no default list.
Deviates   A file's numbers are those of the data set's column `file_row` (the row's number in the file that it was read
           from), which the data of all recipes have; without this column, those of the training set from 0. A table
           may name rows in a column `file_row` or `row` (number in the training set), as history.parquet does. With
           `history_key`, a list holds keys, and a table may have them under the name of that column. Listed rows that
           are not in the training set are told in a warning; if none is, that is an error. A row whose group is
           missing (null) is a group of its own. Rounds are not filled up to whole optimizer steps.
Reference  none: our own rule
"""

import os
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..core import Clock, History, Policy, Selection


@dataclass(frozen=True)
class Listed(Policy):
    """Train the rows that a column or a file names, or all others.

    Args:
        column: Column of the data set that is true, or 1, where a row is named, and false, or 0, elsewhere.
        file: File of the numbers or keys of the rows that are named; in place of `column`. A run that resumes keeps the
            list that it began with.
        drop: Whether the rows that are named are left out; if not, only they are trained.
        one_of: Column of the data set with each row's group, a text or a whole number; a round trains one row of each.

    Examples:
        >>> from hf_prune.core.features import Features
        >>> history, policy = History.empty(4), Listed(column="is_wrong", drop=True)
        >>> history.features = Features(columns={"is_wrong": np.array([False, True, False, False])})
        >>> policy.begin(history, None)
        >>> policy.select(history, Clock(0, 0, 5, 0.0), np.random.default_rng(0)).rows.tolist()
        [0, 2, 3]
    """

    needs: ClassVar[frozenset[str]] = frozenset({"columns"})

    column: str | None = None
    file: str | None = None
    drop: bool = False
    one_of: str | None = None

    def __post_init__(self):
        for name in ("column", "file", "one_of"):
            value: Any = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise ValueError(f"Listed({name}=...) must be a name, got {value!r}.")
        if self.file is not None and not os.path.isfile(self.file):
            raise ValueError(f"Listed(file=...): there is no file {self.file!r}.")
        self.check_switch("drop")
        if self.column is not None and self.file is not None:
            raise ValueError(f"Listed(file=...) and column={self.column!r} name rows twice: give one of them.")
        if self.drop and self.column is None and self.file is None:
            raise ValueError("Listed(drop=...) leaves out the rows that are named: give column=... or file=..., too.")

    @property
    def reads_columns(self) -> tuple[str, ...]:
        return tuple(name for name in (self.column, self.one_of) if name is not None)

    @property
    def reads_file(self) -> str | None:
        return self.file

    def begin(self, history: History, earlier: History | None) -> None:
        super().begin(history, earlier)
        n, features = len(history), history.features
        if self.column is not None:
            chosen = _switches(features.columns[self.column], self.column)
        elif features.listed is not None:
            chosen = features.listed
        elif self.one_of is not None:
            chosen = np.ones(n, bool)
        else:
            raise ValueError(f"{self!r} names no rows: give column=..., file=... or one_of=....")
        chosen = ~chosen if self.drop else chosen
        if not chosen.any():
            raise ValueError(f"{self!r} leaves none of the {n:,} rows to train.")
        history.notes["chosen"] = chosen
        if self.one_of is not None:
            groups = _groups(features.columns[self.one_of], self.one_of)
            history.notes["group"] = groups
            history.notes["groups"] = np.array([len(np.unique(groups[chosen]))])  # every forecast reads it

    def select(self, history: History, clock: Clock, rng: np.random.Generator) -> Selection:
        rows = np.flatnonzero(history.notes["chosen"])
        if self.one_of is not None:
            rows = rng.permutation(rows)
            first = np.unique(history.notes["group"][rows], return_index=True)[1]
            rows = np.sort(rows[first])
        return Selection(rows)

    def forecast(self, history: History, clock: Clock) -> int:
        if self.one_of is not None:
            return int(history.notes["groups"][0])
        return int(np.count_nonzero(history.notes["chosen"]))


def _switches(values: np.ndarray, column: str) -> np.ndarray:
    """(N,) bool, of a column of true and false, or 1 and 0."""
    if values.dtype != bool:
        for row, value in enumerate(values.tolist()):
            if value not in (0, 1):
                raise ValueError(
                    f"Listed(column=...) takes true and false, or 1 and 0, but {column!r} has {value!r} in row {row} "
                    "of the training set."
                )
    return values.astype(bool)


def _groups(values: np.ndarray, column: str) -> np.ndarray:
    """(N,) int64 from 0, equal where the values are; each missing value is a group of its own."""
    codes: dict[Any, int] = {}
    groups = np.empty(len(values), np.int64)
    for row, value in enumerate(values.tolist()):
        is_missing = value is None or value != value
        if not (is_missing or isinstance(value, (str, int)) or (isinstance(value, float) and value.is_integer())):
            raise ValueError(
                f"Listed(one_of=...) takes texts or whole numbers, but {column!r} has {value!r} in row {row} of the "
                "training set."
            )
        groups[row] = codes.setdefault((row,) if is_missing else value, len(codes))
    return groups
