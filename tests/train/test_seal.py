"""A checkpoint with a file that is gone or changed is passed over, or refused by name, before anything is loaded."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import ranks
import tiny
import torch
from crashes import ROWS, TASK, end_of, make
from launching import can_resume
from safetensors.numpy import load_file, save_file
from transformers import TrainerCallback

from hf_prune.common import storage
from hf_prune.train import seal
from hf_prune.train.checkpoint import STATE, TRAINER_STATE, last_whole

FILES = ("config.json", "model.safetensors", "optimizer.pt", STATE, "rng_state.pth", "scheduler.pt")
FILES += ("training_args.bin", TRAINER_STATE)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run: its folder, with checkpoints at steps 3, 6, 9 and 12, and its end."""
    folder = tmp_path_factory.mktemp("whole")
    trainer = make(folder)
    trainer.train()
    return folder, end_of(trainer)


@pytest.fixture
def run(whole, tmp_path):
    """A copy of that run's folder."""
    return shutil.copytree(whole[0], tmp_path / "run")


def unsealed(run):
    """As a version without seals had written it."""
    for path in run.glob(f"checkpoint-*/{seal.SEAL}"):
        path.unlink()


def change(path, how):
    content = path.read_bytes()
    half = len(content) // 2
    if how == "gone":
        path.unlink()
    else:
        changed = {
            "empty": b"",
            "cut": content[:-1],
            "half": content[:half],
            "zeroed": bytes(len(content)),
            "zeroed at the end": content[:half] + bytes(len(content) - half),
            "a bit": content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :],
            "longer": content + b"\n",
        }
        path.write_bytes(changed[how])


def write(path, text):
    Path(path).write_text(text)


HOW = ("gone", "empty", "cut", "half", "zeroed", "zeroed at the end", "a bit", "longer")


@pytest.mark.parametrize("name", FILES)
def test_each_change_of_each_file_is_found(run, name):
    for how in HOW:
        folder = run / "checkpoint-12"
        before = (folder / name).read_bytes()
        change(folder / name, how)
        said = []
        assert last_whole(run, said.append) == str(run / "checkpoint-9"), how
        assert name in said[0] and f"going on from {run}/checkpoint-9." in said[0]
        (folder / name).write_bytes(before)
    assert last_whole(run, said.append) == str(run / "checkpoint-12")


def test_the_seal_is_of_all_files_and_a_changed_one_is_found(run):
    folder = run / "checkpoint-12"
    assert set(json.loads((folder / seal.SEAL).read_text())["size and crc32"]) == set(FILES)
    content = (folder / seal.SEAL).read_bytes()
    for at in range(0, len(content), 5):
        if content[at : at + 1].strip():
            (folder / seal.SEAL).write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            assert seal.flaw(folder) is not None, at
    for broken in (b"", b"[]", b"{}", b'{"size and crc32": 3}', b'{"size and crc32": {"config.json": 3}}'):
        (folder / seal.SEAL).write_bytes(broken)
        assert f"{seal.SEAL} is damaged" in seal.flaw(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "rng_state.pth"])
def test_true_goes_on_from_the_one_before_and_ends_with_the_same_bits(run, whole, caplog, name):
    change(run / "checkpoint-12" / name, "zeroed at the end")
    change(run / "checkpoint-9" / name, "gone")
    trainer = make(run)
    trainer.train(resume_from_checkpoint=True)
    assert end_of(trainer) == whole[1]
    assert f"checkpoint-12/{name} is damaged: its checksum is not" in caplog.text
    assert f"checkpoint-9/{name} is missing); going on from {run}/checkpoint-6." in caplog.text


@pytest.mark.parametrize("name", sorted(set(FILES) - {STATE}))
def test_by_name_it_is_refused_and_the_one_to_use_is_named(run, name):
    change(run / "checkpoint-9" / name, "gone")
    trainer = make(run)
    before = end_of_weights(trainer)
    with pytest.raises(ValueError, match=rf"checkpoint-9'.*{name} is missing.*Resume from {run}/checkpoint-6 instead"):
        trainer.train(resume_from_checkpoint=str(run / "checkpoint-9"))
    assert end_of_weights(trainer) == before
    assert (run / "checkpoint-12").exists()


def end_of_weights(trainer):
    return {name: tensor.numpy().tobytes() for name, tensor in trainer.model.state_dict().items()}


def test_who_has_changed_it_on_purpose_is_told_how_to_go_on(run, whole):
    (run / "checkpoint-6" / "optimizer.pt").unlink()
    with pytest.raises(ValueError, match=rf"Was it changed on purpose\? Remove {run}/checkpoint-6/{seal.SEAL}"):
        make(run).train(resume_from_checkpoint=run / "checkpoint-6")
    (run / "checkpoint-6" / seal.SEAL).unlink()
    trainer = make(run)
    trainer.train(resume_from_checkpoint=run / "checkpoint-6")  # as stock: with a new optimizer
    assert trainer.state.global_step == 12 and end_of(trainer) != whole[1]


