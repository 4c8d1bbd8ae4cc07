"""UCB against Raju et al. 2021 as re-implemented, by hand."""

import numpy as np
import pytest

from hf_prune import Clock, History
from hf_prune.policies.ucb import UCB

MEAN, VARIANCE = [0.50, 1.00, 2.00, 0.20, 3.00, 0.80], [0.00, 0.10, 0.00, 0.50, 0.00, 0.20]


def at(round):
    return Clock(round, round, 1000, round / 1000)


def observed():
    """Rows 1, 3 and 4 observed anew in round 1."""
    history = History.empty(6)
    history.record(np.arange(6), np.array(MEAN, np.float32), 0)
    history.notes |= {"mean": np.array(MEAN, np.float32), "variance": np.array(VARIANCE)}
    history.record(np.array([1, 3, 4]), np.array([0.50, 1.20, 1.00], np.float32), 1)
    return history


def next_rows(policy, history, round, seed=0):
    policy.update(history, at(round), np.random.default_rng(seed))
    return policy.select(history, at(round + 1), np.random.default_rng(seed + 1)).rows


def train(policy, losses, rounds):
    """(rounds, N) bool, which rows each round trained; every row's loss is always the same."""
    history, trained = History.empty(len(losses)), np.zeros((rounds, len(losses)), bool)
    for round in range(rounds):
        rows = policy.select(history, at(round), np.random.default_rng(round)).rows
        trained[round, rows] = True
        history.record(rows, losses[rows], round)
        policy.update(history, at(round), np.random.default_rng([round, 1]))
    return trained


def test_the_variance_is_taken_around_the_old_mean():
    """Row 1: 0.2 * 0.1 + 0.8 * 0.25 = 0.22; row 3: 0.2 * 0.5 + 0.8 * 1 = 0.9; row 4: 0.8 * 4 = 3.2; then the means."""
    history = observed()
    rows = next_rows(UCB(keep=0.5, period=1), history, 1)
    np.testing.assert_allclose(history.notes["mean"], [0.50, 0.60, 2.00, 1.00, 1.40, 0.80], atol=1e-6)
    np.testing.assert_allclose(history.notes["variance"], [0.00, 0.22, 0.00, 0.90, 3.20, 0.20], atol=1e-6)
    np.testing.assert_allclose(UCB().score(history), [0.50, 0.82, 2.00, 1.90, 4.60, 1.00], atol=1e-6)
    assert rows.tolist() == [2, 3, 4]


@pytest.mark.parametrize(("bonus", "rows"), [(0.0, [2, 4]), (1.0, [2, 4]), (1.2, [3, 4]), (10.0, [3, 4])])
def test_the_bonus_weighs_the_variance(bonus, rows):
    """Row 3 passes row 2 where 1 + 0.9 c > 2: c > 1.11."""
    assert next_rows(UCB(keep=1 / 3, period=1, bonus=bonus), observed(), 1).tolist() == rows


def test_the_first_loss_is_the_mean_and_has_no_variance():
    history = History.empty(3)
    history.record(np.array([0, 1]), np.array([2.0, 5.0], np.float32), 0)
    UCB().update(history, at(0), np.random.default_rng(0))
    np.testing.assert_array_equal(history.notes["mean"], np.array([2, 5, np.nan], np.float32))
    assert history.notes["variance"].tolist() == [0, 0, 0]


def test_rows_that_were_not_observed_do_not_move():
    history = observed()
    next_rows(UCB(period=1), history, 1)
    before = {name: history.notes[name].copy() for name in ("mean", "variance")}
    next_rows(UCB(period=1), history, 2)
    for name, array in before.items():
        np.testing.assert_array_equal(history.notes[name], array)


def test_a_period_trains_one_selection_and_there_is_no_random_share():
    """20 rounds at keep = 0.4: all rows are tried in 3, then the 40 of highest loss, whatever the period."""
    losses = np.random.default_rng(0).permutation(100).astype(np.float32)
    for period in (1, 7, 10):
        trained = train(UCB(keep=0.4, period=period, patience=0), losses, 20)
        assert (trained.sum(axis=1) == 40).all()
        assert trained[:3].any(axis=0).all()
        assert (trained[3:] == (losses >= 60)).all()


def test_a_jump_is_acted_on_when_the_period_ends():
    """In round 5 row 0 jumps from 0 to 8: variance 0.8 * 64, mean 6.4. It leaves no trace before round 8."""
    policy, history = UCB(keep=0.5, period=4), History.empty(4)
    chosen = []
    for round in range(10):
        rows = policy.select(history, at(round), np.random.default_rng(round)).rows
        chosen.append(rows.tolist())
        losses = np.array([8.0 if round == 5 else 0.0, 3, 1, 2], np.float32)
        history.record(np.arange(4), losses, round)
        policy.update(history, at(round), np.random.default_rng([round, 1]))
    assert chosen[1:8] == [[1, 3]] * 7
    assert chosen[8:] == [[0, 1]] * 2


def test_huge_losses_stay_finite():
    history = History.empty(2)
    for round, loss in enumerate([[0, 0], [3e38, 0], [0, 0]]):
        history.record(np.arange(2), np.array(loss, np.float32), round)
        assert len(next_rows(UCB(keep=0.5, period=1), history, round)) == 1
    assert np.isfinite(UCB().score(history)).all()


def test_a_row_without_a_number_stays_first():
    history = observed()
    history.record(np.array([0, 5]), np.array([np.nan, np.inf], np.float32), 2)
    history.loss[5], history.last_round[5], history.notes["mean"][5] = np.nan, -1, np.nan
    rows = next_rows(UCB(keep=1 / 3, period=1), history, 2)
    np.testing.assert_array_equal(history.notes["mean"], np.array([*MEAN[:5], np.nan], np.float32))
    assert rows.tolist() == [4, 5]


def test_equal_scores_are_split_at_random():
    """Each of 10 rows is one of the 5 kept in half of 2000 draws, within 4 standard errors."""
    visits, draws = np.zeros(10), 2000
    for seed in range(draws):
        history = History.empty(10)
        history.record(np.arange(10), np.ones(10, np.float32), 0)
        visits[next_rows(UCB(keep=0.5), history, 0, seed)] += 1
    assert (np.abs(visits / draws - 0.5) < 4 * np.sqrt(0.25 / draws)).all()


def test_one_row_is_always_kept():
    policy, history = UCB(keep=0.1), History.empty(1)
    assert policy.select(history, at(0), np.random.default_rng(0)).rows.tolist() == [0]
    history.record(np.array([0]), np.array([1], np.float32), 0)
    assert next_rows(policy, history, 0).tolist() == [0]


def test_no_row_is_forgotten():
    """Constant losses, 30 % kept: with patience all return within 8 selections, without it 70 % never do."""
    losses = np.random.default_rng(0).permutation(100).astype(np.float32)
    assert train(UCB(keep=0.3, period=2), losses, 60)[-16:].any(axis=0).all()
    assert (~train(UCB(keep=0.3, period=2, patience=0), losses, 60)[4:]).all(axis=0).sum() == 70


@pytest.mark.parametrize(
    ("field", "value"),
    [("bonus", -0.1), ("bonus", float("inf")), ("period", 0), ("decay", 0.0), ("patience", -1), ("keep", 1.1)],
)
def test_fields_outside_their_range_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"UCB\({field}=...\) must be in .* got {value}"):
        UCB(**{field: value})
