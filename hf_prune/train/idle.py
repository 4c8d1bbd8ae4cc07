"""Detects a policy that prunes nothing: before training by its settings, during training by what it selects."""

import math

from ..core import DATA_NEEDS, BudgetPolicy, Policy, Selection, rounds_of, whole_steps
from ..report.account import NOTHING, keeps_all
from .schedule import UnprunedSchedule


def why_idle(policy: Policy, schedule: UnprunedSchedule, rows: int, step_rows: int, has_history: bool) -> str | None:
    """Return the reason why the policy can't prune anything in this run, if we can know it before training; else None.

    Args:
        policy: The policy of the run.
        schedule: The run over all rows.
        rows: N, rows of the training set.
        step_rows: Rows in an optimizer step.
        has_history: Whether the run starts from the History of an earlier run.
    """
    if keeps_all(repr(policy)):
        return None
    rounds, named = rounds_of(policy), f"policy={policy!r}"
    late = schedule.epochs <= 1 or schedule.epochs * getattr(policy, "anneal", math.inf) < 2
    if (policy.needs - DATA_NEEDS) and late and not has_history and rounds == 1:
        return (
            f"{named} learns from earlier epochs, and a run of {schedule.epochs:g} leaves none to prune in: "
            "give more epochs, history= of an earlier run, or a rule that learns within an epoch."
        )
    if rounds > 1 and schedule.updates < 2 * rounds:
        return (
            f"{named} cuts an epoch into {rounds} rounds, and a round trains one optimizer step at least: of "
            f"{schedule.updates} steps an epoch, little can be left out. Take fewer rounds, or smaller batches."
        )
    least = policy.budget.lowest if isinstance(policy, BudgetPolicy) else 0.0
    if rounds == 1 and whole_steps(math.ceil(least * rows), step_rows) >= rows:
        return (
            f"{named} leaves nothing out: {least:g} of {rows} rows, in whole optimizer steps of {step_rows}, is "
            "all of them. Take smaller batches, or a smaller keep."
        )
    return None


def rounds_to_act(policy: Policy) -> int:
    """Rounds after which a policy should have pruned rows; some policies wait for a window of losses, or warm up."""
    window, warmup = (getattr(policy, name, 0) for name in ("window", "warmup"))
    return max(3, int(window) + 4 if window >= 1 else 0) + int(warmup)


class IdleWatch:
    """Detects, once, that a policy has pruned nothing for too long. A policy set to keep everything is not watched.

    Args:
        policy: The policy of the run.
    """

    def __init__(self, policy: Policy):
        self._enough = rounds_to_act(policy)
        self._is_open = not keeps_all(repr(policy))

    def close(self) -> None:
        """Stop watching: the policy has acted, or the user has been warned."""
        self._is_open = False

    def see(self, selection: Selection, offered: int) -> None:
        """Note whether the policy acts in a round: by fewer rows, by weights, or by another learning rate.

        Args:
            selection: The selection of the round.
            offered: Number of rows that the policy could choose among.
        """
        weighs = selection.weights is not None and (selection.weights != 1).any()
        if len(selection.rows) < (1 - NOTHING) * offered or weighs or selection.lr_scale != 1:
            self.close()

    def idle_rounds(self, round: int, ends: bool) -> int:
        """Return the number of rounds in which the policy did nothing; 0 = it has acted, or it is too early to judge.

        Args:
            round: Number of the round that has ended.
            ends: Whether training ends with that round.
        """
        if not self._is_open or not (ends or round + 1 >= self._enough):
            return 0
        self.close()
        return round + 1
