"""What padding costs, and what grouping rows by length saves: three orders of the same rows, compared.

    OMP_NUM_THREADS=1 python recipes/benchmarks/padding.py --data data

The orders are the stock random one, the stock `group_by_length` (every 50 batches are sorted, and trained from the
longest to the shortest), and the order of `PruningTrainer` with a policy that keeps everything: sorted in the same way,
but with the batches in random order. `--data` is a folder with Parquet files in `multi30k`, `tatoeba-de-en`, `sst2` and
`dolly_part`, and with a pretrained encoder in `minilm`. The parts:

positions  share of real tokens among the positions that the model computes, in batches of all rows
epochs     one epoch over some rows in each order in turn, `--pairs` times: positions and seconds divided by those of
           the random order, medians of the ratios
quality    whole runs of the recipes in each order, `--seeds` seeds, equal rows: their scores, and the mean difference
           from the random order with its interval over seeds (hf_prune/compare/intervals.py)
longer     runs in our order that read more rows, in as many positions as the random order computes: their scores
sizes      runs of `translate.py` on Tatoeba and on the embedded corpus (batches of 16, and of 32) with 8 to 100 batches
           in a mega-batch, whatever the number of rows: their scores
rounds     seconds to order 1, 10 and 100 million rows, ours divided by the stock function's
processes  two and four processes (DDP over gloo) train one epoch: seconds in which a step waits for the slowest process
           and for the sum of gradients, as a share of all seconds, and how much longer a step's longest batch is than
           its shortest

Seconds of epochs and rounds are CPU seconds on a CPU. Runs for quality are kept under `--output` and not made again.
Results go to `--output`/padding.json, part by part, with versions and hardware; the table is printed.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import load_dataset
from tqdm.auto import tqdm
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_pt_utils import LengthGroupedSampler, get_length_grouped_indices

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the recipes
import instruct
import translate
from steps import Times, now

from hf_prune import PruningTrainer
from hf_prune.common.storage import write_text
from hf_prune.compare.intervals import interval
from hf_prune.compare.launch import Run, run_all
from hf_prune.data.tokens import row_lengths
from hf_prune.report.account import surroundings
from hf_prune.report.scales import Scale, scale_of
from hf_prune.train import grouping
from hf_prune.train.grouping import group, lengths_as_ranks
from hf_prune.train.sampler import PruningSampler

RECIPES = Path(translate.__file__).parent
ALL = "uniform:keep=1"  # bitwise identical to the stock trainer if the order is random
ORDERS = {  # strategy and policy
    "random": ("random", ALL),
    "stock": ("group_by_length", None),
    "ours": ("group_by_length", ALL),
}
PAIRS_OF_TEXTS = "--per_device_train_batch_size 16 --num_train_epochs 2 --num_beams 1"
RUNS = {  # recipe, folder of the data, arguments
    "multi30k": (
        "translate",
        "multi30k",
        "train validation test=test_2016_flickr",
        f"{PAIRS_OF_TEXTS} --max_train_samples 20000",
    ),
    "tatoeba": ("translate", "tatoeba-de-en", "train validation test", f"{PAIRS_OF_TEXTS} --max_train_samples 20000"),
    "sst2": (
        "text_classification",
        "sst2",
        "train test=validation",
        "--max_train_samples 3000 --num_train_epochs 1 --learning_rate 1e-4 --max_eval_samples 200 "
        "--per_device_train_batch_size 32",
    ),
    "dolly": (
        "instruct",
        "dolly_part",
        "train validation",
        "--max_train_samples 2000 --num_train_epochs 2 --per_device_train_batch_size 8",
    ),
    "embedded": ("translate", "", "", "--num_beams 1 --per_device_train_batch_size 16"),
    "embedded, 32": ("translate", "", "", "--num_beams 1 --per_device_train_batch_size 32"),
}
QUIET = "--eval_strategy no --save_strategy no --load_best_model_at_end False --disable_tqdm True --report_to none"


# ---- Rows ----


def read(folder: Path, rows: int | None) -> Any:
    """Some or all rows of a training split, the same in every run."""
    whole = load_dataset("parquet", data_files=str(folder / "train.parquet"))["train"].shuffle(seed=0)
    return whole.select(range(len(whole) if rows is None else rows))


def pairs_of_texts(folder: Path, rows: int | None) -> tuple[Any, Any, Callable[[], Any]]:
    """Rows, collator, and a function that makes a model, as in the recipe."""
    data = read(folder, rows)
    tokenizer = translate.new_tokenizer((text for side in ("en", "de") for text in data[side]), 4000, 128)
    encode = lambda rows: tokenizer(rows["en"], text_target=rows["de"], max_length=128, truncation=True)  # noqa: E731
    data = data.map(encode, batched=True, remove_columns=data.column_names)
    return data, DataCollatorForSeq2Seq(tokenizer), lambda: translate.new_model("tiny", tokenizer, 128)


def sentences(folder: Path, rows: int | None) -> tuple[Any, Any, Callable[[], Any]]:
    """Like `pairs_of_texts`, for a pretrained encoder that learns two classes."""
    data, encoder = read(folder, rows), str(folder.parent / "minilm")
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    data = data.map(lambda rows: tokenizer(rows["sentence"]), batched=True).select_columns(["input_ids", "label"])
    make = lambda: AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=2)  # noqa: E731
    return data, DataCollatorWithPadding(tokenizer), make


def instructions(folder: Path, rows: int | None) -> tuple[Any, Any, Callable[[], Any]]:
    """Like `pairs_of_texts`, for a causal language model of instructions and responses."""
    data = read(folder, rows)
    texts = [f"{one}\n{other}" for one, other in zip(data["instruction"], data["response"], strict=True)]
    tokenizer = instruct.new_tokenizer(texts, 4000)
    data = data.map(lambda row, i: tokenizer(texts[i], truncation=True, max_length=512), with_indices=True)
    make = lambda: instruct.new_model("tiny", tokenizer, 512)  # noqa: E731
    return data.select_columns(["input_ids"]), DataCollatorForLanguageModeling(tokenizer, mlm=False), make


TASKS = {  # rows and collator and model, folder, batch
    "multi30k": (pairs_of_texts, "multi30k", 16),
    "tatoeba": (pairs_of_texts, "tatoeba-de-en", 16),
    "sst2": (sentences, "sst2", 16),
    "dolly": (instructions, "dolly_part", 8),
}


# ---- Positions ----


def real_share(order: Iterable[int], lengths: np.ndarray, batch: int) -> float:
    """Real tokens divided by positions, if batches are padded to the longest row on each side."""
    cuts = np.array_split(np.asarray(list(order)), range(batch, len(lengths), batch))
    return float(lengths.sum() / sum(len(cut) * lengths[cut].max(0).sum() for cut in cuts))


def positions(chosen: argparse.Namespace) -> dict[str, Any]:
    """Share of real tokens for the whole data sets, in each order."""
    results = {}
    for name in chosen.tasks:
        task, folder, _ = TASKS[name]
        data, *_ = task(chosen.data / folder, None)
        known = row_lengths(data, None, "input_ids", targets_too=True)
        lengths = known.reshape(len(data), -1)
        results[name] = {"rows": len(data)}
        for batch in (8, 16, 32):
            stock = LengthGroupedSampler(batch, lengths=lengths[:, 0].tolist())  # it reads the input's length alone
            ours = PruningSampler(LengthGroupedSampler(batch, lengths=known), len(data), 0, batch)
            orders = {"random": torch.randperm(len(data)).tolist(), "stock": stock, "ours": ours}
            results[name][str(batch)] = {key: real_share(order, lengths, batch) for key, order in orders.items()}
    return results


# ---- Epochs ----


class Counted:
    """A collator that counts the positions of its batches."""

    def __init__(self, collator: Any):
        self.collator, self.positions = collator, 0

    def __call__(self, rows: list[dict]) -> Any:
        batch = self.collator(rows)
        has_target = "decoder_input_ids" in batch or any("labels" in row for row in rows)
        self.positions += batch["input_ids"].numel() + (batch["labels"].numel() if has_target else 0)
        return batch


def epoch(order: str, task: tuple[Any, Any, Callable[[], Any]], batch: int, folder: Path) -> tuple[float, int]:
    """Seconds and positions of one epoch of a new model."""
    strategy, policy = ORDERS[order]
    data, collator, make = task
    set_seed(0)
    args = TrainingArguments(
        folder,
        per_device_train_batch_size=batch,
        num_train_epochs=1,
        train_sampling_strategy=strategy,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        save_strategy="no",
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    counted, times = Counted(collator), Times(now)
    trainer = PruningTrainer(
        model=make(), args=args, train_dataset=data, data_collator=counted, callbacks=[times], policy=policy
    )
    trainer.train()
    return times.whole, counted.positions


def epochs(chosen: argparse.Namespace) -> dict[str, Any]:
    """Positions and seconds of each task in each order."""
    results = {}
    for name in chosen.tasks:
        make, folder, batch = TASKS[name]
        task = make(chosen.data / folder, chosen.rows)
        found: dict[str, list] = {order: [] for order in ORDERS}
        for pair in tqdm(range(chosen.pairs + 1), f"Epochs of {name}"):
            for order in list(ORDERS)[:: 1 if pair % 2 else -1]:
                found[order].append(epoch(order, task, batch, chosen.output / "epochs"))
        results[name] = {"rows": chosen.rows, "batch": batch, "pairs": chosen.pairs}
        seconds = {order: np.array([one[0] for one in made[1:]]) for order, made in found.items()}  # the first warms up
        for order, made in found.items():
            low, middle, high = np.quantile(seconds[order] / seconds["random"], (0.25, 0.5, 0.75)).tolist()
            results[name][order] = {
                "ratio_of_positions": made[0][1] / found["random"][0][1],
                "ratio_of_seconds": middle,
                "ratio_of_seconds_quartiles": [low, high],
            }
    return results


# ---- Quality ----


def run_of(
    chosen: argparse.Namespace,
    name: str,
    seed: int,
    out: Path,
    order: str,
    size: int | None = None,
    longer: float = 1.0,
) -> Run:
    """A run of a task's recipe in one order.

    Args:
        chosen: Arguments of the command.
        name: The task.
        seed: Seed of the run.
        out: Folder for the run.
        order: The order.
        size: Batches in a mega-batch, if it is not the library's default.
        longer: Factor on the epochs.
    """
    recipe, folder, files, arguments = RUNS[name]
    arguments = re.sub(r"(?<=--num_train_epochs )\d+", lambda found: f"{int(found[0]) * longer:.3g}", arguments)
    strategy, policy = ORDERS[order]
    script = [str(RECIPES / f"{recipe}.py")]
    if size is not None:
        script = [__file__, "--size", str(size), "--"]
    command = [sys.executable, *script, *arguments.split(), *QUIET.split(), "--seed", str(seed)]
    for file in files.split():
        split, _, stem = file.partition("=")
        command += [f"--{split}_file", str(chosen.data / folder / f"{stem or split}.parquet")]
    if recipe == "text_classification":
        command += ["--model_name_or_path", str(chosen.data / "minilm")]
    command += ["--train_sampling_strategy", strategy, "--policy", policy or "none", "--output_dir", str(out)]
    return Run(tuple(command), out.with_suffix(".log"), out / "results.json")


def make(runs: Iterable[Run], jobs: int) -> None:
    """Make the runs that do not exist yet."""
    runs = list(runs)
    bar = tqdm(total=len(runs), desc="Runs")
    for run, status in run_all(runs, jobs):
        if status is not None and (failure := run.failure(status, "a recipe ends with results.json")):
            raise RuntimeError(failure)
        bar.update()


def quality(chosen: argparse.Namespace) -> dict[str, Any]:
    """Runs of the recipes: the score of each seed in each order."""
    made = {}
    for seed in range(1, chosen.seeds + 1):
        for name in chosen.tasks:
            for order in ORDERS:
                out = chosen.output / "runs" / name / order / f"seed-{seed}"
                made[name, order, seed] = run_of(chosen, name, seed, out, order)
    make(made.values(), chosen.jobs)
    results: dict[str, Any] = {}
    for (name, order, _), run in made.items():
        found = json.loads(run.result.read_text(encoding="utf-8"))
        one = results.setdefault(name, {"metric": found["quality"]["metric"], "arguments": RUNS[name][3]})
        one = one.setdefault(order, {"values": [], "commits": []})
        one["values"].append(found["quality"]["value"])
        one["commits"] = sorted({*one["commits"], found["commit"]})
    for found in results.values():
        for order in ORDERS:
            differences = np.array(found[order]["values"]) - np.array(found["random"]["values"])
            found[order]["mean"] = statistics.fmean(found[order]["values"])
            if order != "random":
                found[order] |= {"difference": float(differences.mean()), "interval": interval(differences)}
    return results


def longer(chosen: argparse.Namespace) -> dict[str, Any]:
    """Runs in our order with as many positions as the runs in the random order, which exist already."""

    def base(name: str, order: str, seed: int) -> dict[str, Any]:
        path = chosen.output / "runs" / name / order / f"seed-{seed}" / "results.json"
        return json.loads(path.read_text(encoding="utf-8"))

    made, ratios = {}, {}
    for seed in range(1, chosen.seeds + 1):
        for name in chosen.tasks:
            computed = {key: base(name, key, 1)["pruning"]["totals"]["padded_tokens"] for key in ("random", "ours")}
            ratios[name] = computed["random"] / computed["ours"]
            out = chosen.output / "runs" / name / "longer" / f"seed-{seed}"
            made[name, seed] = run_of(chosen, name, seed, out, "ours", longer=ratios[name])
    make(made.values(), chosen.jobs)
    results: dict[str, Any] = {}
    for (name, seed), run in made.items():
        found = json.loads(run.result.read_text(encoding="utf-8"))
        one = results.setdefault(name, {"epochs": ratios[name], "values": [], "differences": [], "commits": []})
        one["values"].append(found["quality"]["value"])
        one["differences"].append(found["quality"]["value"] - base(name, "random", seed)["quality"]["value"])
        one["commits"] = sorted({*one["commits"], found["commit"]})
    for one in results.values():
        one["difference"] = statistics.fmean(one["differences"])
        one["interval"] = interval(np.array(one["differences"]))
    return results


def sizes(chosen: argparse.Namespace) -> dict[str, Any]:
    """Scores of runs by the size of their mega-batches."""
    made = {}
    for seed in range(1, chosen.seeds + 1):
        for name in ("embedded", "embedded, 32", "tatoeba"):
            for size in (8, 16, 32, 50, 100):
                out = chosen.output / "runs" / name / f"size-{size}" / f"seed-{seed}"
                made[name, size, seed] = run_of(chosen, name, seed, out, "ours", size)
    make(made.values(), chosen.jobs)
    results: dict[str, Any] = {}
    for (name, size, _), run in made.items():
        found = json.loads(run.result.read_text(encoding="utf-8"))
        totals = found["pruning"]["totals"]
        one = results.setdefault(name, {}).setdefault(str(size), {"values": []})
        one["values"].append(found["quality"]["value"])
        one |= {"real_share": totals["tokens"] / totals["padded_tokens"], "commit": found["commit"]}
    return results


# ---- Rounds ----


def rounds(chosen: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds to order the rows once, by us and by the stock function, in batches of 32."""
    results = {}
    for n in chosen.rounds:
        lengths = np.random.default_rng(0).gamma(4, 5, n).astype(np.int64) + 1
        start = time.process_time()
        ranks = lengths_as_ranks(lengths)
        once = time.process_time() - start
        start = time.process_time()
        rows = torch.randperm(n, generator=torch.Generator().manual_seed(0)).numpy()
        group(rows, ranks, 32, np.random.default_rng(0), longest_first=True)
        ours = time.process_time() - start
        del rows, ranks
        listed = lengths.tolist()
        start = time.process_time()
        get_length_grouped_indices(listed, 32)
        stock = time.process_time() - start
        results[str(n)] = {"ours": ours, "stock": stock, "ratio": ours / stock, "once_a_run": once}
    return results


