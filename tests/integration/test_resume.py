"""A run that is killed at any moment and goes on ends with the same bits as one that was not."""

import pickle
import random
import shutil
from pathlib import Path

import pytest
from fork_server import run
from resumed import EPOCHS, ROWS, StopAt, assert_same, build, result_of
from transformers import TrainerCallback

from hf_prune.common import storage
from hf_prune.train.checkpoint import STATE
from hf_prune.train.seal import SEAL

POLICIES = ("uniform:keep=0.6", "infobatch:ratio=0.6")
ORDERS = ("random", "group_by_length")


def train_in(folder, settings):
    """Runs in a process of its own: train, or go on, and leave the result in a file."""
    trainer, log = build(folder, **settings)
    any_checkpoint = any(Path(folder).glob("checkpoint-*/trainer_state.json"))
    trainer.train(resume_from_checkpoint=True if any_checkpoint else None)
    Path(folder, "result").write_bytes(pickle.dumps(result_of(trainer, log)))


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("policy", POLICIES)
def test_killed_at_random_moments(tmp_path, policy, accumulation, order):
    settings = {"policy": policy, "accumulation": accumulation, "order": order}
    run(train_in, tmp_path / "whole", settings)
    reference = pickle.loads((tmp_path / "whole" / "result").read_bytes())
    steps = reference["end"][0]
    moments = random.Random(f"{policy}{accumulation}{order}")
    kills = 0
    for trial in range(2):
        folder = tmp_path / str(trial)
        for _ in range(3):
            if run(train_in, folder, settings, kill_at=moments.uniform(0, steps / 2)):  # later, it might be over before
                break
            kills += 1
        else:
            run(train_in, folder, settings)
        assert_same(pickle.loads((folder / "result").read_bytes()), reference)
    assert kills >= 2


class EndEpochsAt(TrainerCallback):
    """Ends the epoch at these steps."""

    def __init__(self, *steps):
        self.steps = steps

    def on_step_end(self, args, state, control, **kwargs):
        control.should_epoch_stop = state.global_step in self.steps


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "accumulation", "order"), [(POLICIES[1], 3, "random"), (POLICIES[0], 1, ORDERS[1])])
def test_stopped_at_every_step(tmp_path, policy, accumulation, order):
    settings = {"policy": policy, "accumulation": accumulation, "order": order, "save_strategy": "no"}
    trainer, log = build(tmp_path / "whole", **settings)
    trainer.train()
    reference, steps = result_of(trainer, log), trainer.state.global_step
    for step in range(1, steps + 1):
        folder = tmp_path / "stopped"
        trainer, _ = build(folder, **settings)
        trainer.add_callback(StopAt(step))
        trainer.train()
        trainer, log = build(folder, **settings)
        trainer.train(resume_from_checkpoint=str(folder / f"checkpoint-{step}"))
        assert_same(result_of(trainer, log), reference)
        shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{}, {"policy": "autoassist:rounds=2"}, {"eval_strategy": "steps", "eval_steps": 4}]
)
def test_workers_that_stay_draw_what_they_drew(tmp_path, monkeypatch, settings):
    """Their loader draws from the generator that dropout draws from, once: before the checkpoint, not after it too."""
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)  # seconds until they are ended
    settings = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True, "save_steps": 1} | settings
    trainer, log = build(tmp_path, **settings)
    trainer.train()
    reference = result_of(trainer, log)
    for step in (2, 5, trainer.pruning_report().epochs[0]["steps"]):  # 2 is before all evaluations, 5 after one
        trainer, log = build(tmp_path / "again", **settings | {"save_strategy": "no"})
        trainer.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert_same(result_of(trainer, log), reference)


@pytest.mark.slow
def test_saved_at_the_end_of_an_epoch(tmp_path):
    trainer, log = build(tmp_path, save_strategy="epoch")
    trainer.train()
    reference = result_of(trainer, log)
    for checkpoint in sorted(tmp_path.glob("checkpoint-*")):
        trainer, log = build(tmp_path / "again", save_strategy="no")
        trainer.train(resume_from_checkpoint=str(checkpoint))
        assert_same(result_of(trainer, log), reference)


