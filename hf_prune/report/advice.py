"""What to do about a run: `hf-prune advise` and `advise`, its form as a Python function.

`facts` reads what the rows show, `topics` judges it, and `evidence` says what such advice has gained elsewhere.
"""

import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..common.foreign import number, of_kind, read_json, why
from ..common.markdown import in_words, markdown_table
from .account import NUMBERS, plain
from .evidence import Evidence, shipped
from .facts import data_facts
from .page import RunReport
from .topics import Advice, Measured, advice_of

RESULTS = "results.json"  # a recipe's; it holds all that advice goes by
STATE = "trainer_state.json"  # Trainer's; it has the validations of a run without a policy
_WIDTH = 100  # columns of the text


def advise(
    run: str | os.PathLike[str] | RunReport | Mapping[str, Any], data: Any = None, evidence: Evidence | None = None
) -> list[Advice]:
    """Say what could be saved or gained in a run.

    Args:
        run: Folder of a run that has ended, its results.json, the content of that file, or a report.
        data: The training set, a `datasets.Dataset`: classes and equal rows are counted in it; None = the run's
            results.json may say.
        evidence: What advice has gained elsewhere; None = the evidence that comes with the package.

    Returns:
        One for each topic: first those to act on, the largest saving first, then what is unknown, then the rest.

    Raises:
        ValueError: There is no run that has ended, a file is damaged or holds something else, or `data` has fewer rows
            than the run.
    """
    evidence = shipped() if evidence is None else evidence
    if isinstance(run, RunReport):
        return advice_of(Measured(_of_report(run, data)), evidence)
    if isinstance(run, Mapping):
        return advice_of(Measured(run), evidence)
    path = Path(run)
    found = _of_folder(path, data) if path.is_dir() else _read(path)
    try:
        return advice_of(Measured(found), evidence)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, ArithmeticError) as error:
        raise ValueError(f"{run} is no run of a recipe, or damaged ({why(error)}).") from error


def as_text(advice: Sequence[Advice]) -> str:
    """The advice for a terminal, at most 100 columns wide."""
    lines = [f"{one.verdict:8} {one.line}" for one in advice]
    wrap = textwrap.TextWrapper(_WIDTH, subsequent_indent=" " * 9, break_long_words=False, break_on_hyphens=False)
    return "\n".join(wrap.fill(line) for line in lines)


def as_markdown(advice: Sequence[Advice]) -> str:
    """The advice as a Markdown table."""
    rows = [[one.topic, one.verdict, in_words(one.line.removeprefix(f"{one.topic}: "))] for one in advice]
    return markdown_table(["topic", "verdict", "advice"], rows)


def as_json(advice: Sequence[Advice]) -> str:
    """The advice as JSON: a list of the fields of `Advice`."""
    return json.dumps(plain([asdict(one) for one in advice]), indent=2) + "\n"


# ---- Reading ----


def _of_folder(folder: Path, data: Any) -> Mapping[str, Any]:
    """What is known of a run by its folder, in the form of a results.json."""
    results = _read(folder / RESULTS) if (folder / RESULTS).is_file() else {}
    if results.get("pruning") and results.get("facts") and data is None:
        return results
    if (folder / NUMBERS).is_file():
        return {**results, **_of_report(RunReport.of_folder(folder), data, results.get("facts"))}
    if results.get("pruning"):
        return results
    states = sorted((path for path in folder.glob(f"checkpoint-*/{STATE}")), key=os.path.getmtime)
    state = folder / STATE if (folder / STATE).is_file() else next(reversed(states), None)
    if state is None and not results:
        raise ValueError(
            f"{folder} holds no {RESULTS}, {NUMBERS} or {STATE}: give the folder of a run that has ended and saved its "
            "model (trainer.save_model())."
        )
    facts = {**of_kind(results.get("facts") or {}, "facts", dict), **({} if data is None else data_facts(data))}
    return {**results, "facts": facts, "evaluations": [] if state is None else _validations(state)}


def _of_report(report: RunReport, data: Any, kept: Any = None) -> dict[str, Any]:
    """The parts of a results.json that a report has.

    Args:
        report: The report.
        data: The training set; None = it can't be read.
        kept: The facts of the run's results.json; None = there are none.
    """
    facts = {**of_kind(kept or {}, "facts", dict), **report.facts}
    if data is not None:
        if len(data) < report.rows:  # it may have more, as some may have been held out
            raise ValueError(
                f"data has {len(data):,} rows, but the run was trained on {report.rows:,}: give its training set."
            )
        facts |= data_facts(data, report.history)
    return {"pruning": report.to_dict(), "facts": plain(facts)}


def _validations(path: Path) -> list[dict[str, Any]]:
    """The validations in the log of a Trainer's state, one for each step."""
    found: dict[int, dict[str, Any]] = {}
    try:
        for entry in of_kind(_read(path)["log_history"], "log_history", list):
            if any(name.startswith("eval_") for name in of_kind(entry, "an entry of the log", dict)):
                found.setdefault(number(entry["step"], "step", whole=True), {}).update(entry)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({why(error)}).") from error
    return list(found.values())


def _read(path: Path) -> dict[str, Any]:
    try:
        return of_kind(read_json(path), "it", dict)
    except FileNotFoundError as error:
        raise ValueError(f"{path} is not there: give the folder of a run that has ended.") from error
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}).") from error
