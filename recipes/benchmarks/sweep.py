"""Whether runs on few rows find the learning rate that full runs find: regret and cost of a sweep over five rates.

    OMP_NUM_THREADS=1 python recipes/benchmarks/sweep.py --jobs 2     # runs what is missing, and writes the table

The data are the handwritten digits of `image_classification.py`. For each seed, there are four sweeps of five runs:

full      all rows, 40 epochs
short     all rows, a quarter of the epochs
uniform   a quarter of the rows at random, anew in each epoch
el2n      the quarter of the rows with the largest scores in the History of one earlier run of four epochs

A sweep chooses the rate whose last validation has the best accuracy; of equal ones, the one with the smallest loss. Its
regret is the test accuracy of the best full run minus that of the full run at this rate. It is above 0 for full runs
too, since the best of five on the test rows is in part luck. The cost of a sweep is what its five runs read, what the
earlier run read, once, and what a full run at the chosen rate reads; full runs need no further run. It is given as a
share of what the five full runs read.

Runs are kept in `--folder`, and the same command continues there. Results go to recipes/results/sweep.json, and the
table to its README.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

sys.path.append(str(Path(__file__).resolve().parent))
from comparing import RESULTS, write_marked

from hf_prune.common.markdown import markdown_table
from hf_prune.common.storage import write_text
from hf_prune.compare.intervals import interval
from hf_prune.compare.launch import LAUNCHERS, Run, run_all
from hf_prune.compare.result import RESULTS as RESULT
from hf_prune.compare.result import RunResult
from hf_prune.report.account import surroundings

RATES = (2e-4, 6e-4, 2e-3, 6e-3, 2e-2)
EPOCHS, EARLIER_EPOCHS, SHARE = 40, 4, 0.25
SWEEPS = {
    "full": ("--policy", "uniform:keep=1"),
    "short": ("--policy", "uniform:keep=1", "--num_train_epochs", f"{SHARE * EPOCHS:g}"),
    "uniform": ("--policy", f"uniform:keep={SHARE}"),
    "el2n": ("--policy", f"el2n:keep={SHARE}"),
}
EVERY_RUN = "--load_best_model_at_end False --save_strategy no --eval_strategy epoch --disable_tqdm True"
EVERY_RUN += f" --report_to none --num_train_epochs {EPOCHS}"


def earlier_run(folder: Path, seed: int) -> Run:
    """The run that scores the rows, at the middle rate."""
    rate = RATES[len(RATES) // 2]
    return _run(folder, seed, "earlier", rate, "--policy", "el2n:keep=1", "--num_train_epochs", str(EARLIER_EPOCHS))


def runs_of(folder: Path, seed: int) -> dict[tuple[str, float], Run]:
    """The runs of all sweeps of a seed, by sweep and rate."""
    history = ("--history", str(earlier_run(folder, seed).result.parent))
    found = {}
    for name, flags in SWEEPS.items():
        more = history if name == "el2n" else ()
        found |= {(name, rate): _run(folder, seed, f"{name}-{rate:g}", rate, *flags, *more) for rate in RATES}
    return found


def _run(folder: Path, seed: int, name: str, rate: float, *flags: str) -> Run:
    out = folder / f"seed-{seed}" / name
    given = (*EVERY_RUN.split(), "--learning_rate", f"{rate:g}", *flags, "--seed", str(seed), "--output_dir", str(out))
    command = (*LAUNCHERS["python"], "recipes/image_classification.py", *given)
    return Run(command, out.with_name(f"{name}.log"), out / RESULT)


def run_missing(runs: list[Run], jobs: int) -> list[str]:
    """Run what has not ended; why runs failed."""
    failures = []
    for run, status in tqdm(run_all(runs, jobs), "Sweeping", total=len(runs), unit="run"):
        if status is not None and (failure := run.failure(status, "the recipe writes it last")):
            failures.append(failure)
    return failures


def read(folder: Path, seeds: int) -> list[dict[str, Any]]:
    """What the runs of each seed found.

    Args:
        folder: Folder of the runs.
        seeds: Number of seeds.

    Returns:
        For each seed `seed`, `earlier` (rows that the earlier run read), and `sweeps`: by name, for each rate
        `validation` and `test` (accuracies), `loss` (of the validation) and `rows` (read by this run alone).
    """
    found = []
    for seed in range(1, seeds + 1):
        sweeps: dict[str, list[dict[str, float]]] = {name: [] for name in SWEEPS}
        for (name, _), run in runs_of(folder, seed).items():
            one = RunResult.load(run.result.parent)
            cost, last = one.cost(), one.results["pruning"]["evaluations"][-1]
            numbers = {"validation": last["eval_accuracy"], "loss": last["eval_loss"]}
            numbers |= {"test": one.results["quality"]["value"], "rows": cost["trained"] + cost["forward_only"]}
            sweeps[name].append(numbers)
        earlier = RunResult.load(earlier_run(folder, seed).result.parent).cost()["all"]
        found.append({"seed": seed, "earlier": earlier, "sweeps": sweeps})
    return found


def choice(runs: list[dict[str, float]]) -> int:
    """The place of the run with the best validation; of equal ones, that with the smallest loss."""
    return max(range(len(runs)), key=lambda at: (runs[at]["validation"], -runs[at]["loss"]))


def summarise(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """For each sweep: how often it chose each rate, its regret in points, and its cost as a share of five full runs."""
    found: dict[str, Any] = {}
    for name in SWEEPS:
        picks = [choice(one["sweeps"][name]) for one in seeds]
        regrets, costs = [], []
        for one, pick in zip(seeds, picks, strict=True):
            full, runs = one["sweeps"]["full"], one["sweeps"][name]
            regrets.append(100 * (max(run["test"] for run in full) - full[pick]["test"]))
            read = sum(run["rows"] for run in runs) + (one["earlier"] if name == "el2n" else 0)
            read += 0 if name == "full" else full[pick]["rows"]
            costs.append(read / sum(run["rows"] for run in full))
        chosen = {f"{rate:g}": picks.count(at) for at, rate in enumerate(RATES)}
        found[name] = {"chosen": chosen, "regrets": regrets, "cost": float(np.mean(costs))}
    for name, one in found.items():
        one["regret"] = _with_interval(np.array(one["regrets"]))
        if name != "full":
            one["less_full"] = _with_interval(np.array(one["regrets"]) - np.array(found["full"]["regrets"]))
    return found


def _with_interval(values: np.ndarray) -> dict[str, float | None]:
    low, high = interval(values) or (None, None)
    return {"mean": float(values.mean()), "low": low, "high": high}


def table(found: dict[str, Any]) -> str:
    """The sweeps in Markdown."""

    def cell(value: dict[str, Any] | None) -> str:
        if value is None:
            return "-"
        return f"{value['mean']:+.2f}" + (
            "" if value["low"] is None else f" ({value['low']:+.2f} to {value['high']:+.2f})"
        )

    rows = [
        [
            f"`{name}`",
            ", ".join(f"{rate} ({times})" for rate, times in one["chosen"].items() if times),
            cell(one["regret"]),
            cell(one.get("less_full")),
            f"{100 * one['cost']:.0f} %",
        ]
        for name, one in found["sweeps"].items()
    ]
    return markdown_table(["sweep", "rates chosen (seeds)", "regret in points", "less full's", "cost"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("regimes", "sweep"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=8, help="sweeps of each kind")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    given = parser.parse_args()
    seeds = range(1, given.seeds + 1)
    failures = run_missing([earlier_run(given.folder, seed) for seed in seeds], given.jobs)
    failures = failures or run_missing(
        [run for seed in seeds for run in runs_of(given.folder, seed).values()], given.jobs
    )
    if failures:
        sys.exit("\n".join(failures))
    runs = read(given.folder, given.seeds)
    found = {"rates": RATES, "sweeps": summarise(runs), "runs": runs} | surroundings(__file__)
    write_text(RESULTS / "sweep.json", json.dumps(found, indent=2) + "\n")
    write_marked(RESULTS / "README.md", "sweep", table(found))
    print(table(found))


if __name__ == "__main__":
    main()
