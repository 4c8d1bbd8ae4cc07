"""The trainer's promises on one process: clocks, exact rows, logs, reports, and what is refused."""

import logging
import math
from collections import Counter
from dataclasses import dataclass

import inside
import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import ProgressCallback

import hf_prune.train.trainer as module
from hf_prune import History, Policy, PruningSeq2SeqTrainer, PruningTrainer, Selection
from hf_prune.train.collator import ROW


@dataclass(frozen=True)
class Scripted(Policy):
    """Keeps the first `sizes[epoch]` rows of a shuffled order."""

    sizes: tuple[int, ...]

    def select(self, history, clock, rng):
        return Selection(rng.permutation(len(history))[: self.sizes[clock.epoch % len(self.sizes)]])


class Watch(TrainerCallback):
    """Notes what training does; `rows` are those of each epoch's batches, in order."""

    def __init__(self):
        self.epochs, self.rows, self.rates, self.ends, self.grads = [], [], [], [], []
        self.bar = None

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.model = model

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.rows.append([])
        self.grads.append([p.grad for p in self.model.parameters() if p.grad is not None and p.grad.any()])

    def on_step_end(self, args, state, control, lr_scheduler=None, **kwargs):
        self.rates.append(lr_scheduler.get_last_lr()[0])

    def on_epoch_end(self, args, state, control, **kwargs):
        self.ends.append((state.epoch, state.global_step))


class Watched(PruningTrainer):
    def training_step(self, model, inputs, *args, **kwargs):
        if ROW in inputs:
            self.watch.rows[-1] += inputs[ROW].tolist()
        return super().training_step(model, inputs, *args, **kwargs)


def trainer_of(classifier, tmp_path, policy, cls=Watched, callbacks=(), data=None, eval_dataset=None, **settings):
    model, rows = classifier
    settings = {
        "per_device_train_batch_size": 2,
        "num_train_epochs": 4,
        "logging_steps": 1,
        "save_strategy": "no",
    } | settings
    args = TrainingArguments(tmp_path / "run", use_cpu=True, report_to=[], **settings)
    watch = Watch()
    trainer = cls(
        model=model,
        args=args,
        train_dataset=rows if data is None else data,
        eval_dataset=eval_dataset,
        data_collator=pad,
        policy=policy,
        callbacks=[watch, *callbacks],
    )
    trainer.watch = watch
    return trainer


def pad(rows):
    ids = [torch.tensor(row["input_ids"]) for row in rows]
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    return {
        "input_ids": padded,
        "attention_mask": (padded != 0).long(),
        "labels": torch.tensor([row["labels"] for row in rows]),
    }


# ---- Clocks ----


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "polynomial", "constant_with_warmup"])
@pytest.mark.parametrize("sizes", [(20, 11, 3, 16), (4, 9, 20, 1)])
def test_epochs_that_shrink_and_grow(classifier, tmp_path, sizes, schedule, accumulation):
    trainer = trainer_of(
        classifier,
        tmp_path,
        Scripted(sizes),
        gradient_accumulation_steps=accumulation,
        lr_scheduler_type=schedule,
        warmup_steps=0.1,
        learning_rate=0.01,
    )
    progress = next(cb for cb in trainer.callback_handler.callbacks if isinstance(cb, ProgressCallback))
    bars = []
    progress.on_train_end = lambda *args, **kwargs: bars.append((progress.training_bar.n, progress.training_bar.total))
    trainer.train()
    watch, state = trainer.watch, trainer.state
    steps = [math.ceil(math.ceil(size / 2) / accumulation) for size in sizes]

    assert [sorted(rows) for rows in watch.rows] == [
        sorted(Scripted(sizes).select(History.empty(20), module_clock(epoch), rng_of(trainer, epoch)).rows.tolist())
        for epoch in range(4)
    ]
    assert watch.ends == [(epoch + 1.0, sum(steps[: epoch + 1])) for epoch in range(4)]
    assert state.global_step == state.max_steps == sum(steps)
    assert bars == [(sum(steps), sum(steps))]
    assert watch.grads == [[], [], [], []]
    # At each epoch's end the rate is that of the full run's schedule after as many passes.
    per_epoch = math.ceil(10 / accumulation)
    full = full_rates(schedule, per_epoch, 4)
    ends = np.cumsum(steps) - 1
    assert [watch.rates[end] for end in ends] == pytest.approx([full[per_epoch * epoch] for epoch in (1, 2, 3, 4)])
    if schedule in ("linear", "cosine"):
        assert watch.rates[-1] == 0.0


