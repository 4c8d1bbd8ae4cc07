"""What the runs of a trainer begin with: what is known of their rows, and where they write."""

import os
from collections.abc import Callable
from typing import Any

from transformers import Trainer

from ..core import Policy
from ..measure.meter import Meter
from ..records.history import History
from ..records.warm_start import DataNeeds, load_history


class Beginning:
    """What is known of the rows before the first round, read once for a data set and a policy.

    Args:
        source: What an earlier run has learnt, as `PruningMixin` takes it; None = nothing.
        key: Column that names each row; None = rows go by their place.
        warn: Is told which rows the source does not know.
    """

    def __init__(self, source: str | os.PathLike[str] | History | None, key: str | None, warn: Callable[[str], None]):
        self.source = source
        self.key = key
        self._warn = warn
        self._data_needs: DataNeeds | None = None
        self._inherited: tuple[History | None, dict[str, float] | None] = None, None

    @property
    def cost(self) -> dict[str, float] | None:
        """What the earlier runs had cost; None = there is none, or it is not known."""
        return self._inherited[1]

    def history(self, trainer: Trainer, data: Any, policy: Policy, meter: Meter) -> History:
        """A new history of the rows, with what is known of them.

        Args:
            trainer: Whose main process reads first.
            data: The training set.
            policy: Of the run: it takes in what the earlier one has learnt.
            meter: Says what will be measured.

        Raises:
            ValueError: The data set can't give what the policy needs; an earlier history of other rows, or none where
                the policy needs one.
        """
        if self._data_needs is None or not self._data_needs.fit(data, policy):
            with trainer.args.main_process_first(local=False, desc="read what the policy needs"):  # it fills the cache
                self._data_needs = DataNeeds(data, policy, meter.is_encoder_decoder, self.key)
                self._inherited = load_history(self.source, data, policy, self._data_needs.keys, self._warn)
        history = History.empty(len(data), meter.signals)
        self._data_needs.fill(history)
        policy.begin(history, self._inherited[0])
        history.check_notes(policy)
        return history


def trace_folder(trainer: Trainer, trial: Any) -> str:
    """The folder of a run, and for a trial of a search one that no upload takes: rows are shown in it."""
    output_dir, run = str(trainer.args.output_dir), trainer._get_output_dir(trial=trial)
    return run if run == output_dir else os.path.join(output_dir, f"_{os.path.relpath(run, output_dir)}")
