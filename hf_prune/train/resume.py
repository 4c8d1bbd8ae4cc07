"""Resuming from a checkpoint: what may have changed since, and how an unfinished round is cut into other batches.

The rows of a round are chosen before the round is cut into batches. So a run may resume with other batches, for example
on another number of processes: the remaining rows of the round are trained once, in the new batches. If a run can't
resume, it is refused here, before any training, and the message names a cure.
"""

import os
from collections.abc import Callable

import numpy as np

from .checkpoint import PruningState, Setup
from .rounds import Round
from .sampler import PruningSampler
from .schedule import UnprunedSchedule


class Resumption:
    """Compares a checkpoint with the run that resumes from it.

    Args:
        folder: The checkpoint.
        rows: Rows of the present training set.
        setup: The settings of the resuming run.

    Attributes:
        state: The pruning state of the checkpoint.
        measured: Measurements of the checkpoint's round in progress; None between rounds.
        signals: Names of the measured signals and extras.
        is_same_policy: Whether the resuming run has the policy of the checkpoint.

    Raises:
        ValueError: The state is damaged, or belongs to other data.
    """

    def __init__(self, folder: str | os.PathLike, rows: int, setup: Setup):
        self.folder = folder
        self.state, self.measured = PruningState.load(folder, rows)
        self.signals = ("loss", *sorted(self.state.history.signals), *self.state.more.get("extras", ()))
        saved = self.state.setup
        if saved.data != setup.data:
            raise ValueError(
                f"resume_from_checkpoint={str(folder)!r} was saved while training on another data set: its rows differ "
                "from those of train_dataset. Resume with the data set it was made with, in the same order."
            )
        self.is_same_policy = saved.policy == setup.policy
        # checkpoints without the name of an order are older: rows were then grouped as by Trainer's own sampler
        before = "grouped as stock does" if setup.order == "grouped" else setup.order
        then = {"batch": saved.batch, "accumulation": saved.accumulation, "order": saved.order or before}
        now = {name: getattr(setup, name) for name in then}
        self._has_other_order = then["order"] != now["order"]
        self._changed = [f"{name} {then[name]} -> {now[name]}" for name in then if then[name] != now[name]]

    def check(self, schedule: UnprunedSchedule, sampler: PruningSampler) -> None:
        """Refuse a round in progress that can't resume.

        If an epoch has several rounds, each is offered a slice of the epoch's order. Another order would put other rows
        into the slices, so some rows would be trained twice and some never. The same may happen with a user's own
        sampler if its order depends on the batch size.

        Args:
            schedule: The present run over all rows.
            sampler: Knows whether the order comes from a user's own sampler.

        Raises:
            ValueError: The batches or the order have changed, and the round can't be cut into the new batches.
        """
        if self.state.round is None or not self._changed:
            return
        parts = self.state.round.plan.at.parts
        if parts > schedule.updates or (parts > 1 and (sampler.is_own or self._has_other_order)):
            raise ValueError(
                f"resume_from_checkpoint: {self._reason}, and its round can't be cut into other batches (its rows were "
                "in several rounds of another order or of a sampler of your own, or too few). Resume with its own."
            )

    @property
    def _reason(self) -> str:
        return f"{self.folder} was saved with other batches ({', '.join(self._changed)})"

    def take_over(self, own: PruningState, warn: Callable[[str], None]) -> PruningState:
        """Return the saved state, with the policy and the settings of the resuming run.

        Args:
            own: The new state of the resuming run.
            warn: Called with each difference from the saved state.
        """
        state = self.state
        if not self.is_same_policy:
            warn(
                f"{self.folder} was saved under {state.setup.policy}; from the next epoch on, {own.setup.policy} "
                "chooses, by the losses of then and with no other memory of its own."
            )
            state.history = own.history.transfer_from(state.history)
        if state.seed != own.seed:
            warn(
                f"{self.folder} was saved with data_seed {state.seed}, which its order and its selections go on with; "
                f"{own.seed} (data_seed, or seed where that is None) is left aside."
            )
        state.setup = own.setup
        # checkpoints do not hold these two: the resuming run has read them from the data set
        state.history.features, state.history.keys = own.history.features, own.history.keys
        return state

    def fit(
        self,
        current: Round,
        step: int,
        schedule: UnprunedSchedule,
        sampler: PruningSampler,
        warn: Callable[[str], None],
    ) -> None:
        """Plan the rest of the round in progress, in the present batches.

        Args:
            current: The round; its plan is replaced.
            step: Optimizer steps done.
            schedule: The present run over all rows.
            sampler: Counts the optimizer steps that rows make now.
            warn: Called if the batches have changed.
        """
        plan = current.plan
        if self.measured is None or not self._changed or current.is_over(step):
            # same batches, but the user may have changed the length of the run
            current.plan = schedule.plan(plan.at, plan.first_step, plan.updates, current.share_before)
            return
        current.steps_before = current.steps(step)
        # a row counts as trained once it was measured, whatever its place in the old batches
        current.rest = np.setdiff1d(current.selection.rows, self.measured.rows)
        updates = sampler.steps_for(current.rest)
        current.plan = schedule.plan(plan.at, step, updates, current.share_before)
        warn(f"{self._reason}; the {len(current.rest):,} rows left of its epoch are trained once, in batches of these.")


def first_epoch(folder: str | os.PathLike, epoch: float, ignores_rest: bool) -> int:
    """Return the epoch, from 0, in which a policy begins if the checkpoint has no pruning state.

    The policy can't know which rows of an epoch were already trained, so it begins between two epochs. The number of
    steps does not help: a pruned run that was saved with save_only_model has fewer than the unpruned epochs have.

    Args:
        folder: The checkpoint.
        epoch: Epochs done when the checkpoint was saved.
        ignores_rest: Whether an epoch that was not finished begins again (`ignore_data_skip`).

    Raises:
        ValueError: The checkpoint was saved in the middle of an epoch, and that epoch is not to begin again.
    """
    if epoch != int(epoch) and not ignores_rest:
        raise ValueError(
            f"resume_from_checkpoint={str(folder)!r}: it holds no pruning state (it was saved without a policy or "
            "with save_only_model) and lies inside an epoch, whose rows a policy can't choose any more. Resume from "
            "the end of an epoch, or give ignore_data_skip=True, with which the epoch begins anew, or train on "
            "without a policy."
        )
    return int(epoch)
