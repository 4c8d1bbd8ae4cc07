"""Whether the losses that are recorded of rows are those that are trained: seen from some batches of each round."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_BATCHES = 256  # of a round, which are looked at
_TOLERANCE = 0.01  # relative, beside the rounding of the loss's own type
_LEAST = 1e-3  # nats; of smaller losses, rounding is seen


def second_terms(outputs: Any) -> list[str]:
    """Names of what a model puts out that transformers adds to its rows' losses: balances of a mixture's routers."""
    if not isinstance(outputs, Mapping):
        return []
    return [name for name in outputs if name.endswith(("aux_loss", "z_loss")) and outputs[name] is not None]


class Agreement:
    """Compares the losses of batches with the means of their rows' losses; nothing here waits for the device.

    Where rows' losses are all that is trained, the one is a known multiple of the other.

    Args:
        multiples: Those that a trainer may give it.
    """

    def __init__(self, multiples: Collection[float]):
        self._multiples = np.array(sorted(multiples))
        self._batches: list[Tensor] = []
        self._eps = 0.0

    def add(self, loss: Tensor, logits: Tensor, mean: Tensor, count: Tensor, items: Tensor | int | None) -> None:
        """Take in a batch.

        Args:
            loss: (), what is trained on.
            logits: What it was made of, for their type.
            mean: () float32, nats, of its rows' losses.
            count: () int64, its target tokens.
            items: Those of the whole optimizer step, by which `loss` may have been divided.
        """
        if len(self._batches) == _BATCHES:
            return
        self._eps = max(torch.finfo(each.dtype).eps for each in (loss, logits))
        share = torch.ones_like(mean) if items is None else items / count
        self._batches.append(torch.stack([loss.detach().to(mean), mean, share.to(mean)]))

    def flaw(self) -> str | None:
        """How the losses of the round's batches differed from the means of their rows' losses; None = they agreed."""
        if not self._batches:
            return None
        loss, mean, share = torch.stack(self._batches).double().T.cpu().numpy()
        self._batches = []
        usable = np.isfinite(loss) & np.isfinite(mean) & (mean > max(_LEAST, 32 * self._eps))
        if not usable.any():
            return None
        found = []
        for factor in (1.0, share[usable]):
            low, middle, high = np.quantile(loss[usable] * factor / mean[usable], (0.1, 0.5, 0.9))
            off = np.abs(middle / self._multiples - 1).min()
            tolerance = _TOLERANCE + 16 * self._eps
            if high - low <= tolerance * abs(middle) and off <= tolerance:
                return None
            found.append(f"{low:.3g} to {high:.3g}")
        return f"was {found[0]} times the mean of its rows' losses"
