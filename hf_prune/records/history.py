"""The History that users see: it can be saved to a file, a folder or the Hub."""

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
    """The `core.History` of N rows, with methods that save it to a file or to the Hub and read it from there."""

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
        """Write one checksummed safetensors file under another name, then rename it: no reader sees half a file.

        Raises:
            OSError: The disk is full or the folder can't be written; an earlier file stays as it was.
        """
        write_history(path, self)

    @classmethod
    def load(cls, path: str | os.PathLike[str], rows: int | None = None) -> "Self":
        """Read a file that `save` wrote.

        Args:
            path: The file.
            rows: Number of rows in the training set; a file with another number is refused.

        Raises:
            ValueError: The file has another number of rows, is damaged, or holds something else.
        """
        return read_history(cls, path, rows)

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], **options: Any) -> "Self":
        """Read the History that a run or `push_to_hub` has left in a folder or on the Hub.

        Args:
            source: The file, the folder that holds it, or the id of a model or a data set on the Hub.
            **options: Options of `huggingface_hub.hf_hub_download`, such as `revision`, `token` and `cache_dir`.
                Without `repo_type`, a model with that id goes before a data set.

        Raises:
            ValueError: There is no History, it can't be fetched, or it is damaged.
        """
        return cls.load(find_history(source, **options))

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Publish the History on the Hub as a data set of its own, with a table of its rows and a card.

        Args:
            repo_id: "user/name"; created if it does not exist.
            **options: `private`, `token`, `revision`, `commit_message`.

        Returns:
            The address of the commit.

        Raises:
            ImportError: pyarrow is not installed.
            ValueError: The repository has a card but no History.
            huggingface_hub.errors.HfHubHTTPError: The Hub refuses, or can't be reached.
        """
        return push_history(self, repo_id, **options)
