"""LossTrend against its own rule, by hand: the paper's is not public."""

import numpy as np
import pytest

from hf_prune import Clock, History
from hf_prune.core.features import Features
from hf_prune.policies.loss_trend import LossTrend, time_saved, trend

LOSSES = np.array(
    [
        [0.05, 0.04, 0.05, 0.04],
        [2.0, 1.6, 1.2, 0.8],
        [1.5, 1.5, 1.6, 1.5],
        [0.1, 0.9, 0.05, 0.8],
        [0.30, 0.20, 0.10, 0.05],
    ],
    np.float32,
)
FREE = {"threshold": 0.25, "anneal": 1.0}


def at(epoch, epochs=100):
    return Clock(epoch, epoch, epochs, epoch / epochs)


def run(policy, loss_at, n, epochs, classes=None):
    """Rows that each epoch trains, where `loss_at(epoch)` gives all (N,) losses; NaN = a fault."""
    history, trained = History.empty(n), []
    history.features = Features(classes=classes)
    for epoch in range(epochs):
        rows = policy.select(history, at(epoch, epochs), np.random.default_rng([0, epoch])).check(n).rows
        history.record(rows, np.asarray(loss_at(epoch), np.float32)[rows], epoch)
        policy.update(history, at(epoch, epochs), np.random.default_rng([1, epoch]))
        trained.append(rows)
    return trained, history


def paused_epochs(trained, row):
    return [epoch for epoch, rows in enumerate(trained) if row not in rows]


def test_level_slope_and_fluctuation():
    """Slopes by the weights (-.3, -.1, .1, .3); row 1 is a line, so nothing is left of it."""
    level, slope, fluctuation = trend(np.ascontiguousarray(LOSSES.T))
    assert level == pytest.approx([0.045, 1.4, 1.525, 0.4625, 0.1625], abs=1e-6)
    assert slope == pytest.approx([-0.002, -0.4, 0.01, 0.125, -0.085], abs=1e-6)
    assert fluctuation == pytest.approx([0.004472, 0.0, 0.041833, 0.363576, 0.013693], abs=1e-6)


@pytest.mark.parametrize(("w", "weights"), [(2, [-1, 1]), (3, [-0.5, 0, 0.5]), (5, [-0.2, -0.1, 0, 0.1, 0.2])])
def test_slope_weights_of_other_windows(w, weights):
    assert trend(np.eye(w, dtype=np.float32))[1] == pytest.approx(weights, abs=1e-6)


def test_the_trend_is_that_of_polyfit_and_missing_losses_have_none():
    losses = np.random.default_rng(0).random((6, 50), np.float32)
    losses[2, 7] = np.nan
    fitted = np.polyfit(np.arange(6), np.delete(losses, 7, axis=1), 1)
    level, slope, fluctuation = (np.delete(values, 7) for values in trend(losses))
    residuals = np.delete(losses, 7, axis=1) - np.arange(6)[:, None] * fitted[0] - fitted[1]
    np.testing.assert_allclose(level, np.delete(losses, 7, axis=1).mean(0), atol=1e-6)
    np.testing.assert_allclose(slope, fitted[0], atol=1e-6)
    np.testing.assert_allclose(fluctuation, np.sqrt((residuals**2).mean(0)), atol=1e-6)
    assert [np.isnan(values[7]) for values in trend(losses)] == [True, True, True]


def test_low_flat_and_calm_rows_pause():
    """Row 0 alone; the last one is low and still improving."""
    trained, _ = run(LossTrend(max_paused=0.9, **FREE), lambda epoch: LOSSES[:, epoch % 4], 5, 5)
    assert [len(rows) for rows in trained] == [5, 5, 5, 5, 4]
    assert trained[4].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("losses", "paused"),
    [
        ([0.05, 0.05, 0.05, 0.05], True),
        ([0.25, 0.25, 0.25, 0.25], False),  # not below tau
        ([0.11, 0.09, 0.07, 0.05], False),  # falls by sigma
        ([0.03, 0.05, 0.07, 0.09], False),  # rises by sigma
        ([0.12, 0.06, 0.06, 0.12], False),  # f = 0.03
        ([0.24, 0.22, 0.22, 0.24], True),  # f = 0.01
    ],
)
def test_each_condition_holds_back_a_row(losses, paused):
    policy = LossTrend(slope=0.0199, max_paused=0.5, **FREE)
    trained, _ = run(policy, lambda epoch: [losses[epoch % 4], 5.0], 2, 5)
    assert (0 not in trained[4]) == paused


