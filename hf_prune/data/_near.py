"""Groups of near rows: texts by MinHash of their n-grams, pictures by a perceptual hash.

Both go the same way. Equal rows are joined first. Of the others, hashes give candidates: pairs of rows that agree in a
band of their hash. Each candidate is compared exactly. Then rows join, from the first to the last: a row joins the
first row before it that is near and has itself joined no other; else it begins a group. So no group is a chain: each of
its rows is near its first row.
"""

import math
from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from tqdm.auto import tqdm

_HASHES = 128  # of a MinHash
_MISSED = 0.01  # share of the pairs at the threshold that no band may find
_SEED = 1
_AT_A_TIME = 1 << 14  # rows to hash, or pairs to compare
_NEAREST = 8  # rows before it in its bucket that a row is compared with, and with the first row there
_SIDE, _PARTS = 8, 7  # of a perceptual hash: 8 x 8 frequencies in 7 parts, 2 of them in a band
_APART = 10 / 63  # share of the places in which the hashes of near pictures may differ
_FACTORS = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # of splitmix64


class Text(NamedTuple):
    """One text of every row, as numbers of its tokens or words.

    Attributes:
        ids: (T,) int32, the tokens of all rows one after another.
        offsets: (N + 1,) int64, where each row begins.
    """

    ids: np.ndarray
    offsets: np.ndarray

    def of(self, rows: np.ndarray) -> "Text":
        """The texts of `rows`, (K,) int64."""
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        return Text(self.ids[_places(self.offsets[rows], lengths)], np.concatenate([[0], np.cumsum(lengths)]))


def near_texts(texts: list[Text], similarity: float, ngram: int) -> np.ndarray:
    """Group rows whose texts share most of their n-grams.

    Args:
        texts: The texts of each row; two rows are near if each of their texts is.
        similarity: The least Jaccard similarity of the sets of n-grams; 1 = texts must be equal.
        ngram: Tokens in an n-gram; a shorter text is one n-gram.

    Returns:
        (N,) int64, the first row of each row's group.

    Raises:
        ImportError: `similarity` is below 1, and rensa is not installed.
    """
    n = len(texts[0].offsets) - 1
    equal = np.concatenate([_hashes_of_rows([text.of(rows) for text in texts]) for rows in _chunks(n)])
    if similarity == 1:
        return _first_equal(equal)

    def keys(rows: np.ndarray) -> np.ndarray:
        return _minhash_bands(texts, rows, similarity, ngram)

    def near(low: np.ndarray, high: np.ndarray) -> np.ndarray:
        rows, pairs = np.unique(np.stack([low, high]), return_inverse=True)
        pairs, found = pairs.reshape(2, -1), np.ones(len(low), bool)
        for side, text in enumerate(texts):
            found &= _jaccard(_gram_sets(text, rows, ngram, side), pairs) >= similarity - 1e-9
        return found

    return _grouped(equal, keys, near)


def near_pictures(pixels: np.ndarray, shape: tuple[int, int, int], similarity: float) -> np.ndarray:
    """Group rows whose pictures have nearly the same pixels.

    With a and b the bytes of two pictures, they are near if sum min(a, b) / sum max(a, b) is at least `similarity`, for
    the pictures and for their negatives, and if their perceptual hashes (which of the 63 lowest frequencies are above
    their median) differ in at most ten places: without it, dull pictures are near each other. All such pairs are found
    whose hashes differ in at most five places, and most others.

    Args:
        pixels: (N, P) uint8.
        shape: Channels, height and width of a picture; their product is P.
        similarity: The least similarity; 1 = pixels must be equal.

    Returns:
        (N,) int64, the first row of each row's group.
    """
    keys = np.random.default_rng(_SEED).integers(2**64, size=pixels.shape[1], dtype=np.uint64)
    equal = np.concatenate([np.einsum("np,p->n", pixels[rows], keys) for rows in _chunks(len(pixels))])
    if similarity == 1:
        return _first_equal(equal)

    hashes = np.concatenate([_perceptual_hashes(pixels[rows], shape) for rows in _chunks(len(pixels))])

    def near(low: np.ndarray, high: np.ndarray) -> np.ndarray:
        alike = [_overlap(pixels[low[some]], pixels[high[some]]) for some in _chunks(len(low))]
        apart = [np.count_nonzero(hashes[low[some]] ^ hashes[high[some]], axis=1) for some in _chunks(len(low))]
        return (np.concatenate(alike) >= similarity - 1e-9) & (np.concatenate(apart) <= _APART * hashes.shape[1])

    return _grouped(equal, lambda rows: _picture_bands(hashes[rows]), near)


# ---- From hashes to groups ----


def _first_equal(equal: np.ndarray) -> np.ndarray:
    """Return the first row with the hash of each row: (N,) int64."""
    _, first, of_row = np.unique(equal, return_index=True, return_inverse=True)
    return first[of_row]


