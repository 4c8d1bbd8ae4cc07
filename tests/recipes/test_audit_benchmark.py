"""recipes/benchmarks/audit.py: the errors that it plants, and its table."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from recipe_runs import load


@pytest.fixture(scope="module")
def benchmark():
    return load("benchmarks/audit")


def test_confused_rows_get_the_label_that_they_are_taken_for(benchmark):
    """Classes 0 and 1 share their words, class 2 has others: no wrong label of 0 or 1 is 2."""
    texts = [f"{word} {number % 7}" for word in ("cat", "cat", "house") for number in range(60)]
    kinds = Features(text=Value("string"), label=ClassLabel(names=["a", "b", "c"]))
    rows = Dataset.from_dict({"text": texts, "label": np.repeat([0, 1, 2], 60)}, kinds)
    found = benchmark.confused(rows, 0.5)
    given, true, clean = (np.array(found[name]) for name in ("label", "true_label", "clean"))
    assert ((given == true) == clean).all() and 0.3 < np.mean(~clean) < 0.7
    assert set(given[(true < 2) & ~clean]) == {0, 1} and found.features["label"].names == ["a", "b", "c"]


def test_the_table_has_a_line_for_each_length(benchmark):
    shares = {"1%": 1.0, "5%": 0.75, "10%": 0.5}
    short = {"wrong": 0.3, "judgement": "early", "listed": {"rows": 0, "wrong": None}}
    short["precision"] = {share: {"hf_prune": value, "cleanlab": 0.25} for share, value in shares.items()}
    long = short | {"judgement": "found", "listed": {"rows": 40, "wrong": 0.9}}
    text = benchmark.table({"some": {"2": [short], "10": [long, long]}})
    lines = text.splitlines()
    assert len(lines) == 4
    assert lines[2].replace(" ", "").startswith("|some(30%wrong)|2|early|none|100.0%|25.0%||75.0%")
    assert "| found | 90.0 % of 40 |" in lines[3]


@pytest.mark.parametrize("name", ["trec_symmetric", "cifar10n_worse", "pairs"])
def test_a_run_keeps_margins_by_the_same_file(benchmark, name, tmp_path):
    command = benchmark.command_of(name, 3, 1, tmp_path)
    assert command[1].endswith("audit.py") and command[2] == benchmark.SCRIPT and "--keep" in command
    assert (command.index("--num_train_epochs") + 1, "3") == (command.index("3"), "3")
