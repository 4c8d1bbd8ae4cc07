"""What the founding papers claim, measured again: the comparisons, and the table of what holds.

    python recipes/benchmarks/papers.py papers_cifar10 --data data          # makes the rows, and prints the commands
    python recipes/benchmarks/papers.py papers_cifar10 --data data --run    # makes the rows, scores them, and compares
    python recipes/benchmarks/papers.py --table         # recipes/results/papers.json and the table in its README
    python recipes/benchmarks/papers.py --full_size     # prints commands for models and data of the papers' own sizes

`--data` is a folder with Parquet files in `cifar10-compact` and `multi30k`. Run it at the repository's root, and what
begins with `timed/` with nothing else on the machine: it runs one arm after another, and only these runs give seconds.
They are a second time the arms of another comparison, so they count for nothing else.

The learning rate of pictures is that of `regimes.py` at batches of 32, times the square root of the batch. The papers'
tuning is not public, so every arm of a comparison has the same arguments, and each rule its default settings.

`--table` reads what there is in `recipes/results/NAME/comparison.json`. A claim has parts, and each part is decided by
its number:

better    yes if the 95 % interval of the difference lies above 0, no if no part of it does
same      yes if the interval lies above -(the loss that the paper allows, else 0.5), no if no part of it does
saves     yes if the share that was saved, in whole percent, is at least the claimed one, else no. Forward passes and
          earlier runs count as read. For time, seconds are used if they were measured alone in pairs, otherwise rows
          (of pictures) or positions (of texts)

A part is not run if one of its arms is missing, and not decided if the interval says neither or there is none. The
claim is not run if any part is; else no if any part is no; else yes if all are yes; else not decided. An interval is
the comparison's own, over seeds and test rows, where the comparison made one; otherwise it is over seeds alone.
"""

import argparse
import json
import shlex
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import DatasetDict

sys.path.append(str(Path(__file__).resolve().parent))
from comparing import RESULTS, Regime, Scores, commands_of, compare, make_rows, scores_of, write_marked
from regimes import CIFAR10, SEED, multi30k, read

from hf_prune.common.storage import write_text
from hf_prune.compare.intervals import interval
from hf_prune.policies.large_batch_filter import scaled_learning_rate

BATCHES = (512, 1024, 2048, 4096)
MARGIN = 0.5  # points of accuracy or BLEU: loss of the same quality, where the paper names none
NOT_RUN, OPEN = "not run", "not decided"

# ---- Comparisons ----

RATE = 4e-3  # at batches of 32
PICTURES = f"{CIFAR10} --learning_rate {RATE}"
TEXTS = "--num_train_epochs 12 --max_eval_samples 300"
SAVING = ("autoassist", "kakurenbo", "loss_trend")  # their share depends on the losses


def cifar10(data: Path, rows: int) -> DatasetDict:
    """Pictures of CIFAR-10: so many to train on, 1,000 test pictures to validate on, and the others to test on."""
    pictures = read(data, "cifar10-compact")
    splits = {name: part.select_columns(["image", "label"]) for name, part in pictures.items()}
    train = splits["train"].select(np.random.default_rng(SEED).permutation(len(splits["train"]))[:rows])
    test = splits["test"]
    return DatasetDict(train=train, validation=test.select(range(1000)), test=test.select(range(1000, len(test))))


def _static(rows: str) -> tuple[str, str]:
    """The arms of EL2N and GraNd."""
    el2n, grand = (f"{policy} --history {scores_of(rows, policy)}" for policy in ("el2n", "grand"))
    return el2n, grand


def _batch(size: int) -> Regime:
    """With and without the filter at one global batch.

    Half of a batch must not remain, because it would be a step of its own: both 16,384 rows and three quarters of them
    fill batches of 4,096. The model sees 256 rows at once at every size, because batch norm depends on that.
    """
    rate = scaled_learning_rate(RATE, size, 32)
    arguments = "--architecture resnet --image_size 32 --per_device_train_batch_size 256"
    arguments += f" --gradient_accumulation_steps {size // 256}"
    return Regime(
        partial(cifar10, rows=16_384),
        "image_classification",
        f"{arguments} --learning_rate {rate:.3g} --num_train_epochs 16",
        (0.75,),
        (f"filter=large_batch_filter:ratio=0.25 --history {scores_of('papers_batch', 'el2n')}",),
        rows="papers_batch",
        scores=(Scores("el2n", 1, 2, PICTURES),),
    )


