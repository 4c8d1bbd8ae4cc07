"""Which of a model's outputs a loss is made of, and which of them are made of others: read from autograd's graph."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

from torch import Tensor

from .prediction import is_mapping

Edge = tuple[Any, int]  # a node of autograd's graph, and which of its outputs
_COPY = "ToCopyBackward0"  # accelerate returns float32 copies of the outputs that the loss was made of
_LEAF = "torch::autograd::AccumulateGrad"


def edge_of(tensor: Tensor) -> Edge:
    """Where a tensor with a graph stands in it; for a copy in another type, where the original does."""
    node: Any = tensor.grad_fn
    number = tensor.output_nr
    while node.name() == _COPY and node.next_functions[0][0].name() != _LEAF:
        node, number = node.next_functions[0]
    return node, number


def reached(start: Edge, wanted: Collection[Edge]) -> tuple[set[Edge], bool]:
    """Follow the graph back as far as `wanted`.

    Args:
        start: Where to begin.
        wanted: Where to stop.

    Returns:
        The edges of `wanted` that were reached, and whether a parameter was reached past all of them.
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
    """A model's outputs for each row, as far as their shapes and names say: tensors that carry a gradient.

    Args:
        outputs: Of a forward pass: a mapping (its logits and log-probabilities are taken), a tuple, an object with
            attributes, or a tensor.
        rows: B, of the batch.
        parts: (B, T) bool where the rows were joined into one sequence.
        picked: (n,) int64 where the outputs are of some positions alone, see `prediction.Picked`.

    Returns:
        Key or place -> (B, ...), (1, T, ...) of joined rows, or (n, ...) of positions.
    """
    first = (rows if picked is None else len(picked),) if parts is None or picked is not None else (rows, 1)
    named: Mapping[Any, Any]
    if is_mapping(outputs):
        named = {name: value for name, value in outputs.items() if name.endswith(("logits", "log_probs"))}
    elif isinstance(outputs, Tensor):
        named = {0: outputs}
    elif isinstance(outputs, Sequence):
        named = dict(enumerate(cast(Sequence[Any], outputs)))
    else:
        named = getattr(outputs, "__dict__", {})
    return {
        name: value
        for name, value in named.items()
        if isinstance(value, Tensor) and value.grad_fn is not None and value.dim() > 0 and len(value) in first
    }


def carriers(loss: Tensor, outputs: Mapping[Any, Tensor]) -> list[Any]:
    """Names of the outputs that a loss is made of directly, not through another of them.

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
    """Which outputs to weigh, so that each gradient is weighted once.

    An output that is made of other outputs and of no parameter is left out: its whole gradient flows through those.

    Args:
        outputs: See `row_outputs`.

    Returns:
        Name of an output to weigh -> names of the outputs that are made of it. A gradient that comes through one of
        them has its weight already.
    """
    if len(outputs) == 1:
        return {name: set() for name in outputs}
    names: dict[Edge, Any] = {}
    for name, value in outputs.items():
        names.setdefault(edge_of(value), name)  # a tensor may have two names
    for edge in list(names):
        found, is_past = reached(edge, names)
        if found and not is_past:
            del names[edge]
    made_of = {name: reached(edge, names)[0] for edge, name in names.items()}
    return {name: {other for other, found in made_of.items() if edge in found} for edge, name in names.items()}


def is_carried(terms: Tensor, outputs: Mapping[Any, Tensor]) -> bool:
    """Whether losses depend on the parameters through these outputs alone, or have no graph.

    Args:
        terms: (B, T), the losses.
        outputs: See `row_outputs`.
    """
    if terms.grad_fn is None:
        return True
    edges = {edge_of(value) for value in outputs.values()}
    return edge_of(terms) in edges or not reached(edge_of(terms), edges)[1]
