"""Trainers and models whose loss is not the mean of the rows' losses."""

import torch
import transformers as tf
from tiny import VOCAB
from torch.nn import functional as F

CLASSES = torch.tensor([1.0, 2.0, 5.0])


class OwnLoss(tf.Trainer):
    """Makes a loss of the rows' own; `losses` gives them, and what the batch's is made of them."""

    losses = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.args.remove_unused_columns = False

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        inputs = dict(inputs)
        more = {name: inputs.pop(name) for name in ("labels", "share")}
        outputs = model(**inputs)
        losses, rest = type(self).losses(outputs, more | inputs, model)
        loss = losses.sum() + rest
        return (loss, outputs) if return_outputs else loss


def class_weighted(outputs, inputs, model=None):
    losses = F.cross_entropy(outputs.logits, inputs["labels"], weight=CLASSES, reduction="none")
    return losses / CLASSES[inputs["labels"]].sum(), 0.0


def sample_weighted(outputs, inputs, model=None):
    losses = F.cross_entropy(outputs.logits, inputs["labels"], reduction="none") * inputs["share"]
    return losses / inputs["share"].sum(), 0.0


def focal(outputs, inputs, model=None):
    losses = F.cross_entropy(outputs.logits, inputs["labels"], reduction="none")
    return (1 - torch.exp(-losses)) ** 2 * losses / len(losses), 0.0


def smoothed(outputs, inputs, model=None):
    losses = F.cross_entropy(outputs.logits, inputs["labels"], reduction="none", label_smoothing=0.1)
    return losses / len(losses), 0.0


def scaled(outputs, inputs, model=None):
    return 0.5 * F.cross_entropy(outputs.logits, inputs["labels"], reduction="none") / len(inputs["labels"]), 0.0


def regularised(outputs, inputs, model=None):
    """With a term of the parameters, that no row has."""
    losses = F.cross_entropy(outputs.logits, inputs["labels"], reduction="none") / len(inputs["labels"])
    return losses, 0.0 if model is None else 0.01 * sum(p.square().sum() for p in model.parameters())


def two_passes(outputs, inputs, model=None):
    """A second pass over the batch, and how far the two are apart."""
    again = model(input_ids=inputs["input_ids"].flip(1), attention_mask=inputs["attention_mask"].flip(1))
    labels = inputs["labels"]
    losses = [F.cross_entropy(one.logits, labels, reduction="none") for one in (outputs, again)]
    apart = F.kl_div(outputs.logits.log_softmax(1), again.logits.softmax(1), reduction="none").sum(1)
    return (sum(losses) + 0.7 * apart) / len(labels), 0.0


def mixture(experts: int, chosen: int):
    torch.manual_seed(0)
    return tf.MixtralForCausalLM(
        tf.MixtralConfig(vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
                         num_attention_heads=2, num_key_value_heads=1, num_local_experts=experts,
                         num_experts_per_tok=chosen, output_router_logits=True, router_aux_loss_coef=0.5)
    )  # fmt: skip
