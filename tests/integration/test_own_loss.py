"""A trainer whose loss, or whose step, is of the user's own."""

import copy
import logging

import numpy as np
import pytest
import torch
import transformers as tf
from tiny import LENGTH, TASKS, Net
from torch.nn import functional as F

from hf_prune import PruningTrainer


def losses_of(ours):
    return [entry["loss"] for entry in ours.state.log_history if "loss" in entry]


class OwnLoss:
    """As the documentation of transformers has it; the parent's is not called."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        logits = outputs["logits"]
        loss = F.cross_entropy(logits, inputs["labels"])
        return (loss, outputs) if return_outputs else loss


class StockWithOwnLoss(OwnLoss, tf.Trainer):
    pass


class OursWithOwnLoss(OwnLoss, PruningTrainer):
    pass


@pytest.mark.parametrize(
    ("policy", "is_strict"),
    [("uniform:keep=1.0", True), ("ucb:keep=0.5", True), ("ucb:keep=0.5", False), ("kakurenbo", False)],
)
def test_a_compute_loss_that_does_not_call_ours_is_measured(make, policy, is_strict):
    """`Net` takes no argument but its own three."""
    model = Net(dict, 0.0) if is_strict else TASKS["one label"].model(0.0)
    ours = make(policy, OursWithOwnLoss, model=copy.deepcopy(model), learning_rate=0.0, num_train_epochs=2)
    ours.train()
    plain = make(policy, model=copy.deepcopy(model), learning_rate=0.0, num_train_epochs=2)
    plain.train()
    assert losses_of(ours) == losses_of(plain)
    np.testing.assert_array_equal(ours.history.loss, plain.history.loss)
    totals = ours.pruning_report().totals()
    assert totals["rows"] == plain.pruning_report().totals()["rows"] > 0


def test_with_everything_kept_it_trains_the_stock_bits(make):
    stock = make(cls=StockWithOwnLoss)
    ours = make("uniform:keep=1.0", OursWithOwnLoss)
    stock.train()
    ours.train()
    for name, parameter in stock.model.named_parameters():
        assert torch.equal(parameter, ours.model.get_parameter(name)), name


class Twice(PruningTrainer):
    """Computes the loss of each batch twice, as R-Drop does and attacks on the embeddings."""

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        first = super().compute_loss(model, inputs, **kwargs)
        second = super().compute_loss(model, dict(inputs), **kwargs)
        assert torch.equal(first, second)
        return (first + second) / 2


def test_a_loss_that_is_computed_twice_is_weighted_twice_and_recorded_once(make):
    twice, once = make("infobatch", Twice, num_train_epochs=4), make("infobatch", num_train_epochs=4)
    twice.train()
    once.train()
    assert losses_of(twice) == losses_of(once)
    assert twice.pruning_report().totals()["rows"] == once.pruning_report().totals()["rows"]


def test_a_model_that_stays_in_evaluation_mode_is_measured(make):
    class Frozen(Net):
        def train(self, mode=True):
            return super().train(False)

    ours = make("infobatch", model=Frozen(dict), example_loss_func=net_losses)
    ours.train()
    assert ours.pruning_report().totals()["rows"] > 0
    assert np.isfinite(ours.history.loss).all()


def net_losses(outputs, inputs):
    return F.cross_entropy(outputs["logits"], inputs["labels"], reduction="none")


def test_a_loss_of_the_users_own_is_not_smoothed(make):
    def plain(outputs, labels, num_items_in_batch=None):
        return F.cross_entropy(outputs["logits"], labels)

    def train(**more):
        model = TASKS["one label"].model(0.0, spread=0.5)
        ours = make("infobatch", model=model, compute_loss_func=plain, num_train_epochs=4, **more)
        ours.train()
        return losses_of(ours)

    assert train(label_smoothing_factor=0.2) == train()


def test_outside_of_training_batches_and_losses_are_stock(make):
    ours = make("infobatch", model=Net(dict))
    batch = next(iter(ours.get_train_dataloader()))
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    ours.model(**batch)
    ours.model.train()
    assert torch.isfinite(ours.compute_loss(ours.model, batch))
    ours.train()
    assert set(next(iter(ours.get_train_dataloader()))) == set(batch)


@pytest.mark.parametrize("policy", [None, "infobatch"])
def test_items_may_be_handed_on_by_place(make, policy):
    class ByPlace(PruningTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    task = TASKS["llama"]  # its loss is divided by them
    settings = {"rows": task.rows(), "num_train_epochs": 3, "gradient_accumulation_steps": 2}
    ours, plain = (make(policy, cls, model=task.model(0.0), **settings) for cls in (ByPlace, PruningTrainer))
    ours.train()
    plain.train()
    assert losses_of(ours) == losses_of(plain)


class Taught(PruningTrainer):
    """Distils another model, which takes no argument but its own."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
        with torch.no_grad():
            soft = self.teacher(**inputs)["logits"].softmax(-1)
        loss = loss + F.kl_div(outputs["logits"].log_softmax(-1), soft, reduction="batchmean")
        return (loss, outputs) if return_outputs else loss


class TaughtAlone(Taught):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        with torch.no_grad():
            soft = self.teacher(**inputs)["logits"].softmax(-1)
        outputs = model(**inputs)
        loss = F.kl_div(outputs["logits"].log_softmax(-1), soft, reduction="batchmean")
        return (loss, outputs) if return_outputs else loss


@pytest.mark.parametrize("cls", [Taught, TaughtAlone])
def test_a_teacher_gets_the_batch_that_its_user_made(make, cls):
    ours = make("ucb:keep=0.5", cls, num_train_epochs=2)
    ours.teacher = Net(dict, 0.0)
    ours.train()
    assert np.isfinite(ours.history.loss).all()


@pytest.mark.parametrize("policy", ["ucb:keep=0.5", "uniform:keep=0.5"])
def test_a_trainer_that_measures_nothing_is_refused_at_its_first_step(make, policy):
    class Alone(OwnLoss, PruningTrainer):
        def training_step(self, model, inputs, num_items_in_batch=None):
            inputs.pop("hf_prune_row")
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
            self.accelerator.backward(loss)
            return loss.detach()

    ours = make(policy, Alone)
    with pytest.raises(ValueError, match="never call those of hf_prune, which measure it. Call super"):
        ours.train()
    assert ours.state.global_step == 1


@pytest.mark.parametrize("labels", [lambda batch: {"a": batch}, lambda batch: batch + 3])
def test_uniform_takes_labels_that_only_the_user_knows(make, labels, caplog):
    """A mapping; classes beyond the logits', as for ordinal regression."""
    collate = make().data_collator

    def own(rows):
        batch = collate(rows)
        return batch | {"labels": labels(batch["labels"])}

    def loss(outputs, labels, num_items_in_batch=None):
        return outputs["logits"].square().mean()

    ours = make("uniform:keep=0.5", data_collator=own, compute_loss_func=loss, label_smoothing_factor=0.0)
    ours.train()
    assert ours.state.global_step == 9


@pytest.mark.parametrize("policy", ["infobatch", "ucb:keep=0.5"])
def test_an_answer_may_end_beyond_the_text(make, policy, caplog):
    """The model's loss is the mean over starts, and that over fewer ends, halved."""
    rows = TASKS["answer"].rows(24)
    for row in rows[::3]:
        row["end_positions"] = LENGTH
    with caplog.at_level(logging.WARNING, "hf_prune"):
        ours = make(policy, model=TASKS["answer"].model(0.0, 0.5), rows=rows, num_train_epochs=4)
        ours.train()
    assert "other terms" not in caplog.text and np.isfinite(ours.history.loss).all()
