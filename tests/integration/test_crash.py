"""What a run leaves behind when its disk, its files or its user fail it: the last good checkpoint, and a reason."""

import shutil
import tempfile
from dataclasses import dataclass
from typing import ClassVar

import inside
import numpy as np
import pytest
import tiny
from crashes import ROWS, TASK, end_of, fail_at, make
from disk import largest_file
from safetensors import SafetensorError
from transformers import TrainerCallback

from hf_prune import Policy, Selection
from hf_prune.common import storage
from hf_prune.records.history_file import HISTORY
from hf_prune.train.checkpoint import STATE, TRAINER_STATE, PruningState, last_whole


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run: its folder, with checkpoints at steps 3, 6 and 9, and its end."""
    folder = tmp_path_factory.mktemp("whole")
    trainer = make(folder)
    trainer.train()
    return folder, end_of(trainer)


@pytest.fixture
def run(whole, tmp_path):
    """A copy of that run's folder."""
    shutil.copytree(whole[0], tmp_path / "run")
    return tmp_path / "run"


def on_a_full_disk(work, room=100):
    with largest_file(room):
        work()


# ---- Writing fails ----


@pytest.mark.parametrize("place", ["save_model", "_save_optimizer_and_scheduler", "_save_rng_state"])
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, whole, caplog, place):
    trainer = make(tmp_path, save_total_limit=1)
    fail_at(trainer, place, on_a_full_disk)
    with pytest.raises((OSError, RuntimeError, SafetensorError)):  # each library's own
        trainer.train()
    assert not (tmp_path / "checkpoint-6" / TRAINER_STATE).exists()
    trainer = make(tmp_path, save_total_limit=1)
    trainer.train(resume_from_checkpoint=True)
    assert f"{tmp_path}/checkpoint-6 is incomplete or damaged" in caplog.text
    assert f"going on from {tmp_path}/checkpoint-3." in caplog.text
    assert end_of(trainer) == whole[1]


