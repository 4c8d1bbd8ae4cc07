"""A file is whole or refused."""

import numpy as np
import pytest

from hf_prune import storage

ARRAYS = {"loss": np.array([0.5, np.nan], np.float32), "rows": np.arange(3), "none": np.empty((0, 2), np.float32)}


def test_round_trip_keeps_every_bit(tmp_path):
    storage.save(tmp_path / "new" / "file", ARRAYS, {"seed": 3})
    arrays, header = storage.load(tmp_path / "new" / "file")
    assert header == {"seed": 3}
    assert {name: (array.dtype, array.tobytes()) for name, array in arrays.items()} == {
        name: (array.dtype, array.tobytes()) for name, array in ARRAYS.items()
    }


def test_every_truncation_and_every_flipped_byte_is_refused(tmp_path):
    path = tmp_path / "file"
    storage.save(path, ARRAYS, {"seed": 3})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(storage.DamagedFile, match="damaged"):
            storage.load(path)
    accepted = []
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        try:
            arrays, header = storage.load(path)
        except storage.DamagedFile:
            continue
        same = header == {"seed": 3} and all(arrays[name].tobytes() == ARRAYS[name].tobytes() for name in ARRAYS)
        accepted += [] if same else [at]
    assert accepted == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    storage.save(path, ARRAYS, {"seed": 3})
    monkeypatch.setattr(storage.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        storage.save(path, ARRAYS, {"seed": 4})
    assert storage.load(path)[1] == {"seed": 3}
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
