"""What is read of a training set without training: tokens, words, pictures, classes, and a fingerprint of its rows."""

import copy
import hashlib
import io
import logging
import os
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from . import storage
from .core import IGNORED
from .features import Features, count_matrix, stacked
from .generators import seeded_generators, unchanged_generators

_ROWS_AT_A_TIME = 100_000
_PICTURES_AT_A_TIME = 256
_SAMPLES = 64  # rows whose content makes the fingerprint, and whose pixels set the scale
_COMPARED = 16  # rows that processes compare with each other, where a data set has no fingerprint
_SIDE = 32  # pixels: pictures are shrunk to at most this height and width
PICTURES = ("pixel_values", "image", "img")
_CLASSES = ("label", "labels")

logger = logging.getLogger(__name__)


def is_arrow(dataset: Any) -> bool:
    """Whether this is a `datasets.Dataset`, told by what it does so that the library need not be installed."""
    return hasattr(dataset, "column_names") and hasattr(dataset, "with_format")


def has_own_loss(columns: list[str]) -> bool:
    """Whether rows with these columns are trained by a loss that compares texts (ORPO, KTO, ...), and no model's."""
    if {"completion_ids", "label"} <= set(columns):
        return True
    has_pairs = all(any(name.startswith(kind) for name in columns) for kind in ("chosen", "rejected"))
    return has_pairs and not {"label", "labels"} & set(columns)


def row_tokens(dataset: Any, targets_too: bool) -> np.ndarray:
    """Real tokens of every row, counted before training.

    Args:
        dataset: Rows with `input_ids` (and `attention_mask` where padded). A `datasets.Dataset` is counted in bulk, any
            other data set row by row.
        targets_too: Count `labels` as well (an encoder-decoder reads and writes).

    Returns:
        (N,) int32.

    Raises:
        ValueError: Rows have no `input_ids`.
    """
    count = _arrow_tokens if is_arrow(dataset) else _example_tokens
    tokens = np.fromiter(count(dataset, targets_too), np.int32, len(dataset))
    if not tokens.any():
        raise ValueError("The policy counts tokens, but no row has one. Check the data set, or count rows.")
    return tokens


def row_lengths(dataset: Any, column: str | None, inputs: str, targets_too: bool) -> np.ndarray:
    """Length of every row, which says how much its batch is padded, read before training.

    Args:
        dataset: A `datasets.Dataset` is read in bulk unless it makes its rows as they are read, any other row by row.
        column: Name of a column of lengths, which is taken where a `datasets.Dataset` has it; None = of none.
        inputs: Name of the model's main input, whose length is taken where there is no such column.
        targets_too: Take the length of `labels` as well, where they are lists (an encoder-decoder reads both).

    Returns:
        (N,) numbers, or (N, 2) of input and labels.

    Raises:
        ValueError: Rows have neither.
    """
    columns = dataset.column_names if is_arrow(dataset) else []
    if column in columns:
        rows = dataset.select_columns([column]).with_format("arrow")
        lengths = np.concatenate([np.asarray(part[column]) for part in rows.iter(_ROWS_AT_A_TIME)])
        if lengths.dtype.kind not in "iuf" or not np.isfinite(lengths).all():
            _refuse_lengths(f"column {column!r} has a row without a number", column)
        return lengths
    with unchanged_generators():
        first = dataset[0]
        if not isinstance(first, Mapping) or not _is_list(first.get(inputs)):
            _refuse_lengths(f"a row has {_names(first)}, and no list {inputs!r} to measure", column)
        names = [inputs, "labels"] if targets_too and _is_list(first.get("labels")) else [inputs]
        if set(names) <= set(columns) and dataset.format["type"] != "custom":
            rows = dataset.select_columns(names).with_format("arrow")
            parts = [[_lengths(_stored_lists(part[name])) for name in names] for part in rows.iter(_ROWS_AT_A_TIME)]
            lengths = np.concatenate(parts, axis=1).T
        else:
            rows = tqdm(range(len(dataset)), "Measuring rows", disable=len(dataset) < _SAMPLES)
            lengths = np.array([[len(example[name]) for name in names] for example in map(dataset.__getitem__, rows)])
    return lengths if len(names) > 1 else lengths[:, 0]


