"""All rows of a training set in brief, read in bulk: short texts, paths of pictures, lengths, near-duplicates."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..common.storage import storable
from .duplicates import find_groups
from .examples import LABELS, class_names, decoded, is_target, text_of
from .kinds import is_arrow
from .pixels import PICTURES

_LONGEST = 200  # characters of a row's text
_TOKENS = 64  # of a row whose text is decoded
_MOST = 200_000  # rows: reading the texts of more takes minutes
_MOST_TEXTS, _MOST_PICTURES = 100_000, 10_000  # rows: finding the near-duplicates of more takes longer than seconds
_ROWS_AT_A_TIME = 10_000
_SAMPLE = 64  # rows that tell texts from names


@dataclass
class Brief:
    """What people look at in the rows of a training set; it reads when it is asked.

    Only a `datasets.Dataset` and a list are read: to read another data set is to make its rows, which may take long.

    Args:
        dataset: The training set.
        processing_class: Decodes token ids, if it can.
        names: Names of the classes by number, used if the data set does not name them.
        has_two_texts: Whether labels are a text, too.
    """

    dataset: Any
    processing_class: Any = None
    names: Mapping[int, str] = field(default_factory=dict[int, str])
    has_two_texts: bool = False

    def __post_init__(self):
        self._groups: np.ndarray | None = None
        self._columns: dict[str, np.ndarray] | None = None
        self.names = class_names(self.dataset, self.names)

    def columns(self) -> dict[str, np.ndarray]:
        """The rows in columns.

        Returns:
            As far as the rows have them: `text`, (N,) str, shortened; `path`, (N,) str or None, of the picture;
            `length`, (N,) int32, characters of the texts in full. {} if there are too many rows, or it can't be read.
        """
        if self._columns is None:
            self._columns = self._read()
        return self._columns

    def groups(self) -> np.ndarray | None:
        """The near-duplicates, see `find_groups`; without rensa equal texts alone.

        Returns:
            (N,) int64; None if it would take long to find them, or if the rows have nothing that can be compared.
        """
        if self._groups is None and is_arrow(self.dataset):
            names = self.dataset.column_names
            texts = [name for name in names if _is_text(self.dataset.features[name]) and name not in LABELS]
            is_picture = "input_ids" not in names and not set(names).isdisjoint(PICTURES)
            if len(self.dataset) > (_MOST_PICTURES if is_picture else _MOST_TEXTS):
                return None
            columns = None if is_picture or "input_ids" in names or not texts else "+".join(texts)
            try:
                self._groups = find_groups(self.dataset, self.has_two_texts, columns=columns)
            except ImportError:
                self._groups = find_groups(self.dataset, self.has_two_texts, columns=columns, similarity=1)
            except ValueError:
                return None
        return self._groups

    def _read(self) -> dict[str, np.ndarray]:
        n = len(self.dataset)
        if n > _MOST or not (is_arrow(self.dataset) or isinstance(self.dataset, (list, tuple))):
            return {}
        found = [self._brief_or_not(row) for row in self._rows()]
        texts, paths = [text for text, _, _ in found], [path for _, path, _ in found]
        lengths = np.array([length for *_, length in found], np.int32)
        columns: dict[str, np.ndarray] = {}
        for name, values in (("text", texts), ("path", paths)):
            if any(value is not None for value in values):
                columns[name] = np.array(values, object)
        return columns | ({"length": lengths} if lengths.any() else {})

    def _rows(self) -> Iterator[Mapping[str, Any]]:
        """The rows; of those of a `datasets.Dataset` only what is looked at, as stored, without decoding a picture."""
        if not is_arrow(self.dataset):
            yield from (row if isinstance(row, Mapping) else {} for row in self.dataset)
            return
        kinds = self.dataset.features
        texts = [name for name in kinds if (_is_text(kinds[name]) or _is_talk(kinds[name])) and name not in LABELS]
        pictures = [name for name in kinds if name in PICTURES and type(kinds[name]).__name__ == "Image"]
        ids = [] if pictures else [name for name in ("input_ids", "labels") if name in kinds]
        first = self.dataset.select_columns(texts).with_format("arrow")[:_SAMPLE].to_pylist() if texts else []
        if any(" " in (text_of(value) or "") for row in first for value in row.values()):  # single words are names
            ids = []
        stored = self.dataset.select_columns([*texts, *pictures, *ids]).with_format("arrow")
        for batch in stored.iter(_ROWS_AT_A_TIME):
            columns = {name: batch[name].to_pylist() for name in (*texts, *ids)}
            columns |= {name: _paths(batch[name]) for name in pictures}
            for row in range(len(batch)):
                yield {name: values[row] for name, values in columns.items()}

    def _brief_or_not(self, row: Mapping[str, Any]) -> tuple[str | None, str | None, int]:
        try:
            return self._brief(row)
        except Exception as error:  # whatever is wrong with a row, it must not cost the table of a run
            return _short(f"can't be shown ({type(error).__name__}: {error})"), None, 0

    def _brief(self, row: Mapping[str, Any]) -> tuple[str | None, str | None, int]:
        """The text, the path of the picture, and the characters of the texts of a row."""
        texts = [text for value in row.values() if (text := text_of(value)) is not None]
        path = next((row[name] for name in PICTURES if isinstance(row.get(name), str)), None)
        if path is not None:
            texts = [text for text in texts if text != path]
            path = storable(path)
        if "input_ids" not in row:
            return _short(" | ".join(texts)) if texts else None, path, sum(map(len, texts))
        decode = self.processing_class.decode if hasattr(self.processing_class, "convert_ids_to_tokens") else None
        shown = [decoded(row["input_ids"][:_TOKENS], decode)]
        if (labels := row.get("labels")) is not None and is_target(labels, row["input_ids"]):
            shown.append(decoded(labels[:_TOKENS], decode))
        return _short(" | ".join([*texts, *shown])), path, 0


def _short(text: str) -> str:
    text = storable(text)
    return text if len(text) <= _LONGEST else text[:_LONGEST].rstrip() + " …"


def _is_text(kind: Any) -> bool:
    return getattr(kind, "dtype", None) in ("string", "large_string")


def _is_talk(kind: Any) -> bool:
    """Whether a column holds lists of texts, or conversations."""
    inner = kind[0] if isinstance(kind, list) else getattr(kind, "feature", None)
    return inner is not None and (_is_text(inner) or (isinstance(inner, Mapping) and "content" in inner))


def _paths(column: Any) -> list[str | None]:
    """The paths of a column of pictures, as stored; a picture that lies in the file itself may have none."""
    column = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    return column.field("path").to_pylist()
