"""Listed, by hand: rows that a column or a file names, and one of each group."""

import logging

import numpy as np
import pytest
from datasets import Dataset
from tiny import TASKS, trainer

from hf_prune import Clock, History
from hf_prune.core.features import Features
from hf_prune.policies import make
from hf_prune.policies.listed import Listed

CLOCK = Clock(0, 0, 5, 0.0)
TASK = TASKS["one label"]


def begun(policy, n, listed=None, **columns):
    history = History.empty(n)
    history.features = Features(columns={name: np.array(column) for name, column in columns.items()}, listed=listed)
    policy.begin(history, None)
    return history


def kept(policy, history, seed=0):
    return policy.select(history, CLOCK, np.random.default_rng(seed)).check(len(history)).rows.tolist()


@pytest.mark.parametrize("column", [[True, False, True], [1, 0, 1], [1.0, 0.0, 1.0], np.array([True, 0, 1], object)])
def test_the_rows_of_a_column_or_all_others(column):
    only, others = Listed(column="good"), Listed(column="good", drop=True)
    history = begun(only, 3, good=column)
    assert kept(only, history) == [0, 2]
    assert only.forecast(history, CLOCK) == 2
    history = begun(others, 3, good=column)
    assert kept(others, history) == [1]
    assert others.forecast(history, CLOCK) == 1


def test_the_rows_of_a_file(tmp_path):
    path = tmp_path / "rows.txt"
    path.write_text("1\n")
    policy = Listed(file=str(path), drop=True)
    assert kept(policy, begun(policy, 3, listed=np.array([False, True, False]))) == [0, 2]


def test_one_of_each_group_is_drawn_anew_and_a_row_without_group_is_always_trained():
    """Groups {0, 2, 5}, {1, 4}, {3} and {6}, the last two without a name: each round has 4 rows, 3 and 6 among them."""
    policy = Listed(one_of="group")
    history = begun(policy, 7, group=np.array(["a", "b", "a", None, "b", "a", None], object))
    assert policy.forecast(history, CLOCK) == 4
    visits, rounds = np.zeros(7), 3000
    for seed in range(rounds):
        rows = kept(policy, history, seed)
        assert len(rows) == 4 and len({0, 2, 5} & set(rows)) == 1 and len({1, 4} & set(rows)) == 1
        visits[rows] += 1
    assert visits[[3, 6]].tolist() == [rounds, rounds]
    for row, share in {0: 1 / 3, 2: 1 / 3, 5: 1 / 3, 1: 1 / 2, 4: 1 / 2}.items():
        assert abs(visits[row] / rounds - share) < 4 * np.sqrt(share * (1 - share) / rounds)


def test_groups_are_of_the_rows_that_are_listed():
    """Without row 0, the groups are {2}, {1} and {3}."""
    policy = Listed(column="bad", drop=True, one_of="group")
    history = begun(policy, 4, bad=[True, False, False, False], group=[7, 9, 7, 8])
    assert kept(policy, history) == [1, 2, 3]
    assert policy.forecast(history, CLOCK) == 3


@pytest.mark.parametrize("groups", [[2**60, 2**60 + 1, 2**60], [2.0, np.nan, 2.0], [True, False, True]])
def test_groups_may_be_numbers(groups):
    policy = Listed(one_of="group")
    rows = kept(policy, begun(policy, 3, group=groups))
    assert rows in ([0, 1], [1, 2])


