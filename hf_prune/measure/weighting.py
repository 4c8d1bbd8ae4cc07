"""Weights on rows, whatever the loss: on the gradient that flows back through the model's outputs for each row.

Let z_i be the outputs of row i (its logits) and L(z_1, ..., z_B, rest) the loss of a batch. Its gradient is

    dL = sum over i of  dL/dz_i dz_i  +  what flows elsewhere

`weigh` multiplies each dL/dz_i by the row's weight w_i and leaves the rest as it is. For L = c * sum(l_i(z_i)) this
gives the gradient of c * sum(w_i * l_i), for any factor c and any losses l_i: with class weights, focal, smoothed,
rounded, or of a second pass over the batch. A part of the loss that does not come from the rows' outputs, such as the
load balance of a mixture's router, stays unweighted. The value of the loss does not change: the log shows what the
stock Trainer would log of these rows.

The graph of the first batch says which outputs the loss is made of. Where the graph does not tell (a compiled model,
nn.DataParallel, outputs that are not row by row), the rows' losses l_i are weighted instead, with a factor c:
1 / number of targets as transformers has it, or L / sum(l_i) for the losses that a user gives. The first batch decides
the way, or the policy is refused, before the first optimizer step; no later batch changes it. Some outputs are made of
others, such as logits of hidden states. A gradient that flows through both must be weighted once: at the logits, the
output that it reaches first on its way back. Where a part of the loss comes from the states alone, it stays unweighted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .agreement import second_terms
from .graph import carriers, edge_of, is_carried, order, row_outputs
from .prediction import Picked, Prediction, UserLosses

SCALES = ("targets", "targets, devices", "targets of the step", "targets of the step, devices")
_TOLERANCE = 1e-2  # relative, in addition to the rounding of the loss's own type
_NOTHING = 1e-5  # nats: a loss whose rows are all learnt is this small, and is rounding


def weigh(output: Tensor, factors: Tensor | None, is_wanted: Callable[[], bool]) -> None:
    """Multiply the gradient that will flow back through an output.

    Args:
        output: Of the model's forward, before the backward pass.
        factors: Of the shape of the output's first dimensions, float32; None = 1: only `is_wanted` is called.
        is_wanted: Called when a gradient comes; says whether to multiply it.
    """
    node, number = edge_of(output)
    left = 0 if factors is None else output.dim() - factors.dim()

    def multiply(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...] | None:
        gradient = gradients[number]
        if gradient is None or not is_wanted() or factors is None:
            return None
        shaped = factors.to(gradient.device).reshape(*factors.shape, *[1] * left)
        weighted = torch.mul(gradient, shaped, out=torch.empty_like(gradient))  # computed in float32, without a copy
        return (*gradients[:number], weighted, *gradients[number + 1 :])

    node.register_prehook(multiply)


def factors_of(weights: Tensor, output: Tensor, parts: Tensor | None, picked: Picked | None = None) -> Tensor:
    """The rows' weights, each at the places of the output that belong to its row.

    Args:
        weights: (B,) float32.
        output: (B, ...), (1, T, ...) of joined rows, or (n, ...) of positions.
        parts: (B, T) bool of joined rows.
        picked: Says which positions.

    Returns:
        (B,), (1, T) with 1 where no row is, or (n,).
    """
    if picked is None:
        if parts is None or len(output) == len(weights):
            return weights
        return _joined(weights, parts[:, : output.shape[1]])
    everywhere = weights[:, None].expand(picked.shape) if parts is None else _joined(weights, parts)
    return everywhere.flatten()[picked.at]


def _joined(weights: Tensor, parts: Tensor) -> Tensor:
    """(1, T): each position's weight, 1 where no row is."""
    parts = parts.to(weights.device)
    return torch.where(parts, weights[:, None], 0.0).sum(0, keepdim=True) + ~parts.any(0, keepdim=True)


