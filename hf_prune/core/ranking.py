"""Choosing rows by score: the highest first, ties at random, and no group more than its share."""

import numpy as np

TIES = 0  # seed that splits equal scores where the same rows are to stay in every round


def marked(rows: np.ndarray, n: int) -> np.ndarray:
    """A mask of rows.

    Args:
        rows: (K,) int64 in [0, n), which may repeat.
        n: Length of the mask.

    Returns:
        (n,) bool, true at `rows`.
    """
    marks = np.zeros(n, bool)
    marks[rows] = True
    return marks


def top(score: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """The k rows of highest score, by partition; rows without a score come before any other.

    Args:
        score: (N,) float, NaN = none.
        k: Rows wanted; more than N gives all.
        rng: Splits equal scores.

    Returns:
        (min(k, N),) int64, sorted.
    """
    n = len(score)
    if k >= n:
        return np.arange(n)
    threshold = np.partition(score, n - k)[n - k] if k else np.nan  # NaN sorts above everything
    if np.isnan(threshold):
        return np.sort(rng.choice(np.flatnonzero(np.isnan(score)), k, replace=False, shuffle=False))
    chosen = ~(score <= threshold)
    ties = np.flatnonzero(score == threshold)
    chosen[rng.choice(ties, k - int(np.count_nonzero(chosen)), replace=False, shuffle=False)] = True
    return np.flatnonzero(chosen)


def ranked(score: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """All rows from the highest score to the lowest, those without one (NaN) first, equal scores in random order.

    Args:
        score: (N,) float.
        rng: Orders equal scores.

    Returns:
        (N,) int64.
    """
    order = rng.permutation(len(score))
    shuffled = np.where(np.isnan(score), np.inf, score)[order]
    order = order[np.argsort(-shuffled, kind="stable")]
    unknown = np.isnan(score[order])  # +inf is a score, too, and comes after none
    return np.concatenate([order[unknown], order[~unknown]])


def first_of_groups(order: np.ndarray, groups: np.ndarray, share: float) -> np.ndarray:
    """The rows that come first in `order`, at most floor(share x size) of each group.

    Args:
        order: (M,) int64, rows, the ones to take first.
        groups: (N,) int64, group of each of all N rows (class, length bucket, both), from 0.
        share: Of each group's size among all N rows, in [0, 1].

    Returns:
        (K,) int64, a part of `order`, in its order.
    """
    caps = np.floor(share * np.bincount(groups) + 1e-9).astype(np.int64)
    of_row = groups[order]
    by_group = np.argsort(of_row, kind="stable")
    sorted_groups = of_row[by_group]
    starts = np.searchsorted(sorted_groups, sorted_groups)  # where each one's group begins
    taken = np.empty(len(order), bool)
    taken[by_group] = np.arange(len(order)) - starts < caps[sorted_groups]
    return order[taken]


def length_buckets(lengths: np.ndarray, buckets: int) -> np.ndarray:
    """The bucket of each length.

    Args:
        lengths: (N,) numbers.
        buckets: How many quantile ranges of about equal size there are.

    Returns:
        (N,) int64, from 0.
    """
    edges = np.quantile(lengths, np.arange(1, buckets) / buckets)
    return np.searchsorted(edges, lengths, side="right")
