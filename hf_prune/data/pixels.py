"""Pictures of every row, shrunk to one size; those of a `datasets.Dataset` are cached on disk."""

import hashlib
import io
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from .cache import made_once
from .kinds import spread

_PICTURES_AT_A_TIME = 256
_SIDE = 32  # pixels: pictures are shrunk to at most this height and width
PICTURES = ("pixel_values", "image", "img")


def stored_pixels(dataset: Any, name: str) -> np.ndarray:
    """The pictures of a `datasets.Dataset`, shrunk now or by an earlier run.

    The file of an earlier run is found by the content of the pictures. The cache of `Dataset.map` does not serve: its
    key is how a data set was made, and a data set in memory has no cache.

    Args:
        dataset: The training set.
        name: The column of its pictures.

    Returns:
        (N, P) uint8.
    """
    column = dataset.select_columns([name])
    content = hashlib.blake2b(f"{name} {_SIDE} {len(column)}".encode(), digest_size=16)
    for pictures in tqdm(_stored(column, name), "Reading pictures", total=_batches(column)):
        for picture in pictures:
            kind = len(picture) if isinstance(picture, bytes) else (picture.shape, picture.dtype)
            content.update(repr(kind).encode())
            content.update(picture if isinstance(picture, bytes) else np.ascontiguousarray(picture).data)
    return made_once("pixels", content.hexdigest(), lambda: _shrunk(column, name))


def _shrunk(column: Any, name: str) -> np.ndarray:
    samples = [picture for pictures in _stored(column.select(spread(len(column))), name) for picture in pictures]
    shrink = Shrink(samples)
    pixels = np.empty((len(column), shrink.width), np.uint8)
    with ThreadPoolExecutor() as pool:  # decoding lets other threads run
        batches = tqdm(_stored(column, name), "Shrinking pictures", total=_batches(column))
        for batch, pictures in enumerate(batches):
            begin = batch * _PICTURES_AT_A_TIME
            pixels[begin : begin + len(pictures)] = list(pool.map(shrink, pictures))
    return pixels


def picture_shape(dataset: Any, name: str) -> tuple[int, int, int]:
    """The channels, height and width of the pictures of a data set once they are shrunk.

    Args:
        dataset: The training set.
        name: The column of its pictures.
    """
    if hasattr(dataset, "select_columns"):
        return Shrink(next(_stored(dataset.select_columns([name]).select([0]), name))).shape
    return Shrink([raw(dataset[0][name])]).shape


def _stored(column: Any, name: str) -> Iterator[list[Any]]:
    """The pictures of a data set with one column, as they are stored, in batches: files as bytes, or arrays."""
    if type(column.features[name]).__name__ == "Image":
        for batch in column.with_format("arrow").iter(_PICTURES_AT_A_TIME):
            yield [_file(picture) for picture in batch[name].to_pylist()]
    else:
        for batch in column.with_format("numpy").iter(_PICTURES_AT_A_TIME):
            yield list(batch[name])


def _batches(column: Any) -> int:
    return -(-len(column) // _PICTURES_AT_A_TIME)


def raw(picture: Any) -> Any:
    """A picture as a PIL picture, as the bytes of its file, or as an array."""
    if isinstance(picture, Mapping):
        return _file(picture)
    return picture if isinstance(picture, bytes) or hasattr(picture, "convert") else np.asarray(picture)


def _file(picture: Mapping[str, Any]) -> bytes:
    """The bytes of a picture's file, which `datasets` stores inside or beside the data set."""
    return picture["bytes"] if picture["bytes"] is not None else Path(picture["path"]).read_bytes()


class Shrink:
    """Turns any picture into a row of bytes: area averages, channel by channel, rounded once.

    PIL's `resize(BOX)` rounds after each of its two passes. It takes neither floats nor channels that come first.

    Args:
        samples: PIL pictures, bytes of files, or arrays with channels first or last. The first one sets the size and
            the channels, all of them together set the scale.

    Attributes:
        width: Bytes in a row.
        shape: Channels, height and width of a shrunk picture.
    """

    def __init__(self, samples: list[Any]):
        self._mode = None
        first = _opened(samples[0])
        if hasattr(first, "convert"):
            self._mode = "L" if first.mode in ("1", "L") else "RGB"
        arrays = [self._array(sample) for sample in samples]
        self._channels, *sides = arrays[0].shape
        self._height, self._width = (min(side, _SIDE) for side in sides)
        self.shape = (self._channels, self._height, self._width)
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
        """(channels, height, width), numbers of any dtype."""
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
    """A PIL picture that `convert` can read: 16-bit greys (else white) become 8-bit, clear palettes get alpha."""
    if picture.mode == "P" and "transparency" in picture.info:
        return picture.convert("RGBA")
    if not picture.mode.startswith("I;16"):
        return picture
    from PIL import Image

    return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
