"""What a policy of one's own answers: taken where it is plain, refused by name before anything is trained."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tiny
from tiny import TASKS

from hf_prune import Policy, Selection
from hf_prune.core import rounds_of


@dataclass(frozen=True)
class Mine(Policy):
    """Answers as it is told to; None = as it should."""

    selection: Any = None
    kept: Any = None
    rounds: Any = 1
    note: Any = None
    noted: Any = None
    weighs = True

    @property
    def rounds_per_epoch(self):
        return self.rounds

    def begin(self, history, earlier):
        if self.note is not None:
            history.notes["first"] = self.note

    def select(self, history, clock, rng):
        rows = np.arange(len(history)) if history.offered is None else history.offered
        return Selection(rows[: len(rows) // 2]) if self.selection is None else self.selection(rows)

    def update(self, history, clock, rng):
        if self.noted is not None:
            history.notes["later"] = self.noted

    def forecast(self, history, clock):
        return len(history) // 2 if self.kept is None else self.kept


class Later(Mine):
    in_background = True


def make(folder, policy, **settings):
    task = TASKS["one label"]
    settings = {"num_train_epochs": 2, "logging_steps": 1000} | settings
    return tiny.trainer(folder, task.model(0.0), task.rows(16), policy, **settings)


@pytest.mark.parametrize(
    "answer", [lambda rows: None, lambda rows: rows, lambda rows: (rows, None), lambda rows: {"rows": rows}]
)
def test_what_is_no_selection_is_refused_by_name(tmp_path, answer):
    trainer = make(tmp_path, Mine(answer))
    with pytest.raises(TypeError, match=r"Mine.select must return a Selection, got a \w+: give Selection\(rows\)"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_bad_weight_is_refused_before_it_is_trained_on(tmp_path):
    trainer = make(tmp_path, Mine(lambda rows: Selection(rows, np.full(len(rows), 1e39))))
    with pytest.raises(ValueError, match=r"Selection\(weights=...\).*finite in float32"):
        trainer.train()
    assert trainer.state.global_step == 0


@pytest.mark.parametrize("kept", [-1, 0, np.nan, "8", True, np.array([8.0]), [8]])
def test_a_forecast_that_says_nothing_is_refused_by_name(tmp_path, kept):
    trainer = make(tmp_path, Mine(kept=kept))
    with pytest.raises(
        ValueError, match="Mine.forecast must return a number of rows above 0, with more than 16 for all"
    ):
        trainer.train()
    assert trainer.state.global_step == 0


@pytest.mark.parametrize("kept", [8, 7.2, np.float32(8), np.int32(8), 16, 1e9, np.inf, 0.5])
def test_a_forecast_of_any_number_of_rows_is_taken(tmp_path, kept):
    trainer = make(tmp_path, Mine(kept=kept))
    trainer.train()
    assert trainer.state.global_step == 4


@pytest.mark.parametrize("rounds", [0, -1, 2.0, "2", None, True])
def test_rounds_that_are_no_number_are_refused_by_name(tmp_path, rounds):
    with pytest.raises(ValueError, match="Mine.rounds_per_epoch must be a whole number of at least 1, got"):
        make(tmp_path, Mine(rounds=rounds)).train()


@pytest.mark.parametrize("in_background", [False, True])
def test_numbers_of_numpy_are_trained_on_and_saved(tmp_path, in_background):
    def answer(rows):
        half = len(rows) // 2
        weights = np.full(half, 2.0)
        return Selection(rows[:half].astype(np.int32), weights, np.float32(0.5), rows[half:].astype(np.uint8))

    cls = Later if in_background else Mine
    policy = cls(answer, np.float64(8), np.int64(2), note=[1, 2], noted=np.float32(3))
    whole = make(tmp_path, policy, save_strategy="steps", save_steps=1)
    whole.train()
    assert rounds_of(policy) == 2 and whole.history.notes["later"] == 3
    for step in (1, 2, 3):
        again = make(tmp_path / "again", policy)
        again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        np.testing.assert_array_equal(again.history.loss, whole.history.loss)


def test_notes_that_no_checkpoint_can_hold_are_refused_when_they_are_written(tmp_path):
    with pytest.raises(TypeError, match=r"Mine keeps history.notes\['first'\]"):
        make(tmp_path, Mine(note=np.array(["a"])))
    for cls in (Mine, Later):
        trainer = make(tmp_path, cls(noted=np.array(["a"])), num_train_epochs=4, save_strategy="steps", save_steps=1)
        with pytest.raises(TypeError, match=rf"{cls.__name__} keeps history.notes\['later'\]"):
            trainer.train()
        assert trainer.state.global_step <= 8 and "later" not in trainer.history.notes  # and checkpoints were saved
