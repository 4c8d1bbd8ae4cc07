"""The engine of a pruned run: opens and closes its rounds, and keeps its clock, its measurements and its accounts.

It knows neither a trainer nor a model. Whoever trains calls it in this order, round after round:

1. `first_place` says which round an epoch begins with, and `open_round` lets the policy select its rows.
2. `plan` tells the sampler of them, and `weights` gives the factors on their losses.
3. For each batch `begin_batch`; what is measured of it goes into `recorder`.
4. `close_round` tells the History and then the policy what was measured, and returns what the round was.
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


class Engine:
    """What happens between the first and the last step of a run.

    Args:
        policy: Chooses the rows.
        schedule: The run over all rows that this one stands for.
        history: What is known of the rows when it begins.
        sampler: Is told each round's rows, and tells how many steps rows make.
        measuring: What is measured of each row.
        setup: What the run is made with, see there.
        ranks: The processes that train together; None = there is one.

    Attributes:
        state: All that a checkpoint must hold.
        recorder: Takes the measurements of the round in progress.
        learner: Lets the policy learn from the round before.
        idle: Finds out whether the policy does nothing.
        name: Of the run, which its History bears; a run that is resumed keeps its own. None = it is not written down.
        widths: Positions of a row in each batch that this process has trained; of different ones, some.
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
        self.recorder = Recorder(len(measuring.signals))
        self.learner = Learner(policy)
        self.idle = IdleWatch(policy)
        self.name: str | None = None
        self.widths: set[float] = set()
        self._sampler = sampler
        self._measuring = measuring
        self._ranks = Ranks() if ranks is None else ranks
        self._selector = Selector(policy, schedule, sampler, setup, self._ranks)
        self._mark: float | None = None  # when the training began that is being timed
        self._step: int | None = None  # the latest optimizer step that a batch was of
        self._counted: tuple[int, int] = 0, 0  # visits and positions of all processes in this round

    # ---- The clock ----

    def forecast(self) -> tuple[int, int]:
        """Optimizer steps and epochs of the whole run, as far as can be said now."""
        start, current = time.perf_counter(), self.state.round
        forecast = partial(self._selector.forecast, self.state.history)
        if current is not None:
            answer = self.schedule.total_steps(current.plan, forecast)
            current.seconds_selecting += time.perf_counter() - start
            return answer
        at, step = Place(self.state.next_epoch, 0, self._selector.parts), sum(e["steps"] for e in self.state.epochs)
        return self.schedule.total_steps(self.schedule.plan(at, step, forecast(at, step)), forecast)

    def position(self, step: int) -> float:
        """Real optimizer step `step` in steps of the unpruned schedule, which learning rates are made for."""
        current = self.state.round
        return step if current is None or self.schedule.by_steps else current.plan.position(step)

    def lr_scale(self) -> float:
        """Factor on the learning rate of the round in progress."""
        return self.state.round.selection.lr_scale if self.state.round else 1.0

    # ---- Where the run stands ----

    def goes_on(self, step: int) -> bool:
        """Whether `step` optimizer steps leave something of the round in progress to train: it has been restored."""
        return self.state.round is not None and not self.state.round.is_over(step)

    def stands_at(self, step: int) -> tuple[int, int]:
        """Where training goes on after `step` optimizer steps: the epoch, and the steps that its round has done."""
        current = self.state.round
        if current is None:
            return self.state.next_epoch, 0
        at = current.plan.at
        if not current.is_over(step):
            return at.epoch, step - current.plan.first_step
        return at.epoch + (current.stopped or at.part + 1 == at.parts), 0

    def first_place(self, epoch: int, step: int) -> Place:
        """The round of an epoch that training begins with, or goes on with.

        Args:
            epoch: From 0.
            step: Optimizer steps done.
        """
        current = self.state.round
        if current is None or current.plan.at.epoch != epoch:
            return Place(epoch, 0, self._selector.parts)
        at = current.plan.at
        return at.next() if current.is_over(step) else at

    @property
    def next_round(self) -> int:
        """Number of the round in progress, or else of the next one."""
        return self.state.round.clock.round if self.state.round else self.state.next_epoch * self._selector.parts

    # ---- Rounds ----

    def open_round(self, at: Place, step: int) -> None:
        """Select the rows of a round.

        Args:
            at: Which.
            step: Optimizer steps done.

        Raises:
            Exception: What `policy.update` failed with; checkpoints say so, and the run that is resumed learns again.
            ValueError: The policy's answer is no valid one, not the same in every process, or fills no batch.
            TypeError: It is no Selection.
        """
        self.learner.check()  # of the round before: its failure was kept until what was trained had been counted
        start = time.perf_counter()
        history = self.state.history
        current = self._selector.select(self.state, at, step)
        self.idle.see(current.selection, len(history if history.offered is None else history.offered))
        current.seconds_selecting = time.perf_counter() - start
        self.state.round = current

    def plan(self) -> None:
        """Tell the sampler the rows of the round in progress."""
        current = self.state.current
        self._sampler.plan(current.clock.epoch, current.rows, current.clock.round)

    def weights(self, device: torch.device | str = "cpu") -> torch.Tensor | None:
        """(N,) float32 factor on each row's loss in the round in progress, None where all are 1."""
        selection = self.state.current.selection
        if selection.weights is None:
            return None
        table = torch.ones(len(self.state.history))
        table[torch.from_numpy(selection.rows)] = torch.from_numpy(selection.weights.astype(np.float32))
        return table.to(device)

    def begin_batch(self, step: int) -> None:
        """A batch is about to be trained, after `step` optimizer steps."""
        self.learner.start()
        if step != self._step:
            self._step = step
            self.recorder.begin_step()

    def check_begun(self) -> None:
        """A step has been trained: was its batch seen?

        Raises:
            ValueError: It was not.
        """
        if self._step is None:
            raise ValueError(
                f"policy={self.policy!r} can't know what is trained: the trainer's training_step and compute_loss "
                "never call those of hf_prune, which measure it. Call super() in one of the two."
            )

    def close_round(
        self, step: int, rescore: Callable[[np.ndarray, Recorder], None] | None = None
    ) -> RoundResult | None:
        """Bring the round's measurements into the History, and what it cost into the accounts.

        Args:
            step: Optimizer steps done.
            rescore: Measures rows, (H,) int64, by forward passes alone; None where training ends here.

        Returns:
            What it measured and cost; None where no round is in progress.

        Raises:
            ValueError: Rows were trained that were not selected.
        """
        current, history, n = self.state.round, self.state.history, len(self.state.history)
        if current is None:
            return None
        self.learner.wait()  # its thread reads the History, which changes from here on
        start = time.perf_counter()
        measured = self.recorder.collect(self._ranks.join)
        marks = marked(measured.rows, n)
        if (marks > marked(current.selection.rows, n)).any():
            raise ValueError(
                "Rows were trained that the policy had not selected: get_train_dataloader gives other batches than "
                "those of Trainer's own sampler (does it join several loaders?). Train without a policy."
            )
        repeated = len(measured.rows) - int(np.count_nonzero(marks))
        losses = [self._take_in(measured, marks)]
        rescored, seconds_rescoring = None, 0.0
        if rescore is not None and current.selection.rescore is not None and len(current.selection.rescore):
            begun = time.perf_counter()
            recorder = Recorder(len(self._measuring.signals))
            rescore(current.selection.rescore, recorder)
            rescored = recorder.collect(self._ranks.join)
            losses.append(self._take_in(rescored, marked(rescored.rows, n)))
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
        self.recorder = Recorder(len(self._measuring.signals))
        self._counted = 0, 0
        self.state.round = None
        lr_scale, seconds = current.selection.lr_scale, current.seconds_training
        return RoundResult(current.clock, lr_scale, seconds, n, losses, account)

    def _take_in(self, measured: Measurements, marks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tell the History; the rows, (N,) bool and (K,) int64, and their losses."""
        rows, tokens, values = measured.by_row(marks)
        round = self.state.current.clock.round
        return marks, rows, record(self.state.history, round, self._measuring, rows, tokens, values)

    # ---- Seconds and counts ----

    def start_timing(self) -> None:
        """Training goes on from here."""
        self._mark = time.perf_counter()

    def stop_timing(self) -> None:
        """Training ends, or pauses."""
        if self._mark is not None:
            self.state.current.seconds_training += time.perf_counter() - self._mark
            self._mark = None

    @property
    def is_timing(self) -> bool:
        """Whether what happens now is counted as training."""
        return self._mark is not None

    @contextmanager
    def pause(self) -> Iterator[None]:
        """What the block does is counted elsewhere, not as training."""
        was_timing = self.is_timing
        self.stop_timing()
        try:
            yield
        finally:
            if was_timing:
                self.start_timing()

    @contextmanager
    def overhead(self) -> Iterator[None]:
        """What the block does with a round that has ended is counted with its selection."""
        start = time.perf_counter()
        yield
        self.state.epochs[-1]["seconds_selecting"] += time.perf_counter() - start

    def count(self) -> None:
        """Count what all processes have trained in this round, for `counts`; every process must call it."""
        rows, positions = self._ranks.sum(self.recorder.counts())
        self._counted = rows, positions

    def counts(self) -> dict[str, float]:
        """What the run had trained when it was last counted, and the seconds of this process, for the logs."""
        current = self.state.round
        return {} if current is None else accounting.counts(self.state.epochs, current, *self._counted)

    def progress(self) -> dict[str, float]:
        """What stands beside the loss in the logs: the share kept and, since the last log, losses and padding."""
        history = self.state.history
        offered = len(history if history.offered is None else history.offered)
        return accounting.progress(self.recorder.drain(), len(self.state.current.selection.rows) / offered)

    # ---- Files ----

    def save_history(self, path: str | os.PathLike[str]) -> None:
        """Write the History for other runs, with what it was made with and what it cost."""
        self.learner.wait()
        self.state.history.save(path)

    def _describe_history(self) -> None:
        """Enter into the History what it was made with, and what it has cost so far."""
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
            is_writer: Every process must call this, but one writes.
            stopped: A callback ends the epoch here.
        """
        if self.state.round is not None:
            self.state.round.stopped = stopped
        self.learner.wait()  # its thread writes the notes that are saved
        # A signal may have it saved inside a step. Who resumes trains that step whole, so its first batches, which are
        # measured already, are left out.
        measured = self.recorder.collect(self._ranks.join, in_step=step == self._step)
        if is_writer:
            more = {"by_batch": self._measuring.by_batch, "scale": self._measuring.scale}
            if self.learner.failure is not None:
                more["untaught"] = asdict(self.learner.failure[1])
            if self.name is not None:
                more["run"] = self.name
            self.state.more = more
            self.state.save(folder, measured, step)

    def restore(self, folder: str | os.PathLike, step: int, warn: Callable[[str], None]) -> None:
        """Go on from a checkpoint.

        Args:
            folder: The checkpoint.
            step: Optimizer steps done.
            warn: Is told what has changed since and does not forbid going on.

        Raises:
            ValueError: The state is damaged, of other data, or in a round that can't be cut into other batches.
        """
        resumed = Resumption(folder, len(self.state.history), self.state.setup)
        resumed.check(self.schedule, self._sampler)  # first: a refusal leaves this run, and its trace, as they are
        if resumed.is_same_policy:
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
            self.idle.close()
        self._describe_history()
        if (current := state.round) is None or resumed.measured is None:
            return
        # no checkpoint holds what was offered: it follows from the seed, which the sampler has by now
        self._selector.offer(state.history, current.plan.at, current.span)
        resumed.fit(current, step, self.schedule, self._sampler, warn)
        self.idle.see(current.selection, current.span[1] - current.span[0])
        if self._ranks.is_main:  # what all processes had measured is gathered again when the round is closed
            self.recorder.restore(resumed.measured.of_signals(resumed.signals, self._measuring.signals))
