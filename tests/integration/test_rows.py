"""The table of rows of real runs: predictions as a forward pass makes them, whatever happens to the run."""

import numpy as np
import pytest
import tiny
from tiny import TASKS

from hf_prune.report.rows import BRIEF


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))


def trained(folder, task="one label", resume=None, **settings):
    one = TASKS[task]
    trainer = tiny.trainer(folder, one.model(0.0, spread=0.3), one.rows(22), policy="uniform:keep=1.0", **settings)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def test_predictions_are_the_models(tmp_path):
    trainer = trained(tmp_path / "run", num_train_epochs=2, learning_rate=0.0)  # so that the model stays as it was
    trainer.model.eval()
    found = trainer.predict(trainer.train_dataset)
    table = trainer.pruning_report().table()
    assert table["predicted"].to_pylist() == [f"LABEL_{label}" for label in found.predictions.argmax(1)]
    assert table["label"].to_pylist() == [f"LABEL_{row['labels']}" for row in trainer.train_dataset]
    trainer.save_model()
    assert (tmp_path / "run" / "_pruning" / BRIEF).is_file()


def test_a_resumed_run_has_the_same_table(tmp_path):
    settings = {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": 4}
    whole = trained(tmp_path / "run", **settings).pruning_report().table()
    again = trained(tmp_path / "run", resume=str(tmp_path / "run" / "checkpoint-4"), **settings)
    assert again.pruning_report().table().equals(whole)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_task_has_a_table(tmp_path, task):
    table = trained(tmp_path / "run", task, num_train_epochs=2).pruning_report().table()
    assert len(table) == 22 and "loss_by_epoch" in table.column_names
    if "worst_token" in table.column_names:
        assert np.nanmin(table["worst_token"].to_numpy()) >= 0


def test_the_card_says_what_the_losses_say(tmp_path):
    trainer = trained(tmp_path / "run", num_train_epochs=2)
    trainer.create_model_card()
    card = (tmp_path / "run" / "README.md").read_text()
    assert f"What the losses say about labels: {trainer.pruning_report().judgement.line}" in card
