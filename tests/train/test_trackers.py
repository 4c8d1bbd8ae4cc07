"""What trackers get at the end of training, and that none of it can end a run."""

import sys
from types import SimpleNamespace

import pytest
import tiny
from datasets import ClassLabel, Dataset, Features, List, Value
from tiny import TASKS

from hf_prune.report.audit import audit
from hf_prune.report.judgement import Judgement
from hf_prune.report.page import RunReport
from hf_prune.train import trackers

FIGURES = {"pruning/share", "pruning/times", "pruning/map", "pruning/losses"}


@pytest.fixture(autouse=True)
def judged(monkeypatch):
    """The few rows of these runs say nothing about their labels; here they do, so that there are suspects."""
    monkeypatch.setattr(RunReport, "judgement", Judgement("none", "there is no second component"))


def run(folder, *named, policy="uniform:keep=0.8", **settings):
    """A run of a few epochs, in which some rows are never learnt."""
    task = TASKS["one label"]
    rows = [row | {"text": f"a | b <i> {number}"} for number, row in enumerate(task.rows(24))]
    features = Features({"input_ids": List(Value("int64")), "attention_mask": List(Value("int64"))})
    features |= {"labels": ClassLabel(names=["bad", "good", "odd"]), "text": Value("string")}
    data = Dataset.from_list(rows, Features({name: features.get(name, Value("int64")) for name in rows[0]}))
    settings = {"num_train_epochs": 3, "report_to": list(named)} | settings
    trainer = tiny.trainer(folder, task.model(spread=0.3), data, policy=policy, **settings)
    trainer.train()
    return trainer


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_gets_figures_and_the_suspects(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    trainer = run(tmp_path / "out", "tensorboard")
    found = EventAccumulator(str(tmp_path / "board"))
    found.Reload()
    assert set(found.Tags()["images"]) >= FIGURES
    texts = {name: found.Tensors(f"{name}/text_summary") for name in ("pruning/report", "pruning/suspects")}
    (table,) = texts["pruning/suspects"]
    table = table.tensor_proto.string_val[0].decode()
    hardest = audit(trainer.pruning_report()).first(50).rows.tolist()
    assert hardest and [int(line.split(" | ")[0][2:]) for line in table.splitlines()[2:]] == hardest
    assert r"a \| b &lt;i&gt;" in table and "optimizer steps" in str(texts["pruning/report"][0].tensor_proto)
    assert "prune/kept" in " ".join(found.Tags()["scalars"])  # as before


class Fake(SimpleNamespace):
    """A module that keeps what it is called with."""

    def __init__(self):
        super().__init__(calls=[])

    def __getattr__(self, name):
        def call(*args, **kwargs):
            self.calls.append((name, args, kwargs))
            return name

        return call


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_other_trackers_get_them_as_their_own_kind(name, tmp_path, monkeypatch):
    module = Fake()
    monkeypatch.setitem(sys.modules, name, module)
    trainer = run(tmp_path)
    monkeypatch.setattr(trainer.args, "report_to", [name])
    callback = trackers.Trackers(trainer, trainer.pruning_report, pytest.fail)
    callback.on_train_end(trainer.args, trainer.state, trainer.control)
    calls = [call for call, _, _ in module.calls]
    if name == "mlflow":
        assert calls == ["log_table", "log_artifacts", "log_text"]
        columns, path = module.calls[0][1]
        assert path == "pruning/suspects.json" and list(columns) == list(trackers._COLUMNS)
        return
    sent = module.calls[-1][1][0]
    assert calls[-1] == "log" and set(sent) >= FIGURES | {"pruning/suspects", "pruning/report"}
    assert sent["pruning/suspects"] == "Table" and sent["pruning/share"] == "Image"
    assert sent["pruning/report"] == ("Html" if name == "wandb" else "Markdown")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_local_store_of_mlflow_gets_them(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    trainer = run(tmp_path / "out", "mlflow")
    (found,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    table = mlflow.load_table("pruning/suspects.json", run_ids=[found.info.run_id])
    assert table["row"].tolist() == audit(trainer.pruning_report()).first(50).rows.tolist()
    assert (tmp_path / "store").rglob("report.html")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_local_store_of_trackio_gets_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))
    pytest.importorskip("trackio", reason="trackio is not installed")
    run(tmp_path / "out", "trackio")
    kept = b"".join(path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file())
    assert b"pruning/suspects" in kept and b"pruning/share" in kept


def test_a_tracker_that_fails_is_told_and_the_run_ends_well(tmp_path, monkeypatch, caplog):
    def fail(*args):
        raise ConnectionError("no route")

    monkeypatch.setitem(trackers._SENDERS, "tensorboard", fail)
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    trainer = run(tmp_path / "out", "tensorboard")
    assert trainer.state.global_step == trainer.state.max_steps
    assert "report_to='tensorboard' did not get the report (ConnectionError: no route)" in caplog.text


@pytest.mark.parametrize("settings", [{}, {"policy": None}])
def test_nothing_is_sent_where_no_tracker_or_no_policy_is(settings, tmp_path, monkeypatch):
    monkeypatch.setitem(trackers._SENDERS, "tensorboard", lambda *args: pytest.fail("sent"))
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    run(tmp_path / "out", *(["tensorboard"] if settings else []), **settings)
