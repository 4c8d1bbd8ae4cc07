"""Batches of every task, and a small model for each."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import transformers as tf
from torch import nn

from hf_prune.measure.readers import READ, recipe_for

ALL = frozenset({"loss", "correct", "confidence", "el2n", "grad_norm"})
IGNORED = -100


VOCAB, WIDTH, ROWS, LENGTH = 23, 16, 4, 9


SIZES = [9, 4, 7, 5]  # real tokens of each row


BERT = dict(vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24)


GPT2 = dict(vocab_size=VOCAB, n_embd=WIDTH, n_layer=1, n_head=2, n_positions=32, bos_token_id=1, eos_token_id=2)


BART = dict(
    **dict.fromkeys(["encoder_layers", "decoder_layers"], 1),
    **dict.fromkeys(["encoder_attention_heads", "decoder_attention_heads"], 2),
    **dict.fromkeys(["encoder_ffn_dim", "decoder_ffn_dim"], 24),
    **dict(vocab_size=VOCAB, d_model=WIDTH, max_position_embeddings=32),
    **dict(pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=2),
)


def text(rng, **extra):
    """Padded on the right: input_ids and attention_mask."""
    mask = (torch.arange(LENGTH) < torch.tensor(SIZES)[:, None]).long()
    return {"input_ids": torch.randint(3, VOCAB, (ROWS, LENGTH), generator=rng) * mask, "attention_mask": mask, **extra}


def token_labels(rng, classes, every=1):
    """A label for every `every`-th real token."""
    labels = torch.randint(0, classes, (ROWS, LENGTH), generator=rng)
    at = torch.arange(LENGTH)
    return labels.masked_fill((at >= torch.tensor(SIZES)[:, None]) | (at % every != every - 1), IGNORED)


def classes(rng, n=3):
    return torch.randint(0, n, (ROWS,), generator=rng)


@dataclass(frozen=True)
class Task:
    model: str
    config: Callable[[], tf.PreTrainedConfig]
    batch: Callable[[torch.Generator], dict]
    gives: frozenset = ALL


def bert(**extra):
    return lambda: tf.BertConfig(**BERT, **extra)


def causal_batch(rng):
    batch = text(rng)
    return batch | {"labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)}


def translation_batch(rng):
    return text(rng, labels=token_labels(rng, VOCAB))


def choice_batch(rng):
    ids = torch.randint(3, VOCAB, (ROWS, 3, LENGTH), generator=rng)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": classes(rng)}


def ending_batch(rng):  # each row ends with one end token
    ids = torch.randint(3, VOCAB, (ROWS, LENGTH), generator=rng)
    ids[:, -1] = BART["eos_token_id"]
    return {"input_ids": ids, "labels": classes(rng)}


def wave_batch(rng):
    return {"input_values": torch.randn(ROWS, 400, generator=rng), "labels": classes(rng)}


def deberta(**extra):
    return lambda: tf.DebertaV2Config(**BERT, **extra)


def span_batch(rng):  # the last row's answer lies outside of the text
    return text(rng, start_positions=torch.tensor([1, 0, 3, 99]), end_positions=torch.tensor([8, 2, 3, 99]))


TASKS = {
    "one label": Task("BertForSequenceClassification", bert(num_labels=3), lambda r: text(r, labels=classes(r))),
    "one label, named": Task(
        "BertForSequenceClassification",
        bert(num_labels=3, problem_type="single_label_classification"),
        lambda r: text(r, labels=classes(r)),
    ),
    "many labels": Task(
        "BertForSequenceClassification",
        bert(num_labels=3, problem_type="multi_label_classification"),
        lambda r: text(r, labels=torch.randint(0, 2, (ROWS, 3), generator=r).float()),
        frozenset({"loss", "correct"}),
    ),
    "many labels, unnamed": Task(
        "BertForSequenceClassification",
        bert(num_labels=3),
        lambda r: text(r, labels=torch.randint(0, 2, (ROWS, 3), generator=r).float()),
    ),
    "number": Task(
        "BertForSequenceClassification",
        bert(num_labels=1),
        lambda r: text(r, labels=torch.randn(ROWS, generator=r)),
        frozenset({"loss"}),
    ),
    "numbers": Task(
        "BertForSequenceClassification",
        bert(num_labels=3, problem_type="regression"),
        lambda r: text(r, labels=torch.randn(ROWS, 3, generator=r)),
        frozenset({"loss"}),
    ),
    "many labels, as shares": Task(
        "DebertaV2ForSequenceClassification",
        deberta(num_labels=3),
        lambda r: text(r, labels=torch.rand(ROWS, 3, generator=r).softmax(-1)),
    ),
    "number of deberta": Task(  # its logits lose a dimension with the loss
        "DebertaV2ForSequenceClassification",
        deberta(num_labels=1),
        lambda r: text(r, labels=torch.randn(ROWS, 1, generator=r)),
        frozenset({"loss"}),
    ),
    "one label of deberta": Task(
        "DebertaV2ForSequenceClassification",
        deberta(num_labels=3),
        lambda r: text(r, labels=classes(r).float()),
    ),
    "sound": Task(  # classes, whatever problem_type says
        "HubertForSequenceClassification",
        lambda: tf.HubertConfig(**BERT, num_labels=3, problem_type="regression", conv_dim=[8], conv_stride=[40],
                                conv_kernel=[40], num_feat_extract_layers=1, num_conv_pos_embeddings=4,
                                num_conv_pos_embedding_groups=2, classifier_proj_size=8),  # fmt: skip
        wave_batch,
    ),
    "gpt2 one label": Task(
        "GPT2ForSequenceClassification",
        lambda: tf.GPT2Config(**GPT2, num_labels=3, pad_token_id=0),
        lambda r: text(r, labels=classes(r)),
        ALL - {"grad_norm"},
    ),
    "bart one label": Task(
        "BartForSequenceClassification",
        lambda: tf.BartConfig(**BART, num_labels=3),
        ending_batch,
    ),
    "image": Task(
        "ViTForImageClassification",
        lambda: tf.ViTConfig(hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
                             image_size=8, patch_size=4, num_labels=3),  # fmt: skip
        lambda r: {"pixel_values": torch.randn(ROWS, 3, 8, 8, generator=r), "labels": classes(r)},
    ),
    "choice": Task("BertForMultipleChoice", bert(), choice_batch, ALL - {"grad_norm"}),
    "tokens": Task("BertForTokenClassification", bert(num_labels=5), lambda r: text(r, labels=token_labels(r, 5))),
    "masked": Task("BertForMaskedLM", bert(), lambda r: text(r, labels=token_labels(r, VOCAB, every=2))),
    "masked tokens": Task(  # labels behind the end of the text, which the model leaves out
        "BioGptForTokenClassification",
        lambda: tf.BioGptConfig(**BERT, num_labels=5, bos_token_id=1, pad_token_id=0, eos_token_id=2),
        lambda r: text(r, labels=torch.randint(0, 5, (ROWS, LENGTH), generator=r)),
    ),
    "sparse": Task(
        "ModernBertForMaskedLM",
        lambda: tf.ModernBertConfig(**BERT, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1,
                                    sep_token_id=2, global_attn_every_n_layers=1, sparse_prediction=True),
        lambda r: text(r, labels=token_labels(r, VOCAB, every=2)),
    ),
    "cpm-ant": Task(  # its labels are shifted already
        "CpmAntForCausalLM",
        lambda: tf.CpmAntConfig(vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2,
                                dim_head=8, dim_ff=24),
        lambda r: {name: value for name, value in causal_batch(r).items() if name != "attention_mask"},
        ALL - {"correct"},
    ),
    "llama": Task(
        "LlamaForCausalLM",
        lambda: tf.LlamaConfig(**BERT, num_key_value_heads=1),
        causal_batch,
        ALL - {"correct"},
    ),
    "gpt2": Task(
        "GPT2LMHeadModel",
        lambda: tf.GPT2Config(**GPT2),
        causal_batch,
        ALL - {"correct"},
    ),
    "bart's decoder": Task("BartForCausalLM", lambda: tf.BartConfig(**BART), causal_batch, ALL - {"correct"}),
    "t5": Task(
        "T5ForConditionalGeneration",
        lambda: tf.T5Config(vocab_size=VOCAB, d_model=WIDTH, d_kv=8, d_ff=24, num_layers=1, num_heads=2,
                            decoder_start_token_id=0),  # fmt: skip
        translation_batch,
        ALL - {"correct"},
    ),
    "bart": Task(
        "BartForConditionalGeneration", lambda: tf.BartConfig(**BART), translation_batch, ALL - {"correct"}
    ),
    "marian": Task("MarianMTModel", lambda: tf.MarianConfig(**BART), translation_batch, ALL - {"correct"}),
    "two berts": Task(
        "EncoderDecoderModel",
        lambda: tf.EncoderDecoderConfig.from_encoder_decoder_configs(
            tf.BertConfig(**BERT), tf.BertConfig(**BERT), decoder_start_token_id=1, pad_token_id=0
        ),
        translation_batch,
        ALL - {"correct"},
    ),
    "answer": Task("BertForQuestionAnswering", bert(), span_batch, ALL - {"grad_norm"}),
}  # fmt: skip


def build(name):
    """Model without dropout, and a batch whose rows differ in length."""
    torch.manual_seed(0)
    config = TASKS[name].config()
    model = getattr(tf, TASKS[name].model)(config).eval()
    for parameter in model.parameters():  # the random head of a new model predicts the same for every row
        nn.init.normal_(parameter, std=0.3)
    return model, TASKS[name].batch(torch.Generator().manual_seed(1))


def read(model, batch, outputs=None):
    targets = {name: batch[name] for name in READ if name in batch}
    return recipe_for(model).read(model(**batch) if outputs is None else outputs, targets)
