"""A trainer that trains again, goes on under another policy, or leaves its policy."""

import copy
import logging

import numpy as np
import pytest
import torch
from budgets import spelled
from tiny import STOCK, TASKS

from hf_prune import History, PruningTrainer, Selection, core, policies


def losses_of(ours):
    return [entry["loss"] for entry in ours.state.log_history if "loss" in entry]


@pytest.mark.parametrize("policy", ["uniform:keep=0.5", "infobatch", "competence"])
def test_no_epoch_is_no_step(make, policy):
    assert make(policy, num_train_epochs=0).train().global_step == 0


def test_a_trainer_can_be_copied_after_a_policy_that_learns_in_the_background(make):
    ours = make("autoassist", num_train_epochs=1)
    ours.train()
    np.testing.assert_array_equal(copy.deepcopy(ours).history.loss, ours.history.loss)


def test_the_users_scheduler_counts_on_in_a_second_run(make):
    def rates(ours):
        ours.optimizer = torch.optim.SGD(ours.model.parameters(), lr=0.1)
        ours.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(ours.optimizer, lambda step: 1 / (1 + step))
        ours.train()
        ours.train()
        return [entry["learning_rate"] for entry in ours.state.log_history if "loss" in entry]

    found = rates(make("uniform:keep=1.0", num_train_epochs=2))
    assert found == rates(make(num_train_epochs=2))
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("is_new", [False, True])
def test_the_users_scheduler_is_resumed_where_it_was(make, tmp_path, is_new):
    """From a checkpoint of the first run and one of the second, by the trainer that made it and by another."""

    def begin(policy):
        ours = make(policy, num_train_epochs=2, save_strategy="steps", save_steps=8)
        ours.optimizer = torch.optim.SGD(ours.model.parameters(), lr=0.1)
        ours.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(ours.optimizer, lambda step: 1 / (1 + step))
        return ours

    def rates(policy):
        ours = begin(policy)
        ours.train()
        if is_new:
            ours.train()
            ours = begin(policy)
        ours.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-8"))
        return [entry["learning_rate"] for entry in ours.state.log_history if "loss" in entry]

    assert rates("uniform:keep=1.0") == rates(STOCK)


def test_the_users_scheduler_is_resumed_where_it_was_in_a_pruned_run(make, tmp_path):
    def rates(**more):
        ours.train(**more)
        return [entry["learning_rate"] for entry in ours.state.log_history if "loss" in entry]

    ours = make("uniform:keep=0.5", num_train_epochs=4, save_strategy="steps", save_steps=4)
    ours.optimizer = torch.optim.SGD(ours.model.parameters(), lr=0.1)
    ours.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(ours.optimizer, lambda step: 1 / (1 + step))
    whole = rates()
    assert len(set(whole)) == 12
    assert rates(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4")) == whole


def test_a_schedule_of_a_subclass_follows_the_clock(make):
    class OwnSchedule(PruningTrainer):
        def create_scheduler(self, num_training_steps, optimizer=None):
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                self.optimizer, lambda step: 1 - step / num_training_steps
            )
            return self.lr_scheduler

    ours, plain = make("infobatch", OwnSchedule), make("infobatch")
    for one in (ours, plain):
        one.args.num_train_epochs = 6
        one.train()
    rates = [[entry["learning_rate"] for entry in one.state.log_history if "loss" in entry] for one in (ours, plain)]
    assert rates[0] == pytest.approx(rates[1])
    assert ours.state.global_step < 36


