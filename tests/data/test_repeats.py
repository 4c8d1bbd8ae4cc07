"""Rows that equal an earlier one."""

import io

import pytest
from datasets import Dataset, Image
from PIL import Image as Picture

from hf_prune.data import count_repeats


def picture(shade):
    file = io.BytesIO()
    Picture.new("L", (4, 4), shade).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


@pytest.mark.parametrize(
    ("columns", "count"),
    [
        ({"input_ids": [[1, 2], [1], [2], [1, 2], []]}, 1),
        ({"input_ids": [[1, 2], [1, 2], [1, 2]], "labels": [0, 1, 0]}, 1),
        ({"input_ids": [[1, 2], [1, 2], [1, 2]], "labels": [[1], [1, -100], [1]], "length": [1, 2, 3]}, 1),
        ({"text": ["a", "b", "a"], "id": [1, 2, 3]}, 1),
        ({"text": ["a", "b", "a"], "label": [0, 0, 1]}, 0),
        ({"label": [0, 0, 1]}, None),
    ],
)
def test_equal_rows_are_counted(columns, count):
    assert count_repeats(Dataset.from_dict(columns)) == count


def test_equal_pictures_are_counted():
    data = Dataset.from_dict({"image": [picture(shade) for shade in (0, 9, 0, 0)], "label": [1, 1, 1, 2]})
    assert count_repeats(data.cast_column("image", Image())) == 1


def test_other_data_sets_are_not_read():
    assert count_repeats([{"input_ids": [1]}]) is None
