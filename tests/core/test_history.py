"""The arrays of a History, by hand."""

import numpy as np
import pytest

from hf_prune import History
from hf_prune.policies.uniform import Uniform


def test_record_keeps_the_last_finite_loss_and_counts_the_others():
    history = History.empty(4, signals=("correct",))
    history.record(np.array([2, 0]), np.array([0.5, np.nan], np.float32), 0, correct=np.array([1, 0], np.float32))
    history.record(np.array([2, 1]), np.array([np.inf, 3.0], np.float32), 1, correct=np.array([0, 0], np.float32))
    np.testing.assert_array_equal(history.loss, np.array([np.nan, 3.0, 0.5, np.nan], np.float32))
    assert history.last_round.tolist() == [-1, 1, 0, -1]
    assert history.faults.tolist() == [1, 0, 1, 0]
    np.testing.assert_array_equal(history.signals["correct"], np.array([np.nan, 0, 1, np.nan], np.float32))


def test_faults_saturate():
    history = History.empty(1)
    for round in range(300):
        history.record(np.array([0]), np.array([np.nan], np.float32), round)
    assert history.faults.tolist() == [255]


def test_an_empty_training_set_has_no_history():
    with pytest.raises(ValueError, match="at least one row"):
        History.empty(0)


@pytest.mark.parametrize(
    "note",
    [
        np.array(["a"]),
        np.array([None]),
        np.array([1j]),
        np.array(["2026-01-01"], "M8[D]"),
        np.ones(2, np.longdouble),
        np.ones(2, ">f4"),
        "text",
        None,
        {"a": 1},
        [[1], [1, 2]],
    ],
)
def test_notes_that_no_file_can_hold_are_refused(note):
    history = History.empty(2)
    history.notes["held"] = np.ones(2, np.float16)
    history.check_notes(Uniform())
    history.notes["mine"] = note
    with pytest.raises(TypeError, match=r"Uniform keeps history.notes\['mine'\], a .*no checkpoint can hold"):
        history.check_notes(Uniform())


def test_a_note_goes_by_a_text(tmp_path):
    history = History.empty(2)
    history.notes[1] = np.ones(2)
    with pytest.raises(TypeError, match=r"history.notes\[1\]"):
        history.check_notes(Uniform())
