"""Results and predictions of runs, as anybody may have written them."""

import json

import pytest
from compared import changed, labels, right_rows

from hf_prune.compare.result import RunResult
from hf_prune.compare.verdict import Comparison


def test_predictions_of_another_run_are_refused(compare, tmp_path):
    found = compare({"full": [0.8], "infobatch": [0.8]})
    path = tmp_path / "arms" / "infobatch" / "seed-1"
    (path / "predictions.json").write_text(json.dumps(labels(right_rows(0.7, 1))))
    with pytest.raises(ValueError, match="predictions.json gives accuracy 0.7, but results.json says 0.8"):
        Comparison.load(tmp_path)
    with pytest.raises(ValueError, match="no account of what was trained: compare with --policy uniform:keep=1"):
        (path / "results.json").write_text(json.dumps(found.runs["full", 1].results | {"pruning": None}))
        RunResult.load(path)


@pytest.mark.parametrize(
    "change",
    [
        *(("quality", None), ("quality", []), ("quality.metric", ["accuracy"]), ("quality.metric", "<img src=x>")),
        *(("quality.metric", "a|b"), ("quality.split", "a\nb"), ("quality.value", "0.8"), ("quality.value", 1e300)),
        *(("quality.value", float("inf")), ("quality.rows", 0), ("quality.rows", 1e30), ("quality.rows", "9")),
        *(("quality.greater_is_better", "yes"), ("pruning", [1]), ("pruning.totals", None), ("pruning.totals", {})),
        *(("pruning.totals.padded_tokens", -1), ("pruning.totals.padded_tokens", float("nan"))),
        *(
            ("pruning.totals.optimizer_steps", "x"),
            ("pruning.earlier_runs", [1]),
            ("pruning.earlier_runs", {"rows": "x"}),
        ),
        *(("pruning.evaluations", {}), ("pruning.evaluations", [3]), ("pruning.evaluations", [{}])),
        *(("hardware", None), ("hardware.gpus", 3), ("hardware.gpus", ["<b>"]), ("hardware.cpus", "x")),
        *(("versions", []), ("versions.torch", "a\nb"), ("versions.torch", 2), ("commit", "[x](http://x)")),
        *(("commit", []), ("hardware.cpus", {}), ("hardware.threads", "")),
        *(("parameters", "7"), ("parameters", None), ("scores", 3)),
    ],
    ids=str,
)
def test_results_out_of_bounds_are_refused(compare, tmp_path, change):
    compare({"full": [0.8], "infobatch": [0.7]})
    place, value = change

    def put(found):
        *path, last = place.split(".")
        for name in path:
            found = found[name]
        found[last] = value

    changed(tmp_path / "arms" / "full" / "seed-1" / "results.json", put)
    if change == ("scores", 3):  # which accuracy has no use for
        changed(
            tmp_path / "arms" / "full" / "seed-1" / "results.json", lambda found: found["quality"].update(metric="f1")
        )
    with pytest.raises(ValueError, match="seed-1"):
        Comparison.load(tmp_path)


@pytest.mark.parametrize(
    "predictions",
    [{}, {"predictions": []}, {"predictions": 3, "references": 4}, {"predictions": [[]], "references": [{}]}],
)
def test_predictions_of_something_else_are_refused(compare, tmp_path, predictions):
    compare({"full": [0.8], "infobatch": [0.7]})
    (tmp_path / "arms" / "full" / "seed-1" / "predictions.json").write_text(json.dumps(predictions))
    with pytest.raises(ValueError, match="seed-1/predictions.json was not written by a recipe"):
        Comparison.load(tmp_path)


def test_more_labels_than_can_be_resampled_are_refused(compare, tmp_path):
    compare({"full": [0.8]})
    names = [f"label {number}" for number in range(30_000)]
    predictions = {"predictions": names, "references": names}
    path = tmp_path / "arms" / "full" / "seed-1"
    (path / "predictions.json").write_text(json.dumps(predictions))
    changed(path / "results.json", lambda found: found["quality"].update(metric="matthews", value=1.0))
    with pytest.raises(ValueError, match="30,000 labels of 30,000 rows are too many"):
        Comparison.load(tmp_path)
