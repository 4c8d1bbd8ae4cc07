"""What a run begins with: what a policy needs from the data set, and what an earlier run has learned."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from .. import core
from ..common import storage
from ..core import Policy
from ..core.features import Features
from ..data.columns import read_columns
from ..data.duplicates import find_groups
from ..data.features import read_features
from ..data.fingerprint import fingerprint
from ..data.keys import match, row_keys
from ..data.listing import listed_rows
from ..data.tokens import row_tokens
from .history import History


class DataNeeds:
    """What a policy needs from a data set, read once.

    Args:
        dataset: The training set.
        policy: Says what it needs.
        is_encoder_decoder: Whether the model's labels are tokens, which it reads too.
        key: Column of unique values that name the rows; None = rows are known by their position.
        warn: Called with a message if a file of the policy's lists rows that the data set lacks.

    Attributes:
        keys: (N,) uint64, hashes of the rows' names; None = rows have no names.

    Raises:
        ValueError: The rows lack what the policy needs.
    """

    def __init__(
        self, dataset: Any, policy: Policy, is_encoder_decoder: bool, key: str | None, warn: Callable[[str], None]
    ):
        self._dataset, self._rows, self._policy = dataset, len(dataset), policy
        self.keys = None if key is None else row_keys(dataset, key)
        counts = "tokens" in policy.needs or getattr(policy, "unit", "rows") == "tokens"
        self._tokens = row_tokens(dataset, is_encoder_decoder) if counts else 0
        wanted = policy.needs & {"features", "classes"}
        features = read_features(dataset, is_encoder_decoder, wanted) if wanted else Features()
        file = policy.reads_file
        self._features = replace(
            features,
            columns=read_columns(dataset, policy.reads_columns, type(policy).__name__),
            listed=None if file is None else listed_rows(dataset, file, key, self.keys, warn),
        )
        if "groups" in policy.needs:
            how = {name: getattr(policy, name) for name in ("similarity", "ngram", "columns") if hasattr(policy, name)}
            groups = find_groups(dataset, is_encoder_decoder, **how)
            self._features = replace(self._features, groups=groups)

    def fit(self, dataset: Any, policy: Policy) -> bool:
        """Whether this was read from this data set, as it is now, for this policy.

        Args:
            dataset: The training set.
            policy: The policy of the run that begins.
        """
        return self._dataset is dataset and self._rows == len(dataset) and self._policy is policy

    def fill(self, history: History) -> None:
        """Write what was read into a History of the data set's rows."""
        history.tokens[:] = self._tokens
        history.features = self._features
        history.keys = self.keys


def load_history(
    source: str | os.PathLike[str] | core.History | None,
    dataset: Any,
    policy: Policy,
    keys: np.ndarray | None,
    warn: Callable[[str], None],
) -> tuple[History | None, dict[str, float] | None]:
    """What an earlier run has learned, and what that run cost.

    Args:
        source: A `History`, its file, its folder, its repository on the Hub, or None.
        dataset: The training set of the new run.
        policy: The policy of the new run; notes of another policy are left out.
        keys: (N,) uint64, hashes of the rows' names; None = rows have no names. If the source has keys too, rows are
            matched by key, in any order. Otherwise the source must have the same rows in the same order.
        warn: Called with a message if the source does not know all rows.

    Returns:
        The History for the new training set, and `runs`, `rows`, `tokens`, `seconds` (None if not known).

    Raises:
        ValueError: There is no such History, it is damaged, or it has other rows.
    """
    if source is None:
        return None, None
    if isinstance(source, core.History) and not isinstance(source, History):
        source = History(**vars(source))  # arrays alone, of whoever has not asked for files
    name = "a History" if isinstance(source, History) else repr(str(source))
    try:
        earlier = source.check() if isinstance(source, History) else History.from_pretrained(source)
    except storage.DamagedFile as error:
        raise ValueError(f"history={name}: {error} Give another copy, or leave it out.") from error
    except ValueError as error:
        message = str(error) if str(error).startswith("history=") else f"history={name}: {error}"
        raise ValueError(message) from error
    facts = earlier.facts
    if keys is not None and earlier.keys is not None:
        history, found = match(earlier, keys)
        if not found:
            raise ValueError(
                f"history={name} has none of the {len(keys):,} rows of train_dataset: its key column was "
                f"{facts.get('key')!r}. Name that one by history_key, or give the History of a run on these rows."
            )
        if found < len(keys):
            warn(f"history={name} has {found:,} of the {len(keys):,} rows; the others begin as never seen.")
    else:
        history = replace(earlier)
        _check_rows(history, name, dataset)
    if not earlier.is_of(policy):
        history.notes = {}
    return history, facts.get("cost")


def _check_rows(earlier: History, name: str, dataset: Any) -> None:
    """Refuse a History of other rows, or of the same rows in another order."""
    by_key = "give history_key=, the name of a column of unique values, to both runs"
    if len(earlier) != len(dataset):
        raise ValueError(
            f"history={name}: This History is of {len(earlier)} rows, but the training set has {len(dataset)}. "
            f"A History belongs to one training set, in one order: give the one it was made with, or {by_key}."
        )
    theirs, ours = earlier.facts.get("data"), fingerprint(dataset)
    if theirs is not None and ours is not None and theirs != ours:
        raise ValueError(
            f"history={name} is of another data set: its rows differ from those of train_dataset. Give the "
            f"History of a run on the same rows, in the same order, or {by_key}."
        )
