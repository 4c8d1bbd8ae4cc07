"""Texts and tables as Markdown shows them."""

import html
import re
from collections.abc import Iterable, Sequence


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, its first column aligned left and the others right.

    Args:
        headings: One for each column.
        rows: A text for each column.
    """
    rule = ["---"] + ["---:"] * (len(headings) - 1)
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in [headings, rule, *rows])


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\|", " ".join(text.split()))


def in_words(text: str) -> str:
    """An untrusted text, escaped so that Markdown shows it as it is, on one line."""
    text = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*\[\]|~$]|\b_|_\b|^#)", r"\\\1", text)


def in_code(text: str) -> str:
    """An untrusted text as code in Markdown, on one line."""
    text = " ".join(text.split())
    ticks = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    edge = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{ticks}{edge}{text}{edge}{ticks}"