def test_a_row_learned_throughout_pauses_twice_as_long_each_time():
    """Four visits, then pauses of 1, 2, 4, 4 rounds with two visits between them."""
    policy = LossTrend(max_paused=0.5, **FREE)
    trained, _ = run(policy, lambda epoch: [0.05, 5.0], 2, 20)
    assert paused_epochs(trained, 0) == [4, 7, 8, 11, 12, 13, 14, 17, 18, 19]
    assert paused_epochs(trained, 1) == []


def test_other_lengths_of_pause_and_return():
    """p = 2, P = 3, w' = 1, w = 2: two visits, then pauses of 2, 3, 3 rounds with one visit between them."""
    policy = LossTrend(window=2, pause=2, longest=3, cooldown=1, max_paused=0.5, **FREE)
    trained, _ = run(policy, lambda epoch: [0.05, 5.0], 2, 13)
    assert paused_epochs(trained, 0) == [2, 3, 5, 6, 7, 9, 10, 11]


def test_a_row_that_is_not_learned_on_return_begins_with_short_pauses_again():
    """The loss jumps at 9 to 10: the pauses of 1 (4) and 2 (7, 8) end there; calm visits 11 to 14, then 1 and 2."""
    policy = LossTrend(max_paused=0.5, **FREE)
    trained, _ = run(policy, lambda epoch: [1.0 if epoch in (9, 10) else 0.05, 5.0], 2, 20)
    assert paused_epochs(trained, 0) == [4, 7, 8, 15, 18, 19]


def test_the_guard_takes_the_lowest_levels_first():
    """floor(0.3 * 10) = 3 of 8 learned rows, then others while these cool down."""
    levels = np.array([0.20, 0.10, 5.0, 0.15, 0.05, 0.12, 5.0, 0.18, 0.02, 0.11])
    trained, _ = run(LossTrend(**FREE), lambda epoch: levels, 10, 40)
    missing = [sorted(set(range(10)) - set(rows.tolist())) for rows in trained]
    assert missing[:6] == [[], [], [], [], [1, 4, 8], [3, 5, 9]]
    assert max(map(len, missing)) == 3


def test_equal_levels_pause_by_chance():
    """Sorted by class: 300 of 1000 equal rows pause, of either half 150 +- 4 * sqrt(52.5)."""
    drawn = []
    for seed in range(10):
        history = History.empty(1000)
        for epoch in range(4):
            history.record(np.arange(1000), np.full(1000, 0.1, np.float32), epoch)
            LossTrend(**FREE).update(history, at(epoch), np.random.default_rng(seed))
        paused = np.flatnonzero(history.notes["back"] > 4)
        assert len(paused) == 300
        assert abs((paused < 500).sum() - 150) < 30
        drawn.append(tuple(paused))
    assert len(set(drawn)) == 10


def test_per_class_no_class_pauses_more_than_its_share():
    """Class 0 has the 10 lowest of 20 levels: it takes all 10 places, per class only floor(0.5 * 10) of them."""
    levels, classes = np.arange(20) / 100, np.repeat([0, 1], 10)
    trained, _ = run(LossTrend(max_paused=0.5, **FREE), lambda epoch: levels, 20, 5, classes)
    assert trained[4].tolist() == list(range(10, 20))
    policy = LossTrend(max_paused=0.5, per_class=True, **FREE)
    assert policy.needs == {"loss", "classes"}
    assert LossTrend().needs == {"loss"}
    trained, _ = run(policy, lambda epoch: levels, 20, 30, classes)
    assert trained[4].tolist() == [5, 6, 7, 8, 9, 15, 16, 17, 18, 19]
    assert min(np.bincount(classes[rows], minlength=2).min() for rows in trained) == 5


def test_unless_told_a_level_must_be_below_the_median():
    """Levels 0.1, 0.2, 0.3, 0.4, 0.5: only the first two are below 0.3."""
    policy = LossTrend(max_paused=0.9, anneal=1.0)
    trained, _ = run(policy, lambda epoch: np.arange(1, 6) / 10, 5, 5)
    assert trained[4].tolist() == [2, 3, 4]
    trained, _ = run(policy, lambda epoch: np.full(5, 0.1), 5, 8)
    assert all(len(rows) == 5 for rows in trained)


def test_warmup_and_the_last_epochs_pause_nothing():
    trained, _ = run(LossTrend(max_paused=0.5, threshold=0.25, warmup=6), lambda epoch: [0.05, 5.0], 2, 16)
    assert paused_epochs(trained, 0) == [6, 9, 10, 13]  # floor(0.875 * 16) = 14


def test_trends_are_aligned_by_visit():
    """Row 1 is a fault in every other epoch: its fourth visit is epoch 6, after it it pauses."""
    trained, history = run(
        LossTrend(max_paused=0.7, **FREE), lambda epoch: [0.05, np.nan if epoch % 2 else 0.05, 5.0], 3, 8
    )
    assert paused_epochs(trained, 0) == [4, 7]
    assert paused_epochs(trained, 1) == [7]
    np.testing.assert_allclose(history.notes["losses"][:, 1], 0.05)


