"""Draw a picture of what a command prints in a terminal, for a README.

    python recipes/benchmarks/terminal.py recipes/results/audit.svg -- hf-prune audit audit-output/first --top 12

It runs the command with 100 columns and writes the SVG. The texts stay texts, and nothing is loaded from the network.
The README's picture is of the first run of recipes/audit.ipynb.
"""

import argparse
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from hf_prune.common.storage import write_text

COLUMNS = 100


def svg(command: str, printed: str) -> str:
    """The picture of a terminal in which `command` has printed something, the same each time."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, legacy_windows=False)
    console.print(Text.assemble(("$ ", "green"), (command, "bold")))
    console.print(Text.from_ansi(printed.rstrip()))
    drawn = console.export_svg(title="hf_prune", unique_id="terminal")
    drawn = re.sub(r"\s*@font-face \{.*?\}\n", "\n", drawn, flags=re.DOTALL)  # fonts of another site
    return "".join(f"{line.rstrip()}\n" for line in drawn.splitlines() if line.strip())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", help="the SVG file")
    parser.add_argument("command", nargs="+", help="the command and its arguments, after --")
    given = parser.parse_args(argv)
    environment = os.environ | {"COLUMNS": str(COLUMNS)}
    done = subprocess.run(given.command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{shlex.join(given.command)} failed: {done.stderr.strip()}")
    write_text(given.output, svg(shlex.join(given.command), done.stdout))


if __name__ == "__main__":
    main()
