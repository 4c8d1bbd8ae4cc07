"""Figures of a run, drawn by matplotlib from plain arrays, for light and dark pages."""

import io
import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .theme import FAINTEST, LIGHT, Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = {"bleu": "BLEU", "chrf": "chrF", "f1": "F1"}
MANY = 24  # points; with more, lines are drawn without markers, and without bars
DOTS = 20_000  # rows in a map, at most


def run_figure(
    title: str,
    unit: str,
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    epochs: Sequence[Mapping[str, Any]],
) -> "Figure":
    """The metrics against how much was trained, and the share kept in each epoch.

    Args:
        title: Title of the figure.
        unit: "rows" or "tokens".
        curves: For each metric, (E,) how much was trained and (E,) its values.
        epochs: Accounts of the epochs, see `PruningReport`.
    """
    figure, theme = new_figure(10, max(4.0, 2.4 * len(curves) + 0.8), LIGHT), LIGHT
    grid = figure.add_gridspec(max(1, len(curves)), 2 if curves else 1)
    _draw_curves([figure.add_subplot(grid[place, 0]) for place in range(len(curves))], curves, unit, theme)
    if curves:
        figure.axes[0].set_title("Evaluation", loc="left", fontsize="medium", color=theme.ink)
    _draw_share(figure.add_subplot(grid[:, -1]), epochs, unit, theme)
    figure.align_ylabels()
    figure.suptitle(textwrap.fill(title, 100), fontsize="medium", family="monospace", parse_math=False)
    return figure


def curves_figure(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], unit: str, theme: Theme) -> "Figure":
    """The metrics alone, in the colours of a theme; other arguments as in `run_figure`."""
    figure = new_figure(7.2, 1.7 * len(curves) + 0.7, theme)
    _draw_curves(list(figure.subplots(len(curves), squeeze=False)[:, 0]), curves, unit, theme)
    figure.align_ylabels()
    return figure


def share_figure(
    epochs: Sequence[Mapping[str, Any]], unit: str, rates: tuple[np.ndarray, np.ndarray], theme: Theme
) -> "Figure":
    """The share kept in each epoch, above the learning rate.

    Args:
        epochs: Accounts of the epochs, see `PruningReport`.
        unit: "rows" or "tokens".
        rates: (P,) epochs, fractional, and (P,) their learning rates; if empty, that panel is left out.
        theme: The colours.
    """
    figure = new_figure(7.2, 4.4 if len(rates[0]) else 2.8, theme)
    grid = figure.add_gridspec(2 if len(rates[0]) else 1, 1, height_ratios=[3, 2] if len(rates[0]) else None)
    share = figure.add_subplot(grid[0])
    _draw_share(share, epochs, unit, theme)
    if len(rates[0]):
        share.set_xlabel("")
        below = figure.add_subplot(grid[1], sharex=share)
        marker = "o" if len(rates[0]) <= MANY else None
        below.plot(rates[0] + 0.5, rates[1], color=theme.first, marker=marker, markersize=3)  # epoch 1 is centred at 1
        below.set_title("Learning rate", loc="left", fontsize="medium", color=theme.ink)
        below.set_xlabel("epoch")
        below.set_ylim(bottom=0)
        below.yaxis.set_major_formatter("{x:g}")
        finish(below, theme)
    return figure


