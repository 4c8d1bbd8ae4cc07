"""Data with a known fault, and the comparisons that show whether a rule pays there.

    python recipes/benchmarks/regimes.py noisy_digits --data data            # makes the rows, and prints the command
    python recipes/benchmarks/regimes.py noisy_digits --data data --run      # and runs it

`--data` is a folder with Parquet files in `cifar10-compact`, `cifar10n`, `trec`, `sst2`, `tatoeba-de-en` and `multi30k`,
and with a pretrained encoder in `minilm`; a regime reads only its own. The rows go to `--output`/NAME: train.parquet,
validation.parquet and test.parquet. Training rows have a column that tells what the oracle knows: `clean` (bool: the
label or the pair is right) or `group` (rows that say the same). Without a name, the regimes are listed.

Every comparison has all rows, fewer epochs, random rows, the oracle (`listed`), the rules, and the obvious alternative.
Learning rate and batch size were chosen for the fewer epochs, on other seeds; every arm has the same.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, load_dataset
from sklearn.model_selection import train_test_split

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the recipes
from image_classification import embedded_digits

SEED = 0  # draws the rows and the faults, for every seed of training


@dataclass(frozen=True)
class Regime:
    """One comparison.

    Args:
        about: What is at fault in the rows, in a few words.
        make: Makes the splits from the folder of the data sets.
        recipe: Name of the recipe.
        arms: The rules, the oracle and the alternatives, as `hf-prune compare --arms` reads them.
        budgets: Shares of the full arm.
        arguments: Arguments of every run.
        seeds: Seeds of each arm.
    """

    about: str
    make: Callable[[Path], DatasetDict]
    recipe: str
    arms: tuple[str, ...]
    budgets: tuple[float, ...]
    arguments: str
    seeds: int = 8
    more: tuple[str, ...] = field(default=())


# ---- Rows ----


def read(data: Path, name: str) -> DatasetDict:
    """The splits of a data set: the files of its folder, by the first part of their names."""
    files: dict[str, list[str]] = {}
    for file in sorted(data.joinpath(name).glob("*.parquet")):
        files.setdefault(file.stem.split("-0")[0], []).append(str(file))
    return load_dataset("parquet", data_files=files)


def flip(rows: Dataset, share: float, column: str = "label") -> Dataset:
    """Rows of which a share has a wrong label, drawn evenly among the others; `true_label` and `clean` tell."""
    rng = np.random.default_rng(SEED)
    true = np.array(rows[column])
    kind = rows.features[column]
    classes = kind.num_classes if isinstance(kind, ClassLabel) else int(true.max()) + 1
    wrong = rng.random(len(true)) < share
    given = np.where(wrong, (true + rng.integers(1, classes, len(true))) % classes, true)
    rows = rows.rename_column(column, "true_label")
    return rows.add_column("label", given, feature=kind).add_column("clean", given == true)


def noisy_digits(data: Path) -> DatasetDict:
    rows = embedded_digits()
    every = Dataset.from_dict(
        {name: [x for split in rows.values() for x in split[name]] for name in ("image", "label")},
        features=rows["train"].features,
    )
    train, rest = train_test_split(np.arange(len(every)), train_size=1000, random_state=SEED, stratify=every["label"])
    held, test = rest[:100], rest[100:]
    return DatasetDict(train=flip(every.select(train), 0.4), validation=every.select(held), test=every.select(test))


def cifar10n(data: Path, column: str, rows: int) -> DatasetDict:
    pictures, labels = read(data, "cifar10-compact"), read(data, "cifar10n")["train"]
    some = np.random.default_rng(SEED).permutation(len(labels))[:rows]
    train = pictures["train"].select_columns(["image", "label"]).rename_column("label", "true_label")
    given = np.array(labels[column])
    kind = pictures["train"].features["label"]
    train = train.add_column("label", given, feature=kind).add_column("clean", given == np.array(labels["clean_label"]))
    test = pictures["test"].select_columns(["image", "label"])
    return DatasetDict(
        train=train.select(some), validation=test.select(range(1000)), test=test.select(range(1000, 10000))
    )


def noisy_trec(data: Path, rows: int, share: float) -> DatasetDict:
    every = read(data, "trec")
    order = np.random.default_rng(SEED).permutation(len(every["train"]))
    train, rest = every["train"].select(order[:rows]), every["train"].select(order[rows:])
    test = rest.select(range(200, len(rest)))
    return DatasetDict(train=flip(train, share), validation=rest.select(range(200)), test=test)


REGIMES = {
    "noisy_digits": Regime(
        "handwritten digits, 40 % of the labels random others",
        noisy_digits,
        "image_classification",
        (),
        (0.3, 0.65),
        "--num_train_epochs 60",
    ),
    "cifar10n_worse": Regime(
        "CIFAR-10 with labels that people gave, 40 % of them wrong",
        lambda data: cifar10n(data, "worse_label", 5000),
        "image_classification",
        (),
        (0.3, 0.65),
        "--architecture resnet --image_size 64",
    ),
    "cifar10n_aggre": Regime(
        "CIFAR-10 with labels that people gave, 9 % of them wrong",
        lambda data: cifar10n(data, "aggre_label", 5000),
        "image_classification",
        (),
        (0.3, 0.65),
        "--architecture resnet --image_size 64",
    ),
    "noisy_trec": Regime(
        "TREC, 30 % of the labels random others",
        lambda data: noisy_trec(data, 2000, 0.3),
        "text_classification",
        (),
        (0.3, 0.65),
        "--model_name_or_path data/minilm",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*REGIMES, []])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--output", type=Path, default=Path("regimes"))
    given = parser.parse_args()
    for name in given.names:
        folder = given.output / name
        for split, rows in REGIMES[name].make(given.data).items():
            rows.to_parquet(folder / f"{split}.parquet")
        print(name, folder)


if __name__ == "__main__":
    main()
