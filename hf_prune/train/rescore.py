"""A forward pass without gradients over some rows, to measure their present losses and signals."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset
from transformers import Trainer

from ..common.generators import unchanged_generators
from ..core import whole_steps
from ..measure.meter import Meter
from ..measure.recorder import Recorder
from .collator import PARTS, ROW
from .rows import TrainingRows


def rescore(
    trainer: Trainer,
    training: TrainingRows,
    rows: np.ndarray,
    meter: Meter,
    recorder: Recorder,
    watch: Callable[[Iterable[Any], int], Iterable[Any]] | None = None,
) -> None:
    """Measure rows in evaluation mode. Weights, random generators and the trainer's own metrics do not change.

    Args:
        trainer: The trainer, during training.
        training: The numbered training rows.
        rows: (H,) int64.
        meter: Measures the batches.
        recorder: Takes the measurements.
        watch: (batches, their number) -> the same batches, to show how far the pass is; None = nothing is shown.
    """
    args, accelerator = trainer.args, trainer.accelerator
    # The training batch size (as auto_find_batch_size may have reduced it) fits in memory; a forward pass needs less.
    batch = trainer._train_batch_size // max(1, args.n_gpu)
    if not accelerator.even_batches:  # a sharded model needs all processes in each forward pass: repeat rows to fill up
        rows = np.resize(rows, whole_steps(len(rows), batch * accelerator.num_processes))
    loader: Any = DataLoader(
        Subset(training.numbered, rows.tolist()),
        batch_size=batch,
        collate_fn=training.collator,
        num_workers=args.dataloader_num_workers,
        pin_memory=args.dataloader_pin_memory,
    )
    whole: Any = trainer  # typed as Any, for attributes that only TRL's trainers have
    model = trainer._wrap_model(whole.model, training=False)
    noted = copy.deepcopy(getattr(whole, "_metrics", None))  # TRL would log this pass as part of its next evaluation
    with unchanged_generators(), torch.no_grad():
        loader = accelerator.prepare_data_loader(loader)
        was_training = model.training
        model.eval()
        try:
            for inputs in loader if watch is None else watch(loader, len(loader)):
                ids, parts = inputs.pop(ROW), inputs.pop(PARTS, None)
                inputs = trainer._prepare_inputs(inputs)
                with trainer.compute_loss_context_manager(), meter.watch(model, inputs, parts) as seen:
                    loss: Any = trainer.compute_loss(model, inputs)
                meter.record(ids, seen, loss, recorder, None, None, 1)
        finally:
            model.train(was_training)
            if noted is not None:
                whole._metrics = noted
            accelerator._dataloaders.remove(loader)
