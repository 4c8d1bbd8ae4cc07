"""What is recorded of a row is that row's own, and weights reach the gradient of their own rows."""

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
import transformers as tf
from packaging.version import Version
from tiny import IGNORED, STOCK, TASKS, Collator, Net, Rows, trainer
from torch.nn import functional as F

from hf_prune import Policy, Selection

UNIFORM = "uniform:keep=1.0"
SHIFTED = {"llama", "gpt2"}


def alone(model, rows: list[dict]) -> np.ndarray:
    """(N,) the model's own loss of each row in a batch of its own."""
    model.eval()
    with torch.no_grad():
        return np.array([model(**Collator()([row])).loss.item() for row in rows])


def tokens_of(row: dict, is_pair: bool) -> int:
    if "input_ids" not in row:
        return 0
    count = np.sum(row["attention_mask"]) if "attention_mask" in row else len(row["input_ids"])
    return int(count) + (len(row["labels"]) if is_pair else 0)


# ---- Losses ----

ACCUMULATING = dict(gradient_accumulation_steps=4)  # 22 rows are 5 batches of 4 and one of 2
BY_LENGTH = dict(train_sampling_strategy="group_by_length")
SMOOTHED = dict(label_smoothing_factor=0.2)
WORKERS = dict(dataloader_num_workers=2)
CELLS = [
    *((name, how, settings) for name in TASKS for how, settings in [("shuffled", {}), ("accumulating", ACCUMULATING)]),
    *((name, "by length", BY_LENGTH | ACCUMULATING) for name in TASKS if name != "image"),
    *((name, "smoothed", SMOOTHED) for name in ("one label", "image", "masked", "llama", "t5", "marian")),
    *((name, "smoothed, accumulating", SMOOTHED | ACCUMULATING) for name in ("tokens", "gpt2", "bart")),
    *((name, "two workers", WORKERS | ACCUMULATING) for name in ("one label", "marian")),
    ("llama", "two workers, by length, smoothed", WORKERS | BY_LENGTH | SMOOTHED),
]


@pytest.mark.parametrize(("name", "how", "settings"), CELLS, ids=[f"{name}, {how}" for name, how, _ in CELLS])
def test_the_recorded_loss_is_that_of_the_row_alone(tmp_path, name, how, settings):
    task = TASKS[name]
    model, rows = task.model(dropout=0.0, spread=0.3), task.rows()
    expected = alone(model, rows)
    assert np.diff(np.sort(expected)).min() > 1e-4, "rows that are mixed up would not show"
    collator = Collator(model.prepare_decoder_input_ids_from_labels if task.is_pair else None)
    settings = dict(learning_rate=0.0, num_train_epochs=2) | settings
    ours = trainer(tmp_path, model, rows, UNIFORM, task.is_pair, data_collator=collator, **settings)
    ours.train()
    np.testing.assert_allclose(ours.history.loss, expected, rtol=0, atol=1e-5)
    assert ours.history.tokens.tolist() == [tokens_of(row, task.is_pair) for row in rows]
    assert (ours.history.last_round == 1).all()
    assert (ours.history.faults == 0).all()


@pytest.mark.parametrize("gives", [dict, tuple])
@pytest.mark.parametrize("policy", [UNIFORM, "infobatch:ratio=0"])
def test_example_loss_func_is_recorded_for_a_plain_module(tmp_path, gives, policy):
    def losses(outputs, inputs):
        logits = outputs["logits"] if gives is dict else outputs[1]
        return F.cross_entropy(logits, inputs["labels"], reduction="none")

    model, rows = Net(gives, dropout=0.0), TASKS["one label"].rows()
    with torch.no_grad():
        batches = [Collator()([row]) for row in rows]
        expected = [losses(model(**batch), batch).item() for batch in batches]
    settings = dict(learning_rate=0.0, num_train_epochs=2, dataloader_num_workers=2) | ACCUMULATING
    ours = trainer(tmp_path, model, Rows(rows), policy, example_loss_func=losses, **settings)
    ours.train()
    np.testing.assert_allclose(ours.history.loss, expected, rtol=0, atol=1e-5)
    assert ours.history.tokens.tolist() == [tokens_of(row, False) for row in rows]


# ---- Signals ----


@dataclass(frozen=True)
class Curious(Policy):
    """Keeps everything and wants to know everything."""

    needs: ClassVar[frozenset[str]] = frozenset({"loss", "correct", "confidence", "el2n", "grad_norm"})

    def select(self, history, clock, rng):
        return Selection(np.arange(len(history)))


