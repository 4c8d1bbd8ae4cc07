"""Data with a known fault, and the comparisons that show whether a rule pays there.

    python recipes/benchmarks/regimes.py noisy_digits --data data          # makes the rows, and prints the command
    python recipes/benchmarks/regimes.py noisy_digits --data data --run    # makes the rows, and compares

`--data` is a folder with Parquet files in `cifar10-compact`, `cifar10n`, `trec`, `tatoeba-de-en` and `multi30k`, and
with a pretrained encoder in `minilm`. A regime reads only what it needs. Its rows go to `regimes`/NAME: train.parquet,
validation.parquet and test.parquet; the comparison goes to `recipes/results`/NAME. Run it at the repository's root.

Training rows have a column that tells what the oracle knows: `clean` (the label or the pair is right) or `group` (rows
that say the same have one number). Every comparison has all rows, fewer epochs, random rows, the oracle (the policy
`listed`), the rules, and what a user would try first. The learning rate was chosen for the fewer epochs, with
another seed; every arm has the same. No arm picks its best checkpoint by clean rows, but the one that stops early.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, concatenate_datasets, load_dataset
from sklearn.model_selection import train_test_split
from transformers import AutoModel, AutoTokenizer

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the recipes
from comparing import ROWS, Regime, compare, make_rows
from image_classification import embedded_digits

SEED = 0  # draws the rows and the faults, the same for every seed of training

# ---- Rows ----


def read(data: Path, name: str) -> DatasetDict:
    """The splits of a data set: the files of its folder, by the first part of their names."""
    files: dict[str, list[str]] = {}
    for file in sorted(data.joinpath(name).glob("*.parquet")):
        files.setdefault(file.stem.split("-0")[0], []).append(str(file))
    return load_dataset("parquet", data_files=files)


def flip(rows: Dataset, share: float) -> Dataset:
    """Rows that have, with this chance, a wrong label, drawn evenly among the others; `true_label` and `clean` tell."""
    rng, true, kind = np.random.default_rng(SEED), np.array(rows["label"]), rows.features["label"]
    classes = kind.num_classes if isinstance(kind, ClassLabel) else int(true.max()) + 1
    wrong = rng.random(len(true)) < share
    given = np.where(wrong, (true + rng.integers(1, classes, len(true))) % classes, true)
    rows = rows.rename_column("label", "true_label")
    return rows.add_column("label", given, feature=kind).add_column("clean", ~wrong)


def parts(rows: Dataset, train: int, validation: int) -> DatasetDict:
    """Rows drawn for training and validation; all others are the test rows."""
    order = np.random.default_rng(SEED).permutation(len(rows))
    cuts = np.split(order, [train, train + validation])
    return DatasetDict(zip(("train", "validation", "test"), (rows.select(cut) for cut in cuts), strict=True))


def tail(rows: Dataset, most: int, times: int) -> Dataset:
    """Rows with `most` of class 0, geometrically fewer of each next class, and `times` fewer of the last."""
    classes, rng = np.array(rows["label"]), np.random.default_rng(SEED)
    counts = np.rint(most * times ** -np.linspace(0, 1, classes.max() + 1)).astype(int)
    drawn = [rng.permutation(np.flatnonzero(classes == c))[:count] for c, count in enumerate(counts)]
    return rows.select(rng.permutation(np.concatenate(drawn)))


def copied(rows: Dataset, some: int, times: int) -> Dataset:
    """Rows of which the first `some` occur `times` times; copies have the same number in `group`."""
    group = np.repeat(np.arange(len(rows)), np.where(np.arange(len(rows)) < some, times, 1))
    group = np.random.default_rng(SEED).permutation(group)
    return rows.select(group).add_column("group", group)


def noisy_digits(data: Path) -> DatasetDict:
    """1,000 handwritten digits, each with a wrong label with a chance of 40 %."""
    splits = parts(concatenate_datasets(list(embedded_digits().values())), 1000, 100)
    return DatasetDict(splits, train=flip(splits["train"], 0.4))


def rare_digits(data: Path) -> DatasetDict:
    """309 handwritten digits: 100 zeros, and of each next digit fewer, down to 3 nines; tested on balanced rows."""
    splits = parts(concatenate_datasets(list(embedded_digits().values())), 1000, 100)
    return DatasetDict(splits, train=tail(splits["train"], 100, 30))


def copied_digits(data: Path) -> DatasetDict:
    """300 handwritten digits, 30 of them twenty times."""
    splits = parts(concatenate_datasets(list(embedded_digits().values())), 300, 100)
    return DatasetDict(splits, train=copied(splits["train"], 30, 20))


def cifar10n(data: Path, column: str) -> DatasetDict:
    """5,000 pictures of CIFAR-10 with the labels that people gave."""
    pictures, labels = read(data, "cifar10-compact"), read(data, "cifar10n")["train"]
    splits = {name: rows.select_columns(["image", "label"]) for name, rows in pictures.items()}
    given, true = np.array(labels[column]), np.array(labels["clean_label"])
    train = splits["train"].rename_column("label", "true_label")
    train = train.add_column("label", given, feature=splits["test"].features["label"])
    train = train.add_column("clean", given == true).select(np.random.default_rng(SEED).permutation(50_000)[:5000])
    test = splits["test"]
    return DatasetDict(train=train, validation=test.select(range(1000)), test=test.select(range(1000, 10_000)))


def clean_cifar10(data: Path) -> DatasetDict:
    """5,000 pictures of CIFAR-10 with their right labels."""
    splits = cifar10n(data, "clean_label")
    return DatasetDict(splits, train=splits["train"].select_columns(["image", "label"]))


def copied_cifar10(data: Path) -> DatasetDict:
    """4,000 pictures of CIFAR-10, 200 of them ten times."""
    splits = cifar10n(data, "clean_label")
    train = splits["train"].select_columns(["image", "label"]).select(range(4000))
    return DatasetDict(splits, train=copied(train, 200, 10))


def rare_cifar10(data: Path) -> DatasetDict:
    """CIFAR-10 with a tail: 2,000 pictures of the first class, and of each next one fewer, down to 20."""
    splits = cifar10n(data, "clean_label")
    pictures = read(data, "cifar10-compact")["train"].select_columns(["image", "label"])
    return DatasetDict(splits, train=tail(pictures, 2000, 100))


def trec(data: Path) -> Dataset:
    """All questions with the six coarse labels; the published test rows are few."""
    return concatenate_datasets(list(read(data, "trec").values()))


def noisy_trec(data: Path) -> DatasetDict:
    """2,000 questions of TREC, each with a wrong label with a chance of 30 %."""
    splits = parts(trec(data), 2000, 200)
    return DatasetDict(splits, train=flip(splits["train"], 0.3))


def clean_trec(data: Path) -> DatasetDict:
    """2,000 questions of TREC as they are."""
    return parts(trec(data), 2000, 200)


def rare_trec(data: Path) -> DatasetDict:
    """2,500 questions of TREC with their fine labels, those with at least ten questions."""
    rows = trec(data)
    rows = rows.remove_columns("label").rename_column("fine", "label")
    names, counts = np.unique(rows["label"], return_counts=True)
    kept = set(names[counts >= 10])
    rows = rows.filter(lambda label: label in kept, input_columns="label")
    train, rest = train_test_split(np.arange(len(rows)), train_size=2500, random_state=SEED, stratify=rows["label"])
    return DatasetDict(train=rows.select(train), validation=rows.select(rest[:300]), test=rows.select(rest[300:]))


def noisy_pairs(data: Path) -> DatasetDict:
    """10,000 pairs of Tatoeba, and 10,000 wrong ones: half misaligned, a quarter copied, a quarter in French.

    `plausible` is what a filter by copies, lengths and languages lets through.
    """
    splits, other = read(data, "tatoeba-de-en"), read(data, "multi30k")["train"]
    rng = np.random.default_rng(SEED)
    rows = splits["train"].select(rng.permutation(len(splits["train"]))[:20_000])
    english, german = list(rows["en"]), list(rows["de"])
    given = german.copy()
    given[10_000:15_000] = [german[i] for i in np.roll(np.arange(10_000, 15_000), 1)]
    given[15_000:17_500] = english[15_000:17_500]
    given[17_500:] = list(other["fr"][:2500])
    known = {word for sentence in splits["train"]["de"] for word in sentence.lower().split()}
    plausible = [
        source != target
        and 0.5 < (len(target) + 5) / (len(source) + 5) < 2
        and np.mean([word in known for word in target.lower().split()]) > 0.5
        for source, target in zip(english, given, strict=True)
    ]
    columns = {"en": english, "de": given, "clean": [i < 10_000 for i in range(20_000)], "plausible": plausible}
    train = Dataset.from_dict(columns).select(rng.permutation(20_000))
    return DatasetDict(splits, train=train)


def generated_pairs() -> DatasetDict:
    """The translation recipe's 4,000 pairs."""
    return load_dataset("parquet", data_dir="recipes/corpora/translate")


