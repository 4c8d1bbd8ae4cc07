"""The base classes of all rules: `Policy`, and `BudgetPolicy`, where the user sets the share of data to train on."""

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from .budget import FORMS, Budget, read_budget
from .history import History
from .ranking import ranked, top
from .selection import Clock, Selection, plain, whole_steps

DATA_NEEDS = frozenset(
    {"tokens", "features", "classes", "columns", "groups"}
)  # needs that are read from the data set before training


@dataclass(frozen=True)
class Policy(abc.ABC):
    """Chooses the rows of each round. Fields are hyper-parameters only; everything that changes is in the History.

    Attributes:
        needs: What the rule reads. Signals are measured in training: "loss", "correct", "confidence", "el2n",
            "grad_norm". Other needs are read from the data set before training: "tokens" (`history.tokens`), "features"
            (the texts, or else the pixels, of `history.features`), "classes" (`history.features.classes`), "columns"
            (what `reads_columns` and `reads_file` name), "groups" (`history.features.groups`, near-duplicates; the
            fields `similarity`, `ngram` and `columns` are arguments of `data.duplicates.find_groups`). Nothing else is
            made. A model or a data set that can't give a need is refused. A class whose needs depend on its fields
            defines a property.
        weighs: Whether its selections carry weights. A loss that can't be weighted row by row is refused.
        in_background: Whether `update` runs in a thread during the next round. Then `select` sees its notes one round
            later.
        instead: Field values with which the rule needs another signal, for tasks that lack the usual one.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"loss"})
    weighs: ClassVar[bool] = False
    in_background: ClassVar[bool] = False
    instead: ClassVar[Mapping[str, Any]] = {}

    @property
    def rounds_per_epoch(self) -> int:
        """Number of rounds in an epoch. Each round offers its part of the epoch's order."""
        return 1

    @property
    def reads_columns(self) -> tuple[str, ...]:
        """Columns of the data set that the rule reads, in `history.features.columns`."""
        return ()

    @property
    def reads_file(self) -> str | None:
        """File of row numbers or keys; `history.features.listed` says which rows it lists."""
        return None

    def begin(self, history: History, earlier: History | None) -> None:
        """Prepare for the first round.

        Args:
            history: A History of rows never seen, with what the rule needs from the data set; may be written to.
            earlier: The History of an earlier run on the same rows, for a warm start; None = cold start.

        Raises:
            ValueError: The rule can't begin with these.
        """
        if earlier is not None:
            history.inherit(earlier)

    @abc.abstractmethod
    def select(self, history: History, clock: Clock, rng: np.random.Generator) -> Selection:
        """Choose the rows to train in the round that begins. Pure: the same arguments give the same result.

        Args:
            history: What earlier rounds have measured; must not be changed.
            clock: The progress of training.
            rng: The only random generator to use, seeded by (seed, round).
        """

    def update(self, history: History, clock: Clock, rng: np.random.Generator) -> None:
        """Learn from the round that has ended, by writing to `history.notes`.

        An error ends training before the next round is selected. After the last round, an error is only a warning.

        Args:
            history: What this round and earlier ones have measured.
            clock: The clock when the round began.
            rng: The only random generator to use, seeded by (seed, round).
        """

    def forecast(self, history: History, clock: Clock) -> int:
        """Forecast how many rows of the whole data set `select` will keep; all rows if there is no way to know.

        Args:
            history: What earlier rounds have measured.
            clock: The progress of training.
        """
        del clock
        return len(history)

    def check_range(self, field: str, interval: str) -> None:
        """Refuse a field outside an interval, or a fraction in an int field. Call it in `__post_init__`.

        Args:
            field: Name of the field.
            interval: An interval such as "(0, 1]" or "[1, inf)".

        Raises:
            ValueError: The value is refused. The message names the field, the interval and the value.
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
        """Refuse a field that is neither True nor False. Call it in `__post_init__`.

        Raises:
            ValueError: The value is refused. The message names the field and the value.
        """
        value = self._plain_field(field)
        if not isinstance(value, bool):
            raise ValueError(f"{type(self).__name__}({field}=...) must be True or False, got {value!r}.")

    def _plain_field(self, field: str) -> Any:
        """Convert a field from a numpy type to a plain Python value, so that `repr` is always the same. Return it."""
        object.__setattr__(self, field, plain(getattr(self, field)))
        return getattr(self, field)


@dataclass(frozen=True)
class BudgetPolicy(Policy):
    """A policy with a budget: the user sets the share of the data that each round trains on.

    Args:
        keep: Share of the data to train on in each round, in (0, 1]. A ramp "0.3->1.0" goes from one share to another
            through all of training. A cycle "0.5~0.3x4" trains 0.5 - 0.3 and then 0.5 + 0.3 of the data, four times
            (mean, amplitude, number of cycles). A round gets the mean over its part of training.
        unit: What `keep` is a share of: "rows", or "tokens" (a pruned short sentence saves little).
    """

    keep: float | str = 0.7
    unit: Literal["rows", "tokens"] = "rows"

    def __post_init__(self):
        if read_budget(self._plain_field("keep")) is None:
            if not isinstance(self.keep, str):
                self.check_range("keep", "(0, 1]")
            raise ValueError(f"{type(self).__name__}(keep=...) must be in (0, 1], got {self.keep!r}; {FORMS}.")
        if self.unit not in ("rows", "tokens"):
            raise ValueError(f"{type(self).__name__}(unit=...) must be 'rows' or 'tokens', got {self.unit!r}.")

    @property
    def budget(self) -> Budget:
        """`keep` as a function of the share of training done."""
        budget = read_budget(self.keep)
        assert budget is not None  # __post_init__ refuses any other
        return budget

    def share_of(self, clock: Clock) -> float:
        """Return the share of the data to train on in a round."""
        return self.budget.over(clock.share, clock.share_after)

    def within_budget(self, order: np.ndarray, history: History, clock: Clock) -> np.ndarray:
        """Return the shortest prefix of `order` that reaches the budget, rounded up to whole optimizer steps.

        Args:
            order: (N,) int64, all rows; those to keep come first.
            history: Gives the token counts.
            clock: Gives the round's part of training, and the rows in an optimizer step.

        Returns:
            (K,) int64.
        """
        share = self.share_of(clock)
        if share == 1:
            return order
        if self.unit == "rows":
            k = _rows_in(share, len(order))
        else:
            reached = np.cumsum(history.tokens[order], dtype=np.int64)
            k = int(np.searchsorted(reached, share * float(reached[-1]) - 1e-9)) + 1
        return order[: whole_steps(k, clock.step_rows)]

    def best(self, score: np.ndarray, history: History, clock: Clock, rng: np.random.Generator) -> np.ndarray:
        """Return the rows with the highest scores within the budget.

        Rows never seen (NaN) come first, rows set aside (see `History.set_aside`) last, equal scores in random order.

        Args:
            score: (N,) float.
            history: Gives the token counts.
            clock: Gives the round's part of training, and the rows in an optimizer step.
            rng: Breaks ties, and draws the rows to set aside.

        Returns:
            (K,) int64, sorted.
        """
        aside = history.set_aside(rng)
        if aside.any():
            score = np.where(aside, -np.inf, score)
        if self.unit == "tokens":
            return np.sort(self.within_budget(ranked(score, rng), history, clock))
        return top(score, whole_steps(_rows_in(self.share_of(clock), len(history)), clock.step_rows), rng)

    def forecast(self, history: History, clock: Clock) -> int:
        return min(len(history), whole_steps(_rows_in(self.share_of(clock), len(history)), clock.step_rows))


def _rows_in(share: float, n: int) -> int:
    return math.ceil(share * n - 1e-9)


def rounds_of(policy: Policy) -> int:
    """Return the policy's rounds per epoch as a plain int.

    Raises:
        ValueError: The number is not a whole number of at least 1.
    """
    rounds = plain(policy.rounds_per_epoch)
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        name = type(policy).__name__
        raise ValueError(f"{name}.rounds_per_epoch must be a whole number of at least 1, got {rounds!r}.")
    return rounds
