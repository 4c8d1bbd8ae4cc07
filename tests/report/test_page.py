"""The page of a run: what it says, what it shows of the rows, and that it needs nothing else."""

import base64
import dataclasses
import hashlib
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from datasets import ClassLabel, Dataset, Features, List, Value
from matplotlib.colors import to_rgb
from pages import Page
from reports import EPOCHS, REPORT
from tiny import TASKS
from traces import write

from hf_prune import History
from hf_prune.cli import main
from hf_prune.records.trace import FOLDER
from hf_prune.report import figures
from hf_prune.report.account import PruningReport
from hf_prune.report.page import NUMBERS, RunReport
from hf_prune.report.theme import DARK, LIGHT

EVIL = '<script>alert("1")</script> & so on'


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a finished run, and its trainer."""
    folder = tmp_path_factory.mktemp("run")
    task = TASKS["one label"]
    rows = [row | {"sentence": f"{EVIL} {number}"} for number, row in enumerate(task.rows(40))]
    features = Features({"input_ids": List(Value("int64")), "attention_mask": List(Value("int64"))})
    features |= {"labels": ClassLabel(names=["bad", "good", "odd <b>"]), "sentence": Value("string")}
    data = Dataset.from_list(rows, Features({name: features.get(name, Value("int64")) for name in rows[0]}))
    policy = "kakurenbo:by_confidence=True,hide=0.5,threshold=0.34"
    settings = {"num_train_epochs": 4, "eval_strategy": "epoch", "eval_dataset": data.select(range(8))}
    trainer = tiny.trainer(folder, task.model(spread=0.3), data, policy=policy, **settings)
    trainer.train()
    trainer.history.faults[[3, 5]] = 1, 2
    trainer.save_model()
    trainer.pruning_report().html(folder / "_report.html")
    return folder, trainer


def test_the_page_is_one_file_that_a_reader_of_screens_can_use(run):
    page = Page(run[0] / "_report.html")
    for tag, attributes in page.tags:
        for name in ("src", "srcset", "href"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes)
    assert [link["rel"] for link in page.all("link")] == ["icon"]
    data, code = [script for script in page.all("script") if script.get("type") != "application/json"]
    assert data == {"type": "application/octet-stream", "id": "data"} and code == {}  # no address
    (policy,) = (meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    script = (run[0] / "_report.html").read_text().rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:;") and f"script-src 'sha256-{digest}';" in policy
    images = page.all("img")
    assert len(images) == 7
    assert all(len(image["alt"]) > 20 for image in images)
    assert len(page.all("h1")) == 1
    assert ("html", {"lang": "en"}) in page.tags
    assert "url(" not in (run[0] / "_report.html").read_text()


def test_texts_are_shown_and_escaped(run):
    page = Page(run[0] / "_report.html")
    assert f"{EVIL} " in page.text
    assert {"b"}.isdisjoint(tag for tag, _ in page.tags)
    shown = json.loads((run[0] / FOLDER / "examples.json").read_text())
    assert all(row["label"] in ("bad", "good", "odd <b>") for row in shown.values())
    for number in shown:
        assert f"row {number}" in page.text
        assert f"{EVIL} {number}" in page.text


def test_the_page_says_what_the_report_says(run):
    folder, trainer = run
    report, page = trainer.pruning_report(), Page(folder / "_report.html")
    totals = report.totals()
    assert 0 < totals["rows_rescored"]
    assert f"{totals['tokens']:,} were trained" in " ".join(page.text.split())
    table = [cell for line in report.summary_cells() for cell in line]
    assert all(cell in page.text for cell in table)
    alternatives = " ".join(image["alt"] for image in page.all("img"))
    dynamics = report.dynamics
    left = totals["tokens_offered"] - totals["tokens"] - dynamics.tokens_rescored.sum()
    assert f"{totals['tokens']:,} trained, {dynamics.tokens_rescored.sum():,} forward only" in alternatives
    assert left >= 0 and f"{left:,} not trained" in alternatives
    assert f"{dynamics.never_learnt.sum():,} rows were never below {dynamics.level:.3g}," in page.text
    assert "2 rows had a loss that was NaN or infinite" in page.text
    assert "no finite loss in 2 rounds" in page.text


def test_figures_lie_beside_the_page_and_differ_in_the_dark(run):
    folder = run[0] / "_report"
    names = {"share", "parts", "evaluations", "losses", "times", "map", "seconds"}
    assert {path.name for path in folder.iterdir()} == {f"{name}.png" for name in names}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.iterdir())
    page = Page(run[0] / "_report.html")
    dark = [source["srcset"] for source in page.all("source")]
    light = [image["src"] for image in page.all("img")]
    assert len(dark) == len(light)
    assert not set(dark) & set(light)


def test_no_path_of_the_machine_is_told(run):
    folder, trainer = run
    for path in (folder / "_report.html", folder / NUMBERS, folder / "history.parquet", *(folder / FOLDER).iterdir()):
        assert str(folder).encode() not in path.read_bytes(), path.name
        assert str(Path.home()).encode() not in path.read_bytes(), path.name


def test_the_command_makes_the_same_page_of_the_folder_alone(run, tmp_path, capsys):
    copy = tmp_path / "moved"
    shutil.copytree(run[0], copy)
    (copy / "_report.html").unlink()
    shutil.rmtree(copy / "_report")
    assert main(["report", str(copy)]) == 0
    assert str(copy / "_report.html") in capsys.readouterr().out
    assert (copy / "_report.html").read_text() == (run[0] / "_report.html").read_text()


def test_a_folder_without_a_run_or_with_a_damaged_one_is_refused(run, tmp_path, capsys):
    for cause in ("is not there: give the folder of a run", "is damaged"):
        with pytest.raises(SystemExit):
            main(["report", str(tmp_path)])
        assert cause in capsys.readouterr().err.replace("\n", " ")
        shutil.copy(run[0] / NUMBERS, tmp_path)
        (tmp_path / "history.safetensors").write_bytes((run[0] / "history.safetensors").read_bytes()[:-9])


def test_a_damaged_round_and_lost_examples_leave_a_page(run, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "png", lambda figure: b"")
    copy = tmp_path / "run"
    shutil.copytree(run[0], copy)
    (copy / FOLDER / "round-00001.safetensors").write_bytes(b"")
    (copy / FOLDER / "examples.json").write_text("{")
    RunReport.of_folder(copy).html(copy / "_report.html")
    text = Page(copy / "_report.html").text
    assert "round-00001.safetensors is left out" in text
    assert EVIL not in text
    shutil.rmtree(copy / FOLDER)
    RunReport.of_folder(copy).html(copy / "_report.html")
    text = Page(copy / "_report.html").text
    assert "No round of this run can be read" in text
    assert "Rows never learnt" not in text and "Rows with faults" in text


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("rounds", [1, 2, 30])
def test_any_run_has_a_page(tmp_path, rows, rounds, monkeypatch):
    monkeypatch.setattr(figures, "png", lambda figure: b"")  # drawn, but not painted: that takes most of the time
    rng, history = np.random.default_rng(0), History.empty(rows)
    for round in range(rounds):
        chosen = np.flatnonzero(rng.random(rows) < (0.5 if round else 1))
        write(tmp_path, round, (chosen, rng.exponential(size=len(chosen))), rows=rows)
    epochs = [EPOCHS[round > 0] | {"epoch": round} for round in range(rounds)]
    known = {"run": tmp_path, "history": history}
    fields = {field.name: getattr(REPORT, field.name) for field in dataclasses.fields(REPORT)}
    report = RunReport(**fields | {"epochs": epochs, "rows": rows} | known)
    report.html(tmp_path / "_report.html")
    text = Page(tmp_path / "_report.html").text
    assert ("No row was measured twice" in text) == (not report.dynamics.is_repeated)
    assert ("Map of the data set" in text) == report.dynamics.is_repeated


def test_a_report_is_read_as_it_was_saved(tmp_path):
    odd = dataclasses.replace(REPORT, epochs=[EPOCHS[0] | {"seconds_training": math.nan}, EPOCHS[1]])
    odd.save(tmp_path / NUMBERS)
    read = PruningReport.load(tmp_path / NUMBERS)
    assert math.isnan(read.epochs[0].pop("seconds_training"))
    odd.epochs[0].pop("seconds_training")
    assert read == odd
    earlier = {"runs": 3, "rows": 240, "tokens": 2600, "seconds": 9.0}
    for report in (REPORT, dataclasses.replace(REPORT, earlier=earlier)):
        report.save(tmp_path / NUMBERS)
        assert PruningReport.load(tmp_path / NUMBERS) == report
    (tmp_path / NUMBERS).write_text('{"policy": 1}')
    with pytest.raises(ValueError, match="is no report of a pruned run"):
        PruningReport.load(tmp_path / NUMBERS)


# ---- Figures ----


def drawn(theme=LIGHT):
    """A figure of each kind, by name."""
    rng = np.random.default_rng(0)
    long = [EPOCHS[1] | {"epoch": number} for number in range(40)]
    rates = np.arange(8) / 4, np.geomspace(1e-6, 1e-3, 8)
    curves = {f"eval_{name}": (np.array([3e6, 6e6]), np.array([1.0, 2.0])) for name in ("loss", "bleu", "f1")}
    parts = {name: np.full(40, 1e6) for name in ("trained", "forward only", "not trained")}
    quantiles = {"trained": rng.random((40, 3)), "not trained in the epoch": rng.random((40, 3))}
    times, few = rng.integers(0, 300, 500), rng.integers(0, 3, 500)
    return {
        "share": figures.share_figure(EPOCHS, "tokens", rates, theme),
        "share of many": figures.share_figure(long, "rows", (rates[0][:0], rates[1][:0]), theme),
        "parts": figures.parts_figure(np.arange(40), parts, "tokens", theme),
        "parts of one": figures.parts_figure(
            np.arange(1), {name: part[:1] for name, part in parts.items()}, "rows", theme
        ),
        "curves": figures.curves_figure(curves, "tokens", theme),
        "losses": figures.losses_figure(np.arange(40), quantiles, theme),
        "losses of one": figures.losses_figure(np.arange(1), {"trained": np.array([[1.0, 2.0, 4.0]])}, theme),
        "times": figures.times_figure(times, theme),
        "times of few": figures.times_figure(few, theme),
        "map": figures.map_figure(rng.random(500), rng.random(500), times, theme),
        "map of one": figures.map_figure(np.ones(1), np.ones(1), np.ones(1, int), theme),
        "seconds": figures.seconds_figure({"training": 123456.7, "selecting": 0.04, "evaluating": 0.0}, theme),
    }


def texts_of(axes):
    """Every text that is seen, with its box."""
    texts = [axes.xaxis.label, axes.yaxis.label, axes._left_title, *axes.texts]
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        texts += [tick.label2 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    texts = [text for text in texts if text.get_visible() and text.get_text()]
    legend = [axes.get_legend()] if axes.get_legend() else []
    return [(text, text.get_window_extent()) for text in texts + legend]


def test_texts_of_figures_do_not_overlap():
    for name, figure in drawn().items():
        figure.draw_without_rendering()
        boxes = [found for axes in figure.axes for found in texts_of(axes)]
        assert len(boxes) > 5
        for place, (text, box) in enumerate(boxes):
            assert box.x0 >= -1 and box.y0 >= -1, (name, text)
            assert box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1, (name, text)
            for other, theirs in boxes[place + 1 :]:
                assert not box.overlaps(theirs), (name, text, other)


def test_dark_figures_are_drawn_in_their_colours():
    for name, figure in drawn(DARK).items():
        assert figure.get_facecolor()[:3] == pytest.approx((0x16 / 255, 0x19 / 255, 0x1D / 255), abs=1e-3), name
        colors = {label.get_color() for axes in figure.axes for label in axes.xaxis.get_ticklabels()}
        assert colors <= {DARK.ink}, name


@pytest.mark.parametrize(("least", "bottom"), [(0.2, 0.0), (-0.2, None)])
def test_losses_are_shown_from_zero_or_below(least, bottom):
    """Those of an `example_loss_func` may be negative."""
    bands = {"trained": np.array([[least, 0.5, 0.9]] * 3)}
    for figure in (
        figures.losses_figure(np.arange(3), bands, LIGHT),
        figures.map_figure(np.array([least, 0.5]), np.ones(2), np.ones(2, int), LIGHT),
    ):
        low = figure.axes[0].get_ylim()[0]
        assert low < least if bottom is None else low == bottom


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_rows_that_were_never_trained_are_seen_on_the_map(theme):
    """WCAG's contrast of colours that mean something, without alpha."""
    colors = figures.map_figure(np.ones(50), np.ones(50), np.arange(50), theme).axes[0].collections[0].cmap

    def light(color):
        rgb = np.array(to_rgb(color))
        return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722] + 0.05

    assert max(light(colors(0)) / light(theme.paper), light(theme.paper) / light(colors(0))) > 2.8


