"""Any trainer, any loss, any way to run it: what the user's own code computes stays as it is."""

import abc
import copy
import json
import pickle
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import ranks
import torch
import transformers as tf
from fork_server import SERVER
from tiny import TASKS, Collator
from torch.nn import functional as F

import hf_prune
from hf_prune import Policy, PruningMixin, PruningSeq2SeqTrainer, PruningTrainer, Selection, pruned
from hf_prune.data.kinds import has_own_loss
from hf_prune.train.collator import ROW

KEEP, INFOBATCH = "uniform:keep=1.0", "infobatch:ratio=0.5,anneal=1.0"
CLOCKS = ("train_runtime", "train_samples_per_second", "train_steps_per_second")


def train(folder, cls, name="one label", policy=None, dropout=0.1, prepare=None, **settings):
    """Train on a task of `tiny`; the stock class takes no policy."""
    task = TASKS[name]
    own = {key: settings.pop(key) for key in ("compute_loss_func", "callbacks", "eval_dataset") if key in settings}
    quiet = dict(use_cpu=True, report_to=[], disable_tqdm=True, logging_steps=1, save_strategy="no", seed=3)
    settings = dict(per_device_train_batch_size=4, num_train_epochs=2, learning_rate=1e-2) | settings
    args = tf.TrainingArguments(str(folder), **quiet | settings)
    if policy is not None:
        own["policy"] = policy
    rows = task.rows()
    ours = cls(model=task.model(dropout), args=args, train_dataset=rows, data_collator=Collator(), **own)
    if prepare:
        prepare(ours)
    ours.train()
    return ours


def logs(ours) -> list[dict]:
    """Without clock times and what a policy adds."""
    return [
        {name: value for name, value in entry.items() if name not in CLOCKS and not name.startswith("prune/")}
        for entry in ours.state.log_history
    ]


def same(ours, stock):
    assert logs(ours) == logs(stock)
    assert ours.state.global_step == stock.state.global_step > 1
    weights = stock.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in ours.model.state_dict().items())


def alone(name: str) -> list[float]:
    """The model's own loss of each row in a batch of its own."""
    net = TASKS[name].model(dropout=0.0).eval()
    with torch.no_grad():
        return [net(**Collator()([row])).loss.item() for row in TASKS[name].rows()]


# ---- The class ----


class Mine(tf.Trainer):
    """A user's trainer."""


def test_the_class_is_made_once_and_named():
    made = pruned(Mine)
    assert made is pruned(Mine)
    assert made.__mro__.index(PruningMixin) < made.__mro__.index(Mine) < made.__mro__.index(tf.Trainer)
    assert issubclass(made, PruningTrainer)
    assert (made.__name__, made.__qualname__, made.__module__) == (
        "PruningMine",
        "PruningMine",
        "hf_prune.train.trainer",
    )
    assert made.__doc__ == f"`{__name__}.Mine` with a `policy`; everything else is as there."
    assert pruned(tf.Trainer) is PruningTrainer
    assert pruned(tf.Seq2SeqTrainer) is PruningSeq2SeqTrainer
    assert hf_prune.pruned is pruned


@pytest.mark.parametrize("what", [dict, torch.nn.Module, "Trainer", tf.TrainingArguments])
def test_what_is_no_trainer_is_refused(what):
    with pytest.raises(TypeError, match="must be a subclass of transformers.Trainer"):
        pruned(what)


def test_what_takes_a_policy_already_is_refused():
    for cls in PruningTrainer, pruned(Mine):
        with pytest.raises(TypeError, match=f"{cls.__name__}.*this class takes a policy already"):
            pruned(cls)


class OfMade(pruned(Mine)):
    """A user's subclass of a class that was made."""


def test_classes_are_pickled():
    made = pruned(Mine)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(made, protocol)) is made
        assert pickle.loads(pickle.dumps(OfMade, protocol)) is OfMade
    assert copy.deepcopy(made) is made


def names(made: type) -> list[str]:
    return [cls.__name__ for cls in made.__mro__[:3]]


def test_a_class_that_was_not_made_yet_is_made_by_unpickling(monkeypatch):
    made = pruned(Mine)
    pickled = pickle.dumps(made)
    monkeypatch.setattr(hf_prune.train.trainer, "_PRUNED", {})
    again = pickle.loads(pickled)
    assert again is pruned(Mine) is not made
    assert again.__bases__ == (PruningTrainer, Mine)


