"""Dynamic random pruning, by hand."""

import numpy as np

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
