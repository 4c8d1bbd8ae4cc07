"""Going on from a checkpoint: weights that it has under other names, and loaders whose workers stay."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel, Trainer
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME


def begun_loaders(log_history: list[dict[str, Any]]) -> frozenset[str]:
    """Which loaders of a resumed run had begun before its checkpoint, "train" and "eval": see `draw_apart`.

    Args:
        log_history: Of the checkpoint.
    """
    evaluated = any(name.startswith("eval_") for entry in log_history for name in entry)
    return frozenset({"train", "eval"} if evaluated else {"train"})


def draw_apart(loader: Any) -> None:
    """Let a loader with `dataloader_persistent_workers`, which had begun before the checkpoint, draw its seed apart.

    Such a loader draws from the global generator when it first begins, and never again. The resumed run's new one must
    not do so a second time: it draws from a generator of its own.
    """
    loader = getattr(loader, "base_dataloader", loader)
    if getattr(loader, "persistent_workers", False) and loader.generator is None:
        loader.generator = torch.Generator().manual_seed(torch.initial_seed())


def load_renamed(trainer: Trainer, folder: str) -> bool:
    """Load weights that have other names than the model's, as `from_pretrained` does; whether that was so.

    `save_pretrained` writes some models (ViT and others, with transformers 5.23) under the names that the Hub has for
    their weights, but Trainer looks for the model's own, and leaves the others as they are.

    Args:
        trainer: Whose model it is.
        folder: The checkpoint.
    """
    model: Any = trainer.model
    is_whole = isinstance(model, PreTrainedModel) and not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)
    if not is_whole or saved_names(folder) <= set(model.state_dict()):
        return False
    saved: Any = type(model).from_pretrained(folder, config=model.config, dtype=model.dtype)
    model.load_state_dict(saved.state_dict())
    return True


def saved_names(folder: str) -> set[str]:
    """Names of the weights in a checkpoint's safetensors, in one file or several; none where there are no such."""
    single, index = Path(folder, SAFE_WEIGHTS_NAME), Path(folder, SAFE_WEIGHTS_INDEX_NAME)
    if single.is_file():
        with safe_open(single, framework="np") as weights:
            return set(weights.keys())
    return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"]) if index.is_file() else set()
