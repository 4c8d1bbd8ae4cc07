"""Competence against Platanios et al. 2019, by hand."""

import math

import numpy as np
import pytest
from texts import matrix_of

from hf_prune import Clock, History
from hf_prune.core.features import Features
from hf_prune.policies.competence import Competence, rarity

LENGTHS = [3, 5, 5, 8, 12, 20, 2, 40]


def history_of(lengths, policy=None):
    history = History.empty(len(lengths))
    history.tokens[:] = lengths
    if policy is not None:
        policy.begin(history, None)
    return history


def at(share, step_rows=1, rounds=1):
    return Clock(1, 1, 8, share, step_rows, rounds)


def rows_of(policy, history, clock, seed=0):
    return policy.select(history, clock, np.random.default_rng(seed)).check(len(history), history.offered).rows.tolist()


def test_ties_share_the_larger_rank():
    ranks = Competence().ranks(history_of(LENGTHS))
    assert (ranks / 8).tolist() == [0.25, 0.5, 0.5, 0.625, 0.75, 0.875, 0.125, 1.0]


def test_competence_grows_with_the_root():
    """c(0.25) = sqrt(0.25 (1 - 0.0001) + 0.0001) = sqrt(0.250075); c(0.5) = sqrt(0.50005)."""
    policy = Competence(start=0.01, until=1.0)
    for share, expected in {0.0: 0.01, 0.25: 0.500075, 0.5: 0.707142, 1.0: 1.0}.items():
        assert policy.competence(share) == pytest.approx(expected, abs=1e-6)
    assert Competence(until=0.5).competence(0.125) == pytest.approx(0.500075, abs=1e-6)
    assert Competence(until=0.5).competence(0.5) == Competence(until=0.5).competence(0.9) == 1


def test_the_easy_rows_are_eligible_at_a_quarter():
    policy = Competence(until=1.0)
    assert rows_of(policy, history_of(LENGTHS), at(0.25)) == [0, 1, 2, 6]
    assert rows_of(policy, history_of(LENGTHS, policy), at(0.25)) == [0, 1, 2, 6]


@pytest.mark.parametrize(("start", "expected"), [(0.5, [0, 1, 2, 6]), (0.49, [0, 6]), (0.125, [6]), (1.0, [*range(8)])])
def test_a_rank_share_of_exactly_c_is_eligible(start, expected):
    assert rows_of(Competence(start=start), history_of(LENGTHS), at(0.0)) == expected


def test_rank_shares_are_exact_in_large_data_sets():
    """Of 3 x 10^5 rows, k / N <= c for k = floor(c N), in spite of rounding."""
    history = history_of(np.arange(300_000))
    for k in (3, 29_999, 100_000, 299_999):
        assert len(rows_of(Competence(start=k / 300_000), history, at(0.0))) == k


def test_rarity_is_of_the_unigram_shares():
    """Nine tokens: p(a) = 4/9, the others 1/9. -ln p: a 0.810930, others 2.197225."""
    a, b, c, d, e, f = range(6)
    rows = [[a, b], [a, a, c], [a, d, e, f]]
    features = Features((matrix_of(rows), matrix_of([[9], [8], [7]])))
    np.testing.assert_allclose(rarity(features), [3.008155, 3.819085, 7.402604], atol=1e-6)
    history = history_of([1, 1, 1])
    history.features = features
    assert Competence(difficulty="rarity").ranks(history).tolist() == [1, 2, 3]


def test_rarity_without_a_word():
    history = history_of([1, 1])
    history.features = Features((matrix_of([[], []]),))
    assert rarity(history.features).tolist() == [0, 0]


def test_what_it_needs_depends_on_the_difficulty():
    assert Competence().needs == {"tokens"}
    assert Competence(difficulty="rarity").needs == {"features"}
    with pytest.raises(ValueError, match="reads words, but the rows have none"):
        Competence(difficulty="rarity").begin(history_of([1]), None)


def test_lengths_that_change_in_training_move_no_row():
    policy = Competence(until=1.0)
    history = history_of(LENGTHS, policy)
    history.tokens[:] = LENGTHS[::-1]
    assert rows_of(policy, history, at(0.25)) == [0, 1, 2, 6]


def test_at_least_the_rows_of_a_step_the_easiest_first():
    policy, history = Competence(), history_of(LENGTHS)
    assert rows_of(policy, history, at(0.0)) == [6]
    assert rows_of(policy, history, at(0.0, step_rows=4)) == [0, 1, 2, 6]
    assert rows_of(policy, history, at(0.0, step_rows=100)) == [*range(8)]
    drawn = [rows_of(policy, history, at(0.0, step_rows=3), seed) for seed in range(400)]
    assert all({0, 6} < set(rows) < {0, 1, 2, 6} for rows in drawn)
    assert abs(sum(1 in rows for rows in drawn) - 200) < 4 * 10  # rows 1 and 2 tie: each half of the time


def test_rows_are_chosen_among_those_offered():
    policy, history = Competence(until=1.0), history_of(LENGTHS)
    history.offered = np.array([1, 3, 4, 6])
    assert rows_of(policy, history, at(0.25)) == [1, 6]
    assert rows_of(policy, history, at(0.25, step_rows=3)) == [1, 3, 6]
    history.offered = np.array([5, 7])
    assert rows_of(policy, history, at(0.25)) == [5]


def test_losses_are_not_looked_at():
    policy, history = Competence(until=1.0), history_of(LENGTHS)
    history.record(np.arange(4), np.array([np.nan, 9, np.inf, 0], np.float32), 0)
    assert rows_of(policy, history, at(0.25)) == [0, 1, 2, 6]


@pytest.mark.parametrize("lengths", [[7], [4, 4, 4]])
def test_equal_rows_wait_together(lengths):
    history = history_of(lengths)
    assert len(rows_of(Competence(), history, at(0.49))) == 1
    assert rows_of(Competence(), history, at(0.5)) == [*range(len(lengths))]


def test_a_curriculum_covers_all_rows_and_forecasts_its_rounds():
    """Where lengths differ, the rounds of an epoch train floor(c N) rows each, as forecast; half-way all rows."""
    policy, n = Competence(), 1000
    history = history_of(np.random.default_rng(0).permutation(n), policy)
    kept = []
    for round in range(80):
        share = round / 80
        rows = rows_of(policy, history, at(share))
        assert len(rows) == max(1, math.floor(n * min(1, math.sqrt(share / 0.5 * 0.9999 + 0.0001)) + 1e-9))
        assert policy.forecast(history, at(share)) == len(rows)
        kept.append(len(rows))
    assert kept == sorted(kept)
    assert kept[40] == n > kept[39]
    assert policy.forecast(history, at(0.0, step_rows=16, rounds=8)) == 128
    assert policy.forecast(history_of([1, 2]), at(0.0, step_rows=16, rounds=8)) == 2


def test_rounds_cut_the_epoch():
    assert Competence(rounds=3).rounds_per_epoch == 3


@pytest.mark.parametrize(
    ("field", "value"), [("start", 0.0), ("start", 1.1), ("until", 0.0), ("until", 2.0), ("rounds", 0)]
)
def test_fields_outside_their_range_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"Competence\({field}=...\) must be in .* got {value}"):
        Competence(**{field: value})


def test_an_unknown_difficulty_is_refused():
    with pytest.raises(ValueError, match=r"must be 'length' or 'rarity', got 'depth'"):
        Competence(difficulty="depth")
