"""The processes that train together, and the collective operations between them."""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..core import Selection
from ..measure.recorder import gather_columns, gather_numbers


class Ranks:
    """Joins the data of all processes. Every process must call the same methods in the same order.

    Args:
        accelerator: Runs the collective operations; None = there is only one process.
    """

    def __init__(self, accelerator: Any = None):
        self._accelerator = accelerator

    @property
    def is_alone(self) -> bool:
        """Whether there is only one process."""
        return self._accelerator is None or self._accelerator.num_processes == 1

    @property
    def is_main(self) -> bool:
        """Whether this is the main process."""
        return self.is_alone or self._accelerator.process_index == 0

    def join(self, arrays: list[torch.Tensor], count: int) -> tuple[list[torch.Tensor], int]:
        """Join the columns of all processes, see `recorder.gather_columns`.

        Args:
            arrays: (S, V) each, in host memory.
            count: A number to sum over the processes.
        """
        return (arrays, count) if self.is_alone else gather_columns(self._accelerator, arrays, count)

    def gather(self, numbers: Sequence[int]) -> list[list[int]]:
        """Return the numbers of each process, see `recorder.gather_numbers`."""
        return [list(numbers)] if self.is_alone else gather_numbers(self._accelerator, numbers)

    def sum(self, numbers: Sequence[int]) -> list[int]:
        """Return the sum of each number over the processes."""
        if self.is_alone:
            return list(numbers)
        return self._accelerator.reduce(torch.tensor(numbers, device=self._accelerator.device)).tolist()

    def check_equal(self, policy: object, selection: Selection, forecast: int, round: int) -> None:
        """Check that the policy selects the same rows in every process, before any row is trained.

        Args:
            policy: The policy, for the message.
            selection: Its selection in this process.
            forecast: The number of rows that it forecasts in this process.
            round: Number of the round.

        Raises:
            ValueError: A process differs from the main process. Every process raises it; the message names the process
                and the parts that differ.
        """
        answer = {
            "rows": _checksum(selection.rows),
            "weights": _checksum(selection.weights),
            "rescore": _checksum(selection.rescore),
            "lr_scale": _checksum(np.array([selection.lr_scale])),
            "forecast": forecast,
        }
        main, *others = self.gather([*answer.values()])
        for process, numbers in enumerate(others, 1):
            if numbers != main:
                differing = [name for name, one, other in zip(answer, numbers, main, strict=True) if one != other]
                raise ValueError(
                    f"The policy {type(policy).__name__} answers otherwise in process {process} than in the main "
                    f"one, in {' and '.join(differing)} of round {round}, and their models would drift apart: every "
                    "process must come to the same answer by history, clock and rng, without random generators of its "
                    "own, the time, or what only one process knows."
                )


def _checksum(array: np.ndarray | None) -> int:
    return 0 if array is None else zlib.crc32(np.ascontiguousarray(array).data, len(array))