def misaligned_pairs(_: Path) -> DatasetDict:
    """The generated pairs; in 40 % of them, the German is that of another such row."""
    splits = generated_pairs()
    rng, rows = np.random.default_rng(SEED), splits["train"]
    wrong = np.sort(rng.permutation(len(rows))[: int(0.4 * len(rows))])
    german, order = np.array(rows["de"], dtype=object), rng.permutation(wrong)
    german[order] = german[np.roll(order, 1)]
    clean = ~np.isin(np.arange(len(rows)), wrong)
    train = Dataset.from_dict({"en": rows["en"], "de": german.tolist(), "clean": clean})
    return DatasetDict(splits, train=train)


def copied_pairs(_: Path) -> DatasetDict:
    """2,000 of the generated pairs, 100 of them ten times."""
    splits = generated_pairs()
    return DatasetDict(splits, train=copied(splits["train"].select(range(2000)), 100, 10))


def multi30k(data: Path) -> DatasetDict:
    """Multi30k, tested on its rows of 2016."""
    splits = read(data, "multi30k")
    return DatasetDict(train=splits["train"], validation=splits["validation"], test=splits["test_2016_flickr"])


def tatoeba(data: Path) -> DatasetDict:
    """20,000 pairs of Tatoeba."""
    splits = read(data, "tatoeba-de-en")
    rows = np.random.default_rng(SEED).permutation(len(splits["train"]))[:20_000]
    return DatasetDict(splits, train=splits["train"].select(rows))


