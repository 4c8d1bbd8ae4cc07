"""Keeps private data out of uploads and saved files: secrets in the arguments, and files that show rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any

from transformers import trainer as hf_trainer

from ..common.privacy import holds_secret

# Patterns of files that are never uploaded, in any folder. Trainer's own pattern, "_*", matches only the beginning of a
# path. Names with "__" are the shards of a checkpoint, or unfinished files of earlier versions ("__*.tmp").
_PRIVATE = ["_[!_]*", "*/_[!_]*", "__*.tmp", "*/__*.tmp"]


class Secret(str):
    """A token that is pickled as None, because Trainer saves and pushes its arguments as a pickle."""

    def __reduce__(self):
        return type(None), ()

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self


def keep_secrets(owner: Any) -> None:
    """Replace the secrets in an object's fields, at any depth, by texts that are pickled as None."""
    for name, value in list(vars(owner).items()):
        kept = _kept(name, value)
        if kept is not value:
            object.__setattr__(owner, name, kept)


def _kept(name: str, value: Any) -> Any:
    """Return the same value, or a copy whose secrets are replaced."""
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
    """Within the block, Trainer's uploads leave out files that show rows, also those of runs in subfolders.

    Trainer accepts no further ignore patterns. It calls the upload function by a name in its module. So, within the
    block, that name refers to a function that adds our patterns.
    """
    place: Any = hf_trainer
    name = "hf_api" if hasattr(place, "hf_api") else "upload_folder"  # earlier versions call upload_folder directly
    own = getattr(place, name)
    setattr(place, name, (lambda: _Uploads(own())) if name == "hf_api" else _filtered(own))
    try:
        yield
    finally:
        setattr(place, name, own)


def _filtered(upload: Any) -> Any:
    """Return an `upload_folder` that leaves out files that show rows."""

    def upload_folder(*args, **kwargs):
        given = kwargs.get("ignore_patterns") or []
        kwargs["ignore_patterns"] = [*([given] if isinstance(given, str) else given), *_PRIVATE]
        return upload(*args, **kwargs)

    return upload_folder


class _Uploads:
    """Trainer's Hub API, with a filtered `upload_folder`."""

    def __init__(self, api: Any):
        self._api = api

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._api, name)
        return _filtered(value) if name == "upload_folder" else value


def uploads_of(trainer: Any) -> list[Any]:
    """Return a trainer's uploads that run during training, or ran before, as futures of huggingface_hub."""
    pushes = getattr(trainer, "push_in_progress", None)
    return list(pushes.jobs) if pushes else []
