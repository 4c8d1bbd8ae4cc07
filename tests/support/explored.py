"""A folder of a run with many rows, written by hand, for its page."""

import dataclasses
import json
from pathlib import Path

import numpy as np
from reports import EPOCHS, LOG, REPORT
from traces import write

from hf_prune import History
from hf_prune.data.examples import read_shown
from hf_prune.records.history_file import HISTORY
from hf_prune.records.table import write_rows
from hf_prune.records.trace import FOLDER
from hf_prune.report.account import NUMBERS
from hf_prune.report.page import EXAMPLES, RunReport

CLASSES = ["billing", "lost card", "card_arrival_estimate_for_customers_living_abroad_and_elsewhere", "=exchange"]
EVIL = '<img src=x onerror="document.title=1"> & "quoted", '
ABOUT = {"run": "seed-1", "model": "bert-base-uncased (BertForSequenceClassification)", "data": "banking77"}


_PLACED = {"prune/seconds": 1.0, "prune/seconds_training": 2.0, "epoch": 1}


def texts(rows):
    """Texts that are as hard to compress as English ones, or harder."""
    rng = np.random.default_rng(3)
    words = ["".join(rng.choice([*"eeettaoinshrdlu"], size)) for size in rng.integers(2, 10, 3000)]
    lines = np.array(words)[rng.integers(0, len(words), (rows, 14))]
    return [f"{EVIL if row == 7 else ''}{' '.join(line)} {row}" for row, line in enumerate(lines)]


def run_folder(folder, rows=450, epochs=6, file_rows=True):
    """Write a run whose last tenth of the rows is never learnt; return its report.

    Args:
        folder: The folder.
        rows: Number of rows.
        epochs: Number of rounds.
        file_rows: Whether the rows have numbers of their own: 1,000 more.
    """
    folder, rng = Path(folder), np.random.default_rng(0)
    history, hard = History.empty(rows), np.arange(rows) >= rows - rows // 10
    for round in range(epochs):
        chosen = np.flatnonzero(rng.random(rows) < (0.7 if round else 1))
        losses = np.where(hard, 3 + rng.random(rows), rng.exponential(size=rows) * 0.7**round)
        write(folder, round, (chosen, losses[chosen]), rows=rows)
        history.loss[chosen], history.last_round[chosen] = losses[chosen], round
    accounts = [EPOCHS[round > 0] | {"epoch": round} for round in range(epochs)]
    log = [entry | ({"prune/rows": 99} if "eval_loss" in entry else {}) | _PLACED for entry in LOG]
    fields = {field.name: getattr(REPORT, field.name) for field in dataclasses.fields(REPORT)}
    fields |= {"epochs": accounts, "rows": rows, "log_history": log, "about": ABOUT}
    report = RunReport(**fields, run=folder, history=history, source=folder)
    history.save(folder / HISTORY)
    report.save(folder / NUMBERS)
    numbers = np.arange(rows) + 1000 if file_rows else None
    given = rng.integers(0, len(CLASSES), rows)
    predicted = np.where(hard, (given + 1) % len(CLASSES), given)
    groups = np.arange(rows)
    groups[5] = 2
    more = {
        "label": np.array([CLASSES[code] for code in given], object),
        "predicted": np.array([CLASSES[code] for code in predicted], object),
        "text": np.array(texts(rows), object),
        "wrong_probability": np.where(hard, 0.9, 0.01),
        "duplicate_group": groups,
    }
    write_rows(folder / "history.parquet", history, report.dynamics, numbers, more)
    shown = {
        str(row): {
            "texts": {"text": texts(rows)[row]},
            "picture": PICTURE,
            "label": CLASSES[given[row]],
        }
        for row in report.dynamics.hardest(5).tolist()
    }
    (folder / FOLDER / EXAMPLES).write_text(json.dumps(shown))
    assert read_shown(folder / FOLDER / EXAMPLES)[1] == []
    return report


PICTURE = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAFklEQVR4nGP8z8DAwMDAxMDAwMDAAAANHQEDasKb6QAAAABJRU5ErkJggg=="
)
