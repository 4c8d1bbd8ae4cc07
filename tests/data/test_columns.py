"""Columns that a policy names, out of every kind of data set."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny import Rows

from hf_prune.data.columns import read_columns

COLUMNS = {
    "switch": ([True, False, True], "bool"),
    "number": ([3, 2**60, 5], "int64"),
    "share": ([0.5, float("nan"), 1.0], "float64"),
    "gaps": ([3, None, 5], "object"),
    "text": (["a", "b", "a"], "object"),
    "list": ([[1, 2], [1, 2], [1, 2]], "object"),
}


@pytest.mark.parametrize("kind", [list, Rows, Dataset.from_list])
@pytest.mark.parametrize("name", COLUMNS)
def test_values_are_read_as_they_are(kind, name):
    values, dtype = COLUMNS[name]
    found = read_columns(kind([{name: value, "input_ids": [1]} for value in values]), [name], "Rule")[name]
    assert found.dtype == dtype and found.shape == (3,)
    np.testing.assert_equal(found.tolist(), values)


def test_scalars_are_plain_and_a_transform_is_passed_over():
    rows = [{"a": torch.tensor(3), "b": np.bool_(True)}, {"a": torch.tensor(4), "b": np.bool_(False)}]
    found = read_columns(rows, ["a", "b"], "Rule")
    assert found["a"].tolist() == [3, 4] and found["b"].tolist() == [True, False]
    hidden = Dataset.from_dict({"a": [3, 4]}).with_transform(lambda batch: {"other": batch["a"]})
    assert read_columns(hidden, ["a"], "Rule")["a"].tolist() == [3, 4]


def test_no_name_is_no_pass_over_the_rows():
    assert read_columns(None, [], "Rule") == {}


@pytest.mark.parametrize("rows", [[{"a": 1}, {"b": 1}], Dataset.from_dict({"b": [1]}), [(1, 2)]])
def test_a_column_that_is_missing_is_refused(rows):
    with pytest.raises(ValueError, match=r"Rule reads the column 'a', but the rows have (b|no names).*\. Name one"):
        read_columns(rows, ["a"], "Rule")
