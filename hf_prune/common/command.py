"""How a command fails: a user's mistake or Ctrl-C ends it with one line, any other error with a traceback."""

import argparse
import contextlib
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from .privacy import hide_arguments

MISTAKES = (ValueError, OSError, ImportError)  # before training has begun, these are a user's mistakes; later, bugs
INTERRUPTED = 130  # the exit status that shells give to a command that Ctrl-C has ended
_PATIENCE = 10  # seconds for the main process to print its line and for the launcher to end the others


@dataclass
class Stage:
    """How far the command of this process has come. The line that it ends with depends on that.

    Args:
        flags: Names of its flags.
        fields: The flags among them that are fields of the policy.
        policy: The policy as Python shows it, and as the command names it.
        output_dir: The folder of the run; None = not known yet.
        has_begun: Whether an optimizer step has been taken.
        scores: The command that runs this process's script to score its rows in place of training; None = it trains.
    """

    flags: Collection[str] = ()
    fields: Collection[str] = ()
    policy: tuple[str, str] | None = None
    output_dir: Path | None = None
    has_begun: bool = False
    scores: str | None = None


stage = Stage()


def as_typed(message: str) -> str:
    """A message on one line, with flags as they are typed in place of Python's arguments.

    "history='out' is of another data set" becomes "--history 'out' is of another data set", and "Uniform(keep=...) must
    be" gets "--keep: " before it.
    """
    message = " ".join(message.split())
    if (found := re.match(r"\w+\((\w+)=\.\.\.\)", message)) and found[1] in stage.fields:
        return f"--{found[1]}: {message}"
    if stage.policy is not None:
        shown, typed = stage.policy
        message = re.sub(rf"(policy=|(?<!['\"])){re.escape(shown)}", lambda _: f"--policy {typed}", message)
    for name in sorted(set(stage.flags) - set(stage.fields)):
        quoted = r"(?<![\w.\-/'\"(])"  # a column, a file or a field of the same name is not a flag
        message = re.sub(rf"{quoted}{name}=(\.\.\.)?(?=([^\s,.:;)])?)", _flag(name), message)
        if "_" in name or message.startswith(f"{name}:"):  # other names are also English words
            message = re.sub(rf"{quoted}{name}\b(?!['\"=/(]|\.\w)", f"--{name}", message)
    return message


def _flag(name: str) -> Callable[[re.Match[str]], str]:
    """Replaces a name by its flag, with a space before a value that follows."""
    return lambda found: f"--{name}{' ' if found[2] and not found[1] else ''}"


def refuse(error: BaseException | str) -> NoReturn:
    """End the command and say what was wrong, in the form of argparse."""
    text = str(error) or repr(error)
    end(2, f"{Path(sys.argv[0]).name}: error: {as_typed(text)}")


def end(status: int, line: str) -> NoReturn:
    """End this process with a line on stderr.

    If a launcher has started several processes, only the main one writes the line. Another process may have made a
    mistake of its own: it waits, and writes its line unless the launcher has ended it by then.

    Args:
        status: The exit status.
        line: The line, without a line break at its end.
    """
    rank = os.environ.get("RANK", "0")
    if rank != "0":
        if status == INTERRUPTED:  # the main process says it for all
            sys.exit(status)
        time.sleep(_PATIENCE)
        line = f"process {rank}: {line}"
    sys.stderr.write(f"{line}\n")
    sys.exit(status)


class Parser(argparse.ArgumentParser):
    """Reports what is wrong with a command line on one line, and only once for several processes."""

    def error(self, message: str) -> NoReturn:
        """End the command, with status 2."""
        message = re.sub(r"^argument (--[\w-]+)[^:]*: ", r"\1: ", message)  # argparse names each spelling of a flag
        if message.startswith("the following arguments are required"):
            message += ". See --help."
        end(2, f"{self.prog}: error: {as_typed(message)}")


@contextlib.contextmanager
def interruptible(how_to_go_on: Callable[[], str]) -> Iterator[None]:
    """Let Ctrl-C end the block with a line that says how to go on; a second Ctrl-C ends the process at once."""
    try:
        yield
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        end(INTERRUPTED, f"\n{Path(sys.argv[0]).name}: interrupted. {how_to_go_on()}")  # below a progress bar


def again(*left_out: str) -> str:
    """The command of this process, to be typed again, without secrets and without the flags in `left_out`."""
    if stage.scores is not None:
        return stage.scores
    program, *arguments = sys.argv
    start = ["python", *sys.orig_argv[1 : len(sys.orig_argv) - len(arguments)]]  # keeps a -m that was typed
    if any(name.startswith("ACCELERATE_") for name in os.environ):
        start = ["accelerate", "launch", program]
    elif not program.endswith(".py"):  # the script of an installed package
        start = [Path(program).name]
    shown, name = [], ""
    for argument in hide_arguments(arguments):
        if argument.startswith("--"):
            name = argument[2:].partition("=")[0].replace("-", "_")
        if name not in left_out:
            shown.append(argument)
    return shlex.join([*start, *shown])
