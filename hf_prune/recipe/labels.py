"""Labels of rows, read as classes or as numbers, from the rows' own file or a second one; a loss weighted by class."""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Value
from torch.nn.functional import cross_entropy
from transformers import TrainingArguments

from .columns import find_column
from .models import saved_classes
from .splits import CommonArguments, read_file

_NAMES = 20  # a message lists no more names
_FEW = 20  # labels with no more values are probably classes, not numbers


@dataclass
class ClassArguments:
    """Flags of recipes whose labels are classes.

    Args:
        class_weights: "balanced" weights each row's loss by the inverse frequency of its class among the training rows,
            so that every class counts as much. The mean weight of a training row is 1. Without it, all weights are 1.
    """

    class_weights: str | None = None

    def for_trainer(self, rows: Dataset, args: TrainingArguments) -> dict[str, Any]:
        """Arguments for the trainer: the weighted loss of a batch, and of each row; none without `class_weights`.

        Args:
            rows: The training rows, with the column `labels`.
            args: Training arguments of the run.

        Raises:
            ValueError: `class_weights` is unknown, labels are no classes, or they are also smoothed.
        """
        if self.class_weights is None:
            return {}
        if self.class_weights != "balanced":
            raise ValueError(f"class_weights={self.class_weights!r} is not known; give balanced, or leave it out.")
        if not isinstance(feature := rows.features["labels"], ClassLabel):
            raise ValueError("class_weights='balanced': the labels are numbers, not classes; leave it out.")
        if args.label_smoothing_factor:
            raise ValueError("class_weights and label_smoothing_factor can't both change the loss; leave out one.")
        weights = torch.tensor(balanced(np.bincount(rows["labels"][:], minlength=len(feature.names))))

        def of_rows(outputs: Any, inputs: Any) -> torch.Tensor:
            logits = outputs["logits"].float()
            return cross_entropy(logits, inputs["labels"], weight=weights.to(logits.device), reduction="none")

        def of_batch(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
            rows_of_step = len(labels) if num_items_in_batch is None else num_items_in_batch
            return of_rows(outputs, {"labels": labels}).sum() / rows_of_step

        return {"compute_loss_func": of_batch, "example_loss_func": of_rows}


def balanced(counts: np.ndarray) -> np.ndarray:
    """(C,) float32, the weight of a row of each class: inverse to its rows, 1 on average; 1 for a class without rows.

    Args:
        counts: (C,) number of rows of each class.
    """
    weights = counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return np.where(counts > 0, weights, 1).astype(np.float32)


def label_texts(rows: Dataset, column: str, name: str) -> list[str]:
    """The label of each row as a text: its name in the column's ClassLabel feature, else its value.

    Raises:
        ValueError: Labels are lists or the like; a row has no label, or a number that the ClassLabel does not know. The
            message has the number of the row.
    """
    feature, labels, flag = rows.features[column], rows[column][:], f"label_column={column}"
    if not isinstance(feature, (ClassLabel, Value)):
        found = "of several types" if type(feature).__name__ == "Json" else feature  # mixed numbers and texts
        raise ValueError(f"{flag}: labels of {name} are {found}; give one class for each row, all of one type.")
    names = feature.names if isinstance(feature, ClassLabel) else None
    for row, label in enumerate(labels):
        if label is None:
            raise ValueError(f"{flag}: row {row} of {name} has no label; remove such rows, or name another column.")
        if names is not None and not 0 <= label < len(names):
            raise ValueError(
                f"{flag}: row {row} of {name} has the label {label}, but its classes are 0 ... {len(names) - 1} "
                f"({_listed(names)}); correct it, or remove such rows."
            )
    return [str(label) if names is None else names[label] for label in labels]


def class_names(rows: Dataset, column: str, name: str) -> list[str]:
    """The classes of training rows: those of the column's ClassLabel feature, in its order, or its sorted values.

    Raises:
        ValueError: There are fewer than two classes, or `label_texts` refuses the labels.
    """
    feature = rows.features[column]
    texts = label_texts(rows, column, name)
    if len(set(texts)) < 2:
        raise ValueError(
            f"label_column={column}: all {len(rows)} rows of {name} have the label {texts[0]!r}; two are needed."
        )
    stripped = Counter(text.strip() for text in set(texts))
    if alike := [text for text, count in stripped.items() if count > 1]:
        warnings.warn(
            f"label_column={column}: {name} has labels that differ by blanks alone, such as {alike[0]!r} with and "
            "without: they are taken for two classes. Strip them where they are one.",
            stacklevel=2,
        )
    return list(feature.names) if isinstance(feature, ClassLabel) else list(map(str, sorted(set(rows[column][:]))))


def known_classes(common: CommonArguments, rows: Dataset, column: str, name: str) -> list[str] | None:
    """The classes of the training rows, or those of the saved model that is scored alone; None = labels are floats.

    Args:
        common: The common flags.
        rows: The training rows.
        column: Their column of labels.
        name: The name of the rows in messages.

    Raises:
        ValueError: The rows lack the column, `class_names` refuses the labels, or the model can't be loaded.
    """
    if common.is_scored_alone:
        return saved_classes(str(common.model_name_or_path))
    feature = rows.features[find_column(rows, "label_column", column, name)]
    is_number = isinstance(feature, Value) and feature.dtype.startswith("float")
    return None if is_number else class_names(rows, column, name)


def encode_labels(rows: Dataset, column: str, classes: Sequence[str], name: str) -> Dataset:
    """The rows with the column `labels`, a ClassLabel of `classes`, in place of `column`; labels match by name.

    Raises:
        ValueError: A label is not in `classes` (of the training rows), or `label_texts` refuses the labels.
    """
    number = {label: i for i, label in enumerate(classes)}
    texts = label_texts(rows, column, name)
    for row, text in enumerate(texts):
        if text not in number:
            raise ValueError(
                f"label_column={column}: row {row} of {name} has the label {text!r}, which no training row has; they "
                f"have {_listed(classes)}. Correct it, remove such rows, or add some to the training rows."
            )
    labels = [number[text] for text in texts]
    return rows.remove_columns(column).add_column("labels", labels, feature=ClassLabel(names=list(classes)))


def read_numbers(rows: Dataset, column: str, name: str) -> Dataset:
    """The rows with the column `labels`, finite float32, in place of `column`.

    Raises:
        ValueError: The labels are not numbers, or one is missing or not finite.
    """
    feature = rows.features[column]
    if not (isinstance(feature, Value) and feature.dtype.startswith(("float", "int"))):
        raise ValueError(f"label_column={column}: labels of {name} are {feature}, but those to train on are floats.")
    labels = np.array(rows[column][:], dtype=np.float32)
    if len(wrong := np.flatnonzero(~np.isfinite(labels))):
        label = labels[wrong[0]]
        what = "no label; remove such rows, or name another column" if np.isnan(label) else f"the label {label}"
        raise ValueError(f"label_column={column}: row {wrong[0]} of {name} has {what}.")
    found = np.unique(labels)
    if feature.dtype.startswith("float") and len(found) <= _FEW and (found == np.rint(found)).all():
        warnings.warn(
            f"label_column={column}: labels of {name} are whole numbers stored as fractions (as CSV has them beside "
            "empty ones): they are taken for numbers to predict. Store them as integers or as text to tell classes "
            "apart.",
            stacklevel=2,
        )
    return rows.remove_columns(column).add_column("labels", labels, feature=Value("float32"))


def join_labels(rows: Dataset, path: str, column: str, name: str, apart: str) -> Dataset:
    """The rows with the label column of a second file, which replaces a column of this name.

    Args:
        rows: The rows as they are in their own file.
        path: The second file, with one row for each of these, in the same order.
        column: Its column of labels.
        name: The name of the rows in messages.
        apart: A column whose values may differ between the two files, such as two copies of a picture.

    Raises:
        ValueError: The file lacks the column, has another number of rows, or differs in a column that both have.
    """
    file = f"label_file={path!r}"
    try:
        labels = read_file(path)
    except ValueError as error:
        raise ValueError(f"label_file: {error}") from error
    column = find_column(labels, "label_column", column, path)
    if len(labels) != len(rows):
        raise ValueError(f"{file} has {len(labels)} rows, and {name} has {len(rows)}; give one for each, in its order.")
    for shared in sorted(set(rows.column_names) & set(labels.column_names) - {column, apart}):
        for row, (one, other) in enumerate(zip(rows[shared][:], labels[shared][:], strict=True)):
            if one != other:
                raise ValueError(
                    f"{file}: row {row} has {shared} {other!r}, but that of {name} has {one!r}; give rows in one order."
                )
    rest = rows.select_columns([other for other in rows.column_names if other != column])
    return datasets.concatenate_datasets([rest, labels.select_columns(column)], axis=1)


def warn_if_untaught(splits: DatasetDict) -> None:
    """Warn of classes that occur in `labels`, a ClassLabel, of other splits, but in no training row."""
    splits = DatasetDict({split: rows for split, rows in splits.items() if "labels" in rows.column_names})
    if "train" not in splits:
        return
    names = splits["train"].features["labels"].names
    taught = set(splits["train"]["labels"][:])
    for split, rows in splits.items():
        if untaught := sorted(set(rows["labels"][:]) - taught):
            found = _listed([names[label] for label in untaught])
            warnings.warn(f"Split {split} has classes of which there is no training row: {found}.", stacklevel=2)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMES
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:_NAMES])} ... and {more:,} more"