def test_a_run_writes_in_no_folder_but_its_own(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not there"))  # as where that disk is full
    trainer = make(tmp_path)
    trainer.train()
    assert end_of(trainer) == whole[1]
    assert last_whole(tmp_path, pytest.fail) == str(tmp_path / "checkpoint-12")
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_state_that_can_not_be_written_is_named(tmp_path):
    trainer = make(tmp_path)

    class Disk(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 6:
                fail_at(inside.engine(trainer), "save", on_a_full_disk, call=1)

    trainer.add_callback(Disk())
    with pytest.raises(OSError, match=f"File too large: can't write .* Make room.*{tmp_path}/checkpoint-6/{STATE}"):
        trainer.train()
    assert [path.name for path in (tmp_path / "checkpoint-6").glob("*.tmp")] == []
    assert last_whole(tmp_path, lambda _: None) == str(tmp_path / "checkpoint-3")


def test_a_history_that_can_not_be_written_leaves_the_old_one(run):
    trainer = make(run)
    trainer.train(resume_from_checkpoint=True)
    trainer.save_model()
    before = (run / HISTORY).read_bytes()
    with pytest.raises(OSError, match=f"File too large: can't write .* Make room.*{run}/{HISTORY}"):
        on_a_full_disk(lambda: inside.engine(trainer).save_history(run / HISTORY))
    assert (run / HISTORY).read_bytes() == before


def test_a_file_where_a_checkpoint_should_be_stops_the_run_with_nothing_lost(tmp_path, whole):
    trainer = make(tmp_path)
    (tmp_path / "checkpoint-6").write_text("mine")
    with pytest.raises(OSError, match="checkpoint-6"):
        trainer.train()
    assert (tmp_path / "checkpoint-6").read_text() == "mine"
    (tmp_path / "checkpoint-6").unlink()
    trainer = make(tmp_path)
    trainer.train(resume_from_checkpoint=True)
    assert end_of(trainer) == whole[1]


@pytest.mark.parametrize("place", ["save_model", "_save_optimizer_and_scheduler", "_save_rng_state"])
def test_a_limit_of_one_never_takes_the_last_whole_checkpoint(tmp_path, place):
    """Neither while the new one is being written, nor while it is written again over what was left of it."""

    def interrupted(work):
        work()
        raise KeyboardInterrupt

    for resume in (None, True):
        trainer = make(tmp_path, save_total_limit=1)
        fail_at(trainer, place, interrupted, call=1 if resume else 2)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(resume_from_checkpoint=resume)
        assert last_whole(tmp_path, lambda _: None) == str(tmp_path / "checkpoint-3")
    make(tmp_path, save_total_limit=1).train(resume_from_checkpoint=True)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-12"]


# ---- Files are damaged ----


def damaged(content):
    """The content cut at every 64th byte, and with a flipped bit in it."""
    for at in range(0, len(content), 64):
        yield content[:at]
        yield content[:at] + bytes([content[at] ^ 1 << at // 64 % 8]) + content[at + 1 :]


def test_a_damaged_state_names_itself_and_the_checkpoint_before_wherever_it_is_damaged(run):
    state = run / "checkpoint-6" / STATE
    content, count = state.read_bytes(), 0
    for changed in damaged(content):
        state.write_bytes(changed)
        with pytest.raises(ValueError, match=f"{state} is damaged.*Resume from {run}/checkpoint-3 instead"):
            PruningState.load(run / "checkpoint-6", ROWS)
        assert state.read_bytes() == changed
        count += 1
    assert count == 2 * -(-len(content) // 64)


@pytest.mark.parametrize("changed", [b"", b"half", None])
def test_true_passes_over_every_damaged_state_and_says_where_it_goes_on(run, whole, caplog, changed):
    for name in ("checkpoint-12", "checkpoint-9", "checkpoint-6"):
        state = run / name / STATE
        content = state.read_bytes()
        state.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if changed is None else changed)
    trainer = make(run)
    trainer.train(resume_from_checkpoint=True)
    assert end_of(trainer) == whole[1]
    for name in ("checkpoint-12", "checkpoint-9", "checkpoint-6"):
        said = f"{run}/{name} is incomplete or damaged ({run}/{name}/{STATE} is damaged"
        assert said in caplog.text
    assert caplog.text.count(f"; going on from {run}/checkpoint-3.") == 3


def test_only_the_newest_checkpoints_are_read(run, monkeypatch):
    """Each may be gigabytes."""
    (run / "checkpoint-12" / STATE).write_bytes(b"half")
    stock, read = storage.load, []
    monkeypatch.setattr(storage, "load", lambda path: (read.append(path.parent.name), stock(path))[1])
    assert last_whole(run, lambda _: None) == str(run / "checkpoint-9")
    assert read == ["checkpoint-12", "checkpoint-9"]


def test_a_cut_trainer_state_is_passed_over(run, caplog):
    path = run / "checkpoint-12" / TRAINER_STATE
    path.write_bytes(path.read_bytes()[:-2])
    warnings = []
    assert last_whole(run, warnings.append) == str(run / "checkpoint-9")
    assert [f"({TRAINER_STATE}: " in warning for warning in warnings] == [True]


def test_with_nothing_before_it_a_damaged_state_names_one_after_it_or_the_start(run):
    (run / "checkpoint-3" / STATE).write_bytes(b"half")
    with pytest.raises(ValueError, match=f"Resume from {run}/checkpoint-6 instead"):
        PruningState.load(run / "checkpoint-3", ROWS)
    for name in ("checkpoint-6", "checkpoint-9", "checkpoint-12"):
        (run / name / TRAINER_STATE).unlink()
    with pytest.raises(ValueError, match="no other whole checkpoint beside it: start again"):
        PruningState.load(run / "checkpoint-3", ROWS)


def test_a_state_that_is_gone_is_said_and_the_checkpoint_before_named(run, caplog):
    (run / "checkpoint-6" / STATE).unlink()
    make(run).train(resume_from_checkpoint=str(run / "checkpoint-6"))
    assert f"{run}/checkpoint-6 holds no {STATE}" in caplog.text
    assert f"{run}/checkpoint-3 beside it holds one: resume from there" in caplog.text


def test_no_state_anywhere_names_no_other(tmp_path, caplog):
    make(tmp_path, policy=None).train()
    make(tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert f"holds no {STATE}" in caplog.text
    assert "beside it" not in caplog.text


def test_a_state_of_another_version_is_not_taken_for_damage(run, monkeypatch):
    state = run / "checkpoint-12" / STATE
    arrays, header = storage.load(state)
    with monkeypatch.context() as later:
        later.setattr(storage, "FORMAT", storage.FORMAT + 1)
        storage.save(state, arrays, header)
    before = state.read_bytes()
    with pytest.raises(ValueError, match=r"checkpoint-12': .* has format 2, .* reads format 1. Read it with"):
        make(run).train(resume_from_checkpoint=True)
    assert state.read_bytes() == before


def test_a_file_of_another_kind_in_its_place_is_refused(run):
    storage.save(run / "checkpoint-6" / STATE, {"loss": np.zeros(ROWS, np.float32)}, {"kind": "history"})
    with pytest.raises(ValueError, match=f"its {STATE} is no pruning state.*Resume from {run}/checkpoint-3 instead"):
        PruningState.load(run / "checkpoint-6", ROWS)


@pytest.mark.parametrize(("change", "left_aside"), [({"seed": 5}, 5), ({"data_seed": 7}, 7), ({}, None)])
def test_a_state_of_another_seed_goes_on_with_its_own(run, whole, caplog, change, left_aside):
    trainer = make(run, **change)
    trainer.train(resume_from_checkpoint=str(run / "checkpoint-6"))
    warned = f"was saved with data_seed 3, which its order and its selections go on with; {left_aside} (data_seed"
    assert (warned in caplog.text) == bool(change)
    assert ("data_seed" in caplog.text) == bool(change)
    assert end_of(trainer) == whole[1]


def test_a_state_of_more_rows_is_refused(run):
    trainer = make(run)
    trainer.train_dataset = TASK.rows(ROWS - 1)
    with pytest.raises(ValueError, match=f"checkpoint-12': .*is of {ROWS} rows, but the training set has {ROWS - 1}"):
        trainer.train(resume_from_checkpoint=True)


def test_a_damaged_history_of_an_earlier_run_is_named(tmp_path, whole):
    path = tmp_path / HISTORY
    path.write_bytes(b"half")
    with pytest.raises(ValueError, match=f"history='{tmp_path}': {path} is damaged.*Give another copy, or leave"):
        make(tmp_path, history=str(tmp_path))


# ---- The user, or the user's code, interrupts ----


@dataclass(frozen=True)
class Fails(Policy):
    """Keeps half of the rows, and fails in round 1."""

    where: ClassVar[str] = "nowhere"  # until the user has mended it

    def select(self, history, clock, rng):
        self._fail_in("select", clock)
        return Selection(np.sort(rng.permutation(len(history))[: len(history) // 2]))

    def update(self, history, clock, rng):
        self._fail_in("update", clock)
        history.notes["updates"] = history.notes.get("updates", np.zeros(1, np.int64)) + 1

    def _fail_in(self, where, clock):
        if self.where == where and clock.round == 1:
            raise ZeroDivisionError(f"in {where}")


@dataclass(frozen=True)
class FailsBeside(Fails):
    """The same, in a thread."""

    in_background: ClassVar[bool] = True


@pytest.mark.parametrize(("policy", "where"), [(Fails, "select"), (Fails, "update"), (FailsBeside, "update")])
def test_an_error_in_a_policy_is_raised_as_it_is_and_nothing_saved_is_lost(tmp_path, monkeypatch, policy, where):
    reference = make(tmp_path / "reference", policy(), num_train_epochs=4, save_strategy="no")
    reference.train()
    monkeypatch.setattr(Fails, "where", where)
    trainer = make(tmp_path / "run", policy(), num_train_epochs=4, save_steps=1)
    with pytest.raises(ZeroDivisionError, match=f"in {where}"):
        trainer.train()
    reached = trainer.state.global_step
    saved = last_whole(tmp_path / "run", lambda _: None)
    assert reached - 1 <= int(saved.rpartition("-")[2]) <= reached
    monkeypatch.undo()
    mended = make(tmp_path / "run", policy(), num_train_epochs=4)
    mended.train(resume_from_checkpoint=True)
    assert end_of(mended) == end_of(reference)
    trainer.pruning_report().card()


def test_an_error_in_a_collator_is_raised_as_it_is(tmp_path, whole):
    class Collator(tiny.Collator):
        def __call__(self, rows):
            batch = super().__call__(rows)
            if len(rows) < 4 and (tmp_path / "bad").exists():  # the last batch of an epoch
                raise ZeroDivisionError("in the collator")
            return batch

    (tmp_path / "bad").touch()
    trainer = make(tmp_path, data_collator=Collator())
    with pytest.raises(ZeroDivisionError, match="in the collator"):
        trainer.train()
    (tmp_path / "bad").unlink()
    trainer = make(tmp_path, data_collator=Collator())
    trainer.train(resume_from_checkpoint=True)
    assert end_of(trainer) == whole[1]


@pytest.mark.parametrize("place", ["save", "close_round", "open_round", "_take_in"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_interrupted_by_the_keyboard(tmp_path, whole, place, moment):
    trainer = make(tmp_path)

    class Keyboard(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            def interrupted(work):
                if moment == "after":
                    work()
                raise KeyboardInterrupt

            fail_at(inside.engine(trainer), place, interrupted, call=1 if place == "_take_in" else 2)

    trainer.add_callback(Keyboard())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.pruning_report().card()
    trainer.save_model(str(tmp_path / "kept"))  # what a user does who stops a run in a notebook
    assert (tmp_path / "kept" / HISTORY).exists()
    trainer = make(tmp_path)
    trainer.train(resume_from_checkpoint=True)
    assert end_of(trainer) == whole[1]


@pytest.mark.parametrize("event", ["on_step_begin", "on_pre_optimizer_step", "on_step_end", "on_epoch_end"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_saved_on_a_signal_by_transformers(tmp_path, event, accumulation):
    """`enable_jit_checkpoint`: on SIGTERM, Trainer saves at the next event, even inside a step, and stops."""
    settings = dict(save_strategy="no", gradient_accumulation_steps=accumulation, num_train_epochs=4, dropout=0.0)
    reference = make(tmp_path / "reference", **settings)
    reference.train()
    trainer = make(tmp_path, enable_jit_checkpoint=True, **settings)
    jit = next(one for one in trainer.callback_handler.callbacks if type(one).__name__ == "JITCheckpointCallback")

    class Signal(TrainerCallback):
        def request(self, args, state, control, **kwargs):
            if state.global_step >= 4:
                jit.jit_manager.is_checkpoint_requested = True

    setattr(Signal, event, Signal.request)
    trainer.callback_handler.callbacks.insert(0, Signal())
    trainer.train()
    assert trainer.state.global_step < 10
    trainer = make(tmp_path, **settings)
    trainer.train(resume_from_checkpoint=True)
    assert end_of(trainer) == end_of(reference)
    accounts, expected = (one.pruning_report().epochs for one in (trainer, reference))
    for name in ("rows", "steps", "padded_tokens"):
        assert [account[name] for account in accounts] == [account[name] for account in expected]
