"""What a trainer writes for others costs no run, and what it pickles holds no secret."""

import errno
import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import inside
import pytest
import tiny
import torch
from disk import largest_file

from hf_prune import History
from hf_prune.records.history_file import HISTORY
from hf_prune.records.table import ROWS
from hf_prune.records.trace import FOLDER
from hf_prune.report import page, rows
from hf_prune.report.account import NUMBERS

TASK = tiny.TASKS["one label"]
HALF = "\ud83d"  # of a surrogate pair: UTF-8 has no bytes for it
POLICY = "uniform:keep=0.5"


def made(folder, rows=None, policy=POLICY, **settings):
    return tiny.trainer(folder, TASK.model(), rows or TASK.rows(), policy, num_train_epochs=1, **settings)


def trained(folder, **settings):
    trainer = made(folder, **settings)
    trainer.train()
    return trainer


# ---- What is written for people ----


def test_half_a_character_in_a_row_that_is_shown(tmp_path, caplog):
    rows = [row | {"sentence": f"so {HALF} long", "name" + HALF: "x"} for row in TASK.rows()]
    trainer = trained(tmp_path, rows=rows)
    trainer.save_model()
    shown = json.loads((tmp_path / FOLDER / page.EXAMPLES).read_text(encoding="utf-8"))
    assert {row["texts"]["sentence"] for row in shown.values()} == {f"so {HALF} long"}
    trainer.pruning_report().html(tmp_path / "_report.html")
    assert "so \\ud83d long" in (tmp_path / "_report.html").read_text(encoding="utf-8")
    assert not [message for message in caplog.messages if "were padding" not in message]


