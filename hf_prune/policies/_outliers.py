"""Finds, without a model, rows far from the mean of their group and duplicate rows, for LargeBatchFilter."""

import numpy as np
from scipy.sparse import csr_array

from ..core.features import Features

_ROWS_AT_A_TIME = 4096  # pictures to convert at a time: as float64, they take eight times the memory


def distances(features: Features, groups: np.ndarray) -> np.ndarray:
    """Compute the Euclidean distance of each row to the mean of its group.

    It uses the texts (tf-idf, each text scaled to length 1) if there are any, else the pixels.

    Args:
        features: Features of N rows.
        groups: (N,) int64, group of each row, from 0.

    Returns:
        (N,) float32.
    """
    if features.texts:
        texts = zip(features.texts, features.idf, strict=True)
        squares = sum((_squares(text, idf, groups) for text, idf in texts), start=np.zeros(len(groups)))
        return np.sqrt(np.maximum(squares, 0)).astype(np.float32)
    assert features.pixels is not None
    pixels, sizes = features.pixels, np.bincount(groups)
    blocks = [slice(start, start + _ROWS_AT_A_TIME) for start in range(0, len(pixels), _ROWS_AT_A_TIME)]
    means = np.zeros((len(sizes), pixels.shape[1]))
    for block in blocks:
        order = np.argsort(groups[block], kind="stable")
        here, starts = np.unique(groups[block][order], return_index=True)
        means[here] += np.add.reduceat(pixels[block][order].astype(np.float64), starts) / sizes[here, None]
    return np.concatenate([np.linalg.norm(pixels[at] - means[groups[at]], axis=1) for at in blocks]).astype(np.float32)


def repeats(features: Features, groups: np.ndarray) -> np.ndarray:
    """Find rows with the same features and group as an earlier row, by a 64-bit hash.

    Args:
        features: Features of N rows.
        groups: (N,) int64, group of each row.

    Returns:
        (N,) bool.
    """
    rng = np.random.default_rng(0)

    def keys(count: int) -> np.ndarray:
        return rng.integers(2**64, size=count, dtype=np.uint64)

    hashes = groups.astype(np.uint64) * keys(1)
    for text in features.texts:
        counts, tokens, ends, width = _parts(text)
        sums = np.cumsum(counts.astype(np.uint64) * keys(width)[tokens], dtype=np.uint64)  # wraps around
        sums = np.concatenate([np.zeros(1, np.uint64), sums])[ends]
        hashes += sums[1:] - sums[:-1]
    if features.pixels is not None:
        hashes += np.einsum("np,p->n", features.pixels, keys(features.pixels.shape[1]))
    repeated = np.ones(len(groups), bool)
    repeated[np.unique(hashes, return_index=True)[1]] = False
    return repeated


def _squares(text: csr_array, idf: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Compute the squared distance of each row's tf-idf, scaled to length 1, to the mean of its group: (N,) float64.

    The tf-idf of a token is its count x (1 + idf). Without the 1, a text of tokens that all rows have has length 0.
    """
    counts, tokens, ends, width = _parts(text)
    n, sizes = len(groups), np.bincount(groups)
    row = np.repeat(np.arange(n), np.diff(ends))
    values = counts * (1 + idf.astype(np.float64))[tokens]
    values /= np.sqrt(np.bincount(row, values**2, n))[row]
    entry = groups[row] * width + tokens
    means = np.bincount(entry, values / sizes[groups[row]], len(sizes) * width)
    norms = np.reshape(np.square(means), (len(sizes), width)).sum(axis=1)
    return np.bincount(row, values**2 - 2 * values * means[entry], n) + norms[groups]


def _parts(text: csr_array) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return the parts of a sparse (N, V) array: counts, token ids, the borders of the rows, and V."""
    return text.data, text.indices, text.indptr, text.shape[1]
