"""Signals against the models' own losses, autograd, and values worked by hand."""

import re

import pytest
import torch
import transformers as tf
from batches import (
    ALL,
    BART,
    BERT,
    IGNORED,
    LENGTH,
    ROWS,
    SIZES,
    TASKS,
    VOCAB,
    WIDTH,
    bert,
    build,
    causal_batch,
    read,
    token_labels,
)
from torch import nn
from torch.nn import functional as F

from hf_prune.measure import prediction as signals
from hf_prune.measure.prediction import Prediction, count_tokens
from hf_prune.measure.readers import head_of, recipe_for, why_unread

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


@pytest.mark.parametrize("name", TASKS)
def test_tuples_read_like_mappings(name):
    model, batch = build(name)
    with torch.no_grad():
        expected = read(model, batch).token_losses()
        outputs = model(**batch, return_dict=False)
        unlabelled = outputs[1:]  # with label smoothing the Trainer calls the model without labels: no loss in front
    assert outputs[0].dim() == 0
    torch.testing.assert_close(read(model, batch, outputs).token_losses(), expected, rtol=0, atol=0)
    torch.testing.assert_close(read(model, batch, unlabelled).token_losses(), expected, rtol=0, atol=0)


def test_given_shift_labels_are_taken_as_they_are():
    model, batch = build("llama")
    shifted = F.pad(batch["labels"], (0, 1), value=IGNORED)[:, 1:]
    outputs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    given = recipe_for(model).read(outputs, {"labels": torch.zeros_like(shifted), "shift_labels": shifted})
    assert torch.equal(given.token_losses(), read(model, batch).token_losses())
    assert torch.equal(given.is_target, shifted != IGNORED)


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


# Recognition


class Own(tf.BertForSequenceClassification):
    """A user's subclass."""


def test_a_subclass_is_known_by_its_parent():
    recipe = recipe_for(Own(bert(num_labels=3)()))
    assert recipe.task == "sequence classification" and recipe.gives == ALL


def test_the_problem_type_is_settled_as_transformers_settles_it():
    """Before and after the forward that writes it into the config; reading writes nothing."""
    for name, problem in [
        ("one label", "single_label_classification"),
        ("many labels, unnamed", "multi_label_classification"),
        ("number", "regression"),
    ]:
        model, batch = build(name)
        labels = batch.pop("labels")
        outputs = model(**batch)
        before = recipe_for(model).read(outputs, {"labels": labels})
        assert model.config.problem_type is None
        model(**batch, labels=labels)
        assert model.config.problem_type == problem
        after = recipe_for(model).read(outputs, {"labels": labels})
        assert torch.equal(before.token_losses(), after.token_losses())
        assert before.gives == after.gives == recipe_for(model).gives


@pytest.mark.parametrize(
    "model",
    [
        lambda: nn.Linear(2, 2),
        lambda: tf.BertModel(bert()()),
        lambda: tf.BertForNextSentencePrediction(bert()()),
        lambda: tf.FSMTModel(tf.FSMTConfig(langs=["en", "de"], src_vocab_size=VOCAB, tgt_vocab_size=VOCAB, **BART)),
        lambda: tf.BertForPreTraining(bert()()),
        lambda: tf.XLMWithLMHeadModel(tf.XLMConfig(vocab_size=VOCAB, emb_dim=WIDTH, n_layers=1, n_heads=2)),
        lambda: tf.XLNetForQuestionAnswering(tf.XLNetConfig(vocab_size=VOCAB, d_model=WIDTH, n_layer=1, n_head=2)),
    ],
)
def test_what_is_unknown_has_no_recipe(model):
    assert recipe_for(model()) is None


class NoTaskInItsName(tf.ModernBertForMaskedLM):
    """transformers chooses its loss by this name, and finds that of causal language models."""


class ByItself(tf.ModernBertForMaskedLM):
    """As `NoTaskInItsName`, and says which loss it takes."""

    def __init__(self, config):
        super().__init__(config)
        self.loss_type = "ForMaskedLM"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: NoTaskInItsName(TASKS["sparse"].config()), "no 'ForMaskedLM' in the name NoTaskInItsName.*loss_type"),
        (lambda: tf.BlipTextLMHeadModel(tf.BlipTextConfig(**BERT, label_smoothing=0.1)), "label_smoothing = 0"),
        (
            lambda: tf.ProphetNetForCausalLM(
                tf.ProphetNetConfig(vocab_size=VOCAB, hidden_size=WIDTH, num_decoder_layers=1, decoder_ffn_dim=24,
                                    num_decoder_attention_heads=2)),
            "n-grams",
        ),
    ],
)  # fmt: skip
def test_what_has_another_loss_is_not_read_and_says_so(make, reason):
    model = make()
    assert recipe_for(model) is None
    assert re.search(reason, why_unread(model))


def test_what_takes_the_loss_of_its_task_is_read():
    assert recipe_for(ByItself(TASKS["sparse"].config())).task == "masked language modelling"
    assert recipe_for(tf.BlipTextLMHeadModel(tf.BlipTextConfig(**BERT))).is_shifted
    assert why_unread(nn.Linear(2, 2)) == "There is no recipe for them."


def blip(model, config, text_config):
    vision = dict(hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, image_size=8)
    parts = dict(vision_config=vision | {"patch_size": 4}, qformer_config=BERT | {"encoder_hidden_size": WIDTH})
    config = config(**parts, text_config=text_config, num_query_tokens=2, image_token_index=VOCAB - 1)
    torch.manual_seed(0)
    return model(config).eval()


OPT = dict(model_type="opt", vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2,
           ffn_dim=24, word_embed_proj_dim=WIDTH, max_position_embeddings=32, pad_token_id=0)  # fmt: skip
