"""The account of a pruned run: how much was offered and how much was trained, as numbers, Markdown and a figure.

Size: `PruningReport` is the content of one file, pruning.json: each field is an entry there.
"""

import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.foreign import number, of_kind, read_json, setting, why
from ..common.markdown import in_code, markdown_table
from ..common.storage import write_bytes, write_text
from . import brief, figures, padding
from .entries import EARLIER, checked_epoch, counted, is_number, logged

if TYPE_CHECKING:
    from typing_extensions import Self


NUMBERS = "pruning.json"  # beside a saved model
NOTHING = 0.0005  # share of the offered rows; a run that leaves out less counts as leaving out nothing
_KEEPS_ALL = re.compile(r"[(:,]\s*(keep=1(\.0*)?|(ratio|hide|max_paused)=0(\.0*)?)\s*([,)]|$)")


def keeps_all(policy: str) -> bool:
    """Whether a policy, as shown or typed, is set to keep every row, like a baseline."""
    return _KEEPS_ALL.search(policy) is not None


@dataclass(frozen=True)
class PruningReport:
    """What a data set offered and what a run trained. `PruningMixin.pruning_report` makes it.

    Args:
        policy: `repr` of the policy.
        epochs: One dict per epoch, in order: `epoch` (from 0); `rows_offered`, `tokens_offered` (what an epoch without
            pruning trains); `rows`, `tokens` (what was trained); `rows_repeated` (rows among them that were repeated to
            fill the processes' last batches); `padded_tokens` (positions that went through the model, padding
            included); `padding` (the padding among them; 0 if real tokens are not told apart); `rows_rescored`,
            `padded_tokens_rescored` (what went through the model only to be measured, without a gradient); `steps`
            (optimizer steps), `steps_full` (steps of the same run without pruning, as far as the epoch was trained);
            `seconds_training`, `seconds_selecting`, `seconds_rescoring`.
            All token counts are 0 if the inputs have no tokens, as with images.
        log_history: The Trainer's `trainer.state.log_history`.
        rows: N, number of rows in the training set.
        faults: Number of rows whose loss was NaN or infinite at least once.
        seconds_evaluating: Seconds in evaluation during training.
        steps_full: Optimizer steps of the same run without pruning, as far as this run came.
        earlier: Cost of the earlier runs whose History this run began with: `runs`, `rows`, `tokens` (positions,
            padding included), `seconds`; None if there were no such runs, or their cost is not known.
        missing: Name of each file that could not be written beside the model -> the reason.
        padding_causes: Where the padding comes from, see `padding.causes`.
        about: What the run is, in words: `run`, `model`, `data`; may lack any of them.
    """

    policy: str
    epochs: list[dict[str, Any]]
    log_history: list[dict[str, Any]]
    rows: int
    faults: int
    seconds_evaluating: float
    steps_full: int
    earlier: dict[str, float] | None = None
    missing: Mapping[str, str] = field(default_factory=dict[str, str])
    padding_causes: Sequence[str] = ()
    about: Mapping[str, str] = field(default_factory=dict[str, str])

    def __str__(self) -> str:
        return brief.as_text(self)

    def _repr_html_(self) -> str:  # notebooks show it
        return brief.as_html(self)

    def totals(self) -> dict[str, Any]:
        """Sums over the epochs, under the same names, and the counts of the whole run.

        `padding` is a share of `padded_tokens`; None if the inputs have no tokens, or if it is not known.
        """
        counts = ("rows", "rows_offered", "tokens", "tokens_offered", "padded_tokens")
        counts += ("rows_rescored", "padded_tokens_rescored")
        return {
            **{name: self._sum(name) for name in counts},
            "padding": padding.share_of(self.epochs),
            "rows_repeated": sum(epoch.get("rows_repeated", 0) for epoch in self.epochs),  # not in older files
            "optimizer_steps": self._sum("steps"),
            "optimizer_steps_full": self.steps_full,
            "seconds_training": self._sum("seconds_training"),
            "seconds_selecting": self._sum("seconds_selecting"),
            "seconds_rescoring": self._sum("seconds_rescoring"),
            "seconds_evaluating": self.seconds_evaluating,
            "faults": self.faults,
        }

    def to_dict(self) -> dict[str, Any]:
        """The report without the log, as plain values that JSON can hold (NaN and infinity become None)."""
        report = {"policy": self.policy, "training_rows": self.rows, "epochs": self.epochs, "totals": self.totals()}
        return plain(report | {"earlier_runs": self.earlier, "evaluations": self.evaluations()})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the report and the log as JSON, for `load`."""
        found = self.to_dict() | {"log_history": plain(self.log_history)}
        if self.missing:
            found["missing"] = dict(self.missing)
        if self.padding_causes:
            found["padding_causes"] = list(self.padding_causes)
        if self.about:
            found["about"] = dict(self.about)
        write_text(path, json.dumps(found, indent=2, default=str) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str], **more: Any) -> "Self":
        """Read a report that `save` wrote.

        Args:
            path: The file.
            **more: Fields that the file does not hold.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file holds something else.
        """
        try:
            found = read_json(path)
            totals, earlier = found["totals"], found["earlier_runs"]
            missing = of_kind(found.get("missing", {}), "missing", dict)
            causes = of_kind(found.get("padding_causes", []), "padding_causes", list)
            about = of_kind(found.get("about", {}), "about", dict)
            return cls(
                policy=setting(found["policy"], "policy"),
                epochs=[checked_epoch(epoch) for epoch in of_kind(found["epochs"], "epochs", list)],
                log_history=[logged(entry) for entry in of_kind(found["log_history"], "log_history", list)],
                rows=number(found["training_rows"], "training_rows", 1, whole=True),
                faults=number(totals["faults"], "faults", whole=True),
                seconds_evaluating=counted(totals["seconds_evaluating"], "seconds_evaluating"),
                steps_full=number(totals["optimizer_steps_full"], "optimizer_steps_full", whole=True),
                earlier=earlier and {name: number(earlier[name], name) for name in EARLIER},
                missing={name: of_kind(why, "missing", str) for name, why in missing.items()},
                padding_causes=tuple(cause for cause in causes if cause in padding.CURES),
                about={name: setting(about[name], "about") for name in ("run", "model", "data") if name in about},
                **more,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{path} is no report of a pruned run ({why(error)}).") from error

    def idle(self) -> str | None:
        """A sentence that says that no row was left out; None if some were, or if it was set to keep all."""
        offered, trained = self._sum("rows_offered"), self._sum("rows") - self.totals()["rows_repeated"]
        if not offered or keeps_all(self.policy) or offered - trained > NOTHING * offered:
            return None
        return (
            f"`{self.policy}` left no row out: as many rows were trained as a run without a policy trains. Other "
            "settings, more epochs or another rule are needed to save something."
        )

    def padding(self, is_command: bool = False) -> str | None:
        """A sentence with the cure if more than a fifth of the positions were padding; else None.

        Args:
            is_command: Whether to name arguments as on a command line, and not as in Python.
        """
        return padding.note(self.totals()["padding"], self.padding_causes, is_command)

    def evaluations(self) -> list[dict[str, float]]:
        """The evaluations during training, in order, each with how much had been trained by then.

        Returns:
            For each: `step`, `epoch`, `rows`, `tokens` (positions: padding included), `seconds` (training, selection
            and rescoring, on one process), and its metrics under the names of the log.
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
                found[entry["step"]] = found.get(entry["step"], counts) | metrics  # several sets log separately
        return list(found.values())

    def summary(self) -> str:
        """A Markdown table: trained, offered, share; then the seconds of each part."""
        headings, *rows = self.summary_cells()
        return markdown_table(headings, rows)

    def summary_cells(self) -> list[list[str]]:
        """The headings and the rows of `summary`."""
        totals = self.totals()
        rows = [self._row("rows", totals["rows"], totals["rows_offered"])]
        if totals["tokens_offered"]:
            rows.append(self._row("tokens", totals["tokens"], totals["tokens_offered"]))
        if positions := totals["padded_tokens"]:
            wasted = "" if totals["padding"] is None else f", {100 * totals['padding']:.1f} % of them padding"
            rows.append([f"positions{wasted}", f"{positions:,}", "", ""])
        rows.append(self._row("optimizer steps", totals["optimizer_steps"], totals["optimizer_steps_full"]))
        if repeated := totals["rows_repeated"]:
            rows.append(["rows repeated, to fill batches", f"{repeated:,}", "", ""])
        if rescored := totals["rows_rescored"]:
            rows.append(self._row("rows, forward pass alone", rescored, totals["rows_offered"]))
        if rescored := totals["padded_tokens_rescored"]:
            rows.append(["positions, forward pass alone", f"{rescored:,}", "", ""])
        if self.earlier:
            runs = "1 earlier run" if self.earlier["runs"] == 1 else f"{self.earlier['runs']:.0f} earlier runs"
            unit, name = ("tokens", "positions") if self.earlier["tokens"] else ("rows", "rows")
            rows.append([f"{name} of {runs}", f"{self.earlier[unit]:,.0f}", "", ""])
            rows.append([f"seconds of {runs}", f"{self.earlier['seconds']:,.1f}", "", ""])
        rows += [
            [f"seconds {part}", f"{totals[f'seconds_{part}']:,.1f}", "", ""]
            for part in ("training", "selecting", "rescoring", "evaluating")
            if part != "rescoring" or totals["rows_rescored"]
        ]
        return [["", "trained", "offered", "share"], *rows]

    def card(self) -> str:
        """The section "Data pruning" of a model card, in Markdown."""
        totals = self.totals()
        unit = self._unit()
        left_out = totals[f"{unit}_offered"] - totals[unit]
        lines = [
            "## Data pruning",
            "",
            f"hf_prune chose what to train on in each epoch, out of {self.rows:,} rows, by {in_code(self.policy)}.",
            f"{unit.capitalize()} not trained: **{left_out:,}** of {totals[f'{unit}_offered']:,} "
            f"({figures.percent(left_out, totals[f'{unit}_offered'])}).",
            "",
            self.summary(),
            "",
            "How it was counted: offered is every row once in each epoch, and the optimizer steps of the same run "
            "without pruning.",
        ]
        if unit == "tokens":
            lines.append(
                "Tokens are those of the input and of the decoder's target, without padding; "
                f"with padding, {totals['padded_tokens']:,} positions were computed"
                + ("." if totals["padding"] is None else f", {100 * totals['padding']:.1f} % of them padding.")
            )
        if wasted := self.padding():
            lines.append(wasted)
        lines.append("Seconds are of this run alone; no run without pruning was timed beside it.")
        if self.missing:
            lines.append(f"What could not be written beside the model: {', '.join(map(in_code, self.missing))}.")
        if idle := self.idle():
            lines.append(idle)
        if self.faults:
            lines.append(
                f"Rows whose loss was NaN or infinite at least once, which no choice went by: {self.faults:,}."
            )
        headings = ["epoch", "rows", "share of rows", "optimizer steps"]
        rows = [
            [
                f"{epoch['epoch'] + 1}",
                f"{epoch['rows']:,}",
                figures.percent(epoch["rows"], epoch["rows_offered"]),
                f"{epoch['steps']:,}",
            ]
            for epoch in self.epochs
        ]
        if unit == "tokens":
            headings[3:3] = ["tokens", "share of tokens"]
            for row, epoch in zip(rows, self.epochs, strict=True):
                row[3:3] = [f"{epoch['tokens']:,}", figures.percent(epoch["tokens"], epoch["tokens_offered"])]
        return "\n".join([*lines, "", markdown_table(headings, rows), ""])

    def figure(self, path: str | os.PathLike[str], metrics: Sequence[str] = ("eval_loss", "eval_bleu")) -> None:
        """Write one image: the metrics against how much was trained, and the share kept in each epoch.

        Args:
            path: The file; its suffix sets the format, such as `.png`.
            metrics: Names in the evaluations' logs, one panel each; names that were never logged are left out.

        Raises:
            ImportError: matplotlib is not installed.
        """
        unit = self._unit()
        curves = {name: curve for name in metrics if len((curve := self._curve(name, unit))[0])}
        with TemporaryDirectory() as made:
            figures.run_figure(self.policy, unit, curves, self.epochs).savefig(Path(made, Path(path).name))
            (file,) = Path(made).iterdir()
            write_bytes(Path(path).with_name(file.name), file.read_bytes())

    def _sum(self, name: str) -> Any:
        return sum(epoch[name] for epoch in self.epochs)

    def _unit(self) -> str:
        return "tokens" if self._sum("tokens_offered") else "rows"

    def _row(self, name: str, trained: float, offered: float) -> list[str]:
        return [name, f"{trained:,}", f"{offered:,}", figures.percent(trained, offered)]

    def _curve(self, metric: str, unit: str) -> tuple[np.ndarray, np.ndarray]:
        """(E,) how much was trained when each evaluation logged `metric`, and (E,) its values."""
        first: dict[int, float] = {}
        for entry in self.log_history:
            if is_number(entry.get(metric)) and "step" in entry:
                first.setdefault(entry["step"], entry[metric])  # a later value at this step is the best model's
        known = {0: 0.0}
        logged = (entry for entry in self.log_history if {"step", f"prune/{unit}"} <= entry.keys())
        known |= {entry["step"]: entry[f"prune/{unit}"] for entry in logged}
        steps = np.cumsum([epoch["steps"] for epoch in self.epochs])
        counted = "padded_tokens" if unit == "tokens" else "rows"  # what the log counts
        known |= dict(zip(steps.tolist(), np.cumsum([epoch[counted] for epoch in self.epochs]).tolist(), strict=True))
        at = sorted(known)
        trained = np.interp(sorted(first), at, [known[step] for step in at])
        return trained, np.array([first[step] for step in sorted(first)], dtype=float)


