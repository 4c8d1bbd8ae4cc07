"""RHO-LOSS by row against Mindermann et al. 2022, by hand."""

import numpy as np
import pytest

from hf_prune import Clock, History
from hf_prune.policies.rho_loss import RHOLoss

L8 = [0.1, 0.2, 0.3, 0.4, 1.0, 2.0, 3.0, 5.0]
REFERENCE = [0.05, 0.10, 0.30, 0.10, 0.20, 1.90, 0.50, 4.90]
CLOCK = Clock(1, 1, 10, 0.1)


def history_of(losses):
    history = History.empty(len(losses))
    history.record(np.arange(len(losses)), np.asarray(losses, np.float32), 0)
    return history


def begun(policy, losses, reference):
    history = History.empty(len(losses))
    policy.begin(history, history_of(reference))
    history.record(np.arange(len(losses)), np.asarray(losses, np.float32), 0)
    return history


def chosen(policy, losses, reference, seed=0, clock=CLOCK):
    return policy.select(begun(policy, losses, reference), clock, np.random.default_rng(seed)).rows.tolist()


def test_learnable_rows_stay_and_noise_drops_out():
    """Scores .05 .10 .00 .30 .80 .10 2.50 .10: rows 6 and 4; by loss alone it would be 7 and 6."""
    assert chosen(RHOLoss(keep=0.25), L8, REFERENCE) == [4, 6]
    assert chosen(RHOLoss(keep=0.375), L8, REFERENCE) == [3, 4, 6]


def test_equal_scores_are_split_by_the_generator():
    """All scores 1.0 on data sorted by class, 600 + 300 + 100 rows: a half has 300, 150 and 50 on average."""
    losses = np.repeat([2.0, 3.0, 4.0], [600, 300, 100])
    counts = np.zeros(3)
    for seed in range(20):
        counts += np.bincount(losses[chosen(RHOLoss(keep=0.5), losses, losses - 1, seed)].astype(int) - 2)
    assert (abs(counts / 20 - [300, 150, 50]) < 4 * np.sqrt(250 * np.array([0.24, 0.21, 0.09]) / 20)).all()


def test_rows_never_seen_come_first():
    losses = [np.nan, *L8[1:5], np.nan, *L8[6:]]
    assert chosen(RHOLoss(keep=0.25), losses, REFERENCE) == [0, 5]
    assert chosen(RHOLoss(keep=0.5), losses, REFERENCE) == [0, 4, 5, 6]


def test_a_row_without_a_reference_counts_with_the_median():
    """Known references 1, 2, 6: median 2. Row 3 scores 5 - 2 = 3, after row 0 (4) and before rows 1 (1) and 2 (0)."""
    losses, reference = [5.0, 3.0, 6.0, 5.0], [1.0, 2.0, 6.0, np.nan]
    history = begun(RHOLoss(), losses, reference)
    np.testing.assert_allclose(history.notes["reference"], [1, 2, 6, 2])
    assert history.notes["reference"].dtype == np.float32
    assert chosen(RHOLoss(keep=0.25), losses, reference) == [0]
    assert chosen(RHOLoss(keep=0.5), losses, reference) == [0, 3]
    assert chosen(RHOLoss(keep=0.75), losses, reference) == [0, 1, 3]


def test_the_reference_is_no_loss_of_the_model():
    history = History.empty(8)
    RHOLoss().begin(history, history_of(REFERENCE))
    assert np.isnan(history.loss).all()
    assert (history.last_round == -1).all()
    rows = RHOLoss(keep=0.25).select(history, CLOCK, np.random.default_rng(0)).rows
    assert len(rows) == 2


def test_a_run_sees_every_row_before_scores_decide():
    policy, n = RHOLoss(keep=0.25), 8
    history = History.empty(n)
    policy.begin(history, history_of(REFERENCE))
    for t in range(5):
        rows = policy.select(history, Clock(t, t, 10, t / 10), np.random.default_rng(t)).rows
        assert (history.last_round[rows] == -1).all() or t == 4
        history.record(rows, np.array(L8, np.float32)[rows], t)
    assert (history.last_round >= 0).all()
    assert rows.tolist() == [4, 6]


def test_without_a_reference_only_the_loss_is_left():
    history = history_of(L8)
    assert RHOLoss(keep=0.25).select(history, CLOCK, np.random.default_rng(0)).rows.tolist() == [6, 7]


@pytest.mark.parametrize("earlier", [None, History.empty(8)])
def test_no_reference_is_refused_with_the_cure(earlier):
    with pytest.raises(
        ValueError, match=r"RHOLoss\(.*held-out rows.*hf-prune score --model.*history='scores'.*memorised"
    ):
        RHOLoss().begin(History.empty(8), earlier)


def test_more_kept_than_there_are_and_one_row():
    assert chosen(RHOLoss(keep=0.25), L8, REFERENCE, clock=Clock(1, 1, 10, 0.1, step_rows=64)) == list(range(8))
    assert chosen(RHOLoss(keep=0.1), [1.0], [0.5]) == [0]


@pytest.mark.parametrize(("field", "value"), [("keep", 0), ("keep", 1.5), ("unit", "steps")])
def test_fields_outside_their_range_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"RHOLoss\({field}=...\) must be .* got '?{value}"):
        RHOLoss(**{field: value})
