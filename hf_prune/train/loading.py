"""Resuming from a checkpoint: weights saved under other names, and loaders with persistent workers."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel, Trainer
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME


def begun_loaders(log_history: list[dict[str, Any]]) -> frozenset[str]:
    """Return which loaders, "train" and "eval", had started before the checkpoint; see `draw_apart`.

    Args:
        log_history: The log history in the checkpoint.
    """
    evaluated = any(name.startswith("eval_") for entry in log_history for name in entry)
    return frozenset({"train", "eval"} if evaluated else {"train"})


def draw_apart(loader: Any) -> None:
    """Give a loader with persistent workers a random generator of its own, if it had started before the checkpoint.

    With `dataloader_persistent_workers`, a loader draws its seed from the global generator once, when it first starts.
    The resumed run makes a new loader. A second draw would change the generator's state, so it must not happen.
    """
    loader = getattr(loader, "base_dataloader", loader)
    if getattr(loader, "persistent_workers", False) and loader.generator is None:
        loader.generator = torch.Generator().manual_seed(torch.initial_seed())


def load_renamed(trainer: Trainer, folder: str) -> bool:
    """Load weights that were saved under other names than the model's, as `from_pretrained` does.

    `save_pretrained` writes the weights of some models (ViT and others, with transformers 5.23) under the names that
    they have on the Hub. Trainer looks for the model's own names and does not load weights under other names.

    Args:
        trainer: The trainer of the model.
        folder: The checkpoint.

    Returns:
        Whether there were such weights. If not, nothing was loaded.
    """
    model: Any = trainer.model
    is_whole = isinstance(model, PreTrainedModel) and not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)
    if not is_whole or saved_names(folder) <= set(model.state_dict()):
        return False
    saved: Any = type(model).from_pretrained(folder, config=model.config, dtype=model.dtype)
    model.load_state_dict(saved.state_dict())
    return True


def saved_names(folder: str) -> set[str]:
    """Return the names of the weights in a checkpoint's safetensors file or files; an empty set if it has none."""
    single, index = Path(folder, SAFE_WEIGHTS_NAME), Path(folder, SAFE_WEIGHTS_INDEX_NAME)
    if single.is_file():
        with safe_open(single, framework="np") as weights:
            return set(weights.keys())
    return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"]) if index.is_file() else set()
