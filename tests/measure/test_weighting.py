"""Weights on rows: the gradient by hand, for losses of every kind; the value that is logged; what can't be weighted."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
import transformers as tf
from batches import TASKS as BATCHES
from batches import build, read
from own_losses import (
    CLASSES,
    OwnLoss,
    class_weighted,
    focal,
    mixture,
    regularised,
    sample_weighted,
    scaled,
    smoothed,
    two_passes,
)
from packaging.version import Version
from tiny import STOCK, TASKS, VOCAB, Collator, Net, trainer
from torch.nn import functional as F

from hf_prune import Policy, PruningTrainer, Selection, pruned
from hf_prune.measure.graph import carriers, row_outputs
from hf_prune.measure.prediction import Picked
from hf_prune.measure.weighting import factors_of, reweigh, weigh

# Of EncoderDecoderModel, whenever it computes a loss.
pytestmark = pytest.mark.filterwarnings("ignore:Version v4.12.0 introduces a better way:FutureWarning")
WEIGHTS = (0.25, 3.0, 1.0, 0.5, 2.0, 1.5)
N = len(WEIGHTS)


@dataclass(frozen=True)
class Weighted(Policy):
    """Keeps everything at the weights it was given, from the first batch on or from a later round."""

    weighs: ClassVar[bool] = True
    weights: tuple[float, ...] = WEIGHTS
    first: int = 0

    def select(self, history, clock, rng):
        rows = np.arange(len(history))
        return Selection(rows, np.array(self.weights, np.float32) if clock.round >= self.first else None)


class Gradients(tf.TrainerCallback):
    """Notes the gradients of each step."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **more):
        found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        self.steps.append(found)


def first_step(cls, folder, model, rows, policy, **settings) -> dict[str, torch.Tensor]:
    """The gradients of one step over all of the rows."""
    seen = Gradients()
    own = {"data_collator": Collator()} | {name: settings.pop(name) for name in _OWN & set(settings)}
    given = dict(per_device_train_batch_size=N, max_steps=1, optim="sgd", max_grad_norm=0.0, learning_rate=0.0)
    quiet = dict(use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="no", seed=3)
    args = tf.TrainingArguments(str(folder), **quiet | given | settings)
    cls(model=model, args=args, train_dataset=rows, policy=policy, callbacks=[seen], **own).train()
    return seen.steps[0]


_OWN = {"data_collator", "example_loss_func", "compute_loss_func"}


