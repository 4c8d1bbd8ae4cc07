"""The rows of a run as one table: what training measured, and what people see in them.

`history.parquet` holds the numbers, labels and predictions. Texts and paths lie in the private folder of the run, for
`push_to_hub` uploads the former.
"""

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.foreign import brief as in_short
from ..common.storage import replacing, storable
from ..core import History
from ..core.features import FILE_ROW
from ..core.mixture import fit
from ..data import Brief
from ..data.columns import file_rows_of
from ..records.dynamics import Dynamics
from ..records.table import DUPLICATES, EPOCH, ROWS, described, row_tables, write_rows
from ..records.trace import FOLDER
from .facts import has_classes
from .judgement import Judgement, judge

if TYPE_CHECKING:
    import pyarrow

BRIEF = "rows.parquet"  # in the private folder of the run
_LIST = "loss_by_epoch"
_JUDGEMENT = "judgement"  # in the metadata of the table
_WRONG = "wrong_probability"
_LIKELY = 0.5  # probability from which a label counts as wrong
_TEXTS, _NAMES = {"text", "path"}, {"label", "predicted"}


class RowTable:
    """The part of a report that knows each row; `RunReport` has its fields."""

    history: History
    dynamics: Dynamics | None
    facts: dict[str, Any]
    source: Brief | Path | None
    run: Path
    policy: str

    @cached_property
    def judgement(self) -> Judgement:
        """Whether the losses tell wrong labels from right ones; of a copy without rounds, what its table has kept."""
        if self.dynamics is None and isinstance(self.source, Path):
            try:
                return _kept_judgement(self.source)
            except (OSError, ValueError, ImportError, RecursionError):  # of an earlier version, or damaged
                pass
        return judge(self.facts)

    @property
    def left_out_by_list(self) -> str | None:
        """How many rows a list has left out, in words; None = the policy is not `listed`, or leaves no list out."""
        if self.left_out is None:
            return None
        return f"A list left out {len(self.left_out):,} of {len(self.history):,} rows: `{self.policy}`."

    @property
    def left_out(self) -> np.ndarray | None:
        """(M,) int64, the rows that a list left out; None as in `left_out_by_list`."""
        chosen = self.history.notes.get("chosen")
        if not self.policy.startswith("Listed(") or "drop=True" not in self.policy or chosen is None:
            return None
        return np.flatnonzero(chosen == 0)

    def save_rows(self, folder: str | os.PathLike[str], file_rows: np.ndarray | None = None) -> None:
        """Write `history.parquet`, the numbers of the rows, with their labels and predictions.

        Args:
            folder: The folder to write to.
            file_rows: (N,) int, the number of each row in its file; None = not known.

        Raises:
            ImportError: pyarrow is not installed.
        """
        about = {_JUDGEMENT: self.judgement.to_json()}
        write_rows(Path(folder, ROWS), self.history, self.dynamics, file_rows, self._more(), about)

    def save_brief(self) -> None:
        """Write the texts of the rows, and the paths of their pictures, into the private folder of the run."""
        if isinstance(self.source, Brief):
            columns = {"row": np.arange(len(self.history)), **self.source.columns()}
            _write(Path(self.run, FOLDER, BRIEF), columns)

    def table(self) -> "pyarrow.Table":
        """All rows as a table, with the columns of `records.table.COLUMNS` that have data.

        Raises:
            ImportError: pyarrow is not installed.
            ValueError: The run was read from a folder, and its files are missing or damaged.
        """
        import pyarrow

        if isinstance(self.source, Path):
            table = _read_table(Path(self.source, ROWS), Path(self.run, FOLDER, BRIEF), len(self.history))
            if self.dynamics is None:
                return table
            # what the run's rounds say, as the judgement: the file may be of an earlier save, or an earlier version
            found = _wrong_probability(self.history, self.dynamics, self.judgement, self.facts)
            wrong, names = pyarrow.array(found, from_pandas=True), table.column_names
            if _WRONG not in names:
                return described(table.append_column(_WRONG, wrong))
            return described(table.set_column(names.index(_WRONG), _WRONG, wrong))
        more, file_rows = self._more(), None
        if self.source is not None:
            more |= self.source.columns()
            file_rows = file_rows_of(self.source.dataset)
        return _folded(pyarrow.concat_tables(row_tables(self.history, self.dynamics, file_rows, more)))

    def to_dataset(self) -> Any:
        """All rows as a `datasets.Dataset`, with the columns of `table`.

        Raises:
            ImportError: datasets is not installed.
            ValueError: As in `table`.
        """
        from datasets import Dataset
        from datasets.table import InMemoryTable

        return Dataset(InMemoryTable(self.table()))

    def to_datalab(self, pred_probs: np.ndarray | None = None) -> Any:
        """A `cleanlab.Datalab` of the labels, which has found what training shows, as issues `training_dynamics`.

        Args:
            pred_probs: (N, C) float, probabilities of the classes in the order of their sorted names, such as those of
                cross-validation: then cleanlab's own label issues are found, too. A run keeps none.

        Raises:
            ImportError: cleanlab is not installed.
            ValueError: The rows have no labels of classes.
        """
        from .datalab import make_datalab

        table = self.table()
        if not has_names(table):
            raise ValueError("to_datalab(): the rows have no labels of one class each, which Datalab takes.")
        return make_datalab(table, suspects(table, self.judgement), self.judgement.line, pred_probs)

    def _more(self) -> dict[str, np.ndarray]:
        """The columns of the table that `records.table` does not know."""
        brief = self.source if isinstance(self.source, Brief) else None
        return _more_columns(self.history, self.dynamics, self.judgement, self.facts, brief)


