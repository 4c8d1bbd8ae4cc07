"""OneOfEach: train one row of each group of near-duplicates in an epoch, drawn anew every time; ours.

With G(i) the group of row i, found once before training (rows without a near-duplicate are alone in theirs)

    train `most` rows of each G, drawn at random in every round, or all if there are not more

Two rows are near if their sets of n-grams of tokens have a Jaccard similarity of at least `similarity`; of an
encoder-decoder, both the input's and the target's. Pictures are near if their pixels are, see `find_groups`.

Needs      the groups: tokens or pictures, and the package rensa for texts (`pip install hf_prune[duplicates]`). No
           model. 4 bytes per row in checkpoints: note `duplicate_group`, also a column of history.parquet.
Good for   data in which some rows are there many times: crawled texts, templates, frames of films.
Not for    data without duplicates, where it keeps all rows, or with all rows there equally often, where fewer epochs do
           the same; paraphrases, which share too few n-grams.
Defaults   similarity = 0.8, ngram = 2, most = 1: ours.
Deviates   Lee et al. delete all but one row of a group for good; here each is trained in its turn. Their groups are
           chains; here every row is near its group's first row. Labels do not count: of equal texts with two labels,
           each round draws one.
Reference  K. Lee et al., "Deduplicating Training Data Makes Language Models Better", ACL 2022,
           https://arxiv.org/abs/2107.06499 (near-duplicates by MinHash)
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..core import Clock, History, Policy, Selection

_GROUP = "duplicate_group"  # the note


@dataclass(frozen=True)
class OneOfEach(Policy):
    """Train one row of each group of near-duplicates, drawn anew in every round.

    Args:
        similarity: The least similarity of near rows, in [0.5, 1]; 1 = equal rows alone.
        ngram: Tokens in an n-gram, at least 1: fewer find more rows of short texts.
        most: Rows of a group that a round trains, at least 1.
        columns: Names of columns of texts, joined by "+", which are compared in place of tokens, without regard to case
            and spaces; None = tokens, or else pictures.

    Examples:
        >>> from hf_prune.core.features import Features
        >>> history = History.empty(6)
        >>> history.features = Features(groups=np.array([0, 1, 0, 0, 4, 1]))
        >>> OneOfEach().select(history, Clock(0, 0, 5, 0.0), np.random.default_rng(0)).rows.tolist()
        [2, 4, 5]
    """

    needs: ClassVar[frozenset[str]] = frozenset({"groups"})
    similarity: float = 0.8
    ngram: int = 2
    most: int = 1
    columns: str | None = None

    def __post_init__(self):
        self.check_range("similarity", "[0.5, 1]")
        self.check_range("ngram", "[1, inf)")
        self.check_range("most", "[1, inf)")
        named = self.columns is None or isinstance(self.columns, str) and all(self.columns.split("+"))  # pyright: ignore[reportUnnecessaryIsInstance]
        if not named:
            raise ValueError(f"OneOfEach(columns=...) must be names joined by '+', got {self.columns!r}.")

    def begin(self, history: History, earlier: History | None) -> None:
        super().begin(history, earlier)
        groups = history.features.groups
        if groups is not None:
            history.notes[_GROUP] = groups.astype(np.int32 if len(groups) < 2**31 else np.int64)

    def select(self, history: History, clock: Clock, rng: np.random.Generator) -> Selection:
        groups = self._groups(history)
        sizes = np.bincount(groups)
        crowded = rng.permutation(np.flatnonzero(sizes[groups] > self.most))
        crowded = crowded[np.argsort(groups[crowded], kind="stable")]
        of_row = groups[crowded]
        place = np.arange(len(crowded)) - np.searchsorted(of_row, of_row)  # of each row in its group
        kept = np.ones(len(groups), bool)
        kept[crowded[place >= self.most]] = False
        return Selection(np.flatnonzero(kept))

    def forecast(self, history: History, clock: Clock) -> int:
        return int(np.minimum(np.bincount(self._groups(history)), min(self.most, len(history))).sum())

    def _groups(self, history: History) -> np.ndarray:
        groups = history.notes.get(_GROUP, history.features.groups)
        return np.arange(len(history)) if groups is None else groups
