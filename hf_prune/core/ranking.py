"""Functions that choose rows by score: highest first, ties at random, at most a given share of each group."""

import numpy as np

TIES = 0  # seed for breaking ties if the same rows must be chosen in every round


def marked(rows: np.ndarray, n: int) -> np.ndarray:
    """Make a mask of rows.

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
    """Return the k rows with the highest scores. Rows without a score come before all others.

    Args:
        score: (N,) float, NaN = no score.
        k: Number of rows; if it exceeds N, all rows are returned.
        rng: Breaks ties.

    Returns:
        (min(k, N),) int64, sorted.
    """
    n = len(score)
    if k >= n:
        return np.arange(n)
    threshold = np.partition(score, n - k)[n - k] if k else np.nan  # O(N), without a full sort; NaN sorts last
    if np.isnan(threshold):
        return np.sort(rng.choice(np.flatnonzero(np.isnan(score)), k, replace=False, shuffle=False))
    chosen = ~(score <= threshold)
    ties = np.flatnonzero(score == threshold)
    chosen[rng.choice(ties, k - int(np.count_nonzero(chosen)), replace=False, shuffle=False)] = True
    return np.flatnonzero(chosen)


def ranked(score: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sort all rows from the highest score to the lowest. Rows without a score (NaN) come first, ties in random order.

    Args:
        score: (N,) float.
        rng: Orders ties.

    Returns:
        (N,) int64.
    """
    order = rng.permutation(len(score))
    shuffled = np.where(np.isnan(score), np.inf, score)[order]
    order = order[np.argsort(-shuffled, kind="stable")]
    unknown = np.isnan(score[order])  # a true +inf is a score, so it must come after the rows without one
    return np.concatenate([order[unknown], order[~unknown]])


def first_of_groups(order: np.ndarray, groups: np.ndarray, share: float) -> np.ndarray:
    """Return the rows that come first in `order`, at most floor(share x size) of each group.

    Args:
        order: (M,) int64, rows; those to take first come first.
        groups: (N,) int64, group of each of all N rows (class, length bucket, or both), from 0.
        share: Share of each group's size among all N rows, in [0, 1].

    Returns:
        (K,) int64, a part of `order`, in the same order.
    """
    caps = np.floor(share * np.bincount(groups) + 1e-9).astype(np.int64)
    of_row = groups[order]
    by_group = np.argsort(of_row, kind="stable")
    sorted_groups = of_row[by_group]
    starts = np.searchsorted(sorted_groups, sorted_groups)  # for each row, the position where its group begins
    taken = np.empty(len(order), bool)
    taken[by_group] = np.arange(len(order)) - starts < caps[sorted_groups]
    return order[taken]


def length_buckets(lengths: np.ndarray, buckets: int) -> np.ndarray:
    """Return the bucket of each length. Buckets are quantile ranges of about equal size.

    Args:
        lengths: (N,) numbers.
        buckets: Number of buckets.

    Returns:
        (N,) int64, from 0.
    """
    edges = np.quantile(lengths, np.arange(1, buckets) / buckets)
    return np.searchsorted(edges, lengths, side="right")
