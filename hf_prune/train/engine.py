"""The engine of a pruned run. It opens and closes rounds and keeps the clock, the measurements and the accounts.

The engine knows neither a trainer nor a model. The training loop calls it in this order, round after round:

1. `first_place` returns the round that an epoch begins with. `open_round` lets the policy select its rows.
2. `plan` passes the rows to the sampler. `weights` returns the factors on their losses.
3. For each batch, call `begin_batch`; the measurements of the batch go into `recorder`.
4. `close_round` writes the measurements into the History, lets the policy learn, and returns a summary of the round.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial

import numpy as np
import torch

from ..common.privacy import public
from ..core import Clock, Policy
from ..core.ranking import marked
from ..measure.recorder import Measurements, Recorder
from ..measure.weighting import SCALES
from ..records.history import History
from ..report.account import NOTHING
from . import accounting
from .background import Learner
from .checkpoint import PruningState, Setup
from .idle import IdleWatch
from .ranks import Ranks
from .recording import Measuring, record
from .resume import Resumption
from .rounds import RoundResult
from .sampler import PruningSampler
from .schedule import Place, UnprunedSchedule
from .selecting import Selector, generator_of

_Taken = tuple[tuple[np.ndarray, np.ndarray, np.ndarray], dict[str, np.ndarray]]


class Engine:
    """Runs the rounds between the first and the last step of a run.

    Args:
        policy: Chooses the rows.
        schedule: The unpruned run over all rows, which sets the learning rates.
        history: What is known about the rows when the run begins.
        sampler: Receives the rows of each round, and counts the optimizer steps that they make.
        measuring: Names the signals that are measured for each row.
        setup: The settings of the run, see `Setup`.
        ranks: The processes that train together; None = there is only one.

    Attributes:
        state: Everything that a checkpoint must hold.
        recorder: Takes the measurements of the round in progress.
        learner: Lets the policy learn from the previous round.
        idle: Detects a policy that prunes nothing.
        name: Name of the run, written into its History; a resumed run keeps its name. None = it has no name.
        widths: Padded lengths, in positions, of batches of this process; no more are added once there are two.
    """

    def __init__(
        self,
        policy: Policy,
        schedule: UnprunedSchedule,
        history: History,
        sampler: PruningSampler,
        measuring: Measuring,
        setup: Setup,
        ranks: Ranks | None = None,
    ):
        self.policy = policy
        self.schedule = schedule
        self.state = PruningState(history, sampler.seed, setup)
        self._names = (*measuring.signals, *measuring.extras)
        self.recorder = Recorder(len(self._names))
        self.learner = Learner(policy)
        self.idle = IdleWatch(policy)
        self.name: str | None = None
        self.widths: set[float] = set()
        self._sampler = sampler
        self._measuring = measuring
        self._ranks = Ranks() if ranks is None else ranks
        self._selector = Selector(policy, schedule, sampler, setup, self._ranks)
        self._mark: float | None = None  # start of the training time that is being measured; None = training is paused
        self._step: int | None = None  # optimizer steps done when the latest batch began
        self._counted: tuple[int, int] = 0, 0  # row visits and positions of all processes in this round

    # ---- The clock ----

    def forecast(self) -> tuple[int, int]:
        """Forecast the optimizer steps and the epochs of the whole run from what is known now."""
        start, current = time.perf_counter(), self.state.round
        forecast = partial(self._selector.forecast, self.state.history)
        if current is not None:
            answer = self.schedule.total_steps(current.plan, forecast)
            current.seconds_selecting += time.perf_counter() - start
            return answer
        at, step = Place(self.state.next_epoch, 0, self._selector.parts), sum(e["steps"] for e in self.state.epochs)
        return self.schedule.total_steps(self.schedule.plan(at, step, forecast(at, step)), forecast)

    def position(self, step: int) -> float:
        """Convert the real optimizer step `step` to steps of the unpruned schedule, which sets the learning rates."""
        current = self.state.round
        return step if current is None or self.schedule.by_steps else current.plan.position(step)

    def lr_scale(self) -> float:
        """Factor on the learning rate of the round in progress."""
        return self.state.round.selection.lr_scale if self.state.round else 1.0

    # ---- Where the run stands ----

    def goes_on(self, step: int) -> bool:
        """Whether a restored round still has rows to train after `step` optimizer steps."""
        return self.state.round is not None and not self.state.round.is_over(step)

    def stands_at(self, step: int) -> tuple[int, int]:
        """Return where training resumes after `step` optimizer steps: the epoch, and the steps done in its round."""
        current = self.state.round
        if current is None:
            return self.state.next_epoch, 0
        at = current.plan.at
        if not current.is_over(step):
            return at.epoch, step - current.plan.first_step
        return at.epoch + (current.stopped or at.part + 1 == at.parts), 0  # True counts as 1: the next epoch

    def first_place(self, epoch: int, step: int) -> Place:
        """Return the round of an epoch where training starts or resumes.

        Args:
            epoch: Number of the epoch, from 0.
            step: Optimizer steps done.
        """
        current = self.state.round
        if current is None or current.plan.at.epoch != epoch:
            return Place(epoch, 0, self._selector.parts)
        at = current.plan.at
        return at.next() if current.is_over(step) else at

    @property
    def next_round(self) -> int:
        """Number of the round in progress; between rounds, the number of the next one."""
        return self.state.round.clock.round if self.state.round else self.state.next_epoch * self._selector.parts

    # ---- Rounds ----

    def open_round(self, at: Place, step: int) -> None:
        """Select the rows of a round.

        Args:
            at: The round.
            step: Optimizer steps done.

        Raises:
            Exception: The error of an earlier `policy.update`. Checkpoints record it, and a resumed run calls `update`
                again for that round.
            ValueError: The policy's selection is invalid, differs between processes, or fills no batch.
            TypeError: The policy did not return a Selection.
        """
        # an error of the previous round is raised only here, after that round has been counted and saved
        self.learner.check()
        start = time.perf_counter()
        history = self.state.history
        current = self._selector.select(self.state, at, step)
        self.idle.see(current.selection, len(history if history.offered is None else history.offered))
        current.seconds_selecting = time.perf_counter() - start
        self.state.round = current

    def plan(self) -> None:
        """Pass the rows of the round in progress to the sampler."""
        current = self.state.current
        self._sampler.plan(current.clock.epoch, current.rows, current.clock.round)

    def weights(self, device: torch.device | str = "cpu") -> torch.Tensor | None:
        """Return the (N,) float32 factor on each row's loss in the round in progress; None = all are 1."""
        selection = self.state.current.selection
        if selection.weights is None:
            return None
        table = torch.ones(len(self.state.history))
        table[torch.from_numpy(selection.rows)] = torch.from_numpy(selection.weights.astype(np.float32))
        return table.to(device)

    def begin_batch(self, step: int) -> None:
        """Note that a batch will be trained next, after `step` optimizer steps."""
        self.learner.start()
        if step != self._step:
            self._step = step
            self.recorder.begin_step()

    def check_begun(self) -> None:
        """Check, after a step, that `begin_batch` was called for its batch.

        Raises:
            ValueError: It was not called.
        """
        if self._step is None:
            raise ValueError(
                f"policy={self.policy!r} can't know what is trained: the trainer's training_step and compute_loss "
                "never call those of hf_prune, which measure it. Call super() in one of the two."
            )

    def close_round(
        self, step: int, rescore: Callable[[np.ndarray, Recorder], None] | None = None
    ) -> RoundResult | None:
        """Write the round's measurements into the History, and its cost into the accounts.

        Args:
            step: Optimizer steps done.
            rescore: Measures rows, (H,) int64, by forward passes alone; None = training ends with this round.

        Returns:
            The measurements and the cost of the round; None if no round is in progress.

        Raises:
            ValueError: A row was trained that was not selected.
        """
        current, history, n = self.state.round, self.state.history, len(self.state.history)
        if current is None:
            return None
        self.learner.wait()  # its thread reads the History, and the History changes from here on
        start = time.perf_counter()
        measured = self.recorder.collect(self._ranks.join)
        marks = marked(measured.rows, n)
        if (marks > marked(current.selection.rows, n)).any():  # of two bools: trained, but not selected
            raise ValueError(
                "Rows were trained that the policy had not selected: get_train_dataloader gives other batches than "
                "those of Trainer's own sampler (does it join several loaders?). Train without a policy."
            )
        repeated = len(measured.rows) - int(np.count_nonzero(marks))
        taken = [self._take_in(measured, marks)]
        rescored, seconds_rescoring = None, 0.0
        if rescore is not None and current.selection.rescore is not None and len(current.selection.rescore):
            begun = time.perf_counter()
            recorder = Recorder(len(self._names))
            rescore(current.selection.rescore, recorder)
            rescored = recorder.collect(self._ranks.join)
            taken.append(self._take_in(rescored, marked(rescored.rows, n)))
            seconds_rescoring = time.perf_counter() - begun
        self.learner.teach(history, current.clock, generator_of(self.state.seed, current.clock.round, 1))
        tokens = history.tokens if history.offered is None else history.tokens[history.offered]
        account = accounting.account_of(current, step, self.schedule, tokens, measured, repeated, rescored)
        account["seconds_rescoring"] = seconds_rescoring
        account["seconds_selecting"] += time.perf_counter() - start - seconds_rescoring
        self.state.add(current.clock.epoch, account)
        self._describe_history()
        if len(self.widths) < 2:
            self.widths |= self.recorder.widths
        self.recorder = Recorder(len(self._names))
        self._counted = 0, 0
        self.state.round = None
        lr_scale, seconds = current.selection.lr_scale, current.seconds_training
        losses, extras = [one for one, _ in taken], [one for _, one in taken]
        return RoundResult(current.clock, lr_scale, seconds, n, losses, account, extras)

    def _take_in(self, measured: Measurements, marks: np.ndarray) -> _Taken:
        """Record measurements in the History; return an entry of `RoundResult.losses` and one of its `extras`."""
        signals, extras, round = len(self._measuring.signals), self._measuring.extras, self.state.current.clock.round
        rows, tokens, values = measured.by_row(marks, len(extras))
        losses = record(self.state.history, round, self._measuring, rows, tokens, values[:signals])
        return (marks, rows, losses), dict(zip(extras, values[signals:], strict=True))

    # ---- Seconds and counts ----

    def start_timing(self) -> None:
        """Start to count time as training."""
        self._mark = time.perf_counter()

    def stop_timing(self) -> None:
        """Stop counting time as training: training ends or pauses."""
        if self._mark is not None:
            self.state.current.seconds_training += time.perf_counter() - self._mark
            self._mark = None

    @property
    def is_timing(self) -> bool:
        """Whether time is now counted as training."""
        return self._mark is not None

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Within the block, time is not counted as training."""
        was_timing = self.is_timing
        self.stop_timing()
        try:
            yield
        finally:
            if was_timing:
                self.start_timing()

    @contextmanager
    def overhead(self) -> Iterator[None]:
        """Count the time of the block, which handles a round that has ended, as selecting."""
        start = time.perf_counter()
        yield
        self.state.epochs[-1]["seconds_selecting"] += time.perf_counter() - start

    def count(self) -> None:
        """Sum what all processes have trained in this round, for `counts`. Every process must call this."""
        rows, positions = self._ranks.sum(self.recorder.counts())
        self._counted = rows, positions

    def counts(self) -> dict[str, float]:
        """Return what the run had trained at the last `count`, and the seconds of this process, for the logs."""
        current = self.state.round
        return {} if current is None else accounting.counts(self.state.epochs, current, *self._counted)

    def progress(self) -> dict[str, float]:
        """Return the values that the log shows beside the loss: share kept; losses and padding since the last log."""
        history = self.state.history
        offered = len(history if history.offered is None else history.offered)
        return accounting.progress(self.recorder.drain(), len(self.state.current.selection.rows) / offered)

    # ---- Files ----

    def save_history(self, path: str | os.PathLike[str]) -> None:
        """Write the History for other runs, with the settings that it was made with and its cost."""
        self.learner.wait()
        self.state.history.save(path)

    def _describe_history(self) -> None:
        """Write into the History the settings that it was made with, and its cost so far."""
        setup = self.state.setup
        facts = {"data": setup.data, "key": setup.key, "policy": public(setup.policy)}
        if self.name is not None:
            facts["run"] = self.name
        self.state.history.facts = {**facts, "cost": accounting.cost_of(self.state.epochs)}

    def save(self, folder: str | os.PathLike, step: int, is_writer: bool = True, stopped: bool = False) -> None:
        """Write the state into a checkpoint.

        Args:
            folder: The checkpoint.
            step: Optimizer steps done.
            is_writer: Whether this process writes the file. Every process must call this method.
            stopped: Whether a callback ends the epoch here.
        """
        if self.state.round is not None:
            self.state.round.stopped = stopped
        self.learner.wait()  # its thread writes the notes that are saved
        # A signal may cause a save in the middle of a step. The resumed run trains that step again from its first
        # batch, so we leave out the batches of the step that are already measured.
        measured = self.recorder.collect(self._ranks.join, in_step=step == self._step)
        if is_writer:
            more = {name: getattr(self._measuring, name) for name in ("by_batch", "scale", "extras")}
            if self.learner.failure is not None:
                more["untaught"] = asdict(self.learner.failure[1])
            if self.name is not None:
                more["run"] = self.name
            self.state.more = more
            self.state.save(folder, measured, step)

    def restore(self, folder: str | os.PathLike, step: int, warn: Callable[[str], None]) -> None:
        """Resume from a checkpoint.

        Args:
            folder: The checkpoint.
            step: Optimizer steps done.
            warn: Called with each change since the checkpoint that does not prevent the resume.

        Raises:
            ValueError: The state is damaged, belongs to other data, or is in the middle of a round that can't be cut
                into other batches.
        """
        resumed = Resumption(folder, len(self.state.history), self.state.setup)
        resumed.check(self.schedule, self._sampler)  # first: a refused checkpoint must not change this run or its trace
        if resumed.is_same_policy:
            # earlier batches decided how losses are read and weighted; the resumed run must not decide otherwise
            self._measuring.by_batch |= resumed.state.more.get("by_batch", False)
            if (scale := resumed.state.more.get("scale")) in SCALES:
                self._measuring.scale = scale
        self.state = state = resumed.take_over(self.state, warn)
        self._sampler.seed = state.seed
        if self.name is not None:
            self.name = state.more.get("run", self.name)
        if resumed.is_same_policy and "untaught" in state.more:
            clock = Clock(**state.more["untaught"])
            self.learner.teach(state.history, clock, generator_of(state.seed, clock.round, 1))
        left_out = sum(epoch["rows_offered"] - epoch["rows"] for epoch in state.epochs)
        if left_out > NOTHING * sum(epoch["rows_offered"] for epoch in state.epochs):
            self.idle.close()  # the policy pruned rows before the checkpoint, so it is not idle
        self._describe_history()
        if (current := state.round) is None or resumed.measured is None:
            return
        # A checkpoint does not hold the offered rows: they follow from the seed, which the sampler has by now.
        self._selector.offer(state.history, current.plan.at, current.span)
        resumed.fit(current, step, self.schedule, self._sampler, warn)
        self.idle.see(current.selection, current.span[1] - current.span[0])
        # The checkpoint has the measurements of all processes. `close_round` gathers again, so only one restores them.
        if self._ranks.is_main:
            self.recorder.restore(resumed.measured.of_signals(resumed.signals, self._names))
