"""What a selection may hold, and when a round ends."""

import numpy as np
import pytest

from hf_prune import Clock, Selection


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


def test_the_clock_knows_when_a_round_ends():
    assert Clock(round=1, epoch=1, epochs=4, share=0.25).share_after == 0.5
    assert Clock(round=1, epoch=1, epochs=2.5, share=0.8).share_after == 1.0
