"""The order grouped by length: by hand, as properties, and as statistics."""

import itertools

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler
from transformers.trainer_pt_utils import LengthGroupedSampler

from hf_prune.train import grouping
from hf_prune.train.grouping import group, lengths_as_ranks, mega_batches
from hf_prune.train.sampler import PruningSampler


class Fixed:
    """A generator whose draws are known."""

    def __init__(self, places, gap):
        self.places, self.gap = places, gap

    def permutation(self, n):
        assert sorted(self.places) == list(range(n))
        return np.array(self.places)

    def integers(self, low, high):
        assert low <= self.gap < high
        return self.gap


ROWS = np.array([3, 0, 5, 1, 4, 2, 6])
LENGTHS = [5, 1, 4, 2, 6, 3, 7]  # from short to long: rows 1, 3, 5, 2, 0, 4, 6


@pytest.mark.parametrize(
    ("places", "gap", "longest_first", "order"),
    [
        ([0, 1, 2], 3, False, [1, 3, 5, 2, 0, 4, 6]),  # sorted; the longest row fills no unit
        ([0, 1, 2], 0, False, [3, 5, 2, 0, 4, 6, 1]),  # nor does the shortest
        ([2, 0, 1], 1, False, [2, 0, 4, 6, 1, 3, 5]),
        ([2, 0, 1], 1, True, [4, 6, 2, 0, 1, 3, 5]),  # 7 tokens are in the second unit
    ],
)
def test_seven_rows_by_hand(places, gap, longest_first, order):
    found = group(ROWS, lengths_as_ranks(LENGTHS), 2, Fixed(places, gap), longest_first)
    assert found.tolist() == order


def test_two_mega_batches_by_hand(monkeypatch):
    monkeypatch.setattr(grouping, "LEAST", 2)
    # places in the shuffled rows:       3 0 5 1 | 4 2 6 7 and 8, which fills no unit
    lengths = [*LENGTHS, 7, 1]  # sorted: 1 3 5 0  |  8 2 4 6 7: rows 6 and 7 tie, and keep their order
    found = group(np.array([*ROWS, 7, 8]), lengths_as_ranks(lengths), 2, Fixed([3, 1, 0, 2], 1), False)
    assert found.tolist() == [8, 2, 5, 0, 6, 7, 1, 3, 4]


@pytest.mark.parametrize(
    ("units", "count"),
    [(0, 1), (1, 1), (5, 1), (6, 2), (64, 16), (80, 16), (250, 17), (800, 16), (1000, 20), (1_000_000, 20_000)],
)
def test_fifty_units_are_sorted_together_and_a_sixteenth_of_few(units, count):
    assert mega_batches(units) == count


def test_the_order_of_a_seed_stays():
    """A checkpoint of an earlier version goes on in the order that it began with."""
    sampler = PruningSampler(LengthGroupedSampler(2, lengths=[1 + (7 * row) % 13 for row in range(12)]), 12, 1, unit=2)
    orders = []
    for epoch in range(2):
        sampler.plan(epoch, np.arange(12))
        orders.append(list(sampler))
    assert orders == GOLDEN


GOLDEN = [[1, 11, 2, 10, 6, 8, 7, 9, 0, 4, 3, 5], [5, 9, 0, 2, 8, 1, 4, 6, 10, 3, 7, 11]]


def test_lengths_of_two_sides_go_by_the_longer_one_then_the_first():
    sides = [(3, 9), (9, 3), (9, 9), (9, 4), (10, 1), (2, 9), (0, 0)]
    assert lengths_as_ranks(sides).tolist() == [2, 3, 5, 4, 6, 1, 0]


@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 1 << 20)), min_size=1, max_size=20))
def test_two_sides_against_sorting_tuples(sides):
    ranks = lengths_as_ranks(sides)
    keys = [(max(pair), *pair) for pair in sides]
    assert [sorted(set(keys)).index(key) for key in keys] == ranks.tolist()


def test_very_long_sides_go_by_their_first_digits():
    assert lengths_as_ranks([(1 << 30, 5), (1 << 40, 5), (1 << 40, 1 << 25), (3, 1 << 31)]).tolist() == [0, 2, 3, 1]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-5, 1 << 40), min_size=1, max_size=20))
def test_ranks_sort_as_lengths_do(lengths):
    lengths = np.array(lengths)
    ranks = lengths_as_ranks(lengths)
    assert ranks.dtype == np.uint8
    assert ((lengths[:, None] < lengths) == (ranks[:, None] < ranks)).all()


@pytest.mark.parametrize("lengths", [[1.0, np.nan], ["a"], [None, 1], [np.inf]])
def test_lengths_that_are_no_numbers_are_refused(lengths):
    with pytest.raises(ValueError, match="finite numbers"):
        lengths_as_ranks(lengths)


SIZES = dict(
    n=st.integers(1, 300), unit=st.integers(1, 40), longest=st.booleans(), mega=st.integers(1, 60),
    seed=st.integers(0, 99), spread=st.integers(1, 50),
)  # fmt: skip


