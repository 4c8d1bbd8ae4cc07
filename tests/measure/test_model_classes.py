"""Is what is recorded what is trained? Asked of every class of the installed transformers that can be built small.

Some compute a loss of their own in the forward pass, which follows other rules than the functions that most share.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers as tf
from model_zoo import LENGTH, ROWS, VOCAB, classes, inputs, models

from hf_prune.measure.readers import READ, recipe_for

IGNORED = -100
SHAPES = (LENGTH, 64, 192)  # of token labels: some models fill their texts up
GROUPS = ["a", "b", "c", "d", "ef", "g", "hijk", "l", "m", "no", "pq", "rs", "tuvwxyz"]  # first letters of folders


@dataclass
class Outcome:
    """What became of the classes.

    Args:
        compared: Names of those whose losses were compared.
        unread: Of those without a recipe.
        skipped: Name -> why it could not be built or run.
        wrong: How it was wrong.
    """

    compared: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


@functools.cache
def zoo() -> dict[str, list[type]]:
    return classes()


@pytest.fixture(autouse=True)
def quiet():
    before = tf.logging.get_verbosity()
    tf.logging.set_verbosity_error()
    yield
    tf.logging.set_verbosity(before)


def targets(model: Any, task: str) -> Iterator[tuple[str | None, dict[str, torch.Tensor]]]:
    """config.problem_type and the targets of a batch, in every form that some model trains on."""
    rng = torch.Generator().manual_seed(2)
    if task == "question answering":  # some positions lie outside of the text
        yield None, {"start_positions": torch.tensor([3, 999, 0]), "end_positions": torch.tensor([5, 1, 999])}
        yield (
            None,
            {"start_positions": torch.tensor([[3], [999], [-1]]), "end_positions": torch.tensor([[5], [1], [0]])},
        )
    elif task == "multiple choice":
        yield None, {"labels": torch.tensor([1, 0, 1])}
        yield None, {"labels": torch.tensor([1, IGNORED, 1])}
    elif task.endswith(" classification") and task != "token classification":
        shares = torch.rand(ROWS, model.config.num_labels, generator=rng)
        if model.config.num_labels == 1:
            yield from ((None, {"labels": labels}) for labels in (shares, shares[:, 0]))
            return
        one, switches = torch.tensor([1, 0, 1]), (shares > 0.5).float()
        for labels in (one, one[:, None], torch.tensor([0, IGNORED, 1]), torch.tensor([0, -1, 1])):
            yield None, {"labels": labels}
        for labels in (switches, shares, one.float()):
            yield None, {"labels": labels}
        yield "single_label_classification", {"labels": one}
        yield "single_label_classification", {"labels": shares}
        yield "multi_label_classification", {"labels": switches}
        yield "regression", {"labels": shares}
    else:
        number = model.config.num_labels if task == "token classification" else VOCAB - 8
        for length in SHAPES:
            labels = torch.randint(0, number, (ROWS, length), generator=rng)
            labels[0, 3:5] = IGNORED
            yield None, {"labels": labels}
        labels = labels[:, :LENGTH].clone()
        labels[2] = IGNORED  # a row without targets
        yield None, {"labels": labels}


def compare(model: Any, batch: dict[str, torch.Tensor], problem: str | None) -> str | None:
    """None where the batch is trained as it is recorded, else what is wrong; raises what the model raises."""
    model.config.problem_type = problem
    with torch.no_grad():
        outputs = model(**{name: value.clone() for name, value in batch.items()})
    if outputs.loss is None or not outputs.loss.isfinite():
        raise ValueError("The loss is no number.")
    model.config.problem_type = problem
    try:
        found = recipe_for(model).read(outputs, {name: value for name, value in batch.items() if name in READ})
        signals = found.signals(found.gives - {"grad_norm"})
    except ValueError as error:
        return f"refused: {error}"
    if any(values.shape != (ROWS,) for values in signals.values()):
        return "other rows"
    mean = found.terms().sum() / found.is_target.sum()
    if not torch.isclose(mean, outputs.loss.float(), rtol=1e-4, atol=1e-5):
        return f"trained {outputs.loss:.6g}, recorded {mean:.6g}"
    return None


def check(cls: type, outcome: Outcome, **fields) -> None:
    """Compare the class's losses, and enter what became of it."""
    name, why = cls.__name__, "It takes no batch."
    try:
        for model in models(cls, **fields):
            recipe = recipe_for(model)
            if recipe is None:
                outcome.unread.append(name)
                return
            for batch in inputs(model):
                if recipe.task == "multiple choice":
                    batch = {key: value.repeat_interleave(2, 0).unflatten(0, (ROWS, 2)) for key, value in batch.items()}
                found = []
                for problem, more in targets(model, recipe.task):
                    try:
                        found.append((problem, list(more.values())[0], compare(model, batch | more, problem)))
                    except Exception as error:  # of any kind: the model does not train on such a batch
                        why = f"{type(error).__name__}: {error}"
                wrong = [f"{name}: {text} ({problem}, {labels})" for problem, labels, text in found if text]
                if any(text is None for *_, text in found):
                    outcome.compared.append(name)
                    outcome.wrong += [text for text in wrong if "refused" not in text]
                    return
                if wrong:
                    outcome.wrong += wrong
                    return
    except Exception as error:  # of any kind: sizes that do not fit each other, a package that is not installed
        why = f"{type(error).__name__}: {error}"
    outcome.skipped[name] = why


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # some classes warn of their age, some of what has not been installed
@pytest.mark.parametrize("first", GROUPS)
def test_what_is_recorded_is_what_is_trained(first):
    outcome = Outcome()
    for folder, found in zoo().items():
        for cls in found if folder[0] in first else ():
            check(cls, outcome)
    assert not outcome.wrong, "\n".join(outcome.wrong)
    reasons = "\n".join(f"{name}: {why:.150}" for name, why in outcome.skipped.items())
    print(f"{len(outcome.compared)} compared, {len(outcome.unread)} without a recipe, {len(outcome.skipped)} skipped:")
    print(reasons)
    assert len(outcome.compared) >= 15 and len(outcome.compared) > 2 * len(outcome.skipped), reasons


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_one_number_is_recorded_as_it_is_trained():
    outcome = Outcome()
    for found in zoo().values():
        for cls in found:
            if cls.__name__.endswith(("ForSequenceClassification", "ForVideoClassification", "ForAudioClassification")):
                check(cls, outcome, num_labels=1)
    assert not outcome.wrong, "\n".join(outcome.wrong)
    assert len(outcome.compared) > 50


