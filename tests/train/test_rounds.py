"""Several rounds an epoch, rescoring, learning in the background: what selection policies may ask of the trainer."""

import threading
from dataclasses import dataclass
from typing import ClassVar

import inside
import numpy as np
import pytest
import torch
from datasets import Dataset
from resumed import StopAt
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_prune import History, Policy, PruningTrainer, Selection
from hf_prune.train.collator import ROW
from hf_prune.train.sampler import PruningSampler


@dataclass(frozen=True)
class Parts(Policy):
    """Keeps a random share of each part of an epoch."""

    share: float = 0.5
    rounds: int = 4

    @property
    def rounds_per_epoch(self):
        return self.rounds

    def select(self, history, clock, rng):
        return Selection(history.offered[: max(1, round(self.share * len(history.offered)))])


@dataclass(frozen=True)
class Hiding(Policy):
    """Trains the first half of a shuffled order, and asks for the losses of the rest."""

    needs: ClassVar[frozenset[str]] = frozenset({"loss", "correct"})

    rescore: bool = True

    def select(self, history, clock, rng):
        order = rng.permutation(len(history))
        return Selection(order[:10], rescore=order[10:] if self.rescore else None)


class Watch(TrainerCallback):
    def __init__(self):
        self.events, self.rows, self.known = [], {}, []

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.events.append("begin")

    def on_epoch_end(self, args, state, control, **kwargs):
        self.events.append(("end", state.epoch, state.global_step))

    def on_step_end(self, args, state, control, **kwargs):
        self.events.append(state.epoch)


class Watched(PruningTrainer):
    def training_step(self, model, inputs, *args, **kwargs):
        self.watch.rows.setdefault(inside.engine(self).state.round.clock.round, []).extend(inputs[ROW].tolist())
        return super().training_step(model, inputs, *args, **kwargs)


def pad(rows):
    width = max(len(row["input_ids"]) for row in rows)
    ids = torch.tensor([row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in rows])
    return {"input_ids": ids, "attention_mask": ids.ne(0).long(), "labels": torch.tensor([r["labels"] for r in rows])}


def trainer_of(classifier, folder, policy, cls=Watched, dropout=0.0, **settings):
    model, rows = classifier
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    settings = {"num_train_epochs": 3, "per_device_train_batch_size": 2, "save_strategy": "no"} | settings
    args = TrainingArguments(
        folder, use_cpu=True, report_to=[], disable_tqdm=True, logging_steps=1, learning_rate=0.01, **settings
    )
    more = {} if cls is Trainer else {"policy": policy}
    trainer = cls(model=model, args=args, train_dataset=rows, data_collator=pad, **more)
    trainer.watch = Watch()
    trainer.add_callback(trainer.watch)
    return trainer


def weights_of(trainer):
    return b"".join(tensor.numpy().tobytes() for tensor in trainer.model.state_dict().values())


def copied(classifier):
    model, rows = classifier
    twin = type(model)(model.config)
    twin.load_state_dict(model.state_dict())
    return twin, rows


# ---- Several rounds an epoch ----


def test_the_parts_of_an_epoch_are_its_order_cut_at_whole_steps(classifier, tmp_path):
    trainer = trainer_of(classifier, tmp_path, Parts(share=1.0), gradient_accumulation_steps=2)
    trainer.train()
    rows = trainer.watch.rows
    assert [len(rows[round]) for round in range(12)] == 3 * [4, 4, 8, 4]  # 5 steps of 4 rows: 1, 1 (1.25), 2 (2.5), 1
    for epoch in range(3):
        assert sorted(sum((rows[4 * epoch + part] for part in range(4)), [])) == list(range(20))
    assert rows[0] != rows[4]


def test_callbacks_see_one_epoch_and_the_clock_follows_the_rounds(classifier, tmp_path):
    trainer = trainer_of(classifier, tmp_path, Parts(share=0.5, rounds=2))  # 20 rows, halves of 10: 5 rows, 3 steps
    trainer.train()
    epoch = [(part + step / 3) / 2 for part in (0, 1) for step in (1, 2, 3)]
    expected = []
    for number in range(3):
        expected += ["begin", *(number + share for share in epoch), ("end", number + 1, 6 * (number + 1))]
    assert trainer.watch.events == [pytest.approx(event) if isinstance(event, float) else event for event in expected]
    assert trainer.state.global_step == trainer.state.max_steps == 18
    assert {entry["prune/kept"] for entry in trainer.state.log_history if "prune/kept" in entry} == {0.5}
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    full = [10 * (number + share) for number in range(3) for share in [0, *epoch[:-1]]]  # steps of the full run
    assert rates == pytest.approx([0.01 * (1 - position / 30) for position in full])
    assert set(trainer.lr_scheduler.get_last_lr()) == {0.0}


