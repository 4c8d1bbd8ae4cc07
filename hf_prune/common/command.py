"""How a command ends that does not end well: a user's mistake and Ctrl-C in one line, all else with its traceback."""

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

MISTAKES = (ValueError, OSError, ImportError)  # what a user brings about before training has begun; later it is a bug
INTERRUPTED = 130  # the status that shells give to what Ctrl-C has ended
_PATIENCE = 10  # seconds in which the main process speaks, and the launcher ends the others


@dataclass
class Stage:
    """How far the command of this process has come, which its last words depend on.

    Args:
        flags: Names of its flags.
        fields: Those of them that are the policy's.
        policy: How Python shows the policy, and how the command names it.
        output_dir: Where the run is kept; None = not known yet.
        has_begun: Whether an optimizer step has been taken.
    """

    flags: Collection[str] = ()
    fields: Collection[str] = ()
    policy: tuple[str, str] | None = None
    output_dir: Path | None = None
    has_begun: bool = False


stage = Stage()


def as_typed(message: str) -> str:
    """A message in one line, with flags as they are typed in place of the arguments that Python has.

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
        quoted = r"(?<![\w.\-/'\"(])"  # a column, a file or a field of that name is no flag
        message = re.sub(rf"{quoted}{name}=(\.\.\.)?(?=([^\s,.:;)])?)", _flag(name), message)
        if "_" in name or message.startswith(f"{name}:"):  # others are words of English, too
            message = re.sub(rf"{quoted}{name}\b(?!['\"=/(]|\.\w)", f"--{name}", message)
    return message


def _flag(name: str) -> Callable[[re.Match[str]], str]:
    """The flag, and a space before a value that follows."""
    return lambda found: f"--{name}{' ' if found[2] and not found[1] else ''}"


def refuse(error: BaseException | str) -> NoReturn:
    """End the command with what was wrong with it, in argparse's words."""
    text = str(error) or repr(error)
    end(2, f"{Path(sys.argv[0]).name}: error: {as_typed(text)}")


def end(status: int, line: str) -> NoReturn:
    """End this process with a line on stderr; of several that a launcher has started, the main one alone writes it.

    Another one, whose mistake may be its own, speaks where the launcher has not ended it after the main one.
    """
    rank = os.environ.get("RANK", "0")
    if rank != "0":
        if status == INTERRUPTED:  # as all are
            sys.exit(status)
        time.sleep(_PATIENCE)
        line = f"process {rank}: {line}"
    sys.stderr.write(f"{line}\n")
    sys.exit(status)


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line, of several processes once."""

    def error(self, message: str) -> NoReturn:
        """End the command, with status 2."""
        message = re.sub(r"^argument (--[\w-]+)[^:]*: ", r"\1: ", message)  # argparse names each spelling of a flag
        if message.startswith("the following arguments are required"):
            message += ". See --help."
        end(2, f"{self.prog}: error: {as_typed(message)}")


@contextlib.contextmanager
def interruptible(how_to_go_on: Callable[[], str]) -> Iterator[None]:
    """Let Ctrl-C end what the block does with a line that says how to go on, and a second one end it at once."""
    try:
        yield
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        end(INTERRUPTED, f"\n{Path(sys.argv[0]).name}: interrupted. {how_to_go_on()}")  # below a progress bar


def again(*left_out: str) -> str:
    """The command of this process, to be typed again, without the flags `left_out` and without secrets."""
    program, *arguments = sys.argv
    start = ["python", *sys.orig_argv[1 : len(sys.orig_argv) - len(arguments)]]  # with -m, where that stood
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