def gradients_of(model, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    names, parameters = zip(*((name, p) for name, p in model.named_parameters() if p.requires_grad), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {name: value for name, value in zip(names, found, strict=True) if value is not None}


def assert_equal(got: dict, expected: dict, tolerance: float = 2e-6):
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


# ---- On the graph alone ----


@pytest.mark.parametrize("name", BATCHES)
def test_the_models_own_loss_has_the_gradient_of_the_weighted_one(name):
    model, batch = build(name)
    weights = torch.tensor([2.0, 1.0, 0.5, 3.0])
    outputs = model(**batch)
    terms = read(model, batch, outputs).terms()
    count = read(model, batch, outputs).is_target.sum()
    expected = gradients_of(model, (weights[:, None] * terms).sum() / count)
    outputs = model(**batch)
    prediction = read(model, batch, outputs)
    picked = prediction if isinstance(prediction, Picked) else None
    found = row_outputs(outputs, len(weights), None, picked and picked.at)
    names = carriers(outputs.loss, found)
    assert set(names) == ({"start_logits", "end_logits"} if name == "answer" else {"logits"})
    before = outputs.loss.item()
    for each in names:
        weigh(found[each], factors_of(weights, found[each], None, picked), lambda: True)
    assert outputs.loss.item() == before
    largest = max(value.abs().max() for value in expected.values())
    for part, value in gradients_of(model, outputs.loss).items():
        torch.testing.assert_close(value, expected[part], rtol=1e-5, atol=float(largest) * 1e-6, msg=part)


@pytest.mark.parametrize("name", BATCHES)
def test_so_has_the_loss_with_the_rows_losses_weighted_beside_it(name):
    model, batch = build(name)
    weights = torch.tensor([2.0, 1.0, 0.5, 3.0])
    outputs = model(**batch)
    prediction = read(model, batch, outputs)
    terms, scale = prediction.terms(), 1 / prediction.is_target.sum()
    got = reweigh(outputs.loss + 0.3, terms, weights, scale)  # a constant beside it changes nothing
    torch.testing.assert_close(got, outputs.loss + 0.3)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    ours = torch.autograd.grad(got, parameters, retain_graph=True, allow_unused=True)
    theirs = torch.autograd.grad((weights[:, None] * terms).sum() * scale, parameters, allow_unused=True)
    largest = max(float(value.abs().max()) for value in theirs if value is not None)
    for got, wanted in zip(ours, theirs, strict=True):
        assert (got is None) == (wanted is None)
        if got is not None:
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=largest * 1e-6)


def test_a_factor_that_is_not_given_is_that_of_the_loss():
    terms = torch.tensor([[1.0, 2.0], [3.0, 0.0]], requires_grad=True)
    reweigh(0.37 * terms.sum(), terms, torch.tensor([2.0, 0.5])).backward()
    torch.testing.assert_close(terms.grad, 0.37 * torch.tensor([[2.0, 2.0], [0.5, 0.5]]))


@pytest.mark.parametrize("loss", [np.nan, np.inf, 0.0, -1.0])
def test_without_a_factor_above_zero_the_gradient_stays(loss):
    terms = torch.ones(2, 1, requires_grad=True)
    reweigh(terms.sum() * 0.5 + (loss - 1), terms, torch.tensor([2.0, 3.0])).backward()
    torch.testing.assert_close(terms.grad, torch.full((2, 1), 0.5))


def test_weights_without_a_graph_are_refused():
    loss = torch.ones((), requires_grad=True) * 2
    with pytest.raises(ValueError, match="gradients enabled"):
        reweigh(loss, torch.ones(2, 1), torch.ones(2))


def test_the_type_of_the_loss_stays():
    terms = torch.ones(2, 1, requires_grad=True)
    loss = torch.tensor(1.0, dtype=torch.bfloat16)
    assert reweigh(loss, terms, torch.tensor([1.0, 3.0])).dtype == torch.bfloat16


def test_a_weight_is_not_rounded_to_the_type_of_the_outputs():
    output = (torch.ones(2, 1024, requires_grad=True) * 1).bfloat16()
    carrier = output.clone()
    weigh(carrier, torch.tensor([1 / 0.7, 1.0]), lambda: True)
    rows = torch.rand(2, 1024)
    (got,) = torch.autograd.grad((carrier.float() * rows).sum(), output)
    torch.testing.assert_close(got[0], (rows[0].bfloat16().float() / 0.7).bfloat16(), rtol=0, atol=0)


def test_joined_rows_have_their_weights_at_their_places():
    parts = torch.tensor([[True, True, False, False], [False, False, True, False]])
    got = factors_of(torch.tensor([2.0, 3.0]), torch.zeros(1, 4, 5), parts)
    torch.testing.assert_close(got, torch.tensor([[2.0, 2.0, 3.0, 1.0]]))


# ---- Through the trainer: other losses ----


def classifier():
    return TASKS["one label"].model(dropout=0.0, spread=0.3)


ROWS = [row | {"share": share} for row, share in zip(TASKS["one label"].rows(N), (1, 2, 3, 4, 5, 6), strict=True)]
LOSSES = [class_weighted, sample_weighted, focal, smoothed, scaled, regularised, two_passes]


def expected_gradients(kind) -> dict[str, torch.Tensor]:
    model = classifier()
    batch = {name: value for name, value in Collator()(ROWS).items()}
    outputs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    losses, rest = kind(outputs, batch, model)
    return gradients_of(model, (torch.tensor(WEIGHTS) * losses).sum() + rest)


@pytest.mark.parametrize("with_func", [False, True], ids=["", "with example_loss_func"])
@pytest.mark.parametrize("kind", LOSSES, ids=lambda kind: kind.__name__)
class TestLossOfOnesOwn:
    def settings(self, kind, with_func):
        if not with_func:
            return {}
        return {"example_loss_func": lambda outputs, inputs: F.cross_entropy(
            outputs.logits, inputs["labels"], reduction="none",
            weight=CLASSES if kind is class_weighted else None,
        )}  # fmt: skip

    def test_under_the_class_that_pruned_makes(self, tmp_path, kind, with_func):
        cls = pruned(type("Mine", (OwnLoss,), {"losses": staticmethod(kind)}))
        got = first_step(cls, tmp_path, classifier(), ROWS, Weighted(), **self.settings(kind, with_func))
        assert_equal(got, expected_gradients(kind))

    def test_without_a_call_of_the_librarys(self, tmp_path, kind, with_func):
        names = {"losses": staticmethod(kind), "compute_loss": OwnLoss.compute_loss, "__init__": made}
        cls = type("Mine", (PruningTrainer,), names)
        got = first_step(cls, tmp_path, classifier(), ROWS, Weighted(), **self.settings(kind, with_func))
        assert_equal(got, expected_gradients(kind))


def made(self, *args, **kwargs):
    PruningTrainer.__init__(self, *args, **kwargs)
    self.args.remove_unused_columns = False


class Half(PruningTrainer):
    """Adds a term of the logits to what the library's `compute_loss` gives."""

    def compute_loss(self, model, inputs, return_outputs=False, **more):
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **more)
        loss = loss + 0.1 * outputs.logits.square().sum()
        return (loss, outputs) if return_outputs else loss


