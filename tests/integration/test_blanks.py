"""Visits of a row without any target, as when a random mask falls on no token: no fault, and no end of its chances."""

import logging

import numpy as np
import pytest
import tiny
import torch
import transformers as tf
from tiny import IGNORED, TASKS

from hf_prune import Clock, History
from hf_prune.policies.epsilon_greedy import EpsilonGreedy
from hf_prune.policies.self_paced import SelfPaced
from hf_prune.policies.stale_sb import StaleSB
from hf_prune.policies.uniform import Uniform
from hf_prune.train.checkpoint import PruningState

BUDGETS = {
    "uniform": Uniform(keep=0.5),
    "uniform, cover": Uniform(keep=0.5, cover=True),
    "epsilon_greedy": EpsilonGreedy(keep=0.5, period=1),
    "epsilon_greedy, period": EpsilonGreedy(keep=0.5, period=10),
    "self_paced": SelfPaced(start=0.5, ramp=1000),
    "stale_sb": StaleSB(keep=0.5),
}


def visits(policy, chance, rounds=60):
    """How often each of 400 rows is trained, and whether it was ever measured; `chance` of a target in a visit."""
    history, rng, n = History.empty(400), np.random.default_rng(0), 400
    trained = np.zeros(n, int)
    policy.begin(history, None)
    for round in range(rounds):
        clock = Clock(round, round, rounds, round / rounds)
        rows = policy.select(history, clock, rng).check(n).rows
        trained[rows] += 1
        has_target = rng.random(len(rows)) < chance[rows]
        history.record_blanks(rows[~has_target])
        history.record(rows[has_target], rng.exponential(size=has_target.sum()).astype(np.float32), round)
        policy.update(history, clock, rng)
    return trained, history


@pytest.mark.parametrize("name", BUDGETS)
def test_rows_that_never_have_a_target_take_little_of_a_budget(name):
    chance = np.where(np.arange(400) < 100, 0.0, 1.0)
    trained, history = visits(BUDGETS[name], chance)
    assert trained[:100].mean() < (16 if "period" in name else 8) < trained[100:].mean()  # 60 rounds, half of the rows
    assert (trained[:100] > 0).all() or name == "self_paced"
    assert not history.faults.any() and not history.never_finite.any()


@pytest.mark.parametrize("name", BUDGETS)
def test_rows_whose_targets_are_drawn_are_all_measured_in_time(name):
    trained, history = visits(BUDGETS[name], np.full(400, 0.56))  # 5 tokens, each masked in 15 %
    if name != "uniform":
        assert np.isnan(history.loss).mean() < 0.03
    assert (trained > 0).all()
    assert not history.faults.any()


def test_chances_by_hand():
    history, rng = History.empty(5), np.random.default_rng(0)
    assert (history.blanks is None) and (history.hope == 1).all() and not history.set_aside(rng).any()
    assert rng.random() == np.random.default_rng(0).random()  # nothing was drawn
    for rows in ([0, 1, 4], [1], [1]):
        history.record_blanks(np.array(rows))
    history.record(np.array([4]), np.array([0.5], np.float32), 0)
    for round in range(3):
        history.record(np.array([2]), np.array([np.nan], np.float32), round)
    assert history.hope.tolist() == [1 / 2, 1 / 8, 0, 1, 1]
    aside = np.mean([history.set_aside(rng) for _ in range(4000)], axis=0)
    np.testing.assert_allclose(aside, [1 / 2, 7 / 8, 1, 0, 0], atol=0.03)
    for _ in range(300):
        history.record_blanks(np.array([0]))
    assert history.blanks.tolist() == [255, 3, 0, 0, 1]
    assert history.hope[0] == 0 and not history.never_finite[0]


def test_they_are_kept_in_files_where_there_are_any_and_taken_over(tmp_path):
    history = History.empty(3)
    assert "blanks" not in history.arrays()
    history.record_blanks(np.array([2]))
    history.save(tmp_path / "history.safetensors")
    again = History.load(tmp_path / "history.safetensors", rows=3)
    assert again.blanks.tolist() == [0, 0, 1] and again.blanks.dtype == np.uint8
    assert History.empty(3).transfer_from(again).blanks.tolist() == [0, 0, 1]


# ---- In training ----


def masked(share):
    """A collator that masks tokens at random, as that of transformers does."""

    def collate(rows):
        batch = tiny.Collator()(rows)
        labels, real = batch["input_ids"].clone(), batch["attention_mask"].bool()
        chosen = (torch.rand(labels.shape) < share) & real
        batch["labels"] = labels.masked_fill(~chosen, IGNORED)
        batch["input_ids"] = batch["input_ids"].masked_fill(chosen, 2)
        return batch

    return collate


def short_texts(n=60):
    return [{"input_ids": row["input_ids"][:3]} for row in TASKS["masked"].rows(n)]


