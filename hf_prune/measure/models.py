"""What a model tells of itself: its head, whether it reads its labels, and what the code of its forward pass says."""

import inspect
from typing import Any

from torch import nn


def reads_targets(model: Any) -> bool:
    """Whether a model also reads its labels as tokens, as an encoder-decoder does."""
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def head_of(model: Any) -> nn.Linear | None:
    """The linear layer that makes a model's logits, its input being grad_norm's `head_input`; None if there is none.

    Args:
        model: As for `recipe_for`. For classification it is the last linear layer with config.num_labels outputs (the
            base layer where LoRA adapts it), else the output embeddings of a language model.
    """
    if any("Classification" in cls.__name__ for cls in type(model).__mro__):
        adapters = {id(part) for layer in model.modules() if hasattr(layer, "base_layer") for part in layer.modules()}
        adapters -= {id(layer.base_layer) for layer in model.modules() if hasattr(layer, "base_layer")}
        linears = [module for module in model.modules() if isinstance(module, nn.Linear) and id(module) not in adapters]
        return next((linear for linear in reversed(linears) if linear.out_features == model.config.num_labels), None)
    head = model.get_output_embeddings()
    return head if isinstance(head, nn.Linear) else None


def takes_shifted_loss(model: Any) -> bool:
    """Whether the forward calls transformers' loss function for causal language models."""
    return "loss_function" in _words(model) and getattr(model.loss_function, "__name__", "") == "ForCausalLMLoss"


def shifts_itself(model: Any) -> bool:
    """Whether the forward tells that function which label belongs to which logits."""
    return "shift_labels" in _words(model)


def mask_of(model: Any) -> str | None:
    """Name of the tensor by which the forward leaves labels out; most models leave that to the collator."""
    words = _words(model)
    if not words.isdisjoint({"active_loss", "shift_attention_mask"}):
        return "attention_mask"
    return "bbox_first_token_mask" if "bbox_first_token_mask" in words else None


def _words(model: Any) -> set[Any]:
    """The names and constants in the code of the forward passes that a model's class inherits.

    The loss of a class changes from version to version of transformers, and the name of the class does not tell.
    """
    forwards = [inspect.unwrap(vars(cls)["forward"]) for cls in type(model).__mro__ if "forward" in vars(cls)]
    codes = [forward.__code__ for forward in forwards if inspect.isfunction(forward)]
    groups: list[tuple[Any, ...]] = [
        word if isinstance(word, tuple) else (word,) for code in codes for word in code.co_consts
    ]
    return {word for code in codes for word in code.co_names + code.co_varnames}.union(*groups)
