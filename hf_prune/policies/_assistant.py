"""A logistic model of rows' words or pixels: its inputs, its predictions, and its training."""

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import expit

from ..core.features import Features, sums, valued


def width(features: Features) -> int:
    """Count the model's parameters.

    With texts: two for each word of each text, one for each text, and one bias. Else one per pixel and per class.
    """
    if features.texts:
        return sum(2 * len(idf) + 1 for idf in features.idf) + 1
    assert features.pixels is not None
    return len(features.pixels[0]) + features.class_count


class Columns(NamedTuple):
    """Some columns of the model's inputs for M rows: `matrix`, with a factor for each row and each column.

    The factors are applied when the matrix is multiplied with the parameters: this is faster than scaling the matrix.
    """

    matrix: Any  # (M, C) float32, sparse, or dense without factors
    row_factor: Any = 1.0  # (M,) float32
    column_factor: Any = 1.0  # (C,) float32

    def times(self, parameters: np.ndarray) -> np.ndarray:
        """(M,) product with (C,) parameters."""
        return self.row_factor * (self.matrix @ (self.column_factor * parameters))

    def written_out(self) -> Any:
        """(M, C) float32, the factors applied."""
        if not sparse.issparse(self.matrix):
            return self.matrix
        of_row = np.repeat(self.row_factor, np.diff(self.matrix.indptr))
        of_column = np.broadcast_to(self.column_factor, self.matrix.shape[1])[self.matrix.indices]
        return valued(self.matrix, (self.matrix.data * of_row * of_column).astype(np.float32))


def inputs(features: Features, rows: np.ndarray) -> list[Columns]:
    """Make the model's inputs for some rows, as blocks of columns.

    For each text: its distinct words, each with the value 1 / (number of distinct words); then the tf-idf of its words.
    After all texts: a tenth of the number of distinct words of each text, and 1. For a picture: its pixels in [-1, 1]
    and its class.

    Args:
        features: Features of all rows; the texts are used if there are any, else the pixels.
        rows: (M,) int64.
    """
    if not features.texts:
        assert features.pixels is not None
        classes = np.zeros((len(rows), features.class_count), np.float32)
        if features.classes is not None:
            classes[np.arange(len(rows)), features.classes[rows]] = 1
        return [Columns(features.pixels[rows].astype(np.float32) / np.float32(127.5) - 1), Columns(classes)]
    columns: list[Columns] = []
    sizes: list[np.ndarray] = []
    for text, idf in zip(features.texts, features.idf, strict=True):
        part = text[rows]
        distinct = np.diff(part.indptr).astype(np.float32)
        lengths = sums(part, np.ones(part.shape[1], np.float32))
        columns.append(Columns(valued(part, np.ones_like(part.data)), 1 / np.maximum(1, distinct)))
        columns.append(Columns(part, 1 / np.maximum(1, lengths), idf))
        sizes.append(distinct / 10)
    return [*columns, Columns(np.column_stack([*sizes, np.ones_like(sizes[0])]))]


def outputs(columns: list[Columns], parameters: np.ndarray) -> np.ndarray:
    """Compute z of each row, (M,).

    Args:
        columns: The result of `inputs`.
        parameters: (P,) float32.
    """
    borders = np.cumsum([one.matrix.shape[1] for one in columns])[:-1]
    return np.sum([one.times(part) for one, part in zip(columns, np.split(parameters, borders), strict=True)], axis=0)


def joined(columns: list[Columns]) -> Any:
    """Join all columns into one float32 matrix."""
    matrices = [one.written_out() for one in columns]
    if not sparse.issparse(matrices[0]):
        return np.concatenate(matrices, axis=1)
    return sparse.hstack([sparse.csr_array(matrix) for matrix in matrices], format="csr")


def chance_of(z: np.ndarray) -> np.ndarray:
    """Compute sigma(z), the predicted probability."""
    return expit(z)


def step(parameters: np.ndarray, x: Any, label: np.ndarray, rate: float, l2: float) -> None:
    """Take one gradient step on the rows' mean logistic loss + L2 |parameters|^2 / 2M, in place.

    Args:
        parameters: (P,) float32.
        x: (M, P) float32, the result of `joined`, or rows of it.
        label: (M,) bool, the true labels of the rows.
        rate: Learning rate.
        l2: L2.
    """
    missed = chance_of(x @ parameters) - label
    pace = rate / len(label)
    parameters *= 1 - pace * l2
    if sparse.issparse(x):  # updates only the words that occur: a dense gradient would be as wide as the vocabulary
        moves = pace * x.data * np.repeat(missed, np.diff(x.indptr))
        np.subtract.at(parameters, x.indices, moves.astype(np.float32))
    else:
        parameters -= pace * (missed @ x)


def learn(parameters: np.ndarray, x: Any, label: np.ndarray, parts: int, rate: float, l2: float) -> float:
    """Take a `step` for each part of a batch.

    Args:
        parameters: (P,) float32, changed in place.
        x: (M, P) float32, the result of `joined`, or rows of it.
        label: (M,) bool, the true labels of the rows.
        parts: Number of parts, at most M.
        rate: Learning rate.
        l2: L2.

    Returns:
        The share of the batch whose label was predicted correctly before the first step.
    """
    predicted: np.ndarray = x @ parameters > 0
    right = float((predicted == label).mean())
    for part in np.array_split(np.arange(len(label)), parts):
        step(parameters, x[part[0] : part[-1] + 1], label[part], rate, l2)
    return right
