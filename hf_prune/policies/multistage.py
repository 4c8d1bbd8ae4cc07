"""Multistage: skip rows whose words predict a low loss, a reconstruction for rows (Ouyang et al., IJCAI 2023).

    first round     train all rows; tau = their mean loss, frozen
    next rounds     train all rows; naive Bayes learns P(l > tau | words) from the words present and absent, Laplace 1
    once its log-loss over the rows of a round, before it learns from them, is at most c
                    train the rows with P(l > tau | words) >= 1/2, and each other row with chance epsilon

Needs      loss, and features: words. No extra pass; the learner counts on the CPU, during training.
Good for   one epoch of classification where the words show which rows are hard.
Not for    pictures, generation and translation (unproven), noisy labels, many epochs: tau keeps its first value, so in
           the end little more than the share epsilon is trained.
Defaults   Laplace 1: the authors' code, which leaves c and the length of the first stage to the user; c = 0.6 (a random
           guess has ln 2 = 0.69), epsilon = 0.1, 16 rounds: ours.
Deviates   the code works batch by batch: it runs a forward pass on every row of the second stage and trains those above
           tau, trains the third stage one row at a time in evaluation mode and only if l > tau, computes the log-loss
           on the batch just learned from, and exits if it stays above c. Here all rows of a round are trained until c
           is reached, which may be never, and random rows keep the learner up to date. Words that no learned row had
           are ignored. Rows never seen are predicted, not selected first; whole optimizer steps are filled at random.
Reference  https://arxiv.org/abs/2207.14386
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..core import Clock, History, Policy, Selection
from ..core.features import rows_with, sums_of_distinct
from ._acceptance import accepted


@dataclass(frozen=True)
class Multistage(Policy):
    """Skip rows whose words predict a low loss, once these predictions are good enough.

    Args:
        log_loss: c, highest log-loss in nats at which the learner's predictions are trusted, in (0, inf).
        epsilon: Chance that a row predicted to be easy is still trained, in [0, 1].
        rounds: Times an epoch that the learner learns and rows are chosen, at least 1.

    Examples:
        >>> clock = Clock(round=0, epoch=0, epochs=1, share=0.0)
        >>> Multistage().select(History.empty(3), clock, np.random.default_rng(0)).rows.tolist()
        [0, 1, 2]
    """

    needs: ClassVar[frozenset[str]] = frozenset({"loss", "features"})
    in_background: ClassVar[bool] = True

    log_loss: float = 0.6
    epsilon: float = 0.1
    rounds: int = 16

    def __post_init__(self):
        self.check_range("log_loss", "(0, inf)")
        self.check_range("epsilon", "[0, 1]")
        self.check_range("rounds", "[1, inf)")

    @property
    def rounds_per_epoch(self) -> int:
        return self.rounds

    def begin(self, history: History, earlier: History | None) -> None:
        super().begin(history, earlier)
        if not history.features.texts:
            raise ValueError("Multistage() reads words, but the rows have none. Choose a policy that does without.")

    def log_odds(self, history: History, rows: np.ndarray) -> np.ndarray:
        """Compute the log-odds of rows, ln P(hard | words) / P(easy | words).

        Args:
            history: Gives the words, and their counts in easy and in hard rows. There must be rows of both kinds.
            rows: (M,) int64.

        Returns:
            (M,) float64 nats.
        """
        learnt, texts = history.notes["learnt"], history.features.texts
        odds = np.full(len(rows), np.log(learnt[1] / learnt[0]))
        for number, text in enumerate(texts):
            counts = history.notes[f"words/{number}"]
            share = (counts + 1) / (learnt[:, None] + 2)  # theta: share of easy and of hard rows with each word
            absent = np.where(counts.any(axis=0), np.diff(np.log1p(-share), axis=0)[0], 0.0)
            present = np.where(counts.any(axis=0), np.diff(np.log(share), axis=0)[0], 0.0)
            odds += absent.sum() + sums_of_distinct(text, present - absent, rows)
        return odds

    def select(self, history: History, clock: Clock, rng: np.random.Generator) -> Selection:
        rows = np.arange(len(history)) if history.offered is None else history.offered
        if "log_loss" not in history.notes or history.notes["log_loss"][0] > self.log_loss:
            return Selection(rows)
        chance = np.where(self.log_odds(history, rows) >= 0, 1.0, self.epsilon)
        return Selection(rows[accepted(chance, clock.step_rows, rng)])

    def update(self, history: History, clock: Clock, rng: np.random.Generator) -> None:
        rows, notes = np.flatnonzero(history.last_round == clock.round), history.notes
        if not len(rows):
            return
        loss = history.loss[rows]
        if "tau" not in notes:
            notes["tau"] = np.array([loss.mean(dtype=np.float64)])
            return
        hard = loss > np.float32(notes["tau"][0])
        learnt = notes["learnt"] if "learnt" in notes else np.zeros(2, np.int64)
        if learnt.all():
            odds = self.log_odds(history, rows)
            surprise = np.array([np.logaddexp(0, np.where(hard, -odds, odds)).mean()])
            notes["log_loss"] = np.minimum(surprise, notes.get("log_loss", surprise))
        notes["learnt"] = learnt + [np.count_nonzero(~hard), np.count_nonzero(hard)]
        for number, text in enumerate(history.features.texts):
            counts = np.stack([rows_with(text, rows[~hard]), rows_with(text, rows[hard])])
            notes[f"words/{number}"] = counts + notes.get(f"words/{number}", 0)
