"""What padding costs a run: in its logs, its account and its report, and one line where it is more than a fifth."""

import dataclasses
import json
import logging
import re
from dataclasses import dataclass

import inside
import numpy as np
import pytest
import ranks
import torch
from datasets import Dataset
from tiny import IGNORED, LENGTH, TASKS, VOCAB, Collator, padded, text, trainer
from torch.utils.data import RandomSampler, Sampler
from transformers import Trainer, TrainerCallback
from transformers.trainer_pt_utils import LengthGroupedSampler

from hf_prune import History, Policy, Selection, pruned
from hf_prune.measure.recorder import Recorder
from hf_prune.report.account import NUMBERS, PruningReport
from hf_prune.report.padding import CURES, causes, count_padding, note, share_of
from hf_prune.report.page import RunReport
from hf_prune.train.checkpoint import PruningState

TASK = TASKS["one label"]
KEEP = "uniform:keep=1.0"
SAID = "of the positions that the model computed in training were padding."
FLAG = '`train_sampling_strategy="group_by_length"`'


def rows_of(*lengths: int) -> list[dict]:
    rng = np.random.default_rng(0)
    return [
        {"input_ids": rng.integers(3, VOCAB, length).tolist(), "labels": int(rng.integers(3))} for length in lengths
    ]


MIXED = rows_of(*[2, 9, 4, 3, 8, 2, 7, 3] * 5)  # in batches of 4, much is padding


