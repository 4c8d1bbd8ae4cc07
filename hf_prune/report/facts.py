"""What advice goes by beside the account of a run: facts about its rows, as plain values that JSON can hold.

The rounds of the run and its History give the facts of training; the training set gives counts of classes and repeats.
A recipe keeps them in results.json, under `facts`, so that advice needs no other file of the run.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..core import History
from ..core.mixture import upper_share
from ..data import count_repeats, is_arrow, read_features
from ..records.dynamics import MEANS, Dynamics

LEARNT = float(np.log(2))  # nats: below it, a row's label, or its mean token, has more than half of the probability
_RESAMPLES = 40  # of the rows, for the interval of the share of wrong labels
_MOST = 20_000  # rows that it looks at: so it takes seconds; of more, the interval is too wide, not too narrow
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
        that measured them; `upper`, the `share` of rows in a second component of larger mean losses, with the 95 %
        interval `low` to `high`; if some epochs show it, `upper_epochs`, the first and the middle one of these, and
        `upper_means`, the kind of mean that shows it, see `MEANS`; `measured`, the number of rows with a loss; and
        `band`, the width in nats of the band that holds 80 % of the losses that the last epoch measured in training. If
        rows have classes, too: `accuracy`, the share of the rows whose latest prediction is their label, and `chance`,
        the share of the most frequent label.
    """
    facts: dict[str, Any] = {"padding_causes": list(padding_causes)}
    if (tokens := history.tokens[history.tokens > 0]).any():
        facts["lengths"] = np.quantile(tokens, (0.1, 0.5, 0.9)).tolist()
    if dynamics is None:
        return facts
    medians = dynamics.trained[:, 1]
    facts["medians"] = [float(f"{median:.4g}") if np.isfinite(median) else None for median in medians]
    if dynamics.is_repeated:
        facts |= {"at_once": _at_once(dynamics)} | _upper(dynamics)
        facts["measured"] = int(np.count_nonzero(dynamics.times_measured))
        if math.isfinite(band := float(dynamics.trained[-1, 2] - dynamics.trained[-1, 0])):
            facts["band"] = band
        facts |= _of_answers(dynamics.extras)
    return facts


def has_classes(extras: Mapping[str, np.ndarray]) -> bool:
    """Whether what a run kept of labels and predictions (see `Dynamics.extras`) are numbers of classes."""
    found = [extras[name] for name in ("given", "predicted") if name in extras]
    known = [values[~np.isnan(values)] for values in found]
    return len(found) == 2 and all(len(values) and (values == np.floor(values)).all() for values in known)


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


def _upper(dynamics: Dynamics) -> dict[str, Any]:
    """`upper`, the share of the rows in the upper component of their mean losses, with its interval by resampling rows.

    The means are those after the middle one of the epochs that, like the epoch before, show such a component: at first,
    rows are not apart yet, and later, a model that has learnt wrong labels by heart hides them. Means over all epochs
    are less noisy. Where these show none, recent ones may do so: those of a model from scratch, whose first losses are
    large for all rows.
    """
    n, rng = len(dynamics.mean), np.random.default_rng(0)
    rows = np.arange(n) if n <= _MOST else np.sort(rng.choice(n, _MOST, replace=False))
    losses = dynamics.losses_of(rows)
    for kind, means_of in MEANS.items():
        means = means_of(losses)
        shares = np.array([upper_share(means[:, epoch]) for epoch in range(means.shape[1])])
        showing = 1 + np.flatnonzero((shares[1:] > 0) & (shares[:-1] > 0))
        if not len(showing):
            continue
        middle = showing[len(showing) // 2]
        mean, share = means[:, middle], float(shares[middle])
        drawn = [upper_share(mean[rng.integers(len(mean), size=len(mean))]) for _ in range(_RESAMPLES)]
        low, high = np.quantile(drawn, (0.025, 0.975)).tolist()
        upper = {"share": share, "low": min(low, share), "high": max(high, share)}
        epochs = dynamics.epochs[[showing[0], middle]].tolist()
        return {"upper": upper, "upper_epochs": epochs, "upper_means": kind}
    return {"upper": {"share": 0.0, "low": 0.0, "high": 0.0}}


def _of_answers(extras: Mapping[str, np.ndarray]) -> dict[str, float]:
    if not has_classes(extras):
        return {}
    known = ~np.isnan(extras["given"]) & ~np.isnan(extras["predicted"])
    if not known.any():
        return {}
    given, predicted = extras["given"][known].astype(np.int64), extras["predicted"][known].astype(np.int64)
    return {
        "accuracy": float(np.mean(given == predicted)),
        "chance": float(np.unique(given, return_counts=True)[1].max() / len(given)),
    }


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
