"""Kakurenbo: hide the rows that are easy, right and sure; train faster on the others (Nguyen et al., NeurIPS 2023).

    F_e        = F x (1, 0.8, 0.6, 0.4) from shares (0, 1/3, 2/3, 8/9) of the run on
    candidates = the floor(F_e N) rows of smallest loss
    hidden     = candidates that are predicted correctly with confidence >= tau; the others move back
    learning rate x 1 / (1 - hidden / N)

Hidden rows are measured again by a forward pass at the end of the round, and may come back in the next.

Needs      loss, correct and confidence (the label's probability), from training's own forward pass: 12 bytes per row;
           one forward pass per hidden row and round, about a third of what training it costs.
Good for   long runs with many easy rows.
Not for    runs of few epochs (the first hides nothing), or where forward passes dominate. Text generation has no
           `correct`: by_confidence=True [ours] uses confidence alone, the geometric mean of the tokens' probabilities.
           It is seldom as high as the probability of a class: lower the threshold.
Defaults   F = 0.3, tau = 0.7: the authors' code for ResNet-50 (F = 0.2 for DeiT). The code's phases are epochs; its
           30, 60 and 80 are our shares of a run of 90.
Deviates   the learning-rate factor counts the rows really hidden, as in the paper, but the code takes 1 / (1 - F_e); it
           also holds during the schedule's warm-up, but the code waits; confidence is over classes, but the code's
           softmax is over the batch; ties never hide more than floor(F_e N) rows, but the code hides them all.
Reference  https://arxiv.org/abs/2310.10102
"""

import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..core import Clock, History, Policy, Selection
from ..core.ranking import top

PHASES = (1 / 3, 2 / 3, 8 / 9)  # shares of the run
FACTORS = (1, 0.8, 0.6, 0.4)


@dataclass(frozen=True)
class Kakurenbo(Policy):
    """Hide the rows of smallest loss that the model predicts correctly and with confidence.

    Args:
        hide: F, largest share of the rows that a round may hide, in [0, 1).
        threshold: tau, lowest confidence of a hidden row, in [0, 1].
        by_confidence: Hide confident rows whether they are predicted correctly or not, for tasks without `correct`.

    Examples:
        >>> history = History.empty(4, ("correct", "confidence"))
        >>> losses, confidence = np.array([[0.1, 0.2, 0.5, 2.0], [0.9, 0.8, 0.6, 0.1]], np.float32)
        >>> history.record(np.arange(4), losses, 0, correct=np.array([1, 0, 1, 0]), confidence=confidence)
        >>> chosen = Kakurenbo(hide=0.5).select(history, Clock(1, 1, 10, 0.1), np.random.default_rng(0))
        >>> chosen.rows.tolist(), chosen.rescore.tolist(), round(chosen.lr_scale, 2)
        ([1, 2, 3], [0], 1.33)
    """

    instead: ClassVar[Mapping[str, Any]] = {"by_confidence": True}

    hide: float = 0.3
    threshold: float = 0.7
    by_confidence: bool = False

    def __post_init__(self):
        self.check_range("hide", "[0, 1)")
        self.check_range("threshold", "[0, 1]")
        self.check_switch("by_confidence")

    @property
    def needs(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return frozenset({"loss", "confidence"} if self.by_confidence else {"loss", "confidence", "correct"})

    def select(self, history: History, clock: Clock, rng: np.random.Generator) -> Selection:
        n = len(history)
        factor = FACTORS[bisect.bisect_right(PHASES, clock.share + 1e-9)]
        easiness = np.where(np.isnan(history.loss), -np.inf, -history.loss)
        candidates = top(easiness, int(self.hide * factor * n + 1e-9), rng)
        # NaN compares false: a row without signals moves back
        sure = history.signals["confidence"][candidates] >= self.threshold
        if not self.by_confidence:
            sure &= history.signals["correct"][candidates] == 1
        hidden = np.sort(candidates[sure])
        trained = np.ones(n, bool)
        trained[hidden] = False
        return Selection(np.flatnonzero(trained), lr_scale=n / (n - len(hidden)), rescore=hidden)