def sparse():
    ids = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2)
    sizes = dict(
        vocab_size=tiny.VOCAB, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
    )
    return tf.ModernBertForMaskedLM(
        tf.ModernBertConfig(**sizes, **ids, global_attn_every_n_layers=1, sparse_prediction=True)
    )


def deberta():
    sizes = dict(
        vocab_size=tiny.VOCAB, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
    )
    quiet = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, pooler_dropout=0.0, cls_dropout=0.0)
    return tf.DebertaV2ForSequenceClassification(tf.DebertaV2Config(**sizes, **quiet, num_labels=3))


@pytest.mark.parametrize("policy", ["infobatch:anneal=1.0", "self_paced"])
@pytest.mark.parametrize(
    ("make", "row"),
    [
        (sparse, lambda rng: tiny.tagged(rng, tiny.VOCAB, share=0.4)),
        (deberta, lambda rng: tiny.text(rng, labels=rng.dirichlet([1, 1, 1]).astype(np.float32).tolist())),
    ],
    ids=["sparse predictions", "shares of classes"],
)
def test_training_records_what_the_model_gives_each_row_alone(tmp_path, make, row, policy):
    rng = np.random.default_rng(1)
    rows = [row(rng) for _ in range(12)]
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        expected = np.array([model(**tiny.Collator()([row])).loss.item() for row in rows])
    ours = tiny.trainer(tmp_path, model, rows, policy, num_train_epochs=3, learning_rate=0.0)
    ours.train()
    seen = ~np.isnan(ours.history.loss)
    assert seen.sum() >= 4
    np.testing.assert_allclose(ours.history.loss[seen], expected[seen], rtol=1e-4)
