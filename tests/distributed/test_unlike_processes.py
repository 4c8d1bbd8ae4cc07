"""Two processes that hold other rows, or whose policies answer otherwise: both stop, before anything is trained."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import ranks
import tiny
import torch
import transformers as tf
from datasets import Dataset
from tiny import TASKS

from hf_prune import Policy, Selection, pruned
from hf_prune.data.fingerprint import row_checksums

pytestmark = pytest.mark.slow  # runs of several processes


@dataclass(frozen=True)
class Apart(Policy):
    """The first half of the rows, but for what it does in the second process from round `since` on."""

    weighs: ClassVar[bool] = True

    rank: int = 0
    what: str = ""
    since: int = 0

    def select(self, history, clock, rng):
        is_apart = self.rank == 1 and clock.round >= self.since
        parts: dict = {"rows": np.arange(8), "weights": np.ones(8, np.float32), "rescore": np.arange(8, 12)}
        if self.what == "global":
            np.random.random(self.rank)  # noqa: NPY002 - as data that are augmented in each process draw from it
            parts["rows"] = np.random.permutation(12)[:8]  # noqa: NPY002
            parts["rescore"] = np.arange(12, 16)
        elif is_apart and self.what == "lr_scale":
            parts["lr_scale"] = 1 + 1e-12
        elif is_apart and self.what in parts:
            parts[self.what] = parts[self.what] + parts[self.what].dtype.type(4)
            parts["rescore"] = parts["rescore"] + 4 if self.what == "rows" else parts["rescore"]
        elif is_apart and self.what == "none":
            parts["weights"] = None
        return Selection(**parts)

    def forecast(self, history, clock):
        return 8 + (self.what == "forecast" and self.rank == 1 and clock.round >= self.since)


class Drawing(torch.utils.data.Dataset):
    """Rows that are made anew at each reading, by generators that are seeded otherwise in each process."""

    def __init__(self, rank, kind):
        self.rows, self.kind = TASKS["image"].rows(16), kind
        self.rng = np.random.default_rng(rank)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, row):
        pixels = np.array(self.rows[row]["pixel_values"], np.float32)
        if self.kind == "own":
            pixels += self.rng.standard_normal(pixels.shape)
        elif self.kind == "noise":
            label = self.rows[row]["labels"] if self.rng.random() < 0.8 else int(self.rng.integers(3))
            return {"pixel_values": pixels, "labels": label}
        elif self.kind == "global":
            pixels += random.random() + np.random.random() + torch.rand(1).item()  # noqa: NPY002
        elif self.kind == "in workers alone" and torch.utils.data.get_worker_info() is None:
            raise OSError("only a worker can open this")
        return {"pixel_values": pixels, "labels": self.rows[row]["labels"]}


class Own(tf.Trainer):
    """Trains in an order of its own."""

    order: ClassVar[list[int]] = []

    def _get_train_sampler(self, train_dataset=None):
        return self.order


def shuffled(rows, rank):
    return [rows[at] for at in np.random.default_rng(rank).permutation(len(rows))] if rank else rows


def as_tuples(rows):
    return torch.utils.data.TensorDataset(
        torch.tensor([row["pixel_values"] for row in rows]), torch.tensor([row["labels"] for row in rows])
    )


def from_tuples(rows):
    pixels, labels = zip(*rows, strict=True)
    return {"pixel_values": torch.stack(pixels), "labels": torch.stack(labels)}


@dataclass
class Case:
    task: str = "one label"
    policy: object = "uniform:keep=0.5"
    rows: object = None
    own: object = None
    settings: dict | None = None


def cases(rank):
    texts, pictures = TASKS["one label"].rows(16), TASKS["image"].rows(16)
    apart = {f"{what}, {since}": Apart(rank, what, since) for what, since in ALIKE}
    return {
        **{f"policy: {name}": Case(policy=policy) for name, policy in apart.items()},
        "policy: global": Case(policy=Apart(rank, "global")),
        "data: shuffled": Case(rows=shuffled(texts, rank)),
        "data: shuffled, of datasets": Case(rows=Dataset.from_list(shuffled(texts, rank))),
        "data: shuffled pictures": Case("image", rows=shuffled(pictures, rank)),
        "data: shuffled tuples": Case(
            "image", rows=as_tuples(shuffled(pictures, rank)), settings={"data_collator": from_tuples}
        ),
        "data: cut": Case(rows=texts[: 16 - rank]),
        "data: its own part": Case(rows=texts[8 * rank :][:8]),
        "data: order": Case(own=list(range(16)) if rank else list(range(15, -1, -1))),
        "fine: alike": Case(policy=Apart(rank)),
        "fine: order": Case(own=list(range(15, -1, -1))),
        **{f"fine: {kind}": Case("image", rows=Drawing(rank, kind)) for kind in ("own", "noise", "global")},
        "fine: in workers alone": Case(
            "image", rows=Drawing(rank, "in workers alone"), settings={"dataloader_num_workers": 1}
        ),
        "fine: one reads for all": Case(
            "image",
            rows=shuffled(pictures, rank),
            settings={"accelerator_config": {"dispatch_batches": True}, "dataloader_drop_last": True},
        ),
    }


ALIKE = (("rows", 0), ("rows", 1), ("weights", 0), ("none", 1), ("rescore", 0), ("lr_scale", 1), ("forecast", 0))


def train(rank, folder):
    found = {}
    for name, case in cases(rank).items():
        random.seed(rank), np.random.seed(rank)  # noqa: NPY002
        task = TASKS[case.task]
        rows = task.rows(16) if case.rows is None else case.rows
        settings = {"per_device_train_batch_size": 2, "num_train_epochs": 2, "logging_steps": 1000}
        subject = tiny.trainer(folder, task.model(0.0), rows, case.policy, **settings | (case.settings or {}))
        if case.own is not None:
            Own.order = case.own
            args, collator = subject.args, subject.data_collator
            options = dict(model=subject.model, args=args, train_dataset=rows, data_collator=collator)
            subject = pruned(Own)(policy=case.policy, **options)
        try:
            subject.train()
            message = ""
        except ValueError as error:
            message = str(error)
        weights = [value.tolist() for value in subject.model.state_dict().values()]
        found[name] = message, subject.state.global_step, weights
    Path(folder, f"rank{rank}.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unlike")
    assert ranks.run(train, folder, processes=2, folder=folder)
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


NAMES = list(cases(0))


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("fine")])
def test_processes_that_differ_in_nothing_that_matters_train(ends, name):
    (message, step, weights), other = ends[0][name], ends[1][name]
    assert message == other[0] == ""
    assert step == other[1] > 0
    assert weights == other[2]


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("policy")])
def test_a_policy_that_answers_otherwise_is_refused_in_both_before_it_is_trained(ends, name):
    what, _, since = name.removeprefix("policy: ").partition(", ")
    (message, step, _), other = ends[0][name], ends[1][name]
    assert message == other[0]
    assert step == other[1] == 2 * int(since or 0)  # of 8 rows, two of 2 in a step in each process
    part = {"none": "weights", "global": "rows"}.get(what, what)
    assert message.startswith("The policy Apart answers otherwise in process 1 than in the main one, in ")
    assert f"{part}{' and rescore' if what == 'rows' else ''} of round {since or 0}, and" in message


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("data")])
def test_other_rows_are_refused_in_both_before_anything_is_trained(ends, name):
    (message, step, _), other = ends[0][name], ends[1][name]
    assert message == other[0]
    assert step == other[1] == 0
    found = "its sampler gives another order" if "order" in name else "rows have other content there"
    found = "it has 15 rows there and 16 here" if "cut" in name else found
    assert f"train_dataset is not the same in process 1 as in the main one: {found}" in message


# ---- What tells rows apart ----


def checksums(rows):
    return [one for one in row_checksums(rows) if one is not None]


def test_few_rows_are_read_and_generators_stay_as_they_were():
    class Counted(tiny.Rows):
        read: ClassVar[list[int]] = []

        def __getitem__(self, row):
            self.read.append(row)
            torch.rand(1), np.random.random(), random.random()  # noqa: NPY002, B018
            return super().__getitem__(row)

    rows = Counted(TASKS["one label"].rows(200))
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert len(checksums(rows)) == 16 and len(rows.read) == 32 and {0, 199} <= set(rows.read)
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
    assert len(row_checksums([{"x": 1}])) == len(row_checksums(rows)) == 16


def test_what_a_row_opens_late_stays_closed():
    class Late(tiny.Rows):
        file = None

        def __getitem__(self, row):
            self.file = self.file or object()
            return super().__getitem__(row)

    rows = Late(TASKS["one label"].rows(4))
    assert len(checksums(rows)) == 4 and rows.file is None


def test_content_that_machines_make_alike_is_compared_and_rounding_is_not():
    wave = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    rows = [
        {"ids": [1, 2], "file": "/here/a.png", "wave": wave, "picture": np.full((9, 9), 7, np.uint8), "none": None},
        (torch.tensor([1, 2]), 0.5, "text", [[1], [2, 3]]),
        tiny.Collator(),
        torch.ones(2, dtype=torch.bfloat16),
    ]
    again = [
        {**rows[0], "file": "/there/a.png", "wave": wave * np.float32(1 + 1e-6)},
        (torch.tensor([1, 2]), 0.5, "text", [[1], [2, 3]]),
        tiny.Collator(),
        torch.ones(2, dtype=torch.bfloat16),
    ]
    assert checksums(rows) == checksums(again) and len(checksums(rows)) == 4
    others = [
        {"ids": [2, 1]},
        {"file": "b.png"},
        {"wave": 2 * wave},
        {"picture": np.full((9, 9), 9, np.uint8)},
        {"none": 1},
        {"more": 1},
    ]
    for other in others:
        assert checksums([rows[0] | other]) != checksums(rows[:1])
    assert checksums([(torch.tensor([1, 2]), 0.5, "text", [[1], [2, 4]])]) != checksums(rows[1:2])


def test_an_array_is_read_as_it_is():
    assert len(checksums(np.ones((40, 2)))) == 16
    assert checksums(np.arange(40)) != checksums(np.arange(40)[::-1])