def module_clock(epoch):
    return type("At", (), {"epoch": epoch})


def rng_of(trainer, epoch):
    return np.random.default_rng([inside.engine(trainer).state.seed, epoch])


def full_rates(schedule, updates, epochs):
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    steps = updates * epochs
    warmup = int(np.ceil(0.1 * steps))
    scheduler = get_scheduler(schedule, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
    rates = [0.01]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        rates.append(scheduler.get_last_lr()[0])
    return rates


def test_max_steps_is_the_budget_and_epochs_follow(classifier, tmp_path):
    trainer = trainer_of(classifier, tmp_path, "uniform:keep=0.4", max_steps=17, num_train_epochs=1)
    trainer.train()  # 8 rows, 4 steps an epoch: four epochs and one step
    assert [len(rows) for rows in trainer.watch.rows] == [8, 8, 8, 8, 2]
    assert trainer.state.global_step == trainer.state.max_steps == 17
    assert trainer.state.num_train_epochs == 5
    assert trainer.watch.rates[-1] == 0.0
    assert trainer.state.epoch == 4.25


def test_a_fraction_of_an_epoch_trains_that_fraction_of_its_rows(classifier, tmp_path):
    trainer = trainer_of(classifier, tmp_path, "uniform:keep=0.4", num_train_epochs=2.5)
    trainer.train()
    assert [len(rows) for rows in trainer.watch.rows] == [8, 8, 4]
    assert (trainer.state.epoch, trainer.watch.rates[-1]) == (2.5, 0.0)
    assert trainer.pruning_report().totals()["rows_offered"] == 50


def test_a_known_size_gives_the_true_total_before_the_first_step(classifier, tmp_path):
    totals = []

    class First(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            totals.append((state.max_steps, state.save_steps))

    trainer = trainer_of(
        classifier, tmp_path, "uniform:keep=0.4", callbacks=[First()], save_strategy="steps", save_steps=0.5
    )
    trainer.train()
    assert totals == [(16, 8)]
    assert trainer.state.global_step == 16


def test_two_calls_of_train_start_afresh(classifier, tmp_path):
    trainer = trainer_of(classifier, tmp_path, "infobatch", num_train_epochs=2)
    trainer.train()
    first = [epoch["rows"] for epoch in trainer.pruning_report().epochs]
    trainer.args.num_train_epochs = 3
    trainer.train()
    assert first == [20, 20]  # floor(0.875 * 2) epochs may prune, the first of which knows nothing
    assert len(trainer.pruning_report().epochs) == 3
    assert trainer.state.epoch == 3.0
    assert trainer.watch.rates[-1] == 0.0


def test_a_users_own_lambda_schedule_follows_the_clock(classifier, tmp_path):
    optimizer = torch.optim.SGD(classifier[0].parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 40)  # 10 steps x 4 epochs
    trainer = trainer_of(classifier, tmp_path, "uniform:keep=0.4")
    trainer.optimizer, trainer.lr_scheduler = optimizer, scheduler
    trainer.train()
    assert trainer.watch.rates[-1] == 0.0
    assert trainer.watch.rates[3] == pytest.approx(0.75)


# ---- What is measured ----


def test_history_and_logs_tell_what_was_trained(classifier, tmp_path):
    trainer = trainer_of(classifier, tmp_path, "uniform:keep=0.5", num_train_epochs=2)
    assert trainer.history is None
    trainer.train()
    seen = {row for rows in trainer.watch.rows for row in rows}
    assert set(np.flatnonzero(trainer.history.last_round >= 0)) == seen == set(np.flatnonzero(trainer.history.tokens))
    assert np.isfinite(trainer.history.loss[sorted(seen)]).all()
    lengths = [len(row["input_ids"]) for row in classifier[1]]
    assert all(trainer.history.tokens[row] == lengths[row] for row in seen)
    assert trainer.selection is None

    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["prune/rows"] for entry in logs] == list(range(2, 21, 2))
    assert {entry["prune/kept"] for entry in logs} == {0.5}
    assert all(entry["prune/loss_p10"] <= entry["prune/loss_p50"] <= entry["prune/loss_p90"] for entry in logs)
    epochs = trainer.pruning_report().epochs
    visits = Counter(row for rows in trainer.watch.rows for row in rows)
    assert sum(epoch["tokens"] for epoch in epochs) == sum(lengths[row] * n for row, n in visits.items())
    assert logs[-1]["prune/tokens"] == sum(epoch["padded_tokens"] for epoch in epochs)


def test_a_budget_in_tokens_is_kept_from_the_first_epoch(classifier, tmp_path):
    lengths = np.array([len(row["input_ids"]) for row in classifier[1]])
    for data in (classifier[1], Dataset.from_list(classifier[1])):
        trainer = trainer_of(
            classifier, tmp_path, "uniform:keep=0.5,unit=tokens", data=data, per_device_train_batch_size=1
        )
        trainer.train()
        for rows in trainer.watch.rows:
            assert 0 <= lengths[rows].sum() - 0.5 * lengths.sum() < lengths.max()


def test_encoder_decoder_budgets_count_both_sides(translator, tmp_path):
    model, rows = translator
    args = TrainingArguments(tmp_path, use_cpu=True, report_to=[], num_train_epochs=1, save_strategy="no")
    for data in (rows, Dataset.from_list(rows)):
        trainer = PruningTrainer(
            model=model,
            args=args,
            train_dataset=data,
            policy="uniform:keep=1.0,unit=tokens",
            data_collator=lambda pairs: {
                name: torch.nn.utils.rnn.pad_sequence(
                    [torch.tensor(pair[name]) for pair in pairs], batch_first=True, padding_value=fill
                )
                for name, fill in (("input_ids", 0), ("labels", -100))
            },
        )
        trainer.train()
        assert trainer.history.tokens[3] >= len(rows[3]["input_ids"]) + len(rows[3]["labels"])


def test_early_stopping_and_the_best_model_work(classifier, tmp_path):
    trainer = trainer_of(
        classifier,
        tmp_path,
        "infobatch",
        callbacks=[EarlyStoppingCallback(1)],
        num_train_epochs=6,
        learning_rate=0.0,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        eval_dataset=classifier[1][:4],
    )
    trainer.train()
    assert trainer.state.epoch == 2.0  # no better in the second epoch
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-10")
    assert len(trainer.pruning_report().epochs) == 2
    assert trainer.pruning_report().totals()["optimizer_steps_full"] == 20  # of the two epochs, not of six
    assert trainer.pruning_report().seconds_evaluating > 0


def test_the_model_card_has_one_section_on_pruning(classifier, tmp_path):
    trainer = trainer_of(classifier, tmp_path, "uniform:keep=0.5", num_train_epochs=1)
    trainer.train()
    for _ in range(2):
        trainer.create_model_card(tags="mine")
    card = (tmp_path / "run" / "README.md").read_text()
    assert card.count("## Data pruning") == 1
    assert "- hf_prune" in card
    assert "- mine" in card


# ---- What is refused, and what is warned of ----


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter([])


def test_a_stream_is_refused_with_a_policy(classifier, tmp_path):
    with pytest.raises(
        ValueError, match="the rows of train_dataset, a Stream, have none. Give a data set with a length"
    ):
        trainer_of(classifier, tmp_path, "uniform", data=Stream(), max_steps=1)


def test_an_unknown_policy_is_refused(classifier, tmp_path):
    with pytest.raises(ValueError, match="Unknown policy 'unifrom'. Did you mean 'uniform'"):
        trainer_of(classifier, tmp_path, "unifrom")


def test_a_signal_that_the_task_lacks_is_refused(translator, tmp_path):
    @dataclass(frozen=True)
    class Correct(Policy):
        needs = frozenset({"loss", "correct"})

        def select(self, history, clock, rng):
            return Selection(np.arange(len(history)))

    with pytest.raises(ValueError, match="needs correct, which hf_prune can't read from a MarianMTModel"):
        trainer_of(translator, tmp_path, Correct())


def test_fewer_rows_than_a_batch_are_refused_where_batches_are_dropped(classifier, tmp_path):
    trainer = trainer_of(classifier, tmp_path, Scripted((20, 1)), dataloader_drop_last=True)
    with pytest.raises(ValueError, match="keeps 1 rows, which fill no batch of 2"):
        trainer.train()


def test_a_scheduler_with_its_own_steps_is_refused_unless_the_steps_are_fixed(classifier, tmp_path):
    def build(**settings):
        trainer = trainer_of(classifier, tmp_path, "uniform:keep=0.5", **settings)
        trainer.optimizer = torch.optim.SGD(classifier[0].parameters(), lr=0.1)
        trainer.lr_scheduler = torch.optim.lr_scheduler.StepLR(trainer.optimizer, 1)
        return trainer

    with pytest.raises(ValueError, match="StepLR counts its own steps"):
        build().train()
    build(max_steps=2).train()


def test_batches_that_no_plan_knows_are_noticed(classifier, tmp_path):
    class Joined(Watched):
        def get_train_dataloader(self):
            return Twice(super().get_train_dataloader(), super().get_train_dataloader())

    class Twice:
        def __init__(self, first, second):
            self.loaders = (first, second)

        def __len__(self):
            return sum(map(len, self.loaders))

        def __iter__(self):
            for loader in self.loaders:
                yield from loader

    trainer = trainer_of(classifier, tmp_path, "uniform:keep=0.5", cls=Joined)
    with pytest.raises(ValueError, match="Rows were trained that the policy had not selected"):
        trainer.train()


def test_weights_that_were_not_declared_are_refused(classifier, tmp_path):
    @dataclass(frozen=True)
    class Sly(Policy):
        def select(self, history, clock, rng):
            return Selection(np.arange(len(history)), weights=np.ones(len(history), np.float32))

    with pytest.raises(ValueError, match="Sly gave weights, but does not declare"):
        trainer_of(classifier, tmp_path, Sly()).train()


def test_weights_of_any_precision_are_taken(classifier, tmp_path):
    @dataclass(frozen=True)
    class Double(Policy):
        weighs = True

        def select(self, history, clock, rng):
            return Selection(np.arange(len(history)), weights=np.full(len(history), 1.5))

    assert trainer_of(classifier, tmp_path, Double(), num_train_epochs=1).train().global_step == 10


def test_one_epoch_of_a_rule_that_learns_from_earlier_ones_is_warned_of(classifier, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "hf_prune"):
        trainer_of(classifier, tmp_path, "infobatch", num_train_epochs=1).train()
    assert "a run of 1 leaves none to prune in" in caplog.text


@pytest.mark.parametrize(("epochs", "is_told"), [(2, True), (3, False)])
def test_epochs_of_which_annealing_leaves_none_are_warned_of(classifier, tmp_path, caplog, epochs, is_told):
    with caplog.at_level(logging.WARNING, "hf_prune"):
        trainer_of(classifier, tmp_path, "infobatch", num_train_epochs=epochs).train()
    assert ("leaves none to prune in" in caplog.text) == is_told


def test_a_report_before_training_is_refused(classifier, tmp_path):
    with pytest.raises(ValueError, match="nothing to report"):
        trainer_of(classifier, tmp_path, "uniform").pruning_report()


def test_tokens_that_cannot_be_counted_are_refused(classifier, tmp_path):
    data = [{"words": [1, 2], "labels": 0}] * 4
    with pytest.raises(ValueError, match="counts tokens by 'input_ids', but the rows have words, labels: tokenize"):
        trainer_of(classifier, tmp_path, "uniform:keep=0.5,unit=tokens", data=data)


def test_the_classes_are_what_they_replace():
    assert issubclass(PruningTrainer, module.Trainer)
    assert issubclass(PruningSeq2SeqTrainer, module.Seq2SeqTrainer)


# ---- What a trainer holds ----


@pytest.mark.parametrize("policy", [None, "infobatch"])
def test_the_mixin_owns_one_attribute(classifier, tmp_path, policy):
    pruning = trainer_of(classifier, tmp_path, policy, cls=PruningTrainer)
    model, rows = classifier
    stock = Trainer(model, pruning.args, pad, rows)
    assert set(vars(pruning)) - set(vars(stock)) == {"_pruning", "watch"}  # the second is these tests' own
    pruning.train()
    stock.train()
    assert set(vars(pruning)) - set(vars(stock)) == {"_pruning", "watch"}
