"""A training step: the stock one, whose losses are measured by the way, and weighted where the policy says so."""

from collections.abc import MutableMapping

import torch

from .collator import PARTS, ROW, Batch


class StepsMixin:
    """The part of `PruningMixin` that takes steps."""

    def training_step(self, model, inputs, *args, **kwargs):
        """The stock step. A subclass's own `compute_loss` need not call this class's, and may pass all on to the model.

        Raises:
            ValueError: Of the first batch: it does not call it, and makes the loss of other things than the logits, so
                that the rows can't be weighted. Of any: a `train` of its own takes steps.
        """
        if self._has_begun is False:
            raise ValueError(
                f"policy={self.policy!r} chooses the rows of Trainer's own loop, but {type(self).__name__}.train has "
                "one of its own. Train without a policy."
            )
        if self.policy is None or ROW not in inputs or type(self).compute_loss is StepsMixin.compute_loss:
            return super().training_step(model, inputs, *args, **kwargs)
        inputs = self._prepare_inputs(inputs)
        batch = self._batch_of(inputs)  # without its numbers: `compute_loss` may give it to other models, too
        self._run.begin_batch(self.state.global_step)
        meter, weights = self._meter, self._weights_of(batch)

        def weigh(outputs):
            meter.weigher.weigh_ahead(outputs, weights, len(batch.rows), batch.parts, lambda: not batch.is_recorded)

        with meter.watch(model, inputs, batch.parts, weigh if self._run.policy.weighs else None) as seen:
            loss = super().training_step(model, inputs, *args, **kwargs)
        if not batch.is_recorded:  # by `compute_loss`
            if self._run.policy.weighs:
                meter.weigher.check_ahead()
            meter.record(batch.rows, seen, loss, self._run.recorder, weights, None, self._loss_factor)
        return loss

    def compute_loss(self, model, inputs, return_outputs=False, *args, **kwargs):
        """The stock loss; what it tells of each row is recorded on the side, and weighted where the policy says so."""
        batch = None if self.policy is None else self._batch_of(inputs)
        if batch is None or not torch.is_grad_enabled():
            return super().compute_loss(model, inputs, return_outputs, *args, **kwargs)
        self._numbering.is_checked = True  # by whoever made this batch: the workers of later epochs need not
        self._run.begin_batch(self.state.global_step)
        meter = self._meter
        with meter.watch(model, inputs, batch.parts) as seen:
            result = super().compute_loss(model, inputs, return_outputs, *args, **kwargs)
        loss, *rest = result if return_outputs else (result,)
        recorder = None if batch.is_recorded else self._run.recorder
        batch.is_recorded = True
        items = args[0] if args else kwargs.get("num_items_in_batch")
        weights = self._weights_of(batch)
        loss = meter.measure(batch.rows, seen, loss, recorder, weights, items, self._loss_factor)
        return (loss, *rest) if return_outputs else loss

    def _batch_of(self, inputs: MutableMapping) -> Batch | None:
        """The numbered batch that these inputs are, now without its numbers, or were; None for others.

        Raises:
            ValueError: Its rows are joined into one sequence, which accelerate has cut as if it were a row each.
        """
        rows, parts = inputs.pop(ROW, None), inputs.pop(PARTS, None)
        if parts is not None and self.accelerator.dispatch_batches:
            raise ValueError(
                "dispatch_batches=True cuts a batch between its rows, but data_collator joins them into one sequence. "
                "Set accelerator_config={'dispatch_batches': False}."
            )
        if rows is None:
            return self._batch if self._batch is not None and self._batch.has(inputs) else None
        if self._batch is None or self._batch.rows is not rows:
            self._batch = Batch(rows, parts, inputs)
        return self._batch

    def _weights_of(self, batch: Batch) -> torch.Tensor | None:
        """(B,) float32 factors on the losses of a batch's rows; None where all are 1."""
        return None if self._weights is None else self._weights[batch.rows]

    @property
    def _loss_factor(self) -> int:
        """By which the trainer multiplies a loss that is divided by the target tokens of all devices."""
        return self.args.world_size * max(1, self.args.n_gpu) if self.args.average_tokens_across_devices else 1
