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
from ..records.table import ROWS
from ..records.trace import FOLDER, read_trace
from . import figures
from .account import NUMBERS, PruningReport
from .document import document
from .entries import is_number, scores_of
from .evidence import shipped
from .explorer import ids_of, packed
from .facts import row_facts
from .lists import in_short, lists_of, shown_rows
from .rows import RowTable, largest_first, likely_wrong
from .spots import spots
from .theme import DARK, LIGHT, Theme
from .topics import Measured, advice_of, first

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    Draw = Callable[[Theme], Any]

REPORT = "_report.html"  # shows rows of the training set: Trainer does not push files whose names begin with _
EXAMPLES = "examples.json"


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
                f"{error.filename} is not there: give the folder of a run with a policy whose first epoch has ended, "
                "or that has saved its model there (trainer.save_model())."
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
        likely = self._likely(self._known_rows()[0])
        rows = np.unique(np.concatenate(list(shown_rows(self.history, self.dynamics, likely).values())))
        found = {str(row["row"]): row for row in show(dataset, rows.tolist(), processing_class, names)}
        write_text(Path(self.run, FOLDER, EXAMPLES), json.dumps(found, ensure_ascii=False) + "\n")

    def html(self, path: str | os.PathLike[str]) -> None:
        """Write the page, and its figures as PNG files into a folder beside it.

        Args:
            path: The file, such as `report.html`; the folder of the figures is then `report`.

        Raises:
            ImportError: matplotlib is not installed.
        """
        path, sections = Path(path), []
        folder = path.with_suffix("")
        if folder.is_symlink():  # somebody else may have made the link, and it may lead anywhere
            folder.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        examples, flaws = read_shown(Path(self.run, FOLDER, EXAMPLES))
        table, wrong = self._known_rows()
        flaws += wrong
        flaws += [f"{name} could not be written beside the model ({why})." for name, why in self.missing.items()]
        for name, (title, text, alt, draw) in self._figures().items():
            try:
                drawn = draw(LIGHT)
                light, dark = figures.png(drawn), figures.png(draw(DARK))
            except (ValueError, ArithmeticError, MemoryError) as error:  # numbers too large for a scale
                flaws.append(f"The figure {title!r} can't be drawn ({error}).")
                continue
            write_bytes(folder / f"{name}.png", light)
            images = {"light": base64.b64encode(light).decode(), "dark": base64.b64encode(dark).decode()}
            dots = self._map_rows() if name == "map" else None
            sections.append({"title": title, "text": text, "alt": alt, "spots": spots(drawn, dots), **images})
        is_likely = None if table is None else likely_wrong(table)
        about = {"run": Path(self.run).absolute().name} | dict(self.about)
        score = self._score()
        page = document(
            "hf_prune.report",
            "report.html",
            " · ".join(part for part in (about["run"], score, "hf_prune") if part),
            ["chart.css", "page.css"],
            ["chart.js", "rows.js"],
            about=about,
            facts=self._first_facts(about, score),
            verdict=self._verdict(is_likely),
            numbers=self._numbers(is_likely),
            policy=self.policy,
            lead=self._lead(),
            table=self.summary_cells(),
            flaws=[*(said.replace("`", "") for said in (self.idle(), self.padding()) if said), *self.flaws, *flaws],
            advice=self._advice(),
            lists=lists_of(
                self.history, self.dynamics, self.judgement, self._likely(table), examples, ids_of(self.rows, table)[1]
            ),
            sections=sections,
            folder=folder.name,
            data=packed(self.history, self.dynamics, self.judgement, table, examples),
        )
        write_text(path, page)

    def _likely(self, table: Any) -> np.ndarray:
        """(K,) int64, the rows that are likely mislabelled, largest excess loss first; none without a table."""
        return np.zeros(0, np.int64) if table is None else largest_first(table, likely_wrong(table))

    def _known_rows(self) -> tuple[Any, list[str]]:
        """The table of rows, or None, and what is wrong with it."""
        try:
            return self.table(), []
        except (OSError, ValueError, ImportError):  # the message names a path of this machine
            return None, [f"{ROWS} can't be read: the table of rows shows less."]

    # ---- Words ----

    def _first_facts(self, about: Mapping[str, str], score: str | None) -> dict[str, str]:
        """What the run is, by name."""
        rows = f"{self.rows:,} rows"
        data = f"{about['data']}, {rows}" if "data" in about else rows
        found = {"Model": about.get("model"), "Data": data, "Score": score, "Policy": self.policy}
        return {name: value for name, value in found.items() if value}

    def _score(self) -> str | None:
        """The last evaluation's score: the metric that is no loss, if there is one."""
        for entry in self.evaluations()[-1:]:
            if scores := scores_of(entry):
                name = min(scores, key=lambda name: name.endswith("loss"))  # the first of them, losses last
                return f"{name.removeprefix('eval_').replace('_', ' ')} {scores[name]:.4g}"
        return None

    def _verdict(self, is_likely: np.ndarray | None) -> str:
        if is_likely is not None and is_likely.any():
            share = figures.percent(is_likely.sum(), self.rows)
            return f"{is_likely.sum():,} of {self.rows:,} rows ({share}) are likely mislabelled: look at these first."
        line = self.judgement.line
        return line[0].upper() + line[1:]

    def _numbers(self, is_likely: np.ndarray | None) -> list[tuple[str, str]]:
        """The three numbers that matter, each with what it counts."""
        totals, unit = self.totals(), self._unit()
        left = figures.percent(totals[f"{unit}_offered"] - totals[unit], totals[f"{unit}_offered"])
        extra = totals["seconds_selecting"] + totals["seconds_rescoring"]
        suspects = "unknown"
        if is_likely is not None and self.judgement.state in ("found", "none"):
            suspects = f"{is_likely.sum():,}"
        return [
            (suspects, "rows likely mislabelled"),
            (left, f"of the {unit} left out"),
            (figures.percent(extra, extra + totals["seconds_training"]), "of the time spent on choosing rows"),
        ]

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

    def _map_rows(self) -> list[int]:
        """The rows of the map's dots, in the order in which they are drawn."""
        repeated = np.flatnonzero(self.dynamics.times_measured > 1) if self.dynamics else np.zeros(0, int)
        return repeated[figures.drawn(len(repeated))].tolist()

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
            f"Bars of the share of {unit} kept by epoch: {in_short([f'{share:.0f} %' for share in shares])}.",
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
        names = dict.fromkeys(name for entry in self.evaluations() for name in scores_of(entry))
        curves = ((name, self._curve(name, self._unit())) for name in names)
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