def versions() -> dict[str, str]:
    """The versions of Python and of the installed packages that a result depends on."""
    found = {"python": platform.python_version()}
    packages = "hf_prune torch transformers accelerate datasets tokenizers trl peft kornia scikit-learn sacrebleu"
    packages += " evaluate matplotlib pillow"
    for package in packages.split():
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def surroundings(script: str | os.PathLike[str]) -> dict[str, Any]:
    """How a result was made: versions, hardware, and the commit of the repository with `script`.

    Args:
        script: The script that runs, as its `__file__`.

    Returns:
        `versions` (only of installed packages), `hardware`, and `commit`. It ends in "-dirty" if files differ from that
        commit, and is None outside a repository.
    """
    import torch  # imported here: it takes seconds, and tables and comparisons do not need it

    git = ["git", "-C", str(Path(script).resolve().parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        commit = subprocess.run([*git, "--exclude=*"], capture_output=True, text=True).stdout.strip() or None
    except FileNotFoundError:
        commit = None
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    threads = torch.get_num_threads()
    hardware = {"machine": platform.machine(), "cpus": os.cpu_count(), "threads": threads, "gpus": gpus}
    return {"versions": versions(), "hardware": hardware, "commit": commit}


def plain(value: Any) -> Any:
    """A value that every JSON reader accepts: NaN and infinity, as from a diverged loss, become None."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
