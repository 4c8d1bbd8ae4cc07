"""The engine of a pruned run: opens and closes its rounds, and keeps its clock, its measurements and its accounts.

It knows neither a trainer nor a model. Whoever trains calls it in this order, round after round::

    at, _ = engine.position_in_epochs(step)      where to begin, or to go on
    engine.open_round(at, step)                  the policy selects rows
    engine.plan()                                the sampler is told of them
    engine.begin_batch(step); recorder.add(...)  for each batch, the meter puts what it measured into the recorder
    result = engine.close_round(step)            the History learns, and then the policy does
"""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Protocol

import numpy as np
import torch

from ..common.privacy import public
from ..core import Clock, Policy, Selection, rounds_of
from ..core.ranking import marked
from ..measure.meter import blend
from ..measure.recorder import Measurements, Recorder
from ..measure.weighting import SCALES
from ..records.history import History
from ..report.account import NOTHING
from . import accounting
from .background import Learner
from .checkpoint import PruningState, Setup
from .idle import IdleWatch
from .ranks import Ranks
from .resume import Resumption
from .rounds import Round, RoundResult
from .sampler import PruningSampler
from .schedule import Place, UnprunedSchedule


class Measuring(Protocol):
    """What measures the batches, as far as the engine must know: a `Meter`, or `Signals`.

    Attributes:
        signals: Names of what is measured of a row, the loss first; none = nothing is.
        by_batch: Whether a row's loss is that of its batch, for want of its own.
        scale: Which of `SCALES` the weighted loss goes by, None = it was not needed yet.
    """

    signals: tuple[str, ...]
    by_batch: bool

    @property
    def scale(self) -> str | None: ...

    @scale.setter
    def scale(self, scale: str | None) -> None: ...


