"""The seal of a checkpoint: a file with the sizes and checksums of all others, which shows whether it is whole."""

import json
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..common import storage
from ..common.foreign import read_json, why

SEAL = "pruning_files.json"
_KEY = "size and crc32"
_PASSING = (SEAL, "checkpoint-is-incomplete.txt")  # the second exists only while `enable_jit_checkpoint` saves
_BLOCK = 1 << 20  # bytes to read at a time
_SETTINGS = re.compile(r".*config\.json|.*\.index\.json")
_TORCH = re.compile(r".*\.(pt|pth)|(pytorch_model|adapter_model|training_args|optimizer).*\.bin")


def close(folder: str | os.PathLike[str], last: str, write: Callable[[str], None]) -> None:
    """Write the seal of a checkpoint, and then its last file.

    Args:
        folder: The checkpoint.
        last: Name of the last file; a checkpoint with this file is complete.
        write: Writes the last file to a given path.
    """
    # The seal needs the checksum of the last file before that file appears, so we first write it under another name. We
    # do so in the same folder: the system's folder for temporary files may be full, or not writable.
    aside = storage.beside(Path(folder, last))
    try:
        write(str(aside))
        blob = aside.read_bytes()
    finally:
        aside.unlink(missing_ok=True)
    files = {name: [path.stat().st_size, _checksum(path)] for name, path in _files(folder)}
    files[last] = [len(blob), zlib.crc32(blob)]
    storage.write_text(Path(folder, SEAL), json.dumps({_KEY: files}, indent=2) + "\n")
    storage.write_bytes(Path(folder, last), blob)


@contextmanager
def closing(state: Any, folder: str | os.PathLike[str], last: str) -> Iterator[None]:
    """Within the block, saving the trainer's state into the checkpoint also seals the checkpoint.

    Trainer saves its state last. It then uploads the checkpoint and deletes older ones, so the checkpoint must be
    sealed before that. In between, Trainer calls no method that a subclass could override. So we replace the method
    that saves the state.

    Args:
        state: The `TrainerState`.
        folder: The checkpoint.
        last: Name of the state's file in the checkpoint.
    """
    write, path_of_last = state.save_to_json, os.path.join(folder, last)

    def save_to_json(path):
        return close(folder, last, write) if path == path_of_last else write(path)

    state.save_to_json = save_to_json
    try:
        yield
    finally:
        del state.save_to_json


def flaw(folder: str | os.PathLike[str], spared: Collection[str] = ()) -> str | None:
    """Return what is wrong with the files of a checkpoint; None = nothing.

    With a seal, we find every file that is missing or differs in a byte. A checkpoint of another trainer or of an
    earlier hf_prune has no seal. There we find files of Trainer that are cut short, or that begin with zeros.

    Args:
        folder: The checkpoint.
        spared: Names of files that may be missing.
    """
    folder = Path(folder)
    try:
        if not (folder / SEAL).exists():
            unreadable = (text for name, path in _files(folder) if (text := _unreadable(name, path)))
            return next(unreadable, None) or _lack(folder)
        sealed = read_json(folder / SEAL)[_KEY]
        return _difference(folder, {name: (size, checksum) for name, (size, checksum) in sealed.items()}, spared)
    except OSError as error:
        return str(error)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        return f"{folder / SEAL} is damaged: {why(error)}"


def _difference(folder: Path, sealed: dict[str, tuple[int, int]], spared: Collection[str]) -> str | None:
    found = dict(_files(folder))
    if gone := sorted(set(sealed) - set(found) - set(spared)):
        return f"{folder / gone[0]} is missing"
    there = {name: path for name, path in found.items() if name in sealed}
    for name, path in there.items():  # sizes first: they are read faster than checksums
        if (size := path.stat().st_size) != sealed[name][0]:
            return f"{path} is damaged: it has {size:,} bytes, and was saved with {sealed[name][0]:,}"
    changed = (path for name, path in there.items() if _checksum(path) != sealed[name][1])
    path = next(changed, None)
    return path and f"{path} is damaged: its checksum is not the one that it was saved with"


def _files(folder: str | os.PathLike[str]) -> Iterator[tuple[str, Path]]:
    """Yield the name within the folder, and the path, of each file to seal: no cards, no hidden or private files."""
    for path in sorted(Path(folder).rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in _PASSING and not name.startswith(("_", ".")) and path.suffix != ".md":
            yield name, path


def _checksum(path: Path) -> int:
    value, block = 0, memoryview(bytearray(_BLOCK))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(block):
            value = zlib.crc32(block[:count], value)
    return value


# ---- Without the seal ----


def _unreadable(name: str, path: Path) -> str | None:
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="np"):
                return None
        if _SETTINGS.fullmatch(path.name):
            content = read_json(path)
            shards = set(content["weight_map"].values()) if name.endswith(".index.json") else set()
            if gone := sorted(shards - {other.name for other in path.parent.iterdir()}):
                return f"{path.with_name(gone[0])} is missing"
        elif _TORCH.fullmatch(path.name) and not (zipfile.is_zipfile(path) or _is_pickle(path)):
            return f"{path} is damaged: it is no whole file of torch.save"
    except (OSError, ValueError, LookupError, TypeError, AttributeError, SafetensorError) as error:
        return f"{path} is damaged: {error}"
    return None


def _is_pickle(path: Path) -> bool:
    """Whether a file begins like a pickle, the format of torch.save before zip archives."""
    with open(path, "rb") as file:
        return file.read(1) == b"\x80"


def _lack(folder: Path) -> str | None:
    """Return Trainer's own message if a checkpoint has no weights (a file, or a folder of shards), else None.

    Trainer writes the training arguments after the weights, so we report missing weights only if that file exists.
    """
    if not (folder / "training_args.bin").exists() or any(folder.glob("*model*")):
        return None
    return None if any(path.is_dir() for path in folder.iterdir()) else f"Can't find a valid checkpoint at {folder}"