def _grouped(
    equal: np.ndarray,
    keys: Callable[[np.ndarray], np.ndarray],
    near: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """Join equal rows, then near ones.

    Args:
        equal: (N,) uint64, the same for equal rows alone.
        keys: Gives (K, B) uint32 for (K,) rows: near rows agree in one of the B columns at least.
        near: Says of (E,) and (E,) rows which pairs are near: (E,) bool.

    Returns:
        (N,) int64, the first row of each row's group.
    """
    first = _first_equal(equal)
    rows = np.flatnonzero(first == np.arange(len(first)))
    low, high = (rows[some] for some in _candidates(keys(rows)))
    found = near(low, high)
    joined = np.arange(len(first))
    for other, one in _leaders(low[found], high[found]).items():
        joined[other] = one
    return joined[first]


def _candidates(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of rows that agree in a column of `keys`, each once: (E,) lower and (E,) higher rows.

    The pairs are sorted by the higher row, then by the lower one. In a bucket of many rows, not all pairs are taken
    (`_NEAREST`), so that their number grows with the rows, not with their square.
    """
    n, found = len(keys), np.empty(0, np.int64)
    for column in tqdm(keys.T, "Finding near-duplicates"):
        order = np.argsort(column, kind="stable")  # the rows of a bucket stay in their order
        bucket = column[order]
        begins = np.flatnonzero(np.concatenate([[True], bucket[1:] != bucket[:-1]]))
        place = np.arange(n) - np.repeat(begins, np.diff(begins, append=n))
        codes = [found]
        for lag in range(1, _NEAREST + 1):
            at = np.flatnonzero(place >= lag)
            codes.append(order[at] * n + order[at - lag])
        at = np.flatnonzero(place > _NEAREST)
        codes.append(order[at] * n + order[at - place[at]])
        found = np.unique(np.concatenate(codes))
    return found % n, found // n


def _leaders(low: np.ndarray, high: np.ndarray) -> dict[int, int]:
    """Return the row that each row joins: the first near one before it that has joined no other.

    Args:
        low: (E,) int64, the lower row of each near pair.
        high: (E,) int64, the higher one; pairs are sorted by it, then by the lower one.
    """
    leaders: dict[int, int] = {}
    for one, other in zip(low.tolist(), high.tolist(), strict=True):  # whom `one` joins is settled: it is lower
        if one not in leaders:
            leaders.setdefault(other, one)
    return leaders


# ---- Texts ----


def _minhash_bands(texts: list[Text], rows: np.ndarray, similarity: float, ngram: int) -> np.ndarray:
    """Return a hash of each band of each row's MinHash: (K, B) uint32.

    The n-grams of all texts are one set. If each text of two rows is near, this set is at least as near.
    """
    try:
        from rensa import RMinHash
    except ImportError as error:
        raise ImportError(
            "Near-duplicate texts are found with rensa: pip install rensa, or hf_prune[duplicates]. Without it, "
            "similarity=1 finds equal texts."
        ) from error
    width = _band_width(similarity)
    bands = _HASHES // width
    found = np.zeros((len(rows), bands), np.uint32)
    for some in tqdm(_chunks(len(rows)), "Hashing texts"):
        grams = [_ngrams(text.of(rows[some]), ngram, side) for side, text in enumerate(texts)]
        of_row = np.concatenate([np.repeat(np.arange(len(counts)), counts) for _, counts in grams])
        hashes = np.concatenate([one for one, _ in grams])[np.argsort(of_row, kind="stable")]
        offsets = np.concatenate([[0], np.cumsum(sum(counts for _, counts in grams))]).astype(np.uint64)
        digests = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, bands * width, _SEED).to_rows()
        parts = np.array(digests, np.uint64).reshape(len(digests), bands, width)
        folded = np.zeros(parts.shape[:2], np.uint64)
        for place in range(width):
            folded = _mixed(folded + parts[:, :, place])
        found[some] = folded >> np.uint64(32)
    return found


def _band_width(similarity: float) -> int:
    """Return the hashes in a band: as many as still find the pairs at the threshold, up to a share of `_MISSED`."""
    widths = range(1, _HASHES // 2 + 1)
    return max(width for width in widths if (1 - similarity**width) ** (_HASHES // width) <= _MISSED)


def _ngrams(text: Text, ngram: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a hash of each n-gram of each row, (M,) uint64, and how many each row has, (N,) int64.

    Args:
        text: The text of N rows.
        ngram: Tokens in an n-gram; a shorter row has one n-gram of all its tokens.
        side: Number of the text, which makes its n-grams differ from those of the other text.
    """
    lengths = np.diff(text.offsets)
    ngram = min(ngram, int(lengths.max(initial=1)))
    counts = np.maximum(lengths - ngram + 1, lengths > 0)
    begins, ends = _places(text.offsets[:-1], counts), np.repeat(text.offsets[1:], counts)
    hashes = np.full(len(begins), side, np.uint64)
    for place in range(ngram):
        inside = begins + place < ends
        hashes[inside] = _mixed(hashes[inside] + text.ids[begins[inside] + place].astype(np.uint64))
    return hashes, counts


def _gram_sets(text: Text, rows: np.ndarray, ngram: int, side: int) -> csr_array:
    """Return (K, 2^30) with a one for each n-gram of a row, by the upper bits of its hash."""
    columns, counts = [], [np.zeros(1, np.int64)]
    for some in _chunks(len(rows)):
        hashes, found = _ngrams(text.of(rows[some]), ngram, side)
        columns.append((hashes >> np.uint64(34)).astype(np.int32))
        counts.append(found)
    indices, offsets = np.concatenate(columns), np.cumsum(np.concatenate(counts))
    index = np.int32 if len(indices) < 2**31 else np.int64  # scipy takes the wider of the two for both arrays
    sets = csr_array((np.ones(len(indices), np.int8), indices, offsets.astype(index)), shape=(len(rows), 1 << 30))
    sets.sum_duplicates()
    sets.data[:] = 1
    return sets


def _jaccard(sets: csr_array, pairs: np.ndarray) -> np.ndarray:
    """Return the Jaccard similarity of each of (2, E) pairs of sets: (E,) float64; that of two empty sets is 1."""
    sizes, common = np.diff(sets.indptr), []
    for some in _chunks(pairs.shape[1]):
        low, high = pairs[:, some]
        common.append(np.diff(sets[low].multiply(sets[high]).indptr))
    common = np.concatenate(common)
    union = sizes[pairs].sum(axis=0) - common
    return np.divide(common, union, out=np.ones(len(union)), where=union > 0)


def _hashes_of_rows(texts: list[Text]) -> np.ndarray:
    """Return (N,) uint64, the same for rows of equal texts, and of none else by any chance that counts."""
    found = np.zeros(len(texts[0].offsets) - 1, np.uint64)
    for text in texts:
        lengths = np.diff(text.offsets)
        place = np.arange(len(text.ids)) - np.repeat(text.offsets[:-1], lengths)
        mixed = _mixed(_mixed(place.astype(np.uint64)) + text.ids.astype(np.uint64))
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed, dtype=np.uint64)])[text.offsets]  # wraps
        found = _mixed(found + (sums[1:] - sums[:-1]))
    return found


