"""The audit of a run: which rows to look at, and the list of those to leave out; `hf-prune audit` prints and writes it.

Whether there is a list of likely wrong rows at all is for `judgement` to say.
"""

import csv
import io
import json
import os
import re
import textwrap
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..common.foreign import of_kind, read_json
from ..common.storage import replacing, write_text
from ..records.table import DUPLICATES, FILE_ROW
from .account import plain
from .entries import is_number, scores_of
from .page import RunReport
from .rows import has_names, largest_first, suspects
from .unfinished import report_of

KINDS = ("mislabelled", "duplicates", "unlearnt", "rare", "short")
FIRST = 20  # rows that are printed
FIRST_WRONG = (65, 98)  # % of the first 1 %, where losses don't fall into two groups; recipes/results/audit.json
_RARE = 10  # times fewer rows than the largest class: such a class is rare
_SHORT = 4  # times shorter than the median: such a row is short
_WIDTH = 100  # columns of the text
_NAME = 18  # columns of the name of a class
_FORMULA = re.compile(r"[=@\t\r]|[+-](?![\d.]+$)")  # a number with its sign is none


@dataclass(frozen=True)
class Audit:
    """The rows of one kind.

    Args:
        table: The table of all rows, a `pyarrow.Table`, see `records.table.COLUMNS`.
        kind: One of `KINDS`.
        rows: (K,) int64, the rows of this kind, first those to look at first.
        said: What they are, or why there are none, in words.
        may_drop: Whether the rows may be left out of a next run unseen; else somebody must say how many.
        out: (M,) int64, rows that a list already left out of the run.
    """

    table: Any
    kind: str
    rows: np.ndarray
    said: str
    may_drop: bool = True
    out: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def first(self, count: int | None) -> "Audit":
        """The same with the first rows alone; None = all of them."""
        return replace(self, rows=self.rows[:count], may_drop=self.may_drop or count is not None)

    def text(self, count: int = FIRST) -> str:
        """The first rows for a terminal, at most 100 columns wide."""
        lines = textwrap.wrap(self.said, _WIDTH, break_long_words=False, break_on_hyphens=False)
        if len(self.rows):
            lines += ["", *_lines(self.table, self.rows[:count], self.kind)]
        if len(self.rows) > count:
            lines.append(f"... and {len(self.rows) - count:,} more: --top, or --csv FILE.")
        return "\n".join(lines)

    def write(self, path: str, form: str) -> None:
        """Write the rows with all that is known of them.

        Args:
            path: The file.
            form: "csv", "parquet" or "json".
        """
        _write(self.table.take(self.rows), path, form)

    def write_drop(self, path: str) -> None:
        """Write the list of the rows that the policy `listed` takes as `file`, with `drop=True`.

        It holds the numbers of the rows, and those in their own file where these are known: `listed` goes by the latter
        if the training set has them. Rows that the run itself left out by a list stay in it.

        Args:
            path: The file: .csv, .json or .parquet.

        Raises:
            ValueError: There is nothing to leave out, or the suffix is another.
        """
        form = Path(path).suffix.lower().removeprefix(".")
        if form not in ("csv", "json", "parquet"):
            raise ValueError(f"--drop {path}: suffix {Path(path).suffix!r} is not known; give .csv, .json or .parquet.")
        if not len(self.rows):
            raise ValueError(f"--drop {path}: nothing is written, for there is nothing to leave out. {self.said}")
        if not self.may_drop:
            raise ValueError(f"--drop {path}: how many are wrong can't be said. Look at the rows, and give --top N.")
        names = [name for name in (FILE_ROW, "row") if name in self.table.column_names]
        _write(self.table.take(np.union1d(self.rows, self.out)).select(names), path, form)


