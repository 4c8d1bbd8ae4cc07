"""The Parquet table `history.parquet`: one line for each row of the training set."""

import os
from collections.abc import Collection
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.storage import replacing
from ..core import NEVER, History
from ..core.features import FILE_ROW
from .dynamics import Dynamics

if TYPE_CHECKING:
    import pyarrow

ROWS = "history.parquet"
DUPLICATES = "duplicate_group"  # also a policy's note
COLUMNS = {
    "row": "number of the row in the training set, from 0",
    FILE_ROW: "number of the row in the file or split that it was read from, from 0",
    "key": "a hash of what the data set calls the row, wherever it stands",
    "loss": "its latest loss (of text: the mean over its target tokens; cross-entropies are in nats)",
    "seen": "the round in which that was measured, from 0",
    "tokens": "its tokens without padding",
    DUPLICATES: "the first row of its group of near-duplicates; its own number if it has none",
    "faults": "how often its loss was no finite number",
    "times_trained": "rounds that trained it",
    "times_measured": "rounds that measured a finite loss, in training or by a forward pass alone",
    "mean_loss": "mean of these losses",
    "variability": "their standard deviation",
    "excess_loss": "how far they exceeded the mean of all rows, later rounds weighing more, drawn to 0 if few",
    "never_learnt": "never below the mean of all rows' latest losses, in two rounds or more: perhaps mislabelled",
    "learnt_at_once": "from the second time on always in the easiest quarter of all rows: perhaps a duplicate",
    "never_trained": "no round trained it",
}
_ROWS_AT_A_TIME = 1 << 17


def write_rows(
    path: str | os.PathLike[str],
    history: History,
    dynamics: Dynamics | None = None,
    file_rows: np.ndarray | None = None,
) -> None:
    """Write a Parquet file with one line for each row of the training set, in parts.

    Its columns are those of `COLUMNS` that have data, the signals under their names, and `loss_epoch_1`,
    `loss_epoch_2`, ..., the loss that was measured in each epoch. A value that was not measured is null.

    Args:
        path: The file; an earlier one is replaced when the new one is complete.
        history: The History of the run.
        dynamics: What the rounds of the run show; None = nothing.
        file_rows: (N,) int, the number of each row in its file; None = not known.

    Raises:
        ImportError: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetWriter
    except ImportError as error:
        raise ImportError("history.parquet needs pyarrow: pip install pyarrow, or install datasets.") from error
    columns = _columns(history, dynamics, file_rows)
    epochs: list[int] = [] if dynamics is None else dynamics.epochs.tolist()
    tables = None if dynamics is None else dynamics.losses_by_epoch(_ROWS_AT_A_TIME)
    with replacing(path) as file, ExitStack() as stack:
        writer = None
        for begin in range(0, len(history), _ROWS_AT_A_TIME):
            block = {name: values[begin : begin + _ROWS_AT_A_TIME] for name, values in columns.items()}
            if tables is not None:
                losses = next(tables)
                block |= {f"loss_epoch_{epoch + 1}": losses[:, i] for i, epoch in enumerate(epochs)}
            table = pyarrow.table({name: _nullable(pyarrow, name, values) for name, values in block.items()})
            writer = writer or stack.enter_context(ParquetWriter(file, table.schema, compression="zstd"))
            writer.write_table(table)


def read_rows(path: str | os.PathLike[str], history: History, names: Collection[str]) -> dict[str, Any]:
    """Read columns of a table that `write_rows` wrote.

    Args:
        path: The file.
        history: The History that the table must be of, N rows.
        names: Names of columns beside `loss`; those that the table lacks are left out.

    Returns:
        (N,) values by name; None = not measured.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or of another run, or of an earlier state of this run.
        ImportError: pyarrow is not installed.
    """
    from pyarrow import ArrowException, parquet

    try:
        held = parquet.read_schema(path).names
        table = parquet.read_table(path, columns=[name for name in held if name in names or name == "loss"])
    except FileNotFoundError:
        raise
    except (ArrowException, OSError) as error:
        raise ValueError(f"it is damaged ({error})") from error
    losses = table["loss"].to_numpy() if "loss" in held else np.zeros(0)
    if not np.array_equal(np.asarray(losses, np.float32), history.loss, equal_nan=True):
        raise ValueError("it is of another run, or of an earlier state of this one")
    return {name: table[name].to_pylist() for name in table.column_names}


def read_file_rows(path: str | os.PathLike[str]) -> np.ndarray | None:
    """Return the numbers that the rows of a table have in their file, (N,) int; None = the table does not say."""
    from pyarrow import parquet

    if FILE_ROW not in parquet.read_schema(path).names:
        return None
    return parquet.read_table(path, columns=[FILE_ROW])[FILE_ROW].to_numpy()


def _columns(history: History, dynamics: Dynamics | None, file_rows: np.ndarray | None) -> dict[str, np.ndarray]:
    columns = {"row": np.arange(len(history))}
    if file_rows is not None:
        columns[FILE_ROW] = file_rows
    if history.keys is not None:
        columns["key"] = history.keys
    columns |= {"loss": history.loss, "seen": history.last_round}
    if history.tokens.any():
        columns["tokens"] = history.tokens
    if (groups := history.notes.get(DUPLICATES)) is not None:
        columns[DUPLICATES] = groups
    columns |= {"faults": history.faults} | {name: it for name, it in history.signals.items() if name not in COLUMNS}
    if dynamics is not None:
        columns |= {
            "times_trained": dynamics.times_trained,
            "times_measured": dynamics.times_measured,
            "mean_loss": dynamics.mean,
            "variability": dynamics.variability,
            "excess_loss": dynamics.excess,
            "never_learnt": dynamics.never_learnt,
            "learnt_at_once": dynamics.learnt_at_once,
            "never_trained": dynamics.times_trained == 0,
        }
    return columns


def _nullable(pyarrow: Any, name: str, values: np.ndarray) -> "pyarrow.Array":
    if values.dtype.kind == "f":
        return pyarrow.array(values, from_pandas=True)  # NaN becomes null
    return pyarrow.array(values, mask=values == NEVER if name == "seen" else None)
