"""The one small file of a comparison's runs: it gives back what it was made of, and the same numbers follow."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from compared import results_of, save
from pyarrow import parquet
from recipe_runs import ROOT

from hf_prune.compare.intervals import row_sums
from hf_prune.compare.page import markdown
from hf_prune.compare.plan import Arm, Plan
from hf_prune.compare.store import RUNS, ended, load_runs, pack, run_folder
from hf_prune.compare.verdict import Comparison

ROWS = 60
RUN_KEYS = [(arm, seed) for seed in (1, 2) for arm in ("full", "infobatch")]
RESULTS = ROOT / "recipes" / "results"
SIGNATURE = "nrefs:1|bs:1000|seed:12345|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"
WORDS = ["der", "Hund", "läuft", "über", "die", "große", "Wiese", "und", "bellt", "."]


def predictions_of(metric, rng):
    """predictions.json of a run, and what results.json has under `scores`; the rows are the same for every `rng`."""
    fixed = np.random.default_rng(0)
    if metric == "bleu":
        references = [" ".join(fixed.choice(WORDS, 8)) for _ in range(ROWS)]
        answers = [" ".join(rng.permutation(text.split())[: rng.integers(4, 8)]) + " läuft" for text in references]
        return {"predictions": answers, "references": references}, {"bleu_signature": SIGNATURE}
    if metric == "loss":
        return {"losses": rng.exponential(size=ROWS).tolist(), "tokens": fixed.integers(1, 99, ROWS).tolist()}, {}
    if metric == "pearson":
        truth = fixed.normal(size=ROWS)
        return {"predictions": (truth + rng.normal(size=ROWS)).tolist(), "references": truth.tolist()}, {}
    labels = fixed.integers(0, 3, ROWS)
    answers = np.where(rng.random(ROWS) < 0.5, labels, rng.integers(0, 3, ROWS))
    if metric == "f1":  # labels that are numbers
        return {"predictions": answers.tolist(), "references": labels.tolist()}, {"f1_label": None}
    names = np.array(["cat", "dog", 'a "bird"'])
    return {"predictions": names[answers].tolist(), "references": names[labels].tolist()}, {}


def write_run(folder, arm, seed, metric="accuracy", value=None):
    """A run that has ended, as a recipe leaves it."""
    found, scores = predictions_of(metric, np.random.default_rng([seed, len(arm)]))
    rows = row_sums(metric, found, scores)
    value = rows.value if value is None and rows else value
    results = results_of(metric, value, tokens=100 * seed / 3 + len(arm), curve=(1 / 3, 1 / 7), rows=ROWS)
    save(folder, arm, seed, results | {"scores": scores}, found)
    (run_folder(folder, arm, seed) / "model.safetensors").touch()


@pytest.fixture
def folder(request, tmp_path):
    """A comparison of four runs by the metric that the test names."""
    arms = {"full": Arm(("--policy", "uniform:keep=1"), "full"), "infobatch": Arm(("--policy", "infobatch"), "policy")}
    Plan("recipes/x.py", (), arms, 2).save(tmp_path)
    for arm, seed in RUN_KEYS:
        write_run(tmp_path, arm, seed, getattr(request, "param", "accuracy"))
    return tmp_path


METRICS = ["accuracy", "f1", "matthews", "pearson", "loss", "bleu"]


@pytest.mark.parametrize("folder", METRICS, indirect=True)
def test_the_same_runs_and_numbers_come_back(folder):
    runs, found = load_runs(folder, RUN_KEYS), Comparison.load(folder).to_dict()
    pack(folder, RUN_KEYS)
    assert not (folder / "arms").exists() and ended(folder, RUN_KEYS) == RUN_KEYS
    again = load_runs(folder, RUN_KEYS)
    assert list(again) == RUN_KEYS
    for key, run in runs.items():
        assert json.dumps(again[key].results) == json.dumps(run.results)  # the order of names, too
        assert (again[key].tested_on, again[key].is_constant) == (run.tested_on, run.is_constant)
        assert np.array_equal(again[key].rows.parts, run.rows.parts)
    assert Comparison.load(folder).to_dict() == found
    blob = (folder / RUNS).read_bytes()
    pack(folder, RUN_KEYS)
    assert (folder / RUNS).read_bytes() == blob


@pytest.mark.parametrize("folder", ["bleu"], indirect=True)
def test_no_text_is_kept(folder):
    pack(folder, RUN_KEYS)
    assert "Wiese" not in str(parquet.read_table(folder / RUNS).to_pylist())


def test_a_metric_without_sums_and_a_run_that_has_diverged(tmp_path):
    write_run(tmp_path, "full", 1, "spearman", 0.5)
    write_run(tmp_path, "full", 2)
    results = json.loads((run_folder(tmp_path, "full", 2) / "results.json").read_text())
    results["quality"]["value"] = None
    (run_folder(tmp_path, "full", 2) / "results.json").write_text(json.dumps(results))
    pack(tmp_path, RUN_KEYS)
    first, second = load_runs(tmp_path, RUN_KEYS).values()
    assert first.rows is None and not first.has_diverged and second.rows is None and second.has_diverged


def test_runs_are_added_to_those_that_are_packed(folder):
    found = Comparison.load(folder).to_dict()
    shutil.move(run_folder(folder, "infobatch", 2), folder / "later")
    pack(folder, RUN_KEYS)
    assert Comparison.load(folder).to_dict()["missing"] == ["infobatch, seed 2"]
    shutil.copytree(folder / "later", run_folder(folder, "infobatch", 2))
    assert ended(folder, RUN_KEYS) == RUN_KEYS and Comparison.load(folder).to_dict() == found
    pack(folder, RUN_KEYS)
    assert not (folder / "arms").exists() and Comparison.load(folder).to_dict() == found


def test_a_run_on_other_rows_is_told_from_those_that_are_packed(folder):
    shutil.rmtree(run_folder(folder, "infobatch", 2))
    pack(folder, RUN_KEYS)
    write_run(folder, "infobatch", 2)
    path = run_folder(folder, "infobatch", 2) / "predictions.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps({name: answers[::-1] for name, answers in found.items()}))
    with pytest.raises(ValueError, match="infobatch, seed 2 was tested on other rows"):
        Comparison.load(folder)


def test_a_run_that_goes_on_and_what_is_behind_a_link_stay(folder):
    begun = run_folder(folder, "infobatch", 2)
    (begun / "results.json").unlink()
    elsewhere = folder.with_name(f"{folder.name}-elsewhere")
    shutil.move(folder / "arms" / "full", elsewhere)
    (folder / "arms" / "full").symlink_to(elsewhere)
    pack(folder, RUN_KEYS)
    assert ended(folder, RUN_KEYS) == RUN_KEYS[:-1]
    assert sorted(path.name for path in begun.parent.iterdir()) == ["seed-2"]
    assert (elsewhere / "seed-1" / "model.safetensors").exists()


# ---- Damage ----


def refused(folder):
    with pytest.raises(ValueError) as refusal:
        Comparison.load(folder)
    said = str(refusal.value)
    assert said.startswith(f"{folder / RUNS} is damaged (") and said.endswith(
        "Remove it, and run again what was in it."
    )
    assert "\n" not in said
    return said


@pytest.mark.parametrize("content", [b"", b"PAR1", b"[1]"])
def test_a_file_that_is_none_is_refused(folder, content):
    pack(folder, RUN_KEYS)
    (folder / RUNS).write_bytes(content)
    refused(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop_columns("arm"),
        lambda table: table.drop_columns("predictions"),
        lambda table: table.set_column(2, "results", [["{"] * 4]),
        lambda table: table.set_column(2, "results", [["[]"] * 4]),
        lambda table: table.set_column(2, "results", pa.chunked_array([[None] * 4], pa.string())),
        lambda table: table.set_column(5, "predictions", [[[1]] * 4]),
        lambda table: table.set_column(5, "predictions", [["yes"] * 4]),
    ],
)
def test_a_table_of_something_else_is_refused(folder, change):
    pack(folder, RUN_KEYS)
    parquet.write_table(change(parquet.read_table(folder / RUNS)), folder / RUNS)
    refused(folder)


def test_answers_of_another_quality_are_refused(folder):
    pack(folder, RUN_KEYS)
    table = parquet.read_table(folder / RUNS)
    answers = table["predictions"].to_pylist()
    parquet.write_table(table.set_column(5, "predictions", [answers[1:] + answers[:1]]), folder / RUNS)
    assert "predictions.json gives accuracy" in refused(folder)


def test_without_pyarrow_the_cure_is_told(folder, monkeypatch):
    pack(folder, RUN_KEYS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    for call in (pack, load_runs, ended):
        with pytest.raises(ImportError, match="runs.parquet needs pyarrow: pip install pyarrow, or install datasets"):
            call(folder, RUN_KEYS)


def test_folders_alone_need_no_pyarrow(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert ended(folder, RUN_KEYS) == RUN_KEYS and len(load_runs(folder, RUN_KEYS)) == 4


# ---- What is committed ----


def in_nine_digits(text):
    """What JSON says, whatever the last digits of sums are on another machine."""
    return json.loads(text, parse_float=lambda number: f"{float(number):.9g}")


SLOW = ("cifar10", "cifar10n", "digits", "multi30k", "tatoeba", "dolly", "sst2-1", "sst2-2")


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path.parent, id=path.parent.name, marks=[pytest.mark.slow] * (path.parent.name in SLOW))
        for path in sorted(RESULTS.glob("*/command.json"))
    ],
)
def test_a_comparison_of_the_results_is_what_its_runs_give(path):
    found = Comparison.load(path).to_dict()
    assert in_nine_digits(json.dumps(found)) == in_nine_digits(Path(path, "comparison.json").read_text())
    assert markdown(found) == Path(path, "comparison.md").read_text(encoding="utf-8")


def test_the_results_are_small():
    files = [path for path in RESULTS.rglob("*") if path.is_file()]
    assert not [path for path in files if "arms" in path.parts]
    for found in RESULTS.glob("*/comparison.json"):
        runs = sum(len(arm["seeds"]) for arm in json.loads(found.read_text(encoding="utf-8"))["arms"])
        size = sum(path.stat().st_size for path in found.parent.iterdir())
        assert size < 5e5 + 1e4 * runs, found.parent.name  # the page and the figure, and the file of the runs
