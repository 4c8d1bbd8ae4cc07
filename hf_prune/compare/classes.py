"""How an arm does by class: accuracy hides the rare ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .measured import Measured

_LABELS = ("accuracy", "f1", "matthews")  # metrics whose answers are classes
SCORES = ("macro_f1", "mean_recall", "worst_recall")


def class_scores(predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
    """Scores of one run that count each class alike.

    Args:
        predictions: (R,) classes that the run gives.
        references: (R,) right classes.

    Returns:
        `macro_f1` (mean of the F1 of all classes that occur on either side), `mean_recall` (of the classes in
        `references`; also called balanced accuracy) and `worst_recall` (that of the class with the smallest).
    """
    names, found = np.unique([*map(str, predictions), *map(str, references)], return_inverse=True)
    given, true = np.split(found, 2)
    right, predicted, counts = (np.bincount(rows, minlength=len(names)) for rows in (given[given == true], given, true))
    recall = right[counts > 0] / counts[counts > 0]
    values = np.mean(2 * right / (predicted + counts)), np.mean(recall), np.min(recall)
    return dict(zip(SCORES, map(float, values), strict=True))


def by_class(measured: Measured, arm: str) -> dict[str, float] | None:
    """Means over seeds of `class_scores`; None where the answers are not classes, or the rows have only one.

    Args:
        measured: The runs.
        arm: Name of the arm.
    """
    answers = [measured.runs[arm, seed].answers for seed in measured.seeds(arm)]
    if measured.metric not in _LABELS or len(set(answers[0]["references"])) < 2:
        return None
    found = [class_scores(one["predictions"], one["references"]) for one in answers]
    return {name: float(np.mean([one[name] for one in found])) for name in SCORES}
