"""What the recipes share: common flags, reading data, finding where to go on, and how a run ends."""

import csv
import json
import math
import os
import shlex
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Value, load_dataset
from datasets.exceptions import DatasetGenerationError
from transformers import EarlyStoppingCallback, TrainingArguments

from .card import public, public_arguments
from .checkpoint import last_whole
from .comparison import PREDICTIONS, RESULTS
from .core import Policy
from .page import REPORT
from .report import plain, surroundings
from .storage import write_text

SPLITS = ("train", "validation", "test")
_BEGUN = "_begun.json"  # in output_dir: what a run that may be interrupted is of
_NAMES = 20  # of many that a message lists
_LINE = 300  # characters of a sample's line that are printed
FILE_ROW = "file_row"  # column: which row of its file, from 0, a training row is; others are left out or held out
READERS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv"}


@dataclass
class CommonArguments:
    """Flags of every recipe.

    Args:
        train_file: File to train on (.parquet, .json, .jsonl, .csv, or .tsv, which has no quotes); without it, the
            embedded data.
        validation_file: File to validate on; without it, 5 % of the training rows, at most 1,000, are held out.
        test_file: File for the final score; without it, the validation rows give that, too.
        dataset_name: Data set of the Hub, or a folder, instead of files; it must have a split `train`. Where it has no
            `validation` or `test`, `validation_matched` and `test_matched` serve, as those of MNLI.
        dataset_config_name: Its configuration.
        max_train_samples: Train on so many rows, drawn once and the same for every seed; without it, on all.
        max_eval_samples: Validate on so many rows, drawn once and the same for every seed; without it, on all.
        model_name_or_path: Model to fine-tune, of the Hub or in a folder; without it, one is made from scratch.
        early_stopping_patience: Stop after so many validations without a better score.
        history: What an earlier run has learnt of the same rows (its folder, or an id of the Hub), or scores of them;
            the policy begins with it.
        history_key: Column of the training rows that names each by a text or whole number of its own, and that is no
            text or label to learn from: rows of `history` are matched by it, after filtering or in another order.
    """

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
        """The name of the data; None for the embedded ones."""
        return self.dataset_name or self.train_file

    def callbacks(self) -> list[EarlyStoppingCallback]:
        """Those that the flags ask for."""
        patience = self.early_stopping_patience
        return [] if patience is None else [EarlyStoppingCallback(patience)]

    def carried(self, rows: Dataset) -> list[str]:
        """The columns of these rows that say which rows they are, and that go with them to the trainer."""
        return [column for column in (FILE_ROW, self.history_key) if column in rows.column_names]


# ---- Data ----


def read_file(path: str) -> Dataset:
    """All rows of a file; in CSV and TSV, an empty field is a missing value, and nothing else is.

    Raises:
        ValueError: There is no such file, its suffix is unknown, or no row can be read.
    """
    _check_name(path)
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
    try:
        return load_dataset(READERS[suffix], data_files=path, split="train", **options)
    except (DatasetGenerationError, ValueError, StopIteration) as error:
        cause = error.__cause__ or error
        raise ValueError(f"{path} is empty, or can't be read as {READERS[suffix]}: {cause}") from error


def _check_name(path: str) -> None:
    if Path(path).exists() and any(character in path for character in "*?["):
        raise ValueError(f"{path}: `datasets` reads * ? and [ in a name as a pattern of other files; rename it.")


def read_splits(
    common: CommonArguments, embedded: Callable[[], DatasetDict]
) -> tuple[dict[str, Dataset], dict[str, str]]:
    """The splits that the flags name, or the embedded ones, train first and its rows numbered, and what to call each.

    Raises:
        ValueError: Flags that don't go together, a data set without a split train, an empty split, or what `read_file`
            refuses.
    """
    paths = (common.train_file, common.validation_file, common.test_file)
    files = {split: path for split, path in zip(SPLITS, paths, strict=True) if path is not None}
    if files and (common.dataset_name or "train" not in files):
        raise ValueError(f"{', '.join(files.values())}: files need --train_file, and no --dataset_name beside it.")
    if common.dataset_name:
        _check_name(common.dataset_name)
        try:
            found: Any = load_dataset(common.dataset_name, common.dataset_config_name)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{common.dataset_name!r} can't be read: {str(error).rstrip('.')}. Give a folder with data, a data set "
                "of the Hub that this machine reaches, or --train_file."
            ) from error
        found = {name.removesuffix("_matched"): rows for name, rows in found.items()} | dict(found)
        if "train" not in found:
            raise ValueError(f"dataset_name={common.dataset_name!r} has no split train; it has {', '.join(found)}.")
    else:
        found = {split: read_file(path) for split, path in files.items()} if files else embedded()
    raw = {split: found[split] for split in SPLITS if split in found}
    names = {split: files.get(split) or f"split {split} of {common.source or 'the embedded data'}" for split in raw}
    if empty := [names[split] for split, rows in raw.items() if not len(rows)]:
        raise ValueError(f"{empty[0]} has no row; give one that has, or leave it out.")
    if common.history_key is not None:
        find_column(raw["train"], "history_key", common.history_key, names["train"])
    if FILE_ROW not in raw["train"].column_names:
        raw["train"] = raw["train"].add_column(FILE_ROW, np.arange(len(raw["train"])))
    return raw, names


