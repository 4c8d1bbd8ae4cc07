"""One of each group of near-duplicates, by hand, and in a run."""

import numpy as np
import pandas
import pytest
from tiny import LENGTH, TASKS, trainer

from hf_prune import Clock, History, policies
from hf_prune.core.features import Features
from hf_prune.policies.one_of_each import OneOfEach

GROUPS = [0, 1, 0, 3, 1, 0, 6]  # three, two, one, one
NOW = Clock(3, 3, 10, 0.3)


def begun(policy, groups=GROUPS):
    history = History.empty(len(groups))
    history.features = Features(groups=np.array(groups))
    policy.begin(history, None)
    return history


def chosen(policy, seed, groups=GROUPS):
    return policy.select(begun(policy, groups), NOW, np.random.default_rng(seed)).check(len(groups)).rows


@pytest.mark.parametrize(
    ("most", "sizes"), [(1, [1, 1, 1, 1]), (2, [2, 2, 1, 1]), (3, [3, 2, 1, 1]), (10**30, [3, 2, 1, 1])]
)
def test_as_many_of_each_group_as_asked_for(most, sizes):
    policy = OneOfEach(most=most)
    for seed in range(20):
        rows = chosen(policy, seed)
        groups = np.array(GROUPS)[rows]
        assert [np.count_nonzero(groups == group) for group in (0, 1, 3, 6)] == sizes
        assert policy.forecast(begun(policy), NOW) == len(rows) == sum(sizes)
        assert (np.diff(rows) > 0).all()


def test_every_row_of_a_group_has_its_turn():
    """Each of three rows is drawn a third of the time, and each of two half of the time."""
    drawn = np.mean([np.isin(np.arange(7), chosen(OneOfEach(), seed)) for seed in range(2000)], axis=0)
    np.testing.assert_allclose(drawn, [1 / 3, 1 / 2, 1 / 3, 1, 1 / 2, 1 / 3, 1], atol=0.04)
    pairs = np.mean([np.isin(np.arange(7), chosen(OneOfEach(most=2), seed)) for seed in range(2000)], axis=0)
    np.testing.assert_allclose(pairs, [2 / 3, 1, 2 / 3, 1, 1, 2 / 3, 1], atol=0.04)


def test_without_duplicates_all_rows_are_kept():
    assert chosen(OneOfEach(), 0, np.arange(5)).tolist() == [0, 1, 2, 3, 4]


def test_the_groups_are_a_note_that_a_checkpoint_holds():
    history = begun(OneOfEach())
    assert history.notes["duplicate_group"].dtype == np.int32
    history.features = Features()  # as on resume under a newer version, which might find other groups
    rows = OneOfEach().select(history, NOW, np.random.default_rng(1)).rows
    assert rows.tolist() == chosen(OneOfEach(), 1).tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("similarity=0.3", r"OneOfEach\(similarity=...\) must be in \[0.5, 1\], got 0.3"),
        ("ngram=0", r"OneOfEach\(ngram=...\) must be in \[1, inf\), got 0"),
        ("ngram=1.5", "must be a whole number"),
        ("most=0", r"OneOfEach\(most=...\) must be in \[1, inf\), got 0"),
        ("columns=en+", r"OneOfEach\(columns=...\) must be names joined by '\+', got 'en\+'"),
        ("columns=3", r"OneOfEach\(columns=...\) must be names joined by '\+', got 3"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        policies.make(f"one_of_each:{settings}")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))


def crowd(rows):
    """The rows, and the first of them three times more, the last copy with another end."""
    first = rows[0] | {"input_ids": [*range(3, 3 + LENGTH)]}
    return [first, *rows[1:], first, first, first | {"input_ids": [*range(3, 2 + LENGTH), 30]}]


def test_a_run_trains_one_of_each_and_tells_the_groups(tmp_path, home):
    rows = crowd(TASKS["one label"].rows(8))
    run = trainer(tmp_path, TASKS["one label"].model(), rows, "one_of_each:similarity=0.7", num_train_epochs=4)
    run.train()
    assert [epoch["rows"] for epoch in run.pruning_report().epochs] == [8] * 4
    run.save_model()
    table = pandas.read_parquet(tmp_path / "history.parquet")
    assert table["duplicate_group"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0]
    assert table["times_trained"][1:8].tolist() == [4] * 7
    assert table["times_trained"][[0, 8, 9, 10]].sum() == 4


def test_a_run_that_goes_on_does_not_find_the_groups_again(tmp_path, home, monkeypatch):
    rows = crowd(TASKS["one label"].rows(8))
    settings = dict(num_train_epochs=4, save_strategy="steps", save_steps=3)

    def run(checkpoint=None):
        made = trainer(tmp_path, TASKS["one label"].model(), rows, "one_of_each", **settings)
        made.train(resume_from_checkpoint=checkpoint)
        return made

    whole = run()
    monkeypatch.setattr("hf_prune.data.duplicates.near_texts", lambda *_: 1 / 0)
    resumed = run(str(tmp_path / "checkpoint-3"))
    for one, other in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True):
        assert (one == other).all()


def test_texts_of_other_columns_are_read(tmp_path, home):
    rows = [
        row | {"text": text} for row, text in zip(TASKS["one label"].rows(4), ("A b", "c", "a  B", "d"), strict=True)
    ]
    model = TASKS["one label"].model()
    run = trainer(tmp_path, model, rows, "one_of_each:columns=text", num_train_epochs=1, remove_unused_columns=True)
    run.train()
    assert [epoch["rows"] for epoch in run.pruning_report().epochs] == [3]
    with pytest.raises(ValueError, match="the rows have no 'title'"):
        trainer(tmp_path, model, rows, "one_of_each:columns=title")


def test_a_decoders_texts_must_both_be_near(tmp_path, home):
    task = TASKS["t5"]
    rows = task.rows(4)
    rows = [*rows, rows[0], rows[1] | {"labels": [25, 26, 27, 28]}]
    run = trainer(tmp_path, task.model(), rows, "one_of_each", is_pair=True, num_train_epochs=1)
    run.train()
    assert [epoch["rows"] for epoch in run.pruning_report().epochs] == [5]
