"""Rows that a file lists: every kind of file, numbers and keys, and what is refused."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from hf_prune.data.keys import row_keys
from hf_prune.data.listing import listed_rows

PLAIN = [{"input_ids": [1]}] * 5
NUMBERED = Dataset.from_dict({"file_row": [4, 0, 7, 2, 9]})
KEYED = Dataset.from_dict({"id": ["a", "b", "7", "d"], "file_row": [3, 2, 1, 0]})


def listed(path, dataset=PLAIN, key=None, warn=None):
    keys = None if key is None else row_keys(dataset, key)
    found = listed_rows(dataset, str(path), key, keys, pytest.fail if warn is None else warn)
    assert found.dtype == bool and found.shape == (len(dataset),)
    return np.flatnonzero(found).tolist()


def write(path, content):
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".npy":
        np.save(path, content)
    elif path.suffix == ".parquet":
        pq.write_table(pa.table(content), path)
    else:
        path.write_text(content)
    return path


BARE = {
    "a.txt": "3\n\n 1 \n3\n",
    "a.csv": "3\n1\n",
    "b.csv": "index\n3\n1\n",
    "c.csv": 'text,row,loss\nx,3,0.5\n"y,\ny",1,2\n',
    "d.csv": "text,row\nx\x0cx,3\ny\u2028y,1\n",  # some readers take these for the ends of lines
    "a.tsv": "row\tloss\n3\t0.5\n1\t2\n",
    "a.json": "[3, 1]",
    "b.json": json.dumps([{"row": 3, "loss": 1}, {"row": 1, "loss": 2}]),
    "a.jsonl": '{"index": 3}\n{"index": 1}\n',
    "b.jsonl": "3\n1\n",
    "c.jsonl": '{"row": 3, "text": "x\u2028x"}\n{"row": 1, "text": "y"}\n',
    "a.npy": np.array([3, 1], np.int32),
    "a.parquet": {"row": [3, 1], "loss": [0.5, 2.0]},
    "b.parquet": {"index": pa.array([3.0, 1.0])},
}


@pytest.mark.parametrize("name", BARE)
def test_every_kind_of_file_names_rows_1_and_3(tmp_path, name):
    assert listed(write(tmp_path / name, BARE[name])) == [1, 3]


@pytest.mark.parametrize("name, content", [("a.txt", ""), ("a.csv", ""), ("b.csv", "row\n"), ("a.json", "[]")])
def test_an_empty_list_names_none(tmp_path, name, content):
    assert listed(write(tmp_path / name, content)) == []


def test_a_bare_number_is_that_of_the_row_in_its_file_if_the_data_set_has_it(tmp_path):
    assert listed(write(tmp_path / "a.txt", "9\n0\n"), NUMBERED) == [1, 4]
    assert listed(write(tmp_path / "a.parquet", {"row": [0, 1], "file_row": [9, 0]}), NUMBERED) == [1, 4]
    assert listed(write(tmp_path / "b.parquet", {"row": [0, 1], "loss": [9, 0]}), NUMBERED) == [0, 1]


def test_a_list_holds_keys_where_rows_have_some(tmp_path):
    assert listed(write(tmp_path / "a.txt", "7\nb\n"), KEYED, "id") == [1, 2]
    assert listed(write(tmp_path / "a.json", '["d", 7]'), KEYED, "id") == [2, 3]
    assert listed(write(tmp_path / "a.csv", "text,id,row\nx,a,3\n"), KEYED, "id") == [0]
    assert listed(write(tmp_path / "b.csv", "key,file_row\n1,3\n"), KEYED, "id") == [0]
    assert listed(write(tmp_path / "c.csv", "key,row\n1,3\n"), KEYED, "id") == [3]


def test_rows_that_the_training_set_lacks_are_told(tmp_path):
    said = []
    path = write(tmp_path / "a.txt", "2\n3\n8\n")
    assert listed(path, NUMBERED, warn=said.append) == [3]
    assert said == [
        f"file={str(path)!r} names rows by file_row, their number in their own file, and the training set lacks 2 of "
        "the 3 (3, 8 ...). They may be held out, or were left out when the data were read."
    ]
    assert listed(write(path, "d\nz\n"), KEYED, "id", said.append) == [3]
    assert "names rows by id, and the training set lacks 1 of the 2 (z ...)" in said[1]


@pytest.mark.parametrize(
    ("name", "content", "dataset", "key", "message"),
    [
        ("a.txt", "5", PLAIN, None, "lists row 5, but the training set has 0 to 4"),
        ("a.txt", "-1", PLAIN, None, "has '-1', which is no number of a row"),
        ("a.json", "[true]", PLAIN, None, "has True, which is no number of a row"),
        ("a.json", "[null]", PLAIN, None, "has None, which is no number of a row"),
        (
            "a.txt",
            "a1",
            PLAIN,
            None,
            "has 'a1', which is no number of a row. List numbers from 0, or, with history_key",
        ),
        ("a.json", "[0.5]", PLAIN, None, "has 0.5, which is no number"),
        ("a.json", "[1.5]", KEYED, "id", "has 1.5, which is neither a text nor a whole number: it is no key"),
        ("a.txt", "3\n5", NUMBERED, None, r"names rows by file_row.* the training set has none of them \(3, 5 ...\)"),
        ("a.txt", "x", KEYED, "id", r"names rows by id, and the training set has none of them \(x ...\)"),
        ("a.csv", "a,b\n1,2\n", PLAIN, None, "has the columns a, b: call the one that names rows row"),
        ("a.csv", "a,file_row\n1,2\n", PLAIN, None, "has the columns a, file_row: call the one that names rows row"),
        ("a.json", '{"row": [1]}', PLAIN, None, "must hold a list of values, or of rows with names"),
        ("a.json", "[1", PLAIN, None, "can't be read as .json: "),
        ("a.parquet", {"a": [1], "b": [2]}, NUMBERED, None, "call the one that names rows file_row or row"),
        ("a.npy", np.array([True]), PLAIN, None, r"got bool \(1,\). Of a mask, save np.flatnonzero\(mask\)"),
        ("a.npy", np.ones((2, 2), int), PLAIN, None, r"must be a \(K,\) array of row numbers, got int64 \(2, 2\)"),
        ("a.npy", b"PK, an archive of arrays", PLAIN, None, "can't be read as .npy: "),
        ("a.csv", "text,row\nb\n", PLAIN, None, "has the line 'b', without a value for 'row'"),
        ("a.csv", '"' + "x" * 200_000, PLAIN, None, "can't be read as .csv: field larger than field limit"),
        ("a.json", "[" * 100_000, PLAIN, None, "can't be read as .json: "),
        ("a.rows", "1", PLAIN, None, "suffix '.rows' is not known; give one of .txt, .csv"),
    ],
)
def test_what_names_no_row_is_refused_in_one_line(tmp_path, name, content, dataset, key, message):
    with pytest.raises(ValueError, match=message) as caught:
        listed(write(tmp_path / name, content), dataset, key)
    assert str(caught.value).startswith("file=") and "\n" not in str(caught.value)
