"""The trainers of sentence-transformers: their own batches over the kept rows, and the losses that rows have alone."""

import gc
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import ranks
import torch
import transformers as tf
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import distributed
from torch.nn import functional as F

pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")

from sentence_transformers import (  # noqa: E402
    CrossEncoder,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    SparseEncoder,
    SparseEncoderTrainer,
    SparseEncoderTrainingArguments,
)
from sentence_transformers.base.sampler import DefaultBatchSampler, NoDuplicatesBatchSampler  # noqa: E402
from sentence_transformers.cross_encoder import losses as of_pairs  # noqa: E402
from sentence_transformers.sentence_transformer import losses  # noqa: E402
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer  # noqa: E402
from sentence_transformers.sparse_encoder import losses as sparse  # noqa: E402
from sentence_transformers.sparse_encoder.modules import SpladePooling  # noqa: E402

from hf_prune import Policy, PruningMixin, Selection, pruned  # noqa: E402

SPECIAL, WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], [f"w{n}" for n in range(25)]
WIDTH, N = 16, 22
KEEP, INFOBATCH = "uniform:keep=1.0", "infobatch:ratio=0.5,anneal=1.0"
CLOCKS = ("train_runtime", "train_samples_per_second", "train_steps_per_second")
PAGE = (Path(__file__).parents[2] / "hf_prune" / "train" / "README.md").read_text(encoding="utf-8")

gc.freeze()  # each train() collects garbage, most of a second with all that is imported by now


# ---- Models and rows ----


