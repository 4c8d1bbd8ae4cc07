"""An order of the rows with little padding: rows of similar length share a batch, and the batches are shuffled."""

from typing import Any

import numpy as np

# Most units that are sorted together. More units leave less padding; fewer make the batches more random. A small round
# uses a sixteenth of its units, because a model learns worse if the same rows share a batch again and again. Both
# effects are measured: recipes/results/README.md.
MEGA_BATCH, LEAST, SHARE = 50, 4, 16
_BITS = 21  # bits of a length in a sort key; a key holds three. Of lengths above 2 million, only the top bits count


def lengths_as_ranks(lengths: Any) -> np.ndarray:
    """Replace lengths by their ranks, which sort in the same order and take less memory.

    Args:
        lengths: (N,) numbers, or (N, 2) for the two sides of an encoder-decoder. Both sides are padded, so we sort by
            the longer side, then by the first one: this order left the least padding on two corpora of sentences.

    Returns:
        (N,) unsigned integers, 0 for the shortest.

    Raises:
        ValueError: A length is not a finite number.
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
    """Return the number of mega-batches for a number of units; each mega-batch is sorted on its own."""
    return max(1, round(units / min(MEGA_BATCH, max(LEAST, units // SHARE))))


def group(rows: np.ndarray, ranks: np.ndarray, unit: int, rng: np.random.Generator, longest_first: bool) -> np.ndarray:
    """Sort shuffled rows into units of similar length, and put the units in random order.

    The rows are cut into mega-batches of nearly equal size. Each is sorted by length and cut into units. The rows that
    fill no unit come last: they are cut out of the last mega-batch at a random place, so that no length is preferred.

    Args:
        rows: (K,) int64, shuffled. Their order decides which rows share a mega-batch, and the order of equal lengths.
        ranks: (N,) unsigned, the length ranks of all rows.
        unit: Rows that are trained at a time: a batch for each process.
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
