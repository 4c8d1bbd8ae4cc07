"""The filtered order, and the steps that its rows make."""

import numpy as np
import pytest
import torch
import transformers as tf
from accelerate.data_loader import BatchSamplerShard, SeedableRandomSampler
from hypothesis import given
from hypothesis import strategies as st
from tiny import TASKS
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from transformers.trainer_pt_utils import BatchRebalanceSampler, LengthGroupedSampler

from hf_prune import pruned
from hf_prune.train.sampler import PruningSampler

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


@given(rows=st.sets(st.integers(0, 39), min_size=1), epoch=st.integers(0, 5), kind=st.sampled_from("rs"))
def test_an_epoch_yields_its_rows_once_in_stock_order_however_often_it_is_asked(rows, epoch, kind):
    sampler = PruningSampler({"r": RandomSampler, "s": SequentialSampler}[kind](range(40)), 40, seed=1)
    sampler.plan(epoch, np.arange(40))
    everything = list(sampler)
    sampler.plan(epoch, np.array(sorted(rows)))
    kept = list(sampler)
    assert kept == list(sampler) == [row for row in everything if row in rows]
    assert sorted(kept) == sorted(rows)
    assert len(sampler) == len(rows)


def test_the_global_generator_is_not_touched():
    before = torch.get_rng_state()
    for base in (RandomSampler(range(40)), LengthGroupedSampler(4, lengths=LENGTHS)):
        list(PruningSampler(base, 40, seed=1))
    assert torch.equal(before, torch.get_rng_state())


class Backwards(SequentialSampler):
    def __iter__(self):
        return iter(range(len(self.data_source) - 1, -1, -1))


class Plain(Sampler):
    """An order of its own: `order` of the epoch."""

    def __init__(self, order, epochs=False):
        self.order, self.epoch = order, 0
        if epochs:
            self.set_epoch = lambda epoch: setattr(self, "epoch", epoch)

    def __iter__(self):
        return iter(self.order(self.epoch))

    def __len__(self):
        return 40


class Counting(Plain):
    """Gives the order of the next epoch each time that it is asked."""

    def __iter__(self):
        self.epoch += 1
        return super().__iter__()


class Shuffled(SequentialSampler):
    """As a curriculum whose ties are split at random."""

    def __iter__(self):
        return iter(np.random.permutation(40).tolist())  # noqa: NPY002


class Quiet(RandomSampler):
    """Another number of rows to show, the same order."""

    def __repr__(self):
        return "Quiet"


class Once(LengthGroupedSampler):
    def __iter__(self):
        return iter(np.argsort(self.lengths, kind="stable").tolist())


def by_epoch(epoch):
    return np.random.default_rng(epoch).permutation(40)


BACKWARDS = list(range(39, -1, -1))
OWN = {
    "descends from sequential": (Backwards(range(40)), lambda epoch: BACKWARDS),
    "a sampler": (Plain(lambda epoch: BACKWARDS), lambda epoch: BACKWARDS),
    "a list": (BACKWARDS, lambda epoch: BACKWARDS),
    "a range": (range(39, -1, -1), lambda epoch: BACKWARDS),
    "numbers of torch": (Plain(lambda epoch: torch.arange(39, -1, -1)), lambda epoch: BACKWARDS),
    "by epoch": (Plain(by_epoch, epochs=True), lambda epoch: by_epoch(epoch).tolist()),
    "grouped, its own way": (Once(4, lengths=LENGTHS), lambda epoch: np.argsort(LENGTHS, kind="stable").tolist()),
    "one of one process": (
        DistributedSampler(range(40), num_replicas=1, rank=0, shuffle=False),
        lambda epoch: list(range(40)),
    ),
}


@pytest.mark.parametrize("name", OWN)
def test_an_order_of_its_own_is_kept(name):
    base, order = OWN[name]
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    sampler, other = PruningSampler(base, 40, seed=5), PruningSampler(base, 40, seed=6)
    assert sampler.is_own and sampler.checksum() == other.checksum() != 0
    for epoch in (0, 2, 1):
        sampler.plan(epoch, np.arange(40))
        assert list(sampler) == order(epoch)
        sampler.plan(epoch, np.arange(0, 40, 3))
        assert list(sampler) == [row for row in order(epoch) if row % 3 == 0]
        assert sampler.part(epoch, 5, 9).tolist() == sorted(order(epoch)[5:9])
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # noqa: NPY002