@pytest.mark.parametrize("save", [{"save_strategy": "epoch"}, {"save_steps": 1}])
def test_saved_where_a_callback_ends_an_epoch(tmp_path, save):
    def ended(folder, **settings):
        trainer, log = build(folder, **settings)
        trainer.add_callback(EndEpochsAt(3, 8))
        return trainer, log

    trainer, log = ended(tmp_path, **save)
    trainer.train()
    assert [epoch["steps"] for epoch in trainer.pruning_report().epochs][:2] == [3, 5]
    reference = result_of(trainer, log)
    for step in (3, 8):
        trainer, log = ended(tmp_path / "again", save_strategy="no")
        trainer.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert_same(result_of(trainer, log), reference)


def test_two_seeds_in_one_folder_share_nothing(tmp_path):
    """A new run in an old run's folder begins from nothing unless told to go on."""
    first, _ = build(tmp_path)
    first.train()
    second, _ = build(tmp_path, seed=4)
    second.train()
    third, _ = build(tmp_path / "other", seed=4)
    third.train()
    assert second.history.loss.tobytes() == third.history.loss.tobytes() != first.history.loss.tobytes()


# ---- What can't go on ----


@pytest.fixture
def stopped(tmp_path):
    """A folder with checkpoints at steps 2, 4, ... 12."""
    trainer, _ = build(tmp_path)
    trainer.add_callback(StopAt(12))
    trainer.train()
    return tmp_path


