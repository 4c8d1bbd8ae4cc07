"""Whether the recorded losses are the losses that training uses: checked on some batches of each round.

A loss may weight classes or have terms that no recipe knows; then a rule would go by other losses than the model is
trained on, and nobody would see it. The loss of a batch tells: where the rows' losses are all that is trained, it is
the mean of them times a factor that is the same in every batch, whichever rows are in it.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .prediction import is_mapping

_BATCHES = 256  # checked in a round
_TOLERANCE = 0.01  # relative, in addition to the rounding of the loss's own type
_LEAST = 1e-3  # nats; smaller losses show their rounding


def second_terms(outputs: Any) -> list[str]:
    """Names of the outputs that transformers adds to the rows' losses: the balance of a mixture's routers."""
    if not is_mapping(outputs):
        return []
    return [name for name in outputs if name.endswith(("aux_loss", "z_loss")) and outputs[name] is not None]


class Agreement:
    """Compares the losses of batches with the means of their rows' losses; nothing here waits for the device.

    Args:
        multiples: The factors that the trainer may multiply a mean by.
    """

    def __init__(self, multiples: Collection[float]):
        self._multiples = np.array(sorted(multiples))
        self._batches: list[Tensor] = []
        self._eps = 0.0

    def add(self, loss: Tensor, logits: Tensor, mean: Tensor, count: Tensor, items: Tensor | int | None) -> None:
        """Take in a batch.

        Args:
            loss: (), the loss that is trained on.
            logits: What the loss was made of; their type says how exact it is.
            mean: () float32, nats, the mean of the rows' losses.
            count: () int64, target tokens of the batch.
            items: Target tokens of the whole optimizer step: the loss may have been divided by them.
        """
        if len(self._batches) == _BATCHES:
            return
        self._eps = max(torch.finfo(each.dtype).eps for each in (loss, logits))
        share = torch.ones_like(mean) if items is None else items / count
        self._batches.append(torch.stack([loss.detach().to(mean), mean, share.to(mean)]))

    def flaw(self) -> str | None:
        """How the losses of the round's batches differed from the means of their rows' losses; None = they agreed.

        Nothing says whether the trainer divided a loss by the targets of the batch or of the whole optimizer step. One
        of the two must give a known factor, the same in most batches.
        """
        if not self._batches:
            return None
        loss, mean, share = torch.stack(self._batches).double().T.cpu().numpy()
        self._batches = []
        usable = np.isfinite(loss) & np.isfinite(mean) & (mean > max(_LEAST, 32 * self._eps))
        if not usable.any():
            return None
        found: list[str] = []
        for factor in (1.0, share[usable]):
            low, middle, high = np.quantile(loss[usable] * factor / mean[usable], (0.1, 0.5, 0.9))
            off = np.abs(middle / self._multiples - 1).min()
            tolerance = _TOLERANCE + 16 * self._eps
            if high - low <= tolerance * abs(middle) and off <= tolerance:
                return None
            found.append(f"{low:.3g} to {high:.3g}")
        return f"was {found[0]} times the mean of its rows' losses"
