"""A policy's card: the docstring of its module, whole and in its parts."""

import importlib
import inspect
import re
from dataclasses import dataclass

from ..core import Policy

HEADINGS = ("Needs", "Good for", "Not for", "Defaults", "Deviates", "Reference")
_ENTRY = re.compile(rf"^({'|'.join(HEADINGS)}) {{2,}}(.*(?:\n {{11}}.*)*)", re.MULTILINE)
_SIZE = re.compile(r"\n\nSize: .*?(?=\n\n|\Z)", re.DOTALL)  # why a class is large: a note for developers, not users


@dataclass(frozen=True)
class Card:
    """The docstring of a policy's module, split into parts.

    Attributes:
        text: The whole docstring, without a paragraph that begins with "Size:".
        title: Its first line: the rule in a sentence, and who published it.
        method: The paragraphs and formulas that follow, with their line breaks.
        entries: The text under each heading of `HEADINGS`, as one line; a user's own policy may have none.
    """

    text: str
    title: str
    method: str
    entries: dict[str, str]


def card_of(policy: type[Policy]) -> Card:
    """Return the card of a policy's class: the docstring of its module, or of the class if the module has none."""
    module = importlib.import_module(policy.__module__)
    text = _SIZE.sub("", inspect.cleandoc(module.__doc__ or policy.__doc__ or ""))
    title, _, rest = text.partition("\n")
    entries = {entry[1]: " ".join(entry[2].split()) for entry in _ENTRY.finditer(rest)}
    first = _ENTRY.search(rest)
    return Card(text, title, rest[: first.start() if first else None].strip("\n"), entries)
