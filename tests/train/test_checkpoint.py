"""The state of a pruned run inside a checkpoint, and in those that earlier versions wrote."""

import numpy as np
import pytest

from hf_prune import History, Selection
from hf_prune.common import storage
from hf_prune.core import Clock
from hf_prune.measure.recorder import Measurements
from hf_prune.train.checkpoint import STATE, PruningState, Setup
from hf_prune.train.rounds import Round
from hf_prune.train.schedule import Place, UnprunedSchedule

SETUP = Setup("Uniform(keep=0.5)", 7, 4, 2, "random", key="id")
NOTHING = Measurements(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((1, 0), np.float32), 0)


def state_of():
    full = UnprunedSchedule(4, 8, 2.0, by_steps=False)
    selection = Selection(np.array([1, 3]), np.float32([1, 2]), 0.5, np.array([0]))
    current = Round(Clock(1, 1, 2.0, 0.5, 8, 1), full.plan(Place(1), 3, 1), selection, (0, 5), seconds_training=2.5)
    return PruningState(History.empty(5), 3, SETUP, round=current, more={"run": "name", "by_batch": False})


def changed(folder, change):
    """What an earlier version would have written."""
    arrays, header = storage.load(folder / STATE)
    change(header)
    storage.save(folder / STATE, arrays, header)


def test_a_state_is_read_as_it_was_written(tmp_path):
    state = state_of()
    visits = np.array([3, 1])
    state.save(tmp_path, Measurements(visits, visits + 5, np.float32([[1, 2]]), 20), 3)
    again, measured = PruningState.load(tmp_path, 5)
    assert (again.seed, again.setup, again.more) == (3, SETUP, {"run": "name", "by_batch": False})
    assert (again.round.clock, again.round.plan) == (state.round.clock, state.round.plan)
    assert [*again.round.span] == [0, 5] and again.round.seconds_training == 2.5
    assert again.round.selection.weights.tolist() == [1, 2] and again.round.selection.rescore.tolist() == [0]
    assert (measured.rows.tolist(), measured.tokens.tolist(), measured.padded_tokens) == ([3, 1], [8, 6], 20)
    assert SETUP.step_rows == 8


def test_between_rounds_nothing_is_measured(tmp_path):
    PruningState(History.empty(5), 3, SETUP).save(tmp_path, NOTHING, 0)
    state, measured = PruningState.load(tmp_path, 5)
    assert state.round is None and measured is None


def test_a_state_of_before_orders_and_keys_were_named_is_read(tmp_path):
    state_of().save(tmp_path, NOTHING, 3)
    changed(tmp_path, lambda header: [header["facts"].pop(name) for name in ("order", "key")])
    state, _ = PruningState.load(tmp_path, 5)
    assert (state.setup.order, state.setup.key, state.setup.batch) == (None, None, 4)


def test_a_round_that_an_earlier_version_began_without_a_policy_is_refused_with_the_cure(tmp_path):
    state_of().save(tmp_path, NOTHING, 3)
    changed(tmp_path, lambda header: header["round"].update(skipped=0))
    assert PruningState.load(tmp_path, 5)[0].round is not None
    changed(tmp_path, lambda header: header["round"].update(skipped=2))
    with pytest.raises(ValueError, match="its epoch was begun without a policy. Resume from the end of an epoch."):
        PruningState.load(tmp_path, 5)


def test_the_epoch_that_follows_is_counted_from_where_the_policy_began():
    state = PruningState(History.empty(5), 3, SETUP)
    assert state.next_epoch == 0
    state.add(2, {"rows": 3})
    state.add(2, {"rows": 4})
    assert state.next_epoch == 3 and state.epochs == [{"epoch": 2, "rows": 7}]
