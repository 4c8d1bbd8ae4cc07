"""The start of a run: what is known about its rows, and the folder that it writes to."""

import os
from collections.abc import Callable
from typing import Any

from transformers import Trainer

from ..core import Policy
from ..measure.meter import Meter
from ..records.history import History
from ..records.warm_start import DataNeeds, load_history


class Beginning:
    """What is known about the rows before the first round. It is read once for each data set and policy.

    Args:
        source: The History of an earlier run, in any form that `PruningMixin` accepts; None = none (a cold start).
        key: Column that names each row; None = a row is known by its position.
        warn: Called with a message about the rows that the source does not know.
    """

    def __init__(self, source: str | os.PathLike[str] | History | None, key: str | None, warn: Callable[[str], None]):
        self.source = source
        self.key = key
        self._warn = warn
        self._data_needs: DataNeeds | None = None
        self._inherited: tuple[History | None, dict[str, float] | None] = None, None

    @property
    def cost(self) -> dict[str, float] | None:
        """Cost of the earlier runs; None = there was no earlier run, or its cost is not known."""
        return self._inherited[1]

    def history(self, trainer: Trainer, data: Any, policy: Policy, meter: Meter) -> History:
        """Make a new History of the rows that holds what is already known about them.

        Args:
            trainer: The trainer; its main process reads first.
            data: The training set.
            policy: The policy of the run; it takes over what the earlier run learned.
            meter: Names the signals that will be measured.

        Raises:
            ValueError: The data set can't give what the policy needs; the earlier History is of other rows; or there is
                no earlier History and the policy needs one.
        """
        if self._data_needs is None or not self._data_needs.fit(data, policy):
            with trainer.args.main_process_first(local=False, desc="read what the policy needs"):  # it fills the cache
                self._data_needs = DataNeeds(data, policy, meter.is_encoder_decoder, self.key, self._warn)
                self._inherited = load_history(self.source, data, policy, self._data_needs.keys, self._warn)
        history = History.empty(len(data), meter.signals)
        self._data_needs.fill(history)
        policy.begin(history, self._inherited[0])
        history.check_notes(policy)
        return history


def trace_folder(trainer: Trainer, trial: Any) -> str:
    """Return the folder for the traces of a run. They show rows, so the folder of a search trial is one never uploaded.

    Args:
        trainer: The trainer of the run.
        trial: The trial of a hyper-parameter search; None = there is no search.
    """
    output_dir, run = str(trainer.args.output_dir), trainer._get_output_dir(trial=trial)
    return run if run == output_dir else os.path.join(output_dir, f"_{os.path.relpath(run, output_dir)}")
