"""What padding costs: the share of the positions that a model computed for nothing, and how to have less.

Positions are what the model computes, padding included; tokens are the real ones among them.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

WASTE = 0.2  # share of a run's positions: a note says so where more is padding
CURES = {
    "width": (
        "Every batch was of one width: where rows are padded to a fixed length, by the tokenizer or the collator "
        '(padding="max_length", pad_to_multiple_of), pad to the longest row of each batch in the collator instead.'
    ),
    "order": "{flag} puts rows of like length into one batch.",
    "lengths": (
        "{flag} puts rows of like length into one batch; without `input_ids`, the data set needs a column of the rows' "
        "lengths for it, `length` or what length_column_name names."
    ),
    "own": "The order of the rows is that of a sampler of your own: rows of like length beside each other have less.",
    "batch": "Smaller batches have less, and a smaller pad_to_multiple_of where the collator has one.",
}  # by cause


def count_padding(tokens: np.ndarray, positions: int) -> int | None:
    """How many positions were padding; None where the inputs have no tokens, or they are not told apart.

    Args:
        tokens: (V,) int64, real tokens of each visit of a row; -1 = not told apart.
        positions: Of all their batches, padding included.
    """
    if not positions or not tokens.any() or tokens.min() < 0:
        return None
    return positions - int(tokens.sum())


def share_of(epochs: Sequence[Mapping[str, Any]]) -> float | None:
    """Share of the positions trained that were padding; None where inputs have no tokens, or they are not told apart.

    Args:
        epochs: Accounts, see `PruningReport`; in older files, without `padding`.
    """
    positions, known, padding = 0, 0, 0
    for epoch in epochs:
        rest = epoch["padded_tokens"] - epoch["tokens"] if epoch["tokens"] else 0
        positions += epoch["padded_tokens"]
        padding += epoch.get("padding", rest)
        known += epoch["tokens"] + epoch.get("padding", rest)
    return padding / positions if positions and known == positions else None


def causes(
    order: str, widths: Collection[float], tokens: np.ndarray, batch_rows: int, is_encoder_decoder: bool
) -> tuple[str, ...]:
    """Where the padding of a run comes from: keys of `CURES`.

    Args:
        order: The key that the order of the rows gives.
        widths: Positions of a row in each batch, two different numbers at most; empty = no batch was seen.
        tokens: (N,) real tokens of each row; 0 = not known.
        batch_rows: Rows in a batch of all processes.
        is_encoder_decoder: Whether a row has two sides that are padded separately.
    """
    if not widths:
        return ()
    rows = np.count_nonzero(tokens > 0)
    batches = math.ceil(rows / batch_rows)  # in an epoch, at least
    order = "batch" if batches == 1 else order
    if len(widths) > 1 or (batches == 1 and is_encoder_decoder):
        return (order,)
    (width,) = widths
    longest = np.count_nonzero(tokens == width)
    if longest < batches:  # some batch had no row as long as its width
        return ("width",)
    return (order,) if batches == 1 else (order, "width")


def note(share: float | None, causes: Sequence[str], is_command: bool = False) -> str | None:
    """What a run wasted on padding, and the cure, in words; None where it was a fifth or less, or there is no cure.

    Args:
        share: Of the positions, as `share_of` gives it.
        causes: As `causes` gives them; empty = not known, or no cure.
        is_command: Whether arguments are named as on a command line, and not as in Python.
    """
    if share is None or not share > WASTE or not causes:
        return None
    name, value = "train_sampling_strategy", "group_by_length"
    flag = f"`--{name} {value}`" if is_command else f'`{name}="{value}"`'
    said = f"{100 * share:.0f} % of the positions that the model computed in training were padding."
    return " ".join([said, *(CURES[cause].format(flag=flag) for cause in causes)])
