"""What is read of a training set before training: words and classes, of rows stored in any way."""

import collections
import logging
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers
from forms import as_list, as_tensors
from texts import matrix_of

from hf_prune.data.features import read_features
from hf_prune.data.tokens import row_tokens

WORDS = frozenset({"features"})
CLASSES = frozenset({"classes"})
ROWS = {
    "input_ids": [[5, 2, 5], [1], [], [3, 1, 1, 9]],
    "attention_mask": [[1, 1, 1], [1], [], [0, 1, 1, 0]],
    "labels": [[7, -100], [], [-100], [4, 4]],
    "label": [2, 0, 1, 2],
}
SOURCE = [[0, 0, 1, 0, 0, 2], [0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [0, 2, 0, 0, 0, 0]]
TARGET = [[0, 0, 0, 0, 0, 0, 0, 1], [0] * 8, [0] * 8, [0, 0, 0, 0, 2, 0, 0, 0]]


def as_shuffled_view(columns):
    twice = {name: values[::-1] + values for name, values in columns.items()}
    n = len(columns["label"])
    return datasets.Dataset.from_dict(twice).select(range(n, 2 * n)).with_format("torch")


FORMS = (as_list, as_tensors, datasets.Dataset.from_dict, as_shuffled_view)


# ---- Texts ----


@pytest.mark.parametrize("form", FORMS)
def test_words_are_counted_where_they_are_real(form):
    """Row 3 is padded at both ends; row 2 has no word; of the targets, -100 is none."""
    features = read_features(form(ROWS), True, WORDS)
    source, target = features.texts
    assert source.toarray().tolist() == SOURCE
    assert target.toarray().tolist() == TARGET
    assert source.dtype == np.float32
    assert source.indices.dtype == np.int32
    assert features.pixels is None
    assert features.classes is None


@pytest.mark.parametrize("form", FORMS)
def test_labels_are_no_text_without_a_decoder_or_where_they_are_classes(form):
    assert len(read_features(form(ROWS), False, WORDS).texts) == 1
    classified = {name: ROWS[name] for name in ("input_ids", "label")} | {"labels": [0, 1, 1, 0]}
    features = read_features(form(classified), True, WORDS | CLASSES)
    assert len(features.texts) == 1
    assert features.classes.tolist() == [2, 0, 1, 2]  # `label` goes before `labels`


@pytest.mark.parametrize("form", [as_list, datasets.Dataset.from_dict])
def test_texts_read_in_several_parts_are_those_read_at_once(form, monkeypatch, rng):
    rows = [rng.integers(0, 40, length).tolist() for length in rng.integers(0, 9, 50)]
    masks = [(rng.random(len(row)) < 0.8).astype(int).tolist() for row in rows]
    dataset = form({"input_ids": rows, "attention_mask": masks})
    monkeypatch.setattr("hf_prune.data.features.ROWS_AT_A_TIME", 7)
    (text,) = read_features(dataset, False, WORDS).texts
    real = [[word for word, kept in zip(*pair, strict=True) if kept] for pair in zip(rows, masks, strict=True)]
    assert (text != matrix_of(real)).nnz == 0


def test_rows_of_one_fixed_length():
    fixed = datasets.List(datasets.Value("int64"), length=2)
    dataset = datasets.Dataset.from_dict(
        {"input_ids": [[1, 0], [2, 2], [0, 3]]}, features=datasets.Features({"input_ids": fixed})
    )
    for view, expected in ((dataset, [[1, 1, 0, 0], [0, 0, 2, 0], [1, 0, 0, 1]]), (dataset.select([1]), [[0, 0, 2]])):
        (text,) = read_features(view, False, WORDS).texts
        assert text.toarray().tolist() == expected


def test_a_transform_is_not_run_for_words():
    def fail(batch):
        raise AssertionError("the stored words are enough")

    dataset = datasets.Dataset.from_dict(ROWS)
    dataset.set_transform(fail)
    assert read_features(dataset, True, WORDS).texts[0].toarray().tolist() == SOURCE


@pytest.mark.parametrize("form", [as_list, datasets.Dataset.from_dict])
def test_texts_to_choose_from_are_words_and_tokens_of_their_row(form):
    rows = {"input_ids": [[[1, 2], [3]], [[2, 2, 0], [4, 0, 0]]]}
    masked = rows | {"attention_mask": [[[1, 1], [1]], [[1, 1, 0], [1, 0, 0]]]}
    assert read_features(form(masked), False, WORDS).texts[0].toarray().tolist() == [[0, 1, 1, 1, 0], [0, 0, 2, 0, 1]]
    assert row_tokens(form(rows), False).tolist() == [3, 6]
    assert row_tokens(form(masked), False).tolist() == [3, 3]


# ---- Classes ----


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["label", "labels"])
def test_classes_are_the_integers_as_they_are(form, name):
    columns = {"label" if form is as_shuffled_view else name: [3, 0, 3]}
    features = read_features(form(columns), False, CLASSES)
    assert features.classes.tolist() == [3, 0, 3]
    assert features.classes.dtype == np.int64
    assert features.class_count == 4


@pytest.mark.parametrize("form", [as_list, datasets.Dataset.from_dict])
@pytest.mark.parametrize("labels", [[0.5, 1.0], [-1, 0], [[1], [2]], ["a", "b"], [True, False]])
def test_what_is_no_class_is_refused(form, labels):
    with pytest.raises(ValueError, match=r"needs the class .* the rows have text, labels, and in 'label'"):
        read_features(form({"text": ["x", "y"], "labels": labels}), False, CLASSES)


def test_a_missing_class_is_refused():
    with pytest.raises(ValueError, match="needs the class"):
        read_features(datasets.Dataset.from_dict({"label": [1, None]}), False, CLASSES)


