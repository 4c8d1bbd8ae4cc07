"""Run by `accelerate launch --config_file configs/fsdp2.yaml` in test_sharded.py; also trains the same without shards.

accelerate keeps FSDP for accelerators, though FSDP2 itself shards on CPU over gloo. So its state is made before the
trainer is, and says that these are processes of the kind that may shard; everything after that is accelerate's own.
"""

import json
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from launched import equally_long
from test_resume import StopAt
from tiny import TASKS, trainer
from torch import distributed

POLICIES = {
    "all": "uniform:keep=1.0",
    "weights": "infobatch:ratio=0.7",
    "rescoring": "kakurenbo:hide=0.6,threshold=0.0,by_confidence=True",
}
STOP = 11  # of 21 steps or so, in the second epoch


def make(folder, policy, model=None, shards=False):
    """A trainer on 29 rows, without dropout: ranks would draw it from other generators."""
    task, settings = TASKS["llama"], {}
    if shards:
        AcceleratorState._reset_state(reset_partial_state=True)
        PartialState(cpu=True)
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        settings["accelerator_config"] = {"use_configured_state": True}
    rows = list(map(equally_long, task.rows(29)))
    settings |= {"per_device_train_batch_size": 2, "num_train_epochs": 3}
    return trainer(folder, model or task.model(0.0, spread=0.1), rows, policy, **settings)


def end_of(subject) -> dict:
    return {
        "wrapper": type(subject.model_wrapped).__name__,
        "parameter": type(next(iter(subject.model.parameters()))).__name__,
        "losses": [entry["loss"] for entry in subject.state.log_history if "loss" in entry],
        "rates": [entry["learning_rate"] for entry in subject.state.log_history if "loss" in entry],
        "history": {name: array.tolist() for name, array in subject.history.arrays().items()},
        "epochs": [{k: v for k, v in e.items() if "seconds" not in k} for e in subject.pruning_report().epochs],
    }


def train(folder, policy, **how) -> dict:
    subject = make(folder, policy, **how)
    subject.train()
    return end_of(subject)


def train_resumed(folder, policy, **how) -> dict:
    stopped = make(folder, policy, **how)
    stopped.add_callback(StopAt(STOP))
    stopped.train()
    subject = make(folder, policy, **how)
    subject.train(resume_from_checkpoint=str(Path(folder, f"checkpoint-{STOP}")))
    return end_of(subject)


def train_unsharded(rank, folder) -> None:
    """In forked processes, under DDP."""
    ends = {name: train(folder, policy) for name, policy in POLICIES.items()}
    (folder / f"rank{rank}.json").write_text(json.dumps(ends))


def train_loaded_in_shards(rank, folder) -> None:
    """In forked processes: sharded by transformers' own loader, without accelerate's FSDP."""
    from transformers import LlamaForCausalLM
    from transformers.distributed import DistributedConfig

    ends = {}
    for name, policy in POLICIES.items():
        config = DistributedConfig(fsdp_size=2)
        ends[name] = train(folder, policy, model=LlamaForCausalLM.from_pretrained(folder, distributed_config=config))
    (folder / f"rank{rank}.json").write_text(json.dumps(ends))


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    ends = {name: train(folder, policy, shards=True) for name, policy in POLICIES.items()}
    ends["resumed"] = {
        name: train_resumed(folder / name, POLICIES[name], shards=True) for name in ("weights", "rescoring")
    }
    (folder / f"rank{distributed.get_rank()}.json").write_text(json.dumps(ends))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