def hold_out(splits: dict[str, Dataset], seed: int, stratify_by: str | None = None) -> DatasetDict:
    """The splits; where there is no validation, 5 % of the training rows, at most 1,000, become it.

    Args:
        splits: With a split train.
        seed: Chooses the rows.
        stratify_by: A column of classes whose shares both parts keep; then as many rows as classes at least.

    Raises:
        ValueError: A class of the training rows has one row only, or there are too few rows for all classes.
    """
    if "validation" in splits:
        return DatasetDict({**splits})
    rows = splits["train"]
    size = min(1000, math.ceil(len(rows) / 20))
    cure = "Give rows to validate on: --validation_file, or a split or folder called validation."
    if stratify_by is not None:
        names, counts = rows.features[stratify_by].names, Counter(rows[stratify_by][:])
        if single := [names[label] for label in sorted(counts) if counts[label] == 1]:
            raise ValueError(f"{stratify_by} {single[0]!r} has one training row: none can be held out of it. {cure}")
        size = max(size, len(counts))
    if size >= len(rows):
        raise ValueError(f"Of {len(rows)} training rows, {size} can't be held out for validation. {cure}")
    from sklearn.model_selection import train_test_split  # that of `datasets` reads the classes row by row

    classes = stratify_by and rows[stratify_by][:]
    kept, held = train_test_split(np.arange(len(rows)), test_size=size, random_state=seed, stratify=classes)
    return DatasetDict({**splits, "train": rows.select(kept), "validation": rows.select(held)})


def limit(splits: DatasetDict, common: CommonArguments) -> DatasetDict:
    """The splits, of as many rows as `max_train_samples` and `max_eval_samples` say.

    Raises:
        ValueError: There are not so many.
    """
    found = {**splits}
    for split, flag in (("train", "max_train_samples"), ("validation", "max_eval_samples")):
        size, rows = getattr(common, flag), splits[split]
        if size is None:
            continue
        if not 0 < size <= len(rows):
            raise ValueError(f"{flag}={size}: give a number from 1 to {len(rows)}, the {split} rows there are.")
        found[split] = rows.select(np.sort(np.random.default_rng(0).choice(len(rows), size, replace=False)))
    return DatasetDict(found)


def load_splits(
    common: CommonArguments, embedded: Callable[[], DatasetDict], prepare: Callable[[Dataset, str], Dataset], seed: int
) -> DatasetDict:
    """Splits train, validation and, where there is one, test: those that the flags name, or the embedded ones.

    Args:
        common: The flags.
        embedded: Makes the data of a run without arguments.
        prepare: (rows, what to call them in a message) -> the rows as the recipe wants them.
        seed: Chooses the rows that are held out for validation.

    Raises:
        ValueError: What `read_splits`, `prepare`, `hold_out` and `limit` refuse.
    """
    raw, names = read_splits(common, embedded)
    splits = {split: prepare(rows, names[split]) for split, rows in raw.items()}
    return limit(hold_out(splits, seed), common)


def columns_of(rows: Dataset) -> str:
    """The columns that rows have in their file, in words."""
    return ", ".join(column for column in rows.column_names if column != FILE_ROW)


def find_column(rows: Dataset, flag: str, column: str, name: str) -> str:
    """`column`, if the rows have it.

    Raises:
        ValueError: They don't; names `flag`, what the rows are called, and the columns they have.
    """
    if column not in rows.column_names:
        raise ValueError(f"{flag}={column!r}: {name} has no such column; it has {columns_of(rows)}.")
    return column


def find_text(rows: Dataset, flag: str, column: str, name: str) -> str:
    """`column`, if the rows have texts there.

    Raises:
        ValueError: What `find_column` refuses, or a column of something else.
    """
    feature = rows.features[find_column(rows, flag, column, name)]
    if feature not in (Value("string"), Value("large_string"), Value("null")):
        raise ValueError(
            f"{flag}={column!r}: {name} has {feature} there, no text. Name another column, or store text in it (in "
            "Parquet or JSON lines, where 7 and '7' differ)."
        )
    return column


