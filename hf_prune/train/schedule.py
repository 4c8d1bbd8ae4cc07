"""One clock for learning rates and step counts. It counts passes over the data set, whatever share a pass trains."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

_FORESEEN = 1000  # rounds that a forecast looks at one by one


@dataclass(frozen=True)
class UnprunedSchedule:
    """The unpruned run over all rows. The pruned run follows its learning-rate schedule.

    Attributes:
        updates: Optimizer steps of an epoch over all rows.
        steps: Optimizer steps of the whole run; the learning-rate schedule is made for these.
        epochs: Passes over the data set, may be fractional.
        by_steps: Whether `max_steps` was given. It is then the budget in real steps, and decides the number of epochs.
    """

    updates: int
    steps: int
    epochs: float
    by_steps: bool

    def plan(self, at: "Place", first_step: int, updates: int, done: float = 0.0) -> "RoundPlan":
        """Plan a round that begins at `first_step`.

        Args:
            at: The round.
            first_step: Real steps done when the round begins.
            updates: Real steps of a pass over the rows to train.
            done: Share of the selection that was trained before `first_step`, in other batches.
        """
        if self.by_steps:
            steps = min(updates, self.steps - first_step)
            return RoundPlan(at, first_step, updates, steps, first_step, first_step + steps)
        whole = self.begin(at.next())
        begin = whole - (1 - done) * (whole - self.begin(at)) if done else self.begin(at)
        start, end = min(begin, self.steps), min(whole, self.steps)
        share = (end - start) / (whole - begin)  # below 1 only in the last, fractional epoch
        steps = math.ceil(updates * share - 1e-9)  # 1e-9: floating point may put a whole number slightly too high
        return RoundPlan(at, first_step, updates, steps, start, end)

    def begin(self, at: "Place") -> int:
        """Return the steps of the unpruned schedule before a round. Epochs are cut into rounds at whole steps."""
        return at.epoch * self.updates + round(at.part * self.updates / at.parts)

    def share(self, at: "Place", step: int) -> float:
        """Return the share of training that is done when a round begins, in [0, 1).

        Args:
            at: The round.
            step: Real steps done.
        """
        if self.by_steps:
            return step / self.steps
        return at.round / at.parts / self.epochs if self.epochs else 0.0

    def total_steps(self, plan: "RoundPlan", updates: Callable[["Place", int], int]) -> tuple[int, int]:
        """Forecast the optimizer steps and epochs of the run from the plan of one round and a forecast of later rounds.

        Args:
            plan: The plan of the round in progress.
            updates: (round, first step) -> forecast of the steps over the rows that will be kept. It is called for the
                next thousand rounds; later rounds are assumed to be like the last of those.

        Returns:
            The number of optimizer steps and of epochs begun.
        """
        for _ in range(_FORESEEN):
            if self.is_last(plan):
                return plan.first_step + plan.steps, plan.at.epoch + 1
            at, step = plan.at.next(), plan.first_step + plan.steps
            plan = self.plan(at, step, updates(at, step))
        done, left = plan.first_step + plan.steps, self.steps - plan.end
        if self.by_steps:
            return self.steps, plan.at.epoch + 1 + math.ceil(left / max(plan.steps * plan.at.parts, 1))
        return done + math.ceil(left * plan.steps / (plan.end - plan.start) - 1e-9), math.ceil(self.epochs)

    def is_last(self, plan: "RoundPlan") -> bool:
        """Whether the run ends with this round."""
        return plan.end >= self.steps


class Place(NamedTuple):
    """The place of a round in the run: part `part` of the `parts` rounds of an epoch. Numbers count from 0."""

    epoch: int
    part: int = 0
    parts: int = 1

    @property
    def round(self) -> int:
        """Number of the round, from 0."""
        return self.epoch * self.parts + self.part

    def next(self) -> "Place":
        """Return the place of the next round."""
        return Place(*divmod(self.round + 1, self.parts), self.parts)


@dataclass(frozen=True)
class RoundPlan:
    """The plan of a round, in real optimizer steps and in steps of the unpruned schedule.

    Attributes:
        at: The round.
        first_step: Real steps done when the round begins.
        updates: Real steps of a whole pass over the round's rows.
        steps: Real steps that the round takes; fewer than `updates` if the run ends earlier.
        start: Steps of the unpruned schedule done when the round begins.
        end: Steps of the unpruned schedule done when the round ends.
    """

    at: Place
    first_step: int
    updates: int
    steps: int
    start: float
    end: int

    def position(self, step: int) -> float:
        """Convert the real step `step` to steps of the unpruned schedule. If all rows are trained, they are equal."""
        done = min(step - self.first_step, self.steps)  # may be negative: schedulers do not count steps that fp16 skips
        position = max(0, self.start + done * (self.end - self.start) / max(self.steps, 1))
        return int(position) if position == int(position) else position  # int: a user's lambda may index a list with it


def follow_clock(scheduler: LambdaLR, position: Callable[[int], float], scale: Callable[[], float]) -> None:
    """Make a scheduler's factors follow another clock in place of its own count of steps.

    Args:
        scheduler: The scheduler; its factors are replaced.
        position: The scheduler's count of steps -> the step that is passed to the factors.
        scale: Returns the number that the factors are multiplied by.
    """

    def clocked(factor):
        # A plain function, because LambdaLR writes the attributes of any other callable into checkpoints.
        return lambda step: scale() * factor(position(step))

    scheduler.lr_lambdas = [clocked(factor) for factor in scheduler.lr_lambdas]


def set_rate(scheduler: LambdaLR) -> None:
    """Recompute the learning rates for the scheduler's current step, after its clock or scale has changed."""
    groups = scheduler.optimizer.param_groups
    for group, base, factor in zip(groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True):
        rate = base * factor(scheduler.last_epoch)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    scheduler._last_lr = [group["lr"] for group in groups]