def test_rows_never_seen_and_huge_losses_pause_never():
    """Nor do they raise the median: of the levels 0.1 and 0.2 it is 0.15."""
    losses = [np.nan, 3e38, 3e38, 0.1, 0.2]
    trained, _ = run(LossTrend(max_paused=0.9, anneal=1.0), lambda epoch: losses, 5, 10)
    assert [paused_epochs(trained, row) for row in range(5)] == [[], [], [], [4, 7, 8], []]


@pytest.mark.parametrize("n", [1, 5])
def test_nothing_known_or_a_single_row_keeps_everything(n):
    trained, _ = run(LossTrend(), lambda epoch: np.full(n, np.nan), n, 3)
    assert all(len(rows) == n for rows in trained)
    trained, _ = run(LossTrend(max_paused=0.99, **FREE), lambda epoch: np.full(n, 0.1), n, 10)
    assert min(map(len, trained)) == n - int(0.99 * n)


@pytest.mark.parametrize("window", [4, 7])
def test_memory_per_row_is_the_4w_and_8_bytes_of_the_card(window):
    _, history = run(LossTrend(window=window), lambda epoch: np.arange(100.0), 100, 12)
    assert sum(array.nbytes for array in history.notes.values()) == 100 * (4 * window + 8)


# ---- Time ----


def test_time_saved():
    """110 of 1000 rows paused; watching all rows at 0.005, or the paused ones at 1/3."""
    paused = np.array([0, 0, 0, 10, 20, 20, 30, 30, 0, 0])
    assert time_saved(paused, 100) == pytest.approx(0.11, abs=1e-6)
    assert time_saved(paused, 100, monitoring=0.005) == pytest.approx(0.105, abs=1e-6)
    assert time_saved(paused, 100, rescoring=1 / 3) == pytest.approx(0.073333, abs=1e-6)


@pytest.mark.parametrize(("trains", "pauses", "share"), [(6, 1, 1.0), (6, 1, 0.5), (2, 4, 0.3), (1, 3, 0.25)])
def test_a_cycle_saves_q_p_over_a_plus_p(trains, pauses, share):
    """One visit in seven left out is the abstract's 14.29 %: 1/7."""
    paused = np.tile([0] * trains + [100 * share] * pauses, 5)
    assert time_saved(paused, 100) == pytest.approx(share * pauses / (trains + pauses), abs=1e-6)


def test_time_saved_is_what_is_counted():
    """30 of 100 rows learned: pauses in epochs 4, 7 and 8, then 4 in each of five cycles of 6 epochs from 11 on."""
    losses = np.r_[np.full(30, 0.05), np.full(70, 5.0)]
    trained, _ = run(LossTrend(**FREE), lambda epoch: losses, 100, 40)
    paused = np.array([100 - len(rows) for rows in trained])
    cost = sum(len(rows) + 0.01 * 100 for rows in trained)
    assert time_saved(paused, 100, monitoring=0.01) == pytest.approx(1 - cost / 4000, abs=1e-6)
    assert time_saved(paused, 100) == pytest.approx(0.3 * (3 + 20) / 40, abs=1e-6)


@pytest.mark.parametrize(
    ("field", "value"),
    [("window", 1), ("threshold", 0.0), ("slope", 0.0), ("fluctuation", -1.0), ("pause", 0), ("longest", 40000)]
    + [("cooldown", 0), ("max_paused", 1.0), ("warmup", -1), ("anneal", 0.0)],
)
def test_fields_outside_their_range_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"LossTrend\({field}=...\) must be in .* got {value}"):
        LossTrend(**{field: value})


def test_half_a_round_and_a_longest_pause_below_the_first_are_refused():
    with pytest.raises(ValueError, match=r"LossTrend\(cooldown=...\) must be a whole number, got 1.5"):
        LossTrend(cooldown=1.5)
    with pytest.raises(ValueError, match=r"LossTrend\(longest=...\) must be at least pause=5, got 4"):
        LossTrend(pause=5)


def test_long_pauses_do_not_overflow():
    policy = LossTrend(window=2, pause=20_000, longest=32_767, cooldown=1, max_paused=0.5, **FREE)
    history = History.empty(2)
    for epoch in (0, 1, 20_002):
        history.record(np.arange(2), np.array([0.05, 5.0], np.float32), epoch)
        policy.update(history, at(epoch, 100_000), np.random.default_rng(0))
    assert history.notes["back"].tolist() == [20_003 + 32_767, 0]
