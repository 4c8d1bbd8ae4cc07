"""What a budget keeps where rows, or losses, are few."""

import logging

import numpy as np
import pytest
from budgets import FROM_NOTHING

from hf_prune import History, policies
from hf_prune.core import Clock


def test_rounds_of_a_single_step_are_warned_of(make, caplog):
    with caplog.at_level(logging.WARNING, "hf_prune"):
        make("competence", num_train_epochs=1).train()  # 6 steps, 8 rounds
    assert "cuts an epoch into 8 rounds, and a round trains one optimizer step at least" in caplog.text


@pytest.mark.parametrize("name", FROM_NOTHING)
def test_rows_that_never_have_a_loss_come_last(name):
    """Of 16 rows, 8 gave none three times: half of the rows have room for the others."""
    policy, history, rng = policies.make(FROM_NOTHING[name]), History.empty(16), np.random.default_rng(0)
    policy.begin(history, None)
    losses = np.where(np.arange(16) < 8, np.nan, rng.random(16)).astype(np.float32)
    clock = Clock(round=0, epoch=0, epochs=10, share=0.0)
    for tries in range(3):
        assert tries == 0 or policy.select(history, clock, rng).rows.min() < 8
        clock = Clock(round=tries, epoch=tries, epochs=20, share=tries / 20)
        history.record(np.arange(16), losses, tries)
        policy.update(history, clock, rng)
    clock = Clock(round=3, epoch=3, epochs=20, share=0.15)
    assert policy.select(history, clock, rng).rows.min() >= 8


def test_rules_keep_what_fills_a_step(make):
    """Where all rows but two are mastered, or but few are drawn."""
    for policy in ("ies:window=1,threshold=1000.0", "stale_sb:keep=0.01,stale=inf"):
        ours = make(policy, num_train_epochs=7, dataloader_drop_last=True)
        ours.train()
        assert ours.state.epoch == 7
