"""A run over 100 million rows without a model: what a round, its memory and a checkpoint cost, for each policy.

    OMP_NUM_THREADS=1 python recipes/benchmarks/scale.py

The library's own code opens, plans, measures and closes each round. Losses are drawn at random in place of a model.
Each policy runs in a process of its own, which gives its peak memory. In the table:

select     CPU seconds of a round's selection
stock      CPU seconds to order the epoch over all rows, which the stock sampler does, too
order      CPU seconds to leave rows out of this order
close      CPU seconds to bring the measurements of all trained rows into the History, to update the policy with them,
           and to write the round's losses for the report
overhead   select, order and close, as a share of an epoch over the data set at 10,000 rows a second
memory     peak memory of the process, in bytes per row: what each rank of a distributed run needs
file       the checkpoint's pruning state with the round's last step done: bytes per row, seconds to write and to read

Policies that read texts are left out, because their features set the limit (`selection.py`). Results go to `--output`,
with versions and hardware, and are printed as a Markdown table.
"""

import argparse
import json
import math
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import BatchSampler, RandomSampler
from tqdm.auto import tqdm

from hf_prune import History, Policy, policies
from hf_prune.common.storage import write_text
from hf_prune.core import DATA_NEEDS
from hf_prune.records.trace import Trace
from hf_prune.report.account import surroundings
from hf_prune.train.checkpoint import STATE, PruningState, Setup
from hf_prune.train.engine import Engine
from hf_prune.train.recording import Signals
from hf_prune.train.sampler import PruningSampler
from hf_prune.train.schedule import Place, UnprunedSchedule

STEP_ROWS = 1024
BATCH = 1 << 20  # rows whose losses are drawn at once
ROWS_A_SECOND = 10_000
EPOCHS = 10


class Clocked:
    """Adds up CPU seconds by name."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, act, *args):
        start = time.process_time()
        answer = act(*args)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - start
        return answer


def begin(policy: Policy, rows: int) -> Engine:
    rng = np.random.default_rng(0)
    signals = ("loss", *sorted(policy.needs - DATA_NEEDS - {"loss"}))
    history = History.empty(rows, signals)
    history.tokens[:] = rng.integers(5, 60, rows, np.int32)
    earlier = History.empty(rows, ("base_loss", "el2n", "grad_norm"))
    earlier.loss[:] = rng.random(rows, np.float32)
    for values in earlier.signals.values():
        values[:] = earlier.loss
    earlier.last_round[:] = 0
    earlier.notes["score"] = earlier.loss
    policy.begin(history, earlier)
    updates = math.ceil(rows / STEP_ROWS)
    full = UnprunedSchedule(updates, EPOCHS * updates, EPOCHS, by_steps=False)
    sampler = PruningSampler(RandomSampler(range(rows)), rows, 0)
    sampler.is_cut_by(BatchSampler(sampler, STEP_ROWS, drop_last=False))
    setup = Setup(repr(policy), None, STEP_ROWS, 1, sampler.kind)
    return Engine(policy, full, history, sampler, Signals(signals), setup)


def play(name: str, rows: int, rounds: int) -> dict:
    """Rounds one after another; the last round is measured, and its checkpoint."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        run = begin(policies.make(name), rows)
        return play_rounds(name, run, Trace(folder, lambda: [1e-3], print), rounds)


def play_rounds(name: str, run: Engine, trace: Trace, rounds: int) -> dict:
    rows = len(run.state.history)
    rng, level, step = np.random.default_rng(1), np.full(rows, 1.0, np.float32), 0
    for number in range(rounds):
        clocked = Clocked()
        clocked("select", run.open_round, Place(number), step)
        run.plan()
        clocked("stock", run._sampler._order_of, number)  # the sampler keeps this order
        order = clocked("order", run._sampler.order)
        for visits in tqdm(order.split(BATCH), f"{name}, round {number}", leave=False):
            seen = visits.numpy()
            level[seen] *= 0.8 + 0.2 * rng.random(len(seen), np.float32)
            loss = torch.from_numpy(level[seen])
            values = [loss] + [(-loss).exp()] * len(run.state.history.signals)
            run.recorder.add(visits, torch.full_like(visits, 20), values, 20 * len(visits))
        step += run.state.round.plan.steps
        if number + 1 == rounds:
            file = save_and_load(run, rows, step)
        result = clocked("close", run.close_round, step)
        clocked("close", trace.write, result.clock, result.lr_scale, result.seconds, result.rows, result.losses)
        del result  # the trainer keeps no result either: it would count in the peak
    overhead = sum(clocked.seconds[name] for name in ("select", "order", "close")) / (rows / ROWS_A_SECOND)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    kept = run.state.epochs[-1]["rows"] / rows
    facts = {"policy": repr(run.policy), "kept": kept, "overhead": overhead, "peak_bytes": peak}
    return facts | {"seconds": clocked.seconds} | file


def save_and_load(run: Engine, rows: int, step: int) -> dict:
    with tempfile.TemporaryDirectory(dir=".") as folder:
        start = time.perf_counter()
        run.save(folder, step)
        written = time.perf_counter()
        PruningState.load(folder, rows)
        read = time.perf_counter()
        size = Path(folder, STATE).stat().st_size
    return {"state_bytes": size, "seconds_writing": written - start, "seconds_reading": read - written}


def table(results: dict) -> str:
    """The results in Markdown."""
    lines = [
        "| policy | kept | select | stock | order | close | overhead | memory per row | file per row | write | read |",
        "| --- " + 10 * "| ---: " + "|",
    ]
    rows = results["rows"]
    for name, found in results["policies"].items():
        seconds = " | ".join(f"{found['seconds'][part]:.1f} s" for part in ("select", "stock", "order", "close"))
        lines.append(
            f"| `{name}` | {100 * found['kept']:.0f} % | {seconds} | {100 * found['overhead']:.3f} % | "
            f"{found['peak_bytes'] / rows:.0f} B | {found['state_bytes'] / rows:.0f} B | "
            f"{found['seconds_writing']:.0f} s | {found['seconds_reading']:.0f} s |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmark-output"), help="folder of scale.json")
    parser.add_argument("--rows", type=int, default=100_000_000, help="rows of the training set")
    parser.add_argument("--rounds", type=int, default=2, help="rounds to play, the last of which is measured")
    parser.add_argument("--policies", nargs="+", help="all that read neither texts nor columns, where not given")
    chosen = parser.parse_args()
    left_out = {"features", "columns"}
    names = chosen.policies or [name for name in policies.names() if not left_out & policies.find(name)().needs]
    found = {}
    for name in tqdm(names, "Policies"):
        with multiprocessing.get_context("spawn").Pool(1) as process:
            found[name] = process.apply(play, (name, chosen.rows, chosen.rounds))
    results = {"rows": chosen.rows, "policies": found} | surroundings(__file__)
    write_text(Path(chosen.output, "scale.json"), json.dumps(results, indent=2) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
