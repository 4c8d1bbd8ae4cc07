"""Scripts run as commands of their own, one after another or several at once, with what they print in a log each."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..common.privacy import hide_arguments, hide_values

try:
    import fcntl
except ImportError:  # Windows locks no log
    fcntl = None

LAUNCHERS = {"python": (sys.executable,), "accelerate": (sys.executable, "-m", "accelerate.commands.launch")}
_LAST_LINES = 20
_SECONDS_BETWEEN_LOOKS = 0.1


class FailedRun(RuntimeError):
    """A run of a script ended with an error, or without its result."""


@dataclass(frozen=True)
class Run:
    """A command that leaves a file.

    Args:
        command: The program and its arguments.
        log: What it prints is added here; while the command runs, the file is locked.
        result: What it must have written when it ends.
    """

    command: tuple[str, ...]
    log: Path
    result: Path

    def failure(self, status: int, cure: str) -> str | None:
        """Why a run that ended with `status` failed, after its last words, without secrets; None if it did not.

        Args:
            status: What it ended with.
            cure: What the script must do, where it ended well but left no result.
        """
        if status == 0 and self.result.exists():
            return None
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
        last, command = hide_values("\n".join(lines), self.command), shlex.join(hide_arguments(self.command))
        what = f"failed with status {status}: fix the script" if status else f"ended, but left no {self.result}: {cure}"
        told = f"`{command}` {what}. Finished runs are kept; its whole output is in {self.log}."
        return f"{last}\n{told}" if lines else told


def check_script(script: Sequence[str]) -> None:
    """Refuse what can't be run.

    Args:
        script: A Python file and its arguments.

    Raises:
        ValueError: There is none, or no such file.
    """
    if not script:
        raise ValueError("There is no script: put it and its arguments after --, as in `... -- train.py --bf16`.")
    if not Path(script[0]).is_file():
        raise ValueError(f"There is no script {script[0]!r}: give the path of a Python file.")


def run_all(
    runs: Iterable[Run], jobs: int = 1, is_last: Callable[[Run], bool] = lambda run: False
) -> Generator[tuple[Run, int | None], None, None]:
    """Run commands, `jobs` at once, and tell of each that ends; those that still run are ended with this generator.

    A run that a killed caller has left running is waited for, and not started a second time.

    Args:
        runs: What to run; those whose result exists when their turn comes are not started.
        jobs: Most runs at once.
        is_last: Whether a run is started after all others; asked again whenever one has ended.

    Yields:
        A run and the status that it ended with, or None when it is found to be running already (once for each).
    """
    waiting, running, elsewhere = list(runs), {}, set()
    is_main = threading.current_thread() is threading.main_thread()  # others can't say what a signal does
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)) if is_main else None  # as Ctrl-C: by `finally`
    try:
        while waiting or running:
            news = [(run, process.wait()) for run, process in running.items() if process.poll() is not None]
            for run, _ in news:
                del running[run]
            waiting.sort(key=is_last)
            for run in waiting[: jobs - len(running)]:
                log = _open_locked(run.log)
                if log is None:
                    if run not in elsewhere:
                        elsewhere.add(run)
                        news.append((run, None))
                    continue
                with log:
                    waiting.remove(run)
                    if run.result.exists():
                        news.append((run, 0))
                    else:
                        running[run] = subprocess.Popen(
                            run.command,
                            stdin=subprocess.DEVNULL,
                            stdout=log,
                            stderr=subprocess.STDOUT,
                            start_new_session=True,  # a launcher does not end the processes that it started
                        )
            yield from news
            if not news:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
    finally:
        _end(running.values())
        if is_main:
            signal.signal(signal.SIGTERM, before)


def _open_locked(log: Path) -> IO[bytes] | None:
    """The log, open to add to it and locked until the last process that has it open ends; None where one has it.

    A lock of `filelock` would end with this process, and the run that it has started may outlive it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    file = open(log, "ab")
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
    return file


def _end(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Ask processes to end, with all that they started, and wait until they have."""
    for process in processes:
        with suppress(ProcessLookupError):
            if os.name == "posix":
                os.killpg(process.pid, signal.SIGTERM)
            else:
                process.terminate()
    for process in processes:
        process.wait()