# ---- Processes ----


class Waits(TrainerCallback):
    """Seconds from when gradients are ready in this process until they are summed over processes."""

    def __init__(self):
        self.seconds, self.trainer = 0.0, None

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step > 0 or not hasattr(self.trainer.model_wrapped, "register_comm_hook"):
            return

        def hook(group, bucket):
            begin, size = time.perf_counter(), torch.distributed.get_world_size()

            def summed(future):
                self.seconds += time.perf_counter() - begin
                return future.value()[0] / size

            return torch.distributed.all_reduce(bucket.buffer(), async_op=True).get_future().then(summed)

        self.trainer.model_wrapped.register_comm_hook(None, hook)


def process(chosen: argparse.Namespace) -> None:
    """One of the processes: an epoch in each order; the main process writes the results to a file."""
    data, collator, make = pairs_of_texts(chosen.data / "multi30k", chosen.rows)
    results = {}
    for order, (strategy, policy) in ORDERS.items():
        set_seed(0)
        args = TrainingArguments(
            chosen.output / "processes",
            use_cpu=True,
            per_device_train_batch_size=32,
            num_train_epochs=1,
            train_sampling_strategy=strategy,
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
            save_strategy="no",
            ddp_backend="gloo",
            dataloader_pin_memory=False,
        )
        widths, waits, times = [], Waits(), Times(time.perf_counter)

        def watched(rows, widths=widths):
            batch = collator(rows)
            widths.append(batch["input_ids"].shape[1] + batch["labels"].shape[1])
            return batch

        trainer = PruningTrainer(
            model=make(), args=args, train_dataset=data, data_collator=watched, callbacks=[waits, times], policy=policy
        )
        waits.trainer = trainer
        trainer.train()
        mine = torch.tensor([widths])
        shared = [torch.empty_like(mine) for _ in range(args.world_size)]
        torch.distributed.all_gather(shared, mine)
        shared = torch.cat(shared).numpy()
        waited = torch.tensor([waits.seconds])
        torch.distributed.all_reduce(waited)
        results[order] = {
            "waiting": waited.item() / args.world_size / times.whole,
            "widest_over_narrowest": float((shared.max(0) / shared.min(0)).mean()),
            "positions_waited_for": float(1 - shared.sum() / (shared.max(0).sum() * len(shared))),
        }
    if args.process_index == 0:
        write_text(chosen.output / f"processes-{args.world_size}.json", json.dumps(results) + "\n")
    torch.distributed.destroy_process_group()


