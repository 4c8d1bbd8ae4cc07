"""A History in a file of its own, which is either read whole or refused."""

import os
from typing import TypeVar

import numpy as np

from ..common import storage
from ..core import History

HISTORY = "history.safetensors"  # beside a saved model, and in a data set of its own on the Hub
STATE = "pruning_state.safetensors"  # in a checkpoint: the History with what a resume needs
TRAINER_STATE = "trainer_state.json"  # Trainer writes it last, so a checkpoint with this file is complete
Read = TypeVar("Read", bound=History)


def write_history(path: str | os.PathLike[str], history: History) -> None:
    """Write one checksummed safetensors file under another name, then rename it: no reader sees half a file.

    Args:
        path: The file; an earlier one is replaced.
        history: The History; its arrays, keys and facts are written.

    Raises:
        OSError: The disk is full or the folder can't be written; an earlier file stays as it was.
    """
    more = {} if history.keys is None else {"keys": history.keys}
    for name, values in history.signals.items():
        more[f"signals/{name}"] = np.where(np.isinf(values), np.float32(np.nan), values)  # counts as never measured
    storage.save(path, history.arrays() | more, {"kind": "history", **history.facts})


def read_history(kind: type[Read], path: str | os.PathLike[str], rows: int | None = None) -> Read:
    """Read a file that `write_history` wrote.

    Args:
        kind: The class of the History to return.
        path: The file.
        rows: Number of rows in the training set; a file with another number is refused.

    Raises:
        ValueError: The file has another number of rows, is damaged, or holds something else.
    """
    arrays, facts = storage.load(path)
    if (found := facts.pop("kind", None)) != "history":
        raise storage.DamagedFile(f"{path} is no History but of the kind {found!r:.60}.")
    try:
        history = kind.from_arrays(arrays, rows)
        history.keys, history.facts = arrays.get("keys"), facts
        if infinite := [name for name, values in history.signals.items() if np.isinf(values).any()]:
            raise ValueError(f"This is no History: signals/{infinite[0]} is infinite; what was not measured is NaN.")
        return history.check()
    except ValueError as error:
        raise storage.DamagedFile(f"{path}: {error}") from error