# ---- Pictures ----


def _perceptual_hashes(pixels: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Return which frequencies of each picture are above their median: (N, at most 63) bool.

    All numbers are whole and below 2^53, so that every machine finds the same.
    """
    down, across = (_frequencies(side) for side in shape[1:])
    greys = pixels.reshape(-1, *shape).sum(axis=1, dtype=np.float64)
    strengths = (down @ greys @ across.T).reshape(len(greys), -1)[:, 1:]  # without the mean
    return strengths > np.median(strengths, axis=1, keepdims=True) if strengths.size else strengths > 0


def _picture_bands(hashes: np.ndarray) -> np.ndarray:
    """Return every two parts of each hash: (N, 21) uint32.

    Of seven parts, two are the same in any two hashes that differ in at most five places.
    """
    parts = np.array_split(hashes, _PARTS, axis=1)
    numbers = [part @ (1 << np.arange(part.shape[1])) for part in parts]
    return np.stack([one << 16 | other for one, other in combinations(numbers, 2)], axis=1).astype(np.uint32)


def _frequencies(side: int) -> np.ndarray:
    """Return the lowest cosines over `side` pixels, in thousandths: (at most 8, side) float64."""
    waves, pixels = np.arange(min(side, _SIDE)), np.arange(side) + 0.5
    return np.rint(1000 * np.cos(math.pi / side * np.outer(waves, pixels)))


def _overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the similarity of (E, P) pairs of pictures, see `near_pictures`: (E,) float64."""
    least = np.minimum(one, other).sum(axis=1, dtype=np.int64)
    most = np.maximum(one, other).sum(axis=1, dtype=np.int64)
    white = 255 * one.shape[1]
    of_pictures, of_negatives = np.ones(len(one)), np.ones(len(one))
    np.divide(least, most, out=of_pictures, where=most > 0)
    np.divide(white - most, white - least, out=of_negatives, where=least < white)
    return np.minimum(of_pictures, of_negatives)


# ---- Arrays ----


def _chunks(n: int) -> list[np.ndarray]:
    """Return the numbers from 0 to n - 1, in parts."""
    return np.array_split(np.arange(n), n // _AT_A_TIME + 1)


def _places(begins: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the places of all items of lists: for each list, `begin`, `begin + 1`, ..., as many as its length."""
    return np.arange(lengths.sum()) + np.repeat(begins - (np.cumsum(lengths) - lengths), lengths)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Return a 64-bit hash of each of (M,) uint64 (the last steps of splitmix64)."""
    first, second, third = (np.uint64(factor) for factor in _FACTORS)
    values = values + first
    values = (values ^ (values >> np.uint64(30))) * second
    values = (values ^ (values >> np.uint64(27))) * third
    return values ^ (values >> np.uint64(31))
