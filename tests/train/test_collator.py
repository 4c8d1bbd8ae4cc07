"""Row numbers that travel inside the batch."""

import pickle

import pytest
import torch

from hf_prune.train.collator import ROW, RowCollator, RowDataset


class Squares:
    unit = "cm2"

    def __len__(self):
        return 5

    def __getitem__(self, row):
        return {"x": row * row}


def test_rows_travel_with_their_examples_through_the_users_collator():
    data = RowDataset(Squares())
    collate = RowCollator(lambda examples: {"x": torch.tensor([example["x"] for example in examples])})
    batch = collate(data.__getitems__([3, 1]))
    assert batch["x"].tolist() == [9, 1]
    assert batch[ROW].tolist() == [3, 1]
    assert batch[ROW].dtype == torch.int64
    assert collate([data[4]])["x"].tolist() == [16]


def test_a_data_set_that_fetches_many_rows_at_once_still_does():
    class Bulk(Squares):
        def __getitems__(self, rows):
            return [{"x": -row} for row in rows]

    assert [example["x"] for _, example in RowDataset(Bulk()).__getitems__([2, 3])] == [-2, -3]


def test_the_users_attributes_shine_through_and_it_can_be_sent_to_a_worker():
    data = RowDataset(Squares())
    assert data.unit == "cm2"
    assert not hasattr(data, "set_epoch")
    again = pickle.loads(pickle.dumps(data))
    assert (len(again), again[2]) == (5, (2, {"x": 4}))


def test_a_batch_that_is_no_mapping_is_refused():
    with pytest.raises(TypeError, match="data_collator returned a list"):
        RowCollator(list)([(0, {"x": 1})])
