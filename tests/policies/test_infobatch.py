"""InfoBatch against Qin et al. 2024, by hand."""

import numpy as np
import pytest

from hf_prune import Clock, History
from hf_prune.policies.infobatch import InfoBatch

L8 = np.array([0.1, 0.2, 0.3, 0.4, 1.0, 2.0, 3.0, 5.0], np.float32)  # sum 12, mean 1.5: rows 0 to 4 are easy


def history_of(losses):
    history = History.empty(len(losses))
    history.record(np.arange(len(losses)), np.asarray(losses, np.float32), 0)
    return history


def at(epoch, epochs):
    return Clock(epoch, epoch, epochs, epoch / epochs)


def test_hard_rows_stay_and_survivors_weigh_double():
    chosen = InfoBatch(ratio=0.5).select(history_of(L8), at(1, 10), np.random.default_rng(0))
    weights = dict(zip(chosen.rows.tolist(), chosen.weights.tolist(), strict=True))
    assert {5, 6, 7} <= set(weights)
    assert all(weight == (1.0 if row >= 5 else 2.0) for row, weight in weights.items())


def test_expectations_are_those_of_the_full_sum():
    """E[rows] = 3 + 5/2 = 5.5; E[sum of weights] = 3 + 5 * 0.5 * 2 = 8 = N; E[sum of weight * loss] = 12."""
    history, draws = history_of(L8), 20_000
    rng = np.random.default_rng(1)
    rows, weights, weighted = np.empty(draws), np.empty(draws), np.empty(draws)
    for draw in range(draws):
        chosen = InfoBatch(ratio=0.5).select(history, at(1, 10), rng)
        rows[draw], weights[draw] = len(chosen.rows), chosen.weights.sum()
        weighted[draw] = (chosen.weights * L8[chosen.rows]).sum()
    for values, expected in ((rows, 5.5), (weights, 8.0), (weighted, 12.0)):
        assert abs(values.mean() - expected) < 4 * values.std() / np.sqrt(draws)


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.7, 0.9])
def test_the_weighted_sum_is_unbiased_for_any_ratio(ratio):
    losses = np.random.default_rng(0).exponential(size=101).astype(np.float32)
    history, rng = history_of(losses), np.random.default_rng(2)
    sums = np.array(
        [
            (chosen.weights * losses[chosen.rows]).sum()
            for chosen in (InfoBatch(ratio=ratio).select(history, at(1, 10), rng) for _ in range(4000))
        ]
    )
    assert abs(sums.mean() - losses.sum()) < 4 * sums.std() / np.sqrt(len(sums))


@pytest.mark.parametrize(
    ("epochs", "anneal", "pruned"),
    [(10, 0.875, 8), (16, 0.875, 14), (3, 0.875, 2), (200, 0.875, 175), (20, 0.85, 17), (2.5, 0.875, 2), (8, 1.0, 8)],
)
def test_the_last_epochs_prune_nothing(epochs, anneal, pruned):
    """floor(anneal * epochs) epochs may prune, whatever the fraction; the others keep all rows, weights untouched."""
    history = history_of(np.r_[np.zeros(500), np.ones(500)])
    chosen = [
        InfoBatch(anneal=anneal).select(history, at(epoch, epochs), np.random.default_rng(epoch))
        for epoch in range(int(np.ceil(epochs)))
    ]
    assert [len(one.rows) < 1000 for one in chosen] == [epoch < pruned for epoch in range(len(chosen))]
    assert all(one.weights is None for one in chosen[pruned:])


def test_rows_never_seen_stay_at_weight_one_and_bad_losses_move_no_threshold():
    history = history_of(L8)
    history.record(np.array([7, 6]), np.array([np.nan, np.inf], np.float32), 1)  # their old losses stand: mean 1.5
    history.loss[5] = np.nan  # never seen: the mean of the others is 10 / 7, and rows 0 to 4 are below it
    for seed in range(50):
        chosen = InfoBatch(ratio=0.9).select(history, at(1, 10), np.random.default_rng(seed))
        weights = dict(zip(chosen.rows.tolist(), chosen.weights.tolist(), strict=True))
        assert weights[5] == weights[6] == weights[7] == 1.0


def test_equal_losses_keep_everything():
    chosen = InfoBatch(ratio=0.9).select(history_of(np.full(1001, 0.1)), at(1, 10), np.random.default_rng(0))
    assert len(chosen.rows) == 1001
    assert (chosen.weights == 1).all()


@pytest.mark.parametrize("losses", [[np.nan], [1.0], [np.nan] * 5])
def test_one_row_or_nothing_known_keeps_everything(losses):
    chosen = InfoBatch().select(history_of(losses), at(1, 10), np.random.default_rng(0))
    assert chosen.rows.tolist() == list(range(len(losses)))


@pytest.mark.parametrize(("field", "value"), [("ratio", 1.0), ("ratio", -0.1), ("anneal", 0.0), ("anneal", 1.1)])
def test_fields_outside_their_range_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"InfoBatch\({field}=...\) must be in .* got {value}"):
        InfoBatch(**{field: value})
