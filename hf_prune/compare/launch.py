"""Run scripts as commands of their own, one after another or several at once; each writes its output to a log."""

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
_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # microseconds of CPU time, or "max", and the period that they are for
_THREADS = tuple(f"{name}_NUM_THREADS" for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "RAYON"))
_SECONDS_BETWEEN_LOOKS = 0.1


class FailedRun(RuntimeError):
    """A run of a script ended with an error, or without its result."""


@dataclass(frozen=True)
class Run:
    """A command that writes a result file.

    Args:
        command: The program and its arguments.
        log: File to which its output is added; the file is locked while the command runs.
        result: File that it must have written when it ends.
    """

    command: tuple[str, ...]
    log: Path
    result: Path

    def failure(self, status: int, cure: str) -> str | None:
        """Why a run that ended with `status` failed, after its last output, without secrets; None if it did not fail.

        Args:
            status: Its exit status.
            cure: What the script must do, if it ended well but left no result.
        """
        if status == 0 and self.result.exists():
            return None
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
        last, command = hide_values("\n".join(lines), self.command), shlex.join(hide_arguments(self.command))
        what = f"failed with status {status}: fix the script" if status else f"ended, but left no {self.result}: {cure}"
        told = f"`{command}` {what}. Finished runs are kept; its whole output is in {self.log}."
        return f"{last}\n{told}" if lines else told


def check_script(script: Sequence[str]) -> None:
    """Refuse a script that can't be run.

    Args:
        script: A Python file and its arguments.

    Raises:
        ValueError: No script is given, or there is no such file.
    """
    if not script:
        raise ValueError("There is no script: put it and its arguments after --, as in `... -- train.py --bf16`.")
    if not Path(script[0]).is_file():
        raise ValueError(f"There is no script {script[0]!r}: give the path of a Python file.")


def cores() -> int:
    """CPU cores that this process may use: by its affinity, and by the quota of its container."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # there is no quota
        quota, period = map(int, _QUOTA.read_text().split())
        found = min(found, max(1, quota // period))
    return found


def has_accelerator() -> bool:
    """Whether there is a GPU or the like, which several runs would have to share."""
    import torch  # takes seconds

    return torch.accelerator.is_available()


def _environment(jobs: int) -> dict[str, str] | None:
    """Variables for each of `jobs` runs at once: its share of the CPU cores as threads; None = those of this process.

    Otherwise each run would start a thread on every core, and they would wait for each other.
    """
    if jobs == 1 or any(name in os.environ for name in _THREADS) or has_accelerator():
        return None
    return dict.fromkeys(_THREADS, str(max(1, cores() // jobs))) | dict(os.environ)


def run_all(
    runs: Iterable[Run],
    jobs: int = 1,
    is_last: Callable[[Run], bool] = lambda run: False,
    is_needed: Callable[[Run], bool] = lambda run: True,
) -> Generator[tuple[Run, int | None], None, None]:
    """Run commands, `jobs` at once, and yield each that ends; closing this generator ends those that still run.

    A run that a killed caller has left running is not started a second time: this waits for it.

    Args:
        runs: What to run; a run is not started if its result exists when its turn comes.
        jobs: Most runs at once.
        is_last: Whether to start a run after all others; asked again whenever a run has ended.
        is_needed: Whether to start a run at all; asked again before it is started.

    Yields:
        A run and its exit status, or None when it is found to be running already (once for each run).
    """
    waiting, running, elsewhere, environment = list(runs), {}, set(), _environment(jobs)
    is_main = threading.current_thread() is threading.main_thread()  # other threads can't set signal handlers
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)) if is_main else None  # as Ctrl-C: `finally` runs
    try:
        while waiting or running:
            news = [(run, process.wait()) for run, process in running.items() if process.poll() is not None]
            for run, _ in news:
                del running[run]
            waiting = sorted(filter(is_needed, waiting), key=is_last)
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
                            env=environment,
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
    """The log, open for appending, and locked until the last process that has it open ends; None if it is locked.

    A lock of `filelock` would end with this process, but the run that it has started may live longer.
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
    """Ask processes, with all that they started, to end, and wait for that."""
    for process in processes:
        with suppress(ProcessLookupError):
            if os.name == "posix":
                os.killpg(process.pid, signal.SIGTERM)
            else:
                process.terminate()
    for process in processes:
        process.wait()
