"""Self-paced learning against Kumar et al. 2010 and the schedule of AutoAssist's code, by hand."""

import numpy as np
import pytest

from hf_prune import Clock, History
from hf_prune.policies.self_paced import SelfPaced

L8 = np.array([0.1, 0.2, 0.3, 0.4, 1.0, 2.0, 3.0, 5.0], np.float32)


def at(epoch, step_rows=1):
    return Clock(epoch, epoch, 10, epoch / 10, step_rows)


def history_of(losses):
    history = History.empty(len(losses))
    history.record(np.arange(len(losses)), np.asarray(losses, np.float32), 0)
    return history


def rows_of(policy, history, epoch, seed=0, step_rows=1):
    return policy.select(history, at(epoch, step_rows), np.random.default_rng(seed)).rows.tolist()


def test_half_the_pace_is_the_easy_half():
    """start 0.25 and 4 epochs: pace 0.25, 0.5, 0.75, 1; at 0.5 lambda is 0.4 + 1e-6, and rows 0 to 3 are below it."""
    policy, lam = SelfPaced(start=0.25, ramp=4), 0.400001
    assert rows_of(policy, history_of(L8), 1) == np.flatnonzero(L8 < lam).tolist() == [0, 1, 2, 3]
    order = np.array([7, 3, 0, 5, 2, 6, 1, 4])
    assert rows_of(policy, history_of(L8[order]), 1) == [1, 2, 4, 6]


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        (SelfPaced(), [250, 437, 625, 812, 1000, 1000, 1000]),  # 0.25, 0.4375, 0.625, 0.8125, 1
        (SelfPaced(start=0.3, ramp=4), [300, 533, 766, 1000, 1000]),  # 0.3 + 0.7 is 0.9999999999999998 on the way
        (SelfPaced(start=0.5, ramp=2), [500, 1000, 1000]),
        (SelfPaced(start=1.0), [1000] * 6),
    ],
)
def test_the_pace_grows_evenly_to_all_rows(policy, kept):
    history = history_of(np.random.default_rng(0).random(1000))
    assert [len(rows_of(policy, history, epoch)) for epoch in range(len(kept))] == kept
    assert [policy.forecast(history, at(epoch)) for epoch in range(len(kept))] == kept


def test_the_first_epoch_keeps_to_its_pace():
    """Nothing is known: a random quarter, each row with the same chance."""
    visits, draws = np.zeros(8), 2000
    for seed in range(draws):
        rows = rows_of(SelfPaced(), History.empty(8), 0, seed)
        assert len(rows) == 2
        visits[rows] += 1
    assert (np.abs(visits / draws - 0.25) < 4 * np.sqrt(0.25 * 0.75 / draws)).all()


def test_rows_never_seen_come_before_the_easy_ones():
    history = history_of([0.1, np.nan, 0.3, np.inf, 0.2, 2.0, 3.0, 5.0])
    assert rows_of(SelfPaced(start=0.25, ramp=4), history, 0) == [1, 3]
    assert rows_of(SelfPaced(start=0.25, ramp=4), history, 1) == [0, 1, 3, 4]


def test_rows_at_the_threshold_are_split_at_random():
    """Row 0 is sure, 3 of the other 7 follow with chance 3/7 each."""
    visits, draws, history = np.zeros(8), 2000, history_of([0.0, *[1.0] * 7])
    for seed in range(draws):
        visits[rows_of(SelfPaced(start=0.25, ramp=4), history, 1, seed)] += 1
    assert visits[0] == draws
    assert (np.abs(visits[1:] / draws - 3 / 7) < 4 * np.sqrt(3 / 7 * 4 / 7 / draws)).all()


def test_with_equal_losses_the_classes_follow_the_data():
    """1000 rows sorted into 4 classes: 62.5 of each among 250, hypergeometric."""
    classes, draws, history = np.repeat(np.arange(4), 250), 200, history_of(np.ones(1000))
    counts = [np.bincount(classes[rows_of(SelfPaced(), history, 0, seed)], minlength=4) for seed in range(draws)]
    spread = np.sqrt(250 * 0.25 * 0.75 * 750 / 999)
    assert (np.abs(np.mean(counts, axis=0) - 62.5) < 4 * spread / np.sqrt(draws)).all()


def test_one_row_is_always_kept_and_steps_are_filled():
    assert rows_of(SelfPaced(), history_of([1.0]), 0) == [0]
    assert rows_of(SelfPaced(), history_of(L8[:3]), 0) == [0]  # floor(0.25 * 3) would be none
    assert rows_of(SelfPaced(), history_of(L8), 0, step_rows=3) == [0, 1, 2]
    assert rows_of(SelfPaced(), history_of(L8), 0, step_rows=16) == list(range(8))


@pytest.mark.parametrize(("field", "value"), [("start", 0), ("start", 1.1), ("ramp", 1), ("ramp", float("inf"))])
def test_fields_outside_their_range_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"SelfPaced\({field}=...\) must be in .* got {value}"):
        SelfPaced(**{field: value})
