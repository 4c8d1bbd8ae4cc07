"""Folders of comparisons whose numbers are known, without a recipe."""

import json
import shutil

import numpy as np

from hf_prune.compare.plan import Arm, Plan
from hf_prune.compare.verdict import Comparison

ROWS = 1000
ARMS = {
    "full": Arm(("--policy", "uniform:keep=1"), "full"),
    "short-50": Arm(("--policy", "uniform:keep=1", "--num_train_epochs", "2"), "short", 0.5),
    "uniform-50": Arm(("--policy", "uniform:keep=0.5"), "uniform", 0.5),
    "infobatch": Arm(("--policy", "infobatch"), "policy"),
}
TOKENS = {"full": 4000, "short-50": 2000, "uniform-50": 2100, "infobatch": 2500}


def right_rows(share, seed):
    """Which rows are right: for one seed a smaller share's are among a larger one's."""
    order = np.random.default_rng(seed).permutation(ROWS)
    return order < round(share * ROWS)


def results_of(metric="accuracy", value=0.8, tokens=4000, forward_only=0, earlier=None, curve=(0.5, 0.7), **quality):
    """As a recipe writes them: two evaluations, the second at the end."""
    totals = {"rows": tokens / 10, "padded_tokens": tokens, "rows_rescored": 0, "padded_tokens_rescored": forward_only}
    totals |= {"padding": None, "optimizer_steps": tokens / 100, "seconds_selecting": 1.0, "seconds_rescoring": 2.0}
    pruning = {"totals": totals | {"seconds_training": tokens / 10 - 3}, "earlier_runs": earlier}
    pruning["evaluations"] = [
        {"step": i, "epoch": i, "rows": at / 10, "tokens": at, "seconds": at / 10, f"eval_{metric}": score}
        for i, score in enumerate(curve, 1)
        for at in [tokens * i / len(curve)]
    ]
    quality = {"metric": metric, "value": value, "greater_is_better": metric != "loss", "split": "test"} | quality
    made = {"hardware": {"cpus": 2, "threads": 1, "gpus": []}, "versions": {"torch": "2"}, "commit": "abc"}
    return made | {
        "policy": "P()",
        "parameters": 7,
        "quality": {"rows": ROWS} | quality,
        "scores": {},
        "pruning": pruning,
    }


def save(folder, arm, seed, results, predictions):
    path = folder / "arms" / arm / f"seed-{seed}"
    path.mkdir(parents=True)
    (path / "results.json").write_text(json.dumps(results))
    (path / "predictions.json").write_text(json.dumps(predictions))


def means_of(folder, values, arms, margin=None, tokens=None, seeds=None, jobs=1, metric="rouge"):
    """A comparison of these qualities by arm and seed, of a metric that is no function of rows; 0.1 seconds a token."""
    shutil.rmtree(folder / "arms", ignore_errors=True)
    Plan("recipes/x.py", (), arms, seeds or max(map(len, values.values())), jobs, margin).save(folder)
    for arm, qualities in values.items():
        for seed, value in enumerate(qualities, 1):
            results = results_of(metric, value, (tokens or {}).get(arm, 4000))
            save(folder, arm, seed, results, {"predictions": [1.0], "references": [1.0]})
    return Comparison.load(folder)


def labels(right):
    return {"predictions": np.where(right, "yes", "no").tolist(), "references": ["yes"] * ROWS}


def conclusion(comparison, arm):
    return next(found["conclusion"] for found in comparison.to_dict()["arms"] if found["arm"] == arm)


def changed(path, change):
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))
