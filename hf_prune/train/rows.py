"""The source of a pruning trainer's batches: Trainer's loader over numbered rows, and checks of the data set."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset
from transformers import Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler

from ..common.generators import unchanged_generators
from ..core import Policy
from ..data.fingerprint import row_checksums
from ..data.kinds import is_arrow
from ..data.tokens import row_lengths
from ..measure.meter import Meter
from ..measure.models import reads_targets
from ..measure.recorder import gather_numbers
from ..report.padding import causes
from .collator import RowCollator, RowDataset
from .engine import Engine
from .sampler import PruningSampler
from .sentences import cuts_batches


class TrainingRows:
    """The numbered rows of a trainer's batches, and their order.

    Args:
        trainer: Has the training set and the collator, and makes the loader.
        has_own_sampler: Whether the trainer's class makes its own training sampler.

    Attributes:
        data: The training set.
        numbered: The training set, each example with its row number.
        collator: The trainer's collator, for numbered examples.
        has_own_sampler: The argument.
    """

    def __init__(self, trainer: Trainer, has_own_sampler: bool):
        self.data: Any = trainer.train_dataset
        self.has_own_sampler = has_own_sampler
        self._cls = type(trainer)
        self._sampler: PruningSampler | None = None
        rows, collator = self.data, trainer.data_collator
        if is_arrow(rows) and not cuts_batches(trainer):
            rows = trainer._remove_unused_columns(rows, description="Training")
        elif not cuts_batches(trainer):
            collator = trainer._get_collator_with_removed_columns(collator, "Training")
        self.numbered, self.collator = RowDataset(rows), RowCollator(collator)

    @property
    def sampler(self) -> PruningSampler:
        """The sampler that decides which rows are trained, and in which order.

        Raises:
            ValueError: The loader was made without a call for a sampler.
        """
        if self._sampler is None:
            raise ValueError(
                f"{self._cls.__name__} builds its training batches without Trainer's sampler, so a policy can't "
                "choose their rows. Where it has a _get_train_sampler of its own, derive it from Trainer and take "
                "pruned() of it; else train without a policy."
            )
        return self._sampler

    @sampler.setter
    def sampler(self, sampler: PruningSampler) -> None:
        self._sampler = sampler

    def make_loader(self, trainer: Trainer, stock: Callable[[], Any]) -> Any:
        """Make Trainer's loader over the numbered rows.

        Args:
            trainer: The constructor's argument.
            stock: Trainer's `get_train_dataloader`, which reads data set, collator and sampler from the trainer.
        """
        if cuts_batches(trainer):  # it accepts no other data set; `sentences.number_batches` numbers its rows later
            return stock()
        # Trainer has no hook between data set and loader, so we swap data set and collator while it makes the loader.
        collator = trainer.data_collator
        trainer.train_dataset, trainer.data_collator = self.numbered, self.collator  # pyright: ignore[reportAttributeAccessIssue]
        try:
            return stock()
        finally:
            trainer.train_dataset, trainer.data_collator = self.data, collator

    def make_sampler(self, trainer: Trainer, stock: Callable[[Any], Any]) -> PruningSampler:
        """Make the loader's sampler: the order of Trainer's sampler, without the rows that the policy prunes.

        Args:
            trainer: The constructor's argument.
            stock: Trainer's `_get_train_sampler`.
        """
        if groups_by_length(trainer, self.has_own_sampler):  # we read lengths in bulk; Trainer reads them row by row
            base = LengthGroupedSampler(trainer.args.train_batch_size, lengths=lengths_of(trainer, self.data))  # pyright: ignore[reportArgumentType]
        else:
            base = stock(self.data)  # the user's data set, which still has the length column
        self.sampler = PruningSampler(base, len(self.data), order_seed(trainer), rows_side_by_side(trainer))
        return self.sampler


def check_dataset(trainer: Trainer, policy: Policy, has_own_sampler: bool) -> None:
    """Refuse a training set whose rows have no numbers, or can't be left out.

    Args:
        trainer: Has the training set, or none.
        policy: Chooses among the rows.
        has_own_sampler: Whether the trainer's class makes its own training sampler.

    Raises:
        ValueError: A policy can't choose among the rows of this data set.
    """
    data: Any = trainer.train_dataset
    if data is None:
        return
    if isinstance(data, Mapping):
        raise ValueError(
            f"policy={policy!r} chooses among the rows of one data set, but train_dataset is a "
            f"{type(data).__name__} of {len(data)} ({', '.join(map(str, data))}). Join them (datasets."
            "concatenate_datasets), or train without a policy."
        )
    if isinstance(data, IterableDataset) or not hasattr(data, "__len__"):
        raise ValueError(
            f"policy={policy!r} chooses rows by number, but the rows of train_dataset, a "
            f"{type(data).__name__}, have none. Give a data set with a length, or train without a policy."
        )
    pairs = [name for name in data.column_names if name.startswith("KL_")] if is_arrow(data) else []
    if pairs:
        raise ValueError(
            f"policy={policy!r} leaves rows out, but {type(trainer).__name__} estimates its KL term from rows "
            f"that stand beside each other in train_dataset (column {pairs[0]!r}). Take a loss_type without it "
            "(KTO: 'apo_zero_unpaired'), or train without a policy."
        )
    if len(data) == 0:
        raise ValueError(
            f"policy={policy!r} has no row to choose: train_dataset is empty, or {type(trainer).__name__} left "
            "all of its rows out, as too long perhaps. Give rows that it can train on."
        )
    if groups_by_length(trainer, has_own_sampler):
        lengths_of(trainer, data.select([0]) if is_arrow(data) else [data[0]])  # fails now if rows have no lengths


def check_own_sampler(trainer: Trainer, make: Callable[[Any], Any]) -> None:
    """Refuse a trainer class's own training sampler if its order can't be filtered.

    Args:
        trainer: Has the training set, or none.
        make: The `_get_train_sampler` of the trainer's class.

    Raises:
        ValueError: The sampler gives another order each time, or does not give each row once.
    """
    data: Any = trainer.train_dataset
    if data is None:
        return
    try:
        with unchanged_generators():
            PruningSampler(make(data), len(data), 0)
    except ValueError as error:
        raise ValueError(f"{type(trainer).__name__} has a training sampler of its own. {error}") from error


def check_equal_rows(trainer: Trainer, data: Any, order: int = 0) -> None:
    """Check that all processes number the same rows in the same way.

    Args:
        trainer: Knows the other processes.
        data: The training set of this process.
        order: Checksum of the sampler's order in this process; 0 = no sampler is used.

    Raises:
        ValueError: A process differs from the main process. Every process raises it; the message names the process and
            the difference.
    """
    if trainer.accelerator.num_processes == 1:
        return
    reads_all = trainer.accelerator.dispatch_batches  # then only the main process reads rows, for all processes
    checksums = [] if reads_all else [-1 if one is None else one for one in row_checksums(data)]
    table = gather_numbers(trainer.accelerator, [len(data), order, *checksums])
    for process, numbers in enumerate(table):
        pairs = [pair for pair in zip(numbers[2:], table[0][2:], strict=True) if -1 not in pair]
        if numbers[0] != table[0][0]:
            found = f"it has {numbers[0]:,} rows there and {table[0][0]:,} here"
        elif 4 * sum(theirs != ours for theirs, ours in pairs) > len(pairs):
            found = "rows have other content there"
        elif numbers[1] != table[0][1]:
            found = "its sampler gives another order there"
        else:
            continue
        raise ValueError(
            f"train_dataset is not the same in process {process} as in the main one: {found}. Every process must "
            "hold all rows in the same order, of which the trainer gives it its part: shuffle, split and filter "
            "with one seed, and don't cut the data set up yourself."
        )


def groups_by_length(trainer: Trainer, has_own_sampler: bool) -> bool:
    """Whether rows are grouped by length, as Trainer's `group_by_length` strategy does."""
    is_stock = not has_own_sampler and not cuts_batches(trainer)
    return is_stock and trainer.args.train_sampling_strategy == "group_by_length"


