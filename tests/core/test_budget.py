"""Budgets by hand: numbers, ramps and cycles, and that the rounds of a run add up to the mean."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    """0.5 - 0.3 and 0.5 + 0.3, four times in 8 epochs; in 4 epochs, each has both; in 16, each half of a cycle has 2."""
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
    "keep", ["0.3->1.1", "0->1", "0.5~0.5x2", "0.8~0.3x2", "0.5~0.3x0", "0.3-1", "0.5", "a->b", "..->1"]
)
def test_what_is_no_share_is_refused(keep):
    with pytest.raises(
        ValueError, match=r"Uniform\(keep=...\) must be in \(0, 1\], got '.*'; a ramp is written '0.3->1.0'"
    ):
        Uniform(keep=keep)


def test_a_budget_is_written_in_a_policys_name():
    assert make("uniform:keep=0.3->1.0") == Uniform(keep="0.3->1.0")
    assert make("uniform:keep=0.5~0.3x4,cover=true") == Uniform(keep="0.5~0.3x4", cover=True)
