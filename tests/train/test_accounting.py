"""What rounds cost, by hand."""

import math

import numpy as np
import pytest

from hf_prune import Selection
from hf_prune.core import Clock
from hf_prune.measure.recorder import Drained, Measurements
from hf_prune.train.accounting import account_of, cost_of, counts, progress
from hf_prune.train.rounds import Round
from hf_prune.train.schedule import Place, UnprunedSchedule

FULL = UnprunedSchedule(updates=10, steps=15, epochs=1.5, by_steps=False)
CLOCK = Clock(round=1, epoch=1, epochs=1.5, share=2 / 3)


def round_of(**more):
    """The last, half epoch of a run: 8 of 40 rows, whose whole pass would take 4 steps."""
    return Round(CLOCK, FULL.plan(Place(1), 10, 4), Selection(np.arange(8)), (0, 40), **more)


def measured_of(rows, tokens, positions):
    rows = np.array(rows)
    return Measurements(rows, np.full(len(rows), tokens), np.zeros((1, len(rows)), np.float32), positions)


def test_a_fraction_of_an_epoch_offers_that_fraction_of_the_rows():
    account = account_of(round_of(), 12, FULL, np.full(40, 5), measured_of([0, 1, 2, 2], 5, 24), 1, None)
    assert (account["rows_offered"], account["tokens_offered"]) == (20, 100)  # 2 of the 4 steps that a pass takes
    assert (account["rows"], account["rows_repeated"], account["rows_rescored"]) == (4, 1, 0)
    assert (account["tokens"], account["padded_tokens"], account["padding"]) == (20, 24, 4)
    assert (account["steps"], account["steps_full"]) == (2, 5)


def test_tokens_that_are_not_told_apart_make_no_padding():
    account = account_of(round_of(), 12, FULL, np.zeros(40, int), measured_of([0, 1], -1, 24), 0, None)
    assert (account["tokens"], account["tokens_offered"], account["padding"]) == (0, 0, 0)


def test_a_round_that_was_cut_anew_counts_what_came_before():
    current = round_of(rest=np.arange(4), steps_before=3)  # of 8 rows
    current.plan = FULL.plan(Place(1), 13, 2, current.share_before)
    assert (current.share(13), current.share(14), current.steps(14)) == (0.5, 0.75, 4)


EPOCH = {
    **{"rows": 10, "rows_rescored": 2, "padded_tokens": 100, "padded_tokens_rescored": 20},
    **{"seconds_training": 4.0, "seconds_selecting": 1.0, "seconds_rescoring": 0.5},
}


def test_the_cost_of_a_run_holds_what_was_rescored():
    assert cost_of([EPOCH, EPOCH]) == {"runs": 1, "rows": 24, "tokens": 240, "seconds": 11}
    assert cost_of([]) == {"runs": 1, "rows": 0, "tokens": 0, "seconds": 0}


@pytest.mark.parametrize("positions", [0, 30])
def test_counts_are_of_all_epochs_and_the_round_in_progress(positions):
    current = round_of(seconds_selecting=0.25, seconds_training=2.0)
    tokens = {"prune/tokens": 130} if positions else {}  # images have none
    assert counts([EPOCH], current, 3, positions) == {
        "prune/rows": 13,
        **tokens,
        "prune/seconds": 1.25,
        "prune/seconds_training": 6.5,
    }


def test_progress_leaves_faults_out():
    losses, weights = np.float32([1, math.inf, 3]), np.float32([3, 9, 1])
    logs = progress(Drained(losses, weights, np.array([2, 2, 2]), 8), 0.5)
    assert logs.pop("prune/loss_weighted") == 1.5
    assert logs == pytest.approx(
        {
            "prune/kept": 0.5,
            "prune/padding": 0.25,
            "prune/loss_p10": 1.2,
            "prune/loss_p50": 2.0,
            "prune/loss_p90": 2.8,
        }
    )
    assert progress(Drained(losses[:0], None, np.empty(0, int), 0), 1.0) == {"prune/kept": 1.0}
