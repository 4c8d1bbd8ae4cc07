"""The engine with no model and no trainer: arrays and a recorder that is fed by hand, and values worked out by hand."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler

from hf_prune import History, Policy, Selection
from hf_prune.core import Clock
from hf_prune.measure.recorder import Recorder
from hf_prune.train.checkpoint import PruningState, Setup
from hf_prune.train.engine import Engine
from hf_prune.train.recording import Signals
from hf_prune.train.sampler import PruningSampler
from hf_prune.train.schedule import Place, UnprunedSchedule

EVEN, ODD = np.arange(0, 8, 2), np.arange(1, 8, 2)


@dataclass(frozen=True)
class Evens(Policy):
    """Trains the rows of even number, and notes the rounds that it has learnt from."""

    weighs: ClassVar[bool] = True

    rounds: int = 1
    weight: float | None = None
    rescore: bool = False

    @property
    def rounds_per_epoch(self):
        return self.rounds

    def select(self, history, clock, rng):
        rows = EVEN if history.offered is None else np.intersect1d(EVEN, history.offered)
        weights = None if self.weight is None else np.full(len(rows), self.weight, np.float32)
        return Selection(rows, weights, rescore=ODD[:2] if self.rescore else None)

    def update(self, history, clock, rng):
        history.notes[f"round {clock.round}"] = history.loss.copy()

    def forecast(self, history, clock):
        return 4


def engine_of(policy=None, batch=2, accumulation=1, epochs=2.0, max_steps=0, signals=("loss",), **setup):
    """One of 8 rows in their own order: an epoch of 4 steps, over all of them."""
    policy = Evens() if policy is None else policy
    sampler = PruningSampler(None, 8, seed=3)
    sampler.is_cut_by(BatchSampler(sampler, batch, drop_last=False), accumulation)
    updates = sampler.steps_for(8)
    steps = max_steps or math.ceil(epochs * updates)
    schedule = UnprunedSchedule(updates, steps, steps / updates if max_steps else epochs, bool(max_steps))
    known = {"policy": repr(policy), "data": 7, "batch": batch, "accumulation": accumulation, "order": sampler.kind}
    history = History.empty(8, signals)
    return Engine(policy, schedule, history, sampler, Signals(signals), Setup(**known | setup))


def feed(recorder, rows, losses, tokens=3, positions=8, *signals):
    ids = torch.tensor(rows)
    values = [torch.tensor(line, dtype=torch.float32) for line in (losses, *signals)]
    recorder.add(ids, torch.full_like(ids, tokens), values, positions)


def train(engine, step, until, loss=1.0):
    """Steps of the round in progress, of two rows each."""
    batches = [*BatchSampler(engine._sampler, 2, drop_last=False)]
    for number in range(step, until):
        engine.begin_batch(number)
        feed(engine.recorder, batches[number - engine.state.round.plan.first_step], [loss, loss + 1])
    return until


# ---- A round is opened ----


def test_a_round_begins_with_the_rows_that_the_policy_selects():
    engine = engine_of()
    assert engine.first_place(0, 0) == Place(0, 0, 1)
    engine.open_round(Place(0), 0)
    current = engine.state.round
    assert current.clock == Clock(round=0, epoch=0, epochs=2.0, share=0.0, step_rows=2, rounds=1)
    assert current.selection.rows.tolist() == [0, 2, 4, 6]
    plan = current.plan
    assert (plan.first_step, plan.updates, plan.steps, plan.start, plan.end) == (0, 2, 2, 0, 4)
    assert [engine.position(step) for step in (0, 1, 2)] == [0, 2, 4]  # two steps stand for four
    assert len(engine._sampler) == 8, "nothing is planned yet"
    engine.plan()
    assert [*engine._sampler] == [0, 2, 4, 6]
    assert engine.weights() is None and engine.lr_scale() == 1.0
    assert engine.goes_on(1) and not engine.goes_on(2)


def test_weights_are_of_all_rows_and_1_where_none_was_given():
    engine = engine_of(Evens(weight=2.5))
    engine.open_round(Place(0), 0)
    assert engine.weights().tolist() == [2.5, 1, 2.5, 1, 2.5, 1, 2.5, 1]


def test_the_rounds_of_an_epoch_are_slices_of_its_permutation():
    engine, offered, step = engine_of(Evens(rounds=3)), [], 0
    for part in range(3):
        engine.open_round(Place(0, part, 3), step)
        offered.append(engine.state.history.offered.tolist())
        engine.plan()
        step = train(engine, step, step + engine.state.round.plan.steps)
        engine.close_round(step)
    assert offered == [[0, 1], [2, 3, 4, 5], [6, 7]]  # 4 steps are cut at 1.33 and 2.67, to 1 and 3
    (account,) = engine.state.epochs
    assert (account["rows"], account["rows_offered"], account["steps"], account["steps_full"]) == (4, 8, 3, 4)


def test_what_is_no_answer_is_refused():
    @dataclass(frozen=True)
    class Wrong(Policy):
        answer: object = None

        def select(self, history, clock, rng):
            return self.answer

        def forecast(self, history, clock):
            return self.answer

    with pytest.raises(TypeError, match=r"Wrong.select must return a Selection, got a list: give Selection\(rows\)"):
        engine_of(Wrong([1])).open_round(Place(0), 0)
    weights = np.ones(4, np.float32)
    with pytest.raises(ValueError, match="Wrong gave weights, but does not declare `weighs = True`"):
        engine_of(Wrong(Selection(EVEN, weights))).open_round(Place(0), 0)
    with pytest.raises(ValueError, match="Wrong.forecast must return a number of rows above 0"):
        engine_of(Wrong(0)).forecast()


# ---- The clock ----


def test_a_forecast_is_of_the_policy_s_own_and_then_of_the_round():
    engine = engine_of(epochs=3)
    assert engine.forecast() == (6, 3)  # 4 of 8 rows: 2 steps in each of 3 epochs
    engine.open_round(Place(0), 0)
    assert engine.forecast() == (6, 3)
    assert engine_of(epochs=1.5).forecast() == (3, 2)
    assert engine_of(max_steps=5).forecast() == (5, 3)


def test_a_clock_of_steps_gives_each_step_its_own_place():
    engine = engine_of(max_steps=5)
    engine.open_round(Place(0), 0)
    assert [engine.position(step) for step in (0, 1, 2)] == [0, 1, 2]


# ---- A round is closed ----


def test_what_a_round_measured_is_told_and_what_it_cost_is_counted():
    engine = engine_of(Evens(rescore=True), signals=("loss", "correct"))
    engine.open_round(Place(0), 0)
    engine.plan()
    engine.begin_batch(0)
    feed(engine.recorder, [0, 2], [1.0, 2.0], 3, 8, [1, 0])
    engine.begin_batch(1)
    feed(engine.recorder, [6, 4], [math.inf, 4.0], 3, 6, [0, 1])
    asked = []

    def rescore(rows: np.ndarray, recorder: Recorder):
        asked.append(rows.tolist())
        feed(recorder, rows.tolist(), [5.0, 6.0], 2, 4, [1, 1])

    result = engine.close_round(2, rescore)
    nan = math.nan
    np.testing.assert_array_equal(engine.state.history.loss, np.float32([1, 5, 2, 6, 4, nan, nan, nan]))
    assert engine.state.history.faults.tolist() == [0, 0, 0, 0, 0, 0, 1, 0]
    assert engine.state.history.last_round.tolist() == [0, 0, 0, 0, 0, -1, -1, -1]
    np.testing.assert_array_equal(engine.state.history.signals["correct"], np.float32([1, 1, 0, 1, 1, nan, nan, nan]))
    np.testing.assert_array_equal(engine.state.history.notes["round 0"], engine.state.history.loss)
    assert asked == [[1, 3]]
    counted = {name: value for name, value in result.account.items() if "seconds" not in name}
    assert counted == {
        "rows_offered": 8,
        "rows": 4,
        "rows_repeated": 0,
        "rows_rescored": 2,
        "tokens_offered": 21,  # 16 tokens are known of 6 rows: of 8, 21.3
        "tokens": 12,
        "padded_tokens": 14,
        "padding": 2,
        "padded_tokens_rescored": 4,
        "steps": 2,
        "steps_full": 4,
    }
    assert result.account["seconds_rescoring"] > 0
    assert engine.state.epochs == [{"epoch": 0, **result.account}]
    cost = engine.state.history.facts["cost"]
    assert (cost["runs"], cost["rows"], cost["tokens"]) == (1, 6, 18)
    assert engine.state.round is None and engine.recorder.counts() == (0, 0)


def test_the_result_of_a_round_holds_what_its_trace_is_made_of():
    engine = engine_of(Evens(rescore=True))
    engine.open_round(Place(0), 0)
    engine.plan()
    train(engine, 0, 2)
    engine.state.round.seconds_training = 1.5
    result = engine.close_round(2, lambda rows, recorder: feed(recorder, rows.tolist(), [5.0, 6.0]))
    assert (result.clock.round, result.lr_scale, result.seconds, result.rows) == (0, 1.0, 1.5, 8)
    trained, rescored = result.losses
    assert np.flatnonzero(trained[0]).tolist() == trained[1].tolist() == [0, 2, 4, 6]
    assert trained[2].tolist() == [1, 2, 1, 2]
    assert np.flatnonzero(rescored[0]).tolist() == [1, 3] and rescored[2].tolist() == [5, 6]


def test_a_row_that_fills_up_a_batch_counts_twice_and_is_measured_by_its_mean():
    engine = engine_of()
    engine.open_round(Place(0), 0)
    feed(engine.recorder, [0, 2, 4, 6, 0], [1.0, 1.0, 1.0, 1.0, 3.0])
    account = engine.close_round(2).account
    assert (account["rows"], account["rows_repeated"]) == (5, 1)
    assert engine.state.history.loss[0] == 2


def test_where_batches_are_all_that_is_measured_a_score_moves_slowly():
    engine = engine_of()
    engine._measuring.by_batch = True
    for epoch, loss in enumerate((2.0, 4.0)):
        engine.open_round(Place(epoch), 2 * epoch)
        feed(engine.recorder, EVEN.tolist(), 4 * [loss])
        engine.close_round(2 * epoch + 2)
    assert engine.state.history.loss[0] == np.float32(0.7) * 2 + np.float32(0.3) * 4


def test_rows_that_were_not_selected_end_the_run():
    engine = engine_of()
    engine.open_round(Place(0), 0)
    feed(engine.recorder, [1], [1.0])
    with pytest.raises(ValueError, match="Rows were trained that the policy had not selected"):
        engine.close_round(1)


def test_without_a_round_nothing_is_closed():
    assert engine_of().close_round(0) is None


def test_an_update_that_fails_is_raised_where_the_next_round_would_begin():
    @dataclass(frozen=True)
    class Broken(Evens):
        def update(self, history, clock, rng):
            raise RuntimeError("no features")

    engine = engine_of(Broken())
    engine.open_round(Place(0), 0)
    engine.plan()
    train(engine, 0, 2)
    assert engine.close_round(2).account["rows"] == 4, "what was measured is kept"
    with pytest.raises(RuntimeError, match="no features"):
        engine.open_round(Place(1), 2)


def test_a_step_that_nobody_measured_is_noticed():
    engine = engine_of()
    with pytest.raises(ValueError, match="never call those of hf_prune"):
        engine.check_begun()
    engine.begin_batch(0)
    engine.check_begun()


# ---- Logs ----


def test_logs_say_what_was_trained_so_far():
    engine = engine_of(Evens(weight=2.0))
    assert engine.counts() == {}
    engine.open_round(Place(0), 0)
    engine.plan()
    train(engine, 0, 1, loss=1.0)
    engine.count()
    counts = engine.counts()
    assert (counts["prune/rows"], counts["prune/tokens"]) == (2, 8)
    assert engine.progress() == {
        "prune/kept": 0.5,
        "prune/padding": 0.25,
        "prune/loss_p10": pytest.approx(1.1),
        "prune/loss_p50": pytest.approx(1.5),
        "prune/loss_p90": pytest.approx(1.9),
    }
    train(engine, 1, 2)
    engine.close_round(2)
    engine.open_round(Place(1), 2)
    assert engine.counts()["prune/rows"] == 4


def test_seconds_are_of_training_or_of_what_holds_it_up(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("hf_prune.train.engine.time.perf_counter", lambda: now[0])
    engine = engine_of()
    engine.open_round(Place(0), 0)
    engine.plan()
    train(engine, 0, 2)
    engine.start_timing()
    now[0] = 5.0
    with engine.pause():
        assert not engine.is_timing
        now[0] = 7.0
    now[0] = 8.0
    engine.stop_timing()
    engine.close_round(2)
    with engine.overhead():
        now[0] = 8.5
    (account,) = engine.state.epochs
    assert (account["seconds_training"], account["seconds_selecting"]) == (6.0, 0.5)


# ---- A checkpoint ----


def saved(folder, step=1, **made):
    """A run of 2 steps an epoch, saved after some of the first's."""
    engine = engine_of(**made)
    engine.open_round(Place(0), 0)
    engine.plan()
    train(engine, 0, step)
    engine.save(folder, step)
    return engine


