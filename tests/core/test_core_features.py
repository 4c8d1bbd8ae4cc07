"""Counts of words, and how rare they are, by hand."""

import numpy as np
from texts import matrix_of

from hf_prune.core.features import Features, count_matrix, stacked, valued


def test_idf_is_from_the_rows_that_hold_a_token():
    (idf,) = Features((matrix_of([[0, 1, 1], [0, 1], [0, 3], [0]]),)).idf
    np.testing.assert_allclose(idf, np.log([4 / 4, 4 / 2, 4 / 1, 4 / 1]), rtol=1e-6)


def test_counting_and_stacking():
    counts = count_matrix(np.array([2, 0, 2]), np.array([0, 3, 3]))
    assert counts.toarray().tolist() == [[1, 0, 2], [0, 0, 0]]
    narrow = matrix_of([[], []])
    whole = stacked([narrow, counts])
    assert whole.toarray().tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 2], [0, 0, 0]]
    assert narrow.shape == (2, 1)
    assert valued(counts, np.ones(2)).toarray().tolist() == [[1, 0, 1], [0, 0, 0]]
    assert Features().class_count == 0