def run(caplog, folder, rows=MIXED, policy=KEEP, task=TASK, resume=None, **settings):
    """The trainer that has trained, and the lines on padding."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, "hf_prune"):
        ours = trainer(folder, task.model(), rows, policy, is_pair=task.is_pair, **{"num_train_epochs": 1} | settings)
        ours.train(resume_from_checkpoint=resume)
    return ours, [record.getMessage() for record in caplog.records if SAID in record.getMessage()]


@dataclass
class Multiple(Collator):
    """Pads to a multiple of a number of positions, further than the longest row of a batch is."""

    multiple: int = 16

    def __call__(self, rows):
        longest = max(len(row["input_ids"]) for row in rows)
        width = -(-longest // self.multiple) * self.multiple
        mask = [[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows]
        ids = [row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in rows]
        return super().__call__(
            [dict(row, input_ids=i, attention_mask=m) for row, i, m in zip(rows, ids, mask, strict=True)]
        )


# ---- Counts ----


def test_padding_is_the_positions_that_are_no_tokens():
    assert count_padding(np.array([3, 4, 0]), 15) == 8  # an empty row among others is known
    assert count_padding(np.array([3, 4]), 7) == 0
    assert count_padding(np.array([0, 0]), 0) is None  # images
    assert count_padding(np.array([-1, -1]), 20) is None  # several texts a row
    assert count_padding(np.array([5, -1]), 20) is None  # of a batch of one row alone it is known
    assert count_padding(np.array([0, 0]), 20) is None  # as an older checkpoint has several texts
    assert count_padding(np.zeros(0, np.int64), 0) is None


def test_the_share_is_of_all_epochs():
    assert share_of([{"padded_tokens": 10, "tokens": 6, "padding": 4}, {"padded_tokens": 30, "tokens": 30}]) == 0.1
    assert share_of([{"padded_tokens": 10, "tokens": 6}]) == 0.4  # an older file
    assert share_of([{"padded_tokens": 10, "tokens": 0}]) is None
    assert share_of([{"padded_tokens": 0, "tokens": 0, "padding": 0}]) is None and share_of([]) is None
    known = {"padded_tokens": 10, "tokens": 6, "padding": 4}
    assert share_of([known, {"padded_tokens": 10, "tokens": 2, "padding": 0}]) is None  # not told apart everywhere
    assert share_of([known | {"tokens": float("nan")}]) is None


def test_what_is_brought_has_its_positions_and_widths():
    recorder = Recorder(1)

    def add(rows, positions):
        ids = torch.tensor(rows)
        recorder.add(ids, ids, [ids.float()], positions)

    assert recorder.drain().positions == 0
    add([3, 1], 8)
    add([2], 4)
    brought = recorder.drain()
    assert (brought.tokens.tolist(), brought.positions, recorder.widths) == ([3, 1, 2], 12, {4.0})
    add([5, 1], 10)
    add([5, 1], 14)
    assert recorder.widths == {4.0, 5.0}  # two tell that they differ
    assert recorder.drain().positions == 24 and recorder.drain().positions == 0
    again = Recorder(1)
    again.restore(recorder.collect(lambda arrays, count: (arrays, count)))
    assert again.widths == set() and again.drain().positions == 0  # of the batches that it has seen itself
    ids = torch.tensor([2])
    again.add(ids, ids, [ids.float()], 6)
    assert (again.drain().positions, again.counts()) == (6, (8, 42))


def test_positions_are_brought_with_their_batches_where_the_device_is_full(monkeypatch):
    monkeypatch.setattr("hf_prune.measure.recorder._HELD", 2)
    recorder, ids = Recorder(1), torch.tensor([2])
    for _ in range(3):
        recorder.add(ids, ids, [ids.float()], 5)
    brought = recorder.drain()
    assert (brought.tokens.tolist(), brought.positions) == ([2], 5)


def test_an_epoch_that_an_older_version_has_begun_goes_on():
    state = PruningState(History.empty(4), 0, {}, [{"epoch": 0, "rows": 2}])
    state.add(0, {"rows": 3, "padding": 4})
    assert state.epochs == [{"epoch": 0, "rows": 5, "padding": 4}]


# ---- Logs and account ----


def in_every_process(rank, folder):
    said = []
    logging.getLogger("hf_prune.train.pruning").warning = said.append
    ours = trainer(folder / "run", TASK.model(), MIXED[:38], KEEP, per_device_train_batch_size=2, num_train_epochs=2)
    ours.train()
    shares = [entry["prune/padding"] for entry in ours.state.log_history if "prune/padding" in entry]
    counted = ("tokens", "padded_tokens", "padding")
    epochs = [{name: epoch[name] for name in counted} for epoch in inside.engine(ours).state.epochs]
    (folder / f"{rank}.json").write_text(json.dumps([said, shares, epochs, ours.pruning_report().totals()["padding"]]))


def test_processes_count_together_and_one_says_it(tmp_path):
    assert ranks.run(in_every_process, tmp_path, processes=2, folder=tmp_path)
    (said, shares, *account), (silent, others, *same) = (
        json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)
    )
    epochs, share = account
    assert account == same and silent == [] and len(shares) == len(others) == 20 and shares != others
    assert [line.startswith(f"{100 * share:.0f} % {SAID} {FLAG}") for line in said] == [True]
    assert all(epoch["tokens"] + epoch["padding"] == epoch["padded_tokens"] for epoch in epochs)
    assert share == sum(epoch["padding"] for epoch in epochs) / sum(epoch["padded_tokens"] for epoch in epochs) > 0.2


@pytest.mark.parametrize("name", ["one label", "llama", "marian", "choice"])
def test_logs_and_account_have_the_share_of_padding(caplog, tmp_path, name):
    """By hand: each step's batch is as wide as its longest row, each side apart."""
    task, batches = TASKS[name], []

    class Seen(Collator):
        def __call__(self, rows):
            batch = super().__call__(rows)
            sides = [batch["attention_mask"].ne(0)]
            sides += [batch["labels"].ne(IGNORED)] if task.is_pair else []
            batches.append((sum(int((~side).sum()) for side in sides), sum(side.numel() for side in sides)))
            return batch

    ours, _ = run(caplog, tmp_path, task.rows(), task=task, num_train_epochs=2, data_collator=Seen())
    logged = [entry["prune/padding"] for entry in ours.state.log_history if "loss" in entry]
    assert logged == pytest.approx([padding / positions for padding, positions in batches])
    padding, positions = np.sum(batches, axis=0)
    report = ours.pruning_report()
    assert report.totals()["padding"] == report.to_dict()["totals"]["padding"] == padding / positions
    assert sum(epoch["padding"] for epoch in report.epochs) == padding
    assert f"| positions, {100 * padding / positions:.1f} % of them padding | {positions:,} | | |" in " ".join(
        report.summary().split("  ")
    )


