"""Row numbers that travel inside the batch, beside the output of the user's collator."""

import itertools
import weakref
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

ROW = "hf_prune_row"  # the batch's key for its (B,) int64 row numbers
# The key for (B, T) bool where the B rows are joined into one sequence of T tokens: which tokens belong to which row.
PARTS = "hf_prune_parts"


class Numbered(NamedTuple):
    """An example and its row number in the training set."""

    row: int
    example: Any


class RowDataset(Dataset):
    """The user's data set, each example with its row number. All other attributes are those of the user's data set.

    Attributes:
        dataset: The user's data set, unchanged.
        total_dataset_length: Rows in the round in progress; accelerate reads it to size the last batch.
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
        fetch = getattr(self.dataset, "__getitems__", None)  # reads many rows at once, if the data set can do that
        examples = fetch(rows) if fetch else [self.dataset[row] for row in rows]
        return list(map(Numbered, rows, examples))

    def __getattr__(self, name: str):
        if name == "dataset":  # not set yet while a worker unpickles this object: avoid endless recursion
            raise AttributeError(name)
        return getattr(self.dataset, name)


class Batch:
    """A numbered training batch. After its row numbers are removed from the inputs, its tensors still identify it.

    Args:
        rows: (B,) int64, the row numbers.
        parts: (B, T) bool, which tokens belong to which row, if the rows were joined into one sequence; else None.
        inputs: The inputs of the model; this object holds only weak references to them.

    Attributes:
        is_recorded: Whether its losses are already recorded; a trainer may compute the loss of a batch several times.
    """

    def __init__(self, rows: torch.Tensor, parts: torch.Tensor | None, inputs: Mapping[str, Any]):
        self.rows, self.parts, self.is_recorded = rows, parts, False
        tensors = (value for value in without_rows(inputs).values() if isinstance(value, torch.Tensor))
        self._tensors = [weakref.ref(tensor) for tensor in tensors]

    def has(self, inputs: Mapping[str, Any]) -> bool:
        """Whether any tensor of `inputs` belongs to this batch."""
        alive = [tensor() for tensor in self._tensors]
        return any(value is tensor for value in inputs.values() for tensor in alive if tensor is not None)


def without_rows(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch as the user's collator made it, without row numbers."""
    return {name: value for name, value in inputs.items() if name not in (ROW, PARTS)}


class RowCollator:
    """The user's collator, with the row numbers added to its batch under the key `ROW`.

    If the user's collator joins the examples into one sequence, `PARTS` marks the position of each example.
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
        examples = [example for _, example in numbered]  # a second list: the collator may have sorted the first
        if not self.is_checked:
            self.is_checked = True
            _check_order(examples, batch)
        batch[ROW] = torch.tensor([row for row, _ in numbered], dtype=torch.int64)
        parts = _parts(batch.get("input_ids"), examples)
        if parts is not None:
            batch[PARTS] = parts
        return batch


def _check_order(examples: list, batch: MutableMapping) -> None:
    """Refuse a batch whose rows are the examples in another order.

    The check compares only values that the collator copies: arrays, and sequences padded at one end. It can't compare
    values that the collator makes anew (masked, augmented, tokenized). Nor does it compare examples if one of them is
    the beginning or the end of another.

    Raises:
        ValueError: Every row of the batch is one of the examples, but some row is not the example at its position.
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
    """Return the examples' values under a name, in the type of `like`; None if a value is missing or not numeric."""
    try:
        values = [example[name] for example in examples]
        tensors = [value if isinstance(value, torch.Tensor) else torch.tensor(np.asarray(value)) for value in values]
        return [tensor.detach().to_dense().resolve_conj().to(like) for tensor in tensors]
    except (LookupError, TypeError, ValueError, RuntimeError):
        return None


def _differ(tensors: list[torch.Tensor]) -> bool:
    """Whether no tensor is the beginning or the end of another one, as an empty tensor would be."""
    if not all(tensor.numel() for tensor in tensors):
        return False
    contents = [tensor.contiguous().view(-1).view(torch.uint8).cpu().numpy().tobytes() for tensor in tensors]
    for some in (sorted(contents), sorted(content[::-1] for content in contents)):
        # after sorting, a text and those that begin with it are neighbours, so comparing neighbours is enough
        if any(after.startswith(before) for before, after in itertools.pairwise(some)):
            return False
    return True


def _fits(value: torch.Tensor, source: torch.Tensor) -> bool:
    """Whether `value` equals `source`, or is `source` padded before or after with one repeated number."""
    padding = len(value) - len(source) if value.dim() == source.dim() == 1 else 0
    if padding <= 0:
        return torch.equal(value, source)
    for kept, rest in ((value[:-padding], value[-padding:]), (value[padding:], value[:padding])):
        if torch.equal(kept, source) and bool((rest == rest[0]).all()):
            return True
    return False


def _parts(ids: Any, examples: list) -> torch.Tensor | None:
    """Return (B, T) bool, which tokens belong to which row, if `ids` holds all B examples in sequence; else None."""
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
