"""The words or the picture of every row, and its class, read before training."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..core import IGNORED
from ..core.features import Features, count_matrix, stacked
from .kinds import is_arrow, names_of, spread
from .pixels import PICTURES, Shrink, raw, stored_pixels
from .tokens import ROWS_AT_A_TIME, is_text, lists_of, numbers_of

logger = logging.getLogger(__name__)


_CLASSES = ("label", "labels")


def read_features(dataset: Any, is_encoder_decoder: bool, wanted: frozenset[str]) -> Features:
    """The words or the picture of every row, and its class.

    Texts are `input_ids`, and `labels` too for an encoder-decoder, without padding and ignored positions. If rows have
    no `input_ids`, pictures are read instead, with their classes if there are any. A picture is `pixel_values`, `image`
    or `img` (a PIL picture, or its file as `datasets` stores it). It is shrunk by area averaging to the size of the
    first one, and to at most 32 x 32. PIL pictures become grey if the first one is grey, else RGB. Bytes stay as they
    are. Other numbers are mapped to 0 ... 255, from the least to the greatest in 64 rows spread over the data set.

    Words of a `datasets.Dataset` are read in bulk, which is quick. Its pictures are read as stored, before any
    transform. They are kept on disk under `$HF_HOME/hf_prune/features`, in files named by their content. Rows of any
    other data set are read one by one.

    Args:
        dataset: The training set.
        is_encoder_decoder: Whether `labels` are a text, which is then read too.
        wanted: "features" (words or pictures), "classes", or both.

    Raises:
        ValueError: The rows lack what is wanted.
    """
    read = _arrow_features if is_arrow(dataset) else _example_features
    features, names = read(dataset, is_encoder_decoder, wanted)
    if "features" in wanted and not features.texts and features.pixels is None:
        raise ValueError(
            f"The policy reads words or pictures, but the rows have {names}. Give rows with 'input_ids' (tokenize with "
            "dataset.map), 'pixel_values', 'image' or 'img', and keep the column from being removed, or choose a "
            "policy that does without."
        )
    if "classes" in wanted and features.classes is None:
        raise ValueError(
            f"The policy needs the class of every row, but the rows have {names}, and in 'label' or 'labels' no "
            "integer from 0 for each. Give one, or choose a policy that does without."
        )
    logger.info(f"Features of {len(dataset):,} rows take {features.nbytes:,} bytes.")
    return features


# ---- Features of a datasets.Dataset ----


def _arrow_features(dataset: Any, is_encoder_decoder: bool, wanted: frozenset[str]) -> tuple[Features, str]:
    columns = dataset.column_names
    texts, pixels = (), None
    if "features" in wanted:
        picture = next((name for name in PICTURES if name in columns), None)
        if "input_ids" in columns:
            texts = _arrow_texts(dataset, is_encoder_decoder)
        elif picture is not None:
            pixels = stored_pixels(dataset, picture)
    classes = _arrow_classes(dataset) if "classes" in wanted or pixels is not None else None
    return Features(texts, pixels, classes), ", ".join(columns)


def _arrow_texts(dataset: Any, is_encoder_decoder: bool) -> tuple[Any, ...]:
    parts = ([count_matrix(*text) for text in part] for part in arrow_tokens(dataset, is_encoder_decoder))
    return tuple(stacked(counts) for counts in zip(*parts, strict=True))


def arrow_tokens(dataset: Any, is_encoder_decoder: bool) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
    """Read the tokens of a `datasets.Dataset` in bulk, without padding and ignored positions.

    Args:
        dataset: Has `input_ids`.
        is_encoder_decoder: Whether `labels` are a text, which is then read too.

    Yields:
        For some rows at a time, and for each of their texts: the token ids of these rows one after another, and the
        (rows + 1,) int64 places where each row begins.
    """
    names = [name for name in ("input_ids", "attention_mask") if name in dataset.column_names]
    if is_encoder_decoder and "labels" in dataset.column_names:
        names.append("labels")
    for batch in dataset.select_columns(names).with_format("arrow").iter(ROWS_AT_A_TIME):
        ids, lengths = lists_of(batch["input_ids"])
        real = lists_of(batch["attention_mask"])[0] != 0 if "attention_mask" in names else None
        texts = [_real_tokens(ids, lengths, real)]
        if "labels" in names and hasattr(batch["labels"].type, "value_type"):  # a class is not a text
            ids, lengths = lists_of(batch["labels"])
            texts.append(_real_tokens(ids, lengths, ids != IGNORED))
        yield texts


def _real_tokens(ids: np.ndarray, lengths: np.ndarray, real: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The tokens at the positions that are real, and where each row begins."""
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return (ids, offsets) if real is None else (ids[real], np.concatenate([[0], np.cumsum(real)])[offsets])


