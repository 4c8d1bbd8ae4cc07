"""History, Selection and the budget, by hand."""

import numpy as np
import pytest

from hf_prune import BudgetPolicy, Clock, History, Selection
from hf_prune.policies.seta import SeTa
from hf_prune.policies.uniform import Uniform


def clock(step_rows=1, **changes):
    return Clock(**{"round": 1, "epoch": 1, "epochs": 4, "share": 0.25, "step_rows": step_rows} | changes)


def test_record_keeps_the_last_finite_loss_and_counts_the_others():
    history = History.empty(4, signals=("correct",))
    history.record(np.array([2, 0]), np.array([0.5, np.nan], np.float32), 0, correct=np.array([1, 0], np.float32))
    history.record(np.array([2, 1]), np.array([np.inf, 3.0], np.float32), 1, correct=np.array([0, 0], np.float32))
    np.testing.assert_array_equal(history.loss, np.array([np.nan, 3.0, 0.5, np.nan], np.float32))
    assert history.last_round.tolist() == [-1, 1, 0, -1]
    assert history.faults.tolist() == [1, 0, 1, 0]
    np.testing.assert_array_equal(history.signals["correct"], np.array([np.nan, 0, 1, np.nan], np.float32))


def test_faults_saturate():
    history = History.empty(1)
    for round in range(300):
        history.record(np.array([0]), np.array([np.nan], np.float32), round)
    assert history.faults.tolist() == [255]


def test_history_survives_a_file_and_refuses_other_data(tmp_path):
    history = History.empty(3, signals=("el2n",))
    history.record(np.array([1]), np.array([2.0], np.float32), 0, el2n=np.array([0.5], np.float32))
    history.notes["mean"] = np.arange(3.0)
    history.save(tmp_path / "history.safetensors")
    again = History.load(tmp_path / "history.safetensors", rows=3)
    assert list(again.arrays()) == list(history.arrays())
    for name, array in history.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], array)
    with pytest.raises(ValueError, match="of 3 rows, but the training set has 4"):
        History.load(tmp_path / "history.safetensors", rows=4)


def test_an_empty_training_set_has_no_history():
    with pytest.raises(ValueError, match="at least one row"):
        History.empty(0)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(np.array([], np.int64)), "keeps 0 rows"),
        (Selection(np.array([0, 0])), "repeat"),
        (Selection(np.array([0, 4])), r"must lie in \[0, 4\), got 0 to 4"),
        (Selection(np.array([-1, 2])), "got -1 to 2"),
        (Selection(np.array([0.0])), "int64"),
        (Selection(np.array([0, 1]), weights=np.array([1.0], np.float32)), "weights"),
        (Selection(np.array([0]), weights=np.array([0.0], np.float32)), "weights"),
        (Selection(np.array([0]), weights=np.array([np.nan], np.float32)), "weights"),
        (Selection(np.array([0]), weights=np.array([1e39])), "weights.* finite in float32, got 1 of them, inf to inf"),
        (Selection(np.array([0, 1]), weights=np.array([1, 1e-50])), "weights.* above 0.*got 2 of them, 0.0 to 1.0"),
        (
            Selection(np.array([0]), weights=np.array([[1.0]])),
            r"weights=...\) must be a \(K,\) float32 array, got float64",
        ),
        (Selection(np.array([0]), weights=np.array([True])), "weights.*got bool"),
        (Selection(np.array([0]), weights=np.array(["1"])), "weights.*got <U1"),
        (Selection(np.array([0]), weights=np.array([1j])), "weights.*got complex128"),
        (Selection(np.array([[0]])), r"rows=...\) must be a \(K,\) int64 array, got int64 \(1, 1\)"),
        (Selection(np.array(0)), r"rows.*got int64 \(\)"),
        (Selection(np.array([True, False])), r"got bool \(2,\). Of a mask, give np.flatnonzero\(mask\)"),
        (Selection(np.array([2**63], np.uint64)), "must lie in"),
        (Selection(np.array([0]), rescore=np.array([[1]])), r"rescore=...\) must be a \(K,\) int64 array, got int64"),
        (Selection(np.array([0]), rescore=np.array([1.0])), "rescore.*float64"),
        (Selection(np.array([0]), rescore=np.array([1, 1])), "rescore.*distinct"),
        (Selection(np.array([0]), rescore=np.array([0])), "rescore.*none of them among"),
        (Selection(np.array([0]), rescore=np.array([4])), r"rescore.* in \[0, 4\)"),
        (Selection(np.array([0]), lr_scale=0.0), "lr_scale"),
        (Selection(np.array([0]), lr_scale=np.float32(np.inf)), "lr_scale.*got inf"),
        (Selection(np.array([0]), lr_scale=np.float64(np.nan)), "lr_scale.*got nan"),
        (Selection(np.array([0]), lr_scale=10**400), "lr_scale.*must be finite"),
    ],
)
def test_an_invalid_selection_is_refused(selection, message):
    with pytest.raises(ValueError, match=message):
        selection.check(4)


@pytest.mark.parametrize("name", ["rows", "weights", "rescore"])
def test_a_selection_of_lists_is_refused(name):
    fields = {"rows": np.array([0]), name: [1]}
    with pytest.raises(TypeError, match=rf"Selection\({name}=...\) must be a numpy array, got a list"):
        Selection(**fields).check(4)


@pytest.mark.parametrize("scale", [None, "2", True, np.bool_(True), np.ones(2), 1j, [1.0]])
def test_a_factor_that_is_no_number_is_refused(scale):
    with pytest.raises(TypeError, match=r"Selection\(lr_scale=...\) must be a number, got a"):
        Selection(np.array([0]), lr_scale=scale).check(4)


