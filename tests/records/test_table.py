"""The rows of a run as a table."""

import sys

import numpy as np
import pandas
import pytest
from traces import write

from hf_prune import History
from hf_prune.records import table as export
from hf_prune.records.dynamics import Dynamics
from hf_prune.records.table import COLUMNS, write_rows

NAN = float("nan")


@pytest.fixture
def history():
    made = History.empty(5, ("confidence",))
    made.record(np.array([0, 1, 2]), np.array([0.5, np.inf, 2.0], np.float32), 3, confidence=np.array([0.25, 0, 1.0]))
    return made


def test_a_history_alone(tmp_path, history):
    write_rows(tmp_path / "rows.parquet", history)
    table = pandas.read_parquet(tmp_path / "rows.parquet")
    assert table.columns.tolist() == ["row", "loss", "seen", "faults", "confidence"]  # no token is known
    np.testing.assert_array_equal(table["loss"], [0.5, NAN, 2, NAN, NAN])
    assert table["seen"].isna().tolist() == [False, True, False, True, True]
    assert table["seen"][0] == 3
    assert table["faults"].tolist() == [0, 1, 0, 0, 0]
    np.testing.assert_array_equal(table["confidence"], [0.25, NAN, 1, NAN, NAN])


def test_keys_and_tokens_stand_where_they_are_known(tmp_path, history):
    history.keys = np.array([2**64 - 1, 1, 2, 3, 4], np.uint64)
    history.tokens[:] = 7
    write_rows(tmp_path / "rows.parquet", history, file_rows=np.arange(9, 4, -1))
    table = pandas.read_parquet(tmp_path / "rows.parquet")
    assert table["key"][0] == 2**64 - 1
    assert table["tokens"].tolist() == [7] * 5
    assert table["file_row"].tolist() == [9, 8, 7, 6, 5]
    assert set(table) - set(history.signals) <= set(COLUMNS)


def test_groups_of_near_duplicates_have_a_column(tmp_path, history):
    history.notes["duplicate_group"] = np.array([0, 1, 0, 3, 1], np.int32)
    write_rows(tmp_path / "rows.parquet", history)
    assert pandas.read_parquet(tmp_path / "rows.parquet")["duplicate_group"].tolist() == [0, 1, 0, 3, 1]
    assert "duplicate_group" in COLUMNS


def test_rows_of_a_run_whatever_the_size_of_a_block(tmp_path, history, monkeypatch):
    write(tmp_path, 0, ([0, 1, 2], [2.0, np.inf, 3.0]), rows=5)
    write(tmp_path, 1, ([2], [2.0]), ([0], [0.5]), rows=5)
    dynamics = Dynamics.read(tmp_path, history)
    write_rows(tmp_path / "rows.parquet", history, dynamics)
    table = pandas.read_parquet(tmp_path / "rows.parquet")
    np.testing.assert_array_equal(table["loss_epoch_1"], [2, NAN, 3, NAN, NAN])
    np.testing.assert_array_equal(table["loss_epoch_2"], [0.5, NAN, 2, NAN, NAN])
    assert table["times_trained"].tolist() == [1, 1, 2, 0, 0]
    assert table["never_trained"].tolist() == [False, False, False, True, True]
    assert table["never_learnt"].tolist() == [False, False, True, False, False]
    np.testing.assert_array_equal(table["mean_loss"], [1.25, NAN, 2.5, NAN, NAN])
    assert {"variability", "excess_loss", "times_measured", "learnt_at_once"} <= set(table)

    big = History.empty(100)
    rng = np.random.default_rng(0)
    for round in range(3):
        rows = np.flatnonzero(rng.random(100) < 0.6)
        write(tmp_path / "big", round, (rows, rng.random(len(rows))), rows=100)
    dynamics = Dynamics.read(tmp_path / "big", big)
    write_rows(tmp_path / "whole.parquet", big, dynamics)
    monkeypatch.setattr(export, "_ROWS_AT_A_TIME", 8)
    write_rows(tmp_path / "blocks.parquet", big, dynamics)
    whole, blocks = (pandas.read_parquet(tmp_path / name) for name in ("whole.parquet", "blocks.parquet"))
    pandas.testing.assert_frame_equal(whole, blocks)
    assert whole["loss_epoch_3"].notna().sum() == len(rows)


def test_an_earlier_file_stays_until_the_new_one_is_whole(tmp_path, history, monkeypatch):
    path = tmp_path / "rows.parquet"
    path.write_text("earlier")
    monkeypatch.setattr(export, "_nullable", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_rows(path, history)
    assert path.read_text() == "earlier"
    assert [file.name for file in tmp_path.iterdir()] == ["rows.parquet"]


def test_without_pyarrow_the_cure_is_named(tmp_path, history, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match="pip install pyarrow"):
        write_rows(tmp_path / "rows.parquet", history)
