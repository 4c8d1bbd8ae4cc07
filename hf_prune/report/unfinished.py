"""The report of a run that has not ended: it goes on, or it was interrupted before it saved its model."""

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..common import storage
from ..common.foreign import number, read_json, why
from ..records.history import History
from ..records.history_file import HISTORY, STATE, TRAINER_STATE
from ..records.trace import TracedRound, newest_round, read_trace
from .account import NUMBERS
from .entries import add_round, checked_epoch, logged
from .page import RunReport


class UnfinishedReport(RunReport):
    """A report of the rounds that have ended so far."""

    @cached_property
    def flaws(self) -> list[str]:
        """What is wrong with the rounds, one line each; first, that more of them may follow."""
        rounds = 0 if self.dynamics is None else len(self.dynamics.rounds)
        said = f"This run has not ended, or saved its model elsewhere: what follows is of its first {rounds:,} rounds."
        return [said, *super().flaws]


def report_of(run: str | os.PathLike[str]) -> RunReport:
    """The report of a run. If it has not ended, its rounds tell what was trained; its last checkpoint tells the rest.

    Args:
        run: The `output_dir` of the run, or the folder where it saved its model.

    Raises:
        ValueError: The folder holds neither a report nor a round with its cost, or its files are damaged.
    """
    is_saved = Path(run, NUMBERS).exists() and Path(run, HISTORY).exists()
    newest = newest_round(run)
    if newest is None:
        return RunReport.of_folder(run)
    rows, name = newest
    rounds, _ = read_trace(run, rows, name)
    if not rounds or not all(round.account for round in rounds):  # just removed, damaged, or of an earlier version
        return RunReport.of_folder(run)
    if is_saved:
        report = RunReport.of_folder(run)
        trained = sum(round.account.get("rows", 0) for round in rounds)
        if report.history.facts.get("run") == name and report.totals()["rows"] >= trained:
            return report
    try:
        return _so_far(Path(run), rows, rounds)
    except KeyError as error:
        raise ValueError(f"{run}: its rounds are damaged ({why(error)}).") from error


def _so_far(run: Path, rows: int, rounds: list[TracedRound]) -> UnfinishedReport:
    history, log, seconds = _saved(run, rows, rounds[-1].run)
    known = int(history.last_round.max())
    epochs: list[dict[str, Any]] = []
    for part in rounds:
        add_round(epochs, part.epoch, part.account)
        if part.round > known:
            _, _, losses = part.read()
            measured = np.flatnonzero(~np.isnan(losses))
            history.record(measured, losses[measured], part.round)
    history.facts = {**history.facts, "run": rounds[-1].run}
    return UnfinishedReport(
        policy=rounds[-1].policy or "policy not known",
        epochs=[checked_epoch(epoch) for epoch in epochs],
        log_history=log,
        rows=rows,
        faults=int(np.count_nonzero(history.faults)),
        seconds_evaluating=seconds,
        steps_full=round(sum(epoch["steps_full"] for epoch in epochs)),
        run=run,
        history=history,
    )


def _saved(run: Path, rows: int, name: str) -> tuple[History, list[dict[str, Any]], float]:
    """The History, the log and the seconds of evaluations in the newest checkpoint of a run that can be read."""
    steps = {path: path.parent.name.rpartition("-")[2] for path in run.glob(f"checkpoint-*/{STATE}")}
    for path in sorted((path for path in steps if steps[path].isdigit()), key=lambda path: -int(steps[path])):
        try:
            arrays, header = storage.load(path)
            if header["facts"].get("run") != name:
                continue
            history = History.from_arrays(arrays, rows)
            log = [logged(entry) for entry in read_json(path.with_name(TRAINER_STATE))["log_history"]]
            return history, log, number(header["seconds_evaluating"], "seconds_evaluating")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # being written, or damaged: an older one
            continue
    return History.empty(rows), [], 0.0
