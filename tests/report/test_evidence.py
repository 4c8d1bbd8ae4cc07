"""The evidence that comes with the package, and how it is told."""

import json

import pytest
from recipe_runs import load

from hf_prune.report.evidence import RULES, SAVES, shipped


@pytest.fixture(scope="module")
def maker():
    return load("benchmarks/evidence")


def difference(to, mean, low, high, saved=0.5):
    return {"to": to, "seeds": 8, "mean": mean, "low": low, "high": high, "saved": saved}


def compared(folder, topics=None, metric="accuracy"):
    """A comparison in which trim beats fewer epochs by 2 points, and random rows."""
    short = {"kind": "short", "budget": 0.5, "flags": ["--policy", "uniform:keep=1", "--num_train_epochs", "2"]}
    trim = {"kind": "policy", "budget": None, "flags": ["--policy", "trim:noise=0.4"]}
    better = {"full": difference("full", 1, 0, 2), "short": difference("short-50", 2, 1, 3)}
    arms = [
        {"arm": "full", "kind": "full", "flags": ["--policy", "uniform:keep=1"], "differences": {"full": None}},
        short | {"arm": "short-50", "differences": {"full": difference("full", -1, -2, 0.5), "short": None}},
        trim | {"arm": "x", "differences": better},
    ]
    folder.mkdir()
    quality = {"metric": metric, "greater_is_better": metric != "loss"}
    (folder / "comparison.json").write_text(json.dumps({"quality": quality, "arms": arms}))
    if topics is not None:
        (folder / "regime.json").write_text(json.dumps({"topics": topics}))


def test_every_topic_is_there():
    assert set(shipped().topics) == {*SAVES, *RULES}


def test_a_regime_counts_for_the_topics_that_it_names(maker, tmp_path):
    compared(tmp_path / "named", ["wrong labels"])
    compared(tmp_path / "plain")
    found = maker.collect(tmp_path)
    assert [entry["comparison"] for entry in found["epochs"]] == ["named", "plain"]
    assert found["epochs"][0] | {"gain": -1.0, "high": 0.5, "pays": True, "rule": "short"} == found["epochs"][0]
    (entry,) = found["wrong labels"]
    assert entry == {
        "comparison": "named",
        "arm": "x",
        "rule": "trim",
        "rival": "short-50",
        "unit": "points",
        "seeds": 8,
        "gain": 2.0,
        "low": 1.0,
        "high": 3.0,
        "saved": 0.5,
        "pays": True,
    }
    assert json.loads(maker.text_of(found))["topics"] == found


def test_a_lower_loss_is_a_gain(maker, tmp_path):
    compared(tmp_path / "loss", ["wrong labels"], metric="loss")
    (entry,) = maker.collect(tmp_path)["wrong labels"]
    assert (entry["gain"], entry["low"], entry["high"], entry["pays"]) == (-2, -3, -1, False)


@pytest.mark.parametrize(
    ("flags", "rule"),
    [
        ("--policy uniform:keep=1 --class_weights balanced", "class_weights"),
        ("--policy class_quota:keep=0.5", "class_quota"),
        ("--policy class_quota:keep=0.5 --class_weights balanced", None),
    ],
)
def test_a_policy_under_class_weights_is_evidence_for_neither(maker, flags, rule):
    rules = {name for of_topic in RULES.values() for name in of_topic}
    found = maker.rule_of({"flags": flags.split()})
    assert (found if found in rules else None) == rule


def test_an_unknown_topic_is_refused(maker, tmp_path):
    compared(tmp_path / "odd", ["noise"])
    with pytest.raises(ValueError, match=r"regime\.json: there is no topic 'noise'; give some of wrong labels"):
        maker.collect(tmp_path)


def test_a_comparison_can_be_left_out():
    everything, rest = shipped(), shipped().without("digits")
    assert {entry["comparison"] for entry in everything.of("epochs")} - {
        entry["comparison"] for entry in rest.of("epochs")
    } == {"digits"}


def test_advice_is_judged_by_the_arms(maker):
    checker = load("benchmarks/advice")
    short = {"kind": "short", "flags": ["--policy", "uniform:keep=1"]}
    arms = [
        short | {"arm": "short-50", "budget": 0.5, "differences": {"full": difference("full", -3, -4, -2)}},
        short | {"arm": "short-80", "budget": 0.8, "differences": {"full": difference("full", 0, -1, 1)}},
    ]
    found = {"quality": {"metric": "accuracy", "greater_is_better": True}, "arms": arms}

    def right(verdict, enough):
        advice = checker.Advice("epochs", verdict, "", {"enough": enough, "epochs": 10})
        told = checker.epochs_found(found, advice)
        return told and told[1]

    assert right("act", 8) is True and right("act", 6) is True and right("act", 4) is False
    assert right("nothing", 10) is False and right("act", 9) is None
