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
from .enough import RULES
from .measured import CLOSE
from .plan import rule_of
from .result import LARGEST, RESULTS

_COLUMNS = {  # of comparisons, by the kind of arm
    "full": "all rows",
    "short": "fewer epochs",
    "uniform": "random rows",
    "baseline": "other baselines",
    "policy": "rules",
    "oracle": "oracle",
}
_RARE = ("other baselines", "oracle")  # left out where no comparison has them


def table(paths: Sequence[str | os.PathLike[str]], best: bool = False) -> str:
    """A Markdown table of runs, or of comparisons: files, or the folders that hold them.

    Args:
        paths: The files or folders.
        best: Whether comparisons are shown with their best rule alone.

    Raises:
        ValueError: There are no runs and no comparisons, there are both, or a file holds something else.
    """
    files = [find(Path(path)) for path in paths]
    compared = {file.name == COMPARISON for file in files}
    if len(compared) > 1:
        raise ValueError(f"{', '.join(map(str, files))}: give runs or comparisons, not both in one table.")
    are_comparisons = compared.pop()
    if best and not are_comparisons:
        raise ValueError(f"--best: {files[0]} is a run, and only comparisons have a best rule; leave it out.")
    return (regimes_table if best else comparisons_table if are_comparisons else runs_table)(files)


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


def regimes_table(paths: Sequence[str | os.PathLike[str]]) -> str:
    """A Markdown table of comparison.json files, one line each, with the best rule of each.

    This is the rule of the verdict; where none wins, the one with the largest gain over as much of all rows. "Fewer
    epochs" is the arm that it has to beat. "Saved" is what it did not read of what the full arm read.

    Raises:
        ValueError: A file holds something else.
    """
    headings = ["regime", "quality", "all rows", "fewer epochs", "best rule", "saved", "rule less fewer epochs"]
    lines = []
    for path in map(Path, paths):
        try:
            lines.append(_regime(path, read_json(path)))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(f"{path} is no comparison.json of `hf-prune compare` ({why(error)}).") from error
    return markdown_table(headings, lines)


def _regime(path: Path, found: dict[str, Any]) -> list[str]:
    digits = int(number(found["quality"]["digits"], "digits", 0, 10, whole=True))
    sign = 1 if found["quality"]["greater_is_better"] else -1
    arms = {arm["arm"]: arm for arm in found["arms"]}
    rules = {name: rival for name, arm in arms.items() if arm["kind"] == "policy" and (rival := _opponent(arm))}
    winner = (found.get("verdict") or {}).get("arm")  # older files have no verdict
    best = winner if winner in rules else max(rules, key=lambda name: sign * rules[name]["mean"], default=None)
    line = [f"[{in_words(path.parent.name)}]({quote(path.with_suffix('.md').as_posix())})"]
    line += [label(found["quality"]["unit"], "unit"), f"{arms['full']['mean']:.{digits}f}"]
    if best is None:
        return [*line, "", "none", "", ""]
    rival, full = rules[best], arms[best]["differences"]["full"]
    ends = [
        f"{number(rival[end], end, -LARGEST, LARGEST):+.{digits}f}" for end in ("low", "high") if rival[end] is not None
    ]
    interval = f" ({' to '.join(ends)})" if ends else ""
    line += [f"{arms[rival['to']]['mean']:.{digits}f}", f"{in_code(best)}: {arms[best]['mean']:.{digits}f}"]
    return [*line, f"{100 * full['saved']:.0f} %", f"{rival['mean']:+.{digits}f}{interval}"]


def _opponent(arm: dict[str, Any]) -> dict[str, Any] | None:
    """An arm's difference to the arm that it has to beat: `short`, or `full` if it read as much; None = none."""
    full, short = arm["differences"]["full"], arm["differences"]["short"]
    return full if short is None and full and abs(full["saved"]) <= CLOSE else short


def comparisons_table(paths: Sequence[str | os.PathLike[str]]) -> str:
    """A Markdown table of comparison.json files, one line each: quality by arm, and in brackets what the arm saved.

    For arms with a budget, the budget nearest to a half is shown. `+` and `-`: better and worse than the arm with fewer
    epochs that read as much, within a tenth; the 95 % interval of the difference excludes 0. `?`: there is no such arm,
    or both have only one seed.

    Raises:
        ValueError: A file holds something else.
    """
    headings = ["comparison", "seeds", "quality", *_COLUMNS.values()]
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
            for kind in _COLUMNS:
                arms = [arm for arm in shown if arm["kind"] == kind]
                names = [f"{_name(arm)}: " if kind in RULES else "" for arm in arms]
                texts = [_brief(arm, found) for arm in arms]
                line.append("<br>".join(map("".join, zip(names, texts, strict=True))))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(f"{path} is no comparison.json of `hf-prune compare` ({why(error)}).") from error
        lines.append(line)
    rare = [i for i, heading in enumerate(headings) if heading in _RARE and not any(line[i] for line in lines)]
    headings, *lines = ([cell for i, cell in enumerate(row) if i not in rare] for row in [headings, *lines])
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
    rival = _opponent(arm)
    if rival is None or rival["seeds"] == 1 or rival["low"] is None:
        return " ?"
    if rival["low"] <= 0 <= rival["high"]:
        return ""
    return " +" if (rival["mean"] > 0) == found["quality"]["greater_is_better"] else " -"
