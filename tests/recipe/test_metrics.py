"""Scores of labels."""

import numpy as np
import pytest

from hf_prune.recipe.metrics import Accuracy, metrics_for


def test_metrics_of_two_classes():
    references, predictions = np.array([1, 1, 1, 0, 0, 0, 0, 0]), np.array([1, 1, 0, 1, 0, 0, 0, 0])
    metrics = metrics_for(["no", "yes"])
    found = {name: metric(references, predictions) for name, metric in metrics.items()}
    # 2 of 3 found, 2 of 3 named rightly; (2 * 4 - 1 * 1) / sqrt(3 * 3 * 5 * 5)
    assert found == pytest.approx({"accuracy": 6 / 8, "f1": 2 / 3, "matthews": 7 / 15})
    assert metrics["f1"](references, np.zeros(8, int)) == metrics["matthews"](references, np.zeros(8, int)) == 0


def test_f1_of_more_classes_is_their_mean():
    references, predictions = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 2, 1, 1])
    f1 = metrics_for(["a", "b", "c"])["f1"]
    assert f1(references, predictions) == pytest.approx((1 + 2 / 5 + 0) / 3)


def test_metrics_of_numbers():
    metrics = metrics_for(None)
    references, predictions = np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0])
    assert metrics["spearman"](references, predictions) == pytest.approx(1)
    assert metrics["pearson"](references, predictions) == pytest.approx(np.corrcoef(references, predictions)[0, 1])
    assert [metric(references, np.ones(3)) for metric in metrics.values()] == [0, 0]


def test_accuracy_and_that_of_the_best_five():
    metric = Accuracy(keep_in_memory=True)
    scores = np.tile(np.arange(7.0), (4, 1))  # class 6 first, then 5, ...
    assert metric.compute(predictions=scores, references=[6, 6, 2, 1]) == {"accuracy": 0.5, "accuracy_top5": 0.75}
    assert metric.compute(predictions=scores[:, :2], references=[1, 1, 1, 0]) == {"accuracy": 0.75}
    diverged = metric.compute(predictions=scores * np.nan, references=[6, 6, 2, 1])
    assert np.isnan([diverged["accuracy"], diverged["accuracy_top5"]]).all()
