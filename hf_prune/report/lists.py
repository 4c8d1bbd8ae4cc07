"""The lists of a page that need no script: the rows to look at, as cards with their examples."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..core import History
from ..records.dynamics import Dynamics
from .figures import MANY
from .judgement import Judgement

_SUSPECTS = 100  # rows in the lists of suspects together: pictures make a page large
_SHOWN = 16  # rows in each other list
LIKELY = "Likely mislabelled"
UNLEARNT = ("Rows never learnt", "Rows not learnt yet")
_ONCE = "No row was measured twice, so none can be told from one that is not learnt yet."


def shown_rows(history: History, dynamics: Dynamics | None, likely: np.ndarray) -> dict[str, np.ndarray]:
    """The rows of each list, by its key.

    Args:
        history: The History of the run.
        dynamics: What the rounds show of the rows; None = nothing.
        likely: (K,) int64, the rows that are likely mislabelled, those to look at first first.

    Returns:
        `mislabelled`; `never_learnt`, without these, and `learnt_at_once`, if rounds are known; `faulty`.
    """
    found = {"mislabelled": likely[:_SUSPECTS]}
    if dynamics is not None:
        others = max(_SUSPECTS - len(likely), _SHOWN)
        hardest = dynamics.hardest(others + len(likely))
        hardest = hardest[~np.isin(hardest, likely)][:others]
        found |= {"never_learnt": hardest, "learnt_at_once": dynamics.easiest(_SHOWN)}
    return found | {"faulty": np.flatnonzero(history.faults)[:_SHOWN]}


def lists_of(
    history: History,
    dynamics: Dynamics | None,
    judgement: Judgement,
    likely: np.ndarray,
    examples: Mapping[str, Mapping[str, Any]],
    ids: np.ndarray,
) -> list[dict[str, Any]]:
    """What the template shows of each list: `key`, `title`, `text` and `rows`.

    Args:
        history: The History of the run, N rows.
        dynamics: What the rounds show of the rows; None = nothing.
        judgement: Whether the losses tell wrong labels.
        likely: As in `shown_rows`.
        examples: What `read_shown` knows of the rows, by number.
        ids: (N,) int, the number of each row that people look up.
    """
    shown, lists = shown_rows(history, dynamics, likely), []
    if len(likely):
        text = (
            f"{judgement.line[0].upper()}{judgement.line[1:]} These are the rows whose label the model does not "
            "predict; the largest excess loss comes first."
        )
        lists.append(("mislabelled", LIKELY, text, "mislabelled"))
    if dynamics is not None:
        is_told = judgement.is_meaningful  # before a model has learnt, half of the rows or so are above the mean
        what = "likely mislabelled, unreadable or rare." if is_told else judgement.line
        text = (
            f"{np.count_nonzero(dynamics.never_learnt):,} rows were never below {dynamics.level:.3g}, the mean of "
            f"all rows' latest losses, in two rounds or more: {what} They are in "
            "order of their excess: by how much their losses exceeded the mean of all rows' latest losses, "
            "on average over the rounds, of which round r weighs r; one more round of excess 0, which weighs as "
            "the last, draws rows that were rarely measured towards 0."
            if dynamics.is_repeated
            else f"{_ONCE} These have the largest loss beside the mean of their round."
        )
        lists.append(("never_learnt" if dynamics.is_repeated else "all", UNLEARNT[not is_told], text, "never_learnt"))
        text = (
            f"{np.count_nonzero(dynamics.learnt_at_once):,} rows were in the easiest quarter of all rows by their "
            "latest losses whenever they were measured again after the first time: likely duplicates, or too easy "
            "to teach anything. Those of the lowest mean loss come first."
            if dynamics.is_repeated
            else f"{_ONCE} These have the lowest loss."
        )
        lists.append(("learnt_at_once", "Rows learnt at once", text, "learnt_at_once"))
    if len(shown["faulty"]):
        faults = np.count_nonzero(history.faults)
        text = f"{faults:,} rows had a loss that was NaN or infinite; no choice went by it."
        lists.append(("faulty", "Rows with faults", text, "faulty"))
    return [
        {"key": key, "title": title, "text": text, "rows": _cards(history, dynamics, shown[name], examples, ids)}
        for key, title, text, name in lists
    ]


def in_short(texts: list[str]) -> str:
    """Values in words for a screen reader: all of them, or every nth if there are many."""
    step = -(-len(texts) // MANY) or 1
    return ("" if step == 1 else f"of {len(texts)}, every {step}th: ") + ", ".join(texts[::step])


def _cards(
    history: History,
    dynamics: Dynamics | None,
    rows: np.ndarray,
    examples: Mapping[str, Mapping[str, Any]],
    ids: np.ndarray,
) -> list[dict[str, Any]]:
    """What the template shows for each row: its example, its losses as a line in a box of 100 x 30, and a note."""
    losses = dynamics.losses_of(rows) if dynamics else np.empty((len(rows), 0))
    lowest, highest = float(np.nanmin(losses, initial=0)), float(np.nanmax(losses, initial=1e-9))
    shown = []
    for row, values in zip(rows.tolist(), losses, strict=True):
        entry: dict[str, Any] = {"texts": {}, "picture": None, "label": None} | dict(examples.get(str(row), {}))
        entry |= {"row": row, "id": int(ids[row])}
        epochs = np.flatnonzero(~np.isnan(values))
        x = 100 * epochs / max(len(values) - 1, 1)
        y = 30 - 30 * (values[epochs] - lowest) / (highest - lowest)
        entry["dots"] = [(f"{a:.1f}", f"{b:.1f}") for a, b in zip(x, y, strict=True)] if len(epochs) > 1 else []
        texts = [f"{dynamics.epochs[epoch] + 1}: {values[epoch]:.3g}" for epoch in epochs] if dynamics else []
        entry["losses"] = f"Losses by epoch: {in_short(texts)}"
        entry["note"] = _note(history, dynamics, row, values[epochs])
        shown.append(entry)
    return shown


def _note(history: History, dynamics: Dynamics | None, row: int, losses: np.ndarray) -> str:
    words = []
    if dynamics is not None:
        times = int(dynamics.times_trained[row])
        words.append(f"trained {times} time{'' if times == 1 else 's'}")
    if len(losses):
        words.insert(0, f"loss {losses[0]:.3g}" + (f" to {losses[-1]:.3g}" if len(losses) > 1 else ""))
    if faults := int(history.faults[row]):
        words.append(f"no finite loss in {faults} round{'' if faults == 1 else 's'}")
    return ", ".join(words)
