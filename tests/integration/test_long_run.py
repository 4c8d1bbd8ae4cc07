"""Weeks of training in small: what is kept grows by a line an epoch, and nothing else grows."""

import gc
import json
import math
import sys
import threading
from dataclasses import dataclass
from typing import ClassVar

import inside
import numpy as np
import pytest
import tiny
from transformers import TrainerCallback

from hf_prune import Policy, Selection

ROWS, EPOCHS = 8, 200
WARM = 60  # epochs until every cache is filled


@dataclass(frozen=True)
class Tides(Policy):
    """Shares that grow and shrink between a tenth and all of the rows, the others rescored, in two rounds an epoch."""

    in_background: ClassVar[bool] = True

    @property
    def rounds_per_epoch(self):
        return 2

    def select(self, history, clock, rng):
        rows = rng.permutation(history.offered)
        kept = max(1, round(len(rows) * (0.55 + 0.45 * math.sin(clock.epoch))))
        return Selection(np.sort(rows[:kept]), rescore=np.sort(rows[kept:]))

    def update(self, history, clock, rng):
        history.notes["rounds"] = np.array([clock.round])


class Gauge(TrainerCallback):
    """Reads, at the end of each epoch after the warm-up, everything that could grow."""

    def __init__(self):
        self.readings = []

    def on_epoch_end(self, args, state, control, **kwargs):
        epoch = round(state.epoch)
        if epoch >= WARM and epoch % 10 == 0:
            gc.collect()
            with open("/proc/self/statm") as file:
                resident = int(file.read().split()[1])
            trainer, recorder = self.trainer, inside.engine(self.trainer).recorder
            modules = list(trainer.model.modules())
            counts = {
                "hooks": sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules),
                "loaders": len(trainer.accelerator._dataloaders),
                "callbacks": len(trainer.callback_handler.callbacks),
                "log": len(state.log_history),
                "threads": threading.active_count(),
                "measurements": len(recorder._on_device) + len(recorder._on_host) < 10,
            }
            self.readings.append((counts, len(gc.get_objects()), sys.getallocatedblocks(), resident))


def trained(folder, policy):
    gauge = Gauge()
    task = tiny.TASKS["one label"]
    settings = dict(num_train_epochs=EPOCHS, logging_strategy="no", callbacks=[gauge])
    gauge.trainer = trainer = tiny.trainer(folder, task.model(), task.rows(ROWS), policy=policy, **settings)
    trainer.train()
    return trainer, gauge.readings


@pytest.mark.slow
@pytest.mark.parametrize("policy", [Tides(), "kakurenbo", "autoassist"], ids=str)
def test_nothing_grows_but_the_accounts(tmp_path, policy):
    trainer, readings = trained(tmp_path, policy)
    counts, objects, blocks, resident = zip(*readings, strict=True)
    assert all(count == counts[0] for count in counts)
    half = len(readings) // 2
    epochs = 10 * half  # between the halves
    assert min(objects[half:]) - min(objects[:half]) < epochs / 2  # not one object in two epochs
    assert (min(blocks[half:]) - min(blocks[:half])) / epochs < 20  # allocations of Python; an account is some 10
    assert (min(resident[half:]) - min(resident[:half])) / epochs < 25  # pages of 4 KiB
    accounts = trainer.pruning_report().epochs
    assert [account["epoch"] for account in accounts] == list(range(EPOCHS))
    assert len(json.dumps(accounts)) < 500 * EPOCHS  # bytes, in every checkpoint
    kept = [account["rows"] for account in accounts]
    if isinstance(policy, Tides):
        assert min(kept) <= 2
        assert max(kept) == ROWS