def test_keeping_everything_in_parts_trains_what_the_stock_trainer_trains(classifier, tmp_path):
    stock = trainer_of(copied(classifier), tmp_path, None, cls=Trainer)
    stock.train()
    parts = trainer_of(copied(classifier), tmp_path, Parts(share=1.0))
    parts.train()
    assert weights_of(parts) == weights_of(stock)
    assert [entry.get("epoch") for entry in parts.state.log_history] == pytest.approx(
        [entry.get("epoch") for entry in stock.state.log_history]
    )


def test_a_round_knows_the_losses_of_every_round_before(classifier, tmp_path):
    seen = []

    @dataclass(frozen=True)
    class Looking(Parts):
        def select(self, history, clock, rng):
            seen.append((clock.round, clock.share, int((history.last_round >= 0).sum())))
            return super().select(history, clock, rng)

    trainer_of(classifier, tmp_path, Looking(share=1.0), num_train_epochs=2).train()
    assert [count for _, _, count in seen] == [0, 4, 10, 16, 20, 20, 20, 20]  # cuts at 2, 5, 8 and 10 steps of 2 rows
    assert [number for number, _, _ in seen] == list(range(8))
    assert [share for _, share, _ in seen] == pytest.approx([number / 8 for number in range(8)])


@pytest.mark.parametrize("epochs", [0.4, 1.3])
def test_a_fraction_of_an_epoch_ends_with_its_round(classifier, tmp_path, epochs):
    trainer = trainer_of(classifier, tmp_path, Parts(share=0.5), num_train_epochs=epochs)
    trainer.train()
    assert trainer.state.global_step == trainer.state.max_steps
    assert trainer.lr_scheduler.get_last_lr() == pytest.approx([0.0, 0.0])
    assert len(trainer.watch.rows) == np.ceil(4 * epochs - 1e-9)


def test_max_steps_ends_within_an_epoch(classifier, tmp_path):
    trainer = trainer_of(classifier, tmp_path, Parts(share=0.5), max_steps=8)  # 6 steps an epoch: 1, 2, 2, 1
    trainer.train()
    assert trainer.state.global_step == 8
    assert len(trainer.watch.rows) == 6


def test_rows_that_were_not_offered_are_refused(classifier, tmp_path):
    @dataclass(frozen=True)
    class Greedy(Parts):
        def select(self, history, clock, rng):
            return Selection(np.arange(len(history)))

    with pytest.raises(ValueError, match=r"must be among history\.offered"):
        trainer_of(classifier, tmp_path, Greedy()).train()


