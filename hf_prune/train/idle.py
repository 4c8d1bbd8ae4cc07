"""Whether a policy leaves anything out: what keeps it from that, and after how many rounds it is late."""

import math

from ..core import DATA_NEEDS, BudgetPolicy, Policy, Selection, rounds_of, whole_steps
from ..report.account import NOTHING, keeps_all
from .schedule import UnprunedSchedule


def why_idle(policy: Policy, schedule: UnprunedSchedule, rows: int, step_rows: int, has_history: bool) -> str | None:
    """What keeps the policy from leaving anything out, as far as it can be told before training; None if nothing does.

    Args:
        policy: Of the run.
        schedule: The run over all rows.
        rows: N.
        step_rows: Rows in an optimizer step.
        has_history: Whether an earlier run's is given.
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
    if (
        isinstance(policy, BudgetPolicy)
        and rounds == 1
        and whole_steps(math.ceil(policy.keep * rows), step_rows) >= rows
    ):
        return (
            f"{named} leaves nothing out: {policy.keep:g} of {rows} rows, in whole optimizer steps of {step_rows}, is "
            "all of them. Take smaller batches, or a smaller keep."
        )
    return None


def rounds_to_act(policy: Policy) -> int:
    """Rounds after which a policy that has left nothing out is late; some wait for a window of losses, or warm up."""
    window, warmup = (getattr(policy, name, 0) for name in ("window", "warmup"))
    return max(3, int(window) + 4 if window >= 1 else 0) + int(warmup)


class IdleWatch:
    """Finds out, once, that a policy has done nothing for too long; not of one that is set to keep everything.

    Args:
        policy: Of the run.
    """

    def __init__(self, policy: Policy):
        self._enough = rounds_to_act(policy)
        self._is_open = not keeps_all(repr(policy))

    def close(self) -> None:
        """Look no further: the policy has acted, or its user knows."""
        self._is_open = False

    def see(self, selection: Selection, offered: int) -> None:
        """Take in what a round trains: fewer rows, weights and another learning rate are an act.

        Args:
            selection: Of the round.
            offered: Rows that it was chosen from.
        """
        weighs = selection.weights is not None and (selection.weights != 1).any()
        if len(selection.rows) < (1 - NOTHING) * offered or weighs or selection.lr_scale != 1:
            self.close()

    def idle_rounds(self, round: int, ends: bool) -> int:
        """How many rounds have ended in which the policy has done nothing; 0 where it has, or it is too early to tell.

        Args:
            round: Number of the one that has ended.
            ends: Whether training ends with it.
        """
        if not self._is_open or not (ends or round + 1 >= self._enough):
            return 0
        self.close()
        return round + 1