PAPERS = {
    "papers_cifar10": Regime(
        partial(cifar10, rows=3200),  # 100 steps: every budget fills whole ones
        "image_classification",
        f"{PICTURES} --num_train_epochs 20",
        (0.3, 0.5, 0.8),
        ("ucb", "epsilon_greedy", *_static("papers_cifar10"), *SAVING),
        scores=tuple(Scores(policy, 3, 3, PICTURES) for policy in ("el2n", "grand")),
    ),
    "timed/papers_cifar10": Regime(
        partial(cifar10, rows=3200),
        "image_classification",
        f"{PICTURES} --num_train_epochs 20",
        (0.5,),
        ("ucb", *SAVING),
        seeds=2,
        jobs="1",
        rows="papers_cifar10",
    ),
    **{f"papers_batch_{size}": _batch(size) for size in BATCHES},
    "papers_multi30k": Regime(multi30k, "translate", TEXTS, (0.7, "auto"), ("autoassist",), seeds=5),
    "timed/papers_multi30k": Regime(
        multi30k, "translate", TEXTS, (0.7,), ("autoassist",), seeds=2, jobs="1", rows="papers_multi30k"
    ),
}
HERE = {
    "papers_cifar10": "3,200 pictures of CIFAR-10, a ResNet of three blocks, 20 epochs",
    **dict.fromkeys(
        [f"papers_batch_{size}" for size in BATCHES], "16,384 pictures of CIFAR-10, a ResNet of three blocks, 16 epochs"
    ),
    "papers_multi30k": "Multi30k, a Transformer of two layers on either side, 12 epochs",
}

# ---- The papers' own sizes ----

# Of 128 x 128 pixels, the stem leaves 32 x 32. Adam in place of the papers' SGD, as in the recipe.
CIFAR = "--architecture resnet --model_size small --image_size 128 --per_device_train_batch_size 128"
CIFAR += " --dataloader_num_workers 8 --num_train_epochs 200"
HUB = {
    10: f"--dataset_name uoft-cs/cifar10 --image_column img {CIFAR}",
    100: f"--dataset_name uoft-cs/cifar100 --image_column img --label_column fine_label {CIFAR}",
}
WMT14 = (
    "--dataset_name wmt/wmt14 --dataset_config_name de-en --model_size base --vocab_size 37000 --num_train_epochs 10"
)
WMT14 += " --per_device_train_batch_size 256 --learning_rate 7e-4 --lr_scheduler_type inverse_sqrt --warmup_steps 4000"
LONG = "--load_best_model_at_end False --save_strategy steps --save_steps 0.05 --save_total_limit 1"
LONG += " --eval_strategy steps --eval_steps 0.05 --report_to none"
FULL_SIZE = {
    **{
        f"cifar{classes}_resnet18": Regime(
            None,
            "image_classification",
            arguments,
            (0.3, 0.5, "auto"),
            ("ucb", "epsilon_greedy", *_static(f"cifar{classes}_resnet18"), *SAVING),
            seeds=3,
            scores=tuple(Scores(policy, 10, 20, arguments) for policy in ("el2n", "grand")),
            every_run=LONG,
        )
        for classes, arguments in HUB.items()
    },
    **{
        f"cifar10_batch_{size}": Regime(
            None,
            "image_classification",
            f"{HUB[10]} --gradient_accumulation_steps {size // 128} "
            f"--learning_rate {scaled_learning_rate(1e-3, size, 128):.3g}",
            (0.75,),
            (f"filter=large_batch_filter:ratio=0.25 --history {scores_of('cifar10_resnet18', 'el2n')}",),
            seeds=3,
            every_run=LONG,
        )
        for size in BATCHES
    },
    "wmt14_base": Regime(None, "translate", WMT14, (0.7, "auto"), ("autoassist",), seeds=3, every_run=LONG),
}

# ---- Claims ----


@dataclass(frozen=True)
class Part:
    """One thing that a claim says of two arms; see the module.

    Args:
        kind: What it says.
        arm: Name of a comparison and of its arm.
        to: The arm that it is compared with, likewise.
        amount: same: loss that the paper allows, in the unit shown; saves: the share.
        of_time: Whether `saves` is about time.
    """

    kind: Literal["better", "same", "saves"]
    arm: tuple[str, str]
    to: tuple[str, str]
    amount: float = 0.0
    of_time: bool = False