def test_a_call_of_the_librarys_with_a_term_beside_it_is_weighted_once(tmp_path):
    got = first_step(Half, tmp_path, classifier(), TASKS["one label"].rows(N), Weighted())
    model, batch = classifier(), Collator()(TASKS["one label"].rows(N))
    logits = model(**batch).logits
    losses = F.cross_entropy(logits, batch["labels"], reduction="none") / N + 0.1 * logits.square().sum(1)
    assert_equal(got, gradients_of(model, (torch.tensor(WEIGHTS) * losses).sum()))


@dataclass
class Scores:
    """Outputs in a class that is no mapping."""

    loss: torch.Tensor
    scores: torch.Tensor


class Manifold(torch.nn.Module):
    """Gives its logits beside what they are made of, or more than once; a part of its loss may be of the former."""

    def __init__(self, gives, share: float = 0.0):
        super().__init__()
        torch.manual_seed(0)
        self.gives, self.share = gives, share
        self.embedding, self.head = torch.nn.Embedding(VOCAB, 16), torch.nn.Linear(16, 3)

    def forward(self, input_ids, attention_mask, labels):
        states = (self.embedding(input_ids) * attention_mask.unsqueeze(-1)).sum(1)
        logits = self.head(states)
        loss = F.cross_entropy(logits, labels) + self.share * states.square().sum(1).mean()
        return self.gives(loss, logits, states)


def loss_of(model, inputs):
    outputs = model(**inputs)
    if isinstance(outputs, Scores):
        return outputs.loss
    return outputs[0 if isinstance(outputs, tuple) else "loss"]


