"""The order of batches without padding: rows of like length stand together, and the batches come in random order."""

from typing import Any

import numpy as np

# Units that are sorted together, at most: more leave less padding, fewer more chance in the batches. Of a small round
# a sixteenth: a model that meets the same rows side by side again and again learns worse. Both measured:
# recipes/results/README.md.
MEGA_BATCH, LEAST, SHARE = 50, 4, 16
_BITS = 21  # of the length of each side, of which three make a key: lengths above 2 million go by their first digits


def lengths_as_ranks(lengths: Any) -> np.ndarray:
    """Lengths by their rank, which sort alike and take the least room.

    Args:
        lengths: (N,) numbers, or (N, 2): those of an encoder-decoder's two sides. What is padded is both, so the longer
            side comes first, then the first one: on two corpora of sentences that leaves the least.

    Returns:
        (N,) unsigned integers, from 0 for the shortest.

    Raises:
        ValueError: They are no finite numbers.
    """
    lengths = np.asarray(lengths)
    if lengths.dtype.kind not in "iuf" or not np.isfinite(lengths).all():
        raise ValueError("lengths must be finite numbers.")
    if lengths.ndim == 2:
        bits = int(lengths.max(initial=1)).bit_length()
        sides = lengths.astype(np.uint64) >> np.uint64(max(0, bits - _BITS))
        longer, first = sides.max(1) << np.uint64(2 * _BITS), sides[:, 0] << np.uint64(_BITS)
        lengths = longer | first | sides[:, 1]
    _, ranks = np.unique(lengths, return_inverse=True)
    return ranks.astype(np.min_scalar_type(ranks.max(initial=0)))


def mega_batches(units: int) -> int:
    """How many parts, each sorted by itself, so many units are cut into."""
    return max(1, round(units / min(MEGA_BATCH, max(LEAST, units // SHARE))))


def group(rows: np.ndarray, ranks: np.ndarray, unit: int, rng: np.random.Generator, longest_first: bool) -> np.ndarray:
    """Put shuffled rows into units of like length, and the units in random order.

    Mega-batches, as equal as can be, are sorted by length and cut into units. The rows that fill no unit come last:
    they are cut out of the last mega-batch at a random place, so that no length is preferred.

    Args:
        rows: (K,) int64, shuffled: that decides which rows come into one mega-batch, and in what order ties stand.
        ranks: (N,) unsigned, of all rows' lengths.
        unit: Rows that are trained side by side: a batch for each process.
        rng: Shuffles the units.
        longest_first: Whether the unit with the longest row comes first, so that memory runs out at once or never.

    Returns:
        (K,) int64.
    """
    whole, rest = divmod(len(rows), unit)
    megas = mega_batches(whole)
    ends = np.arange(1, megas + 1) * whole // megas
    places, gap = rng.permutation(whole), int(rng.integers(0, whole - (ends[-2] if megas > 1 else 0) + 1)) * unit
    order, begin = np.empty_like(rows), 0
    units = order[: whole * unit].reshape(whole, unit)
    for end in ends.tolist():
        part = rows[begin * unit :] if end == whole else rows[begin * unit : end * unit]
        part = part[np.argsort(ranks[part], kind="stable")]
        if end == whole:
            order[whole * unit :] = part[gap : gap + rest]
            part = np.delete(part, slice(gap, gap + rest))
        units[places[begin:end]] = part.reshape(-1, unit)
        begin = end
    if longest_first and whole:
        longest = int(ranks[units[:, -1]].argmax())
        units[[0, longest]] = units[[longest, 0]]
    return order
