"""LargeBatchFilter, a reconstruction after Gahlot et al. 2020, by hand."""

import numpy as np
import pytest
from texts import matrix_of

from hf_prune import Clock, History
from hf_prune.core.features import Features
from hf_prune.policies._outliers import distances, repeats
from hf_prune.policies.large_batch_filter import LargeBatchFilter, scaled_learning_rate

PROBE = [0.1, 0.2, 1.0, 0.3, 2.0, 2.1, 2.2, 6.0]
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1])
NOTHING = Features()


def begun(policy, probe=None, features=NOTHING, tokens=None, n=None):
    n = n or len(probe)
    history, earlier = History.empty(n), None
    history.features = features
    history.tokens[:] = 1 if tokens is None else tokens
    if probe is not None:
        earlier = History.empty(n)
        earlier.record(np.arange(n), np.asarray(probe, np.float32), 0)
    policy.begin(history, earlier)
    return history


def dropped(policy, *args, round=0, **facts):
    history = begun(policy, *args, **facts)
    clock = Clock(round, round, 10, round / 10, step_rows=4)
    rows = policy.select(history, clock, np.random.default_rng(round)).rows
    assert policy.forecast(history, clock) == len(rows)
    return sorted(set(range(len(history))) - set(rows.tolist()))


# ---- The rule ----


def test_the_noisiest_row_of_each_class():
    policy = LargeBatchFilter(ratio=0.25, per_class=True)
    assert dropped(policy, PROBE, features=Features(classes=LABELS)) == [2, 7]
    assert dropped(LargeBatchFilter(ratio=0.25), PROBE) == [6, 7]
    assert dropped(LargeBatchFilter(ratio=0.25), PROBE, features=Features(classes=LABELS)) == [6, 7]


def test_the_noisiest_row_of_each_length_in_each_class():
    """Lengths 1 and 9: cells {0, 1}, {2, 3}, {4, 5}, {6, 7}, of which half is one row each."""
    tokens = [1, 1, 9, 9, 1, 1, 9, 9]
    cells = LargeBatchFilter(ratio=0.5, per_class=True, buckets=2)
    assert dropped(cells, PROBE, features=Features(classes=LABELS), tokens=tokens) == [1, 2, 5, 7]
    assert dropped(LargeBatchFilter(ratio=0.25, buckets=2), PROBE, tokens=tokens) == [5, 7]


@pytest.mark.parametrize(("ratio", "count"), [(0, 0), (0.1, 0), (0.249, 0), (0.25, 1), (0.74, 2), (0.75, 3)])
def test_floor_of_the_share_in_each_cell(ratio, count):
    policy = LargeBatchFilter(ratio=ratio, per_class=True)
    rows = dropped(policy, PROBE, features=Features(classes=LABELS))
    assert np.bincount(LABELS[rows], minlength=2).tolist() == [count, count]


def test_equal_losses_are_split_once_and_never_beyond_the_share():
    rounds = [dropped(LargeBatchFilter(ratio=0.3), np.ones(1000), round=round) for round in range(3)]
    assert rounds[0] == rounds[1] == rounds[2]
    assert len(rounds[0]) == 300
    assert 110 < sum(row < 500 for row in rounds[0]) < 190  # 150 +- 4 standard deviations


def test_rows_without_a_probe_loss_stay_and_count_in_their_cell():
    """Five rows, two unknown: floor(0.4 * 5) = 2 of the three others are left out."""
    assert dropped(LargeBatchFilter(ratio=0.4), [np.nan, 1.0, 3.0, np.nan, 2.0]) == [2, 4]
    assert dropped(LargeBatchFilter(ratio=0.8), [np.nan, np.nan, 3.0, np.nan, np.nan]) == [2]


def test_the_choice_is_made_once():
    policy = LargeBatchFilter(ratio=0.25)
    history = begun(policy, PROBE)
    history.record(np.arange(8), np.array(PROBE, np.float32)[::-1], 3)
    assert policy.select(history, Clock(4, 4, 10, 0.4), np.random.default_rng(0)).rows.tolist() == [0, 1, 2, 3, 4, 5]
    np.testing.assert_array_equal(history.notes["noise"], np.array(PROBE, np.float32))


