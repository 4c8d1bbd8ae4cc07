"""A History in a file, and what earlier versions called its parts."""

import numpy as np
import pytest

from hf_prune import History


def test_history_survives_a_file_and_refuses_other_data(tmp_path):
    history = History.empty(3, signals=("el2n",))
    history.record(np.array([1]), np.array([2.0], np.float32), 0, el2n=np.array([0.5], np.float32))
    history.notes["mean"] = np.arange(3.0)
    history.save(tmp_path / "history.safetensors")
    again = History.load(tmp_path / "history.safetensors", rows=3)
    assert list(again.arrays()) == list(history.arrays())
    for name, array in history.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], array)
    with pytest.raises(ValueError, match="of 3 rows, but the training set has 4"):
        History.load(tmp_path / "history.safetensors", rows=4)


def test_a_history_is_read_by_the_names_that_earlier_versions_gave():
    history = History.empty(3)
    history.record(np.array([1]), np.float32([0.5]), 2)
    history.faults[2] = 3
    arrays = history.arrays()
    arrays["seen"] = arrays.pop("last_round")
    again = History.from_arrays(arrays)
    assert again.last_round.tolist() == [-1, 2, -1]
    with pytest.warns(DeprecationWarning, match="last_round"):
        assert again.seen is again.last_round
    with pytest.warns(DeprecationWarning, match="never_finite"):
        assert again.hopeless.tolist() == [False, False, True]
