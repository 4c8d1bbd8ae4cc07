"""What a rule is: a `Policy`, and a `BudgetPolicy`, whose user sets the share of the data to train on."""

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from .history import History
from .ranking import ranked, top
from .selection import Clock, Selection, plain, whole_steps

DATA_NEEDS = frozenset({"tokens", "features", "classes"})  # what a policy may need beside signals: read before training


@dataclass(frozen=True)
class Policy(abc.ABC):
    """Chooses the rows of each round. Fields are hyper-parameters, nothing else; what changes lives in the History.

    Attributes:
        needs: What the rule reads. Signals, measured in training: "loss", "correct", "confidence", "el2n", "grad_norm";
            what is read from the data set before: "tokens" (`history.tokens`), "features" (the texts or else the pixels
            of `history.features`), "classes" (`history.features.classes`). Only these are made; a model or a data set
            that can't give one is refused. Where it depends on the fields, a property takes its place.
        weighs: Whether its selections carry weights. A loss that can't be weighted row by row is refused.
        in_background: Whether `update` runs beside the next round, in a thread; then `select` sees what it wrote one
            round later.
        instead: Fields with which the rule needs another signal than without, for tasks that lack that one.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"loss"})
    weighs: ClassVar[bool] = False
    in_background: ClassVar[bool] = False
    instead: ClassVar[Mapping[str, Any]] = {}

    @property
    def rounds_per_epoch(self) -> int:
        """Rounds that an epoch is cut into, each offering its part of the epoch's order."""
        return 1

    def begin(self, history: History, earlier: History | None) -> None:
        """Prepare for the first round.

        Args:
            history: Of rows never seen, with what the rule needs of the data set; may be written to.
            earlier: What an earlier run has learnt of the same rows, which is taken in; None = nothing.

        Raises:
            ValueError: The rule can't begin with what there is.
        """
        if earlier is not None:
            history.inherit(earlier)

    @abc.abstractmethod
    def select(self, history: History, clock: Clock, rng: np.random.Generator) -> Selection:
        """The rows to train in the round that begins. Pure: the same arguments give the same answer.

        Args:
            history: What the rounds before have measured; not to be changed.
            clock: Where training stands.
            rng: The only source of chance, seeded by (seed, round).
        """

    def update(self, history: History, clock: Clock, rng: np.random.Generator) -> None:
        """Learn from the round that has ended, by writing to `history.notes`.

        An error ends training where the next round would be selected; after the last round it becomes a warning.

        Args:
            history: What this round and those before have measured.
            clock: The one that the round began with.
            rng: The only source of chance, seeded by (seed, round).
        """

    def forecast(self, history: History, clock: Clock) -> int:
        """Rows that `select` will keep of the whole data set, as far as can be said beforehand; all where it can't.

        Args:
            history: What the rounds before have measured.
            clock: Where training stands.
        """
        del clock
        return len(history)

    def check_range(self, field: str, interval: str) -> None:
        """Refuse a field outside an interval, and a fraction where the field is an int; for `__post_init__`.

        Args:
            field: Its name.
            interval: Such as "(0, 1]" or "[1, inf)".

        Raises:
            ValueError: Names the field, the interval and the value.
        """
        value = self._plain_field(field)
        low, high = (float(end) for end in interval[1:-1].split(","))
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not (low <= value if interval[0] == "[" else low < value)
            or not (value <= high if interval[-1] == "]" else value < high)
        ):
            raise ValueError(f"{type(self).__name__}({field}=...) must be in {interval}, got {value!r}.")
        if self.__dataclass_fields__[field].type in (int, "int") and not isinstance(value, int):
            raise ValueError(f"{type(self).__name__}({field}=...) must be a whole number, got {value!r}.")

    def check_switch(self, field: str) -> None:
        """Refuse a field that is neither True nor False; for `__post_init__`.

        Raises:
            ValueError: Names the field and the value.
        """
        value = self._plain_field(field)
        if not isinstance(value, bool):
            raise ValueError(f"{type(self).__name__}({field}=...) must be True or False, got {value!r}.")

    def _plain_field(self, field: str) -> Any:
        """The value of a field, which is made a plain one: that reads the same in files and messages."""
        object.__setattr__(self, field, plain(getattr(self, field)))
        return getattr(self, field)


@dataclass(frozen=True)
class BudgetPolicy(Policy):
    """A policy whose user sets the share of the data that each round trains on.

    Args:
        keep: Share of the data to train on in each round, in (0, 1].
        unit: What `keep` is a share of: "rows", or "tokens" (a pruned short sentence saves little).
    """

    keep: float = 0.7
    unit: Literal["rows", "tokens"] = "rows"

    def __post_init__(self):
        self.check_range("keep", "(0, 1]")
        if self.unit not in ("rows", "tokens"):
            raise ValueError(f"{type(self).__name__}(unit=...) must be 'rows' or 'tokens', got {self.unit!r}.")

    def within_budget(self, order: np.ndarray, history: History, clock: Clock) -> np.ndarray:
        """The shortest prefix of `order` that reaches the budget, rounded up to whole optimizer steps.

        Args:
            order: (N,) int64, all rows, the ones to keep first.
            history: Gives the token counts.
            clock: Gives the rows in an optimizer step.

        Returns:
            (K,) int64.
        """
        if self.keep == 1:
            return order
        if self.unit == "rows":
            k = self._rows_in_budget(len(order))
        else:
            reached = np.cumsum(history.tokens[order], dtype=np.int64)
            k = int(np.searchsorted(reached, self.keep * float(reached[-1]) - 1e-9)) + 1
        return order[: whole_steps(k, clock.step_rows)]

    def best(self, score: np.ndarray, history: History, clock: Clock, rng: np.random.Generator) -> np.ndarray:
        """The rows of highest score within the budget: never seen (NaN) first, set aside last, equal scores at random.

        Args:
            score: (N,) float.
            history: Gives the token counts.
            clock: Gives the rows in an optimizer step.
            rng: Splits equal scores, and draws what is set aside.

        Returns:
            (K,) int64, sorted.
        """
        aside = history.set_aside(rng)
        if aside.any():
            score = np.where(aside, -np.inf, score)
        if self.unit == "tokens":
            return np.sort(self.within_budget(ranked(score, rng), history, clock))
        return top(score, whole_steps(self._rows_in_budget(len(history)), clock.step_rows), rng)

    def forecast(self, history: History, clock: Clock) -> int:
        return min(len(history), whole_steps(self._rows_in_budget(len(history)), clock.step_rows))

    def _rows_in_budget(self, n: int) -> int:
        return math.ceil(self.keep * n - 1e-9)


def rounds_of(policy: Policy) -> int:
    """Rounds that the policy cuts an epoch into, as a plain number.

    Raises:
        ValueError: It is no whole number of at least 1.
    """
    rounds = plain(policy.rounds_per_epoch)
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        name = type(policy).__name__
        raise ValueError(f"{name}.rounds_per_epoch must be a whole number of at least 1, got {rounds!r}.")
    return rounds
