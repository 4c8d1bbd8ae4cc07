"""Colours of figures, on light and on dark pages."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Theme:
    """Colours of a figure."""

    paper: str
    ink: str
    grid: str
    first: str
    second: str
    third: str
    sequence: str


FAINTEST = 0.4  # where colours are taken from in a theme's sequence, which begins at the colour of the paper

LIGHT = Theme("#ffffff", "#1f2328", "#e5e7ea", "#2a6fbb", "#d9762b", "#c4c9d0", "viridis_r")
DARK = Theme("#16191d", "#e3e6ea", "#30353c", "#6aa9f0", "#f0985a", "#59616b", "viridis")
