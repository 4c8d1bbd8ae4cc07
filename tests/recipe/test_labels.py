"""Labels, of the rows' own file or of a second one."""

import pytest
from datasets import ClassLabel, Dataset, DatasetDict

from hf_prune.recipe.labels import encode_labels, join_labels, warn_if_untaught


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
