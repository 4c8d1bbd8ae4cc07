"""Models of recipes: loaded ones, and new ones in a size that the recipe knows."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from transformers import AutoConfig

from ..common.command import MISTAKES

_RECIPES = {  # by the end of the class's name; encoder-decoders translate
    "ForSequenceClassification": "text_classification",
    "ForImageClassification": "image_classification",
    "ForCausalLM": "instruct",
    "LMHeadModel": "instruct",
}
_REASON = 300  # characters of a library's error message
Shape = TypeVar("Shape")


@contextlib.contextmanager
def loading(model: str, *kinds: type[Exception]) -> Iterator[None]:
    """Add the model's name to errors in the block: errors of these kinds, or by default all that loading can raise.

    Raises:
        ValueError: The model can't be loaded.
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


def saved_classes(model: str) -> list[str] | None:
    """The classes of a saved model, in the order of its outputs; None = it predicts numbers.

    Raises:
        ValueError: The model can't be loaded.
    """
    with loading(model):
        config: Any = AutoConfig.from_pretrained(model)
    if config.problem_type == "regression":
        return None
    return [config.id2label[number] for number in sorted(config.id2label)]


def recipe_for(model: str) -> str:
    """The path of the recipe that trains a model's class.

    Args:
        model: A folder that `save_pretrained` has written, or a name.

    Raises:
        ValueError: No recipe trains such a model, the recipes are not there, or the model can't be loaded.
    """
    with loading(model):
        config = AutoConfig.from_pretrained(model)
    architecture = (config.architectures or ["none"])[0]
    name = next((name for ending, name in _RECIPES.items() if architecture.endswith(ending)), None)
    if config.is_encoder_decoder:
        name = "translate"
    path = Path(__file__).parents[2] / "recipes" / f"{name}.py"
    if not path.is_file():
        raise ValueError(
            f"model={model!r} is a {architecture}, for which there is no recipe here: put a script and its arguments "
            "after --, as in `... -- train.py --bf16`."
        )
    return str(path)


def shape_of(model_size: str, sizes: Mapping[str, Shape]) -> Shape:
    """The shape of a model of this size in a recipe.

    Raises:
        ValueError: The recipe has no such size.
    """
    if model_size not in sizes:
        raise ValueError(f"model_size={model_size!r} is not known; give one of {', '.join(sizes)}.")
    return sizes[model_size]


def names_of(classes: Sequence[str]) -> dict[str, Any]:
    """The settings of a model's configuration that name its classes."""
    return {"id2label": dict(enumerate(classes)), "label2id": {name: i for i, name in enumerate(classes)}}
