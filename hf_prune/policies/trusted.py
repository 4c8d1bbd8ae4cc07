"""Trusted: keep the rows that training on trusted rows makes likelier (Wang et al., WMT 2018).

With l_i the mean loss of row i per target token under a model (base) and under the same model tuned on a few trusted
rows, and t the share of training done

    score_i = l_i(base) - l_i(tuned)
    keep(t) = max(floor, 0.5^(t / half_life))          the rows of largest score are kept

A wrong pair is as unlikely under both models, and a copied sentence as likely: both have a score near 0 and are pruned
first. So the rule tells both from right pairs, which a loss alone does not.

Needs      both losses, from `hf-prune score --model TUNED --base BASE --output_dir scores -- SCRIPT ARGS`; `history=
           "scores"` gives them to this run. 4 bytes per row: note `score`. The report counts both scorings, but not
           the training of the two models.
Good for   noisy pairs: misaligned, copied, of another language; a few hundred rows that are known to be right.
Not for    clean data; a tuned model that has forgotten its task, or trusted rows of another domain: then the rows of
           that domain are kept, right or wrong.
Defaults   floor = 0.5, half_life = 0.2: ours. No comparison has measured them yet.
Deviates   the paper scores by a model of its own and anew while that model is tuned, and chooses among each batch; here
           rows are scored once and chosen by round. Whole optimizer steps. Rows without a score are kept first.
Reference  https://arxiv.org/abs/1809.00068 (score, and training on ever fewer rows), https://arxiv.org/abs/1906.01130
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..core import Clock, History, Policy, Selection
from ..core.ranking import TIES
from .uniform import Uniform


@dataclass(frozen=True)
class Trusted(Policy):
    """Keep the rows whose loss falls most when a model is tuned on trusted rows, a share that halves again and again.

    Args:
        floor: Share of the data below which the kept share does not fall, in (0, 1].
        half_life: Share of training in which the kept share halves, in [0, inf); 0 = `floor` from the start.
        unit: What the kept share is a share of: "rows", or "tokens" (a pruned short sentence saves little).

    Examples:
        >>> history, earlier = History.empty(4), History.empty(4, ("base_loss",))
        >>> tuned, base = np.float32([[1.0, 6.0, 0.1, 2.0], [2.5, 6.1, 0.1, 3.0]])
        >>> earlier.record(np.arange(4), tuned, 0, base_loss=base)  # row 1 is misaligned, row 2 copied
        >>> policy = Trusted(floor=0.5, half_life=0.2)
        >>> policy.begin(history, earlier)
        >>> policy.select(history, Clock(4, 4, 10, 0.4), np.random.default_rng(0)).rows.tolist()
        [0, 3]
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    floor: float = 0.5
    half_life: float = 0.2
    unit: Literal["rows", "tokens"] = "rows"

    def __post_init__(self):
        self.check_range("floor", "(0, 1]")
        self.check_range("half_life", "[0, inf)")
        if self.unit not in ("rows", "tokens"):
            raise ValueError(f"Trusted(unit=...) must be 'rows' or 'tokens', got {self.unit!r}.")

    def begin(self, history: History, earlier: History | None) -> None:
        base = None if earlier is None else earlier.signals.get("base_loss")
        if earlier is None or base is None or not np.isfinite(base - earlier.loss).any():
            raise ValueError(
                f"{self!r} compares the losses of two models on these rows, and there are none: tune a model on "
                "trusted rows, make the losses with `hf-prune score --model TUNED --base BASE --output_dir scores -- "
                "SCRIPT ARGS` and give history='scores'."
            )
        history.notes["score"] = base - earlier.loss

    def select(self, history: History, clock: Clock, rng: np.random.Generator) -> Selection:
        score = history.notes.get("score", np.full(len(history), np.nan, np.float32))
        return Selection(self._budget(clock.share).best(score, history, clock, np.random.default_rng(TIES)))

    def forecast(self, history: History, clock: Clock) -> int:
        return self._budget(clock.share).forecast(history, clock)

    def _budget(self, share: float) -> Uniform:
        """Return a policy with the budget of a round that begins after a share of training."""
        falling = 0.5 ** (share / self.half_life) if self.half_life else 0.0
        return Uniform(keep=max(self.floor, falling), unit=self.unit)