class Plain(tf.Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return loss_of(model, inputs)


class Apart(PruningTrainer):
    compute_loss = Plain.compute_loss


GIVES = {
    "states": lambda loss, logits, states: (loss, logits, states),
    "states first": lambda loss, logits, states: (loss, states, logits),
    "twice": lambda loss, logits, states: (loss, logits, logits),
    "two names": lambda loss, logits, states: {"loss": loss, "logits": logits, "class_logits": logits},
    "a copy": lambda loss, logits, states: {"loss": loss, "logits": logits, "wide_logits": logits.double()},
    "a view": lambda loss, logits, states: {"loss": loss, "logits": logits, "flat_logits": logits.flatten(1)},
    "an object": lambda loss, logits, states: Scores(loss, logits),
}


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("cls", [pruned(Plain), Apart], ids=["", "without a call of the library's"])
@pytest.mark.parametrize("gives", GIVES)
def test_each_gradient_is_weighted_once_whatever_outputs_it_comes_through(tmp_path, gives, cls, share):
    """A term of the states beside the logits stays unweighted."""
    rows = TASKS["one label"].rows(N)

    @dataclass(frozen=True)
    class Blind(Weighted):
        needs: ClassVar[frozenset] = frozenset()

    got = first_step(cls, tmp_path, Manifold(GIVES[gives], share), rows, Blind())
    model, batch = Manifold(GIVES["states"]), Collator()(rows)
    _, logits, states = model(**batch)
    losses = F.cross_entropy(logits, batch["labels"], reduction="none")
    rest = share * states.square().sum(1).mean()
    assert_equal(got, gradients_of(model, (torch.tensor(WEIGHTS) * losses).sum() / N + rest), tolerance=1e-5)


@pytest.mark.parametrize(("experts", "chosen"), [(2, 1), (16, 8)])
def test_the_balance_of_a_mixtures_router_stays_unweighted(tmp_path, experts, chosen):
    if Version(tf.__version__) < Version("5.20"):
        pytest.skip("counted the targets of a step in another way")
    rows = TASKS["llama"].rows(N)
    got = first_step(PruningTrainer, tmp_path, mixture(experts, chosen), rows, Weighted())
    model, batch = mixture(experts, chosen), Collator()(rows)
    outputs = model(**batch)
    labels = F.pad(batch["labels"], (0, 1), value=-100)[:, 1:]
    losses = F.cross_entropy(outputs.logits.transpose(1, 2), labels, reduction="none").sum(1)
    loss = (torch.tensor(WEIGHTS) * losses).sum() / (labels != -100).sum() + 0.5 * outputs.aux_loss
    assert_equal(got, gradients_of(model, loss))


@pytest.mark.parametrize("name", ["one label", "many labels", "number", "answer", "t5", "image", "llama", "masked"])
@pytest.mark.parametrize("kind", ["weights in bfloat16", "bf16=True"])
def test_twice_the_weight_is_twice_the_gradient_in_half_precision(tmp_path, name, kind):
    def step(weight):
        model = TASKS[name].model(dropout=0.0, spread=0.1)
        if kind == "weights in bfloat16":
            model = model.bfloat16()
        collate = Collator()

        def collator(rows):
            batch = collate(rows)
            return {k: v.to(model.dtype) if k == "pixel_values" else v for k, v in batch.items()}

        settings = dict(bf16=kind == "bf16=True", data_collator=collator)
        return first_step(PruningTrainer, tmp_path, model, TASKS[name].rows(N), Weighted((weight,) * N), **settings)

    once, twice = step(1.0), step(2.0)
    assert once.keys() == twice.keys() and any(value.abs().max() > 0 for value in once.values())
    for part, value in once.items():
        assert torch.equal(2 * value, twice[part]), part


def sparse(is_sparse: bool):
    torch.manual_seed(0)
    ids = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2)
    sizes = dict(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24)
    return tf.ModernBertForMaskedLM(
        tf.ModernBertConfig(**ids, **sizes, max_position_embeddings=32, global_attn_every_n_layers=1,
                            attn_implementation="eager", sparse_prediction=is_sparse)
    )  # fmt: skip


def test_logits_of_some_positions_alone_are_weighted_by_their_rows(tmp_path):
    rows = TASKS["masked"].rows(N)
    dense, picked = (
        first_step(PruningTrainer, tmp_path, sparse(is_sparse), rows, Weighted()) for is_sparse in (False, True)
    )
    assert_equal(picked, dense)
    other = first_step(PruningTrainer, tmp_path, sparse(True), rows, Weighted((1.0,) * N))
    assert max((other[name] - dense[name]).abs().max() for name in dense) > 1e-3


def test_a_batch_without_targets_trains_on(tmp_path):
    rows = [row | {"labels": [-100] * len(row["input_ids"])} for row in TASKS["llama"].rows(N)]
    got = first_step(PruningTrainer, tmp_path, TASKS["llama"].model(dropout=0.0), rows, Weighted())
    assert all((value == 0).all() for value in got.values())


