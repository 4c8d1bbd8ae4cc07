"""A trace, written by hand."""

import numpy as np
import pytest

from hf_prune.core import Clock
from hf_prune.core.ranking import marked
from hf_prune.records.trace import Trace


def write(folder, round, *measured, rows=10, epoch=None, warn=pytest.fail):
    clock = Clock(round=round, epoch=round if epoch is None else epoch, epochs=9, share=0.0)
    pairs = [(np.array(chosen, np.int64), np.array(losses, np.float32)) for chosen, losses in measured]
    parts = [(marked(chosen, rows), chosen, losses) for chosen, losses in pairs]
    Trace(folder, lambda: [0.1], warn).write(clock, 1.5, 2.0, rows, parts)