def parts_figure(epochs: np.ndarray, parts: Mapping[str, np.ndarray], unit: str, theme: Theme) -> "Figure":
    """How much each epoch trained, how much it only measured by a forward pass, and how much it left out.

    Args:
        epochs: (E,) numbers of the epochs, from 0.
        parts: (E,) amounts by name, stacked in this order.
        unit: What the amounts count.
        theme: The colours.
    """
    figure = new_figure(7.2, 3.2, theme)
    panel = figure.add_subplot()
    scale, word = _scale(np.sum(list(parts.values()), axis=0).max(initial=0))
    below = np.zeros(len(epochs))
    colors: dict[str, str] = dict(
        zip(("trained", "forward only", "not trained"), (theme.first, theme.second, theme.third), strict=True)
    )
    for name, values in parts.items():
        if not values.any():
            continue
        above = below + values / scale
        if len(epochs) > MANY:
            edges = np.append(epochs + 0.5, epochs[-1] + 1.5)
            panel.stairs(above, edges, baseline=below, fill=True, color=colors[name], label=name)
        else:
            panel.bar(epochs + 1, values / scale, 0.8, below, color=colors[name], label=name)
        below = above
    panel.set_ylabel(f"{unit}{word}")
    panel.set_ylim(0, below.max(initial=0) * 1.02 or 1)
    _epoch_axis(panel, epochs + 1)
    _legend(panel, theme)
    return _finished(figure, panel, theme)


def losses_figure(epochs: np.ndarray, quantiles: Mapping[str, np.ndarray], theme: Theme) -> "Figure":
    """Distributions of losses over the epochs: the median as a line, 10 % to 90 % as a band.

    Args:
        epochs: (E,) numbers of the epochs, from 0.
        quantiles: (E, 3) quantiles by name, nats; NaN = none.
        theme: The colours.
    """
    figure = new_figure(7.2, 3.4, theme)
    panel = figure.add_subplot()
    for (name, values), color, mark in zip(quantiles.items(), (theme.first, theme.second), "os", strict=False):
        if np.isnan(values).all():
            continue
        low, middle, high = values.T
        few = len(epochs) <= MANY
        panel.plot(epochs + 1, middle, color=color, marker=mark if few else None, markersize=4, label=name)
        if len(epochs) > 1:
            panel.fill_between(epochs + 1, low, high, color=color, alpha=0.22, linewidth=0)
        else:
            panel.errorbar(epochs + 1, middle, [middle - low, high - middle], color=color, capsize=4)
    panel.set_ylabel("loss")
    _from_zero(panel)
    _epoch_axis(panel, epochs + 1)
    _legend(panel, theme)
    return _finished(figure, panel, theme)


