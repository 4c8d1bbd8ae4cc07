"""The base class of the bandits: a moving average of each row's loss, and a selection that holds for several rounds."""

import abc
from dataclasses import dataclass

import numpy as np

from ..core import BudgetPolicy, Clock, History, Selection
from ..core.ranking import marked


@dataclass(frozen=True)
class Bandit(BudgetPolicy):
    """Trains the rows with the highest scores. They are chosen anew after each period, and after each round at first.

    "At first" means until each row has been tried once.
    """

    period: int = 10
    decay: float = 0.8
    patience: int = 5

    def __post_init__(self):
        super().__post_init__()
        self.check_range("period", "[1, inf)")
        self.check_range("decay", "(0, 1]")
        self.check_range("patience", "[0, inf)")

    @abc.abstractmethod
    def score(self, history: History) -> np.ndarray:
        """Compute the score of each row from the notes of `update`: (N,) float, NaN = never seen."""

    def choose(self, score: np.ndarray, history: History, clock: Clock, rng: np.random.Generator) -> np.ndarray:
        """Choose the rows of the next period.

        Args:
            score: (N,) float; NaN comes first, infinity next.
            history: Gives the token counts.
            clock: Gives the round's part of training, and the rows in an optimizer step.
            rng: Breaks ties.

        Returns:
            (K,) int64.
        """
        return self.best(score, history, clock, rng)

    def update_variance(self, history: History, rows: np.ndarray, surprise: np.ndarray) -> None:
        """Update the variance of the rows' losses, before their averages are updated.

        Args:
            history: The History; the notes are written there.
            rows: (M,) int64, rows that were measured in this round and before it.
            surprise: (M,) float64, their latest losses minus their averages.
        """

    def select(self, history: History, clock: Clock, rng: np.random.Generator) -> Selection:
        chosen = history.notes.get("chosen")
        if chosen is not None:
            return Selection(np.flatnonzero(chosen))
        score = history.notes.get("ranked", history.loss)
        return Selection(np.sort(self.choose(score, history, clock, rng)))

    def update(self, history: History, clock: Clock, rng: np.random.Generator) -> None:
        notes, loss = history.notes, history.loss
        mean: np.ndarray = np.array(notes.get("mean", np.full(len(history), np.nan, np.float32)))
        first = np.isnan(mean) & ~np.isnan(loss)
        again = np.flatnonzero((history.last_round == clock.round) & ~np.isnan(mean))
        surprise = np.subtract(loss[again], mean[again], dtype=np.float64)
        self.update_variance(history, again, surprise)
        mean[again] += self.decay * surprise
        mean[first] = loss[first]
        notes["mean"] = mean
        if first.any() or (clock.round + 1) % self.period < 1:
            score = self.score(history)
            if self.patience:
                passed_over = clock.round - history.last_round >= self.patience * self.period
                score = np.where(passed_over & ~np.isnan(score), np.inf, score)
            if isinstance(self.keep, str):  # each round of the period has a budget of its own
                notes["ranked"] = score.astype(np.float32)
            else:
                notes["chosen"] = marked(self.choose(score, history, clock, rng), len(history))
