"""The data that a recipe trains on: the flags of every recipe, files and data sets, and their splits.

Size: each field of `CommonArguments` is a flag of the command line.
"""

import copy
import csv
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset, DatasetDict, load_dataset
from datasets.exceptions import DatasetGenerationError
from transformers import EarlyStoppingCallback

from ..core import Policy
from ..records.table import FILE_ROW
from .columns import find_column
from .files import check_file, unread
from .unlabelled import set_apart

SPLITS = ("train", "validation", "test")
_ABOUT = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json")  # of `datasets`, without rows
READERS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv"}


@dataclass
class CommonArguments:
    """Flags of every recipe.

    Args:
        train_file: File to train on (.parquet, .json, .jsonl, .csv, or .tsv, which has no quotes); without it, the
            embedded data.
        validation_file: File to validate on; without it, 5 % of the training rows, at most 1,000, are held out.
        test_file: File for the final score; without it, the validation rows are used for that, too.
        dataset_name: Data set of the Hub, or a folder, instead of files; it must have a split `train`. Without
            `validation` or `test`, `validation_matched` and `test_matched` are used, as for MNLI.
        dataset_config_name: Name of its configuration.
        max_train_samples: Number of rows to train on, drawn once and the same for every seed; without it, all.
        max_eval_samples: Number of rows to validate on, drawn once and the same for every seed; without it, all.
        model_name_or_path: Model to fine-tune, on the Hub or in a folder; without it, a model is trained from scratch.
        early_stopping_patience: Stop after this number of validations without a better score.
        history: What an earlier run has learned about the same rows (its folder, or an id on the Hub), or their scores;
            the policy begins with it.
        history_key: Column of the training rows with a unique text or whole number for each row, and no text or label
            to learn from. It matches the rows to those of `history`, after filtering or in another order.

    Attributes:
        policy: The policy that `parse` has read beside these flags.
        is_scored_alone: Whether a saved model is scored, and nothing is trained (`--do_predict` without `--do_train`).
    """

    policy: ClassVar[Policy | None] = None
    is_scored_alone: ClassVar[bool] = False

    train_file: str | None = None
    validation_file: str | None = None
    test_file: str | None = None
    dataset_name: str | None = None
    dataset_config_name: str | None = None
    max_train_samples: int | None = None
    max_eval_samples: int | None = None
    model_name_or_path: str | None = None
    early_stopping_patience: int | None = None
    history: str | None = None
    history_key: str | None = None

    @property
    def source(self) -> str | None:
        """The name of the data; None for the embedded data."""
        return self.dataset_name or self.train_file or self.test_file

    def for_trainer(self) -> dict[str, Any]:
        """Arguments for the trainer from these flags: `history`, `history_key` and `callbacks`.

        Raises:
            ValueError: `early_stopping_patience` is below 1.
        """
        patience = self.early_stopping_patience
        if patience is not None and patience < 1:
            raise ValueError(f"early_stopping_patience={patience} must be at least 1, or left out.")
        callbacks = [] if patience is None else [Patience(patience)]
        return {"history": self.history, "history_key": self.history_key, "callbacks": callbacks}

    def carried(self, rows: Dataset, *taken: str) -> list[str]:
        """The columns that identify these rows or that the policy reads, and that go with them to the trainer.

        Raises:
            ValueError: The key, or a column that the policy reads, is in `taken`, which are used for something else.
        """
        if wrong := [column for column in self.read_by_policy() if column in taken]:
            raise ValueError(
                f"column={wrong[0]!r} is trained on, or called as one that is read; the policy needs one of its own: "
                "copy it under another name."
            )
        if self.history_key in taken:
            raise ValueError(
                f"history_key={self.history_key!r} is a column that is trained on, or called as one that is read; name "
                "another that tells the rows apart, or rename it."
            )
        carried = dict.fromkeys((FILE_ROW, self.history_key, *self.read_by_policy()))
        return [column for column in carried if column in rows.column_names]

    def read_by_policy(self) -> tuple[str, ...]:
        """The columns of the training rows that the policy reads."""
        return () if self.policy is None else self.policy.reads_columns


class Patience(EarlyStoppingCallback):
    """Early stopping that keeps its count when a run resumes."""

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        name = f"eval_{args.metric_for_best_model.removeprefix('eval_')}"
        values = [entry[name] for entry in state.log_history if name in entry]
        self.early_stopping_patience_counter = 0
        until_now = copy.copy(state)
        until_now.best_metric = None
        for value in values:
            self.check_metric_value(args, until_now, control, value)
            if not self.early_stopping_patience_counter:
                until_now.best_metric = value
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True