def times_figure(times: np.ndarray, theme: Theme) -> "Figure":
    """A histogram of how often rows were trained.

    Args:
        times: (N,) int.
        theme: The colours.
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(7.2, 3.0, theme)
    panel = figure.add_subplot()
    rows = np.bincount(times)
    if len(rows) > MANY:
        panel.stairs(rows, np.arange(len(rows) + 1) - 0.5, fill=True, color=theme.first)
    else:
        panel.bar(np.arange(len(rows)), rows, 0.86, color=theme.first)
    panel.set_xlabel("times trained")
    panel.set_ylabel("rows")
    panel.set_xlim(-0.6, len(rows) - 0.4)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    panel.yaxis.set_major_formatter("{x:,.0f}")
    return _finished(figure, panel, theme)


def map_figure(mean: np.ndarray, variability: np.ndarray, times: np.ndarray, theme: Theme) -> "Figure":
    """The data set as a map: each row's mean loss against its variability, coloured by how often it was trained.

    Args:
        mean: (N,) mean losses.
        variability: (N,) standard deviations of the losses.
        times: (N,) int, how often each row was trained.
        theme: The colours.
    """
    from matplotlib import colormaps
    from matplotlib.colors import BoundaryNorm, ListedColormap

    shown = drawn(len(mean))
    mean, variability, times = mean[shown], variability[shown], times[shown]
    figure = new_figure(7.2, 4.6, theme)
    panel = figure.add_subplot()
    low, high = int(times.min()), int(times.max())
    colors = ListedColormap(colormaps[theme.sequence](np.linspace(FAINTEST, 1, 256)))
    levels = np.unique(np.linspace(low, high + 1, min(high - low + 1, 12) + 1).round()) - 0.5
    size = float(np.clip(30_000 / len(mean), 3, 30))
    dots = panel.scatter(
        variability,
        mean,
        s=size,
        c=times,
        cmap=colors,
        norm=BoundaryNorm(levels, colors.N),
        alpha=0.75 if len(mean) > 2000 else 0.9,
        linewidths=0,
        rasterized=True,
    )
    middles = (levels[:-1] + levels[1:]) / 2
    bar = figure.colorbar(dots, ax=panel, ticks=middles, pad=0.02, aspect=30)
    spans = ((math.ceil(begin), math.floor(end)) for begin, end in itertools.pairwise(levels))
    bar.ax.set_yticklabels([f"{begin}" if begin == end else f"{begin}-{end}" for begin, end in spans])
    bar.set_label("times trained")
    solids: Any = bar.solids  # None before a bar is drawn
    solids.set_alpha(1)
    bar.ax.tick_params(which="both", length=0)
    bar.outline.set_visible(False)
    panel.set_xlabel("variability: standard deviation of the loss")
    panel.set_ylabel("mean loss")
    panel.set_xlim(left=0)
    _from_zero(panel)
    return _finished(figure, panel, theme)


def drawn(rows: int) -> np.ndarray:
    """(<= DOTS,) int64, which of so many rows a map shows; in random order, so that no kind covers the others."""
    shown = np.arange(rows)
    if rows > DOTS:
        shown = np.sort(np.random.default_rng(0).choice(rows, DOTS, replace=False))
    return np.random.default_rng(0).permutation(shown)


def seconds_figure(seconds: Mapping[str, float], theme: Theme) -> "Figure":
    """Seconds of each part of the run, one bar each.

    Args:
        seconds: By the name of the part.
        theme: The colours.
    """
    figure = new_figure(7.2, 0.7 + 0.36 * len(seconds), theme)
    panel = figure.add_subplot()
    bars = panel.barh(list(seconds), list(seconds.values()), 0.66, color=theme.first)
    total = sum(seconds.values())
    labels = [f"{value:,.1f} s ({percent(value, total)})" for value in seconds.values()]
    panel.bar_label(bars, labels, padding=4, fontsize="small", color=theme.ink)
    panel.invert_yaxis()
    panel.set_xlim(0, max([*seconds.values(), 1e-9]) * 1.25)
    panel.set_xlabel("seconds")
    panel.xaxis.set_major_formatter("{x:,g}")
    finish(panel, theme)
    panel.grid(axis="y", visible=False)
    panel.grid(axis="x", color=theme.grid)
    panel.tick_params(axis="y", length=0)
    return figure


def new_figure(width: float, height: float, theme: Theme) -> "Figure":
    """An empty figure, made without pyplot, which would hold it in memory.

    Args:
        width: Inches.
        height: Inches.
        theme: The colours.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("A figure needs matplotlib: pip install matplotlib.") from error
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor=theme.paper)
    FigureCanvasAgg(figure)
    return figure


def png(figure: "Figure") -> bytes:
    """The figure as a PNG file of at most 256 colours: a third of the size, as overlapping bands have thousands."""
    from PIL import Image  # matplotlib needs it too

    painted, buffer = io.BytesIO(), io.BytesIO()
    figure.savefig(painted, format="png")
    Image.open(painted).convert("RGB").quantize(256).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def _draw_curves(
    panels: Sequence["Axes"], curves: Mapping[str, tuple[np.ndarray, np.ndarray]], unit: str, theme: Theme
) -> None:
    most = max((trained.max() for trained, _ in curves.values()), default=0)
    scale, word = _scale(most)
    for panel, (name, (trained, values)) in zip(panels, curves.items(), strict=True):
        marker = "o" if len(values) <= MANY else None
        panel.plot(trained / scale, values, color=theme.first, marker=marker, markersize=4)
        short = name.removeprefix("eval_")
        panel.set_ylabel(NAMES.get(short, short.replace("_", " ")), parse_math=False)
        panel.set_xlim(0, 1.05 * most / scale or 1)
        panel.tick_params(labelbottom=panel is panels[-1])
        if panel is panels[-1]:
            counted = "positions trained, padding included" if unit == "tokens" else f"{unit} trained"
            panel.set_xlabel(f"{counted}{word}")
        finish(panel, theme)


