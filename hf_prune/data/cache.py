"""Arrays that were made from a data set, kept on disk for later runs and for the other processes of a run."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..common import storage

logger = logging.getLogger(__name__)


def made_once(name: str, content: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """Return an array that an earlier run has kept under `$HF_HOME/hf_prune/features`, or make and keep it now.

    Args:
        name: What the array holds.
        content: A hash of all that it is made from, which names its file.
        make: Makes it.
    """
    home = os.environ.get("HF_HOME") or os.path.join("~", ".cache", "huggingface")
    path = Path(home, "hf_prune", "features", f"{content}.safetensors").expanduser()
    try:
        return storage.load(path)[0][name]
    except (FileNotFoundError, storage.DamagedFile):
        pass
    array = make()
    try:
        storage.save(path, {name: array}, {"kind": name})
    except OSError as error:
        logger.warning(f"{path} can't be written ({error}): the next run will make the {name} again.")
    return array
