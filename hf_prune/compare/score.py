"""Scores for the policies that choose once: run a training script once per seed, and average the scores."""

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm.auto import tqdm

from .. import policies
from ..common.foreign import read_json
from ..common.privacy import hide_arguments, public
from ..common.storage import write_text
from ..core import Policy
from ..records.history import History
from ..records.history_file import HISTORY
from .launch import LAUNCHERS, FailedRun, Run, check_script, run_all

COMMAND = "command.json"  # in output_dir: the command that made its runs
_CURE = "train a PruningTrainer with the --policy and --output_dir given, and save its model"


def make_scores(
    policy: str,
    script: Sequence[str],
    output_dir: str | os.PathLike[str],
    seeds: int = 3,
    epochs: float | None = None,
    launcher: Literal["python", "accelerate"] = "python",
) -> str:
    """Run a training script once for each seed, and write the mean of the scores to `output_dir`.

    Called again, it skips the seeds that have ended. Each run gets the script's own arguments, then
    `--policy NAME:keep=1 --seed S --output_dir OUTPUT_DIR/seed-S`; it must train with them and save its model.

    Args:
        policy: A policy that writes `notes["score"]` with keep = 1, with its settings except keep.
        script: A Python file and its arguments.
        output_dir: Folder for a folder and a log per seed, and for the file that `history=output_dir` reads.
        seeds: R, number of runs, with the seeds 0 to R - 1.
        epochs: Passed to the script as `--num_train_epochs`; None = the script's own.
        launcher: What starts the script: Python, or `accelerate launch` as it is configured.

    Returns:
        A message that says what was made.

    Raises:
        ValueError: Another kind of policy, no script, no seed, or `output_dir` has runs of another command.
        FailedRun: A run failed, or left no scores; or the runs used different data.
    """
    scoring, spec = _scoring(policy)
    if seeds < 1:
        raise ValueError(f"--seeds {seeds}: must be at least 1, the number of runs.")
    check_script(script)
    folder, more = Path(output_dir), ["--policy", spec]
    if epochs is not None:
        more += ["--num_train_epochs", f"{epochs:g}"]
    claim(folder, [*script, *more])
    files: list[Path] = []
    for seed in tqdm(range(seeds), f"Scoring by {policy}", unit="run"):
        run = folder / f"seed-{seed}"
        files.append(run / HISTORY)
        if not files[-1].exists():
            command = (*LAUNCHERS[launcher], *script, *more, "--seed", str(seed), "--output_dir", str(run))
            _run(Run(command, run.with_suffix(".log"), files[-1]))
        _load(files[-1], scoring)
    merged = _mean_of(files, scoring)
    merged.save(folder / HISTORY)
    return (
        f"{folder / HISTORY}: the mean of {seeds} run{'s' * (seeds > 1)} for {len(merged):,} rows. "
        f"Give history={str(folder)!r} to a trainer with policy={policy!r}."
    )


def _scoring(policy: str) -> tuple[Policy, str]:
    """The policy that scores all rows, and its text for the command line."""
    name, _, settings = (part.strip() for part in policy.partition(":"))
    if "." not in name and not issubclass(policies.find(name), policies.StaticPolicy):
        static = [other for other in policies.names() if issubclass(policies.find(other), policies.StaticPolicy)]
        raise ValueError(f"--policy {name} chooses anew in every round and keeps no scores; {', '.join(static)} do.")
    given = [setting.strip() for setting in settings.split(",") if setting.strip()]
    if any(setting.partition("=")[0].strip() == "keep" for setting in given):
        raise ValueError(
            f"--policy {policy}: scoring trains on all rows, so leave keep to the run that uses the scores."
        )
    spec = f"{name}:{','.join([*given, 'keep=1'])}"
    made = policies.make(spec)
    assert made is not None
    return made, spec


def claim(folder: Path, command: list[str]) -> None:
    """Write the command into the folder.

    Args:
        folder: Folder of the runs.
        command: What makes them, without what differs from run to run.

    Raises:
        ValueError: The folder has runs of another command.
    """
    path, command = folder / COMMAND, hide_arguments(command)  # a secret token may have changed by the next call
    if path.exists():
        try:
            earlier = read_json(path, largest=1 << 20)
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}). Give another --output_dir, or remove it.") from error
        is_ours = isinstance(earlier, list) and all(isinstance(part, str) for part in earlier)
        hidden = hide_arguments(earlier) if is_ours else []
        if hidden != command:
            was = shlex.join(hidden) if is_ours else "hf-prune compare"  # its file has the same name
            raise ValueError(
                f"{folder} has runs of another command, `{was}`, and this is `{shlex.join(command)}`. Give another "
                "--output_dir, or remove it."
            )
        if earlier == command:
            return
    write_text(path, json.dumps(command) + "\n")


def _run(run: Run) -> None:
    """Run one command to its end."""
    for _, status in run_all([run]):
        if status is not None and (failure := run.failure(status, _CURE)):
            raise FailedRun(failure)


def _load(file: Path, scoring: Policy) -> History:
    """The History of a run."""
    history = History.load(file)
    if "score" not in history.notes or not history.is_of(scoring):
        raise FailedRun(
            f"{file} has no scores of {scoring!r} but is of {history.facts.get('policy', 'another policy')}: the "
            "script must train with the --policy that it is given, and this must keep notes['score']."
        )
    return history


def _mean_of(files: Sequence[Path], scoring: Policy) -> History:
    """The mean of the scores from runs on the same rows, and the cost of all runs together."""
    histories = [_load(file, scoring) for file in files]
    data = [(len(history), history.facts.get("data")) for history in histories]
    other = next((i for i, found in enumerate(data) if found != data[0]), None)
    if other is not None:
        raise FailedRun(
            f"{files[0]} and {files[other]} are of different training sets: the script must give the same rows in the "
            "same order for every --seed. Split and sample with a seed of their own, and remove these folders."
        )
    costs: list[dict[str, float]] = [history.facts.get("cost") or {} for history in histories]
    cost = {name: sum(one[name] for one in costs) for name in costs[0]} if all(costs) else None
    return History(
        loss=_mean([history.loss for history in histories]),
        last_round=np.max([history.last_round for history in histories], axis=0),
        tokens=np.max([history.tokens for history in histories], axis=0),
        faults=np.max([history.faults for history in histories], axis=0),
        signals={name: _mean([history.signals[name] for history in histories]) for name in histories[0].signals},
        notes={"score": _mean([history.notes["score"] for history in histories])},
        keys=histories[0].keys,
        facts={**histories[0].facts, "policy": public(repr(scoring)), "cost": cost},
    )


def _mean(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """(N,) float32 mean of the known values (not NaN); NaN if none is known."""
    total, count = np.zeros(arrays[0].shape), np.zeros(arrays[0].shape, np.int32)
    for array in arrays:
        known = ~np.isnan(array)
        total[known] += array[known]
        count += known
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0).astype(np.float32)
