"""Pairs of a text and its translation, and texts that nobody has translated."""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset

from .columns import columns_of, find_text, keep_rows


def untranslated(rows: Dataset, recipe: Any) -> dict[str, str] | None:
    """The column of the source, and its name after reading, if the rows have no translations; else None.

    Args:
        rows: The rows.
        recipe: Names the languages, `source_lang` and `target_lang`.
    """
    if "translation" in rows.column_names:
        return None
    source, target = (_column(rows.column_names, lang) for lang in (recipe.source_lang, recipe.target_lang))
    if source is None or (target is not None and any(text is not None for text in rows[target])):
        return None
    return {source: "source"}


def _column(columns: Sequence[str], lang: str) -> str | None:
    return next((column for column in (lang, lang.partition("_")[0]) if column in columns), None)


def read_pairs(rows: Dataset, recipe: Any, name: str, say=print, carried: Sequence[str] = ()) -> Dataset:
    """The columns `source`, `target` and `carried` of the rows; rows without text on a side are left out.

    Raises:
        ValueError: A language has no column, its column has no texts, or no row has text on both sides.
    """
    if "translation" in rows.column_names:
        rows = rows.flatten()
    columns = {column.removeprefix("translation."): column for column in rows.column_names}
    found = {}
    for side in ("source", "target"):
        lang = getattr(recipe, f"{side}_lang")
        key = lang if lang in columns else lang.partition("_")[0]
        if key not in columns:
            raise ValueError(f"{side}_lang={lang!r}: {name} has no such column; it has {columns_of(rows)}.")
        found[find_text(rows, f"{side}_lang", columns[key], name)] = side
    pairs = rows.select_columns([*found, *carried]).rename_columns(found)
    return keep_rows(
        pairs,
        lambda row: all(row[side] and row[side].strip() for side in found.values()),
        "text in both languages",
        name,
        say,
    )
