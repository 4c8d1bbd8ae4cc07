"""What a person sees of a row."""

import base64
import io

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as Pictures
from tiny import TASKS, Rows

from hf_prune.data.examples import show


class Tokenizer:
    def convert_ids_to_tokens(self, ids):
        raise AssertionError("not asked for")

    def decode(self, ids, skip_special_tokens):
        assert skip_special_tokens
        return "-".join(map(str, ids))


def picture_of(uri):
    kind, data = uri.split(",", 1)
    picture = Pictures.open(io.BytesIO(base64.b64decode(data)))
    assert kind == f"data:image/{'png' if max(picture.size) <= 32 else 'webp'};base64"
    return picture


def test_texts_and_the_name_of_the_class():
    columns = {"sentence": ["one", "two"], "other": [["a", "b"], ["c"]], "label": [1, 0], "input_ids": [[1], [2]]}
    data = Dataset.from_dict(columns | {"idx": [7, 8]}).cast_column("label", ClassLabel(names=["no", "yes"]))
    second, first = show(data, [1, 0], Tokenizer(), {0: "LABEL_0", 1: "LABEL_1"})
    assert first == {
        "row": 0,
        "texts": {"sentence": "one", "other": "a b", "idx": "7"},
        "picture": None,
        "label": "yes",
    }
    assert second["label"] == "no"


def test_a_transform_is_passed_over():
    data = Dataset.from_dict({"text": ["stored"]}).with_transform(lambda rows: {"text": ["changed"]})
    assert show(data, [0])[0]["texts"] == {"text": "stored"}


def test_tokens_are_decoded_where_there_is_no_text():
    data = [
        {"input_ids": [5, 6, -200], "labels": [-100, 7]},
        {"input_ids": [5, 6], "labels": [5, 6]},
        {"input_ids": [1]},
        {"input_ids": [5, 6], "labels": []},
    ]
    pair, same, bare, empty = show(data, range(4), Tokenizer())
    assert pair["texts"] == {"text": "5-6", "labels": "7"}
    assert same["texts"] == empty["texts"] == {"text": "5-6"}
    assert bare == {"row": 2, "texts": {"text": "1"}, "picture": None, "label": None}
    assert show(data, [0])[0]["texts"]["text"] == "tokens 5 6"


def test_what_names_a_row_is_shown_beside_its_text():
    (row,) = show(
        [{"id": "q7", "page": np.int64(53), "file_row": 9, "input_ids": [5, 6], "labels": 1, "length": 2}],
        [0],
        Tokenizer(),
    )
    assert row["texts"] == {"id": "q7", "text": "5-6", "page": "53"}  # the number in the file is shown by itself
    (row,) = show([{"text": "a b", "input_ids": [5, 6], "is_new": True}], [0], Tokenizer())
    assert row["texts"] == {"text": "a b"}


@pytest.mark.parametrize(
    ("label", "words"),
    [(1, "one"), (np.int64(1), "one"), (9, "9"), (0.25, "0.25"), ("named", "named"), ([0.0, 1.0], None), (None, None)],
)
def test_labels_in_words(label, words):
    assert show([{"text": "x", "label": label}], [0], names={1: "one"})[0]["label"] == words


def test_conversations_and_long_texts():
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    (row,) = show([{"messages": turns, "text": "x" * 1000}], [0])
    assert row["texts"]["messages"] == "user: Hi\nassistant: Ho"
    assert len(row["texts"]["text"]) < 610 and row["texts"]["text"].endswith(" …")


def test_pictures_of_files_and_of_arrays():
    large = Pictures.fromarray(np.random.default_rng(0).integers(0, 255, (300, 150, 3), dtype=np.uint8))
    data = Dataset.from_dict({"image": [large], "label": [0]}, Features({"image": Image(), "label": Value("int64")}))
    (row,) = show(data, [0], names={0: "cat"})
    assert picture_of(row["picture"]).size == (48, 96)
    assert (row["texts"], row["label"]) == ({}, "cat")
    for shape, mode in (((3, 8, 6), "RGB"), ((8, 6, 3), "RGB"), ((1, 8, 6), "L")):
        pixels = np.linspace(-2, 2, 8 * 6 * np.prod(shape) // 48).reshape(shape)
        shown = picture_of(show(Rows([{"pixel_values": pixels}]), [0])[0]["picture"])
        assert (shown.size, shown.mode, *shown.getextrema()[:1]) == ((6, 8), mode, shown.getextrema()[0])
        assert np.asarray(shown).min() == 0 and np.asarray(shown).max() == 255


def test_rows_of_every_task_can_be_shown():
    for name, task in TASKS.items():
        (row,) = show(task.rows(3), [1], Tokenizer())
        assert row["texts"] or row["picture"], name


def test_tensors_of_any_kind_are_shown_and_what_cannot_be_is_named():
    """No row of anybody's costs the account of a run."""

    class Broken(list):
        def __getitem__(self, row):
            raise OSError("the disk is gone")

    pixels = torch.linspace(0, 1, 48, dtype=torch.bfloat16).reshape(3, 4, 4)
    (row,) = show([{"pixel_values": pixels, "labels": torch.tensor(1)}], [0], names={1: "cat"})
    assert picture_of(row["picture"]).size == (4, 4) and row["label"] == "cat"
    (row,) = show([{"input_ids": torch.tensor([3, 4])}], [0])
    assert row["texts"] == {"text": "tokens 3 4"}
    (row,) = show(Broken([1]), [0])
    assert row == {
        "row": 0,
        "texts": {"row": "can't be shown (OSError: the disk is gone)"},
        "picture": None,
        "label": None,
    }


def test_a_row_that_is_no_mapping():
    assert show([("a", 1)], [0])[0]["texts"] == {"row": "('a', 1)"}
