"""A forward pass without gradients over some rows, to learn what the model makes of them now."""

import copy

import numpy as np
import torch
from torch.utils.data import Subset
from tqdm.auto import tqdm

from ..common.generators import unchanged_generators
from ..core import whole_steps
from ..measure.meter import Meter
from ..measure.recorder import Recorder
from .collator import PARTS, ROW, RowDataset


def rescore(trainer, data: RowDataset, collator, rows: np.ndarray, meter: Meter, recorder: Recorder) -> None:
    """Measure rows in evaluation mode; weights, random generators and the trainer's own metrics stay as they are.

    Args:
        trainer: A `PruningMixin` in training.
        data: Its numbered rows.
        collator: Makes a numbered batch.
        rows: (H,) int64.
        meter: Reads the batches.
        recorder: Takes what was measured.
    """
    # forward passes alone: what training fits, this does, also where auto_find_batch_size has made it smaller
    batch = trainer._train_batch_size // max(1, trainer.args.n_gpu)
    if not trainer.accelerator.even_batches:  # a model in shards needs every process at every forward pass
        rows = np.resize(rows, whole_steps(len(rows), batch * trainer.accelerator.num_processes))
    loader = torch.utils.data.DataLoader(
        Subset(data, rows.tolist()),
        batch_size=batch,
        collate_fn=collator,
        num_workers=trainer.args.dataloader_num_workers,
        pin_memory=trainer.args.dataloader_pin_memory,
    )
    model = trainer._wrap_model(trainer.model, training=False)
    noted = copy.deepcopy(getattr(trainer, "_metrics", None))  # TRL's: for its next evaluation's log
    with unchanged_generators(), torch.no_grad():
        loader = trainer.accelerator.prepare_data_loader(loader)
        quiet = trainer.args.disable_tqdm or not trainer.is_local_process_zero()
        was_training = model.training
        model.eval()
        try:
            for inputs in tqdm(loader, "Rescoring", leave=False, disable=quiet):
                ids, parts = inputs.pop(ROW), inputs.pop(PARTS, None)
                inputs = trainer._prepare_inputs(inputs)
                with trainer.compute_loss_context_manager(), meter.watch(model, inputs, parts) as seen:
                    loss = trainer.compute_loss(model, inputs)
                meter.record(ids, seen, loss, recorder, None, None, 1)
        finally:
            model.train(was_training)
            if noted is not None:
                trainer._metrics = noted
            trainer.accelerator._dataloaders.remove(loader)
