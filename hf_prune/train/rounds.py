"""A round: what is trained between two selections, where it stands, and what is left of it when it ends.

Size: `Round` is what a checkpoint keeps of a round in progress; most of its fields begin empty.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import Clock, Selection
from .schedule import RoundPlan, UnprunedSchedule


@dataclass
class Round:
    """A round in progress.

    Attributes:
        clock: When it began.
        plan: Its optimizer steps.
        selection: What is trained.
        span: The slice [start, stop) of the epoch's permutation that it was offered.
        rest: (R,) int64, sorted: the rows left to train when it was cut into the present batches; None = all.
        steps_before: Optimizer steps that it had taken by then.
        seconds_selecting: Spent in its selection, and in bringing its measurements together.
        seconds_training: Spent in its steps so far.
        stopped: A callback has ended its epoch before the last step.
    """

    clock: Clock
    plan: RoundPlan
    selection: Selection
    span: tuple[int, int]
    rest: np.ndarray | None = None
    steps_before: int = 0
    seconds_selecting: float = 0.0
    seconds_training: float = 0.0
    stopped: bool = False

    def is_over(self, step: int) -> bool:
        """Whether nothing is left of it when `step` optimizer steps are done."""
        return self.stopped or step >= self.plan.first_step + self.plan.steps

    @property
    def rows(self) -> np.ndarray:
        """(R,) int64, the rows that its plan is over."""
        return self.selection.rows if self.rest is None else self.rest

    @property
    def share_before(self) -> float:
        """Share of its selection that was trained before its plan began, in other batches."""
        return 1 - len(self.rows) / len(self.selection.rows)

    def share(self, step: int) -> float:
        """Share of its selection trained when `step` optimizer steps are done."""
        taken = (step - self.plan.first_step) / max(self.plan.updates, 1)
        return self.share_before + (1 - self.share_before) * taken

    def steps(self, step: int) -> int:
        """Optimizer steps that it has taken when `step` of the run are done."""
        return self.steps_before + step - self.plan.first_step

    def steps_full(self, step: int, schedule: UnprunedSchedule) -> float:
        """Steps of the unpruned schedule that these stand for.

        Args:
            step: Optimizer steps of the run that are done.
            schedule: The unpruned one.
        """
        return self.steps(step) if schedule.by_steps else self.plan.position(step) - schedule.begin(self.plan.at)


@dataclass(frozen=True)
class RoundResult:
    """What a round that has ended has measured and cost.

    Attributes:
        clock: When it began.
        lr_scale: Factor on its learning rate.
        seconds: Spent in its steps.
        rows: N, rows of the training set.
        losses: For the rows that were trained and, where there are any, for those that were rescored: (N,) bool, which
            rows; the same as (K,) int64, in any order; their losses (K,) float32 in nats, NaN = not read, infinite = a
            fault.
        account: What it cost, see `accounting.account_of`.
    """

    clock: Clock
    lr_scale: float
    seconds: float
    rows: int
    losses: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
    account: dict[str, Any]