def test_one_row_or_nothing_known():
    assert dropped(LargeBatchFilter(ratio=0.9), [1.0]) == []
    chosen = LargeBatchFilter().select(History.empty(3), Clock(0, 0, 3, 0.0), np.random.default_rng(0))
    assert chosen.rows.tolist() == [0, 1, 2]


def test_no_probe_is_refused_with_the_cure():
    for earlier in (None, History.empty(4)):
        with pytest.raises(ValueError, match=r"LargeBatchFilter\(.*uniform:keep=1.*history='probe'.*by='centroid'"):
            LargeBatchFilter().begin(History.empty(4), earlier)


def test_facts_are_asked_for_where_they_are_used():
    assert LargeBatchFilter().needs == frozenset()
    assert LargeBatchFilter(per_class=True).needs == {"classes"}
    assert LargeBatchFilter(buckets=2).needs == {"tokens"}
    assert LargeBatchFilter(duplicates=True).needs == {"features"}
    assert LargeBatchFilter(by="centroid", per_class=True).needs == {"features", "classes"}


@pytest.mark.parametrize(
    ("field", "value"),
    [("ratio", 1.0), ("ratio", -0.1), ("buckets", 0), ("buckets", 1.5), ("by", "margin")],
)
def test_fields_outside_their_range_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"LargeBatchFilter\({field}=...\) must be .*got '?{value}"):
        LargeBatchFilter(**{field: value})


# ---- Distances and duplicates ----


def test_distance_to_the_mean_of_the_words():
    """Two tokens of 4 rows: token 0 in rows 0, 1, 2, token 1 in row 3; each row of length 1, so (1, 0) or (0, 1).

    The mean is (3/4, 1/4): rows 0 to 2 are sqrt(1/16 + 1/16) from it, row 3 is sqrt(9/16 + 9/16).
    """
    texts = matrix_of([[0], [0, 0], [0], [1]])
    expected = np.sqrt([1 / 8, 1 / 8, 1 / 8, 9 / 8])
    np.testing.assert_allclose(distances(Features((texts,)), np.zeros(4, np.int64)), expected, atol=1e-6)
    both = distances(Features((texts, texts)), np.zeros(4, np.int64))  # source and target: squares add up
    np.testing.assert_allclose(both, expected * np.sqrt(2), atol=1e-6)


def test_rare_words_weigh_more():
    """Of 2 rows, token 0 is in both (1 + idf = 1) and token 1 in one (1 + ln 2).

    Row 0 is (1, 0), row 1 is (1, w) / sqrt(1 + w^2); with two rows, each is half their distance from the mean.
    """
    w = 1 + np.log(2)
    half = np.sqrt((1 - 1 / np.sqrt(1 + w**2)) ** 2 + w**2 / (1 + w**2)) / 2
    found = distances(Features((matrix_of([[0], [0, 1]]),)), np.zeros(2, np.int64))
    np.testing.assert_allclose(found, [half, half], atol=1e-6)


def test_each_class_has_its_own_centroid():
    """Rows of class 1 have token 1 alone; the row of token 0 among them is the outlier, and not among those of class 0.

    Without classes, token 0 and token 1 are as frequent as each other, and no row stands out.
    """
    features = Features((matrix_of([[0], [0], [0], [1], [1], [1], [1], [0]]),), classes=LABELS)
    policy = LargeBatchFilter(ratio=0.25, by="centroid", per_class=True)
    assert 7 in dropped(policy, features=features, n=8)
    assert 3 in dropped(policy, features=features, n=8)
    np.testing.assert_allclose(begun(LargeBatchFilter(by="centroid"), features=features, n=8).notes["noise"], 0.5**0.5)


def test_an_empty_text_lies_at_the_origin():
    found = distances(Features((matrix_of([[], [0], [0]]),)), np.zeros(3, np.int64))
    np.testing.assert_allclose(found, [2 / 3, 1 / 3, 1 / 3], atol=1e-6)


