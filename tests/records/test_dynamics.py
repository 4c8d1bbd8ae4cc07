"""What rounds tell of each row, worked by hand."""

import numpy as np
import pytest
from traces import write

from hf_prune import History
from hf_prune.records.dynamics import Dynamics

NAN = float("nan")


@pytest.fixture
def dynamics(tmp_path):
    """Four epochs of ten rows; epoch 2 has two rounds. Row 9 is never measured, row 8 only fails."""
    everything = range(9)
    write(tmp_path, 0, (everything, [2, 2, 2, 2, 2, 2, 2, 4, np.inf]), epoch=0)
    write(tmp_path, 1, ([0, 1, 2, 7], [1, 2, 3, 4]), ([3, 4], [0.5, 0.5]), epoch=1)
    write(tmp_path, 2, ([0, 1], [0, 1]), epoch=2)
    write(tmp_path, 3, ([2, 7], [1, 5]), ([0, 3], [0.25, 0.5]), epoch=2)
    write(tmp_path, 4, ([7], [6]), ([3], [0.25]), epoch=3)
    history = History.empty(10)
    history.tokens[:] = range(10)
    return Dynamics.read(tmp_path, history)


def test_counts_and_moments(dynamics):
    assert dynamics.flaws == []
    assert dynamics.epochs.tolist() == [0, 1, 2, 3]
    assert dynamics.times_trained.tolist() == [3, 3, 3, 1, 1, 1, 1, 5 - 1, 1, 0]
    assert dynamics.times_measured.tolist() == [4, 3, 3, 4, 2, 1, 1, 4, 0, 0]
    row0, row7 = [2, 1, 0, 0.25], [4, 4, 5, 6]
    np.testing.assert_allclose(dynamics.mean[[0, 7, 8, 9]], [np.mean(row0), np.mean(row7), NAN, NAN], rtol=1e-6)
    np.testing.assert_allclose(dynamics.variability[[0, 7, 5, 9]], [np.std(row0), np.std(row7), 0, NAN], rtol=1e-6)
    assert dynamics.rows_rescored.tolist() == [0, 2, 2, 1]
    assert dynamics.tokens_rescored.tolist() == [0, 3 + 4, 0 + 3, 3]
    assert {dynamics.mean.dtype, dynamics.variability.dtype, dynamics.excess.dtype} == {np.dtype(np.float32)}


def test_excess_is_over_the_mean_of_what_was_known_and_drawn_to_zero(dynamics):
    means = [18 / 8, (1 + 2 + 3 + 0.5 + 0.5 + 2 + 2 + 4) / 8]  # of the latest losses of eight rows
    means += [(0 + 1 + 3 + 0.5 + 0.5 + 2 + 2 + 4) / 8, (0.25 + 1 + 1 + 0.5 + 0.5 + 2 + 2 + 5) / 8]
    means += [(0.25 + 1 + 1 + 0.25 + 0.5 + 2 + 2 + 6) / 8]
    expected7 = 1 * (4 - means[0]) + 2 * (4 - means[1]) + 4 * (5 - means[3]) + 5 * (6 - means[4])
    expected7 /= 1 + 2 + 4 + 5 + 5  # the last round weighs 5
    expected5 = 1 * (2 - means[0]) / (1 + 5)
    np.testing.assert_allclose(dynamics.excess[[7, 5, 9]], [expected7, expected5, NAN], rtol=1e-6)
    assert dynamics.level == means[4]


def test_arguments(dynamics):
    """Level 1.625: row 7 stays above; rows 5 and 6 too, but once. Easiest: row 3 at 0.5, 0.5, 0.25, row 4 at 0.5."""
    assert np.flatnonzero(dynamics.never_learnt).tolist() == [7]
    assert np.flatnonzero(dynamics.learnt_at_once).tolist() == [3, 4]
    assert dynamics.hardest(5).tolist() == [7]
    assert dynamics.easiest(1).tolist() == [3]
    assert dynamics.easiest(9).tolist() == [3, 4]


def test_a_row_that_was_right_at_last_was_learnt(tmp_path):
    history = History.empty(4, ("correct",))
    for round in range(2):
        write(tmp_path, round, (range(4), [1, 1, 5, 6]), rows=4)
    assert np.flatnonzero(Dynamics.read(tmp_path, history).never_learnt).tolist() == [2, 3]
    history.signals["correct"][:] = [1, 1, 0, 1]
    assert np.flatnonzero(Dynamics.read(tmp_path, history).never_learnt).tolist() == [2]


