"""Going on from a checkpoint: weights that it has under other names, and loaders whose workers stay."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME


class LoadingMixin:
    """The part of `PruningMixin` that finds things as they were.

    `save_pretrained` writes some models (ViT and others, with transformers 5.23) under the names that the Hub has for
    their weights, but Trainer looks for the model's own, and leaves the others as they are.

    A loader with `dataloader_persistent_workers` draws from the global generator when it first begins, and never again;
    where that lies before the checkpoint, the resumed run's new loader draws from one of its own.
    """

    _begun_loaders: frozenset[str] = frozenset()  # those of "train" and "eval" that had begun before the checkpoint

    def get_eval_dataloader(self, *args, **kwargs):
        """The stock loader."""
        loader = super().get_eval_dataloader(*args, **kwargs)
        if "eval" in self._begun_loaders:
            self._draw_apart(loader)
        return loader

    def _find_begun_loaders(self, is_resumed: bool):
        evaluated = any(name.startswith("eval_") for entry in self.state.log_history for name in entry)
        self._begun_loaders = frozenset(["train"] * is_resumed + ["eval"] * (is_resumed and evaluated))

    def _draw_apart(self, loader: Any):
        loader = getattr(loader, "base_dataloader", loader)
        if getattr(loader, "persistent_workers", False) and loader.generator is None:
            loader.generator = torch.Generator().manual_seed(torch.initial_seed())

    def _load_from_checkpoint(self, resume_from_checkpoint, *args, **kwargs):  # some trainers' takes no more
        if not self._load_renamed(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, *args, **kwargs)

    def _load_best_model(self):
        if not self._load_renamed(self.state.best_model_checkpoint):
            super()._load_best_model()

    def _load_renamed(self, folder: str) -> bool:
        """Load weights that have other names than the model's, as `from_pretrained` does; whether that was so."""
        is_whole = isinstance(self.model, PreTrainedModel) and not (self.is_fsdp_enabled or self.is_deepspeed_enabled)
        if not is_whole or saved_names(folder) <= set(self.model.state_dict()):
            return False
        saved: Any = type(self.model).from_pretrained(folder, config=self.model.config, dtype=self.model.dtype)
        self.model.load_state_dict(saved.state_dict())
        return True


def saved_names(folder: str) -> set[str]:
    """Names of the weights in a checkpoint's safetensors, in one file or several; none where there are no such."""
    single, index = Path(folder, SAFE_WEIGHTS_NAME), Path(folder, SAFE_WEIGHTS_INDEX_NAME)
    if single.is_file():
        with safe_open(single, framework="np") as weights:
            return set(weights.keys())
    return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"]) if index.is_file() else set()
