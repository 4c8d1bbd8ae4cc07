"""The cost of rounds in rows, tokens, padding, steps and seconds, for the accounts and the logs of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..measure.recorder import Drained, Measurements
from ..report.padding import count_padding
from .rounds import Round
from .schedule import UnprunedSchedule

_QUANTILES = {"prune/loss_p10": 0.1, "prune/loss_p50": 0.5, "prune/loss_p90": 0.9}


def account_of(
    current: Round,
    step: int,
    schedule: UnprunedSchedule,
    tokens: np.ndarray,
    measured: Measurements,
    repeated: int,
    rescored: Measurements | None,
) -> dict[str, float]:
    """Compute the cost of a round, under the names of `PruningReport.epochs`, without the seconds of closing it.

    Args:
        current: The round.
        step: Optimizer steps that the run has done.
        schedule: The run over all rows.
        tokens: (M,) real tokens of the rows offered to the round; 0 = not known.
        measured: Measurements of the trained rows.
        repeated: Number of visits in `measured` that only repeat a row to fill a batch.
        rescored: Measurements by forward passes alone; None = nothing was rescored.
    """
    offered = len(tokens) * current.share(step)  # the last epoch may be a fraction of one
    known = np.count_nonzero(tokens)
    return {
        "rows_offered": round(offered),
        "rows": len(measured.rows),
        "rows_repeated": repeated,
        "rows_rescored": 0 if rescored is None else len(rescored.rows),
        # a row of unknown length counts as many tokens as the others have on average
        "tokens_offered": round(offered * int(tokens.sum(dtype=np.int64)) / known) if known else 0,
        "tokens": int(measured.tokens.sum(where=measured.tokens > 0)),
        "padded_tokens": measured.padded_tokens,
        "padding": count_padding(measured.tokens, measured.padded_tokens) or 0,
        "padded_tokens_rescored": 0 if rescored is None else rescored.padded_tokens,
        "steps": current.steps(step),
        "steps_full": current.steps_full(step, schedule),
        "seconds_training": current.seconds_training,
        "seconds_selecting": current.seconds_selecting,
        "seconds_rescoring": 0.0,
    }


def cost_of(epochs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Compute the cost of a run so far, as its History reports it to runs that start from that History."""

    def total(*names: str) -> float:
        return sum(epoch[name] for epoch in epochs for name in names)

    return {
        "runs": 1,
        "rows": total("rows", "rows_rescored"),
        "tokens": total("padded_tokens", "padded_tokens_rescored"),
        "seconds": total("seconds_training", "seconds_selecting", "seconds_rescoring"),
    }


def counts(epochs: Sequence[Mapping[str, Any]], current: Round, rows: int, positions: int) -> dict[str, float]:
    """Count what a run has trained so far, for its logs.

    Args:
        epochs: Accounts of the rounds that have ended.
        current: The round in progress.
        rows: Row visits in this round, summed over all processes, at the last count.
        positions: Token positions in this round, padding included, at the last count.
    """
    selecting = current.seconds_selecting + sum(epoch["seconds_selecting"] for epoch in epochs)
    training = current.seconds_training + sum(e["seconds_training"] + e["seconds_rescoring"] for e in epochs)
    logs: dict[str, float] = {"prune/rows": rows + sum(epoch["rows"] for epoch in epochs)}
    if positions:  # images have none
        logs["prune/tokens"] = positions + sum(epoch["padded_tokens"] for epoch in epochs)
    return logs | {"prune/seconds": selecting, "prune/seconds_training": training}


def progress(drained: Drained, kept: float) -> dict[str, float]:
    """Compute the values that the log shows beside the loss.

    Where the policy gives weights, the log also has the weighted mean of the losses. On average, the weighted sum is
    the same as the sum over all rows, whichever rows are kept.

    Args:
        drained: Measurements since the last log.
        kept: Share of the offered rows that the round trains.
    """
    losses, weights, tokens, positions = drained
    is_finite = np.isfinite(losses)
    losses = losses[is_finite]
    logs = {"prune/kept": kept}
    if (padding := count_padding(tokens, positions)) is not None:
        logs["prune/padding"] = padding / positions
    if len(losses):
        if weights is not None:
            logs["prune/loss_weighted"] = float(np.average(losses, weights=weights[is_finite]))
        logs |= dict(zip(_QUANTILES, np.quantile(losses, [*_QUANTILES.values()]).tolist(), strict=True))
    return logs
