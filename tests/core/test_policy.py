"""Budgets, by hand, and what a policy's fields may hold."""

import numpy as np
import pytest

from hf_prune import BudgetPolicy, Clock, History
from hf_prune.policies.seta import SeTa
from hf_prune.policies.uniform import Uniform


def clock(step_rows=1, **changes):
    return Clock(**{"round": 1, "epoch": 1, "epochs": 4, "share": 0.25, "step_rows": step_rows} | changes)


@pytest.mark.parametrize(
    ("keep", "n", "step_rows", "kept"),
    [
        (0.5, 8, 1, 4),
        (0.5, 9, 1, 5),  # ceil(4.5)
        (0.55, 100, 1, 55),  # not 56, though 0.55 * 100 is 55.00000000000001
        (0.5, 8, 3, 6),  # 4 rows fill two steps of 3
        (0.5, 8, 16, 16),  # one step holds all there are
        (1.0, 8, 3, 8),  # everything is never rounded
    ],
)
def test_a_budget_in_rows_fills_whole_steps(keep, n, step_rows, kept):
    policy, history = Uniform(keep=keep), History.empty(n)
    rows = policy.within_budget(np.arange(n), history, clock(step_rows))
    assert rows.tolist() == list(range(min(kept, n)))
    assert policy.forecast(history, clock(step_rows)) == len(rows)


def test_a_budget_in_tokens_is_the_shortest_prefix_that_reaches_it():
    history = History.empty(5)
    history.tokens[:] = [10, 1, 1, 4, 4]  # 20 in all, half is 10
    policy = Uniform(keep=0.5, unit="tokens")
    assert policy.within_budget(np.array([0, 1, 2, 3, 4]), history, clock()).tolist() == [0]
    assert policy.within_budget(np.array([4, 3, 2, 1, 0]), history, clock()).tolist() == [4, 3, 2, 1]  # 4+4+1+1
    assert policy.within_budget(np.array([4, 3, 2, 1, 0]), history, clock(3)).tolist() == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("keep", [0, -0.1, 1.01, float("nan")])
def test_a_budget_outside_its_range_is_refused(keep):
    with pytest.raises(ValueError, match=r"Uniform\(keep=...\) must be in \(0, 1\]"):
        Uniform(keep=keep)


def test_an_unknown_unit_is_refused():
    with pytest.raises(ValueError, match="must be 'rows' or 'tokens', got 'words'"):
        Uniform(unit="words")


def test_a_budget_policy_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        BudgetPolicy()


def test_numbers_of_numpy_become_plain_ones():
    policy = SeTa(groups=np.int64(4), ratio=np.array(0.5))
    assert repr(policy).startswith("SeTa(ratio=0.5, groups=4,")
    assert Uniform(cover=np.bool_(True)).cover is True
    for wrong in (np.array([0.5]), [0.5], np.str_("0.5"), np.bool_(True), 1j):
        with pytest.raises(ValueError, match=r"Uniform\(keep=...\) must be in \(0, 1\], got"):
            Uniform(keep=wrong)
    with pytest.raises(ValueError, match="groups=...\\) must be a whole number, got 2.5"):
        SeTa(groups=np.float64(2.5))
