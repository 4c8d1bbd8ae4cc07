"""Rows as a person sees them: texts, picture, label."""

import base64
import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..common.foreign import brief, of_kind, read_json
from ..core.features import FILE_ROW
from .kinds import is_arrow
from .pixels import PICTURES, eight_bits

_LONGEST = 600  # characters of a text that are shown
_SIDE = 96  # pixels: larger pictures are shrunk to this height and width
_SMALL = 32  # pixels: pictures up to this height and width are kept exactly
_UNSEEN = ("Audio", "Video")  # columns of these kinds are not shown
LABELS = ("label", "labels", "label_ids", "target")
_NO_TEXTS = (*LABELS, "length", FILE_ROW)  # numbers that do not say what a row is, or are shown beside it
_PICTURE = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+={0,2}")
_LARGEST = 1 << 26  # bytes in a file of rows
_MOST_TEXTS = 100  # texts in a row


def show(
    dataset: Any, rows: Sequence[int], processing_class: Any = None, names: Mapping[int, str] | None = None
) -> list[dict[str, Any]]:
    """Rows of a data set as a person sees them.

    Args:
        dataset: The training set. A `datasets.Dataset` is read as stored, before any transform.
        rows: Numbers of the rows to show.
        processing_class: Decodes token ids, if it can; used only for rows that have neither text nor picture.
        names: Names of the classes, used if the data set does not name them.

    Returns:
        For each row: `row`; `texts`, by name, shortened; `picture`, a data URI, or None; `label`, in words, or None.
    """
    names = class_names(dataset, names)
    if is_arrow(dataset):
        features = dataset.features
        heard = [name for name, kind in features.items() if type(kind).__name__ in _UNSEEN]  # so not decoded either
        dataset = dataset.remove_columns(heard).with_format(None)
    decode = processing_class.decode if hasattr(processing_class, "convert_ids_to_tokens") else None
    return [{"row": int(row), **_shown_or_not(dataset, int(row), decode, names)} for row in rows]


def class_names(dataset: Any, names: Mapping[int, str] | None = None) -> dict[int, str]:
    """The names of the classes of a data set by their numbers.

    Args:
        dataset: The training set.
        names: The names, if the data set has none.
    """
    features = dataset.features if is_arrow(dataset) else {}
    classes = next((features[name] for name in LABELS if hasattr(features.get(name), "names")), None)
    return dict(enumerate(classes.names)) if classes else dict(names or {})


def read_shown(path: str | os.PathLike[str]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Read a file with the rows that `show` returned. The file is not trusted: anybody may have written it.

    Returns:
        What `show` returns for each row, without `row`, by the row's number as a text; and what is wrong with the other
        rows, one line each.
    """
    try:
        found = of_kind(read_json(path, _LARGEST), "it", dict)
    except FileNotFoundError:
        return {}, []  # the model was not saved yet: the page shows numbers alone
    except (OSError, ValueError) as error:
        return {}, [f"{Path(path).name} is left out: {error}."]
    shown, wrong = {}, []
    for row, example in found.items():
        try:
            shown[row] = _plain(example)
        except ValueError as error:
            wrong.append(f"row {brief(row)}: {error}")
    more = f", and {len(wrong) - 1:,} more" if len(wrong) > 1 else ""
    return shown, [f"{Path(path).name} has what can't be shown ({wrong[0]}{more})."] if wrong else []


def _plain(example: Any) -> dict[str, Any]:
    """Check that an example from a file has the form that `show` gives it; refuse anything else."""
    of_kind(example, "it", dict)
    texts, picture, label = of_kind(example.get("texts"), "texts", dict), example.get("picture"), example.get("label")
    if len(texts) > _MOST_TEXTS:
        raise ValueError(f"it has {len(texts):,} texts")
    texts = {_short(name): _short(of_kind(text, f"the text {brief(name)}", str)) for name, text in texts.items()}
    if picture is not None and not (isinstance(picture, str) and _PICTURE.fullmatch(picture)):
        raise ValueError(f"its picture {brief(picture)} is none that lies in the file")
    label = None if label is None else _short(of_kind(label, "the label", str))
    return {"texts": texts, "picture": picture, "label": label}


def _shown_or_not(dataset: Any, row: int, decode: Any, names: Mapping[int, str]) -> dict[str, Any]:
    try:
        return _shown(dataset[row], decode, names)
    except Exception as error:  # whatever is wrong with a row, it must not end the report of a run
        text = f"can't be shown ({type(error).__name__}: {error})"
        return {"texts": {"row": _short(text)}, "picture": None, "label": None}


def _shown(example: Any, decode: Any, names: Mapping[int, str]) -> dict[str, Any]:
    if not isinstance(example, Mapping):
        return {"texts": {"row": _short(repr(example))}, "picture": None, "label": None}
    example = {name: _on_cpu(value) for name, value in example.items()}
    texts = {name: text for name, value in example.items() if (text := text_of(value)) is not None}
    label = next((name for name in LABELS if name in example), None)
    if label in texts:
        texts.pop(label)
    picture = next((uri for name, value in example.items() if (uri := _picture(name, value))), None)
    if picture is None and "input_ids" in example and not any(" " in text for text in texts.values()):  # single words
        texts.setdefault("text", decoded(example["input_ids"], decode))
        if label is not None and is_target(example[label], example["input_ids"]):
            texts[label] = decoded(example[label], decode)
    texts |= {name: str(value) for name, value in example.items() if _is_number(value) and name not in _NO_TEXTS}
    words = None if label is None else _label(example[label], names)
    return {"texts": {name: _short(text) for name, text in texts.items()}, "picture": picture, "label": words}


def _on_cpu(value: Any) -> Any:
    """A tensor as an array, anything else as it is."""
    if not hasattr(value, "detach"):
        return value
    value = value.detach().cpu()
    return (value.float() if value.is_floating_point() else value).numpy()  # numpy knows no bfloat16


def _is_number(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def text_of(value: Any) -> str | None:
    """The text of a text, a list of texts, or a conversation; None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(entry, str) for entry in value):
        return " ".join(value)
    if isinstance(value, list) and value and all(isinstance(turn, Mapping) and "content" in turn for turn in value):
        return "\n".join(f"{turn.get('role', '')}: {turn['content']}" for turn in value)
    return None