@given(**SIZES)
@settings(max_examples=300)
def test_every_order_is_whole_and_grouped(n, unit, longest, mega, seed, spread):
    rng = np.random.default_rng(seed)
    rows, lengths = np.sort(rng.choice(400, n, replace=False)), rng.integers(1, spread + 1, 400)
    shuffled = rng.permutation(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "LEAST", mega)
        count = mega_batches(n // unit)
        order = group(shuffled, lengths_as_ranks(lengths), unit, np.random.default_rng([seed, 1]), longest)
    assert np.array_equal(np.sort(order), rows)
    whole = n // unit
    units, rest = lengths[order[: whole * unit]].reshape(whole, unit), lengths[order[whole * unit :]]
    if longest and whole:
        assert units[0].max() == units.max()
    place = {row: at for at, row in enumerate(shuffled.tolist())}
    megas: dict[int, list] = {}
    ends = [end * whole // count for end in range(1, count + 1)]
    for cut in order[: whole * unit].reshape(whole, unit).tolist():
        of = {next(k for k, end in enumerate(ends) if place[row] < end * unit or end == whole) for row in cut}
        assert len(of) == 1  # a unit is of one mega-batch
        megas.setdefault(of.pop(), []).append(lengths[cut])
    for cuts in megas.values():  # which is sorted: no unit reaches into another
        cuts.sort(key=lambda cut: (cut.min(), cut.max()))
        assert all(one.max() <= other.min() for one, other in itertools.pairwise(cuts))
    assert len(rest) < unit and (np.diff(rest) >= 0).all()


def epochs_of(n, unit, epochs, seed=0, lengths=None):
    lengths = np.random.default_rng(1).integers(5, 60, n) if lengths is None else lengths
    sampler = PruningSampler(LengthGroupedSampler(unit, lengths=lengths), n, seed, unit)
    for epoch in range(epochs):
        sampler.plan(epoch, np.arange(n))
        yield np.array(list(sampler))


def test_units_come_in_every_order_equally_often():
    """Four units of different lengths have 24 orders: 100 epochs for each, and chi squared by chance (p = 0.001)."""
    found = dict.fromkeys(itertools.permutations(range(4)), 0)
    epochs = epochs_of(8, 2, 2401, lengths=np.repeat(np.arange(4), 2))
    next(epochs)  # begins with the longest
    for order in epochs:
        found[tuple((order[::2] // 2).tolist())] += 1
    assert sum((count - 100) ** 2 / 100 for count in found.values()) < 49.7


def test_rows_that_fill_no_unit_are_of_every_length():
    """13 rows in units of 4: which one is left over must follow from its length in no way that adds up."""
    lasts = [order[-1] for order in epochs_of(13, 4, 1300, lengths=np.arange(13))]
    assert np.mean(lasts) == pytest.approx(6, abs=0.5)


def test_two_epochs_share_no_batch():
    batches = [{frozenset(cut) for cut in order.reshape(-1, 10).tolist()} for order in epochs_of(2000, 10, 6)]
    assert not any(one & other for one, other in itertools.combinations(batches, 2))


def test_steps_and_lengths_do_not_go_together():
    lengths = np.random.default_rng(1).integers(5, 60, 2000)
    found = []
    for order in epochs_of(2000, 10, 101, lengths=lengths):
        steps = lengths[order].reshape(-1, 10).mean(1)[1:]
        found.append(np.corrcoef(np.arange(len(steps)), steps)[0, 1])
    assert abs(np.mean(found)) < 3 / np.sqrt(200 * 101)  # three standard errors
    assert np.std(found) == pytest.approx(1 / np.sqrt(199), rel=0.3)


def test_only_the_first_round_begins_with_the_longest():
    lengths = np.random.default_rng(1).permutation(400)
    firsts = [399 in lengths[order[:4]] for order in epochs_of(400, 4, 8, seed=1, lengths=lengths)]
    assert firsts == [True] + [False] * 7


@given(
    n=st.integers(1, 200), batch=st.integers(1, 8), ranks=st.sampled_from([1, 2, 3, 4]), drop_last=st.booleans(),
    kept=st.floats(0.1, 1), round=st.integers(0, 5), seed=st.integers(-3, 3),
)  # fmt: skip
def test_the_ranks_of_a_step_get_rows_of_one_unit(n, batch, ranks, drop_last, kept, round, seed):
    rng = np.random.default_rng(abs(seed))
    lengths, rows = rng.integers(1, 50, n), np.sort(rng.choice(n, max(1, int(kept * n)), replace=False))
    sampler = PruningSampler(LengthGroupedSampler(batch, lengths=lengths), n, seed, batch * ranks)
    sampler.plan(2, rows, round)
    whole = BatchSampler(sampler, batch, drop_last)
    shards = [list(BatchSamplerShard(whole, ranks, rank)) for rank in range(ranks)]
    order = list(sampler)
    assert order == list(sampler)  # however often it is asked
    assert sorted(order) == rows.tolist()
    for step, batches in enumerate(zip(*shards, strict=True)):
        rows_of_step = set(itertools.chain(*batches))
        if (step + 1) * batch * ranks <= len(rows):
            assert rows_of_step == set(order[step * batch * ranks : (step + 1) * batch * ranks])
        else:  # filled up from the first batches
            assert set(order[step * batch * ranks :]) <= rows_of_step
    if not drop_last:
        assert set(itertools.chain(*itertools.chain(*shards))) == set(rows.tolist())


def test_padding_falls():
    lengths = np.random.default_rng(1).gamma(4, 4, 32_000).astype(int) + 1
    shares = []
    for order in (np.random.default_rng(2).permutation(32_000), next(epochs_of(32_000, 32, 1, lengths=lengths))):
        cuts = lengths[order].reshape(-1, 32)
        shares.append(lengths.sum() / (cuts.max(1) * 32).sum())
    assert shares[0] < 0.5 and shares[1] > 0.9