def test_what_others_add_or_write_for_people_is_no_damage(run):
    folder = run / "checkpoint-12"
    for name in ("README.md", ".gitattributes", ".cache/huggingface/x", "_pruning/x", "notes/mine.txt", "more.bin"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text("mine")
    assert last_whole(run, print) == str(folder)


def test_a_whole_state_of_another_step_is_found_with_and_without_a_seal(run):
    shutil.copy(run / "checkpoint-3" / STATE, run / "checkpoint-12" / STATE)
    said = []
    assert last_whole(run, said.append) == str(run / "checkpoint-9")
    assert f"{STATE} is of another step than {TRAINER_STATE}, which is of step 12" in said[0]
    unsealed(run)
    assert last_whole(run, said.append) == str(run / "checkpoint-9")
    arrays, header = storage.load(run / "checkpoint-12" / STATE)
    del header["step"]  # as earlier versions had it
    storage.save(run / "checkpoint-12" / STATE, arrays, header)
    assert last_whole(run, said.append) == str(run / "checkpoint-9")


# ---- Without a seal ----


def test_checkpoints_of_earlier_versions_go_on(run, whole):
    unsealed(run)
    for path in run.glob(f"checkpoint-*/{STATE}"):
        arrays, header = storage.load(path)
        del header["step"]
        storage.save(path, arrays, header)
    for step in (3, 6, 9, 12):
        trainer = make(run)
        trainer.train(resume_from_checkpoint=str(run / f"checkpoint-{step}"))
        assert end_of(trainer) == whole[1]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["empty", "half", "zeroed"])
def test_without_a_seal_what_is_cut_or_has_no_beginning_is_found(run, name, how):
    unsealed(run)
    change(run / "checkpoint-12" / name, how)
    said = []
    assert last_whole(run, said.append) == str(run / "checkpoint-9")
    assert name in said[0]


def test_without_a_seal_weights_that_are_gone_are_said_in_trainers_words(run):
    unsealed(run)
    (run / "checkpoint-12" / "model.safetensors").unlink()
    assert last_whole(run, print) == str(run / "checkpoint-9")
    with pytest.raises(ValueError, match=f"Can't find a valid checkpoint at {run}/checkpoint-12"):
        make(run).train(resume_from_checkpoint=str(run / "checkpoint-12"))


@pytest.mark.parametrize("is_sealed", [True, False])
def test_each_shard_is_looked_for_by_the_index(run, is_sealed):
    folder = run / "checkpoint-12"
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for i, shard in enumerate(shards):
        save_file({name: weights[name] for name in sorted(weights)[i::2]}, folder / shard)
    index = {"weight_map": {name: shards[i % 2] for i, name in enumerate(sorted(weights))}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    unsealed(run)
    if is_sealed:
        state = (folder / TRAINER_STATE).read_text()
        seal.close(folder, TRAINER_STATE, lambda path: write(path, state))
    assert last_whole(run, print) == str(folder)
    for how in ("gone", "half"):
        before = (folder / shards[1]).read_bytes()
        change(folder / shards[1], how)
        said = []
        assert last_whole(run, said.append) == str(run / "checkpoint-9")
        assert shards[1] in said[0]
        (folder / shards[1]).write_bytes(before)


def test_files_of_torch_before_archives_are_taken(run):
    unsealed(run)
    path = run / "checkpoint-12" / "optimizer.pt"
    torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=False)
    assert last_whole(run, print) == str(run / "checkpoint-12")


# ---- Nothing there ----


def test_where_no_checkpoint_is_trainers_own_words_say_so(tmp_path):
    said = {}
    for policy in (None, "uniform:keep=0.5"):
        with pytest.raises(ValueError) as error:
            make(tmp_path, policy=policy).train(resume_from_checkpoint=True)
        said[policy] = str(error.value)
    assert said[None] == said["uniform:keep=0.5"] == f"No valid checkpoint found in output directory ({tmp_path})"


def test_a_folder_that_is_not_there_is_refused_as_stock_does(tmp_path):
    with pytest.raises(ValueError, match=f"Can't find a valid checkpoint at {tmp_path}/none"):
        make(tmp_path).train(resume_from_checkpoint=str(tmp_path / "none"))


# ---- When it is written ----


