"""Where the points of a figure lie on its picture, for a page that shows their values on hover."""

from collections.abc import Sequence
from typing import Any

import numpy as np

_WHOLE = 10_000  # the width, and the height, of a picture in the units of a spot


def spots(figure: Any, rows: Sequence[int] | None = None) -> list[list[Any]]:
    """Points of lines, bars and steps with their values in words; or the dots of a scatter with their rows.

    Args:
        figure: The figure of matplotlib, after it was painted: only then its panels have their places.
        rows: For a scatter, the row of each dot, in the order in which they were drawn.

    Returns:
        For each point [x, y, words or row]. x and y are integers, ten-thousandths of the picture from the top left.
    """
    found: list[tuple[Any, Any]] = []  # pixels from the bottom left, and what to say
    for panel in figure.axes:
        if rows is None:
            found += [(panel.transData.transform((x, y)), words) for x, y, words in _values(panel)]
        elif panel.collections and len(dots := np.asarray(panel.collections[0].get_offsets())) == len(rows):
            found += zip(panel.transData.transform(dots), rows, strict=True)
    width, height = figure.bbox.width, figure.bbox.height
    return [
        [round(_WHOLE * float(x) / width), round(_WHOLE * (1 - float(y) / height)), said]
        for (x, y), said in found
        if np.isfinite([x, y]).all()
    ]


def _values(panel: Any) -> list[tuple[float, float, str]]:
    """x, y and words of each point of a panel, in the units of its axes."""
    across, up = panel.get_xlabel(), panel.get_ylabel()
    title = panel.get_title(loc="left") if not up else up
    found: list[tuple[float, float, str]] = []

    def add(name: str, x: float, y: float, at: float | None = None) -> None:
        series = name if name and not name.startswith("_") else ""
        words = ", ".join(part for part in (series, f"{across} {x:,g}".strip(), f"{title} {y:,.4g}".strip()) if part)
        found.append((x if at is None else at, y, words))

    for line in panel.lines:
        if line.get_transform() == panel.transData and line.get_xdata(orig=True) is not None:  # not a guide line
            for x, y in np.column_stack([line.get_xdata(), line.get_ydata()]).tolist():
                if np.isfinite(y):
                    add(str(line.get_label()), x, y)
    for bars in panel.containers:
        for bar in getattr(bars, "patches", ()):
            if getattr(bars, "orientation", "vertical") == "vertical" and bar.get_height():
                middle = bar.get_x() + bar.get_width() / 2
                series = str(bars.get_label())
                y = bar.get_y() + bar.get_height()
                words = f"{across} {round(middle):,}, {title} {bar.get_height():,.4g}"
                found.append((middle, y, words if series.startswith("_") else f"{series}, {words}"))
    for steps in panel.patches:
        if hasattr(steps, "get_data"):
            heights, edges, base = steps.get_data()
            heights = np.asarray(heights)
            below = np.broadcast_to(0 if base is None else base, heights.shape)
            for middle, top, low in zip((edges[:-1] + edges[1:]) / 2, heights, below, strict=True):
                add(str(steps.get_label()), float(middle), float(top - low))
                found[-1] = (float(middle), float(top), found[-1][2])
    return found
