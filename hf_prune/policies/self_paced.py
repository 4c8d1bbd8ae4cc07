"""SelfPaced: train on the easiest rows first and add harder ones gradually (Kumar et al., NIPS 2010).

With pace_e growing linearly from `start` in the first epoch to 1 in the last epoch of the ramp, and 1 after it

    v_i = 1   where l_i <= the floor(pace_e * N)-th smallest loss
    v_i = 0   elsewhere

Needs      loss, which the training forward pass gives: no extra pass, 4 bytes per row.
Good for   noisy labels and unstable starts; a control, because most other rules keep the opposite rows.
Not for    saving time: all rows are trained once the ramp is over; runs of fewer epochs than the ramp.
Defaults   start = 0.25, ramp = 5 epochs: the self-paced baseline in AutoAssist's code.
Deviates   the hard form, paced by a share of the rows instead of a falling threshold on the loss; the code's soft form
           weights every row and saves nothing. Rows never seen come first, within the pace, but the code's first epoch
           trains everything; ties at the threshold are broken at random; whole optimizer steps are filled.
Reference  https://papers.nips.cc/paper/3923-self-paced-learning-for-latent-variable-models
"""

import math
from dataclasses import dataclass

import numpy as np

from ..core import Clock, History, Policy, Selection, whole_steps
from ..core.ranking import top


@dataclass(frozen=True)
class SelfPaced(Policy):
    """Train on the rows of lowest loss, a share that grows to all of them.

    Args:
        start: Share of the rows in the first epoch, in (0, 1].
        ramp: Epochs in which the share grows to 1, at least 2.

    Examples:
        >>> history = History.empty(4)
        >>> history.record(np.arange(4), np.array([0.3, 0.1, 0.2, 3.7], np.float32), round=0)
        >>> clock = Clock(round=1, epoch=1, epochs=10, share=0.1)
        >>> SelfPaced(start=0.25, ramp=4).select(history, clock, np.random.default_rng(0)).rows.tolist()  # pace 0.5
        [1, 2]
    """

    start: float = 0.25
    ramp: int = 5

    def __post_init__(self):
        self.check_range("start", "(0, 1]")
        self.check_range("ramp", "[2, inf)")

    def select(self, history: History, clock: Clock, rng: np.random.Generator) -> Selection:
        ease = np.where(history.set_aside(rng), -np.inf, -history.loss)
        return Selection(top(ease, self.forecast(history, clock), rng))

    def forecast(self, history: History, clock: Clock) -> int:
        pace = min(1.0, self.start + (1 - self.start) * clock.epoch / (self.ramp - 1))
        k = max(1, math.floor(pace * len(history) + 1e-9))
        return min(len(history), whole_steps(k, clock.step_rows))
