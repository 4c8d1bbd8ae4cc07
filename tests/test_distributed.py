"""Two processes on gloo, as torchrun starts them."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "two_processes.py"


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of the two processes ended with."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*command, str(SCRIPT), str(folder)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert [rank["stock"]["processes"] for rank in found] == [2, 2]
    return found


def test_keeping_everything_is_the_stock_trainer(ranks):
    for rank in ranks:
        for name in ("weights", "losses", "steps"):
            assert rank["all"][name] == rank["stock"][name], name


@pytest.mark.parametrize("policy", ["infobatch", "rescoring", "assisted"])
def test_both_know_the_same_and_have_trained_the_same(ranks, policy):
    first, second = (rank[policy] for rank in ranks)
    for name in ("history", "weights", "steps"):
        assert first[name] == second[name], name
    assert first["steps"][0] == first["steps"][1]


def test_hidden_rows_are_shared_out_and_counted_with_what_fills_the_batches(ranks):
    for rank in ranks:
        rescored = [epoch["rows_rescored"] for epoch in rank["rescoring"]["epochs"]]
        assert rescored == [0, 24, 0]  # floor(0.6 * 37) = 22 of 37 rows fill 3 batches of 4 in each process


def test_every_kept_row_is_trained_and_only_batches_are_filled(ranks):
    """An epoch of K rows is ceil(K / 8) batches of 4 in each process, K of them distinct, the others repeats."""
    first, second = (rank["infobatch"] for rank in ranks)
    begin = 0
    for mine, theirs in zip(first["epochs"], second["epochs"], strict=True):
        assert mine["rows"] == theirs["rows"]
        batches = mine["steps"]
        rows = sum(first["batches"][begin : begin + batches] + second["batches"][begin : begin + batches], [])
        begin += batches
        kept = len(set(rows))
        assert len(rows) == mine["rows"] == 8 * batches == 8 * math.ceil(kept / 8)
    assert len({row for batch in first["batches"][:5] + second["batches"][:5] for row in batch}) == 37
