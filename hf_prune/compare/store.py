"""Where the runs of a comparison are: each in a folder of its own, or all that have ended in one small file.

    arms/ARM/seed-S/    results.json, predictions.json and whatever else is kept of a run
    runs.parquet        a line for each run that `pack` has taken out of its folder

A line has the run's results.json whole. Of its predictions it has what quality and intervals are made of: labels or
numbers by row, and in place of texts what each row adds to the sums of BLEU. A comparison that is made again from it
gives the same numbers. A run that is in both is read from its folder.
"""

import json
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..common.foreign import why
from ..common.storage import replacing
from ..report.card import ARMS
from .intervals import row_sums
from .result import RESULTS, RunResult, check_results

RUNS = "runs.parquet"
_KEY = ["arm", "seed"]  # columns that tell one run from another
_ANSWERS = ("predictions", "references", "losses", "tokens", "sums")  # columns of what a run says of the test rows
_WRITTEN: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 19,
    "data_page_size": 1 << 28,  # bytes: the runs of a comparison are much alike, and together in one page
    "use_dictionary": [f"{name}.list.element" for name in ("predictions", "references")],  # of few different values
}


def run_folder(folder: str | os.PathLike[str], arm: str, seed: int) -> Path:
    """Where a run of a comparison is, unless it is packed.

    Args:
        folder: Of the comparison.
        arm: Its name.
        seed: Its seed, from 1.
    """
    return Path(folder, ARMS, arm, f"seed-{seed}")


def check_pyarrow() -> None:
    """Refuse what runs.parquet is needed for, where it can be neither written nor read.

    Raises:
        ImportError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{RUNS} needs pyarrow: pip install pyarrow, or install datasets.") from error


def ended(folder: str | os.PathLike[str], runs: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Those of some runs that have ended, packed or not.

    Args:
        folder: Of the comparison.
        runs: (arm, seed) of each.

    Raises:
        ValueError: runs.parquet holds something else.
        ImportError: It can't be read without pyarrow.
    """
    packed = set(_keys(_read(folder, _KEY)))
    return [key for key in runs if key in packed or (run_folder(folder, *key) / RESULTS).exists()]


def load_runs(folder: str | os.PathLike[str], runs: Iterable[tuple[str, int]]) -> dict[tuple[str, int], RunResult]:
    """Those of some runs that have ended, in the order in which they are asked for.

    Args:
        folder: Of the comparison.
        runs: (arm, seed) of each.

    Raises:
        ValueError: A file holds something else.
        ImportError: runs.parquet can't be read without pyarrow.
    """
    table, found = _read(folder), {}
    packed = {key: line for line, key in enumerate(_keys(table))}
    for key in runs:
        if (run_folder(folder, *key) / RESULTS).exists():
            found[key] = RunResult.load(run_folder(folder, *key))
        elif key in packed:
            found[key] = _unpack(table.slice(packed[key], 1).to_pylist()[0], Path(folder, RUNS))
    return found


def pack(folder: str | os.PathLike[str], runs: Iterable[tuple[str, int]]) -> None:
    """Put those of some runs that have ended into runs.parquet, and remove their folders.

    What is behind a link stays.

    Args:
        folder: Of the comparison.
        runs: (arm, seed) of each that the comparison may have; others are not kept.

    Raises:
        ValueError: A file holds something else.
        ImportError: pyarrow is not installed.
    """
    check_pyarrow()
    from pyarrow import parquet

    found = load_runs(folder, runs)
    with replacing(Path(folder, RUNS)) as file:
        parquet.write_table(_table(found), file, **_WRITTEN)
    for path in (run_folder(folder, *key) for key in found):
        if path.is_dir() and path.resolve().is_relative_to(Path(folder).resolve()):
            shutil.rmtree(path)
            for above in (path.parent, path.parent.parent):
                with suppress(OSError):  # it has other runs
                    above.rmdir()


def _table(runs: dict[tuple[str, int], RunResult]) -> Any:
    import pyarrow

    columns: dict[str, list[Any]] = {
        "arm": [arm for arm, _ in runs],
        "seed": [seed for _, seed in runs],
        "results": [json.dumps(run.results, separators=(",", ":")) for run in runs.values()],
        "tested_on": [run.tested_on for run in runs.values()],
        "is_constant": [run.is_constant for run in runs.values()],
    }
    for name in _ANSWERS:
        values = [run.answers.get(name) for run in runs.values()]
        if any(value is not None for value in values):
            columns[name] = values
    return pyarrow.table(columns)


def _read(folder: str | os.PathLike[str], columns: list[str] | None = None) -> Any:
    """The table of the runs that are packed, of some columns alone; None where no run is.

    Raises:
        ValueError: The file is damaged.
        ImportError: It can't be read without pyarrow.
    """
    path = Path(folder, RUNS)
    if not path.exists():
        return None
    check_pyarrow()
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path, columns=columns)
        table.select(_KEY)  # both are there
        return table
    except (pyarrow.ArrowException, KeyError, OSError) as error:
        raise _damaged(path, error) from error


def _keys(table: Any) -> list[tuple[str, int]]:
    """(arm, seed) of each line."""
    return [] if table is None else list(zip(*table.select(_KEY).to_pydict().values(), strict=True))


def _unpack(line: dict[str, Any], path: Path) -> RunResult:
    try:
        results = json.loads(line["results"])
        check_results(results)
        quality = results["quality"]
        if quality["value"] is None:
            return RunResult(results)
        answers = {name: line[name] for name in _ANSWERS if line.get(name) is not None}
        rows = row_sums(quality["metric"], answers, results["scores"])
        run = RunResult(results, answers, rows, line["tested_on"], line["is_constant"])
        if run.mismatch:
            raise ValueError(run.mismatch)
        return run
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is damaged ({why(error)}). Remove it, and run again what was in it.")
