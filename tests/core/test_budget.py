"""Budgets by hand: numbers, ramps and cycles, and that the rounds of a run add up to the mean."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TrainerCallback

from hf_prune import Clock, History
from hf_prune.core.budget import Budget, read_budget
from hf_prune.policies import make
from hf_prune.policies.uniform import Uniform


def rounds(epochs, step_rows=1):
    return [Clock(round, round, epochs, round / epochs, step_rows) for round in range(epochs)]


def kept(keep, epochs, n=100):
    """Rows of each round."""
    policy, history = Uniform(keep=keep), History.empty(n)
    found = [len(policy.select(history, clock, np.random.default_rng(0)).check(n).rows) for clock in rounds(epochs)]
    assert found == [policy.forecast(history, clock) for clock in rounds(epochs)]
    return found


def test_a_ramp_goes_in_a_line_through_all_of_training():
    """0.3 -> 1.0 in 7 epochs: the means of 0.3 to 0.4, 0.4 to 0.5, ..., so 0.35, 0.45 ... 0.95 of 100 rows."""
    assert kept("0.3->1.0", 7) == [35, 45, 55, 65, 75, 85, 95]
    assert kept("1->0.5", 2) == [88, 63]  # 87.5 and 62.5, rounded up


def test_a_cycle_is_low_first_and_then_high():
    """0.5 - 0.3, then 0.5 + 0.3, four times in 8 epochs; in 4 epochs, each has both; in 16, half a cycle is 2."""
    assert kept("0.5~0.3x4", 8) == [20, 80] * 4
    assert kept("0.5~0.3x4", 4) == [50] * 4
    assert kept("0.5~0.3x4", 16) == [20, 20, 80, 80] * 4


def test_a_round_that_a_half_of_a_cycle_ends_in_gets_the_mean():
    """One cycle in 3 epochs: 1/3 low, then 1/6 low and 1/6 high, then high."""
    assert kept("0.5~0.2x1", 3) == [30, 50, 70]


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(lambda ends: Budget(*ends)),
        st.tuples(st.floats(0.3, 0.7), st.floats(0, 0.25), st.integers(1, 9)).map(lambda c: Budget(c[0], *c)),
    ),
    st.lists(st.floats(0.001, 1), min_size=1, max_size=20),
)
def test_rounds_of_any_length_add_up_to_the_mean(budget, lengths):
    ends = np.concatenate([[0], np.cumsum(lengths) / np.sum(lengths)])
    shares = [budget.over(begin, end) for begin, end in itertools.pairwise(ends)]
    assert sum(shares * np.diff(ends)) == pytest.approx(budget.mean)
    assert all(budget.lowest <= share <= budget.highest for share in shares)


def test_a_number_is_kept_as_it_is():
    share = 0.1 + 0.2  # no binary fraction
    assert {read_budget(share).over(begin / 7, (begin + 1) / 7) for begin in range(7)} == {share}


@pytest.mark.parametrize(
    "keep",
    ["0.3->1.1", "0->1", "0.5~0.5x2", "0.8~0.3x2", "0.5~0.3x0", "0.5~0.3x1000000000", "0.3-1", "0.5", "a->b", "..->1"],
)
def test_what_is_no_share_is_refused(keep):
    with pytest.raises(
        ValueError, match=r"Uniform\(keep=...\) must be in \(0, 1\], got '.*'; a ramp is written '0.3->1.0'"
    ):
        Uniform(keep=keep)


def test_a_budget_is_written_in_a_policys_name():
    assert make("uniform:keep=0.3->1.0") == Uniform(keep="0.3->1.0")
    assert make("uniform:keep=0.5~0.3x4,cover=true") == Uniform(keep="0.5~0.3x4", cover=True)


# ---- In a policy that ranks its rows once, and in a run ----


def test_a_static_policy_takes_the_first_rows_of_one_order():
    earlier, history, policy = History.empty(10), History.empty(10), make("el2n:keep=0.2->1.0")
    earlier.notes["score"] = np.arange(10, dtype=np.float32)
    policy.begin(history, earlier)
    chosen = [policy.select(history, clock, np.random.default_rng(0)).rows.tolist() for clock in rounds(4)]
    assert chosen == [list(range(10 - k, 10)) for k in (3, 5, 7, 9)]
    with pytest.raises(ValueError, match=r"skip=...\) must be in \[0, 1 - keep\], got 0.1 with keep=0.2->1.0"):
        make("el2n:keep=0.2->1.0,skip=0.1")


@pytest.mark.parametrize("name", ["ucb", "epsilon_greedy"])
def test_a_bandit_ranks_once_a_period_and_each_round_has_its_own_budget(name):
    policy, history = make(f"{name}:keep=0.2->1.0,period=10,patience=0"), History.empty(100)
    policy.begin(history, None)
    history.record(np.arange(100), np.arange(100, dtype=np.float32), 0)
    policy.update(history, Clock(0, 0, 8, 0.0), np.random.default_rng(0))
    found = [policy.select(history, clock, np.random.default_rng(0)).check(100).rows for clock in rounds(8)[1:]]
    assert [len(rows) for rows in found] == [35, 45, 55, 65, 75, 85, 95]
    assert all(99 in rows for rows in found)


@pytest.mark.parametrize("keep", ["0.25->0.75", "0.5~0.25x2"])
@pytest.mark.parametrize("more", [{}, {"gradient_accumulation_steps": 2}])
def test_the_steps_of_a_run_are_known_ahead(make, keep, more):
    """22 rows in batches of 4, in four epochs: the share of each round, in whole steps."""
    ours = make(f"uniform:keep={keep}", num_train_epochs=4, **more)
    planned = []

    class Begin(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            planned.append(state.max_steps)

    ours.add_callback(Begin())
    ours.train()
    step = 4 * more.get("gradient_accumulation_steps", 1)
    shares = {"0.25->0.75": [5, 7, 9, 11], "0.5~0.25x2": [4, 12, 4, 12]}[keep]  # sixteenths
    rows = [min(22, math.ceil(math.ceil(22 * share / 16) / step) * step) for share in shares]
    assert [epoch["rows"] for epoch in ours.pruning_report().epochs] == rows
    assert planned == [ours.state.global_step] == [sum(math.ceil(count / step) for count in rows)]
