"""Kakurenbo against Nguyen et al. 2023, by hand."""

import numpy as np
import pytest

from hf_prune import Clock, History
from hf_prune.policies.kakurenbo import Kakurenbo

L8 = [0.1, 0.2, 0.3, 0.4, 1.0, 2.0, 3.0, 5.0]
CORRECT = [1, 1, 0, 1, 1, 1, 0, 1]
CONFIDENCE = [0.95, 0.60, 0.90, 0.80, 0.75, 0.90, 0.40, 0.30]


def history_of(losses, correct=None, confidence=None):
    n = len(losses)
    history = History.empty(n, ("correct", "confidence"))
    signals = {"correct": np.ones(n) if correct is None else correct, "confidence": confidence or np.ones(n)}
    signals = {name: np.asarray(values, np.float32) for name, values in signals.items()}
    history.record(np.arange(n), np.asarray(losses, np.float32), 0, **signals)
    return history


def at(epoch, epochs):
    return Clock(epoch, epoch, epochs, epoch / epochs)


SECOND = at(1, 90)


def chosen_by(policy, history, clock=SECOND, seed=0):
    chosen = policy.select(history, clock, np.random.default_rng(seed)).check(len(history))
    np.testing.assert_array_equal(np.sort(np.concatenate([chosen.rows, chosen.rescore])), np.arange(len(history)))
    return chosen


def test_easy_right_and_sure_rows_are_hidden_and_the_rate_grows_with_their_share():
    """floor(0.5 * 8) = 4 candidates 0 to 3; row 1 is unsure, row 2 wrong; 1 / (1 - 2/8) = 4/3, not 1 / (1 - 0.5)."""
    chosen = chosen_by(Kakurenbo(hide=0.5), history_of(L8, CORRECT, CONFIDENCE))
    assert chosen.rescore.tolist() == [0, 3]
    assert chosen.rows.tolist() == [1, 2, 4, 5, 6, 7]
    assert chosen.lr_scale == pytest.approx(1.333333, abs=1e-6)
    assert chosen.weights is None


def test_by_confidence_wrong_rows_are_hidden_too():
    policy = Kakurenbo(hide=0.5, by_confidence=True)
    history = history_of(L8, CORRECT, CONFIDENCE)
    del history.signals["correct"]
    assert policy.needs == {"loss", "confidence"}
    assert Kakurenbo().needs == {"loss", "confidence", "correct"}
    assert chosen_by(policy, history).rescore.tolist() == [0, 2, 3]


def test_a_confidence_of_exactly_the_threshold_is_sure():
    history = history_of(L8, confidence=[0.7, 0.6999] * 4)
    assert chosen_by(Kakurenbo(hide=0.5), history).rescore.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("epoch", "epochs", "hidden"),
    [(1, 90, 300), (29, 90, 300), (30, 90, 240), (59, 90, 240), (60, 90, 180), (79, 90, 180), (80, 90, 120)]
    + [(89, 90, 120), (0.4, 1.2, 240)],
)
def test_the_cap_falls_by_phases(epoch, epochs, hidden):
    """F = 0.3 x (1, .8, .6, .4) = 0.3, 0.24, 0.18, 0.12 of 1000 rows, from 1/3, 2/3 and 8/9 of the run on."""
    losses = np.random.default_rng(0).permutation(1000)
    chosen = chosen_by(Kakurenbo(), history_of(losses), at(epoch, epochs))
    assert set(losses[chosen.rescore]) == set(range(hidden))
    assert chosen.lr_scale == pytest.approx(1000 / (1000 - hidden))


@pytest.mark.parametrize(
    ("hide", "n", "hidden"), [(0.0, 10, 0), (0.3, 3, 0), (0.3, 4, 1), (0.99, 100, 99), (0.9, 1, 0)]
)
def test_the_cap_is_rounded_down_and_one_row_always_stays(hide, n, hidden):
    """The code hides every sure row where F N < 1, because it compares with the last loss."""
    chosen = chosen_by(Kakurenbo(hide=hide), history_of(np.arange(n)))
    assert chosen.rescore.tolist() == list(range(hidden))


def test_ties_hide_no_more_than_the_cap_and_follow_the_classes():
    """All 1000 losses are equal and sorted by class: 300 are hidden, of 500 in a class 150 +- 4 * sqrt(52.5)."""
    history = history_of(np.full(1000, 0.1))
    hidden = [chosen_by(Kakurenbo(), history, seed=seed).rescore for seed in range(20)]
    assert {len(rows) for rows in hidden} == {300}
    assert all(abs((rows < 500).sum() - 150) < 30 for rows in hidden)
    assert len({tuple(rows) for rows in hidden}) == 20


def test_the_first_epoch_and_rows_never_seen_are_trained():
    history = History.empty(8, ("correct", "confidence"))
    assert chosen_by(Kakurenbo(hide=0.9), history, at(0, 10)).rows.tolist() == list(range(8))
    history = history_of([np.nan, 0.5, np.nan, 0.6, np.inf, 0.7, 0.8, 0.9])
    for hide, hidden in ((0.25, [1, 3]), (0.99, [1, 3, 5, 6, 7])):
        assert chosen_by(Kakurenbo(hide=hide), history).rescore.tolist() == hidden


def test_inherited_losses_without_signals_hide_nothing():
    history, earlier = History.empty(8, ("correct", "confidence")), History.empty(8)
    earlier.record(np.arange(8), np.array(L8, np.float32), 3)
    Kakurenbo().begin(history, earlier)
    chosen = chosen_by(Kakurenbo(hide=0.5), history)
    assert len(chosen.rescore) == 0
    assert chosen.lr_scale == 1


def test_a_hidden_row_whose_forward_pass_turns_bad_comes_back():
    history, policy = history_of(L8, CORRECT, CONFIDENCE), Kakurenbo(hide=0.5)
    history.record(np.array([3]), np.array([0.1], np.float32), 1, correct=np.zeros(1), confidence=np.array([0.9]))
    assert chosen_by(policy, history, at(2, 90)).rescore.tolist() == [0]


@pytest.mark.parametrize(("field", "value"), [("hide", 1.0), ("hide", -0.1), ("threshold", 1.1), ("threshold", -0.1)])
def test_fields_outside_their_range_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"Kakurenbo\({field}=...\) must be in .* got {value}"):
        Kakurenbo(**{field: value})
