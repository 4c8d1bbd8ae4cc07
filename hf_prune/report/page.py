"""A run's report as one self-contained HTML page, with its figures beside it as PNG files.

`RunReport` adds three fields to those of `PruningReport`; the reason for their number stands there.
"""

import base64
import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.storage import DamagedFile, write_bytes, write_text
from ..data import Brief
from ..data.examples import read_shown, show
from ..records.dynamics import Dynamics
from ..records.history import History
from ..records.history_file import HISTORY
from ..records.trace import FOLDER, read_trace
from . import figures
from .account import NUMBERS, PruningReport, is_number
from .evidence import shipped
from .facts import row_facts
from .rows import RowTable
from .theme import DARK, LIGHT, Theme
from .topics import Measured, advice_of, first

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    Draw = Callable[[Theme], Any]

REPORT = "_report.html"  # shows rows of the training set: Trainer does not push files whose names begin with _
EXAMPLES = "examples.json"
_SHOWN = 16  # rows in a list
_ONCE = "No row was measured twice, so none can be told from one that is not learnt yet."
_RATES = {"eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}  # not metrics of the model


@dataclass(frozen=True, kw_only=True)
class RunReport(RowTable, PruningReport):
    """A report that also knows the rows: the History, and what each round wrote into the folder of the run.

    Args:
        run: Folder of the run.
        history: The History, with every row's loss and signals.
        source: The training set; or the folder that the run saved its model in; None = neither is known.
    """

    run: Path
    history: History
    source: Brief | Path | None = None

    @classmethod
    def of_folder(cls, run: str | os.PathLike[str]) -> "Self":
        """The report of a run that saved its model in its folder, or in a folder directly inside it.

        Raises:
            ValueError: The folder holds no report, or its files are damaged.
        """
        try:
            places = (Path(run), Path(run).absolute().parent)
            rounds = next((place for place in places if (place / FOLDER).is_dir()), places[0])
            history = History.load(Path(run, HISTORY))
            report = cls.load(Path(run, NUMBERS), run=rounds, history=history, source=Path(run))
        except DamagedFile as error:
            raise ValueError(f"{run}: {error} Take another copy of the run.") from error
        except FileNotFoundError as error:
            raise ValueError(
                f"{error.filename} is not there: give the folder of a run with a policy that has ended and saved its "
                "model (trainer.save_model())."
            ) from error
        if report.rows != len(history):
            raise ValueError(
                f"{run}: {NUMBERS} is of {report.rows:,} rows and {HISTORY} of {len(history):,}. They are of two runs."
            )
        return report

    @cached_property
    def dynamics(self) -> Dynamics | None:
        """What the rounds show about each row; None if no round can be read."""
        return Dynamics.read(self.run, self.history)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What advice goes by, see `row_facts`."""
        return row_facts(self.history, self.dynamics, self.padding_causes)

    @cached_property
    def flaws(self) -> list[str]:
        """What is wrong with the rounds, one line each."""
        if self.dynamics is not None:
            return self.dynamics.flaws
        _, flaws = read_trace(self.run, self.rows, self.history.facts.get("run"))
        return ["No round of this run can be read: what follows is less.", *flaws]

    def save_examples(self, dataset: Any, processing_class: Any = None, names: Mapping[int, str] | None = None) -> None:
        """Write the texts and pictures of the rows that the page shows, so that the page does not need the data set.

        Args:
            dataset: The training set.
            processing_class: Decodes token ids, if it can.
            names: Names of the classes, by label.
        """
        rows = np.unique(np.concatenate([np.zeros(0, np.int64), *self._shown_rows().values()]))
        found = {str(row["row"]): row for row in show(dataset, rows.tolist(), processing_class, names)}
        write_text(Path(self.run, FOLDER, EXAMPLES), json.dumps(found, ensure_ascii=False) + "\n")

    def html(self, path: str | os.PathLike[str]) -> None:
        """Write the page, and its figures as PNG files into a folder beside it.

        Args:
            path: The file, such as `report.html`; the folder of the figures is then `report`.

        Raises:
            ImportError: matplotlib is not installed.
        """
        from jinja2 import Environment, PackageLoader, StrictUndefined

        path, sections = Path(path), []
        folder = path.with_suffix("")
        if folder.is_symlink():  # somebody else may have made the link, and it may lead anywhere
            folder.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        examples, flaws = read_shown(Path(self.run, FOLDER, EXAMPLES))
        flaws += [f"{name} could not be written beside the model ({why})." for name, why in self.missing.items()]
        for name, (title, text, alt, draw) in self._figures().items():
            try:
                light, dark = (figures.png(draw(theme)) for theme in (LIGHT, DARK))
            except (ValueError, ArithmeticError, MemoryError) as error:  # numbers too large for a scale
                flaws.append(f"The figure {title!r} can't be drawn ({error}).")
                continue
            write_bytes(folder / f"{name}.png", light)
            images = {"light": base64.b64encode(light).decode(), "dark": base64.b64encode(dark).decode()}
            sections.append({"title": title, "text": text, "alt": alt, "rows": [], **images})
        sections += self._lists(examples)
        environment = Environment(loader=PackageLoader("hf_prune.report"), autoescape=True, undefined=StrictUndefined)
        page = environment.get_template("report.html").render(
            policy=self.policy,
            lead=self._lead(),
            table=self.summary_cells(),
            flaws=[*(said.replace("`", "") for said in (self.idle(), self.padding()) if said), *self.flaws, *flaws],
            advice=self._advice(),
            sections=sections,
            light=LIGHT,
            dark=DARK,
            folder=folder.name,
        )
        write_text(path, page)

    # ---- Words ----

    def _lead(self) -> str:
        totals, unit = self.totals(), self._unit()
        trained, offered = totals[unit], totals[f"{unit}_offered"]
        share = f" ({100 * trained / offered:.1f} %)" if offered else ""
        return (
            f"{self.rows:,} rows. Of {offered:,} {unit} that {len(self.epochs)} epochs offered, {trained:,} were "
            f"trained{share}, in {totals['optimizer_steps']:,} optimizer steps where the run without pruning takes "
            f"{totals['optimizer_steps_full']:,}."
        )

    def _advice(self) -> list[str]:
        advice = advice_of(Measured({"pruning": self.to_dict(), "facts": self.facts}), shipped())
        return [one.line for one in first(advice, ["padding"] if self.padding() else [])]

    # ---- Figures ----

    def _figures(self) -> "dict[str, tuple[str, str, str, Draw]]":
        """File name of each figure -> title, text, alternative text and drawing."""
        found = {}
        if self.epochs:
            found |= {"share": self._share(), "parts": self._parts()}
        if curves := self._curves():
            last = "; ".join(f"{name.removeprefix('eval_')} ends at {values[-1]:.4g}" for name, (_, values) in curves)
            text = "Each evaluation, where the run had trained so much."
            curves = dict(curves)
            found["evaluations"] = (
                "Evaluation",
                text,
                f"Lines of the metrics against what was trained: {last}.",
                lambda theme: figures.curves_figure(curves, self._unit(), theme),
            )
        if self.dynamics is not None:
            found |= self._row_figures(self.dynamics)
        if self.epochs:
            totals = self.totals()
            parts = ("training", "selecting", *(["rescoring"] if totals["rows_rescored"] else []), "evaluating")
            seconds = {part: totals[f"seconds_{part}"] for part in parts}
            words = ", ".join(f"{part} {value:,.1f}" for part, value in seconds.items())
            found["seconds"] = (
                "Seconds by part",
                "Selecting is what pruning costs on top: choosing rows, and bringing their losses together and to "
                "disk. Rescoring measures rows by a forward pass alone.",
                f"Bars of the seconds by part: {words}.",
                lambda theme: figures.seconds_figure(seconds, theme),
            )
        return found

    def _share(self) -> "tuple[str, str, str, Draw]":
        unit = self._unit()
        shares = [100 * epoch[unit] / (epoch[f"{unit}_offered"] or np.nan) for epoch in self.epochs]
        rates = self._rates()
        return (
            "Share kept" + (" and learning rate" if len(rates[0]) else ""),
            "The part of each epoch that was trained; the dashed line is that of the whole run."
            + (" Below, the learning rate, which follows the passes over the data set." if len(rates[0]) else ""),
            f"Bars of the share of {unit} kept by epoch: {_listed([f'{share:.0f} %' for share in shares])}.",
            lambda theme: figures.share_figure(self.epochs, unit, rates, theme),
        )

    def _rates(self) -> tuple[np.ndarray, np.ndarray]:
        """(P,) epochs, fractional, and (P,) learning rates: those in the log, and those at the end of each round."""
        logged = [entry for entry in self.log_history if is_number(entry.get("learning_rate")) and "epoch" in entry]
        known = {entry["epoch"]: entry["learning_rate"] for entry in logged}
        rounds = self.dynamics.rounds if self.dynamics else []
        for round, later in itertools.pairwise(rounds):
            if round.learning_rates and later.epoch == round.epoch + 1:  # the last epoch may be incomplete
                known.setdefault(float(later.epoch), round.learning_rates[0])
        return np.array(sorted(known)), np.array([known[epoch] for epoch in sorted(known)])

    def _parts(self) -> "tuple[str, str, str, Draw]":
        unit = self._unit()
        known = self.dynamics
        rescored = dict(zip(known.epochs.tolist(), known.tokens_rescored.tolist(), strict=True)) if known else {}
        trained = np.array([epoch[unit] for epoch in self.epochs])
        forward = np.array(
            [epoch["rows_rescored"] if unit == "rows" else rescored.get(epoch["epoch"], 0) for epoch in self.epochs]
        )
        offered = np.array([epoch[f"{unit}_offered"] for epoch in self.epochs])
        parts = {"trained": trained, "forward only": forward, "not trained": np.maximum(offered - trained - forward, 0)}
        epochs = np.array([epoch["epoch"] for epoch in self.epochs])
        return (
            f"{unit.capitalize()} trained, forward only, and not trained",
            f"All that an epoch offered{', without padding' if unit == 'tokens' else ''}: trained, measured by a "
            "forward pass alone, or neither.",
            f"Stacked bars by epoch. In all: {', '.join(f'{sum(part):,} {name}' for name, part in parts.items())}.",
            lambda theme: figures.parts_figure(epochs, parts, unit, theme),
        )

    def _curves(self) -> list[tuple[str, tuple[np.ndarray, np.ndarray]]]:
        names = dict.fromkeys(name for entry in self.evaluations() for name in entry if name.startswith("eval_"))
        curves = ((name, self._curve(name, self._unit())) for name in names if name not in _RATES)
        return [(name, curve) for name, curve in curves if len(curve[0]) and np.isfinite(curve[1]).any()][:6]

    def _row_figures(self, known: Dynamics) -> "dict[str, tuple[str, str, str, Draw]]":
        times, found = known.times_trained, {}
        if np.isfinite(known.trained).any():
            quantiles = {"trained": known.trained, "not trained in the epoch": known.left_out}
            medians = {name: values[:, 1] for name, values in quantiles.items()}
            words = "; ".join(
                f"{name}, median {values[np.isfinite(values)][0]:.3g} to {values[np.isfinite(values)][-1]:.3g}"
                for name, values in medians.items()
                if np.isfinite(values).any()
            )
            found["losses"] = (
                "Losses of trained and left-out rows",
                "The median by epoch, and the band that holds 80 % of the rows, in the loss's own unit "
                "(cross-entropies: nats). Of a row that was left out, the latest loss that is known.",
                f"Lines with bands by epoch: {words}.",
                lambda theme: figures.losses_figure(known.epochs, quantiles, theme),
            )
        counts, rows = np.unique(times, return_counts=True)
        most = counts[rows.argmax()]
        found["times"] = (
            "How often each row was trained",
            f"{np.count_nonzero(times == 0):,} rows were never trained, {np.count_nonzero(times):,} at least once; "
            f"the mean is {times.mean():.2f} times.",
            f"Histogram from {counts[0]} to {counts[-1]} times; {rows.max():,} rows were trained {most} times.",
            lambda theme: figures.times_figure(times, theme),
        )
        repeated = known.times_measured > 1
        if known.is_repeated:
            dots = (known.mean[repeated], known.variability[repeated], times[repeated])
            found["map"] = (
                "Map of the data set",
                "Mean loss of each row over the rounds that measured it, against its standard deviation (after the "
                "dataset maps of Swayamdipta et al., 2020): easy rows lie at the bottom left, hard ones and wrong "
                "labels at the top left, those that were learnt on the way to the right."
                + (f" A random {figures.DOTS:,} of {len(dots[0]):,} rows." if len(dots[0]) > figures.DOTS else ""),
                f"Scatter of {min(len(dots[0]), figures.DOTS):,} rows: mean loss {dots[0].min():.2g} to "
                f"{dots[0].max():.2g}, standard deviation up to {dots[1].max():.2g}.",
                lambda theme: figures.map_figure(*dots, theme),
            )
        return found

    # ---- Rows ----

    def _shown_rows(self) -> dict[str, np.ndarray]:
        """Name of each list -> its rows."""
        found = {}
        if self.dynamics is not None:
            found |= {"hardest": self.dynamics.hardest(_SHOWN), "easiest": self.dynamics.easiest(_SHOWN)}
        return found | {"faults": np.flatnonzero(self.history.faults)[:_SHOWN]}

    def _lists(self, examples: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
        known, shown = self.dynamics, self._shown_rows()
        lists = []
        if known is not None:
            # before a model has learnt, half of the rows or so are above the mean
            is_told = self.judgement.is_meaningful
            what = "likely mislabelled, unreadable or rare." if is_told else self.judgement.line
            text = (
                f"{np.count_nonzero(known.never_learnt):,} rows were never below {known.level:.3g}, the mean of "
                f"all rows' latest losses, in two rounds or more: {what} They are in "
                "order of their excess: by how much their losses exceeded the mean of all rows' latest losses, "
                "on average over the rounds, of which round r weighs r; one more round of excess 0, which weighs as "
                "the last, draws rows that were rarely measured towards 0."
                if known.is_repeated
                else f"{_ONCE} These have the largest loss beside the mean of their round."
            )
            lists.append(("Rows never learnt", text, shown["hardest"]))
            text = (
                f"{np.count_nonzero(known.learnt_at_once):,} rows were in the easiest quarter of all rows by their "
                "latest losses whenever they were measured again after the first time: likely duplicates, or too easy "
                "to teach anything. Those of the lowest mean loss come first."
                if known.is_repeated
                else f"{_ONCE} These have the lowest loss."
            )
            lists.append(("Rows learnt at once", text, shown["easiest"]))
        if len(shown["faults"]):
            text = f"{self.faults:,} rows had a loss that was NaN or infinite; no choice went by it."
            lists.append(("Rows with faults", text, shown["faults"]))
        return [
            {"title": title, "text": text, "alt": "", "rows": self._examples(rows, examples)}
            for title, text, rows in lists
        ]

    def _examples(self, rows: np.ndarray, examples: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
        """What the template shows for each row: its example, its losses as a line in a box of 100 x 30, and a note."""
        known = self.dynamics
        losses = known.losses_of(rows) if known else np.empty((len(rows), 0))
        lowest, highest = float(np.nanmin(losses, initial=0)), float(np.nanmax(losses, initial=1e-9))
        shown = []
        for row, values in zip(rows.tolist(), losses, strict=True):
            entry: dict[str, Any] = {"texts": {}, "picture": None, "label": None} | examples.get(str(row), {})
            entry["row"] = row
            epochs = np.flatnonzero(~np.isnan(values))
            x = 100 * epochs / max(len(values) - 1, 1)
            y = 30 - 30 * (values[epochs] - lowest) / (highest - lowest)
            entry["dots"] = [(f"{a:.1f}", f"{b:.1f}") for a, b in zip(x, y, strict=True)] if len(epochs) > 1 else []
            texts = [f"{known.epochs[epoch] + 1}: {values[epoch]:.3g}" for epoch in epochs] if known else []
            entry["losses"] = f"Losses by epoch: {_listed(texts)}"
            entry["note"] = self._note(row, values[epochs])
            shown.append(entry)
        return shown

    def _note(self, row: int, losses: np.ndarray) -> str:
        words = []
        if self.dynamics is not None:
            times = int(self.dynamics.times_trained[row])
            words.append(f"trained {times} time{'' if times == 1 else 's'}")
        if len(losses):
            words.insert(0, f"loss {losses[0]:.3g}" + (f" to {losses[-1]:.3g}" if len(losses) > 1 else ""))
        if faults := int(self.history.faults[row]):
            words.append(f"no finite loss in {faults} round{'' if faults == 1 else 's'}")
        return ", ".join(words)


def _listed(texts: list[str]) -> str:
    """Values in words for a screen reader: all of them, or every nth if there are many."""
    step = -(-len(texts) // figures.MANY) or 1
    return ("" if step == 1 else f"of {len(texts)}, every {step}th: ") + ", ".join(texts[::step])
