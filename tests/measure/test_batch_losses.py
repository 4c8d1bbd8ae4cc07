"""Models that give no loss of a row: scores from the losses of its batches (BLS, Zhou et al., 2026)."""

import logging

import inside
import numpy as np
import pytest
import torch
import transformers as tf
from tiny import TASKS, trainer
from torch.nn import functional as F
from transformers import TrainingArguments

from hf_prune import PruningTrainer
from hf_prune.measure.meter import blend
from hf_prune.train.collator import ROW


class Plain(torch.nn.Module):
    """Its loss is a mean over the batch, and it returns nothing else: no recipe knows it."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, labels=None, **inputs):
        return {"loss": ((self.layer(labels.float()[:, None])[:, 0] - labels) ** 2).mean()}


class Fused(torch.nn.Module):
    """A known model, but for the logits that its outputs lack, as with a fused loss."""

    def __new__(cls, model):
        forward = model.forward

        def fused(num_items_in_batch=None, **inputs):
            loss = forward(**inputs).loss
            if num_items_in_batch is not None:
                loss = loss * inputs["labels"].ne(-100).sum() / num_items_in_batch
            return {"loss": loss}

        model.forward = fused
        return model


def trainer_of(model, rows, folder, policy="infobatch:ratio=0.5", **settings):
    args = TrainingArguments(
        folder,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        per_device_train_batch_size=4,
        num_train_epochs=2,
        remove_unused_columns=False,
        **settings,
    )
    return PruningTrainer(model=model, args=args, train_dataset=rows, data_collator=pad, policy=policy)


def pad(rows):
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row["input_ids"]) for row in rows], batch_first=True)
    labels = torch.tensor([row["labels"] for row in rows])
    return {"input_ids": ids, "attention_mask": ids.ne(0).long(), "labels": labels}


def test_scores_by_hand():
    """The worked example: alpha 0.7, four batches of three rows, their losses 2, 1, 1 and 1.6."""
    score = np.full(6, np.nan, np.float32)
    for batch, loss in (((0, 1, 2), 2.0), ((3, 4, 5), 1.0), ((0, 3, 4), 1.0), ((1, 2, 5), 1.6)):
        rows = np.array(batch)
        score[rows] = blend(score[rows], np.full(3, loss, np.float32))
    np.testing.assert_allclose(score, [1.70, 1.88, 1.88, 1.00, 1.00, 1.18], atol=1e-6)


def test_rows_of_a_batch_share_its_loss_and_later_batches_are_blended_in(classifier, tmp_path, caplog):
    batches = []

    class Watched(PruningTrainer):
        def training_step(self, model, inputs, *args, **kwargs):
            with torch.no_grad():
                batches.append((inputs[ROW].tolist(), float(model(labels=inputs["labels"])["loss"])))
            return super().training_step(model, inputs, *args, **kwargs)

    trainer = trainer_of(Plain(), classifier[1], tmp_path, "uniform:keep=1.0")
    assert trainer.policy.needs == frozenset()  # and records nothing
    with caplog.at_level(logging.WARNING):
        trainer = trainer_of(Plain(), classifier[1], tmp_path)
        trainer.__class__ = Watched
        trainer.train()
    expected = np.full(20, np.nan, np.float32)
    for rows, loss in batches:
        expected[rows] = blend(expected[rows], np.full(len(rows), loss, np.float32))
    np.testing.assert_allclose(trainer.history.loss, expected, rtol=1e-5)
    assert len(batches) > 5
    warnings = [record.message for record in caplog.records if "mean losses of the batches" in record.message]
    assert len(warnings) == 1
    assert "example_loss_func" in warnings[0]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_fused_loss_is_noticed_on_the_first_batch(translator, tmp_path, caplog, accumulation):
    model, rows = translator

    def pairs(batch):
        ids = pad([{"input_ids": row["input_ids"], "labels": 0} for row in batch])
        labels = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(row["labels"]) for row in batch], batch_first=True, padding_value=-100
        )
        return ids | {"labels": labels}

    trainer = trainer_of(Fused(model), rows, tmp_path, gradient_accumulation_steps=accumulation)
    trainer.data_collator = pairs
    with caplog.at_level(logging.WARNING):
        trainer.train()
    warnings = [record.message for record in caplog.records if "mean losses of the batches" in record.message]
    assert len(warnings) == 1
    assert "returned no logits" in warnings[0] and "use_liger_kernel" in warnings[0]
    assert np.isfinite(trainer.history.loss).all()
    assert (np.abs(trainer.history.loss - np.log(50)) < 0.5).all()  # nats a token, whatever the accumulation


def test_weights_act_on_the_batch_by_their_mean(classifier, tmp_path):
    """On its gradient; its loss is logged as it is."""
    steps = []

    class Watched(PruningTrainer):
        def training_step(self, model, inputs, *args, **kwargs):
            stock = model(labels=inputs["labels"])["loss"]
            (gradient,) = torch.autograd.grad(stock, model.layer.weight)
            table = inside.steps(self).weights
            weights = 1.0 if table is None else table[inputs[ROW]].mean().item()
            model.zero_grad()
            loss = super().training_step(model, inputs, *args, **kwargs)
            assert loss == stock
            steps.append((model.layer.weight.grad.item(), gradient.item() * weights, weights))
            return loss

    trainer = trainer_of(Plain(), classifier[1], tmp_path, max_grad_norm=0.0)
    trainer.__class__ = Watched
    trainer.args.num_train_epochs = 4
    trainer.train()
    assert any(weights > 1 for _, _, weights in steps)
    assert all(ours == pytest.approx(expected, rel=1e-5) for ours, expected, _ in steps)


def test_other_signals_have_no_such_substitute(classifier, tmp_path):
    with pytest.raises(ValueError, match="needs confidence, correct, loss, which hf_prune can't read from a Plain"):
        trainer_of(Plain(), classifier[1], tmp_path, "kakurenbo")


class WithoutLogits(tf.LlamaForCausalLM):
    def forward(self, **inputs):
        return {"loss": super().forward(**inputs).loss}


def test_a_run_that_goes_on_still_goes_by_batches(tmp_path):
    """From the end of an epoch, whose round is closed before another batch is seen."""

    def made(folder):
        model = TASKS["llama"].model(0.0, 0.3)
        model.__class__ = WithoutLogits
        settings = {"save_strategy": "epoch", "remove_unused_columns": False}
        return trainer(tmp_path / folder, model, TASKS["llama"].rows(), "ucb:keep=0.5,period=1", **settings)

    whole, rest = made("whole"), made("rest")
    whole.train()
    rest.train(
        resume_from_checkpoint=str(sorted((tmp_path / "whole").glob("checkpoint-*"), key=lambda p: len(p.name))[0])
    )
    np.testing.assert_array_equal(whole.history.loss, rest.history.loss)


class KeepsItsMean(torch.nn.Module):
    """It takes whatever it is given, and divides by nothing of it."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 3)

    def forward(self, pixel_values, labels, **unused):
        return {"loss": F.cross_entropy(self.layer(pixel_values), labels)}


def test_a_mean_stays_one_whatever_is_accumulated(tmp_path):
    rows = [{"pixel_values": torch.ones(2), "labels": torch.tensor(0)} for _ in range(10)]
    settings = {"gradient_accumulation_steps": 4, "per_device_train_batch_size": 2, "learning_rate": 0.0}
    ours = trainer(tmp_path, KeepsItsMean(), rows, "ucb:keep=1.0", data_collator=tf.default_data_collator, **settings)
    ours.train()
    np.testing.assert_allclose(ours.history.loss, ours.history.loss[0], rtol=1e-5)