def keep_rows(rows: Dataset, is_whole: Callable[[Any], bool], what: str, name: str, say: Callable[[str], None]):
    """The rows that are whole, and `say` how many others there were.

    Raises:
        ValueError: None is; names the rows and what they lack.
    """
    kept = rows.filter(is_whole)
    if not len(kept):
        raise ValueError(f"{name} has no row with {what} ({len(rows)} rows read).")
    if lost := len(rows) - len(kept):
        say(f"{name}: {lost:,} of {len(rows):,} rows are left out, for only those with {what} can serve.")
    return kept


def tell_cuts(rows: Dataset, max_length: int, say: Callable[[str], None]) -> None:
    """Say how many training rows have `max_length` tokens, by their column `length`: these may be cut."""
    if full := int(np.count_nonzero(np.asarray(rows["length"][:]) >= max_length)):
        say(f"{full:,} of {len(rows):,} training rows fill max_length={max_length} and may be cut")


def label_texts(rows: Dataset, column: str, name: str) -> list[str]:
    """The label of each row as a text: the name that the column's ClassLabel feature gives it, else its value.

    Raises:
        ValueError: Labels that are lists or the like; a row without a label, or with one that its ClassLabel does not
            know, by its number.
    """
    feature, labels = rows.features[column], rows[column][:]
    if not isinstance(feature, (ClassLabel, Value)):
        raise ValueError(f"{column}: labels of {name} are {feature}; give one class for each row.")
    names = feature.names if isinstance(feature, ClassLabel) else None
    for row, label in enumerate(labels):
        if label is None:
            raise ValueError(f"{column}: row {row} of {name} has no label; remove such rows, or name another column.")
        if names is not None and not 0 <= label < len(names):
            raise ValueError(
                f"{column}: row {row} of {name} has the label {label}, but its classes are 0 ... {len(names) - 1} "
                f"({_listed(names)}); correct it, or remove such rows."
            )
    return [str(label) if names is None else names[label] for label in labels]


def class_names(rows: Dataset, column: str, name: str) -> list[str]:
    """The classes of training rows: those of the column's ClassLabel feature, in its order, or its sorted values.

    Raises:
        ValueError: There are fewer than two, or what `label_texts` refuses.
    """
    feature = rows.features[column]
    texts = label_texts(rows, column, name)
    if len(set(texts)) < 2:
        raise ValueError(f"{column}: all {len(rows)} rows of {name} have the label {texts[0]!r}; two are needed.")
    return list(feature.names) if isinstance(feature, ClassLabel) else list(map(str, sorted(set(rows[column][:]))))


def encode_labels(rows: Dataset, column: str, classes: Sequence[str], name: str) -> Dataset:
    """The rows with the column `labels`, a ClassLabel of `classes`, in place of `column`; labels go by their names.

    Raises:
        ValueError: A label that is not in `classes`, those of the training rows, or what `label_texts` refuses.
    """
    number = {label: i for i, label in enumerate(classes)}
    texts = label_texts(rows, column, name)
    for row, text in enumerate(texts):
        if text not in number:
            raise ValueError(
                f"{column}: row {row} of {name} has the label {text!r}, which no training row has; they have "
                f"{_listed(classes)}. Correct it, remove such rows, or add some to the training rows."
            )
    labels = [number[text] for text in texts]
    return rows.remove_columns(column).add_column("labels", labels, feature=ClassLabel(names=list(classes)))


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMES
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:_NAMES])} ... and {more:,} more"


# ---- The run ----


def find_checkpoint(args: TrainingArguments, policy: Policy | None, *made_with: Any) -> str | bool:
    """What to resume from: the checkpoint asked for, or the last whole one in output_dir, False where there is none.

    Args:
        args: Of the run.
        policy: Of the run.
        *made_with: Dataclasses of the flags that say which data and which model it is of.

    Raises:
        ValueError: output_dir holds a finished run, or an unfinished one of other data, another model or policy; or
            there is no such checkpoint.
    """
    asked = args.resume_from_checkpoint
    if asked is not None and str(asked).lower() not in ("true", "false"):
        if not Path(asked).is_dir():
            raise ValueError(f"resume_from_checkpoint={asked!r}: there is no such folder.")
        return asked
    folder = Path(str(args.output_dir))
    if (folder / RESULTS).exists():
        raise ValueError(f"output_dir={str(folder)!r} holds a finished run; give another, or remove it.")
    if str(asked).lower() == "false":
        return False
    checkpoint = last_whole(folder, warnings.warn)  # one that was being written when the run died is none
    now = arguments_of(*made_with) | {"policy": repr(policy)}
    if checkpoint and (folder / _BEGUN).exists():
        begun = json.loads((folder / _BEGUN).read_text(encoding="utf-8"))
        if changed := [f"{name} {begun.get(name)!r} -> {now[name]!r}" for name in now if begun.get(name) != now[name]]:
            raise ValueError(
                f"output_dir={str(folder)!r} holds an unfinished run of other settings ({', '.join(changed)}). Give "
                "another output_dir, remove that one, or go on with its settings."
            )
    elif args.process_index == 0:
        write_text(folder / _BEGUN, json.dumps(plain(now), indent=2, default=str) + "\n")
    return checkpoint or False


