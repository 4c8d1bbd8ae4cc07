"""A lock that allows one run at a time in a folder: a second run is refused before it deletes files of the first.

Why not `filelock`, which huggingface_hub installs? Some versions that it allows empty the file when another process
tries to lock it, so nobody could read who holds the folder. Their lock also stays with the workers of a killed run.
And `filelock` has no shared lock for processes that only ask: two of them would take each other for a run.
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
_held: set[tuple[int, str]] = set()  # (process, file): a system lock does not exclude trainers of the same process


class RunLock:
    """A lock that a run holds while it trains. The system releases it when the process ends, also after a kill.

    The lock belongs to the process alone: workers that outlive a killed run for some seconds don't hold it. It works
    over NFS, too. If a file system can't lock, nothing is locked and no run is refused.
    """

    def __init__(self):
        self._file: IO[bytes] | None = None
        self._key = 0, ""

    def take(self, folder: str | os.PathLike[str]) -> str | None:
        """Lock a folder until `release`. A folder that this object already holds is released first.

        Returns:
            The holder, if another run holds the folder; None = this run holds it now.
        """
        self.release()
        key = os.getpid(), os.path.realpath(Path(folder, LOCK))
        if key in _held:
            return "another trainer of this process"
        file, other = _locked(folder)
        if file is not None:
            _held.add(key)
            self._file, self._key = file, key
            with suppress(OSError):  # a full disk may have no room for the name; the lock works without it
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        return other

    def release(self) -> None:
        """Release the folder."""
        if self._file is not None:
            with suppress(OSError):  # someone may have deleted the folder
                Path(self._key[1]).unlink()
            self._file.close()
            self._file = None
            _held.discard(self._key)


def holder(folder: str | os.PathLike[str]) -> str | None:
    """Return who trains in a folder; None = nobody, or the file system can't lock."""
    if (os.getpid(), os.path.realpath(Path(folder, LOCK))) in _held:
        return "another trainer of this process"
    if not Path(folder, LOCK).exists():
        return None
    file, other = _locked(folder, shared=True)
    if file is not None:
        file.close()
    return other


def _locked(folder: str | os.PathLike[str], shared: bool = False) -> tuple[IO[bytes] | None, str | None]:
    """Lock the file in a folder. Return the file, or its holder if another process has locked it, or neither."""
    if fcntl is None:
        return None, None
    path = Path(folder, LOCK)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW  # never write to the target of a link
        file = os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0)
    except OSError:
        return None, None  # in a folder that can't be written, no run can delete anything either
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # for example a pipe
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
    file.close()  # meanwhile the former holder removed the file, so we locked a deleted one: try again
    return _locked(folder, shared)
