"""A run whose folder is in use is told so before it deletes anything; a lock that was left holds nobody up."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import ranks
import torch
from crashes import TASK, end_of, make
from disk import largest_file
from fork_server import SERVER
from transformers import TrainerCallback

from hf_prune.records.trace import FOLDER
from hf_prune.train import lock


class Hang(TrainerCallback):
    """Says that it trains, and trains on once the folder has the file `go`."""

    def __init__(self, folder):
        self.folder = folder

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 7:  # in the second epoch
            (self.folder / "trains").touch()
            while not (self.folder / "go").exists():
                time.sleep(0.01)


def train_and_hang(folder, **settings):
    torch.set_num_threads(1)
    torch.multiprocessing.set_start_method("fork", force=True)  # the workers', as it is by default
    trainer = make(folder, **settings)
    trainer.add_callback(Hang(folder))
    trainer.train()


def started(folder, **settings):
    process = SERVER.Process(target=train_and_hang, args=(folder,), kwargs=settings)
    process.start()
    while not (folder / "trains").exists():
        assert process.is_alive()
        time.sleep(0.01)
    return process


def files(folder):
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("resume", [None, True])
def test_a_second_run_is_refused_and_the_first_loses_nothing(tmp_path, resume):
    first = started(tmp_path)
    before = files(tmp_path)
    second = make(tmp_path)
    with pytest.raises(ValueError, match=rf"output_dir='{tmp_path}' is in use: process {first.pid} on .*Give another"):
        second.train(resume_from_checkpoint=resume)
    assert files(tmp_path) == before
    assert f"process {first.pid} " in lock.holder(tmp_path / FOLDER)
    make(tmp_path / "other").train()
    (tmp_path / "go").touch()
    first.join()
    assert first.exitcode == 0
    second.train(resume_from_checkpoint=resume)


def test_a_killed_run_holds_nobody_up_though_its_workers_live_on(tmp_path):
    first = started(tmp_path, dataloader_num_workers=1, dataloader_persistent_workers=True)
    os.kill(first.pid, signal.SIGKILL)
    while Path(f"/proc/{first.pid}").exists():  # joining it would wait for its workers too
        time.sleep(0.01)
    assert lock.holder(tmp_path / FOLDER) is None
    (tmp_path / "go").touch()
    trainer = make(tmp_path)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 12


@pytest.mark.slow
def test_another_trainer_of_this_process_is_refused_and_the_next_is_not(tmp_path):
    refusals = []

    class Train(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 4:
                with pytest.raises(ValueError, match="is in use: another trainer of this process") as error:
                    make(tmp_path).train()
                refusals.append(error)
                assert lock.holder(tmp_path / FOLDER)
                control.should_training_stop = True

    trainer = make(tmp_path)
    trainer.add_callback(Train())
    trainer.train()
    assert len(refusals) == 1 and lock.holder(tmp_path / FOLDER) is None
    trainer.train()
    make(tmp_path).train(resume_from_checkpoint=True)


def test_an_interrupted_run_lets_go(tmp_path):
    class Interrupt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise KeyboardInterrupt

    trainer = make(tmp_path)
    trainer.add_callback(Interrupt())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    make(tmp_path).train()


def test_a_run_without_a_policy_locks_nothing(tmp_path):
    make(tmp_path, policy=None).train()
    assert not (tmp_path / FOLDER).exists()


@pytest.mark.slow
def test_the_trials_of_a_search_hold_their_own_folders_one_after_another(tmp_path):
    held = []

    class Look(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            held.append([path.parent.parent.name for path in tmp_path.rglob(lock.LOCK) if lock.holder(path.parent)])

    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trainer = make(tmp_path, num_train_epochs=1)
    model = trainer.model
    trainer.model_init, trainer.eval_dataset = lambda: model, TASK.rows(4)
    trainer.add_callback(Look())
    trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-2)},
        n_trials=2,
        backend="optuna",
        compute_objective=lambda metrics: 0.0,
    )
    assert {tuple(names) for names in held} == {("_run-0",), ("_run-1",)}


@pytest.mark.parametrize("there", ["link", "no locks", "windows"])
def test_where_nothing_can_be_locked_nobody_is_refused(tmp_path, monkeypatch, there):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    if there == "link":
        (tmp_path / "run" / FOLDER).mkdir(parents=True)
        (tmp_path / "run" / FOLDER / lock.LOCK).symlink_to(victim)
    elif there == "windows":
        monkeypatch.setattr(lock, "fcntl", None)
    else:

        def unsupported(*_):
            raise OSError(lock.errno.ENOLCK, "No locks available")

        monkeypatch.setattr(lock.fcntl, "lockf", unsupported)
    make(tmp_path / "run").train()
    assert lock.holder(tmp_path / "run" / FOLDER) is None
    assert victim.read_text() == "mine"


def test_a_folder_that_is_a_link_is_one_with_its_target(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    first = started(tmp_path / "run")
    with pytest.raises(ValueError, match="is in use"):
        make(tmp_path / "disk").train()
    (tmp_path / "disk" / "go").touch()
    first.join()
    assert (tmp_path / "run").is_symlink()
    trainer = make(tmp_path / "run")
    trainer.train(resume_from_checkpoint=True)
    assert end_of(trainer)


def train_or_be_refused(rank, folder):
    try:
        make(folder, save_strategy="no").train()
    except ValueError as error:
        Path(folder, f"refusal{rank}").write_text(str(error))


def test_all_processes_of_the_second_run_are_refused(tmp_path):
    first = started(tmp_path)
    assert ranks.run(train_or_be_refused, tmp_path, processes=2, folder=tmp_path)
    refusals = [(tmp_path / f"refusal{rank}").read_text() for rank in range(2)]
    (tmp_path / "go").touch()
    first.join()
    assert refusals[0] == refusals[1] and f"is in use: process {first.pid}" in refusals[0]


def test_a_pipe_in_the_place_of_the_lock_holds_nobody_up(tmp_path):
    (tmp_path / FOLDER).mkdir()
    os.mkfifo(tmp_path / FOLDER / lock.LOCK)
    assert lock.RunLock().take(tmp_path / FOLDER) is None
    assert lock.holder(tmp_path / FOLDER) is None


def test_a_full_disk_holds_the_lock_without_a_name(tmp_path):
    held = lock.RunLock()
    with largest_file(0):
        assert held.take(tmp_path) is None
    assert lock.holder(tmp_path) == "another trainer of this process"
    held.release()


def test_a_lock_is_let_go_of_wherever_its_folder_has_gone(tmp_path):
    held, folder = lock.RunLock(), tmp_path / FOLDER
    assert held.take(folder) is None
    shutil.rmtree(folder)
    folder.write_text("a file")
    held.release()
    folder.unlink()
    assert held.take(folder) is None
    held.release()
