"""Two components of losses, fitted to losses that are drawn."""

import numpy as np
import pytest

from hf_prune.core.mixture import fit, upper_share


@pytest.fixture
def losses(rng):
    """2,000 losses, the first 400 of them around 4 nats and the others around 0.2."""
    found = np.exp(rng.normal(np.log(0.2), 0.5, 2000))
    found[:400] = np.exp(rng.normal(np.log(4), 0.3, 400))
    return found


def test_the_probability_is_calibrated(losses):
    upper = fit(losses).upper(losses)
    assert upper.mean() == pytest.approx(0.2, abs=0.02) and upper_share(losses) == pytest.approx(0.2, abs=0.02)
    assert upper[:400].min() > 0.5 > upper[400:].max()


def test_a_larger_loss_is_never_likelier_right_whatever_the_spreads(rng):
    """The upper component is the wider one: Bayes' rule alone gives it the smallest losses, too."""
    losses = np.concatenate([np.exp(rng.normal(-1, 0.1, 1000)), np.exp(rng.normal(2, 0.8, 500))])
    grid = np.geomspace(1e-8, 1e4, 500)
    upper = fit(losses).upper(grid)
    assert (np.diff(upper) >= 0).all() and upper[0] < 0.01 and upper[-1] > 0.99


def test_what_is_not_known_stays_so_and_a_loss_below_zero_is_small(losses):
    losses[-3:] = np.nan, -1, 0
    upper = fit(losses).upper(losses)
    assert np.isnan(upper[-3]) and (upper[-2:] < 0.01).all()


@pytest.mark.parametrize("losses", [np.ones(1000), np.arange(50.0), np.full(500, np.nan)])
def test_no_second_component(losses):
    assert fit(losses) is None and upper_share(losses) == 0
