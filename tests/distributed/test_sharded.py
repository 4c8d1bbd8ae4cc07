"""FSDP2 and ZeRO on two processes of the CPU: rows as under DDP, losses to rounding, the same bits when resumed."""

import json

import numpy as np
import pytest
import ranks
import sharded
import transformers
from launching import launch
from packaging.version import Version
from tiny import TASKS

pytestmark = pytest.mark.slow


def forked(target, folder):
    assert ranks.run(target, folder, processes=2, folder=folder)
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def unsharded(tmp_path_factory):
    return forked(sharded.train_unsharded, tmp_path_factory.mktemp("unsharded"))


@pytest.fixture(scope="module", params=["fsdp2", "zero2", "zero3"])
def in_shards(request, tmp_path_factory):
    if request.param != "fsdp2":
        pytest.importorskip("deepspeed")
    found = launch(request.param, tmp_path_factory.mktemp(request.param))
    wrapper, parameter = ("FSDPLlamaForCausalLM", "DTensor") if request.param == "fsdp2" else ("DeepSpeedEngine", None)
    for name in sharded.POLICIES:
        assert {rank[name]["wrapper"] for rank in found} == {wrapper}
        assert parameter is None or {rank[name]["parameter"] for rank in found} == {parameter}
    return found


@pytest.fixture(scope="module")
def loaded_in_shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loaded")
    TASKS["llama"].model(0.0, spread=0.1).save_pretrained(folder)
    return forked(sharded.train_loaded_in_shards, folder)


def assert_same_training(found, expected):
    for name in sharded.POLICIES:
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
    assert {rank[name]["parameter"] for rank in loaded_in_shards for name in sharded.POLICIES} == {"DTensor"}
    assert_same_training(loaded_in_shards, unsharded)


def test_a_scheduler_of_deepspeeds_own_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("deepspeed")
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    assert ranks.run(sharded.refuse_scheduler, tmp_path, processes=1, folder=tmp_path)
    message = (tmp_path / "refusal").read_text()
    assert "counts its own steps" in message and "Use a LambdaLR" in message
