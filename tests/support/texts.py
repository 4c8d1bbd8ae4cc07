"""Texts as the library keeps them, of token ids given row by row."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from hf_prune.core.features import count_matrix


def matrix_of(rows: Sequence[Sequence[int]]) -> csr_array:
    """`count_matrix` of rows given one by one."""
    return count_matrix(np.concatenate(rows).astype(np.int64), np.cumsum([0, *map(len, rows)]))
