"""A round is the training between two selections: its state while in progress, and its result.

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
        clock: The clock when the round began.
        plan: Its optimizer steps.
        selection: The rows to train.
        span: The slice [start, stop) of the epoch's permutation that was offered to the policy.
        rest: (R,) int64, sorted: the rows still to train when the round was cut into new batches at a resume; None =
            all rows, in the first batches.
        steps_before: Optimizer steps that the round had taken before it was cut into new batches.
        seconds_selecting: Seconds for the selection, and for gathering the measurements.
        seconds_training: Seconds in training steps so far.
        stopped: Whether a callback has ended the epoch before its last step.
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
        """Whether the round has no step left when `step` optimizer steps of the run are done."""
        return self.stopped or step >= self.plan.first_step + self.plan.steps

    @property
    def rows(self) -> np.ndarray:
        """(R,) int64, the rows that the plan covers."""
        return self.selection.rows if self.rest is None else self.rest

    @property
    def share_before(self) -> float:
        """Share of the selection that was trained before the plan began, in other batches."""
        return 1 - len(self.rows) / len(self.selection.rows)

    def share(self, step: int) -> float:
        """Return the share of the selection that is trained when `step` optimizer steps of the run are done."""
        taken = (step - self.plan.first_step) / max(self.plan.updates, 1)
        return self.share_before + (1 - self.share_before) * taken

    def steps(self, step: int) -> int:
        """Return the optimizer steps that the round has taken when `step` steps of the run are done."""
        return self.steps_before + step - self.plan.first_step

    def steps_full(self, step: int, schedule: UnprunedSchedule) -> float:
        """Return the steps of the unpruned schedule that the round's steps correspond to.

        Args:
            step: Optimizer steps that the run has done.
            schedule: The unpruned schedule.
        """
        return self.steps(step) if schedule.by_steps else self.plan.position(step) - schedule.begin(self.plan.at)


@dataclass(frozen=True)
class RoundResult:
    """The measurements and the cost of a round that has ended.

    Attributes:
        clock: The clock when the round began.
        lr_scale: Factor on its learning rate.
        seconds: Seconds in its training steps.
        rows: N, rows of the training set.
        losses: One entry for the trained rows and, if rows were rescored, one for those. An entry has (N,) bool, which
            rows; the same rows as (K,) int64, in any order; and their losses, (K,) float32 in nats, NaN = not read,
            infinite = a fault.
        account: Its cost, see `accounting.account_of`.
        extras: For each of `losses`, name -> (K,) float32 for the same rows, see `measure.prediction.EXTRAS`.
    """

    clock: Clock
    lr_scale: float
    seconds: float
    rows: int
    losses: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
    account: dict[str, Any]
    extras: list[dict[str, np.ndarray]]
