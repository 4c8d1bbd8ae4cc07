"""How a model is recognised, and how its batches are read."""

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

from hf_prune.measure.models import head_of
from hf_prune.measure.readers import recipe_for, why_unread

# Of EncoderDecoderModel, whenever it computes a loss.
pytestmark = pytest.mark.filterwarnings("ignore:Version v4.12.0 introduces a better way:FutureWarning")


# Recognition


def test_a_subclass_is_known_by_its_parent():
    recipe = recipe_for(build("one label of a class of one's own")[0])
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


# Reading


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


# The head


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
