"""Run by `accelerate launch` in test_sharded.py under FSDP2 and DeepSpeed; in forked processes it trains under DDP.

accelerate keeps FSDP for accelerators, though FSDP2 itself shards on CPU over gloo. So its state is made before the
trainer is, and says that these are processes of the kind that may shard; everything after that is accelerate's own.
"""

import json
import os
import sys
from pathlib import Path

import ranks
import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from launched import equally_long
from resumed import StopAt
from tiny import TASKS, trainer
from torch import distributed

POLICIES = {
    "all": "uniform:keep=1.0",
    "weights": "infobatch:ratio=0.7",
    "rescoring": "kakurenbo:hide=0.6,threshold=0.0,by_confidence=True",
}
STOP = 11  # of 21 steps or so, in the second epoch


def is_launched_for(engine: str) -> bool:
    return os.environ.get(f"ACCELERATE_USE_{engine}") == "true"


def make(folder, policy, model=None, **settings):
    """A trainer on 29 rows, without dropout: ranks would draw it from other generators."""
    task = TASKS["llama"]
    if is_launched_for("DEEPSPEED"):
        settings |= {"use_cpu": False, "ddp_backend": "gloo"}
    if is_launched_for("FSDP"):
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


def refuse_scheduler(rank, folder) -> None:
    """In one forked process: DeepSpeed's own scheduler, which a pruned run can't follow."""
    where = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": ranks.free_port()}
    os.environ.update({name: str(value) for name, value in where.items()})
    compile_nothing()
    sizes = dict.fromkeys(("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"), "auto")
    scheduler = {"type": "WarmupLR", "params": {"warmup_max_lr": "auto", "warmup_num_steps": "auto"}}
    optimizer = {"type": "AdamW", "params": {"lr": "auto", "torch_adam": True}}
    config = sizes | {"zero_optimization": {"stage": 2}, "optimizer": optimizer, "scheduler": scheduler}
    try:
        train(folder, "infobatch", deepspeed=config, use_cpu=False)
    except ValueError as error:
        (folder / "refusal").write_text(str(error))


def compile_nothing() -> None:
    """DeepSpeed would first compile collectives for shared memory, for minutes; gloo's do."""
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def main(folder: Path) -> None:
    ranks.say_where_it_hangs()
    torch.set_num_threads(1)
    if is_launched_for("DEEPSPEED"):
        compile_nothing()
    ends = {name: train(folder, policy) for name, policy in POLICIES.items()}
    ends["resumed"] = {name: train_resumed(folder / name, POLICIES[name]) for name in ("weights", "rescoring")}
    (folder / f"rank{distributed.get_rank()}.json").write_text(json.dumps(ends))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
