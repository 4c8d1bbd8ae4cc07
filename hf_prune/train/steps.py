"""A training step: Trainer's own step, with each row's loss measured, and weighted if the policy gives weights."""

from collections.abc import Callable, MutableMapping
from typing import Any

import torch
from transformers import Trainer
from transformers.trainer_utils import unwrap_peft_model

from ..core import Policy
from ..data.kinds import has_own_loss, is_arrow
from ..measure.meter import Meter
from .collator import PARTS, ROW, Batch, RowCollator
from .engine import Engine
from .owned import Owned
from .sentences import cuts_batches, row_losses


class Steps(Owned):
    """Measures the batches that a run trains.

    Args:
        trainer: Takes the steps.
        engine: The engine of the run.
        meter: Measures the batches.
        collator: Numbers the rows of the batches.

    Attributes:
        weights: (N,) float32 factor on each row's loss in the round in progress; None = all are 1.
    """

    def __init__(self, trainer: Trainer, engine: Engine, meter: Meter, collator: RowCollator):
        super().__init__(trainer)
        self.engine = engine
        self.meter = meter
        self.weights: torch.Tensor | None = None
        self._collator = collator
        self._batch: Batch | None = None

    def take(self, stock: Callable, model: Any, inputs: MutableMapping, *args, **kwargs) -> torch.Tensor:
        """Take Trainer's step, for a subclass with its own `compute_loss`. That method may or may not call `loss`.

        Args:
            stock: Trainer's `training_step`.
            model: See `Trainer.training_step`.
            inputs: See `Trainer.training_step`; with or without row numbers.
            *args: See `Trainer.training_step`.
            **kwargs: See `Trainer.training_step`.

        Raises:
            ValueError: On the first batch: the subclass's `compute_loss` does not call `loss`, and does not compute the
                loss from the logits, so the rows can't be weighted.
        """
        if ROW not in inputs:
            return stock(model, inputs, *args, **kwargs)
        inputs = self.trainer._prepare_inputs(inputs)  # pyright: ignore[reportArgumentType]
        batch = self._numbered(inputs)  # removes the numbers: `compute_loss` may pass the inputs to other models, too
        self.engine.begin_batch(self.trainer.state.global_step)
        meter, weights, weighs = self.meter, self._weights_of(batch), self.engine.policy.weighs

        def weigh(outputs):
            meter.weigher.weigh_ahead(outputs, weights, len(batch.rows), batch.parts, lambda: not batch.is_recorded)

        with meter.watch(model, inputs, batch.parts, weigh if weighs else None) as seen:
            loss = stock(model, inputs, *args, **kwargs)
        if not batch.is_recorded:  # `compute_loss` did not call `loss`
            if weighs:
                meter.weigher.check_ahead()
            meter.record(batch.rows, seen, loss, self.engine.recorder, weights, None, loss_factor(self.trainer))
        return loss

    def loss(
        self, stock: Callable, model: Any, inputs: MutableMapping, return_outputs: bool = False, *args, **kwargs
    ) -> Any:
        """Compute Trainer's loss. Record each row's loss, and weight the losses if the policy gives weights.

        Args:
            stock: Trainer's `compute_loss`.
            model: See `Trainer.compute_loss`.
            inputs: See `Trainer.compute_loss`. Inputs that are not a training batch are only passed on.
            return_outputs: See `Trainer.compute_loss`.
            *args: See `Trainer.compute_loss`.
            **kwargs: See `Trainer.compute_loss`.
        """
        batch = self._batch_of(inputs)
        if batch is None or not torch.is_grad_enabled():
            return stock(model, inputs, return_outputs, *args, **kwargs)
        self._collator.is_checked = True  # the process that made this batch checked it; later workers need not
        self.engine.begin_batch(self.trainer.state.global_step)
        with self.meter.watch(model, inputs, batch.parts) as seen:
            result = stock(model, inputs, return_outputs, *args, **kwargs)
        loss, *rest = result if return_outputs else (result,)
        recorder = None if batch.is_recorded else self.engine.recorder
        batch.is_recorded = True
        items = args[0] if args else kwargs.get("num_items_in_batch")
        weights = self._weights_of(batch)
        loss = self.meter.measure(batch.rows, seen, loss, recorder, weights, items, loss_factor(self.trainer))
        return (loss, *rest) if return_outputs else loss

    def _batch_of(self, inputs: MutableMapping) -> Batch | None:
        """Return the numbered batch of these inputs, also after its numbers were removed; None = no training batch."""
        if ROW in inputs:
            return self._numbered(inputs)
        return self._batch if self._batch is not None and self._batch.has(inputs) else None

    def _numbered(self, inputs: MutableMapping) -> Batch:
        """Return the batch of these inputs, and remove the row numbers from them.

        Raises:
            ValueError: The rows are joined into one sequence, and accelerate has cut it as if each row were separate.
        """
        rows, parts = inputs.pop(ROW), inputs.pop(PARTS, None)
        if parts is not None and self.trainer.accelerator.dispatch_batches:
            raise ValueError(
                "dispatch_batches=True cuts a batch between its rows, but data_collator joins them into one sequence. "
                "Set accelerator_config={'dispatch_batches': False}."
            )
        if self._batch is None or self._batch.rows is not rows:
            self._batch = Batch(rows, parts, inputs)
        return self._batch

    def _weights_of(self, batch: Batch) -> torch.Tensor | None:
        """Return the (B,) float32 factors on the losses of a batch's rows; None = all are 1."""
        return None if self.weights is None else self.weights[batch.rows]


def loss_factor(trainer: Trainer) -> int:
    """Return the factor by which a trainer multiplies a loss that is divided by the target tokens of all devices."""
    args = trainer.args
    return args.world_size * max(1, args.n_gpu) if args.average_tokens_across_devices else 1


def meter_of(trainer: Trainer, policy: Policy, example_loss_func: Callable[..., torch.Tensor] | None) -> Meter:
    """Make the meter that measures the batches of a trainer.

    Args:
        trainer: Has the model and the training set.
        policy: Names the signals that it needs.
        example_loss_func: The user's function, see `PruningMixin`.

    Raises:
        ValueError: The model can't give a signal, or can't give it under these training arguments.
    """
    if "grad_norm" in policy.needs and (trainer.args.torch_compile or trainer.args.n_gpu > 1):
        raise ValueError(
            f"policy={policy!r} reads what goes into the model's head, which torch_compile=True and "
            "nn.DataParallel hide. Train without torch_compile, with a process for each GPU (accelerate launch)."
        )
    model: Any = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    trainer._set_signature_columns_if_needed()
    columns: Any = trainer._signature_columns
    if cuts_batches(trainer):
        return Meter(model, policy, row_losses(trainer, policy, example_loss_func), columns, reads_all=True)
    data: Any = trainer.train_dataset
    columns = set(columns)
    if is_arrow(data) and has_own_loss(data.column_names):
        columns = set(data.column_names) - {"label"}
    shares = {1.0, 1 / trainer.args.gradient_accumulation_steps}
    multiples = {factor * share for factor in (1, loss_factor(trainer)) for share in shares}
    if trainer.label_smoother is not None and trainer.compute_loss_func is None:
        multiples = set()
    peft = getattr(model, "active_peft_config", None)
    return Meter(unwrap_peft_model(model), policy, example_loss_func, columns, multiples, peft)
