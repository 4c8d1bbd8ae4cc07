"""Rows and collators that are not as they should be: refused, or counted and left alone."""

import inside
import numpy as np
import pytest
import tiny
import torch
import transformers as tf
from datasets import Dataset
from tokenizers import Tokenizer, models

from hf_prune.train.collator import PARTS, ROW, Numbered, RowCollator


def numbered(examples):
    return [Numbered(10 + row, example) for row, example in enumerate(examples)]


def tokenizer(side="right"):
    words = {word: at for at, word in enumerate(["[PAD]", "[UNK]", "[MASK]", "[CLS]", "[SEP]"])}
    words |= {f"w{at}": at for at in range(len(words), tiny.VOCAB)}
    special = dict(pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]", cls_token="[CLS]", sep_token="[SEP]")
    core = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    return tf.PreTrainedTokenizerFast(tokenizer_object=core, padding_side=side, **special)


# ---- Collators that replace or reorder rows (for those that drop some, see test_attribution.py) ----


def sorted_by_length(rows):
    rows.sort(key=lambda row: len(row["input_ids"]))  # in place, as many do
    return tiny.Collator()(rows)


def with_the_first_for_short_rows(rows):
    return tiny.Collator()([row if len(row["input_ids"]) > 4 else rows[0] for row in rows])


def reversed_and_padded_left(rows):
    return dict(tf.DataCollatorWithPadding(tokenizer("left"))(rows[::-1]))


BAD = [sorted_by_length, with_the_first_for_short_rows, reversed_and_padded_left]