def fail(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def break_off(*args, **kwargs):
    raise RuntimeError("matplotlib, pyarrow or whatever is broken\nand says so at length")


@pytest.mark.parametrize(
    ("place", "file"),
    [
        ((rows, "write_rows"), ROWS),
        ((page, "show"), page.EXAMPLES),
        ((History, "save"), HISTORY),
        ((page.RunReport, "save"), NUMBERS),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("how", [fail, break_off])
def test_a_part_that_can_not_be_written_costs_the_rest_nothing(tmp_path, monkeypatch, caplog, place, file, how):
    trainer = trained(tmp_path)
    monkeypatch.setattr(*place, how)
    trainer.save_model()
    trainer.save_model()
    told = [record.message for record in caplog.records if file in record.message]
    assert len(told) == 1 and ("No space left" in told[0] or "is broken" in told[0]) and "goes on" in told[0]
    assert ("COULD NOT BE WRITTEN" in told[0]) == (file == HISTORY)
    files = {HISTORY, ROWS, NUMBERS, "model.safetensors", f"{FOLDER}/{page.EXAMPLES}"}
    assert {name for name in files if not (tmp_path / name).exists()} == {name for name in files if file in name}
    if file != NUMBERS:
        assert list(json.loads((tmp_path / NUMBERS).read_text())["missing"]) == [file]
        assert file in trainer.pruning_report().card()
    monkeypatch.undo()
    trainer.save_model()
    assert all((tmp_path / name).exists() for name in files)
    assert "missing" not in json.loads((tmp_path / NUMBERS).read_text()) and file not in trainer.pruning_report().card()


def test_a_report_says_what_could_not_be_written(tmp_path, monkeypatch):
    trainer = trained(tmp_path)
    monkeypatch.setattr(rows, "write_rows", fail)
    trainer.save_model()
    page.RunReport.of_folder(tmp_path).html(tmp_path / "_report.html")
    assert f"{ROWS} could not be written beside the model (OSError" in (tmp_path / "_report.html").read_text()


def test_a_file_where_the_folder_of_rounds_should_be(tmp_path, caplog):
    (tmp_path / FOLDER).write_text("mine")
    trainer = trained(tmp_path)
    trainer.save_model()
    assert (tmp_path / FOLDER).read_text() == "mine"
    assert {HISTORY, ROWS, NUMBERS} <= {path.name for path in tmp_path.iterdir()}
    assert page.EXAMPLES in json.loads((tmp_path / NUMBERS).read_text())["missing"]


def test_folders_where_files_should_be(tmp_path, caplog):
    names = (HISTORY, ROWS, NUMBERS, f"{FOLDER}/{page.EXAMPLES}")
    for name in names:
        (tmp_path / name).mkdir(parents=True)
    trainer = trained(tmp_path)
    trainer.save_model()
    assert (tmp_path / "model.safetensors").exists()
    assert all(Path(name).name in caplog.text for name in names)


def test_a_disk_that_is_full_after_the_weights(tmp_path, caplog):
    trainer = trained(tmp_path)
    sharing = inside.sharing(trainer)
    stock = sharing.save_account

    def on_a_full_disk(folder):
        with largest_file(100):
            stock(folder)

    sharing.save_account = on_a_full_disk
    trainer.save_model()
    assert (tmp_path / "model.safetensors").exists() and "COULD NOT BE WRITTEN" in caplog.text
    assert not (tmp_path / HISTORY).exists() and not list(tmp_path.rglob("*.tmp"))


class Mute:
    """A tokenizer that can't decode."""

    def convert_ids_to_tokens(self, ids):
        return []

    def decode(self, ids, **options):
        raise OverflowError("out of range integral type conversion attempted")

    def save_pretrained(self, folder):
        pass


def test_a_tokenizer_that_can_not_decode(tmp_path, caplog):
    trainer = made(tmp_path)
    trainer.processing_class = Mute()
    trainer.train()
    trainer.save_model()
    assert "can't be shown (OverflowError: out of range" in (tmp_path / FOLDER / page.EXAMPLES).read_text()
    assert not [message for message in caplog.messages if "were padding" not in message]


@pytest.mark.parametrize("place", ["_sections", "_about_scores", "_last_scores", "pruning_report"])
def test_a_card_that_can_not_be_extended_is_stocks(tmp_path, monkeypatch, caplog, place):
    trainer = trained(tmp_path)
    monkeypatch.setattr(trainer if place == "pruning_report" else inside.sharing(trainer), place, break_off)
    trainer.create_model_card()
    assert "Training procedure" in (tmp_path / "README.md").read_text()
    assert "The model card lacks its section on data pruning" in caplog.text and "is broken)" in caplog.text


def test_a_card_that_stock_can_not_write_ends_no_training(tmp_path, monkeypatch, caplog):
    trainer = made(tmp_path, save_strategy="steps", save_steps=1, hub_strategy="every_save")
    pushed = []
    monkeypatch.setattr(tiny.tf.Trainer, "create_model_card", break_off)
    monkeypatch.setattr(tiny.tf.Trainer, "_push_from_checkpoint", lambda self, folder: pushed.append(folder))
    trainer.hub_model_id = "ann/tiny"
    trainer.train()
    trainer._push_from_checkpoint(tmp_path / "checkpoint-1")
    assert pushed and "The model card could not be written (RuntimeError: matplotlib" in caplog.text


def test_a_report_that_can_not_be_made_ends_nothing(tmp_path, monkeypatch, caplog):
    trainer = trained(tmp_path)
    monkeypatch.setattr(trainer, "pruning_report", break_off)
    trainer.save_model()
    assert (tmp_path / "model.safetensors").exists() and (tmp_path / HISTORY).exists()
    assert "is broken" in caplog.text


# ---- Secrets ----

TOKEN = "hf_" + "aB3" * 11
ASSIGNED = {
    "hub_token": "sesame-1",
    "push_to_hub_token": "sesame-2",
    "model_init_kwargs": {"token": "sesame-3", "deep": [{"api_key": "sesame-4"}, TOKEN]},
    "report_to_kwargs": {"address": "https://ann:sesame-5@host/x", "run": "two"},
    "wandb_api_key": "sesame-6",
    "run_name": f"with {TOKEN}",
}


@dataclass
class Nested:
    """As accelerate's own configuration lies in the arguments."""

    password: str = "sesame-7"
    seed: int = 3
    more: dict = field(default_factory=lambda: {"secret": "sesame-8"})


def test_a_secret_that_is_assigned_later_is_in_no_file(tmp_path):
    trainer = trained(tmp_path)
    for name, value in ASSIGNED.items():
        setattr(trainer.args, name, value)
    trainer.args.nested = Nested()
    trainer.save_model()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"sesame" in path.read_bytes()]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    for name, value in ASSIGNED.items():
        assert getattr(trainer.args, name) == value  # they still serve
    assert trainer.args.nested == Nested()
    found = torch.load(tmp_path / "training_args.bin", weights_only=False)
    assert found.hub_token is None and found.model_init_kwargs["token"] is None
    assert (found.report_to_kwargs["run"], found.seed, found.output_dir) == ("two", 3, str(tmp_path))


def test_a_secret_given_to_the_arguments_is_kept_from_every_pickle(tmp_path):
    trainer = made(tmp_path, hub_token="sesame-1")
    torch.save(trainer.args, tmp_path / "args.bin")
    assert b"sesame" not in (tmp_path / "args.bin").read_bytes() and trainer.args.hub_token == "sesame-1"


@pytest.mark.parametrize("policy", [POLICY, None])
def test_a_checkpoint_that_is_pushed_holds_none(tmp_path, monkeypatch, policy):
    trainer = made(tmp_path, policy=policy, hub_strategy="every_save")
    trainer.train()
    trainer.args.hub_token = "sesame-1"
    held = []
    stock = tiny.tf.Trainer._push_from_checkpoint
    assert "torch.save(self.args" in __import__("inspect").getsource(stock)
    monkeypatch.setattr(
        tiny.tf.Trainer,
        "_push_from_checkpoint",
        lambda self, folder: held.append(torch.save(self.args, tmp_path / "args.bin")),
    )
    trainer.hub_model_id = "ann/tiny"
    trainer._push_from_checkpoint(tmp_path / "checkpoint-1")
    assert held and b"sesame" not in (tmp_path / "args.bin").read_bytes()


def test_a_policys_secrets_and_paths_are_in_nothing_that_others_get(tmp_path, monkeypatch):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom hf_prune.policies.uniform import Uniform\n\n\n"
        "@dataclass(frozen=True)\nclass Mine(Uniform):\n    '''Mine.\n\n    Args:\n        scores: A file.\n"
        "        api_key: A key.\n    '''\n\n    scores: str = ''\n    api_key: str = ''\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    policy = "ours.mine:keep=0.5,scores=/home/ann/private/scores.npy,api_key=sesame"
    trainer = made(tmp_path / "run", policy=policy, save_strategy="epoch")
    trainer.train()
    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
    assert not [path for path in checkpoint.iterdir() if b"sesame" in path.read_bytes()]
    shutil.rmtree(checkpoint)  # whose files name paths, as Trainer's own do
    trainer.save_model()
    trainer.create_model_card(command=f"python train.py --policy {policy} --hub_token sesame")
    trainer.pruning_report().html(tmp_path / "run" / "_report.html")
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file() and path.name != "training_args.bin":
            assert b"sesame" not in path.read_bytes() and b"/home/ann" not in path.read_bytes(), path
    assert History.load(tmp_path / "run" / HISTORY).is_of(trainer.policy)
    assert "scores='scores.npy', api_key='KEY'" in (tmp_path / "run" / "README.md").read_text()
    for name in ("ours", "ours.mine"):
        del sys.modules[name]


def test_arguments_of_an_optimizer_are_in_a_card_without_secrets_and_paths(tmp_path):
    trainer = trained(tmp_path, optim_args="rank=3,api_token=sesame,file=/home/ann/x.csv")
    trainer.create_model_card()
    card = (tmp_path / "README.md").read_text()
    assert "rank=3,api_token=TOKEN,file=x.csv" in card and "sesame" not in card and "ann" not in card
    assert trainer.args.optim_args == "rank=3,api_token=sesame,file=/home/ann/x.csv"