def test_rows_are_counted_for_each_number_of_times():
    """Not in bars that reach beyond the last."""
    figure = figures.times_figure(np.arange(61).repeat(2), LIGHT)
    (steps,) = figure.axes[0].patches
    assert steps.get_data().values.tolist() == [2] * 61


def test_parts_add_up_to_what_was_offered():
    parts = {"trained": np.array([60, 0]), "forward only": np.array([0, 10]), "not trained": np.array([40, 90])}
    panel = figures.parts_figure(np.arange(2), parts, "rows", LIGHT).axes[0]
    tops = {}
    for bar in panel.patches:
        tops[bar.get_x()] = max(tops.get(bar.get_x(), 0), bar.get_y() + bar.get_height())
    assert list(tops.values()) == [100, 100]
    assert panel.get_legend_handles_labels()[1] == ["trained", "forward only", "not trained"]
    nothing = parts | {"forward only": np.zeros(2, int)}
    panel = figures.parts_figure(np.arange(2), nothing, "rows", LIGHT).axes[0]
    assert panel.get_legend_handles_labels()[1] == ["trained", "not trained"]


def test_a_map_of_many_rows_shows_a_sample_of_them():
    rng = np.random.default_rng(0)
    mean, variability = rng.random((2, 30_000))
    figure = figures.map_figure(mean, variability, rng.integers(0, 5, 30_000), LIGHT)
    dots = figure.axes[0].collections[0].get_offsets()
    assert len(dots) == 20_000
    assert set(map(tuple, np.asarray(dots).tolist())) <= set(zip(variability.tolist(), mean.tolist(), strict=True))
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ["0", "1", "2", "3", "4"]


def test_long_spans_of_times_are_named(tmp_path):
    figure = figures.map_figure(np.ones(201), np.ones(201), np.arange(201), LIGHT)
    labels = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    spans = [list(map(int, re.findall(r"\d+", label))) for label in labels]
    covered = [number for first, last in spans for number in range(first, last + 1)]
    assert covered == list(range(201))