def finish(engine, step):
    """The rest of the first epoch, and the second one."""
    if engine.goes_on(step):
        engine.plan()
        step = train(engine, step, engine.state.round.plan.first_step + engine.state.round.plan.steps)
    at = engine.first_place(engine.stands_at(step)[0], step)
    engine.close_round(step)
    while at.epoch < 2:
        engine.open_round(at, step)
        engine.plan()
        step = train(engine, step, step + engine.state.round.plan.steps, loss=0.5)
        engine.close_round(step)
        at = at.next()
    return engine


def end_of(engine):
    epochs = [{name: value for name, value in e.items() if "seconds" not in name} for e in engine.state.epochs]
    return {name: array.tobytes() for name, array in engine.state.history.arrays().items()}, epochs


@pytest.mark.parametrize("step", [1, 2])
def test_a_run_that_is_restored_ends_as_if_it_had_never_stopped(tmp_path, step):
    whole = saved(tmp_path, step)
    again, warned = engine_of(), []
    again.restore(tmp_path, step, warned.append)
    assert again.stands_at(step) == ((0, 1) if step == 1 else (1, 0))
    assert again.next_round == 0
    assert again.position(step) == whole.position(step) and again.forecast() == whole.forecast()
    assert end_of(finish(again, step)) == end_of(finish(whole, step))
    assert warned == []