def tokenizer() -> tf.PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(SPECIAL + WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = dict(special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    words.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", **ends)
    return tf.BertTokenizerFast(tokenizer_object=words)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Where tiny models of each kind lie."""
    made = {}
    for kind, labels in (("BertModel", 1), ("BertForMaskedLM", 1), ("one", 1), ("three", 3)):
        torch.manual_seed(0)
        sizes = dict(hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24)
        config = tf.BertConfig(vocab_size=len(SPECIAL + WORDS), **sizes, max_position_embeddings=64, num_labels=labels)
        model = getattr(tf, kind, tf.BertForSequenceClassification)(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
        made[kind] = str(tmp_path_factory.mktemp(kind))
        model.save_pretrained(made[kind])
        tokenizer().save_pretrained(made[kind])
    return made


def embedder(folders):
    body = Transformer(folders["BertModel"])
    return SentenceTransformer(modules=[body, Pooling(WIDTH)], device="cpu")


def splade(folders):
    body = Transformer(folders["BertForMaskedLM"], transformer_task="fill-mask")
    return SparseEncoder(modules=[body, SpladePooling("max")], device="cpu")


def judge(folders, kind="one"):
    return CrossEncoder(folders[kind], device="cpu")


def sentence(rng) -> str:
    return " ".join(rng.choice(WORDS, rng.integers(2, 9)))


ROWS = {
    "pairs": (2, lambda rng: {}),
    "triplets": (3, lambda rng: {}),
    "scored": (2, lambda rng: {"score": float(rng.random())}),
    "binary": (2, lambda rng: {"label": int(rng.integers(2))}),
    "classed pairs": (2, lambda rng: {"label": int(rng.integers(3))}),
    "classed": (1, lambda rng: {"label": int(rng.integers(3))}),
    "taught": (2, lambda rng: {"label": rng.standard_normal(WIDTH).tolist()}),
    "taught apart": (2, lambda rng: {"label": rng.standard_normal((2, WIDTH)).tolist()}),
    "taught sparsely": (2, lambda rng: {"label": rng.random(len(SPECIAL + WORDS)).tolist()}),
    "margins": (3, lambda rng: {"label": float(rng.random())}),
    "many margins": (4, lambda rng: {"label": rng.random(2).tolist()}),
    "teachers": (3, lambda rng: {"label": rng.random(2).tolist()}),
}


def rows(kind: str, n: int = N) -> Dataset:
    rng = np.random.default_rng(1)
    columns, more = ROWS[kind]
    return Dataset.from_list([{f"text{k}": sentence(rng) for k in range(columns)} | more(rng) for _ in range(n)])


KINDS = {
    SentenceTransformerTrainer: (embedder, SentenceTransformerTrainingArguments),
    SparseEncoderTrainer: (splade, SparseEncoderTrainingArguments),
    CrossEncoderTrainer: (judge, CrossEncoderTrainingArguments),
}


def make(folders, folder, kind, loss, policy=None, cls=SentenceTransformerTrainer, make_cls=pruned, **settings):
    """The stock trainer where there is no policy."""
    own = {name: settings.pop(name) for name in ("example_loss_func", "callbacks", "eval_dataset") if name in settings}
    make_model, make_args = KINDS[cls]
    model = settings.pop("model", make_model)(folders)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout) and settings.get("learning_rate") == 0.0:
            module.p = 0.0
    quiet = dict(use_cpu=True, report_to=[], disable_tqdm=True, logging_steps=1, save_strategy="no", seed=3)
    settings = dict(per_device_train_batch_size=4, num_train_epochs=3, learning_rate=1e-2) | settings
    data = rows(kind) if isinstance(kind, str) else kind
    torch.manual_seed(0)  # some losses have weights
    if policy is not None:
        own["policy"] = policy
    subject = (cls if policy is None else make_cls(cls))(
        model=model, args=make_args(str(folder), **quiet | settings), train_dataset=data, loss=loss(model), **own
    )
    subject.seen = []
    return subject


def train(*args, **settings):
    ours = make(*args, **settings)
    ours.train()
    return ours


def logs(ours) -> list[dict]:
    skipped = {*CLOCKS, *(name for entry in ours.state.log_history for name in entry if name.startswith("prune/"))}
    return [{name: value for name, value in entry.items() if name not in skipped} for entry in ours.state.log_history]


def same(ours, stock):
    assert logs(ours) == logs(stock)
    assert ours.state.global_step == stock.state.global_step > 1
    weights = stock.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in ours.model.state_dict().items())


def watched(cls):
    """Notes the rows of each batch."""

    class Watched(pruned(cls)):
        def training_step(self, model, inputs, *args, **kwargs):
            self.seen.append(inputs["hf_prune_row"].tolist())
            return super().training_step(model, inputs, *args, **kwargs)

    return Watched


# ---- Losses ----


def regularized(inner):
    return lambda model: sparse.SpladeLoss(model, inner(model), document_regularizer_weight=3e-2)


# name -> trainer, kind of rows, loss, settings: those whose rows have a loss each
ALONE = {
    "cosine": (SentenceTransformerTrainer, "scored", losses.CosineSimilarityLoss, {}),
    "contrastive": (SentenceTransformerTrainer, "binary", losses.ContrastiveLoss, {}),
    "contrastive, summed": (
        SentenceTransformerTrainer,
        "binary",
        lambda model: losses.ContrastiveLoss(model, size_average=False),
        {},
    ),
    "triplet": (SentenceTransformerTrainer, "triplets", losses.TripletLoss, {}),
    "MSE": (SentenceTransformerTrainer, "taught", losses.MSELoss, {}),
    "MSE, teachers apart": (SentenceTransformerTrainer, "taught apart", losses.MSELoss, {}),
    "distilled": (SentenceTransformerTrainer, "taught", losses.EmbedDistillLoss, {}),
    "margin MSE": (SentenceTransformerTrainer, "margins", losses.MarginMSELoss, {}),
    "margins MSE": (SentenceTransformerTrainer, "many margins", losses.MarginMSELoss, {}),
    "divergence": (SentenceTransformerTrainer, "teachers", losses.DistillKLDivLoss, {}),
    "softmax": (
        SentenceTransformerTrainer,
        "classed pairs",
        lambda model: losses.SoftmaxLoss(model, WIDTH, 3, concatenation_sent_multiplication=True),
        {},
    ),
    "sparse MSE": (SparseEncoderTrainer, "taught sparsely", sparse.SparseMSELoss, {}),
    "binary cross-entropy": (CrossEncoderTrainer, "binary", of_pairs.BinaryCrossEntropyLoss, {}),
    "cross-entropy": (
        CrossEncoderTrainer,
        "classed pairs",
        of_pairs.CrossEntropyLoss,
        {"model": lambda folders: judge(folders, "three")},
    ),
    "MSE of pairs": (CrossEncoderTrainer, "scored", of_pairs.MSELoss, {}),
    "margin MSE of pairs": (CrossEncoderTrainer, "margins", of_pairs.MarginMSELoss, {}),
    "margins MSE of pairs": (CrossEncoderTrainer, "many margins", of_pairs.MarginMSELoss, {}),
}
# and those whose rows are compared with each other
TOGETHER = {
    "multiple negatives": (SentenceTransformerTrainer, "pairs", losses.MultipleNegativesRankingLoss, {}),
    "cached negatives": (SentenceTransformerTrainer, "pairs", losses.CachedMultipleNegativesRankingLoss, {}),
    "CoSENT": (SentenceTransformerTrainer, "scored", losses.CoSENTLoss, {}),
    "angle": (SentenceTransformerTrainer, "scored", losses.AnglELoss, {}),
    "online": (SentenceTransformerTrainer, "binary", losses.OnlineContrastiveLoss, {}),
    "all triplets": (
        SentenceTransformerTrainer,
        "classed",
        losses.BatchAllTripletLoss,
        dict(batch_sampler="group_by_label"),
    ),
    "Matryoshka": (
        SentenceTransformerTrainer,
        "scored",
        lambda model: losses.MatryoshkaLoss(model, losses.CosineSimilarityLoss(model), [WIDTH, WIDTH // 2]),
        {},
    ),
    "sparse negatives": (SparseEncoderTrainer, "pairs", regularized(sparse.SparseMultipleNegativesRankingLoss), {}),
    "negatives of pairs": (CrossEncoderTrainer, "pairs", of_pairs.MultipleNegativesRankingLoss, {}),
}
REGULARIZED = {"sparse triplet": (SparseEncoderTrainer, "triplets", regularized(sparse.SparseTripletLoss), {})}
CASES = ALONE | TOGETHER | REGULARIZED


@pytest.mark.parametrize("name", CASES)
def test_keeping_every_row_is_the_stock_trainer(folders, tmp_path, name):
    cls, kind, loss, settings = CASES[name]
    settings = dict(cls=cls, num_train_epochs=2, gradient_accumulation_steps=2) | settings
    stock = train(folders, tmp_path, kind, loss, **settings)
    same(train(folders, tmp_path, kind, loss, KEEP, **settings), stock)


def losses_alone(ours, data, loss) -> list[float]:
    """The stock loss of each row, in a batch of its own."""
    found = []
    with torch.no_grad():
        for row in data:
            inputs = ours.data_collator([row])
            part, ours.loss = ours.loss, loss
            found.append(ours.compute_loss(ours.model, inputs).item())
            ours.loss = part
    return found


@pytest.mark.parametrize("name", ALONE | REGULARIZED)
def test_each_row_has_its_own_loss(folders, tmp_path, name):
    policy = "self_paced" if name in REGULARIZED else INFOBATCH  # which needs a loss that it can weight
    cls, kind, loss, settings = CASES[name]
    ours = train(folders, tmp_path, kind, loss, policy, cls=cls, learning_rate=0.0, **settings)
    own = losses.TripletLoss(ours.model) if name in REGULARIZED else ours.loss
    expected = np.array(losses_alone(ours, rows(kind), own))
    assert np.diff(np.sort(expected)).min() >= 0 and len(np.unique(expected)) > N / 2
    np.testing.assert_allclose(ours.history.loss, expected, rtol=1e-4, atol=1e-5)
    assert (ours.history.faults == 0).all() and (ours.history.last_round >= 0).all()


@dataclass(frozen=True)
class Weighted(Policy):
    """Keeps everything at given weights."""

    weights: tuple[float, ...]
    weighs = True
    needs = frozenset({"loss"})

    def select(self, history, clock, rng):
        return Selection(np.arange(len(history)), np.array(self.weights, np.float32))


@pytest.mark.parametrize("name", ["cosine", "triplet", "MSE", "margins MSE", "softmax", "cross-entropy"])
def test_weights_scale_the_loss_row_by_row(folders, tmp_path, name):
    """Rows that weigh nothing but for one: the gradient is that row's share of the stock one."""
    cls, kind, loss, more = CASES[name]

    def gradients(weights):
        found = []

        class Noted(watched(cls)):
            def training_step(self, model, *args, **kwargs):
                loss = super().training_step(model, *args, **kwargs)
                found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
                return loss

        settings = dict(learning_rate=0.0, num_train_epochs=1, max_steps=1) | more
        ours = train(folders, tmp_path, kind, loss, Weighted(weights), cls, lambda _: Noted, **settings)
        return ours.seen[0], found[0]

    batch, whole = gradients((1.0,) * N)
    one, others = (
        gradients(tuple(high if row == batch[1] else low for row in range(N)))[1]
        for high, low in ((1.0, 1e-9), (1e-9, 1.0))
    )
    assert (one + others - whole).norm() < 1e-4 * whole.norm() and one.norm() > 1e-3 * whole.norm()


@pytest.mark.parametrize("name", TOGETHER)
def test_scores_of_batches_stand_in_with_a_warning(folders, tmp_path, name, caplog):
    cls, kind, loss, settings = CASES[name]
    with caplog.at_level(logging.WARNING, "hf_prune"):
        ours = train(folders, tmp_path, kind, loss, INFOBATCH, cls, watched, num_train_epochs=1, **settings)
    assert "goes by the mean losses of the batches that a row was in" in caplog.text
    found = [entry["loss"] for entry in ours.state.log_history if "loss" in entry]
    for batch, loss_of_batch in zip(ours.seen, found, strict=True):
        np.testing.assert_allclose(ours.history.loss[batch], loss_of_batch, rtol=1e-5)


def test_regularizers_are_no_rows(folders, tmp_path, caplog):
    cls, kind, loss, _ = CASES["sparse triplet"]
    with caplog.at_level(logging.WARNING, "hf_prune"):
        train(folders, tmp_path, kind, loss, INFOBATCH, cls)
    assert "goes by the mean losses of the batches" in caplog.text


class Subclass(losses.CosineSimilarityLoss):
    """May do anything."""


def test_a_loss_of_the_users_own_is_taken_by_batches_or_by_example_loss_func(folders, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "hf_prune"):
        train(folders, tmp_path, "scored", Subclass, INFOBATCH)
    assert "goes by the mean losses of the batches" in caplog.text
    shapes = []

    def squares(outputs, inputs):
        shapes.append([tuple(embeddings.shape) for embeddings in outputs])
        return (torch.cosine_similarity(*outputs) - inputs["label"]).square()

    ours = train(folders, tmp_path, "scored", Subclass, INFOBATCH, learning_rate=0.0, example_loss_func=squares)
    assert shapes[0] == [(4, WIDTH), (4, WIDTH)]
    expected = losses_alone(ours, rows("scored"), ours.loss)
    np.testing.assert_allclose(ours.history.loss, expected, rtol=1e-4, atol=1e-5)


def test_the_function_of_the_page_gives_each_anchors_loss(folders, tmp_path):
    (code,) = re.findall(r"```python\n(def in_batch.*?)```", PAGE, re.DOTALL)
    functions, found = {"torch": torch, "cross_entropy": F.cross_entropy}, []
    exec(code, functions)

    def noted(outputs, inputs):
        found.append(functions["in_batch"](outputs, inputs))
        return found[-1]

    case = (folders, tmp_path, "pairs", losses.MultipleNegativesRankingLoss)
    ours = train(*case, INFOBATCH, example_loss_func=noted, num_train_epochs=1)
    stock = [entry["loss"] for entry in ours.state.log_history if "loss" in entry]
    assert [mine.mean().item() for mine in found] == pytest.approx(stock, rel=1e-4)


# ---- Batches ----


@dataclass(frozen=True)
class Shrinking(Policy):
    """Keeps 16 rows, then 13, then 10."""

    def select(self, history, clock, rng):
        return Selection(np.sort(rng.permutation(len(history))[: 16 - 3 * clock.epoch]))


@dataclass(frozen=True)
class Halves(Policy):
    """Two rounds an epoch, each of all that it is offered."""

    rounds_per_epoch: ClassVar[int] = 2

    def select(self, history, clock, rng):
        return Selection(history.offered)


def twins() -> Dataset:
    """Rows of which many share a text."""
    rng = np.random.default_rng(2)
    texts = [sentence(rng) for _ in range(9)]
    return Dataset.from_list([{"text0": texts[rng.integers(9)], "text1": f"w0 {sentence(rng)}"} for _ in range(N)])


SAMPLERS = ["batch_sampler", "no_duplicates", "no_duplicates_hashed"]


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_kept_rows_are_cut_by_their_batch_sampler(folders, tmp_path, sampler, drop):
    data, loss = twins(), losses.MultipleNegativesRankingLoss
    settings = dict(batch_sampler=sampler, dataloader_drop_last=drop)
    same(train(folders, tmp_path, data, loss, KEEP, **settings), train(folders, tmp_path, data, loss, **settings))
    ours = train(folders, tmp_path, data, loss, Shrinking(), make_cls=watched, **settings)
    epochs = ours.pruning_report().epochs
    expected = [rows // 4 if drop else -(-rows // 4) for rows in (16, 13, 10)]
    assert [epoch["steps"] for epoch in epochs] == expected
    assert ours.state.global_step == ours.state.max_steps == len(ours.seen) == sum(expected)
    assert ours.lr_scheduler.get_last_lr() == [0.0, 0.0]
    for batch in ours.seen:
        texts = [data[row]["text0"] for row in batch]
        assert sampler == "batch_sampler" or len(set(texts)) == len(texts)
    for epoch, (end, steps) in enumerate(zip(np.cumsum(expected), expected, strict=True)):
        seen = sum(ours.seen[end - steps : end], [])
        assert len(set(seen)) == len(seen) - epochs[epoch]["rows_repeated"] <= 16 - 3 * epoch


def test_the_default_order_is_the_stock_one_with_rows_left_out(folders, tmp_path):
    case = (folders, tmp_path, "pairs", losses.MultipleNegativesRankingLoss)
    whole, part = (train(*case, policy, make_cls=watched) for policy in (KEEP, Shrinking()))
    begin = 0
    for epoch, steps in enumerate([4, 4, 3]):
        order = sum(whole.seen[6 * epoch : 6 * epoch + 6], [])
        kept = sum(part.seen[begin : begin + steps], [])
        begin += steps
        assert kept == [row for row in order if row in kept]


def test_batches_of_kept_rows_have_several_labels(folders, tmp_path):
    case = (folders, tmp_path, "classed", losses.BatchAllTripletLoss)
    ours = train(*case, Shrinking(), make_cls=watched, batch_sampler="group_by_label")
    labels = rows("classed")["label"][:]
    for batch in ours.seen:
        _, counts = np.unique([labels[row] for row in batch], return_counts=True)
        assert len(counts) > 1 and counts.min() > 1
    assert ours.state.global_step == ours.state.max_steps == len(ours.seen)
    assert sum(epoch["steps"] for epoch in ours.pruning_report().epochs) == len(ours.seen)


@dataclass(frozen=True)
class OneClass(Policy):
    """Keeps the rows of a class."""

    needs = frozenset({"classes"})

    def select(self, history, clock, rng):
        everything = np.arange(len(history))
        return Selection(everything[history.features.classes == 1] if clock.epoch else everything)


def test_rows_that_make_no_batches_are_named(folders, tmp_path):
    case = (folders, tmp_path, "classed", losses.BatchAllTripletLoss)
    with pytest.raises(
        ValueError, match="GroupByLabelBatchSampler makes no batches of the .* rows that the policy keep"
    ):
        train(*case, OneClass(), batch_sampler="group_by_label")


@pytest.mark.parametrize("sampler", ["batch_sampler", "no_duplicates"])
def test_several_rounds_take_every_row_once(folders, tmp_path, sampler):
    case = (folders, tmp_path, "pairs", losses.MultipleNegativesRankingLoss)
    ours = train(*case, Halves(), make_cls=watched, batch_sampler=sampler)
    assert [epoch["rows"] for epoch in ours.pruning_report().epochs] == [N] * 3
    assert sorted(sum(ours.seen[:6], [])) == list(range(N))
    assert ours.state.global_step == ours.state.max_steps == 18


class Backwards(DefaultBatchSampler):
    """A user's batch sampler, with an order of its own."""

    def __init__(self, dataset, **more):
        super().__init__(dataset, **more)
        self.rows = len(dataset)

    def __iter__(self):
        order = np.arange(self.rows)[::-1]
        yield from (order[begin : begin + self.batch_size].tolist() for begin in range(0, self.rows, self.batch_size))

    def __len__(self):
        return -(-self.rows // self.batch_size)


def heedless(dataset, **more):
    """Another, that goes by a data set of its own."""
    return Backwards(rows("pairs"), **more)


def test_a_batch_sampler_of_the_users_own_is_kept(folders, tmp_path):
    case = (folders, tmp_path, "pairs", losses.MultipleNegativesRankingLoss)
    stock = train(*case, batch_sampler=Backwards)
    for sampler in (Backwards, lambda dataset, **more: Backwards(dataset, **more)):
        same(train(*case, KEEP, batch_sampler=sampler), stock)
        ours = train(*case, Shrinking(), make_cls=watched, batch_sampler=sampler)
        first = sum(ours.seen[:4], [])
        assert first == sorted(first, reverse=True) and len(first) == 16
    with pytest.raises(ValueError, match="Backwards gives row 21 of the 16 that the policy keeps: it must go by the"):
        train(*case, Shrinking(), batch_sampler=heedless)


class OwnBatches(SentenceTransformerTrainer):
    """Cuts batches as their documentation says that one may."""

    def get_batch_sampler(self, dataset, *args, **more):
        return NoDuplicatesBatchSampler(dataset, *args, **more)


def test_a_trainer_that_cuts_batches_its_own_way_is_served(folders, tmp_path):
    args = SentenceTransformerTrainingArguments(
        str(tmp_path), use_cpu=True, report_to=[], disable_tqdm=True, per_device_train_batch_size=4
    )
    model = embedder(folders)
    loss = losses.MultipleNegativesRankingLoss(model)

    class ByHand(PruningMixin, OwnBatches):
        pass

    for cls in (pruned(OwnBatches), ByHand):
        ours = cls(model=model, args=args, train_dataset=twins(), loss=loss, policy=Shrinking())
        ours.train()
        assert [epoch["steps"] for epoch in ours.pruning_report().epochs] == [4, 4, 3]


# ---- Going on, saving, reading ----


@pytest.mark.parametrize("sampler", ["batch_sampler", "no_duplicates"])
def test_a_resumed_run_ends_with_the_same_bits(folders, tmp_path, sampler):
    case = ("pairs", losses.MultipleNegativesRankingLoss, INFOBATCH)
    settings = dict(save_strategy="steps", save_steps=1, batch_sampler=sampler)
    whole = train(folders, tmp_path, *case, **settings)
    steps = [epoch["steps"] for epoch in whole.pruning_report().epochs]
    for step in (2, steps[0], steps[0] + 3):
        ours = make(folders, tmp_path / "again", *case, **settings, seed=4)
        ours.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert [epoch["steps"] for epoch in ours.pruning_report().epochs] == steps
        np.testing.assert_array_equal(ours.history.loss, whole.history.loss)
        weights = whole.model.state_dict()
        assert all(torch.equal(value, weights[name]) for name, value in ours.model.state_dict().items())


def test_the_best_model_is_loaded_and_all_is_saved(folders, tmp_path):
    settings = dict(eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True)
    data = rows("scored").select(range(6))
    ours = train(
        folders, tmp_path, "scored", losses.CosineSimilarityLoss, INFOBATCH, eval_dataset=data,
        metric_for_best_model="eval_loss", greater_is_better=True, **settings,
    )  # fmt: skip
    best = SentenceTransformer(ours.state.best_model_checkpoint, device="cpu").state_dict()
    assert all(torch.equal(value, best[name]) for name, value in ours.model.state_dict().items())
    ours.save_model()
    ours.create_model_card(tags=["mine"])
    card = (tmp_path / "README.md").read_text()
    assert card.count("## Data pruning") == 1 and "- mine" in card and "- hf_prune" in card
    assert (tmp_path / "history.safetensors").is_file() and (tmp_path / "modules.json").is_file()


def test_hidden_rows_are_measured_by_their_losses(folders, tmp_path):
    @dataclass(frozen=True)
    class Hiding(Policy):
        needs = frozenset({"loss"})

        def select(self, history, clock, rng):
            order = rng.permutation(len(history))
            return Selection(order[:14], rescore=order[14:])

    case = (folders, tmp_path, "scored", losses.CosineSimilarityLoss)
    ours = train(*case, Hiding(), learning_rate=0.0, num_train_epochs=2)
    assert ours.pruning_report().epochs[0]["rows_rescored"] == 8
    expected = losses_alone(ours, rows("scored"), ours.loss)
    np.testing.assert_allclose(ours.history.loss, expected, rtol=1e-4, atol=1e-5)


def test_callbacks_read_the_users_own_rows(folders, tmp_path):
    class Looking(tf.TrainerCallback):
        looks: ClassVar[list] = []

        def on_epoch_end(self, args, state, control, train_dataloader=None, **more):
            self.looks.append(sum(len(batch["text0_input_ids"]) for batch in train_dataloader))
            assert set(train_dataloader.dataset[0]) == {"text0", "text1"}

    case = (folders, tmp_path, "pairs", losses.MultipleNegativesRankingLoss, Shrinking())
    ours = train(*case, batch_sampler="no_duplicates", callbacks=[Looking()])
    assert Looking.looks == [epoch["rows"] for epoch in ours.pruning_report().epochs] == [16, 13, 10]


@pytest.mark.parametrize("several", [dict, lambda **sets: __import__("datasets").DatasetDict(sets)])
def test_several_data_sets_are_refused_at_once(folders, tmp_path, several):
    data = several(one=rows("pairs"), two=rows("pairs"))
    with pytest.raises(ValueError, match="train_dataset is a DatasetDict of 2 .one, two.. Join them"):
        make(folders, tmp_path, data, losses.MultipleNegativesRankingLoss, KEEP)


def two_processes(rank, folders, folder):
    case = (folders, folder / "runs", "pairs", losses.MultipleNegativesRankingLoss)
    settings = dict(batch_sampler="no_duplicates", per_device_train_batch_size=2, dataloader_drop_last=True)
    settings |= dict(num_train_epochs=2)
    same(train(*case, KEEP, **settings), train(*case, **settings))
    ours = train(*case, Shrinking(), **settings)
    assert [epoch["rows"] for epoch in ours.pruning_report().epochs] == [16, 12]
    assert ours.state.global_step == ours.state.max_steps == 7
    known = [torch.empty(N, dtype=torch.int32) for _ in range(2)]
    distributed.all_gather(known, torch.from_numpy(ours.history.last_round.astype(np.int32)))
    assert torch.equal(*known)


@pytest.mark.slow
def test_two_processes_train_alike(folders, tmp_path):
    assert ranks.run(two_processes, folders, tmp_path, processes=2, folder=tmp_path)