def reweigh(loss: Tensor, terms: Tensor, weights: Tensor, scale: Tensor | None = None) -> Tensor:
    """Weigh each row's part of a training loss: its gradient, not its value.

    The gradient of loss = c * sum(terms) + rest becomes that of c * sum(weights * terms) + rest: what is added is
    c * sum((weights - 1) * terms) minus its own value.

    Args:
        loss: (), the training loss of the batch.
        terms: (B, T) float32 with the graph, see `Prediction.terms`.
        weights: (B,) float32.
        scale: (), c; None = loss / sum(terms): there is no rest.

    Returns:
        () of the loss's type and value. Bits and gradient are the same if all weights are 1, or where no factor c is
        above 0: in a batch without targets, or with a loss that is not finite.

    Raises:
        ValueError: The terms carry no gradient though the loss does.
    """
    if loss.requires_grad and not terms.requires_grad:
        raise ValueError("weights need terms that carry gradients: read them with gradients enabled.")
    scale = loss.to(terms.device) / terms.sum() if scale is None else scale
    scale = scale.to(terms.device).detach()
    scale = torch.where(scale.isfinite() & (scale > 0), scale, 0.0)
    extra = scale * ((weights.to(terms.device)[:, None] - 1) * terms).sum()
    extra = torch.where(extra.isfinite(), extra, 0.0)  # 0 * inf; the gradient is 0 already
    return loss + (extra - extra.detach()).to(loss.device, loss.dtype)


@dataclass
class Weighable:
    """A batch's training loss, and what it was made of.

    Args:
        loss: (), or (D,) under nn.DataParallel: that of each device's part of the batch.
        outputs: Of each forward pass.
        prediction: What was read of them; None where the rows' own losses can't be read.
        rows: B.
        parts: (B, T) bool where the rows were joined into one sequence.
        items: Target tokens in the whole optimizer step; the trainer may have divided by them.
        devices: Number of processes or devices; it may have multiplied by it.
    """

    loss: Tensor
    outputs: Sequence[Any]
    prediction: Prediction | UserLosses | None
    rows: int
    parts: Tensor | None
    items: Tensor | int | None
    devices: int

    @property
    def picked(self) -> Picked | None:
        """The prediction, where it is of some positions alone."""
        return self.prediction if isinstance(self.prediction, Picked) else None


