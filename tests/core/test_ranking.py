"""The rows of highest score, ties at random, and shares of groups, by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_prune.core.ranking import first_of_groups, length_buckets, ranked, top

NAN, INF = np.nan, np.inf
SCORES = st.lists(st.sampled_from([NAN, INF, -INF, 0.0, 1.0, 1.0, 2.0]), min_size=1, max_size=40)


def rng(seed=0):
    return np.random.default_rng(seed)


def by_place(score):
    """Scores in the order in which they come: NaN before everything, then the highest."""
    return sorted(score, key=lambda value: (not np.isnan(value), -value))


@settings(max_examples=200, deadline=None)
@given(score=SCORES, k=st.integers(0, 50), seed=st.integers(0, 99))
def test_the_top_is_the_head_of_the_ranking(score, k, seed):
    score = np.array(score)
    rows, order = top(score, k, rng(seed)), ranked(score, rng(seed))
    assert sorted(order.tolist()) == list(range(len(score)))
    assert len(set(rows.tolist())) == len(rows) == min(k, len(score))
    assert rows.dtype == order.dtype == np.int64
    np.testing.assert_array_equal(score[order], by_place(score))
    np.testing.assert_array_equal(by_place(score[rows]), by_place(score)[:k])


@pytest.mark.parametrize(
    ("score", "k", "rows"),
    [
        ([0.3, 0.1, 0.4, 0.2], 2, [0, 2]),
        ([NAN, 0.2, 0.3, 0.4, 1.0, NAN, 3.0, 5.0], 4, [0, 5, 6, 7]),  # both without a score, then the two highest
        ([INF, NAN, 1.0], 1, [1]),  # none comes before infinity, too
        ([INF, NAN, 1.0], 2, [0, 1]),
        ([-INF, NAN, -INF, 1.0], 2, [1, 3]),
        ([1.0, 2.0], 0, []),
        ([NAN, 2.0], 0, []),
        ([1.0, NAN, 2.0], 5, [0, 1, 2]),
        ([7.0], 1, [0]),
    ],
)
def test_top_by_hand(score, k, rows):
    assert sorted(top(np.array(score), k, rng()).tolist()) == rows
    assert sorted(ranked(np.array(score), rng())[:k].tolist()) == rows


def test_ranked_by_hand():
    assert ranked(np.array([0.3, INF, NAN, -INF, 0.5], np.float32), rng()).tolist() == [2, 1, 4, 0, 3]


def test_neither_changes_the_scores():
    score = np.array([NAN, 1.0, 1.0, INF])
    for k in range(5):
        top(score, k, rng())
    ranked(score, rng())
    np.testing.assert_array_equal(score, [NAN, 1.0, 1.0, INF])


def test_whole_numbers_are_scores():
    score = np.array([0, -1, 0, -2], np.int32)
    assert sorted(top(score, 2, rng()).tolist()) == sorted(ranked(score, rng())[:2].tolist()) == [0, 2]


@pytest.mark.parametrize("choose", [top, lambda score, k, rng: ranked(score, rng)[:k]])
@pytest.mark.parametrize("value", [NAN, INF, 0.0, -INF])
def test_with_all_scores_equal_the_classes_follow_the_data(choose, value):
    """1000 rows sorted into classes of 400, 300, 200, 100: 40 % of 300 chosen are of the first, hypergeometric."""
    sizes, draws = np.array([400, 300, 200, 100]), 200
    classes = np.repeat(np.arange(4), sizes)
    counts = [np.bincount(classes[choose(np.full(1000, value), 300, rng(seed))], minlength=4) for seed in range(draws)]
    spread = np.sqrt(300 * sizes / 1000 * (1 - sizes / 1000) * 700 / 999)
    assert (np.abs(np.mean(counts, axis=0) - 0.3 * sizes) < 4 * spread / np.sqrt(draws)).all()


@pytest.mark.parametrize("choose", [top, lambda score, k, rng: ranked(score, rng)[:k]])
def test_rows_at_the_threshold_have_equal_chances(choose):
    """Of [2, 1, 1, 1, 0, none] four are chosen: rows 0 and 5, and two of rows 1 to 3 with chance 2/3 each."""
    score, draws = np.array([2.0, 1.0, 1.0, 1.0, 0.0, NAN]), 4000
    visits = np.sum([np.bincount(choose(score, 4, rng(seed)), minlength=6) for seed in range(draws)], axis=0)
    assert visits[[0, 4, 5]].tolist() == [draws, 0, draws]
    assert (np.abs(visits[1:4] / draws - 2 / 3) < 4 * np.sqrt(2 / 9 / draws)).all()


@pytest.mark.parametrize(
    ("order", "share", "rows"),
    [
        ([5, 4, 3, 2, 1, 0], 0.5, [5, 4, 1]),  # groups of 2 and 4: 1 and 2 rows of them
        ([0, 1, 2, 3, 4, 5], 0.5, [0, 2, 3]),
        ([1, 0], 0.5, [1]),  # the group counts among all rows, not among the order
        ([3, 2], 0.5, [3, 2]),
        ([5, 0, 4, 1, 3, 2], 1.0, [5, 0, 4, 1, 3, 2]),
        ([5, 0, 4], 0.24, []),  # floor(0.48) and floor(0.96)
        ([5, 0, 4], 0.0, []),
        ([], 0.5, []),
    ],
)
def test_no_group_gives_more_than_its_share(order, share, rows):
    groups = np.array([0, 0, 1, 1, 1, 1])
    chosen = first_of_groups(np.array(order, np.int64), groups, share)
    assert chosen.tolist() == rows
    assert chosen.dtype == np.int64


def test_a_share_that_floating_point_misses_is_met():
    """0.29 * 100 is 28.999999999999996."""
    assert len(first_of_groups(np.arange(100), np.zeros(100, np.int64), 0.29)) == 29


@settings(max_examples=100, deadline=None)
@given(groups=st.lists(st.integers(0, 5), min_size=1, max_size=60), share=st.sampled_from([0.1, 1 / 3, 0.5, 0.9, 1.0]))
def test_groups_against_a_loop(groups, share):
    groups = np.array(groups)
    order, taken, expected = rng(1).permutation(len(groups)), np.zeros(6, int), []
    for row in order:
        if taken[groups[row]] < int(share * (groups == groups[row]).sum() + 1e-9):
            taken[groups[row]] += 1
            expected.append(row)
    assert first_of_groups(order, groups, share).tolist() == expected


@pytest.mark.parametrize(
    ("lengths", "buckets", "expected"),
    [
        ([8, 1, 7, 2, 6, 3, 5, 4], 4, [3, 0, 3, 0, 2, 1, 2, 1]),  # edges 2.75, 4.5, 6.25
        ([8, 1, 7, 2, 6, 3, 5, 4], 1, [0] * 8),
        ([1, 2, 3], 2, [0, 1, 1]),  # a length on the edge 2 is of the upper bucket
        ([9], 3, [2]),
    ],
)
def test_lengths_fall_into_quantile_ranges(lengths, buckets, expected):
    found = length_buckets(np.array(lengths, np.int32), buckets)
    assert found.tolist() == expected
    assert found.dtype == np.int64


def test_equal_lengths_share_a_bucket_and_buckets_are_about_equal():
    lengths = rng().geometric(0.05, 10_000)
    buckets = length_buckets(lengths, 5)
    assert all(len(set(buckets[lengths == length])) == 1 for length in np.unique(lengths))
    assert (np.diff(buckets[np.argsort(lengths)]) >= 0).all()
    assert np.abs(np.bincount(buckets) / 10_000 - 0.2).max() < 0.05
