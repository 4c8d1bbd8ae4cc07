"""The rows as the page's table takes them: the columns that are known, in the order in which to look, packed small."""

import base64
import gzip
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..core import History
from ..core.features import FILE_ROW
from ..records.dynamics import Dynamics
from ..records.table import COLUMNS, DUPLICATES
from .judgement import Judgement
from .lists import LIKELY, UNLEARNT
from .rows import likely_wrong

MOST_ROWS = 50_000  # on a page
_MOST_LETTERS = 1_200_000  # of all short texts: with the losses, what a page of 3 MB has room for
_TEXT = (24, 240)  # the shortest and the longest short text
_MOST_LOSSES = 400_000
_KINDS = {  # column -> its heading and its kind
    "label": ("given", "label"),
    "predicted": ("predicted", "label"),
    "text": ("text", "text"),
    "path": ("file", "text"),
    "wrong_probability": ("P(wrong)", "number"),
    "excess_loss": ("excess", "number"),
    "mean_loss": ("mean loss", "number"),
    "loss": ("last loss", "number"),
    "variability": ("spread", "number"),
    "times_trained": ("trained", "number"),
    "times_pruned": ("pruned", "number"),
    "length": ("length", "number"),
    "tokens": ("tokens", "number"),
    DUPLICATES: ("like row", "number"),
    "faults": ("faults", "number"),
}
_LISTS = {
    "mislabelled": LIKELY,
    "never_learnt": UNLEARNT[0],
    "mismatch": "Given and predicted differ",
    "learnt_at_once": "Rows learnt at once",
    "duplicates": "Near-duplicates",
    "faulty": "Rows with faults",
    "never_trained": "Rows never trained",
}

_ABOUT = {  # of lists that the page does not have as cards
    "mismatch": "What the model predicted when it last measured the row, in training, is not its label.",
    "duplicates": "Their text or picture is nearly that of an earlier row: 'like row', the first of the group.",
    "never_trained": "The policy left these rows out in every round.",
    "all": "Likely wrong rows first, then those never learnt, then all others; the largest excess loss first.",
}


def ids_of(rows: int, table: Any) -> tuple[str, np.ndarray]:
    """The name of the number that people look up, and (N,) these numbers: of the file, if the table knows them.

    Args:
        rows: N.
        table: The table of rows, a `pyarrow.Table`; None = there is none.
    """
    if table is None or FILE_ROW not in table.column_names:
        return "row", np.arange(rows)
    return FILE_ROW, table[FILE_ROW].to_numpy()


def packed(
    history: History,
    dynamics: Dynamics | None,
    judgement: Judgement,
    table: Any,
    examples: Mapping[str, Mapping[str, Any]],
) -> str:
    """The rows as compressed JSON in base64, for rows.js.

    Args:
        history: The History of the run, N rows.
        dynamics: What the rounds show of the rows; None = nothing.
        judgement: Whether the losses tell wrong labels.
        table: The table of rows, a `pyarrow.Table`; None = there is none.
        examples: What is known of rows in words and pictures, by number, see `read_shown`.
    """
    is_likely = np.zeros(len(history), bool) if table is None else likely_wrong(table)
    rows = _order(history, dynamics, is_likely)[:MOST_ROWS]
    name, ids = ids_of(len(history), table)
    known = _known(history, dynamics, rows)
    if table is not None:
        shown = table.select([key for key in _KINDS if key in table.column_names]).take(rows)
        known |= {key: shown[key].to_pylist() for key in shown.column_names}
    for key, found in _told(examples, rows).items():
        known.setdefault(key, found)
    if (groups := known.get(DUPLICATES)) is not None:
        known[DUPLICATES] = _groups(groups, rows, ids)
    flags = _flags(history, dynamics, rows) | {"mislabelled": is_likely[rows].astype(int).tolist()}
    columns, values, names = _columns(known, len(rows))
    counts = {key: sum(flag) for key, flag in flags.items()} | _pairs(values, names)
    titles = _LISTS | {"never_learnt": UNLEARNT[not judgement.is_meaningful]}
    lists = [
        {"key": key, "title": title, "count": counts[key], "about": _ABOUT.get(key, "")}
        for key, title in titles.items()
        if counts.get(key)
    ]
    losses, epochs = _losses(dynamics, rows)
    data = {
        "name": name,
        "help": COLUMNS[name],
        "total": len(history),
        "rows": rows.tolist(),
        "ids": None if name == "row" else ids[rows].tolist(),
        "columns": columns,
        "values": values | flags,
        "names": names,
        "losses": losses,
        "epochs": epochs,
        "lists": [*lists, {"key": "all", "title": "All rows", "count": len(rows), "about": _ABOUT["all"]}],
    }
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), mtime=0)).decode()


