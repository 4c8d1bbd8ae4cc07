"""Rows without labels: a test split whose answers nobody publishes, or new rows for a saved model."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from datasets import Dataset

from .outcome import Outcome

UNLABELLED = "unlabelled"  # name of the split


def is_unlabelled(rows: Dataset, column: str) -> bool:
    """Whether no row has a label: the column is missing, or all are missing or -1 (as in GLUE)."""
    return column not in rows.column_names or set(rows[column][:]) <= {-1, None}


def set_apart(splits: dict[str, Dataset], split: str, columns: Mapping[str, str], name: str) -> None:
    """Make a split that of the rows without labels. Every row stays: answers are matched to rows by their place.

    Args:
        splits: All splits; changed.
        split: The split, which goes.
        columns: The columns to keep, and their names after reading.
        name: The name of the rows in messages.
    """
    rows = splits.pop(split).select_columns([*columns]).rename_columns(dict(columns))
    splits[UNLABELLED] = rows
    if "train" in splits and split == "test":
        warnings.warn(f"{name} has no labels; the score is that of the validation rows.", stacklevel=3)


def score(
    trainer: Any,
    rows: Mapping[str, Dataset],
    test: Callable[[], Outcome],
    answers: Callable[[Any], Sequence[Any]],
    **settings: Any,
) -> Outcome:
    """Score the rows with labels, and predict those without.

    Args:
        trainer: The trainer; every process must call this function.
        rows: The splits as the model reads them.
        test: Scores the rows with labels.
        answers: The outputs of `trainer.predict` -> what the model answers, one for each row.
        **settings: Further arguments of `trainer.predict`.

    Returns:
        The outcome of `test`, with the answers in `predictions` under `unlabelled`; or, if no row has a label, the
        answers alone.
    """
    if UNLABELLED not in rows:
        return test()
    trainer.args.train_sampling_strategy = "sequential"  # otherwise these rows are grouped by length, too
    metric, trainer.compute_metrics = trainer.compute_metrics, None
    found = list(answers(trainer.predict(rows[UNLABELLED], **settings).predictions))
    trainer.compute_metrics = metric
    line = f"{len(found):,} rows have no labels: what the model answers for them is in predictions.json"
    if trainer.args.do_predict and not trainer.args.do_train:  # a saved model alone reads no other rows
        return Outcome(None, {}, "test", {"predictions": found}, [line])
    outcome = test()
    outcome.predictions[UNLABELLED] = found
    outcome.lines = [*outcome.lines, line]
    return outcome
