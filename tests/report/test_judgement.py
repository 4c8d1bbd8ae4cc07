"""Whether losses tell wrong labels, from numbers that are written by hand."""

import pytest

from hf_prune.report.judgement import BETTER, LONGER, judge

LEARNT = {"medians": [4.0, 1.0, 0.9], "upper": {"share": 0.3, "low": 0.25, "high": 0.35}}


def test_a_second_component_is_found():
    found = judge(LEARNT | {"accuracy": 0.7, "chance": 0.1, "band": 2.0})
    assert (
        found.state == "found"
        and found.is_meaningful
        and found.line
        == (
            "30 % of the rows (95 % interval 25 to 35) have losses apart from the others', as wrong labels or pairs "
            "have."
        )
    )
    assert judge(LEARNT) == found  # what an earlier version did not measure is not judged


def test_losses_without_a_second_component():
    found = judge(LEARNT | {"upper": {"share": 0.0, "low": 0.0, "high": 0.0}})
    assert found.state == "none" and found.is_meaningful and found.cure == BETTER
    known = judge(LEARNT | {"upper": {"share": 0.0, "low": 0.0, "high": 0.0}, "accuracy": 0.99, "chance": 0.1})
    assert known.state == "none" and known.cure == ""  # there is nothing left to learn
    unsure = judge(LEARNT | {"upper": {"share": 0.2, "low": 0.0, "high": 0.3}})
    assert unsure.state == "unsure" and unsure.line == (
        "20 % of the rows may have wrong labels, but the 95 % interval, 0 to 30 %, does not exclude that none has."
    )


def test_a_run_that_has_diverged():
    found = judge(LEARNT | {"medians": [None, float("nan")]})
    assert found.state == "diverged" and not found.is_meaningful

    once = judge({"medians": [None]})
    assert once.state == "diverged"  # more epochs would not help


def test_too_few_rows_tell_nothing():
    nothing = LEARNT | {"upper": {"share": 0.0, "low": 0.0, "high": 0.0}}
    found = judge(nothing | {"measured": 99})
    assert found.state == "unmeasured" and "only 99 rows have losses" in found.line and "100 or more" in found.line
    assert judge(nothing | {"measured": 100}).state == "none"


def test_nothing_was_measured_twice():
    found = judge({"medians": [4.0]})
    assert found.state == "unmeasured" and not found.is_meaningful and "train two epochs or more" in found.line


@pytest.mark.parametrize(
    "facts, why",
    [
        ({"medians": [4.34, 4.2]}, "the median loss only went from 4.34 to 4.2 nats"),
        ({"accuracy": 0.12, "chance": 0.1}, "the model predicts 12 % of the labels as given, and the most frequent"),
        ({"accuracy": 0.65, "chance": 0.5}, "the model predicts 65 % of the labels as given"),
        ({"medians": [4.0, 1.3, 0.6], "accuracy": 0.67, "chance": 0.1}, "the median loss still fell from 1.3 to 0.6"),
        ({"medians": [4.0, 2.5, 1.4], "band": 2.0}, "the median loss still fell by 1.1 nats in the last epoch"),
    ],
)
def test_a_model_that_has_not_learnt(facts, why):
    found = judge(LEARNT | facts)
    assert found.state == "early" and not found.is_meaningful and found.cure == LONGER
    assert found.line.startswith(f"no estimate of wrong labels is meaningful yet, for {why}")


def test_the_bounds():
    assert judge(LEARNT | {"accuracy": 0.67, "chance": 0.5}).state == "found"  # a third of what chance leaves
    wrong = {"medians": [2.2, 1.5], "accuracy": 0.5, "chance": 0.1}  # as with 40 % of wrong labels
    assert judge(LEARNT | wrong).state == "found"
    assert judge(LEARNT | {"medians": [4.0, 2.0, 1.0], "band": 2.0}).state == "found"  # half the band