def is_target(labels: Any, inputs: Any) -> bool:
    """Whether labels are a text of their own, and not a copy of the input.

    Args:
        labels: The labels of a row.
        inputs: Its token ids.
    """
    return (
        _is_list(labels)
        and len(labels) > 0
        and np.ndim(labels[0]) == 0
        and isinstance(np.asarray(labels[0]).item(), int)
        and not (len(labels) == len(inputs) and np.array_equal(labels, inputs))
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) or getattr(value, "ndim", 0) > 0


def _label(value: Any, names: Mapping[int, str]) -> str | None:
    if value is None or _is_list(value):
        return None
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float):
        return f"{value:.4g}"
    return names.get(value, str(value)) if isinstance(value, int) else _short(str(value))


def decoded(ids: Any, decode: Any) -> str:
    """Token ids as a text.

    Args:
        ids: A list of token ids, or a list of such lists.
        decode: A tokenizer's method; None = there is none.
    """
    if len(ids) and _is_list(ids[0]):  # multiple choice: a list for each answer
        return "\n".join(decoded(part, decode) for part in ids)
    ids = [token for token in np.asarray(ids).tolist() if token >= 0]  # others stand for pictures or are ignored
    return decode(ids, skip_special_tokens=True) if decode else f"tokens {' '.join(map(str, ids))}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST].rstrip() + " …"


def _picture(name: str, value: Any) -> str | None:
    """A data URI of a PIL picture, or of an array of pixels (channels first or last); None for anything else."""
    if not hasattr(value, "convert"):
        if name not in PICTURES or isinstance(value, Mapping) or not 2 <= np.ndim(value) <= 3:
            return None
        pixels = np.asarray(value, np.float32)
        pixels = pixels if pixels.ndim == 3 else pixels[None]
        pixels = pixels if pixels.shape[-1] in (1, 3) else np.moveaxis(pixels, 0, -1)
        if pixels.shape[-1] not in (1, 3):
            return None
        low, high = float(pixels.min()), float(pixels.max())
        pixels = (255 * (pixels - low) / max(high - low, 1e-9)).astype(np.uint8)
        from PIL import Image

        value = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    value = eight_bits(value)
    value = value.convert("L" if value.mode in ("1", "L") else "RGB")
    value.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    form = "png" if max(value.size) <= _SMALL else "webp"  # of a photograph, WebP is a fifth of the size
    value.save(buffer, form, quality=80)
    return f"data:image/{form};base64,{base64.b64encode(buffer.getvalue()).decode()}"
