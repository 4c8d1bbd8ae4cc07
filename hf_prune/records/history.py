"""A History that is kept: in a file, in a folder, or on the Hub."""

import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import core
from .history_file import read_history, write_history
from .hub import find_history, push_history

if TYPE_CHECKING:
    from typing_extensions import Self


class History(core.History):
    """The `core.History` of N rows, with what puts it into a file or on the Hub, and reads it from there."""

    @property
    def seen(self) -> np.ndarray:
        """The former name of `last_round`."""
        warnings.warn("History.seen is now History.last_round.", DeprecationWarning, stacklevel=2)
        return self.last_round

    @property
    def hopeless(self) -> np.ndarray:
        """The former name of `never_finite`."""
        warnings.warn("History.hopeless is now History.never_finite.", DeprecationWarning, stacklevel=2)
        return self.never_finite

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one checksummed safetensors file, aside first, so that no reader meets half a file.

        Raises:
            OSError: The disk is full or the folder can't be written; an earlier file stays as it was.
        """
        write_history(path, self)

    @classmethod
    def load(cls, path: str | os.PathLike[str], rows: int | None = None) -> "Self":
        """Read what `save` wrote.

        Args:
            path: The file.
            rows: Number of rows of the training set at hand; another number in the file is refused.

        Raises:
            ValueError: Another number of rows, a damaged file, or one of something else.
        """
        return read_history(cls, path, rows)

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], **options: Any) -> "Self":
        """Read what a run, or `push_to_hub`, has left in a folder or on the Hub.

        Args:
            source: The file, the folder that holds it, or the id of a model or a data set on the Hub.
            **options: Those of `huggingface_hub.hf_hub_download`, such as `revision`, `token` and `cache_dir`; without
                `repo_type`, a model of that id goes before a data set.

        Raises:
            ValueError: There is none, it can't be had, or it is damaged.
        """
        return cls.load(find_history(source, **options))

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Put it on the Hub as a data set of its own, with a table of its rows and a card.

        Args:
            repo_id: "user/name"; made where it does not exist.
            **options: `private`, `token`, `revision`, `commit_message`.

        Returns:
            The address of the commit.

        Raises:
            ImportError: pyarrow is not installed.
            ValueError: The repository has a card and no History.
            huggingface_hub.errors.HfHubHTTPError: The Hub refuses, or can't be reached.
        """
        return push_history(self, repo_id, **options)
