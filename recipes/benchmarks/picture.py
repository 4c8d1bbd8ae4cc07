"""Draw the README's picture: how many of the rows that a run flags first have a wrong label.

    python recipes/benchmarks/picture.py

It reads recipes/results/label_noise.json, which label_noise.py made, and writes label_noise.svg beside it. Texts in the
SVG stay texts, so that they can be searched and compared.
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from hf_prune.common.storage import write_text
from hf_prune.report.figures import LIGHT, finish, new_figure

MEASURED = Path(__file__).parent.parent / "results" / "label_noise.json"


def draw(found: dict[str, Any]) -> Figure:
    """Bars of the mean precision over the runs of `found`, and a line at the share of wrong labels among all rows."""
    runs = found["runs"]
    shares = list(runs[0]["precision"])
    names = [f"first {share.replace('%', ' %')}" for share in shares]
    means = {
        name: np.array([100 * np.mean([run["precision"][share][name] for run in runs]) for share in shares])
        for name in ("hf_prune", "cleanlab")
    }
    wrong = 100 * runs[0]["wrong"]
    figure = new_figure(7.2, 2.9, LIGHT)
    panel = figure.add_subplot()
    places = np.arange(len(shares))
    for (name, values), color, shift in zip(means.items(), (LIGHT.first, LIGHT.third), (-0.2, 0.2), strict=True):
        bars = panel.barh(places + shift, values, 0.36, color=color, label=name)
        panel.bar_label(bars, [f"{value:.1f} %" for value in values], padding=4, fontsize="small", color=LIGHT.ink)
    panel.axvline(wrong, color=LIGHT.second, linestyle="--", linewidth=1.2, label=f"all rows: {wrong:.1f} %")
    panel.set_yticks(places, names)
    panel.invert_yaxis()
    panel.set_xlim(0, 108)
    panel.set_xticks(range(0, 101, 20), [f"{share} %" for share in range(0, 101, 20)])
    panel.set_xlabel(f"wrong labels among the rows flagged first (CIFAR-10 with people's labels, {len(runs)} runs)")
    place = {"loc": "lower right", "bbox_to_anchor": (1.02, 0.99), "ncols": 3}
    panel.legend(**place, columnspacing=1.2, handlelength=1.4, frameon=False, fontsize="small", labelcolor=LIGHT.ink)
    finish(panel, LIGHT)
    panel.grid(axis="y", visible=False)
    panel.grid(axis="x", color=LIGHT.grid)
    panel.tick_params(axis="y", length=0)
    return figure


def svg(figure: Figure) -> str:
    """The figure as an SVG file, the same each time."""
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "hf_prune", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "".join(f"{line.rstrip()}\n" for line in buffer.getvalue().splitlines())


if __name__ == "__main__":
    write_text(MEASURED.with_suffix(".svg"), svg(draw(json.loads(MEASURED.read_text(encoding="utf-8")))))
