"""Kinds of data sets, known by their methods and columns; and a sample of rows."""

from collections.abc import Mapping
from typing import Any

import numpy as np

SAMPLES = 64  # rows whose content makes the fingerprint, and whose pixels set the scale


def is_arrow(dataset: Any) -> bool:
    """Whether this is a `datasets.Dataset`, known by its methods, so that the library need not be installed."""
    return hasattr(dataset, "column_names") and hasattr(dataset, "with_format")


def has_own_loss(columns: list[str]) -> bool:
    """Whether rows with these columns are trained by a loss that compares texts (ORPO, KTO, ...), and no model's."""
    if {"completion_ids", "label"} <= set(columns):
        return True
    has_pairs = all(any(name.startswith(kind) for name in columns) for kind in ("chosen", "rejected"))
    return has_pairs and not {"label", "labels"} & set(columns)


def spread(n: int) -> list[int]:
    """A sample of the rows of n, evenly spread."""
    return np.unique(np.linspace(0, n - 1, SAMPLES).astype(np.int64)).tolist()


def names_of(example: Any) -> str:
    """The names of a row's columns, for a message."""
    if isinstance(example, Mapping):
        return ", ".join(map(str, example))
    return f"no names (a row is a {type(example).__name__}, not a dict)"