def test_distances_of_many_rows_are_those_of_dense_arithmetic(rng):
    rows = [rng.integers(0, 12, size=length).tolist() for length in rng.integers(1, 9, size=60)]
    groups = rng.integers(0, 3, 60)
    counts = matrix_of(rows).toarray().astype(np.float64)
    dense = counts * (1 + np.log(60 / (counts > 0).sum(axis=0)))
    dense /= np.linalg.norm(dense, axis=1, keepdims=True)
    means = np.stack([dense[groups == group].mean(axis=0) for group in range(3)])
    expected = np.linalg.norm(dense - means[groups], axis=1)
    np.testing.assert_allclose(distances(Features((matrix_of(rows),)), groups), expected, atol=1e-6)


@pytest.mark.parametrize("n", [5, 4096, 9000])  # less than a block, a block, more than two
def test_distance_to_the_mean_of_the_pixels(n, rng):
    pixels, groups = rng.integers(0, 256, (n, 6), dtype=np.uint8), rng.integers(0, 3, n)
    groups[:2] = 4  # group 3 has no row
    means = {group: pixels[groups == group].mean(axis=0) for group in set(groups.tolist())}
    expected = [np.linalg.norm(row - means[group]) for row, group in zip(pixels, groups.tolist(), strict=True)]
    np.testing.assert_allclose(distances(Features(pixels=pixels), groups), expected, rtol=1e-6)


def test_all_rows_equal_have_no_outlier():
    found = distances(Features((matrix_of([[3, 1, 1]] * 7),)), np.zeros(7, np.int64))
    np.testing.assert_allclose(found, 0, atol=1e-6)


def test_repeats_are_told_by_all_texts_counts_and_the_group():
    source = matrix_of([[0, 1], [1, 0], [0, 1, 1], [0, 1], [0, 1], []])
    target = matrix_of([[2], [2], [2], [3], [2], []])
    groups = np.array([0, 0, 0, 0, 1, 0])
    assert repeats(Features((source,)), np.zeros(6, np.int64)).tolist() == [False, True, False, True, True, False]
    assert repeats(Features((source, target)), groups).tolist() == [False, True, False, False, False, False]
    assert not repeats(Features((source, source[[5, 5, 5, 5, 5, 0]])), groups)[5]  # nothing, then what row 0 began with


def test_repeats_among_pixels(rng):
    pixels = rng.integers(0, 256, (300, 5), dtype=np.uint8)
    assert not repeats(Features(pixels=pixels), np.zeros(300, np.int64)).any()
    doubled = Features(pixels=np.concatenate([pixels, pixels]))
    assert repeats(doubled, np.zeros(600, np.int64)).tolist() == [False] * 300 + [True] * 300


def test_duplicates_go_before_the_share_is_counted():
    """Rows 0, 1, 2 are alike: 1 and 2 go. Of the 6 others, floor(0.3 * 6) = 1 of largest loss: 7.

    With classes, the cells that remain are {0, 3} and {4, 5, 6, 7}, of which 0.25 is none and one row.
    """
    features = Features((matrix_of([[0], [0], [0], [1], [2], [3], [4], [5]]),), classes=LABELS)
    assert dropped(LargeBatchFilter(ratio=0.3, duplicates=True), PROBE, features=features) == [1, 2, 7]
    assert dropped(LargeBatchFilter(ratio=0, duplicates=True), PROBE, features=features) == [1, 2]
    policy = LargeBatchFilter(ratio=0.25, duplicates=True, per_class=True)
    assert dropped(policy, PROBE, features=features) == [1, 2, 7]
    assert dropped(policy, PROBE[::-1], features=features) == [1, 2, 5]


# ---- The learning rate ----


def test_the_learning_rate_for_a_larger_batch():
    assert abs(scaled_learning_rate(5e-5, 256, 32, "linear") - 4.0e-4) < 1e-9
    assert abs(scaled_learning_rate(5e-5, 256, 32) - 1.414214e-4) < 1e-9
    assert scaled_learning_rate(5e-5, 32, 32) == scaled_learning_rate(5e-5, 32, 32, "linear") == 5e-5


def test_a_bad_rule_or_batch_is_refused():
    with pytest.raises(ValueError, match=r"scaled_learning_rate\(rule=...\) must be 'sqrt' or 'linear', got 'cube'"):
        scaled_learning_rate(5e-5, 256, 32, "cube")
    for batches in ((0, 32), (256, 0)):
        with pytest.raises(ValueError, match="batches must be at least 1"):
            scaled_learning_rate(5e-5, *batches)
