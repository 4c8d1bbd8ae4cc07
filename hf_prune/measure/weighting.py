"""Weights on rows, whatever the loss: on the gradient that flows back through what the model puts out for each row.

Let z_i be the outputs of row i (its logits) and L(z_1, ..., z_B, rest) the loss of a batch. Its gradient is

    dL = sum over i of  dL/dz_i dz_i  +  what flows elsewhere

and `weigh` makes it the sum of w_i * dL/dz_i dz_i, the rest as it is. For L = c * sum(l_i(z_i)) that is the gradient of
c * sum(w_i * l_i) for any factor c and any losses l_i: class weights, a focal loss, smoothing, the rounding of a type,
a second pass over the batch. What no row's outputs carry, such as the load balance of a mixture's router, stays
unweighted. The value of the loss is not touched: what is logged is what the stock Trainer would log of these rows.

Which outputs the loss is made of is read from the graph of the first batch. Where the graph does not tell (a compiled
model, nn.DataParallel, outputs that are not row by row), the rows' losses l_i are weighted in their place, with a
factor c: 1 / number of targets as transformers has it, or L / sum(l_i) for the losses that a user gives. One of the
ways is chosen, or the policy refused, before the first optimizer step; no later batch changes that. Outputs that are
made of one another, such as logits and the states before them, are weighted once, at the last that a gradient comes
through: what reaches the states alone stays unweighted.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .agreement import second_terms
from .prediction import Picked, Prediction

SCALES = ("targets", "targets, devices", "targets of the step", "targets of the step, devices")
Edge = tuple[Any, int]  # a node of autograd's graph, and which of its outputs
_TOLERANCE = 1e-2  # relative, beside the rounding of the loss's own type
_NOTHING = 1e-5  # nats: what is left of a loss whose rows are all learnt, which is rounding
_COPY = "ToCopyBackward0"  # accelerate returns copies in float32 of what the loss was made of
_LEAF = "torch::autograd::AccumulateGrad"


def edge_of(tensor: Tensor) -> Edge:
    """Where a tensor stands in the graph; of a copy in another type, where the first one does."""
    node, number = tensor.grad_fn, tensor.output_nr
    while node.name() == _COPY and node.next_functions[0][0].name() != _LEAF:
        node, number = node.next_functions[0]
    return node, number


def reached(start: Edge, wanted: Collection[Edge]) -> tuple[set[Edge], bool]:
    """Follow the graph back as far as `wanted`.

    Args:
        start: Where to begin.
        wanted: Where to stop.

    Returns:
        Those of `wanted` that were come to, and whether a parameter was, past all of them.
    """
    found: set[Edge] = set()
    seen, waiting, is_past = {start}, [start], False
    while waiting:
        node, _ = edge = waiting.pop()
        if edge in wanted and edge != start:
            found.add(edge)
            continue
        is_past |= node.name() == _LEAF
        new = {(after, number) for after, number in node.next_functions if after is not None} - seen
        seen |= new
        waiting += new
    return found, is_past


def row_outputs(outputs: Any, rows: int, parts: Tensor | None, picked: Tensor | None = None) -> dict[str | int, Tensor]:
    """What a model puts out for each row, as far as its shape and its name say: tensors that carry a gradient.

    Args:
        outputs: Of its forward: a mapping, of which all logits and log-probabilities are taken; a tuple; an object of
            a class with attributes; a tensor.
        rows: B, of the batch.
        parts: (B, T) bool where the rows were joined into one sequence.
        picked: (n,) int64 where the outputs are of some positions alone, see `prediction.Picked`.

    Returns:
        Key or place -> (B, ...), (1, T, ...) of joined rows, or (n, ...) of positions.
    """
    first = (rows if picked is None else len(picked),) if parts is None or picked is not None else (rows, 1)
    if isinstance(outputs, Mapping):
        named = {name: value for name, value in outputs.items() if name.endswith(("logits", "log_probs"))}
    elif isinstance(outputs, (Tensor, Sequence)):
        named = dict(enumerate([outputs] if isinstance(outputs, Tensor) else outputs))
    else:
        named = getattr(outputs, "__dict__", {})
    return {
        name: value
        for name, value in named.items()
        if isinstance(value, Tensor) and value.grad_fn is not None and value.dim() > 0 and len(value) in first
    }


def carriers(loss: Tensor, outputs: Mapping[Any, Tensor]) -> list[Any]:
    """Names of the outputs that a loss is made of, other than through another of them.

    Args:
        loss: (), with its graph.
        outputs: See `row_outputs`.
    """
    if loss.grad_fn is None:
        return []
    edges = {name: edge_of(value) for name, value in outputs.items()}
    found, _ = reached(edge_of(loss), set(edges.values()))
    return [name for name, edge in edges.items() if edge in found]


def order(outputs: Mapping[Any, Tensor]) -> dict[Any, set[Any]]:
    """Where to weigh, so that each gradient is weighted once: at the last output that it comes through.

    An output that is made of others, and of no parameter beside them, is left to those: there, its gradient is whole.

    Args:
        outputs: See `row_outputs`.

    Returns:
        Name of an output to weigh -> names of those that are made of it: what comes through them is weighted there.
    """
    if len(outputs) == 1:
        return {name: set() for name in outputs}
    names: dict[Edge, Any] = {}
    for name, value in outputs.items():
        names.setdefault(edge_of(value), name)  # two names may be one tensor's
    for edge in list(names):
        found, is_past = reached(edge, names)
        if found and not is_past:
            del names[edge]
    made_of = {name: reached(edge, names)[0] for edge, name in names.items()}
    return {name: {other for other, found in made_of.items() if edge in found} for edge, name in names.items()}


def is_carried(terms: Tensor, outputs: Mapping[Any, Tensor]) -> bool:
    """Whether losses depend on the parameters through these outputs alone, or are without a graph."""
    if terms.grad_fn is None:
        return True
    edges = {edge_of(value) for value in outputs.values()}
    return edge_of(terms) in edges or not reached(edge_of(terms), edges)[1]


def weigh(output: Tensor, factors: Tensor | None, told: Callable[[], bool]) -> None:
    """Multiply the gradient that will flow back through an output.

    Args:
        output: Of the model's forward, before the backward pass.
        factors: Of the output's first dimensions, float32; None = 1, to see alone.
        told: Called when a gradient comes; whether to multiply it.
    """
    node, number = edge_of(output)
    left = 0 if factors is None else output.dim() - factors.dim()

    def multiply(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...] | None:
        gradient = gradients[number]
        if gradient is None or not told() or factors is None:
            return None
        shaped = factors.to(gradient.device).reshape(*factors.shape, *[1] * left)
        weighted = torch.mul(gradient, shaped, out=torch.empty_like(gradient))  # in float32, without a copy in it
        return (*gradients[:number], weighted, *gradients[number + 1 :])

    node.register_prehook(multiply)


def factors_of(weights: Tensor, output: Tensor, parts: Tensor | None, picked: Picked | None = None) -> Tensor:
    """The rows' weights where an output has the rows.

    Args:
        weights: (B,) float32.
        output: (B, ...), (1, T, ...) of joined rows, or (n, ...) of positions.
        parts: (B, T) bool of joined rows.
        picked: Says which positions.

    Returns:
        (B,), (1, T) with 1 where no row is, or (n,).
    """
    if picked is None and (parts is None or len(output) == len(weights)):
        return weights
    if parts is None:
        everywhere = weights[:, None].expand(picked.shape)
    else:
        parts = parts.to(weights.device)[:, : output.shape[1] if picked is None else None]
        everywhere = torch.where(parts, weights[:, None], 0.0).sum(0, keepdim=True) + ~parts.any(0, keepdim=True)
    return everywhere if picked is None else everywhere.flatten()[picked.at]


def reweigh(loss: Tensor, terms: Tensor, weights: Tensor, scale: Tensor | None = None) -> Tensor:
    """Weigh each row's part of a training loss by the rows' losses: its gradient, not its value.

    The gradient of loss = c * sum(terms) + rest becomes that of c * sum(weights * terms) + rest.

    Args:
        loss: () of the batch, as it is about to be trained on.
        terms: (B, T) float32 with the graph, see `Prediction.terms`.
        weights: (B,) float32.
        scale: (), c; None = loss / sum(terms), that is, there is no rest.

    Returns:
        () of the loss's type and value; the same bits and gradient if all weights are 1, or where there is no factor c
        above 0 to go by: a batch without targets, or with a loss that is not finite.

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