def test_short_texts_under_random_masks_are_neither_faulty_nor_given_up(tmp_path):
    settings = dict(data_collator=masked(0.2), num_train_epochs=12, logging_steps=1000, per_device_train_batch_size=10)
    policy = "epsilon_greedy:keep=0.7,period=1"
    ours = tiny.trainer(tmp_path, TASKS["masked"].model(), short_texts(), policy, **settings)
    ours.train()
    history = ours.history
    assert history.blanks.any() and not history.faults.any() and not history.never_finite.any()
    assert np.isfinite(history.loss).mean() > 0.9
    report = ours.pruning_report()
    assert report.faults == 0 and "NaN or infinite" not in report.card()
    assert (report.dynamics.times_measured < report.dynamics.times_trained).any()


def test_a_run_that_is_resumed_gives_the_same_chances(tmp_path):
    settings = dict(num_train_epochs=6, logging_steps=1000, save_strategy="epoch", dropout=0.0)
    task, rows = TASKS["tokens"], TASKS["tokens"].rows(16)
    for row in rows[:6]:
        row["labels"] = [IGNORED] * len(row["labels"])
    model = task.model(settings.pop("dropout"))
    whole = tiny.trainer(tmp_path, model, rows, "epsilon_greedy:keep=0.5,period=1", **settings)
    whole.train()
    assert whole.history.blanks.any()
    for epoch in (2, 4):
        folder = tmp_path / f"checkpoint-{epoch * whole.state.global_step // 6}"
        state, _ = PruningState.load(folder, 16)
        assert state.history.blanks is not None
        again = tiny.trainer(tmp_path / "again", task.model(0.0), rows, "epsilon_greedy:keep=0.5,period=1", **settings)
        again.train(resume_from_checkpoint=str(folder))
        for name, array in whole.history.arrays().items():
            np.testing.assert_array_equal(again.history.arrays()[name], array, err_msg=name)


@pytest.mark.parametrize("name", ["tokens", "masked", "llama", "t5", "answer", "one label"])
def test_rows_whose_labels_are_all_ignored_take_little_of_a_budget(tmp_path, name):
    task, empty = TASKS[name], np.arange(16)
    rows = task.rows(40)
    for row in rows[: len(empty)]:
        for label in {"labels", "start_positions", "end_positions"} & set(row):
            beyond = tiny.LENGTH if name == "answer" else IGNORED
            row[label] = [beyond] * len(row[label]) if isinstance(row[label], list) else beyond
    settings = dict(num_train_epochs=16, per_device_train_batch_size=10, is_pair=task.is_pair, logging_steps=1000)
    ours = tiny.trainer(tmp_path, task.model(), rows, "ucb:keep=0.5,period=1", **settings)
    ours.train()
    assert not ours.history.faults.any()
    assert (ours.history.last_round[empty] == -1).all() and np.isfinite(ours.history.loss[16:]).all()
    trained = ours.pruning_report().dynamics.times_trained
    assert 1 <= trained[empty].mean() < 7 < trained[16:].mean()


def test_joined_rows_without_a_target_are_no_fault(tmp_path):
    rows = TASKS["llama"].rows(12)
    for row in rows[:3]:
        row["labels"] = [IGNORED] * len(row["labels"])
    settings = dict(data_collator=tf.DataCollatorWithFlattening(), num_train_epochs=2)
    ours = tiny.trainer(tmp_path, TASKS["llama"].model(), rows, "infobatch", **settings)
    ours.train()
    assert ours.history.blanks.tolist() == [2] * 3 + [0] * 9
    assert not ours.history.faults.any()


def test_a_batch_without_a_target_tells_nothing_where_batches_are_all_that_is_measured(tmp_path, caplog):
    rows = TASKS["llama"].rows(12)
    for row in rows[:4]:
        row["labels"] = [IGNORED] * len(row["labels"])
    model = TASKS["llama"].model()
    forward = model.forward
    model.forward = lambda **inputs: {"loss": forward(**inputs).loss}  # as a fused loss that makes no logits
    settings = dict(num_train_epochs=2, train_sampling_strategy="sequential", remove_unused_columns=False)
    ours = tiny.trainer(tmp_path, model, rows, "ucb:keep=1.0", **settings)
    with caplog.at_level(logging.WARNING, "hf_prune"):
        ours.train()
    assert "goes by the mean losses of the batches" in caplog.text
    assert ours.history.blanks.tolist() == [2] * 4 + [0] * 8
    assert not ours.history.faults.any() and np.isfinite(ours.history.loss[4:]).all()


def test_a_nan_of_ones_own_losses_is_a_fault(tmp_path):
    def losses(outputs, inputs):
        found = outputs.logits.logsumexp(-1) - outputs.logits[:, 0]
        return found.masked_fill(inputs["labels"] == 2, torch.nan)

    rows = TASKS["one label"].rows()
    bad = np.array([row["labels"] == 2 for row in rows])
    settings = dict(num_train_epochs=2, example_loss_func=losses)
    ours = tiny.trainer(tmp_path, TASKS["one label"].model(), rows, "uniform:keep=1.0", **settings)
    ours.train()
    assert ours.history.faults.tolist() == (2 * bad).tolist() and bad.any()
    assert ours.history.blanks is None