@dataclass(frozen=True)
class CuriousOfText(Curious):
    """A text that is written word by word is never right as a whole."""

    needs: ClassVar[frozenset[str]] = Curious.needs - {"correct"}


def targets_of(name: str, model, row: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """(T, C) logits and (T,) labels of the row's targets, with the graph."""
    batch = Collator()([row])
    logits, labels = model(**batch).logits[0], batch["labels"][0]
    logits, labels = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
    if name in SHIFTED:
        logits, labels = logits[:-1], labels[1:]
    return logits[labels != IGNORED], labels[labels != IGNORED]


def signals_of(name: str, model, head, row: dict) -> dict[str, float]:
    """Each signal by its definition, the last from the gradients themselves."""
    logits, labels = targets_of(name, model, row)
    losses = -logits.log_softmax(-1)[range(len(labels)), labels]
    errors = logits.softmax(-1) - F.one_hot(labels, logits.shape[-1])
    parameters = list(head.parameters())
    norms = []
    for loss in losses:
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
        norms.append(sum(gradient.square().sum() for gradient in gradients).sqrt())
    return {
        "loss": losses.mean().item(),
        "correct": float((logits.argmax(-1) == labels).all()),
        "confidence": losses.mean().neg().exp().item(),
        "el2n": errors.norm(dim=-1).mean().item(),
        "grad_norm": torch.stack(norms).mean().item(),
    }


@pytest.mark.parametrize(
    ("name", "policy", "head"),
    [
        ("one label", Curious(), lambda model: model.classifier),
        ("tokens", Curious(), lambda model: model.classifier),
        ("image", Curious(), lambda model: model.classifier),
        ("llama", CuriousOfText(), lambda model: model.lm_head),
    ],
)
def test_signals_that_a_policy_needs_are_recorded(tmp_path, name, policy, head):
    task = TASKS[name]
    model, rows = task.model(dropout=0.0, spread=0.3), task.rows()
    model.eval()
    expected = [signals_of(name, model, head(model), row) for row in rows]
    if "correct" in policy.needs:
        assert 0 < sum(row["correct"] for row in expected) < len(rows)
    ours = trainer(tmp_path, model, rows, policy, learning_rate=0.0, num_train_epochs=1, **ACCUMULATING)
    ours.train()
    assert ours.history.signals.keys() == policy.needs - {"loss"}
    measured = ours.history.signals | {"loss": ours.history.loss}
    for signal, values in measured.items():
        np.testing.assert_allclose(values, [row[signal] for row in expected], rtol=1e-4, atol=1e-5, err_msg=signal)


# ---- Weights ----


@dataclass(frozen=True)
class Weighted(Policy):
    """Keeps everything at the weights it was given."""

    weighs: ClassVar[bool] = True
    weights: tuple[float, ...] = ()

    def select(self, history, clock, rng):
        return Selection(np.arange(len(history)), np.array(self.weights, np.float32))


def step_by_hand(name: str, model, rows: list[dict], weights, smoothing: float) -> dict[str, torch.Tensor]:
    """The parameters after one step of plain gradient descent at rate 1 on sum(w * token losses) / targets."""
    total, count = torch.zeros(()), 0
    for row, weight in zip(rows, weights, strict=True):
        logits, labels = targets_of(name, model, row)
        log_p = logits.log_softmax(-1)
        losses = -(1 - smoothing) * log_p[range(len(labels)), labels] - smoothing * log_p.mean(-1)
        total, count = total + weight * losses.sum(), count + len(labels)
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(total / count, parameters, allow_unused=True)
    return {
        name: parameter.detach() - (0 if gradient is None else gradient)
        for name, parameter, gradient in zip(names, parameters, gradients, strict=True)
    }


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("name", "accumulation"), [("llama", 2), ("t5", 1), ("one label", 1), ("masked", 1)])
def test_a_step_with_weights_is_the_step_by_hand(tmp_path, name, accumulation, smoothing):
    if accumulation > 1 and Version(tf.__version__) < Version("5.20"):
        pytest.skip("counted the targets of an accumulated step in another way")
    task = TASKS[name]
    rows, weights = task.rows(6), (0.25, 3.0, 1.0, 0.5, 2.0, 1.5)
    model = task.model(dropout=0.0, spread=0.3)
    expected = step_by_hand(name, model, rows, weights, smoothing)
    unweighted = step_by_hand(name, model, rows, [1.0] * 6, smoothing)
    assert max((expected[part] - unweighted[part]).abs().max() for part in expected) > 1e-2
    ours = trainer(
        tmp_path, model, rows, Weighted(weights), task.is_pair,
        data_collator=Collator(model.prepare_decoder_input_ids_from_labels if task.is_pair else None),
        optim="sgd", learning_rate=1.0, max_grad_norm=0.0, max_steps=1, label_smoothing_factor=smoothing,
        per_device_train_batch_size=6 // accumulation, gradient_accumulation_steps=accumulation,
    )  # fmt: skip
    ours.train()
    for part, value in model.named_parameters():
        np.testing.assert_allclose(value.detach(), expected[part], rtol=0, atol=2e-6, err_msg=part)