def arguments_of(*dataclasses: Any) -> dict[str, Any]:
    """All arguments of a run by name, as `results.json` has them; without tokens, and of paths the last part alone."""
    found: dict[str, Any] = {}
    for given in dataclasses:
        found |= given.to_dict() if isinstance(given, TrainingArguments) else asdict(given)
    return {name: public(value) if isinstance(value, str) else value for name, value in found.items()}


@dataclass
class Outcome:
    """What a recipe found out about its model.

    Args:
        metric: The one of `scores` that counts, such as "bleu"; `eval_{metric}` is its name in validations.
        scores: By name; numbers, and signatures where a metric has one.
        split: What was scored: "test" or "validation".
        predictions: Lists by name, with an entry for each row of the split, in its order.
        lines: The scores in words, a line each.
        samples: Examples of what the model does, a text each.
        greater_is_better: Whether a higher value of the metric is better.
    """

    metric: str
    scores: dict[str, Any]
    split: str
    predictions: dict[str, Sequence[Any]]
    lines: Sequence[str]
    samples: Sequence[str] = ()
    greater_is_better: bool = True

    @property
    def rows(self) -> int:
        """Rows of the split."""
        return len(next(iter(self.predictions.values())))


def finish(
    trainer: Any,
    policy: Policy | None,
    arguments: dict[str, Any],
    outcome: Outcome,
    seconds: dict[str, float],
    card: dict[str, Any],
    script: str | os.PathLike[str],
) -> None:
    """End a run on every process: print the account, write figure, report, card, predictions and results, and push.

    Args:
        trainer: Has trained, and saved its model.
        policy: Of the run.
        arguments: All arguments of the run, see `arguments_of`.
        outcome: The scores.
        seconds: By part of the run, beside those that the report has.
        card: Arguments of `trainer.create_model_card`.
        script: The recipe, as `__file__` names it.
    """
    args, folder = trainer.args, Path(trainer.args.output_dir)
    logged = {f"eval_{outcome.metric}", *(name for entry in trainer.state.log_history for name in entry)}
    metrics = {name: score for name, score in outcome.scores.items() if f"eval_{name}" in logged}
    card = {"metrics": metrics, "split": outcome.split, "command": _command(script), **card}
    if trainer.is_world_process_zero():
        report = trainer.pruning_report() if policy is not None else None
        lines = [*outcome.lines]
        if report is not None:
            parts = ("training", "selecting", "rescoring", "evaluating")
            seconds = seconds | {name: report.totals()[f"seconds_{name}"] for name in parts}
            report.figure(folder / "run.png", list(dict.fromkeys(("eval_loss", f"eval_{outcome.metric}"))))
            report.html(folder / REPORT)
            lines += ["", report.summary(), "", f"the rows, round by round: {folder / REPORT}"]
        lines.append("seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in seconds.items()))
        texts = (line for sample in outcome.samples for line in ["", *sample.splitlines()])
        shown = (line if len(line) <= _LINE else f"{line[:_LINE]} ..." for line in texts)
        print("\n".join([*lines, *shown]))  # noqa: T201
        trainer.create_model_card(**card)
        quality = {"metric": outcome.metric, "value": outcome.scores[outcome.metric]}
        quality |= {"greater_is_better": outcome.greater_is_better, "split": outcome.split, "rows": outcome.rows}
        results = {"arguments": arguments, "policy": policy and repr(policy), "quality": quality}
        results |= {"parameters": trainer.accelerator.unwrap_model(trainer.model).num_parameters()}
        results["scores"] = {"split": outcome.split, "rows": outcome.rows} | outcome.scores
        results["pruning"] = report and report.to_dict()
        results |= {"seconds": seconds} | surroundings(script)
        write_text(folder / PREDICTIONS, json.dumps(plain(outcome.predictions), ensure_ascii=False) + "\n")
        text = json.dumps(plain(results), indent=2, default=str)
        write_text(folder / RESULTS, text + "\n")  # last: it marks a finished run
    if args.push_to_hub:
        trainer.push_to_hub(**card)


def _command(script: str | os.PathLike[str]) -> str | None:
    """What started the recipe, as others may see it; None where something else did."""
    name = Path(script).name
    if Path(sys.argv[0]).name != name:
        return None
    return shlex.join(public_arguments(["accelerate", "launch", f"recipes/{name}", *sys.argv[1:]]))
