"""FSDP2 on two processes of the CPU: the same rows as under DDP, losses to rounding, and the same bits when resumed."""

import json

import numpy as np
import pytest
import ranks
import sharded
import transformers
from packaging.version import Version
from test_distributed import launch
from tiny import TASKS

pytestmark = pytest.mark.slow


def forked(target, folder):
    assert ranks.run(target, folder, processes=2, folder=folder)
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def unsharded(tmp_path_factory):
    return forked(sharded.train_unsharded, tmp_path_factory.mktemp("unsharded"))


@pytest.fixture(scope="module")
def in_shards(tmp_path_factory):
    return launch("fsdp2", tmp_path_factory.mktemp("fsdp2"))


@pytest.fixture(scope="module")
def loaded_in_shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loaded")
    TASKS["llama"].model(0.0, spread=0.1).save_pretrained(folder)
    return forked(sharded.train_loaded_in_shards, folder)


def assert_same_training(found, expected):
    for name in sharded.POLICIES:
        assert {rank[name]["parameter"] for rank in found} == {"DTensor"}
        assert found[0][name]["history"] == found[1][name]["history"]
        for mine, theirs in zip(found, expected, strict=True):
            assert mine[name]["epochs"] == theirs[name]["epochs"]
            assert mine[name]["rates"] == theirs[name]["rates"]
            np.testing.assert_allclose(mine[name]["losses"], theirs[name]["losses"], rtol=1e-4)
            for key, values in theirs[name]["history"].items():
                np.testing.assert_allclose(mine[name]["history"][key], values, rtol=1e-4, err_msg=key)


def test_shards_train_the_same_rows_weigh_and_rescore_them(in_shards, unsharded):
    assert unsharded[0]["all"]["wrapper"] == "DistributedDataParallel"
    assert_same_training(in_shards, unsharded)
    assert any(epoch["rows_rescored"] for epoch in in_shards[0]["rescoring"]["epochs"])


def test_shards_go_on_from_a_checkpoint_with_the_same_bits(in_shards):
    for rank in in_shards:
        for name, resumed in rank["resumed"].items():
            assert resumed == rank[name], name


@pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.20"), reason="these transformers load no shards for training"
)
def test_a_model_that_transformers_loads_in_shards_trains_the_same(loaded_in_shards, unsharded):
    assert_same_training(loaded_in_shards, unsharded)
