"""Going on from a checkpoint: what may have changed since, and how a round that was begun is cut into other batches.

The rows of a round are chosen before it is cut into batches, so a run may go on with other ones, as on another number
of processes: the rows that the round has left are trained once, in the new batches. What can't go on is refused here,
with what to do instead, before anything is trained.
"""

import os
from collections.abc import Callable

import numpy as np

from .checkpoint import PruningState, Setup
from .rounds import Round
from .sampler import PruningSampler
from .schedule import UnprunedSchedule


class Resumption:
    """What a checkpoint holds, beside what the run that goes on from it is made with.

    Args:
        folder: The checkpoint.
        rows: Rows of the training set at hand.
        setup: What the run that goes on is made with.

    Attributes:
        state: That of the checkpoint.
        measured: What its round in progress had measured; None between rounds.
        signals: Names of what was measured.
        is_same_policy: Whether the run goes on under the policy that it was saved with.

    Raises:
        ValueError: The state is damaged, or of other data.
    """

    def __init__(self, folder: str | os.PathLike, rows: int, setup: Setup):
        self.folder = folder
        self.state, self.measured = PruningState.load(folder, rows)
        self.signals = ("loss", *sorted(self.state.history.signals))
        saved = self.state.setup
        if saved.data != setup.data:
            raise ValueError(
                f"resume_from_checkpoint={str(folder)!r} was saved while training on another data set: its rows differ "
                "from those of train_dataset. Resume with the data set it was made with, in the same order."
            )
        self.is_same_policy = saved.policy == setup.policy
        # before checkpoints named their order, rows were grouped as by the stock sampler
        before = "grouped as stock does" if setup.order == "grouped" else setup.order
        then = {"batch": saved.batch, "accumulation": saved.accumulation, "order": saved.order or before}
        now = {name: getattr(setup, name) for name in then}
        self._has_other_order = then["order"] != now["order"]
        self._changed = [f"{name} {then[name]} -> {now[name]}" for name in then if then[name] != now[name]]

    def check(self, schedule: UnprunedSchedule, sampler: PruningSampler) -> None:
        """Refuse a round in progress that can't go on.

        Where an epoch has several rounds, each was offered a slice of its order: another order would give it other
        rows, some a second time and some never, and so may a sampler of one's own that goes by the batch size.

        Args:
            schedule: The run over all rows, as it is now.
            sampler: Knows whether its order is one of its own.

        Raises:
            ValueError: It has changed batches or another order, and is bound to its own.
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
        """The state to go on with: what was saved, under the policy and in the setup of now.

        Args:
            own: That of the run that goes on, which has just begun.
            warn: Is told what is not as it was.
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
        state.history.features, state.history.keys = own.history.features, own.history.keys  # in no checkpoint
        return state

    def fit(
        self,
        current: Round,
        step: int,
        schedule: UnprunedSchedule,
        sampler: PruningSampler,
        warn: Callable[[str], None],
    ) -> None:
        """Plan what is left of the round in progress, in the batches of now.

        Args:
            current: The round, whose plan is made anew.
            step: Optimizer steps done.
            schedule: The run over all rows, as it is now.
            sampler: Tells how many steps rows make now.
            warn: Is told where the batches are others.
        """
        plan = current.plan
        if self.measured is None or not self._changed or current.is_over(step):
            # the run may have become longer or shorter since
            current.plan = schedule.plan(plan.at, plan.first_step, plan.updates, current.share_before)
            return
        current.steps_before = current.steps(step)
        current.rest = np.setdiff1d(current.selection.rows, self.measured.rows)
        updates = sampler.steps_for(current.rest)
        current.plan = schedule.plan(plan.at, step, updates, current.share_before)
        warn(f"{self._reason}; the {len(current.rest):,} rows left of its epoch are trained once, in batches of these.")


def check_at_epochs_end(folder: str | os.PathLike, steps: int) -> None:
    """Let a policy begin on a checkpoint without a state only where no rows were trained that it can't know of.

    Args:
        folder: The checkpoint.
        steps: Batches of its epoch that were trained.

    Raises:
        ValueError: The checkpoint is of the middle of an epoch.
    """
    if steps:
        raise ValueError(
            f"resume_from_checkpoint={str(folder)!r}: it holds no pruning state (it was saved without a policy or "
            "with save_only_model) and lies inside an epoch, whose rows a policy can't choose any more. Resume from "
            "the end of an epoch, or give ignore_data_skip=True, with which the epoch begins anew, or train on "
            "without a policy."
        )
