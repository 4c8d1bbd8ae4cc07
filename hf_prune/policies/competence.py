"""Competence: train on easy rows first, harder ones as training goes on (Platanios et al., NAACL 2019).

With F_i = |{j : d_j <= d_i}| / N the rank share of row i's difficulty d_i, and t = min(1, share of training / T)

    c(t) = min(1, sqrt(t (1 - c0^2) + c0^2))
    train on the rows with F_i <= c(t)

d_i is the row's length in tokens, or its rarity, - sum over its tokens of ln p(token), p the data set's unigram shares.

Needs      token counts, or the words for rarity: no model, no extra pass, 4 bytes per row.
Good for   short budgets, sentences of many lengths: early rounds train short rows, which cost few tokens.
Not for    pruning rows that are learned; rows of one length (if all are equal, none is eligible before c = 1); a
           warm-up by epochs, which is too steep because the first epochs have few rows: give `max_steps`.
Defaults   c0 = 0.01, square root: the paper; T = 0.5 of training: ours (the paper takes the time in which a plain run
           nears its final BLEU); 8 rounds an epoch: ours.
Deviates   c grows from round to round, but in the paper with every step; a round trains each eligible row of its part
           of the epoch once, but the paper draws batches from all eligible rows; a round trains at least one optimizer
           step, of the easiest rows; length counts source and target, but the paper counts the source (as rarity
           does); rows never seen do not come first, because losses are not used.
Reference  https://arxiv.org/abs/1903.09848
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..core import Clock, History, Policy, Selection
from ..core.features import Features, sums
from ..core.ranking import top


@dataclass(frozen=True)
class Competence(Policy):
    """Train on easy rows first, harder ones as training goes on.

    Args:
        difficulty: What makes a row hard: "length" in tokens, or "rarity" of its words.
        start: c0, share of the rows that training begins with, in (0, 1].
        until: T, share of training after which all rows are eligible, in (0, 1].
        rounds: Times an epoch that c grows, at least 1.

    Examples:
        >>> history = History.empty(4)
        >>> history.tokens[:] = [3, 5, 9, 2]
        >>> clock = Clock(round=1, epoch=1, epochs=8, share=0.125)  # t = 0.25, c = 0.5
        >>> Competence().select(history, clock, np.random.default_rng(0)).rows.tolist()
        [0, 3]
    """

    difficulty: Literal["length", "rarity"] = "length"
    start: float = 0.01
    until: float = 0.5
    rounds: int = 8

    def __post_init__(self):
        if self.difficulty not in ("length", "rarity"):
            raise ValueError(f"Competence(difficulty=...) must be 'length' or 'rarity', got {self.difficulty!r}.")
        self.check_range("start", "(0, 1]")
        self.check_range("until", "(0, 1]")
        self.check_range("rounds", "[1, inf)")

    @property
    def needs(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return frozenset({"tokens" if self.difficulty == "length" else "features"})

    @property
    def rounds_per_epoch(self) -> int:
        return self.rounds

    def begin(self, history: History, earlier: History | None) -> None:
        super().begin(history, earlier)
        if self.difficulty == "rarity" and not history.features.texts:
            raise ValueError("Competence(difficulty='rarity') reads words, but the rows have none.")
        # kept from the start: `history.tokens` may change later, when batches show that long rows are truncated
        history.notes["rank"] = self.ranks(history)

    def ranks(self, history: History) -> np.ndarray:
        """Compute N * F: for each row, the number of rows that are not harder, (N,) int32."""
        hard = history.tokens if self.difficulty == "length" else rarity(history.features)
        return np.searchsorted(np.sort(hard), hard, side="right").astype(np.int32)

    def competence(self, share: float) -> float:
        """Compute c, the rank share up to which rows are eligible.

        Args:
            share: Share of training done, in [0, 1].
        """
        done = min(1.0, share / self.until)
        return min(1.0, math.sqrt(done * (1 - self.start**2) + self.start**2))

    def select(self, history: History, clock: Clock, rng: np.random.Generator) -> Selection:
        rank = history.notes["rank"] if "rank" in history.notes else self.ranks(history)
        rows = np.arange(len(history)) if history.offered is None else history.offered
        rank = rank[rows]
        eligible = rank <= self._rows(history, clock)
        if np.count_nonzero(eligible) >= clock.step_rows:
            return Selection(rows[eligible])
        return Selection(rows[top(-rank, clock.step_rows, rng)])

    def forecast(self, history: History, clock: Clock) -> int:
        return min(len(history), max(self._rows(history, clock), clock.step_rows * clock.rounds))

    def _rows(self, history: History, clock: Clock) -> int:
        return math.floor(self.competence(clock.share) * len(history) + 1e-9)


def rarity(features: Features) -> np.ndarray:
    """Compute minus the log-probability of each row's words under the data set's unigram shares: (N,) float64 nats."""
    counts = features.token_counts[0]
    return sums(features.texts[0], np.log(max(1.0, counts.sum()) / np.maximum(1, counts)))