# ---- Rows without outputs of their own: their losses are weighted ----


class Tied(torch.nn.Module):
    """Gives a loss, and what it is made of under a name and in a shape that say nothing."""

    def __init__(self, factor=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.factor = Net(dict, dropout=0.0), factor

    def forward(self, input_ids, attention_mask, labels):
        hidden = self.net(input_ids, attention_mask, labels)["logits"]
        losses = F.cross_entropy(hidden, labels, reduction="none")
        return {"loss": self.factor * losses.sum(), "states": hidden.T, "labels": labels}


def of_states(outputs, inputs):
    return F.cross_entropy(outputs["states"].T, inputs["labels"], reduction="none")


@pytest.mark.parametrize("factor", [1.0, 0.07])
def test_losses_of_the_users_are_believed_whatever_their_factor(tmp_path, factor):
    rows = TASKS["one label"].rows(N)
    got = first_step(PruningTrainer, tmp_path, Tied(factor), rows, Weighted(), example_loss_func=of_states)
    model, batch = Tied(factor), Collator()(rows)
    losses = of_states(model(**batch), batch)
    assert_equal(got, gradients_of(model, factor * (torch.tensor(WEIGHTS) * losses).sum()))


def test_losses_without_a_gradient_are_refused_before_the_first_step(tmp_path):
    def detached(outputs, inputs):
        return of_states(outputs, inputs).detach()

    own = trainer(tmp_path, Tied(), TASKS["one label"].rows(N), Weighted(first=1), example_loss_func=detached)
    with pytest.raises(ValueError, match=r"example_loss_func that carry no gradient.*'uniform'"):
        own.train()
    assert own.state.global_step == 0


def test_what_has_no_part_for_each_row_is_refused_before_the_first_step(tmp_path):
    @dataclass(frozen=True)
    class Blind(Weighted):
        needs: ClassVar[frozenset] = frozenset()

    own = trainer(tmp_path, Tied(), TASKS["one label"].rows(N), Blind(first=1))
    with pytest.raises(ValueError, match=r"weights rows, but the loss of Tied has no part .* Give example_loss_func"):
        own.train()
    assert own.state.global_step == 0


def test_a_loss_that_the_librarys_step_never_sees_is_refused_before_the_first_step(tmp_path):
    class Mine(PruningTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, **more):
            return model(**inputs)["states"].square().sum()

    model, rows = Tied(), TASKS["one label"].rows(N)
    with pytest.raises(ValueError, match=r"weights rows, but the loss of Tied is not made of the model's logits"):
        first_step(Mine, tmp_path, model, rows, Weighted(first=1), example_loss_func=of_states)


class Hidden(tf.BertForSequenceClassification):
    """Its logits are a copy that its loss is not made of, as a compiled model's are to autograd."""

    extra, factor, shows = 0.0, 1.0, True

    def forward(self, input_ids, attention_mask, labels):
        outputs = super().forward(input_ids, attention_mask)
        again = super().forward(input_ids, attention_mask)
        loss = F.cross_entropy(again.logits, labels) * self.factor
        grows = 0.0 if self.extra == 0 else self.extra * again.logits.square().mean()
        return type(outputs)(loss=loss + grows, logits=outputs.logits if self.shows else outputs.logits.detach())


def hidden(extra=0.0, factor=1.0):
    torch.manual_seed(0)
    model = Hidden(TASKS["one label"].model(dropout=0.0).config)
    model.extra, model.factor = extra, factor
    return model


def test_where_the_graph_hides_the_logits_the_usual_factor_is_taken(tmp_path):
    rows = TASKS["one label"].rows(N)
    got = first_step(PruningTrainer, tmp_path, hidden(1e-4), rows, Weighted())
    model, batch = hidden(1e-4), Collator()(rows)
    outputs = model(**batch)
    losses = F.cross_entropy(outputs.logits, batch["labels"], reduction="none")
    assert_equal(got, gradients_of(model, outputs.loss + ((torch.tensor(WEIGHTS) - 1) * losses).sum() / N))


def test_a_term_that_outgrows_the_rows_there_ends_no_run(tmp_path):
    model = hidden(1e-3)
    own = trainer(tmp_path, model, TASKS["one label"].rows(24), "infobatch", num_train_epochs=8, learning_rate=0.05)

    class Outgrow(tf.TrainerCallback):
        def on_epoch_end(self, args, state, control, **more):
            model.extra *= 4

    own.add_callback(Outgrow())
    own.train()
    assert own.state.epoch == 8


def test_another_factor_there_is_refused_before_the_first_step(tmp_path):
    own = trainer(tmp_path, hidden(factor=0.5), TASKS["one label"].rows(N), "infobatch")
    with pytest.raises(ValueError, match=r"the loss of Hidden is [\d.]+ on a batch.*Give example_loss_func"):
        own.train()
    assert own.state.global_step == 0


def test_logits_without_a_gradient_there_are_refused_before_the_first_step(tmp_path):
    model = hidden()
    model.shows = False
    own = trainer(tmp_path, model, TASKS["one label"].rows(N), "infobatch")
    with pytest.raises(ValueError, match=r"the loss of Hidden can't be weighted by logits that carry no gradient"):
        own.train()
    assert own.state.global_step == 0


def test_what_was_chosen_there_is_kept_on_resume(tmp_path):
    settings = dict(num_train_epochs=4, save_strategy="steps", save_steps=1)
    own = trainer(tmp_path, hidden(1e-4), TASKS["one label"].rows(24), "infobatch", **settings)
    own.train()
    again = trainer(tmp_path, hidden(1.0), TASKS["one label"].rows(24), "infobatch", **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
    assert again.state.epoch == 4


# ---- What is logged ----


def test_the_loss_that_is_logged_is_that_of_the_rows_trained(tmp_path):
    """With a learning rate of 0, which leaves every row's loss as it is."""
    rows = TASKS["one label"].rows(24)
    settings = dict(learning_rate=0.0, num_train_epochs=8, logging_strategy="epoch", per_device_train_batch_size=24)
    kept = []

    class Note(tf.TrainerCallback):
        def on_epoch_end(self, args, state, control, **more):
            kept.append(own.selection)

    own = trainer(tmp_path, classifier(), rows, "infobatch:anneal=0.8", callbacks=[Note()], **settings)
    own.train()
    losses = own.history.loss
    logs = [log for log in own.state.log_history if "loss" in log]
    assert sum(chosen.weights is not None for chosen in kept) >= 4
    for log, chosen in zip(logs, kept, strict=True):
        assert log["loss"] == pytest.approx(losses[chosen.rows].mean(), abs=1e-4)
        if chosen.weights is None:
            assert "prune/loss_weighted" not in log
        else:
            expected = np.average(losses[chosen.rows], weights=chosen.weights)
            assert log["prune/loss_weighted"] == pytest.approx(expected, abs=1e-4)


def test_keeping_everything_is_the_stock_trainer_under_a_policy_that_weighs(tmp_path):
    rows = TASKS["one label"].rows(24)
    ends = []
    for policy in (STOCK, dataclasses.replace(Weighted(), first=10**6)):
        model = TASKS["one label"].model()
        trainer(tmp_path, model, rows, policy, num_train_epochs=3).train()
        ends.append(model.state_dict())
    for name in ends[0]:
        assert torch.equal(ends[0][name], ends[1][name]), name


@pytest.mark.filterwarnings("ignore:.*:UserWarning:torch")
def test_a_compiled_model_is_weighted_alike(tmp_path):
    rows = TASKS["one label"].rows(N)
    plain = first_step(PruningTrainer, tmp_path, classifier(), rows, Weighted())
    compiled = dict(torch_compile=True, torch_compile_backend="aot_eager")
    assert_equal(first_step(PruningTrainer, tmp_path, classifier(), rows, Weighted(), **compiled), plain)