@pytest.mark.slow
@pytest.mark.parametrize("name", policies.names())
def test_a_run_goes_on_under_any_other_policy(make, tmp_path, name):
    """Its memory is what it begins with, whatever the policy before had noted."""
    make("uniform:keep=0.9,cover=True", save_strategy="steps", save_steps=7, num_train_epochs=4).train()
    earlier = History.empty(22, ("el2n", "grad_norm", "correct", "base_loss"))
    rng = np.random.default_rng(0)
    signals = {one: rng.random(22).astype(np.float32) for one in earlier.signals}
    earlier.record(np.arange(22), rng.random(22).astype(np.float32), 0, **signals)
    earlier.notes["score"] = signals["el2n"]
    rows = [row | {"chosen": number % 3 != 1} for number, row in enumerate(TASKS["one label"].rows())]
    ours = make(spelled(name), rows=rows, history=earlier, num_train_epochs=4)
    ours.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-7"))
    fresh = make(spelled(name), rows=rows, history=earlier, num_train_epochs=4)
    fresh.train()
    assert ours.state.global_step == ours.state.max_steps
    assert set(ours.history.notes) - {"log_loss"} == set(fresh.history.notes) - {"log_loss"}  # what it has learnt of
    assert set(ours.history.signals) == set(fresh.history.signals)
    assert ours.history.last_round.max() == fresh.history.last_round.max()


def test_the_same_policy_with_another_share_takes_that(make, tmp_path):
    earlier = History.empty(22)
    earlier.record(np.arange(22), np.arange(22, dtype=np.float32), 0)
    more = {"history": earlier, "num_train_epochs": 4}
    make("large_batch_filter:ratio=0.1", save_strategy="steps", save_steps=6, **more).train()
    ours = make("large_batch_filter:ratio=0.5", **more)
    ours.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-6"))
    assert [epoch["rows"] for epoch in ours.pruning_report().epochs] == [20, 20, 11, 11]  # begun under the first one


def test_another_policy_begins_with_what_it_needs(make):
    ours, fresh = make("uniform", num_train_epochs=3), make("competence:rounds=1", num_train_epochs=3)
    ours.train()
    ours.policy = "competence:rounds=1"
    ours.train()
    fresh.train()
    np.testing.assert_array_equal(ours.history.tokens > 0, fresh.history.tokens > 0)
    kept = [[epoch["rows"] for epoch in one.pruning_report().epochs] for one in (ours, fresh)]
    assert kept[0] == kept[1]


def test_a_list_may_grow_between_runs(make):
    rows = TASKS["one label"].rows()
    ours = make("uniform:keep=0.5,unit=tokens", rows=rows)
    rows += TASKS["one label"].rows(8)
    ours.train()
    assert len(ours.history) == 30


def test_data_that_are_not_skipped_are_told_to_be_trained_twice(make, tmp_path, caplog):
    make("uniform:keep=1.0", save_strategy="steps", save_steps=4, num_train_epochs=2).train()
    ours = make("uniform:keep=1.0", ignore_data_skip=True, num_train_epochs=2)
    with caplog.at_level(logging.WARNING, "hf_prune"):
        ours.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    assert "the rows of 4 steps of this epoch are trained twice" in caplog.text


def test_a_rate_that_can_not_be_scaled_is_told(make, caplog):
    settings = {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch"}
    ours = make(Slower(), eval_dataset=TASKS["one label"].rows(4), **settings)
    with caplog.at_level(logging.WARNING, "hf_prune"):
        ours.train()
    assert "multiplies the learning rate of this round by 0.5, which only a LambdaLR" in caplog.text


class Slower(policies.find("uniform")):
    def select(self, history, clock, rng):
        return Selection(np.arange(len(history)), lr_scale=0.5)


def test_without_its_policy_a_trainer_forgets_the_run(make):
    ours = make("uniform:keep=0.5")
    ours.train()
    ours.policy = None
    ours.train()
    assert ours.history is None and not any("prune/rows" in entry for entry in ours.state.log_history)


def test_a_history_of_arrays_alone_is_taken_as_one(make):
    """As of `hf_prune.core`, which has no files."""
    ours = make("uniform:keep=0.5", num_train_epochs=1)
    ours.train()
    arrays = core.History.from_arrays(ours.history.arrays())
    chosen = []
    for earlier in (ours.history, arrays):
        again = make("ucb", num_train_epochs=1, history=earlier)
        again.train()
        chosen.append(again.history.arrays())
    np.testing.assert_equal(*chosen)
