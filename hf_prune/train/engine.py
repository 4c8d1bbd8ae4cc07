"""One pruned training run: opens and closes its rounds, and keeps its clock, its measurements and its accounts."""

import bisect
import math
import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from numbers import Real
from typing import Any

import numpy as np
import torch

from ..common.privacy import public
from ..core import Clock, Policy, Selection, rounds_of
from ..core.ranking import marked
from ..measure.meter import Meter, blend
from ..measure.recorder import Gather, Recorder
from ..measure.weighting import SCALES
from ..records.history import History
from ..records.trace import Trace
from ..report.account import NOTHING, keeps_all
from ..report.padding import count_padding
from .background import Learner
from .checkpoint import PruningState, Round
from .rounds import rounds_to_act
from .sampler import PruningSampler
from .schedule import Place, UnprunedSchedule

_COSTS = (
    *("rows", "rows_rescored", "padded_tokens", "padded_tokens_rescored"),
    *("seconds_training", "seconds_selecting", "seconds_rescoring"),
)


class PruningRun:
    """What happens between the first and the last step of a `train()` call.

    Args:
        policy: Chooses the rows.
        full: The run over all rows that this one stands for.
        history: What is known of the rows when it begins.
        sampler: Is told each round's rows.
        meter: Measures the batches.
        facts: What the run is made with, see `PruningState`.
        step_rows: Rows in an optimizer step.
        updates: Number of rows -> optimizer steps over them, 0 where they fill no batch; of those that `sampler`
            considers, if it does so many, the true number.
        gather: Joins what the processes hold, see `recorder.gather_columns`.
        gather_numbers: Gives the numbers that each process holds, see there; None = there is one process.

    Attributes:
        state: All that a checkpoint must hold.
        recorder: The measurements of the round in progress.
        learner: Lets the policy learn from the round before.
        trace: Writes what each round measured; None on a process that writes no files.
        widths: Positions of a row in each batch that this process has trained; of different ones, some.
        may_be_idle: Whether the policy has done nothing yet, and that was not told and is not what it is set to.
    """

    def __init__(
        self,
        policy: Policy,
        full: UnprunedSchedule,
        history: History,
        sampler: PruningSampler,
        meter: Meter,
        facts: dict[str, Any],
        step_rows: int,
        updates: Callable[[int], int],
        gather: Gather,
        gather_numbers: Callable[[Sequence[int]], list[list[int]]] | None = None,
    ):
        self.policy = policy
        self.full = full
        self.meter = meter
        self._parts = max(1, min(rounds_of(policy), full.updates))
        self.state = PruningState(history, sampler.seed, facts)
        self.recorder = Recorder(len(meter.signals))
        self._sampler = sampler
        self._step_rows = step_rows
        self._updates = updates
        self._gather = gather
        self._gather_numbers = gather_numbers
        self._span: tuple[int, int] | None = None  # places in the order of the epoch that the round was offered
        self._mark: float | None = None
        self._step: int | None = None
        self._counted = 0, 0
        self.learner = Learner(policy)
        self.trace: Trace | None = None
        self.widths: set[float] = set()
        self.may_be_idle = not keeps_all(repr(policy))

    # ---- The clock ----

    def forecast(self) -> tuple[int, int]:
        """Optimizer steps and epochs of the whole run, as far as can be said now."""
        start, current = time.perf_counter(), self.state.round
        if current is not None:
            answer = self.full.total_steps(current.plan, self._forecast_updates)
            current.seconds_selecting += time.perf_counter() - start
            return answer
        at, step = Place(len(self.state.epochs), 0, self._parts), sum(epoch["steps"] for epoch in self.state.epochs)
        return self.full.total_steps(self.full.plan(at, step, self._forecast_updates(at, step)), self._forecast_updates)

    def position(self, step: int) -> float:
        """Real optimizer step `step` in steps of the full run, which the learning-rate schedule is made for."""
        current = self.state.round
        return step if current is None or self.full.by_steps else current.plan.position(step)

    def lr_scale(self) -> float:
        """Factor on the learning rate of the round in progress."""
        return self.state.round.selection.lr_scale if self.state.round else 1.0

    def _clock(self, at: Place, step: int) -> Clock:
        return Clock(at.round, at.epoch, self.full.epochs, self.full.share(at, step), self._step_rows, at.parts)

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

    def _steps_over(self, rows: int) -> int:
        if (updates := self._updates(rows)) == 0:
            raise ValueError(
                f"policy={self.policy!r} keeps {rows} rows, which fill no batch of {self.state.facts['batch']}. "
                "Keep more, take smaller batches, or train without dataloader_drop_last."
            )
        return updates

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.state.seed % 2**64, *key])

    # ---- Rounds ----

    def open_round(self, at: Place, step: int, skipped: int) -> None:
        """Select the rows of a round.

        Args:
            at: Which.
            step: Optimizer steps done.
            skipped: Those of them that belong to this round: a run without a policy goes on with one.

        Raises:
            Exception: What `policy.update` failed with; checkpoints say so, and the run that is resumed learns again.
        """
        self.learner.check()
        start = time.perf_counter()
        history, clock = self.state.history, self._clock(at, step - skipped)
        span = self._span_of(at)
        self._offer(at, span)
        if history.offered is not None and at.parts != self._parts:
            selection = Selection(history.offered)  # another policy began the epoch; this one may know no parts
        else:
            selection = self.policy.select(history, clock, self._rng(at.round))
        if not isinstance(selection, Selection):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"{type(self.policy).__name__}.select must return a Selection, got a {type(selection).__name__}: "
                "give Selection(rows), with the numbers of the rows to train."
            )
        selection = selection.check(len(history), history.offered)
        if self._gather_numbers is not None:
            self._check_equal(self._gather_numbers, selection, at, step)
        if selection.weights is not None and not self.policy.weighs:
            raise ValueError(f"{type(self.policy).__name__} gave weights, but does not declare `weighs = True`.")
        with self._sampler.considering(selection.rows):
            updates = self._steps_over(len(selection.rows))
        plan = self.full.plan(at, step - skipped, updates)
        offered = len(history if history.offered is None else history.offered)
        weighs = selection.weights is not None and (selection.weights != 1).any()
        if len(selection.rows) < (1 - NOTHING) * offered or weighs or selection.lr_scale != 1:
            self.may_be_idle = False
        seconds = time.perf_counter() - start
        self.state.round = Round(clock, plan, selection, span, skipped=skipped, seconds_selecting=seconds)

    def _check_equal(
        self, gather: Callable[[Sequence[int]], list[list[int]]], selection: Selection, at: Place, step: int
    ) -> None:
        """Make sure that the policy gives every process the same answer, before any of its rows is trained.

        Raises:
            ValueError: In every process, the one whose answer differs from that of the main process, and in what.
        """
        answer = {
            "rows": _checksum(selection.rows),
            "weights": _checksum(selection.weights),
            "rescore": _checksum(selection.rescore),
            "lr_scale": _checksum(np.array([selection.lr_scale])),
            "forecast": self._forecast_rows(at, step),
        }
        main, *others = gather([*answer.values()])
        for process, numbers in enumerate(others, 1):
            if numbers != main:
                differing = [name for name, one, other in zip(answer, numbers, main, strict=True) if one != other]
                raise ValueError(
                    f"The policy {type(self.policy).__name__} answers otherwise in process {process} than in the main "
                    f"one, in {' and '.join(differing)} of round {at.round}, and their models would drift apart: every "
                    "process must come to the same answer by history, clock and rng, without random generators of its "
                    "own, the time, or what only one process knows."
                )

    def first_place(self, epoch: int, step: int, skipped: int) -> tuple[Place, int]:
        """Where in an epoch training goes on.

        Args:
            epoch: From 0.
            step: Optimizer steps done.
            skipped: Those of them that a run without a policy has done in this epoch.

        Returns:
            The round, and how many of its steps are done by such a run.
        """
        current = self.state.round
        if current is not None and current.plan.at.epoch == epoch:
            at = current.plan.at
            return at.next() if current.is_over(step) else at, 0
        cuts = [self.full.begin(Place(0, part, self._parts)) for part in range(self._parts)]
        part = bisect.bisect_right(cuts, skipped) - 1
        return Place(epoch, part, self._parts), skipped - cuts[part]

    def _span_of(self, at: Place) -> tuple[int, int]:
        if at.parts == 1:
            return 0, len(self.state.history)
        before = at.epoch * self.full.updates
        begin, end = ((self.full.begin(place) - before) * self._step_rows for place in (at, at.next()))
        if at.part > 0 and self._span is not None:
            begin = self._span[1]  # where the round before ended, should it have been cut into other batches
        return begin, max(end, begin + 1)

    def _offer(self, at: Place, span: tuple[int, int]) -> None:
        self._span = span
        self.state.history.offered = None if at.parts == 1 else self._sampler.part(at.epoch, *span)

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

    def plan(self) -> None:
        """Tell the sampler the rows of the round in progress."""
        clock = self.state.round.clock
        self._sampler.plan(clock.epoch, self.state.round.rows, clock.round)

    def weights(self, device: torch.device) -> torch.Tensor | None:
        """(N,) float32 factor on each row's loss in the round in progress, None where all are 1."""
        selection = self.state.round.selection
        if selection.weights is None:
            return None
        table = torch.ones(len(self.state.history))
        table[torch.from_numpy(selection.rows)] = torch.from_numpy(selection.weights.astype(np.float32))
        return table.to(device)

    def close_round(self, step: int, rescore: Callable[[np.ndarray, Recorder], None] | None = None) -> None:
        """Bring the round's measurements into the History, and what it cost into the accounts.

        Args:
            step: Optimizer steps done.
            rescore: Measures rows, (H,) int64, by forward passes alone; None where training ends here.
        """
        current, history = self.state.round, self.state.history
        if current is None:
            return
        self.learner.wait()
        start = time.perf_counter()
        measured = self.recorder.collect(self._gather)
        n = len(history)
        marks = marked(measured.rows, n)
        if (marks > marked(current.selection.rows, n)).any():
            raise ValueError(
                "Rows were trained that the policy had not selected: get_train_dataloader gives other batches than "
                "those of Trainer's own sampler (does it join several loaders?). Train without a policy."
            )
        repeated = len(measured.rows) - int(np.count_nonzero(marks))
        losses = [(marks, *self._record(measured.by_row(marks)))]
        rescored, seconds_rescoring = None, 0.0
        if rescore is not None and current.selection.rescore is not None and len(current.selection.rescore):
            begun = time.perf_counter()
            recorder = Recorder(len(self.meter.signals))
            rescore(current.selection.rescore, recorder)
            rescored = recorder.collect(self._gather)
            marks = marked(rescored.rows, n)
            losses.append((marks, *self._record(rescored.by_row(marks))))
            seconds_rescoring = time.perf_counter() - begun
        self.learner.teach(history, current.clock, self._rng(current.clock.round, 1))
        if self.trace is not None:
            self.trace.write(current.clock, current.selection.lr_scale, current.seconds_training, n, losses)
        tokens = history.tokens if history.offered is None else history.tokens[history.offered]
        offered = len(tokens) * current.share(step)  # the last epoch may be a fraction of one
        known = np.count_nonzero(tokens)
        account = {
            "rows_offered": round(offered),
            "rows": len(measured.rows),
            "rows_repeated": repeated,
            "rows_rescored": 0 if rescored is None else len(rescored.rows),
            "tokens_offered": round(offered * int(tokens.sum(dtype=np.int64)) / known) if known else 0,
            "tokens": int(measured.tokens.sum(where=measured.tokens > 0)),
            "padded_tokens": measured.padded_tokens,
            "padding": count_padding(measured.tokens, measured.padded_tokens) or 0,
            "padded_tokens_rescored": 0 if rescored is None else rescored.padded_tokens,
            "steps": current.steps(step),
            "steps_full": current.steps_full(step, self.full),
            "seconds_training": current.seconds_training,
            "seconds_selecting": current.seconds_selecting + time.perf_counter() - start - seconds_rescoring,
            "seconds_rescoring": seconds_rescoring,
        }
        self.state.add(current.clock.epoch, account)
        self._describe_history()
        if len(self.widths) < 2:
            self.widths |= self.recorder.widths
        self.recorder = Recorder(len(self.meter.signals))
        self._counted = 0, 0
        self.state.round = None

    def idle_rounds(self, round: int, ends: bool) -> int:
        """How many rounds have ended in which the policy has done nothing; 0 where it has, or it is too early to tell.

        Args:
            round: Number of the one that has ended.
            ends: Whether training ends with it.
        """
        if not self.may_be_idle or not (ends or round + 1 >= rounds_to_act(self.policy)):
            return 0
        self.may_be_idle = False
        return round + 1

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
            if self.meter.by_batch:
                loss = blend(history.loss[rows], loss)
            losses[read] = loss
            more = dict(zip(self.meter.signals[1:], signals, strict=True))
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

    @contextmanager
    def pause(self) -> Iterator[None]:
        """What the block does is counted elsewhere, not as training."""
        is_training = self._mark is not None
        self.stop_timing()
        try:
            yield
        finally:
            if is_training:
                self.start_timing()

    def count(self, reduce: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Count what all processes have trained in this round; `reduce` adds up an int64 tensor over them."""
        self._counted = tuple(reduce(torch.tensor(self.recorder.counts())).tolist())

    def counts(self) -> dict[str, float]:
        """What the run had trained when it was last counted, and the seconds of this process, for the logs."""
        current, epochs = self.state.round, self.state.epochs
        rows, tokens = self._counted
        selecting = current.seconds_selecting + sum(epoch["seconds_selecting"] for epoch in epochs)
        training = current.seconds_training + sum(e["seconds_training"] + e["seconds_rescoring"] for e in epochs)
        logs = {"prune/rows": rows + sum(epoch["rows"] for epoch in epochs)}
        if tokens:  # images have none
            logs["prune/tokens"] = tokens + sum(epoch["padded_tokens"] for epoch in epochs)
        return logs | {"prune/seconds": selecting, "prune/seconds_training": training}

    def progress(self) -> dict[str, float]:
        """What stands beside the loss in the logs: the share kept; since the last, the rows' losses, and the padding.

        Where the policy gives weights, their weighted mean is named as well: of a sum over rows that is the same for
        all rows on average, whichever are kept.
        """
        current, history = self.state.round, self.state.history
        losses, weights, tokens, positions = self.recorder.drain()
        is_finite = np.isfinite(losses)
        losses = losses[is_finite]
        offered = len(history if history.offered is None else history.offered)
        logs = {"prune/kept": len(current.selection.rows) / offered}
        if (padding := count_padding(tokens, positions)) is not None:
            logs["prune/padding"] = padding / positions
        if weights is not None and len(losses):
            weights = weights[is_finite]
            logs["prune/loss_weighted"] = float(np.average(losses, weights=weights))
        if len(losses):
            names = ("prune/loss_p10", "prune/loss_p50", "prune/loss_p90")
            logs |= dict(zip(names, np.quantile(losses, (0.1, 0.5, 0.9)).tolist(), strict=True))
        return logs

    # ---- Files ----

    def save_history(self, path: str | os.PathLike[str]) -> None:
        """Write the History for other runs, with what it was made with and what it cost."""
        self.learner.wait()
        self.state.history.save(path)

    def _describe_history(self) -> None:
        """Enter into the History what it was made with, and what it has cost so far."""
        total = {name: sum(epoch[name] for epoch in self.state.epochs) for name in _COSTS}
        cost = {
            "runs": 1,
            "rows": total["rows"] + total["rows_rescored"],
            "tokens": total["padded_tokens"] + total["padded_tokens_rescored"],
            "seconds": sum(total[name] for name in _COSTS if name.startswith("seconds")),
        }
        facts = {name: self.state.facts.get(name) for name in ("data", "key")}
        facts["policy"] = public(self.state.facts["policy"])
        if self.trace is not None:
            facts["run"] = self.trace.name
        self.state.history.facts = {**facts, "cost": cost}

    def save(self, folder: str | os.PathLike, step: int, is_writer: bool, stopped: bool) -> None:
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
        measured = self.recorder.collect(self._gather, in_step=step == self._step)  # as a signal may have it
        if is_writer:
            self.state.facts |= {"by_batch": self.meter.by_batch, "scale": self.meter.weigher.scale}
            if self.learner.failure is not None:
                self.state.facts["untaught"] = asdict(self.learner.failure[1])
            if self.trace is not None:
                self.state.facts["run"] = self.trace.name
            self.state.save(folder, measured, step)

    def restore(self, folder: str | os.PathLike, is_main: bool, step: int, warn: Callable[[str], None]) -> None:
        """Go on from a checkpoint.

        Args:
            folder: The checkpoint.
            is_main: The main process takes in what all had measured in the round in progress.
            step: Optimizer steps done.
            warn: Is told what has changed since and does not forbid going on.

        Raises:
            ValueError: The state is damaged, of other data, or in a round that can't be cut into other batches.
        """
        facts = self.state.facts
        state, measured = PruningState.load(folder, len(self.state.history))
        if state.facts["data"] != facts["data"]:
            raise ValueError(
                f"resume_from_checkpoint={str(folder)!r} was saved while training on another data set: its rows differ "
                "from those of train_dataset. Resume with the data set it was made with, in the same order."
            )
        if measured is not None:
            measured = measured.of_signals(("loss", *sorted(state.history.signals)), self.meter.signals)
        if state.facts["policy"] == facts["policy"]:
            self.meter.by_batch |= state.facts.get("by_batch", False)
            if state.facts.get("scale") in SCALES:
                self.meter.weigher.scale = state.facts["scale"]
            untaught = state.facts.get("untaught")
        else:
            untaught = None
            warn(
                f"{folder} was saved under {state.facts['policy']}; from the next epoch on, {facts['policy']} chooses, "
                "by the losses of then and with no other memory of its own."
            )
            state.history = self.state.history.transfer_from(state.history)
        if state.seed != self._sampler.seed:
            warn(
                f"{folder} was saved with data_seed {state.seed}, which its order and its selections go on with; "
                f"{self._sampler.seed} (data_seed, or seed where that is None) is left aside."
            )
        if self.trace is not None:
            self.trace.name = state.facts.get("run", self.trace.name)
        # before checkpoints named their order, rows were grouped as by the stock sampler
        before = "grouped as stock does" if facts["order"] == "grouped" else facts["order"]
        then = {"order": before} | state.facts
        shapes = ("batch", "accumulation", "order")
        changed = [f"{name} {then[name]} -> {facts[name]}" for name in shapes if then[name] != facts[name]]
        state.facts = facts
        state.history.features, state.history.keys = self.state.history.features, self.state.history.keys
        self.state, self._sampler.seed = state, state.seed
        if untaught is not None:
            clock = Clock(**untaught)
            self.learner.teach(state.history, clock, self._rng(clock.round, 1))
        left_out = sum(epoch["rows_offered"] - epoch["rows"] for epoch in state.epochs)
        self.may_be_idle &= left_out <= NOTHING * sum(epoch["rows_offered"] for epoch in state.epochs)
        self._describe_history()
        if self.trace is not None:
            self.trace.begin(state.round.clock.round if state.round else len(state.epochs) * self._parts)
        if measured is None:
            return
        current, reason = state.round, f"{folder} was saved with other batches ({', '.join(changed)})"
        at, (begin, end) = current.plan.at, current.span
        self.may_be_idle &= len(current.selection.rows) >= (1 - NOTHING) * (end - begin)
        is_shaped = self._sampler.is_own or then["order"] != facts["order"]
        fixed = current.skipped or at.parts > self.full.updates or (at.parts > 1 and is_shaped)
        if changed and fixed:
            raise ValueError(
                f"resume_from_checkpoint: {reason}, and its round can't be cut into other batches (its rows were "
                "in several rounds of another order or of a sampler of your own, or too few, or begun without a "
                "policy). Resume with its own."
            )
        self._offer(at, current.span)
        if changed and not current.is_over(step):
            current.steps_before = current.steps(step)
            current.rest = np.setdiff1d(current.selection.rows, measured.rows)
            with self._sampler.considering(current.rest):
                updates = self._updates(len(current.rest))
            current.plan = self.full.plan(at, step, updates, current.share_before)
            warn(f"{reason}; the {len(current.rest):,} rows left of its epoch are trained once, in batches of these.")
        else:  # the run may have become longer or shorter since
            plan = current.plan
            current.plan = self.full.plan(at, plan.first_step, plan.updates, current.share_before)
        if is_main:
            self.recorder.restore(measured)


def _checksum(array: np.ndarray | None) -> int:
    return 0 if array is None else zlib.crc32(np.ascontiguousarray(array).data, len(array))
