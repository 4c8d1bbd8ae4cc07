"""IES against the rule of Yuan et al. 2025, by hand."""

import numpy as np
import pytest

from hf_prune import Clock, History
from hf_prune.policies.ies import IES

CURVES = np.array(
    [
        [0.0100, 0.0095, 0.0090, 0.0086, 0.0082, 0.0079],  # flat
        [3.0, 2.5, 2.0, 1.5, 1.0, 0.5],  # a straight line
        [0.2, 0.1, 0.3, 0.1, 0.2, 0.1],
        [1.0, 0.6, 0.36, 0.216, 0.1296, 0.07776],
    ],
    np.float32,
)


def at(epoch, step_rows=1):
    return Clock(epoch, epoch, 100, epoch / 100, step_rows)


def visit(policy, history, round, rows, losses):
    history.record(np.asarray(rows), np.asarray(losses, np.float32), round)
    policy.update(history, at(round), np.random.default_rng(round))


def after(curves, policy):
    """The history of rows (N, T) measured in T rounds."""
    history = History.empty(len(curves))
    for round, losses in enumerate(np.asarray(curves, np.float32).T):
        visit(policy, history, round, np.arange(len(curves)), losses)
    return history


def mastered_by(policy, history, round=50, step_rows=1):
    chosen = policy.select(history, at(round, step_rows), np.random.default_rng(0)).check(len(history))
    rescore = np.array([], int) if chosen.rescore is None else chosen.rescore
    np.testing.assert_array_equal(np.sort(np.concatenate([chosen.rows, rescore])), np.arange(len(history)))
    return rescore.tolist()


def test_second_differences_of_four_curves():
    """Means of the last three |d|: (1, 0, 1) * 1e-4, 0, (0.4, 0.3, 0.2), (0.096, 0.0576, 0.03456)."""
    history = after(CURVES, IES())
    assert history.notes["bends"].mean(0) == pytest.approx([0.000067, 0.0, 0.3, 0.06272], abs=1e-6)
    assert mastered_by(IES(), history) == [0, 1]


@pytest.mark.parametrize(("window", "needed"), [(1, 4), (3, 6), (5, 8)])
def test_a_row_is_judged_from_window_and_three_losses_on(window, needed):
    policy = IES(window=window)
    for visits in range(needed + 3):
        history = after(np.full((2, visits), 0.1), policy)
        visit(policy, history, visits, [1], [5.0])  # so that the second row is never mastered
        assert mastered_by(policy, history) == ([0] if visits >= needed else [])


def test_the_window_holds_the_last_differences_alone():
    """A jump in loss t bends t, t + 1 and t + 2: the row is mastered again from t + 5 on."""
    policy, history = IES(), after(np.full((2, 8), 0.1), IES())
    visit(policy, history, 8, [0, 1], [0.2, 0.1])
    mastered = []
    for round in range(9, 16):
        mastered.append(mastered_by(policy, history, round))
        visit(policy, history, round, [0, 1], [0.1, 0.1 + round % 2])
    assert mastered[0] == [1]  # the jump of row 0 itself
    assert [0 in rows for rows in mastered] == [False, False, False, False, False, True, True]


def test_the_mean_is_of_absolute_differences_and_must_be_below_delta():
    """d = +1, -1, +1, ... * 4e-3 does not cancel; |d| = 0.25 everywhere is not below 0.25."""
    zigzag = np.tile([0.1, 0.101], 5)
    history = after([zigzag, np.full(10, 0.1), np.arange(10) ** 2 / 8, np.arange(10) ** 2], IES())
    assert mastered_by(IES(), history) == [1]
    assert mastered_by(IES(threshold=0.25), history) == [0, 1]
    assert mastered_by(IES(threshold=0.26), history) == [0, 1, 2]


def test_also_low_sees_through_straight_lines():
    """The mean of the last losses is (0.0079 + 0.5 + 0.1 + 0.07776) / 4 = 0.171; row 1 at 0.5 is above."""
    assert mastered_by(IES(also_low=True), after(CURVES, IES())) == [0]


def test_curves_are_aligned_by_visit():
    """Row 1 makes the same six visits as row 0, in other rounds; trained or rescored makes no difference."""
    policy, history = IES(), History.empty(3)
    for round, loss in enumerate(CURVES[3]):
        visit(policy, history, 2 * round, [0, 2], [loss, loss])
        visit(policy, history, 2 * round + 1, [1, 2], [loss, loss / 2])
    visits = history.notes["visits"]
    assert visits.tolist() == [6, 6, 12]
    np.testing.assert_array_equal(history.notes["bends"][:, 0], history.notes["bends"][:, 1])
    np.testing.assert_array_equal(history.notes["lately"][:, 0], CURVES[3, :3:-1])