def test_weights_are_of_rows_and_not_of_places_in_the_batch(tmp_path):
    task = TASKS["one label"]
    steps = []
    for seed in (1, 2):
        model = task.model(dropout=0.0, spread=0.3)
        settings = dict(optim="sgd", max_steps=1, per_device_train_batch_size=6, data_seed=seed)
        trainer(tmp_path, model, task.rows(6), Weighted((0.25, 3.0, 1.0, 0.5, 2.0, 1.5)), **settings).train()
        steps.append(model.state_dict())
    for part in steps[0]:
        torch.testing.assert_close(steps[0][part], steps[1][part], rtol=0, atol=1e-6)


# ---- Bad input ----


class WithTerm(tf.BertForSequenceClassification):
    """Its loss has a term that no row has."""

    def forward(self, input_ids, attention_mask, labels):
        outputs = super().forward(input_ids, attention_mask, labels=labels)
        outputs.loss = outputs.loss + 1.0
        return outputs


def with_term():
    torch.manual_seed(0)
    return WithTerm(TASKS["one label"].model(dropout=0.0).config)


def plus_one(outputs, labels, num_items_in_batch=None):
    """A compute_loss_func."""
    return F.cross_entropy(outputs["logits"], labels) + 1.0


def dropping(rows: list[dict]) -> dict:
    """A collator that leaves out the last of several rows."""
    return Collator()(rows[:-1] or rows)


class DroppingLater:
    """A collator that leaves out a row, but not in the first two batches."""

    def __init__(self):
        self.calls = 0

    def __call__(self, rows: list[dict]) -> dict:
        self.calls += 1
        return Collator()(rows if self.calls <= 2 else rows[:-1] or rows)


def trained(folder, policy, model, rows, **settings):
    """The trainer and its final weights."""
    ours = trainer(folder, model, rows, policy, **dict(num_train_epochs=2) | settings)
    ours.train()
    return ours, {part: value.clone() for part, value in model.state_dict().items()}


def assert_same_bits(ours: dict, stock: dict):
    for part in stock:
        torch.testing.assert_close(ours[part], stock[part], rtol=0, atol=0, equal_nan=True)


def library_warnings(caplog) -> list[str]:
    """All but that on padding, which these rows have."""
    said = [record.getMessage() for record in caplog.records if record.name.startswith("hf_prune")]
    return [message for message in said if "were padding" not in message]


@pytest.mark.parametrize(
    ("model", "settings", "name"),
    [
        (with_term, {}, "WithTerm"),
        (TASKS["one label"].model, dict(compute_loss_func=plus_one), "BertForSequenceClassification"),
    ],
    ids=["of the model", "of a compute_loss_func"],
)
@pytest.mark.parametrize("policy", [UNIFORM, "infobatch:anneal=1.0"])
def test_a_loss_with_another_term_is_trained_with_a_warning(tmp_path, caplog, model, settings, name, policy):
    rows = TASKS["one label"].rows()
    _, stock = trained(tmp_path, STOCK, model(), rows, **settings)
    with caplog.at_level(logging.WARNING, "hf_prune"):
        ours, weights = trained(tmp_path, policy, model(), rows, **settings)
    if policy == UNIFORM:
        assert_same_bits(weights, stock)
    (warning,) = library_warnings(caplog)
    assert f"loss of {name} was" in warning and "other terms" in warning
    assert np.isfinite(ours.history.loss).all()


def test_a_collator_that_drops_rows_is_refused_where_losses_are_needed(tmp_path):
    ours = trainer(tmp_path, TASKS["one label"].model(), TASKS["one label"].rows(), "infobatch", data_collator=dropping)
    with pytest.raises(ValueError, match="batch has 4 rows, but losses for 3: data_collator must return one"):
        ours.train()


