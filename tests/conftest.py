"""Settings that must stand before the first import, and what every test may ask for."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # name a GPU there to test on it
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch

torch.set_num_threads(1)  # bits must not depend on the machine's number of cores


@pytest.fixture
def rng():
    """A generator of its own for each test."""
    return np.random.default_rng(0)


@pytest.fixture
def classifier():
    """(model, rows): a BERT of one layer with three classes, and 20 rows of 3 to 9 tokens for it, always the same."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertForSequenceClassification(BertConfig(vocab_size=50, num_labels=3, pad_token_id=0, **sizes))
    rng = np.random.default_rng(1)
    lengths = rng.integers(3, 10, size=20)
    rows = [
        {"input_ids": rng.integers(1, 50, size=length).tolist(), "labels": int(rng.integers(3))} for length in lengths
    ]
    return model, rows


@pytest.fixture
def translator():
    """(model, rows): a Marian model of one layer and 20 pairs of 3 to 9 tokens for it, always the same."""
    from transformers import MarianConfig, MarianMTModel

    torch.manual_seed(0)
    layers = {f"{part}_{what}": size for part in ("encoder", "decoder") for what, size in _MARIAN.items()}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "forced_eos_token_id": None}
    model = MarianMTModel(MarianConfig(vocab_size=50, d_model=16, max_position_embeddings=32, **layers, **ids))
    rng = np.random.default_rng(1)

    def sentence():
        return [*rng.integers(2, 50, size=rng.integers(2, 9)).tolist(), 1]

    return model, [{"input_ids": sentence(), "labels": sentence()} for _ in range(20)]


_MARIAN = {"layers": 1, "attention_heads": 2, "ffn_dim": 32}


@pytest.fixture
def make(tmp_path):
    """(policy, class, more) -> a trainer of 22 rows, or, by another model, of the task "one label"."""

    from tiny import STOCK, TASKS, trainer

    from hf_prune import PruningTrainer

    def made(policy=STOCK, cls=PruningTrainer, model=None, rows=None, **more):
        model = TASKS["one label"].model(0.0) if model is None else model
        rows = TASKS["one label"].rows() if rows is None else rows
        found = trainer(tmp_path / "run", model, rows, policy, **more)
        if policy is not STOCK or cls is not PruningTrainer:
            found.__class__ = cls
        return found

    return made