def _is_list(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str) and getattr(value, "ndim", 1) > 0


def _refuse_lengths(reason: str, column: str | None) -> None:
    raise ValueError(
        f"train_sampling_strategy='group_by_length': {reason}. Give the length of each row as a number in the column "
        f"{column!r} (length_column_name names it) of a datasets.Dataset, or take 'random'."
    )


def fingerprint(dataset: Any) -> int | None:
    """A checksum of a sample of rows, equal for equal content however it was made; None where rows may be random.

    Only a `datasets.Dataset` has one: another data set's rows may change from read to read (augmentation).
    """
    if not is_arrow(dataset):
        return None
    columns = dataset.with_format("arrow")[_spread(len(dataset))].to_pydict()
    content = {name: [_without_path(value) for value in values] for name, values in columns.items()}
    return zlib.crc32(repr(content).encode(), len(dataset))


def row_checksums(dataset: Any) -> list[int | None]:
    """Checksums that tell whether processes hold the same rows, of any data set, in the same order.

    A `datasets.Dataset` has one, its fingerprint. Of any other, some rows are read, twice each with generators that are
    seeded alike everywhere: what draws from them is equal, and what was different the second time says nothing.

    Args:
        dataset: The training set. A shallow copy is read: what it opens late, loader workers open for themselves.

    Returns:
        As many for every data set; None = says nothing.
    """
    if is_arrow(dataset):
        return [fingerprint(dataset)] + [None] * (_COMPARED - 1)
    rows = np.unique(np.linspace(0, len(dataset) - 1, _COMPARED).astype(np.int64)).tolist()
    try:
        dataset = dataset if isinstance(dataset, np.ndarray | list | tuple) else copy.copy(dataset)
        found = [_row_checksum(dataset, row) for row in rows]
    except Exception:  # what can't be read here, outside of a loader, says nothing
        found = []
    return found + [None] * (_COMPARED - len(found))


def _row_checksum(dataset: Any, row: int) -> int | None:
    found = set()
    for _ in range(2):
        with seeded_generators():
            found.add(zlib.crc32(_content(dataset[row]).encode("utf-8", "surrogatepass")))
    return found.pop() if len(found) == 1 else None


def _content(value: Any) -> str:
    """What is the same wherever a value is made: whole numbers and texts, and of other numbers the size."""
    if isinstance(value, Mapping):
        return repr([(str(name), _content(value[name])) for name in value])
    if isinstance(value, str):
        return repr(os.path.basename(value))  # of a file, wherever it lies
    if isinstance(value, bytes | bool | int | None):
        return repr(value)
    if is_dataclass(value) and not isinstance(value, type):
        return _content(vars(value))
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # of unequal lengths, or of numbers that numpy does not know
        array = np.array(None)
    if array.dtype.kind in "iub" and array.dtype != np.uint8:
        return f"{array.shape} {zlib.crc32(np.ascontiguousarray(array, np.int64).data)}"
    if array.dtype.kind in "uf":  # pictures and the like, which another machine may round otherwise
        return f"{array.shape} {np.abs(array).mean(dtype=np.float64) if array.size else 0:.3g}"
    return repr(list(map(_content, value))) if isinstance(value, list | tuple) else type(value).__name__


def _without_path(value: Any) -> Any:
    """The content of a file that lies beside the data set, in place of where it lies; anything else as it is."""
    is_file = isinstance(value, dict) and value.keys() == {"bytes", "path"} and value["bytes"] is None
    try:
        return zlib.crc32(Path(value["path"]).read_bytes()) if is_file else value
    except (OSError, TypeError):  # within an archive, on another machine, or there is none
        return value


