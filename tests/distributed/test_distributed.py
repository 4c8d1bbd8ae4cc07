"""Two and four processes on gloo, started as users start them, and two that are killed."""

import itertools
import math
import os
import pickle
import random
from pathlib import Path

import launched
import numpy as np
import pytest
import ranks
import stress
import torch
import transformers
from crashes import fail_at
from launching import PROCESSES, can_resume, launch
from resumed import build, result_of
from tiny import TASKS

from hf_prune.measure.recorder import gather_columns
from hf_prune.train import checkpoint

pytestmark = pytest.mark.slow  # runs of several processes


@pytest.fixture(scope="module", params=["two", pytest.param("four", marks=pytest.mark.slow)])
def ends(request, tmp_path_factory):
    """What all processes of one launch ended with, case by case."""
    found = launch(request.param, tmp_path_factory.mktemp(request.param))
    assert {rank["plain"]["stock"]["processes"] for rank in found} == {PROCESSES[request.param]} == {len(found)}
    return found


def shared(ends):
    """The ways to share out batches that were tried, and what each process ended with in each."""
    return [(name, every(ends, name)) for name in launched.SHARING if name in ends[0]]


def every(ends, *names):
    """What each process ended one training with."""
    for name in names:
        ends = [rank[name] for rank in ends]
    return ends


def assert_equal_on_all(ends):
    for name in ("histories", "history", "weights", "steps"):
        assert all(rank[name] == ends[0][name] for rank in ends), name
    assert ends[0]["steps"][0] == ends[0]["steps"][1]
    assert len({len(rank["batches"]) for rank in ends}) == 1


def test_keeping_everything_is_the_stock_trainer(ends):
    for sharing, found in shared(ends):
        for rank in found:
            for name in ("weights", "losses", "steps"):
                assert rank["all"][name] == rank["stock"][name], (sharing, name)


def test_all_processes_know_the_same_in_every_round(ends):
    for _, found in shared(ends):
        assert_equal_on_all(every(found, "pruned"))


@pytest.mark.parametrize("case", launched.POLICIES)
def test_rescoring_and_rounds_end_alike_everywhere(ends, case):
    assert_equal_on_all(every(ends, "policies", case))


def test_every_kept_row_is_trained_once_and_repeats_only_fill_the_last_batches(ends):
    for sharing, found in shared(ends):
        check_rows(sharing, every(found, "pruned"))


