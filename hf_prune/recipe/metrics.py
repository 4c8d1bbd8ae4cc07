"""Scores of classes or numbers, computed by scikit-learn and SciPy; nothing is downloaded."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import datasets
import evaluate
import numpy as np
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, top_k_accuracy_score

from ..compare.intervals import score_interval


def correlation(measure: Callable, references: np.ndarray, predictions: np.ndarray) -> float:
    """Pearson's or Spearman's correlation; 0 if either side is constant and has no correlation."""
    return measure(references, predictions).statistic if np.ptp(references) and np.ptp(predictions) else 0.0


def metrics_for(classes: list[str] | None) -> dict[str, Callable]:
    """Functions by name: (references (N,), predictions (N,)) -> score, higher is better; the first is the main score.

    Args:
        classes: Names of the classes; None for numbers.
    """
    if classes is None:
        return {"pearson": partial(correlation, stats.pearsonr), "spearman": partial(correlation, stats.spearmanr)}
    none: Any = 0  # for a class that is never predicted; scikit-learn's type hints allow only texts
    f1 = partial(f1_score, average="binary" if len(classes) == 2 else "macro", zero_division=none)
    return {"accuracy": accuracy_score, "f1": f1, "matthews": matthews_corrcoef}


class LabelScorer:
    """The scores of a model's outputs, for classes or for numbers.

    Args:
        classes: Names of the classes; None for numbers.
        metric: The main score; None = the first.

    Raises:
        ValueError: `metric` is not one of the scores.
    """

    def __init__(self, classes: list[str] | None, metric: str | None):
        self.classes, self.metrics = classes, metrics_for(classes)
        self.metric = metric or next(iter(self.metrics))
        if self.metric not in self.metrics:
            kind = "numbers" if classes is None else "classes"
            raise ValueError(f"metric={metric!r} is not known for {kind}; give one of {', '.join(self.metrics)}.")

    def predict(self, logits: np.ndarray) -> np.ndarray:
        """(N,) numbers, or indices of classes, from a model's outputs (N, C)."""
        return logits[:, 0] if self.classes is None else logits.argmax(1)

    def answers(self, logits: np.ndarray) -> list[Any]:
        """N numbers, or names of classes, from a model's outputs (N, C)."""
        found = self.predict(logits).tolist()
        return found if self.classes is None else [self.classes[label] for label in found]

    def __call__(self, outputs: Any) -> dict[str, float]:
        """The scores of a validation, for the Trainer's `compute_metrics`."""
        if not np.isfinite(outputs.predictions).all():
            return dict.fromkeys(self.metrics, math.nan)  # it has diverged: argmax would give the first class
        predictions = self.predict(outputs.predictions)
        return {name: float(score(outputs.label_ids, predictions)) for name, score in self.metrics.items()}

    def interval(self, references: np.ndarray, predictions: np.ndarray, seed: int) -> tuple[float, float]:
        """The range that holds the main score in 95 % of 1,000 resamples of the rows.

        Args:
            references: (N,) labels.
            predictions: (N,) from `predict`.
            seed: Chooses the resamples.
        """
        return score_interval(self.metrics[self.metric], references, predictions, seed=seed)


class Accuracy(evaluate.Metric):
    """Accuracy, and top-5 accuracy if there are more than five classes, from scikit-learn; nothing is downloaded."""

    def _info(self):
        features = {"predictions": datasets.List(datasets.Value("float32")), "references": datasets.Value("int64")}
        return evaluate.MetricInfo(
            description="Share of rows whose class has the highest score, or one of the five highest.",
            citation="Pedregosa et al. (2011), Scikit-learn: Machine Learning in Python, JMLR 12.",
            inputs_description="predictions: scores of all classes for each row. references: numbers of the classes.",
            features=datasets.Features(features),
        )

    def _compute(self, predictions, references):
        scores = np.asarray(predictions)
        classes = np.arange(scores.shape[1])
        names = ("accuracy", "accuracy_top5") if len(classes) > 5 else ("accuracy",)
        if not np.isfinite(scores).all():
            return dict.fromkeys(names, math.nan)  # the model has diverged: argmax would give the first class
        found = [accuracy_score(references, scores.argmax(1))]
        if len(classes) > 5:
            found.append(top_k_accuracy_score(references, scores, k=5, labels=classes))
        return {name: float(value) for name, value in zip(names, found, strict=True)}