@pytest.mark.parametrize(
    ("settings", "columns", "message"),
    [
        ({}, {}, r"Listed\(column=None, .*names no rows: give column"),
        ({"column": "a"}, {"a": [0, 2, 1]}, r"Listed\(column=...\) takes true and .* but 'a' has 2 in row 1"),
        ({"column": "a"}, {"a": np.array([True, None, True], object)}, "'a' has None in row 1 of the training set"),
        ({"column": "a"}, {"a": np.array(["1", "0", "1"], object)}, "'a' has '1' in row 0"),
        ({"column": "a"}, {"a": [0, 0, 0]}, "leaves none of the 3 rows to train"),
        ({"column": "a", "drop": True}, {"a": [1, 1, 1]}, "leaves none of the 3 rows to train"),
        ({"one_of": "a"}, {"a": [0.5, 1, 2]}, r"Listed\(one_of=...\) takes texts or whole numbers, but 'a' has 0.5"),
        ({"one_of": "a"}, {"a": np.array(["x", ("y",), "z"], object)}, r"'a' has \('y',\) in row 1"),
    ],
)
def test_a_column_of_another_kind_is_refused(settings, columns, message):
    with pytest.raises(ValueError, match=message):
        begun(Listed(**settings), 3, **columns)


@pytest.mark.parametrize(
    ("spelled", "message"),
    [
        ("listed:column=3", r"Listed\(column=...\) must be a name, got 3"),
        ("listed:drop=true", r"Listed\(drop=...\) leaves out the rows that are named: give column"),
        ("listed:file=no.txt", r"Listed\(file=...\): there is no file 'no.txt'"),
        (f"listed:column=a,file={__file__}", r"Listed\(file=...\) and column='a' name rows twice"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(spelled, message):
    with pytest.raises(ValueError, match=message):
        make(spelled)


# ---- In a trainer ----


def visited(ours):
    ours.train()
    return np.flatnonzero(ours.history.last_round >= 0).tolist()


@pytest.mark.parametrize("kind", [list, Dataset.from_list])
def test_a_run_trains_these_rows_alone(tmp_path, kind):
    rows = kind([row | {"good": number in (1, 4, 6, 7, 9)} for number, row in enumerate(TASK.rows(12))])
    ours = trainer(tmp_path, TASK.model(), rows, "listed:column=good", num_train_epochs=2)
    assert visited(ours) == [1, 4, 6, 7, 9]
    assert [epoch["rows"] for epoch in ours.pruning_report().epochs] == [5, 5]
    assert ours.state.max_steps == ours.state.global_step == 4  # two batches an epoch, as planned


def test_numbers_of_a_file_are_those_of_the_rows_in_their_file(tmp_path, caplog):
    """The training set has rows 10 to 19 of a file: of 11, 13 and 5, the last is not among them."""
    (tmp_path / "bad.txt").write_text("11\n13\n5\n")
    rows = Dataset.from_list([row | {"file_row": 10 + number} for number, row in enumerate(TASK.rows(10))])
    policy = Listed(file=str(tmp_path / "bad.txt"), drop=True)
    with caplog.at_level(logging.WARNING, "hf_prune"):
        ours = trainer(tmp_path, TASK.model(), rows, policy, num_train_epochs=1)
    assert "lacks 1 of the 3 (5 ...)" in caplog.text
    assert visited(ours) == [0, 2, 4, 5, 6, 7, 8, 9]


def test_a_resumed_run_keeps_the_list_that_it_began_with(tmp_path):
    path = tmp_path / "rows.txt"
    path.write_text("0\n1\n2\n3\n4\n5\n")
    more = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 2}
    trainer(tmp_path / "run", TASK.model(), TASK.rows(12), Listed(file=str(path)), **more).train()
    path.write_text("11\n")
    ours = trainer(tmp_path / "run", TASK.model(), TASK.rows(12), Listed(file=str(path)), **more)
    ours.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert np.flatnonzero(ours.history.last_round >= 0).tolist() == list(range(6))


def test_a_column_that_is_not_there_is_refused_when_the_trainer_is_made(tmp_path):
    for rows in (TASK.rows(4), Dataset.from_list(TASK.rows(4))):
        with pytest.raises(ValueError, match=r"Listed reads the column 'good', but the rows have input_ids.* labels"):
            trainer(tmp_path, TASK.model(), rows, "listed:column=good")