@pytest.mark.slow
def test_a_class_is_unpickled_where_it_was_never_made():
    with SERVER.Pool(1) as pool:
        assert pool.apply(names, (pruned(Mine),)) == ["PruningMine", "PruningTrainer", "PruningMixin"]


class Counted(type):
    """A metaclass that notes what it makes, as registries do."""

    made: ClassVar[list[str]] = []

    def __new__(cls, name, bases, names, **more):
        cls.made.append(name)
        return super().__new__(cls, name, bases, names)


class Registered(tf.Trainer, metaclass=Counted):
    """A user's trainer, with a metaclass."""


class Abstract(tf.Trainer, abc.ABC):
    """As those of sentence-transformers begin."""

    @abc.abstractmethod
    def name(self):
        """What it is called."""


class Concrete(Abstract):
    """And as they end."""

    def name(self):
        return "concrete"


class OfRegistered(pruned(Registered)):
    """A user's subclass of a class that was made with a metaclass."""


@pytest.mark.parametrize("cls", [Registered, Concrete])
def test_a_class_with_another_metaclass_is_made_and_pickled(cls):
    made = pruned(cls)
    assert made is pruned(cls) and isinstance(made, type(cls)) and issubclass(made, PruningTrainer)
    assert (made.__name__, made.__module__) == (f"Pruning{cls.__name__}", "hf_prune.train.trainer")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(made, protocol)) is made
    assert copy.deepcopy(made) is made


def test_a_metaclass_goes_on_with_its_work():
    assert {"Registered", "PruningRegistered", "OfRegistered"} <= set(Counted.made)
    assert pickle.loads(pickle.dumps(OfRegistered)) is OfRegistered
    with pytest.raises(TypeError, match="abstract"):
        pruned(Abstract)()


def test_a_trainer_with_another_metaclass_trains_the_stock_bits(tmp_path):
    stock = train(tmp_path, Concrete)
    same(train(tmp_path, pruned(Concrete), policy=KEEP), stock)
    by_hand = type(Concrete)("ByHand", (PruningMixin, Concrete), {})
    same(train(tmp_path, by_hand, policy=KEEP), stock)


# ---- Whose loss it is ----


def by_items(outputs, labels, num_items_in_batch=None):
    """A compute_loss_func that does what Trainer asks of it."""
    loss = F.cross_entropy(outputs["logits"], labels, reduction="sum")
    return loss / (len(labels) if num_items_in_batch is None else num_items_in_batch)


def by_mean(outputs, labels, num_items_in_batch=None):
    """One that leaves the number of items alone."""
    return F.cross_entropy(outputs["logits"], labels)


class OwnLoss(tf.Trainer):
    """Takes the loss of the logits by itself, a mean over the batch."""

    loss_is_scaled_for_ga = False

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = F.cross_entropy(outputs.logits, labels)
        return (loss, outputs) if return_outputs else loss


class Scaled(OwnLoss):
    """Divides by the items of the whole step, and says so."""

    loss_is_scaled_for_ga = True

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        rows = len(inputs["labels"])
        return super().compute_loss(model, inputs) * rows / num_items_in_batch


