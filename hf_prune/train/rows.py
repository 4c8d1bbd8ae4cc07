"""Where a pruning trainer's batches come from: the stock loader over numbered rows, and what is known of these."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch.utils.data import IterableDataset
from transformers import Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler

from ..data.fingerprint import row_checksums
from ..data.kinds import is_arrow
from ..data.tokens import row_lengths
from ..measure.meter import Meter
from ..measure.readers import reads_targets
from ..measure.recorder import gather_numbers
from ..records.history import History
from ..records.warm_start import Facts, load_history
from ..report.padding import causes
from .collator import RowCollator, RowDataset
from .sampler import PruningSampler
from .sentences import cuts_batches


class RowsMixin:
    """The part of `PruningMixin` that numbers the training rows."""

    def _check_dataset(self):
        data = self.train_dataset
        if isinstance(data, Mapping):
            raise ValueError(
                f"policy={self.policy!r} chooses among the rows of one data set, but train_dataset is a "
                f"{type(data).__name__} of {len(data)} ({', '.join(map(str, data))}). Join them (datasets."
                "concatenate_datasets), or train without a policy."
            )
        if data is not None and (isinstance(data, IterableDataset) or not hasattr(data, "__len__")):
            raise ValueError(
                f"policy={self.policy!r} chooses rows by number, but the rows of train_dataset, a "
                f"{type(data).__name__}, have none. Give a data set with a length, or train without a policy."
            )
        pairs = [name for name in data.column_names if name.startswith("KL_")] if is_arrow(data) else []
        if pairs:
            raise ValueError(
                f"policy={self.policy!r} leaves rows out, but {type(self).__name__} estimates its KL term from rows "
                f"that stand beside each other in train_dataset (column {pairs[0]!r}). Take a loss_type without it "
                "(KTO: 'apo_zero_unpaired'), or train without a policy."
            )
        if data is not None and len(data) == 0:
            raise ValueError(
                f"policy={self.policy!r} has no row to choose: train_dataset is empty, or {type(self).__name__} left "
                "all of its rows out, as too long perhaps. Give rows that it can train on."
            )
        if data is not None and self._groups_by_length:
            self._lengths_of(data.select([0]) if is_arrow(data) else [data[0]])  # has it any?

    def get_train_dataloader(self):
        """The stock loader; that which a run is about to train on, over numbered rows."""
        if self.policy is None or self.train_dataset is None or not self._makes_loader:
            return super().get_train_dataloader()
        self._check_dataset()
        data, collator = self.train_dataset, self.data_collator
        if cuts_batches(self):  # and would take no other data set; numbers them in `_build_dataloader`
            self._rows, self._numbering, self._sampler = RowDataset(data), RowCollator(collator), None
            self._raw_dataset = data
            return super().get_train_dataloader()
        if is_arrow(data):
            rows, numbering = self._remove_unused_columns(data, description="Training"), RowCollator(collator)
        else:
            rows, numbering = data, RowCollator(self._get_collator_with_removed_columns(collator, "Training"))
        self._rows, self._numbering, self._sampler = RowDataset(rows), numbering, None
        self._raw_dataset = data
        self.train_dataset, self.data_collator = self._rows, numbering
        try:
            return super().get_train_dataloader()
        finally:
            self.train_dataset, self.data_collator = data, collator

    def _get_train_sampler(self, train_dataset=None):
        train_dataset = self.train_dataset if train_dataset is None else train_dataset
        if not isinstance(train_dataset, RowDataset):
            return super()._get_train_sampler(train_dataset)
        data = self._raw_dataset  # the length column is still there
        if self._groups_by_length:  # lengths are read in bulk, where the stock sampler reads row by row
            base = LengthGroupedSampler(self.args.train_batch_size, lengths=self._lengths_of(data))
        else:
            base = super()._get_train_sampler(data)
        self._sampler = PruningSampler(base, len(data), self._order_seed, self._unit)
        return self._sampler

    @property
    def _groups_by_length(self) -> bool:
        """Whether rows are grouped by lengths, as the stock sampler of this strategy does."""
        is_stock = self._own_sampler is None and not cuts_batches(self)
        return is_stock and self.args.train_sampling_strategy == "group_by_length"

    @property
    def _own_sampler(self) -> Callable | None:
        """Makes the training sampler of a class that the mixin stands before; None where that is the stock one."""
        own = super()._get_train_sampler
        return None if own.__func__ is Trainer._get_train_sampler else own

    def _lengths_of(self, data) -> np.ndarray:
        """See `row_lengths`."""
        inputs = [*getattr(self.processing_class, "model_input_names", []), "input_ids"][0]
        has_two_sides = reads_targets(self.accelerator.unwrap_model(self.model, keep_torch_compile=False))
        return row_lengths(data, self.args.length_column_name, inputs, has_two_sides)

    @property
    def _unit(self) -> int:
        """Rows that all processes train side by side."""
        if self.accelerator.split_batches:  # the loader's batch is that of all processes
            return self._train_batch_size
        return self.get_total_train_batch_size(self.args) // self.args.gradient_accumulation_steps

    @property
    def _order_seed(self) -> int:
        return torch.initial_seed() if self.args.data_seed is None else self.args.data_seed

    def _check_sampler(self):
        if self._sampler is None:
            raise ValueError(
                f"{type(self).__name__} builds its training batches without Trainer's sampler, so a policy can't "
                "choose their rows. Where it has a _get_train_sampler of its own, derive it from Trainer and take "
                "pruned() of it; else train without a policy."
            )

    def _padding_causes(self) -> tuple[str, ...]:
        """See `padding.causes`; none where rows are joined or packed, which no order fits better together."""
        run, args, data, order = self._run, self.args, self._raw_dataset, "order"
        if self._meter.joins_rows or getattr(args, "packing", False):  # TRL's
            return ()
        if cuts_batches(self) or self._sampler.kind == "grouped":
            order = "batch"
        elif self._own_sampler is not None:
            order = "own"
        elif is_arrow(data) and {"input_ids", args.length_column_name}.isdisjoint(data.column_names):
            order = "lengths"
        tokens, batch = run.state.history.tokens, run.state.setup.batch
        return causes(order, run.widths, tokens, batch, self._meter.is_encoder_decoder)

    def _check_equal_rows(self, data):
        """Make sure that all processes number the same rows in the same way.

        Raises:
            ValueError: In every process, the one that differs from the main process, and in what.
        """
        if self.accelerator.num_processes == 1:
            return
        reads_all = self.accelerator.dispatch_batches  # the main process, whose rows are the only ones
        checksums = [] if reads_all else [-1 if one is None else one for one in row_checksums(data)]
        table = gather_numbers(self.accelerator, [len(data), self._sampler.checksum(), *checksums])
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

    def _begin_history(self, data, meter: Meter) -> History:
        """The history that a run on `data` begins with."""
        if self._facts is None or not self._facts.fit(data, self.policy):
            with self.args.main_process_first(local=False, desc="read what the policy needs"):  # it fills the cache
                self._facts = Facts(data, self.policy, meter.is_encoder_decoder, self._key)
                keys = self._facts.keys
                self._inherited = load_history(self._earlier, data, self.policy, keys, self._warn)
        earlier, self._earlier_cost = self._inherited
        history = History.empty(len(data), meter.signals)
        self._facts.fill(history)
        self.policy.begin(history, earlier)
        history.check_notes(self.policy)
        return history