def test_what_is_measured_inside_a_step_comes_again(tmp_path):
    engine = engine_of(accumulation=2)
    engine.open_round(Place(0), 0)
    engine.begin_batch(0)
    feed(engine.recorder, [0, 2], [1.0, 2.0])
    engine.save(tmp_path, 0)  # on a signal, between the batches of its first step
    _, measured = PruningState.load(tmp_path, 8)
    assert measured.rows.tolist() == []


def test_on_other_batches_the_rows_that_are_left_are_trained_once(tmp_path):
    saved(tmp_path)
    engine, warned = engine_of(batch=3), []
    engine.restore(tmp_path, 1, warned.append)
    current = engine.state.round
    assert current.rows.tolist() == [4, 6]
    assert (current.share_before, current.steps_before, current.plan.updates) == (0.5, 1, 1)
    assert engine.stands_at(1) == (0, 0)
    assert engine.position(1) == 1.5  # half of the epoch, which has 3 steps of 3 rows
    engine.plan()
    assert [*engine._sampler] == [4, 6]
    train(engine, 1, 2)
    account = engine.close_round(2).account
    assert (account["rows"], account["rows_offered"], account["steps"], account["steps_full"]) == (4, 8, 2, 3)
    assert "other batches (batch 2 -> 3); the 2 rows left of its epoch are trained once" in warned[0]