def test_several_steps_of_a_log_are_taken_together(caplog, tmp_path):
    ours, _ = run(caplog, tmp_path, logging_steps=5, policy="uniform:keep=0.5", num_train_epochs=2)
    logs = [entry["prune/padding"] for entry in ours.state.log_history if "loss" in entry]
    shares = [epoch["padding"] / epoch["padded_tokens"] for epoch in ours.pruning_report().epochs]
    assert logs == pytest.approx(shares)


def test_images_show_nothing_of_it(caplog, tmp_path):
    ours, said = run(caplog, tmp_path, TASKS["image"].rows(), task=TASKS["image"])
    assert said == [] and ours.pruning_report().totals()["padding"] is None
    assert not any("prune/padding" in entry for entry in ours.state.log_history)
    ours.save_model()
    ours.create_model_card()
    ours.pruning_report().html(tmp_path / "_report.html")
    shown = (tmp_path / "README.md").read_text() + ours.pruning_report().summary()
    page = (tmp_path / "_report.html").read_text().partition("<body>")[2]
    assert not re.findall("padding|positions", shown + page)


class Joined(Collator):
    """All examples as one sequence, which are told apart only where nothing stands between them."""

    def __init__(self, between: int):
        self.between = between

    def __call__(self, rows):
        ids = sum((row["input_ids"] + [1] * self.between for row in rows), [])
        return {"input_ids": torch.tensor([ids]), "labels": torch.tensor([row["labels"] for row in rows])}


class Packed(Trainer):
    """Any loss of a batch that has fewer sequences than rows."""

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        loss = model(input_ids=inputs["input_ids"]).logits.sum() + 0 * inputs["labels"].sum()
        return (loss, None) if return_outputs else loss


@pytest.mark.parametrize(("between", "share"), [(0, 0.0), (1, None)])
def test_joined_rows_are_not_told_of(caplog, tmp_path, between, share):
    """A last batch of one row is a row as any other, and nothing follows from it for those that are not told apart."""
    args = trainer(tmp_path, TASK.model(), MIXED, KEEP, num_train_epochs=1).args
    ours = pruned(Packed)(
        model=TASK.model(), args=args, train_dataset=MIXED[:33], data_collator=Joined(between), policy=KEEP
    )
    with caplog.at_level(logging.WARNING, "hf_prune"):
        ours.train()
    assert SAID not in caplog.text
    assert ours.pruning_report().totals()["padding"] == share


def test_joined_rows_that_are_filled_up_are_not_told_of(caplog, tmp_path):
    class Filled(Joined):
        def __call__(self, rows):
            batch = super().__call__(rows)
            return batch | {"input_ids": torch.nn.functional.pad(batch["input_ids"], (0, 40))}

    args = trainer(tmp_path, TASK.model(), MIXED, KEEP, num_train_epochs=1).args
    ours = pruned(Packed)(model=TASK.model(), args=args, train_dataset=MIXED, data_collator=Filled(0), policy=KEEP)
    with caplog.at_level(logging.WARNING, "hf_prune"):
        ours.train()
    assert SAID not in caplog.text and ours.pruning_report().totals()["padding"] > 0.2


