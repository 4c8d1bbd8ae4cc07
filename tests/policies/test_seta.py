"""SeTa against the rule of Zhou et al. 2025, by hand."""

import numpy as np
import pytest

from hf_prune import Clock, History
from hf_prune.policies import seta
from hf_prune.policies.seta import SeTa

LOSSES = [0.10, 0.12, 0.50, 0.52, 1.00, 1.05, 2.00, 2.20]


def history_of(losses):
    history = History.empty(len(losses))
    history.record(np.arange(len(losses)), np.asarray(losses, np.float32), 0)
    return history


def at(epoch, epochs=100):
    return Clock(epoch, epoch, epochs, epoch / epochs)


def rows_of(policy, history, clock, seed=0):
    return policy.select(history, clock, np.random.default_rng(seed)).check(len(history)).rows


def test_four_groups_and_a_window_of_two():
    """Groups {0, 1}, {2, 3}, {4, 5}, {6, 7}; W = round(0.5 * 4) = 2 of them from t mod 3 on; t = 0 keeps all."""
    kept = {0: range(8), 1: [2, 3, 4, 5], 2: [4, 5, 6, 7], 3: [0, 1, 2, 3], 4: [2, 3, 4, 5]}
    policy = SeTa(ratio=0.0, groups=4, window=0.5)
    shuffle = np.random.default_rng(0).permutation(8)
    for t, rows in kept.items():
        assert rows_of(policy, history_of(LOSSES), at(t)).tolist() == list(rows)
        shuffled = rows_of(policy, history_of(np.array(LOSSES)[shuffle]), at(t))
        assert sorted(shuffle[shuffled].tolist()) == list(rows)


@pytest.mark.parametrize(
    ("window", "windows"),
    [
        (0.9, {0: (0, 5), 1: (1, 5), 2: (0, 4), 3: (1, 5)}),  # W = round(4.5) = 4, to even
        (0.6, {0: (0, 5), 1: (1, 4), 2: (2, 5), 3: (0, 3), 4: (1, 4)}),
    ],
)
def test_windows_over_five_groups(window, windows):
    """Ten rows of each loss 0, 10, 20, 30, 40, with a little noise."""
    group = np.repeat(np.arange(5), 10)
    history = history_of(group * 10 + np.random.default_rng(0).random(50))
    for t, (first, end) in windows.items():
        assert sorted(set(group[rows_of(SeTa(ratio=0, window=window), history, at(t))])) == list(range(first, end))


def groups_of(losses, groups):
    """Group of each loss; none is empty, and each loss is nearest to the mean of its own."""
    borders = seta._borders(losses, groups)
    group = np.searchsorted(borders, losses, side="right") - 1
    assert len(set(group.tolist())) == len(borders) - 1 <= groups
    means = np.array([losses[group == g].mean(dtype=np.float64) for g in range(len(borders) - 1)])
    distance = np.abs(losses[:, None] - means)
    np.testing.assert_allclose(distance[np.arange(len(losses)), group], distance.min(1), atol=1e-9)
    return group


def test_groups_are_a_fixed_point_of_k_means():
    assert max(groups_of(np.random.default_rng(3).lognormal(sigma=1.5, size=3000).astype(np.float32), 8)) == 7


def test_groups_of_few_and_equal_losses_are_a_fixed_point_too():
    rng = np.random.default_rng(5)
    for _ in range(300):
        losses = np.round(rng.exponential(size=rng.integers(1, 30)) ** 4, 1).astype(np.float32)
        groups = int(rng.integers(1, 9))
        assert max(groups_of(losses, groups)) + 1 == min(groups, len(set(losses.tolist())))


@pytest.mark.parametrize(
    ("losses", "groups", "expected"),
    [
        ([0.3] * 7, 5, [7]),
        ([1.0] * 90 + [2.0] * 9 + [5.0], 3, [90, 9, 1]),  # quantiles of the rows would all start at 1.0
        ([0.5, 1.0], 10, [1, 1]),
        ([4.0], 3, [1]),
        ([0.0, 1e30, 1e30], 2, [1, 2]),
        ([1.0, 1.0 + 2**-23], 2, [1, 1]),  # neighbours in float32: their middle rounds to the lower
    ],
)
def test_ties_and_fewer_losses_than_groups(losses, groups, expected):
    losses = np.array(losses, np.float32)
    borders = seta._borders(losses, groups)
    counted = np.histogram(losses, np.r_[-1, borders[1:-1], 1e38])[0]
    assert counted.tolist() == expected
    for t in range(1, 5):
        assert len(rows_of(SeTa(groups=groups, ratio=0, window=0.51), history_of(losses), at(t))) > 0


def test_equal_losses_keep_the_whole_draw():
    assert len(rows_of(SeTa(ratio=0.25, window=0.5), history_of(np.full(1000, 0.1)), at(3))) == 750


