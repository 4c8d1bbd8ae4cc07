"""Noisy pairs from the command line: a model, the same tuned on trusted pairs, their losses, and a run by them."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recipe_runs import ROOT, environment, run_forked, write_rows

from hf_prune import History

DATA = "--validation_file validation.parquet --vocab_size 320 --max_length 40".split()
FLAGS = [*DATA, *"--num_beams 1 --use_cpu True --disable_tqdm True --report_to none --seed 3".split()]


@pytest.mark.slow
def test_a_run_prunes_the_pairs_that_trusted_ones_make_no_likelier(tmp_path):
    write_rows("translate", tmp_path)
    rows = pq.read_table(tmp_path / "train.parquet").to_pydict()  # 100 pairs
    pq.write_table(pa.table({lang: texts[80:] for lang, texts in rows.items()}), tmp_path / "trusted.parquet")
    noisy = {lang: texts[:80] for lang, texts in rows.items()}
    noisy["de"][60:] = noisy["en"][60:]
    pq.write_table(pa.table(noisy), tmp_path / "noisy.parquet")

    short = [*FLAGS, "--num_train_epochs", "2", "--policy", "none"]
    run_forked("translate", tmp_path, *short, "--train_file", "noisy.parquet", "--output_dir", "base")
    tuning = ["--train_file", "trusted.parquet", "--model_name_or_path", "base", "--output_dir", "tuned"]
    run_forked("translate", tmp_path, *short, *tuning)
    recipe = [str(ROOT / "recipes" / "translate.py"), "--train_file", "noisy.parquet", *FLAGS]
    command = [sys.executable, "-m", "hf_prune.cli", "score", "--model", "tuned", "--base", "base", "--", *recipe]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    scores = History.load(tmp_path / "scores" / "history.safetensors", rows=80)
    assert np.isfinite(scores.signals["base_loss"] - scores.loss).all()
    assert pq.read_table(tmp_path / "scores" / "history.parquet")["file_row"].to_pylist() == list(range(80))

    by = "--policy trusted --unit rows --half_life 0.5 --num_train_epochs 3 --history scores --output_dir out".split()
    run_forked("translate", tmp_path, *FLAGS, "--train_file", "noisy.parquet", *by)
    report = json.loads((tmp_path / "out" / "results.json").read_text())["pruning"]
    assert [epoch["rows"] for epoch in report["epochs"]] == [80, 64, 48]  # 80, 50.4 and 40, in steps of 16
    assert report["earlier_runs"] == scores.facts["cost"] and report["earlier_runs"]["runs"] == 2
    history = History.load(tmp_path / "out" / "history.safetensors")
    np.testing.assert_allclose(history.notes["score"], scores.signals["base_loss"] - scores.loss)
    last = history.notes["score"][history.last_round == 2]
    assert len(last) == 48 and last.min() >= np.sort(history.notes["score"])[-48]
