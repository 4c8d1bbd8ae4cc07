"""What is known of every row before any model has seen it: its words or pixels, and its class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array


@dataclass(frozen=True, eq=False)
class Features:
    """What a policy may ask for of N rows beside measurements; read from the data set once, before training.

    Args:
        texts: For each text of a row (the input; of an encoder-decoder also the target) how often each token id occurs
            in it: (N, V) sparse float32, column indices sorted.
        pixels: (N, P) uint8, pictures shrunk to one size; None where rows have none.
        classes: (N,) int64, class of each row, from 0; None where rows have none.
    """

    texts: tuple[csr_array, ...] = ()
    pixels: np.ndarray | None = None
    classes: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        """Bytes in memory: 8 per distinct token of a row, 8 per row and text, P per picture, 8 per class."""
        arrays = [array for text in self.texts for array in (text.data, text.indices, text.indptr)]
        return sum(array.nbytes for array in (*arrays, self.pixels, self.classes) if array is not None)


def count_matrix(ids: np.ndarray, offsets: np.ndarray) -> csr_array:
    """How often each token occurs in each row, without a loop over rows.

    Args:
        ids: (T,) int64, the token ids of all rows one after another, from 0.
        offsets: (N + 1,) int64, where each row begins; row i is `ids[offsets[i]:offsets[i + 1]]`.

    Returns:
        (N, max(ids) + 1) float32, column indices sorted.
    """
    width = int(ids.max(initial=-1)) + 1
    shape = (len(offsets) - 1, max(width, 1))
    counts = csr_array((np.ones(len(ids), np.float32), ids.astype(np.int32), offsets.astype(np.int64)), shape=shape)
    counts.sum_duplicates()  # sorts the indices of each row as well
    return counts


def matrix_of(rows: Sequence[Sequence[int]]) -> csr_array:
    """`count_matrix` of rows given one by one."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    ids = np.fromiter((token for row in rows for token in row), np.int64, lengths.sum())
    return count_matrix(ids, np.concatenate([[0], np.cumsum(lengths)]))
