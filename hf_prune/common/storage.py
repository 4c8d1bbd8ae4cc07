"""Files that are read whole or refused: named arrays and a JSON header in one checksummed safetensors file."""

import json
import os
import re
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse
from safetensors.numpy import save as serialize

FORMAT = 1
_HEADER_SIZE = 8  # bytes of the little-endian length that opens a safetensors file
_LEFT = re.compile(r"_.*\.[0-9a-f]{16}\.tmp")  # a file that is being written, or was left by a kill
_OLD = 3600  # seconds: a file that is being written is younger


class DamagedFile(ValueError):
    """The file is truncated, altered, or of a format that this version does not read."""


class OtherFormat(DamagedFile):
    """The file is whole, but another version of hf_prune wrote it."""


def save(path: str | os.PathLike[str], arrays: dict[str, np.ndarray], header: dict[str, Any]) -> None:
    """Write `arrays` and `header` to `path`; a reader sees the old file or the new one, never a part.

    The same arrays and header give the same bytes.

    Args:
        path: File to write; a missing folder is created.
        arrays: Any shapes; numbers or booleans.
        header: JSON-serialisable values that describe the arrays.

    Raises:
        TypeError: An array holds something else.
        OSError: The disk is full or the folder can't be written; an earlier file at `path` stays as it was.
    """
    path = Path(path)
    arrays = {name: np.require(array, requirements="C") for name, array in arrays.items()}
    if wrong := [f"{name} ({array.dtype})" for name, array in arrays.items() if array.dtype.kind not in "biuf"]:
        raise TypeError(f"{', '.join(wrong)}: a file holds arrays of numbers or switches; keep texts as their numbers.")
    text = json.dumps({"format": FORMAT, **header}, sort_keys=True)
    # one entry: safetensors writes several in a random order
    blob = serialize(arrays, metadata={"hf_prune": f"{_checksum(arrays, text)} {text}"})
    try:
        write_bytes(path, blob)
    except OSError as error:
        reason = f"{error.strerror or error}: can't write {len(blob)} bytes; what was there before is unchanged"
        raise OSError(error.errno, f"{reason}. Make room, or name a folder that can be written", str(path)) from error


def load(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a file that `save` wrote.

    Returns:
        The arrays and the header.

    Raises:
        FileNotFoundError: There is no such file.
        DamagedFile: It is truncated or altered.
        OtherFormat: Another version wrote it.
    """
    blob = Path(path).read_bytes()
    try:
        size = int.from_bytes(blob[:_HEADER_SIZE], "little")
        metadata = json.loads(blob[_HEADER_SIZE : _HEADER_SIZE + size])["__metadata__"]
        arrays = parse(blob)
        expected, _, text = metadata["hf_prune"].partition(" ")
        expected, header = int(expected), json.loads(text)
        found = header.pop("format")
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DamagedFile(f"{path} is damaged or was not written by hf_prune ({error}).") from error
    if _checksum(arrays, text) != expected:
        raise DamagedFile(f"{path} is damaged: its checksum does not match its content.")
    if found != FORMAT:
        raise OtherFormat(
            f"{path} has format {found}, and this version of hf_prune reads format {FORMAT}. Read it with the version "
            "that wrote it."
        )
    return arrays, header


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text in UTF-8; a reader sees the old file or the new one, never a part.

    Args:
        path: The file; a missing folder is created.
        text: The text; half a surrogate pair is written as an escape, as in JSON and Python.
    """
    write_bytes(path, storable(text).encode())


def storable(text: str) -> str:
    """The text with half of a surrogate pair as an escape; UTF-8, and so Parquet, can't hold it."""
    return text.encode(errors="backslashreplace").decode()


def write_bytes(path: str | os.PathLike[str], blob: bytes) -> None:
    """Write bytes; a reader sees the old file or the new one, never a part.

    Args:
        path: The file; a missing folder is created.
        blob: The content.
    """
    with replacing(path) as file:
        file.write(blob)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A new file to fill in the block; it replaces `path` when the block ends without an error.

    If several processes write one path, the file of one of them remains, complete. A link at `path` is replaced; the
    file that it points to does not change.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = beside(path)
    try:
        with open(aside, "xb") as file:  # "x" refuses whatever exists already, a link too
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def beside(path: str | os.PathLike[str]) -> Path:
    """Where to write a file that will become `path`: in the same folder, under a name that nobody can predict.

    Uploads leave it out, like all names that begin with "_". `sweep` removes it if a killed process has left it.
    """
    path = Path(path)
    return path.with_name(f"_{path.name.lstrip('_')}.{token_hex(8)}.tmp")


def sweep(folder: str | os.PathLike[str]) -> None:
    """Remove the unfinished files of killed processes from a folder.

    Raises:
        OSError: The folder can't be written.
    """
    for path in Path(folder).glob("_*.tmp"):
        if _LEFT.fullmatch(path.name) and time.time() - path.lstat().st_mtime > _OLD:
            path.unlink(missing_ok=True)


def _checksum(arrays: dict[str, np.ndarray], text: str) -> int:
    value = zlib.crc32(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        value = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), value)
        value = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data if array.size else b"", value)
    return value
