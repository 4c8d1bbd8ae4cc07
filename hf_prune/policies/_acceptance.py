"""Accepts each row with its own probability, and fills whole optimizer steps."""

import numpy as np

from ..core import whole_steps
from ..core.ranking import top


def accepted(chance: np.ndarray, step_rows: int, rng: np.random.Generator) -> np.ndarray:
    """Accept the rows whose random draw u is at most their chance.

    The last optimizer step is filled up with the rows of smallest u / chance among the others.

    Args:
        chance: (M,) float64 in [0, 1], the chance of each row to be accepted.
        step_rows: Rows in an optimizer step.
        rng: Draws u, and breaks ties of u / chance.

    Returns:
        (K,) int64, positions in `chance`, sorted; at least one.
    """
    reach = (1 - rng.random(len(chance))) / np.maximum(chance, 1e-300)  # u in (0, 1]: a chance of 0 is never reached
    count = max(1, int(np.count_nonzero(reach <= 1)))
    return top(-reach, whole_steps(count, step_rows), rng)