@pytest.mark.parametrize(("collator", "workers"), [(collator, 0) for collator in BAD] + [(BAD[0], 1)])
def test_a_collator_that_replaces_or_reorders_rows_is_refused_on_the_first_batch(tmp_path, collator, workers):
    task = tiny.TASKS["one label"]
    settings = dict(data_collator=collator, dataloader_num_workers=workers, per_device_train_batch_size=8)
    trainer = tiny.trainer(tmp_path, task.model(), task.rows(), policy="uniform:keep=0.9", **settings)
    with pytest.raises(ValueError, match="returned 'input_ids' of an example in the place of another.*Return one"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_images_in_another_order_are_refused():
    rows = tiny.TASKS["image"].rows(6)
    with pytest.raises(ValueError, match="returned 'pixel_values' of an example in the place of another"):
        RowCollator(lambda rows: tf.default_data_collator(rows[1:] + rows[:1]))(numbered(rows))


def test_the_check_is_made_once():
    rows = tiny.TASKS["one label"].rows(6)
    collator = RowCollator(lambda rows: tiny.Collator()(rows[::-1] if late else rows))
    late = False
    collator(numbered(rows))
    late = True
    assert collator(numbered(rows))[ROW].tolist() == [10, 11, 12, 13, 14, 15]


# ---- Collators that do neither: never refused, whatever they do ----


def with_end(rows):
    return tiny.Collator()([{**row, "input_ids": row["input_ids"] + [2]} for row in rows])


def with_end_and_positions(rows):
    """What each example brings of its own is one longer in the batch."""
    longer = [row["input_ids"] + [2] for row in rows]
    return tiny.Collator()(
        [
            {"input_ids": ids, "attention_mask": [1] * len(ids), "position_ids": list(range(len(ids))), "labels": 0}
            for ids in longer
        ]
    )


def cut(rows):
    return tiny.Collator()([{**row, "input_ids": row["input_ids"][:3]} for row in rows])


def backwards(rows):
    return tiny.Collator()([{**row, "input_ids": row["input_ids"][::-1]} for row in rows])


def with_negatives(rows):
    """Each row beside the next one, as in contrastive training."""
    return tiny.Collator()([row | {"other": rows[i - 1]["input_ids"]} for i, row in enumerate(rows)])


def twice(rows):
    return tiny.Collator()([row for row in rows for _ in range(2)])


def joined(rows):
    return tf.DataCollatorWithFlattening()(rows)


def opaque(rows):
    return {"inputs": [row["input_ids"] for row in rows], "labels": torch.tensor([row["labels"] for row in rows])}


def mixed(rows):
    batch = tf.default_data_collator(rows)
    batch["pixel_values"] = 0.7 * batch["pixel_values"] + 0.3 * batch["pixel_values"].flip(0)
    return batch


def stock(name, side="right", **more):
    return getattr(tf, name)(tokenizer(side), **more)


GOOD = {
    "default, images": ("image", lambda: tf.default_data_collator),
    "mixed images": ("image", lambda: mixed),
    "default, spans": ("answer", lambda: tf.default_data_collator),
    "padding": ("one label", lambda: stock("DataCollatorWithPadding")),
    "padding left": ("one label", lambda: stock("DataCollatorWithPadding", "left")),
    "padding to 8": ("one label", lambda: stock("DataCollatorWithPadding", pad_to_multiple_of=8)),
    "many labels": ("many labels", lambda: stock("DataCollatorWithPadding")),
    "tags": ("tokens", lambda: stock("DataCollatorForTokenClassification")),
    "tags left": ("tokens", lambda: stock("DataCollatorForTokenClassification", "left")),
    "pairs": ("t5", lambda: stock("DataCollatorForSeq2Seq")),
    "pairs left": ("t5", lambda: stock("DataCollatorForSeq2Seq", "left")),
    "masked": ("unlabelled", lambda: stock("DataCollatorForLanguageModeling", mlm_probability=0.5)),
    "masked left": ("unlabelled", lambda: stock("DataCollatorForLanguageModeling", "left")),
    "masked, seeded": ("unlabelled", lambda: stock("DataCollatorForLanguageModeling", seed=1)),
    "causal": ("unlabelled", lambda: stock("DataCollatorForLanguageModeling", mlm=False)),
    "joined": ("llama", lambda: joined),
    "choices": ("choice", lambda: stock("DataCollatorForMultipleChoice")),
    **{f.__name__: ("one label", lambda f=f: f) for f in (with_end, with_end_and_positions, cut, backwards, twice)},
    **{f.__name__: ("one label", lambda f=f: f) for f in (with_negatives, opaque)},
}


def rows_of(kind, n=16):
    if kind == "unlabelled":
        return [{"input_ids": row["input_ids"]} for row in tiny.TASKS["one label"].rows(n)]
    return tiny.TASKS[kind].rows(n)


@pytest.mark.parametrize("name", GOOD)
def test_other_collators_give_what_they_would_alone(name):
    """On many batches of all kinds of rows, whole and with what tokenizers add; duplicate rows among them."""
    kind, make = GOOD[name]
    every = rows_of(kind, 64)
    if "input_ids" in every[0] and kind != "choice":
        every = [{"attention_mask": [1] * len(row["input_ids"])} | row for row in every]
    if name == "with_end_and_positions":
        every = [row | {"position_ids": list(range(len(row["input_ids"])))} for row in every]
    rng = np.random.default_rng(0)
    for trial in range(40):
        rows = [every[at] for at in rng.integers(0, len(every), rng.integers(1, 9))]
        alone, ours = make(), RowCollator(make())
        torch.manual_seed(trial)
        expected = alone([dict(row) for row in rows])
        torch.manual_seed(trial)
        found = ours(numbered([dict(row) for row in rows]))
        assert found[ROW].tolist() == list(range(10, 10 + len(rows)))
        for key, value in expected.items():
            assert torch.equal(found[key], value) if isinstance(value, torch.Tensor) else found[key] == value
        assert torch.equal(torch.rand(1), _draw_after(trial, make, rows))  # no more chance was used


def _draw_after(seed, make, rows):
    torch.manual_seed(seed)
    make()([dict(row) for row in rows])
    return torch.rand(1)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", ["masked, seeded", "choices", "padding left"])
def test_they_train(tmp_path, name, workers):
    kind, make = GOOD[name]
    task = tiny.TASKS["masked" if kind == "unlabelled" else kind]
    settings = dict(
        data_collator=make(), dataloader_num_workers=workers, num_train_epochs=2, remove_unused_columns=False
    )
    rows = Dataset.from_list(rows_of(kind))  # gives them anew: some collators empty what they are given
    trainer = tiny.trainer(tmp_path, task.model(), rows, policy="infobatch", **settings)
    trainer.train()
    assert inside.training(trainer).collator.is_checked
    assert (trainer.history.last_round >= 0).mean() > 0.5  # of short masked rows, some have no target


# ---- Rows of unusual content: trained as the stock trainer does ----


def bits(values):
    return torch.nn.utils.rnn.pad_sequence(values, batch_first=True)


def as_nested(values):
    return torch.nested.nested_tensor(values, layout=torch.jagged)


UNUSUAL = {
    "0-d": ([torch.tensor(1.0), torch.tensor(2.0)], lambda values: torch.stack(values)[:, None]),
    "sparse": ([torch.eye(2).to_sparse(), 2 * torch.eye(2).to_sparse()], torch.stack),
    "sparse, made dense": ([torch.eye(2).to_sparse()] * 2, lambda values: torch.stack(values).to_dense()),
    "nested": ([torch.ones(2), torch.ones(3)], as_nested),
    "with a gradient": (
        [torch.ones(2, requires_grad=True), torch.zeros(2)],
        lambda values: torch.stack(values).detach(),
    ),
    "conjugate": ([torch.ones(2, dtype=torch.complex64).conj(), 1j * torch.ones(2)], torch.stack),
    "texts": (["ab", "c"], lambda values: torch.ones(2, 2)),
    "nothing": ([None, [1, 2]], lambda values: torch.ones(2, 2)),
    "ragged": ([[[1], [2, 3]], [[1, 2]]], lambda values: torch.ones(2, 2)),
    "empty lists": ([[[], []], [[1, 2], [3, 4]]], lambda values: torch.ones(2, 2, 2)),
    "huge": ([[2**70, 1], [1, 2]], lambda values: torch.ones(2, 2)),
    "mappings": ([{"a": 1}, {"a": 2}], lambda values: torch.ones(2, 2)),
    "nothing at all": ([[], []], lambda values: torch.ones(2, 0)),
}
TYPES = (torch.int64, torch.bool, torch.uint8, torch.bfloat16, torch.float16, torch.float64, torch.complex64)
UNUSUAL |= {f"empty, {type}": ([torch.zeros(0, dtype=type), torch.ones(2, dtype=type)], bits) for type in TYPES}
UNUSUAL |= {f"alike, {type}": ([torch.ones(3, dtype=type), torch.ones(2, dtype=type)], bits) for type in TYPES}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_content_is_left_alone(name):
    values, make = UNUSUAL[name]
    batch = RowCollator(lambda rows: {"x": make([row["x"] for row in rows])})(numbered([{"x": x} for x in values]))
    assert batch[ROW].tolist() == [10, 11]
    assert PARTS not in batch


def flat(rows):
    return {"input_ids": torch.tensor([[token for row in rows for token in row["input_ids"]]], dtype=torch.int64)}


@pytest.mark.parametrize("texts", [[[], [1, 2], [3]], [[1, 2], [], []], [[], []], [np.array([1], np.int32), [2, 3]]])
def test_joined_rows_may_be_empty(texts):
    batch = RowCollator(flat)(numbered([{"input_ids": text} for text in texts]))
    lengths = np.array([len(text) for text in texts])
    assert batch[PARTS].sum(1).tolist() == lengths.tolist()
    ends = np.cumsum(lengths)
    for part, begin, end in zip(batch[PARTS], ends - lengths, ends, strict=True):
        assert part[begin:end].all()


@pytest.mark.parametrize("texts", [[3, 4], [None, [4]], ["ab", "c"], [[[1, 2], [3, 4]], [[1, 2]]]])
def test_one_sequence_of_something_else_is_left_alone(texts):
    collate = RowCollator(lambda rows: {"input_ids": torch.tensor([[3, 4]])})
    assert PARTS not in collate(numbered([{"input_ids": text} for text in texts]))


@pytest.mark.parametrize("name", ["one label", "llama"])
@pytest.mark.parametrize("policy", ["uniform:keep=1.0", "uniform:keep=0.6,unit=tokens", "infobatch", "competence"])
def test_a_row_without_tokens_in_the_first_batch_is_trained_as_the_stock_trainer_does(tmp_path, name, policy):
    task, rows = tiny.TASKS[name], tiny.TASKS[name].rows(12)
    rows[1] = rows[1] | {"input_ids": []} | ({"labels": []} if name == "llama" else {})
    settings = dict(train_sampling_strategy="sequential", num_train_epochs=2)
    stock = tiny.trainer(tmp_path, task.model(), rows, **settings)
    stock.train()
    ours = tiny.trainer(tmp_path, task.model(), rows, policy, **settings)
    ours.train()
    if policy == "uniform:keep=1.0":
        for mine, theirs in zip(ours.model.parameters(), stock.model.parameters(), strict=True):
            assert torch.equal(mine, theirs)
    assert (np.isnan(ours.history.loss[1]) or name == "one label") and np.isfinite(ours.history.loss[2:]).any()
    assert not ours.history.faults.any()


@pytest.mark.parametrize("policy", ["uniform:keep=0.5,unit=tokens", "competence"])
def test_rows_without_names_are_refused_by_a_rule_that_counts_tokens(tmp_path, policy):
    rows = torch.utils.data.TensorDataset(torch.randint(3, 31, (24, 6)), torch.arange(24) % 3)
    with pytest.raises(ValueError, match="a row is a tuple, not a dict"):
        tiny.trainer(tmp_path, tiny.TASKS["one label"].model(), rows, policy)
