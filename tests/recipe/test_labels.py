"""Labels, of the rows' own file or of a second one."""

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict
from torch.nn.functional import cross_entropy
from transformers import TrainingArguments

from hf_prune.recipe.labels import ClassArguments, balanced, encode_labels, join_labels, warn_if_untaught


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


def test_many_classes_are_not_all_listed():
    rows = Dataset.from_dict({"label": ["new"], "text": ["a"]})
    with pytest.raises(ValueError, match=r"they have c0, .*, c19 \.\.\. and 480 more\. Correct it"):
        encode_labels(rows, "label", [f"c{i}" for i in range(500)], "it")


def test_classes_without_a_training_row_are_told():
    names = ["ant", "bee", "cow"]
    splits = {"train": [0, 2, 0], "validation": [2, 2], "test": [0, 1, 1]}
    rows = {split: Dataset.from_dict({"labels": labels}) for split, labels in splits.items()}
    corpus = DatasetDict(rows).cast_column("labels", ClassLabel(names=names))
    with pytest.warns(UserWarning, match=r"^Split test has classes of which there is no training row: bee\.$") as found:
        warn_if_untaught(corpus)
    assert len(found) == 1


@pytest.mark.parametrize(
    "labels, message",
    [
        ({"index": [0, 1, 2, 3], "other": [0] * 4}, "label_column='people': l.csv has no such column; it has index, "),
        ({"people": [0, 1, 0]}, r"label_file='l.csv' has 3 rows, and train has 4; give one for each"),
        ({"index": [0, 1, 3, 2], "people": [0] * 4}, "row 2 has index 3, but that of train has 2"),
    ],
)
def test_label_file_of_other_rows_is_refused(labels, message):
    Dataset.from_dict(labels).to_csv("l.csv")
    rows = Dataset.from_dict({"label": [0, 1, 0, 1], "index": [0, 1, 2, 3]})
    with pytest.raises(ValueError, match=message):
        join_labels(rows, "l.csv", "people", "train", "image")


# ---- Class weights ----


def test_balanced_weights_by_hand():
    """Six rows of two classes: 6 / (2 * 4) and 6 / (2 * 2). The rows' mean is 1, and so is a class without rows."""
    weights = balanced(np.array([4, 0, 2]))
    assert weights.tolist() == [0.75, 1, 1.5] and weights.dtype == np.float32
    assert np.average(weights, weights=[4, 0, 2]) == 1


def classes_of(labels):
    return Dataset.from_dict({"labels": labels}).cast_column("labels", ClassLabel(names=["ant", "bee", "cow"]))


def test_the_weighted_loss_of_a_batch_is_the_mean_of_its_rows(tmp_path):
    args, rows = TrainingArguments(str(tmp_path), use_cpu=True), classes_of([0, 0, 0, 0, 2, 2])
    given = ClassArguments("balanced").for_trainer(rows, args)
    outputs = {"logits": torch.tensor([[1.0, 2.0, 0.5], [0.0, 1.0, 3.0], [2.0, 0.0, 0.0]])}
    labels = torch.tensor([0, 2, 0])
    plain = cross_entropy(outputs["logits"], labels, reduction="none")
    expected = plain * torch.tensor([0.75, 1.5, 0.75])
    torch.testing.assert_close(given["example_loss_func"](outputs, {"labels": labels}), expected)
    torch.testing.assert_close(given["compute_loss_func"](outputs, labels), expected.mean())
    torch.testing.assert_close(given["compute_loss_func"](outputs, labels, torch.tensor(6)), expected.sum() / 6)
    assert ClassArguments().for_trainer(rows, args) == {}


def test_class_weights_that_can_not_be_are_refused(tmp_path):
    args = TrainingArguments(str(tmp_path), use_cpu=True)
    with pytest.raises(ValueError, match="class_weights='equal' is not known; give balanced"):
        ClassArguments("equal").for_trainer(classes_of([0, 1]), args)
    with pytest.raises(ValueError, match="class_weights='balanced': the labels are numbers, not classes"):
        ClassArguments("balanced").for_trainer(Dataset.from_dict({"labels": [0.5, 1.0]}), args)
    args.label_smoothing_factor = 0.1
    with pytest.raises(ValueError, match="class_weights and label_smoothing_factor can't both"):
        ClassArguments("balanced").for_trainer(classes_of([0, 1]), args)
