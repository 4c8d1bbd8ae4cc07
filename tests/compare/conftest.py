"""What tests of several modules compare."""

import shutil

import pytest
from compared import ARMS, TOKENS, labels, results_of, right_rows, save

from hf_prune.compare.plan import Plan
from hf_prune.compare.verdict import Comparison


@pytest.fixture
def compare(tmp_path):
    """Make a folder of accuracies by arm and seed, and compare it."""

    def made(accuracies, margin=None, arms=ARMS, seeds=None, **more):
        shutil.rmtree(tmp_path / "arms", ignore_errors=True)
        seeds = seeds or max(map(len, accuracies.values()))
        Plan("recipes/x.py", ("--bf16",), arms, seeds, 1, margin).save(tmp_path)
        for arm, values in accuracies.items():
            for seed, value in enumerate(values, 1):
                right = right_rows(value, seed)
                given = {name: each[arm] for name, each in more.items() if arm in each}
                results = results_of(value=float(right.mean()), **{"tokens": TOKENS.get(arm, 4000)} | given)
                save(tmp_path, arm, seed, results, labels(right))
        return Comparison.load(tmp_path)

    return made
