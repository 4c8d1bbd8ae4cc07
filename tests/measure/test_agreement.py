"""What the recorded losses leave out of the loss that is trained: told once, at the end of a round."""

import logging

import numpy as np
import own_losses
import pytest
import torch
import transformers as tf
from own_losses import OwnLoss, class_weighted, focal, mixture, sample_weighted, two_passes
from tiny import TASKS, VOCAB, Collator, trainer
from torch.nn import functional as F

from hf_prune import pruned
from hf_prune.measure.agreement import Agreement

# Of EncoderDecoderModel, whenever it computes a loss.
pytestmark = pytest.mark.filterwarnings("ignore:Version v4.12.0 introduces a better way:FutureWarning")


def findings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if "recorded losses leave out" in record.getMessage()]


BALANCED = [{"input_ids": [3 + i % 20] * 5, "labels": i % 4, "share": 1 + i % 3} for i in range(64)]
SETTINGS = dict(num_train_epochs=6, learning_rate=0.03, per_device_train_batch_size=8, logging_steps=100)


def four_classes():
    torch.manual_seed(0)
    return tf.BertForSequenceClassification(
        tf.BertConfig(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                      intermediate_size=24, num_labels=4)
    )  # fmt: skip


def mild(outputs, inputs, model=None):
    """Class weights that a fresh head hides."""
    weights = torch.tensor([1.0, 2.0, 1.0, 1.0])
    losses = F.cross_entropy(outputs.logits, inputs["labels"], weight=weights, reduction="none")
    return losses / weights[inputs["labels"]].sum(), 0.0


def run_own(folder, kind, policy, **own):
    cls = pruned(type("Mine", (OwnLoss,), {"losses": staticmethod(kind)}))
    quiet = dict(use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="no", seed=3, remove_unused_columns=False)
    args = tf.TrainingArguments(str(folder), **quiet | SETTINGS)
    made = cls(model=four_classes(), args=args, train_dataset=BALANCED, policy=policy, data_collator=Collator(), **own)
    made.train()
    return made


@pytest.mark.parametrize("policy", ["infobatch", "self_paced", "uniform:keep=0.5"])
@pytest.mark.parametrize("kind", [class_weighted, sample_weighted, focal, two_passes, mild], ids=lambda k: k.__name__)
def test_weights_and_other_terms_are_told_at_the_end_of_a_round(tmp_path, caplog, kind, policy, monkeypatch):
    monkeypatch.setattr(own_losses, "CLASSES", torch.tensor([1.0, 2.0, 5.0, 1.0]))
    with caplog.at_level(logging.WARNING, "hf_prune"):
        run_own(tmp_path, kind, policy)
    (warning,) = findings(caplog)
    assert "BertForSequenceClassification" in warning and "example_loss_func" in warning


class Doubling(OwnLoss):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        copies = 1 if self.state.epoch < 3 else 2
        texts = {name: torch.cat([inputs[name]] * copies) for name in ("input_ids", "attention_mask")}
        return F.cross_entropy(model(**texts).logits, torch.cat([inputs["labels"]] * copies))


@pytest.mark.parametrize("policy", ["infobatch", "self_paced"])
def test_batches_that_change_their_form_later_end_no_run(tmp_path, caplog, policy):
    args = dict(use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="no", seed=3) | SETTINGS
    args = tf.TrainingArguments(str(tmp_path), **args)
    made = pruned(Doubling)(
        model=four_classes(), args=args, train_dataset=BALANCED, policy=policy, data_collator=Collator()
    )
    with caplog.at_level(logging.WARNING, "hf_prune"):
        made.train()
    assert made.state.epoch == 6 and not made.history.faults.any()
    told = [record.getMessage() for record in caplog.records if "of every batch" in record.getMessage()]
    assert len(told) == 1 and ("weight" in told[0]) == (policy == "infobatch")


@pytest.mark.parametrize("policy", ["infobatch", "self_paced"])
def test_the_users_own_losses_are_believed(tmp_path, caplog, policy, monkeypatch):
    monkeypatch.setattr(own_losses, "CLASSES", torch.tensor([1.0, 2.0, 5.0, 1.0]))

    def own(outputs, inputs):
        return F.cross_entropy(outputs.logits, inputs["labels"], weight=own_losses.CLASSES, reduction="none")

    with caplog.at_level(logging.WARNING, "hf_prune"):
        made = run_own(tmp_path, class_weighted, policy, example_loss_func=own)
    assert not findings(caplog) and np.isfinite(made.history.loss[made.history.last_round >= 0]).all()


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("name", TASKS)
def test_of_a_stock_loss_nothing_is_told(tmp_path, caplog, name, smoothing, accumulation):
    task = TASKS[name]
    if smoothing and name in ("many labels", "number"):
        pytest.skip("has no classes to smooth")
    collator = Collator(task.model().prepare_decoder_input_ids_from_labels if task.is_pair else None)
    settings = dict(label_smoothing_factor=smoothing, gradient_accumulation_steps=accumulation, data_collator=collator)
    with caplog.at_level(logging.WARNING, "hf_prune"):
        trainer(tmp_path, task.model(), task.rows(), "infobatch", task.is_pair, num_train_epochs=2, **settings).train()
    assert not findings(caplog)


@pytest.mark.parametrize("name", ["one label", "many labels", "answer", "t5", "llama"])
def test_of_a_stock_loss_in_bfloat16_nothing_is_told(tmp_path, caplog, name):
    task = TASKS[name]
    model = task.model().bfloat16()
    with caplog.at_level(logging.WARNING, "hf_prune"):
        trainer(tmp_path, model, task.rows(), "infobatch", task.is_pair, num_train_epochs=6, learning_rate=0.05).train()
    assert not findings(caplog)


@pytest.mark.parametrize(("experts", "chosen"), [(2, 1), (16, 8)])
def test_of_a_mixtures_router_nothing_is_told(tmp_path, caplog, experts, chosen):
    with caplog.at_level(logging.WARNING, "hf_prune"):
        trainer(tmp_path, mixture(experts, chosen), TASKS["llama"].rows(), "infobatch", num_train_epochs=8).train()
    assert not findings(caplog)


def test_agreement_by_hand():
    logits, count = torch.zeros(2, 1), torch.tensor(4)
    agreement = Agreement({1.0, 0.5})
    assert agreement.flaw() is None  # nothing is known
    for mean in (1.75, 3.5):
        agreement.add(torch.tensor(mean * 4 / 8), logits, torch.tensor(mean), count, items=8)  # a step of two batches
    assert agreement.flaw() is None
    for mean, loss in ((torch.inf, 9.0), (torch.nan, 9.0), (0.0, 9.0)):
        agreement.add(torch.tensor(loss), logits, torch.tensor(mean), count, items=8)
    assert agreement.flaw() is None  # none of these tells
    for off in (0.0, 0.5, 1.0):
        agreement.add(torch.tensor(2.0 + off), logits, torch.tensor(2.0), count, items=8)
    assert agreement.flaw() == "was 1.05 to 1.45 times the mean of its rows' losses"
    agreement.add(torch.tensor(3.0), logits, torch.tensor(2.0), count, items=None)
    assert agreement.flaw() == "was 1.5 to 1.5 times the mean of its rows' losses"
    agreement.add(torch.tensor(2.01).bfloat16(), logits, torch.tensor(2.0), count, items=None)
    assert agreement.flaw() is None
