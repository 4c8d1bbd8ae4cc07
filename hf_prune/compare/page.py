"""A comparison as Markdown, as a page of its own, and as a figure."""

import base64
import json
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..common.markdown import in_words, markdown_table
from ..common.storage import write_bytes, write_text
from ..report import figures
from ..report.card import BASELINES
from ..report.document import document
from ..report.spots import spots
from ..report.theme import LIGHT
from .classes import SCORES
from .enough import duration
from .plan import rule_of
from .power import MOST_SEEDS
from .verdict import Comparison

_COLORS = {"full": "#1a1a1a", "short": "#8c8c8c", "uniform": "#56a0d3"}
_POLICY_COLORS = ("#d9762b", "#2f8f4e", "#8a4fbf", "#c23b4b", "#a8891b", "#1f8f8f", "#c04f9b", "#5b6bd6", "#7a5230")
_LINES = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))  # for budgets: line style, and marker of each validation

_MARKERS = 8  # on one line, at most

CLASSES_NOTE = (
    "In %, means over seeds; each class counts alike, however many rows it has. The worst class is that of each run."
)


def write(comparison: Comparison, folder: str | os.PathLike[str]) -> None:
    """Write comparison.json, .md, .html and .png to a folder, and the text for the model cards of its runs.

    Args:
        comparison: The comparison to show.
        folder: Folder for the files; earlier ones are replaced.

    Raises:
        ImportError: Without matplotlib.
    """
    found, stem = comparison.to_dict(), Path(folder, "comparison")
    write_text(stem.with_suffix(".json"), json.dumps(found, indent=2) + "\n")
    points = figure(comparison, stem.with_suffix(".png"))
    write_text(stem.with_suffix(".md"), markdown(found))
    write_text(stem.with_name(BASELINES), baselines(found))
    write_text(stem.with_suffix(".html"), page(found, stem.with_suffix(".png").read_bytes(), points))


def baselines(found: dict[str, Any]) -> str:
    """Conclusions and table for the model cards of the runs, from `Comparison.to_dict`."""
    lines = [f"- {in_words(arm['conclusion'])}" for arm in found["arms"]]
    headings, *rows = ([*map(in_words, row)] for row in (table(found)[0], *table(found)[1]))
    return "\n".join([*lines, "", markdown_table(headings, rows), ""])


def markdown(found: dict[str, Any]) -> str:
    """Figure, conclusions, table, and how they were made, from `Comparison.to_dict`."""
    lines = [f"# {in_words(_title(found))}", ""]
    for line in verdict(found):
        lines += [f"**{in_words(line)}**", ""]
    lines += [f"![{_alt(found)}](comparison.png)", ""]
    lines += [f"- **{arm['arm']}**{arm['conclusion'].removeprefix(arm['arm'])}" for arm in found["arms"]]
    lines += ["", markdown_table(*table(found)), ""]
    if found["seeds_needed"]["arms"]:
        lines += ["## How many seeds", "", markdown_table(*seeds_table(found)), "", seeds_note(found), ""]
    if classes := classes_table(found):
        lines += ["## By class", "", markdown_table(*classes), "", CLASSES_NOTE, ""]
    lines += ["## How this was made", ""]
    commands = _commands(found)
    fence = "```" + "`" * max((len(ticks) for line in commands for ticks in re.findall("`+", line)), default=0)
    return "\n".join([*lines, *(f"- {note}" for note in _notes(found)), "", f"{fence}bash", *commands, fence, ""])


def page(found: dict[str, Any], figure: bytes, points: Sequence[Sequence[Any]] = ()) -> str:
    """The same as one self-contained HTML file.

    Args:
        found: From `Comparison.to_dict`.
        figure: The figure as a PNG.
        points: Where its points lie, to name their arms on hover; see `spots`.
    """
    headings, rows = table(found)
    planned = seeds_table(found) if found["seeds_needed"]["arms"] else None
    return document(
        "hf_prune.compare",
        "comparison.html",
        _title(found),
        ["chart.css", "comparison.css"],
        ["chart.js", "comparison.js"],
        name=_title(found),
        points=points,
        verdict=verdict(found),
        arms=found["arms"],
        headings=headings,
        rows=rows,
        planned=planned,
        seeds_note=seeds_note(found),
        classes=classes_table(found),
        classes_note=CLASSES_NOTE,
        figure=base64.b64encode(figure).decode(),
        alt=_alt(found),
        notes=_notes(found),
        commands=_commands(found),
    )


