"""Row numbers that travel inside the batch, and a sampler that leaves rows out of the stock order."""

import itertools
import random
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler, SequentialSampler

from ..common.generators import unchanged_generators
from ..core.ranking import marked
from .grouping import group, lengths_as_ranks

ROW = "hf_prune_row"  # the batch's key for its (B,) int64 row numbers
PARTS = "hf_prune_parts"  # and, of rows joined into one sequence of T tokens, for (B, T) bool: which tokens are whose
_CHUNK = 1 << 16  # rows handled at a time
_STOCK = {"RandomSampler": "random", "SequentialSampler": "sequential", "LengthGroupedSampler": "grouped"}


class Numbered(NamedTuple):
    """An example and its row number in the training set."""

    row: int
    example: Any


class RowDataset(Dataset):
    """The user's data set, each example with its row number; every other attribute is the user's, also when it is set.

    Attributes:
        dataset: The user's data set, untouched.
        total_dataset_length: Rows in the epoch in progress, which accelerate reads to size the last batch.
    """

    def __init__(self, dataset):
        self.dataset = dataset
        self.total_dataset_length = len(dataset)

    def __setattr__(self, name: str, value: Any):
        if name in ("dataset", "total_dataset_length"):
            super().__setattr__(name, value)
        else:
            setattr(self.dataset, name, value)

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, row: int) -> Numbered:
        return Numbered(row, self.dataset[row])

    def __getitems__(self, rows: list[int]) -> list[Numbered]:
        fetch = getattr(self.dataset, "__getitems__", None)  # many rows at once, where the data set can
        examples = fetch(rows) if fetch else [self.dataset[row] for row in rows]
        return list(map(Numbered, rows, examples))

    def __getattr__(self, name: str):
        if name == "dataset":  # not set yet: unpickling in a worker
            raise AttributeError(name)
        return getattr(self.dataset, name)


class Batch:
    """A numbered training batch, which is known again by its tensors when its numbers have been taken out.

    Args:
        rows: (B,) int64, its row numbers.
        parts: (B, T) bool, which tokens are whose, where the rows were joined into one sequence; else None.
        inputs: What the model gets; not kept alive.

    Attributes:
        is_recorded: Whether its losses have been taken in; a loss may be computed of it several times.
    """

    def __init__(self, rows: torch.Tensor, parts: torch.Tensor | None, inputs: Mapping[str, Any]):
        self.rows, self.parts, self.is_recorded = rows, parts, False
        tensors = (value for value in without_rows(inputs).values() if isinstance(value, torch.Tensor))
        self._tensors = [weakref.ref(tensor) for tensor in tensors]

    def has(self, inputs: Mapping[str, Any]) -> bool:
        """Whether some tensor of `inputs` is one of this batch's."""
        alive = [tensor() for tensor in self._tensors]
        return any(value is tensor for value in inputs.values() for tensor in alive if tensor is not None)