def read_features(dataset: Any, is_encoder_decoder: bool, wanted: frozenset[str]) -> Features:
    """Words or pictures of every row, and its class.

    Texts are `input_ids` and, of an encoder-decoder, `labels`, without padding and ignored positions. Where rows have
    no `input_ids`, pictures are read instead, with their classes if there are any: `pixel_values`, or `image` or `img`
    (a PIL picture, or its file as `datasets` stores it), shrunk by area averaging to the size of the first one and at
    most 32 x 32. PIL pictures become grey where the first one is, else RGB. Bytes stay; other numbers are mapped to
    0 ... 255 from the least to the greatest in 64 rows spread over the data set.

    Words of a `datasets.Dataset` are read in bulk, which is quick. Its pictures are read as stored, before any
    transform, and kept on disk under `$HF_HOME/hf_prune/features`, named by their content. Rows of any other data set
    are read one by one.

    Args:
        dataset: The training set.
        is_encoder_decoder: Whether `labels` are a text.
        wanted: "features" (words or pictures), "classes", or both.

    Raises:
        ValueError: The rows do not have it.
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


def _spread(n: int) -> list[int]:
    """A sample of the rows of n, evenly spread."""
    return np.unique(np.linspace(0, n - 1, _SAMPLES).astype(np.int64)).tolist()


def _arrow_tokens(dataset: Any, targets_too: bool) -> Iterator[int]:
    if "input_ids" not in dataset.column_names:
        _refuse_tokens(", ".join(dataset.column_names))
    names = [name for name in ("input_ids", "attention_mask", "labels") if name in dataset.column_names]
    table = dataset.select_columns(names).with_format("arrow")
    for batch in table.iter(_ROWS_AT_A_TIME):
        mask = "attention_mask" in names
        counts = _count(batch["attention_mask" if mask else "input_ids"], 0 if mask else None)
        if targets_too and "labels" in names and hasattr(batch["labels"].type, "value_type"):  # a class is no token
            counts = counts + _count(batch["labels"], IGNORED)
        yield from counts.tolist()


def _count(column: Any, left_out: int | None) -> np.ndarray:
    """Entries of each list of an Arrow column, those equal to `left_out` not counted."""
    entries, lengths = _lists(column)
    if left_out is None:
        return lengths
    ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return np.diff(np.concatenate([[0], np.cumsum(entries != left_out)])[ends])


def _example_tokens(dataset: Any, targets_too: bool) -> Iterator[int]:
    for row in tqdm(range(len(dataset)), "Counting tokens"):
        example = dataset[row]
        if not isinstance(example, Mapping) or "input_ids" not in example:
            _refuse_tokens(_names(example))
        mask = example.get("attention_mask")
        count = len(_numbers(example, "input_ids", row))
        if mask is not None:
            count = int(np.count_nonzero(_numbers(example, "attention_mask", row)))
        if targets_too and _is_text(example.get("labels")):
            count += int(np.count_nonzero(_numbers(example, "labels", row) != IGNORED))
        yield count


def _refuse_tokens(names: str) -> None:
    raise ValueError(
        f"The policy counts tokens by 'input_ids', but the rows have {names}: tokenize them first, give unit='rows' "
        "where unit='tokens' asked for it, or choose a rule that needs no tokens."
    )


def _names(example: Any) -> str:
    """What a row calls its parts, in words."""
    if isinstance(example, Mapping):
        return ", ".join(map(str, example))
    return f"no names (a row is a {type(example).__name__}, not a dict)"


# ---- Features of a datasets.Dataset ----


def _arrow_features(dataset: Any, is_encoder_decoder: bool, wanted: frozenset[str]) -> tuple[Features, str]:
    columns = dataset.column_names
    texts, pixels = (), None
    if "features" in wanted:
        picture = next((name for name in PICTURES if name in columns), None)
        if "input_ids" in columns:
            texts = _arrow_texts(dataset, is_encoder_decoder)
        elif picture is not None:
            pixels = _arrow_pixels(dataset, picture)
    classes = _arrow_classes(dataset) if "classes" in wanted or pixels is not None else None
    return Features(texts, pixels, classes), ", ".join(columns)


def _arrow_texts(dataset: Any, is_encoder_decoder: bool) -> tuple[Any, ...]:
    names = [name for name in ("input_ids", "attention_mask") if name in dataset.column_names]
    if is_encoder_decoder and "labels" in dataset.column_names:
        names.append("labels")
    parts = []
    for batch in dataset.select_columns(names).with_format("arrow").iter(_ROWS_AT_A_TIME):
        ids, lengths = _lists(batch["input_ids"])
        real = _lists(batch["attention_mask"])[0] != 0 if "attention_mask" in names else None
        counts = [_count_words(ids, lengths, real)]
        if "labels" in names and hasattr(batch["labels"].type, "value_type"):  # a class is no text
            ids, lengths = _lists(batch["labels"])
            counts.append(_count_words(ids, lengths, ids != IGNORED))
        parts.append(counts)
    return tuple(stacked(counts) for counts in zip(*parts, strict=True))


def _lists(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """All entries of an Arrow column of lists, or of lists of lists, one after another, and how many each row has."""
    column = _stored_lists(column)
    if not hasattr(column.type, "value_type"):
        raise ValueError(
            f"The policy reads lists of tokens, and rows have a {column.type} there: tokenize them first, or choose a "
            "rule that needs no tokens."
        )
    lengths, entries = _lengths(column), column.flatten()
    if not hasattr(entries.type, "value_type"):
        return np.asarray(entries), lengths
    entries, inner = _lists(entries)
    ends = np.concatenate([[0], np.cumsum(inner, dtype=np.int64)])
    return entries, np.diff(ends[np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])])


def _stored_lists(column: Any) -> Any:
    column = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    return getattr(column, "storage", column)  # of arrays of a fixed shape


def _lengths(column: Any) -> np.ndarray:
    """The length of each list of an Arrow column of lists."""
    fixed = getattr(column.type, "list_size", None)
    return np.full(len(column), fixed) if fixed else np.asarray(column.value_lengths().fill_null(0))


def _count_words(ids: np.ndarray, lengths: np.ndarray, real: np.ndarray | None) -> Any:
    """How often each token occurs in each row, at the positions that are real."""
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    if real is None:
        return count_matrix(ids, offsets)
    return count_matrix(ids[real], np.concatenate([[0], np.cumsum(real)])[offsets])


def _arrow_classes(dataset: Any) -> np.ndarray | None:
    for name in _CLASSES:
        if name in dataset.column_names:
            column = dataset.select_columns([name]).with_format("arrow")
            if str(column[:1][name].type).startswith(("int", "uint")):
                return _as_classes(column[:][name].to_numpy())  # floats where one is missing
    return None


def _as_classes(values: np.ndarray) -> np.ndarray | None:
    return None if values.dtype.kind not in "iu" or values.min() < 0 else values.astype(np.int64)


def _arrow_pixels(dataset: Any, name: str) -> np.ndarray:
    column = dataset.select_columns([name])
    content = hashlib.blake2b(f"{name} {_SIDE} {len(column)}".encode(), digest_size=16)
    for pictures in tqdm(_stored(column, name), "Reading pictures", total=_batches(column)):
        for picture in pictures:
            kind = len(picture) if isinstance(picture, bytes) else (picture.shape, picture.dtype)
            content.update(repr(kind).encode())
            content.update(picture if isinstance(picture, bytes) else np.ascontiguousarray(picture).data)
    home = os.environ.get("HF_HOME") or os.path.join("~", ".cache", "huggingface")
    path = Path(home, "hf_prune", "features", f"{content.hexdigest()}.safetensors").expanduser()
    try:
        return storage.load(path)[0]["pixels"]
    except (FileNotFoundError, storage.DamagedFile):
        pass
    samples = [picture for pictures in _stored(column.select(_spread(len(column))), name) for picture in pictures]
    shrink = _Shrink(samples)
    pixels = np.empty((len(column), shrink.width), np.uint8)
    with ThreadPoolExecutor() as pool:  # decoding lets other threads run
        batches = tqdm(_stored(column, name), "Shrinking pictures", total=_batches(column))
        for batch, pictures in enumerate(batches):
            begin = batch * _PICTURES_AT_A_TIME
            pixels[begin : begin + len(pictures)] = list(pool.map(shrink, pictures))
    try:
        storage.save(path, {"pixels": pixels}, {"kind": "pixels"})
    except OSError as error:
        logger.warning(f"{path} can't be written ({error}): the next run will shrink the pictures again.")
    return pixels


def _stored(column: Any, name: str) -> Iterator[list[Any]]:
    """The pictures of a data set's one column as they are stored, some at a time: files as bytes, or arrays."""
    if type(column.features[name]).__name__ == "Image":
        for batch in column.with_format("arrow").iter(_PICTURES_AT_A_TIME):
            yield [_file(picture) for picture in batch[name].to_pylist()]
    else:
        for batch in column.with_format("numpy").iter(_PICTURES_AT_A_TIME):
            yield list(batch[name])


