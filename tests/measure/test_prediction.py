"""Signals against the models' own losses, autograd, and values worked by hand."""

import numpy as np
import pytest
import torch
from batches import (
    ALL,
    IGNORED,
    LENGTH,
    ROWS,
    SIZES,
    TASKS,
    WIDTH,
    build,
    read,
)
from torch import nn
from torch.nn import functional as F

from hf_prune.measure import prediction as signals
from hf_prune.measure.models import head_of
from hf_prune.measure.prediction import MultiLabel, Prediction, Regression, count_tokens
from hf_prune.measure.readers import recipe_for

# Of EncoderDecoderModel, whenever it computes a loss.
pytestmark = pytest.mark.filterwarnings("ignore:Version v4.12.0 introduces a better way:FutureWarning")


WITH_GRAD_NORM = [name for name, task in TASKS.items() if "grad_norm" in task.gives and not name.startswith("many")]


def alone(batch, row):
    """The row as a batch of one, without padding; in an answer's softmax the padding has its share, so it stays."""
    one = {name: value[row : row + 1] for name, value in batch.items()}
    if "attention_mask" in one and "start_positions" not in one:
        tokens = SIZES[row]
        one = {name: value[:, :tokens] if value.shape[1:] == (LENGTH,) else value for name, value in one.items()}
    return one


def prediction(logits, labels, gives=ALL):
    return Prediction(torch.as_tensor(logits), torch.as_tensor(labels), "toy", gives)


# The models' own losses


@pytest.mark.parametrize("name", TASKS)
def test_each_row_has_the_loss_the_model_gives_it_alone(name):
    model, batch = build(name)
    with torch.no_grad():
        losses = read(model, batch).signals(["loss"])["loss"]
        expected = torch.stack([model(**alone(batch, row)).loss for row in range(ROWS)])
    assert losses.dtype == torch.float32 and losses.shape == (ROWS,)
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5, equal_nan=True)
    assert losses.nan_to_num().unique().numel() == ROWS


@pytest.mark.parametrize("name", TASKS)
def test_the_recipe_gives_what_it_says(name):
    model, batch = build(name)
    recipe = recipe_for(model)
    assert recipe.gives == TASKS[name].gives
    prediction = read(model, batch)
    values = prediction.signals(prediction.gives - {"grad_norm", "loss"})
    assert set(values) == prediction.gives - {"grad_norm"}
    mean = prediction.token_losses().sum(1) / prediction.is_target.sum(1)
    torch.testing.assert_close(values["loss"], mean.detach(), equal_nan=True)
    assert all(value.dtype == torch.float32 and value.shape == (ROWS,) for value in values.values())
    assert not any(value.requires_grad for value in values.values())
    if "confidence" in values:
        torch.testing.assert_close(values["confidence"], torch.exp(-values["loss"]), equal_nan=True)


def test_half_an_answer_counts_half():
    model, batch = build("answer")
    batch["end_positions"][0] = 99
    with torch.no_grad():
        prediction = read(model, batch)
    start = prediction.token_losses()[0, 0]
    assert prediction.is_target[0].tolist() == [True, False]
    torch.testing.assert_close(prediction.signals(["loss"])["loss"][0], start / 2)
    torch.testing.assert_close(prediction.signals(["el2n"])["el2n"][0], torch.linalg.vector_norm(
        F.softmax(prediction.logits[0, 0], -1) - F.one_hot(batch["start_positions"][0], LENGTH)))  # fmt: skip


# Goldens


def test_el2n_and_grad_norm_by_hand():
    """PAPERS: three classes, p and y given; el2n = ||p - y||, grad_norm times sqrt(||h||^2 + 1)."""
    p = torch.tensor([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [1 / 3, 1 / 3, 1 / 3], [0.98, 0.01, 0.01]])
    h = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    rows = prediction(p.log()[:, None], [[0], [1], [2], [0]])
    values = rows.signals(ALL, head_input=h)
    expected = {
        "el2n": [0.374166, 1.067708, 0.816497, 0.024495],
        "grad_norm": [1.907878, 1.067708, 1.154701, 0.054772],
        "confidence": [0.7, 0.2, 1 / 3, 0.98],
        "loss": [0.356675, 1.609438, 1.098612, 0.020203],
    }
    for name, value in expected.items():
        torch.testing.assert_close(values[name], torch.tensor(value), rtol=0, atol=1e-6, msg=name)
    assert values["correct"][[0, 1, 3]].tolist() == [1.0, 0.0, 1.0]
    without_bias = rows.signals(["grad_norm"], head_input=h, head_bias=False)["grad_norm"]
    torch.testing.assert_close(without_bias, torch.tensor([1.870829, 0.0, 0.816497, 0.048990]), rtol=0, atol=1e-6)