class Twice(tf.Trainer):
    """Reads the batch once without gradients before it does so with them."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        with torch.no_grad():
            model(**inputs)
        return super().compute_loss(model, inputs, *args, **kwargs)


def takes_no_items(ours):
    """What neutralises the scale of heads that ignore the number of items."""
    ours.model_accepts_loss_kwargs = False


# name -> task, class, settings, what is done before training
LOSSES = {
    "compute_loss_func, by items": ("one label", tf.Trainer, dict(compute_loss_func=by_items), None),
    "compute_loss_func, by its mean": ("one label", tf.Trainer, dict(compute_loss_func=by_mean), None),
    "compute_loss, a mean": ("one label", OwnLoss, {}, None),
    "compute_loss, scaled": ("one label", Scaled, {}, None),
    "compute_loss, two passes": ("t5", Twice, {}, None),
    "inline loss that is not scaled": ("one label", tf.Trainer, {}, None),
    "inline loss, without items": ("one label", tf.Trainer, {}, takes_no_items),
    "t5, without items": ("t5", tf.Trainer, {}, takes_no_items),
    "llama, without items": ("llama", tf.Trainer, {}, takes_no_items),
    "llama, with items": ("llama", tf.Trainer, {}, None),
}


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("case", LOSSES)
def test_the_users_loss_is_trained_and_the_rows_own_is_recorded(tmp_path, case, accumulation):
    name, cls, settings, prepare = LOSSES[case]
    settings = dict(settings, gradient_accumulation_steps=accumulation)
    stock = train(tmp_path, cls, name, prepare=prepare, **settings)
    same(train(tmp_path, pruned(cls), name, KEEP, prepare=prepare, **settings), stock)
    still = train(tmp_path, pruned(cls), name, KEEP, 0.0, prepare=prepare, **settings | dict(learning_rate=0.0))
    np.testing.assert_allclose(still.history.loss, alone(name), rtol=0, atol=1e-5)


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("case", LOSSES)
def test_weights_scale_the_users_loss_row_by_row(tmp_path, case, accumulation):
    """Rows that weigh nothing but for one: the gradient is that row's share of the user's own."""
    name, cls, settings, prepare = LOSSES[case]

    def gradients(weights):
        found = []

        class Watched(pruned(cls)):
            def training_step(self, model, inputs, *args, **kwargs):
                rows = inputs[ROW].tolist()
                model.zero_grad()
                loss = super().training_step(model, inputs, *args, **kwargs)
                found.append((rows, loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])))
                return loss

        more = dict(settings, gradient_accumulation_steps=accumulation, learning_rate=0.0, num_train_epochs=1)
        train(tmp_path, Watched, name, Weighted(weights), 0.0, prepare=prepare, **more)
        return found

    one = tuple(1.0 if row == 5 else 1e-9 for row in range(22))
    rest = tuple(1e-9 if row == 5 else 1.0 for row in range(22))
    for (rows, *alone), (_, *others), (_, *whole) in zip(
        gradients(one), gradients(rest), gradients((1.0,) * 22), strict=True
    ):
        size = whole[1].norm()
        assert (alone[1].norm() > 1e-3 * size) == (5 in rows)
        assert (alone[1] + others[1] - whole[1]).norm() < 1e-5 * size
        assert alone[0] == others[0] == whole[0]  # what is logged is the loss of the rows


@dataclass(frozen=True)
class Weighted(Policy):
    """Keeps everything at given weights."""

    weights: tuple[float, ...]
    weighs = True
    needs = frozenset({"loss"})

    def select(self, history, clock, rng):
        return Selection(np.arange(len(history)), np.array(self.weights, np.float32))


class Fused(tf.LlamaForCausalLM):
    """Keeps its logits for itself, as a fused loss does."""

    def forward(self, **inputs):
        return {"loss": super().forward(**inputs).loss}


@pytest.mark.parametrize("accumulation", [1, 4])
def test_scores_of_batches_are_true_means_of_shifted_targets(tmp_path, accumulation):
    """The first token of a text is no target: it must not be counted as one."""
    batches = []

    class Watched(PruningTrainer):
        def training_step(self, model, inputs, *args, **kwargs):
            rows = inputs[ROW].tolist()
            with torch.no_grad():
                batches.append((rows, model(**{k: v for k, v in inputs.items() if k != ROW})["loss"].item()))
            return super().training_step(model, inputs, *args, **kwargs)

    def fuse(ours):
        ours.model.__class__ = Fused

    settings = dict(learning_rate=0.0, num_train_epochs=1, gradient_accumulation_steps=accumulation)
    ours = train(tmp_path, Watched, "llama", "infobatch:ratio=0", 0.0, prepare=fuse, **settings)
    assert sum(len(rows) for rows, _ in batches) == 22
    for rows, loss in batches:
        np.testing.assert_allclose(ours.history.loss[rows], loss, rtol=1e-5)


# ---- Rows joined into one sequence ----


@pytest.mark.parametrize("policy", [KEEP, INFOBATCH])
def test_joined_rows_are_told_apart(tmp_path, policy):
    def join(ours):
        ours.data_collator = tf.DataCollatorWithFlattening()

    settings = dict(dropout=0.0, learning_rate=0.0, gradient_accumulation_steps=2, prepare=join)
    ours = train(tmp_path, PruningTrainer, "llama", policy, **settings)
    np.testing.assert_allclose(ours.history.loss, alone("llama"), rtol=0, atol=1e-5)
    assert ours.history.tokens.tolist() == [len(row["input_ids"]) for row in TASKS["llama"].rows()]
    (first, *_) = ours.pruning_report().epochs
    assert first["padded_tokens"] == first["tokens"] == ours.history.tokens.sum()


@pytest.mark.parametrize("change", [lambda ids: ids[:, :-1], lambda ids: ids.flip(1)], ids=["cut", "in another order"])
def test_joined_rows_that_cannot_be_told_apart_are_refused(tmp_path, change):
    def join(ours):
        joined = tf.DataCollatorWithFlattening()
        ours.data_collator = lambda rows: {name: change(value) for name, value in joined(rows).items()}

    with pytest.raises(ValueError, match="The batch has 4 rows, but losses for 1"):
        train(tmp_path, PruningTrainer, "llama", INFOBATCH, prepare=join)


# ---- Ways to run it ----


@dataclass(frozen=True)
class Shrinking(Policy):
    """Keeps 16 rows, then 12, then 8, and so on, the hardest first."""

    needs = frozenset({"loss"})

    def select(self, history, clock, rng):
        order = np.argsort(-np.nan_to_num(history.loss, nan=np.inf), kind="stable")
        return Selection(order[: 16 - 4 * (clock.epoch % 3)])


class Told(tf.TrainerCallback):
    """Keeps the learning rates, and asks to stop where it is told to."""

    def __init__(self, stop_epoch_at: int = 0, stop_at: int = 0):
        self.stop_epoch_at, self.stop_at, self.rates = stop_epoch_at, stop_at, []

    def on_step_end(self, args, state, control, lr_scheduler=None, **kwargs):
        self.rates.append(lr_scheduler.get_last_lr()[0])
        control.should_epoch_stop |= state.global_step == self.stop_epoch_at
        control.should_training_stop |= state.global_step == self.stop_at


def trained(ours) -> list[int]:
    return [epoch["rows"] for epoch in ours.pruning_report().epochs]


def test_a_search_starts_every_trial_afresh(tmp_path):
    pytest.importorskip("optuna", reason="optuna is not installed: pip install optuna").logging.set_verbosity(40)
    seen = []

    class Watched(PruningTrainer):
        def train(self, *args, **kwargs):
            output = super().train(*args, **kwargs)
            seen.append((self.args.num_train_epochs, self._train_batch_size, trained(self), self.state.global_step))
            rates.append(self.lr_scheduler.get_last_lr()[0])
            objectives.append(self.evaluate()["eval_loss"])
            return output

    rates, objectives = [], []
    quiet = dict(use_cpu=True, report_to=[], disable_tqdm=True, eval_strategy="epoch", save_strategy="no", seed=3)
    rows = TASKS["one label"].rows()
    ours = Watched(
        model_init=lambda trial: TASKS["one label"].model(),
        args=tf.TrainingArguments(str(tmp_path), **quiet),
        train_dataset=rows,
        eval_dataset=rows[:6],
        data_collator=Collator(),
        policy=Shrinking(),
    )
    import optuna

    grid = {"num_train_epochs": [2, 3], "per_device_train_batch_size": [4, 8]}
    best = ours.hyperparameter_search(
        lambda trial: {name: trial.suggest_categorical(name, values) for name, values in grid.items()},
        n_trials=4,
        direction="minimize",
        backend="optuna",
        sampler=optuna.samplers.GridSampler(grid, seed=0),
    )
    assert sorted(seen) == [
        (2, 4, [16, 12], 7), (2, 8, [16, 12], 4), (3, 4, [16, 12, 8], 9), (3, 8, [16, 12, 8], 5),
    ]  # fmt: skip
    assert rates == [0.0] * 4
    assert best.objective == min(objectives)
    ours.model = TASKS["one label"].model()  # a search leaves none
    ours.save_model()
    assert sorted(path.name for path in tmp_path.glob("*run-*")) == [f"_run-{trial}" for trial in range(4)]
    assert json.loads(
        (tmp_path / "_run-3" / "_pruning" / "examples.json").read_text()
    )  # no upload takes what begins so


def test_a_batch_that_is_too_large_is_halved_and_the_run_begins_anew(tmp_path):
    class Small(tf.Trainer):
        def training_step(self, model, inputs, *args, **kwargs):
            if self._train_batch_size > 4 and self.state.global_step == 1:
                raise RuntimeError("CUDA out of memory.")
            return super().training_step(model, inputs, *args, **kwargs)

    told = Told()
    ours = train(
        tmp_path, pruned(Small), policy=Shrinking(), per_device_train_batch_size=5, auto_find_batch_size=True,
        num_train_epochs=3, callbacks=[told],
    )  # fmt: skip
    assert ours._train_batch_size == 4
    assert trained(ours) == [16, 12, 8]
    assert ours.state.global_step == ours.state.max_steps == 9
    assert told.rates[-1] == 0.0 and len(told.rates) == 1 + 9  # one step of the first attempt
    assert np.count_nonzero(ours.history.last_round == 2) == 8 and (ours.history.last_round >= 0).all()


def test_the_best_model_is_loaded_where_epochs_shrink(tmp_path):
    rows = TASKS["one label"].rows()
    ours = train(
        tmp_path, PruningTrainer, policy=Shrinking(), num_train_epochs=4, eval_dataset=rows[:6],
        eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True, metric_for_best_model="eval_loss",
        greater_is_better=True,  # the least trained is the best: not the last
    )  # fmt: skip
    found = {entry["step"]: entry["eval_loss"] for entry in ours.state.log_history if "eval_loss" in entry}
    assert list(found) == [4, 7, 9, 13]
    best = max(found, key=found.get)
    assert ours.state.best_global_step == best and found[best] == ours.state.best_metric
    assert best != 13  # which would be there without loading
    assert ours.evaluate()["eval_loss"] == pytest.approx(found[best])
    saved = tf.BertForSequenceClassification.from_pretrained(tmp_path / f"checkpoint-{best}").state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in ours.model.state_dict().items())


def test_weights_alone_are_saved_where_asked(tmp_path):
    settings = dict(policy=Shrinking(), num_train_epochs=3, save_strategy="epoch", save_only_model=True)
    ours = train(tmp_path, PruningTrainer, **settings)
    folder = tmp_path / "checkpoint-4"
    assert not {path.name for path in folder.iterdir()} & {"pruning_state.safetensors", "optimizer.pt"}
    assert (folder / "model.safetensors").is_file()
    assert trained(ours) == [16, 12, 8]


def test_several_sets_are_evaluated_and_leave_the_history_alone(tmp_path):
    rows = TASKS["one label"].rows()
    settings = dict(policy=INFOBATCH, num_train_epochs=3, dropout=0.0)  # chance is also for data loaders to draw from
    quiet = train(tmp_path, PruningTrainer, **settings)
    sets = {"first": rows[:6], "second": rows[6:9]}
    ours = train(
        tmp_path, PruningTrainer, eval_dataset=sets, eval_strategy="epoch", eval_on_start=True, **settings
    )  # fmt: skip
    for name in sets:
        found = [entry["step"] for entry in ours.state.log_history if f"eval_{name}_loss" in entry]
        assert found == [0, *np.cumsum([epoch["steps"] for epoch in ours.pruning_report().epochs])]
    assert trained(ours) == trained(quiet) and trained(ours)[1] < 22
    assert np.array_equal(ours.history.loss, quiet.history.loss)
    same_weights = quiet.model.state_dict()
    assert all(torch.equal(value, same_weights[name]) for name, value in ours.model.state_dict().items())


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_callback_ends_an_epoch_and_the_clock_goes_on(tmp_path, accumulation):
    told = Told(stop_epoch_at=2)
    ours = train(
        tmp_path, PruningTrainer, policy=Shrinking(), num_train_epochs=3, callbacks=[told],
        per_device_train_batch_size=4 // accumulation, gradient_accumulation_steps=accumulation,
    )  # fmt: skip
    assert trained(ours) == [8, 12, 8]  # of 16, 12, 8
    assert ours.state.global_step == ours.state.max_steps == 2 + 3 + 2
    assert np.count_nonzero(ours.history.last_round == 2) == 8
    full = 6  # steps of an epoch over all rows
    assert told.rates[1] == pytest.approx(1e-2 * (1 - full / 2 / (3 * full)))  # half of the first pass
    assert told.rates[4] == pytest.approx(1e-2 / 3) and told.rates[-1] == 0.0  # two passes; three


def test_a_callback_ends_training_and_the_next_run_begins_anew(tmp_path):
    told = Told(stop_at=5)
    ours = train(tmp_path, PruningTrainer, policy=Shrinking(), num_train_epochs=3, callbacks=[told])
    assert trained(ours) == [16, 4]
    assert ours.state.global_step == 5
    assert np.count_nonzero(ours.history.last_round == 1) == 4
    assert np.isfinite(ours.history.loss[ours.history.last_round == 1]).all()
    told.stop_at = 0
    ours.train()
    assert trained(ours) == [16, 12, 8]
    assert ours.state.global_step == 9 and told.rates[-1] == 0.0


# ---- What callbacks are given ----


class Looking(tf.TrainerCallback):
    """Goes through the training loader at an event, with the model, and asks the trainer for another loader."""

    def __init__(self, event: str, asks: bool):
        setattr(self, event, self.look)
        self.asks, self.trainer, self.looks = asks, None, []

    def bind(self, trainer):
        self.trainer = trainer

    def look(self, args, state, control, model=None, train_dataloader=None, **more):
        assert isinstance(train_dataloader, torch.utils.data.DataLoader)
        assert isinstance(train_dataloader.collate_fn, Collator | tf.trainer_utils.RemoveColumnsCollator)
        assert train_dataloader.dataset[0] == TASKS["one label"].rows()[0]
        assert train_dataloader.batch_sampler.batch_size == 4
        loaders = [train_dataloader, *([self.trainer.get_train_dataloader()] if self.asks else [])]
        was_training = model.training
        model.eval()
        with torch.no_grad():
            sizes = [[len(model(**batch).logits) for batch in loader] for loader in loaders]
        model.train(was_training)
        assert [len(batches) for batches in sizes] == [len(loader) for loader in loaders]
        if state.global_step == 0:
            train_dataloader.set_epoch(0)
        assert self.trainer.train_dataset[0] == TASKS["one label"].rows()[0]
        self.looks.append([sum(batches) for batches in sizes])


def stock_and_ours_looked_at(folder, event, asks=False, **settings):
    ends = []
    for cls, policy in ((tf.Trainer, None), (PruningTrainer, KEEP)):
        looking = Looking(event, asks)
        ends.append((train(folder, cls, policy=policy, callbacks=[looking], prepare=looking.bind, **settings), looking))
    (stock, seen), (ours, found) = ends
    same(ours, stock)
    assert found.looks == seen.looks and len(seen.looks) > 0


@pytest.mark.parametrize("asks", [False, True], ids=["reads", "asks for another"])
@pytest.mark.parametrize("event", ["on_train_begin", "on_epoch_begin", "on_step_end", "on_epoch_end", "on_train_end"])
def test_callbacks_read_the_users_own_batches(tmp_path, event, asks):
    stock_and_ours_looked_at(tmp_path, event, asks)


def looked_at_in_two_processes(rank, folder):
    for event in ("on_epoch_begin", "on_step_end"):
        stock_and_ours_looked_at(folder / "runs", event, per_device_train_batch_size=4)
        stock_and_ours_looked_at(folder / "runs", event, dataloader_num_workers=1, num_train_epochs=1)


@pytest.mark.slow
def test_callbacks_read_the_users_own_batches_in_two_processes(tmp_path):
    assert ranks.run(looked_at_in_two_processes, tmp_path, processes=2, folder=tmp_path)


@dataclass(frozen=True)
class Halves(Policy):
    """Two rounds an epoch, each of half of its rows."""

    rounds_per_epoch: ClassVar[int] = 2
    needs = frozenset({"loss"})

    def select(self, history, clock, rng):
        return Selection(history.offered[::2])


@pytest.mark.parametrize("policy", [Shrinking(), Halves(), INFOBATCH])
def test_a_callback_that_reads_batches_leaves_a_pruned_run_alone(tmp_path, policy):
    """The rows that are planned are read, and what is trained and learnt of them stays as it is."""

    class Reading(tf.TrainerCallback):
        looks: ClassVar[list[int]] = []

        def on_step_end(self, args, state, control, train_dataloader=None, **more):
            state_before = torch.get_rng_state()
            batches = list(train_dataloader)
            torch.set_rng_state(state_before)  # the loader draws a seed, as the stock one does
            assert not any(name.startswith("hf_prune") for batch in batches for name in batch)
            self.looks.append(sum(len(batch["labels"]) for batch in batches))

    settings = dict(policy=policy, num_train_epochs=3)
    quiet = train(tmp_path, PruningTrainer, **settings)
    ours = train(tmp_path, PruningTrainer, callbacks=[Reading()], **settings)
    same(ours, quiet)
    assert trained(ours) == trained(quiet)
    np.testing.assert_array_equal(ours.history.loss, quiet.history.loss)
    if isinstance(policy, Shrinking):
        assert Reading.looks == [16] * 4 + [12] * 3 + [8] * 2


class Wrapped:
    """A loader that a user has put round the stock one."""

    def __init__(self, loader):
        self.loader, self.dataset = loader, "unknown"

    def __iter__(self):
        return iter(self.loader)

    def __len__(self):
        return len(self.loader)


def test_a_loader_that_is_wrapped_is_read_as_it_is(tmp_path):
    class Wrapping(tf.Trainer):
        def get_train_dataloader(self):
            return Wrapped(super().get_train_dataloader())

    class Reading(tf.TrainerCallback):
        def on_epoch_end(self, args, state, control, train_dataloader=None, **more):
            assert train_dataloader.dataset == "unknown" and isinstance(train_dataloader, Wrapped)
            assert sum(len(batch["labels"]) for batch in train_dataloader) == 22
            assert not any(name.startswith("hf_prune") for batch in train_dataloader for name in batch)

    ours = train(tmp_path, pruned(Wrapping), policy=KEEP, callbacks=[Reading()])
    assert trained(ours) == [22, 22]


def test_a_trainer_is_copied_with_what_callbacks_read(tmp_path):
    ours = train(tmp_path, PruningTrainer, policy=Shrinking())
    loader = copy.deepcopy(ours.callback_handler).train_dataloader
    assert len(loader.dataset) == 22 and loader.dataset is not ours.train_dataset
    assert [set(batch) for batch in loader] == [{"input_ids", "attention_mask", "labels"}] * 3


@pytest.mark.parametrize(
    "columns, is_own",
    [
        (["chosen_input_ids", "rejected_input_ids", "prompt"], True),
        (["prompt_ids", "completion_ids", "label"], True),
        (["input_ids", "labels", "chosen_by", "rejected_by"], False),
        (["text", "label", "chosen_by"], False),
        (["input_ids", "completion_mask"], False),
    ],
)
def test_columns_tell_a_loss_that_compares_texts(columns, is_own):
    assert has_own_loss(columns) is is_own


# ---- Loops and loaders of their own ----


class OwnLoop(tf.Trainer):
    """Trains without Trainer's loop."""

    def train(self, *args, **kwargs):
        self.create_optimizer_and_scheduler(10)
        self.current_gradient_accumulation_steps = 1
        for batch in self.get_train_dataloader():
            self.training_step(self.model, batch)
            self.optimizer.step()


