"""The loss and the signals of each row of a training batch, from the logits that training computes anyway.

`readers.py` reads a batch into a `Prediction`, which gives the signals of its B rows, each (B,) float32:

    loss        nats; mean over the row's target tokens, without label smoothing
    correct     1 where every target of the row is predicted right, else 0
    confidence  exp(-loss): probability of the label; of tokens the geometric mean
    el2n        ||p - y||_2, p the class probabilities, y one-hot; mean over target tokens (Paul et al., 2021)
    grad_norm   ||p - y||_2 * sqrt(||h||^2 + 1), h the input of the linear head: the norm of the loss's gradient in
                the head's parameters; mean over target tokens, each on its own

A row without any target has NaN. Nothing here waits for the device.

People look at more, the `EXTRAS`, which no policy reads:

    given        number of the class that the label names; of a regression with one number, the label
    predicted    number of the class that the model predicts; of a regression with one number, its prediction
    worst_token  place of the target token of largest loss among the row's target tokens, from 0
    margin       logit of the label minus the largest other one (Pleiss et al., 2020); only a benchmark asks for it
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeGuard

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core import IGNORED

EXTRAS = frozenset({"given", "predicted", "worst_token", "margin"})


@dataclass(eq=False)
class Prediction:
    """A batch of B rows with T positions each; some positions are targets, each one of C classes.

    Args:
        logits: (B, T, C), any float type.
        labels: (B, T) int64, `IGNORED` where there is no target.
        task: The task in English, for messages.
        gives: Names of the signals that have a meaning here.
        parts: (B, T) bool, which positions belong to which row, where the rows were joined into one sequence: then
            logits and labels are (1, T, ...). None where they were not.
    """

    logits: Tensor
    labels: Tensor
    task: str
    gives: frozenset[str]
    parts: Tensor | None = None

    CHUNK: ClassVar[int] = 2**24  # logits that are copied to float32 at a time (64 MiB)

    @property
    def is_target(self) -> Tensor:
        """(B, T) bool."""
        return self._by_row(self.labels != IGNORED)

    def token_losses(self) -> Tensor:
        """Cross-entropy of each position, with the graph where gradients are enabled.

        Returns:
            (B, T) float32, nats, zero where there is no target.
        """
        return self._by_position(partial(F.cross_entropy, ignore_index=IGNORED, reduction="none"))

    def terms(self) -> Tensor:
        """(B, T) float32, the summands of the model's loss before normalisation, which is by the number of targets."""
        return self.token_losses()

    def mean_of(self, losses: Tensor) -> Tensor:
        """() float32: the mean over the batch's targets; `losses` are the rows' (B,)."""
        count = self.is_target.sum(1)
        return torch.where(count > 0, losses * count, 0.0).sum() / count.sum()

    @torch.no_grad()
    def signals(
        self, names: Collection[str], head_input: Tensor | None = None, head_bias: bool = True
    ) -> dict[str, Tensor]:
        """The named signals, detached.

        Args:
            names: Which of `gives` and of `EXTRAS`.
            head_input: For grad_norm alone, the input of the head (see `head_of`): (B, T, H), or (B, H) when T = 1.
            head_bias: Whether the head has a bias. Without one, grad_norm is ||p - y||_2 * ||h||.

        Returns:
            Name -> (B,) float32, "loss" always among them; NaN for a row without a target.

        Raises:
            ValueError: If a name is not in `gives`, or grad_norm lacks a head_input that fits.
        """
        if unknown := sorted(set(names) - self.gives - EXTRAS):
            raise ValueError(f"A {self.task} model gives {sorted(self.gives)}, not {unknown}: choose among those.")
        values: dict[str, Tensor] = {}
        if set(names) - EXTRAS <= {"loss", "confidence"}:
            token_losses = self.token_losses()
        else:
            token_losses, distance, hit = self._by_position(_compare).unbind(-1)
            count = self.is_target.sum(1)
            values["correct"] = (hit.sum(1) == count).float().masked_fill(count == 0, torch.nan)
            values["el2n"] = distance.sum(1) / count
            if "grad_norm" in names:
                values["grad_norm"] = (distance * self._head_norms(head_input, head_bias)).sum(1) / count
        if "worst_token" in names:
            values["worst_token"] = self._worst(token_losses)
        if "predicted" in names:
            values["given"], values["predicted"] = self._answers()
        if "margin" in names:
            values["margin"] = self._margins()
        values["loss"] = self._mean(token_losses)
        values["confidence"] = torch.exp(-values["loss"])
        return {name: values[name] for name in ("loss", *sorted(set(names) - {"loss"}))}

    def _mean(self, token_losses: Tensor) -> Tensor:
        return token_losses.sum(1) / self.is_target.sum(1)

    def _worst(self, token_losses: Tensor) -> Tensor:
        """(B,) float32, the place of each row's largest loss among its targets."""
        is_target = self.is_target
        at = token_losses.masked_fill(~is_target, -torch.inf).argmax(1, keepdim=True)
        place = is_target.cumsum(1).gather(1, at).squeeze(1) - 1
        return place.float().masked_fill(~is_target.any(1), torch.nan)

    def _answers(self) -> tuple[Tensor, Tensor]:
        """(B,) float32 labels and (B,) float32 predictions, where there is one for each row."""
        given = self.labels[:, 0].float().masked_fill(self.labels[:, 0] == IGNORED, torch.nan)
        return given, self.logits[:, 0].argmax(-1).float()

    def _margins(self) -> Tensor:
        """(B,) float32, where each row has one label."""
        logits, labels = self.logits[:, 0].float(), self.labels[:, :1]
        own = logits.gather(1, labels.clamp(min=0))
        others = logits.scatter(1, labels.clamp(min=0), -torch.inf).amax(1)
        return (own.squeeze(1) - others).masked_fill(labels.squeeze(1) == IGNORED, torch.nan)

    def _by_position(self, measure: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Apply measure((n, C) float32, (n,) labels) -> (n, ...) in chunks: (B, T, ...), zero without a target."""
        step = max(1, self.CHUNK // self.logits.shape[-1])
        chunks = zip(
            torch.split(self.logits.flatten(0, 1), step), torch.split(self.labels.flatten(), step), strict=True
        )
        parts: list[Tensor] = []
        for logits, labels in chunks:
            # Few targets are picked out to save work. An accelerator would have to be waited for to know their number.
            index = (labels != IGNORED).nonzero().squeeze(1) if _is_on_cpu(logits) else labels
            if 2 * len(index) < len(labels):
                values = measure(logits.index_select(0, index).float(), labels[index])
                parts.append(values.new_zeros(len(labels), *values.shape[1:]).index_copy(0, index, values))
            else:
                parts.append(measure(logits.float(), labels))
        everywhere = torch.cat(parts)
        return self._by_row(everywhere.reshape(*self.labels.shape, *everywhere.shape[1:]))

    def _by_row(self, values: Tensor) -> Tensor:
        """(1, T, ...) of joined rows -> (B, T, ...), zero at other rows' positions."""
        if self.parts is None:
            return values
        return torch.where(self.parts.view(*self.parts.shape, *[1] * (values.dim() - 2)), values, values.new_zeros(()))

    def _head_norms(self, head_input: Tensor | None, head_bias: bool) -> Tensor:
        """Norm of each position's head input, with the bias's 1: (B, T) float32."""
        shape = tuple(self.labels.shape)
        if head_input is not None and head_input.dim() == 2 and shape[1] == 1:
            head_input = head_input.unsqueeze(1)
        if head_input is None or tuple(head_input.shape[:-1]) != shape:
            got = None if head_input is None else tuple(head_input.shape)
            raise ValueError(
                f"grad_norm needs the head's input at each of the {shape} positions of the logits, got head_input of "
                f"shape {got}. Where a model picks the position only behind its head, use el2n."
            )
        norms = _norm(head_input)
        return torch.sqrt(norms**2 + 1) if head_bias else norms


class Answer(Prediction):
    """Start and end of an answer: T = 2, and the classes are the positions of the text, padding included."""

    def terms(self) -> Tensor:
        """The model's loss is half the mean over starts plus half the mean over ends."""
        count = self.is_target.sum(0)
        return self.token_losses() * (count.sum() / (2 * count))

    @torch.no_grad()
    def mean_of(self, losses: Tensor) -> Tensor:
        """Made of the terms, for the rows' losses do not tell it where one of the two is ignored."""
        return self.terms().sum() / self.is_target.sum()

    def _mean(self, token_losses: Tensor) -> Tensor:
        """Half the sum: one of the two that is ignored counts as zero."""
        return token_losses.sum(1) / (2 * self.is_target.any(1))


@dataclass(eq=False, kw_only=True)
class Picked(Prediction):
    """Only the positions that a model has picked out of all rows: logits (1, n, C) and labels (1, n).

    Args:
        logits: As in `Prediction`.
        labels: As in `Prediction`.
        task: As in `Prediction`.
        gives: As in `Prediction`.
        parts: As in `Prediction`.
        at: (n,) int64, the index of each among the B * T positions.
        shape: (B, T).
    """

    at: Tensor
    shape: torch.Size

    def _by_row(self, values: Tensor) -> Tensor:
        """(1, n, ...) -> (B, T, ...), zero elsewhere."""
        everywhere = values.new_zeros(self.shape.numel(), *values.shape[2:]).index_copy(0, self.at, values[0])
        return super()._by_row(everywhere.reshape(*self.shape, *everywhere.shape[1:]))

    def _head_norms(self, head_input: Tensor | None, head_bias: bool) -> Tensor:
        if head_input is not None:
            head_input = head_input[None]
        return self._by_row(super()._head_norms(head_input, head_bias))


class FusedLogProbs(Prediction):
    """A fused loss gives the log-probabilities of the targets alone: they stand in for the logits, (B, T, 1)."""

    def token_losses(self) -> Tensor:
        return self._by_row(-self.logits.squeeze(-1).float().masked_fill(self.labels == IGNORED, 0.0))


class Regression(Prediction):
    """Regression: labels are (B, 1, C) float32, and logits have the same shape."""

    measure: ClassVar = staticmethod(F.mse_loss)

    @property
    def is_target(self) -> Tensor:
        return torch.ones_like(self.labels[..., 0], dtype=torch.bool)

    def token_losses(self) -> Tensor:
        return self.measure(self.logits.float(), self.labels, reduction="none").mean(-1)

    def _answers(self) -> tuple[Tensor, Tensor]:
        given, predicted = self.labels[:, 0], self.logits.detach()[:, 0].float()
        if given.shape[1] != 1:  # several numbers, or a label for each of several classes
            return given.new_full((len(given),), torch.nan), given.new_full((len(given),), torch.nan)
        return given[:, 0], predicted[:, 0]


class Shares(Regression):
    """One class a row: the labels are the probability of each of the C classes, (B, 1, C) float32."""

    def token_losses(self) -> Tensor:
        return -(F.log_softmax(self.logits.float(), dim=-1) * self.labels).sum(-1)


class MultiLabel(Regression):
    """Multi-label: each of the C labels is on (1) or off (0)."""

    measure: ClassVar = staticmethod(F.binary_cross_entropy_with_logits)

    def _by_position(self, measure: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Loss, zero, and whether every label is predicted right: (B, 1, 3)."""
        hit = ((self.logits > 0) == (self.labels > 0.5)).all(-1)
        losses = self.token_losses()
        return torch.stack([losses, torch.zeros_like(losses), hit.float()], dim=-1)


class UserLosses:
    """The losses that `example_loss_func` gave: one target a row.

    Args:
        losses: (B,) floating point, nats.

    Raises:
        ValueError: Another shape.
    """

    def __init__(self, losses: Any):
        if not isinstance(losses, Tensor) or losses.ndim != 1:
            shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise ValueError(f"example_loss_func must return a (B,) tensor of losses, got {shape}.")
        self._losses = losses.float()
        self.is_target = torch.ones_like(losses, dtype=torch.bool).unsqueeze(1)

    def terms(self) -> Tensor:
        """(B, 1)."""
        return self._losses.unsqueeze(1)

    def signals(
        self, names: Collection[str], head_input: Tensor | None = None, head_bias: bool = True
    ) -> dict[str, Tensor]:
        """The loss alone, arguments as in `Prediction.signals`."""
        del names, head_input, head_bias
        return {"loss": self._losses.detach()}


def is_mapping(outputs: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether what a model puts out has names, as transformers' `ModelOutput` has."""
    return isinstance(outputs, Mapping)


def _compare(logits: Tensor, labels: Tensor) -> Tensor:
    """Loss, ||p - y||_2, whether the label is the most likely class: (n, 3) float32, zero without a target."""
    wanted = labels.clamp(min=0).unsqueeze(1)
    log_p = F.log_softmax(logits, dim=-1)
    loss = -log_p.gather(1, wanted)
    # Not as sum(p^2) - 2 p_y + 1: its rounding errors are larger than the value when p_y is near 1.
    distance = _norm(log_p.exp_().scatter_(1, wanted, torch.expm1(-loss)))
    values = torch.stack([loss.squeeze(1), distance, (logits.argmax(1) == labels).float()], dim=-1)
    return values.masked_fill((labels == IGNORED).unsqueeze(1), 0.0)


def _norm(values: Tensor) -> Tensor:
    """Euclidean norm over the last dimension, float32."""
    # PyTorch has no annotations of torch.linalg.
    return torch.linalg.vector_norm(values, dim=-1, dtype=torch.float32)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def _is_on_cpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def count_tokens(rows: Tensor, inputs: Mapping[str, Any], is_encoder_decoder: bool) -> tuple[Tensor, int]:
    """Count the tokens of a batch.

    Args:
        rows: (B,) int64, its row numbers.
        inputs: The batch, as the collator made it.
        is_encoder_decoder: Whether a decoder reads the labels as tokens; labels of (B,) or of floats are none.

    Returns:
        (B,) int64 real tokens of each row, and the batch's tokens with padding; zeros without input_ids (images).
        The number of rows is not B where a batch has several texts for each row, or joins its rows.
    """
    ids = inputs.get("input_ids")
    if not isinstance(ids, Tensor) or ids.dim() < 2:
        return torch.zeros_like(rows), 0
    mask = inputs.get("attention_mask")
    if mask is None or mask.shape != ids.shape:
        mask = torch.ones_like(ids)
    real, padded = mask.ne(0).flatten(1).sum(1), ids.numel()
    labels = inputs.get("labels")
    if is_encoder_decoder and labels is not None and labels.dim() == 2 and not labels.is_floating_point():
        real, padded = real + labels.ne(IGNORED).flatten(1).sum(1), padded + labels.numel()
    return real, padded
