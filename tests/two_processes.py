"""Run by torchrun in test_distributed.py: trains in every process, and each leaves what it ended with in a file."""

import hashlib
import json
import os
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed

from hf_prune import PruningTrainer
from hf_prune.sampler import ROW


def train(cls, folder, **settings):
    set_seed(1)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "attention_dropout": 0.1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=50, **sizes, **heads))
    chance = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(37):  # a prime: accelerate fills the last batches with rows that were there before
        ids = torch.randint(1, 50, (12,), generator=chance)
        kept = torch.arange(12) < torch.randint(4, 12, (1,), generator=chance)
        rows.append({"input_ids": ids, "labels": ids.where(kept, -100), "attention_mask": kept.long()})
    args = TrainingArguments(
        folder,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        logging_steps=1,
        per_device_train_batch_size=4,
        learning_rate=0.01,
        num_train_epochs=3,
    )
    seen = []

    class Watched(cls):
        def compute_loss(self, model, inputs, *args, **kwargs):
            seen.append(inputs[ROW].tolist() if ROW in inputs else [])
            return super().compute_loss(model, inputs, *args, **kwargs)

    trainer = Watched(model=model, args=args, train_dataset=rows, **settings)
    trainer.train()
    weights = b"".join(tensor.numpy().tobytes() for tensor in trainer.model.state_dict().values())
    end = {
        "processes": trainer.args.world_size,
        "weights": hashlib.sha256(weights).hexdigest(),
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "steps": [trainer.state.global_step, trainer.state.max_steps],
        "batches": seen,
    }
    if "policy" in settings:
        history = b"".join(array.tobytes() for array in trainer.history.arrays().values())
        end |= {"history": hashlib.sha256(history).hexdigest(), "epochs": trainer.pruning_report().epochs}
    return end


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    ends = {
        "stock": train(Trainer, folder),
        "all": train(PruningTrainer, folder, policy="uniform:keep=1.0"),
        "infobatch": train(PruningTrainer, folder, policy="infobatch:ratio=0.7"),
        "rescoring": train(PruningTrainer, folder, policy="kakurenbo:hide=0.6,threshold=0.0,by_confidence=True"),
        "assisted": train(PruningTrainer, folder, policy="autoassist:rounds=3"),
    }
    (folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps(ends))
