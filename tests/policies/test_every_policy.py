"""Every policy through a recipe: killed at any moment and started again, it ends with the same bits."""

import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from budgets import needs_scores, spelled
from recipe_runs import run_forked, write_rows

from hf_prune import History, policies
from hf_prune.common import storage

FLAGS = (
    "--train_file train.parquet --validation_file validation.parquet --vocab_size 320 --max_length 24 "
    "--num_train_epochs 4 --per_device_train_batch_size 6 --logging_steps 1 --use_cpu True --disable_tqdm True "
    "--seed 3 --save_strategy steps --save_steps 5 --eval_strategy no --load_best_model_at_end False --report_to none"
).split()
SPECIAL = {"kakurenbo": ["--by_confidence", "True"], "trim": ["--revisit", "0"]}  # translation has no `correct`
BEAMS = {"translate": ["--num_beams", "1"], "text_classification": []}


def recipe_of(name):
    """The recipe that trains under a policy: one whose rows have classes, if it needs these."""
    return "text_classification" if "classes" in policies.make(name).needs else "translate"


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """By recipe, a folder with the files of a small corpus, and a History of its rows that holds scores."""
    return {recipe: corpus(recipe, tmp_path_factory.mktemp(recipe)) for recipe in BEAMS}


def corpus(recipe, folder):
    write_rows(recipe, folder)
    rows = pq.read_table(folder / "train.parquet")
    n = 36 if recipe == "translate" else len(rows)  # of fewer, a class would be missing
    rows = rows.slice(0, n).append_column("chosen", pa.array(np.arange(n) % 5 != 1))
    pq.write_table(rows, folder / "train.parquet")
    rng = np.random.default_rng(0)
    history = History.empty(n, ("el2n", "grad_norm", "base_loss"))
    loss, *signals = rng.random((4, n), np.float32)
    history.record(np.arange(n), loss, 0, **dict(zip(history.signals, signals, strict=True)))
    history.notes["score"] = rng.random(n, np.float32)
    cost = {"runs": 1, "rows": n, "tokens": 10 * n, "seconds": 1.0}
    history.facts = {"policy": "Forgetting(keep=1)", "data": None, "cost": cost}
    history.save(folder / "history.safetensors")
    return folder


def result_of(folder):
    """What must not depend on an interruption."""
    arrays, _ = storage.load(folder / "out" / "history.safetensors")
    report = json.loads((folder / "out" / "results.json").read_text())["pruning"]
    epochs = [{name: value for name, value in epoch.items() if "seconds" not in name} for epoch in report["epochs"]]
    weights = (folder / "out" / "model.safetensors").read_bytes()
    return {"weights": weights, "epochs": epochs, "history": {name: a.tobytes() for name, a in arrays.items()}}


@pytest.mark.slow
@pytest.mark.parametrize("name", policies.names())
def test_killed_and_started_again_it_ends_the_same(corpora, tmp_path, name):
    recipe = recipe_of(name)
    flags = [*FLAGS, *BEAMS[recipe], "--policy", spelled(name), *SPECIAL.get(name, []), "--output_dir", "out"]
    for folder in (tmp_path / "whole", tmp_path / "killed"):
        folder.mkdir()
        for file in corpora[recipe].iterdir():
            (folder / file.name).symlink_to(file)
    if needs_scores(spelled(name)):
        flags += ["--history", "history.safetensors"]
    run_forked(recipe, tmp_path / "whole", *flags)
    expected = result_of(tmp_path / "whole")
    moment = random.Random(name).uniform(6, 11)
    assert not run_forked(recipe, tmp_path / "killed", *flags, kill_at=moment)
    run_forked(recipe, tmp_path / "killed", *flags)
    found = result_of(tmp_path / "killed")
    for part, value in expected.items():
        assert found[part] == value, part
