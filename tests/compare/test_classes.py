"""Scores that count each class alike."""

import pytest
from compared import ARMS, results_of, save

from hf_prune.compare.classes import class_scores
from hf_prune.compare.page import CLASSES_NOTE, classes_table, markdown, page
from hf_prune.compare.plan import Plan
from hf_prune.compare.verdict import Comparison

# three of a, two of b, one of c; b is right once and taken for a once; c is taken for a; d is not in the rows
TRUE = ["a", "a", "a", "b", "b", "c"]
GIVEN = ["a", "a", "d", "b", "a", "a"]


def test_scores_by_hand():
    found = class_scores(GIVEN, TRUE)
    # F1: a 2*2 / (4 + 3), b 2*1 / (1 + 2), c 0 / (0 + 1), d 0 / (1 + 0); recall: a 2/3, b 1/2, c 0
    assert found["macro_f1"] == pytest.approx((4 / 7 + 2 / 3) / 4)
    assert found["mean_recall"] == pytest.approx((2 / 3 + 1 / 2) / 3)
    assert found["worst_recall"] == 0


def test_the_order_of_rows_and_the_names_of_classes_do_not_matter():
    other = {"a": 7, "b": 0, "c": 3, "d": 10}
    rows = [5, 2, 0, 4, 1, 3]
    mixed = class_scores([other[GIVEN[row]] for row in rows], [other[TRUE[row]] for row in rows])
    assert mixed == pytest.approx(class_scores(GIVEN, TRUE))


def saved(folder, metric, answers):
    Plan("recipes/x.py", (), {"full": ARMS["full"]}, len(answers), 1, None).save(folder)
    for seed, (predictions, references) in enumerate(answers, 1):
        right = sum(map(str.__eq__, predictions, references)) / len(references)
        results = results_of(metric, right, rows=len(references))
        save(folder, "full", seed, results, {"predictions": predictions, "references": references})
    return Comparison.load(folder).to_dict()


def test_a_comparison_has_the_mean_over_seeds(tmp_path):
    found = saved(tmp_path, "accuracy", [(GIVEN, TRUE), (TRUE, TRUE)])
    assert found["arms"][0]["by_class"]["worst_recall"] == pytest.approx(0.5)
    headings, rows = classes_table(found)
    assert rows == [["full", f"{100 * (1 + (4 / 7 + 2 / 3) / 4) / 2:.2f}", "69.44", "50.00"]]
    line = f"| {' | '.join(rows[0])} |"
    assert line in markdown(found) and headings[-1] in markdown(found)
    for part in (*rows[0], CLASSES_NOTE, "By class"):
        assert part in page(found, b"")


def test_every_metric_of_classes_has_them(tmp_path):
    found = saved(tmp_path, "matthews", [(TRUE, TRUE)])
    assert found["arms"][0]["by_class"] == dict.fromkeys(("macro_f1", "mean_recall", "worst_recall"), 1.0)


@pytest.mark.parametrize(
    ("metric", "answers"),
    [("accuracy", (["a", "b"], ["a", "a"])), ("rouge", (["a", "b"], ["a", "b"]))],
    ids=["one class", "no classes"],
)
def test_nothing_where_there_are_no_classes(tmp_path, metric, answers):
    found = saved(tmp_path, metric, [answers])
    assert "by_class" not in found["arms"][0]
    assert classes_table(found) is None
    assert "By class" not in markdown(found) + page(found, b"")
