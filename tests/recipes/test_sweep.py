"""recipes/benchmarks/sweep.py: its runs can start, and its regrets and costs are right."""

import json

import pytest
from recipe_runs import ROOT, load
from transformers import TrainingArguments

from hf_prune.recipe.arguments import parse
from hf_prune.recipe.splits import CommonArguments


@pytest.fixture(scope="module")
def sweep():
    return load("benchmarks/sweep")


def runs(validation, test, rows, loss=(1.0,) * 5):
    columns = {"validation": validation, "test": test, "loss": loss, "rows": [rows] * 5}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def seed(number, full_test, best):
    """One seed whose sweeps choose the rates `best`."""
    chosen = {name: [float(at == one) for at in range(5)] for name, one in best.items()}
    rows = {"full": 1000, "short": 300, "uniform": 320, "el2n": 320}
    sweeps = {name: runs(chosen[name], full_test if name == "full" else [0.0] * 5, rows[name]) for name in rows}
    return {"seed": number, "earlier": 100, "sweeps": sweeps}


FIRST = seed(1, [0.80, 0.90, 0.95, 0.94, 0.70], {"full": 3, "short": 2, "uniform": 1, "el2n": 2})
SECOND = seed(2, [0.80, 0.90, 0.93, 0.96, 0.70], {"full": 3, "short": 2, "uniform": 1, "el2n": 3})


def test_regret_is_to_the_best_full_run(sweep):
    found = sweep.summarise([FIRST, SECOND])
    regrets = {name: one["regrets"] for name, one in found.items()}
    assert regrets["full"] == pytest.approx([1, 0]) and regrets["short"] == pytest.approx([0, 3])
    assert regrets["uniform"] == pytest.approx([5, 6]) and regrets["el2n"] == pytest.approx([0, 0])
    assert found["short"]["regret"]["mean"] == pytest.approx(1.5)
    assert found["short"]["less_full"]["mean"] == pytest.approx(1.0)  # -1 and 3
    assert found["short"]["chosen"] == {"0.0002": 0, "0.0006": 0, "0.002": 2, "0.006": 0, "0.02": 0}


def test_cost_has_the_earlier_run_once_and_the_full_run_at_the_choice(sweep):
    costs = {name: one["cost"] for name, one in sweep.summarise([FIRST, SECOND]).items()}
    assert costs["full"] == 1
    assert costs["short"] == pytest.approx((5 * 300 + 1000) / 5000)
    assert costs["uniform"] == pytest.approx((5 * 320 + 1000) / 5000)
    assert costs["el2n"] == pytest.approx((5 * 320 + 100 + 1000) / 5000)


def test_of_equal_validations_the_smallest_loss_is_chosen(sweep):
    assert sweep.choice(runs([0.9, 0.95, 0.95, 0.95, 0.1], [0] * 5, 1, [0.1, 0.4, 0.2, 0.3, 0.01])) == 2


def test_the_table_has_means_and_intervals(sweep):
    found = sweep.summarise([FIRST, SECOND])
    lines = sweep.table({"sweeps": found}).splitlines()
    low, high = found["full"]["regret"]["low"], found["full"]["regret"]["high"]
    assert low < 0.5 < high
    assert lines[2] == f"| `full` | 0.006 (2) | +0.50 ({low:+.2f} to {high:+.2f}) | - | 100 % |"
    assert lines[5].startswith("| `el2n` | 0.002 (1), 0.006 (1) | +0.00 | ") and lines[5].endswith(" | 54 % |")


def test_the_flags_of_every_run_are_those_of_the_recipe(sweep, tmp_path):
    recipe = load("image_classification")
    every = sweep.runs_of(tmp_path, 2)
    assert len(every) == 20 and len({run.result for run in every.values()}) == 20
    for (name, rate), run in every.items():
        types = (CommonArguments, recipe.RecipeArguments, TrainingArguments)
        common, _, args, policy = parse(*types, argv=run.command[2:], **recipe.FROM_SCRATCH | recipe.EMBEDDED)
        assert (args.learning_rate, args.seed) == (rate, 2)
        assert args.num_train_epochs == (10 if name == "short" else 40)
        assert policy.keep == (0.25 if name in ("uniform", "el2n") else 1)
        assert (common.history is not None) == (name == "el2n")
        assert common.history in (None, str(sweep.earlier_run(tmp_path, 2).result.parent))


def test_what_is_read_of_the_runs(sweep, tmp_path, monkeypatch):
    class Result:
        def __init__(self, folder):
            earlier = 0 if folder.name == "earlier" else 50  # not counted in every run
            costs = {"trained": 300, "forward_only": 20, "all": 320 + earlier}
            self.cost = lambda: costs
            last = {"eval_accuracy": 0.9, "eval_loss": 0.4}
            first = {"eval_accuracy": 0.1, "eval_loss": 4.0}
            self.results = {"quality": {"value": 0.8}, "pruning": {"evaluations": [first, last]}}

        load = classmethod(lambda cls, folder: cls(folder))

    monkeypatch.setattr(sweep, "RunResult", Result)
    (found,) = sweep.read(tmp_path, 1)
    assert (found["seed"], found["earlier"]) == (1, 320)
    assert found["sweeps"]["el2n"] == [{"validation": 0.9, "loss": 0.4, "test": 0.8, "rows": 320}] * 5


def test_the_page_has_the_table(sweep):
    results = ROOT / "recipes" / "results"
    measured = results / "sweep.json"
    text = sweep.table(json.loads(measured.read_text())) if measured.exists() else "Not run."
    assert f"<!-- sweep -->\n{text}\n<!-- end of sweep -->" in (results / "README.md").read_text("utf-8")
