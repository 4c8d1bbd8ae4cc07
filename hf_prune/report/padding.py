"""What padding costs: the share of the positions that a model computed for nothing, and how to lower it.

Positions are what the model computes, padding included. Tokens are the real ones among them.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

WASTE = 0.2  # share of a run's positions; a note says so if more is padding
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
    """Number of positions that were padding; None if the inputs have no tokens, or if they are not told apart.

    Args:
        tokens: (V,) int64, real tokens in each visit of a row; -1 = not told apart.
        positions: Positions in all batches of these visits, padding included.
    """
    if not positions or not tokens.any() or tokens.min() < 0:
        return None
    return positions - int(tokens.sum())


def share_of(epochs: Sequence[Mapping[str, Any]]) -> float | None:
    """Share of the trained positions that were padding; None if inputs have no tokens, or if they are not told apart.

    Args:
        epochs: Accounts, see `PruningReport`; older files have no `padding`.
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
        order: Key of `CURES` that stands for the order of the rows.
        widths: Positions of a row in each batch, at most two different numbers; empty = no batch was seen.
        tokens: (N,) real tokens of each row; 0 = not known.
        batch_rows: Rows in a batch of all processes.
        is_encoder_decoder: Whether a row has two sides that are padded separately.
    """
    if not widths:
        return ()
    rows = np.count_nonzero(tokens > 0)
    batches = math.ceil(rows / batch_rows)  # per epoch, at least
    order = "batch" if batches == 1 else order
    if len(widths) > 1 or (batches == 1 and is_encoder_decoder):
        return (order,)
    (width,) = widths
    longest = np.count_nonzero(tokens == width)
    if longest < batches:  # some batch had no row as long as its width
        return ("width",)
    return (order,) if batches == 1 else (order, "width")


def note(share: float | None, causes: Sequence[str], is_command: bool = False) -> str | None:
    """What a run wasted on padding, and the cure, in words; None if it was a fifth or less, or if there is no cure.

    Args:
        share: Share of the positions, from `share_of`.
        causes: From `causes`; empty = not known, or no cure.
        is_command: Whether to name arguments as on a command line, and not as in Python.
    """
    if share is None or not share > WASTE or not causes:
        return None
    name, value = "train_sampling_strategy", "group_by_length"
    flag = f"`--{name} {value}`" if is_command else f'`{name}="{value}"`'
    said = f"{100 * share:.0f} % of the positions that the model computed in training were padding."
    return " ".join([said, *(CURES[cause].format(flag=flag) for cause in causes)])
