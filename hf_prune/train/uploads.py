"""What no upload and no saved file may hold: secrets among the arguments, and files that show rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any

from transformers import trainer as hf_trainer

from ..common.privacy import holds_secret

# What no upload takes, in whichever folder: Trainer's own pattern, "_*", looks at the beginning of a path alone. "__"
# begins the names of a checkpoint's shards, and those of what earlier versions left unfinished.
_PRIVATE = ["_[!_]*", "*/_[!_]*", "__*.tmp", "*/__*.tmp"]


class Secret(str):
    """A token that no pickle holds: Trainer saves its arguments, and pushes them."""

    def __reduce__(self):
        return type(None), ()

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self


def keep_secrets(owner: Any) -> None:
    """Replace the secrets among an object's fields, at any depth, by texts that no pickle holds."""
    for name, value in list(vars(owner).items()):
        kept = _kept(name, value)
        if kept is not value:
            object.__setattr__(owner, name, kept)


def _kept(name: str, value: Any) -> Any:
    """The same value, or a copy in which secrets are kept from pickles."""
    if isinstance(value, str):
        return Secret(value) if not isinstance(value, Secret) and holds_secret(name, value) else value
    if type(value) is dict:
        copy = {key: _kept(str(key), entry) for key, entry in value.items()}
        return copy if any(copy[key] is not value[key] for key in value) else value
    if type(value) in (list, tuple):
        copy = type(value)(_kept(name, entry) for entry in value)
        return copy if any(a is not b for a, b in zip(copy, value, strict=True)) else value
    if is_dataclass(value) and not isinstance(value, type):
        keep_secrets(value)
    return value


@contextmanager
def rows_kept() -> Iterator[None]:
    """Within the block, Trainer's uploads leave out what shows rows, in the folders of runs inside a run's too.

    Trainer takes no patterns of others, and calls what uploads by a name of its module: for as long as it pushes, that
    name stands for one that adds them.
    """
    place: Any = hf_trainer
    name = "hf_api" if hasattr(place, "hf_api") else "upload_folder"  # which earlier versions call by itself
    own = getattr(place, name)
    setattr(place, name, (lambda: _Uploads(own())) if name == "hf_api" else _filtered(own))
    try:
        yield
    finally:
        setattr(place, name, own)


def _filtered(upload: Any) -> Any:
    """`upload_folder` that leaves out what shows rows."""

    def upload_folder(*args, **kwargs):
        given = kwargs.get("ignore_patterns") or []
        kwargs["ignore_patterns"] = [*([given] if isinstance(given, str) else given), *_PRIVATE]
        return upload(*args, **kwargs)

    return upload_folder


class _Uploads:
    """What Trainer uploads by, with the filter."""

    def __init__(self, api: Any):
        self._api = api

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._api, name)
        return _filtered(value) if name == "upload_folder" else value


def uploads_of(trainer: Any) -> list[Any]:
    """A trainer's uploads that run beside training, or have lately: futures of huggingface_hub."""
    pushes = getattr(trainer, "push_in_progress", None)
    return list(pushes.jobs) if pushes else []
