"""Which columns are read, and what is said of their rows."""

import pytest
from datasets import Dataset

from hf_prune.recipe.columns import find_texts, tell_cuts


@pytest.mark.parametrize(
    "columns, expected",
    [
        (["label", "sentence2", "sentence1", "idx"], ["sentence1", "sentence2"]),
        (["premise", "hypothesis", "label"], ["premise", "hypothesis"]),
        (["text", "label", "fine"], ["text"]),
        (["sentence", "label"], ["sentence"]),
        (["utterance", "label"], ["utterance"]),
    ],
)
def test_columns_of_texts_are_found(columns, expected):
    rows = Dataset.from_dict({column: ["a"] for column in columns})
    assert find_texts(rows, (), "label", "it") == expected


def test_columns_of_texts_that_flags_name():
    rows = Dataset.from_dict({"text": ["a"], "title": ["b"], "label": [0]})
    assert find_texts(rows, ["title", "text"], "label", "it") == ["title", "text"]
    with pytest.raises(ValueError, match=r"text_columns='body': it has no such column; it has text, title, label\."):
        find_texts(rows, ["body"], "label", "it")
    with pytest.raises(ValueError, match="give one column, or two"):
        find_texts(rows, ["title", "text", "label"], "label", "it")


def test_columns_of_texts_that_could_be_several():
    rows = Dataset.from_dict({"headline": ["a"], "body": ["b"], "n": [1], "label": ["x"]})
    with pytest.raises(ValueError, match=r"it has 2 columns of texts, none .* name one or two of headline, body, n\."):
        find_texts(rows, (), "label", "it")


def test_rows_that_may_be_cut_are_counted():
    said = []
    texts = [[[1] * length for length in lengths] for lengths in ([3, 8, 2, 2], [3, 7, 8, 2], [1, 1, 1, 1])]
    tell_cuts(Dataset.from_dict({"input_ids": texts[0], "labels": texts[1]}), 8, said.append)
    tell_cuts(Dataset.from_dict({"input_ids": texts[2], "labels": [9, 9, 9, 9]}), 8, said.append)  # classes
    assert said == ["2 of 4 training rows fill max_length=8 and may be cut"]