@pytest.mark.parametrize("form", [as_list, datasets.Dataset.from_dict])
def test_rows_without_words_or_pictures_are_refused(form):
    with pytest.raises(ValueError, match=r"reads words or pictures, but the rows have text, label\. .*dataset\.map"):
        read_features(form({"text": ["x"], "label": [1]}), True, WORDS)


def test_rows_without_names_are_refused():
    with pytest.raises(ValueError, match="a row is a tuple"):
        read_features([(1, 2)], False, WORDS)


def test_the_bytes_are_told(caplog):
    caplog.set_level(logging.INFO, "hf_prune")
    features = read_features(datasets.Dataset.from_dict(ROWS), True, WORDS | CLASSES)
    # 4 + 2 distinct tokens of 8 bytes, 2 x 5 row borders of 4 bytes, 4 classes of 8 bytes
    assert features.nbytes == 6 * 8 + 10 * 4 + 4 * 8
    assert "Features of 4 rows take 120 bytes." in caplog.text


# ---- Rows that are not as they should be ----


@dataclass
class Example:
    input_ids: Any
    labels: int = 0

    def __len__(self):
        return 2


Pair = collections.namedtuple("Pair", ["input_ids", "labels"])


STRANGE = {
    "tuple": ([(torch.tensor([1, 2]), torch.tensor(0))] * 3, "no names.*a row is a tuple, not a dict"),
    "named tuple": ([Pair([1, 2], 0)] * 3, "a row is a Pair, not a dict"),
    "list": ([[1, 2]] * 3, "a row is a list, not a dict"),
    "dataclass": ([Example([1, 2])] * 3, "a row is a Example, not a dict"),
    "text": (["input_ids"] * 3, "a row is a str, not a dict"),
    "tensor": (torch.ones(3, 2), "a row is a Tensor, not a dict"),
    "nothing": ([None] * 3, "a row is a NoneType, not a dict"),
    "numbered columns": ([{0: [1, 2], 1: 0}] * 3, "have 0, 1"),
    "tensors": (torch.utils.data.TensorDataset(torch.ones(3, 2)), "a row is a tuple, not a dict"),
}
UNREAD = {
    "nothing": (None, "row 1 has None as 'input_ids'"),
    "a number": (5, "row 1 has 5 as 'input_ids'"),
    "a 0-d tensor": (torch.tensor(5), r"row 1 has tensor\(5\) as 'input_ids'"),
    "a text": ("1 2", "row 1 has '1 2' as 'input_ids'"),
    "texts": (["a", "b"], r"row 1 has \['a', 'b'\] as 'input_ids'"),
    "a number missing": ([1, None], r"row 1 has \[1, None\] as 'input_ids'"),
    "a mapping": ({"a": 1}, "row 1 has {'a': 1} as 'input_ids'"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_rows_without_names_are_refused_with_the_cure(kind):
    rows, message = STRANGE[kind]
    with pytest.raises(ValueError, match=f"counts tokens by 'input_ids', but the rows .*{message}.*unit='rows'"):
        row_tokens(rows, False)
    with pytest.raises(ValueError, match=message):
        read_features(rows, False, WORDS)


@pytest.mark.parametrize("kind", UNREAD)
def test_tokens_that_are_no_numbers_are_refused_by_row(kind):
    value, message = UNREAD[kind]
    rows = [{"input_ids": [1, 2]}, {"input_ids": value}]
    with pytest.raises(ValueError, match=f"{message}: give a list of numbers"):
        row_tokens(rows, False)
    with pytest.raises(ValueError, match=f"{message}: give a list of numbers"):
        read_features(rows, False, WORDS)


def test_what_a_later_row_lacks_is_named():
    rows = [{"input_ids": [1, 2]}, {"text": "a", "label": 0}]
    with pytest.raises(ValueError, match="counts tokens by 'input_ids', but the rows have text, label"):
        row_tokens(rows, False)
    with pytest.raises(ValueError, match="Row 0 has 'input_ids', but row 1 has text, label: give all rows the same"):
        read_features(rows, False, WORDS)
    pictures = [{"pixel_values": np.zeros((1, 2, 2))}, (np.zeros((1, 2, 2)), 0)]
    with pytest.raises(ValueError, match="Row 0 has 'pixel_values', but row 1 has no names"):
        read_features(pictures, False, WORDS)


@pytest.mark.parametrize("make", [dict, collections.UserDict, transformers.BatchEncoding])
@pytest.mark.parametrize("numbers", [list, tuple, np.array, torch.tensor])
def test_rows_of_any_mapping_are_read_and_some_may_be_empty(make, numbers):
    rows = [make({"input_ids": numbers(ids), "labels": None}) for ids in ([1, 2, 2], [], [5])]
    assert row_tokens(rows, True).tolist() == [3, 0, 1]
    assert read_features(rows, True, WORDS).texts[0].toarray().tolist() == [[0, 1, 2, 0, 0, 0], [0] * 6, [0] * 5 + [1]]


def test_a_column_of_arrow_that_holds_no_lists_is_refused():
    for values in (["a b", "c"], [1, 2]):
        rows = datasets.Dataset.from_dict({"input_ids": values})
        for read in (lambda rows: row_tokens(rows, False), lambda rows: read_features(rows, False, WORDS)):
            with pytest.raises(
                ValueError, match=r"reads lists of tokens, and rows have a (string|int32|int64) there: tokenize"
            ):
                read(rows)


def test_a_column_of_arrays_is_read():
    form = datasets.Features({"input_ids": datasets.Array2D((2, 2), "int64")})
    rows = datasets.Dataset.from_dict({"input_ids": [[[1, 0], [2, 2]], [[0, 3], [1, 1]]]}, features=form)
    assert row_tokens(rows, False).tolist() == [4, 4]
