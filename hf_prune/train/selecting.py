"""Asks the policy which rows a round trains, and how many rows later rounds will train."""

import math
from numbers import Real

import numpy as np

from ..core import Clock, History, Policy, Selection, rounds_of
from .checkpoint import PruningState, Setup
from .ranks import Ranks
from .rounds import Round
from .sampler import PruningSampler
from .schedule import Place, UnprunedSchedule


class Selector:
    """Offers rows to the policy, and checks its selections.

    Args:
        policy: Chooses the rows.
        schedule: The run over all rows.
        sampler: Knows the order of each epoch, and counts the optimizer steps that rows make.
        setup: The settings of the run.
        ranks: The processes; all must get the same selection.

    Attributes:
        parts: Rounds in an epoch.
    """

    def __init__(self, policy: Policy, schedule: UnprunedSchedule, sampler: PruningSampler, setup: Setup, ranks: Ranks):
        # if an epoch has fewer steps than the policy wants rounds, each step is a round
        self.parts = max(1, min(rounds_of(policy), schedule.updates))
        self._policy = policy
        self._schedule = schedule
        self._sampler = sampler
        self._setup = setup
        self._ranks = ranks
        self._stop: int | None = None  # end of the slice that was offered last

    def forecast(self, history: History, at: Place, step: int) -> int:
        """Forecast the optimizer steps of a later round.

        Args:
            history: What is known now.
            at: The round.
            step: Optimizer steps done when the round begins.

        Raises:
            ValueError: The policy's forecast is not a number above 0, or too few rows to fill a batch.
        """
        return self._steps_over(math.ceil(self._forecast_rows(history, at, step) / at.parts))

    def _forecast_rows(self, history: History, at: Place, step: int) -> int:
        kept, n = self._policy.forecast(history, self._clock(at, step)), len(history)
        if isinstance(kept, bool) or not isinstance(kept, Real) or not kept > 0:
            raise ValueError(
                f"{type(self._policy).__name__}.forecast must return a number of rows above 0, with more than {n} for "
                f"all, got {kept!r}."
            )
        return math.ceil(min(kept, n))

    def select(self, state: PruningState, at: Place, step: int) -> Round:
        """Select the rows of the round that begins, and plan the round.

        Args:
            state: The state of the run; the offered rows are written into its History.
            at: The round.
            step: Optimizer steps done.

        Raises:
            ValueError: The policy's selection is invalid, differs between processes, or fills no batch.
            TypeError: The policy did not return a Selection.
        """
        history, clock, span = state.history, self._clock(at, step), self._span_of(at, len(state.history))
        self.offer(history, at, span)
        if history.offered is not None and at.parts != self.parts:
            # another policy cut this epoch into rounds; this one may not support that, so train all offered rows
            selection = Selection(history.offered)
        else:
            selection = self._policy.select(history, clock, generator_of(state.seed, at.round))
        if not isinstance(selection, Selection):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"{type(self._policy).__name__}.select must return a Selection, got a {type(selection).__name__}: "
                "give Selection(rows), with the numbers of the rows to train."
            )
        selection = selection.check(len(history), history.offered)
        if not self._ranks.is_alone:
            self._ranks.check_equal(self._policy, selection, self._forecast_rows(history, at, step), at.round)
        if selection.weights is not None and not self._policy.weighs:
            raise ValueError(f"{type(self._policy).__name__} gave weights, but does not declare `weighs = True`.")
        return Round(clock, self._schedule.plan(at, step, self._steps_over(selection.rows)), selection, span)

    def offer(self, history: History, at: Place, span: tuple[int, int]) -> None:
        """Write the rows that a round may choose among into the History.

        Args:
            history: The History of all rows.
            at: The round.
            span: The slice [start, stop) of the epoch's permutation that is offered.
        """
        self._stop = span[1]
        history.offered = None if at.parts == 1 else self._sampler.part(at.epoch, *span)

    def _span_of(self, at: Place, n: int) -> tuple[int, int]:
        """Return the slice of the epoch's permutation for a round.

        Slices are cut at whole optimizer steps of the unpruned schedule. So a run that keeps everything trains the same
        batches as Trainer.
        """
        if at.parts == 1:
            return 0, n
        before = at.epoch * self._schedule.updates
        steps = (self._schedule.begin(place) - before for place in (at, at.next()))
        begin, end = (step * self._setup.step_rows for step in steps)
        if at.part > 0 and self._stop is not None:
            begin = self._stop  # if step_rows changed at a resume, the computed begin differs from the last slice's end
        return begin, max(end, begin + 1)

    def _clock(self, at: Place, step: int) -> Clock:
        schedule = self._schedule
        return Clock(at.round, at.epoch, schedule.epochs, schedule.share(at, step), self._setup.step_rows, at.parts)

    def _steps_over(self, rows: np.ndarray | int) -> int:
        if (updates := self._sampler.steps_for(rows)) == 0:
            count = rows if isinstance(rows, int) else len(rows)
            raise ValueError(
                f"policy={self._policy!r} keeps {count} rows, which fill no batch of {self._setup.batch}. "
                "Keep more, take smaller batches, or train without dataloader_drop_last."
            )
        return updates


def generator_of(seed: int, *key: int) -> np.random.Generator:
    """Return the random generator for one purpose: key (round,) for a selection, (round, 1) for an update."""
    return np.random.default_rng([seed % 2**64, *key])
