"""The lengths that a grouped order goes by, read of every kind of data set."""

import inside
import numpy as np
import pytest
import torch
import transformers as tf
from datasets import Dataset
from tiny import TASKS, Collator

from hf_prune import PruningTrainer
from hf_prune.data.tokens import row_lengths

IDS = [[1, 2], [3], [4, 5, 6], []]
TARGETS = [[1], [2, 3], [4], [5, 6, 7]]


class Rows(torch.utils.data.Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, row):
        return self.rows[row]


def columns(**columns):
    return Dataset.from_dict(columns)


def as_rows(data):
    return Rows([data[row] for row in range(len(data))])


@pytest.mark.parametrize("kind", [lambda data: data, as_rows, list], ids=["bulk", "one by one", "a list"])
def test_lengths_of_the_input_and_of_both_sides(kind):
    data = kind(columns(input_ids=IDS, labels=TARGETS))
    assert row_lengths(data, "length", "input_ids", targets_too=False).tolist() == [2, 1, 3, 0]
    assert row_lengths(data, None, "input_ids", targets_too=True).tolist() == [[2, 1], [1, 2], [3, 1], [0, 3]]
    classes = kind(columns(input_ids=IDS, labels=[0, 1, 0, 1]))
    assert row_lengths(classes, "length", "input_ids", targets_too=True).tolist() == [2, 1, 3, 0]


@pytest.mark.parametrize("dtype", ["python", "numpy", "torch"])
def test_lengths_of_a_formatted_data_set(dtype):
    data = columns(input_ids=IDS).with_format(None if dtype == "python" else dtype)
    assert row_lengths(data, "length", "input_ids", targets_too=False).tolist() == [2, 1, 3, 0]


def test_the_column_of_lengths_comes_first():
    data = columns(input_ids=IDS, size=[9, 8, 7, 6], audio=[0.5, 1.5, 2.5, 3.5])
    assert row_lengths(data, "size", "input_ids", targets_too=True).tolist() == [9, 8, 7, 6]
    assert row_lengths(data, "audio", "input_ids", targets_too=True).tolist() == [0.5, 1.5, 2.5, 3.5]


def test_rows_that_are_made_as_they_are_read_are_measured_as_they_are():
    texts = columns(text=["a b", "c", "d e f", "g"])
    texts.set_transform(lambda rows: {"input_ids": [[1] * len(text.split()) for text in rows["text"]]})
    assert row_lengths(texts, "length", "input_ids", targets_too=False).tolist() == [2, 1, 3, 1]
    longer = columns(input_ids=IDS)
    longer.set_transform(lambda rows: {"input_ids": [[0, *ids] for ids in rows["input_ids"]]})
    assert row_lengths(longer, "length", "input_ids", targets_too=False).tolist() == [3, 2, 4, 1]


def test_other_inputs_are_measured_by_their_first_dimension():
    spoken = columns(input_features=[[[0.0] * 4] * length for length in (3, 1, 2)], labels=[[1], [1, 2], [3]])
    assert row_lengths(spoken, "length", "input_features", targets_too=True).tolist() == [[3, 1], [1, 2], [2, 1]]


def test_measuring_draws_no_random_numbers():
    class Random(Rows):
        def __getitem__(self, row):
            return {"input_ids": torch.randint(0, 9, (row + 1,))}

    before = torch.get_rng_state()
    assert row_lengths(Random([0] * 3), "length", "input_ids", targets_too=False).tolist() == [1, 2, 3]
    assert torch.equal(before, torch.get_rng_state())


def test_a_million_rows_are_measured_in_bulk(monkeypatch):
    one = np.arange(1, 6, dtype=np.int32)
    data = columns(input_ids=np.broadcast_to(one, (1_000_000, 5)))
    monkeypatch.setattr(type(data), "__iter__", None)
    monkeypatch.setattr("hf_prune.data.tokens.tqdm", None)
    assert (row_lengths(data, "length", "input_ids", targets_too=False) == 5).all()


REFUSED = {
    "no input_ids": (columns(prompt_ids=IDS), "no list 'input_ids' to measure"),
    "a text": (columns(input_ids=["a", "b"]), "no list 'input_ids' to measure"),
    "no mapping": (Rows([(1, 2)]), "no list 'input_ids' to measure"),
    "a length missing": (columns(input_ids=IDS, length=[1, None, 3, 4]), "column 'length' has a row without a number"),
    "a length in words": (columns(input_ids=IDS, length=["a", "b", "c", "d"]), "column 'length' has a row without"),
    "lengths as lists": (columns(input_ids=IDS, length=IDS), "column 'length' has a row without a number"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_rows_without_a_length_are_refused(name):
    data, message = REFUSED[name]
    with pytest.raises(ValueError, match=f"group_by_length': .*{message}.*length_column_name"):
        row_lengths(data, "length", "input_ids", targets_too=False)


def trainer_of(tmp_path, rows, **settings):
    args = tf.TrainingArguments(
        str(tmp_path), use_cpu=True, report_to=[], disable_tqdm=True, train_sampling_strategy="group_by_length",
        save_strategy="no", logging_strategy="no", num_train_epochs=1, per_device_train_batch_size=4, **settings,
    )  # fmt: skip
    model = TASKS["marian"].model()
    return PruningTrainer(model=model, args=args, train_dataset=rows, data_collator=Collator(), policy="uniform:keep=1")


def test_rows_without_a_length_are_refused_when_the_trainer_is_made(tmp_path):
    rows = [{"tokens": row["input_ids"], "labels": row["labels"]} for row in TASKS["marian"].rows(8)]
    with pytest.raises(ValueError, match="no list 'input_ids' to measure. Give the length of each row"):
        trainer_of(tmp_path, rows)


def test_both_sides_of_an_encoder_decoder_shape_its_order(tmp_path):
    rows = [{"input_ids": [2] * (1 + row % 3), "labels": [3] * (1 + row // 3)} for row in range(20)]
    trainer = trainer_of(tmp_path, rows)
    trainer.train()
    order = [rows[row] for row in inside.training(trainer).sampler]
    widths = [max(len(row["input_ids"]), len(row["labels"])) for row in order]
    cuts = [sorted(widths[at : at + 4]) for at in range(0, 20, 4)]
    assert max(cuts[0]) == 7  # the longest first
    assert [width for cut in sorted(cuts) for width in cut] == sorted(widths)  # by the source alone they would mix