def _kept_judgement(folder: Path) -> Judgement:
    from pyarrow import parquet

    schema: Any = parquet.read_schema(folder / ROWS)
    return Judgement.of_json((schema.metadata or {}).get(_JUDGEMENT.encode(), b"").decode())


def likely_wrong(table: "pyarrow.Table") -> np.ndarray:
    """(N,) bool, the rows that are likely mislabelled: their losses say so, and the model predicts another label."""
    if _WRONG not in table.column_names:
        return np.zeros(len(table), bool)
    probability = table[_WRONG].to_numpy().astype(np.float64)  # null becomes NaN
    return (probability >= _LIKELY) & differs(table)


def suspects(table: "pyarrow.Table", judgement: Judgement) -> np.ndarray:
    """(N,) bool, the rows that the audit lists: likely mislabelled ones, or, where losses don't tell, unlearnt ones.

    The latter were never below the mean loss, and the model predicts another label. Before it has learnt, none is
    listed.
    """
    if judgement.state == "found":
        return likely_wrong(table)
    if not judgement.is_meaningful or "never_learnt" not in table.column_names:
        return np.zeros(len(table), bool)
    return (table["never_learnt"].to_numpy().astype(np.float64) == 1) & differs(table)


def largest_first(table: "pyarrow.Table", chosen: np.ndarray) -> np.ndarray:
    """(K,) int64, the rows of (N,) bool, largest excess loss first."""
    rows = np.flatnonzero(chosen)
    if "excess_loss" not in table.column_names:
        return rows
    excess = table["excess_loss"].to_numpy().astype(np.float64)[rows]  # null becomes NaN
    return rows[np.argsort(-np.nan_to_num(excess, nan=-np.inf), kind="stable")]


def has_names(table: "pyarrow.Table") -> bool:
    """Whether the labels of the rows are names of classes, and the model's predictions, too; else they are numbers."""
    kinds = [table[name].type for name in _NAMES if name in table.column_names]
    return len(kinds) == len(_NAMES) and all(map(_is_text, kinds))


def differs(table: "pyarrow.Table") -> np.ndarray:
    """(N,) bool, whether the model predicts another class than the given one; True where it is not known."""
    if not has_names(table):
        return np.ones(len(table), bool)
    pairs = zip(table["label"].to_pylist(), table["predicted"].to_pylist(), strict=True)
    return np.array([None in pair or pair[0] != pair[1] for pair in pairs])


def _more_columns(
    history: History,
    dynamics: Dynamics | None,
    judgement: Judgement,
    facts: Mapping[str, Any],
    brief: Brief | None,
) -> dict[str, np.ndarray]:
    """`label` and `predicted`, `wrong_probability` and `duplicate_group`, as far as they are known.

    A model that learns wrong labels by heart predicts them, so where labels were found wrong, `predicted` is of the
    first epoch that tells them, and `wrong_probability` goes by the mean losses of the middle one.
    """
    found: dict[str, np.ndarray] = {}
    if dynamics is not None:
        told = facts.get("upper_epochs") if judgement.state == "found" else None
        extras = dynamics.extras if told is None else dynamics.extras_until(told[0])
        found = _answers(extras, {} if brief is None else brief.names)
        found[_WRONG] = _wrong_probability(history, dynamics, judgement, facts)
    if DUPLICATES not in history.notes and brief is not None and (groups := brief.groups()) is not None:
        found[DUPLICATES] = groups
    return found


