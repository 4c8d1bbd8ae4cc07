"""A model of one layer and rows for every task, and training runs on them that take a fraction of a second.

`batches.TASKS` has a ready batch in place of rows, for tests of one forward pass.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers as tf
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from hf_prune import PruningSeq2SeqTrainer, PruningTrainer

VOCAB, WIDTH, LENGTH, IGNORED = 31, 16, 9, -100
STOCK = "the stock trainer"


# ---- Rows: dicts of plain numbers and lists, as they come out of a data set ----


def text(rng: np.random.Generator, **more) -> dict:
    return {"input_ids": rng.integers(3, VOCAB, rng.integers(3, LENGTH + 1)).tolist(), **more}


def padded(row: dict) -> dict:
    """The same row at full length."""
    mask = [int(at < len(row["input_ids"])) for at in range(LENGTH)]
    return {**row, "input_ids": (row["input_ids"] + [0] * LENGTH)[:LENGTH], "attention_mask": mask}


def causal(rng):
    row = text(rng)
    return row | {"labels": row["input_ids"]}


def pair(rng):
    return text(rng, labels=rng.integers(3, VOCAB, rng.integers(2, LENGTH)).tolist())


def tagged(rng, classes: int, share: float):
    """A label for a share of the tokens, at least one."""
    row = text(rng)
    labels = rng.integers(0, classes, len(row["input_ids"]))
    labels[1:][rng.random(len(labels) - 1) > share] = IGNORED
    return row | {"labels": labels.tolist()}


def choices(rng):
    texts = [padded(text(rng)) for _ in range(3)]
    return {name: [one[name] for one in texts] for name in texts[0]} | {"labels": int(rng.integers(3))}


def span(rng):  # padded already, because the padding is among the classes
    return padded(text(rng, start_positions=int(rng.integers(LENGTH)), end_positions=int(rng.integers(LENGTH))))


def image(rng):
    return {"pixel_values": rng.standard_normal((3, 8, 8)).astype(np.float32).tolist(), "labels": int(rng.integers(3))}


# ---- Models ----


def bert(model: str, **more):
    sizes = dict(vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24)
    return lambda p: getattr(tf, model)(
        tf.BertConfig(**sizes, **more, hidden_dropout_prob=p, attention_probs_dropout_prob=p)
    )


def bart(model: str, config: str):
    sizes = dict(d_model=WIDTH, max_position_embeddings=32, vocab_size=VOCAB)
    for part in ("encoder", "decoder"):
        sizes |= {f"{part}_layers": 1, f"{part}_attention_heads": 2, f"{part}_ffn_dim": 24}
    ids = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None)
    return lambda p: getattr(tf, model)(getattr(tf, config)(**sizes, **ids, dropout=p, attention_dropout=p))


def t5(p):
    sizes = dict(vocab_size=VOCAB, d_model=WIDTH, d_kv=8, d_ff=24, num_layers=1, num_heads=2)
    return tf.T5ForConditionalGeneration(tf.T5Config(**sizes, decoder_start_token_id=0, dropout_rate=p))


def llama(p):
    sizes = dict(vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=24, num_hidden_layers=1)
    return tf.LlamaForCausalLM(
        tf.LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=1, attention_dropout=p)
    )


def gpt2(p):
    sizes = dict(vocab_size=VOCAB, n_embd=WIDTH, n_layer=1, n_head=2, n_positions=32, bos_token_id=1, eos_token_id=2)
    return tf.GPT2LMHeadModel(tf.GPT2Config(**sizes, resid_pdrop=p, embd_pdrop=p, attn_pdrop=p))


def vit(p):
    sizes = dict(image_size=8, patch_size=4, hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2)
    return tf.ViTForImageClassification(
        tf.ViTConfig(**sizes, intermediate_size=24, num_labels=3, hidden_dropout_prob=p, attention_probs_dropout_prob=p)
    )


@dataclass(frozen=True)
class Task:
    """A kind of model and its rows.

    Args:
        make: Probability of dropout -> model.
        row: One random row.
        is_pair: Whether the labels are a text that a decoder reads.
    """

    make: Callable[[float], Any]
    row: Callable[[np.random.Generator], dict]
    is_pair: bool = False

    def model(self, dropout: float = 0.1, spread: float = 0.0) -> Any:
        """Always the same; `spread` moves every parameter, so that no two rows have about the same loss."""
        torch.manual_seed(0)
        model = self.make(dropout)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += spread * torch.randn_like(parameter)
        return model

    def rows(self, n: int = 22) -> list[dict]:
        rng = np.random.default_rng(1)
        return [self.row(rng) for _ in range(n)]


_SEQUENCES = "BertForSequenceClassification"
TASKS = {
    "one label": Task(bert(_SEQUENCES, num_labels=3), lambda r: text(r, labels=int(r.integers(3)))),
    "many labels": Task(
        bert(_SEQUENCES, num_labels=3, problem_type="multi_label_classification"),
        lambda r: text(r, labels=r.integers(0, 2, 3).astype(float).tolist()),
    ),
    "number": Task(bert(_SEQUENCES, num_labels=1), lambda r: text(r, labels=float(r.standard_normal()))),
    "image": Task(vit, image),
    "choice": Task(bert("BertForMultipleChoice"), choices),
    "tokens": Task(bert("BertForTokenClassification", num_labels=3), lambda r: tagged(r, 3, share=0.4)),
    "masked": Task(bert("BertForMaskedLM"), lambda r: tagged(r, VOCAB, share=0.4)),
    "llama": Task(llama, causal),
    "gpt2": Task(gpt2, causal),
    "t5": Task(t5, pair, is_pair=True),
    "bart": Task(bart("BartForConditionalGeneration", "BartConfig"), pair, is_pair=True),
    "marian": Task(bart("MarianMTModel", "MarianConfig"), pair, is_pair=True),
    "answer": Task(bert("BertForQuestionAnswering"), span),
}


@dataclass
class Collator:
    """Pads lists of numbers on the right and stacks the rest.

    Args:
        decoder_inputs: Labels -> what the decoder reads, for a trainer that takes the labels away from the model.
    """

    decoder_inputs: Callable[[torch.Tensor], torch.Tensor] | None = None

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        rows = [{"attention_mask": [1] * len(row["input_ids"])} | row if "input_ids" in row else row for row in rows]
        batch = {}
        for name in rows[0]:
            values = [torch.as_tensor(row[name]) for row in rows]
            if values[0].dim() == 1:
                batch[name] = pad_sequence(values, batch_first=True, padding_value=IGNORED if name == "labels" else 0)
            else:
                batch[name] = torch.stack(values)
        if self.decoder_inputs is not None:
            batch["decoder_input_ids"] = self.decoder_inputs(batch["labels"])
        return batch


class Rows(torch.utils.data.Dataset):
    """A data set of PyTorch's."""

    def __init__(self, rows: list[dict]):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, row: int) -> dict:
        return self.rows[row]