def test_a_kill_between_the_seal_and_the_last_file_leaves_no_whole_checkpoint(tmp_path, monkeypatch):
    trainer = make(tmp_path, save_total_limit=1)
    replace = seal.os.replace

    def killed(source, target):
        if str(target) == str(tmp_path / "checkpoint-6" / TRAINER_STATE):
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(seal.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
    assert "save_to_json" not in vars(trainer.state)
    assert last_whole(tmp_path, lambda _: None) == str(tmp_path / "checkpoint-3")


def test_it_is_there_before_older_checkpoints_are_deleted_and_callbacks_are_told(tmp_path):
    seen = []

    class Look(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            seen.append(last_whole(tmp_path, print))

    trainer = make(tmp_path, save_total_limit=1)
    trainer.add_callback(Look())
    trainer.train()
    assert seen == [str(tmp_path / f"checkpoint-{step}") for step in (3, 6, 9, 12)]
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-12"]
    assert not list(tmp_path.glob("checkpoint-*/_*"))


def test_weights_alone_are_sealed_too_and_resumed_as_stock_does(tmp_path):
    make(tmp_path, save_only_model=True).train()
    assert set(json.loads((tmp_path / "checkpoint-12" / seal.SEAL).read_text())["size and crc32"]) == {
        *("config.json", "model.safetensors", "training_args.bin", TRAINER_STATE)
    }
    change(tmp_path / "checkpoint-12" / "model.safetensors", "a bit")
    trainer = make(tmp_path, num_train_epochs=4, ignore_data_skip=True)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step > 12


def test_a_checkpoint_that_the_stock_trainer_writes_again_keeps_no_seal_and_no_state(run):
    make(run, policy=None).train()
    assert not list(run.glob(f"checkpoint-*/{seal.SEAL}")) + list(run.glob(f"checkpoint-*/{STATE}"))
    assert last_whole(run, print) == str(run / "checkpoint-12")


@pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing.*` is deprecated:FutureWarning")
def test_adapters_are_sealed(tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=["query", "value"])

    def made():
        torch.manual_seed(0)
        model = peft.get_peft_model(TASK.model(0.1), config)
        return tiny.trainer(tmp_path, model, TASK.rows(ROWS), policy="infobatch", save_steps=3, save_strategy="steps")

    trainer = made()
    trainer.train()
    steps = sorted(int(path.name.rpartition("-")[2]) for path in tmp_path.glob("checkpoint-*"))
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        change(tmp_path / f"checkpoint-{steps.pop()}" / name, "zeroed")
    resumed = made()
    resumed.train(resume_from_checkpoint=True)
    assert end_of(resumed) == end_of(trainer)


# ---- Several processes ----


def train_two(rank, folder, how):
    trainer = make(folder, save_steps=2)
    torch.manual_seed(rank)
    if how == "train":
        trainer.train()
        return
    asked = True if how == "true" else str(folder / "checkpoint-4")
    try:
        trainer.train(resume_from_checkpoint=asked)
    except ValueError as error:
        (folder / f"refusal{rank}").write_text(str(error))


@pytest.mark.slow
@can_resume
def test_what_one_process_had_written_is_sealed_and_all_agree(tmp_path):
    assert ranks.run(train_two, tmp_path, "train", processes=2, folder=tmp_path)
    newest = max(int(path.name.rpartition("-")[2]) for path in tmp_path.glob("checkpoint-*"))
    for step in range(2, newest + 1, 2):
        sealed = json.loads((tmp_path / f"checkpoint-{step}" / seal.SEAL).read_text())["size and crc32"]
        assert {"rng_state_0.pth", "rng_state_1.pth"} <= set(sealed)
    change(tmp_path / "checkpoint-4" / "rng_state_1.pth", "a bit")
    assert ranks.run(train_two, tmp_path, "name", processes=2, folder=tmp_path)
    refusals = [(tmp_path / f"refusal{rank}").read_text() for rank in range(2)]
    assert refusals[0] == refusals[1] and "rng_state_1.pth is damaged" in refusals[0]
    for path in tmp_path.glob("checkpoint-*"):
        change(path / "rng_state_1.pth", "gone")
    assert ranks.run(train_two, tmp_path, "true", processes=2, folder=tmp_path)
    refusals = [(tmp_path / f"refusal{rank}").read_text() for rank in range(2)]
    assert refusals[0] == refusals[1] and "No valid checkpoint found in output directory" in refusals[0]


def test_folders_of_shards_are_sealed(tmp_path):
    """As FSDP and DeepSpeed write them; a file whose name begins with a dot is one of theirs."""
    for name in ("pytorch_model_fsdp_0/.metadata", "pytorch_model_fsdp_0/__0_0.distcp", "global_step3/zero.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(np.arange(9).tobytes())
    seal.close(tmp_path, TRAINER_STATE, lambda path: write(path, "{}"))
    assert seal.flaw(tmp_path) is None
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        before = path.read_bytes()
        path.unlink()
        if path.name != seal.SEAL:
            assert f"{path} is missing" == seal.flaw(tmp_path)
        path.write_bytes(before)


@pytest.mark.parametrize("name", [seal.SEAL, TRAINER_STATE, "config.json"])
@pytest.mark.parametrize("content", [b'{"a":' * 100_000, b"\xff" * 10_000])
def test_a_file_that_is_nested_too_deeply_or_no_text_is_passed_over(run, name, content):
    if name == "config.json":
        unsealed(run)
    (run / "checkpoint-12" / name).write_bytes(content)
    said = []
    assert last_whole(run, said.append) == str(run / "checkpoint-9")
    assert name in said[0] and len(said[0]) < 1000
