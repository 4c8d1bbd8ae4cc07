"""AutoAssist: a small assistant predicts which rows are worth training (Zhang, Yu and Dhillon, NeurIPS 2019).

The assistant is a logistic model. It learns from the training losses to predict whether a row's loss is above the
running mean Lbar. With z_i its output for row i, computed from the row's features alone, and b the base probability

    P(accept i) = b + (1 - b) sigma(z_i)      text: b rises to 1 - conf, conf the assistant's running accuracy
    pictures    z = W.x + U[class]
    texts       z = sum over texts of (mean of a_j over distinct words j + sum of tfidf_j w_j + c |distinct| / 10) + b0

Needs      loss, and features: words or pictures. No extra pass; the assistant learns on the CPU, during training.
Good for   one or few epochs over large, redundant data whose words or pixels show what is hard.
Not for    noisy or misaligned pairs, because it prefers them; compare with uniform at the share that it keeps.
Defaults   texts b 0.5, rate 0.5, L2 0.1; pictures b 0.3, rate 0.01, L2 0.001: the authors' code; 8 rounds: ours.
Deviates   one assistant serves all processes; after each round it learns from the losses in random order, 128 at a
           time; it starts at 0, but the code draws small numbers; Lbar is one running mean, corrected for its start,
           and includes a batch before that batch is labelled, but the text code keeps the mean of the last pass; texts
           are also pruned in the first pass, once conf allows it; a token counts once in a gradient, but the code
           repeats it; L2 counts each class once; pixels are shrunk to 32 x 32 in [-1, 1]; rows never seen are
           predicted, not selected first (else nothing could be pruned in the first epoch); whole optimizer steps are
           filled up.
Reference  https://arxiv.org/abs/1905.03381
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from ..core import Clock, History, Policy, Selection
from ._acceptance import accepted
from ._assistant import chance_of, inputs, joined, learn, outputs, width

_BATCH = 128  # losses that the assistant learns from at a time


class _Form(NamedTuple):
    base: float
    rate: float
    l2: float
    decay: float  # of the running mean, for each batch
    parts: int  # steps in a batch
    warms_up: bool
    chunk: int  # rows whose features are laid out at a time


_TEXTS = _Form(base=0.5, rate=0.5, l2=0.1, decay=0.99, parts=4, warms_up=True, chunk=128 * _BATCH)
_PICTURES = _Form(base=0.3, rate=0.01, l2=1e-3, decay=0.75, parts=1, warms_up=False, chunk=8 * _BATCH)


def _form(history: History) -> _Form:
    return _TEXTS if history.features.texts else _PICTURES


@dataclass(frozen=True)
class AutoAssist(Policy):
    """Train mostly on rows that a small assistant predicts to be harder than the mean.

    Args:
        base: b, chance of the easiest row, in (0, 1]; None = 0.5 for texts, 0.3 for pictures.
        rounds: Times an epoch that the assistant learns and rows are chosen, at least 1.

    Examples:
        >>> history = History.empty(1000)
        >>> clock = Clock(round=0, epoch=0, epochs=3, share=0.0)  # of pictures: 0.3 + 0.7 / 2 before anything is learnt
        >>> 600 < len(AutoAssist().select(history, clock, np.random.default_rng(0)).rows) < 700
        True
    """

    needs: ClassVar[frozenset[str]] = frozenset({"loss", "features"})
    in_background: ClassVar[bool] = True

    base: float | None = None
    rounds: int = 8

    def __post_init__(self):
        if self.base is not None:
            self.check_range("base", "(0, 1]")
        self.check_range("rounds", "[1, inf)")

    @property
    def rounds_per_epoch(self) -> int:
        return self.rounds

    def chance(self, history: History, rows: np.ndarray) -> np.ndarray:
        """Compute the chance of rows to be accepted.

        Args:
            history: Gives the features, and what the assistant has learned.
            rows: (M,) int64.

        Returns:
            (M,) float64 in (0, 1].
        """
        form, notes = _form(history), history.notes
        base = form.base if self.base is None else self.base
        if form.warms_up:
            base = max(base, 1 - float(notes["feedback"][2]) if "feedback" in notes else 1.0)
        hard = np.full(len(rows), 0.5)
        if base < 1 and "assistant" in notes:
            for begin in range(0, len(rows), form.chunk):
                part = slice(begin, begin + form.chunk)
                hard[part] = chance_of(outputs(inputs(history.features, rows[part]), notes["assistant"]))
        return base + (1 - base) * hard

    def select(self, history: History, clock: Clock, rng: np.random.Generator) -> Selection:
        rows = np.arange(len(history)) if history.offered is None else history.offered
        return Selection(rows[accepted(self.chance(history, rows), clock.step_rows, rng)])

    def update(self, history: History, clock: Clock, rng: np.random.Generator) -> None:
        form, features, notes = _form(history), history.features, history.notes
        rows = rng.permutation(np.flatnonzero(history.last_round == clock.round))  # a data set may be sorted by class
        if not len(rows):
            return
        parameters = np.array(notes["assistant"]) if "assistant" in notes else np.zeros(width(features), np.float32)
        total, count, confidence = notes["feedback"].tolist() if "feedback" in notes else (0.0, 0.0, 0.0)
        for begin in range(0, len(rows), form.chunk):
            chunk = rows[begin : begin + form.chunk]
            x, losses = joined(inputs(features, chunk)), history.loss[chunk]
            for first in range(0, len(chunk), _BATCH):
                loss, read = losses[first : first + _BATCH], x[first : first + _BATCH]
                total = form.decay * total + (1 - form.decay) * float(loss.sum(dtype=np.float64))
                count = form.decay * count + (1 - form.decay) * len(loss)
                label = loss > np.float32(total / count)
                right = learn(parameters, read, label, min(-(-len(loss) // 4), form.parts), form.rate, form.l2)
                confidence = 0.95 * confidence + 0.05 * right
        notes["assistant"] = parameters
        notes["feedback"] = np.array([total, count, confidence])