def check_rows(sharing, found):
    settings = launched.SHARING[sharing]
    accumulation, rows = settings.get("gradient_accumulation_steps", 1), settings.get("rows", 29)
    together = [sum(batches, []) for batches in zip(*every(found, "batches"), strict=True)]  # of all processes
    begin, sizes = 0, []
    for epoch in found[0]["epochs"]:
        batches = together[begin : begin + math.ceil(epoch["rows"] / len(together[0]))]
        begin += len(batches)
        assert sum(map(len, batches)) == epoch["rows"]
        assert epoch["rows_repeated"] == epoch["rows"] - len(set(sum(batches, [])))
        assert math.ceil(len(batches) / accumulation) == epoch["steps"]
        before_the_last = sum(batches[:-1], [])
        assert len(set(before_the_last)) == len(before_the_last)
        new = set(batches[-1]) - set(before_the_last)
        assert new  # the last batches are there because rows were left
        sizes.append(len(before_the_last) + len(new))
    assert begin == len(together)
    dropped = rows % len(together[0]) if settings.get("dataloader_drop_last") else 0
    if settings.get("policy") is None:
        assert sizes[0] == rows - dropped
        assert rows < 4 or min(sizes) < sizes[0]
    else:
        assert sizes == [rows // 2] * launched.EPOCHS


@pytest.mark.parametrize("case", ["grouped", "grouped, split"])
def test_the_processes_of_a_step_get_rows_of_like_length(ends, case):
    lengths = [len(row["input_ids"]) for row in TASKS["llama"].rows(launched.GROUPED["rows"])]
    found = every(ends, "policies", case)
    together = [sum(batches, []) for batches in zip(*every(found, "batches"), strict=True)]  # of all processes
    begin = 0
    for epoch in found[0]["epochs"]:
        steps = together[begin : begin + epoch["steps"]]
        begin += len(steps)
        cuts = [sorted(lengths[row] for row in step) for step in steps[:-1]]  # the last one is filled up
        if epoch["epoch"] == 0:
            assert cuts[0][-1] == max(map(max, cuts))
        cuts.sort()
        assert all(one[-1] <= other[0] for one, other in itertools.pairwise(cuts))


def test_hidden_rows_are_shared_out_and_repeated_only_to_fill_batches(ends):
    for case in ("rescoring", "rescoring, split", "rescoring, dispatch", "rescoring, uneven"):
        found = every(ends, "policies", case)
        (rescored,) = {epoch["rows_rescored"] for epoch in found[0]["epochs"]} - {0}
        filled = 14 if (case, len(found)) == ("rescoring, dispatch", 2) else 16
        assert rescored == filled, case  # 13 rows, and repeats
        first, second = found[0]["epochs"][:2]
        assert first["rows_rescored"] == 0 < second["rows_rescored"]


def test_the_number_of_processes_changes_losses_by_rounding_alone(ends, tmp_path):
    found = every(ends, "same steps")
    size = 2 * len(found)
    one = launched.train(tmp_path, policy=launched.Weighted(), per_device_train_batch_size=size, **launched.SAME_STEPS)
    together = [sum(batches, []) for batches in zip(*every(found, "batches"), strict=True)]
    assert [sorted(rows) for rows in together] == [sorted(rows) for rows in one["batches"]]
    for name, values in one["history"].items():
        np.testing.assert_allclose(found[0]["history"][name], values, rtol=1e-5, err_msg=name)
    assert found[0]["steps"] == one["steps"]


def test_batches_that_cannot_be_shared_out_are_refused_before_the_first_step(ends):
    for rank in every(ends, "refused"):
        for name, message in rank.items():
            assert "even_batches=False" in message and "Use even_batches=True" in message, name
        assert "29 kept rows" in rank["uneven"] and "29 kept rows" in rank["uneven, split"]


def test_a_round_gathers_ids_once_and_losses_once_and_a_step_nothing(ends):
    for rank in every(ends, "collectives"):
        for stock, pruned in zip(rank["stock"], rank["all"], strict=True):
            extra = {name: pruned.get(name, 0) - stock.get(name, 0) for name in stock | pruned}
            # the data set; in each round the policy's answer, sizes, ids and losses; whatever the number of rows
            assert {name: n for name, n in extra.items() if n} == {"all_gather": 1 + 4 * launched.EPOCHS}


# ---- Gathering, in processes that do nothing else ----


def gather_unequal(rank, folder):
    from accelerate import Accelerator

    from hf_prune.measure import recorder

    recorder._CHUNK = 5
    accelerator = Accelerator(cpu=True)
    visits = (0, 12, 5)[rank]  # none, more than two chunks, and one
    ids = torch.arange(2 * visits).reshape(2, visits) + 2**40 * (rank + 1)
    floats = torch.full((1, visits), float(rank))
    joined, count = gather_columns(accelerator, [ids, floats, torch.empty(0, visits)], 10**rank)
    torch.save((joined, count), Path(folder, f"joined{rank}"))


def test_processes_may_bring_unequally_much(tmp_path):
    assert ranks.run(gather_unequal, tmp_path, processes=3, folder=tmp_path)
    for rank in range(3):
        (ids, floats, nothing), count = torch.load(tmp_path / f"joined{rank}")
        second, third = (torch.arange(2 * n).reshape(2, n) + 2**40 * k for n, k in ((12, 2), (5, 3)))
        assert torch.equal(ids, torch.cat([second, third], dim=1))
        assert floats.tolist() == [[1.0] * 12 + [2.0] * 5]
        assert (nothing.shape, count) == ((0, 17), 111)


# ---- Processes that see different things ----


class LogsOnOne(transformers.TrainerCallback):
    """Asks for a log at an epoch's end where none is due, as no two processes should do differently."""

    def __init__(self, rank):
        self.rank = rank

    def on_epoch_end(self, args, state, control, **kwargs):
        control.should_log = self.rank == 1


def train_apart(rank, folder, epochs):
    """Train, or go on where there are checkpoints, whose files the second process does not always see."""
    trainer, log = build(folder, rows=32, num_train_epochs=epochs, save_steps=1)
    trainer.add_callback(LogsOnOne(rank))
    torch.manual_seed(rank)
    saved = checkpoint._newest_first(folder)
    if rank == 1:
        flaw, is_file = checkpoint._flaw, os.path.isfile
        checkpoint._flaw = lambda path: "an I/O error" if path == saved[0] else flaw(path)
        os.path.isfile = lambda path: os.path.basename(path) != checkpoint.STATE and is_file(path)
    trainer.train(resume_from_checkpoint=True if saved else None)
    Path(folder, f"result{rank}").write_bytes(pickle.dumps(result_of(trainer, log)))


@can_resume
def test_what_processes_see_differently_is_as_the_main_one_sees_it(tmp_path):
    """Seeds, whether a log is due, which checkpoint is whole and holds the state: else each waits for the other."""
    begin = 0
    for epochs in (1, 2):
        assert ranks.run(train_apart, tmp_path, epochs, processes=2, folder=tmp_path)
        first, second = (pickle.loads(Path(tmp_path, f"result{rank}").read_bytes()) for rank in range(2))
        rows, others = first.pop("rows"), second.pop("rows")
        assert first == second
        assert min(rows) == min(others) == begin
        begin = first["end"][0]
        if epochs == 1:
            together = sum([*rows.values(), *others.values()], [])
            assert sorted(sum(together, [])) == list(range(32))  # one order, shared out


# ---- One of two fails ----


def train_until_one_fails(rank, folder, failing, place, call):
    trainer, _ = build(folder, rows=32, num_train_epochs=2, save_steps=3)
    if rank == failing:

        def fails(work):
            raise OSError("no room in this one")

        fail_at(trainer, place, fails, call)
    trainer.train()


@pytest.mark.parametrize(
    ("failing", "place", "call", "whole"),
    [
        (1, "training_step", 5, 3),
        (1, "_run_epoch", 2, 6),
        (1, "_save_rng_state", 2, 3),
        (0, "_save_rng_state", 2, 3),
        (0, "_save_optimizer_and_scheduler", 2, 3),
    ],
)
def test_where_one_process_fails_the_other_ends_too_and_checkpoints_stay_whole(tmp_path, failing, place, call, whole):
    run = {"processes": 2, "folder": tmp_path}
    with pytest.raises(AssertionError, match="no room in this one"):  # one that waits for ever would be killed
        ranks.run(train_until_one_fails, tmp_path, failing, place, call, kills_all=False, **run)
    assert checkpoint.last_whole(tmp_path, lambda _: None) == str(tmp_path / f"checkpoint-{whole}")


# ---- Interrupted ----


@can_resume
@pytest.mark.parametrize(("place", "kills_all"), [("step", True), ("save", False), ("round", False)])
def test_two_processes_are_killed_and_go_on(interrupted, tmp_path, place, kills_all):
    settings, reference = interrupted
    chance = random.Random(f"{place}{kills_all}")
    rank = int(kills_all)
    visits = reference[rank][1][place]
    visit = chance.randrange(len(visits) // 2, len(visits))
    moment = stress.Moment(rank, place, visit, chance.randint(1, visits[visit]), kills_all)
    run = {"processes": 2, "folder": tmp_path}
    assert not ranks.run(stress.train, tmp_path, settings, moment, kills_all=kills_all, **run)
    assert ranks.run(stress.train, tmp_path, settings, None, **run)
    stress.compare(stress.results(tmp_path, 2), reference)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """Settings of a run of two processes, and what it ends with when nobody interrupts it."""
    folder = tmp_path_factory.mktemp("whole")
    settings = {"policy": "infobatch:ratio=0.6", "accumulation": 3, "save_steps": 1, "rows": 34, "num_train_epochs": 2}
    assert ranks.run(stress.train, folder, settings, None, processes=2, folder=folder)
    return settings, stress.results(folder, 2)