def test_signals_of_tokens_are_means_over_the_targets():
    """Two targets of p_y 0.5 and 0.125 of two classes: exp(-mean loss) = 0.25, el2n = sqrt(2) (0.5 + 0.875) / 2."""
    p = torch.tensor([[[0.5, 0.5], [0.875, 0.125], [0.9, 0.1]], [[0.9, 0.1]] * 3])
    rows = prediction(p.log(), [[0, 1, IGNORED], [IGNORED] * 3])
    h = torch.tensor([[[0.0], [3**0.5], [9.0]], [[9.0]] * 3])  # sqrt(h^2 + 1): 1, 2
    values = rows.signals(ALL, head_input=h)
    torch.testing.assert_close(values["confidence"], torch.tensor([0.25, torch.nan]), equal_nan=True)
    torch.testing.assert_close(values["el2n"], torch.tensor([2**0.5 * 0.6875, torch.nan]), equal_nan=True)
    torch.testing.assert_close(values["grad_norm"], torch.tensor([2**0.5 * 1.125, torch.nan]), equal_nan=True)
    torch.testing.assert_close(values["correct"], torch.tensor([0.0, torch.nan]), equal_nan=True)


def test_a_row_of_tokens_is_correct_when_every_target_is():
    p = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9]]).log().repeat(3, 1, 1)
    labels = [[0, 0, 1], [0, 1, 1], [0, IGNORED, IGNORED]]
    assert prediction(p, labels).signals(["correct"])["correct"].tolist() == [1.0, 0.0, 1.0]


