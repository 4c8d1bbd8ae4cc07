"""The program's random generators: what the library does on the side leaves them as they were."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def unchanged_generators() -> Iterator[None]:
    """After the block, the random generators are as they were before."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - a collator may draw from it
    own = [torch.cuda.current_device()] if torch.cuda.is_available() else None  # not those of other processes
    try:
        with torch.random.fork_rng(own):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


@contextmanager
def seeded_generators() -> Iterator[None]:
    """As `unchanged_generators`; in the block, those of Python, numpy and torch's CPU are the same in every process."""
    with unchanged_generators():
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        torch.default_generator.manual_seed(0)
        yield