def test_an_order_that_follows_from_the_seed_is_known_as_such():
    for base in (RandomSampler(range(40)), Quiet(range(40), generator=torch.Generator().manual_seed(9))):
        sampler = PruningSampler(base, 40, seed=5)
        assert list(sampler) == stock_order(40, 5, 0)
        assert sampler.kind == "random" and not sampler.checksum()
    assert list(PruningSampler(None, 40, seed=5)) == list(range(40))
    assert list(PruningSampler(SequentialSampler(Subset(range(90), range(40))), 40, seed=5)) == list(range(40))
    assert list(PruningSampler(SeedableRandomSampler(range(40)), 40, seed=5)) == stock_order(40, 5, 0)
    grouped = [PruningSampler(LengthGroupedSampler(4, lengths=lengths), 40, 5) for lengths in (LENGTHS, LENGTHS[::-1])]
    assert [one.kind for one in grouped] == ["grouped", "grouped"]
    assert grouped[0].checksum() != grouped[1].checksum() != 0  # processes that measure other lengths are told apart


ANOTHER, EACH = "it gives another order each time", "it does not give each of the 40 rows once"
REFUSED = {
    "weighted": (WeightedRandomSampler([1.0] * 40, 40), EACH),
    "replacement": (RandomSampler(range(40), replacement=True), "it draws with replacement"),
    "fewer": (RandomSampler(range(40), num_samples=20), "it gives 20 of the 40 rows"),
    "more": (RandomSampler(range(40), num_samples=80), "it gives 80 of the 40 rows"),
    "sequential, fewer": (SequentialSampler(range(30)), "it gives 30 of the 40 rows"),
    "of a subset": (SequentialSampler(Subset(range(40), range(10))), "it gives 10 of the 40 rows"),
    "own, fewer": (Backwards(range(30)), EACH),
    "own, more": (Backwards(range(41)), EACH),
    "endless": (Plain(lambda epoch: iter(lambda: 0, 1)), EACH),
    "repeats": (Plain(lambda epoch: [0] * 40), EACH),
    "random subset": (SubsetRandomSampler(range(40)), ANOTHER),
    "counting": (Counting(by_epoch), ANOTHER),
    "shuffled": (Shuffled(range(40)), ANOTHER),
    "fresh": (Plain(lambda epoch: np.random.default_rng().permutation(40)), ANOTHER),
    "of two processes": (DistributedSampler(range(40), num_replicas=2, rank=0), EACH),
    "batches": (BatchSampler(SequentialSampler(range(40)), 4, drop_last=False), "something else than row numbers"),
    "rebalanced": (BatchRebalanceSampler(LENGTHS, 4, 1, 1), "something else than row numbers"),
    "random, its own way": (
        type("Sorted", (Backwards, RandomSampler), {})(range(40)),
        "accelerate puts a random order",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_order_that_cannot_be_filtered_is_refused(name):
    base, reason = REFUSED[name]
    message = f"is a {type(base).__name__}, whose order can't be filtered.*{reason}.*train_sampling_strategy='random'"
    with pytest.raises(ValueError, match=message):
        PruningSampler(base, 40, seed=1)


@pytest.mark.parametrize("name", ["descends from sequential", "by epoch", "a sampler"])
def test_an_order_of_its_own_is_trained_as_the_stock_trainer_does(tmp_path, name):
    base, order = OWN[name]
    rows = TASKS["image"].rows(40)
    first = [row["pixel_values"][0][0][0] for row in rows]

    class Own(tf.Trainer):
        def _get_train_sampler(self, train_dataset=None):
            return base

    def trained(cls, **options):
        seen, model = [], TASKS["image"].model()

        def watched(batch):
            seen.extend(first.index(row["pixel_values"][0][0][0]) for row in batch)
            return tf.default_data_collator(batch)

        settings = dict(use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="no", logging_strategy="no")
        args = tf.TrainingArguments(str(tmp_path), num_train_epochs=3, per_device_train_batch_size=4, **settings)
        cls(model=model, args=args, train_dataset=rows, data_collator=watched, **options).train()
        return seen, model.state_dict()

    stock, ours = trained(Own), trained(pruned(Own), policy="uniform:keep=1.0")
    assert stock[0] == ours[0] == sum((list(order(epoch)) for epoch in range(3)), [])
    assert all(torch.equal(value, stock[1][name]) for name, value in ours[1].items())


def test_a_run_in_an_order_of_its_own_is_resumed_within_an_epoch(tmp_path):
    class Own(tf.Trainer):
        def _get_train_sampler(self, train_dataset=None):
            return Plain(by_epoch, epochs=True)

    def made(folder):
        settings = dict(use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="steps", save_steps=9)
        args = tf.TrainingArguments(str(folder), num_train_epochs=2, per_device_train_batch_size=4, **settings)
        rows, model = TASKS["image"].rows(40), TASKS["image"].model()
        return pruned(Own)(model=model, args=args, train_dataset=rows, policy="ucb:keep=0.7,period=1")

    whole, again = made(tmp_path / "whole"), made(tmp_path / "again")
    whole.train()
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-9"))
    assert whole.state.global_step == again.state.global_step == 14
    np.testing.assert_array_equal(again.history.loss, whole.history.loss)
    for mine, theirs in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


# ---- How many steps rows make ----

CUTS = {
    "plain": lambda batches: batches,
    "of a loader": lambda batches: DataLoader(range(22), batch_sampler=batches),
    "joined by a user": lambda batches: Joined(DataLoader(range(22), batch_sampler=batches), Joined(range(0))),
}


class Joined:
    """Loaders that a user has put one after another."""

    def __init__(self, *loaders):
        self.loaders = loaders

    def __len__(self):
        return sum(map(len, self.loaders))


def shards(sampler, drop_last, **settings):
    """The batches of each of two processes."""
    batches = BatchSampler(sampler, 4, drop_last)
    return [BatchSamplerShard(batches, 2, rank, **settings) for rank in range(2)]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("split", [False, True])
@given(rows=st.sets(st.integers(0, 21), min_size=1), planned=st.integers(1, 22))
def test_steps_are_as_many_as_the_loader_cuts_when_these_rows_are_planned(drop_last, split, rows, planned):
    sampler, rows = PruningSampler(None, 22, seed=0), np.array(sorted(rows))
    shard, _ = shards(sampler, drop_last, split_batches=split)
    sampler.is_cut_by(shard)
    sampler.plan(0, np.arange(planned))
    before = len(shard), list(shard)
    steps = sampler.steps_for(rows)
    assert sampler.steps_for(len(rows)) == steps
    assert (len(shard), list(shard)) == before, "who asks changes nothing"
    sampler.plan(0, rows)
    assert len(shard) == steps


@pytest.mark.parametrize("name", CUTS)
def test_steps_are_counted_through_whatever_stands_round_the_sampler(name):
    sampler = PruningSampler(None, 22, seed=0)
    sampler.is_cut_by(CUTS[name](BatchSampler(sampler, 4, drop_last=False)), accumulation=2)
    assert [sampler.steps_for(rows) for rows in (22, 9, 8, 1)] == [3, 2, 1, 1]
    assert len(sampler) == 22


def test_rows_that_fill_no_batch_make_no_step():
    sampler = PruningSampler(None, 22, seed=0)
    sampler.is_cut_by(BatchSampler(sampler, 4, drop_last=True))
    assert [sampler.steps_for(rows) for rows in (3, 4)] == [0, 1]


def test_unequal_batches_are_refused_before_they_are_cut():
    sampler = PruningSampler(None, 22, seed=0)
    sampler.is_cut_by(DataLoader(range(22), batch_sampler=shards(sampler, False, even_batches=False)[0]))
    assert sampler.steps_for(8) == 1
    with pytest.raises(ValueError, match="even_batches=False can't share 9 kept rows out to 2 processes"):
        sampler.steps_for(9)


def test_who_cuts_the_batches_must_be_known():
    sampler = PruningSampler(None, 22, seed=0)
    with pytest.raises(ValueError, match=r"say who cuts the batches first, by is_cut_by\(loader\)"):
        sampler.steps_for(4)
    with pytest.raises(ValueError, match="DataLoader, the training loader, shows no way to Trainer's own sampler"):
        sampler.is_cut_by(DataLoader(range(22)))