@dataclass(frozen=True)
class Claim:
    """What a paper claims.

    Args:
        text: The claim.
        there: The paper's setting, as far as it is public.
        parts: What must be so.
    """

    text: str
    there: str
    parts: tuple[Part, ...]


def _cheaper(comparison: str, arm: str, share: float, loss: float = MARGIN, of_time: bool = True) -> tuple[Part, ...]:
    """An arm has the quality of all rows, and saves a share."""
    pair = (comparison, arm), (comparison, "full")
    return Part("same", *pair, loss), Part("saves", *pair, share, of_time)


def _above(comparison: str, arm: str, to: str) -> tuple[Part, ...]:
    return (Part("better", (comparison, arm), (comparison, to)),)


DYNAMIC = "CIFAR-10 and CIFAR-100, ResNet-18; tables by others"
BATCHED = "models, data and numbers are not public"
CLAIMS = (
    Claim(
        "AutoAssist: the same accuracy with 40 % fewer epochs",
        "ResNet; the tables are not public",
        _cheaper("papers_cifar10", "autoassist", 0.4, of_time=False),
    ),
    Claim(
        "AutoAssist: the same BLEU in 30 % less time",
        "IWSLT14 German to English in the code, Transformer of six layers; the tables are not public",
        _cheaper("papers_multi30k", "autoassist", 0.3),
    ),
    *(
        Claim(f"Dynamic data pruning: {text} at {100 - kept} % pruned", DYNAMIC, _above("papers_cifar10", arm, to))
        for kept in (50, 30)
        for text, arm, to in (
            ("random rows, drawn anew, are better than EL2N", f"uniform-{kept}", f"el2n-{kept}"),
            ("random rows, drawn anew, are better than GraNd", f"uniform-{kept}", f"grand-{kept}"),
            ("UCB is better than random rows", f"ucb-{kept}", f"uniform-{kept}"),
            ("epsilon-greedy is better than random rows", f"epsilon_greedy-{kept}", f"uniform-{kept}"),
        )
    ),
    Claim(
        "Dynamic data pruning: the same accuracy in half the time (UCB)",
        DYNAMIC,
        _cheaper("papers_cifar10", "ucb-50", 0.5),
    ),
    Claim(
        "Data Fine-Pruning: the same accuracy in 14.29 % less time (`loss_trend`, a reconstruction)",
        "VGG, ResNet and Wide ResNet; the tables are not public",
        _cheaper("papers_cifar10", "loss_trend", 0.1429),
    ),
    Claim(
        f"Large batches: accuracy falls from a global batch of {BATCHES[0]} to {BATCHES[-1]:,}",
        BATCHED,
        (Part("better", (f"papers_batch_{BATCHES[0]}", "full"), (f"papers_batch_{BATCHES[-1]}", "full")),),
    ),
    *(
        Claim(
            f"Large batches: a filter raises accuracy at {size:,} (`large_batch_filter`, a reconstruction)",
            BATCHED,
            _above(f"papers_batch_{size}", "filter", "full"),
        )
        for size in BATCHES
    ),
    Claim(
        "KAKURENBO: 22 % less time at a loss of 0.4 points",
        "ResNet-50, DeiT and WRN-28-10 in the code; the tables are not public",
        _cheaper("papers_cifar10", "kakurenbo", 0.22, loss=0.4),
    ),
)

# ---- What holds ----