def test_quantiles_by_epoch(dynamics):
    np.testing.assert_allclose(dynamics.trained[1], np.quantile([1, 2, 3, 4], [0.1, 0.5, 0.9]))
    np.testing.assert_allclose(dynamics.left_out[1], np.quantile([0.5, 0.5, 2, 2], [0.1, 0.5, 0.9]))
    np.testing.assert_allclose(dynamics.trained[2], np.quantile([0.25, 1, 1, 5], [0.1, 0.5, 0.9]))  # of both rounds
    assert np.isnan(dynamics.left_out[0]).all()


def test_losses_by_epoch_in_blocks(dynamics):
    expected = np.full((10, 4), NAN)
    expected[:8, 0] = [2, 2, 2, 2, 2, 2, 2, 4]
    expected[[0, 1, 2, 7, 3, 4], 1] = [1, 2, 3, 4, 0.5, 0.5]
    expected[[0, 1, 2, 7, 3], 2] = [0.25, 1, 1, 5, 0.5]  # row 0 twice: the last
    expected[[7, 3], 3] = [6, 0.25]
    np.testing.assert_array_equal(np.concatenate([*dynamics.losses_by_epoch(8)]), expected)
    rows = np.array([7, 9, 0])
    np.testing.assert_array_equal(dynamics.losses_of(rows), expected[rows])


def test_one_epoch_tells_no_row_from_one_that_is_not_learnt_yet(tmp_path):
    write(tmp_path, 0, (range(10), range(10)))
    dynamics = Dynamics.read(tmp_path, History.empty(10))
    assert not dynamics.is_repeated
    assert not dynamics.never_learnt.any()
    assert not dynamics.learnt_at_once.any()
    assert dynamics.hardest(3).tolist() == [9, 8, 7]
    assert dynamics.easiest(2).tolist() == [0, 1]


def test_rows_without_losses(tmp_path):
    """A model whose loss is not known: what was trained is."""
    write(tmp_path, 0, ([0, 1], [NAN, NAN]))
    dynamics = Dynamics.read(tmp_path, History.empty(10))
    assert dynamics.times_trained.tolist() == [1, 1] + 8 * [0]
    assert np.isnan(dynamics.level)
    assert len(dynamics.hardest(3)) == 0
    assert np.isnan(dynamics.trained).all()


@pytest.mark.parametrize("unit", [1e-36, 1e-9, 1, 1e9, 1e36])
def test_what_float32_holds_has_moments_and_an_order(tmp_path, unit):
    losses = unit * np.array([[1, 2, 3, 40], [2, 2, 9, 50], [3, 2, 6, 60]])
    for round, values in enumerate(losses):
        write(tmp_path, round, (range(4), values), rows=4)
    dynamics = Dynamics.read(tmp_path, History.empty(4))
    np.testing.assert_allclose(dynamics.mean, losses.mean(0), rtol=1e-6)
    np.testing.assert_allclose(dynamics.variability, losses.std(0), rtol=1e-6, atol=1e-6 * unit)
    excess = losses - losses.mean(1, keepdims=True)
    np.testing.assert_allclose(dynamics.excess, np.array([1, 2, 3]) @ excess / 9, rtol=1e-6)
    assert dynamics.hardest(4).tolist() == [3]
    assert np.argsort(-dynamics.excess).tolist() == [3, 2, 0, 1]
    np.testing.assert_allclose(dynamics.level, losses[-1].mean(), rtol=1e-6)


def test_rows_that_were_given_wrong_labels_stand_first(tmp_path):
    """Losses fall for all but the noisy rows, of which half are measured in every round; the rest at random."""
    rng, n = np.random.default_rng(0), 1000
    noisy = np.arange(n) < 100
    for round in range(6):
        losses = np.where(noisy, 3, 2.3 * 0.6**round) * rng.lognormal(0, 0.3, n)
        rows = np.flatnonzero(rng.random(n) < 0.5)
        write(tmp_path, round, (rows, losses[rows]), rows=n)
    first = Dynamics.read(tmp_path, History.empty(n)).hardest(80)
    assert noisy[first].mean() > 0.95