def _wrong_probability(
    history: History, dynamics: Dynamics, judgement: Judgement, facts: Mapping[str, Any]
) -> np.ndarray:
    """(N,) float32; NaN = not known."""
    if judgement.state == "found" and "upper_epochs" in facts:
        mean = dynamics.mean_until(facts["upper_epochs"][1], facts.get("upper_means", "all"))
        if (mixture := fit(mean)) is not None:
            return mixture.upper(mean).astype(np.float32)
    return np.full(len(history), np.nan, np.float32)


def _write(path: Path, columns: dict[str, np.ndarray]) -> None:
    import pyarrow
    from pyarrow import parquet

    with replacing(path) as file:
        parquet.write_table(described(pyarrow.table(columns)), file, compression="zstd")


def _read_table(path: Path, brief: Path, rows: int) -> "pyarrow.Table":
    """Read the table of a run that has saved its model.

    Args:
        path: Its `history.parquet`.
        brief: Its texts and paths; the file may be missing.
        rows: Rows of the training set.

    Raises:
        ValueError: A file is missing or damaged, or is of other rows.
    """
    table = _read(path, rows)
    if brief.is_file():
        seen = _read(brief, rows)
        for name in ("text", "path", "length"):
            if name in seen.column_names and name not in table.column_names:
                table = table.append_column(seen.schema.field(name), seen[name])
    return _folded(table)


def _read(path: Path, rows: int) -> "pyarrow.Table":
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
        if flaw := _flaw(table):
            raise ValueError(flaw)
    except FileNotFoundError as error:
        raise ValueError(f"{path} is not there: give the folder of a run that has saved its model.") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({str(error).splitlines()[0]}). Take another copy of the run.") from error
    if len(table) != rows or table.column_names[:1] != ["row"]:
        raise ValueError(f"{path} is not of the {rows:,} rows of this run. They are of two runs.")
    return table


def _flaw(table: "pyarrow.Table") -> str | None:
    """What a table from a file, which anybody may have written, has in place of one text or number a row."""
    from pyarrow import types

    names = table.column_names  # each once: pyarrow reads no others
    for name, column in zip(names, table.columns, strict=True):
        is_number = any(one(column.type) for one in (types.is_integer, types.is_floating, types.is_boolean))
        if not (_is_text(column.type) if name in _TEXTS else is_number or (name in _NAMES and _is_text(column.type))):
            return f"its column {in_short(name)} has the type {column.type}"
        if name in ("row", FILE_ROW, DUPLICATES) and (column.null_count or not types.is_integer(column.type)):
            return f"its column {name} lacks numbers"
    if DUPLICATES in names and not np.isin(table[DUPLICATES].to_numpy(), np.arange(len(table))).all():
        return f"its column {DUPLICATES} names rows that are not there"
    return None


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind)


def _folded(table: "pyarrow.Table") -> "pyarrow.Table":
    """The table with the columns of the epochs as one of lists, behind the others."""
    import pyarrow

    names = [name for name in table.column_names if name.startswith(EPOCH)]
    if not names:
        return table
    losses = np.stack([table[name].to_numpy() for name in names], axis=1)
    lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(losses.ravel(), from_pandas=True), len(names))
    lists = lists.cast(pyarrow.list_(pyarrow.float32()))
    return described(table.drop_columns(names).append_column(_LIST, lists))


def _answers(extras: Mapping[str, np.ndarray], names: Mapping[int, str]) -> dict[str, np.ndarray]:
    """`label` and `predicted` of what a run has kept of them: (N,) str or None; of a regression, (N,) float32."""
    kept = {"label": "given", "predicted": "predicted"}
    found = {column: extras[name] for column, name in kept.items() if name in extras}
    if not has_classes(extras):
        return found
    return {
        column: np.fromiter((_name(value, names) for value in values.tolist()), object, len(values))
        for column, values in found.items()
    }


def _name(value: float, names: Mapping[int, str]) -> str | None:
    if value != value:
        return None
    return storable(str(names.get(int(value), int(value))))
