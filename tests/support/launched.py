"""Run by `accelerate launch` in test_distributed.py: every case in every process, which leaves what it ended with."""

import collections
import hashlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ranks import say_where_it_hangs
from tiny import IGNORED, STOCK, TASKS, padded, trainer
from torch import distributed

from hf_prune import BudgetPolicy, Selection
from hf_prune.train.collator import ROW

EPOCHS = 3
STOCK_TRAINER = {"policy": STOCK}
ALL = {"policy": "uniform:keep=1.0"}

# How batches are shared out: settings of the trainer. Batches hold 2 rows.
SHARING = {
    "plain": {},
    "accumulation": {"gradient_accumulation_steps": 3},
    "drop last": {"dataloader_drop_last": True},
    "workers": {"dataloader_num_workers": 2},
    "dispatch": {"accelerator_config": {"dispatch_batches": True}},
    "split": {"accelerator_config": {"split_batches": True}, "per_device_train_batch_size": 4},
    "dispatch and split": {
        "accelerator_config": {"dispatch_batches": True, "split_batches": True},
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 3,
    },
    "uneven, divisible": {"accelerator_config": {"even_batches": False}, "rows": 32, "policy": "ucb:keep=0.5"},
    "uneven, drop last": {"accelerator_config": {"even_batches": False}, "dataloader_drop_last": True},
    "1 row": {"rows": 1},
    "3 rows": {"rows": 3},
    "3 rows, accumulation": {"rows": 3, "gradient_accumulation_steps": 3},
}
OF_FOUR = ("plain", "accumulation", "dispatch and split", "3 rows")  # what four processes train; two train all
# What must be refused, and said before the first step.
REFUSED = {
    "uneven": ALL | {"accelerator_config": {"even_batches": False}},
    "uneven, split": ALL
    | {"accelerator_config": {"even_batches": False, "split_batches": True}, "per_device_train_batch_size": 4},
    "uneven, any number": {"policy": "infobatch", "accelerator_config": {"even_batches": False}, "rows": 24},
}
GROUPED = {"train_sampling_strategy": "group_by_length", "rows": 25}  # few enough for one mega-batch
RESCORING = "kakurenbo:hide=0.6,threshold=0.0,by_confidence=True"
POLICIES = {
    "rescoring": {"policy": RESCORING},
    "rescoring, split": {"policy": RESCORING} | SHARING["split"],
    "rescoring, dispatch": {"policy": RESCORING} | SHARING["dispatch"],
    "rescoring, uneven": {"policy": RESCORING} | SHARING["uneven, drop last"],
    "rounds": {"policy": "autoassist:rounds=3"},
    "rounds, split": {"policy": "autoassist:rounds=3"} | SHARING["split"],
    "grouped": {"policy": "uniform:keep=0.7"} | GROUPED,
    "grouped, split": {"policy": "uniform:keep=0.7"} | GROUPED | SHARING["split"],
    "grouped, rounds": {"policy": "autoassist:rounds=3"} | GROUPED,
}
# Rows in a step are the same, whatever the number of processes; the number of rows fills whole steps.
SAME_STEPS = {"rows": 32, "dropout": 0.0}


@dataclass(frozen=True)
class Weighted(BudgetPolicy):
    """The rows of largest loss, those above the median at three times the weight."""

    keep: float = 0.5
    weighs = True

    def select(self, history, clock, rng):
        rows = self.best(history.loss, history, clock, rng)
        loss = history.loss[rows]
        return Selection(rows, np.where(loss > np.median(loss), 3, 1).astype(np.float32))


def digest(tensors) -> str:
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()


def equally_long(row: dict) -> dict:
    """A row at full length, as batches must be that one process reads for all."""
    row = padded(row)
    labels = [token if real else IGNORED for token, real in zip(row["input_ids"], row["attention_mask"], strict=True)]
    return row | {"labels": labels}


def train(folder, rows=29, policy="infobatch:ratio=0.7", dropout=0.1, **settings) -> dict:
    """What this process ended with; 29 rows are a prime."""
    task, seen, rounds = TASKS["llama"], [], []
    rows = task.rows(rows)
    if "train_sampling_strategy" not in settings:
        rows = list(map(equally_long, rows))
    settings = {"per_device_train_batch_size": 2, "num_train_epochs": EPOCHS} | settings
    subject = trainer(folder, task.model(dropout, spread=0.1), rows, policy, **settings)

    class Watched(type(subject)):
        def training_step(self, model, inputs, *args, **kwargs):
            seen.append(inputs[ROW].tolist() if ROW in inputs else [])
            return super().training_step(model, inputs, *args, **kwargs)

        def _run_epoch(self, **kwargs):
            super()._run_epoch(**kwargs)
            if getattr(self, "policy", None) is not None:
                rounds.append(digest(map(torch.from_numpy, self.history.arrays().values())))

    subject.__class__ = Watched
    subject.train()
    end = {
        "processes": subject.args.world_size,
        "weights": digest(subject.model.state_dict().values()),
        "losses": [entry["loss"] for entry in subject.state.log_history if "loss" in entry],
        "steps": [subject.state.global_step, subject.state.max_steps],
        "batches": seen,
    }
    if rounds:
        end |= {"histories": rounds, "epochs": subject.pruning_report().epochs}
        end["history"] = {name: array.tolist() for name, array in subject.history.arrays().items()}
    return end


def refusal(folder, **settings) -> str:
    try:
        train(folder, **settings)
    except ValueError as error:
        return str(error)
    return ""


def collectives(folder, **settings) -> collections.Counter:
    """How often Python calls each collective during a run; those of DDP's own steps are made in C++."""
    made = collections.Counter()

    def counted(name, collective):
        def call(*args, **kwargs):
            made[name] += 1
            return collective(*args, **kwargs)

        return call

    names = ("all_gather", "all_gather_into_tensor", "all_gather_object", "all_reduce", "reduce", "gather", "broadcast")
    stock = {name: getattr(distributed, name) for name in names}
    try:
        for name, collective in stock.items():
            setattr(distributed, name, counted(name, collective))
        train(folder, logging_strategy="no", **settings)
    finally:
        for name, collective in stock.items():
            setattr(distributed, name, collective)
    return made


def main(folder: Path) -> None:
    say_where_it_hangs()
    torch.set_num_threads(1)
    ends = {}
    for name in OF_FOUR if os.environ["WORLD_SIZE"] == "4" else SHARING:
        sharing = SHARING[name]
        ends[name] = {
            "stock": train(folder, **sharing | STOCK_TRAINER),
            "all": train(folder, **sharing | ALL),
            "pruned": train(folder, **sharing),
        }
    ends["same steps"] = train(folder, policy=Weighted(), **SAME_STEPS)
    ends["policies"] = {name: train(folder, **settings) for name, settings in POLICIES.items()}
    ends["refused"] = {name: refusal(folder, **settings) for name, settings in REFUSED.items()}
    ends["collectives"] = {
        name: [collectives(folder, rows=rows, **policy) for rows in (16, 64)]
        for name, policy in {"stock": STOCK_TRAINER, "all": ALL}.items()
    }
    (folder / f"rank{distributed.get_rank()}.json").write_text(json.dumps(ends))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
