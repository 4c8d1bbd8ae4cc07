"""What a pruning trainer holds inside, for tests that look there: the one place that knows where it is."""

from typing import Any

from hf_prune import History


def engine(trainer: Any) -> Any:
    """Of the run in progress, or the latest."""
    return trainer._pruning.loop.engine


def steps(trainer: Any) -> Any:
    """What measures its batches."""
    return trainer._pruning.loop.steps


def training(trainer: Any) -> Any:
    """The rows that it trains on."""
    return trainer._pruning.loop.training


def sharing(trainer: Any) -> Any:
    """What tells others of its runs."""
    return trainer._pruning.sharing


def begun(trainer: Any) -> History:
    """The History that its next run begins with."""
    inside = trainer._pruning
    return inside.begin_history(inside.policy, inside.make_meter(inside.policy))
