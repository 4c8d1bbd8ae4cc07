"""Rows scored by a model through a user's own script: in this process, killed, and on two processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from recipe_runs import environment

from hf_prune import History, cli
from hf_prune.common.command import stage
from hf_prune.compare.forward import score_by_model
from hf_prune.compare.launch import FailedRun

ROOT = Path(__file__).resolve().parents[2]

# A script of a user's own: reads a model, and trains it on 24 rows.
SCRIPT = """
import argparse, os, sys, time
import numpy as np
from datasets import Dataset
from transformers import BertForSequenceClassification, TrainingArguments
import beside_it
from hf_prune import PruningTrainer

parser = argparse.ArgumentParser()
for flag in ("--model_name_or_path", "--output_dir", "--fail", "--rows", "--slow"):
    parser.add_argument(flag)
args = parser.parse_args()
with open("runs", "a") as file:
    file.write(" ".join(sys.argv[1:]) + chr(10))
if args.fail:
    raise RuntimeError("out of memory, say")
rng = np.random.default_rng(1)
n = int(args.rows or 24) + 8 * (args.rows is not None and "base" in args.output_dir)
rows = [{"input_ids": rng.integers(1, 50, 5).tolist(), "labels": int(rng.integers(3))} for _ in range(n)]
model = BertForSequenceClassification.from_pretrained(args.model_name_or_path)
if args.slow:
    from hf_prune.train import scoring
    scoring._BATCHES = 1
    model.register_forward_hook(lambda *_: [time.sleep(float(args.slow)), open("passes", "a").write("x")] and None)
