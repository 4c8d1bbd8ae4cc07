"""Models of recipes: one that is loaded, or one of a size that the recipe knows."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError

from ..common.command import MISTAKES

_REASON = 300  # characters of what a library says
Shape = TypeVar("Shape")


@contextlib.contextmanager
def loading(model: str, *kinds: type[Exception]) -> Iterator[None]:
    """Say of errors of these kinds in the block, else of all that loading can bring about, which model it was.

    Raises:
        ValueError: It can't be loaded.
    """
    kinds = kinds or (*MISTAKES, KeyError, RuntimeError, SafetensorError)
    try:
        yield
    except kinds as error:
        what = "is no folder here, and no model of the Hub that this machine reaches"
        if Path(model).exists():
            reason = " ".join(str(error).split()).rstrip(".")[:_REASON]
            what = f"can't be loaded ({type(error).__name__}: {reason})"
        raise ValueError(
            f"model_name_or_path={model!r} {what}. Give a folder that save_pretrained has written, or a name."
        ) from error


def shape_of(model_size: str, sizes: Mapping[str, Shape]) -> Shape:
    """The shape that a size has among those of a recipe.

    Raises:
        ValueError: The recipe has no such size.
    """
    if model_size not in sizes:
        raise ValueError(f"model_size={model_size!r} is not known; give one of {', '.join(sizes)}.")
    return sizes[model_size]


def names_of(classes: Sequence[str]) -> dict[str, Any]:
    """The settings of a model's configuration that name its classes."""
    return {"id2label": dict(enumerate(classes)), "label2id": {name: i for i, name in enumerate(classes)}}