def test_the_share_left_out_is_counted_exactly():
    """0.29 * 100 is 28.999999999999996 in floats."""
    assert len(rows_of(SeTa(ratio=0.29), history_of(np.arange(100)), at(0))) == 71


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("t", [0, 95])
def test_the_first_and_the_annealed_rounds_are_a_random_share(ratio, t):
    """ceil((1 - r) N) rows, each with probability 1 - r, within 5 standard errors of a binomial."""
    history, draws, n = history_of(np.arange(50)), 2000, 50
    rng = np.random.default_rng(1)
    rows = [SeTa(ratio=ratio).select(history, at(t), rng).rows for _ in range(draws)]
    assert {len(one) for one in rows} == {round((1 - ratio) * n)}
    assert SeTa(ratio=ratio).forecast(history, at(t)) == round((1 - ratio) * n)
    visits = np.bincount(np.concatenate(rows), minlength=n) / draws
    assert (np.abs(visits - (1 - ratio)) <= 5 * np.sqrt(ratio * (1 - ratio) / draws)).all()


def test_a_window_keeps_its_share_of_the_draw():
    """Five equal groups, W = 4, r = 0.2: 0.8 * 0.8 of the rows on average, every kept group at 0.8."""
    group = np.repeat(np.arange(5), 200)
    history, rng = history_of(group.astype(float)), np.random.default_rng(2)
    counts = np.stack(
        [np.bincount(group[SeTa(ratio=0.2).select(history, at(1), rng).rows], minlength=5) for _ in range(200)]
    )
    assert (counts[:, 0] == 0).all()
    assert np.abs(counts[:, 1:].mean(0) - 160).max() < 5 * np.sqrt(200 * 0.16 / 200)


@pytest.mark.parametrize(
    ("epochs", "anneal", "windowed"), [(10, 0.875, 8), (16, 0.875, 14), (8, 1.0, 8), (2.5, 0.875, 2)]
)
def test_the_last_epochs_keep_all_groups(epochs, anneal, windowed):
    history = history_of(np.repeat([0.0, 1.0, 2.0], 10))
    policy = SeTa(ratio=0, groups=3, window=0.34, anneal=anneal)
    kept = [len(rows_of(policy, history, at(epoch, epochs))) for epoch in range(int(np.ceil(epochs)))]
    assert kept == [10 if 0 < epoch < windowed else 30 for epoch in range(len(kept))]


def test_rows_never_seen_come_first_and_no_bad_loss_moves_a_group():
    losses = np.r_[LOSSES, [np.nan] * 3, np.inf]
    policy = SeTa(ratio=0.25, groups=4, window=0.5)
    for seed in range(50):
        rows = set(rows_of(policy, history_of(losses), at(1), seed).tolist())
        assert {8, 9, 10, 11} <= rows
        assert len(rows & set(range(8))) <= 5
    policy = SeTa(ratio=0.0, groups=4, window=0.5)
    assert rows_of(policy, history_of(losses), at(1)).tolist() == [2, 3, 4, 5, 8, 9, 10, 11]


def test_nothing_known_is_a_random_share():
    assert len(rows_of(SeTa(ratio=0.3), History.empty(10), at(3))) == 7
    assert rows_of(SeTa(ratio=0.99), History.empty(1), at(3)).tolist() == [0]


def test_more_unseen_rows_than_the_draw_leave_no_seen_one():
    rows = rows_of(SeTa(ratio=0.5), history_of([0.1, 0.2, 0.3, *[np.nan] * 7]), at(1))
    assert len(rows) == 5
    assert rows.min() >= 3


def test_a_sample_gives_the_borders_of_large_sets(monkeypatch):
    """Four groups far apart: a sample of 200 in 4000 rows finds them, and each row is in or out by its own loss."""
    monkeypatch.setattr(seta, "SAMPLE", 200)
    losses = np.arange(4000) % 4 * 10 + np.random.default_rng(0).random(4000)
    rows = rows_of(SeTa(ratio=0, groups=4, window=0.5), history_of(losses), at(1))
    assert rows.tolist() == np.flatnonzero((losses > 5) & (losses < 25)).tolist()
    rows = rows_of(SeTa(ratio=0, groups=4, window=0.5), history_of(losses), at(2))
    assert rows.tolist() == np.flatnonzero(losses > 15).tolist()
    clustered = []
    monkeypatch.setattr(seta, "_borders", lambda losses, groups: clustered.append(len(losses)) or np.array([0, 1e9]))
    for n in (199, 200, 201, 4000):
        rows_of(SeTa(ratio=0), history_of(losses[:n]), at(1))
    assert clustered == [199, 200, 200, 200]


@pytest.mark.parametrize(
    ("field", "value"), [("ratio", 1.0), ("groups", 0), ("window", 0.0), ("window", 1.1), ("anneal", 0.0)]
)
def test_fields_outside_their_range_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"SeTa\({field}=...\) must be in .* got {value}"):
        SeTa(**{field: value})


def test_a_window_without_a_group_and_half_a_group_are_refused():
    with pytest.raises(ValueError, match=r"SeTa\(window=...\) must be above 0.1, .* groups=5, got 0.1"):
        SeTa(window=0.1)
    with pytest.raises(ValueError, match=r"SeTa\(groups=...\) must be a whole number, got 2.5"):
        SeTa(groups=2.5)