@pytest.mark.parametrize("collator", [lambda: dropping, DroppingLater], ids=["always", "later"])
def test_a_collator_that_drops_rows_trains_with_a_warning_under_uniform(tmp_path, caplog, collator):
    model, rows = TASKS["one label"].model, TASKS["one label"].rows()
    _, stock = trained(tmp_path, STOCK, model(), rows, data_collator=collator())
    with caplog.at_level(logging.WARNING, "hf_prune"):
        _, weights = trained(tmp_path, UNIFORM, model(), rows, data_collator=collator())
    assert_same_bits(weights, stock)
    (warning,) = library_warnings(caplog)
    assert "data_collator must return one" in warning


@pytest.mark.parametrize("policy", [UNIFORM, "infobatch:ratio=0.5,anneal=1.0"])
@pytest.mark.parametrize("name", ["tokens", "llama", "t5", "marian"])
def test_a_row_whose_labels_are_all_ignored_is_no_fault_and_stays_never_seen(tmp_path, name, policy):
    task = TASKS[name]
    rows, empty, epochs = task.rows(), 7, 4
    rows[empty] = {**rows[empty], "labels": [IGNORED] * len(rows[empty]["labels"])}
    settings = dict(num_train_epochs=epochs, per_device_train_batch_size=11, is_pair=task.is_pair)
    ours, weights = trained(tmp_path, policy, task.model(), rows, **settings)
    known = np.arange(22) != empty
    assert not ours.history.faults.any()
    assert ours.history.blanks.tolist() == [0 if ok else epochs for ok in known]  # never seen is never pruned
    assert np.isnan(ours.history.loss[empty])
    assert ours.history.last_round[empty] == -1
    assert np.isfinite(ours.history.loss[known]).all()
    assert all(value.isfinite().all() for value in weights.values())
    assert ours.state.log_history[-1]["train_loss"] < np.inf
    kept = [epoch["rows"] for epoch in ours.pruning_report().epochs]
    assert (min(kept) < 22) == (policy != UNIFORM)


@pytest.mark.parametrize("policy", [UNIFORM, "infobatch:ratio=0.5,anneal=1.0"])
def test_a_row_of_infinite_loss_does_no_more_harm_than_in_the_stock_trainer(tmp_path, policy):
    task, endless = TASKS["number"], 7
    rows = task.rows()
    rows[endless] = {**rows[endless], "labels": 1e30}  # its square is infinite, its gradient is not: clipping saves it
    _, stock = trained(tmp_path, STOCK, task.model(), rows, num_train_epochs=4)
    ours, weights = trained(tmp_path, policy, task.model(), rows, num_train_epochs=4)
    assert all(value.isfinite().all() for value in stock.values())
    assert all(value.isfinite().all() for value in weights.values())
    if policy == UNIFORM:
        assert_same_bits(weights, stock)
    known = np.arange(22) != endless
    assert ours.history.faults.tolist() == [0 if ok else 4 for ok in known]
    assert np.isnan(ours.history.loss[endless])
    assert np.isfinite(ours.history.loss[known]).all()


@pytest.mark.parametrize("policy", [UNIFORM, "infobatch:ratio=0.5,anneal=1.0"])
def test_losses_that_become_nan_are_counted_and_the_run_ends(tmp_path, policy):
    task = TASKS["number"]
    rows = task.rows()
    rows[7] = {**rows[7], "labels": float("nan")}
    _, stock = trained(tmp_path, STOCK, task.model(), rows, num_train_epochs=3)
    ours, weights = trained(tmp_path, policy, task.model(), rows, num_train_epochs=3)
    assert any(value.isnan().any() for value in stock.values())
    if policy == UNIFORM:
        assert_same_bits(weights, stock)
    assert ours.state.global_step == ours.state.max_steps
    assert ours.history.faults[7] == 3
    assert np.isnan(ours.history.loss[7])
    before = ours.history.last_round == 0  # met before row 7 in the first epoch, when the weights were still numbers
    assert 0 < before.sum() < 21
    assert (np.isfinite(ours.history.loss) == before).all()


def test_a_budget_in_tokens_outlives_a_collator_that_joins_rows(tmp_path):
    rows = TASKS["llama"].rows(40)
    settings = dict(data_collator=tf.DataCollatorWithFlattening(), num_train_epochs=4, logging_steps=100)
    ours, _ = trained(tmp_path, "uniform:keep=0.5,unit=tokens", TASKS["llama"].model(), rows, **settings)
    counts = [len(row["input_ids"]) for row in rows]
    assert ours.history.tokens.tolist() == counts