class Pairs(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        loss = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits.mean()
        return (loss, None) if return_outputs else loss


def test_several_texts_a_row_are_not_told_apart(caplog, tmp_path):
    def twice(rows):
        batch = Collator()(rows + rows[::-1])
        return batch | {"labels": torch.tensor([row["labels"] for row in rows])}

    args = trainer(tmp_path, TASK.model(), MIXED, KEEP, num_train_epochs=1).args
    ours = pruned(Pairs)(model=TASK.model(), args=args, train_dataset=MIXED, data_collator=twice, policy=KEEP)
    with caplog.at_level(logging.WARNING, "hf_prune"):
        ours.train()
    report = ours.pruning_report()
    assert report.totals()["padded_tokens"] > 0 and report.totals()["tokens"] == 0
    assert report.totals()["padding"] is None and SAID not in caplog.text
    assert not any("prune/padding" in entry for entry in ours.state.log_history)
    assert (ours.history.tokens == 0).all()
    assert ["positions", f"{report.totals()['padded_tokens']:,}", "", ""] in report.summary_cells()


# ---- The line at the end ----


def test_a_run_that_wastes_more_than_a_fifth_says_so_once(caplog, tmp_path):
    ours, said = run(caplog, tmp_path, num_train_epochs=3)
    share = ours.pruning_report().totals()["padding"]
    assert said == [f"{100 * share:.0f} % {SAID} {FLAG} puts rows of like length into one batch."]
    report = ours.pruning_report()
    assert report.padding() == said[0] and said[0] in report.card()
    assert "`--train_sampling_strategy group_by_length` puts" in report.padding(is_command=True)
    ours.save_model()
    read = RunReport.of_folder(tmp_path)
    assert read.padding() == said[0]
    read.html(tmp_path / "_report.html")
    assert said[0].replace("`", "").replace('"', "&#34;") in (tmp_path / "_report.html").read_text()


@pytest.mark.parametrize("rows", [rows_of(*[6] * 40), rows_of(*[5, 6] * 20)])
def test_a_run_that_wastes_little_says_nothing(caplog, tmp_path, rows):
    ours, said = run(caplog, tmp_path, rows)
    assert said == [] and ours.pruning_report().padding() is None
    assert 0 <= ours.pruning_report().totals()["padding"] < 0.2


def test_without_a_policy_nothing_is_said(caplog, tmp_path):
    assert run(caplog, tmp_path, policy=None)[1] == []


def test_what_the_line_advises_helps(caplog, tmp_path):
    plain, _ = run(caplog, tmp_path / "plain")
    grouped, said = run(caplog, tmp_path / "grouped", train_sampling_strategy="group_by_length")
    shares = [ours.pruning_report().totals()["padding"] for ours in (plain, grouped)]
    assert shares[1] < 0.2 < shares[0] and said == []


def test_grouped_rows_are_told_of_smaller_batches(caplog, tmp_path):
    """Few rows, or a collator that pads further than it must."""
    grouped = {"train_sampling_strategy": "group_by_length"}
    ours, (said,) = run(caplog, tmp_path / "few", rows_of(2, 2, 2, 2, 2, 2, 2, 20), **grouped)
    assert FLAG not in said and f"{SAID} {CURES['batch']}" in said
    assert "group_by_length" not in ours.pruning_report().padding(is_command=True)
    rows = rows_of(*[2, 20, 4, 30, 18, 3, 5, 25] * 20)
    _, (said,) = run(caplog, tmp_path / "far", rows, data_collator=Multiple(), **grouped)
    assert said.endswith(CURES["batch"])


def test_one_batch_of_all_rows_is_told_of_smaller_ones(caplog, tmp_path):
    _, (said,) = run(caplog, tmp_path, num_train_epochs=2, per_device_train_batch_size=64)
    assert said.endswith(f"{SAID} {CURES['batch']}")
    pair = TASKS["marian"]
    _, (said,) = run(caplog, tmp_path, pair.rows(), task=pair, per_device_train_batch_size=64)
    assert said.endswith(f"{SAID} {CURES['batch']}")


@pytest.mark.parametrize("by", ["the data set", "the collator"])
@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
def test_rows_of_one_width_are_told_to_pad_less(caplog, tmp_path, by, strategy):
    """Grouping cures nothing there; also in an encoder-decoder, and with one epoch of three batches."""
    rows, collator = (list(map(padded, MIXED)), Collator()) if by == "the data set" else (MIXED, Multiple())
    settings = {"train_sampling_strategy": strategy, "data_collator": collator}
    for some in (rows, rows[:12]):
        _, (said,) = run(caplog, tmp_path, some, **settings)
        assert said.endswith(f"{SAID} {CURES['width']}")


def test_sides_of_one_width_are_told_to_pad_less(caplog, tmp_path):
    task = TASKS["marian"]
    rng, rest = np.random.default_rng(0), [IGNORED] * (LENGTH - 4)
    rows = [padded(text(rng, labels=rng.integers(3, VOCAB, 4).tolist() + rest)) for _ in range(40)]
    _, (said,) = run(caplog, tmp_path, rows, task=task)
    assert said.endswith(f"{SAID} {CURES['width']}")


def test_batches_that_may_be_of_one_width_by_chance_are_told_both(caplog, tmp_path):
    """Every batch can have a row of the full length, as where texts are cut off."""
    _, (said,) = run(caplog, tmp_path, rows_of(*[9, 9, 2, 2] * 10), per_device_train_batch_size=16)
    assert FLAG in said and said.endswith(CURES["width"])


def test_a_data_set_without_ids_is_told_of_the_column(caplog, tmp_path):
    raw = Dataset.from_list([{"text": " ".join(map(str, row["input_ids"])), "labels": row["labels"]} for row in MIXED])

    def tokenize(rows):
        ids = [list(map(int, row["text"].split())) for row in rows]
        return Collator()([{"input_ids": one, "labels": row["labels"]} for one, row in zip(ids, rows, strict=True)])

    settings = {"data_collator": tokenize, "remove_unused_columns": False}
    _, (said,) = run(caplog, tmp_path, raw, **settings)
    assert FLAG in said and "a column of the rows' lengths for it, `length` or what length_column_name names" in said
    lengths = [len(row["input_ids"]) for row in MIXED]
    _, (said,) = run(caplog, tmp_path, raw.add_column("words", lengths), length_column_name="words", **settings)
    assert said.endswith("puts rows of like length into one batch.")


class Backwards(Sampler):
    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __iter__(self):
        return iter(range(len(self.data) - 1, -1, -1))


@pytest.mark.parametrize(
    ("make", "cause"),
    [(Backwards, "own"), (RandomSampler, "own"), (lambda data: LengthGroupedSampler(4, data), "batch")],
)
def test_an_order_of_ones_own_is_not_told_of_a_flag(caplog, tmp_path, make, cause):
    class Own(Trainer):
        def _get_train_sampler(self, train_dataset=None):
            return make(self.train_dataset if train_dataset is None else train_dataset)

    rows = rows_of(2, 2, 2, 20, 2, 2, 2, 2)
    args = trainer(tmp_path, TASK.model(), rows, KEEP, num_train_epochs=1).args
    ours = pruned(Own)(model=TASK.model(), args=args, train_dataset=rows, data_collator=Collator(), policy=KEEP)
    with caplog.at_level(logging.WARNING, "hf_prune"):
        ours.train()
    (said,) = [record.getMessage() for record in caplog.records if SAID in record.getMessage()]
    assert said.endswith(CURES[cause])


def test_rows_in_the_data_sets_order_are_told_of_the_flag(caplog, tmp_path):
    _, (said,) = run(caplog, tmp_path, train_sampling_strategy="sequential")
    assert said.endswith(f"{FLAG} puts rows of like length into one batch.")


# ---- Runs that end otherwise ----


@dataclass(frozen=True)
class Halves(Policy):
    """Two rounds an epoch, of which each trains all that it is offered."""

    rounds_per_epoch: int = 2

    def select(self, history, clock, rng):
        return Selection(np.arange(len(history)) if history.offered is None else history.offered)


class Stop(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == 7


@pytest.mark.parametrize(
    "settings",
    [{"policy": Halves()}, {"callbacks": [Stop()]}, {"max_steps": 13}, {"gradient_accumulation_steps": 3}],
    ids=["rounds", "early", "max_steps", "accumulation"],
)
def test_a_run_of_another_shape_says_it_at_its_end(caplog, tmp_path, settings):
    ours, (said,) = run(caplog, tmp_path, num_train_epochs=2, **settings)
    share = ours.pruning_report().totals()["padding"]
    assert said.startswith(f"{100 * share:.0f} % ") and FLAG in said


def test_a_resumed_run_says_it_of_the_whole_run(caplog, tmp_path):
    more = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 5}
    whole, (said,) = run(caplog, tmp_path, **more)
    for step in (5, 10, 15):
        ours, again = run(caplog, tmp_path, resume=str(tmp_path / f"checkpoint-{step}"), **more)
        assert again == [said]
        known = [{name: epoch[name] for name in ("tokens", "padding")} for epoch in ours.pruning_report().epochs]
        assert known == [{name: epoch[name] for name in known[0]} for epoch in whole.pruning_report().epochs]
    _, again = run(caplog, tmp_path, resume=str(tmp_path / "checkpoint-20"), **more)
    assert again == []  # nothing was left to train: it was said when the run ended


# ---- Sentence and files ----


def test_a_fifth_is_the_bound():
    assert note(0.2, ("order",)) is None and note(None, ("order",)) is None
    assert note(0.201, ("order",)).startswith("20 % of the positions")
    assert note(0.9, ()) is None
    assert all(note(0.5, (cause,)).startswith(f"50 % {SAID}") and "{" not in note(0.5, (cause,)) for cause in CURES)


def test_causes_are_those_of_the_order_where_widths_differ():
    tokens = np.array([3, 0, 9, 5, 2])
    assert causes("order", {9.0, 5.0}, tokens, 2, False) == ("order",)
    assert causes("own", {9.0}, tokens, 1, False) == ("width",)  # one row of four is so long
    assert causes("order", set(), tokens, 2, False) == ()
    assert causes("order", {12.0}, tokens, 64, False) == ("width",)  # wider than its longest row
    assert causes("order", {9.0}, tokens, 64, False) == ("batch",)


def test_a_file_keeps_what_the_padding_comes_of(tmp_path):
    epoch = dict.fromkeys(("rows", "rows_offered", "rows_rescored", "padded_tokens_rescored", "steps"), 1)
    epoch |= dict.fromkeys(("seconds_training", "seconds_selecting", "seconds_rescoring"), 1.0)
    epoch |= {"epoch": 0, "tokens": 60, "tokens_offered": 60, "padded_tokens": 100}
    report = PruningReport("P()", [epoch | {"padding": 40}], [], 1, 0, 0.0, 1, padding_causes=("own",))
    report.save(tmp_path / NUMBERS)
    assert PruningReport.load(tmp_path / NUMBERS) == report and report.padding().startswith("40 % ")
    found = json.loads((tmp_path / NUMBERS).read_text())
    assert found["totals"]["padding"] == 0.4
    (tmp_path / NUMBERS).write_text(json.dumps(found | {"padding_causes": ["<b>", "own"]}))
    assert PruningReport.load(tmp_path / NUMBERS) == report
    for odd in ("own", [["own"]], 3):
        (tmp_path / NUMBERS).write_text(json.dumps(found | {"padding_causes": odd}))
        with pytest.raises(ValueError, match="is no report of a pruned run"):
            PruningReport.load(tmp_path / NUMBERS)
    del found["padding_causes"], found["totals"]["padding"], found["epochs"][0]["padding"]  # as an older one wrote it
    (tmp_path / NUMBERS).write_text(json.dumps(found))
    older = PruningReport.load(tmp_path / NUMBERS)
    assert older.totals()["padding"] == 0.4 and older.padding() is None
    assert older == dataclasses.replace(report, epochs=[epoch], padding_causes=())
