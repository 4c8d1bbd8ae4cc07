"""Dynamic random pruning, by hand."""

import numpy as np
import pytest

from hf_prune import Clock, History
from hf_prune.policies.uniform import Uniform

CLOCK = Clock(0, 0, 10, 0.0)


def test_every_row_has_the_same_chance():
    """K = 4 of 8 distinct rows: each with probability 0.5, within 4 standard errors of a binomial."""
    rng, draws = np.random.default_rng(0), 4000
    chosen = np.stack([Uniform(keep=0.5).select(History.empty(8), CLOCK, rng).rows for _ in range(draws)])
    assert all(len(set(rows.tolist())) == 4 for rows in chosen)
    visits = np.bincount(chosen.reshape(-1), minlength=8) / draws
    assert (np.abs(visits - 0.5) < 4 * np.sqrt(0.25 / draws)).all()


def test_each_round_draws_anew():
    """After 4 epochs at keep = 0.5 a row was never seen with probability (1 - 0.5) ** 4 = 0.0625."""
    n = 10_000
    seen = np.zeros(n, bool)
    for round in range(4):
        seen[Uniform(keep=0.5).select(History.empty(n), CLOCK, np.random.default_rng([7, round])).rows] = True
    assert abs((~seen).mean() - 0.0625) < 4 * np.sqrt(0.0625 * 0.9375 / n)


def test_keeping_all_is_all_in_order_without_weights():
    chosen = Uniform(keep=1.0).select(History.empty(8), CLOCK, np.random.default_rng(0))
    assert chosen.rows.tolist() == list(range(8))
    assert chosen.weights is None
    assert chosen.lr_scale == 1.0


def test_keep_is_of_tokens_where_asked():
    history = History.empty(100)
    history.tokens[:] = np.random.default_rng(0).integers(1, 10, 100)
    for cover in (False, True):
        rows = Uniform(keep=0.5, unit="tokens", cover=cover).select(history, CLOCK, np.random.default_rng(0)).rows
        assert 0 <= history.tokens[rows].sum() - history.tokens.sum() / 2 < 9


# ---- Passes through one order ----


def cover(policy, n, rounds, step_rows=1, seed=0):
    """(rounds, N) int, how often each row was trained, by the end of each round."""
    history, visits = History.empty(n), np.zeros((rounds, n), int)
    policy.begin(history, None)
    for round in range(rounds):
        clock = Clock(round, round, 100, round / 100, step_rows)
        rows = policy.select(history, clock, np.random.default_rng([seed, round])).rows
        history.record(rows, np.ones(len(rows), np.float32), round)
        visits[round] = visits[round - 1]
        visits[round, rows] += 1
        policy.update(history, clock, np.random.default_rng([seed, round, 1]))
    return visits


def test_four_rounds_of_one_half_are_two_visits_each():
    for seed in range(20):
        visits = cover(Uniform(keep=0.5, cover=True), 8, 4, seed=seed)
        assert visits[1].tolist() == [1] * 8
        assert visits[3].tolist() == [2] * 8


@pytest.mark.parametrize(
    ("keep", "n", "step_rows"), [(0.3, 100, 1), (0.7, 100, 8), (0.6, 7, 1), (1.0, 9, 4), (0.1, 1, 1)]
)
def test_visits_never_differ_by_more_than_one(keep, n, step_rows):
    policy = Uniform(keep=keep, cover=True)
    visits = cover(policy, n, 30, step_rows)
    assert (visits.max(axis=1) - visits.min(axis=1) <= 1).all()
    budget = policy.forecast(History.empty(n), Clock(0, 0, 10, 0.0, step_rows))
    assert (visits.sum(axis=1) == budget * np.arange(1, 31)).all()


def test_a_row_that_a_dropped_last_batch_left_out_stays_in_the_pass():
    """K = 5 of 8: of round 0 one row is lost, so that 4 rows are left, and round 1 takes them all and one more."""
    policy, history = Uniform(keep=0.6, cover=True), History.empty(8)
    rows = policy.select(history, CLOCK, np.random.default_rng(0)).rows
    history.record(rows[1:], np.ones(4, np.float32), 0)
    policy.update(history, CLOCK, np.random.default_rng(1))
    following = policy.select(history, Clock(1, 1, 10, 0.1), np.random.default_rng(2)).rows
    assert len(following) == 5
    assert set(range(8)) - set(rows[1:].tolist()) <= set(following.tolist())


def test_each_pass_has_another_order():
    """Which half of 1000 rows a pass begins with says nothing of the next one: 250 of them again, hypergeometric."""
    visits = cover(Uniform(keep=0.5, cover=True), 1000, 3)
    again = (visits[0] + (visits[2] - visits[1]) == 2).sum()
    assert abs(again - 250) < 4 * np.sqrt(500 * 0.5 * 0.5 * 500 / 999)


def test_every_row_has_the_same_chance_in_the_round_that_ends_a_pass():
    """K = 3 of 4: round 1 takes the one left and 2 of the 3 trained in round 0, each row with chance 3/4."""
    draws, second = 1000, np.zeros(4)
    for seed in range(draws):
        visits = cover(Uniform(keep=0.75, cover=True), 4, 2, seed=seed)
        assert visits[1].min() >= 1
        second += visits[1] - visits[0]
    assert (np.abs(second / draws - 0.75) < 4 * np.sqrt(0.75 * 0.25 / draws)).all()


def test_a_pass_begins_anew_after_an_earlier_run():
    earlier = History.empty(8)
    earlier.record(np.arange(8), np.ones(8, np.float32), 3)
    history, policy = History.empty(8), Uniform(keep=0.5, cover=True)
    policy.begin(history, earlier)
    first = policy.select(history, CLOCK, np.random.default_rng(0)).rows
    history.record(first, np.ones(4, np.float32), 0)
    policy.update(history, CLOCK, np.random.default_rng(1))
    second = policy.select(history, Clock(1, 1, 10, 0.1), np.random.default_rng(2)).rows
    assert sorted([*first, *second]) == list(range(8))


def test_only_a_pass_needs_the_loss():
    assert Uniform().needs == frozenset()
    assert Uniform(cover=True).needs == {"loss"}
    history = History.empty(4)
    Uniform().update(history, CLOCK, np.random.default_rng(0))
    assert history.notes == {}
