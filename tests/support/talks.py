"""Talks and texts for TRL's trainers, a small model for them, and each row's loss alone."""

import pytest
import torch
from datasets import Dataset
from tiny import llama
from torch.nn import functional as F

pytest.importorskip("trl", reason="TRL is not installed: pip install trl")
pytest.importorskip("peft", reason="PEFT is not installed: pip install peft")

from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

# TRL and PEFT speak of checkpointed activations, which are TRL's default, by their old name
DEPRECATED = pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing.*` is deprecated:FutureWarning")

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<user>", "<bot>"]
WORDS = [f"w{n}" for n in range(25)]
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}<user> {{ message['content'] }} "
    "{% else %}<bot> {% generation %}{{ message['content'] }} </s> {% endgeneration %}{% endif %}{% endfor %}"
)
QUIET = dict(use_cpu=True, bf16=False, report_to=[], disable_tqdm=True, logging_steps=1, save_strategy="no", seed=3)
IGNORED = -100


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(SPECIAL + WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = dict(pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    return PreTrainedTokenizerFast(tokenizer_object=words, chat_template=TEMPLATE, **names)


def sentence(rng) -> str:
    return " ".join(rng.choice(WORDS, rng.integers(2, 9)))


def turns(rng) -> list[dict]:
    roles = ["user", "assistant"] * rng.integers(1, 3)
    return [{"role": role, "content": sentence(rng)} for role in roles]


def model(spread: float = 0.3):
    """Without dropout; no two rows have about the same loss."""
    torch.manual_seed(0)
    made = llama(0.0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += spread * torch.randn_like(parameter)
    return made


def losses_alone(net, data: Dataset) -> list[float]:
    """Each row's mean loss, every text of it read alone and with all its logits."""
    found = []
    for row in data:
        ids, labels = torch.tensor(row["input_ids"]), torch.tensor(row.get("labels", row["input_ids"]))
        parts = []
        lengths = row.get("seq_lengths", [len(ids)])
        for text, targets in zip(ids.split(lengths), labels.split(lengths), strict=True):
            with torch.no_grad():
                logits = net(input_ids=text[None]).logits[0, :-1]
            parts.append(
                F.cross_entropy(logits, targets[1:], reduction="none", ignore_index=IGNORED)[targets[1:] != IGNORED]
            )
        found.append(torch.cat(parts).mean().item())
    return found