class Weigher:
    """Weights the rows of one model's training loss, in the way that its first batch allows.

    Args:
        refuse: Takes why a loss can't be weighted, and gives the error to raise.

    Attributes:
        way: "outputs", "losses", "batch" (the mean weight on the batch's loss), or None before the first batch.
        scale: For "losses" of a recipe, which of `SCALES` their factor c in the loss is, or None.
    """

    def __init__(self, refuse: Callable[[str], Exception]):
        self._refuse = refuse
        self.way: str | None = None
        self.scale: str | None = None
        self._orders: dict[tuple[Any, ...], dict[Any, set[Any]]] = {}  # see `order`, of outputs with these names
        self._has_flowed = False

    def weigh(self, batch: Weighable, by_batch: bool, weights: Tensor | None) -> Tensor:
        """The loss to train on; its value stays.

        Args:
            batch: Its loss before.
            by_batch: Whether rows go by the losses of their batches.
            weights: (B,) float32 factors on the rows; None = 1 for all.

        Raises:
            ValueError: At the first batch: there is no way.
        """
        picked = batch.picked
        at = None if picked is None else picked.at
        found = [row_outputs(outputs, batch.rows, batch.parts, at) for outputs in batch.outputs]
        if self.way is None:
            self.way = self._choose(batch, found, by_batch)
        if weights is None or self.way is None:
            return batch.loss
        if self.way == "outputs":
            for named in found:
                self._weigh_each(named, weights, batch.parts, picked, lambda: True)
            return batch.loss
        if self.way == "batch" or batch.prediction is None:
            extra = (weights.mean() - 1).to(batch.loss) * batch.loss
            return batch.loss + (extra - extra.detach())
        losses = batch.loss.reshape(-1)
        # nn.DataParallel cuts a batch into even parts, as `chunk` does.
        cut = [each.chunk(len(losses)) for each in (batch.prediction.terms(), weights, batch.prediction.is_target)]
        weighted: list[Tensor] = []
        for part, terms, factors, is_target in zip(losses, *cut, strict=True):
            scale = _scales(is_target.sum(), batch.items, batch.devices).get(self.scale or "")
            weighted.append(reweigh(part, terms, factors, scale))
        return torch.stack(weighted).reshape(batch.loss.shape)

    def _choose(self, batch: Weighable, found: Sequence[Mapping[Any, Tensor]], by_batch: bool) -> str | None:
        """The way to weigh this batch and all later ones; None where it can't tell, and the next one is asked.

        The outputs come first: they are right for any loss. A user's losses decide what a row's part of the loss is:
        where they depend on parameters past the outputs, weights on the outputs would miss a part.
        """
        prediction = batch.prediction
        values = {(at, name): named[name] for at, named in enumerate(found) for name in carriers(batch.loss, named)}
        if values and not (isinstance(prediction, UserLosses) and not is_carried(prediction.terms(), values)):
            return "outputs"
        if by_batch:
            return "batch"
        if prediction is None:
            raise self._refuse("has no part for each row, as far as can be seen")
        if not prediction.terms().requires_grad:
            whose = "losses of example_loss_func" if isinstance(prediction, UserLosses) else "logits"
            raise self._refuse(f"can't be weighted by {whose} that carry no gradient")
        if isinstance(prediction, Prediction):
            self.scale = self.scale or self._find_scale(batch, prediction)
            return self.scale and "losses"
        return "losses"

    def _find_scale(self, batch: Weighable, prediction: Prediction) -> str | None:
        """Which of `SCALES` the rows' losses have in the loss; None where this batch can't tell."""
        losses = batch.loss.detach().reshape(-1).float()
        totals = torch.stack([part.detach().sum() for part in prediction.terms().chunk(len(losses))])
        counts = torch.stack([part.sum() for part in prediction.is_target.chunk(len(losses))])
        if not ((totals > 0) & totals.isfinite() & losses.isfinite()).all():
            return None
        scales = _scales(counts, batch.items, batch.devices)
        off = {name: (losses - scale * totals).abs() for name, scale in scales.items()}
        name = min(off, key=lambda name: float(off[name].sum()))
        rounding = max(torch.finfo(each.dtype).eps for each in (batch.loss, prediction.logits))
        # A loss is a difference of logits: it is no more exact than the largest of them.
        largest = prediction.logits.detach().abs().max().float()
        allowed = (_TOLERANCE + 4 * rounding) * losses.abs() + _NOTHING + rounding * largest
        if not any(map(second_terms, batch.outputs)) and (off[name] > allowed).any():
            means = ", ".join(f"{float(mean):.6g}" for mean in totals / counts)
            values = ", ".join(f"{float(value):.6g}" for value in losses)
            raise self._refuse(f"is {values} on a batch, where the mean of its rows' losses is {means}")
        return name

    def weigh_ahead(
        self, outputs: Any, weights: Tensor | None, rows: int, parts: Tensor | None, is_wanted: Callable[[], bool]
    ) -> None:
        """Weigh the outputs of a forward pass before a loss is made of them, for a trainer that does not show its loss.

        Args:
            outputs: Of the forward pass.
            weights: As in `weigh`.
            rows: B.
            parts: (B, T) bool where the rows were joined into one sequence.
            is_wanted: Asked in the backward pass, whether `weigh` has not been called since.
        """

        def is_wanted_now() -> bool:
            wanted = is_wanted()
            self._has_flowed |= wanted
            return wanted

        self._weigh_each(row_outputs(outputs, rows, parts), weights, parts, None, is_wanted_now)

    def _weigh_each(
        self,
        outputs: dict[str | int, Tensor],
        weights: Tensor | None,
        parts: Tensor | None,
        picked: Picked | None,
        is_wanted: Callable[[], bool],
    ) -> None:
        """Weigh the gradients of a pass's outputs, each at the first output that it reaches on its way back.

        Autograd calls the hook of an output once its gradient is whole: after those of the outputs that are made of it.
        """
        if (names := tuple(outputs)) not in self._orders:
            self._orders[names] = order(outputs)
        made_of = self._orders[names]
        flowed: set[Any] = set()

        def is_first(name: Any) -> bool:
            is_due = is_wanted() and flowed.isdisjoint(made_of[name])
            flowed.add(name)
            return is_due

        for name in made_of:
            factors = None if weights is None else factors_of(weights, outputs[name], parts, picked)
            weigh(outputs[name], factors, partial(is_first, name))

    def check_ahead(self) -> None:
        """Check a batch after its backward pass, where `weigh_ahead` was called for it.

        Raises:
            ValueError: At the first batch: the loss was not made of the weighted outputs.
        """
        if self.way is None and not self._has_flowed:
            raise self._refuse("is not made of the model's logits for each row, as far as can be seen")
        self.way = self.way or "outputs"


def _scales(count: Tensor, items: Tensor | int | None, devices: int) -> dict[str, Tensor]:
    """The factors by which transformers may multiply the sum of a batch's losses, by their names in `SCALES`."""
    scales = [1 / count, devices / count]
    if items is not None:
        whole = torch.as_tensor(1 / items, device=count.device)
        scales += [whole, devices * whole]
    return dict(zip(SCALES, scales, strict=False))
