"""A file is whole or refused."""

import errno
import os

import numpy as np
import pytest
from disk import largest_file
from fork_server import SERVER

from hf_prune import History
from hf_prune.common import storage
from hf_prune.compare import score
from hf_prune.records.table import write_rows
from hf_prune.records.trace import Trace
from hf_prune.report.account import PruningReport

ARRAYS = {"loss": np.array([0.5, np.nan], np.float32), "rows": np.arange(3), "none": np.empty((0, 2), np.float32)}
ARRAYS |= {"alone": np.array(2.5), "across": np.arange(6).reshape(2, 3).T}


def test_round_trip_keeps_every_bit(tmp_path):
    storage.save(tmp_path / "new" / "file", ARRAYS, {"seed": 3})
    arrays, header = storage.load(tmp_path / "new" / "file")
    assert header == {"seed": 3}
    assert {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()} == {
        name: (array.dtype, array.shape, array.tobytes()) for name, array in ARRAYS.items()
    }


def test_texts_are_refused_by_name(tmp_path):
    with pytest.raises(TypeError, match=r"notes/kind \(<U1\): a file holds arrays of numbers"):
        storage.save(tmp_path / "file", ARRAYS | {"notes/kind": np.array(["a"])}, {})
    assert not (tmp_path / "file").exists()


def test_the_same_gives_the_same_bytes(tmp_path):
    files = [tmp_path / f"{i}" for i in range(20)]
    for path in files:
        storage.save(path, ARRAYS, {"seed": 3, "policy": "p"})
    assert len({path.read_bytes() for path in files}) == 1


def test_every_truncation_and_a_flipped_bit_in_every_byte_is_refused(tmp_path):
    path = tmp_path / "file"
    storage.save(path, ARRAYS, {"seed": 3})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(storage.DamagedFile, match="damaged"):
            storage.load(path)
    accepted = []
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            arrays, header = storage.load(path)
        except storage.DamagedFile:
            continue
        same = header == {"seed": 3} and all(arrays[name].tobytes() == ARRAYS[name].tobytes() for name in ARRAYS)
        accepted += [] if same else [at]
    assert accepted == []


def fail(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("place", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_says_which(tmp_path, monkeypatch, place):
    path = tmp_path / "file"
    storage.save(path, ARRAYS, {"seed": 3})
    monkeypatch.setattr(storage.os, place, fail)
    with pytest.raises(OSError, match=rf"No space left on device: can't write \d+ bytes.*Make room.*{path}") as error:
        storage.save(path, ARRAYS, {"seed": 4})
    assert error.value.errno == errno.ENOSPC
    assert storage.load(path)[1] == {"seed": 3}
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_takes_a_part_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    storage.save(path, ARRAYS, {"seed": 3})
    for size in range(0, path.stat().st_size, 64):
        with largest_file(size), pytest.raises(OSError, match=f"File too large: can't write .*{path}"):
            storage.save(path, ARRAYS, {"seed": 4})
        assert storage.load(path)[1] == {"seed": 3}
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_file_where_the_folder_should_be_is_named(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(FileExistsError, match=rf"name a folder that can be written.*{tmp_path}/out/file"):
        storage.save(tmp_path / "out" / "file", ARRAYS, {})
    assert (tmp_path / "out").read_text() == "mine"


def test_another_format_is_told_from_damage(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "FORMAT", storage.FORMAT + 1)
    storage.save(tmp_path / "file", ARRAYS, {})
    monkeypatch.undo()
    with pytest.raises(storage.OtherFormat, match="has format 2, and this version of hf_prune reads format 1. Read it"):
        storage.load(tmp_path / "file")


# ---- Others in the same folder ----


def writers(folder):
    """Everything that writes a file, by the name of the file that it leaves in the folder."""
    history = History.empty(3)
    report = PruningReport(policy="p", epochs=[], log_history=[], rows=3, faults=0, seconds_evaluating=0, steps_full=1)
    return {
        "state": lambda: storage.save(folder / "state", ARRAYS, {}),
        "text": lambda: storage.write_text(folder / "text", "ours"),
        "history.safetensors": lambda: history.save(folder / "history.safetensors"),
        "history.parquet": lambda: write_rows(folder / "history.parquet", history),
        "pruning.json": lambda: report.save(folder / "pruning.json"),
        "run.png": lambda: report.figure(folder / "run"),
        "run.svg": lambda: report.figure(folder / "run.svg"),
        "command.json": lambda: score.claim(folder, ["train.py"]),
    }


@pytest.mark.parametrize("name", writers(None))
def test_what_a_planted_link_points_to_is_not_written(tmp_path, name):
    victim, folder = tmp_path / "victim", tmp_path / "run"
    victim.write_text("mine")
    folder.mkdir()
    (folder / f"_{name}.tmp").symlink_to(victim)  # where earlier versions wrote first
    if name != "command.json":  # what is there is read
        (folder / name).symlink_to(victim)
    writers(folder)[name]()
    assert victim.read_text() == "mine"
    assert (folder / name).is_file() and not (folder / name).is_symlink()
    assert {path.name for path in folder.iterdir()} == {name, f"_{name}.tmp"}


def test_what_is_being_written_has_a_name_of_its_own_and_that_of_another_is_not_opened(tmp_path, monkeypatch):
    names = set()
    for _ in range(3):
        with storage.replacing(tmp_path / "_file.html") as file:
            names |= {path.name for path in tmp_path.iterdir()} - {"_file.html"}
            file.write(b"ours")
    assert len(names) == 3 and all(name.startswith("_f") and storage._LEFT.fullmatch(name) for name in names)
    monkeypatch.setattr(storage, "token_hex", lambda size: "0" * 2 * size)
    (tmp_path / "_file.0000000000000000.tmp").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError):
        storage.write_text(tmp_path / "file", "ours")
    assert not (tmp_path / "victim").exists()


def write_often(rank, path):
    for _ in range(200):
        storage.save(path, {"rows": np.full(5000, rank)}, {"rank": rank})


def test_two_processes_that_write_one_path_leave_the_file_of_one(tmp_path):
    path = tmp_path / "file"
    processes = [SERVER.Process(target=write_often, args=(rank, path)) for rank in range(2)]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        if path.exists():
            arrays, header = storage.load(path)
            assert set(arrays["rows"].tolist()) == {header["rank"]}
    assert [process.exitcode for process in processes] == [0, 0]
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_a_link_stays_one(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    storage.write_text(tmp_path / "run" / "file", "ours")
    assert (tmp_path / "run").is_symlink() and (tmp_path / "disk" / "file").read_text() == "ours"


def test_the_mode_is_that_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        storage.write_text(tmp_path / "file", "ours")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_what_a_kill_left_is_swept_once_it_is_old(tmp_path):
    left = [tmp_path / f"_{name}.{'a1' * 8}.tmp" for name in ("old.json", "new.json")]
    others = [tmp_path / name for name in ("_mine.tmp", "old.json", f"x.{'a1' * 8}.tmp")]
    for path in [*left, *others]:
        path.write_text("part")
    for path in (left[0], *others):
        os.utime(path, (0, 0))
    storage.sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in [left[1], *others]}


def test_a_run_sweeps_its_folder(tmp_path):
    left = [tmp_path / place / f"_file.{'a1' * 8}.tmp" for place in ("", "_pruning", "checkpoint-3")]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.touch()
        os.utime(path, (0, 0))
    Trace(tmp_path, list, print).begin(0)
    assert not [path for path in left if path.exists()]