def test_rounds_of_another_order_can_not_go_on(tmp_path):
    engine = engine_of(Evens(rounds=2), order="random")
    engine.open_round(Place(0, 0, 2), 0)
    engine.save(tmp_path, 0)
    other = engine_of(Evens(rounds=2))
    with pytest.raises(ValueError, match="order random -> sequential.*can't be cut into other batches.*with its own"):
        other.restore(tmp_path, 0, pytest.fail)
    assert other.state.round is None, "nothing was taken over"


def test_other_data_are_refused(tmp_path):
    saved(tmp_path)
    with pytest.raises(ValueError, match="was saved while training on another data set"):
        engine_of(data=8).restore(tmp_path, 1, pytest.fail)


def test_another_policy_goes_on_by_the_losses_and_without_the_notes(tmp_path):
    engine = saved(tmp_path, 2)
    finish(engine, 2)
    engine.save(tmp_path, 4)
    other, warned = engine_of(Evens(weight=2.0), signals=("loss", "el2n")), []
    other.restore(tmp_path, 4, warned.append)
    np.testing.assert_array_equal(other.state.history.loss, engine.state.history.loss)
    assert other.state.history.notes == {} and list(other.state.history.signals) == ["el2n"]
    assert "from the next epoch on, Evens(rounds=1, weight=2.0, rescore=False) chooses" in warned[0]


def test_a_run_keeps_its_name_and_what_it_found_out_of_the_losses(tmp_path):
    engine = engine_of()
    engine.name, engine._measuring.by_batch, engine._measuring.scale = "first", True, "targets"
    engine.save(tmp_path, 0)
    again = engine_of()
    again.name = "second"
    again.restore(tmp_path, 0, pytest.fail)
    assert (again.name, again._measuring) == ("first", Signals(by_batch=True, scale="targets"))
    assert again.state.history.facts["run"] == "first"


def test_a_round_that_was_not_learnt_from_is_taught_again(tmp_path):
    @dataclass(frozen=True)
    class Broken(Evens):
        is_mended: ClassVar[bool] = False

        def update(self, history, clock, rng):
            if not self.is_mended:
                raise RuntimeError("no features")
            super().update(history, clock, rng)

    engine = engine_of(Broken())
    engine.open_round(Place(0), 0)
    engine.plan()
    train(engine, 0, 2)
    engine.close_round(2)
    engine.save(tmp_path, 2)
    Broken.is_mended = True
    again = engine_of(Broken())
    again.restore(tmp_path, 2, pytest.fail)
    assert list(again.state.history.notes) == ["round 0"]
    assert (again.stands_at(2), again.next_round) == ((1, 0), 1)
    again.open_round(Place(1), 2)
