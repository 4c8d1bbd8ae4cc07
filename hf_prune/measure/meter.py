"""Reads every row's loss and signals from the training forward pass, and weights the loss where a policy asks.

A row's loss goes one way through this room: `Meter.watch` sees a forward pass, `readers` read its outputs into a
`prediction`, the prediction gives the signals, and the `recorder` keeps them until the round is closed.
"""

import contextlib
import logging
from collections.abc import Callable, Collection, Generator, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core import DATA_NEEDS, IGNORED, Policy
from .agreement import Agreement, second_terms
from .models import head_of, reads_targets
from .prediction import Prediction, UserLosses, count_tokens
from .readers import READ, TARGETS, NoLogits, Recipe, recipe_for, why_unread
from .recorder import Recorder
from .weighting import Weighable, Weigher

logger = logging.getLogger(__name__)

_CURE = "Give example_loss_func=(outputs, inputs) -> (B,) losses to record them."
_DECAY = 0.7  # of a row's score, where only batches are measured (BLS, Zhou et al., 2026)
_LOSS_ALONE = frozenset({"loss"})
_WRAPPERS = ("DistributedDataParallel", "DeepSpeedEngine")  # they add nodes of their own behind a model's outputs


@dataclass
class Seen:
    """One training forward pass as the hooks saw it."""

    inputs: dict[str, Any]
    parts: Tensor | None  # (B, T) bool: which positions belong to which row, where rows were joined into one sequence
    outputs: list[Any] = field(default_factory=list[Any])
    head_inputs: list[Tensor] = field(default_factory=list[Tensor])


