"""The cost of finding near-duplicates, and how many planted ones are found: seconds and memory, by the number of rows.

    OMP_NUM_THREADS=1 RAYON_NUM_THREADS=1 python recipes/benchmarks/duplicates.py

Texts have 8 to 30 of 30,000 tokens, drawn by Zipf's law. A tenth of the rows are copies of other rows, and a tenth are
copies with one token replaced. Pictures are 32 x 32 in three colours, smooth at random, with as many copies, of which
half have noise added. Each size runs in a process of its own:

seconds    CPU seconds of `find_groups`, at its defaults, reading included; of pictures, after they were shrunk
memory     peak memory of the process beyond what it has before (read from /proc, so on Linux alone)
found      share of the copies, and of the changed copies that are near (a Jaccard similarity of 0.8 or more; all
           pictures), that are in a group with their original
wrong      share of all other rows that are in a group with another row

Results go to `--output`, with versions and hardware, and are printed as a Markdown table.
"""

import argparse
import json
import os
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow
from datasets import Dataset

from hf_prune.common.storage import write_text
from hf_prune.data._near import near_pictures
from hf_prune.data.duplicates import find_groups
from hf_prune.report.account import surroundings

VOCABULARY = 30_000


def originals(rows: int, rng: np.random.Generator) -> np.ndarray:
    """For each row, the row that it copies, itself if none. The last tenth of the rows are the changed copies."""
    begin = rows - rows // 5
    return np.concatenate([np.arange(begin), rng.choice(begin, rows - begin, replace=False)])


def texts(rows: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Token ids, where each row begins, the row that each one copies, and whether it is near that one."""
    source = originals(rows, rng)
    lengths = rng.integers(8, 31, rows)
    own = np.minimum(rng.zipf(1.2, (rows, 30)), VOCABULARY - 1).astype(np.int32)
    ids, lengths, near = own[source], lengths[source], np.ones(rows, bool)
    for row in range(rows - rows // 10, rows):
        ids[row, lengths[row] // 2] = VOCABULARY
        one, other = (
            set(zip(text, text[1:], strict=False))
            for text in (ids[row, : lengths[row]].tolist(), own[source[row], : lengths[row]].tolist())
        )
        near[row] = len(one & other) >= 0.8 * len(one | other)
    begins = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return {"ids": ids[np.arange(30) < lengths[:, None]], "begins": begins, "source": source, "near": near}


def pictures(rows: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """As `texts`, with the pixels of shrunk pictures."""
    source, coarse = originals(rows, rng), rng.integers(0, 256, (rows, 3, 5, 5))
    noise, last = rng.normal(0, 5, (rows, 3, 32, 1)), np.arange(rows) >= rows - rows // 10
    steps = np.linspace(0, 4, 32)
    weights = np.maximum(0, 1 - np.abs(steps[:, None] - np.arange(5)))  # between the coarse pixels, by distance
    made = np.empty((rows, 3, 32, 32), np.uint8)
    for row in range(rows):
        smooth = weights @ coarse[source[row]] @ weights.T
        made[row] = np.clip(smooth + last[row] * noise[row] * rng.normal(size=(3, 32, 32)), 0, 255)
    return {"pixels": made.reshape(rows, -1), "source": source, "near": np.ones(rows, bool)}


def groups_of(data: dict[str, np.ndarray]) -> tuple[np.ndarray, float, float]:
    """The groups of texts or pictures, CPU seconds, and the peak memory beyond that of the data."""
    dataset = None
    if "ids" in data:
        column = pyarrow.ListArray.from_arrays(pyarrow.array(data["begins"]), pyarrow.array(data["ids"]))
        dataset = Dataset(pyarrow.table({"input_ids": column}))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, start = memory("VmRSS"), time.process_time()
    groups = near_pictures(data["pixels"], (3, 32, 32), 0.8) if dataset is None else find_groups(dataset)
    return groups, time.process_time() - start, memory("VmHWM") - before


def memory(name: str) -> int:
    """Bytes of this process, now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def measure(path: Path) -> dict[str, float]:
    """Seconds, memory, and what was found."""
    os.environ["HF_HOME"] = str(path.parent)  # without the groups that an earlier run has kept
    data = dict(np.load(path))
    groups, seconds, peak = groups_of(data)
    rows, source, near = len(groups), data["source"], data["near"]
    is_copy, changed = source != np.arange(rows), np.arange(rows) >= rows - rows // 10
    together = groups == groups[source]
    others = np.ones(rows, bool)
    others[source[is_copy]] = others[is_copy] = False
    return {
        "seconds": seconds,
        "peak_bytes": peak,
        "found_copies": float(together[is_copy & ~changed].mean()),
        "found_changed": float(together[changed & near].mean()),
        "wrong": float((np.bincount(groups, minlength=rows)[groups] > 1)[others].mean()),
    }


def prepare(kind: str, rows: int, path: Path) -> None:
    """Write the data set, so that making it does not count in the memory of the process that measures."""
    np.savez(path, **{"texts": texts, "pictures": pictures}[kind](rows, np.random.default_rng(0)))


def table(results: dict) -> str:
    """The results in Markdown."""
    lines = ["| rows | seconds | memory | copies found | changed copies found | other rows in a group |"]
    lines.append("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for kind, sizes in results["rows"].items():
        for rows, found in sizes.items():
            shares = (f"{100 * found[name]:.1f} %" for name in ("found_copies", "found_changed"))
            lines.append(
                f"| {int(rows):,} {kind} | {found['seconds']:.0f} | {found['peak_bytes'] / 1e6:,.0f} MB | "
                f"{' | '.join(shares)} | {100 * found['wrong']:.2f} % |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmark-output"), help="folder of duplicates.json")
    parser.add_argument("--texts", type=int, nargs="*", default=[10**5, 10**6], help="rows of texts")
    parser.add_argument("--pictures", type=int, nargs="*", default=[50_000], help="rows of pictures")
    chosen = parser.parse_args()
    found: dict[str, dict[int, dict[str, float]]] = {}
    for kind in ("texts", "pictures"):
        for rows in getattr(chosen, kind):
            with tempfile.TemporaryDirectory() as folder, get_context("spawn").Pool(1, maxtasksperchild=1) as process:
                path = Path(folder, "data.npz")
                process.apply(prepare, (kind, rows, path))
                found.setdefault(kind, {})[rows] = process.apply(measure, (path,))  # in a new process
    results = {"rows": found} | surroundings(__file__)
    write_text(Path(chosen.output, "duplicates.json"), json.dumps(results, indent=2) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