@pytest.mark.parametrize("damage", ["truncated", "altered", "empty"])
def test_a_damaged_state_names_the_checkpoint_before(stopped, damage):
    path = stopped / "checkpoint-12" / STATE
    content = path.read_bytes()
    changed = {"truncated": content[: len(content) // 2], "empty": b""}
    path.write_bytes(changed.get(damage, content[:-1] + bytes([content[-1] ^ 1])))
    trainer, _ = build(stopped)
    with pytest.raises(ValueError, match=r"checkpoint-12'.* is damaged.*Resume from .*checkpoint-10 instead"):
        trainer.train(resume_from_checkpoint=str(stopped / "checkpoint-12"))


def test_a_half_written_checkpoint_is_passed_over(stopped, caplog):
    (stopped / "checkpoint-12" / "trainer_state.json").unlink()
    (stopped / "checkpoint-10" / STATE).write_bytes(b"half")
    trainer, log = build(stopped)
    trainer.train(resume_from_checkpoint=True)
    assert min(log) == 8
    assert caplog.text.count("is incomplete or damaged") == 2


def test_nothing_whole_to_resume_from_is_said(tmp_path):
    (tmp_path / "checkpoint-2").mkdir()
    trainer, _ = build(tmp_path)
    with pytest.raises(ValueError, match="No valid checkpoint found in output directory .*is whole. Train without"):
        trainer.train(resume_from_checkpoint=True)


def test_a_checkpoint_that_is_written_again_is_not_whole_meanwhile(stopped, monkeypatch):
    trainer, _ = build(stopped)
    monkeypatch.setattr(trainer, "_save_optimizer_and_scheduler", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        trainer.train(resume_from_checkpoint=str(stopped / "checkpoint-8"))
    assert not (stopped / "checkpoint-10" / "trainer_state.json").exists()
    assert (stopped / "checkpoint-12" / "trainer_state.json").exists()


def test_a_state_of_more_or_fewer_rows_is_refused(stopped):
    trainer, _ = build(stopped, rows=ROWS + 1)
    with pytest.raises(ValueError, match=f"is of {ROWS} rows, but the training set has {ROWS + 1}"):
        trainer.train(resume_from_checkpoint=str(stopped / "checkpoint-10"))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("sizes", [{"batch": 3}, {"batch": 1, "accumulation": 3}, {"batch": 17}, {"accumulation": 2}])
def test_with_other_batches_the_rest_of_the_epoch_is_trained_once(tmp_path, caplog, policy, sizes, order):
    settings = {"policy": policy, "order": order, "save_strategy": "no"}
    trainer, before = build(tmp_path, **settings)
    trainer.add_callback(StopAt(10))
    trainer.train()
    checkpoint = tmp_path / "checkpoint-10"
    arrays, header = storage.load(checkpoint / STATE)
    cut, selected = header["round"]["clock"]["epoch"], arrays["selection/rows"].tolist()
    trainer, after = build(tmp_path, **settings, **sizes)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    epochs = trainer.pruning_report().epochs
    assert trainer.state.epoch == EPOCHS
    assert trainer.state.global_step == trainer.state.max_steps == sum(epoch["steps"] for epoch in epochs)
    assert set(trainer.lr_scheduler.get_last_lr()) == {0}
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    assert rates == sorted(rates, reverse=True)
    rows = [row for log in (before, after) for batches in log.values() for batch in batches for row in batch]
    assert len(rows) == sum(epoch["rows"] for epoch in epochs)
    begin = 0
    for epoch in epochs:
        trained = rows[begin : begin + epoch["rows"]]
        begin += epoch["rows"]
        assert len(set(trained)) == len(trained)
        assert epoch["rows_offered"] == ROWS
        if epoch["epoch"] == cut:
            assert sorted(trained) == selected
    assert "was saved with other batches" in caplog.text


def rows_of_both(tmp_path, before, after, forget=None, **settings):
    """The rows selected in the epoch in which a run stops, and those that it and the next trained in it."""
    trainer, first = build(tmp_path, order=before, save_strategy="no", **settings)
    trainer.add_callback(StopAt(10))
    trainer.train()
    path = tmp_path / "checkpoint-10" / STATE
    arrays, header = storage.load(path)
    if forget is not None:  # as the version before wrote it
        header["facts"].pop(forget)
        storage.save(path, arrays, header)
        (path.parent / SEAL).unlink()
    trainer, second = build(tmp_path, order=after, save_strategy="no", **settings)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-10"))
    begin = header["round"]["plan"]["first_step"]
    end = sum(epoch["steps"] for epoch in trainer.pruning_report().epochs[: header["round"]["clock"]["epoch"] + 1])
    steps = (first | second).items()
    trained = [row for step, batches in steps if begin <= step < end for batch in batches for row in batch]
    return arrays["selection/rows"].tolist(), sorted(trained)


@pytest.mark.parametrize(("before", "after"), [ORDERS, ORDERS[::-1], ("sequential", "group_by_length")])
def test_in_another_order_the_rest_of_the_epoch_is_trained_once(tmp_path, caplog, before, after):
    selected, trained = rows_of_both(tmp_path, before, after)
    assert selected == trained
    assert "was saved with other batches (order " in caplog.text


@pytest.mark.parametrize("order", ORDERS)
def test_a_state_that_names_no_order_goes_on(tmp_path, caplog, order):
    """Written by the version before, which grouped as the stock sampler does."""
    selected, trained = rows_of_both(tmp_path, order, order, forget="order")
    assert selected == trained
    assert ("(order grouped as stock does -> grouped)" in caplog.text) == (order == "group_by_length")


def test_what_was_cut_anew_can_be_killed_again(tmp_path):
    trainer, _ = build(tmp_path, save_strategy="no")
    trainer.add_callback(StopAt(10))
    trainer.train()

    def resumed(folder, checkpoint):
        trainer, log = build(folder, batch=1, accumulation=3, save_steps=1)
        trainer.train(resume_from_checkpoint=str(checkpoint))
        return result_of(trainer, log)

    reference = resumed(tmp_path / "whole", tmp_path / "checkpoint-10")
    for checkpoint in sorted((tmp_path / "whole").glob("checkpoint-*")):
        assert_same(resumed(tmp_path / "again", checkpoint), dict(reference))


def test_other_data_of_the_same_length_are_refused(stopped):
    trainer, _ = build(stopped)
    trainer.train_dataset = trainer.train_dataset.map(lambda row: {"labels": 2 - row["labels"]})
    with pytest.raises(ValueError, match="was saved while training on another data set"):
        trainer.train(resume_from_checkpoint=True)


def test_a_stock_checkpoint_begins_the_policy_anew_at_the_end_of_an_epoch(tmp_path, caplog):
    trainer, _ = build(tmp_path, policy=None)
    trainer.add_callback(StopAt(9))
    trainer.train()
    trainer, log = build(tmp_path)
    trainer.train(resume_from_checkpoint=True)
    assert "the policy begins anew" in caplog.text
    assert min(log) == 9
    assert trainer.state.global_step == trainer.state.max_steps
    assert [epoch["epoch"] for epoch in trainer.pruning_report().epochs] == [1, 2]


def test_a_stock_checkpoint_goes_on_as_stock_where_everything_is_kept(tmp_path):
    """Bit for bit; what was trained before is not claimed as trained or saved."""
    ends = {}
    for policy in (None, "uniform:keep=1.0"):
        trainer, _ = build(tmp_path, policy=None, save_strategy="no")
        trainer.add_callback(StopAt(9))
        trainer.train()
        trainer, _ = build(tmp_path, policy=policy, save_strategy="no")
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-9"))
        weights = {name: tensor.numpy().tobytes() for name, tensor in trainer.model.state_dict().items()}
        rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
        ends[policy] = weights, rates, trainer.state.global_step, trainer.state.epoch
        shutil.rmtree(tmp_path)
    assert ends[None] == ends["uniform:keep=1.0"]
    epochs = trainer.pruning_report().epochs
    assert [(epoch["steps"], epoch["rows"], epoch["rows_offered"]) for epoch in epochs] == 2 * [(9, ROWS, ROWS)]


def test_a_stock_checkpoint_of_the_middle_of_an_epoch_is_refused_with_the_cure(tmp_path, caplog):
    """Before anything is trained: a policy can't choose among rows of which it does not know which were trained."""
    trainer, _ = build(tmp_path, policy=None)
    trainer.add_callback(StopAt(5))
    trainer.train()
    trainer, log = build(tmp_path)
    with pytest.raises(ValueError, match="checkpoint-5'.* inside an epoch.*from the end of an epoch, or .*data_skip"):
        trainer.train(resume_from_checkpoint=True)
    assert log == {}
    trainer, log = build(tmp_path, ignore_data_skip=True)  # the cure
    trainer.train(resume_from_checkpoint=True)
    assert "the policy begins anew" in caplog.text
    assert [epoch["epoch"] for epoch in trainer.pruning_report().epochs] == list(range(EPOCHS))
    assert trainer.pruning_report().epochs[0]["rows_offered"] == ROWS


def test_weights_of_a_pruned_run_go_on_from_the_end_of_an_epoch(tmp_path):
    """After fewer steps than unpruned epochs have: the epoch is the one that it says."""
    settings = {"policy": "uniform:keep=0.5", "save_strategy": "epoch", "save_only_model": True}
    trainer, _ = build(tmp_path, num_train_epochs=2, **settings)
    trainer.train()
    steps = trainer.state.global_step
    assert steps % 9, "not at the end of an unpruned epoch"
    trainer, _ = build(tmp_path, save_strategy="no")
    trainer.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{steps}"))
    assert [(epoch["epoch"], epoch["rows_offered"]) for epoch in trainer.pruning_report().epochs] == [(2, ROWS)]
    assert trainer.state.epoch == EPOCHS


def test_weights_of_the_middle_of_a_pruned_epoch_are_refused_with_the_cure(tmp_path):
    trainer, _ = build(tmp_path, save_only_model=True)
    trainer.add_callback(StopAt(13))
    trainer.train()
    trainer, log = build(tmp_path)
    with pytest.raises(ValueError, match="checkpoint-13'.* with save_only_model.* inside an epoch.* or .*data_skip"):
        trainer.train(resume_from_checkpoint=True)
    assert log == {}
    trainer, log = build(tmp_path, ignore_data_skip=True)
    trainer.train(resume_from_checkpoint=True)
    epochs = trainer.pruning_report().epochs
    assert [(epoch["epoch"], epoch["rows_offered"]) for epoch in epochs] == [(1, ROWS), (2, ROWS)]


def test_another_policy_goes_on_with_a_warning(stopped, caplog):
    trainer, _ = build(stopped, policy="uniform:keep=0.5")
    trainer.train(resume_from_checkpoint=True)
    assert "was saved under InfoBatch(ratio=0.6, anneal=0.875); from the next epoch on, Uniform" in caplog.text
    assert trainer.state.global_step == trainer.state.max_steps


def test_the_state_says_what_it_was_made_with(stopped):
    _, header = storage.load(stopped / "checkpoint-12" / STATE)
    assert header["facts"]["policy"] == "InfoBatch(ratio=0.6, anneal=0.875)"
    assert (header["facts"]["batch"], header["facts"]["accumulation"]) == (2, 1)
