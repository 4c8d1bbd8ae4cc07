"""A sampler that leaves rows out of Trainer's order, and counts the optimizer steps that the rows of a round make."""

import itertools
import math
import random
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler, SequentialSampler

from ..common.generators import unchanged_generators
from ..core.ranking import marked
from .grouping import group, lengths_as_ranks

_CHUNK = 1 << 16  # rows handled at a time
_FEW = 8  # most parts of a list that we search for the sampler, such as a list of joined loaders
_STOCK = {"RandomSampler": "random", "SequentialSampler": "sequential", "LengthGroupedSampler": "grouped"}


class PruningSampler(Sampler[int]):
    """Yields the planned rows in the order that the base sampler gives to all rows, or grouped by length.

    Args:
        base: The sampler that would be used without a policy. It is random without replacement; sequential (None also
            means this); a `LengthGroupedSampler`, whose lengths go to `grouping.group`; or a user's own sampler. The
            order of a user's own sampler is kept if it gives each row once and repeats the same order each time (in
            the same epoch, if it has `set_epoch`).
        n: Rows of the training set.
        seed: Seed of the order; epoch e draws from a private generator seeded with seed + e. A user's own sampler does
            not follow it. In a grouped order, round r shuffles the units by numpy's generator of (seed, r).
        unit: Rows that are trained at a time, a batch for each process. In a grouped order they have similar lengths.

    Attributes:
        kind: "random", "sequential", "grouped", or "own" for a user's own sampler.

    Raises:
        ValueError: The order of `base` can't be filtered.
    """

    def __init__(self, base: Iterable[int] | None, n: int, seed: int, unit: int = 1):
        self.base = SequentialSampler(range(n)) if base is None else base
        self.n = n
        self.seed = seed
        self.unit = unit
        self.kind = _kind_of(self.base)
        self._check_whole()
        self._ranks = lengths_as_ranks(self.base.lengths) if self.kind == "grouped" else None  # pyright: ignore[reportAttributeAccessIssue]
        self._count: _BatchCount | None = None
        self._stand: _Stand | None = None
        self._accumulation = 1
        self._latest: tuple[tuple[int, int], torch.Tensor] | None = None
        self.plan(0, np.arange(n))

    @property
    def is_own(self) -> bool:
        """Whether the order comes from a user's own sampler."""
        return self.kind == "own"

    def _check_whole(self) -> None:
        """Check that the base sampler gives each row once, and can repeat its order.

        Raises:
            ValueError: It can't.
        """
        base: Any = self.base
        if self.kind == "random" and base.replacement:
            self._refuse("it draws with replacement")
        if not self.is_own and len(base) != self.n:
            self._refuse(f"it gives {len(base)} of the {self.n} rows")
        if self.is_own and isinstance(base, RandomSampler):
            self._refuse(
                "it descends from RandomSampler, in whose place accelerate puts a random order; derive it from "
                "torch.utils.data.Sampler, and the order of its own is kept where it is the same every time"
            )
        if not self.is_own:
            return
        # a sampler that reads the global generators gives another order once they have moved
        first = self._draw_own(0)
        if not all(torch.equal(first, self._draw_own(0, draws_before=draws)) for draws in (1, 2, 3)):
            self._refuse("it gives another order each time that it is asked, and a resumed run could not go on with it")

    def _refuse(self, reason: str) -> None:
        raise ValueError(
            f"The training sampler is a {type(self.base).__name__}, whose order can't be filtered row by row: {reason}."
            " Use train_sampling_strategy='random', 'sequential' or 'group_by_length', or train without a policy."
        )

    def part(self, epoch: int, begin: int, end: int) -> np.ndarray:
        """Return the rows in a slice of an epoch's permutation.

        Grouping by length happens later, among the rows selected from this slice; here the order is still random.

        Args:
            epoch: Number of the epoch, from 0.
            begin: First position of the slice.
            end: Position after the last.

        Returns:
            (M,) int64, the rows at these positions, sorted.
        """
        return np.sort(self._order_of(epoch)[begin:end].numpy())

    def plan(self, epoch: int, rows: np.ndarray, round: int | None = None) -> None:
        """Set the rows that an iteration yields from now on.

        Args:
            epoch: The epoch whose order is used.
            rows: (K,) int64.
            round: Number of the round, which seeds the shuffle of a grouped order; None = the number of the epoch.
        """
        self.epoch = epoch
        self.rows = rows
        self._round = epoch if round is None else round

    def is_cut_by(self, loader: Any, accumulation: int = 1) -> None:
        """Set the loader that cuts the rows into batches, for `steps_for`.

        Args:
            loader: The training loader, which uses this sampler.
            accumulation: Batches in an optimizer step.

        Raises:
            ValueError: We can't find this sampler inside the loader.
        """
        self._count, self._accumulation = _BatchCount(loader, self), accumulation

    def steps_for(self, rows: np.ndarray | int) -> int:
        """Return the optimizer steps of a pass over some rows. The planned rows do not change.

        Args:
            rows: (K,) int64; or only their number K, if the rows are not known yet. If K rows are planned, those count.

        Returns:
            The number of steps; 0 if the rows fill no batch.

        Raises:
            ValueError: The processes would get different numbers of batches, or `is_cut_by` was not called.
        """
        if self._count is None:
            raise ValueError("PruningSampler.steps_for: say who cuts the batches first, by is_cut_by(loader).")
        batches = self._count(self.rows, rows) if isinstance(rows, int) else self._count(rows, len(rows))
        return math.ceil(batches / self._accumulation)

    @contextmanager
    def replaced(self, stand: "_Stand") -> Iterator[None]:
        """Within the block, `stand` answers in this one's place."""
        self._stand = stand
        try:
            yield
        finally:
            self._stand = None

    def __len__(self):
        return len(self.rows if self._stand is None else self._stand)

    def order(self, rows: np.ndarray | None = None) -> torch.Tensor:
        """Return the planned rows, (K,) int64, or the given `rows` instead, in the order of the epoch."""
        order = self._filtered(self._order_of(self.epoch), self.rows if rows is None else rows)
        if self._ranks is None:
            return order
        rng = np.random.default_rng([self.seed % 2**64, self._round])
        return torch.from_numpy(group(order.numpy(), self._ranks, self.unit, rng, longest_first=self._round == 0))

    def _filtered(self, order: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        if len(rows) == self.n:
            return order
        kept, filtered, end = marked(rows, self.n), np.empty(len(rows), np.int64), 0
        for places in map(torch.Tensor.numpy, order.split(_CHUNK)):  # in parts that fit in the processor's cache
            part = places[kept[places]]
            filtered[end : end + len(part)] = part
            end += len(part)
        return torch.from_numpy(filtered[:end])

    def _order_of(self, epoch: int) -> torch.Tensor:
        """Return all rows, (N,) int64, in the order of an epoch. The latest order is kept for the other rounds."""
        key = self.seed, epoch
        if self._latest is None or self._latest[0] != key:
            self._latest = (key, self._draw_own(epoch) if self.is_own else self._draw(self.seed + epoch))
        return self._latest[1]

    def _draw(self, seed: int) -> torch.Tensor:
        if self.kind == "sequential":
            return torch.arange(self.n)
        # The same generator as in accelerate's SeedableRandomSampler: if all rows are kept, the order is Trainer's own.
        return torch.randperm(self.n, generator=torch.Generator().manual_seed(seed))

    def _draw_own(self, epoch: int, draws_before: int = 0) -> torch.Tensor:
        """Return the order of a user's own sampler in an epoch, and check that it gives each row once.

        Args:
            epoch: Number of the epoch, from 0.
            draws_before: Draws from the global generators before; the order must not depend on them.

        Raises:
            ValueError: The sampler does not give each row once.
        """
        with unchanged_generators():
            for _ in range(draws_before):
                _ = random.random(), np.random.random(), torch.rand(1)  # noqa: NPY002
            if hasattr(self.base, "set_epoch"):  # accelerate does the same before each epoch
                self.base.set_epoch(epoch)  # pyright: ignore[reportAttributeAccessIssue]
            rows = itertools.islice(self.base, self.n + 1)
            try:
                order = np.fromiter(rows, np.int64)
            except (TypeError, ValueError):
                self._refuse("it gives something else than row numbers, as batches of them")
        if not np.array_equal(np.sort(order), np.arange(self.n)):
            self._refuse(f"it does not give each of the {self.n} rows once")
        return torch.from_numpy(order)

    def checksum(self) -> int:
        """Return a checksum of what decides the order besides the seed.

        This is the lengths, or the first epoch of a user's own sampler; 0 = the seed alone decides.
        """
        shape = self._order_of(0).numpy() if self.is_own else self._ranks
        return 0 if shape is None else zlib.crc32(shape.data)

    def __iter__(self) -> Iterator[int]:
        for chunk in self.order(None if self._stand is None else self._stand.take()).split(_CHUNK):
            yield from chunk.tolist()


def _kind_of(base: Any) -> str:
    """Return the kind of order that a sampler gives: a known one of torch, transformers or accelerate, or "own"."""
    where = getattr(getattr(type(base), "__iter__", None), "__module__", None) or ""
    if where.partition(".")[0] in ("torch", "transformers", "accelerate"):
        for cls in type(base).__mro__:
            if cls.__name__ in _STOCK:
                return _STOCK[cls.__name__]
    return "own"


class _Stand(Sampler[int]):
    """Replaces the sampler in a copy of its loader. It has the rows and the length that we ask about.

    Attributes:
        is_asked: Whether the loader has read its length or its rows.
    """

    def __init__(self, sampler: PruningSampler):
        self.n = sampler.n
        self.rows = sampler.rows
        self.length = len(sampler)
        self.is_asked = False
        self._sampler = sampler

    def take(self) -> np.ndarray:
        """(K,) int64, the rows."""
        self.is_asked = True
        return self.rows

    def __len__(self):
        self.is_asked = True
        return self.length

    def __iter__(self) -> Iterator[int]:  # for batches whose number depends on which rows they are, as by their tokens
        return iter(self._sampler.order(self.take()).tolist())


class _BatchCount:
    """Computes how many batches a loader would make from rows other than the planned ones.

    Only the loader knows all the options for cutting batches (drop_last, even_batches, split_batches, dispatch_batches,
    a trainer's own batch sampler), so we ask for its length. We ask a copy of the loader in which a stand-in replaces
    the sampler. The loader itself may be in use, and always sees the length of the planned rows. Some loaders keep the
    sampler where no copy can reach it. We ask such a loader itself, while the sampler answers as its stand-in.
    """

    def __init__(self, loader: Any, sampler: PruningSampler):
        self._stand = _Stand(sampler)
        self._sampler = sampler
        self._loader = _around(loader, sampler, self._stand)
        self._is_hidden = self._loader is loader
        if self._is_hidden and not self._asks(sampler):
            raise ValueError(
                f"{type(loader).__name__}, the training loader, shows no way to Trainer's own sampler, so nobody can "
                "say how many batches a part of the rows makes. Keep the stock loader in an attribute of it, or train "
                "without a policy."
            )

    def _asks(self, sampler: PruningSampler) -> bool:
        """Whether the loader counts the sampler's rows for its own length."""
        with sampler.replaced(self._stand):
            _ = len(self._loader)
        return self._stand.is_asked

    def __call__(self, rows: np.ndarray, length: int) -> int:
        """Return the number of batches.

        Args:
            rows: (K,) int64, the rows. If K differs from `length`, the count does not depend on them.
            length: Number of rows.
        """
        check_equal_batches(self._loader, length)
        self._stand.rows, self._stand.length = rows, length
        with self._sampler.replaced(self._stand) if self._is_hidden else nullcontext():
            return len(self._loader)


def _around(part: Any, sampler: PruningSampler, stand: _Stand, above: tuple[int, ...] = ()) -> Any:
    """Return a part of a loader with `stand` for `sampler`: a shallow copy if it holds `sampler`, else itself."""
    if part is sampler:
        return stand
    is_several, above = type(part) in (list, tuple), (*above, id(part))
    named = dict(enumerate(part)) if is_several else _own_attributes(part)
    inner = {name: value for name, value in named.items() if name != "dataset" and _may_hold(value, above)}
    copies = {name: _around(value, sampler, stand, above) for name, value in inner.items()}
    if all(copies[name] is inner[name] for name in inner):
        return part
    if is_several:
        return type(part)((named | copies).values())
    copy = object.__new__(type(part))  # filled by `__dict__`: a DataLoader forbids setting its attributes later
    copy.__dict__.update(named | copies)
    return copy


def _own_attributes(part: Any) -> dict[str, Any]:
    """Of an object, and not of one that it hands questions on to."""
    try:
        return object.__getattribute__(part, "__dict__")
    except AttributeError:
        return {}


def _may_hold(value: Any, above: tuple[int, ...]) -> bool:
    """Whether a sampler may be inside a value. Loaders, samplers and users' wrappers of them all have a length."""
    if type(value) in (list, tuple):
        return len(value) <= _FEW
    is_sized = hasattr(type(value), "__len__") and bool(_own_attributes(value))
    return is_sized and id(value) not in above and not isinstance(value, (Dataset, torch.Tensor))


def check_equal_batches(loader: DataLoader, rows: int | None = None) -> None:
    """Check that all processes get the same number of batches. Otherwise some processes would wait forever.

    Args:
        loader: The training loader, prepared by accelerate.
        rows: Rows in a round; None = the number is not known in advance.

    Raises:
        ValueError: With `even_batches=False`, the processes would get different numbers of batches.
    """
    shard: Any = getattr(loader, "batch_sampler", None)  # a user's trainer may have wrapped the loader
    # no even_batches: one process trains, or one reads for all; if it is true, last batches are filled up
    if getattr(shard, "even_batches", True) or shard.drop_last:
        return
    if rows is not None:
        if shard.split_batches:
            rest, slice_rows = rows % shard.batch_size, shard.batch_size // shard.num_processes
            is_equal = rest == 0 or rest > slice_rows * (shard.num_processes - 1)
        else:
            is_equal = -(-rows // shard.batch_size) % shard.num_processes == 0
        if is_equal:
            return
    number = "the number of rows that the policy keeps" if rows is None else f"{rows} kept rows"
    raise ValueError(
        f"accelerator_config: even_batches=False can't share {number} out to {shard.num_processes} processes in "
        f"equally many batches of {shard.batch_size}, and training would hang. Use even_batches=True, which repeats "
        "some rows to fill the last batches, or dataloader_drop_last=True, which leaves some out."
    )