class Net(nn.Module):
    """A classifier that transformers knows nothing of; gives its loss and its logits.

    Args:
        gives: The type that they come in.
    """

    def __init__(self, gives: type, dropout: float = 0.1):
        super().__init__()
        torch.manual_seed(0)
        self.gives = gives
        self.embedding = nn.Embedding(VOCAB, WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, input_ids, attention_mask, labels):
        hidden = self.dropout(self.embedding(input_ids)) * attention_mask.unsqueeze(-1)
        logits = self.head(hidden.sum(1))
        answer = {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}
        return answer if self.gives is dict else tuple(answer.values())


def trainer(folder, model, rows, policy=STOCK, is_pair=False, **settings):
    """A trainer on one thread of the processor that logs every step and says nothing.

    Args:
        folder: Where it writes.
        model: The model.
        rows: The training set.
        policy: `STOCK` for the trainer of transformers.
        is_pair: Whether to take the sequence-to-sequence trainer.
        **settings: Arguments of the trainer, and those of its `args`.
    """
    stock, pruning = (tf.Seq2SeqTrainer, PruningSeq2SeqTrainer) if is_pair else (tf.Trainer, PruningTrainer)
    make_args = tf.Seq2SeqTrainingArguments if is_pair else tf.TrainingArguments
    own = {name: settings.pop(name) for name in _OWN & set(settings)}
    own.setdefault("data_collator", Collator())
    quiet = dict(use_cpu=True, report_to=[], disable_tqdm=True, logging_steps=1, save_strategy="no", seed=3)
    args = make_args(str(folder), **quiet | dict(per_device_train_batch_size=4, learning_rate=1e-2) | settings)
    if policy is STOCK:
        return stock(model=model, args=args, train_dataset=rows, **own)
    return pruning(model=model, args=args, train_dataset=rows, policy=policy, **own)


_OWN = {"data_collator", "eval_dataset", "compute_metrics", "compute_loss_func", "optimizers", "callbacks"}
_OWN |= {"example_loss_func", "history", "history_key"}

gc.freeze()  # each train() collects garbage, most of a second with all that is imported by now
