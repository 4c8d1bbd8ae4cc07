"""The planning arithmetic, whole: any rows, batches, accumulation, processes, shares, epochs and rounds; no model."""

import math
import tempfile
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, RandomSampler

from hf_prune import History, Policy, Selection
from hf_prune.train.checkpoint import Setup
from hf_prune.train.engine import Engine
from hf_prune.train.recording import Signals
from hf_prune.train.sampler import PruningSampler
from hf_prune.train.schedule import UnprunedSchedule


@dataclass(frozen=True)
class Shares(Policy):
    """Keeps another random share of what is offered in each round."""

    rounds: int = 1

    @property
    def rounds_per_epoch(self):
        return self.rounds

    def select(self, history, clock, rng):
        offered = np.arange(len(history)) if history.offered is None else history.offered
        return Selection(rng.choice(offered, rng.integers(1, len(offered) + 1), replace=False))


@dataclass(frozen=True)
class Sizes:
    batch: int
    accumulation: int
    ranks: int


SIZES = st.builds(Sizes, st.integers(1, 9), st.integers(1, 4), st.integers(1, 4))


class Played:
    """A run as the trainer leads it, on sizes that may change where it is resumed."""

    def __init__(self, rows, sizes, epochs, rounds, max_steps=0):
        self.sizes = sizes
        self.sampler = PruningSampler(RandomSampler(range(rows)), rows, 3)
        batches = BatchSampler(self.sampler, sizes.batch, drop_last=False)
        self.shards = [BatchSamplerShard(batches, sizes.ranks, rank) for rank in range(sizes.ranks)]
        self.sampler.is_cut_by(self.shards[0], sizes.accumulation)
        updates = self.sampler.steps_for(rows)
        steps = max_steps or math.ceil(epochs * updates)
        self.full = UnprunedSchedule(updates, steps, steps / updates if max_steps else epochs, bool(max_steps))
        setup = Setup("", None, sizes.batch * sizes.ranks, sizes.accumulation, "random")
        self.run = Engine(Shares(rounds), self.full, History.empty(rows), self.sampler, Signals(), setup)
        self.step = 0
        self.visits: dict[tuple[int, int], list[int]] = {}  # rows trained, by epoch and part
        self.positions: list[float] = []

    def train(self, until=math.inf, goes_on=False):
        """Round after round, up to `until` steps or to the end."""
        at = self.run.state.round.plan.at if goes_on else self.run.first_place(0, self.step)
        while True:
            if not goes_on:
                self.run.close_round(self.step)
                self.run.open_round(at, self.step)
            goes_on = False
            self.run.plan()
            plan = self.run.state.round.plan
            per_rank = [list(shard) for shard in self.shards]
            assert {len(batches) for batches in per_rank} == {len(per_rank[0])}
            accumulation = self.sizes.accumulation
            for number in range(self.step - plan.first_step, plan.steps):
                if self.step >= until:
                    return
                here = slice(number * accumulation, (number + 1) * accumulation)
                rows = [row for batches in per_rank for batch in batches[here] for row in batch]
                ids = torch.tensor(rows)
                self.run.recorder.add(ids, torch.ones_like(ids), [torch.ones(len(rows))], len(rows))
                self.visits.setdefault(plan.at[:2], []).extend(rows)
                self.positions.append(self.run.position(self.step))
                self.step += 1
            last = self.run.position(self.step)
            if self.full.is_last(plan):
                assert last == self.full.steps
                self.run.close_round(self.step)
                return
            at = at.next()
            if at.part == 0:
                at = self.run.first_place(at.epoch, self.step)

    def resumed(self, sizes, epochs, rounds):
        """Another run, on other sizes, that goes on from here."""
        other = Played(len(self.run.state.history), sizes, epochs, rounds)
        with tempfile.TemporaryDirectory() as folder:
            self.run.save(folder, self.step, True, False)
            other.run.restore(folder, self.step, lambda message: None)
        other.step = self.step
        other.visits = {round: list(rows) for round, rows in self.visits.items()}
        return other


@given(
    rows=st.integers(1, 60), sizes=SIZES, quarters=st.integers(1, 14), rounds=st.integers(1, 4), steps=st.integers(0, 9)
)
@settings(max_examples=100, deadline=None)
def test_every_selected_row_is_trained_once_and_the_clock_ends_at_its_end(rows, sizes, quarters, rounds, steps):
    played = Played(rows, sizes, quarters / 4, rounds, max_steps=steps)
    forecast = played.run.forecast()
    played.train()
    accounts = played.run.state.epochs
    assert played.step == sum(account["steps"] for account in accounts)
    assert played.positions == sorted(played.positions)
    assert played.positions[0] == 0
    group = sizes.batch * sizes.accumulation * sizes.ranks
    *whole, last = sorted(played.visits)
    for round in whole:
        counts = Counter(played.visits[round])
        assert len(played.visits[round]) - len(counts) < group  # what fills the last batches
    if steps:
        assert played.step == steps
    else:
        assert len(accounts) == math.ceil(played.full.steps / played.full.updates)
        assert all(account["rows_offered"] == rows for account in accounts[:-1])
        assert played.step <= forecast[0]  # nothing was known of what would be left out
        assert rounds > 1 or forecast[0] == played.full.steps


@given(
    rows=st.integers(2, 60),
    sizes=SIZES,
    others=SIZES,
    epochs=st.integers(1, 3),
    rounds=st.integers(1, 3),
    share=st.floats(0, 1),
)
@settings(max_examples=100, deadline=None)
def test_resumed_on_other_sizes_the_rest_is_trained_once(rows, sizes, others, epochs, rounds, share):
    first = Played(rows, sizes, epochs, rounds)
    whole = Played(rows, sizes, epochs, rounds)
    whole.train()
    first.train(until=round(share * (whole.step - 1)))
    current = first.run.state.round
    selected = set(current.selection.rows.tolist())
    try:
        second = first.resumed(others, epochs, rounds)
    except ValueError as error:
        assert "can't be cut into other batches" in str(error)
        assert current.plan.at.parts > second_updates(rows, others)
        return
    second.train(goes_on=not second.run.state.round.is_over(second.step))
    assert set(second.visits[current.plan.at[:2]]) == selected
    group = max(size.batch * size.accumulation * size.ranks for size in (sizes, others))
    for visits in second.visits.values():
        assert len(visits) - len(set(visits)) < 2 * group
    assert second.step == sum(account["steps"] for account in second.run.state.epochs)
    assert second.positions == sorted(second.positions)
    assert [account["rows_offered"] for account in second.run.state.epochs] == [rows] * epochs


def second_updates(rows, sizes):
    return math.ceil(rows / (sizes.batch * sizes.accumulation * sizes.ranks))