def lengths_of(trainer: Trainer, data: Any) -> np.ndarray:
    """Return the length of each row, see `row_lengths`."""
    inputs = [*getattr(trainer.processing_class, "model_input_names", []), "input_ids"][0]
    has_two_sides = reads_targets(trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False))
    return row_lengths(data, trainer.args.length_column_name, inputs, has_two_sides)


def rows_side_by_side(trainer: Trainer) -> int:
    """Return the number of rows that all processes together train at a time."""
    if trainer.accelerator.split_batches:  # the loader's batch is shared by all processes
        return trainer._train_batch_size
    return trainer.get_total_train_batch_size(trainer.args) // trainer.args.gradient_accumulation_steps


def order_seed(trainer: Trainer) -> int:
    """Return the seed of the order of the rows."""
    return torch.initial_seed() if trainer.args.data_seed is None else trainer.args.data_seed


def padding_causes(trainer: Trainer, training: TrainingRows, engine: Engine, meter: Meter) -> tuple[str, ...]:
    """Return the causes of padding, see `padding.causes`; empty if rows are joined or packed: no order helps there.

    Args:
        trainer: Has the training arguments.
        training: The numbered training rows.
        engine: The engine of the run.
        meter: Measures the batches.
    """
    args, data, order = trainer.args, training.data, "order"
    if meter.joins_rows or getattr(args, "packing", False):  # TRL's
        return ()
    if cuts_batches(trainer) or training.sampler.kind == "grouped":
        order = "batch"
    elif training.has_own_sampler:
        order = "own"
    elif is_arrow(data) and {"input_ids", args.length_column_name}.isdisjoint(data.column_names):
        order = "lengths"
    tokens, batch = engine.state.history.tokens, engine.state.setup.batch
    return causes(order, engine.widths, tokens, batch, meter.is_encoder_decoder)