def three_layers(data: Path) -> Path:
    """The first three layers of the encoder, which are twice as fast; made once."""
    folder = ROWS / "minilm-3"
    if not folder.exists():
        AutoTokenizer.from_pretrained(data / "minilm").save_pretrained(folder)
        AutoModel.from_pretrained(data / "minilm", num_hidden_layers=3).save_pretrained(folder)
    return folder


# ---- Comparisons ----

DIGITS = "--architecture resnet --image_size 32 --flip False --crop_padding 0 --per_device_train_batch_size 32"
CIFAR10 = "--architecture resnet --image_size 32 --per_device_train_batch_size 32"
TREC = "--model_name_or_path regimes/minilm-3 --per_device_train_batch_size 32 --learning_rate 2e-4"
ORACLE = "oracle=listed:column=clean"
CLASS_RULES = ("class_quota", "recall=class_quota:by=recall")
GENERATED = "--source_lang en --target_lang de --learning_rate 2e-3 --num_train_epochs 14"
EN_DE = "--source_lang en --target_lang de --max_eval_samples 300"

REGIMES = {
    "noisy_digits": Regime(
        noisy_digits,
        "image_classification",
        f"{DIGITS} --learning_rate 1e-4 --num_train_epochs 60",
        (0.3, 0.6, 0.8),
        (
            ORACLE,
            "trim",
            "self_paced",
            "infobatch",
            "tuned-30=uniform:keep=1 --num_train_epochs 18 --learning_rate 2.5e-4",
        ),
        ("early_stopping",),
        topics=("wrong labels",),
    ),
    "rare_digits": Regime(
        rare_digits,
        "image_classification",
        f"{DIGITS} --learning_rate 3e-3 --num_train_epochs 60",
        (0.3, 0.5),
        CLASS_RULES,
        ("class_weighted",),
        topics=("imbalance",),
    ),
    "rare_cifar10": Regime(
        rare_cifar10,
        "image_classification",
        f"{CIFAR10} --learning_rate 4e-3 --num_train_epochs 20",
        (0.5,),
        (*CLASS_RULES, "both=class_quota --class_weights balanced"),
        ("class_weighted",),
        topics=("imbalance",),
    ),
    "copied_cifar10": Regime(
        copied_cifar10,
        "image_classification",
        f"{CIFAR10} --learning_rate 4e-3 --num_train_epochs 30",
        ("auto",),
        ("oracle=listed:one_of=group", "one_of_each"),
        topics=("duplicates",),
    ),
    "copied_digits": Regime(
        copied_digits,
        "image_classification",
        f"{DIGITS} --learning_rate 3e-3 --num_train_epochs 60",
        (0.35,),
        ("oracle=listed:one_of=group", "one_of_each"),
        topics=("duplicates",),
    ),
    "clean_cifar10": Regime(
        clean_cifar10,
        "image_classification",
        f"{CIFAR10} --learning_rate 4e-3 --num_train_epochs 20",
        (0.5,),
        ("rising=uniform:keep=0.3->0.7", "falling=uniform:keep=0.7->0.3", "cycle=uniform:keep=0.5~0.3x4", "tail"),
        seeds=5,
    ),
    "cifar10n_worse": Regime(
        partial(cifar10n, column="worse_label"),
        "image_classification",
        f"{CIFAR10} --learning_rate 1e-3 --num_train_epochs 60",
        (0.3, 0.82),
        (ORACLE, "trim:noise=0.4,ramp=0.5"),  # on its own, it prunes nothing there
        topics=("wrong labels",),
    ),
    "cifar10n_aggre": Regime(
        partial(cifar10n, column="aggre_label"),
        "image_classification",
        f"{CIFAR10} --learning_rate 1e-3 --num_train_epochs 60",
        (0.5, 0.9),
        (ORACLE, "trim:noise=0.09,ramp=0.5"),
        ("early_stopping",),
        topics=("wrong labels",),
    ),
    "noisy_trec": Regime(
        noisy_trec,
        "text_classification",
        f"{TREC} --num_train_epochs 10",
        (0.3, 0.7),
        (ORACLE, "trim"),
        ("early_stopping",),
        topics=("wrong labels",),
    ),
    "rare_trec": Regime(
        rare_trec,
        "text_classification",
        f"{TREC} --num_train_epochs 10 --metric f1 --unit rows",
        (0.5,),
        CLASS_RULES,
        ("class_weighted",),
        topics=("imbalance",),
    ),
    "clean_trec": Regime(
        clean_trec,
        "text_classification",
        f"{TREC} --num_train_epochs 10",
        (0.5, "auto"),
        ("infobatch", "seta", "ucb"),
        ("early_stopping",),
    ),
    "noisy_pairs": Regime(
        noisy_pairs,
        "translate",
        f"{EN_DE} --num_train_epochs 8",
        (0.5, "auto"),
        (ORACLE, "filter=listed:column=plausible", "trim:revisit=0"),
        topics=("wrong labels",),
    ),
    "misaligned_pairs": Regime(
        misaligned_pairs,
        "translate",
        GENERATED,
        ("auto",),
        (ORACLE, "trim:revisit=0"),
        topics=("wrong labels",),
    ),
    "copied_pairs": Regime(
        copied_pairs,
        "translate",
        GENERATED,
        ("auto",),
        ("oracle=listed:one_of=group", "one_of_each"),
        topics=("duplicates",),
    ),
    "short_multi30k": Regime(
        multi30k,
        "translate",
        f"{EN_DE} --num_train_epochs 4",
        (0.2, 0.3, 0.5),
        tuple(f"competence-{b}=competence --num_train_epochs {b / 17.5:.3g}" for b in (20, 30, 50)),  # it reads 70 %
        seeds=5,
        topics=("lengths",),
    ),
    "short_tatoeba": Regime(
        tatoeba,
        "translate",
        f"{EN_DE} --num_train_epochs 5",
        (0.2, 0.3, 0.5),
        tuple(f"competence-{b}=competence --num_train_epochs {b / 14:.3g}" for b in (20, 30, 50)),
        topics=("lengths",),
    ),
    "long_multi30k": Regime(
        multi30k,
        "translate",
        f"{EN_DE} --num_train_epochs 20",
        (0.5, "auto"),
        ("infobatch", "competence"),
        ("early_stopping",),
        seeds=5,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=list(REGIMES), metavar="NAME", help=", ".join(REGIMES))
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the data sets")
    parser.add_argument("--run", action="store_true", help="run the comparison, with every core")
    given = parser.parse_args()
    for name in given.names:
        make_rows(name, REGIMES[name], given.data)
        if "minilm-3" in REGIMES[name].arguments:
            three_layers(given.data)
        compare(name, REGIMES[name], given.run)


if __name__ == "__main__":
    main()
