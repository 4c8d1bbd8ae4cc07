"""What the steps of a round measured: kept on the device, gathered once a round."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from ..core.ranking import marked

Gather = Callable[[list[torch.Tensor], int], tuple[list[torch.Tensor], int]]
_HELD = 4096  # batches on the device, at most; each log brings them to the host
_CHUNK = 1 << 22  # visits in one collective: bounds the memory for its copies


@dataclass
class Measurements:
    """Visits of rows in the order of training. A row may have several visits.

    Attributes:
        rows: (V,) int64.
        tokens: (V,) int64, real tokens of the row; -1 where a row's several texts are not told apart.
        values: (S, V) float32, one line a signal, the loss first, then one an extra; S = 0 where nothing is measured.
            A loss is NaN where the batch could not be read, infinity where it is no finite number, minus infinity where
            the row had no target.
        padded_tokens: Positions that went through the model, padding included.
    """

    rows: np.ndarray
    tokens: np.ndarray
    values: np.ndarray
    padded_tokens: int

    def of_signals(self, names: Sequence[str], wanted: Sequence[str]) -> "Measurements":
        """The same visits with other signals; a signal that they do not have is NaN.

        Args:
            names: The signals of `values`, in order.
            wanted: The signals to have.
        """
        values = np.full((len(wanted), len(self.rows)), np.nan, np.float32)
        for line, name in enumerate(wanted):
            if len(self.values) and name in names:
                values[line] = self.values[names.index(name)]
        return replace(self, values=values)

    def by_row(self, marks: np.ndarray, extras: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Each row once, with the mean of its visits that had a loss (accelerate fills up batches with repeats).

        Args:
            marks: (N,) bool, the rows that were visited.
            extras: How many of the last lines are those of extras, which may be numbers of classes: they have no mean,
                so the last visit's counts.

        Returns:
            rows (K,) int64, tokens (K,) int64, values (S, K) float32.
        """
        rows, n = self.rows, len(marks)
        if np.count_nonzero(marks) == len(rows):
            return rows, self.tokens, self.values
        visits, last = np.arange(len(rows)), np.empty(n, np.int64)
        last[rows] = visits
        is_last = last[rows] == visits
        means = np.copy(self.values)
        few = np.flatnonzero(marked(rows[~is_last], n)[rows])  # visits of rows that repeat: only these are sorted
        few = few[np.argsort(rows[few], kind="stable")]
        first = np.flatnonzero(np.diff(rows[few], prepend=-1))
        values = self.values[:, few].astype(np.float64)
        has_loss = values[:1] > -np.inf  # NaN compares false
        counts = np.add.reduceat(has_loss, first, axis=1, dtype=np.int64)
        sums = np.add.reduceat(np.where(has_loss, values, 0), first, axis=1)
        own = slice(len(means) - extras)
        repeated = np.where(counts, sums / np.maximum(counts, 1), values[:, first])
        means[own, last[rows[few[first]]]] = repeated[own]
        return rows[is_last], self.tokens[is_last], means[:, is_last]


class Drained(NamedTuple):
    """The visits that were on the device, now on the host.

    Attributes:
        losses: (V,) float32, empty where none is measured.
        weights: (V,) float32, the rows' weights in the round; None where all are 1.
        tokens: (V,) int64, as in `Measurements`.
        positions: Positions of their batches, padding included.
    """

    losses: np.ndarray
    weights: np.ndarray | None
    tokens: np.ndarray
    positions: int


