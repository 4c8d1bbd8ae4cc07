"""One clock for learning rates and step counts: passes over the data set, however many rows a pass trains."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

_FORESEEN = 1000  # rounds


@dataclass(frozen=True)
class UnprunedSchedule:
    """The run over all rows that a pruned run stands for.

    Attributes:
        updates: Optimizer steps of an epoch over all rows.
        steps: Optimizer steps of the whole run; the learning-rate schedule is made for these.
        epochs: Passes over the data set, may be fractional.
        by_steps: `max_steps` was given: it is the budget in real steps, and epochs follow.
    """

    updates: int
    steps: int
    epochs: float
    by_steps: bool

    def plan(self, at: "Place", first_step: int, updates: int, done: float = 0.0) -> "RoundPlan":
        """The plan of a round that begins at `first_step`.

        Args:
            at: Which round.
            first_step: Real steps done when it begins.
            updates: Real steps over its kept rows.
            done: Share of these rows that was trained before `first_step`, in other batches.
        """
        if self.by_steps:
            steps = min(updates, self.steps - first_step)
            return RoundPlan(at, first_step, updates, steps, first_step, first_step + steps)
        whole = self.begin(at.next())
        begin = whole - (1 - done) * (whole - self.begin(at)) if done else self.begin(at)
        start, end = min(begin, self.steps), min(whole, self.steps)
        share = (end - start) / (whole - begin)  # below 1 only in the last, fractional epoch
        steps = math.ceil(updates * share - 1e-9)  # a whole number that floating point has made larger
        return RoundPlan(at, first_step, updates, steps, start, end)

    def begin(self, at: "Place") -> int:
        """Steps of the unpruned schedule before a round: its epoch's parts are cut at whole steps."""
        return at.epoch * self.updates + round(at.part * self.updates / at.parts)

    def share(self, at: "Place", step: int) -> float:
        """Share of training done when a round begins, in [0, 1).

        Args:
            at: Which round.
            step: Real steps done.
        """
        if self.by_steps:
            return step / self.steps
        return at.round / at.parts / self.epochs if self.epochs else 0.0

    def total_steps(self, plan: "RoundPlan", updates: Callable[["Place", int], int]) -> tuple[int, int]:
        """Optimizer steps and epochs of the run, given the plan of one round and a forecast of the later ones.

        Args:
            plan: The round in progress.
            updates: (round, first step) -> steps over the rows that will be kept, as far as can be said; of rounds
                beyond the next thousand, it is not asked: they are taken to be as the last of those.

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
    """A round among the others: part `part` of `parts` of an epoch, all from 0."""

    epoch: int
    part: int = 0
    parts: int = 1

    @property
    def round(self) -> int:
        """Its number, from 0."""
        return self.epoch * self.parts + self.part

    def next(self) -> "Place":
        """The round after it."""
        return Place(*divmod(self.round + 1, self.parts), self.parts)


@dataclass(frozen=True)
class RoundPlan:
    """A round in progress, in real optimizer steps and in steps of the unpruned schedule.

    Attributes:
        at: Which round.
        first_step: Real steps done when it began.
        updates: Real steps of a whole pass over its rows.
        steps: Those of them that will be taken.
        start: Steps of the unpruned schedule done when it began.
        end: And when it will have ended.
    """

    at: Place
    first_step: int
    updates: int
    steps: int
    start: float
    end: int

    def position(self, step: int) -> float:
        """Real step `step` in steps of the unpruned schedule; exactly `step` where all rows are trained."""
        done = min(step - self.first_step, self.steps)  # below zero behind steps that fp16 skipped: they don't count
        position = max(0, self.start + done * (self.end - self.start) / max(self.steps, 1))
        return int(position) if position == int(position) else position  # a user's lambda may index with it


def follow_clock(scheduler: LambdaLR, position: Callable[[int], float], scale: Callable[[], float]) -> None:
    """Make a scheduler's factors read another clock than its own count of steps.

    Args:
        scheduler: Its factors are replaced.
        position: Its count of steps -> what the factors read.
        scale: Gives what they are multiplied by.
    """

    def clocked(factor):
        # A plain function: LambdaLR writes the attributes of any other callable into checkpoints.
        return lambda step: scale() * factor(position(step))

    scheduler.lr_lambdas = [clocked(factor) for factor in scheduler.lr_lambdas]


def set_rate(scheduler: LambdaLR) -> None:
    """Set the learning rates anew for the scheduler's current step, after its clock or scale has changed."""
    groups = scheduler.optimizer.param_groups
    for group, base, factor in zip(groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True):
        rate = base * factor(scheduler.last_epoch)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    scheduler._last_lr = [group["lr"] for group in groups]
