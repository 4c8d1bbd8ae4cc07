"""The table of rows, one line for each row of the training set, and its Parquet file `history.parquet`."""

import os
from collections.abc import Iterator, Mapping
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
    "path": "the file of its picture",
    "text": "its texts, shortened",
    "length": "characters of its texts in full; 0 if it was read as tokens alone",
    "label": "its label by name; in regression, the number",
    "predicted": "what the model predicted, in training, when it last measured the row; where labels were found wrong, "
    "in the first epoch that tells them (later, it may know them by heart); in regression, the number",
    "worst_token": "place of the target token of largest loss among its target tokens, from 0, when last measured",
    "wrong_probability": "probability, by mean losses, that its label or pair is wrong; null = not known",
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
    "times_pruned": "rounds that did not train it",
    "never_trained": "no round trained it",
    "loss_by_epoch": "its loss in each epoch; null = not measured in it",
}
EPOCH = "loss_epoch_"  # with the number of the epoch, from 1, the columns of the file
_ROWS_AT_A_TIME = 1 << 17
_NEEDED = "history.parquet needs pyarrow: pip install pyarrow, or install datasets."


def write_rows(
    path: str | os.PathLike[str],
    history: History,
    dynamics: Dynamics | None = None,
    file_rows: np.ndarray | None = None,
    more: Mapping[str, np.ndarray] | None = None,
    about: Mapping[str, str] | None = None,
) -> None:
    """Write a Parquet file with one line for each row of the training set, in parts.

    Its columns are those of `COLUMNS` that have data, the signals under their names, and `loss_epoch_1`,
    `loss_epoch_2`, ..., the loss that was measured in each epoch. A value that was not measured is null. The metadata
    of each column describe it.

    Args:
        path: The file; an earlier one is replaced when the new one is complete.
        history: The History of the run.
        dynamics: What the rounds of the run show; None = nothing.
        file_rows: (N,) int, the number of each row in its file; None = not known.
        more: Further columns by name, (N,) numbers, or texts as objects; None = none.
        about: What the metadata of the table say; None = nothing.

    Raises:
        ImportError: pyarrow is not installed.
    """
    try:
        from pyarrow.parquet import ParquetWriter
    except ImportError as error:
        raise ImportError(_NEEDED) from error
    with replacing(path) as file, ExitStack() as stack:
        writer = None
        for table in row_tables(history, dynamics, file_rows, more):
            schema = table.schema.with_metadata(dict(about or {}))
            writer = writer or stack.enter_context(ParquetWriter(file, schema, compression="zstd"))
            writer.write_table(table.cast(schema))


def row_tables(
    history: History,
    dynamics: Dynamics | None = None,
    file_rows: np.ndarray | None = None,
    more: Mapping[str, np.ndarray] | None = None,
) -> "Iterator[pyarrow.Table]":
    """The rows as tables, some rows at a time; arguments as in `write_rows`.

    Args:
        history: As there.
        dynamics: As there.
        file_rows: As there.
        more: As there.

    Raises:
        ImportError: pyarrow is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError(_NEEDED) from error
    columns = _columns(history, dynamics, file_rows) | dict(more or {})
    epochs: list[int] = [] if dynamics is None else dynamics.epochs.tolist()
    tables = None if dynamics is None else dynamics.losses_by_epoch(_ROWS_AT_A_TIME)
    for begin in range(0, len(history), _ROWS_AT_A_TIME):
        block = {name: values[begin : begin + _ROWS_AT_A_TIME] for name, values in columns.items()}
        if tables is not None:
            losses = next(tables)
            block |= {f"{EPOCH}{epoch + 1}": losses[:, i] for i, epoch in enumerate(epochs)}
        arrays = {name: _nullable(pyarrow, name, values) for name, values in block.items()}
        yield described(pyarrow.table(arrays))


def described(table: "pyarrow.Table") -> "pyarrow.Table":
    """The table, with a description of each column in that field's metadata, under `description`."""
    import pyarrow

    fields = [
        table.schema.field(name).with_metadata({"description": _description(name)}) for name in table.schema.names
    ]
    return table.cast(pyarrow.schema(fields, table.schema.metadata))


def _description(name: str) -> str:
    if name.startswith(EPOCH):
        return f"its loss in epoch {name.removeprefix(EPOCH)}, from 1, in the unit of loss; null = not measured in it"
    return COLUMNS.get(name, "a signal that the policy asked for, when last measured")


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
            "times_pruned": len(dynamics.rounds) - dynamics.times_trained,
            "never_trained": dynamics.times_trained == 0,
        }
        if "worst_token" in dynamics.extras:
            columns["worst_token"] = dynamics.extras["worst_token"]
    return columns


def _nullable(pyarrow: Any, name: str, values: np.ndarray) -> "pyarrow.Array":
    if values.dtype.kind == "O":
        return pyarrow.array(values, pyarrow.string(), from_pandas=True)
    if name == "worst_token":
        return pyarrow.array(values, pyarrow.int32(), from_pandas=True)
    if values.dtype.kind == "f":
        return pyarrow.array(values, from_pandas=True)  # NaN becomes null
    return pyarrow.array(values, mask=values == NEVER if name == "seen" else None)