@dataclass(frozen=True)
class Learning(Parts):
    """Keeps the rows of largest running score, which it learns beside the next round."""

    in_background: ClassVar[bool] = True

    def select(self, history, clock, rng):
        score = history.notes.get("score", np.zeros(len(history)))[history.offered]
        order = history.offered[np.argsort(-score - rng.random(len(score)), kind="stable")]
        return Selection(order[: max(2, len(order) // 2)], rescore=np.setdiff1d(np.arange(20), history.offered)[:3])

    def update(self, history, clock, rng):
        now = history.last_round == clock.round
        score = history.notes.get("score", np.zeros(len(history)))
        history.notes["score"] = np.where(now, 0.5 * score + history.loss + rng.random(len(history)), score)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_stopped_at_any_step_and_resumed_the_end_is_the_same(classifier, tmp_path, workers):
    settings = {"dataloader_num_workers": workers, "dropout": 0.1, "num_train_epochs": 2}
    torch.manual_seed(5)
    whole = trainer_of(copied(classifier), tmp_path / "whole", Learning(), **settings)
    whole.train()
    for step in range(1, whole.state.global_step, 1 if workers == 0 else 7):
        folder = tmp_path / str(step)
        torch.manual_seed(5)
        first = trainer_of(copied(classifier), folder, Learning(), **settings)
        first.add_callback(StopAt(step))
        first.train()
        second = trainer_of(copied(classifier), folder, Learning(), **settings)
        second.train(resume_from_checkpoint=True)
        assert second.state.global_step == second.state.max_steps == whole.state.global_step
        assert weights_of(second) == weights_of(whole), step
        for name, array in whole.history.arrays().items():
            np.testing.assert_array_equal(array, second.history.arrays()[name], err_msg=f"{name} at {step}")
        assert strip(second.pruning_report().epochs) == strip(whole.pruning_report().epochs)


@pytest.mark.parametrize("batch", [1, 3, 5])
@pytest.mark.parametrize(("share", "order"), [(1.0, "random"), (0.5, "random"), (1.0, "group_by_length")])
def test_with_other_batches_the_parts_of_the_epoch_go_on_where_they_were(classifier, tmp_path, share, order, batch):
    settings = {"train_sampling_strategy": order}
    for step in (3, 7, 11):
        first = trainer_of(copied(classifier), tmp_path / str(step), Parts(share), **settings)
        first.add_callback(StopAt(step))
        first.train()
        others = settings | {"per_device_train_batch_size": batch}
        second = trainer_of(copied(classifier), tmp_path / str(step), Parts(share), **others)
        second.train(resume_from_checkpoint=True)
        assert second.state.epoch == 3
        assert set(second.lr_scheduler.get_last_lr()) == {0.0}
        rows = {round: first.watch.rows.get(round, []) + second.watch.rows.get(round, []) for round in range(12)}
        epochs = [sum((rows[4 * epoch + part] for part in range(4)), []) for epoch in range(3)]
        assert all(len(set(trained)) == len(trained) for trained in epochs)
        if share == 1.0:
            assert all(sorted(trained) == list(range(20)) for trained in epochs)
        accounts = second.pruning_report().epochs
        assert [account["rows"] for account in accounts] == [len(trained) for trained in epochs]
        assert [account["rows_offered"] for account in accounts] == [20, 20, 20]
        assert sum(account["steps"] for account in accounts) == second.state.global_step == second.state.max_steps


def test_fewer_steps_than_rounds_cannot_be_cut_anew(classifier, tmp_path):
    first = trainer_of(copied(classifier), tmp_path, Parts())
    first.add_callback(StopAt(3))
    first.train()
    second = trainer_of(copied(classifier), tmp_path, Parts(), per_device_train_batch_size=10)
    with pytest.raises(ValueError, match="can't be cut into other batches.*Resume with its own"):
        second.train(resume_from_checkpoint=True)


def test_each_round_of_a_grouped_order_shuffles_anew(classifier, tmp_path, monkeypatch):
    planned, plan = [], PruningSampler.plan

    def watched(self, epoch, rows, round=None):
        planned.append((epoch, round))
        plan(self, epoch, rows, round)

    monkeypatch.setattr(PruningSampler, "plan", watched)
    trainer_of(classifier, tmp_path, Parts(), train_sampling_strategy="group_by_length", num_train_epochs=2).train()
    assert [pair for pair in planned if pair[1] is not None] == [(round // 4, round) for round in range(8)]


def test_rounds_in_another_order_cannot_be_cut_anew(classifier, tmp_path):
    """They were offered other rows; of the same order, others may follow in other batches."""
    first = trainer_of(copied(classifier), tmp_path, Parts())
    first.add_callback(StopAt(3))
    first.train()
    second = trainer_of(copied(classifier), tmp_path, Parts(), train_sampling_strategy="sequential")
    with pytest.raises(ValueError, match="order random -> sequential.*can't be cut into other batches"):
        second.train(resume_from_checkpoint=True)


def test_another_policy_takes_over_when_the_epoch_is_over(classifier, tmp_path):
    """One that has several rounds an epoch goes on after one that has one, and the other way round."""
    for number, policies in enumerate(((Parts(1.0), "uniform:keep=1.0"), ("uniform:keep=1.0", Parts(1.0)))):
        folder = tmp_path / str(number)
        first = trainer_of(copied(classifier), folder, policies[0])
        first.add_callback(StopAt(3))
        first.train()
        second = trainer_of(copied(classifier), folder, policies[1])
        second.train(resume_from_checkpoint=True)
        assert [account["rows"] for account in second.pruning_report().epochs] == [20, 20, 20]
        assert second.state.global_step == second.state.max_steps == 30


def strip(epochs):
    return [{name: value for name, value in epoch.items() if "seconds" not in name} for epoch in epochs]


# ---- Learning in the background ----


def test_what_is_learnt_beside_a_round_is_seen_one_round_later(classifier, tmp_path):
    seen, threads = [], []

    @dataclass(frozen=True)
    class Late(Parts):
        in_background: ClassVar[bool] = True

        def select(self, history, clock, rng):
            seen.append(int(history.notes.get("learnt", np.array(-1))))
            return super().select(history, clock, rng)

        def update(self, history, clock, rng):
            threads.append(threading.current_thread() is threading.main_thread())
            history.notes["learnt"] = np.array(clock.round)

    trainer = trainer_of(classifier, tmp_path, Late())
    trainer.train()
    assert seen == [-1, -1, *range(10)]
    assert not any(threads)
    assert trainer.history.notes["learnt"] == 11


@dataclass(frozen=True)
class Broken(Parts):
    """Can't learn from one of its rounds, and notes the others."""

    fails_at: ClassVar[int | None] = None

    def update(self, history, clock, rng):
        if clock.round == self.fails_at:
            raise RuntimeError("no features")
        history.notes[f"learnt {clock.round}"] = history.last_round.copy()


@dataclass(frozen=True)
class LateBroken(Broken):
    in_background: ClassVar[bool] = True


@pytest.mark.parametrize("policy, begun", [(Broken, 1), (LateBroken, 2)])
def test_an_error_in_update_is_raised_where_the_next_round_would_be_selected(
    classifier, tmp_path, monkeypatch, policy, begun, caplog
):
    monkeypatch.setattr(Broken, "fails_at", 5)
    trainer = trainer_of(classifier, tmp_path, policy())
    with pytest.raises(RuntimeError, match="no features"):
        trainer.train()
    assert len(trainer.watch.rows) == 5 + begun
    assert "failed in its update after round 5 (RuntimeError: no features). Mend it and go on" in caplog.text


@pytest.mark.parametrize("policy", [Broken, LateBroken])
def test_an_error_in_the_last_update_leaves_training_whole(classifier, tmp_path, monkeypatch, policy, caplog):
    monkeypatch.setattr(Broken, "fails_at", 11)
    trainer = trainer_of(classifier, tmp_path, policy())
    output = trainer.train()
    assert output.global_step == trainer.state.max_steps and len(trainer.history.notes) == 11
    assert "failed in its update after round 11 (RuntimeError: no features). No round was left" in caplog.text
    trainer.save_model()
    assert (tmp_path / "history.safetensors").is_file()


def test_a_checkpoint_is_whole_though_the_update_beside_it_failed(classifier, tmp_path, monkeypatch):
    """Resumed with a policy that is mended, the run ends as if nothing had been."""

    def run(folder):
        return trainer_of(copied(classifier), tmp_path / folder, LateBroken(), save_strategy="steps", save_steps=1)

    whole, broken, mended = run("whole"), run("broken"), run("broken")
    whole.train()
    monkeypatch.setattr(Broken, "fails_at", 5)
    with pytest.raises(RuntimeError, match="no features"):
        broken.train()
    monkeypatch.undo()
    mended.train(resume_from_checkpoint=True)
    assert mended.state.global_step == whole.state.global_step > broken.state.global_step > 0
    assert sorted(mended.history.notes) == sorted(whole.history.notes)
    np.testing.assert_array_equal(mended.history.last_round, whole.history.last_round)
    assert weights_of(mended) == weights_of(whole)


# ---- Rescoring ----


def test_hidden_rows_are_measured_by_the_model_as_it_stands(classifier, tmp_path):
    trainer = trainer_of(classifier, tmp_path, Hiding(), num_train_epochs=1.5)
    hidden = []

    class Look(TrainerCallback):
        def on_epoch_begin(self, args, state, control, **kwargs):
            if state.epoch and state.epoch >= 1:
                trainer.model.eval()
                with torch.no_grad():
                    logits = trainer.model(**{k: v for k, v in pad(classifier[1]).items() if k != "labels"}).logits
                labels = torch.tensor([row["labels"] for row in classifier[1]])
                losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none").numpy()
                trained = np.unique(trainer.watch.rows[0])
                rest = np.setdiff1d(np.arange(20), trained)
                np.testing.assert_allclose(trainer.history.loss[rest], losses[rest], rtol=1e-5)
                hits = (logits.argmax(1) == labels).numpy()
                np.testing.assert_array_equal(trainer.history.signals["correct"][rest], hits[rest])
                assert (trainer.history.last_round == 0).all()
                hidden.append(len(rest))
                trainer.model.train()

    trainer.add_callback(Look())
    trainer.train()
    assert hidden == [10]
    first, last = trainer.pruning_report().epochs
    tokens = len(pad([classifier[1][row] for row in range(20)])["input_ids"][0])
    assert (first["rows_rescored"], last["rows_rescored"]) == (10, 0)  # training ends with the second
    assert 0 < first["padded_tokens_rescored"] <= 10 * tokens
    assert first["seconds_rescoring"] > 0
    assert trainer.pruning_report().totals()["rows_rescored"] == 10


def test_rescoring_leaves_training_alone(classifier, tmp_path):
    ends = []
    for rescore in (True, False):
        torch.manual_seed(3)
        trainer = trainer_of(copied(classifier), tmp_path, Hiding(rescore=rescore), dropout=0.2)
        trainer.train()
        ends.append((weights_of(trainer), torch.get_rng_state().numpy().tobytes()))
    assert ends[0] == ends[1]


# ---- An earlier run's history ----


def test_a_second_run_begins_with_what_the_first_learnt(classifier, tmp_path):
    first = trainer_of(copied(classifier), tmp_path / "first", "infobatch")
    first.train()
    first.save_model()
    seen = []

    @dataclass(frozen=True)
    class Looking(Policy):
        def select(self, history, clock, rng):
            seen.append(history.loss.copy())
            return Selection(np.arange(len(history)))

    model, rows = copied(classifier)
    for history in (tmp_path / "first", str(tmp_path / "first" / "history.safetensors"), first.history):
        second = PruningTrainer(model=model, args=first.args, train_dataset=rows, policy=Looking(), history=history)
        second.data_collator = pad
        second.train()
        np.testing.assert_array_equal(seen[0], first.history.loss)
        cost = second.pruning_report().earlier
        assert cost["rows"] == first.pruning_report().totals()["rows"]
        seen.clear()
    assert "of 1 earlier run" in second.pruning_report().summary() or second.pruning_report().earlier is None


def test_a_history_of_other_rows_is_refused(classifier, tmp_path):
    model, rows = classifier
    args = TrainingArguments(tmp_path / "out", use_cpu=True, report_to=[], num_train_epochs=1, save_strategy="no")
    first = PruningTrainer(model=model, args=args, train_dataset=Dataset.from_list(rows), policy="infobatch")
    first.data_collator = pad
    first.train()
    first.save_model()
    others = Dataset.from_list(rows[1:] + rows[:1])
    with pytest.raises(ValueError, match="is of another data set: its rows differ"):
        PruningTrainer(model=model, args=args, train_dataset=others, policy="infobatch", history=tmp_path / "out")


def test_a_history_without_a_policy_is_refused(classifier, tmp_path):
    model, rows = classifier
    args = TrainingArguments(tmp_path, use_cpu=True, report_to=[])
    with pytest.raises(ValueError, match="only a policy can use an earlier history"):
        PruningTrainer(model=model, args=args, train_dataset=rows, history=History.empty(20))


def test_scores_of_another_policy_are_none(classifier, tmp_path):
    model, rows = classifier
    scores = History.empty(20)
    scores.record(np.arange(20), np.ones(20, np.float32), 0)
    scores.notes["score"] = np.arange(20, dtype=np.float32)
    scores.facts = {"policy": "Forgetting(keep=1)"}
    scores.save(tmp_path / "file")
    args = TrainingArguments(tmp_path, use_cpu=True, report_to=[])
    trainer = PruningTrainer(
        model=model, args=args, train_dataset=rows, policy="forgetting:keep=0.5", history=tmp_path / "file"
    )
    assert trainer.policy.keep == 0.5
    with pytest.raises(ValueError, match="hf-prune score --policy grand"):
        PruningTrainer(model=model, args=args, train_dataset=rows, policy="grand:keep=0.5", history=tmp_path / "file")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "nothing", "there is no .*nothing. Name a folder that a run with a policy saved"),
        (lambda folder: folder, "there is no .*history.safetensors"),
        (lambda folder: History.empty(3), "is of 3 rows, but the training set has 20"),
        (lambda folder: write(folder / "cut", b"123"), "cut"),
    ],
)
def test_a_history_that_does_not_fit_is_refused_at_once(classifier, tmp_path, make, message):
    model, rows = classifier
    args = TrainingArguments(tmp_path, use_cpu=True, report_to=[])
    with pytest.raises(ValueError, match=message):
        PruningTrainer(model=model, args=args, train_dataset=rows, policy="infobatch", history=make(tmp_path))


def write(path, content):
    path.write_bytes(content)
    return path


def test_tokens_offered_are_those_of_the_rows_offered(classifier, tmp_path):
    """Of rows in order of length, each round is offered others; where all are trained, nothing else was offered."""
    trainer = trainer_of(classifier, tmp_path, Parts(share=1.0), train_sampling_strategy="group_by_length")
    trainer.train()
    for epoch in trainer.pruning_report().epochs:
        assert epoch["tokens_offered"] == epoch["tokens"] > 0
