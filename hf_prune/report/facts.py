"""What advice goes by beside the account of a run: facts about its rows, as plain values that JSON can hold.

The rounds of the run and its History give the facts of training; the training set gives counts of classes and repeats.
A recipe keeps them in results.json, under `facts`, so that advice needs no other file of the run.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core import History
from ..data import count_repeats, is_arrow, read_features
from ..policies.trim import upper_share
from ..records.dynamics import Dynamics

LEARNT = float(np.log(2))  # nats: below it, a row's label, or its mean token, has more than half of the probability
_RESAMPLES = 40  # of the rows, for the interval of the share of wrong labels
_MOST = 20_000  # rows in a resample: so it takes a second, and of more rows the interval is too wide, not too narrow
_AT_A_TIME = 1 << 17  # rows


def row_facts(history: History, dynamics: Dynamics | None, padding_causes: Sequence[str] = ()) -> dict[str, Any]:
    """What training showed of the rows.

    Args:
        history: The History of the run at its end.
        dynamics: What its rounds show; None if no round can be read.
        padding_causes: See `PruningReport`.

    Returns:
        `padding_causes`. If tokens are known: `lengths`, the 10 %, 50 % and 90 % quantiles of the rows' tokens. If
        rounds are known: `medians`, the median loss of the rows that each epoch trained, in nats; None = not known. If
        rows were measured twice: `at_once`, the share of all rows whose losses were below ln 2 from the second epoch on
        that measured them, and `upper`, the `share` of rows in a second component of larger mean losses, with the 95 %
        interval `low` to `high`.
    """
    facts: dict[str, Any] = {"padding_causes": list(padding_causes)}
    if (tokens := history.tokens[history.tokens > 0]).any():
        facts["lengths"] = np.quantile(tokens, (0.1, 0.5, 0.9)).tolist()
    if dynamics is None:
        return facts
    medians = dynamics.trained[:, 1]
    facts["medians"] = [float(f"{median:.4g}") if np.isfinite(median) else None for median in medians]
    if dynamics.is_repeated:
        facts |= {"at_once": _at_once(dynamics), "upper": _upper(dynamics.mean)}
    return facts


def data_facts(dataset: Any, history: History | None = None) -> dict[str, Any]:
    """What a training set is made of.

    Args:
        dataset: The training set; only a `datasets.Dataset` is read.
        history: The History of a run over its rows, for what was learnt of each class; None = there is none.

    Returns:
        `rows`, their number; `repeats`, the number of rows that equal an earlier one; `classes`, if rows have a class:
        their `count`, rows in the `smallest` and the `largest` that occur, `learnt`, the share of all rows that the run
        predicts as labelled, and `learnt_of_small`, the same for the quarter of classes with the fewest rows. Without
        predictions, a latest loss below ln 2 counts as one.
    """
    if not is_arrow(dataset):
        return {}
    facts: dict[str, Any] = {"rows": len(dataset)}
    if (repeats := count_repeats(dataset)) is not None:
        facts["repeats"] = repeats
    try:
        classes = read_features(dataset, False, frozenset({"classes"})).classes
    except ValueError:  # rows have no class
        return facts
    if classes is not None:
        facts["classes"] = _of_classes(classes, history)
    return facts


def _at_once(dynamics: Dynamics) -> float:
    count = 0
    for losses in dynamics.losses_by_epoch(_AT_A_TIME):
        later = np.cumsum(~np.isnan(losses), axis=1) > 1  # all but a row's first
        highest = np.max(losses, axis=1, where=later & ~np.isnan(losses), initial=-np.inf)
        count += np.count_nonzero(np.isfinite(highest) & (highest < LEARNT))
    return count / len(dynamics.mean)


def _upper(mean: np.ndarray) -> dict[str, float]:
    """The share of the rows in the upper component of (N,) mean losses, and its interval by resampling the rows."""
    share = upper_share(mean)
    if share == 0:
        return {"share": 0.0, "low": 0.0, "high": 0.0}
    rng = np.random.default_rng(0)
    size = min(len(mean), _MOST)
    drawn = [upper_share(mean[rng.integers(len(mean), size=size)]) for _ in range(_RESAMPLES)]
    low, high = np.quantile(drawn, (0.025, 0.975)).tolist()
    return {"share": share, "low": min(low, share), "high": max(high, share)}


def _of_classes(classes: np.ndarray, history: History | None) -> dict[str, Any]:
    names, inverse, counts = np.unique(classes, return_inverse=True, return_counts=True)
    found = {"count": len(names), "smallest": int(counts.min()), "largest": int(counts.max())}
    if history is None or len(history) != len(classes) or np.isnan(history.loss).all():
        return found
    correct = history.signals.get("correct")
    learnt = history.loss < LEARNT if correct is None or np.isnan(correct).all() else correct == 1
    few = np.argsort(counts, kind="stable")[: -(-len(names) // 4)]
    of_small = np.isin(inverse, few)
    return found | {"learnt": float(learnt.mean()), "learnt_of_small": float(learnt[of_small].mean())}
