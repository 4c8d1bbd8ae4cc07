"""What a run begins with: facts read from its data set, and what an earlier run has learnt."""

import os
from pathlib import Path
from typing import Any

from . import storage
from .core import History, Policy
from .data import fingerprint, read_features, row_tokens
from .features import Features

HISTORY = "history.safetensors"  # beside a saved model


class Facts:
    """What a policy needs to know of a data set, read once.

    Args:
        dataset: The training set.
        policy: Says what it needs.
        is_encoder_decoder: Whether the model's labels are tokens that it reads, too.

    Raises:
        ValueError: The rows do not have it.
    """

    def __init__(self, dataset: Any, policy: Policy, is_encoder_decoder: bool):
        self.dataset = dataset
        counts = "tokens" in policy.needs or getattr(policy, "unit", "rows") == "tokens"
        self._tokens = row_tokens(dataset, is_encoder_decoder) if counts else 0
        wanted = policy.needs & {"features", "classes"}
        self._features = read_features(dataset, is_encoder_decoder, wanted) if wanted else Features()

    def fill(self, history: History) -> None:
        """Write them into a history of the data set's rows."""
        history.tokens[:] = self._tokens
        history.features = self._features


def load_history(
    source: str | os.PathLike | History | None, dataset: Any, policy: Policy
) -> tuple[History | None, dict[str, float] | None]:
    """What an earlier run learnt, and what that run cost.

    Args:
        source: A `History`, its file, the folder that holds it, or None.
        dataset: The training set at hand.
        policy: The policy that will begin with it; the notes of another one are left out.

    Returns:
        The history, and `runs`, `rows`, `tokens`, `seconds` (None where not known).

    Raises:
        ValueError: There is none, it is damaged, or it is of other rows.
    """
    if source is None:
        return None, None
    if isinstance(source, History):
        History.from_arrays(source.arrays(), len(dataset))
        return source, None
    path = Path(source)
    path = path / HISTORY if path.is_dir() else path
    if not path.is_file():
        raise ValueError(
            f"history={str(source)!r}: there is no {path}. Name a folder that a run with a policy saved its model in, "
            f"or the {HISTORY} in it."
        )
    try:
        arrays, facts = storage.load(path)
        history = History.from_arrays(arrays, len(dataset))
    except storage.DamagedFile as error:
        raise ValueError(f"history={str(source)!r}: {error} Give another copy, or leave it out.") from error
    except (ValueError, KeyError) as error:
        raise ValueError(f"history={str(source)!r}: {error}") from error
    theirs, ours = facts.get("data"), fingerprint(dataset)
    if theirs is not None and ours is not None and theirs != ours:
        raise ValueError(
            f"history={str(source)!r} is of another data set: its rows differ from those of train_dataset. Give the "
            "History of a run on the same rows, in the same order."
        )
    if not facts.get("policy", "").startswith(f"{type(policy).__name__}("):
        history.notes = {}
    return history, facts.get("cost")
