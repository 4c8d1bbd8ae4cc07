"""Tail, by hand: margins to the first visit, the share that is dropped, and what comes back."""

import numpy as np
import pytest

from hf_prune import Clock, History
from hf_prune.policies.tail import Tail


def at(round, share, step_rows=1):
    return Clock(round, round, 10, share, step_rows)


def played(policy, *rounds, earlier=None):
    """The History after rounds with these losses; NaN = not measured."""
    history = History.empty(len(rounds[0]))
    policy.begin(history, earlier)
    for round, losses in enumerate(np.asarray(rounds, np.float32)):
        rows = np.flatnonzero(~np.isnan(losses))
        history.record(rows, losses[rows], round)
        policy.update(history, at(round, round / 10), np.random.default_rng(0))
    return history


def chosen(policy, history, round, share, step_rows=1):
    return policy.select(history, at(round, share, step_rows), np.random.default_rng(0)).check(len(history))


def test_the_rows_whose_loss_fell_furthest_are_dropped():
    """Margins -1, +0.5, -2, 0: half of the rows, 2 and 0, not those of smallest loss, 3 and 0."""
    policy = Tail(ratio=0.5, ramp=0.2)
    history = played(policy, [2, 1, 4, 0.1], [1, 1.5, 2, 0.1])
    found = chosen(policy, history, 2, 0.2)
    assert found.rows.tolist() == [1, 3]
    assert found.rescore.tolist() == [0, 2]


def test_the_dropped_share_grows_from_nothing():
    """ratio 0.5 of 8 rows, ramp 0.8: 0, 1, 2, 4 and 4 rows at shares 0.1, 0.2, 0.4, 0.8 and 0.9; steps of 3 rows: 6."""
    policy = Tail(ratio=0.5, ramp=0.8)
    history = played(policy, np.full(8, 9), np.arange(8))
    for share, dropped in ((0.1, 0), (0.2, 1), (0.4, 2), (0.8, 4), (0.9, 4)):
        assert chosen(policy, history, 2, share).rows.tolist() == list(range(dropped, 8))
        assert policy.forecast(history, at(2, share)) == 8 - dropped
    assert chosen(policy, history, 2, 0.8, step_rows=3).rows.tolist() == [2, 3, 4, 5, 6, 7]
    assert policy.forecast(history, at(2, 0.8, step_rows=3)) == 6


def test_a_row_that_was_seen_once_has_no_margin():
    """Rows 0 and 1 were seen twice; of the three to drop, only these can be."""
    policy = Tail(ratio=0.6, ramp=0.1)
    history = played(policy, [5, 5, 5, 5, 5], [1, 2, np.nan, np.nan, np.nan])
    assert chosen(policy, history, 2, 0.5).rows.tolist() == [2, 3, 4]
    assert chosen(policy, played(policy, [5, 5, 5]), 1, 0.5).rows.tolist() == [0, 1, 2]
    assert policy.forecast(history, at(1, 0.5)) == 5


def test_the_margin_is_to_the_first_visit_and_a_forgotten_row_comes_back():
    """Row 0: 4, 1, then 5 in a revisit: margin +1. Row 1: 4, 3, 2: margin -2."""
    policy = Tail(ratio=0.5, ramp=0.1)
    assert chosen(policy, played(policy, [4, 4], [1, 3]), 2, 0.2).rows.tolist() == [1]
    assert chosen(policy, played(policy, [4, 4], [1, 3], [5, 2]), 3, 0.3).rows.tolist() == [0]


def test_revisits_come_when_they_are_due():
    losses = [4, 4], [1, 3]
    for revisit, due in ((0, []), (1, [2, 3, 4]), (2, [2, 4])):
        policy = Tail(ratio=0.5, ramp=0.1, revisit=revisit)
        history = played(policy, *losses)
        assert [r for r in (2, 3, 4) if chosen(policy, history, r, r / 10).rescore is not None] == due


def test_an_earlier_history_is_where_margins_begin():
    """Losses of the initial model 3 and 1; after one epoch 1 and 2: margins -2 and +1."""
    earlier = History.empty(2)
    earlier.record(np.arange(2), np.float32([3, 1]), 0)
    policy = Tail(ratio=0.5, ramp=0.1)
    history = played(policy, [1, 2], earlier=earlier)
    assert chosen(policy, history, 2, 0.2).rows.tolist() == [1]
    assert earlier.loss.tolist() == [3, 1]


@pytest.mark.parametrize(("field", "value"), [("ratio", 1), ("ramp", 0), ("revisit", -1), ("revisit", 0.5)])
def test_fields_outside_their_range_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"Tail\({field}=...\) must be .* got {value!r}"):
        Tail(**{field: value})