def test_many_labels_are_correct_when_all_are():
    model, _ = build("many labels")
    logits = torch.tensor([[1.0, -1.0, 2.0], [1.0, -1.0, -2.0]])
    labels = torch.tensor([[1.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
    rows = recipe_for(model).read({"logits": logits}, {"labels": labels})
    assert rows.signals(["correct"])["correct"].tolist() == [1.0, 0.0]


def test_el2n_of_a_sure_row_keeps_its_digits():
    """p_y = 1 / (1 + exp(-14)), two classes: sqrt(2) (1 - p_y) = 1.175961e-06."""
    (value,) = prediction([[[14.0, 0.0]]], [[0]]).signals(["el2n"])["el2n"].tolist()
    assert value == pytest.approx(1.1759614e-06, rel=1e-2)


@pytest.mark.parametrize("name", WITH_GRAD_NORM)
def test_grad_norm_is_the_gradient_of_the_head(name):
    """By autograd of each target's loss in the head's parameters, one at a time."""
    model, batch = build(name)
    head = head_of(model)
    head.weight = nn.Parameter(head.weight.detach().clone())  # no longer the embeddings' weight
    seen = []
    hook = head.register_forward_hook(lambda module, args, output: seen.append(args[0].detach()))
    prediction = read(model, batch)
    hook.remove()
    got = prediction.signals(["grad_norm"], head_input=seen[0], head_bias=head.bias is not None)["grad_norm"]
    parameters = [head.weight] if head.bias is None else [head.weight, head.bias]
    token_losses = prediction.token_losses()
    for row in range(ROWS):
        norms = []
        for at in prediction.is_target[row].nonzero().flatten():
            gradients = torch.autograd.grad(token_losses[row, at], parameters, retain_graph=True)
            norms.append(torch.cat([gradient.flatten() for gradient in gradients]).norm())
        torch.testing.assert_close(got[row], torch.stack(norms).mean(), rtol=1e-4, atol=1e-6)


# What the loss is made of


@pytest.mark.parametrize("name", TASKS)
def test_the_models_own_loss_is_the_mean_of_the_terms(name):
    model, batch = build(name)
    outputs = model(**batch)
    prediction = read(model, batch, outputs)
    torch.testing.assert_close(
        outputs.loss, prediction.terms().sum() / prediction.is_target.sum(), rtol=1e-5, atol=1e-6
    )


def test_a_batch_without_targets_tells_nothing():
    model, batch = build("llama")
    batch["labels"][:] = IGNORED
    outputs = model(**batch, num_items_in_batch=torch.tensor(7))
    assert read(model, batch, outputs).signals(["loss"])["loss"].isnan().all()


# Chunks and types


@pytest.mark.parametrize("is_on_cpu", [True, False])
@pytest.mark.parametrize("chunk", [1, 70, 2**24])
@pytest.mark.parametrize("name", ["masked", "sparse", "llama", "t5", "answer", "one label", "tokens"])
def test_neither_chunks_nor_the_device_change_the_values(monkeypatch, name, chunk, is_on_cpu):
    model, batch = build(name)
    outputs = model(**batch)
    names = TASKS[name].gives - {"grad_norm"}
    whole = read(model, batch, outputs)
    expected, token_losses = whole.signals(names), whole.token_losses()
    embeddings = model.get_input_embeddings().weight
    (gradient,) = torch.autograd.grad(token_losses.square().sum(), embeddings, retain_graph=True)
    monkeypatch.setattr(Prediction, "CHUNK", chunk)
    monkeypatch.setattr(signals, "_is_on_cpu", lambda tensor: is_on_cpu)
    parts = read(model, batch, outputs)
    for key, value in parts.signals(names).items():
        torch.testing.assert_close(value, expected[key], rtol=1e-6, atol=1e-7, equal_nan=True)
    torch.testing.assert_close(parts.token_losses(), token_losses, rtol=1e-6, atol=1e-7)
    (again,) = torch.autograd.grad(parts.token_losses().square().sum(), embeddings)
    torch.testing.assert_close(again, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("is_on_cpu", [True, False])
def test_ignored_positions_are_not_looked_at(monkeypatch, is_on_cpu):
    monkeypatch.setattr(signals, "_is_on_cpu", lambda tensor: is_on_cpu)
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, IGNORED, 2], [IGNORED, 4, 0]])
    expected = prediction(logits, labels).signals(ALL - {"grad_norm"})
    logits[labels == IGNORED] = torch.nan
    got = prediction(logits, labels).signals(ALL - {"grad_norm"})
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    assert (prediction(logits, labels).token_losses() == 0).tolist() == (labels == IGNORED).tolist()


@pytest.mark.parametrize("is_on_cpu", [True, False])
def test_half_precision_is_lifted_first(monkeypatch, is_on_cpu):
    monkeypatch.setattr(signals, "_is_on_cpu", lambda tensor: is_on_cpu)
    logits = 4 * torch.randn(3, 4, 50, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels = torch.randint(0, 50, (3, 4), generator=torch.Generator().manual_seed(0))
    half, full = prediction(logits, labels), prediction(logits.float(), labels)
    assert half.token_losses().dtype == torch.float32
    assert torch.equal(half.token_losses(), full.token_losses())
    h = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    got, expected = half.signals(ALL, head_input=h), full.signals(ALL, head_input=h.float())
    assert all(torch.equal(got[name], expected[name]) for name in ALL)


# Errors


def test_signals_without_a_meaning_are_refused():
    with pytest.raises(ValueError, match="sequence classification model gives .*'el2n'"):
        read(*build("many labels, unnamed")).signals({"loss", "el2n"})


@pytest.mark.parametrize("head_input", [None, torch.zeros(ROWS, LENGTH, WIDTH)])
def test_grad_norm_without_its_head_input_is_refused(head_input):
    with pytest.raises(ValueError, match="head_input"):
        read(*build("one label")).signals({"grad_norm"}, head_input=head_input)


# Tokens

NUMBERS = torch.arange(ROWS)


def test_tokens_are_counted():
    model, batch = build("t5")
    real, padded = count_tokens(NUMBERS, batch, is_encoder_decoder=True)
    assert real.tolist() == [2 * size for size in SIZES] and real.dtype == torch.int64
    assert padded == 2 * ROWS * LENGTH and type(padded) is int
    real, padded = count_tokens(NUMBERS, batch, is_encoder_decoder=False)
    assert real.tolist() == SIZES and padded == ROWS * LENGTH
    del batch["attention_mask"]
    assert count_tokens(NUMBERS, batch, is_encoder_decoder=False)[0].tolist() == [LENGTH] * ROWS
    batch["attention_mask"] = torch.ones(ROWS, 1, LENGTH, LENGTH)
    assert count_tokens(NUMBERS, batch, is_encoder_decoder=False)[0].tolist() == [LENGTH] * ROWS


def test_tokens_of_choices_and_images_are_counted():
    _, batch = build("choice")
    batch["attention_mask"][0, 1, 4:] = 0
    real, padded = count_tokens(NUMBERS, batch, is_encoder_decoder=False)
    assert real.tolist() == [3 * LENGTH - 5, *[3 * LENGTH] * 3] and padded == 3 * ROWS * LENGTH
    _, batch = build("bart one label")
    assert count_tokens(NUMBERS, batch, is_encoder_decoder=True)[0].tolist() == [LENGTH] * ROWS
    batch["labels"] = torch.ones(ROWS, 3)  # of a multi-label classifier
    assert count_tokens(NUMBERS, batch, is_encoder_decoder=True)[0].tolist() == [LENGTH] * ROWS
    _, batch = build("image")
    real, padded = count_tokens(NUMBERS, batch, is_encoder_decoder=False)
    assert real.tolist() == [0] * ROWS and real.dtype == torch.int64 and padded == 0


@pytest.mark.parametrize(
    "batch",
    [
        {"batch": {"input_ids": torch.ones(ROWS, 3)}},
        {"input_ids": [torch.ones(3)] * ROWS},
        {"temperature": torch.tensor(0.5), "pixel_values": torch.ones(ROWS, 2)},
        {"input_ids": torch.ones(ROWS)},
    ],
)
def test_batches_of_other_forms_have_no_tokens(batch):
    real, padded = count_tokens(NUMBERS, batch, is_encoder_decoder=False)
    assert real.tolist() == [0] * ROWS and padded == 0


# ---- What people look at ----


def test_labels_predictions_and_margins_of_classes():
    logits = torch.tensor([[[2.0, 0.5, 1.0]], [[0.0, 3.0, 1.0]], [[1.0, 2.0, 3.0]]])
    found = Prediction(logits, torch.tensor([[0], [2], [IGNORED]]), "t", frozenset({"loss"})).signals(
        ("loss", "given", "predicted", "margin")
    )
    nan = float("nan")
    np.testing.assert_array_equal(found["given"], [0, 2, nan])
    np.testing.assert_array_equal(found["predicted"], [0, 1, 2])
    np.testing.assert_array_equal(found["margin"], [1.0, -2.0, nan])


def test_the_worst_token_is_counted_among_the_targets():
    """Three targets at positions 1, 2 and 4; the largest loss is at 4, the third target; row 1 has no target."""
    labels = torch.tensor([[IGNORED, 0, 1, IGNORED, 0], [IGNORED] * 5])
    logits = torch.zeros(2, 5, 2)
    logits[0, 1, 0], logits[0, 2, 1], logits[0, 4, 1], logits[0, 0, 1] = 1.0, 2.0, 3.0, 50.0
    found = Prediction(logits, labels, "t", frozenset({"loss"})).signals(("loss", "worst_token"))
    np.testing.assert_array_equal(found["worst_token"], [2.0, float("nan")])


def test_predictions_of_numbers():
    logits = torch.tensor([[[1.5]], [[-2.0]]], requires_grad=True)
    found = Regression(logits, torch.tensor([[[1.0]], [[0.5]]]), "t", frozenset({"loss"})).signals(
        ("loss", "given", "predicted")
    )
    assert found["given"].tolist() == [1.0, 0.5] and found["predicted"].tolist() == [1.5, -2.0]
    assert not found["predicted"].requires_grad
    several = MultiLabel(torch.zeros(2, 1, 3), torch.zeros(2, 1, 3), "t", frozenset({"loss"}))
    assert several.signals(("loss", "given", "predicted"))["predicted"].isnan().all()
