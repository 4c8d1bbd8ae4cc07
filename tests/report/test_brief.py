"""A run in ten lines, in a notebook, and before it has ended."""

import dataclasses
import json
import re
import shutil

import pytest
import tiny
from datasets import Dataset
from reports import REPORT
from tiny import TASKS
from transformers import TrainerCallback

from hf_prune.cli import main
from hf_prune.records.history_file import HISTORY, STATE
from hf_prune.report.account import NUMBERS
from hf_prune.report.unfinished import UnfinishedReport, report_of


class Stop(TrainerCallback):
    """Looks at the report while the run goes on, and kills the run after some epochs."""

    def __init__(self, epochs):
        self.epochs = epochs
        self.trainer, self.seen = None, []

    def on_log(self, args, state, control, **kwargs):
        self.seen.append(str(self.trainer.pruning_report()))

    def on_epoch_begin(self, args, state, control, **kwargs):
        if state.epoch >= self.epochs:
            raise KeyboardInterrupt


def interrupted(folder, epochs=2, **settings):
    task, stop = TASKS["one label"], Stop(epochs)
    settings = {"num_train_epochs": 4, "logging_steps": 1, "eval_strategy": "epoch"} | settings
    rows = Dataset.from_list(task.rows(40))
    trainer = tiny.trainer(
        folder, task.model(), rows, policy="uniform:keep=0.5", callbacks=[stop], eval_dataset=rows, **settings
    )
    stop.trainer = trainer
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    return trainer, stop


def without_seconds(counts):  # writing a round takes some, which are counted after it was written
    return {name: count for name, count in counts.items() if not name.startswith("seconds")}


def test_ten_lines_say_what_the_run_did():
    lines = str(REPORT).splitlines()
    assert len(lines) <= 10 and lines[0] == f"{REPORT.rows:,} rows, 2 epochs: {REPORT.policy}"
    assert re.search(r"^rows +160 of 200 trained \(80.0 %\)$", str(REPORT), re.M)
    assert re.search(
        r"^tokens +1,500 of 2,000 trained \(75.0 %\), 14.3 % of 1,750 positions were padding$", str(REPORT), re.M
    )


def test_scores_that_are_no_numbers_are_left_out():
    scores = {"eval_f1": [0.5, 0.6], "eval_note": "fine", "eval_accuracy": 0.75, "eval_model_preparation_time": 0.1}
    cost = {"step": 16, "epoch": 1.0, "prune/rows": 5, "prune/seconds": 1.0, "prune/seconds_training": 1.0}
    report = dataclasses.replace(REPORT, log_history=[cost | scores])
    assert "last evaluation  accuracy 0.75 (epoch 1)" in str(report)


def test_one_epoch_is_not_many():
    assert str(dataclasses.replace(REPORT, epochs=REPORT.epochs[:1])).startswith("100 rows, 1 epoch: ")


def test_a_notebook_shows_them_as_a_table_that_runs_no_code():
    page = dataclasses.replace(REPORT, policy="<script>")._repr_html_()
    assert page.count("<tr>") == len(str(REPORT).splitlines()) - 1
    assert "<script" not in page and "&lt;script&gt;" in page


def test_the_report_can_be_read_while_the_run_goes_on(tmp_path):
    _, stop = interrupted(tmp_path)
    assert len(stop.seen) > 2 and all(len(text.splitlines()) <= 10 for text in stop.seen)
    assert stop.seen[0].startswith("40 rows, 0 epochs: Uniform") and "rows     20 of 40" not in stop.seen[0]
    assert re.search(r"rows +20 of 40 trained", stop.seen[-1])


@pytest.mark.parametrize("save", ["no", "epoch"])
def test_an_interrupted_run_has_a_report(tmp_path, save, capsys):
    trainer, _ = interrupted(tmp_path, save_strategy=save)
    whole, found = trainer.pruning_report(), report_of(tmp_path)
    assert isinstance(found, UnfinishedReport) and len(found.epochs) == 2
    assert [*map(without_seconds, found.epochs)] == [*map(without_seconds, whole.epochs)]
    assert without_seconds(found.totals()) == without_seconds(whole.totals()) and found.policy == whole.policy
    assert (found.history.last_round == whole.history.last_round).all()
    assert found.history.loss == pytest.approx(whole.history.loss, rel=1e-3, nan_ok=True)
    assert len(found.evaluations()) == (2 if save == "epoch" else 0)
    assert main(["report", str(tmp_path)]) == 0
    page = (tmp_path / "_report.html").read_text()
    assert "This run has not ended, or saved its model elsewhere: what follows is of its first 2 rounds." in page


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    interrupted(tmp_path, save_strategy="epoch")
    newest = max(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    (newest / STATE).write_bytes(b"nothing")
    assert len(report_of(tmp_path).evaluations()) == 1


def test_a_run_that_has_ended_keeps_its_own_report(tmp_path):
    task = TASKS["one label"]
    trainer = tiny.trainer(tmp_path, task.model(), Dataset.from_list(task.rows()), policy="uniform:keep=0.5")
    trainer.train()
    trainer.save_model()
    assert not isinstance(report_of(tmp_path), UnfinishedReport)
    numbers = json.loads((tmp_path / NUMBERS).read_text())
    assert report_of(tmp_path).to_dict() == {name: numbers[name] for name in report_of(tmp_path).to_dict()}


def test_a_new_run_in_the_folder_of_an_old_one_is_the_one_that_is_told(tmp_path):
    old = tmp_path / "old"
    task = TASKS["one label"]
    trainer = tiny.trainer(old, task.model(), Dataset.from_list(task.rows(40)), policy="infobatch")
    trainer.train()
    trainer.save_model()
    new = tmp_path / "new"
    interrupted(new)
    for name in (NUMBERS, HISTORY):
        shutil.copy(old / name, new / name)
    assert report_of(new).policy.startswith("Uniform")


def test_a_folder_without_any_round_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path)])
    assert "is not there: give the folder of a run" in capsys.readouterr().err