def without_rows(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A batch as the user's collator made it."""
    return {name: value for name, value in inputs.items() if name not in (ROW, PARTS)}


class RowCollator:
    """The user's collator; the row numbers stand beside its batch under the key `ROW`.

    Where the user's joins the examples into one sequence, `PARTS` says where each of them is.
    """

    def __init__(self, collator: Callable[[list], MutableMapping]):
        self.collator = collator
        self.is_checked = False

    def __call__(self, numbered: list[Numbered]) -> MutableMapping:
        batch = self.collator([example for _, example in numbered])
        if not isinstance(batch, MutableMapping):
            raise TypeError(
                f"data_collator returned a {type(batch).__name__}; row numbers can travel in a mapping only. "
                "Return a dict of tensors, as `Trainer` feeds it to the model."
            )
        examples = [example for _, example in numbered]  # anew: the collator may have sorted its list
        if not self.is_checked:
            self.is_checked = True
            _check_order(examples, batch)
        batch[ROW] = torch.tensor([row for row, _ in numbered], dtype=torch.int64)
        parts = _parts(batch.get("input_ids"), examples)
        if parts is not None:
            batch[PARTS] = parts
        return batch


def _check_order(examples: list, batch: MutableMapping) -> None:
    """Refuse a batch of as many rows as examples that are other examples than those in their places.

    Only what is in the batch as it is in the examples can tell: arrays, and sequences padded at one end. What the
    collator makes anew (masked, augmented, tokenized) says nothing, nor do examples that begin alike to the end of one.

    Raises:
        ValueError: Every row is one of the examples, but not all of them are the ones in their places.
    """
    if not all(isinstance(example, Mapping) for example in examples):
        return
    moved = None
    for name, values in batch.items():
        is_plain = isinstance(values, torch.Tensor) and values.layout is torch.strided and not values.is_nested
        if not is_plain or values.dim() < 2 or not 1 < len(values) == len(examples):
            continue
        sources = _as_tensors(examples, name, values)
        if sources is None or not _differ(sources):
            continue
        if all(map(_fits, values, sources)):
            return
        if all(any(_fits(value, source) for source in sources) for value in values):
            moved = name
    if moved is not None:
        raise ValueError(
            f"data_collator returned {moved!r} of an example in the place of another: it replaces or reorders them, "
            "and what is learnt of one would be noted of another. Return one row for each example, in the order given "
            "(leave rows out of train_dataset instead), or train without a policy."
        )


def _as_tensors(examples: list, name: str, like: torch.Tensor) -> list[torch.Tensor] | None:
    """What the examples have under a name, in the type of `like`; None where some have nothing, or no numbers."""
    try:
        values = [example[name] for example in examples]
        tensors = [value if isinstance(value, torch.Tensor) else torch.tensor(np.asarray(value)) for value in values]
        return [tensor.detach().to_dense().resolve_conj().to(like) for tensor in tensors]
    except (LookupError, TypeError, ValueError, RuntimeError):
        return None


def _differ(tensors: list[torch.Tensor]) -> bool:
    """Whether none of the tensors begins or ends with all of another, as an empty one does of every other."""
    if not all(tensor.numel() for tensor in tensors):
        return False
    contents = [tensor.contiguous().view(-1).view(torch.uint8).cpu().numpy().tobytes() for tensor in tensors]
    for some in (sorted(contents), sorted(content[::-1] for content in contents)):
        if any(after.startswith(before) for before, after in itertools.pairwise(some)):  # all with one beginning adjoin
            return False
    return True


def _fits(value: torch.Tensor, source: torch.Tensor) -> bool:
    """Whether `value` is `source`, or a sequence that is `source` and, before or after it, one number repeated."""
    padding = len(value) - len(source) if value.dim() == source.dim() == 1 else 0
    if padding <= 0:
        return torch.equal(value, source)
    for kept, rest in ((value[:-padding], value[-padding:]), (value[padding:], value[:padding])):
        if torch.equal(kept, source) and bool((rest == rest[0]).all()):
            return True
    return False


def _parts(ids: Any, examples: list) -> torch.Tensor | None:
    """(B, T) bool: which of the T tokens are whose, where `ids` are all B examples one after another; else None."""
    is_one = isinstance(ids, torch.Tensor) and ids.dim() == 2 and len(ids) == 1 < len(examples)
    if not is_one or not all(isinstance(example, Mapping) for example in examples):
        return None
    texts = _as_tensors(examples, "input_ids", ids)
    if texts is None or any(text.dim() != 1 for text in texts):
        return None
    ends = np.cumsum([len(text) for text in texts]).tolist()
    if not torch.equal(torch.cat(texts), ids[0, : ends[-1]]):
        return None
    parts = torch.zeros(len(texts), ids.shape[1], dtype=torch.bool)
    for part, begin, end in zip(parts, [0, *ends], ends, strict=False):
        part[begin:end] = True
    return parts


class PruningSampler(Sampler[int]):
    """Yields the planned rows in the order that the stock sampler gives to all rows, or grouped by length.

    Args:
        base: The stock sampler: random without replacement, sequential (as None is), or `LengthGroupedSampler`, whose
            lengths are taken and grouped by `grouping.group`; or one with an order of its own, which is kept if it
            gives each row once, and the same order however often it is asked; with `set_epoch`, in the same epoch.
        n: Rows of the training set.
        seed: Seed of the order; epoch e draws from a private generator seeded with seed + e. An order of the sampler's
            own does not follow it. In a grouped order, round r shuffles the units by numpy's generator of (seed, r).
        unit: Rows that are trained side by side, a batch for each process: they have like lengths in a grouped order.

    Attributes:
        kind: "random", "sequential", "grouped" or, for an order of the sampler's own, "own".

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
        self.length = n
        self._latest: tuple[tuple[int, int], torch.Tensor] | None = None
        self.plan(0, np.arange(n))

    @property
    def is_own(self) -> bool:
        """Whether the order is the sampler's own."""
        return self.kind == "own"

    def _check_whole(self) -> None:
        """Make sure that the order is one of all rows, which can be had again.

        Raises:
            ValueError: It is not.
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
        first = self._draw_own(0)
        if not all(torch.equal(first, self._draw_own(0, draws_before=draws)) for draws in (1, 2, 3)):
            self._refuse("it gives another order each time that it is asked, and a resumed run could not go on with it")

    def _refuse(self, reason: str) -> None:
        raise ValueError(
            f"The training sampler is a {type(self.base).__name__}, whose order can't be filtered row by row: {reason}."
            " Use train_sampling_strategy='random', 'sequential' or 'group_by_length', or train without a policy."
        )

    def part(self, epoch: int, begin: int, end: int) -> np.ndarray:
        """(M,) int64, sorted: the rows from place `begin` to place `end` (not included) in the order of an epoch.

        Rows are grouped by length after the choice, within such a part; until then their order is random.
        """
        return np.sort(self._order_of(epoch)[begin:end].numpy())

    def plan(self, epoch: int, rows: np.ndarray, round: int | None = None) -> None:
        """From now on, an iteration yields `rows`, (K,) int64, in the order of `epoch`.

        `round` is the number of the round; None = that of the epoch.
        """
        self.epoch = epoch
        self.rows = rows
        self._round = epoch if round is None else round
        self.length = len(rows)

    @contextmanager
    def considering(self, rows: np.ndarray) -> Iterator[None]:
        """Within the block, so many rows are taken for `rows`, (K,) int64, by whoever cuts batches of them."""
        planned, self.rows = self.rows, rows
        try:
            yield
        finally:
            self.rows = planned

    def __len__(self):
        return self.length

    def order(self) -> torch.Tensor:
        """(K,) int64, the planned rows in the order of the epoch."""
        order = self._filtered(self._order_of(self.epoch))
        if self._ranks is None:
            return order
        rng = np.random.default_rng([self.seed % 2**64, self._round])
        return torch.from_numpy(group(order.numpy(), self._ranks, self.unit, rng, longest_first=self._round == 0))

    def _filtered(self, order: torch.Tensor) -> torch.Tensor:
        if len(self.rows) == self.n:
            return order
        kept, filtered, end = marked(self.rows, self.n), np.empty(len(self.rows), np.int64), 0
        for places in map(torch.Tensor.numpy, order.split(_CHUNK)):  # in parts that stay in a processor's cache
            part = places[kept[places]]
            filtered[end : end + len(part)] = part
            end += len(part)
        return torch.from_numpy(filtered[:end])

    def _order_of(self, epoch: int) -> torch.Tensor:
        """(N,) int64, all rows in the order of an epoch; the latest is kept, for the parts of its epoch."""
        key = self.seed, epoch
        if self._latest is None or self._latest[0] != key:
            self._latest = (key, self._draw_own(epoch) if self.is_own else self._draw(self.seed + epoch))
        return self._latest[1]

    def _draw(self, seed: int) -> torch.Tensor:
        if self.kind == "sequential":
            return torch.arange(self.n)
        # The same generator as accelerate's SeedableRandomSampler: a full selection is Trainer's own order.
        return torch.randperm(self.n, generator=torch.Generator().manual_seed(seed))

    def _draw_own(self, epoch: int, draws_before: int = 0) -> torch.Tensor:
        """The sampler's own order in an epoch, if it is one of all rows; `draws_before` moves the global generators."""
        with unchanged_generators():
            for _ in range(draws_before):
                _ = random.random(), np.random.random(), torch.rand(1)  # noqa: NPY002
            if hasattr(self.base, "set_epoch"):  # as accelerate does
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
        """Of what shapes the order beside the seed: lengths, or the first epoch of the sampler's own; 0 = nothing."""
        shape = self._order_of(0).numpy() if self.is_own else self._ranks
        return 0 if shape is None else zlib.crc32(shape.data)

    def __iter__(self) -> Iterator[int]:
        for chunk in self.order().split(_CHUNK):
            yield from chunk.tolist()


def _kind_of(base: Any) -> str:
    """Which order a sampler gives: one of torch, transformers or accelerate, or its own."""
    where = getattr(getattr(type(base), "__iter__", None), "__module__", None) or ""
    if where.partition(".")[0] in ("torch", "transformers", "accelerate"):
        for cls in type(base).__mro__:
            if cls.__name__ in _STOCK:
                return _STOCK[cls.__name__]
    return "own"


def check_equal_batches(loader: DataLoader, rows: int | None = None) -> None:
    """Make sure that all processes get equally many batches: where not, some would wait for the others for ever.

    Args:
        loader: The training loader that accelerate has shared out.
        rows: Rows in a round; None = a number that nobody knows beforehand.

    Raises:
        ValueError: `even_batches=False` gives them unequally many.
    """
    shard: Any = getattr(loader, "batch_sampler", None)  # a trainer of one's own may have wrapped it
    if getattr(shard, "even_batches", True) or shard.drop_last:  # one process, or read by one, or filled up, or cut off
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