arguments = TrainingArguments(args.output_dir, report_to="none", use_cpu=True, per_device_train_batch_size=2)
trainer = PruningTrainer(model=model, args=arguments, train_dataset=Dataset.from_list(rows))
trainer.train()
print("it went on")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with the script and two models of one layer."""
    from transformers import BertConfig, BertForSequenceClassification, set_seed

    monkeypatch.chdir(tmp_path)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    for seed, name in enumerate(("base", "tuned")):
        set_seed(seed)
        BertForSequenceClassification(BertConfig(vocab_size=50, num_labels=3, **sizes)).save_pretrained(name)
    Path("train.py").write_text(SCRIPT)
    Path("beside_it.py").touch()
    yield tmp_path
    sys.modules.pop("beside_it", None)


def runs():
    return Path("runs").read_text().splitlines() if Path("runs").exists() else []


def loaded(name="scores"):
    return History.load(Path(name, "history.safetensors"), rows=24)


def test_two_models_give_one_history(folder, capsys):
    before = sys.argv, [*sys.path], vars(stage).copy()
    text = score_by_model("tuned", ["train.py"], "scores", base="base")
    assert (sys.argv, sys.path, vars(stage)) == before
    assert text.startswith("scores/history.safetensors: the losses of 24 rows. Give history='scores'")
    assert "policy='trusted'" in text and "it went on" not in capsys.readouterr().out
    assert runs() == [
        f"--model_name_or_path {model} --output_dir scores/{name}"
        for name, model in (("model", "tuned"), ("base", "base"))
    ]
    tuned, base, both = loaded("scores/model"), loaded("scores/base"), loaded()
    np.testing.assert_array_equal(both.loss, tuned.loss)
    np.testing.assert_array_equal(both.signals["base_loss"], base.loss)
    assert not np.allclose(tuned.loss, base.loss)
    assert (both.facts["cost"]["runs"], both.facts["cost"]["rows"]) == (2, 48)
    assert both.facts["cost"]["seconds"] == tuned.facts["cost"]["seconds"] + base.facts["cost"]["seconds"]
    table = pq.read_table("scores/history.parquet").to_pydict()
    np.testing.assert_array_equal(table["base_loss"], base.loss)


def test_one_model_serves_as_a_reference_and_a_model_that_has_ended_is_not_run_again(folder):
    for _ in range(2):
        text = score_by_model("tuned", ["train.py"], "scores")
        assert "policy='rho_loss'" in text and len(runs()) == 1
    assert "base_loss" not in loaded().signals and loaded().facts["cost"]["runs"] == 1


def test_what_the_script_does_wrong_is_told(folder):
    with pytest.raises(FailedRun, match="(?s)RuntimeError: out of memory, say\n.*train.py failed: fix the script"):
        score_by_model("tuned", ["train.py", "--fail", "yes"], "failing")
    with pytest.raises(FailedRun, match="different rows: the two models need one tokenizer"):
        score_by_model("tuned", ["train.py", "--rows", "16"], "unlike", base="base")
    Path("other.py").write_text("print('trains nothing')")
    with pytest.raises(FailedRun, match="other.py ended, but left no other/model/history.safetensors: it must call"):
        score_by_model("tuned", ["other.py"], "other")
    Path("other.py").write_text("import sys\nsys.exit(2)")
    with pytest.raises(SystemExit, match="2"):
        score_by_model("tuned", ["other.py"], "other")


def test_scores_of_another_command_are_not_taken_for_these(folder):
    score_by_model("tuned", ["train.py"], "scores")
    for model, base in (("base", None), ("tuned", "base")):
        with pytest.raises(ValueError, match="runs of another command, `train.py --model tuned`"):
            score_by_model(model, ["train.py"], "scores", base)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "tuned", "--seeds", "3", "--", "train.py"], "--seeds belongs to --policy; leave it out"),
        (["--policy", "el2n", "--base", "base", "--", "train.py"], "--base belongs to --model; leave it out"),
        (["--policy", "el2n", "--model", "x", "--", "train.py"], "--model: not allowed with argument --policy"),
        (["--", "train.py"], "one of the arguments --policy --model is required"),
        (["--model", "tuned", "--", "missing.py"], "There is no script 'missing.py'"),
        (["--model", "nowhere"], "'nowhere' is no folder here, and no model of the Hub that this machine reaches"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(folder, capsys, flags, message):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["score", *flags])
    assert message in capsys.readouterr().err and not runs() and not Path("scores").exists()


def test_without_a_script_the_model_says_which_recipe_reads_the_file(folder, monkeypatch):
    started = []
    monkeypatch.setattr("hf_prune.compare.forward.score_by_model", lambda *given: started.append(given) or "done")
    assert cli.main(["score", "--model", "tuned", "--data", "rows.csv", "--", "--label_column", "y"]) == 0
    recipe = str(ROOT / "recipes" / "text_classification.py")
    files = ["--train_file", "rows.csv", "--validation_file", "rows.csv"]
    assert started == [("tuned", [recipe, "--label_column", "y", *files], "scores", None)]


# ---- Processes of their own ----

COMMAND = ["-m", "hf_prune.cli", "score", "--model", "tuned", "--base", "base"]


@pytest.mark.slow
def test_killed_at_any_part_it_goes_on_to_the_same_losses(folder):
    score_by_model("tuned", ["train.py"], "whole", base="base")
    command = [sys.executable, *COMMAND, "--", "train.py", "--slow", "0.3"]
    process = subprocess.Popen(command, env=environment(), start_new_session=True)
    deadline = time.time() + 200
    while len(list(Path("scores").glob("*/_scored/part-*"))) < 3 and time.time() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    left = len(list(Path("scores").glob("*/_scored/part-*")))
    assert left >= 3 and not Path("scores", "history.safetensors").exists()
    Path("passes").unlink()
    subprocess.run([*command[:-1], "0"], env=environment(), check=False)  # another command: refused
    assert not Path("passes").exists()
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert "the losses of 24 rows" in done.stdout and "Scoring: 100%" in done.stderr
    assert len(Path("passes").read_text()) == 24 - left  # of 2 x 12 batches
    for name, array in loaded("whole").arrays().items():
        np.testing.assert_allclose(loaded().arrays()[name], array, rtol=1e-5, err_msg=name)
    assert loaded().facts["cost"]["rows"] == 48


@pytest.mark.slow
def test_two_processes_share_the_rows(folder):
    score_by_model("tuned", ["train.py"], "whole", base="base")
    config = ROOT / "tests" / "support" / "configs" / "two.yaml"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    command = [*launch, *COMMAND, "--", "train.py", "--slow", "0"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the losses of 24 rows") == 1
    assert len(Path("passes").read_text()) == 24  # each of 2 x 6 for a model
    for name, array in loaded("whole").arrays().items():
        np.testing.assert_allclose(loaded().arrays()[name], array, rtol=1e-5, err_msg=name)
    assert loaded().facts["cost"]["rows"] == 48
