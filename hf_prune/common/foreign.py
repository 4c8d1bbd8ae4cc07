"""Checks of files that anybody may have written: a name is no path, a number is in bounds, a text not too long."""

import json
import os
import re
from pathlib import Path
from typing import Any

MOST = 1 << 53  # up to which JSON's whole numbers are exact
_SHOWN = 60  # characters of a value in a message
_TOLD = 300  # characters of an error in a message
_LONGEST = 10_000  # characters of a setting
_NAME = re.compile(r"(?!\.)[^\x00-\x1f\x7f-\x9f\ud800-\udfff/\\:]{1,100}")
_LABEL = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff<>|`\[\]\\]{0,200}")


def read_json(path: str | os.PathLike[str], largest: int = 1 << 28) -> Any:
    """The content of a JSON file.

    Args:
        path: The file.
        largest: Bytes that it may have.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It can't be read.
        ValueError: It is no regular file, too large, nested too deeply, or no JSON.
    """
    if (size := os.stat(path).st_size) > largest:
        raise ValueError(f"its {size:,} bytes are more than {largest:,}")
    if not Path(path).is_file():
        raise ValueError("it is no file")  # a pipe would never end
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def number(value: Any, what: str, low: float = 0, high: float = MOST, whole: bool = False) -> Any:
    """`value`, if it is a number from `low` to `high`; NaN and infinity are none.

    Args:
        value: What was found.
        what: Its name, for the message.
        low: The least.
        high: The most.
        whole: Whether it must be a whole number.

    Raises:
        ValueError: It is not.
    """
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{what} must be {kind} from {low:g} to {high:g}, got {brief(value)}")
    return value


def file_name(value: Any, what: str) -> str:
    """`value`, if it is a name that a folder can have, and no path to somewhere else.

    Args:
        value: What was found.
        what: Its name, for the message.

    Raises:
        ValueError: It is not.
    """
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(f"{what} {brief(value)} is no name: one has no '/', '\\' or ':', and no '.' at its start")
    return value


def label(value: Any, what: str) -> str:
    """`value`, if it is a text of one line without characters that have a meaning in Markdown or HTML.

    Args:
        value: What was found.
        what: Its name, for the message.

    Raises:
        ValueError: It is not.
    """
    if not isinstance(value, str) or not _LABEL.fullmatch(value):
        raise ValueError(f"{what} must be a line of plain text, got {brief(value)}")
    return value


def setting(value: Any, what: str) -> str:
    """`value`, if it is a text no longer than a flag or a policy may be.

    Args:
        value: What was found.
        what: Its name, for the message.

    Raises:
        ValueError: It is not.
    """
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise ValueError(f"{what} must be a text of at most {_LONGEST:,} characters, got {brief(value)}")
    return value


def of_kind(value: Any, what: str, *kinds: type) -> Any:
    """`value`, if it is of one of these types.

    Args:
        value: What was found.
        what: Its name, for the message.
        *kinds: The types.

    Raises:
        ValueError: It is not.
    """
    if not isinstance(value, kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{what} must be a {names}, got {brief(value)}")
    return value


def brief(value: Any) -> str:
    """A value as a message shows it."""
    text = ascii(value) if isinstance(value, (str, int, float, type(None))) else f"a {type(value).__name__}"
    return _cut(text, _SHOWN)


def why(error: Exception) -> str:
    """What is wrong with a file, on one line; the repr of a `UnicodeError` would show the whole file."""
    return _cut(str(error) if isinstance(error, UnicodeError) else repr(error), _TOLD)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}..."