@dataclass
class Signals:
    """A `Measuring` without a model: whoever adds to the recorder knows what it adds."""

    signals: tuple[str, ...] = ("loss",)
    by_batch: bool = False
    scale: str | None = None


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
        # an epoch of fewer steps than rounds has a round for each step
        self._parts = max(1, min(rounds_of(policy), schedule.updates))
        self._span: tuple[int, int] | None = None  # of the round in progress, or of the latest
        self._mark: float | None = None  # when the training began that is being timed
        self._step: int | None = None  # the latest optimizer step that a batch was of
        self._counted: tuple[int, int] = 0, 0  # visits and positions of all processes in this round

    # ---- The clock ----

    def forecast(self) -> tuple[int, int]:
        """Optimizer steps and epochs of the whole run, as far as can be said now."""
        start, current = time.perf_counter(), self.state.round
        if current is not None:
            answer = self.schedule.total_steps(current.plan, self._forecast_updates)
            current.seconds_selecting += time.perf_counter() - start
            return answer
        at, step = Place(len(self.state.epochs), 0, self._parts), sum(epoch["steps"] for epoch in self.state.epochs)
        plan = self.schedule.plan(at, step, self._forecast_updates(at, step))
        return self.schedule.total_steps(plan, self._forecast_updates)

    def position(self, step: int) -> float:
        """Real optimizer step `step` in steps of the unpruned schedule, which learning rates are made for."""
        current = self.state.round
        return step if current is None or self.schedule.by_steps else current.plan.position(step)

    def lr_scale(self) -> float:
        """Factor on the learning rate of the round in progress."""
        return self.state.round.selection.lr_scale if self.state.round else 1.0

    def _clock(self, at: Place, step: int) -> Clock:
        share = self.schedule.share(at, step)
        return Clock(at.round, at.epoch, self.schedule.epochs, share, self.state.setup.step_rows, at.parts)

    def _forecast_updates(self, at: Place, step: int) -> int:
        return self._steps_over(math.ceil(self._forecast_rows(at, step) / at.parts))

    def _forecast_rows(self, at: Place, step: int) -> int:
        kept, n = self.policy.forecast(self.state.history, self._clock(at, step)), len(self.state.history)
        if isinstance(kept, bool) or not isinstance(kept, Real) or not kept > 0:
            raise ValueError(
                f"{type(self.policy).__name__}.forecast must return a number of rows above 0, with more than {n} for "
                f"all, got {kept!r}."
            )
        return math.ceil(min(kept, n))

    def _steps_over(self, rows: np.ndarray | int) -> int:
        if (updates := self._sampler.steps_for(rows)) == 0:
            count = rows if isinstance(rows, int) else len(rows)
            raise ValueError(
                f"policy={self.policy!r} keeps {count} rows, which fill no batch of {self.state.setup.batch}. "
                "Keep more, take smaller batches, or train without dataloader_drop_last."
            )
        return updates

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.state.seed % 2**64, *key])

    # ---- Where the run stands ----

    def goes_on(self, step: int) -> bool:
        """Whether `step` optimizer steps leave something of the round in progress to train: it has been restored."""
        return self.state.round is not None and not self.state.round.is_over(step)

    def stands_at(self, step: int) -> tuple[int, int]:
        """Where training goes on after `step` optimizer steps: the epoch, and the steps that its round has done."""
        current = self.state.round
        if current is None:
            return len(self.state.epochs), 0
        at = current.plan.at
        if not current.is_over(step):
            return at.epoch, step - current.plan.first_step
        return at.epoch + (current.stopped or at.part + 1 == at.parts), 0

    def first_place(self, epoch: int, step: int) -> Place:
        """The round of an epoch that training begins with, after `step` optimizer steps, or goes on with."""
        current = self.state.round
        if current is None or current.plan.at.epoch != epoch:
            return Place(epoch, 0, self._parts)
        at = current.plan.at
        return at.next() if current.is_over(step) else at

    @property
    def next_round(self) -> int:
        """Number of the round in progress, or else of the next one."""
        return self.state.round.clock.round if self.state.round else len(self.state.epochs) * self._parts

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
        self.learner.check()
        start = time.perf_counter()
        history, clock = self.state.history, self._clock(at, step)
        span = self._span_of(at)
        self._offer(at, span)
        selection = self._select(at, clock)
        if not self._ranks.is_alone:
            self._ranks.check_equal(self.policy, selection, self._forecast_rows(at, step), at.round)
        if selection.weights is not None and not self.policy.weighs:
            raise ValueError(f"{type(self.policy).__name__} gave weights, but does not declare `weighs = True`.")
        plan = self.schedule.plan(at, step, self._steps_over(selection.rows))
        self.idle.see(selection, len(history if history.offered is None else history.offered))
        self.state.round = Round(clock, plan, selection, span, seconds_selecting=time.perf_counter() - start)

    def _select(self, at: Place, clock: Clock) -> Selection:
        history = self.state.history
        if history.offered is not None and at.parts != self._parts:
            selection = Selection(history.offered)  # another policy began the epoch; this one may know no parts
        else:
            selection = self.policy.select(history, clock, self._rng(at.round))
        if not isinstance(selection, Selection):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"{type(self.policy).__name__}.select must return a Selection, got a {type(selection).__name__}: "
                "give Selection(rows), with the numbers of the rows to train."
            )
        return selection.check(len(history), history.offered)

    def _span_of(self, at: Place) -> tuple[int, int]:
        """The slice [start, stop) of the epoch's permutation that a round is offered.

        Parts are cut at whole optimizer steps of the unpruned schedule, so that a run which keeps everything trains
        the stock batches.
        """
        if at.parts == 1:
            return 0, len(self.state.history)
        before = at.epoch * self.schedule.updates
        steps = (self.schedule.begin(place) - before for place in (at, at.next()))
        begin, end = (step * self.state.setup.step_rows for step in steps)
        if at.part > 0 and self._span is not None:
            begin = self._span[1]  # where the round before ended, should it have been cut into other batches
        return begin, max(end, begin + 1)

    def _offer(self, at: Place, span: tuple[int, int]) -> None:
        self._span = span
        self.state.history.offered = None if at.parts == 1 else self._sampler.part(at.epoch, *span)

    def plan(self) -> None:
        """Tell the sampler the rows of the round in progress."""
        clock = self.state.round.clock
        self._sampler.plan(clock.epoch, self.state.round.rows, clock.round)

    def weights(self, device: torch.device | str = "cpu") -> torch.Tensor | None:
        """(N,) float32 factor on each row's loss in the round in progress, None where all are 1."""
        selection = self.state.round.selection
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
        current, history = self.state.round, self.state.history
        if current is None:
            return None
        self.learner.wait()
        start = time.perf_counter()
        measured, marks = self._collect(self.recorder)
        if (marks > marked(current.selection.rows, len(history))).any():
            raise ValueError(
                "Rows were trained that the policy had not selected: get_train_dataloader gives other batches than "
                "those of Trainer's own sampler (does it join several loaders?). Train without a policy."
            )
        repeated = len(measured.rows) - int(np.count_nonzero(marks))
        losses = [(marks, *self._record(measured.by_row(marks)))]
        rescored, seconds_rescoring = None, 0.0
        if rescore is not None and current.selection.rescore is not None and len(current.selection.rescore):
            begun = time.perf_counter()
            recorder = Recorder(len(self._measuring.signals))
            rescore(current.selection.rescore, recorder)
            rescored, marks = self._collect(recorder)
            losses.append((marks, *self._record(rescored.by_row(marks))))
            seconds_rescoring = time.perf_counter() - begun
        self.learner.teach(history, current.clock, self._rng(current.clock.round, 1))
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
        return RoundResult(current.clock, lr_scale, seconds, len(history), losses, account)

    def _collect(self, recorder: Recorder) -> tuple[Measurements, np.ndarray]:
        """What all processes measured, and (N,) bool, of which rows."""
        measured = recorder.collect(self._ranks.join)
        return measured, marked(measured.rows, len(self.state.history))

    def _record(self, measured: tuple[np.ndarray, np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Tell the History; the rows (K,) int64 and their losses (K,) float32, NaN where the visit did not tell."""
        history, (rows, tokens, values) = self.state.history, measured
        every, losses = rows, np.full(len(rows), np.nan, np.float32)
        told = tokens > 0
        everywhere = told.all()  # else some batch did not tell
        history.tokens[rows if everywhere else rows[told]] = tokens if everywhere else tokens[told]
        if len(values):
            history.record_blanks(rows[np.isneginf(values[0])])
            read = values[0] > -np.inf  # NaN compares false
            if not read.all():
                rows, values = rows[read], values[:, read]
            loss, *signals = values
            if self._measuring.by_batch:
                loss = blend(history.loss[rows], loss)
            losses[read] = loss
            more = dict(zip(self._measuring.signals[1:], signals, strict=True))
            history.record(rows, loss, self.state.round.clock.round, **more)
        return every, losses

    # ---- Seconds and counts ----

    def start_timing(self) -> None:
        """Training goes on from here."""
        self._mark = time.perf_counter()

    def stop_timing(self) -> None:
        """Training ends, or pauses."""
        if self._mark is not None:
            self.state.round.seconds_training += time.perf_counter() - self._mark
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
        return accounting.progress(self.recorder.drain(), len(self.state.round.selection.rows) / offered)

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
        self.learner.wait()
        # a signal may have it saved inside a step: what is measured of that one comes again
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
        own, sampler = self.state, self._sampler
        resumed = Resumption(folder, len(own.history), own.setup)
        resumed.check(self.schedule, sampler)
        state, measured = resumed.state, resumed.measured
        if measured is not None:
            measured = measured.of_signals(("loss", *sorted(state.history.signals)), self._measuring.signals)
        untaught = None
        if resumed.is_same_policy:
            untaught = state.more.get("untaught")
            self._measuring.by_batch |= state.more.get("by_batch", False)
            if state.more.get("scale") in SCALES:
                self._measuring.scale = state.more["scale"]
        else:
            warn(
                f"{folder} was saved under {state.setup.policy}; from the next epoch on, {own.setup.policy} chooses, "
                "by the losses of then and with no other memory of its own."
            )
            state.history = own.history.transfer_from(state.history)
        if state.seed != sampler.seed:
            warn(
                f"{folder} was saved with data_seed {state.seed}, which its order and its selections go on with; "
                f"{sampler.seed} (data_seed, or seed where that is None) is left aside."
            )
        if self.name is not None:
            self.name = state.more.get("run", self.name)
        state.setup, sampler.seed = own.setup, state.seed
        state.history.features, state.history.keys = own.history.features, own.history.keys
        self.state = state
        if untaught is not None:
            clock = Clock(**untaught)
            self.learner.teach(state.history, clock, self._rng(clock.round, 1))
        left_out = sum(epoch["rows_offered"] - epoch["rows"] for epoch in state.epochs)
        if left_out > NOTHING * sum(epoch["rows_offered"] for epoch in state.epochs):
            self.idle.close()
        self._describe_history()
        if (current := state.round) is None or measured is None:
            return
        self.idle.see(current.selection, current.span[1] - current.span[0])
        self._offer(current.plan.at, current.span)
        resumed.fit(current, measured, step, self.schedule, sampler, warn)
        if self._ranks.is_main:
            self.recorder.restore(measured)
