"""A file is whole or refused."""

import errno

import numpy as np
import pytest
from disk import largest_file

from hf_prune import storage

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