def table(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row of texts for each arm; columns that hold only 0 or - are left out."""
    digits = found["quality"]["digits"]
    unit, key = _unit(found)
    full = next((arm[key]["all"] for arm in found["arms"] if arm["arm"] == "full"), None)
    columns: dict[str, list[str]] = {}

    def add(heading: str, text: str) -> None:
        columns.setdefault(heading, []).append(text)

    for arm in found["arms"]:
        reached, tried = arm["seeds_that_reached_full"]
        deviation = arm["standard_deviation"]
        add("arm", arm["arm"])
        add("seeds", f"{len(arm['seeds'])}")
        spread = "" if deviation is None else f" ± {deviation:.{digits}f}"
        add(found["quality"]["unit"], f"{arm['mean']:.{digits}f}{spread}")
        for kind, difference in arm["differences"].items():
            rivals = {other["differences"][kind]["to"] for other in found["arms"] if other["differences"][kind]}
            alone = rivals.pop() if len(rivals) == 1 else None
            add(f"to {alone or kind}", _cell(difference, alone, digits))
        tokens = arm.get("tokens") if key != "tokens" else None
        add("tokens trained", "-" if tokens is None else f"{tokens:,.0f}")
        add(f"{unit} trained", f"{arm[key]['trained']:,.0f}")
        add("forward only", f"{arm[key]['forward_only']:,.0f}")
        add("earlier runs", f"{arm[key]['earlier']:,.0f}")
        add("saved", f"{100 * (1 - arm[key]['all'] / full):.1f} %" if full else "-")
        add("steps", f"{arm['steps']:,.0f}")
        add("seconds", f"{arm['seconds']:,.1f}")
        partly = "" if reached == tried else f" ({reached} of {tried})"
        add("seconds to full's", f"{arm['seconds_to_full']:,.1f}{partly}" if reached else "-")
    shown = {heading: texts for heading, texts in columns.items() if set(texts) not in ({"0"}, {"-"})}
    return list(shown), [list(row) for row in zip(*shown.values(), strict=True)]


def verdict(found: dict[str, Any]) -> list[str]:
    """The verdict in one line and, if an oracle has run, a second line with the headroom that it shows."""
    lines = [found["verdict"]["line"], found["headroom"]]
    return [f"{line}." for line in lines if line]


def seeds_table(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row of texts for each rule: how many seeds it needs, and what they cost."""
    planned, digits = found["seeds_needed"], found["quality"]["digits"]
    most = f"> {MOST_SEEDS:,}"
    rows = []
    for arm in planned["arms"]:
        few, needed, many = (
            most if arm[name] is None else f"{arm[name]}" for name in ("at_least", "needed", "at_most")
        )
        time = "-" if arm["seconds"] is None else duration(arm["seconds"]) if arm["seconds"] else "none"
        spread = f"{arm['deviation']:.{digits}f}"
        between = few if few == many else f"{few} to {many}"
        rows.append([arm["arm"], arm["to"], f"{arm['seeds']}", spread, needed, between, time])
    headings = ["arm", "against", "seeds", "spread", f"needed for {planned['difference']:g}", "between", "more time"]
    return headings, rows


def seeds_note(found: dict[str, Any]) -> str:
    """How the table of seeds is to be read."""
    planned = found["seeds_needed"]
    if not planned["arms"]:
        return ""
    fewest = min(arm["seeds"] for arm in planned["arms"])
    rough = "Two seeds give a rough number only. " if fewest == 2 else ""
    return (
        f"{rough}So many seeds tell a true difference of {planned['difference']:g} from 0 in "
        f"{100 * planned['power']:.0f} % of cases, if one seed's difference varies by the spread (standard deviation, "
        "with what test rows add). An arm with fewer than five seeds gets the spread of all arms. Between: what the "
        "95 % interval of the spread allows. More time: of this arm and its rival, as fast as the runs until now."
    )


def classes_table(found: dict[str, Any]) -> tuple[list[str], list[list[str]]] | None:
    """Headings, and a row of texts for each arm, of scores that count each class alike; None if there are none."""
    arms = [arm for arm in found["arms"] if "by_class" in arm]
    rows = [[arm["arm"], *(f"{100 * arm['by_class'][name]:.2f}" for name in SCORES)] for arm in arms]
    return (["arm", "macro-F1", "mean recall", "recall of the worst class"], rows) if rows else None


def figure(comparison: Comparison, path: str | os.PathLike[str]) -> list[list[Any]]:
    """Write an image: quality in validations against what was trained, and against seconds, a line for each arm.

    Lines are means over seeds; bands show one standard deviation to either side. Each budget has its own line style and
    marker. If lines begin so far from their ends that the ends can't be told apart, the beginnings are not shown.

    Args:
        comparison: The comparison to show.
        path: The PNG file to write.

    Returns:
        Where its points lie, see `spots`.

    Raises:
        ImportError: Without matplotlib.
    """
    arms = {name: arm for name, arm in comparison.plan.arms.items() if comparison.seeds(name)}
    budgets = sorted({arm.budget for arm in arms.values() if arm.budget is not None}, reverse=True)
    rules = list(dict.fromkeys(rule_of(name, arm.budget) for name, arm in arms.items() if arm.kind not in _COLORS))
    canvas = figures.new_figure(11, 5 + 0.22 * -(-len(arms) // 5), LIGHT)
    panels = canvas.subplots(1, 2, sharey=True)
    curves = {name: comparison.curves(name) for name in arms}
    for name, arm in arms.items():
        curve, spread = curves[name]
        color = _COLORS.get(arm.kind) or _POLICY_COLORS[rules.index(rule_of(name, arm.budget)) % len(_POLICY_COLORS)]
        front = 3 if arm.kind == "full" else 2
        line, marker = _LINES[0 if arm.budget is None else budgets.index(arm.budget) % len(_LINES)]
        step = max(1, -(-len(curve) // _MARKERS))
        look = {"color": color, "marker": marker, "markersize": 4, "markevery": ((len(curve) - 1) % step, step)}
        for panel, x in zip(panels, (curve[:, 0], curve[:, 1]), strict=True):
            panel.plot(x, curve[:, 2], line, label=name, zorder=front, **look)
            if len(curve) > 1:
                panel.fill_between(x, curve[:, 2] - spread, curve[:, 2] + spread, color=color, alpha=0.13, linewidth=0)
            else:  # a single point has no band
                panel.errorbar(x, curve[:, 2], spread, color=color, capsize=3, linewidth=1, zorder=front)
    padding = ", padding included" if comparison.unit == "positions" else ""
    panels[0].set_xlabel(f"{comparison.unit} trained{padding}")
    beside = f" ({comparison.plan.jobs} runs at once)" if comparison.plan.jobs > 1 else ""
    panels[1].set_xlabel(f"seconds of training, selection and rescoring{beside}")
    panels[0].set_ylabel(f"validation {comparison.scale.title}")
    far = _far([comparison.sign * curve[:, 2] for curve, _ in curves.values()])
    if far is not None:
        best = max(comparison.sign * panels[0].dataLim.intervaly)
        panels[0].set_ylim(*sorted(comparison.sign * quality for quality in (far, best + 0.05 * (best - far))))
    for panel in panels:
        figures.shorten(panel)
        figures.finish(panel, LIGHT)
    canvas.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    write_bytes(path, figures.png(canvas))
    return spots(canvas)


def _far(curves: Sequence[np.ndarray]) -> float | None:
    """The lowest quality to show: below the worst end by twice its distance to the best quality; None = all."""
    curves = [known for curve in curves if len(known := curve[np.isfinite(curve)])]
    if not curves:
        return None
    every, end = np.concatenate(curves), min(curve[-1] for curve in curves)
    far = float(end - 2 * (every.max() - end))
    return far if every.min() < far < end else None


def _cell(difference: dict[str, Any] | None, alone: str | None, digits: int) -> str:
    """A difference and its interval, and the arm it is compared with, unless the heading names that."""
    if difference is None:
        return "-"
    text = f"{difference['mean']:+.{digits}f}"
    if difference["low"] is not None:
        text += f" ({difference['low']:+.{digits}f} to {difference['high']:+.{digits}f})"
    return text if alone else f"{difference['to']}: {text}"


def _title(found: dict[str, Any]) -> str:
    seeds = found["plan"]["seeds"]
    return f"{Path(found['plan']['script']).name}: {len(found['arms'])} arms, {seeds} seed{'s' * (seeds > 1)}"


def _alt(found: dict[str, Any]) -> str:
    return f"Validation {found['quality']['unit']} against what was trained and against seconds, a line for each arm"


def _unit(found: dict[str, Any]) -> tuple[str, str]:
    """What is counted, and its key in `found`: an older comparison.json has positions under "tokens"."""
    arm = found["arms"][0]
    unit = "rows" if "rows" in arm else "positions"
    return unit, unit if unit in arm else "tokens"


def _notes(found: dict[str, Any]) -> list[str]:
    quality, plan, (unit, _) = found["quality"], found["plan"], _unit(found)
    over = "over seeds and test rows" if found["intervals"]["over_rows"] else "over seeds"
    better = "higher" if quality["greater_is_better"] else "lower"
    notes = [
        f"Quality: {quality['unit']} on {quality['rows']:,} rows ({quality['split']}), {better} is better; "
        "mean ± standard deviation over seeds. All arms start a seed with the same weights and order of rows.",
        "to full, to short, to uniform: mean paired difference from all rows, from all rows for fewer epochs and from "
        f"random rows, with its 95 % confidence interval, by bootstrap {over}, widened for few seeds. The last two are "
        "given if both arms read as much within a tenth. Each interval is for one comparison alone: of twenty "
        "without a difference, one is expected to show one. The verdict in the first line counts a rule as better only "
        "after Holm's correction for the number of rules.",
        f"saved: {unit} that full read and the arm did not. Those of forward passes alone and of earlier runs "
        "count as read" + (". Positions are what was computed: tokens and padding." if unit == "positions" else "."),
        "The figure counts what earlier runs trained too.",
        "seconds: training, selection and rescoring. seconds to full's: until a validation was as good as the last of "
        "full with the same seed" + (" (with as many seeds)." if _partly(found) else "."),
    ]
    if any(arm["differences"].get("baseline") for arm in found["arms"]):
        notes.append("to baseline: the same for the other baseline that read as much within a tenth.")
    if quality["margin"] is not None:
        notes.append(f"The same quality: the whole interval lies within ± {quality['margin']:g}.")
    if plan["jobs"] > 1:
        notes.append(
            f"Up to {plan['jobs']} runs shared the machine: seconds are longer than for a run alone and depend on the "
            "other runs. Do not compare the seconds of two arms."
        )
    if found["diverged"]:
        notes.append(f"Diverged, and in no number: {'; '.join(found['diverged'])}.")
    if stopped := [f"{arm['arm']} ({arm['stopped']})" for arm in found["arms"] if "stopped" in arm]:
        notes.append(
            f"Stopped before the last seed: {'; '.join(stopped)}. To look often finds differences by chance. Looks "
            f"before the last seed therefore use intervals of {100 * found['intervals']['level_of_looks']:g} % "
            "(Haybittle, Peto)."
        )
    if found["missing"]:
        notes.append(f"Not run (yet): {'; '.join(found['missing'])}.")
    hardware = "; ".join(
        f"{one['cpus']} CPU cores ({one['threads']} threads), {', '.join(one['gpus']) or 'no GPU'}"
        for one in found["hardware"]
    )
    versions = "; ".join(", ".join(f"{name} {number}" for name, number in one.items()) for one in found["versions"])
    commits = ", ".join(commit or "none" for commit in found["commit"])
    parameters = ", ".join(f"{number:,}" for number in found["parameters"])
    return [*notes, f"Parameters: {parameters}. Hardware: {hardware}. Versions: {versions}. Commit: {commits}."]


def _partly(found: dict[str, Any]) -> bool:
    return any(0 < arm["seeds_that_reached_full"][0] < arm["seeds_that_reached_full"][1] for arm in found["arms"])


def _commands(found: dict[str, Any]) -> list[str]:
    """What was run for each arm."""
    recipe = [found["plan"]["script"], *found["plan"]["arguments"]]
    seeds = found["plan"]["seeds"]
    lines = [f"for seed in $(seq {seeds}); do"]
    for arm in found["arms"]:
        command = shlex.join(["python", *recipe, *arm["flags"]])
        name = re.sub(r'([\\$`"])', r"\\\1", arm["arm"])
        lines.append(f'    {command} --seed $seed --output_dir "out/{name}/seed-$seed"')
    return [*lines, "done"]
