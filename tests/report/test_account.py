"""The report's sums, worked by hand, its Markdown and its figure."""

import dataclasses
import json
import math
import re
import sys

import numpy as np
import pytest
from reports import EPOCHS, IMAGES, LOG, REPORT


def test_totals():
    assert REPORT.totals() == {
        "rows": 160,  # 100 + 60
        "rows_offered": 200,
        "tokens": 1500,  # 1000 + 500
        "tokens_offered": 2000,
        "padded_tokens": 1750,  # 1200 + 550
        "padding": 250 / 1750,  # of files without it: 200 + 50
        "rows_repeated": 0,
        "rows_rescored": 40,
        "padded_tokens_rescored": 450,
        "optimizer_steps": 16,  # 10 + 6
        "optimizer_steps_full": 20,
        "seconds_training": 6.5,  # 4 + 2.5
        "seconds_selecting": 0.75,
        "seconds_rescoring": 0.125,
        "seconds_evaluating": 1.25,
        "faults": 2,
    }


def test_to_dict_survives_json():
    strange = {"seconds_training": np.float32("nan"), "seconds_selecting": math.inf}
    odd = [EPOCHS[0] | {"rows": np.int64(100), "steps": np.int32(10)} | strange]
    found = json.loads(json.dumps(dataclasses.replace(REPORT, epochs=odd).to_dict(), allow_nan=False))
    assert found["policy"] == REPORT.policy
    assert found["training_rows"] == 100
    assert found["epochs"][0] == EPOCHS[0] | dict.fromkeys(strange)
    assert found["totals"]["rows"] == 100
    assert found["totals"]["seconds_training"] is None
    assert REPORT.to_dict()["epochs"] == EPOCHS


def cells(markdown):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if line[:1] == "|"]


def test_summary_shares():
    table = cells(REPORT.summary())
    assert {len(row) for row in table} == {4}
    assert table[2:] == [
        ["rows", "160", "200", "80.0 %"],
        ["tokens", "1,500", "2,000", "75.0 %"],
        ["positions, 14.3 % of them padding", "1,750", "", ""],
        ["optimizer steps", "16", "20", "80.0 %"],
        ["rows, forward pass alone", "40", "200", "20.0 %"],
        ["positions, forward pass alone", "450", "", ""],
        ["seconds training", "6.5", "", ""],
        ["seconds selecting", "0.8", "", ""],
        ["seconds rescoring", "0.1", "", ""],
        ["seconds evaluating", "1.2", "", ""],
    ]


def test_summary_names_rows_that_fill_batches():
    """Of 100 rows in batches of 64, 28 come twice."""
    epochs = [EPOCHS[0] | {"rows": 128, "rows_repeated": 28}]
    report = dataclasses.replace(REPORT, epochs=epochs)
    assert report.totals()["rows_repeated"] == 28
    assert ["rows repeated, to fill batches", "28", "", ""] in cells(report.summary())


def test_summary_charges_earlier_runs_and_leaves_out_what_was_not():
    earlier = {"runs": 3, "rows": 240, "tokens": 2600, "seconds": 9.0}
    table = cells(dataclasses.replace(REPORT, earlier=earlier).summary())
    assert ["positions of 3 earlier runs", "2,600", "", ""] in table
    assert ["seconds of 3 earlier runs", "9.0", "", ""] in table
    table = cells(dataclasses.replace(IMAGES, earlier=earlier | {"runs": 1, "tokens": 0}).summary())
    assert ["rows of 1 earlier run", "240", "", ""] in table
    plain = dataclasses.replace(REPORT, epochs=EPOCHS[:1]).summary()
    assert "rescoring" not in plain and "forward" not in plain and "earlier" not in plain


def test_card_counts_tokens_and_claims_no_time():
    card = REPORT.card()
    assert card.startswith("## Data pruning\n")
    assert "`Uniform(keep=0.6, unit='tokens')`" in card
    assert "Tokens not trained: **500** of 2,000 (25.0 %)." in card
    assert "1,750 positions were computed, 14.3 % of them padding." in card
    assert "NaN or infinite at least once, which no choice went by: 2." in card
    assert not re.search(r"time saved|faster|speed-?up", card, re.IGNORECASE)
    assert cells(card)[-2:] == [
        ["1", "100", "100.0 %", "1,000", "100.0 %", "10"],
        ["2", "60", "60.0 %", "500", "50.0 %", "6"],
    ]