def read_file(path: str) -> Dataset:
    """All rows of a file; in CSV and TSV, only an empty field is a missing value.

    Raises:
        ValueError: There is no such file, its suffix is unknown, no row can be read, or `check_file` refuses it.
    """
    _check_name(path)
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder: give one file of it, or all of it by --dataset_name.")
    suffix = Path(path).suffix.lower()
    if suffix not in READERS:
        raise ValueError(f"{path}: suffix {suffix!r} is not known; give one of {', '.join(READERS)}.")
    if not Path(path).is_file():
        raise ValueError(f"{path}: there is no such file.")
    options: dict[str, Any] = {}
    if READERS[suffix] == "csv":
        options = {"keep_default_na": False, "na_values": [""]}
    if suffix == ".tsv":
        options |= {"sep": "\t", "quoting": csv.QUOTE_NONE}
    cure = "Separate columns by commas in .csv and by tabs in .tsv."
    check_file(Path(path))
    try:
        rows = load_dataset(READERS[suffix], data_files=path, split="train", **options)
    except (DatasetGenerationError, ValueError, OSError, StopIteration) as error:
        cause = str(error.__cause__ or error).rstrip().rstrip(".")
        if "as a scalar of type" in cause:
            cause += ". A column has numbers first, and text below: store it as text, in Parquet or JSON lines"
        elif "inside string" in cause:
            cause += ". A quote is opened there and never closed: double a quote that is text"
        elif options:
            cause += f". {cure}"
        raise unread(path, READERS[suffix], cause) from error
    if options and len(rows.column_names) == 1 and set(rows.column_names[0]) & set(",;\t|"):
        raise ValueError(f"{path} has one column, called {rows.column_names[0]!r}. {cure}")
    return rows


def _check_name(path: str) -> None:
    if Path(path).exists() and any(character in path for character in "*?["):
        raise ValueError(f"{path}: `datasets` reads * ? and [ in a name as a pattern of other files; rename it.")


def read_corpus(recipe: str) -> dict[str, Dataset]:
    """The splits of a recipe's embedded corpus, in corpora/ beside the recipe's file; `recipe` is its `__file__`."""
    folder = Path(recipe).parent / "corpora" / Path(recipe).stem
    return {split: read_file(str(folder / f"{split}.parquet")) for split in SPLITS}


def read_splits(
    common: CommonArguments, embedded: Callable[[], Mapping[str, Dataset]]
) -> tuple[dict[str, Dataset], dict[str, str]]:
    """The splits from the flags, or the embedded ones, train first with numbered rows; and a name for each split.

    Args:
        common: The common flags.
        embedded: Reads the data of a run without arguments.

    Raises:
        ValueError: Flags don't go together, a data set has no split train, a split is empty, or `read_file` refuses a
            file.
    """
    paths = (common.train_file, common.validation_file, common.test_file)
    files = {split: path for split, path in zip(SPLITS, paths, strict=True) if path is not None}
    needed = "test" if common.is_scored_alone else "train"
    if files and (common.dataset_name or needed not in files):
        raise ValueError(f"{', '.join(files.values())}: files need --{needed}_file, and no --dataset_name beside it.")
    if common.dataset_config_name and not common.dataset_name:
        raise ValueError(
            "dataset_config_name: files and the embedded data have none; give dataset_name, or leave it out."
        )
    if common.dataset_name:
        _check_folder(common.dataset_name)
        try:
            found: Any = load_dataset(common.dataset_name, common.dataset_config_name)
        except (OSError, ValueError, DatasetGenerationError) as error:
            cause = " ".join(str(error.__cause__ or error).split()).rstrip(".")
            raise ValueError(
                f"dataset_name={common.dataset_name!r} can't be read: {cause}. Give a folder with data, a data set of "
                "the Hub that this machine reaches, or --train_file."
            ) from error
        found = {name.removesuffix("_matched"): rows for name, rows in found.items()} | dict(found)
        if needed not in found:
            raise ValueError(f"dataset_name={common.dataset_name!r} has no split {needed}; it has {', '.join(found)}.")
    else:
        found = {split: _read_split(split, path) for split, path in files.items()} if files else embedded()
    if common.is_scored_alone:
        found = dict.fromkeys(SPLITS, found["test"])  # no other row is read
        files = {split: files.get("test", "") for split in SPLITS}
    return number_rows(found, common, files)


def _read_split(split: str, path: str) -> Dataset:
    try:
        return read_file(path)
    except ValueError as error:
        raise ValueError(f"{split}_file: {error}") from error


def _check_folder(name: str) -> None:
    """Refuse a text that can't name a data set, and files in its folder that `datasets` would misread."""
    _check_name(name)
    if Path(name).is_file():
        raise ValueError(f"dataset_name={name!r} is a file: give it by --train_file.")
    for path in sorted(Path(name).rglob("*")):
        is_hidden = any(part.startswith(".") for part in path.relative_to(name).parts)
        if path.suffix.lower() in READERS and path.is_file() and path.name not in _ABOUT and not is_hidden:
            try:
                check_file(path)
            except ValueError as error:
                raise ValueError(f"dataset_name={name!r}: {error}") from error