def _arrow_classes(dataset: Any) -> np.ndarray | None:
    for name in _CLASSES:
        if name in dataset.column_names:
            column = dataset.select_columns([name]).with_format("arrow")
            if str(column[:1][name].type).startswith(("int", "uint")):
                return _as_classes(column[:][name].to_numpy())  # floats if a class is missing
    return None


def _as_classes(values: np.ndarray) -> np.ndarray | None:
    return None if values.dtype.kind not in "iu" or values.min() < 0 else values.astype(np.int64)


# ---- Features of other data sets ----


def _example_features(dataset: Any, is_encoder_decoder: bool, wanted: frozenset[str]) -> tuple[Features, str]:
    first = dataset[0]
    if not isinstance(first, Mapping):
        return Features(), names_of(first)
    texts, picture, shrink = [], None, None
    if "features" in wanted:
        if "input_ids" in first:
            has_target = is_encoder_decoder and is_text(first.get("labels"))
            texts = ["input_ids", "labels"] if has_target else ["input_ids"]
        else:
            picture = next((name for name in PICTURES if name in first), None)
    label = None
    if "classes" in wanted or picture is not None:
        label = next((name for name in _CLASSES if name in first and _is_class(first[name])), None)
    if picture is not None:
        shrink = Shrink([raw(_row(dataset, row, [picture])[picture]) for row in spread(len(dataset))])
    used = [*texts, *(name for name in (picture, label) if name is not None)]
    if not used:
        return Features(), names_of(first)
    pixels = None if shrink is None else np.empty((len(dataset), shrink.width), np.uint8)
    parts, words, classes = [], [[] for _ in texts], []
    for row in tqdm(range(len(dataset)), "Reading features"):
        example = _row(dataset, row, used)
        for one, name in zip(words, texts, strict=True):
            one.append(real_tokens(example, name, row))
        if shrink is not None and pixels is not None:
            pixels[row] = shrink(raw(example[picture]))
        if label is not None:
            classes.append(np.asarray(example[label]).item())
        if texts and (len(words[0]) == ROWS_AT_A_TIME or row == len(dataset) - 1):
            parts.append([count_matrix(np.concatenate(one), np.cumsum([0, *map(len, one)])) for one in words])
            words = [[] for _ in texts]
    counts = tuple(stacked(part) for part in zip(*parts, strict=True))
    return Features(counts, pixels, _as_classes(np.array(classes)) if classes else None), names_of(first)


def _row(dataset: Any, row: int, names: list[str]) -> Any:
    """Read a row, which must have the columns of row 0.

    Raises:
        ValueError: A column is missing.
    """
    example = dataset[row]
    missing = [name for name in names if not isinstance(example, Mapping) or name not in example]
    if missing:
        raise ValueError(f"Row 0 has {missing[0]!r}, but row {row} has {names_of(example)}: give all rows the same.")
    return example


def _is_class(value: Any) -> bool:
    array = np.asarray(value)
    return array.ndim == 0 and array.dtype.kind in "iu"


def real_tokens(example: Mapping[str, Any], name: str, row: int) -> np.ndarray:
    """The tokens of a row's text that are neither padding nor ignored.

    Args:
        example: The row.
        name: "input_ids" or "labels".
        row: Its number, for messages.

    Returns:
        (T,) int64.

    Raises:
        ValueError: The column holds something else.
    """
    ids = numbers_of(example, name, row)
    if name == "labels":
        return ids[ids != IGNORED]
    mask = example.get("attention_mask")
    return ids if mask is None else ids[numbers_of(example, "attention_mask", row) != 0]
