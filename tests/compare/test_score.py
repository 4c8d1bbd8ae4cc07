"""Scores of a training script: its runs, their mean, and what is refused."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from hf_prune import Clock, History
from hf_prune.common import storage
from hf_prune.compare.score import FailedRun, make_scores
from hf_prune.policies.el2n import EL2N

FACTS = {"policy": "EL2N(keep=1, unit='rows', skip=0.0)", "data": 7}
ROOT = Path(__file__).resolve().parents[2]

# Stands for a training script: scores 4 rows by its seed, and counts how often it is run.
SCRIPT = """
import argparse, pathlib, sys
import numpy as np
from hf_prune import History

parser = argparse.ArgumentParser()
for flag in ("--policy", "--seed", "--output_dir", "--num_train_epochs", "--fail", "--data", "--name"):
    parser.add_argument(flag)
args = parser.parse_args()
out = pathlib.Path(args.output_dir)
out.mkdir(parents=True, exist_ok=True)
with open(out / "runs", "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
print("seed", args.seed, "begins")
if args.fail == args.seed:
    sys.exit("out of memory, say")
history = History.empty(4)
seed = int(args.seed)
history.record(np.arange(3), np.full(3, 1.0 + seed, np.float32), seed)
history.notes["score"] = np.array([seed, np.inf if seed == 1 else 0.5, np.nan if seed else 3, np.nan], np.float32)
name = args.name or args.policy.partition(":")[0].upper()
if name != "none":
    cost = {"runs": 1, "rows": 10, "tokens": 100, "seconds": 0.5 + seed}
    data = int(args.data) + seed if args.data else 7
    history.facts = {"policy": name + "(keep=1)", "data": data, "cost": cost}
    history.save(out / "history.safetensors")
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    Path("train.py").write_text(SCRIPT)
    return "train.py"


def runs(seed):
    path = Path("scores", f"seed-{seed}", "runs")
    return path.read_text().splitlines() if path.exists() else []


def test_the_mean_of_three_runs(script, capsys):
    """Row 0: (0 + 1 + 2) / 3; row 1: infinite once, so always; row 2: known once, 3; row 3: never known."""
    text = make_scores("el2n", [script], "scores", 3)
    assert "scores/history.safetensors: the mean of 3 runs for 4 rows" in text
    assert "history='scores'" in text and "policy='el2n'" in text
    merged = History.load("scores/history.safetensors", rows=4)
    np.testing.assert_array_equal(merged.notes["score"], [1, np.inf, 3, np.nan])
    assert merged.notes["score"].dtype == merged.loss.dtype == np.float32
    np.testing.assert_array_equal(merged.loss, [2, 2, 2, np.nan])
    assert merged.last_round.tolist() == [2, 2, 2, -1]
    facts = storage.load("scores/history.safetensors")[1]
    assert facts["cost"] == {"runs": 3, "rows": 30, "tokens": 300, "seconds": 4.5}
    assert (facts["data"], facts["policy"], facts["kind"]) == (7, FACTS["policy"], "history")
    assert "Scoring by el2n: 100%" in capsys.readouterr().err


def test_the_policy_reads_them(script):
    make_scores("el2n", [script], "scores", 3)
    history, policy = History.empty(4), EL2N(keep=0.5)
    policy.begin(history, History.load("scores/history.safetensors"))
    chosen = policy.select(history, Clock(0, 0, 3, 0.0), np.random.default_rng(0))
    assert chosen.rows.tolist() == [1, 3]


def test_a_script_gets_its_own_arguments_and_ours_after_them(script):
    make_scores("el2n:unit=rows", [script, "--name", "EL2N"], "scores", 2, epochs=0.5)
    assert [runs(seed) for seed in range(3)] == [
        [
            f"--name EL2N --policy el2n:unit=rows,keep=1 --num_train_epochs 0.5 --seed {seed} "
            f"--output_dir {Path('scores', f'seed-{seed}')}"
        ]
        for seed in range(2)
    ] + [[]]


def test_seeds_that_have_ended_are_passed_over(script):
    make_scores("el2n", [script], "scores", 2)
    assert storage.load("scores/history.safetensors")[1]["cost"]["runs"] == 2
    make_scores("el2n", [script], "scores", 3)
    assert [len(runs(seed)) for seed in range(3)] == [1, 1, 1]
    assert storage.load("scores/history.safetensors")[1]["cost"]["runs"] == 3


def test_a_run_that_fails_stops_it_and_the_same_command_goes_on(script):
    command = [script, "--fail", "1"]
    with pytest.raises(FailedRun, match="(?s)seed 1 begins\nout of memory, say\n.*--seed 1 .*failed with status 1"):
        make_scores("el2n", command, "scores", 3)
    assert [len(runs(seed)) for seed in range(3)] == [1, 1, 0]
    assert not Path("scores", "history.safetensors").exists()
    Path(script).write_text(SCRIPT.replace("args.fail == args.seed", "False"))
    make_scores("el2n", command, "scores", 3)
    assert [len(runs(seed)) for seed in range(3)] == [1, 2, 1]


def test_a_run_that_fails_after_it_saved_is_told_once(script):
    Path(script).write_text(SCRIPT + "sys.exit(5)\n")
    with pytest.raises(FailedRun, match="--seed 0 .*failed with status 5"):
        make_scores("el2n", [script], "scores", 1)
    make_scores("el2n", [script], "scores", 1)  # its scores are whole
    assert len(runs(0)) == 1


def test_only_the_last_lines_of_a_failed_run_are_told(script):
    Path(script).write_text("import sys\nfor i in range(100): print('line', i)\nsys.exit(3)\n")
    with pytest.raises(FailedRun, match="status 3") as caught:
        make_scores("el2n", [script], "scores", 1)
    lines = str(caught.value).splitlines()
    assert [line for line in lines if line.startswith("line")] == [f"line {i}" for i in range(80, 100)]
    assert len(Path("scores", "seed-0.log").read_text().splitlines()) == 100


def test_a_script_that_saves_no_history(script):
    with pytest.raises(
        FailedRun, match="ended, but left no .*history.safetensors: train a PruningTrainer with the --po"
    ):
        make_scores("el2n", [script, "--name", "none"], "scores", 1)


def test_a_script_that_trains_by_another_policy(script):
    with pytest.raises(FailedRun, match=r"no scores of EL2N\(keep=1.* but is of UNIFORM\(keep=1\): .* --policy"):
        make_scores("el2n", [script, "--name", "UNIFORM"], "scores", 3)
    assert runs(1) == []


def test_a_policy_of_the_users_own_must_keep_scores(script, monkeypatch):
    Path("my_scores.py").write_text(
        "from dataclasses import dataclass\nfrom hf_prune.core import BudgetPolicy\n\n"
        "@dataclass(frozen=True)\nclass Mine(BudgetPolicy):\n    def select(self, history, clock, rng): ...\n"
    )
    monkeypatch.syspath_prepend(Path.cwd())
    Path(script).write_text(SCRIPT.replace('history.notes["score"]', "_"))
    with pytest.raises(FailedRun, match="no scores of Mine.*must keep notes"):
        make_scores("my_scores.Mine", [script, "--name", "Mine"], "scores", 1)


def test_runs_of_different_data_are_not_averaged(script):
    with pytest.raises(
        FailedRun, match="seed-0.* and .*seed-1.* different training sets: .* same rows in the same order"
    ):
        make_scores("el2n", [script, "--data", "3"], "scores", 2)


def test_costs_that_are_not_all_known_are_not_known(tmp_path):
    for seed, facts in enumerate([{"cost": {"runs": 1, "rows": 5, "tokens": 0, "seconds": 1.0}}, {}]):
        history = History.empty(2)
        history.notes["score"] = np.ones(2, np.float32)
        path = tmp_path / "scores" / f"seed-{seed}" / "history.safetensors"
        storage.save(path, history.arrays(), {"kind": "history", **FACTS, **facts})
    (tmp_path / "train.py").touch()
    make_scores("el2n", [str(tmp_path / "train.py")], tmp_path / "scores", 2)
    assert storage.load(tmp_path / "scores" / "history.safetensors")[1]["cost"] is None


def test_runs_of_another_command_are_not_taken_for_these(script):
    make_scores("el2n", [script], "scores", 1)
    for policy, command, epochs in (
        ("grand", [script], None),
        ("el2n", [script, "--name", "EL2N"], None),
        ("el2n", [script], 2),
    ):
        with pytest.raises(
            ValueError, match="(?s)runs of another command, `train.py --policy el2n:keep=1`.*--output_dir"
        ):
            make_scores(policy, command, "scores", 1, epochs)
    assert len(runs(0)) == 1
    assert json.loads(Path("scores", "command.json").read_text()) == ["train.py", "--policy", "el2n:keep=1"]
    for text, message in (('{"script": "x.py"}', "runs of another command, `hf-prune compare`"), ("[", "is damaged")):
        Path("scores", "command.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            make_scores("el2n", [script], "scores", 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("el2n", [], "scores"), "There is no script: put it and its arguments after --"),
        (("el2n", ["missing.py"], "scores"), "There is no script 'missing.py'"),
        (("el2n", ["train.py"], "scores", 0), "--seeds 0: must be at least 1"),
        (("uniform", ["train.py"], "scores"), "--policy uniform .* keeps no scores; el2n, forgetting, grand do"),
        (("infobatch:ratio=0.3", ["train.py"], "scores"), "--policy infobatch .* keeps no scores"),
        (("el2n:keep=0.5", ["train.py"], "scores"), "--policy el2n:keep=0.5: .*leave keep to the run that uses"),
        (("el2m", ["train.py"], "scores"), "Unknown policy 'el2m'. Did you mean 'el2n'"),
        (("el2n:skip=0.5", ["train.py"], "scores"), r"EL2N\(skip=...\) must be in \[0, 1 - keep\]"),
    ],
)
def test_what_can_not_work_is_refused_before_it_starts(script, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_scores(*arguments)
    assert not Path("scores").exists()


REAL = """
import json, sys
import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments, set_seed
from hf_prune import PruningTrainer
from hf_prune.recipe.arguments import parse

args, policy = parse(TrainingArguments, report_to="none", save_strategy="no", use_cpu=True)
set_seed(args.seed)
sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
rng = np.random.default_rng(1)
rows = [{"input_ids": rng.integers(1, 50, 5).tolist(), "labels": int(rng.integers(3))} for _ in range(12)]
model = BertForSequenceClassification(BertConfig(vocab_size=50, num_labels=3, **sizes))
trainer = PruningTrainer(model=model, args=args, train_dataset=rows, policy=policy)
trainer.train()
trainer.save_model()
"""


@pytest.mark.slow
def test_a_real_script(script):
    Path(script).write_text(REAL)
    make_scores("el2n", [script, "--num_train_epochs", "9"], "scores", 2, epochs=2, launcher="accelerate")
    runs = [History.load(Path("scores", f"seed-{seed}", "history.safetensors"), rows=12) for seed in range(2)]
    merged = History.load("scores/history.safetensors", rows=12)
    scores = [run.notes["score"] for run in runs]
    assert not np.array_equal(*scores)  # two seeds, two models
    np.testing.assert_allclose(merged.notes["score"], np.mean(scores, axis=0), atol=1e-6)
    assert ((merged.notes["score"] > 0) & (merged.notes["score"] < 2**0.5)).all()
    cost = storage.load("scores/history.safetensors")[1]["cost"]
    assert (cost["runs"], cost["rows"]) == (2, 2 * 2 * 12)


# ---- What is not to be told ----


@pytest.mark.parametrize(
    "given",
    [
        ["--name", "EL2N", "--hub_token", "sesame"],
        ["--name", "EL2N", "--hub_token=sesame"],
        ["--name", "EL2N", "--api_key", "sesame"],
        ["--name", "EL2N", "--kw", '{"token": "sesame", "n": 3}'],
        ["--name", "EL2N", "--db", "https://ann:sesame@host/x"],
    ],
)
def test_a_secret_of_the_command_is_neither_kept_nor_told(script, given):
    flags = ("--hub_token", "--api_key", "--kw", "--db")
    text = SCRIPT.replace("args = parser", f"[parser.add_argument(flag) for flag in {flags}]\nargs = parser")
    Path(script).write_text(text + "\nprint('I was given', sys.argv)\nsys.exit(3)\n")
    with pytest.raises(FailedRun, match="status 3") as caught:
        make_scores("el2n", [script, *given], "scores", 1)
    assert "sesame" not in str(caught.value) and "I was given" in str(caught.value)
    assert b"sesame" not in Path("scores", "command.json").read_bytes()
    Path(script).write_text(text)
    make_scores("el2n", [script, *given], "scores", 2)  # goes on, also with a token that was renewed since
    make_scores("el2n", [script, *(part.replace("sesame", "poppy") for part in given)], "scores", 2)
    assert [len(runs(seed)) for seed in range(2)] == [1, 1] and "sesame" in runs(1)[0]
    with pytest.raises(ValueError, match="has runs of another command") as refused:
        make_scores("el2n", [script, *given, "--data", "3"], "scores", 2)
    assert "sesame" not in str(refused.value)


def test_a_secret_in_an_older_folder_is_forgotten(script):
    command = [script, "--name", "EL2N", "--hub_token", "sesame", "--policy", "el2n:keep=1"]
    Path("scores").mkdir()
    Path("scores", "command.json").write_text(json.dumps(command))
    Path(script).write_text(SCRIPT.replace('"--name")', '"--name", "--hub_token")'))
    make_scores("el2n", command[:-2], "scores", 1)
    assert b"sesame" not in Path("scores", "command.json").read_bytes()


@pytest.mark.parametrize("content", ["[" * 100_000, "{}", "3", "[3]", "null", '"x"'])
def test_a_command_of_something_else_is_refused(script, content):
    Path("scores").mkdir()
    Path("scores", "command.json").write_text(content)
    with pytest.raises(ValueError, match="command.json is damaged|has runs of another command"):
        make_scores("el2n", [script], "scores", 1)
