"""A trainer is freed with its last name, as Trainer is, and its copy is a trainer of its own."""

import copy
import gc
import weakref

import pytest
import tiny

TASK = tiny.TASKS["one label"]


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("is_trained", [False, True])
@pytest.mark.parametrize("policy", [tiny.STOCK, None, "infobatch", "uniform:keep=0.5"], ids=str)
def test_the_model_is_freed_with_its_trainer(tmp_path, no_collector, policy, is_trained):
    model = TASK.model(0.0)
    trainer = tiny.trainer(tmp_path, model, TASK.rows(22), policy, num_train_epochs=2)
    if is_trained:
        trainer.train()
    alive = weakref.ref(model)
    del trainer, model
    assert alive() is None


def test_a_copy_trains_by_itself(tmp_path):
    trainer = tiny.trainer(tmp_path / "first", TASK.model(0.0), TASK.rows(22), "uniform:keep=0.5", num_train_epochs=2)
    trainer.train()
    rounds = len(trainer.pruning_report().epochs)
    copied = copy.deepcopy(trainer)
    copied.args.num_train_epochs = 3
    copied.train()
    assert copied._pruning.trainer is copied and copied._pruning.sharing.trainer is copied
    assert len(copied.pruning_report().epochs) == 3
    assert trainer._pruning.trainer is trainer and len(trainer.pruning_report().epochs) == rounds == 2


def test_a_warning_outlives_the_trainer(tmp_path, caplog):
    trainer = tiny.trainer(tmp_path, TASK.model(0.0), TASK.rows(22), "infobatch")
    warn = trainer._pruning.sharing._warn  # as the end of an upload calls it
    del trainer
    gc.collect()
    warn("An upload to the Hub failed")
    assert "An upload to the Hub failed" in caplog.text