def processes(chosen: argparse.Namespace) -> dict[str, Any]:
    """Run two and four processes."""
    results = {}
    for count in (2, 4):
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={count}", "--standalone"]
        command += [__file__, "--process", "--data", str(chosen.data), "--output", str(chosen.output)]
        subprocess.run([*command, "--rows", str(chosen.rows)], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        results[str(count)] = json.loads((chosen.output / f"processes-{count}.json").read_text(encoding="utf-8"))
    return results


# ---- The command ----


def told_difference(found: dict[str, Any], scale: Scale) -> str:
    """A mean difference and its interval, as a text."""
    values = (found["difference"], *(found["interval"] or []))
    told, *ends = (f"{scale.factor * value:+.{scale.digits}f}" for value in values)
    return f"{told} ({' to '.join(ends)})" if ends else told


def table(results: dict[str, Any]) -> str:
    """The results in Markdown."""

    def percent(share):
        return f"{100 * share:.0f} %"

    lines = ["| task | rows | batch | real tokens, random | stock | ours |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, found in results["positions"].items():
        for batch in ("8", "16", "32"):
            shares = " | ".join(percent(found[batch][order]) for order in ORDERS)
            lines.append(f"| {name} | {found['rows']:,} | {batch} | {shares} |")
    lines += ["", "| task | order | positions | seconds |", "| --- | --- | ---: | ---: |"]
    for name, found in results["epochs"].items():
        for order in ("stock", "ours"):
            one = found[order]
            low, high = one["ratio_of_seconds_quartiles"]
            seconds = f"{one['ratio_of_seconds']:.3f} ({low:.3f}-{high:.3f})"
            lines.append(f"| {name} | {order} | {one['ratio_of_positions']:.3f} | {seconds} |")
    lines += ["", "| task | seeds | quality | random | stock | ours | ours less random |"]
    lines.append("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for name, found in results["quality"].items():
        scale = scale_of(found["metric"])
        means = " | ".join(f"{scale.factor * found[order]['mean']:.{scale.digits}f}" for order in ORDERS)
        told = told_difference(found["ours"], scale)
        lines.append(f"| {name} | {len(found['random']['values'])} | {scale.title} | {means} | {told} |")
    lines += [
        "",
        "| task | seeds | epochs, of the random order's | ours, in as many positions | less random |",
    ]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    for name, found in results["longer"].items():
        scale = scale_of(results["quality"][name]["metric"])
        mean = f"{scale.factor * statistics.fmean(found['values']):.{scale.digits}f}"
        told = told_difference(found, scale)
        lines.append(f"| {name} | {len(found['values'])} | {found['epochs']:.2f} | {mean} | {told} |")
    lines += ["", "| rows | an order takes, of the stock function's seconds | seconds, ours | stock | once a run |"]
    lines.append("| ---: | ---: | ---: | ---: | ---: |")
    for n, one in results["rounds"].items():
        seconds = " | ".join(f"{one[key]:.2f} s" for key in ("ours", "stock", "once_a_run"))
        lines.append(f"| {int(n):,} | {percent(one['ratio'])} | {seconds} |")
    lines += [
        "",
        "| processes | order | waiting, of all seconds | longest batch over shortest | positions waited for |",
    ]
    lines.append("| ---: | --- | ---: | ---: | ---: |")
    for count, found in results["processes"].items():
        for order, one in found.items():
            cells = [
                percent(one["waiting"]),
                f"{one['widest_over_narrowest']:.2f}",
                percent(one["positions_waited_for"]),
            ]
            lines.append(f"| {count} | {order} | {' | '.join(cells)} |")
    lines += ["", "| runs | batches in a mega-batch | real tokens of positions | BLEU by seed | mean |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    for name, found in results["sizes"].items():
        for size, one in found.items():
            scores = ", ".join(f"{value:.1f}" for value in one["values"])
            mean = statistics.fmean(one["values"])
            lines.append(f"| {name} | {size} | {percent(one['real_share'])} | {scores} | {mean:.1f} |")
    return "\n".join(lines)


PARTS = {
    "positions": positions,
    "epochs": epochs,
    "rounds": rounds,
    "processes": processes,
    "quality": quality,
    "longer": longer,
    "sizes": sizes,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the data sets")
    parser.add_argument("--output", type=Path, default=Path("benchmark-output"), help="folder of padding.json")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure; default all")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="on which tasks; default all")
    parser.add_argument("--rows", type=int, default=1600, help="rows of an epoch that is timed")
    parser.add_argument("--pairs", type=int, default=3, help="epochs in each order")
    parser.add_argument("--seeds", type=int, default=5, help="runs in each order")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once")
    parser.add_argument("--rounds", type=int, nargs="+", default=[10**6, 10**7, 10**8], help="rows of a round")
    parser.add_argument("--process", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    chosen = parser.parse_args(sys.argv[1:cut])
    if chosen.process:
        return process(chosen)
    if chosen.size is not None:
        grouping.MEGA_BATCH = grouping.LEAST = chosen.size
        return translate.main(sys.argv[cut + 1 :])
    file = chosen.output / "padding.json"
    for part in chosen.parts:
        found = PARTS[part](chosen)
        results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}  # other calls may have written
        results = dict.fromkeys(PARTS, {}) | results
        results[part] = results[part] | found
        write_text(file, json.dumps(results | surroundings(__file__), indent=2) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
