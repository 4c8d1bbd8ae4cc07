"""What a round measured, brought together."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_prune.core.ranking import marked
from hf_prune.measure.recorder import Measurements, Recorder


def one_process(arrays, count):
    return arrays, count


def add(recorder, rows, losses, padded=10):
    rows = torch.tensor(rows)
    recorder.add(rows, rows + 100, [torch.tensor(losses)], padded)


def test_visits_come_in_the_order_of_training_whenever_they_are_brought():
    recorder = Recorder(1)
    add(recorder, [3, 1], [0.3, 0.1])
    np.testing.assert_array_equal(recorder.drain()[0], np.array([0.3, 0.1], np.float32))
    add(recorder, [2], [0.2], padded=5)
    measured = recorder.collect(one_process)
    assert measured.rows.tolist() == [3, 1, 2]
    assert measured.tokens.tolist() == [103, 101, 102]
    np.testing.assert_array_equal(measured.values, np.array([[0.3, 0.1, 0.2]], np.float32))
    assert (recorder.counts(), measured.padded_tokens) == ((3, 15), 15)
    assert recorder.collect(one_process).rows.tolist() == [3, 1, 2]  # a checkpoint changes nothing
    assert len(recorder.drain()[0]) == 0


def test_row_numbers_that_no_float_can_hold_survive():
    recorder = Recorder(1)
    add(recorder, [16_777_217, 2**40 + 1], [0.5, 0.25])
    assert recorder.collect(one_process).rows.tolist() == [16_777_217, 2**40 + 1]


@given(visits=st.lists(st.integers(0, 9), max_size=20), seed=st.integers(0, 9))
def test_a_row_that_was_filled_in_again_counts_with_its_mean(visits, seed):
    rows = np.array(visits, np.int64)
    values = np.random.default_rng(seed).random((2, len(rows)), np.float32)
    found, tokens, means = Measurements(rows, 100 + rows, values, 0).by_row(marked(rows, 100))
    assert sorted(found) == sorted(set(visits))
    np.testing.assert_array_equal(tokens, 100 + found)
    expected = [values[:, rows == row].astype(np.float64).mean(axis=1) for row in found]
    np.testing.assert_allclose(means.T, np.reshape(expected, (-1, 2)), rtol=1e-6)


def test_the_mean_of_two_visits_does_not_depend_on_their_order():
    rows, values = np.array([4, 0, 4]), np.array([[0.1, 0.5, 0.7]], np.float32)
    first, second = (
        Measurements(rows[o], rows[o], values[:, o], 0).by_row(marked(rows, 9)) for o in ([0, 1, 2], [2, 1, 0])
    )
    assert first[2][0][first[0] == 4] == second[2][0][second[0] == 4]


def test_only_visits_that_told_something_make_a_rows_mean():
    nan, blank, fault = np.nan, -np.inf, np.inf
    visits = {
        0: ([0.1, blank], 0.1),
        1: ([blank, 0.5, 0.7], 0.6),
        2: ([nan, 0.5], 0.5),
        3: ([fault, 0.5], fault),
        4: ([fault, blank], fault),
        5: ([blank, blank], blank),
        6: ([nan, nan], nan),
        7: ([0.25], 0.25),
        8: ([blank], blank),
    }
    rows = np.concatenate([np.full(len(losses), row) for row, (losses, _) in visits.items()])
    values = np.concatenate([losses for losses, _ in visits.values()]).astype(np.float32)[None]
    found, _, means = Measurements(rows, rows, values, 0).by_row(marked(rows, 9))
    expected = np.array([visits[row][1] for row in found.tolist()], np.float32)
    np.testing.assert_allclose(means[0], expected, rtol=1e-6)


def test_the_measurements_of_all_processes_are_joined():
    other = Recorder(1)
    add(other, [9], [0.9], padded=20)
    theirs = other.collect(one_process)

    def gather(arrays, count):
        columns = torch.tensor(np.stack([theirs.rows, theirs.tokens])), torch.from_numpy(theirs.values)
        joined = [torch.cat(pair, dim=1) for pair in zip(arrays, columns, strict=True)]
        return joined, count + theirs.padded_tokens

    recorder = Recorder(1)
    add(recorder, [3, 1], [0.3, 0.1])
    measured = recorder.collect(gather)
    assert measured.rows.tolist() == [3, 1, 9]
    np.testing.assert_array_equal(measured.values, np.array([[0.3, 0.1, 0.9]], np.float32))
    assert measured.padded_tokens == 30


def test_rows_alone_are_counted_where_no_loss_is_known():
    recorder = Recorder(0)
    recorder.add(torch.tensor([3, 1]), torch.tensor([5, 6]), [], 11)
    measured = recorder.collect(one_process)
    rows, tokens, values = measured.by_row(marked(measured.rows, 4))
    assert (rows.tolist(), tokens.tolist(), values.shape) == ([3, 1], [5, 6], (0, 2))
    assert len(recorder.drain()[0]) == 0


def test_a_checkpoints_measurements_go_on():
    recorder = Recorder(1)
    add(recorder, [3, 1], [0.3, 0.1])
    saved = recorder.collect(one_process)
    again = Recorder(1)
    again.restore(saved)
    add(again, [2], [0.2])
    assert again.collect(one_process).rows.tolist() == [3, 1, 2]


def test_measurements_of_other_signals_keep_what_is_there():
    recorder = Recorder(2)
    recorder.add(torch.tensor([3, 1]), torch.tensor([5, 6]), [torch.tensor([0.3, 0.1]), torch.tensor([1.0, 0.0])], 12)
    saved, names = recorder.collect(one_process), ("loss", "correct")
    found = saved.of_signals(names, ("loss", "confidence", "correct"))
    np.testing.assert_array_equal(found.values, np.float32([[0.3, 0.1], [np.nan] * 2, [1, 0]]))
    assert found.rows.tolist() == [3, 1] and found.padded_tokens == 12
    assert saved.of_signals(names, ()).values.shape == (0, 2)
    blind = saved.of_signals(names, ())
    np.testing.assert_array_equal(blind.of_signals(("loss",), ("loss",)).values, np.full((1, 2), np.nan, np.float32))


def test_the_device_holds_some_batches_alone(monkeypatch):
    monkeypatch.setattr("hf_prune.measure.recorder._HELD", 3)
    recorder = Recorder(1)
    for row in range(7):
        add(recorder, [row], [row / 10])
        assert len(recorder._on_device) < 3
    found = recorder.collect(one_process)
    assert found.rows.tolist() == list(range(7))
    np.testing.assert_array_equal(found.values[0], np.arange(7, dtype=np.float32) / np.float32(10))


def test_the_last_visit_counts_where_a_mean_has_no_meaning():
    """Row 1 is visited twice, with classes 0 and 4: their mean would be a third class."""
    rows, values = np.array([1, 0, 1]), np.float32([[1, 2, 3], [0, 7, 4]])
    found, _, means = Measurements(rows, rows, values, 0).by_row(marked(rows, 2), extras=1)
    assert found.tolist() == [0, 1]
    np.testing.assert_array_equal(means, [[2, 2], [7, 4]])
