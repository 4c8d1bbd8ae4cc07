"""What each round measured, on disk: whole, small, and the same however often the run was interrupted."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import tiny
from datasets import Dataset
from disk import largest_file
from hypothesis import given
from hypothesis import strategies as st
from tiny import TASKS
from traces import write

from hf_prune import History
from hf_prune.common import storage
from hf_prune.core import Clock
from hf_prune.core.ranking import marked
from hf_prune.records.dynamics import Dynamics
from hf_prune.records.trace import FOLDER, Trace, read_trace
from hf_prune.report.page import RunReport
from hf_prune.train.checkpoint import STATE

TASK = TASKS["one label"]
CLOCK = Clock(round=0, epoch=0, epochs=3, share=0.0)


def history(rows=10):
    return History.empty(rows)


@given(
    rows=st.integers(1, 40),
    size=st.sampled_from([8, 16, 48]),
    seed=st.integers(0, 99),
    parts=st.integers(1, 2),
)
def test_a_round_is_read_as_it_was_written_in_blocks_of_any_size(tmp_path_factory, rows, size, seed, parts):
    folder, rng = tmp_path_factory.mktemp("run"), np.random.default_rng(seed)
    order, cut = rng.permutation(rows), rng.integers(0, rows + 1)
    losses = rng.exponential(size=rows).astype(np.float16).astype(np.float32)
    losses[rng.random(rows) < 0.1] = np.inf
    measured = [(chosen, losses[chosen]) for chosen in np.split(order[: rows - 1] if parts == 2 else order, [cut])]
    write(folder, 3, *measured[:parts], rows=rows)
    (round,), flaws = read_trace(folder, rows)
    assert (round.round, round.epoch, round.lr_scale, round.learning_rates, round.seconds) == (3, 3, 1.5, [0.1], 2.0)
    assert flaws == ["Of the rounds before the last, 3 can't be read, the first of them 0."]
    trained, rescored, found = (np.concatenate(parts) for parts in zip(*round.blocks(size), strict=True))
    assert np.flatnonzero(trained).tolist() == sorted(measured[0][0].tolist())
    assert np.flatnonzero(rescored).tolist() == (sorted(measured[1][0].tolist()) if parts == 2 else [])
    np.testing.assert_array_equal(found, np.where(trained | rescored, losses, np.float32(np.nan)))
    for one, whole in zip(round.read(), (trained, rescored, found), strict=True):
        np.testing.assert_array_equal(one, whole)


@pytest.mark.parametrize(
    "losses",
    [
        [1e30, np.inf, np.nan, 0.5],
        [65_504.1, 65_505, 65_519, 3.4e38],
        [-1e6, -65_505, 0, np.inf],
        [1e-30, 1e-9, 2e-9, 0],
        [1e-45, 2.9e-8, 3.4e38, 1],
    ],
)
@pytest.mark.parametrize("in_training", [True, False])
def test_losses_beyond_the_range_of_two_bytes_stay_as_they_are(tmp_path, losses, in_training):
    others = ([5, 6], [0.1, 0.2])
    write(tmp_path, 0, *[(range(4), losses), others][:: 1 if in_training else -1])
    found = read_trace(tmp_path, 10)[0][0].read()[2]
    np.testing.assert_array_equal(found[:4], np.array(losses, np.float32))
    np.testing.assert_array_equal(found[5:7], np.array([0.1, 0.2], np.float32))


@given(st.lists(st.floats(2**-24, 65_504, width=32) | st.sampled_from([0.0, np.inf, np.nan]), min_size=1, max_size=9))
def test_losses_within_it_are_rounded_by_as_much_as_is_said(tmp_path_factory, losses):
    folder, losses = tmp_path_factory.mktemp("run"), np.array(losses, np.float32)
    write(folder, 0, (range(len(losses)), losses))
    assert storage.load(next(Path(folder, FOLDER).iterdir()))[0]["losses"].dtype == np.float16
    found = read_trace(folder, 10)[0][0].read()[2][: len(losses)]
    np.testing.assert_allclose(found, losses, rtol=1 / 2048, atol=3e-8)
    assert (found[losses > 0] > 0).all()


@pytest.mark.parametrize(("unit", "size"), [(1, 2.25), (1e6, 4.25)])
def test_a_row_takes_two_bytes_or_four_and_a_bit_for_each_kind(tmp_path, unit, size):
    rows = np.arange(80_000)
    losses = unit * rows / 8e4
    write(tmp_path, 0, (rows[:60_000], losses[:60_000]), (rows[60_000:], losses[60_000:]), rows=80_000)
    assert size * 80_000 <= next(Path(tmp_path, FOLDER).iterdir()).stat().st_size < size * 80_000 + 1000


def test_damaged_missing_and_foreign_rounds_are_told_and_the_others_read(tmp_path):
    for round in (0, 1, 3, 4):
        write(tmp_path, round, ([0, 1], [1.0, 2.0]))
    write(tmp_path, 5, ([0, 1], [1.0, 2.0]), rows=11)
    path = tmp_path / FOLDER / "round-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    (tmp_path / FOLDER / "round-00004.safetensors").write_bytes(b"")
    (tmp_path / FOLDER / "round-left.safetensors").write_bytes(b"?")
    rounds, flaws = read_trace(tmp_path, 10)
    assert [round.round for round in rounds] == [0, 3]
    assert len(flaws) == 5
    assert "of a training set of 10 rows" in flaws[3]
    assert flaws[-1] == "Of the rounds before the last, 2 can't be read, the first of them 1."
    assert not any(str(tmp_path) in flaw for flaw in flaws)
    dynamics = Dynamics.read(tmp_path, history())
    assert dynamics.epochs.tolist() == [0, 3]
    assert dynamics.flaws == flaws


def test_no_trace(tmp_path):
    assert read_trace(tmp_path, 10) == ([], [])
    assert Dynamics.read(tmp_path, history()) is None


def test_a_full_disk_is_told_once_and_training_goes_on(tmp_path):
    said = []
    trace = Trace(tmp_path, lambda: [], said.append)
    chosen = np.arange(4000)
    with largest_file(500):
        for _ in range(2):
            trace.write(CLOCK, 1.0, 0.0, 4000, [(marked(chosen, 4000), chosen, chosen.astype(np.float32))])
    assert len(said) == 1
    assert "training goes on" in said[0]
    assert not list(Path(tmp_path, FOLDER).iterdir())
    trace.write(CLOCK, 1.0, 0.0, 4000, [(marked(chosen, 4000), chosen, chosen.astype(np.float32))])
    assert [round.round for round in read_trace(tmp_path, 4000)[0]] == [0]


# ---- In training ----

SETTINGS = [
    ("infobatch:ratio=0.6", {}),
    ("kakurenbo:by_confidence=True,hide=0.5,threshold=0.34", {}),
    ("autoassist:rounds=3", {}),
    ("uniform:keep=0.5", {"num_train_epochs": 2.5, "gradient_accumulation_steps": 2}),
]


def make(folder, policy, **settings):
    settings = {"num_train_epochs": 3} | settings
    rows = Dataset.from_list(TASK.rows())
    return tiny.trainer(folder, TASK.model(spread=0.3), rows, policy=policy, **settings)


def content(run):
    """All that a trace holds but seconds."""
    found = {}
    for path in sorted(Path(run, FOLDER).glob("round-*")):
        arrays, header = storage.load(path)
        assert header.pop("seconds") > 0
        header["account"] = {name: it for name, it in header["account"].items() if not name.startswith("seconds")}
        found[path.name] = header, {name: array.tobytes() for name, array in arrays.items()}
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "settings"), SETTINGS, ids=[policy for policy, _ in SETTINGS])
def test_a_run_that_is_resumed_anywhere_leaves_the_trace_of_one_that_was_not(tmp_path, policy, settings):
    whole = make(tmp_path / "whole", policy, save_strategy="steps", save_steps=1, **settings)
    whole.train()
    expected = content(tmp_path / "whole")
    assert len(expected) == len(whole.pruning_report().epochs) * (3 if "rounds" in policy else 1)
    assert any("rescored" in arrays for _, arrays in expected.values()) == ("kakurenbo" in policy)
    for step in range(1, whole.state.global_step + 1):
        run, checkpoint = tmp_path / str(step), tmp_path / "whole" / f"checkpoint-{step}"
        shutil.copytree(tmp_path / "whole" / FOLDER, run / FOLDER)
        begun = storage.load(checkpoint / STATE)[1]["round"]["clock"]["round"]
        for round in [*range(begun, len(expected)), 99]:  # what a run that went on beyond the checkpoint may have left
            write(run, round, ([0], [9.0]), rows=22)
        make(run, policy, **settings).train(resume_from_checkpoint=str(checkpoint))
        assert content(run) == expected, step


def test_the_rounds_of_a_run_that_wrote_into_the_same_folder_are_not_taken_for_its_own(tmp_path, caplog):
    first = make(tmp_path, "uniform:keep=1.0", num_train_epochs=4)
    first.train()
    second = make(tmp_path, "uniform:keep=0.2", num_train_epochs=2)
    second.train()
    assert second.pruning_report().dynamics.flaws == []
    with caplog.at_level(logging.WARNING, "hf_prune"):
        first.save_model()
    said = "Another run wrote 2 rounds into this folder, which are left out: give each run its own."
    assert said in caplog.text and first.pruning_report().dynamics is None
    assert "times_trained" not in pyarrow.parquet.read_schema(tmp_path / "history.parquet").names
    assert RunReport.of_folder(tmp_path).dynamics is None  # the account is of the first run, the rounds of the second


def test_the_rounds_of_a_model_saved_inside_the_runs_folder_are_found(tmp_path):
    ours = make(tmp_path, "uniform:keep=0.5")
    ours.train()
    ours.save_model(tmp_path / "final")
    assert len(RunReport.of_folder(tmp_path / "final").dynamics.rounds) == 3


def test_a_run_from_the_start_removes_what_another_left(tmp_path):
    for round in (0, 7):
        write(tmp_path, round, ([0], [9.0]), rows=22)
    trainer = make(tmp_path, "infobatch:ratio=0.6", num_train_epochs=1)
    assert len(list((tmp_path / FOLDER).iterdir())) == 2  # until training begins
    trainer.train()
    (round,), flaws = read_trace(tmp_path, 22)
    assert (round.round, round.read()[0].sum(), flaws) == (0, 22, [])


def test_rows_of_large_losses_are_ranked_as_the_history_ranks_them(tmp_path):
    """Regression on prices: squared errors of 1e10 and more, which the report goes by, round by round."""
    rows = [row | {"labels": 1e5 + 1e4 * at} for at, row in enumerate(TASKS["number"].rows(20))]
    trainer = tiny.trainer(tmp_path, TASKS["number"].model(), rows, policy="uniform:keep=1", num_train_epochs=3)
    trainer.train()
    dynamics, order = trainer.pruning_report().dynamics, np.argsort(-trainer.history.loss)
    assert (trainer.history.loss > 1e9).all()
    np.testing.assert_array_equal(dynamics.losses_of(np.arange(20))[:, -1], trainer.history.loss)
    assert np.argsort(-dynamics.mean).tolist() == np.argsort(-dynamics.excess).tolist() == order.tolist()
    assert dynamics.hardest(9).tolist() == order[:9].tolist()
    trainer.pruning_report().save_rows(tmp_path / "account")
    table = pyarrow.parquet.read_table(tmp_path / "account" / "history.parquet").to_pandas()
    np.testing.assert_array_equal(table["loss_epoch_3"], table["loss"])


def test_without_a_policy_nothing_is_written(tmp_path):
    make(tmp_path, None, num_train_epochs=1).train()
    assert not (tmp_path / FOLDER).exists()


def test_a_trace_that_cannot_be_written_leaves_training_alone(tmp_path, caplog):
    (tmp_path / FOLDER).write_text("a file where the folder should be")
    trainer = make(tmp_path, "infobatch:ratio=0.6")
    with caplog.at_level(logging.WARNING, "hf_prune"):
        trainer.train()
    assert len([message for message in caplog.messages if "training goes on" in message]) == 1
    assert (trainer.history.last_round >= 0).all()


def test_extras_are_packed_and_read_back(tmp_path):
    nan, chosen = np.nan, np.array([3, 0, 5])
    extras = {"predicted": np.float32([2, nan, 40_000]), "value": np.float32([0.5, 1, -1]), "none": np.full(3, nan)}
    part = (marked(chosen, 6), chosen, np.ones(3, np.float32))
    clock = Clock(round=0, epoch=0, epochs=9, share=0.0)
    Trace(tmp_path, lambda: [0.1], pytest.fail).write(clock, 1.0, 1.0, 6, [part], [extras])
    (round,), flaws = read_trace(tmp_path, 6)
    found = round.extras()
    assert not flaws and set(found) == {"predicted", "value"}  # of nothing, nothing is kept
    np.testing.assert_array_equal(found["predicted"], np.float32([nan, nan, nan, 2, nan, 40_000]))
    np.testing.assert_array_equal(found["value"], np.float32([1, nan, nan, 0.5, nan, -1]))
    arrays, _ = storage.load(round.path)
    assert arrays["extras/predicted"].dtype == np.int32 and arrays["extras/value"].dtype == np.float32


@pytest.mark.parametrize("values", [np.zeros(2, np.int16), np.zeros(3, np.float64)])
def test_extras_that_do_not_fit_leave_the_round_out(tmp_path, values):
    chosen = np.array([0, 1, 2])
    part = (marked(chosen, 6), chosen, np.ones(3, np.float32))
    Trace(tmp_path, lambda: [0.1], pytest.fail).write(Clock(0, 0, 9, 0.0), 1.0, 1.0, 6, [part])
    (round,), _ = read_trace(tmp_path, 6)
    arrays, header = storage.load(round.path)
    header.pop("format", None)
    storage.save(round.path, arrays | {"extras/predicted": values}, header)
    found, flaws = read_trace(tmp_path, 6)
    assert not found and "its extras/predicted are" in flaws[0]