class Weigher:
    """Weights the rows of one model's training loss, in the way that its first batch allows.

    Args:
        refuse: Takes why a loss can't be weighted, and gives the error to raise.
        is_believed: Whether the rows' losses are the user's own, to which the loss has some factor.

    Attributes:
        way: "outputs", "losses", "batch" (the mean weight on the batch's loss), or None before the first batch.
        scale: For "losses" of a recipe, which of `SCALES` their factor c in the loss is, or None.
    """

    def __init__(self, refuse: Callable[[str], Exception], is_believed: bool):
        self._refuse, self._is_believed = refuse, is_believed
        self.way: str | None = None
        self.scale: str | None = None
        self._orders: dict[tuple[Any, ...], dict[Any, set[Any]]] = {}  # see `order`, of outputs with these names
        self._has_flowed = False

    def weigh(
        self,
        loss: Tensor,
        outputs: Sequence[Any],
        prediction: Prediction | None,
        by_batch: bool,
        weights: Tensor | None,
        rows: int,
        parts: Tensor | None,
        items: Tensor | int | None,
        devices: int,
    ) -> Tensor:
        """The loss to train on; its value stays.

        Args:
            loss: (), or (D,) under nn.DataParallel: that of each device's part of the batch.
            outputs: Of each forward pass that it was made of.
            prediction: What was read of them; None where rows have no losses of their own.
            by_batch: Whether rows go by the losses of their batches.
            weights: (B,) float32 factors on the rows; None = 1 for all.
            rows: B.
            parts: (B, T) bool where the rows were joined into one sequence.
            items: Target tokens in the whole optimizer step, by which the trainer may have divided.
            devices: By how many it may have multiplied.

        Raises:
            ValueError: At the first batch: there is no way.
        """
        picked = prediction if isinstance(prediction, Picked) else None
        found = [row_outputs(output, rows, parts, None if picked is None else picked.at) for output in outputs]
        if self.way is None:
            values = {(at, name): named[name] for at, named in enumerate(found) for name in carriers(loss, named)}
            if values and (not self._is_believed or is_carried(prediction.terms(), values)):
                self.way = "outputs"
            elif by_batch:
                self.way = "batch"
            elif prediction is None:
                raise self._refuse("has no part for each row, as far as can be seen")
            elif not prediction.terms().requires_grad:
                whose = "losses of example_loss_func" if self._is_believed else "logits"
                raise self._refuse(f"can't be weighted by {whose} that carry no gradient")
            elif not self._is_believed:
                lenient = any(map(second_terms, outputs))
                self.scale = self.scale or self._find_scale(loss.detach(), prediction, items, devices, lenient)
                self.way = self.scale and "losses"
            else:
                self.way = "losses"
        if weights is None or self.way is None:
            return loss
        if self.way == "outputs":
            for named in found:
                self._weigh_each(named, weights, parts, picked, lambda: True)
            return loss
        if self.way == "batch" or prediction is None:
            extra = (weights.mean() - 1).to(loss) * loss
            return loss + (extra - extra.detach())
        losses = loss.reshape(-1)
        cut = [each.chunk(len(losses)) for each in (prediction.terms(), weights, prediction.is_target)]
        weighted = []
        for part, terms, factors, is_target in zip(losses, *cut, strict=True):
            scale = _scales(is_target.sum(), items, devices).get(self.scale or "")
            weighted.append(reweigh(part, terms, factors, scale))
        return torch.stack(weighted).reshape(loss.shape)

    def weigh_ahead(
        self, outputs: Any, weights: Tensor | None, rows: int, parts: Tensor | None, is_wanted: Callable[[], bool]
    ) -> None:
        """Weigh what a forward pass puts out before any loss is made of it; for a loss that is never shown.

        Args:
            outputs: Of the forward pass.
            weights: As in `weigh`.
            rows: B.
            parts: As in `weigh`.
            is_wanted: Asked in the backward pass: `weigh` has not been called since.
        """

        def told() -> bool:
            wanted = is_wanted()
            self._has_flowed |= wanted
            return wanted

        self._weigh_each(row_outputs(outputs, rows, parts), weights, parts, None, told)

    def _weigh_each(
        self,
        outputs: dict[str | int, Tensor],
        weights: Tensor | None,
        parts: Tensor | None,
        picked: Picked | None,
        told: Callable[[], bool],
    ) -> None:
        """Weigh what flows back through a pass's outputs, at the last of them that it comes through."""
        if (names := tuple(outputs)) not in self._orders:
            self._orders[names] = order(outputs)
        made_of = self._orders[names]
        flowed = set()

        def is_last(name):
            is_wanted = told() and flowed.isdisjoint(made_of[name])
            flowed.add(name)
            return is_wanted

        for name in made_of:
            factors = None if weights is None else factors_of(weights, outputs[name], parts, picked)
            weigh(outputs[name], factors, partial(is_last, name))

    def check_ahead(self) -> None:
        """After the backward pass of a batch that `weigh_ahead` was called for.

        Raises:
            ValueError: At the first batch: the loss was not made of what was weighted.
        """
        if self.way is None and not self._has_flowed:
            raise self._refuse("is not made of the model's logits for each row, as far as can be seen")
        self.way = self.way or "outputs"

    def _find_scale(
        self, loss: Tensor, prediction: Prediction, items: Tensor | int | None, devices: int, has_second_term: bool
    ) -> str | None:
        """Which of `SCALES` the rows' losses have; None where this batch can't tell."""
        losses = loss.reshape(-1).float()
        totals = torch.stack([part.detach().sum() for part in prediction.terms().chunk(len(losses))])
        counts = torch.stack([part.sum() for part in prediction.is_target.chunk(len(losses))])
        if not ((totals > 0) & totals.isfinite() & losses.isfinite()).all():
            return None
        off = {name: (losses - scale * totals).abs() for name, scale in _scales(counts, items, devices).items()}
        name = min(off, key=lambda name: float(off[name].sum()))
        rounding = max(torch.finfo(each.dtype).eps for each in (loss, prediction.logits))
        largest = prediction.logits.detach().abs().max().float()
        allowed = (_TOLERANCE + 4 * rounding) * losses.abs() + _NOTHING + rounding * largest
        if not has_second_term and (off[name] > allowed).any():
            means = ", ".join(f"{mean:.6g}" for mean in (totals / counts).tolist())
            found = ", ".join(f"{value:.6g}" for value in losses.tolist())
            raise self._refuse(f"is {found} on a batch, where the mean of its rows' losses is {means}")
        return name


def _scales(count: Tensor, items: Tensor | int | None, devices: int) -> dict[str, Tensor]:
    """The factors that transformers gives the sum of a batch's losses, by their names in `SCALES`."""
    scales = [1 / count, devices / count]
    if items is not None:
        whole = torch.as_tensor(1 / items, device=count.device)
        scales += [whole, devices * whole]
    return dict(zip(SCALES, scales, strict=False))
