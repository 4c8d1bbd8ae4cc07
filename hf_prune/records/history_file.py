"""A History in a file of its own, which is read whole or refused."""

import os
from typing import TypeVar

import numpy as np

from ..common import storage
from ..core import History

HISTORY = "history.safetensors"  # beside a saved model, and in a data set of its own on the Hub
Read = TypeVar("Read", bound=History)


def write_history(path: str | os.PathLike[str], history: History) -> None:
    """Write one checksummed safetensors file, aside first, so that no reader meets half a file.

    Args:
        path: The file; an earlier one is replaced.
        history: Its arrays, its keys and its facts are written.

    Raises:
        OSError: The disk is full or the folder can't be written; an earlier file stays as it was.
    """
    more = {} if history.keys is None else {"keys": history.keys}
    for name, values in history.signals.items():
        more[f"signals/{name}"] = np.where(np.isinf(values), np.float32(np.nan), values)  # as never measured
    storage.save(path, history.arrays() | more, {"kind": "history", **history.facts})


def read_history(kind: type[Read], path: str | os.PathLike[str], rows: int | None = None) -> Read:
    """Read what `write_history` wrote.

    Args:
        kind: The class to make of it.
        path: The file.
        rows: Number of rows of the training set at hand; another number in the file is refused.

    Raises:
        ValueError: Another number of rows, a damaged file, or one of something else.
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