def _columns(known: dict[str, list[Any]], rows: int) -> tuple[list[dict[str, str]], dict[str, list[Any]], list[str]]:
    """The columns that say something: what they are, their values, and the names of the classes that values count."""
    longest = min(max(_MOST_LETTERS // max(rows, 1), _TEXT[0]), _TEXT[1])
    names: dict[str, int] = {}
    values, columns = {}, []
    for key, (title, kind) in _KINDS.items():
        column = known.get(key)
        if column is None or all(value is None for value in column) or (key == "faults" and not any(column)):
            continue
        if key == "tokens" and ("length" in values or not any(column)):
            continue
        if kind == "label" and any(isinstance(value, float) for value in column):
            kind = "number"  # of a regression
        if kind == "label":
            column = [None if value is None else names.setdefault(str(value), len(names)) for value in column]
        elif kind == "text":
            most = _TEXT[1] if key == "path" else longest  # half a path can't be looked up
            column = [None if value is None else _short(str(value), most) for value in column]
        else:
            column = [_rounded(value, 3) for value in column]
        values[key] = column
        columns.append({"key": key, "title": title, "kind": kind, "help": COLUMNS.get(key, title)})
    return columns, values, list(names)


def _order(history: History, dynamics: Dynamics | None, is_likely: np.ndarray) -> np.ndarray:
    """(N,) rows: likely mislabelled ones, those never learnt, all others, each by excess; without rounds, by loss."""
    if dynamics is None:
        return np.argsort(-np.nan_to_num(history.loss, nan=-np.inf), kind="stable")
    suspects = dynamics.never_learnt if dynamics.is_repeated else np.zeros(len(history), bool)
    return np.lexsort((-np.nan_to_num(dynamics.excess, nan=-np.inf), ~suspects, ~is_likely))


def _known(history: History, dynamics: Dynamics | None, rows: np.ndarray) -> dict[str, list[Any]]:
    found = {"loss": history.loss, "tokens": history.tokens, "faults": history.faults}
    if (groups := history.notes.get(DUPLICATES)) is not None:
        found[DUPLICATES] = groups
    if dynamics is not None:
        found |= {
            "excess_loss": dynamics.excess,
            "mean_loss": dynamics.mean,
            "variability": dynamics.variability,
            "times_trained": dynamics.times_trained,
        }
    return {key: values[rows].tolist() for key, values in found.items()}


def _told(examples: Mapping[str, Mapping[str, Any]], rows: np.ndarray) -> dict[str, list[Any]]:
    """Labels and texts of the rows that have an example, for a run whose table has no such columns."""
    shown = [examples.get(str(row)) for row in rows.tolist()]
    return {
        "label": [one and one["label"] for one in shown],
        "text": [one and (" | ".join(one["texts"].values()) or None) for one in shown],
    }


def _groups(groups: list[Any], rows: np.ndarray, ids: np.ndarray) -> list[int | None]:
    """The number of a near-duplicate group's first row; None for this row itself, and for one that is alone."""
    numbers = [-1 if group is None else int(group) for group in groups]
    counts: dict[int, int] = {}
    for number in numbers:
        counts[number] = counts.get(number, 0) + 1
    return [
        int(ids[number]) if 0 <= number < len(ids) and counts[number] > 1 and number != row else None
        for row, number in zip(rows.tolist(), numbers, strict=True)
    ]


def _flags(history: History, dynamics: Dynamics | None, rows: np.ndarray) -> dict[str, list[int]]:
    flags = {"faulty": history.faults > 0}
    if dynamics is not None:
        flags["never_trained"] = dynamics.times_trained == 0
        if dynamics.is_repeated:
            flags |= {"never_learnt": dynamics.never_learnt, "learnt_at_once": dynamics.learnt_at_once}
    return {key: values[rows].astype(int).tolist() for key, values in flags.items()}


def _pairs(values: Mapping[str, list[Any]], names: list[str]) -> dict[str, int]:
    given, predicted = (values.get(key, []) if names else [] for key in ("label", "predicted"))
    return {
        "mismatch": sum(None not in pair and pair[0] != pair[1] for pair in zip(given, predicted, strict=False)),
        "duplicates": sum(group is not None for group in values.get(DUPLICATES, [])),
    }


def _losses(dynamics: Dynamics | None, rows: np.ndarray) -> tuple[list[list[float | None]], list[int]]:
    """The losses of each epoch, in two digits; of evenly spaced epochs, if all are too many for a page."""
    if dynamics is None:
        return [], []
    count = len(dynamics.epochs)
    most = max(_MOST_LOSSES // max(len(rows), 1), 2)
    chosen = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
    losses = dynamics.losses_of(rows)[:, chosen]
    return [[_rounded(value, 2) for value in epoch] for epoch in losses.T.tolist()], (
        dynamics.epochs[chosen] + 1
    ).tolist()


def _rounded(value: float | None, digits: int) -> float | None:
    if value is None or isinstance(value, int):
        return value
    return float(f"{value:.{digits}g}") if np.isfinite(value) else None


def _short(text: str, longest: int) -> str:
    text = " ".join(text[: 4 * longest].split())
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"
