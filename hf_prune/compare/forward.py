"""Losses of rows under a model: a training script of the user's own runs up to its training, which scores them.

The script runs in this process, so that any launcher may start it on several processes, and its progress is seen. Its
`train()` finds `stage.scores`, scores the rows and ends the script.
"""

import gc
import os
import runpy
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..common.command import again, stage
from ..records.history import History
from ..records.history_file import HISTORY
from ..records.table import ROWS, read_file_rows, write_rows
from .launch import FailedRun, check_script
from .score import claim

BASE = "base_loss"  # the signal of a History that holds the losses under another model


def score_by_model(
    model: str, script: Sequence[str], output_dir: str | os.PathLike[str], base: str | None = None
) -> str:
    """Measure the loss of each row that a script would train on, and write a History to `output_dir`.

    The script gets its own arguments, then `--model_name_or_path MODEL --output_dir OUTPUT_DIR/model`, and runs until
    it calls `train()` of a pruning trainer. Every process must call this. Called again, it goes on where it was.

    Args:
        model: The model whose losses are `loss`.
        script: A Python file and its arguments.
        output_dir: Folder for a folder per model, and for the file that `history=output_dir` reads.
        base: The model whose losses are the signal `base_loss`; None = only `model` is run.

    Returns:
        A message that says what was made; "" on all processes but the main one.

    Raises:
        ValueError: There is no script, or `output_dir` has runs of another command.
        FailedRun: The script failed, or scored no rows; or the two models read different rows.
        SystemExit: The script ended itself with a message.
    """
    check_script(script)
    folder, is_main = Path(output_dir), os.environ.get("RANK", "0") == "0"
    models = {"model": model} | ({} if base is None else {"base": base})
    if is_main:
        claim(folder, [*script, *(part for name, path in models.items() for part in (f"--{name}", path))])
    files = {name: folder / name / HISTORY for name in models}
    for name, path in models.items():
        if not files[name].exists():
            _run([*script, "--model_name_or_path", path, "--output_dir", str(files[name].parent)])
        if not files[name].exists():
            raise FailedRun(
                f"{script[0]} ended, but left no {files[name]}: it must call train() of a PruningTrainer that has the "
                "--model_name_or_path and the --output_dir given."
            )
    if not is_main:
        return ""
    rows = _join(files, folder)
    for_what = "policy='rho_loss', or of any policy as a warm start" if base is None else "policy='trusted'"
    return f"{folder / HISTORY}: the losses of {rows:,} rows. Give history={str(folder)!r} to a trainer of {for_what}."


def _run(command: Sequence[str]) -> None:
    """Run a script in this process, until it has scored its rows."""
    with _as_started(command):
        try:
            runpy.run_path(command[0], run_name="__main__")
        except SystemExit as end:
            if end.code not in (None, 0):
                raise
        except Exception as error:  # any error of the user's own script
            raise FailedRun(
                f"{traceback.format_exc()}{command[0]} failed: fix the script. What has been scored is kept."
            ) from error
    gc.collect()  # a trainer and its model refer to each other; the next model needs the memory


@contextmanager
def _as_started(command: Sequence[str]) -> Iterator[None]:
    """Within the block, this process looks like one that Python has started with a script."""
    argv, path, before = sys.argv, sys.path, replace(stage)
    stage.scores = again()
    sys.argv, sys.path = [*command], [str(Path(command[0]).resolve().parent), *sys.path]
    try:
        yield
    finally:
        sys.argv, sys.path = argv, path
        vars(stage).update(vars(before))


def _join(files: dict[str, Path], folder: Path) -> int:
    """Write one History of all models, and its table. Return the number of rows."""
    history = History.load(files["model"])
    if "base" in files:
        base = History.load(files["base"])
        if len(base) != len(history) or base.facts.get("data") != history.facts.get("data"):
            raise FailedRun(
                f"{files['model']} and {files['base']} are of different rows: the two models need one tokenizer, and "
                "the script must read the same rows in the same order each time. Remove these folders."
            )
        history.signals[BASE] = base.loss
        costs = history.facts["cost"], base.facts["cost"]
        history.facts["cost"] = {name: sum(cost[name] for cost in costs) for name in costs[0]}
    history.save(folder / HISTORY)
    if (table := files["model"].with_name(ROWS)).exists():  # without pyarrow there is none
        write_rows(folder / ROWS, history, file_rows=read_file_rows(table))
    return len(history)
