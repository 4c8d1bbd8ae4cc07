"""Entries of `pruning.json`: accounts of epochs, which rounds add up to, and entries of the log; both checked."""

import math
from collections.abc import Mapping
from typing import Any

from ..common.foreign import MOST, number

EARLIER = ("runs", "rows", "tokens", "seconds")
_COUNTED = (
    *("epoch", "rows", "rows_offered", "tokens", "tokens_offered", "padded_tokens", "rows_rescored"),
    *("padded_tokens_rescored", "steps", "seconds_training", "seconds_selecting", "seconds_rescoring"),
)
COSTS = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")  # logged beside the scores
_LARGEST = 1e30
_PLACED = ("step", "epoch", "prune/rows", "prune/tokens", "prune/seconds", "prune/seconds_training")


def add_round(epochs: list[dict[str, Any]], epoch: int, account: Mapping[str, float]) -> None:
    """Add the cost of a round to the accounts of the epochs. The rounds of an epoch share one account."""
    if not epochs or epochs[-1]["epoch"] != epoch:
        epochs.append({"epoch": epoch, **dict.fromkeys(account, 0)})
    for name, value in account.items():
        # an older hf_prune may have begun this account, without the name
        epochs[-1][name] = epochs[-1].get(name, 0) + value


def checked_epoch(epoch: dict[str, Any]) -> dict[str, Any]:
    """Check the account of an epoch: all its numbers must be there."""
    number(epoch["epoch"], "epoch", whole=True)
    needed = {name: counted(epoch[name], name) for name in _COUNTED}
    return {name: counted(value, name, -MOST) for name, value in epoch.items()} | needed


def counted(value: Any, name: str, low: float = 0) -> Any:
    """Check a number of the account; None stands for NaN, which JSON does not have."""
    return math.nan if value is None else number(value, name, low)


def is_number(value: Any) -> bool:
    """Whether a logged value can be drawn: it is not a list, such as scores of classes, nor too large for a scale."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not abs(value) > _LARGEST


def scores_of(entry: Mapping[str, Any]) -> dict[str, float]:
    """The scores of the model in an entry of the log, under its names: no times, and no lists."""
    names = [name for name in entry if name.startswith("eval_") and not name.endswith(COSTS)]
    return {name: entry[name] for name in names if is_number(entry[name])}


def logged(entry: dict[str, Any]) -> dict[str, Any]:
    """Check an entry of the log: an evaluation must say how much had been trained."""
    if "prune/rows" in entry and any(name.startswith("eval_") for name in entry):
        entry = {"prune/tokens": 0} | entry
        needed = _PLACED
    else:
        needed = [name for name in _PLACED if name in entry]
    for name in needed:
        counted(entry[name], name)
    return {name: math.nan if value is None else value for name, value in entry.items()}
