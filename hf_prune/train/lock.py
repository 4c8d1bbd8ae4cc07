"""One run at a time in a folder: a second one is told before it deletes what the first has written.

Why not `filelock`, which huggingface_hub brings: the versions that it allows include those that empty the file when
another process tries to lock it, so that nobody could say who holds the folder, and whose lock lives on in the workers
of a killed run. And it has no shared lock for processes that only ask: two of them would take each other for a run.
"""

import errno
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows locks nothing
    fcntl = None

LOCK = "lock"
_held: set[tuple[int, str]] = set()  # (process, file): the system keeps out other processes, not this one's trainers


class RunLock:
    """Held while a run trains; the system releases it when the process ends, on a kill too.

    It belongs to the process alone: workers that outlive a killed run by seconds don't hold it. It works over NFS, too.
    Where a file system can't lock, nothing is held and nobody is refused.
    """

    def __init__(self):
        self._file: IO[bytes] | None = None
        self._key = 0, ""

    def take(self, folder: str | os.PathLike[str]) -> str | None:
        """Hold a folder until `release`; a folder that is held already is released.

        Returns:
            Who holds it, where another run does; None where this one holds it now.
        """
        self.release()
        key = os.getpid(), os.path.realpath(Path(folder, LOCK))
        if key in _held:
            return "another trainer of this process"
        file, other = _locked(folder)
        if file is not None:
            _held.add(key)
            self._file, self._key = file, key
            with suppress(OSError):  # a full disk has no room for the name; the lock is held all the same
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        return other

    def release(self) -> None:
        """Let go of the folder."""
        if self._file is not None:
            with suppress(OSError):  # the folder may have gone
                Path(self._key[1]).unlink()
            self._file.close()
            self._file = None
            _held.discard(self._key)


def holder(folder: str | os.PathLike[str]) -> str | None:
    """Who trains in a folder; None where nobody does, or where a lock can't tell."""
    if (os.getpid(), os.path.realpath(Path(folder, LOCK))) in _held:
        return "another trainer of this process"
    if not Path(folder, LOCK).exists():
        return None
    file, other = _locked(folder, shared=True)
    if file is not None:
        file.close()
    return other


def _locked(folder: str | os.PathLike[str], shared: bool = False) -> tuple[IO[bytes] | None, str | None]:
    """The locked file, or who has locked it; neither where it can't be locked."""
    if fcntl is None:
        return None, None
    path = Path(folder, LOCK)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW  # what a link points to is not to be written
        file = os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0)
    except OSError:
        return None, None  # where nothing can be written, nothing can be deleted either
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # a pipe is no file to write a name to
        file.close()
        return None, None
    try:
        fcntl.lockf(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        by = file.read().decode(errors="replace")
        file.close()
        return None, (by or "another process") if error.errno in (errno.EACCES, errno.EAGAIN) else None
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
            return file, None
    file.close()  # its holder has released it meanwhile and removed the file
    return _locked(folder, shared)
