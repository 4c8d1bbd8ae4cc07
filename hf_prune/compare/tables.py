"""Tables for a README or a notebook: runs side by side, and comparisons side by side."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..common.foreign import label, number, read_json, setting, why
from ..common.markdown import in_code, in_words, markdown_table
from ..common.privacy import public
from ..report.card import COMPARISON
from ..report.figures import percent
from ..report.scales import scale_of
from .plan import rule_of
from .result import LARGEST, RESULTS
from .verdict import CLOSE


def table(paths: Sequence[str | os.PathLike[str]]) -> str:
    """A Markdown table of runs, or of comparisons: files, or the folders that hold them.

    Raises:
        ValueError: There are no runs and no comparisons, there are both, or a file holds something else.
    """
    files = [find(Path(path)) for path in paths]
    compared = {file.name == COMPARISON for file in files}
    if len(compared) > 1:
        raise ValueError(f"{', '.join(map(str, files))}: give runs or comparisons, not both in one table.")
    return (comparisons_table if compared.pop() else runs_table)(files)


def find(path: Path) -> Path:
    """The file of a run or of a comparison: `path` itself, or a file in it.

    Raises:
        ValueError: There is none.
    """
    for file in (path / COMPARISON, path / RESULTS, path):
        if file.is_file():
            return file
    raise ValueError(
        f"{path}: there is no {RESULTS} of a run that has ended, and no {COMPARISON}; name one, or its folder."
    )


def runs_table(paths: Sequence[str | os.PathLike[str]]) -> str:
    """A Markdown table of the recipes' results.json files, one line each.

    "Trained" counts tokens without padding, or rows if the inputs have no tokens. "Of offered" compares with every row
    once per epoch. "Forward alone" counts rows that were measured and not trained. "Seconds" are of the whole run.

    Raises:
        ValueError: A file holds something else.
    """
    headings = ["run", "policy", "epochs", "trained", "of offered", "forward alone", "steps", "seconds", "quality"]
    lines = []
    for file in map(Path, paths):
        try:
            found = read_json(file)
            line = {"run": in_words(file.parent.name if file.name == RESULTS else file.stem), "policy": "none"}
            if found["policy"] is not None:
                line |= {"policy": in_code(public(setting(found["policy"], "policy")))} | _counts(found["pruning"])
            seconds = [number(value, "seconds") for value in found["seconds"].values()]
            line["seconds"] = f"{sum(seconds):,.0f}"
            line["quality"] = _quality(found["quality"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{file} is no results.json of a recipe ({why(error)}).") from error
        lines.append([line.get(heading, "") for heading in headings])
    return markdown_table(headings, lines)


def _counts(pruning: dict[str, Any]) -> dict[str, str]:
    totals = {name: number(value, name) for name, value in pruning["totals"].items() if value is not None}
    number(pruning["training_rows"], "training_rows", 1, whole=True)
    unit = "tokens" if totals["tokens_offered"] else "rows"
    return {
        "epochs": f"{totals['rows_offered'] / pruning['training_rows']:.3g}",
        "trained": f"{totals[unit]:,} {unit}",
        "of offered": percent(totals[unit], totals[f"{unit}_offered"]),
        "forward alone": f"{totals['rows_rescored']:,} rows",
        "steps": f"{totals['optimizer_steps']:,}",
    }


def _quality(quality: dict[str, Any]) -> str:
    scale, value = scale_of(label(quality["metric"], "metric")), quality["value"]
    number(0 if value is None else value, "the quality", -LARGEST, LARGEST)
    return f"{scale.title}: {'diverged' if value is None else f'{scale.factor * value:.{scale.digits}f}'}"


def comparisons_table(paths: Sequence[str | os.PathLike[str]]) -> str:
    """A Markdown table of comparison.json files, one line each: quality by arm, and in brackets what the arm saved.

    For arms with a budget, the budget nearest to a half is shown. `+` and `-`: better and worse than the arm with fewer
    epochs that read as much, within a tenth; the 95 % interval of the difference excludes 0. `?`: there is no such arm,
    or both have only one seed.

    Raises:
        ValueError: A file holds something else.
    """
    headings = ["comparison", "seeds", "quality", "all rows", "fewer epochs", "random rows", "rules"]
    lines = []
    for path in map(Path, paths):
        try:
            found = read_json(path)
            number(found["quality"]["digits"], "digits", 0, 10, whole=True)
            number(found["plan"]["seeds"], "seeds", 1, whole=True)
            budgets = {arm["budget"] for arm in found["arms"]}
            half = min(budgets - {None}, key=lambda budget: abs(budget - 0.5), default=None)
            line = [f"[{in_words(path.parent.name)}]({quote(path.with_suffix('.md').as_posix())})"]
            line += [str(found["plan"]["seeds"]), label(found["quality"]["unit"], "unit")]
            shown = [arm for arm in found["arms"] if arm["budget"] in (None, half)]
            for kind in ("full", "short", "uniform"):
                line.append("<br>".join(_brief(arm, found) for arm in shown if arm["kind"] == kind))
            line.append("<br>".join(f"{_name(arm)}: {_brief(arm, found)}" for arm in shown if arm["kind"] == "policy"))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(f"{path} is no comparison.json of `hf-prune compare` ({why(error)}).") from error
        lines.append(line)
    return markdown_table(headings, lines)


def _name(arm: dict[str, Any]) -> str:
    name = in_code(rule_of(arm["arm"], arm["budget"]))
    return name if arm["budget"] is None else f"{name} at {100 * arm['budget']:g} %"


def _brief(arm: dict[str, Any], found: dict[str, Any]) -> str:
    """Quality, whether it differs from fewer epochs, and the saved share of what the full arm read."""
    ended, planned = len(arm["seeds"]), found["plan"]["seeds"]
    text = f"{arm['mean']:.{found['quality']['digits']}f}"
    full = arm["differences"]["full"]
    if full is not None:
        text += f"{_mark(arm, found)} ({100 * full['saved']:.0f} %)"
    return text if ended == planned else f"{text}, {ended} of {planned} seeds"


def _mark(arm: dict[str, Any], found: dict[str, Any]) -> str:
    """How the quality compares with fewer epochs, or with the full arm if as much was read."""
    if arm["kind"] == "short":
        return ""
    full, short = arm["differences"]["full"], arm["differences"]["short"]
    rival = full if short is None and abs(full["saved"]) <= CLOSE else short
    if rival is None or rival["seeds"] == 1 or rival["low"] is None:
        return " ?"
    if rival["low"] <= 0 <= rival["high"]:
        return ""
    return " +" if (rival["mean"] > 0) == found["quality"]["greater_is_better"] else " -"
