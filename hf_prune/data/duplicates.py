"""Near-duplicate rows: groups of rows whose texts or pictures are nearly the same."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..common.generators import unchanged_generators
from ._near import Text, near_pictures, near_texts
from .cache import made_once
from .features import arrow_tokens, read_features, real_tokens
from .kinds import is_arrow, names_of
from .pixels import PICTURES, picture_shape
from .tokens import ROWS_AT_A_TIME, is_text

_VERSION = 1  # of how groups are found: change it where equal rows may get other groups


def find_groups(
    dataset: Any,
    is_encoder_decoder: bool = False,
    *,
    similarity: float = 0.8,
    ngram: int = 2,
    columns: str | None = None,
) -> np.ndarray:
    """Find the groups of near-duplicate rows of a data set.

    Texts are near if they share most of their n-grams of tokens, whatever the order of these (`similarity` is that of
    Jaccard). If a row has two texts, input and target of an encoder-decoder, both must be near. Pictures are near if
    they have nearly the same pixels, shrunk to at most 32 x 32. Labels that are classes do not count.

    Every row of a group is near the group's first row, so that two rows of a group may differ by twice as much, but no
    chain of small differences joins rows that have nothing in common. Equal rows are always found. Of the pairs of
    texts at the threshold, less than 1 % are missed, and some more in clusters of more than nine near rows, which may
    then be several groups. The result is the same in every process and every run. It is kept on disk under
    `$HF_HOME/hf_prune/features`, in a file named by the content of the rows.

    Args:
        dataset: Rows with `input_ids`, or else with pictures, see `read_features`.
        is_encoder_decoder: Whether `labels` are a text, which is then read too.
        similarity: The least similarity of near rows, in [0.5, 1]; 1 = equal rows alone.
        ngram: Tokens in an n-gram, at least 1; a text that is shorter is one n-gram.
        columns: Names of columns of texts, joined by "+", which are read in place of tokens, as words without regard to
            case and spaces; None = tokens or pictures.

    Returns:
        (N,) int64, for each row the number of the first row of its group; its own if it is alone.

    Raises:
        ImportError: The rows are texts, `similarity` is below 1, and rensa is not installed.
        ValueError: An argument is out of range, or the rows have neither tokens nor pictures nor these columns.

    Examples:
        >>> rows = [{"text": "One fine day"}, {"text": "another"}, {"text": "one  fine DAY"}]
        >>> find_groups(rows, similarity=1, columns="text").tolist()
        [0, 1, 0]
    """
    if not 0.5 <= similarity <= 1:
        raise ValueError(f"find_groups(similarity=...) must be in [0.5, 1], got {similarity!r}.")
    if ngram < 1:
        raise ValueError(f"find_groups(ngram=...) must be at least 1, got {ngram!r}.")
    how = f"groups {_VERSION} {similarity} {ngram}"
    with unchanged_generators():
        texts = _tokens(dataset, is_encoder_decoder) if columns is None else _words(dataset, columns.split("+"))
        if texts:
            content = _hash_of(how, *(array for text in texts for array in text))
            return made_once("groups", content, lambda: near_texts(texts, similarity, ngram))
        pixels = read_features(dataset, False, frozenset({"features"})).pixels
        assert pixels is not None
        shape = picture_shape(dataset, next(name for name in PICTURES if name in _names(dataset)))
        content = _hash_of(f"{how} {shape}", pixels)
        return made_once("groups", content, lambda: near_pictures(pixels, shape, similarity))


def share_with_duplicates(groups: np.ndarray) -> float:
    """Return the share of the rows that have a near-duplicate, in [0, 1].

    Args:
        groups: (N,) int64, see `find_groups`.
    """
    return float(np.mean(np.bincount(groups)[groups] > 1))


def _hash_of(how: str, *arrays: np.ndarray) -> str:
    content = hashlib.blake2b(how.encode(), digest_size=16)
    for array in arrays:
        content.update(f"{array.dtype} {array.shape}".encode())
        content.update(np.ascontiguousarray(array).data)
    return content.hexdigest()


def _names(dataset: Any) -> list[str]:
    if is_arrow(dataset):
        return dataset.column_names
    first = dataset[0]
    return list(first) if isinstance(first, Mapping) else []


# ---- Texts ----


def _tokens(dataset: Any, is_encoder_decoder: bool) -> list[Text]:
    """Read the tokens of each text of the rows; none if rows have no `input_ids`, but a picture."""
    names = _names(dataset)
    if "input_ids" in names:
        read = arrow_tokens if is_arrow(dataset) else _example_tokens
        return _joined(read(dataset, is_encoder_decoder))
    if set(names).isdisjoint(PICTURES):
        found = ", ".join(map(str, names)) or names_of(dataset[0])
        raise ValueError(
            f"Near-duplicates are found by 'input_ids' or pictures, but the rows have {found}. Tokenize them first, or "
            "name columns of texts, as in columns='question+answer'."
        )
    return []


def _example_tokens(dataset: Any, is_encoder_decoder: bool) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
    names = ["input_ids"]
    if is_encoder_decoder and is_text(dataset[0].get("labels")):
        names.append("labels")
    for begin in tqdm(range(0, len(dataset), ROWS_AT_A_TIME), "Reading tokens"):
        texts = [[] for _ in names]
        for row in range(begin, min(begin + ROWS_AT_A_TIME, len(dataset))):
            example = dataset[row]
            if missing := [name for name in names if name not in example]:
                raise ValueError(f"Row 0 has {missing[0]!r}, but row {row} has {names_of(example)}: give all the same.")
            for text, name in zip(texts, names, strict=True):
                text.append(real_tokens(example, name, row))
        yield [(np.concatenate(text), np.cumsum([0, *map(len, text)])) for text in texts]


def _words(dataset: Any, columns: list[str]) -> list[Text]:
    """Read columns of texts, cut at spaces and without regard to case, as numbers of words.

    Raises:
        ValueError: A column is missing, or holds something else.
    """
    names = _names(dataset)
    if missing := [name for name in columns if name not in names]:
        raise ValueError(
            f"columns={'+'.join(columns)!r}: the rows have no {missing[0]!r}, but {', '.join(map(str, names))}. Name "
            "columns of texts that the training set still has."
        )
    known: dict[str, int] = {}
    return _joined(
        [_numbered(texts, name, known) for name, texts in zip(columns, batch, strict=True)]
        for batch in _batches(dataset, columns)
    )


def _batches(dataset: Any, columns: list[str]) -> Iterator[list[list[Any]]]:
    """Yield the values of each column, some rows at a time."""
    if is_arrow(dataset):
        for batch in dataset.select_columns(columns).with_format(None).iter(ROWS_AT_A_TIME):
            yield [batch[name] for name in columns]
        return
    for begin in tqdm(range(0, len(dataset), ROWS_AT_A_TIME), "Reading texts"):
        examples = (dataset[row] for row in range(begin, min(begin + ROWS_AT_A_TIME, len(dataset))))
        yield [
            list(values) for values in zip(*([example[name] for name in columns] for example in examples), strict=True)
        ]


def _numbered(texts: list[Any], name: str, known: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Number the words of texts, and remember the numbers in `known`."""
    ids, lengths = [], [0]
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"columns: a row has {text!r:.60} as {name!r}, which is no text. Name columns of texts.")
        words = text.casefold().split()
        ids += [known.setdefault(word, len(known)) for word in words]
        lengths.append(len(words))
    return np.array(ids, np.int32), np.cumsum(lengths)


def _joined(parts: Iterator[list[tuple[np.ndarray, np.ndarray]]]) -> list[Text]:
    """Join the parts of each text, each of which has its own offsets."""
    texts = []
    for part in zip(*parts, strict=True):
        ids = np.concatenate([ids.astype(np.int32) for ids, _ in part])
        lengths = np.concatenate([[0], *(np.diff(offsets) for _, offsets in part)])
        texts.append(Text(ids, np.cumsum(lengths)))
    return texts