def test_a_selection_of_nothing_is_refused():
    with pytest.raises(TypeError, match=r"Selection\(rows=...\) must be a numpy array, got a NoneType"):
        Selection(None).check(4)


@pytest.mark.parametrize("kind", ["i1", "u2", "i4", ">i8", "u8"])
@pytest.mark.parametrize("scale", [2, np.float32(2), np.int64(2), np.array(2.0), np.float16(2)])
def test_what_is_plainly_meant_is_taken(kind, scale):
    weights = np.array([1, 2], kind)
    taken = Selection(np.array([3, 0], kind), weights, scale, rescore=np.array([1], kind)).check(4)
    assert (taken.rows.dtype, taken.rows.tolist()) == (np.dtype(np.int64), [3, 0])
    assert (taken.weights.dtype, taken.weights.tolist()) == (np.dtype(np.float32), [1, 2])
    assert (taken.rescore.dtype, taken.rescore.tolist()) == (np.dtype(np.int64), [1])
    assert (type(taken.lr_scale), taken.lr_scale) == (float, 2.0)


@pytest.mark.parametrize(
    "note",
    [
        np.array(["a"]),
        np.array([None]),
        np.array([1j]),
        np.array(["2026-01-01"], "M8[D]"),
        np.ones(2, np.longdouble),
        np.ones(2, ">f4"),
        "text",
        None,
        {"a": 1},
        [[1], [1, 2]],
    ],
)
def test_notes_that_no_file_can_hold_are_refused(note):
    history = History.empty(2)
    history.notes["held"] = np.ones(2, np.float16)
    history.check_notes(Uniform())
    history.notes["mine"] = note
    with pytest.raises(TypeError, match=r"Uniform keeps history.notes\['mine'\], a .*no checkpoint can hold"):
        history.check_notes(Uniform())


def test_a_note_goes_by_a_text(tmp_path):
    history = History.empty(2)
    history.notes[1] = np.ones(2)
    with pytest.raises(TypeError, match=r"history.notes\[1\]"):
        history.check_notes(Uniform())


@pytest.mark.parametrize(
    ("keep", "n", "step_rows", "kept"),
    [
        (0.5, 8, 1, 4),
        (0.5, 9, 1, 5),  # ceil(4.5)
        (0.55, 100, 1, 55),  # not 56, though 0.55 * 100 is 55.00000000000001
        (0.5, 8, 3, 6),  # 4 rows fill two steps of 3
        (0.5, 8, 16, 16),  # one step holds all there are
        (1.0, 8, 3, 8),  # everything is never rounded
    ],
)
def test_a_budget_in_rows_fills_whole_steps(keep, n, step_rows, kept):
    policy, history = Uniform(keep=keep), History.empty(n)
    rows = policy.within_budget(np.arange(n), history, clock(step_rows))
    assert rows.tolist() == list(range(min(kept, n)))
    assert policy.forecast(history, clock(step_rows)) == len(rows)


def test_a_budget_in_tokens_is_the_shortest_prefix_that_reaches_it():
    history = History.empty(5)
    history.tokens[:] = [10, 1, 1, 4, 4]  # 20 in all, half is 10
    policy = Uniform(keep=0.5, unit="tokens")
    assert policy.within_budget(np.array([0, 1, 2, 3, 4]), history, clock()).tolist() == [0]
    assert policy.within_budget(np.array([4, 3, 2, 1, 0]), history, clock()).tolist() == [4, 3, 2, 1]  # 4+4+1+1
    assert policy.within_budget(np.array([4, 3, 2, 1, 0]), history, clock(3)).tolist() == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("keep", [0, -0.1, 1.01, float("nan")])
def test_a_budget_outside_its_range_is_refused(keep):
    with pytest.raises(ValueError, match=r"Uniform\(keep=...\) must be in \(0, 1\]"):
        Uniform(keep=keep)


def test_an_unknown_unit_is_refused():
    with pytest.raises(ValueError, match="must be 'rows' or 'tokens', got 'words'"):
        Uniform(unit="words")


def test_the_clock_knows_when_a_round_ends():
    assert clock(epochs=4, share=0.25).share_after == 0.5
    assert clock(epochs=2.5, share=0.8).share_after == 1.0


def test_a_budget_policy_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        BudgetPolicy()


def test_numbers_of_numpy_become_plain_ones():
    policy = SeTa(groups=np.int64(4), ratio=np.array(0.5))
    assert repr(policy).startswith("SeTa(ratio=0.5, groups=4,")
    assert Uniform(cover=np.bool_(True)).cover is True
    for wrong in (np.array([0.5]), [0.5], np.str_("0.5"), np.bool_(True), 1j):
        with pytest.raises(ValueError, match=r"Uniform\(keep=...\) must be in \(0, 1\], got"):
            Uniform(keep=wrong)
    with pytest.raises(ValueError, match="groups=...\\) must be a whole number, got 2.5"):
        SeTa(groups=np.float64(2.5))


def test_a_history_is_read_by_the_names_that_earlier_versions_gave():
    history = History.empty(3)
    history.record(np.array([1]), np.float32([0.5]), 2)
    history.faults[2] = 3
    arrays = history.arrays()
    arrays["seen"] = arrays.pop("last_round")
    again = History.from_arrays(arrays)
    assert again.last_round.tolist() == [-1, 2, -1]
    with pytest.warns(DeprecationWarning, match="last_round"):
        assert again.seen is again.last_round
    with pytest.warns(DeprecationWarning, match="never_finite"):
        assert again.hopeless.tolist() == [False, False, True]
