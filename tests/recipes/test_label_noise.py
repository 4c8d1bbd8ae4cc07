"""recipes/benchmarks/label_noise.py: whose labels it calls wrong, and how often it is right."""

import json

import numpy as np
import pandas
import pytest
import torch
from datasets import ClassLabel, Dataset, Image
from PIL import Image as Picture
from recipe_runs import load
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from hf_prune.records.table import FILE_ROW, ROWS

NAMES = ["dark", "bright"]
FILE_ROWS = np.random.default_rng(0).permutation(10)  # of the run's rows, in their order
WRONG = {2, 5}  # rows whose label is not what they show
EXCESS = [0.1, 0.2, 3.0, 0.0, np.nan, 0.5, 2.0, 0.1, 0.0, 0.0]  # by it: row 2, row 6, row 5, ...


@pytest.fixture(scope="module")
def benchmark():
    return load("benchmarks/label_noise")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The folder of a finished run on ten pictures."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    clean = np.arange(10) % 2
    noisy = np.where(np.isin(np.arange(10), list(WRONG)), 1 - clean, clean)
    rows = {"image": [Picture.new("RGB", (4, 4), (255 * label,) * 3) for label in clean], "noisy": noisy}
    data = Dataset.from_dict(rows | {"clean": clean}).cast_column("image", Image())
    for column in ("noisy", "clean"):
        data = data.cast_column(column, ClassLabel(names=NAMES))
    data.select(FILE_ROWS.argsort()).to_parquet(tmp_path / "train.parquet")
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    sizes = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4}
    torch.manual_seed(0)
    model = ViTForImageClassification(ViTConfig(image_size=4, patch_size=4, **sizes, **labels))
    model.classifier.weight.data *= 100  # sure of what it sees
    model.save_pretrained(tmp_path / "run")
    ViTImageProcessorPil(size={"height": 4, "width": 4}).save_pretrained(tmp_path / "run")
    flags = {FILE_ROW: FILE_ROWS, "never_learnt": np.arange(10) == 2, "learnt_at_once": np.isin(np.arange(10), [3, 5])}
    pandas.DataFrame({"excess_loss": EXCESS} | flags).to_parquet(tmp_path / "run" / ROWS)
    arguments = {"train_file": str(tmp_path / "train.parquet"), "validation_file": "v.parquet", "label_file": None}
    arguments |= {"label_column": "noisy", "image_column": "image", "max_train_samples": None}
    facts = {"policy": "p", "quality": {}, "parameters": 1, "hardware": "h", "versions": {}}
    (tmp_path / "run" / "results.json").write_text(json.dumps({"arguments": arguments} | facts))
    return tmp_path / "run"


def test_precision_is_that_of_the_first_rows(benchmark):
    wrong = np.array([True, False, True, False, False])
    assert benchmark.precision(np.array([5.0, 4, 3, 2, 1]), wrong, 0.4) == 0.5
    assert benchmark.precision(np.array([5.0, 4, 6, 2, -np.inf]), wrong, 0.4) == 1.0


def test_shares_of_both_rankings(benchmark, run, monkeypatch):
    monkeypatch.setattr(benchmark, "SHARES", (0.1, 0.2, 0.3))
    monkeypatch.setattr(benchmark, "label_quality", lambda *args: np.array([1, 1, 0.2, 1, 1, 0.1, 1, 1, 1, 1]))
    flags = ["--clean_column", "clean", "--output", str(run / "noise.json")]
    monkeypatch.setattr("sys.argv", ["it", str(run), str(run), *flags])
    benchmark.main()
    found, again = json.loads((run / "noise.json").read_text())["runs"]
    assert found == again
    assert (found["rows"], found["wrong"]) == (10, 0.2)
    assert found["precision"] == {
        "10%": {"hf_prune": 1.0, "cleanlab": 1.0},
        "20%": {"hf_prune": 0.5, "cleanlab": 1.0},
        "30%": {"hf_prune": pytest.approx(2 / 3), "cleanlab": pytest.approx(2 / 3)},
    }
    assert found["never_learnt"] == {"rows": 1, "wrong": 1.0} and found["learnt_at_once"] == {"rows": 2, "wrong": 0.5}


def test_the_table_has_the_mean_of_the_runs_and_its_range(benchmark):
    first, second = (
        {
            "rows": 1000,
            "wrong": 0.2,
            "precision": {"1%": {"hf_prune": ours, "cleanlab": 0.6}},
            "never_learnt": {"rows": rows, "wrong": 0.75},
            "learnt_at_once": {"rows": 5, "wrong": 0.0},
        }
        for ours, rows in ((0.9, 10), (0.8, 20))
    )
    assert benchmark.table({"runs": [first, second]}).splitlines()[2:] == [
        "| first 1 % | 85.0 % (80.0-90.0) | 60.0 % (60.0-60.0) |",
        "| `never_learnt` (15 rows) | 75.0 % (75.0-75.0) |  |",
        "| `learnt_at_once` (5 rows) | 0.0 % (0.0-0.0) |  |",
        "| all 1,000 rows | 20.0 % | 20.0 % |",
    ]
    assert "| first 1 % | 90.0 % | 60.0 % |" in benchmark.table({"runs": [first]})


def test_quality_of_a_label_is_the_probability_that_the_saved_model_gives_it(benchmark, run):
    arguments = json.loads((run / "results.json").read_text())["arguments"]
    pictures, given, wrong = benchmark.read_labels(arguments, FILE_ROWS, None, "clean")
    assert set(np.flatnonzero(wrong)) == WRONG and given[:3].tolist() == ["dark", "bright", "bright"]
    quality = benchmark.label_quality(run, pictures, given)
    model, alone = ViTForImageClassification.from_pretrained(run), []
    for row, label in zip(pictures, given, strict=True):
        pixels = torch.tensor(np.array(row["image"]) / 255 * 2 - 1, dtype=torch.float32).permute(2, 0, 1)
        alone.append(model(pixels[None]).logits.softmax(-1)[0, NAMES.index(label)].item())
    np.testing.assert_allclose(quality, alone, rtol=1e-5)
    assert len(set(np.round(alone, 4))) == 4  # either picture, under either label


def test_a_part_of_the_rows(benchmark, run):
    arguments = json.loads((run / "results.json").read_text())["arguments"]
    pictures, given, wrong = benchmark.read_labels(arguments, FILE_ROWS[4:6], None, "clean")
    assert (len(pictures), given.tolist(), wrong.tolist()) == (2, ["dark", "dark"], [False, True])


def test_a_run_on_other_rows_than_those_of_a_file_is_refused(benchmark, run):
    arguments = json.loads((run / "results.json").read_text())["arguments"] | {"train_file": None}
    with pytest.raises(ValueError, match="The run must have --train_file"):
        benchmark.read_labels(arguments, FILE_ROWS, None, "clean")