class Recorder:
    """Collects the measurements of this process without synchronising.

    Rows and losses never share a tensor: a row's number would not survive in float32.

    Args:
        signals: Number S of signals and extras measured per visit, the loss first; 0 = rows and tokens alone.

    Attributes:
        widths: Positions of a row in this process's batches: the first two different numbers.
    """

    def __init__(self, signals: int):
        self._signals = signals
        self._on_device: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._weights: list[torch.Tensor] = []  # of the visits on the device
        self._on_host: list[tuple[np.ndarray, np.ndarray]] = []
        self._visits = 0
        self._padded_tokens = 0
        self._brought = 0  # of these, the positions that `drain` has returned
        self.widths: set[float] = set()
        self._before_step = self.counts()

    def begin_step(self) -> None:
        """An optimizer step begins: batches that are added from now on belong to it."""
        self._before_step = self.counts()

    def add(
        self,
        rows: torch.Tensor,
        tokens: torch.Tensor,
        values: list[torch.Tensor],
        padded_tokens: int,
        weights: torch.Tensor | None = None,
    ) -> None:
        """Take in a batch.

        Args:
            rows: (B,) int64.
            tokens: (B,) int64.
            values: S of (B,) float32.
            padded_tokens: The batch's positions.
            weights: (B,) float32, the rows' weights in the round; None = 1.
        """
        ids = torch.stack([rows, tokens])
        floats = torch.stack(values) if values else torch.empty((0, len(rows)), device=rows.device)
        self._on_device.append((ids, floats))
        if weights is not None:
            self._weights.append(weights)
        self._visits += len(rows)
        self._padded_tokens += padded_tokens
        if padded_tokens and len(self.widths) < 2:
            self.widths.add(padded_tokens / len(rows))
        if len(self._on_device) >= _HELD:
            self.drain()

    def restore(self, measured: Measurements) -> None:
        """Take in the visits that a checkpoint has of the round in progress, with the signals that are measured now."""
        self._on_host.append((np.stack([measured.rows, measured.tokens]), measured.values))
        self._visits += len(measured.rows)
        self._padded_tokens += measured.padded_tokens
        self._brought += measured.padded_tokens

    def drain(self) -> Drained:
        """Bring the visits on the device to the host, in one transfer of each kind."""
        if not self._on_device:
            return Drained(np.empty(0, np.float32), None, np.empty(0, np.int64), 0)
        weights = torch.cat(self._weights).cpu().numpy() if self._weights else None
        self._weights = []
        ids, floats = zip(*self._on_device, strict=True)
        self._on_device = []
        host = torch.cat(ids, dim=1).cpu().numpy(), torch.cat(floats, dim=1).cpu().numpy()
        self._on_host.append(host)
        losses = host[1][0] if self._signals else np.empty(0, np.float32)
        positions, self._brought = self._padded_tokens - self._brought, self._padded_tokens
        return Drained(losses, weights, host[0][1], positions)

    def counts(self) -> tuple[int, int]:
        """Visits and positions of this process so far."""
        return self._visits, self._padded_tokens

    def collect(self, gather: Gather, in_step: bool = False) -> Measurements:
        """Everything that all processes have measured so far; changes nothing: a checkpoint may call it at any step.

        Args:
            gather: Joins the arrays of the processes, as `gather_columns` does.
            in_step: An optimizer step has begun and is not done: leave it out.
        """
        self.drain()
        visits, padded_tokens = self._before_step if in_step else self.counts()
        if len(self._on_host) != 1:
            empty = (np.empty((2, 0), np.int64), np.empty((self._signals, 0), np.float32))
            ids, floats = (np.concatenate(parts, axis=1) for parts in zip(empty, *self._on_host, strict=True))
            self._on_host = [(ids, floats)]
        mine = [torch.as_tensor(array[:, :visits]) for array in self._on_host[0]]
        joined, padded = gather(mine, padded_tokens)
        ids, values = (array.numpy() for array in joined)
        return Measurements(ids[0], ids[1], values, padded)


def gather_columns(accelerator: Any, arrays: list[torch.Tensor], count: int) -> tuple[list[torch.Tensor], int]:
    """Join the arrays of the processes: one small collective for the sizes, then one for each array or chunk of it.

    Args:
        accelerator: Runs the collectives.
        arrays: (S, V) on the host, of any dtype. V is the same for all arrays of a process, not for all processes.
        count: A number to add up over the processes.

    Returns:
        The arrays of all processes side by side, (S, sum of V), in the order of the processes; the sum of the counts.
    """
    if accelerator.num_processes == 1:
        return arrays, count
    mine = torch.tensor([[arrays[0].shape[1], count]], device=accelerator.device)
    sizes, counts = accelerator.gather(mine).T.tolist()
    return [_join(accelerator, array, sizes) for array in arrays], sum(counts)


def gather_numbers(accelerator: Any, numbers: Sequence[int]) -> list[list[int]]:
    """The numbers of every process, as int64: one small collective.

    Args:
        accelerator: Runs the collective.
        numbers: The same count of numbers in every process.

    Returns:
        The numbers of each process, in the order of the processes.
    """
    if accelerator.num_processes == 1:
        return [list(numbers)]
    return accelerator.gather(torch.tensor([numbers], dtype=torch.int64, device=accelerator.device)).tolist()


def _join(accelerator: Any, array: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    joined = array.new_empty(len(array), sum(sizes))
    parts, longest = torch.split(joined, sizes, dim=1), max(sizes)
    for begin in range(0, longest if len(array) else 0, _CHUNK):
        mine = array[:, begin : begin + _CHUNK]
        padded = array.new_zeros(1, len(array), min(_CHUNK, longest - begin))
        padded[0, :, : mine.shape[1]] = mine
        for part, theirs in zip(parts, accelerator.gather(padded.to(accelerator.device)).cpu(), strict=True):
            room = part[:, begin : begin + _CHUNK]
            room.copy_(theirs[:, : room.shape[1]])
    return joined