def test_rows_are_counted_where_there_are_no_tokens():
    card = IMAGES.card()
    assert "Rows not trained: **40** of 200 (20.0 %)." in card
    assert "token" not in card.replace(REPORT.policy, "").lower()
    assert "NaN" not in card
    assert cells(card)[-1] == ["2", "60", "60.0 %", "6"]
    assert not re.search("token|position|padding", IMAGES.summary() + card.replace(REPORT.policy, ""))


def test_a_run_stopped_in_its_first_epoch():
    early = dataclasses.replace(REPORT, epochs=[], log_history=[])
    assert early.totals()["rows"] == 0
    assert "| rows | 0 | 0 | - |" in early.summary()
    assert "Rows not trained: **0** of 0 (-)." in early.card()


def test_curve_interpolates_what_was_trained():
    trained, values = REPORT._curve("eval_loss", "tokens")
    assert trained.tolist() == [1200, 1750]  # both known from the epochs' ends, padding included
    assert values.tolist() == [2.0, 1.0]  # not the evaluation made after the best model was loaded
    log = [{"step": 0, "eval_loss": 5.0}, *LOG, {"step": 12, "eval_loss": 1.8}]
    trained, values = dataclasses.replace(REPORT, log_history=log)._curve("eval_loss", "tokens")
    assert trained.tolist() == [0, 1200, 1310, 1750]  # 1200 + 2/5 * (1475 - 1200)
    assert values.tolist() == [5.0, 2.0, 1.8, 1.0]
    assert len(REPORT._curve("eval_accuracy", "tokens")[0]) == 0


@pytest.fixture
def drawn(monkeypatch):
    """The figures saved during the test."""
    from matplotlib.figure import Figure

    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args: (figures.append(self), save(self, *args))[1])
    return figures


def test_figure_shows_what_the_report_says(tmp_path, drawn):
    path = tmp_path / "run.png"
    REPORT.figure(path)
    assert path.read_bytes().startswith(b"\x89PNG")
    loss, bleu, share = drawn[0].axes
    assert [panel.get_ylabel() for panel in (loss, bleu)] == ["loss", "BLEU"]
    assert bleu.get_xlabel() == "positions trained, padding included (thousands)"
    np.testing.assert_allclose(bleu.lines[0].get_xydata(), [[1.2, 10.0], [1.75, 20.0]])
    assert [bar.get_height() for bar in share.patches] == [100, 60, 100, 50]  # rows, then tokens
    assert share.get_legend_handles_labels()[1] == ["tokens, whole run: 75.0 %", "rows", "tokens"]


def test_figure_leaves_out_a_missing_metric_and_counts_rows_of_images(tmp_path, drawn):
    IMAGES.figure(tmp_path / "run.png", metrics=("eval_accuracy", "eval_loss"))
    loss, share = drawn[0].axes
    assert loss.get_xlabel() == "rows trained"
    np.testing.assert_allclose(loss.lines[0].get_xdata(), [100, 160])
    assert [bar.get_height() for bar in share.patches] == [100, 60]
    IMAGES.figure(tmp_path / "bare.png", metrics=("eval_accuracy",))
    assert len(drawn[1].axes) == 1


def test_figure_of_a_long_run_and_of_none(tmp_path, drawn):
    epochs = [EPOCHS[1] | {"epoch": number} for number in range(40)]
    dataclasses.replace(REPORT, epochs=epochs).figure(tmp_path / "long.png")
    assert not drawn[0].axes[-1].patches
    assert {len(line.get_xdata()) for line in drawn[0].axes[-1].lines[:2]} == {40}
    dataclasses.replace(REPORT, epochs=[], log_history=[]).figure(tmp_path / "none.png")
    assert (tmp_path / "none.png").exists()


def test_text_in_the_figure_does_not_overlap(tmp_path, drawn):
    REPORT.figure(tmp_path / "run.png")
    figure = drawn[0]
    share = figure.axes[-1]
    boxes = [share.get_legend().get_window_extent(), share._left_title.get_window_extent()]
    boxes += [text.get_window_extent() for text in (share.xaxis.label, figure._suptitle)]
    for place, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[place + 1 :])


def test_figure_without_matplotlib_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install matplotlib"):
        REPORT.figure(tmp_path / "run.png")


def test_pyplot_is_left_alone(tmp_path):
    before = "matplotlib.pyplot" in sys.modules
    REPORT.figure(tmp_path / "run.png")
    assert before or "matplotlib.pyplot" not in sys.modules


def test_a_nan_metric_is_drawn_as_a_gap(tmp_path):
    log = [*LOG[:1], {"step": 10, "eval_loss": math.nan}, *LOG[2:]]
    dataclasses.replace(REPORT, log_history=log).figure(tmp_path / "run.png")
    assert (tmp_path / "run.png").stat().st_size > 0