class Measured:
    """The comparisons that have been run.

    Args:
        results: Folder of the folders of the comparisons.
    """

    def __init__(self, results: Path):
        files = {name: results / name / "comparison.json" for name in PAPERS}
        self.found = {name: json.loads(path.read_text("utf-8")) for name, path in files.items() if path.exists()}
        self.arms = {(name, arm["arm"]): arm for name, found in self.found.items() for arm in found["arms"]}

    def decide(self, part: Part) -> dict[str, Any]:
        """What a part's numbers are, in words too, and whether it holds."""
        arm, to = (self.arms.get(key) for key in (part.arm, part.to))
        if arm is None or to is None:
            return {"holds": NOT_RUN}
        return self._saves(part) if part.kind == "saves" else self._difference(part, arm, to)

    def _difference(self, part: Part, arm: dict[str, Any], to: dict[str, Any]) -> dict[str, Any]:
        least = -part.amount if part.kind == "same" else 0.0
        mean, low, high, over = self._interval(part, arm, to)
        holds = OPEN if low is None or low <= least < high else "yes" if low > least else "no"
        name = part.to[1] if part.arm[0] == part.to[0] else f"{part.to[1]} of {part.to[0]}"
        words = f"{part.arm[1]} less {name}: {_in_words(mean, low, high)}{over}"
        if part.kind == "same" and (short := arm["differences"].get("short")):
            words += f"; less {short['to']}: {_in_words(short['mean'], short['low'], short['high'])}"
        return {"holds": holds, "words": words, "mean": mean, "low": low, "high": high}

    def _interval(self, part: Part, arm: dict[str, Any], to: dict[str, Any]):
        """Mean, low and high of a difference, and what the interval is over, if that is seeds alone."""
        known = [one for one in arm["differences"].values() if one and one["to"] == part.to[1]]
        if known and part.arm[0] == part.to[0]:
            return known[0]["mean"], known[0]["low"], known[0]["high"], ""
        value, other = (dict(zip(one["seeds"], one["quality"], strict=True)) for one in (arm, to))
        differences = np.array([value[seed] - other[seed] for seed in sorted(value.keys() & other.keys())])
        low, high = interval(differences) or (None, None)
        return float(differences.mean()), low, high, " over seeds"

    def _saves(self, part: Part) -> dict[str, Any]:
        name, unit = part.arm[0], "seconds"
        timed = f"timed/{name}"
        pair = [self.arms.get((timed, arm)) for _, arm in (part.arm, part.to)]
        if part.of_time and all(pair) and self.found[timed]["plan"]["jobs"] == 1:
            read, full = (arm["seconds"] for arm in pair)
        else:
            pair = [self.arms[key] for key in (part.arm, part.to)]
            unit = "positions" if "positions" in pair[0] else "rows"
            read, full = (arm[unit]["all"] for arm in pair)
        saved = 1 - read / full
        holds = "yes" if round(100 * saved) >= round(100 * part.amount) else "no"
        return {"holds": holds, "words": f"{100 * saved:.0f} % fewer {unit}", "saved": saved, "unit": unit}

    def here(self, claim: Claim) -> str:
        """Our setting, with the smallest number of seeds."""
        keys = [key for part in claim.parts for key in (part.arm, part.to)]
        seeds = [len(self.arms[key]["seeds"]) for key in keys if key in self.arms]
        return HERE[keys[0][0]] + (f"; {min(seeds)} seeds" if seeds else "")


def _in_words(mean: float, low: float | None, high: float | None) -> str:
    return f"{mean:+.2f} ({'no interval' if low is None else f'{low:+.2f} to {high:+.2f}'})"


def measure(results: Path) -> dict[str, Any]:
    """Every claim, and what the comparisons in a folder say of it."""
    measured, rows = Measured(results), []
    for claim in CLAIMS:
        parts = [measured.decide(part) for part in claim.parts]
        said = [part["holds"] for part in parts]
        holds = next((word for word in (NOT_RUN, "no", OPEN) if word in said), "yes")
        words = NOT_RUN if holds == NOT_RUN else "; ".join(part["words"] for part in parts)
        row = {"claim": claim.text, "there": claim.there, "here": measured.here(claim), "measured": words}
        rows.append(row | {"holds": holds, "parts": parts})
    return {"claims": rows}


def table(found: dict[str, Any]) -> str:
    """The claims in Markdown."""
    lines = ["| claim | setting there | setting here | measured here | holds? |", 5 * "| --- " + "|"]
    keys = ("claim", "there", "here", "measured", "holds")
    return "\n".join(lines + [f"| {' | '.join(row[key] for key in keys)} |" for row in found["claims"]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PAPERS))
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the data sets")
    parser.add_argument("--run", action="store_true", help="run the comparisons")
    parser.add_argument("--table", action="store_true", help="write what holds")
    parser.add_argument("--full_size", action="store_true", help="print the commands for the papers' own sizes")
    given = parser.parse_args()
    if wrong := set(given.names) - set(PAPERS):
        parser.error(f"There is no comparison {min(wrong)!r}; there are {', '.join(PAPERS)}.")
    for name in given.names:
        make_rows(name, PAPERS[name], given.data)
        compare(name, PAPERS[name], given.run)
    if given.full_size:
        for name, regime in FULL_SIZE.items():
            print("\n".join(map(shlex.join, commands_of(name, regime))))
    if given.table:
        found = measure(RESULTS)
        write_text(RESULTS / "papers.json", json.dumps(found, indent=2) + "\n")
        write_marked(RESULTS / "README.md", "papers", table(found))
        print(table(found))


if __name__ == "__main__":
    main()
