"""The state of a pruning trainer: its policy, its rows, and the run in progress."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from transformers import Trainer

from ..common.privacy import hide
from ..core import BudgetPolicy, Policy
from ..data.fingerprint import fingerprint
from ..measure.meter import Meter
from ..records.history import History
from ..records.trace import FOLDER, Trace
from ..report.page import RunReport
from . import seal
from .beginning import Beginning, trace_folder
from .checkpoint import STATE, TRAINER_STATE, Setup, choose, without_state
from .collator import RowDataset
from .engine import Engine
from .idle import why_idle
from .lock import RunLock
from .loop import Loop
from .owned import Owned, Owner
from .ranks import Ranks
from .rates import Rates
from .resume import first_epoch
from .rows import (
    TrainingRows,
    check_dataset,
    check_equal_rows,
    check_own_sampler,
    order_seed,
    rows_side_by_side,
)
from .sampler import check_equal_batches
from .schedule import UnprunedSchedule
from .scoring import Scoring, check_scorable
from .sentences import number_batches
from .sharing import Sharing
from .steps import meter_of
from .trackers import Trackers, is_tracked

logger = logging.getLogger(__name__)


class Pruning(Owned):
    """The one attribute of a pruning trainer. It connects the Trainer methods that the mixin overrides to the engine.

    Args:
        trainer: The trainer; its constructor has not run yet.
        policy: Chooses the rows; None = the plain trainer.
        history: See `PruningMixin`.
        history_key: See `PruningMixin`.
        example_loss_func: See `PruningMixin`.

    Attributes:
        policy: The argument; may be set for the next `train()`.
        example_loss_func: The argument; may be set for the next `train()`.
        warn: Logs a warning, on the main process only.
        loop: The run in progress, or the latest run; None before the first run, or if the latest run had no policy.
        sharing: Writes the account and the model card of the run.
    """

    def __init__(
        self,
        trainer: Trainer,
        policy: Policy | None,
        history: str | os.PathLike[str] | History | None,
        history_key: str | None,
        example_loss_func: Callable[..., torch.Tensor] | None,
    ):
        super().__init__(trainer)
        self.warn = partial(_warn, self.owner)  # a method would hold this object from its own parts
        self.policy = policy
        self.example_loss_func = example_loss_func
        self.loop: Loop | None = None
        self.sharing = Sharing(trainer, self.warn)
        self._beginning = Beginning(history, history_key, self.warn)
        self._rates = Rates()
        self._lock = RunLock()
        self._has_own_sampler = False
        self._training: TrainingRows | None = None
        # The planned run and its epochs. It begins in `restore`, not in `plan`: other code may call `plan`, too.
        self._next: tuple[Loop, int] | None = None
        self._makes_loader = False
        self._has_begun: bool | None = None  # whether `train` has reached Trainer's loop; None = no `train` in progress

    # ---- The trainer ----

    def check(self, stock_sampler: Callable[[Any], Any]) -> None:
        """Refuse a trainer that can't prune, right after its construction and before any training.

        Args:
            stock_sampler: The `_get_train_sampler` of the class that the mixin is combined with.

        Raises:
            ValueError: See `PruningMixin`.
        """
        if is_tracked(self.trainer.args):
            handler: Any = self.trainer.callback_handler
            handler.callbacks.insert(0, Trackers(self.trainer, self._report, self.warn))  # before the trackers' own
        own: Any = stock_sampler
        self._has_own_sampler = own.__func__ is not Trainer._get_train_sampler
        if self.policy is None:
            return
        check_dataset(self.trainer, self.policy, self._has_own_sampler)
        if self._has_own_sampler:
            check_own_sampler(self.trainer, stock_sampler)
        meter = self.make_meter(self.policy)
        if self.trainer.train_dataset is not None:
            self.begin_history(self.policy, meter)

    def _report(self) -> RunReport | None:
        return None if self.loop is None else self.sharing.told()

    def make_meter(self, policy: Policy) -> Meter:
        """See `meter_of`."""
        return meter_of(self.trainer, policy, self.example_loss_func)

    def begin_history(self, policy: Policy, meter: Meter) -> History:
        """See `Beginning.history`."""
        return self._beginning.history(self.trainer, self.trainer.train_dataset, policy, meter)

    @contextmanager
    def training(self) -> Iterator[None]:
        """Within the block, `train` runs with a policy. After it, warn about an unused policy or wasteful padding."""
        self._has_begun = False
        try:
            yield
            if self._has_begun is False:
                self.warn(
                    f"policy={self.policy!r} has chosen nothing: {type(self.trainer).__name__}.train trains without "
                    "Trainer's own loop."
                )
            elif wasted := self.sharing.told().padding():
                self.warn(wasted)
        finally:
            self._has_begun = None
            self._lock.release()

    def choose(self, asked: Any) -> str | None:
        """Return the checkpoint to resume from. The main process decides for all, whatever files each of them can read.

        Args:
            asked: The argument of `train`.

        Raises:
            ValueError: The checkpoint is not whole, or there is none.
        """
        if asked is None or asked is False:
            return None
        found: list[Any] = [None]
        if self.trainer.is_world_process_zero():
            found = [choose(asked, str(self.trainer.args.output_dir), self.warn)]
        folder, refusal = broadcast_object_list(found)[0]
        if refusal is not None:
            raise ValueError(refusal)
        return folder

    def enter_loop(self) -> None:
        """Note that Trainer's loop begins. It asks for a loader first."""
        self._has_begun = True
        self._makes_loader = True  # until `plan`; later callers get Trainer's own loader

    def check_loop(self) -> None:
        """Check that the present step is taken by Trainer's loop.

        Raises:
            ValueError: It is not: the trainer's `train` has a loop of its own.
        """
        if self._has_begun is False:
            raise ValueError(
                f"policy={self.policy!r} chooses the rows of Trainer's own loop, but {type(self.trainer).__name__}."
                "train has one of its own. Train without a policy."
            )

    def score_rows(self, folder: str | os.PathLike[str] | None) -> History:
        """See `PruningMixin.score_rows`."""
        check_scorable(self.trainer)
        training = TrainingRows(self.trainer, self._has_own_sampler)
        scoring = Scoring(self.trainer, training, self.make_meter, self._beginning.key, self.warn)
        return scoring.run(None if folder is None else Path(folder))

    # ---- The loader ----

    def wrap_loader(self, stock: Callable[[], Any]) -> Any:
        """Return Trainer's loader. For the loader that a run trains on, the rows are numbered.

        Args:
            stock: Trainer's `get_train_dataloader`.
        """
        if self.policy is None or self.trainer.train_dataset is None or not self._makes_loader:
            return stock()
        check_dataset(self.trainer, self.policy, self._has_own_sampler)
        self._training = TrainingRows(self.trainer, self._has_own_sampler)
        return self._training.make_loader(self.trainer, stock)

    def make_sampler(self, stock: Callable[[Any], Any], dataset: Any) -> Any:
        """Return the sampler: for numbered rows, one that leaves rows out; otherwise Trainer's own.

        Args:
            stock: Trainer's `_get_train_sampler`.
            dataset: The argument of `stock`.
        """
        dataset = self.trainer.train_dataset if dataset is None else dataset
        if self._training is None or not isinstance(dataset, RowDataset):
            return stock(dataset)
        return self._training.make_sampler(self.trainer, stock)

    def number_batches(self, loader: Any) -> Any:
        """Return the loader of a trainer that cuts its own batches. For a run's training loader, number the rows."""
        if self.policy is None or self._training is None or not self._makes_loader:
            return loader
        return number_batches(self.trainer, self._training, loader, order_seed(self.trainer))

    # ---- The run ----

    def plan(self, values: tuple[Any, ...], loader: Any) -> tuple[Any, ...]:
        """Plan a run, and return the numbers that Trainer's loop starts with.

        Trainer's numbers describe the unpruned run, which the clock follows. The pruned run's steps are a forecast.

        Args:
            values: The result of Trainer's `set_initial_training_values`.
            loader: The training loader.
        """
        self._makes_loader = False
        self._next = None
        if self.policy is None:
            return values
        args = self.trainer.args
        epochs, updates, *others, steps = values
        by_steps = args.max_steps > 0
        schedule = UnprunedSchedule(updates, steps, steps / updates if by_steps else args.num_train_epochs, by_steps)
        loop = self._make_loop(self.policy, schedule, loader)
        steps, begun = loop.engine.forecast()
        self._next = loop, begun if by_steps else epochs
        # Under max_steps we allow as many epochs as steps: an epoch has at least one. DefaultFlowCallback ends the run.
        return (steps if by_steps else epochs, updates, *others, steps)

    def _make_loop(self, policy: Policy, schedule: UnprunedSchedule, loader: Any) -> Loop:
        trainer = self.trainer
        training = self._training or TrainingRows(trainer, self._has_own_sampler)
        sampler, accelerator = training.sampler, trainer.accelerator
        shared = getattr(accelerator, "parallelism_config", None)
        if shared is not None and (shared.cp_enabled or getattr(shared, "sp_enabled", False)):
            raise ValueError(
                f"policy={policy!r} needs whole rows, but context and sequence parallelism give each process "
                "a part of a row's tokens. Train without them, or without a policy."
            )
        meter = self.make_meter(policy)
        (sampler.seed,) = broadcast_object_list([sampler.seed])  # a script may seed each process differently
        check_equal_rows(trainer, training.data, sampler.checksum())
        if trainer.is_world_process_zero():
            meter.warn_if_blind()
        history = self.begin_history(policy, meter)
        if not isinstance(policy, BudgetPolicy):  # a BudgetPolicy keeps whole optimizer steps, so its batches are equal
            check_equal_batches(loader)
        sampler.is_cut_by(loader, trainer.args.gradient_accumulation_steps)
        setup = Setup(
            policy=hide(repr(policy)),  # a checkpoint may be pushed
            data=fingerprint(training.data),
            batch=rows_side_by_side(trainer),
            accumulation=trainer.args.gradient_accumulation_steps,
            order=sampler.kind,
            key=self._beginning.key,
        )
        engine = Engine(policy, schedule, history, sampler, meter, setup, Ranks(accelerator))
        if reason := why_idle(policy, schedule, len(history), setup.step_rows, self._beginning.source is not None):
            engine.idle.close()  # one warning is enough
            self.warn(reason)
        return Loop(trainer, engine, meter, training, self._rates, self.warn, self._beginning.cost)

    def restore(self, stock: tuple[int, int], epochs: int, checkpoint: str | None, trial: Any) -> tuple[int, int]:
        """Begin the planned run, from the start or from a checkpoint.

        Args:
            stock: Where Trainer's loop would begin: the epoch, and the number of its batches to skip.
            epochs: Epochs of Trainer's loop.
            checkpoint: Folder of the checkpoint; None = from the start.
            trial: The trial of a hyper-parameter search; None = there is no search.

        Returns:
            Where Trainer's loop must begin, in the form of `stock`.

        Raises:
            ValueError: Another run is training in the folder, or the run can't resume from the checkpoint.
        """
        if self._next is None:
            self._rates.leave()
            self.loop = self.sharing.loop = None
            return stock
        trainer = self.trainer
        self._hold(trial)
        loop, trainer.state.num_train_epochs = self._next
        self.loop = self.sharing.loop = loop
        folder = trace_folder(trainer, trial)
        loop.begin(Trace(folder, partial(_learning_rates, self.owner), self.warn) if trainer.args.should_save else None)
        begins_anew = checkpoint is None
        if checkpoint is not None:
            (begins_anew,) = broadcast_object_list([not os.path.isfile(os.path.join(checkpoint, STATE))])
        if checkpoint is not None and not begins_anew:
            return loop.restore(checkpoint, epochs)
        start = stock
        if checkpoint is not None:
            epoch, ignores_rest = trainer.state.epoch or 0, trainer.args.ignore_data_skip
            start = (epochs if loop.is_finished() else first_epoch(checkpoint, epoch, ignores_rest)), 0
            if trainer.is_world_process_zero():
                self.warn(without_state(checkpoint))
        loop.begin_anew()
        return start

    def _hold(self, trial: Any) -> None:
        """Lock the folder against other runs, before anything in it is deleted."""
        folder, is_main = trace_folder(self.trainer, trial), self.trainer.is_world_process_zero()
        (other,) = broadcast_object_list([is_main and self._lock.take(Path(folder, FOLDER))])
        if other:
            raise ValueError(
                f"output_dir={self.trainer.args.output_dir!r} is in use: {other} trains there, and this run would "
                "delete what that one has written. Give another output_dir, or end that run."
            )

    def saving(self, trial: Any) -> AbstractContextManager[None]:
        """Within the block, Trainer saves a checkpoint. It is sealed at the end.

        Args:
            trial: The trial of a hyper-parameter search; None = there is no search.
        """
        trainer, args = self.trainer, self.trainer.args
        if not args.should_save:
            return nullcontext()
        folder = os.path.join(trainer._get_output_dir(trial=trial), f"checkpoint-{trainer.state.global_step}")
        # A checkpoint counts as whole once it has the Trainer state. If a save overwrites an old checkpoint, delete
        # that file first. Also delete the other two: if they are not written again, they belong to another run.
        for name in (TRAINER_STATE, STATE, seal.SEAL):
            Path(folder, name).unlink(missing_ok=True)
        # with save_only_model, nothing makes the main process wait for files of the others, so they can't be sealed
        is_all = not args.save_only_model or args.world_size == 1
        return seal.closing(trainer.state, folder, TRAINER_STATE) if self.loop and is_all else nullcontext()

    def evaluating(self) -> AbstractContextManager[None]:
        """Within the block, the trainer evaluates."""
        return nullcontext() if self.loop is None else self.loop.logs.evaluating()


def _warn(owner: Owner, message: str) -> None:
    """Log a warning, on the main process only. An upload may fail after its trainer was deleted."""
    trainer = owner.find()
    if trainer is None or trainer.is_world_process_zero():
        logger.warning(message)


def _learning_rates(owner: Owner) -> list[float]:
    optimizer: Any = owner.get().optimizer
    return [float(group["lr"]) for group in optimizer.param_groups]