def test_the_notes_are_those_of_a_list_of_losses():
    """Random visits of random rows, against second differences of each row's whole list."""
    rng, policy, n = np.random.default_rng(0), IES(window=2), 40
    history, curves = History.empty(n), [[] for _ in range(n)]
    for round in range(25):
        rows = np.flatnonzero(rng.random(n) < 0.6)
        losses = rng.random(len(rows), np.float32)
        losses[rng.random(len(rows)) < 0.1] = np.nan  # a fault is no visit
        visit(policy, history, round, rows, losses)
        for row, loss in zip(rows, losses, strict=True):
            curves[row] += [loss] if np.isfinite(loss) else []
        bend = np.array([np.abs(np.diff(curve, 2))[-2:].mean() if len(curve) > 3 else np.nan for curve in curves])
        np.testing.assert_allclose(history.notes["bends"].mean(0), bend, atol=1e-6)
        mastered = [row for row in range(n) if len(curves[row]) >= 5 and bend[row] < 0.5]
        assert mastered_by(IES(window=2, threshold=0.5), history) == mastered


def test_a_row_that_moves_comes_back_and_when_none_is_mastered_all_are_trained():
    policy, history = IES(), after(np.full((3, 6), 0.1), IES())
    visit(policy, history, 6, [0], [2.0])
    assert mastered_by(policy, history) == [1, 2]
    visit(policy, history, 7, [1, 2], [2.0, 2.0])
    assert mastered_by(policy, history) == []


def test_where_all_are_mastered_one_step_of_the_most_bent_is_trained():
    curves = np.full((5, 6), 0.1)
    curves[[1, 3], -1] += [3e-4, 6e-4]
    history = after(curves, IES())
    assert mastered_by(IES(), history, step_rows=1) == [0, 1, 2, 4]
    assert mastered_by(IES(), history, step_rows=2) == [0, 2, 4]
    assert mastered_by(IES(), history, step_rows=64) == []
    assert mastered_by(IES(), after(curves[:1], IES())) == []


def test_rows_never_seen_are_trained():
    policy, history = IES(also_low=True), History.empty(4)
    for round in range(8):
        visit(policy, history, round, [0, 1, 2], [0.1, np.nan, round % 2])
    assert mastered_by(policy, history) == [0]


@pytest.mark.parametrize("n", [1, 5])
def test_nothing_known_keeps_everything(n):
    assert mastered_by(IES(), History.empty(n)) == []
    history = History.empty(n)
    IES().update(history, at(0), np.random.default_rng(0))
    assert mastered_by(IES(also_low=True), history) == []


def test_a_loss_near_the_end_of_float32_is_no_mastery():
    curve = [3e38, 0.0, 3e38, 0.0, 3e38, 0.0, 0.1]
    assert mastered_by(IES(threshold=1e38), after([curve, np.full(7, 0.1)], IES())) == [1]


def test_memory_per_row_is_fixed_at_the_24_bytes_of_the_card():
    for rounds in (1, 20):
        notes = after(np.zeros((1000, rounds)), IES()).notes
        assert sum(array.nbytes for array in notes.values()) == 24_000


@pytest.mark.parametrize(("field", "value"), [("threshold", 0.0), ("threshold", np.nan), ("window", 0)])
def test_fields_outside_their_range_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"IES\({field}=...\) must be in .* got {value}"):
        IES(**{field: value})


def test_half_a_difference_is_refused():
    with pytest.raises(ValueError, match=r"IES\(window=...\) must be a whole number, got 2.5"):
        IES(window=2.5)


def test_a_step_is_filled_where_few_rows_are_left():
    policy, history, rng = IES(threshold=0.1, window=1), History.empty(10), np.random.default_rng(0)
    for turn in range(4):
        losses = np.ones(10, np.float32)
        losses[3] = turn**2
        history.record(np.arange(10), losses, round=turn)
        policy.update(history, Clock(turn, turn, 20, turn / 20), rng)
    for step_rows, kept in ((1, 1), (4, 4)):
        found = policy.select(history, Clock(4, 4, 20, 0.2, step_rows), rng)
        assert 3 in found.rows and (len(found.rows), len(found.rescore)) == (kept, 10 - kept)
