"""The share of the data that a round trains: one number, a ramp, or a cycle around a mean."""

import re
from dataclasses import dataclass
from typing import Any

_RAMP = re.compile(r"\s*([\d.]+)\s*->\s*([\d.]+)\s*")
_CYCLE = re.compile(r"\s*([\d.]+)\s*~\s*([\d.]+)\s*x\s*(\d{1,9})\s*")
FORMS = "a ramp is written '0.3->1.0', a cycle '0.5~0.3x4' (mean, amplitude, number of cycles)"


@dataclass(frozen=True)
class Budget:
    """A share as a function of t, the share of training done: a line from `start` to `end`, and a wave on top of it.

    Attributes:
        start: Share at t = 0, without the wave.
        end: Share at t = 1, without the wave.
        swing: Height of the wave: it takes this away in the first half of each cycle, and adds it in the second.
        cycles: Number of cycles in the whole of training.
    """

    start: float
    end: float
    swing: float = 0.0
    cycles: int = 1

    @property
    def mean(self) -> float:
        """The share of all of training."""
        return (self.start + self.end) / 2

    @property
    def lowest(self) -> float:
        """The smallest share."""
        return min(self.start, self.end) - self.swing

    @property
    def highest(self) -> float:
        """The largest share."""
        return max(self.start, self.end) + self.swing

    def over(self, begin: float, end: float) -> float:
        """Return the mean share between two times, so that rounds of any length add up to the mean of the whole.

        Args:
            begin: Share of training done when a round begins.
            end: Share of training done when it ends; above `begin`.
        """
        if self.lowest == self.highest:
            return self.start  # without rounding errors
        share = (self._area(end) - self._area(begin)) / (end - begin)
        return min(max(share, self.lowest), self.highest)

    def _area(self, t: float) -> float:
        """The integral of the share from 0 to t."""
        phase = self.cycles * t % 1
        wave = -min(phase, 1 - phase) / self.cycles
        return self.start * t + (self.end - self.start) * t**2 / 2 + self.swing * wave


def read_budget(keep: Any) -> Budget | None:
    """Read a budget as a user writes it, a number or a text, see `FORMS`; None if it is none, or not within (0, 1]."""
    try:
        if not isinstance(keep, str):
            is_number = isinstance(keep, (int, float)) and not isinstance(keep, bool)
            found = Budget(keep, keep) if is_number else Budget(0, 0)
        elif ramp := _RAMP.fullmatch(keep):
            found = Budget(float(ramp[1]), float(ramp[2]))
        elif cycle := _CYCLE.fullmatch(keep):
            found = Budget(float(cycle[1]), float(cycle[1]), float(cycle[2]), int(cycle[3]))
        else:
            return None
        return found if 0 < found.lowest and found.highest <= 1 and found.cycles >= 1 else None
    except ValueError:  # of digits and dots that are no number
        return None