def audit(run: str | os.PathLike[str] | RunReport, kind: str = "mislabelled") -> Audit:
    """Find the rows of a run to look at.

    Args:
        run: Folder of a run, which may go on, or a report.
        kind: "mislabelled" (likely wrong labels or pairs), "duplicates" (all but the first of a group of
            near-duplicates), "unlearnt" (never below the mean loss), "rare" (of classes with few rows) or "short".

    Raises:
        ValueError: The folder holds no such run, its files are damaged, or the kind is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"audit(kind={kind!r}): choose one of {', '.join(KINDS)}.")
    report = run if isinstance(run, RunReport) else report_of(run)
    table = report.table()
    find = {"duplicates": _duplicates, "rare": _rare, "short": _short}.get(kind)
    found = _suspects(table, report, kind) if find is None else Audit(table, kind, *find(table))
    return found if report.left_out is None else replace(found, out=report.left_out)


def changes(before: RunReport, after: RunReport) -> str:
    """What a list of left-out rows has changed from one run to the next, in words.

    Args:
        before: The run that the list was made from.
        after: The run that left its rows out.
    """
    lines = []
    if (dropped := after.left_out_by_list) is not None:
        lines.append(dropped)
    elif after.rows != before.rows:
        lines.append(f"The training set has {after.rows:,} rows, before {before.rows:,}.")
    scores = [_scores(report) for report in (before, after)]
    shared = sorted(scores[0].keys() & scores[1].keys())
    lines += [f"{name}: {scores[0][name]:.4g} before, {scores[1][name]:.4g} now." for name in shared]
    if not shared:
        lines.append("Whether the model is better is not known: the two runs have logged no score of the same name.")
    unlearnt = [int(report.dynamics.never_learnt.sum()) for report in (before, after) if report.dynamics is not None]
    if len(unlearnt) == 2:
        lines.append(f"Rows never learnt: {unlearnt[0]:,} before, {unlearnt[1]:,} now.")
    said = [report.judgement.line for report in (before, after)]
    if said[0] == said[1]:
        return "\n".join([*lines, f"Wrong labels, before as now: {said[0]}"])
    return "\n".join([*lines, f"Wrong labels before: {said[0]}", f"Wrong labels now: {said[1]}"])


# ---- Kinds ----


def _suspects(table: Any, report: RunReport, kind: str) -> Audit:
    judgement, none = report.judgement, np.zeros(0, np.int64)
    if not judgement.is_meaningful:
        return Audit(table, kind, none, f"No row is listed: {judgement.line}", False)
    if kind == "unlearnt":
        rows = largest_first(table, _numbers(table, "never_learnt") == 1)
        said = f"{len(rows):,} of {len(table):,} rows were never below the mean loss of all rows: wrong, hard or rare."
        return Audit(table, kind, rows, said)
    rows = largest_first(table, suspects(table, judgement))
    also = ", and the model predicts another label" if has_names(table) else ""
    if judgement.state != "found":
        said = (
            f"How many labels are wrong can't be said: {judgement.line} {len(rows):,} of {len(table):,} rows were "
            f"never learnt{also}; largest excess loss first. Look at them: they may be hard, rare or wrong. (Where we "
            f"know it, {FIRST_WRONG[0]} to {FIRST_WRONG[1]} % of the first 1 % were wrong, of all rows 9 to 50 %.)"
        )
        return Audit(table, kind, rows, said, False)
    also = also or "; the run kept no classes, so hard rows may be among them"
    said = (
        f"{judgement.line} {len(rows):,} of {len(table):,} rows are likely mislabelled (their losses belong with those"
        f"{also}); largest excess loss first."
    )
    return Audit(table, kind, rows, said)


def _duplicates(table: Any) -> tuple[np.ndarray, str]:
    if DUPLICATES not in table.column_names:
        cure = "the run did not look for them; policy one_of_each does, and saving a model does for small data sets"
        return np.zeros(0, np.int64), f"Near-duplicates are not known: {cure}."
    groups = table[DUPLICATES].to_numpy()
    rows = np.flatnonzero(groups != np.arange(len(groups)))
    rows = rows[np.argsort(groups[rows], kind="stable")]
    return rows, f"{len(rows):,} of {len(table):,} rows are near-duplicates of an earlier row."


def _rare(table: Any) -> tuple[np.ndarray, str]:
    known = np.flatnonzero(table["label"].is_valid().to_numpy()) if has_names(table) else np.zeros(0, np.int64)
    if not len(known):
        return known, "Rare classes are not known: the run kept no classes of its rows."
    labels = np.array(table["label"].take(known).to_pylist(), object)
    names, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    is_rare = counts * _RARE <= counts.max()
    if not is_rare.any():
        said = (
            f"No class is rare: the smallest of {len(names):,} has {counts.min():,} rows, the largest {counts.max():,}."
        )
        return np.zeros(0, np.int64), said
    found = np.flatnonzero(is_rare[place])
    rows = known[found[np.argsort(counts[place[found]], kind="stable")]]
    said = f"{len(rows):,} of {len(table):,} rows are of {is_rare.sum():,} rare classes (of {len(names):,}): at most "
    return rows, f"{said}{int(counts.max()) // _RARE:,} rows each, the largest class has {int(counts.max()):,}."


def _short(table: Any) -> tuple[np.ndarray, str]:
    name = next((name for name in ("tokens", "length") if name in table.column_names), None)
    if name is None:
        return np.zeros(0, np.int64), "The lengths of the rows are not known: they have neither tokens nor texts."
    lengths, unit = _numbers(table, name), "tokens" if name == "tokens" else "characters"
    if name == "tokens":
        lengths[lengths == 0] = np.nan  # no round has read the row
    middle = float(np.nanmedian(lengths))
    rows = np.flatnonzero(lengths * _SHORT <= middle)
    rows = rows[np.argsort(lengths[rows], kind="stable")]
    said = f"{len(rows):,} of {len(table):,} rows are short: at most {middle / _SHORT:.0f} {unit}, a quarter of the"
    return rows, f"{said} median. Shortest first."


def _numbers(table: Any, name: str) -> np.ndarray:
    """(N,) float64, NaN = null, or where there is no such column."""
    if name not in table.column_names:
        return np.full(len(table), np.nan)
    return table[name].to_numpy().astype(np.float64)


def _scores(report: RunReport) -> dict[str, float]:
    """The score of a recipe, or else those of the last evaluation."""
    results = Path(report.source, "results.json") if isinstance(report.source, Path) else None
    if results is not None and results.is_file():
        try:
            quality = of_kind(of_kind(read_json(results), "it", dict).get("quality") or {}, "quality", dict)
        except ValueError as error:
            raise ValueError(f"{results} is damaged ({error}).") from error
        if is_number(quality.get("value")):
            return {str(quality.get("metric")): quality["value"]}
    return {name: value for entry in report.evaluations()[-1:] for name, value in scores_of(entry).items()}


# ---- Words and files ----


def _lines(table: Any, rows: np.ndarray, kind: str) -> list[str]:
    """A line for each row: its number, what makes it one of its kind, its labels, its text or picture."""
    names = table.column_names
    name, title = (FILE_ROW, "file row") if FILE_ROW in names else ("row", "row")
    numbers = table[name].to_numpy()
    columns: dict[str, list[str]] = {title: [str(number) for number in numbers[rows]]}
    if kind == "duplicates":
        columns[f"like {title}"] = [str(number) for number in numbers[table[DUPLICATES].to_numpy()[rows]]]
    if kind == "short":
        length = next(name for name in ("tokens", "length") if name in names)
        columns[length] = [str(number) for number in table[length].to_numpy()[rows]]
    table = table.take(rows)
    for name, title in (("wrong_probability", "wrong"), ("mean_loss", "loss")):
        if name in names and table[name].null_count < len(table):
            columns[title] = ["" if value is None else f"{value:.2f}" for value in table[name].to_pylist()]
    for name in ("label", "predicted"):
        if name in names:
            columns[name] = [_cut(_printable(value), _NAME) for value in table[name].to_pylist()]
    shown = next((name for name in ("text", "path") if name in names), None)
    if shown is not None:
        columns[shown] = [_printable(value) for value in table[shown].to_pylist()]
    widths = {title: max(map(len, (title, *values))) for title, values in columns.items()}
    cells = [list(columns), *map(list, zip(*columns.values(), strict=True))]
    padded = [
        "  ".join(
            cell.ljust(widths[title]) if title in ("label", "predicted", shown) else cell.rjust(widths[title])
            for title, cell in zip(columns, row, strict=True)
        )
        for row in cells
    ]
    return [_cut(line.rstrip(), _WIDTH) for line in padded]


def _printable(value: Any) -> str:
    """A text or a number on one line, without the characters that a terminal takes for commands."""
    text = "" if value is None else f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _write(table: Any, path: str, form: str) -> None:
    if form == "parquet":
        from pyarrow import parquet

        with replacing(path) as file:
            parquet.write_table(table, file, compression="zstd")
        return
    rows = table.to_pylist()
    if form == "json":
        write_text(path, json.dumps(plain(rows), ensure_ascii=False, indent=1) + "\n")
        return
    lines = io.StringIO()
    writer = csv.DictWriter(lines, table.column_names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    write_text(path, lines.getvalue())


def _cell(value: Any) -> Any:
    """A value for a cell of a CSV file. A text that a spreadsheet would run as a formula begins with an apostrophe."""
    if isinstance(value, list):
        return json.dumps(plain(value))
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value