class Meter:
    """Measures training batches for one policy on one model.

    Args:
        model: The model without wrappers (DDP, compile, PEFT).
        policy: Says which signals it needs and whether it weights rows.
        example_loss_func: The user's (outputs, inputs) -> (B,) losses, which then replace the library's recipes.
        columns: Names of the data set's columns that the trainer makes batches of. Without a target among them the
            trainer makes a loss of its own, whatever the model.
        multiples: Factors that the trainer may multiply the mean of a batch's losses by; none where it trains on
            other losses than are recorded, such as smoothed ones.
        peft: The active PeftConfig, None without.
        reads_all: Whether `example_loss_func` takes a list with the outputs of all forward passes of a batch; else it
            takes those of the first.

    Attributes:
        gives: Names of what could be measured for each row; empty where the rows' own losses can't be read.
        why_unread: The reason for that, in a sentence.
        signals: Names of what is measured, the loss first; empty where the loss is not known and not needed.
        extras: Names of what is measured besides, for people: no policy reads it, and the History does not hold it.
        is_encoder_decoder: Whether the model also reads its labels as tokens.
        joins_rows: Whether a batch of several rows has come as one sequence.
        by_batch: Whether a row gets the loss of its batch, because its own can't be read (see `blend`).
        weigher: Weights the training loss where the policy says so.

    Raises:
        ValueError: The model can't give a signal that the policy needs.
    """

    def __init__(
        self,
        model: nn.Module,
        policy: Policy,
        example_loss_func: Callable[[Any, dict[str, Any]], Any] | None,
        columns: Collection[str] = TARGETS,
        multiples: Collection[float] = (1.0,),
        peft: Any = None,
        reads_all: bool = False,
    ):
        self._policy = policy
        self._name = type(model).__name__
        self._example_loss_func = example_loss_func
        self._reads_all = reads_all
        has_targets = not {"label", "label_ids", *TARGETS}.isdisjoint(columns)
        self._recipe: Recipe | None = recipe_for(model, peft) if has_targets and not example_loss_func else None
        self.why_unread = why_unread(model, peft)
        self.is_encoder_decoder = reads_targets(model)
        gives = _LOSS_ALONE if example_loss_func else self._recipe.gives if self._recipe else frozenset[str]()
        self.gives = gives
        needs = policy.needs - DATA_NEEDS
        if needs and not has_targets and not example_loss_func:
            raise ValueError(
                f"policy={policy!r} needs {', '.join(sorted(needs))}, but the trainer makes a loss of its own out of "
                f"{', '.join(sorted(columns))}. Give example_loss_func=(outputs, inputs) -> (B,) losses, or choose a "
                "policy that needs no loss, such as 'uniform'."
            )
        self.by_batch = not gives and needs == _LOSS_ALONE
        if not needs <= gives and not self.by_batch:
            raise self._cannot_give(needs, gives)
        self.signals = ("loss", *sorted(needs - {"loss"})) if gives or self.by_batch else ()
        self.extras: tuple[str, ...] = self._recipe.extras if self._recipe and self.signals else ()
        self._head = head_of(model) if "grad_norm" in policy.needs else None
        self.weigher = Weigher(self._cannot_weigh)
        self._agreement: Agreement | None = Agreement(multiples) if self._recipe and multiples else None
        self.joins_rows = False
        self._has_read = False
        self._has_warned = False

    @property
    def scale(self) -> str | None:
        """Which of `SCALES` the weighted loss goes by, None = not known yet; a resumed run keeps its own."""
        return self.weigher.scale

    @scale.setter
    def scale(self, scale: str | None) -> None:
        self.weigher.scale = scale

    # ---- A batch: forward pass -> prediction -> signals -> recorder, and the loss to train on ----

    @contextlib.contextmanager
    def watch(
        self,
        model: nn.Module,
        inputs: MutableMapping[str, Any],
        parts: Tensor | None,
        on_forward: Callable[[Any], None] | None = None,
    ) -> Generator[Seen, None, None]:
        """See the forward pass that the block makes.

        Args:
            model: As the trainer calls it, wrapped or not.
            inputs: The batch; copied before the trainer takes labels out of it.
            parts: (B, T) bool where the rows were joined into one sequence.
            on_forward: Called with the outputs of each forward pass, as soon as it is done.
        """
        seen = Seen(dict(inputs), parts)
        with_gradient = torch.is_grad_enabled()

        def remember(module: nn.Module, args: Any, outputs: Any) -> None:
            if torch.is_grad_enabled() == with_gradient:  # some trainers make further forward passes without gradients
                seen.outputs.append(outputs)
                if on_forward is not None:
                    on_forward(outputs)

        inner: Any = model.module if type(model).__name__ in _WRAPPERS else model
        hooks = [inner.register_forward_hook(remember, prepend=True)]
        if self._head is not None:
            hooks.append(
                self._head.register_forward_pre_hook(lambda _, args: seen.head_inputs.append(args[0].detach()))
            )
        try:
            yield seen
        finally:
            for hook in hooks:
                hook.remove()

    def measure(
        self,
        rows: Tensor,
        seen: Seen,
        loss: Tensor,
        recorder: Recorder | None,
        weights: Tensor | None,
        items: Tensor | int | None,
        devices: int,
    ) -> Tensor:
        """Record a batch and return the loss to train on.

        Args:
            rows: (B,) int64, the batch's row numbers.
            seen: The forward pass.
            loss: (), the trainer's own loss, or (D,) under nn.DataParallel: that of each device's part of the batch.
            recorder: Takes what was measured; None where it has this batch already.
            weights: (B,) float32 factors on the rows' losses; None leaves the loss untouched.
            items: Target tokens in the whole optimizer step; the trainer may have divided by them.
            devices: Number of processes or devices; it may have multiplied by it.

        Returns:
            As `loss` and of its value; `loss` itself without weights.

        Raises:
            ValueError: The outputs don't fit the batch, or, in the first batch, the loss can't be weighted.
        """
        if isinstance(items, Tensor):
            items = items.flatten()[0]  # nn.DataParallel: once for each device
        prediction = self.record(rows, seen, loss, recorder, weights, items, devices)
        if not self._policy.weighs:
            return loss
        batch = Weighable(loss, seen.outputs, prediction, len(rows), seen.parts, items, devices)
        return self.weigher.weigh(batch, self.by_batch, weights)

    def record(
        self,
        rows: Tensor,
        seen: Seen,
        loss: Tensor,
        recorder: Recorder | None,
        weights: Tensor | None,
        items: Tensor | int | None,
        devices: int,
    ) -> Prediction | UserLosses | None:
        """Record a batch, arguments as in `measure`; None where its rows' own losses can't be read."""
        tokens, padded = self._count(rows, seen)
        prediction = self._predict(rows, seen)
        values = self._values(rows, seen, prediction, loss, items, devices)
        if recorder is not None:
            recorder.add(rows, tokens, values, padded, weights)
            if isinstance(prediction, Prediction):
                self._compare(loss, seen, prediction, values[0], items)
        return prediction

    def _count(self, rows: Tensor, seen: Seen) -> tuple[Tensor, int]:
        """(B,) int64 real tokens of each row, -1 where a row's several texts are not told apart; and the positions."""
        tokens, padded = count_tokens(rows, seen.inputs, self.is_encoder_decoder)
        if seen.parts is not None:
            tokens, self.joins_rows = seen.parts.sum(1), True
        elif tokens.shape != rows.shape:  # such as a chosen text and a rejected one
            tokens = torch.full_like(rows, -1)
        return tokens, padded

    def _predict(self, rows: Tensor, seen: Seen) -> Prediction | UserLosses | None:
        """The batch as it was read; None where only batches are measured, or nothing is, or it can't be read."""
        if not self.signals or self.by_batch:
            return None
        try:
            return self._read(rows, seen)
        except (ValueError, TypeError, LookupError, AttributeError) as error:  # as the user's own outputs bring about
            needs = self._policy.needs - DATA_NEEDS
            if isinstance(error, NoLogits) and needs == _LOSS_ALONE and not self._has_read:
                self.by_batch = True
                self._warn_of_batches(str(error))
                return None
            if (needs or self._policy.weighs) and not self._has_read:
                raise
            if not self._has_warned:  # a change in the middle of a run does not end it
                self._has_warned = True
                verb = "record or weight" if self._policy.weighs else "record"
                logger.warning(f"hf_prune can't {verb} the losses of every batch of {self._name}: {error}")
            return None

    def _read(self, rows: Tensor, seen: Seen) -> Prediction | UserLosses:
        if not seen.outputs:
            raise ValueError("The loss was computed without calling the model that the trainer was given.")
        if self._recipe is None:
            assert self._example_loss_func is not None  # else nothing gives signals
            outputs = seen.outputs if self._reads_all else seen.outputs[0]
            prediction = UserLosses(self._example_loss_func(outputs, seen.inputs))
        else:
            targets = {name: seen.inputs[name] for name in READ if name in seen.inputs}
            prediction = self._recipe.read(seen.outputs[0], targets)
            if seen.parts is not None and len(prediction.labels) == 1:
                prediction.parts = seen.parts
        if len(prediction.is_target) != len(rows):
            raise ValueError(
                f"The batch has {len(rows)} rows, but losses for {len(prediction.is_target)}: "
                "data_collator must return one example for each that it is given, in the same order."
            )
        self._has_read = True
        return prediction

    def _values(
        self,
        rows: Tensor,
        seen: Seen,
        prediction: Prediction | UserLosses | None,
        loss: Tensor,
        items: Tensor | int | None,
        devices: int,
    ) -> list[Tensor]:
        """(B,) float32 of each of `signals` and of `extras`.

        They are the rows' own; else the loss is the mean loss of their batch, or NaN, and all others are NaN.
        """
        names = (*self.signals, *self.extras)
        if prediction is not None:
            if self._head is None:
                signals = prediction.signals(names)
            else:
                has_bias = self._head.bias is not None  # pyright: ignore[reportUnnecessaryComparison] - nn.Linear's own
                signals = prediction.signals(names, seen.head_inputs[0], has_bias)
            signals["loss"] = _as_recorded(signals["loss"], prediction.is_target.any(1))
            return [signals[name] for name in names]
        nothing = torch.full(rows.shape, torch.nan, device=rows.device)
        if self.by_batch:
            mean = self._batch_mean(loss.detach().mean(), seen.inputs, items, devices).expand(rows.shape)
            return [_as_recorded(mean, _has_target(rows, seen).to(mean.device))] + [nothing] * len(self.extras)
        return [nothing] * len(names)

    def _batch_mean(self, loss: Tensor, inputs: dict[str, Any], items: Tensor | int | None, devices: int) -> Tensor:
        """The mean over the batch's own targets of a loss that was divided by those of the whole optimizer step.

        The loss of a model without a recipe is taken for the mean itself: most losses that are divided by tokens are of
        models with a recipe.
        """
        labels = inputs.get("labels")
        mean = loss.float()
        if items is not None and self._recipe is not None and isinstance(labels, Tensor):
            is_shifted = getattr(self._recipe, "is_shifted", False)  # then nothing predicts the first label
            mean = mean * items / (labels[:, 1:] if is_shifted else labels).ne(IGNORED).sum() / devices
        return torch.where(mean.isfinite(), mean, torch.inf)

    def _compare(
        self, loss: Tensor, seen: Seen, prediction: Prediction, losses: Tensor, items: Tensor | int | None
    ) -> None:
        """Note a batch's loss beside those of its rows; that of several devices, or with known terms, is left out."""
        if self._agreement is None or loss.numel() > 1 or any(map(second_terms, seen.outputs)):
            return
        mean, count = prediction.mean_of(losses), prediction.is_target.sum()
        self._agreement.add(loss.reshape(()), prediction.logits, mean, count, items)

    # ---- Words ----

    def finding(self) -> str | None:
        """What is wrong with the losses that a round has recorded, in words; said once, at the end of a round."""
        flaw = self._agreement and self._agreement.flaw()
        if not flaw:
            return None
        self._agreement = None
        return (
            f"The loss of {self._name} {flaw}: it weights rows or classes, has other terms or factors, or takes labels "
            f"that are no class of its logits, all of which the recorded losses leave out. {_CURE}"
        )

    def warn_if_blind(self) -> None:
        """Warn where the model has no recipe: no loss will be recorded, or only that of batches."""
        if self.by_batch:
            self._warn_of_batches(self.why_unread)
        elif not self.signals:
            logger.warning(f"hf_prune records no losses of {self._name}. {self.why_unread} {_CURE}")

    def _warn_of_batches(self, reason: str) -> None:
        logger.warning(
            f"hf_prune can't read the rows' losses of {self._name}; policy={self._policy!r} goes by the mean losses of "
            f"the batches that a row was in, which tell less. {reason} {_CURE}"
        )

    def _cannot_give(self, needs: frozenset[str], gives: frozenset[str]) -> ValueError:
        policy, recipe = self._policy, self._recipe
        task = f"{self._name}. {self.why_unread}" if recipe is None else f"{self._name} ({recipe.task})."
        cure = "Choose"
        if policy.instead and replace(policy, **policy.instead).needs - DATA_NEEDS <= gives:
            fields = ", ".join(f"{name}={value!r}" for name, value in policy.instead.items())
            cure = f"Give {fields}, with which it does without, or choose"
        return ValueError(
            f"policy={policy!r} needs {', '.join(sorted(needs - gives))}, which hf_prune can't read from a {task} "
            f"{cure} one that needs less, such as 'uniform', or one of the loss alone with "
            "example_loss_func=(outputs, inputs) -> (B,) losses."
        )

    def _cannot_weigh(self, reason: str) -> ValueError:
        cure = "" if self._example_loss_func else "Give example_loss_func=(outputs, inputs) -> (B,) losses, or choose"
        return ValueError(
            f"policy={self._policy!r} weights rows, but the loss of {self._name} {reason}. {cure or 'Choose'} a policy "
            "without weights, such as 'uniform'."
        )


