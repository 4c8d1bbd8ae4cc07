"""Forgetting events against Toneva et al. 2019, by hand; what it shares with EL2N is tested there."""

import numpy as np
import pytest

from hf_prune import Clock, History
from hf_prune.policies.forgetting import Forgetting

CORRECT = np.array(
    [[1, 1, 1, 1, 1, 1], [0, 1, 0, 1, 0, 1], [0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 1], [1, 0, 0, 0, 0, 0]], np.float32
)
EVENTS = [0, 2, np.inf, 1, 1]
PROBE = Forgetting(keep=1)


def counted(presentations, policy=PROBE, signal="correct"):
    """The history after rounds, each of (rows, values of the signal) or (rows, values, losses)."""
    history = History.empty(5, (signal,))
    policy.begin(history, None)
    for t, (rows, values, *losses) in enumerate(presentations):
        loss = np.array(losses[0] if losses else np.ones(len(rows)), np.float32)
        history.record(np.array(rows), loss, t, **{signal: np.array(values, np.float32)})
        policy.update(history, Clock(t, t, 10, t / 10), np.random.default_rng(0))
    return history


def test_events_of_five_rows():
    history = counted([(range(5), column) for column in CORRECT.T])
    np.testing.assert_array_equal(history.notes["score"], EVENTS)
    assert history.notes["score"].dtype == np.float32


def test_counts_after_each_presentation():
    """Row 1, right at 0 1 0 1 0 1: never learned, learned, forgotten once, ..., twice; row 4 is learned at once."""
    scores = [counted([(range(5), column) for column in CORRECT.T[:t]]).notes["score"] for t in range(1, 7)]
    assert [score[1] for score in scores] == [np.inf, 0, 1, 1, 2, 2]
    assert [score[4] for score in scores] == [0, 1, 1, 1, 1, 1]
    assert [score[2] for score in scores] == [np.inf] * 6


def test_never_learned_and_often_forgotten_rows_stay():
    history = History.empty(5)
    policy = Forgetting(keep=0.4)
    policy.begin(history, counted([(range(5), column) for column in CORRECT.T]))
    clock = Clock(0, 0, 10, 0.0)
    assert policy.select(history, clock, np.random.default_rng(0)).rows.tolist() == [1, 2]
    windowed = Forgetting(keep=0.4, skip=0.2)  # without what was never learned: row 1, then 3 or 4
    rows = windowed.select(history, clock, np.random.default_rng(0)).rows.tolist()
    assert rows in ([1, 3], [1, 4])


def test_presentations_of_the_row_count_not_rounds():
    """Row 0 is presented in rounds 0 and 3, right and wrong: one event, made in round 3 and counted once."""
    history = counted([([0, 1], [1, 0]), ([1], [0]), ([1], [1]), ([0, 1], [0, 1]), ([1], [1])])
    np.testing.assert_array_equal(history.notes["score"], [1, 0, np.nan, np.nan, np.nan])


def test_a_presentation_without_a_finite_loss_is_none():
    """Row 0 is right, then wrong with an infinite loss, then right: nothing is forgotten. Row 1 has no loss at all."""
    lost = [np.inf, np.nan]
    history = counted([([0, 1], [1, 1], [1, np.nan]), ([0, 1], [0, 0], lost), ([0, 1], [1, 1], [1, np.nan])])
    np.testing.assert_array_equal(history.notes["score"][:2], [0, np.nan])


def test_a_count_that_was_saved_goes_on(tmp_path):
    columns = [(range(5), column) for column in CORRECT.T]
    history, policy = counted(columns[:3]), Forgetting(keep=1)
    history.save(tmp_path / "history")
    history = History.load(tmp_path / "history")
    for t, (rows, correct) in enumerate(columns[3:], 3):
        history.record(np.array(rows), np.ones(5, np.float32), t, correct=correct)
        policy.update(history, Clock(t, t, 10, t / 10), np.random.default_rng(0))
    np.testing.assert_array_equal(history.notes["score"], EVENTS)


def test_confidence_stands_for_correctness_where_the_user_says_so():
    policy = Forgetting(keep=1, threshold=0.5)
    assert policy.needs == {"confidence"}
    assert Forgetting(keep=0.9, threshold=0.5).needs == frozenset()
    rounds = [(range(5), np.where(column == 1, 0.5, 0.49)) for column in CORRECT.T]
    np.testing.assert_array_equal(counted(rounds, policy, "confidence").notes["score"], EVENTS)


def test_a_pruned_run_counts_nothing():
    history, policy = History.empty(5), Forgetting(keep=0.4)
    earlier = History.empty(5)
    earlier.notes["score"] = np.array(EVENTS, np.float32)
    policy.begin(history, earlier)
    history.record(np.array([1, 2]), np.ones(2, np.float32), 0)
    policy.update(history, Clock(0, 0, 10, 0.0), np.random.default_rng(0))
    np.testing.assert_array_equal(history.notes["score"], EVENTS)


@pytest.mark.parametrize("threshold", [0, 1.1, "half"])
def test_a_threshold_outside_its_range_is_refused(threshold):
    with pytest.raises(ValueError, match=rf"Forgetting\(threshold=...\) must be in \(0, 1\], got '?{threshold}"):
        Forgetting(threshold=threshold)