def number_rows(
    found: Mapping[str, Dataset], common: CommonArguments, names: Mapping[str, str]
) -> tuple[dict[str, Dataset], dict[str, str]]:
    """The splits that a recipe uses, train first with numbered rows; and a name for each, also if `names` has none.

    Raises:
        ValueError: A split is empty, or the training rows lack the key column or one that the policy reads.
    """
    raw = {split: found[split] for split in SPLITS if split in found}
    names = {split: names.get(split) or f"split {split} of {common.source or 'the embedded data'}" for split in raw}
    if empty := [names[split] for split, rows in raw.items() if not len(rows)]:
        raise ValueError(f"{empty[0]} has no row; give one that has, or leave it out.")
    if common.history_key is not None:
        find_column(raw["train"], "history_key", common.history_key, names["train"])
    for column in common.read_by_policy():
        find_column(raw["train"], "column", column, names["train"])
    if FILE_ROW not in raw["train"].column_names:
        raw["train"] = raw["train"].add_column(FILE_ROW, np.arange(len(raw["train"])))
    return raw, names


def hold_out(splits: dict[str, Dataset], seed: int, stratify_by: str | None = None) -> DatasetDict:
    """The splits; if there is no validation, 5 % of the training rows, at most 1,000, are held out for it.

    Args:
        splits: The splits, train among them.
        seed: Seed that chooses the rows.
        stratify_by: A column of classes; both parts keep their shares, and no fewer rows than classes are held out.

    Raises:
        ValueError: A class of the training rows has only one row, or there are too few rows for all classes.
    """
    if "train" not in splits:  # a saved model is scored alone, on rows without labels
        splits = dict.fromkeys(("train", "validation", *splits), next(iter(splits.values())))
    if "validation" in splits:
        return DatasetDict({**splits})
    rows = splits["train"]
    size = min(1000, math.ceil(len(rows) / 20))
    cure = "Give rows to validate on: --validation_file, or a split or folder called validation."
    if stratify_by is not None:
        names, counts = rows.features[stratify_by].names, Counter(rows[stratify_by][:])
        if single := [names[label] for label in sorted(counts) if counts[label] == 1]:
            raise ValueError(f"label_column: {single[0]!r} has one training row: none can be held out of it. {cure}")
        size = max(size, len(counts))
    if size >= len(rows):
        raise ValueError(f"Of {len(rows)} training rows, {size} can't be held out for validation. {cure}")
    from sklearn.model_selection import train_test_split  # the one of `datasets` reads classes row by row

    classes = stratify_by and rows[stratify_by][:]
    kept, held = train_test_split(np.arange(len(rows)), test_size=size, random_state=seed, stratify=classes)
    return DatasetDict({**splits, "train": rows.select(kept), "validation": rows.select(held)})


def limit(splits: DatasetDict, common: CommonArguments) -> DatasetDict:
    """The splits, cut to the numbers of rows in `max_train_samples` and `max_eval_samples`.

    Raises:
        ValueError: A number is below 1. If there are fewer rows, all are taken, as in the examples of transformers.
    """
    found = {**splits}
    for split, flag in (("train", "max_train_samples"), ("validation", "max_eval_samples")):
        size, rows = getattr(common, flag), splits[split]
        if size is not None and size < 1:
            raise ValueError(f"{flag}={size}: give a number of {split} rows, 1 or more.")
        if size is None or size >= len(rows):
            continue
        found[split] = rows.select(np.sort(np.random.default_rng(0).choice(len(rows), size, replace=False)))
    return DatasetDict(found)


def load_splits(
    common: CommonArguments,
    embedded: Callable[[], Mapping[str, Dataset]],
    prepare: Callable[[Dataset, str], Dataset],
    seed: int,
    bare: Callable[[Dataset], dict[str, str] | None] = lambda rows: None,
) -> DatasetDict:
    """Splits train, validation and, if there is one, test: from the flags, or the embedded ones.

    Args:
        common: The common flags.
        embedded: Reads the data of a run without arguments.
        prepare: (rows, their name in messages) -> the rows in the form that the recipe needs.
        seed: Seed that chooses the rows held out for validation.
        bare: Test rows -> the columns to keep, and their names after reading, if they have no labels; else None.

    Raises:
        ValueError: `read_splits`, `prepare`, `hold_out` or `limit` refuses something.
    """
    raw, names = read_splits(common, embedded)
    splits = {**raw}
    for split, rows in raw.items():
        columns = bare(rows) if split == "test" or common.is_scored_alone else None
        if columns is None:
            splits[split] = prepare(rows, names[split])
        else:
            set_apart(splits, split, columns, names[split])
    return limit(hold_out(splits, seed), common)
