"""Stale Selective-Backprop against Jiang et al. 2019, by hand."""

import numpy as np
import pytest

from hf_prune import Clock, History
from hf_prune.policies.stale_sb import StaleSB

L8 = np.array([0.1, 0.2, 0.3, 0.4, 1.0, 2.0, 3.0, 5.0], np.float32)


def at(round):
    return Clock(round, round, 100, round / 100)


def history_of(losses, round=0):
    history = History.empty(len(losses))
    history.record(np.arange(len(losses)), np.asarray(losses, np.float32), round)
    return history


def test_the_chance_is_the_midrank_to_the_power_beta():
    """keep = 1/3 is beta = 2: (1/16)^2, (3/16)^2, ..., (15/16)^2, in any order of the rows; the lowest is above 0."""
    expected = np.array([0.003906, 0.035156, 0.097656, 0.191406, 0.316406, 0.472656, 0.660156, 0.878906])
    order = np.random.default_rng(0).permutation(8)
    chance = StaleSB(keep=1 / 3).chance(history_of(L8[order]), at(1))
    np.testing.assert_allclose(chance, expected[order], atol=1e-6)
    assert abs(chance.sum() - 2.65625) < 1e-6


def test_equal_losses_share_their_percentile():
    chance = StaleSB(keep=0.5).chance(history_of([0.1, 0.2, 0.2, 0.2, 0.5]), at(1))
    np.testing.assert_allclose(chance, [0.1, 0.5, 0.5, 0.5, 0.9], atol=1e-6)


def test_rows_are_drawn_each_on_its_own_by_their_chance():
    """The share of 8000 draws is within 4 standard errors for every row, and any two rows are uncorrelated."""
    policy, history, rng, draws = StaleSB(keep=1 / 3), history_of(L8), np.random.default_rng(0), 8000
    drawn = np.zeros((draws, 8), bool)
    for draw in range(draws):
        drawn[draw, policy.select(history, at(1), rng).rows] = True
    chance = policy.chance(history, at(1))
    chance = np.r_[chance[:7], chance[7] + np.prod(1 - chance)]  # where nothing is drawn, the highest is taken
    assert (np.abs(drawn.mean(axis=0) - chance) < 4 * np.sqrt(chance * (1 - chance) / draws)).all()
    assert np.abs(np.corrcoef(drawn[:, 3:7].T) - np.eye(4)).max() < 0.05


@pytest.mark.parametrize("keep", [0.05, 0.25, 0.5, 0.9])
def test_the_share_kept_tends_to_keep(keep):
    """E[u^beta] = 1 / (1 + beta) = keep."""
    n = 40_000
    history = history_of(np.random.default_rng(0).exponential(size=n))
    rows = StaleSB(keep=keep).select(history, at(1), np.random.default_rng(1)).rows
    assert abs(len(rows) / n - keep) < 4 * np.sqrt(keep * (1 - keep) / n)
    assert StaleSB(keep=keep).forecast(history, at(1)) == round(keep * n)


def test_a_stale_row_is_trained_whatever_its_chance():
    """Losses of round 0, stale = 3: rounds 1 to 3 draw by chance, round 4 trains all; row 7 was measured in round 2."""
    history, policy = history_of(L8), StaleSB(keep=0.05, stale=3)
    history.last_round[7] = 2
    for now, trained in ((3, 1), (4, 7), (5, 7), (6, 8)):
        assert (policy.chance(history, at(now)) == 1).sum() == trained - (now == 3)
    assert set(range(7)) <= set(policy.select(history, at(4), np.random.default_rng(0)).rows.tolist())
    assert StaleSB(stale=float("inf")).chance(history, at(99)).max() < 1


def test_no_row_waits_longer_than_stale_rounds():
    """Constant losses: every row is trained in each 4 rounds in a row, so that none is forgotten."""
    losses, policy, history = np.arange(500.0, dtype=np.float32), StaleSB(keep=0.1, stale=3), History.empty(500)
    trained = np.zeros((40, 500), bool)
    for round in range(40):
        rows = policy.select(history, at(round), np.random.default_rng(round)).rows
        trained[round, rows] = True
        history.record(rows, losses[rows], round)
    windows = np.lib.stride_tricks.sliding_window_view(trained, 4, axis=0)
    assert windows.any(axis=-1).all()
    assert not windows[..., :3].any(axis=-1).all()


def test_rows_never_seen_are_trained_and_bad_losses_rank_nothing():
    """Rows 5 and 6 leave the ranking: the six others have (1, 3, ..., 11) / 12, squared."""
    history = history_of([*L8[:5], np.nan, np.inf, 5.0])
    policy = StaleSB(keep=1 / 3)
    expected = [1 / 144, 9 / 144, 25 / 144, 49 / 144, 81 / 144, 1, 1, 121 / 144]
    np.testing.assert_allclose(policy.chance(history, at(1)), expected, atol=1e-6)
    for seed in range(20):
        assert {5, 6} <= set(policy.select(history, at(1), np.random.default_rng(seed)).rows.tolist())


def test_with_equal_losses_the_classes_follow_the_data():
    """1000 rows sorted into 4 classes, all at percentile 0.5: each kept with 0.5^3, 31.25 of every class."""
    history, classes, draws = history_of(np.ones(1000)), np.repeat(np.arange(4), 250), 200
    counts = np.array(
        [
            np.bincount(classes[StaleSB().select(history, at(1), np.random.default_rng(s)).rows], minlength=4)
            for s in range(draws)
        ]
    )
    assert (np.abs(counts.mean(axis=0) - 31.25) < 4 * np.sqrt(250 * 0.125 * 0.875 / draws)).all()


def test_nothing_known_trains_everything_and_is_expected_to():
    history = History.empty(5)
    assert StaleSB().select(history, at(0), np.random.default_rng(0)).rows.tolist() == list(range(5))
    assert StaleSB().forecast(history, at(0)) == 5


def test_keep_one_is_everything_always():
    chosen = StaleSB(keep=1.0).select(history_of(L8), at(1), np.random.default_rng(0))
    assert chosen.rows.tolist() == list(range(8))
    assert chosen.weights is None


@pytest.mark.parametrize(("losses", "row"), [([1.0], 0), ([1.0, 3.0, 2.0], 1)])
def test_where_nothing_is_drawn_the_likeliest_row_is_trained(losses, row):
    """keep = 0.01 is beta = 99: even the highest of three has a chance of (5/6)^99 only."""
    for seed in range(20):
        chosen = StaleSB(keep=0.01).select(history_of(losses), at(1), np.random.default_rng(seed))
        assert chosen.rows.tolist() == [row]


@pytest.mark.parametrize(("field", "value"), [("keep", 0), ("keep", 1.1), ("stale", 0), ("stale", float("nan"))])
def test_fields_outside_their_range_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"StaleSB\({field}=...\) must be in .* got {value}"):
        StaleSB(**{field: value})
