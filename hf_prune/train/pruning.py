"""What a pruning trainer holds: its policy, its rows, and the run in progress."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
from . import seal
from .beginning import Beginning, trace_folder
from .checkpoint import STATE, TRAINER_STATE, Setup, choose, without_state
from .collator import RowDataset
from .engine import Engine
from .idle import why_idle
from .lock import RunLock
from .loop import Loop
from .ranks import Ranks
from .rates import Rates
from .resume import check_at_epochs_end
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
from .sentences import number_batches
from .sharing import Sharing
from .steps import meter_of

logger = logging.getLogger(__name__)


class Pruning:
    """The one attribute of a pruning trainer: between Trainer's methods, which the mixin overrides, and the engine.

    Args:
        trainer: The trainer; not yet constructed.
        policy: Chooses the rows; None = the plain trainer.
        history: What an earlier run has learnt, as `PruningMixin` takes it.
        history_key: As `PruningMixin` takes it.
        example_loss_func: As `PruningMixin` takes it.

    Attributes:
        policy: As given; may be set for the next `train()`.
        example_loss_func: As given; may be set, too.
        loop: The run in progress, or the latest; None before the first, and where the latest had no policy.
        sharing: Tells others of it.
    """

    def __init__(
        self,
        trainer: Trainer,
        policy: Policy | None,
        history: str | os.PathLike[str] | History | None,
        history_key: str | None,
        example_loss_func: Callable[..., torch.Tensor] | None,
    ):
        self.trainer = trainer
        self.policy = policy
        self.example_loss_func = example_loss_func
        self.loop: Loop | None = None
        self.sharing = Sharing(trainer, self.warn)
        self._beginning = Beginning(history, history_key, self.warn)
        self._rates = Rates()
        self._lock = RunLock()
        self._has_own_sampler = False
        self._training: TrainingRows | None = None
        self._next: tuple[Loop, int] | None = None  # and its epochs; begins in `restore`: others may ask `plan`, too
        self._makes_loader = False
        self._has_begun: bool | None = None  # whether the `train` in progress has come to Trainer's loop

    def warn(self, message: str) -> None:
        """Say it, on the main process."""
        if self.trainer.is_world_process_zero():
            logger.warning(message)

    # ---- The trainer ----

    def check(self, stock_sampler: Callable[[Any], Any]) -> None:
        """The trainer is constructed: refuse what can't be pruned before anything is trained.

        Args:
            stock_sampler: The `_get_train_sampler` of the class that the mixin stands before.

        Raises:
            ValueError: See `PruningMixin`.
        """
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

    def make_meter(self, policy: Policy) -> Meter:
        """See `meter_of`."""
        return meter_of(self.trainer, policy, self.example_loss_func)

    def begin_history(self, policy: Policy, meter: Meter) -> History:
        """See `Beginning.history`."""
        return self._beginning.history(self.trainer, self.trainer.train_dataset, policy, meter)

    @contextmanager
    def training(self) -> Iterator[None]:
        """The block is a `train` call with a policy: it ends with what the user should know of the run."""
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
        """The checkpoint to go on from; all processes go on from the main one's, whatever each of them can read.

        Args:
            asked: As `train` takes it.

        Raises:
            ValueError: It is not whole, or there is none.
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
        """Trainer's loop begins; it asks for a loader first."""
        self._has_begun = True
        self._makes_loader = True  # until `plan`; who asks for one later gets the stock one

    def check_loop(self) -> None:
        """A step is taken.

        Raises:
            ValueError: Not by Trainer's loop.
        """
        if self._has_begun is False:
            raise ValueError(
                f"policy={self.policy!r} chooses the rows of Trainer's own loop, but {type(self.trainer).__name__}."
                "train has one of its own. Train without a policy."
            )

    # ---- The loader ----

    def wrap_loader(self, stock: Callable[[], Any]) -> Any:
        """The stock loader; that which a run is about to train on, over numbered rows.

        Args:
            stock: Trainer's `get_train_dataloader`.
        """
        if self.policy is None or self.trainer.train_dataset is None or not self._makes_loader:
            return stock()
        check_dataset(self.trainer, self.policy, self._has_own_sampler)
        self._training = TrainingRows(self.trainer, self._has_own_sampler)
        return self._training.make_loader(self.trainer, stock)

    def make_sampler(self, stock: Callable[[Any], Any], dataset: Any) -> Any:
        """The stock sampler; of numbered rows, one that leaves rows out.

        Args:
            stock: Trainer's `_get_train_sampler`.
            dataset: As there.
        """
        dataset = self.trainer.train_dataset if dataset is None else dataset
        if self._training is None or not isinstance(dataset, RowDataset):
            return stock(dataset)
        return self._training.make_sampler(self.trainer, stock)

    def number_batches(self, loader: Any) -> Any:
        """The loader of a trainer that cuts its own batches; that which a run is about to train on, numbered."""
        if self.policy is None or self._training is None or not self._makes_loader:
            return loader
        return number_batches(self.trainer, self._training, loader, order_seed(self.trainer))

    # ---- The run ----

    def plan(self, values: tuple[Any, ...], loader: Any) -> tuple[Any, ...]:
        """The numbers of a run that Trainer's loop begins with.

        The stock ones make the unpruned run, which the clock follows; the steps of the pruned one are forecast.

        Args:
            values: Those of Trainer's `set_initial_training_values`.
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
        # Under max_steps the epochs follow; each takes a step at least, and DefaultFlowCallback ends the run.
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
        (sampler.seed,) = broadcast_object_list([sampler.seed])  # a script may seed each process by itself
        check_equal_rows(trainer, training)
        if trainer.is_world_process_zero():
            meter.warn_if_blind()
        history = self.begin_history(policy, meter)
        if not isinstance(policy, BudgetPolicy):  # that one keeps whole optimizer steps
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
            engine.idle.close()  # once is enough
            self.warn(reason)
        return Loop(trainer, engine, meter, training, self._rates, self.warn, self._beginning.cost)

    def restore(self, stock: tuple[int, int], epochs: int, checkpoint: str | None, trial: Any) -> tuple[int, int]:
        """The planned run begins, anew or where a checkpoint has left it.

        Args:
            stock: Where Trainer's loop would begin: the epoch, and the batches of it to skip.
            epochs: Of Trainer's loop.
            checkpoint: Its folder; None = anew.
            trial: Of a search; None = there is none.

        Returns:
            Where it is to begin.

        Raises:
            ValueError: Another run trains in the folder, or the checkpoint can't be gone on from.
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
        loop.begin(Trace(folder, self._learning_rates, self.warn) if trainer.args.should_save else None)
        begins_anew = checkpoint is None
        if checkpoint is not None:
            (begins_anew,) = broadcast_object_list([not os.path.isfile(os.path.join(checkpoint, STATE))])
        if checkpoint is not None and not begins_anew:
            return loop.restore(checkpoint, epochs)
        start = (epochs, 0) if loop.is_finished() else stock
        if checkpoint is not None:
            check_at_epochs_end(checkpoint, start[1])
            if trainer.is_world_process_zero():
                self.warn(without_state(checkpoint))
        loop.begin_anew()
        return start

    def _hold(self, trial: Any) -> None:
        """Keep other runs out of the folder, before anything in it is deleted."""
        folder, is_main = trace_folder(self.trainer, trial), self.trainer.is_world_process_zero()
        (other,) = broadcast_object_list([is_main and self._lock.take(Path(folder, FOLDER))])
        if other:
            raise ValueError(
                f"output_dir={self.trainer.args.output_dir!r} is in use: {other} trains there, and this run would "
                "delete what that one has written. Give another output_dir, or end that run."
            )

    def _learning_rates(self) -> list[float]:
        optimizer: Any = self.trainer.optimizer
        return [float(group["lr"]) for group in optimizer.param_groups]

    def saving(self, trial: Any) -> AbstractContextManager[None]:
        """The block saves a checkpoint: it is closed with its seal.

        Args:
            trial: Of a search; None = there is none.
        """
        trainer, args = self.trainer, self.trainer.args
        if not args.should_save:
            return nullcontext()
        folder = os.path.join(trainer._get_output_dir(trial=trial), f"checkpoint-{trainer.state.global_step}")
        # Written last, the first says that a checkpoint is whole: one that is written again is not, until it is again,
        # and what is not written again is of another run.
        for name in (TRAINER_STATE, STATE, seal.SEAL):
            Path(folder, name).unlink(missing_ok=True)
        # without the states of the generators, nobody waits until all processes have written theirs
        is_all = not args.save_only_model or args.world_size == 1
        return seal.closing(trainer.state, folder, TRAINER_STATE) if self.loop and is_all else nullcontext()

    def evaluating(self) -> AbstractContextManager[None]:
        """The block evaluates."""
        return nullcontext() if self.loop is None else self.loop.logs.evaluating()