def _has_target(rows: Tensor, seen: Seen) -> Tensor:
    """(B,) bool, whether a row has a target, as far as the labels tell without a recipe."""
    labels = seen.inputs.get("labels")
    if isinstance(labels, Tensor) and labels.dim() > 0 and not labels.is_floating_point():
        is_target = labels.ne(IGNORED)
        if seen.parts is not None and is_target.shape == (1, seen.parts.shape[1]):
            is_target = is_target & seen.parts
        if len(is_target) == len(rows):
            return is_target.reshape(len(rows), -1).any(1)
    return torch.ones_like(rows, dtype=torch.bool)


def _as_recorded(loss: Tensor, has_target: Tensor) -> Tensor:
    """(B,) losses as `Measurements` has them: infinity for a fault, minus infinity where a row had no target."""
    return torch.where(loss.isfinite(), loss, torch.where(has_target, torch.inf, -torch.inf))


def blend(score: np.ndarray, batch_loss: np.ndarray) -> np.ndarray:
    """A row's score after another batch, where only batches are measured (BLS: Zhou et al., 2026).

    Args:
        score: (K,) float32, NaN = never seen: then the batch's loss becomes its score.
        batch_loss: (K,) float32, nats, mean over the batch's targets.

    Returns:
        (K,) float32: 0.7 of the old score and 0.3 of the batch's loss.
    """
    return np.where(np.isnan(score), batch_loss, _DECAY * score + (1 - _DECAY) * batch_loss).astype(np.float32)
