"""The cost of each policy's choice: ratios to one `np.argpartition` over the same rows, and bytes kept per row.

    OMP_NUM_THREADS=1 python recipes/benchmarks/selection.py

Runs are simulated without a model. In each round, the losses of the selected rows are drawn again, a little lower every
time, and the policy selects and learns as in training. The table has, for each policy, medians over the rounds in which
something was known:

select     seconds of one selection over the seconds of one argpartition (half of the rows, float32)
update     the same for what the policy learns after a round
rescored   share of the rows that it wants to measure by a forward pass, last round
bytes      bytes that it keeps per row (History.notes), and bytes of the features that it reads

Policies that read texts run on `--text_rows` rows of two random sentences, compared with an argpartition of as many
rows. Results go to `--output`, with versions and hardware, and are printed as a Markdown table.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from hf_prune import Clock, History, Policy, policies
from hf_prune.common.storage import write_text
from hf_prune.core import DATA_NEEDS
from hf_prune.core.features import Features, count_matrix
from hf_prune.report.account import surroundings

EPOCHS = 10


def clocked(act, *args) -> tuple[float, object]:
    start = time.process_time()
    answer = act(*args)
    return time.process_time() - start, answer


def sentences(rows: int, rng: np.random.Generator) -> Features:
    """Two texts a row, 5 to 30 of 10,000 tokens each, drawn by Zipf's law; every row ends with token 0."""
    texts = []
    for _ in range(2):
        lengths = rng.integers(5, 31, rows)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        ids = np.minimum(rng.zipf(1.3, offsets[-1]), 9_999)
        ids[offsets[1:] - 1] = 0
        texts.append(count_matrix(ids, offsets))
    return Features(tuple(texts), classes=rng.integers(0, 10, rows))


def begin(policy: Policy, rows: int, features: Features, rng: np.random.Generator) -> History:
    """The History of an earlier run that measured everything, after the policy has read it."""
    history = History.empty(rows, policy.needs - DATA_NEEDS)
    history.tokens[:] = rng.integers(5, 60, rows)
    history.features = features
    earlier = History.empty(rows, ("base_loss", "el2n", "grad_norm"))
    loss = rng.exponential(size=rows).astype(np.float32)
    earlier.record(np.arange(rows), loss, 0, base_loss=loss, el2n=loss, grad_norm=loss)
    earlier.notes["score"] = loss
    policy.begin(history, earlier)
    return history


def play(policy: Policy, rows: int, features: Features, rounds: int) -> dict:
    """Seconds of each selection and of each update, and what the policy keeps."""
    rng = np.random.default_rng(0)
    history = begin(policy, rows, features, rng)
    parts, level = policy.rounds_per_epoch, rng.exponential(size=rows).astype(np.float32)
    seconds: dict[str, list[float]] = {"select": [], "update": []}
    selection = None
    for round in range(rounds):
        epoch, part = divmod(round, parts)
        if parts > 1:
            history.offered = np.arange(part, rows, parts)
        clock = Clock(round, epoch, EPOCHS, round / parts / EPOCHS, 32, parts)
        took, selection = clocked(policy.select, history, clock, np.random.default_rng([1, round]))
        seconds["select"].append(took)
        seen = selection.rows if selection.rescore is None else np.concatenate([selection.rows, selection.rescore])
        level[seen] *= 0.9 + 0.1 * rng.random(len(seen), np.float32)
        sure = np.exp(-level[seen])  # the probability of the label
        signals = {name: (sure > 0.5).astype(np.float32) if name == "correct" else sure for name in history.signals}
        history.record(seen, level[seen], round, **signals)
        took, _ = clocked(policy.update, history, clock, np.random.default_rng([2, round]))
        seconds["update"].append(took)
    return {
        **{name: float(np.median(values[1:])) for name, values in seconds.items()},
        "rows_a_round": rows // parts,
        "kept": len(selection.rows) * parts / rows,
        "rescored": 0.0 if selection.rescore is None else len(selection.rescore) / rows,
        "bytes_per_row": sum(array.nbytes for array in history.notes.values()) / rows,
        "bytes_of_features_per_row": features.nbytes / rows if "features" in policy.needs else 0.0,
    }


def partition_seconds(rows: int) -> float:
    loss = np.random.default_rng(0).exponential(size=rows).astype(np.float32)
    return float(np.median([clocked(np.argpartition, loss, rows // 2)[0] for _ in range(5)]))


def table(results: dict) -> str:
    """The results in Markdown."""
    lines = [
        "| policy | rows | select | update | rescored | bytes per row |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, found in results["policies"].items():
        features = found["bytes_of_features_per_row"]
        kept = f"{found['bytes_per_row']:.0f}" + (f" + {features:.0f} of features" if features else "")
        lines.append(
            f"| `{name}` | {found['rows_a_round']:,} | {found['select_ratio']:.1f} | {found['update_ratio']:.1f} | "
            f"{100 * found['rescored']:.0f} % | {kept} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmark-output"), help="folder of selection.json")
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows to choose among")
    parser.add_argument("--text_rows", type=int, default=1_000_000, help="rows for policies that read texts")
    parser.add_argument("--rounds", type=int, default=8, help="rounds to play, the first of which is not counted")
    chosen = parser.parse_args()
    partitions = {rows: partition_seconds(rows) for rows in {chosen.rows, chosen.text_rows}}
    texts, found = sentences(chosen.text_rows, np.random.default_rng(1)), {}
    names = [name for name in policies.names() if "columns" not in policies.find(name)().needs]
    for name in tqdm(names, "Policies"):
        policy = policies.find(name)()
        reads = "features" in policy.needs
        rows = chosen.text_rows if reads else chosen.rows
        played = play(policy, rows, texts if reads else Features(), chosen.rounds)
        share = played["rows_a_round"] / rows  # a policy with several rounds per epoch chooses among a part of the rows
        ratios = {f"{act}_ratio": played[act] / partitions[rows] / share for act in ("select", "update")}
        found[name] = {"policy": repr(policy)} | played | ratios
    results = {"seconds_of_argpartition": partitions, "policies": found} | surroundings(__file__)
    write_text(Path(chosen.output, "selection.json"), json.dumps(results, indent=2) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
