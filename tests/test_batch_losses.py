"""Models that give no loss of a row: scores from the losses of its batches (BLS, Zhou et al., 2026)."""

import logging

import numpy as np
import pytest
import torch
from transformers import TrainingArguments

from hf_prune import PruningTrainer
from hf_prune.meter import blend


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
        def compute_loss(self, model, inputs, *args, **kwargs):
            rows = inputs["hf_prune_row"].tolist()
            with torch.no_grad():
                batches.append((rows, float(model(**{k: v for k, v in inputs.items() if k == "labels"})["loss"])))
            return super().compute_loss(model, inputs, *args, **kwargs)

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
    losses = []

    class Watched(PruningTrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            rows = inputs["hf_prune_row"]
            stock = model(labels=inputs["labels"])["loss"].item()
            weights = None if self._weights is None else self._weights[rows].mean().item()
            loss = super().compute_loss(model, inputs, *args, **kwargs)
            losses.append((loss.item(), stock, weights))
            return loss

    trainer = trainer_of(Plain(), classifier[1], tmp_path)
    trainer.__class__ = Watched
    trainer.args.num_train_epochs = 4
    trainer.train()
    weighted = [entry for entry in losses if entry[2] is not None]
    assert any(weight > 1 for _, _, weight in weighted)
    assert all(loss == pytest.approx(stock * (weight or 1)) for loss, stock, weight in losses)


def test_other_signals_have_no_such_substitute(classifier, tmp_path):
    with pytest.raises(ValueError, match="needs confidence, correct, loss, which hf_prune can't read from a Plain"):
        trainer_of(Plain(), classifier[1], tmp_path, "kakurenbo")
