"""Row numbers and the filtered order."""

import pickle

import numpy as np
import pytest
import torch
from accelerate.data_loader import SeedableRandomSampler
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler, WeightedRandomSampler
from transformers.trainer_pt_utils import LengthGroupedSampler

from hf_prune.sampler import ROW, PruningSampler, RowCollator, RowDataset

LENGTHS = [1 + (7 * row) % 13 for row in range(40)]


def stock_order(n, seed, epoch):
    sampler = SeedableRandomSampler(range(n), data_seed=seed)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_all_rows_come_in_the_stock_order():
    sampler = PruningSampler(RandomSampler(range(40)), 40, seed=5)
    for epoch in range(3):
        sampler.plan(epoch, np.arange(40))
        assert list(sampler) == stock_order(40, 5, epoch)


@given(rows=st.sets(st.integers(0, 39), min_size=1), epoch=st.integers(0, 5), kind=st.sampled_from("rsl"))
def test_an_epoch_yields_its_rows_once_in_stock_order_however_often_it_is_asked(rows, epoch, kind):
    base = {
        "r": RandomSampler(range(40)),
        "s": SequentialSampler(range(40)),
        "l": LengthGroupedSampler(4, lengths=LENGTHS),
    }[kind]
    sampler = PruningSampler(base, 40, seed=1)
    sampler.plan(epoch, np.arange(40))
    everything = list(sampler)
    sampler.plan(epoch, np.array(sorted(rows)))
    kept = list(sampler)
    assert kept == list(sampler) == [row for row in everything if row in rows]
    assert sorted(kept) == sorted(rows)
    assert len(sampler) == len(rows)


def test_batches_of_a_length_grouped_order_stay_grouped_after_pruning():
    lengths = LENGTHS * 10
    sampler = PruningSampler(LengthGroupedSampler(4, lengths=lengths), 400, seed=1)  # sorted 100 rows at a time
    sampler.plan(1, np.arange(0, 400, 2))
    spread = [np.ptp([lengths[row] for row in batch]) for batch in BatchSampler(sampler, 4, drop_last=False)]
    assert np.mean(spread) < 2  # lengths run from 1 to 13, and a random batch spreads over 7.6 on average


def test_the_global_generator_is_not_touched():
    before = torch.get_rng_state()
    for base in (RandomSampler(range(40)), LengthGroupedSampler(4, lengths=LENGTHS)):
        list(PruningSampler(base, 40, seed=1))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "base",
    [
        WeightedRandomSampler([1.0] * 40, 40),
        RandomSampler(range(40), replacement=True),
        RandomSampler(range(40), num_samples=20),
    ],
)
def test_an_order_that_cannot_be_filtered_is_refused(base):
    with pytest.raises(ValueError, match="whose order can't be filtered.*train_sampling_strategy='random'"):
        PruningSampler(base, 40, seed=1)


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