def _batches(column: Any) -> int:
    return -(-len(column) // _PICTURES_AT_A_TIME)


# ---- Features of other data sets ----


def _example_features(dataset: Any, is_encoder_decoder: bool, wanted: frozenset[str]) -> tuple[Features, str]:
    first = dataset[0]
    if not isinstance(first, Mapping):
        return Features(), _names(first)
    texts, picture, shrink = [], None, None
    if "features" in wanted:
        if "input_ids" in first:
            has_target = is_encoder_decoder and _is_text(first.get("labels"))
            texts = ["input_ids", "labels"] if has_target else ["input_ids"]
        else:
            picture = next((name for name in PICTURES if name in first), None)
    label = None
    if "classes" in wanted or picture is not None:
        label = next((name for name in _CLASSES if name in first and _is_class(first[name])), None)
    if picture is not None:
        shrink = _Shrink([_raw(_row(dataset, row, [picture])[picture]) for row in _spread(len(dataset))])
    used = [*texts, *(name for name in (picture, label) if name is not None)]
    if not used:
        return Features(), _names(first)
    pixels = None if shrink is None else np.empty((len(dataset), shrink.width), np.uint8)
    parts, words, classes = [], [[] for _ in texts], []
    for row in tqdm(range(len(dataset)), "Reading features"):
        example = _row(dataset, row, used)
        for one, name in zip(words, texts, strict=True):
            one.append(_real(example, name, row))
        if shrink is not None:
            pixels[row] = shrink(_raw(example[picture]))
        if label is not None:
            classes.append(np.asarray(example[label]).item())
        if texts and (len(words[0]) == _ROWS_AT_A_TIME or row == len(dataset) - 1):
            parts.append([_count_words(np.concatenate(one), np.array([*map(len, one)]), None) for one in words])
            words = [[] for _ in texts]
    counts = tuple(stacked(part) for part in zip(*parts, strict=True))
    return Features(counts, pixels, _as_classes(np.array(classes)) if classes else None), _names(first)


def _row(dataset: Any, row: int, names: list[str]) -> Any:
    """A row, which must have what row 0 has.

    Raises:
        ValueError: It lacks one of the names.
    """
    example = dataset[row]
    missing = [name for name in names if not isinstance(example, Mapping) or name not in example]
    if missing:
        raise ValueError(f"Row 0 has {missing[0]!r}, but row {row} has {_names(example)}: give all rows the same.")
    return example


def _is_class(value: Any) -> bool:
    array = np.asarray(value)
    return array.ndim == 0 and array.dtype.kind in "iu"


def _real(example: Mapping[str, Any], name: str, row: int) -> np.ndarray:
    """The tokens of a row's text that are neither padding nor ignored."""
    ids = _numbers(example, name, row)
    if name == "labels":
        return ids[ids != IGNORED]
    mask = example.get("attention_mask")
    return ids if mask is None else ids[_numbers(example, "attention_mask", row) != 0]


def _numbers(example: Mapping[str, Any], name: str, row: int) -> np.ndarray:
    """(T,) int64, what a row has under a name: numbers, or numbers for each of the texts to choose from.

    Raises:
        ValueError: It has something else there.
    """
    values = example[name]
    try:
        is_nested = len(values) > 0 and np.ndim(values[0]) > 0
        if is_nested:
            return np.concatenate([np.asarray(one, np.int64).reshape(-1) for one in values])
        if not isinstance(values, str | bytes):
            return np.asarray(values, np.int64)
    except (TypeError, ValueError, LookupError):  # said below
        pass
    raise ValueError(
        f"The policy reads the tokens of each row, but row {row} has {values!r:.60} as {name!r}: give a list of "
        "numbers, [] where there are none, or choose a rule that needs no tokens."
    )


def _is_text(labels: Any) -> bool:
    """Whether the labels of a row are several, which a decoder reads, and no class."""
    return isinstance(labels, list | tuple) or np.ndim(labels) > 0


# ---- Pictures ----


def _raw(picture: Any) -> Any:
    """A picture as a PIL picture, as the bytes of its file, or as an array."""
    if isinstance(picture, Mapping):
        return _file(picture)
    return picture if isinstance(picture, bytes) or hasattr(picture, "convert") else np.asarray(picture)


def _file(picture: Mapping[str, Any]) -> bytes:
    """The file of a picture as `datasets` stores it: inside or beside the data set."""
    return picture["bytes"] if picture["bytes"] is not None else Path(picture["path"]).read_bytes()


class _Shrink:
    """Makes a row of bytes of any picture: area averages, channel by channel.

    Args:
        samples: PIL pictures, files' bytes, or arrays with channels first or last. The first sets the size and the
            channels, all together the scale.

    Attributes:
        width: Bytes in a row.
    """

    def __init__(self, samples: list[Any]):
        self._mode = None
        first = _opened(samples[0])
        if hasattr(first, "convert"):
            self._mode = "L" if first.mode in ("1", "L") else "RGB"
        arrays = [self._array(sample) for sample in samples]
        self._channels, *sides = arrays[0].shape
        self._height, self._width = (min(side, _SIDE) for side in sides)
        self.width = self._channels * self._height * self._width
        self._low, self._high = 0.0, 255.0
        if arrays[0].dtype != np.uint8:
            self._low = float(min(array.min() for array in arrays))
            self._high = float(max(array.max() for array in arrays))

    def __call__(self, picture: Any) -> np.ndarray:
        """(`width`,) uint8."""
        array = self._array(picture)
        channels, height, width = array.shape
        if channels != self._channels:
            raise ValueError(f"A picture has {channels} channels, but the first one has {self._channels}.")
        tops = np.arange(self._height) * height // self._height
        lefts = np.arange(self._width) * width // self._width
        sums = np.add.reduceat(np.add.reduceat(array, tops, axis=1, dtype=np.float32), lefts, axis=2)
        heights, widths = np.diff(tops, append=height), np.diff(lefts, append=width)
        area = np.outer(np.maximum(heights, 1), np.maximum(widths, 1))  # a smaller picture's pixels are repeated
        scale = 255 / (self._high - self._low) if self._high > self._low else 0.0
        scaled = (sums / area - self._low) * scale
        return np.clip(np.rint(scaled), 0, 255).astype(np.uint8).reshape(-1)

    def _array(self, picture: Any) -> np.ndarray:
        """(channels, height, width) of any kind of number."""
        picture = _opened(picture)
        array = np.asarray(picture.convert(self._mode) if self._mode and hasattr(picture, "convert") else picture)
        if array.ndim == 2:
            return array[None]
        if array.ndim != 3:
            raise ValueError(f"A picture must have 2 or 3 dimensions, got the shape {array.shape}.")
        return array if array.shape[0] <= array.shape[2] else array.transpose(2, 0, 1)


def _opened(picture: Any) -> Any:
    if isinstance(picture, bytes):
        from PIL import Image

        picture = Image.open(io.BytesIO(picture))
    return eight_bits(picture) if hasattr(picture, "convert") else picture


def eight_bits(picture: Any) -> Any:
    """A PIL picture as `convert` takes it: 16-bit greys, which would be white, with 8; clear palettes with alpha."""
    if picture.mode == "P" and "transparency" in picture.info:
        return picture.convert("RGBA")
    if not picture.mode.startswith("I;16"):
        return picture
    from PIL import Image

    return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
