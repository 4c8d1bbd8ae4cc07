"""The account of a pruned run: what was trained of what was offered, as numbers, Markdown and a figure."""

import json
import math
import os
import platform
import subprocess
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

_BLUE, _ORANGE, _GREY = "#2a6fbb", "#d9762b", "#6a6a6a"
_NAMES = {"bleu": "BLEU", "chrf": "chrF"}
_MANY = 24  # points from which a figure draws lines without markers or bars


@dataclass(frozen=True)
class PruningReport:
    """What a run trained of what its data set offered. `PruningMixin.pruning_report` makes it.

    Args:
        policy: `repr` of the policy.
        epochs: For each epoch, in order: `epoch` (from 0); `rows_offered`, `tokens_offered` (what a pass without
            pruning would have trained); `rows`, `tokens` (what was trained); `padded_tokens` (positions that went
            through the model, padding included); `rows_rescored`, `padded_tokens_rescored` (what went through it for
            measurement alone, without a gradient); `steps` (optimizer steps); `seconds_training`, `seconds_selecting`,
            `seconds_rescoring`.
            Tokens are all 0 where the inputs have none, as with images.
        log_history: The Trainer's, as in `trainer.state.log_history`.
        rows: N, rows in the training set.
        faults: Rows whose loss was NaN or infinite at least once.
        seconds_evaluating: Seconds in evaluation during training.
        steps_full: Optimizer steps of the same run without pruning.
        earlier: What the runs cost whose History this one began with: `runs`, `rows`, `tokens` (padding included),
            `seconds`; None where there were none, or it is not known.
    """

    policy: str
    epochs: list[dict[str, Any]]
    log_history: list[dict[str, Any]]
    rows: int
    faults: int
    seconds_evaluating: float
    steps_full: int
    earlier: dict[str, float] | None = None

    def totals(self) -> dict[str, int | float]:
        """Sums over the epochs, under the names they have there, and the counts of the run."""
        counts = ("rows", "rows_offered", "tokens", "tokens_offered", "padded_tokens")
        counts += ("rows_rescored", "padded_tokens_rescored")
        return {
            **{name: self._sum(name) for name in counts},
            "optimizer_steps": self._sum("steps"),
            "optimizer_steps_full": self.steps_full,
            "seconds_training": self._sum("seconds_training"),
            "seconds_selecting": self._sum("seconds_selecting"),
            "seconds_rescoring": self._sum("seconds_rescoring"),
            "seconds_evaluating": self.seconds_evaluating,
            "faults": self.faults,
        }

    def to_dict(self) -> dict[str, Any]:
        """The report without the log, of plain values that JSON can hold (NaN and infinity become None)."""
        report = {"policy": self.policy, "training_rows": self.rows, "epochs": self.epochs, "totals": self.totals()}
        return _plain(report | {"earlier_runs": self.earlier, "evaluations": self.evaluations()})

    def evaluations(self) -> list[dict[str, float]]:
        """The evaluations during training, in order, each with what had been trained by then.

        Returns:
            For each: `step`, `epoch`, `rows`, `tokens` (padding included), `seconds` (training, selection and
            rescoring, on one process), and its metrics under the names of the log.
        """
        found: dict[int, dict[str, float]] = {}
        for entry in self.log_history:
            metrics = {name: value for name, value in entry.items() if name.startswith("eval_")}
            if metrics and "prune/rows" in entry:
                counts = {
                    "step": entry["step"],
                    "epoch": entry["epoch"],
                    "rows": entry["prune/rows"],
                    "tokens": entry.get("prune/tokens", 0),
                    "seconds": entry["prune/seconds"] + entry["prune/seconds_training"],
                }
                found[entry["step"]] = found.get(entry["step"], counts) | metrics  # several sets log apart
        return list(found.values())

    def summary(self) -> str:
        """A Markdown table: trained, offered, share; then the seconds of each part."""
        totals = self.totals()
        rows = [self._row("rows", totals["rows"], totals["rows_offered"])]
        if totals["tokens_offered"]:
            rows.append(self._row("tokens", totals["tokens"], totals["tokens_offered"]))
        rows.append(self._row("optimizer steps", totals["optimizer_steps"], totals["optimizer_steps_full"]))
        if rescored := totals["rows_rescored"]:
            rows.append(self._row("rows, forward pass alone", rescored, totals["rows_offered"]))
        if rescored := totals["padded_tokens_rescored"]:
            rows.append(["padded tokens, forward pass alone", f"{rescored:,}", "", ""])
        if self.earlier:
            runs = "1 earlier run" if self.earlier["runs"] == 1 else f"{self.earlier['runs']:.0f} earlier runs"
            unit, name = ("tokens", "padded tokens") if self.earlier["tokens"] else ("rows", "rows")
            rows.append([f"{name} of {runs}", f"{self.earlier[unit]:,.0f}", "", ""])
            rows.append([f"seconds of {runs}", f"{self.earlier['seconds']:,.1f}", "", ""])
        rows += [
            [f"seconds {part}", f"{totals[f'seconds_{part}']:,.1f}", "", ""]
            for part in ("training", "selecting", "rescoring", "evaluating")
            if part != "rescoring" or totals["rows_rescored"]
        ]
        return _table(["", "trained", "offered", "share"], rows)

    def card(self) -> str:
        """The section "Data pruning" of a model card, in Markdown."""
        totals = self.totals()
        unit = self._unit()
        left_out = totals[f"{unit}_offered"] - totals[unit]
        lines = [
            "## Data pruning",
            "",
            f"hf_prune chose what to train on in each epoch, out of {self.rows:,} rows, by `{self.policy}`.",
            f"{unit.capitalize()} not trained: **{left_out:,}** of {totals[f'{unit}_offered']:,} "
            f"({_percent(left_out, totals[f'{unit}_offered'])}).",
            "",
            self.summary(),
            "",
            "How it was counted: offered is every row once in each epoch, and the optimizer steps of the same run "
            "without pruning.",
        ]
        if unit == "tokens":
            lines.append(
                "Tokens are those of the input and of the decoder's target, without padding; "
                f"with padding, {totals['padded_tokens']:,} positions were trained."
            )
        lines.append("Seconds are of this run alone; no run without pruning was timed beside it.")
        if self.faults:
            lines.append(
                f"Rows whose loss was NaN or infinite at least once, which no choice went by: {self.faults:,}."
            )
        headings = ["epoch", "rows", "share of rows", "optimizer steps"]
        rows = [
            [
                f"{epoch['epoch'] + 1}",
                f"{epoch['rows']:,}",
                _percent(epoch["rows"], epoch["rows_offered"]),
                f"{epoch['steps']:,}",
            ]
            for epoch in self.epochs
        ]
        if unit == "tokens":
            headings[3:3] = ["tokens", "share of tokens"]
            for row, epoch in zip(rows, self.epochs, strict=True):
                row[3:3] = [f"{epoch['tokens']:,}", _percent(epoch["tokens"], epoch["tokens_offered"])]
        return "\n".join([*lines, "", _table(headings, rows), ""])

    def figure(self, path: str | os.PathLike[str], metrics: Sequence[str] = ("eval_loss", "eval_bleu")) -> None:
        """Write one image: the metrics against what was trained so far, and the share kept by epoch.

        Args:
            path: The file; its suffix sets the format, such as `.png`.
            metrics: Names in the evaluations' logs, one panel each; a name that no evaluation logged is left out.

        Raises:
            ImportError: matplotlib is not installed.
        """
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
            from matplotlib.ticker import MaxNLocator, PercentFormatter
        except ImportError as error:
            raise ImportError("A figure needs matplotlib: pip install 'hf_prune[recipes]'.") from error
        unit = self._unit()
        curves = {name: curve for name in metrics if len((curve := self._curve(name, unit))[0])}
        figure = Figure(figsize=(10, max(4.0, 2.4 * len(curves) + 0.8)), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(max(1, len(curves)), 2 if curves else 1)

        scale, word = _scale(max((trained.max() for trained, _ in curves.values()), default=0))
        upper = None
        for place, (name, (trained, values)) in enumerate(curves.items()):
            panel = figure.add_subplot(grid[place, 0], sharex=upper)
            panel.plot(trained / scale, values, color=_BLUE, marker="o" if len(values) <= _MANY else None, markersize=4)
            short = name.removeprefix("eval_")
            panel.set_ylabel(_NAMES.get(short, short.replace("_", " ")))
            panel.set_xlim(left=0)
            last = place == len(curves) - 1
            panel.tick_params(labelbottom=last)
            if last:
                panel.set_xlabel(f"{unit} trained{', padding included' if unit == 'tokens' else ''}{word}")
            if upper is None:
                panel.set_title("Evaluation", loc="left", fontsize="medium")
            upper = upper or panel
        share = figure.add_subplot(grid[:, -1])
        series = [(name, color) for name, color in (("rows", _ORANGE), ("tokens", _BLUE)) if name in ("rows", unit)]
        width, many = 0.8 / len(series), len(self.epochs) > _MANY
        epochs = np.array([epoch["epoch"] + 1 for epoch in self.epochs])
        for place, (name, color) in enumerate(series):
            kept = np.array([100 * _share(epoch[name], epoch[f"{name}_offered"]) for epoch in self.epochs])
            if many:
                share.plot(epochs, kept, drawstyle="steps-mid", color=color, label=name)
            else:
                share.bar(epochs + (place - (len(series) - 1) / 2) * width, kept, width, color=color, label=name)
        whole = 100 * _share(self._sum(unit), self._sum(f"{unit}_offered"))
        if math.isfinite(whole):
            share.axhline(whole, color=_GREY, linestyle="--", linewidth=1, label=f"{unit}, whole run: {whole:.1f} %")
        share.set_title("Share kept", loc="left", fontsize="medium")
        share.set_xlabel("epoch")
        share.set_xlim(epochs.min(initial=1) - 0.6, epochs.max(initial=1) + 0.6)
        share.set_ylim(0, 105)
        share.set_yticks(range(0, 101, 20))
        share.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        share.yaxis.set_major_formatter(PercentFormatter(decimals=0))
        place = {"loc": "lower right", "bbox_to_anchor": (1.02, 0.99), "ncols": 3}
        share.legend(**place, columnspacing=1.2, handlelength=1.4, frameon=False, fontsize="small")
        for panel in figure.axes:
            panel.grid(axis="y", color="0.9")
            panel.set_axisbelow(True)
            panel.spines[["top", "right"]].set_visible(False)
        figure.align_ylabels()
        figure.suptitle(textwrap.fill(self.policy, 100), fontsize="medium", family="monospace")
        figure.savefig(path)

    def _sum(self, name: str) -> Any:
        return sum(epoch[name] for epoch in self.epochs)

    def _unit(self) -> str:
        return "tokens" if self._sum("tokens_offered") else "rows"

    def _row(self, name: str, trained: float, offered: float) -> list[str]:
        return [name, f"{trained:,}", f"{offered:,}", _percent(trained, offered)]

    def _curve(self, metric: str, unit: str) -> tuple[np.ndarray, np.ndarray]:
        """What was trained (E,) when each evaluation logged `metric`, and its values (E,)."""
        first: dict[int, float] = {}
        for entry in self.log_history:
            if metric in entry:
                first.setdefault(entry["step"], entry[metric])  # a later one at this step is of the best model
        known = {0: 0.0}
        known |= {entry["step"]: entry[f"prune/{unit}"] for entry in self.log_history if f"prune/{unit}" in entry}
        steps = np.cumsum([epoch["steps"] for epoch in self.epochs])
        counted = "padded_tokens" if unit == "tokens" else "rows"  # what the log counts
        known |= dict(zip(steps.tolist(), np.cumsum([epoch[counted] for epoch in self.epochs]).tolist(), strict=True))
        at = sorted(known)
        trained = np.interp(sorted(first), at, [known[step] for step in at])
        return trained, np.array([first[step] for step in sorted(first)], dtype=float)


def results_table(paths: Sequence[str | os.PathLike[str]]) -> str:
    """A Markdown table of the `results.json` files of translation runs; the first is the one that shares are of.

    Raises:
        ValueError: A file holds something else.
    """
    rows, whole = [], None
    for path in paths:
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            scores, pruning = found["scores"], found["pruning"]
            totals = pruning["totals"]
            tokens, passes = totals["padded_tokens"], totals["rows_offered"] / pruning["training_rows"]
            whole = whole or tokens
            rows.append(
                [
                    Path(path).stem,
                    f"`{found['policy']}`",
                    f"{passes:.3g}",
                    f"{tokens:,}",
                    _percent(tokens, whole),
                    f"{totals.get('padded_tokens_rescored', 0):,}",
                    f"{totals['optimizer_steps']:,}",
                    *(f"{scores[name]:.1f} ± {float(scores[f'{name}_interval']):.1f}" for name in ("bleu", "chrf")),
                ]
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no results.json of a pruned translation run ({error!r}).") from error
    headings = ["run", "policy", "epochs", "tokens trained", "share", "forward only", "optimizer steps", "BLEU", "chrF"]
    return _table(headings, rows)


def surroundings(script: str | os.PathLike[str]) -> dict[str, Any]:
    """What a result was made with: versions, hardware, and the commit of the repository that holds `script`.

    Args:
        script: The file that runs, as `__file__` names it.

    Returns:
        `versions` (a package that is not installed is left out), `hardware`, and `commit`, which ends in "-dirty" where
        files differ from it and is None outside of a repository.
    """
    git = ["git", "-C", str(Path(script).resolve().parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        commit = subprocess.run([*git, "--exclude=*"], capture_output=True, text=True).stdout.strip() or None
    except FileNotFoundError:
        commit = None
    versions = {"python": platform.python_version()}
    for package in ("hf_prune", "torch", "transformers", "accelerate", "datasets", "tokenizers", "sacrebleu"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    threads = torch.get_num_threads()
    hardware = {"machine": platform.machine(), "cpus": os.cpu_count(), "threads": threads, "gpus": gpus}
    return {"versions": versions, "hardware": hardware, "commit": commit}


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _scale(largest: float) -> tuple[float, str]:
    for scale, word in ((1e9, " (billions)"), (1e6, " (millions)"), (1e3, " (thousands)")):
        if largest >= scale:
            return scale, word
    return 1, ""


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(headings) - 1)
    return "\n".join(f"| {' | '.join(row)} |" for row in [headings, rule, *rows])


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
