"""Where the points of a figure lie on its picture, for a page that shows their values on hover."""

from collections.abc import Sequence
from typing import Any

import numpy as np

_WHOLE = 1_000  # the width, and the height, of a picture in the units of a spot
_MOST = 60  # points of a line


def spots(figure: Any, rows: Sequence[int] | None = None) -> list[list[Any]]:
    """Points of lines, bars and steps with their values in words; or the dots of a scatter with their rows.

    Args:
        figure: The figure of matplotlib, after it was painted: only then its panels have their places.
        rows: For a scatter, the row of each dot, in the order in which they were drawn.

    Returns:
        For each point [x, y, words or row]. x and y are integers, thousandths of the picture from the top left.
    """
    found: list[list[Any]] = []
    width, height = figure.bbox.width, figure.bbox.height

    def add(panel: Any, x: float, y: float, said: Any) -> None:
        across, up = panel.transData.transform((x, y))
        if np.isfinite([across, up]).all() and panel.bbox.padded(1).contains(across, up):  # else it is not seen
            found.append([round(_WHOLE * across / width), round(_WHOLE * (1 - up / height)), said])

    for panel in figure.axes:
        if rows is None:
            for x, y, words in _values(panel):
                add(panel, x, y, words)
        elif panel.collections and len(dots := np.asarray(panel.collections[0].get_offsets())) == len(rows):
            for (x, y), row in zip(dots.tolist(), rows, strict=True):
                add(panel, x, y, row)
    return found


def _values(panel: Any) -> list[tuple[float, float, str]]:
    """x, y and words of each point of a panel, in the units of its axes."""
    across = panel.get_xlabel().split(",")[0].partition(" (")[0]
    title = panel.get_ylabel() or panel.get_title(loc="left")
    found: list[tuple[float, float, str]] = []

    def add(name: Any, x: float, y: float, value: float) -> None:
        series = "" if str(name).startswith("_") else f"{name}: "
        found.append((x, y, f"{series}{title} {value:,.4g} at {across} {x:,.6g}".replace("  ", " ")))

    for line in panel.lines:
        if line.get_transform() != panel.transData:
            continue  # a guide across the whole panel
        points = np.column_stack([line.get_xdata(), line.get_ydata()])
        if not len(points):
            continue
        for x, y in points[np.unique(np.linspace(0, len(points) - 1, _MOST).round().astype(int))].tolist():
            add(line.get_label(), x, y, y)
    for bars in panel.containers:
        for bar in getattr(bars, "patches", ()):
            if bars.orientation == "vertical" and bar.get_height():  # the others have their values written beside them
                middle = bar.get_x() + bar.get_width() / 2
                add(bars.get_label(), round(middle), bar.get_y() + bar.get_height(), bar.get_height())
                found[-1] = (middle, *found[-1][1:])
    for steps in panel.patches:
        if hasattr(steps, "get_data"):
            heights, edges, below = steps.get_data()
            below = np.broadcast_to(0 if below is None else below, heights.shape)
            for x, top, low in zip((edges[:-1] + edges[1:]) / 2, heights, below, strict=True):
                add(steps.get_label(), float(x), float(top), float(top - low))
    return found