def _draw_share(panel: "Axes", epochs: Sequence[Mapping[str, Any]], unit: str, theme: Theme) -> None:
    from matplotlib.ticker import PercentFormatter

    series = [
        (name, color) for name, color in (("rows", theme.second), ("tokens", theme.first)) if name in ("rows", unit)
    ]
    width = 0.8 / len(series)
    numbers = np.array([epoch["epoch"] + 1 for epoch in epochs])
    for place, (name, color) in enumerate(series):
        kept = np.array([100 * _share(epoch[name], epoch[f"{name}_offered"]) for epoch in epochs])
        if len(epochs) > MANY:
            width = 1.5 + 2 * (len(series) - 1 - place)  # the first line is wider, and stays visible below the others
            panel.plot(numbers, kept, drawstyle="steps-mid", color=color, label=name, linewidth=width)
        else:
            panel.bar(numbers + (place - (len(series) - 1) / 2) * width, kept, width, color=color, label=name)
    whole = 100 * _share(*(sum(epoch[name] for epoch in epochs) for name in (unit, f"{unit}_offered")))
    if math.isfinite(whole):
        label = f"{unit}, whole run: {whole:.1f} %"
        panel.axhline(whole, color=theme.ink, linestyle="--", linewidth=1, label=label)
    panel.set_title("Share kept", loc="left", fontsize="medium", color=theme.ink)
    panel.set_ylim(0, 105)
    panel.set_yticks(range(0, 101, 20))
    panel.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    _epoch_axis(panel, numbers)
    _legend(panel, theme)
    finish(panel, theme)


def _from_zero(panel: "Axes") -> None:
    """Begin the axis at 0, unless a loss (a user's own) is below 0."""
    if panel.dataLim.y0 >= 0:
        panel.set_ylim(bottom=0)


def _epoch_axis(panel: "Axes", numbers: np.ndarray) -> None:
    from matplotlib.ticker import MaxNLocator

    panel.set_xlabel("epoch")
    panel.set_xlim(numbers.min(initial=1) - 0.6, numbers.max(initial=1) + 0.6)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _legend(panel: "Axes", theme: Theme) -> None:
    place = {"loc": "lower right", "bbox_to_anchor": (1.02, 0.99), "ncols": 3}
    panel.legend(**place, columnspacing=1.2, handlelength=1.4, frameon=False, fontsize="small", labelcolor=theme.ink)


def _finished(figure: "Figure", panel: "Axes", theme: Theme) -> "Figure":
    finish(panel, theme)
    return figure


def finish(panel: "Axes", theme: Theme) -> None:
    """Give a panel the colours of the theme, horizontal grid lines, and no frame.

    Args:
        panel: The panel, with everything drawn in it.
        theme: The colours.
    """
    for axes in panel.figure.axes:  # a colour bar, too
        axes.tick_params(colors=theme.ink)
        axes.xaxis.label.set_color(theme.ink)
        axes.yaxis.label.set_color(theme.ink)
    panel.set_facecolor(theme.paper)
    panel.grid(axis="y", color=theme.grid)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["bottom", "left"]].set_color(theme.ink)


def shorten(panel: "Axes") -> None:
    """Write the numbers along the panel from 0 on, as 20k and 3M."""
    from matplotlib.ticker import EngFormatter

    panel.set_xlim(left=0)
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def percent(part: float, whole: float) -> str:
    """A share as a text, such as "62.5 %".

    Args:
        part: A part of `whole`.
        whole: If it is 0, the text is "-".
    """
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _scale(largest: float) -> tuple[float, str]:
    for scale, word in ((1e9, " (billions)"), (1e6, " (millions)"), (1e3, " (thousands)")):
        if largest >= scale:
            return scale, word
    return 1, ""
