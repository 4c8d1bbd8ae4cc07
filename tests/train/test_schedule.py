"""The clock: learning rates and step counts of epochs that shrink and grow."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import LambdaLR

from hf_prune.train.schedule import Place, UnprunedSchedule, follow_clock, set_rate

SIZES = st.lists(st.integers(1, 50), min_size=8, max_size=8)


def play(full, updates):
    """Every plan of a run whose epoch e takes updates(e) steps over its rows, were it whole."""
    plans = [full.plan(Place(0), 0, updates(0))]
    while not full.is_last(plans[-1]):
        last = plans[-1]
        plans.append(full.plan(last.at.next(), last.first_step + last.steps, updates(last.at.epoch + 1)))
    return plans


@given(updates=st.integers(1, 40), quarters=st.integers(1, 30), sizes=SIZES)
def test_a_run_by_epochs_ends_where_the_full_schedule_ends(updates, quarters, sizes):
    epochs = quarters / 4
    full = UnprunedSchedule(updates, math.ceil(epochs * updates), epochs, by_steps=False)
    plans = play(full, sizes.__getitem__)
    # ceil(1.25 passes of 2 updates) are whole passes: the step count decides, as it does for the stock Trainer.
    assert len(plans) == math.ceil(full.steps / updates)
    for plan, following in zip(plans, plans[1:], strict=False):
        assert plan.steps == plan.updates
        assert (
            plan.position(plan.first_step + plan.steps) == following.start == following.position(following.first_step)
        )
    last = plans[-1]
    assert 1 <= last.steps <= last.updates
    assert last.position(last.first_step + last.steps) == full.steps
    assert full.total_steps(plans[0], lambda at, _: sizes[at.epoch]) == (last.first_step + last.steps, len(plans))


@given(updates=st.integers(8, 40), quarters=st.integers(1, 30), parts=st.integers(2, 8), sizes=SIZES)
def test_several_rounds_an_epoch_end_there_too(updates, quarters, parts, sizes):
    epochs = quarters / 4
    full = UnprunedSchedule(updates, math.ceil(epochs * updates), epochs, by_steps=False)
    plans = [full.plan(Place(0, 0, parts), 0, sizes[0])]
    while not full.is_last(plans[-1]):
        last = plans[-1]
        plans.append(full.plan(last.at.next(), last.first_step + last.steps, sizes[last.at.next().part]))
    assert [plan.at.round for plan in plans] == list(range(len(plans)))
    assert all(plan.steps == plan.updates for plan in plans[:-1])
    for plan, following in zip(plans, plans[1:], strict=False):
        assert plan.position(plan.first_step + plan.steps) == pytest.approx(following.start)
    last = plans[-1]
    assert 1 <= last.steps <= last.updates
    assert last.position(last.first_step + last.steps) == full.steps
    ends = last.first_step + last.steps, last.at.epoch + 1
    assert full.total_steps(plans[0], lambda at, _: sizes[at.part]) == ends


@given(updates=st.integers(1, 40), quarters=st.integers(1, 30))
def test_keeping_everything_is_the_stock_clock(updates, quarters):
    epochs = quarters / 4
    full = UnprunedSchedule(updates, math.ceil(epochs * updates), epochs, by_steps=False)
    plans = play(full, lambda _: updates)
    assert sum(plan.steps for plan in plans) == full.steps
    for plan in plans:
        for step in range(plan.first_step, plan.first_step + plan.steps + 1):
            position = plan.position(step)
            assert position == step
            assert isinstance(position, int)


@given(updates=st.integers(1, 10), steps=st.integers(1, 8), sizes=SIZES)
def test_max_steps_is_the_budget(updates, steps, sizes):
    full = UnprunedSchedule(updates, steps, steps / updates, by_steps=True)
    plans = play(full, sizes.__getitem__)
    assert sum(plan.steps for plan in plans) == steps
    assert all(
        plan.position(step) == step for plan in plans for step in range(plan.first_step, plan.first_step + plan.steps)
    )
    shares = [full.share(plan.at, plan.first_step) for plan in plans]
    assert shares == sorted(shares)
    assert shares[-1] < 1


def test_sizes_by_hand():
    """Full epochs of 32 steps; the kept rows take 32, 17, 9 and 23: a linear rate passes 3/4, 1/2, 1/4, 0."""
    full = UnprunedSchedule(32, 128, 4, by_steps=False)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = LambdaLR(optimizer, lambda step: 1 - step / 128)
    plans = play(full, [32, 17, 9, 23].__getitem__)
    current, scale = [plans[0]], [1.0]
    follow_clock(scheduler, lambda step: current[0].position(step), lambda: scale[0])
    for plan, rate in zip(plans, (0.75, 0.5, 0.25, 0.0), strict=True):
        current[0] = plan
        set_rate(scheduler)
        for _ in range(plan.steps):
            optimizer.step()
            scheduler.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate, abs=1e-12)
    scale[0] = 2.0
    current[0] = plans[1]
    scheduler.last_epoch = plans[1].first_step
    set_rate(scheduler)
    assert optimizer.param_groups[0]["lr"] == scheduler.get_last_lr()[0] == 1.5


def test_nothing_of_the_clock_enters_a_checkpoint():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = LambdaLR(optimizer, lambda step: 1.0)
    follow_clock(scheduler, lambda step: step, lambda: 1.0)
    assert scheduler.state_dict()["lr_lambdas"] == [None]


@pytest.mark.parametrize("kept", [40, 13, 1])
def test_the_steps_of_very_many_rounds_are_told_by_the_first_thousand(kept):
    asked = []

    def updates(at, step):
        asked.append(at)
        return kept

    full = UnprunedSchedule(40, 40 * 5000, 5000.0, by_steps=False)
    assert full.total_steps(full.plan(Place(0), 0, kept), updates) == (kept * 5000, 5000)
    assert len(asked) <= 1000
    full = UnprunedSchedule(40, 200_000, 5000.0, by_steps=True)
    assert full.total_steps(full.plan(Place(0), 0, kept), updates) == (200_000, math.ceil(200_000 / kept))
