"""Rows by name: what a key column may hold, and which row of another training set is which."""

import hashlib

import inside
import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny import TASKS, Rows, trainer

from hf_prune import History
from hf_prune.data.keys import match, row_keys

NAMES = ["a", "b", "ß", "7"]


def rows_of(names):
    return [{"id": name, "input_ids": [1]} for name in names]


def test_keys_are_the_same_in_every_kind_of_data_set():
    expected = [int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") for name in NAMES]
    for dataset in (rows_of(NAMES), Rows(rows_of(NAMES)), Dataset.from_list(rows_of(NAMES))):
        keys = row_keys(dataset, "id")
        assert keys.dtype == np.uint64
        assert keys.tolist() == expected


def test_a_number_and_its_text_are_one_name():
    expected = row_keys(rows_of(["3", "12"]), "id").tolist()
    for numbers in ([3, 12], [np.int64(3), np.int32(12)], [torch.tensor(3), torch.tensor(12)], [b"3", b"12"]):
        assert row_keys(rows_of(numbers), "id").tolist() == expected
    assert row_keys(Dataset.from_dict({"id": [3, 12]}), "id").tolist() == expected


def test_an_arrow_data_set_is_read_as_it_is_stored():
    stored = Dataset.from_list(rows_of(NAMES))
    expected = row_keys(stored, "id").tolist()
    assert row_keys(stored.with_transform(lambda batch: {"other": batch["input_ids"]}), "id").tolist() == expected
    assert row_keys(stored.select([3, 0]), "id").tolist() == [expected[3], expected[0]]


@pytest.mark.parametrize("kind", [list, Dataset.from_list])
def test_names_that_are_there_twice_are_named(kind):
    with pytest.raises(ValueError, match=r"2 values of that column are there again, such as '(b|7)', '(b|7)' \(rows"):
        row_keys(kind(rows_of(["a", "b", "7", "b", "7"])), "id")


@pytest.mark.parametrize("value", [None, 0.5, True, [1]])
def test_what_names_no_row_is_refused(value):
    with pytest.raises(ValueError, match="history_key='id': row 1 has .* neither text nor a whole number"):
        row_keys(rows_of(["a", value]), "id")


def test_a_missing_value_of_an_arrow_data_set_is_refused():
    with pytest.raises(ValueError, match="history_key='id': row 1 has None"):
        row_keys(Dataset.from_dict({"id": ["a", None]}), "id")


@pytest.mark.parametrize("rows", [rows_of(NAMES), Dataset.from_list(rows_of(NAMES)), [(1, 2)]])
def test_a_missing_column_is_refused_with_those_there_are(rows):
    names = "no names" if isinstance(rows[0], tuple) else "id, input_ids"
    with pytest.raises(ValueError, match=f"history_key='name': the rows have {names}. Name a column of unique"):
        row_keys(rows, "name")


def test_two_names_of_one_hash_are_told_from_a_duplicate(monkeypatch):
    real = hashlib.blake2b
    monkeypatch.setattr(hashlib, "blake2b", lambda text, digest_size: real(b"same", digest_size=digest_size))
    with pytest.raises(ValueError, match=r"history_key='id': the values of rows 0 and 1 have the same hash"):
        row_keys(rows_of(["a", "b"]), "id")


def test_rows_take_their_values_along():
    """Kept: rows 3 and 1 of the earlier one, in that order, and a new row between them."""
    earlier = History.empty(4, ("correct",))
    earlier.keys = row_keys(rows_of(["a", "b", "c", "d"]), "id")
    earlier.record(np.array([1, 3]), np.array([0.5, 2.0], np.float32), 6, correct=np.array([1, 0], np.float32))
    earlier.tokens[:] = [4, 5, 6, 7]
    earlier.faults[3] = 2
    earlier.notes = {"score": np.arange(4, dtype=np.float32), "right": np.arange(4), "weights": np.ones((2, 4))}
    earlier.facts = {"policy": "EL2N(keep=1)"}
    history, found = match(earlier, row_keys(rows_of(["d", "new", "b"]), "id"))
    assert found == 2
    np.testing.assert_array_equal(history.loss, np.array([2.0, np.nan, 0.5], np.float32))
    np.testing.assert_array_equal(history.signals["correct"], np.array([0, np.nan, 1], np.float32))
    assert [history.last_round.tolist(), history.tokens.tolist(), history.faults.tolist()] == [
        [6, -1, 6],
        [7, 0, 5],
        [2, 0, 0],
    ]
    assert set(history.notes) == {"score"}
    np.testing.assert_array_equal(history.notes["score"], np.array([3, np.nan, 1], np.float32))
    assert history.facts == earlier.facts


def test_matching_sorts_but_does_not_loop(rng):
    """A million rows in another order, a tenth of them unknown; a loop in Python would take seconds."""
    keys = rng.permutation(np.arange(1_000_000, dtype=np.uint64))
    earlier = History.empty(900_000)
    earlier.keys = keys[:900_000]
    earlier.loss[:] = earlier.keys
    history, found = match(earlier, np.sort(keys))
    assert found == 900_000
    known = ~np.isnan(history.loss)
    np.testing.assert_array_equal(history.loss[known], np.sort(keys)[known].astype(np.float32))


# ---- In a run ----

TASK = TASKS["one label"]
POLICY = "infobatch"


def named(rows, begin=0):
    return [{**row, "id": f"row {begin + i}"} for i, row in enumerate(rows)]


def run(folder, rows, **settings):
    made = trainer(folder, TASK.model(), rows, POLICY, history_key="id", num_train_epochs=1, **settings)
    made.train()
    made.save_model()
    return made


@pytest.mark.parametrize("kind", [list, Rows, Dataset.from_list])
def test_a_second_run_knows_its_rows_again(tmp_path, caplog, kind):
    rows = named(TASK.rows())
    first = run(tmp_path / "first", kind(rows))
    facts = History.load(tmp_path / "first" / "history.safetensors").facts
    assert facts["key"] == "id" and facts["cost"]["rows"] == len(rows)
    mixed = [rows[5], *named(TASK.rows(2), begin=100), rows[20], rows[0], rows[3]]
    second = trainer(
        tmp_path / "second", TASK.model(), kind(mixed), POLICY, history_key="id", history=tmp_path / "first"
    )
    assert caplog.text.count("has 4 of the 6 rows; the others begin as never seen") == 1
    history = inside.begun(second)
    expected = first.history.loss[[5, 0, 0, 20, 0, 3]]
    expected[1:3] = np.nan
    np.testing.assert_array_equal(history.loss, expected)
    assert history.last_round.tolist() == [0, -1, -1, 0, 0, 0]
    second.train()
    assert second.pruning_report().earlier["rows"] == len(rows)
    assert caplog.text.count("has 4 of the 6 rows") == 1  # read once, told once


def test_other_rows_are_refused(tmp_path):
    run(tmp_path / "first", named(TASK.rows()))
    with pytest.raises(ValueError, match="has none of the 22 rows of train_dataset: its key column was 'id'"):
        trainer(
            tmp_path, TASK.model(), named(TASK.rows(), 100), POLICY, history_key="id", history=str(tmp_path / "first")
        )


def test_without_keys_on_both_sides_rows_go_by_their_place(tmp_path):
    rows = named(TASK.rows())
    keyed = run(tmp_path / "keyed", rows).history
    with pytest.raises(ValueError, match="of 22 rows, but the training set has 10.*give history_key="):
        trainer(tmp_path, TASK.model(), rows[:10], POLICY, history=keyed)
    with pytest.raises(ValueError, match="a History is of another data set.*give history_key="):
        plain = trainer(tmp_path / "plain", TASK.model(), Dataset.from_list(rows), POLICY, num_train_epochs=1)
        plain.train()
        trainer(tmp_path, TASK.model(), Dataset.from_list(rows[::-1]), POLICY, history=plain.history)


def test_a_key_without_a_policy_is_refused(tmp_path):
    with pytest.raises(ValueError, match="history_key=...: only a policy"):
        trainer(tmp_path, TASK.model(), named(TASK.rows()), None, history_key="id")


def test_a_resumed_run_keeps_its_keys(tmp_path):
    rows = named(TASK.rows())
    settings = {"save_strategy": "steps", "save_steps": 2}
    whole = run(tmp_path / "whole", rows, **settings)
    again = trainer(tmp_path / "whole", TASK.model(), rows, POLICY, history_key="id", num_train_epochs=1, **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    np.testing.assert_array_equal(again.history.keys, whole.history.keys)
    np.testing.assert_array_equal(again.history.loss, whole.history.loss)
    assert again.history.facts["key"] == "id"