class OwnLoader(tf.Trainer):
    """Makes batches without Trainer's sampler."""

    def get_train_dataloader(self):
        loader = torch.utils.data.DataLoader(self.train_dataset, 4, shuffle=True, collate_fn=self.data_collator)
        return self.accelerator.prepare(loader)


class OwnSampler(tf.Trainer):
    """Draws rows with replacement."""

    def _get_train_sampler(self, train_dataset=None):
        return torch.utils.data.RandomSampler(train_dataset, replacement=True)


@pytest.mark.parametrize(
    "cls, message",
    [
        (OwnLoop, "chooses the rows of Trainer's own loop, but PruningOwnLoop.train has one of its own"),
        (OwnLoader, "PruningOwnLoader builds its training batches without Trainer's sampler"),
        (OwnSampler, "PruningOwnSampler has a training sampler of its own. The training sampler is a RandomSampler"),
    ],
)
def test_what_does_not_go_by_trainers_sampler_is_refused_by_name(tmp_path, cls, message):
    train(tmp_path, cls)  # as the stock trainer does
    with pytest.raises(ValueError, match=message):
        train(tmp_path, pruned(cls), policy=KEEP)
    train(tmp_path, pruned(cls))  # without a policy


def test_a_loop_that_takes_no_steps_of_trainers_is_told_of(tmp_path, caplog):
    class OwnSteps(tf.Trainer):
        def train(self, *args):
            self.model.train()

    train(tmp_path, pruned(OwnSteps), policy=KEEP)
    assert "has chosen nothing: PruningOwnSteps.train trains without Trainer's own loop" in caplog.text


def test_several_data_sets_are_refused_at_once(tmp_path):
    rows = TASKS["one label"].rows()
    args = tf.TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    with pytest.raises(ValueError, match="train_dataset is a dict of 2 .one, two.. Join them"):
        PruningTrainer(TASKS["one label"].model(), args, train_dataset={"one": rows, "two": rows}, policy=KEEP)
