"""All rows of a data set in brief."""

import io

import numpy as np
import pytest
from datasets import Dataset, Features, Image, Value
from PIL import Image as Pictures

from hf_prune.data import Brief, brief


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))


def test_texts_are_shortened_and_counted_in_full():
    data = Dataset.from_dict({"text": ["one text", "x " * 300], "other": ["and more", ""], "label": ["a b", "c d"]})
    columns = Brief(data).columns()
    assert columns["text"][0] == "one text | and more" and len(columns["text"][1]) <= 202
    assert columns["length"].tolist() == [16, 600] and "path" not in columns


def test_conversations_are_texts():
    data = Dataset.from_dict({"messages": [[{"role": "user", "content": "hello you"}]]})
    assert Brief(data).columns()["text"].tolist() == ["user: hello you"]


def test_tokens_are_decoded_where_there_are_no_words():
    data = Dataset.from_dict({"input_ids": [[1, 2], [3]], "labels": [[4, -100], [5]], "name": ["a", "b"]})
    columns = Brief(data).columns()
    assert columns["text"].tolist() == ["a | tokens 1 2 | tokens 4", "b | tokens 3 | tokens 5"]
    assert Brief(data.add_column("text", ["of words", "of more"])).columns()["text"].tolist()[0] == "a | of words"


def test_a_picture_is_known_by_its_path_and_is_not_decoded(tmp_path):
    buffer = io.BytesIO()
    Pictures.new("L", (2, 2)).save(buffer, "PNG")
    pictures = [{"bytes": buffer.getvalue(), "path": "cats/1.png"}, {"bytes": b"no picture", "path": None}]
    data = Dataset.from_dict({"image": pictures, "label": [0, 1]}, Features(image=Image(), label=Value("int64")))
    columns = Brief(data).columns()
    assert columns["path"].tolist() == ["cats/1.png", None] and set(columns) == {"path"}


def test_lists_are_read_and_other_data_sets_are_not():
    rows = [{"input_ids": [1, 2], "labels": 0}, {"input_ids": [3], "labels": 1}]
    assert Brief(rows).columns()["text"].tolist() == ["tokens 1 2", "tokens 3"]
    assert Brief(np.zeros((3, 2))).columns() == {} and Brief(np.zeros((3, 2))).groups() is None


def test_many_rows_are_left_alone(monkeypatch):
    data = Dataset.from_dict({"text": ["one text"] * 5})
    assert Brief(data).groups().tolist() == [0] * 5
    monkeypatch.setattr(brief, "_MOST", 4)
    monkeypatch.setattr(brief, "_MOST_TEXTS", 4)
    assert Brief(data).columns() == {} and Brief(data).groups() is None


def test_rows_that_cannot_be_compared_have_no_groups():
    assert Brief(Dataset.from_dict({"number": [1.0, 2.0]})).groups() is None


def test_equal_rows_are_found_without_rensa(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "rensa", None)
    assert Brief(Dataset.from_dict({"text": ["one text", "two", "one  TEXT"]})).groups().tolist() == [0, 1, 0]


class Mute:
    def convert_ids_to_tokens(self, ids):
        return ids

    def decode(self, ids, **_):
        raise OverflowError("out of range")


def test_a_row_that_cannot_be_read_costs_the_others_nothing():
    rows = [{"input_ids": [1]}, {"text": "half a \ud83d character"}]
    columns = Brief(rows, Mute()).columns()
    assert columns["text"].tolist() == ["can't be shown (OverflowError: out of range)", "half a \\ud83d character"]
