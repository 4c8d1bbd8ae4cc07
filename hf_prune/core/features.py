"""Features: what is known about every row before training, that is, its words or pixels and its class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.sparse import csr_array

FILE_ROW = "file_row"  # column of a row's number in the file or split that it was read from; the recipes add it
_ROWS_AT_A_TIME = 50_000


@dataclass(frozen=True, eq=False)
class Features:
    """What a policy may know about N rows besides measurements. It is read from the data set once, before training.

    Args:
        texts: For each text of a row (the input; with an encoder-decoder also the target), the number of times that
            each token id occurs in it: (N, V) sparse float32, column indices sorted.
        pixels: (N, P) uint8, pictures shrunk to one size; None = rows have no picture.
        classes: (N,) int64, class of each row, from 0; None = rows have no class.
        columns: Values of the columns that the policy names in `reads_columns`, (N,) each: booleans or numbers, or
            objects where a value is a text or missing (None).
        listed: (N,) bool, the rows that the file in the policy's `reads_file` lists; None = it names no file.
        groups: (N,) int64, the first row of each row's group of near-duplicates, see `data.duplicates.find_groups`;
            None = nobody asked for them.
    """

    texts: tuple[csr_array, ...] = ()
    pixels: np.ndarray | None = None
    classes: np.ndarray | None = None
    columns: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    listed: np.ndarray | None = None
    groups: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        """Bytes in memory: 8 per distinct token of a row, 4 per row and text, P per picture, 8 per class and group."""
        arrays = [array for text in self.texts for array in (text.data, text.indices, text.indptr)]
        return sum(array.nbytes for array in (*arrays, self.pixels, self.classes, self.groups) if array is not None)

    @cached_property
    def idf(self) -> tuple[np.ndarray, ...]:
        """For each text, the inverse document frequency of each token: (V,) float32, ln(N / rows with the token)."""
        return tuple(
            np.log(text.shape[0] / np.maximum(1, np.bincount(text.indices, minlength=text.shape[1]))).astype(np.float32)
            for text in self.texts
        )

    @cached_property
    def token_counts(self) -> tuple[np.ndarray, ...]:
        """For each text, the number of times that each token occurs in all rows: (V,) float64."""
        return tuple(np.bincount(text.indices, weights=text.data, minlength=text.shape[1]) for text in self.texts)

    @cached_property
    def class_count(self) -> int:
        """Number of classes: the highest class plus one; 0 = rows have no class."""
        return 0 if self.classes is None else int(self.classes.max()) + 1


def count_matrix(ids: np.ndarray, offsets: np.ndarray) -> csr_array:
    """Count how often each token occurs in each row, without a loop over rows.

    Args:
        ids: (T,) int64, the token ids of all rows one after another, from 0.
        offsets: (N + 1,) int64, where each row begins; row i is `ids[offsets[i]:offsets[i + 1]]`.

    Returns:
        (N, max(ids) + 1) float32, column indices sorted.
    """
    shape = (len(offsets) - 1, int(ids.max(initial=0)) + 1)
    index = np.int32 if len(ids) < 2**31 else np.int64  # scipy takes the wider of the two for both arrays
    counts = csr_array((np.ones(len(ids), np.float32), ids.astype(index), offsets.astype(index)), shape=shape)
    counts.sum_duplicates()  # sorts the indices of each row as well
    return counts


def stacked(parts: Sequence[csr_array]) -> csr_array:
    """Stack count matrices of consecutive rows into one, as wide as the widest."""
    width = max(part.shape[1] for part in parts)
    widened = [csr_array((p.data, p.indices, p.indptr), shape=(p.shape[0], width)) for p in parts]
    return csr_array(sparse.vstack(widened, format="csr"))


def sums(text: csr_array, values: np.ndarray) -> np.ndarray:
    """Sum the values of each row's tokens. A token that occurs k times counts k times.

    Args:
        text: (N, V) counts.
        values: (V,), the value of each token.

    Returns:
        (N,).
    """
    return np.asarray(text @ values)


def sums_of_distinct(text: csr_array, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Sum the values of the tokens of some rows. In each row, a token counts once.

    Args:
        text: (N, V) counts.
        values: (V,), the value of each token.
        rows: (M,) int64.

    Returns:
        (M,).
    """
    parts = (text[part] for part in _chunks(rows))
    return np.concatenate([sums(valued(part, np.ones(len(part.data), values.dtype)), values) for part in parts])


def rows_with(text: csr_array, rows: np.ndarray) -> np.ndarray:
    """Count, for each token, the rows among `rows` that hold it.

    Args:
        text: (N, V) counts.
        rows: (M,) int64.

    Returns:
        (V,) int64.
    """
    counts = np.zeros(text.shape[1], np.int64)
    for part in _chunks(rows):
        counts += np.bincount(text[part].indices, minlength=len(counts))
    return counts


def _chunks(rows: np.ndarray) -> list[np.ndarray]:
    return np.array_split(rows, len(rows) // _ROWS_AT_A_TIME + 1)


def valued(text: csr_array, values: np.ndarray) -> csr_array:
    """Make a matrix with other values at the places where `text` has counts.

    Args:
        text: (N, V) with Z counts; the new matrix shares its indices.
        values: (Z,), row by row.
    """
    return csr_array((values, text.indices, text.indptr), shape=text.shape)
