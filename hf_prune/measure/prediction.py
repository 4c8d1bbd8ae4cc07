"""What a training batch tells of each of its rows, from the logits that training computes anyway.

`readers.py` reads a batch into a `Prediction`, which gives the signals of its B rows, each (B,) float32:

    loss        nats; mean over the row's target tokens, without label smoothing
    correct     1 where every target of the row is predicted right, else 0
    confidence  exp(-loss): probability of the label; of tokens the geometric mean
    el2n        ||p - y||_2, p the class probabilities, y one-hot; mean over target tokens (Paul et al., 2021)
    grad_norm   ||p - y||_2 * sqrt(||h||^2 + 1), h the input of the linear head: the norm of the loss's gradient in
                the head's parameters; mean over target tokens, each on its own

NaN is a row without any target. Nothing here waits for the device.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core import IGNORED


@dataclass(eq=False)
class Prediction:
    """A batch of B rows with T positions each, of which some are targets among C classes.

    Args:
        logits: (B, T, C), any float type.
        labels: (B, T) int64, `IGNORED` where there is no target.
        task: The task in English, for messages.
        gives: Names of the signals that have a meaning here.
        parts: (B, T) bool, where the rows were joined into one sequence and logits and labels are (1, T, ...): which
            positions are whose.
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
        """(B, T) float32, what each position adds to the mean over targets that the model's own loss is, times them."""
        return self.token_losses()

    def mean_of(self, losses: Tensor) -> Tensor:
        """() float32: the mean over the batch's targets, of the rows' losses, (B,)."""
        count = self.is_target.sum(1)
        return torch.where(count > 0, losses * count, 0.0).sum() / count.sum()

    @torch.no_grad()
    def signals(
        self, names: Collection[str], head_input: Tensor | None = None, head_bias: bool = True
    ) -> dict[str, Tensor]:
        """The named signals, detached.

        Args:
            names: Which, out of `gives`.
            head_input: For grad_norm alone, what went into the head (see `head_of`): (B, T, H), or (B, H) when T = 1.
            head_bias: Whether the head has a bias; without, grad_norm is ||p - y||_2 * ||h||.

        Returns:
            Name -> (B,) float32, "loss" always among them; NaN for a row without a target.

        Raises:
            ValueError: If a name is not in `gives`, or grad_norm lacks a head_input that fits.
        """
        if unknown := sorted(set(names) - self.gives):
            raise ValueError(f"A {self.task} model gives {sorted(self.gives)}, not {unknown}: choose among those.")
        values = {}
        if set(names) <= {"loss", "confidence"}:
            token_losses = self.token_losses()
        else:
            token_losses, distance, hit = self._by_position(_compare).unbind(-1)
            count = self.is_target.sum(1)
            values["correct"] = (hit.sum(1) == count).float().masked_fill(count == 0, torch.nan)
            values["el2n"] = distance.sum(1) / count
            if "grad_norm" in names:
                values["grad_norm"] = (distance * self._head_norms(head_input, head_bias)).sum(1) / count
        values["loss"] = self._mean(token_losses)
        values["confidence"] = torch.exp(-values["loss"])
        return {name: values[name] for name in ("loss", *sorted(set(names) - {"loss"}))}

    def _mean(self, token_losses: Tensor) -> Tensor:
        return token_losses.sum(1) / self.is_target.sum(1)

    def _by_position(self, measure: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Apply measure((n, C) float32, (n,) labels) -> (n, ...) in chunks: (B, T, ...), zero where is no target."""
        step = max(1, self.CHUNK // self.logits.shape[-1])
        chunks = zip(self.logits.flatten(0, 1).split(step), self.labels.flatten().split(step), strict=True)
        parts = []
        for logits, labels in chunks:
            # The targets alone, where they are few; on an accelerator, picking them out would wait for the device.
            index = (labels != IGNORED).nonzero().squeeze(1) if _is_on_cpu(logits) else labels
            if 2 * len(index) < len(labels):
                values = measure(logits.index_select(0, index).float(), labels[index])
                parts.append(values.new_zeros(len(labels), *values.shape[1:]).index_copy(0, index, values))
            else:
                parts.append(measure(logits.float(), labels))
        return self._by_row(torch.cat(parts).unflatten(0, self.labels.shape))

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
        norms = torch.linalg.vector_norm(head_input, dim=-1, dtype=torch.float32)
        return torch.sqrt(norms**2 + 1) if head_bias else norms


class Answer(Prediction):
    """Start and end of an answer: T = 2, the classes are the positions of the text, its padding included."""

    def terms(self) -> Tensor:
        """The model's loss is the mean over starts, and that over ends, halved."""
        count = self.is_target.sum(0)
        return self.token_losses() * (count.sum() / (2 * count))

    @torch.no_grad()
    def mean_of(self, losses: Tensor) -> Tensor:
        """The rows' losses do not tell it where one of the two is ignored."""
        return self.terms().sum() / self.is_target.sum()

    def _mean(self, token_losses: Tensor) -> Tensor:
        """The half of the sum: where one of the two is ignored, it counts as zero."""
        return token_losses.sum(1) / (2 * self.is_target.any(1))


@dataclass(eq=False, kw_only=True)
class Picked(Prediction):
    """Some positions alone, which a model has picked out of all rows: logits (1, n, C) and labels (1, n).

    Args:
        logits: As in `Prediction`.
        labels: As in `Prediction`.
        task: As in `Prediction`.
        gives: As in `Prediction`.
        parts: As in `Prediction`.
        at: (n,) int64, where among the B * T positions each stands.
        shape: (B, T).
    """

    at: Tensor
    shape: torch.Size

    def _by_row(self, values: Tensor) -> Tensor:
        """(1, n, ...) -> (B, T, ...), zero elsewhere."""
        everywhere = values.new_zeros(self.shape.numel(), *values.shape[2:]).index_copy(0, self.at, values[0])
        return super()._by_row(everywhere.unflatten(0, self.shape))

    def _head_norms(self, head_input: Tensor | None, head_bias: bool) -> Tensor:
        if head_input is not None:
            head_input = head_input[None]
        return self._by_row(super()._head_norms(head_input, head_bias))


class FusedLogProbs(Prediction):
    """Targets whose log-probabilities are all that a fused loss gives: they stand for the logits, (B, T, 1)."""

    def token_losses(self) -> Tensor:
        return self._by_row(-self.logits.squeeze(-1).float().masked_fill(self.labels == IGNORED, 0.0))


class Regression(Prediction):
    """Regression: labels are numbers, (B, 1, C) float32, beside logits of the same shape."""

    measure: ClassVar = staticmethod(F.mse_loss)

    @property
    def is_target(self) -> Tensor:
        return torch.ones_like(self.labels[..., 0], dtype=torch.bool)

    def token_losses(self) -> Tensor:
        return self.measure(self.logits.float(), self.labels, reduction="none").mean(-1)


class Shares(Regression):
    """One class a row, of which the labels say how likely each of the C is: (B, 1, C) float32."""

    def token_losses(self) -> Tensor:
        return -(F.log_softmax(self.logits.float(), dim=-1) * self.labels).sum(-1)


class MultiLabel(Regression):
    """Multi-label: each of the C labels is on (1) or off (0)."""

    measure: ClassVar = staticmethod(F.binary_cross_entropy_with_logits)

    def _by_position(self, measure: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Loss, nothing, and whether every label is on the right side of zero: (B, 1, 3)."""
        hit = ((self.logits > 0) == (self.labels > 0.5)).all(-1)
        losses = self.token_losses()
        return torch.stack([losses, torch.zeros_like(losses), hit.float()], dim=-1)


def _compare(logits: Tensor, labels: Tensor) -> Tensor:
    """Loss, ||p - y||_2, whether the label is the likeliest class: (n, 3) float32, zero where there is no target."""
    wanted = labels.clamp(min=0).unsqueeze(1)
    log_p = F.log_softmax(logits, dim=-1)
    loss = -log_p.gather(1, wanted)
    # Not as sum(p^2) - 2 p_y + 1, whose rounding errors outgrow the value when p_y nears 1.
    distance = torch.linalg.vector_norm(log_p.exp_().scatter_(1, wanted, torch.expm1(-loss)), dim=1)
    values = torch.stack([loss.squeeze(1), distance, (logits.argmax(1) == labels).float()], dim=-1)
    return values.masked_fill((labels == IGNORED).unsqueeze(1), 0.0)


def _is_on_cpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def count_tokens(rows: Tensor, inputs: Mapping[str, Any], is_encoder_decoder: bool) -> tuple[Tensor, int]:
    """Count the tokens of a batch.

    Args:
        rows: (B,) int64, its row numbers.
        inputs: The batch, as the collator made it.
        is_encoder_decoder: Whether a decoder reads the labels as tokens (classes and numbers are told apart).

    Returns:
        (B,) int64 real tokens of each row, and the batch's tokens with padding; zeros without input_ids (images).
        Another number of rows than B where it has several texts for each, or joins them.
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
