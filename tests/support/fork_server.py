"""Processes that a test kills: children of one that has imported much and runs no thread.

pytest's own process has run many threads, and a fork of it may lock up; a new interpreter would take seconds to import.
"""

import multiprocessing
import os
import signal
import time

import torch
import transformers.trainer
from transformers import TrainerCallback

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "datasets",
        "evaluate",
        "hf_prune.report.page",
        "hf_prune.train.trainer",
        "kornia.augmentation",
        "sklearn.metrics",
        "transformers.models.bert.modeling_bert",
        "transformers.models.marian.modeling_marian",
        "trl",
    ]
)
LONGEST_STEP = 0.05  # seconds; a step of the tests' models, with its save


class Steps(TrainerCallback):
    """Tells the process that watches how many steps of this one have begun."""

    def __init__(self, begun):
        self.begun = begun

    def on_step_begin(self, args, state, control, **kwargs):
        self.begun.value += 1


def train_watched(begun, target, args):
    torch.set_num_threads(1)
    transformers.trainer.DEFAULT_CALLBACKS.append(Steps(begun))
    target(*args)


def run(target, *args, kill_at=None):
    """Whether `target`, which trains, came to its end in a process of its own before it was killed.

    `kill_at` counts the steps that this process has begun: at 3.5 it is killed in the middle of the third, or in the
    save after it. A clock would miss, on a machine that other work makes slow.
    """
    begun = SERVER.Value("i", 0)
    process = SERVER.Process(target=train_watched, args=(begun, target, args))
    process.start()
    while kill_at is not None and begun.value < int(kill_at) and process.is_alive():
        time.sleep(0.001)
    process.join(None if kill_at is None else kill_at % 1 * LONGEST_STEP)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        return False
    assert process.exitcode == 0
    return True
