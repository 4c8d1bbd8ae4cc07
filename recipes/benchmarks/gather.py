"""What it costs to bring a round's losses together: bytes and milliseconds, by the number of rows that were trained.

    accelerate launch --config_file tests/support/configs/two.yaml recipes/benchmarks/gather.py

Every process holds its share of the visits of a round (row number and tokens as int64, loss as float32, each row once),
as the recorder has them when the round ends, and all are gathered as in training, on the CPU over gloo. Given are the
medians over `--repeats`; the bytes are those that each process sends. Results go to `--output`, with versions and
hardware, and are printed as a Markdown table.
"""

import argparse
import json
import resource
import time
from functools import partial
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from hf_prune.common.storage import write_text
from hf_prune.measure.recorder import Measurements, Recorder, gather_columns
from hf_prune.report.account import surroundings


def measure(accelerator: Accelerator, rows: int, repeats: int) -> dict:
    """Bytes and seconds of a round in which `rows` rows were trained, shared out evenly."""
    mine = np.arange(accelerator.process_index, rows, accelerator.num_processes)
    recorder = Recorder(signals=1)
    recorder.restore(Measurements(mine, np.full(len(mine), 40), np.ones((1, len(mine)), np.float32), 0))
    seconds = []
    for _ in range(repeats):
        accelerator.wait_for_everyone()
        start = time.perf_counter()
        measured = recorder.collect(partial(gather_columns, accelerator))
        seconds.append(time.perf_counter() - start)
        if len(measured.rows) != rows:
            raise RuntimeError(f"{len(measured.rows)} rows came back of {rows}.")
    return {
        "bytes_sent": len(mine) * (2 * 8 + 4),
        "milliseconds": 1000 * float(np.median(seconds)),
        "peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def table(results: dict) -> str:
    """The results in Markdown."""
    lines = ["| rows in a round | MB sent by each process | ms | of an epoch at 10,000 rows a second |"]
    lines.append("| ---: | ---: | ---: | ---: |")
    for rows, found in results["rounds"].items():
        share = found["milliseconds"] / 1000 / (int(rows) / 10_000)
        lines.append(
            f"| {int(rows):,} | {found['bytes_sent'] / 1e6:,.0f} | {found['milliseconds']:,.0f} | {100 * share:.3f} % |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmark-output"), help="folder of gather.json")
    parser.add_argument("--rows", type=int, nargs="+", default=[10**6, 10**7, 10**8], help="rows in a round")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of each size")
    chosen = parser.parse_args()
    accelerator = Accelerator(cpu=True)
    found = {rows: measure(accelerator, rows, chosen.repeats) for rows in chosen.rows}
    results = {"processes": accelerator.num_processes, "rounds": found} | surroundings(__file__)
    if accelerator.is_main_process:
        write_text(Path(chosen.output, "gather.json"), json.dumps(results, indent=2) + "\n")
        print(table(results))
    accelerator.end_training()


if __name__ == "__main__":
    main()