T5 = dict(model_type="t5", vocab_size=VOCAB, d_model=WIDTH, d_kv=8, d_ff=24, num_layers=1, num_heads=2,
          decoder_start_token_id=0, pad_token_id=0)  # fmt: skip


@pytest.mark.parametrize("language", [OPT, T5], ids=["opt", "t5"])
@pytest.mark.parametrize("name", ["Blip2", "InstructBlip"])
def test_an_image_before_the_text_is_read_by_the_language_model(name, language):
    model = blip(getattr(tf, f"{name}ForConditionalGeneration"), getattr(tf, f"{name}Config"), language)
    rng = torch.Generator().manual_seed(1)
    ids = torch.randint(3, VOCAB - 1, (ROWS, LENGTH), generator=rng)
    ids[:, :2] = VOCAB - 1  # the image's
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(ROWS, 3, 8, 8, generator=rng),
        "labels": token_labels(rng, VOCAB),
    }
    if name == "InstructBlip":
        batch["qformer_input_ids"] = ids
    with torch.no_grad():
        outputs = model(**batch)
        prediction = read(model, batch, outputs)
    torch.testing.assert_close(prediction.terms().sum() / prediction.is_target.sum(), outputs.loss)
    assert (
        prediction.is_target.sum() == (batch["labels"][:, 1:] if language is OPT else batch["labels"]).ne(IGNORED).sum()
    )


def test_the_logits_of_an_image_before_the_text_are_left_aside():
    vision = dict(hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, image_size=8)
    torch.manual_seed(0)
    config = tf.GitConfig(**BERT, vision_config=vision | {"patch_size": 4}, pad_token_id=0)
    model, rng = tf.GitForCausalLM(config).eval(), torch.Generator().manual_seed(1)
    batch = causal_batch(rng) | {"pixel_values": torch.randn(ROWS, 3, 8, 8, generator=rng)}
    with torch.no_grad():
        outputs = model(**batch)
        prediction = read(model, batch, outputs)
    assert outputs.logits.shape[1] > LENGTH
    torch.testing.assert_close(prediction.terms().sum() / prediction.is_target.sum(), outputs.loss)


def test_classes_may_come_at_one_position_but_numbers_must_fit():
    """transformers subtracts (B, C) from (B, 1, C) as it can: each row's number from every other's."""
    recipe = recipe_for(build("one label")[0])
    logits = torch.randn(ROWS, 1, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 2, 1, 1])
    found = recipe.read({"logits": logits}, {"labels": labels})
    torch.testing.assert_close(found.terms()[:, 0], F.cross_entropy(logits[:, 0], labels, reduction="none"))
    with pytest.raises(ValueError, match="do not fit labels"):
        recipe_for(build("numbers")[0]).read({"logits": logits}, {"labels": torch.zeros(ROWS, 3)})


def test_a_vision_language_model_is_a_causal_one():
    config = tf.LlavaConfig(
        text_config=tf.LlamaConfig(**BERT, num_key_value_heads=1),
        vision_config=tf.CLIPVisionConfig(hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, image_size=8,
                                          patch_size=4, intermediate_size=24),
        image_token_index=VOCAB - 1,
    )  # fmt: skip
    recipe = recipe_for(tf.LlavaForConditionalGeneration(config))
    assert recipe.task == "causal language modelling"


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"), [("one label", WIDTH, 3), ("t5", WIDTH, VOCAB), ("masked", WIDTH, VOCAB)]
)
def test_the_head_is_found(name, inputs, outputs):
    model, _ = build(name)
    head = head_of(model)
    assert (head.in_features, head.out_features) == (inputs, outputs)
    assert head is (model.classifier if name == "one label" else model.get_output_embeddings())


def test_the_head_is_the_last_layer_of_its_size():
    model = tf.BertForSequenceClassification(bert(num_labels=WIDTH)())
    assert head_of(model) is model.classifier


def test_without_a_linear_head_there_is_no_grad_norm():
    model, _ = build("one label")
    model.classifier = nn.Sequential()
    assert recipe_for(model).gives == ALL - {"grad_norm"}
    model, _ = build("t5")
    model.lm_head = nn.Identity()
    assert recipe_for(model).gives == ALL - {"correct", "grad_norm"}


# Errors


def test_outputs_without_logits_name_the_cure():
    model, batch = build("llama")
    for outputs in ({"loss": torch.tensor(1.0), "logits": None}, (torch.tensor(1.0),)):
        with pytest.raises(ValueError, match="use_liger_kernel.*fused_linear_cross_entropy.*example_loss_func"):
            read(model, batch, outputs)


@pytest.mark.parametrize(
    ("name", "missing"), [("llama", "labels"), ("one label", "labels"), ("answer", "end_positions")]
)
def test_a_batch_without_targets_is_refused(name, missing):
    model, batch = build(name)
    outputs = model(**batch)
    del batch[missing]
    with pytest.raises(ValueError, match=f"lacks '{missing}'"):
        read(model, batch, outputs)


@pytest.mark.parametrize("name", ["llama", "one label", "many labels", "choice", "answer", "t5"])
def test_logits_that_do_not_fit_are_refused(name):
    model, batch = build(name)
    outputs = {key: torch.cat([value, value]) for key, value in model(**batch).items() if "logits" in key}
    with pytest.raises(ValueError, match="do not fit labels"):
        read(model, batch, outputs)


def test_expanded_image_tokens_are_refused():
    model, batch = build("llama")
    logits = torch.zeros(ROWS, LENGTH + 3, VOCAB)
    with pytest.raises(ValueError, match="image tokens"):
        read(model, batch, {"logits": logits})


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
