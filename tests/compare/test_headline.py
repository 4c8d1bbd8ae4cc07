"""The verdict in one line, for qualities that are known; without rows, so that seeds alone count."""

import json

import numpy as np
import pytest
from compared import ARMS, ROWS, labels, means_of, results_of, save

from hf_prune.compare.page import markdown, page
from hf_prune.compare.plan import Arm, Plan, plan_arms
from hf_prune.compare.verdict import Comparison

POLICY = Arm(("--policy", "mine"), "policy")
ONE = {name: ARMS[name] for name in ("full", "short-50")} | {"mine": POLICY}
HALF = dict.fromkeys(("short-50", "mine", "yours", "oracle", "weighted"), 2000)
BASE = {"full": [9, 9, 9, 9], "short-50": [5, 5, 5, 5]}


def verdict(folder, values, arms=ONE, margin=0.5, tokens=HALF, **more):
    return means_of(folder, BASE | values, arms, margin=margin, tokens=tokens, **more).to_dict()["verdict"]


# ---- A rule wins ----


def test_a_rule_that_is_better_than_fewer_epochs(tmp_path):
    """Differences 1 to 4: t = 2.5 / (1.29 / 2) = 3.87, p = 0.03."""
    found = verdict(tmp_path, {"mine": [6, 7, 8, 9]})
    assert found["line"].startswith("mine: +2.5000 rouge (4 seeds, 95 % CI +")
    assert found["line"].endswith(
        ") against short-50, -1.5000 against full, at 50 % fewer positions than full; it is the only rule"
    )
    assert (found["state"], found["arm"], found["rules"]) == ("won", "mine", 1)


def test_of_several_rules_the_p_value_is_corrected(tmp_path):
    """Of two rules, 0.03 is not enough: one may look so by chance. A clearer gain wins, and the best is named."""
    arms = ONE | {"yours": POLICY}
    found = verdict(tmp_path, {"mine": [6, 7, 8, 9], "yours": [4, 6, 4, 6]}, arms)
    assert found["state"] == "open" and found["arm"] is None
    assert found["line"].startswith("not decided for 2 of 2 rules: 4 seeds tell nothing below ")
    assert found["line"].endswith("; mine looks better, as one of 2 rules may by chance")
    found = verdict(tmp_path, {"mine": [7, 7.5, 8, 7.5], "yours": [4, 6, 4, 6]}, arms)
    assert found["arm"] == "mine" and found["line"].endswith("; 1 of 2 rules wins")
    found = verdict(tmp_path, {"mine": [7, 7.5, 8, 7.5], "yours": [7.9, 8, 8.1, 8]}, arms)
    assert found["arm"] == "yours" and found["line"].endswith("; 2 of 2 rules win")


def test_the_winner_with_the_best_score_is_named(tmp_path):
    """The other one gains more, over a shorter arm that is far worse."""
    arms = ONE | {"short-25": Arm((), "short", 0.25), "yours": POLICY}
    values = {"short-25": [1, 1, 1, 1], "mine": [7.9, 8, 8.1, 8], "yours": [6.9, 7, 7.1, 7]}
    found = verdict(tmp_path, values, arms, tokens=HALF | {"short-25": 1000, "yours": 1000})
    assert found["arm"] == "mine" and found["line"].endswith("; 2 of 2 rules win")


def test_a_rule_that_is_as_good_as_full_where_no_short_is(tmp_path):
    """It read more than short-50 by a quarter, so nothing read as much."""
    tokens = HALF | {"mine": 2500}
    found = verdict(tmp_path, {"mine": [9.01, 8.99, 9, 9]}, tokens=tokens)
    assert found["line"].startswith("mine: as good as full within 0.5 (+0.0000 rouge (4 seeds, 95 % CI -0.0")
    assert (
        found["line"].endswith("), at 38 % fewer positions than full; it is the only rule") and found["arm"] == "mine"
    )
    cheap = {"short-50": [8.99, 9.01, 9, 9], "mine": [9.01, 8.99, 9, 9]}
    assert verdict(tmp_path, cheap, tokens=tokens)["state"] == "open"  # fewer epochs are as good, and cheaper
    assert verdict(tmp_path, {"mine": [9, 8, 10, 9]}, tokens=tokens)["state"] == "open"  # not shown
    assert verdict(tmp_path, {"mine": [9.01, 8.99, 9, 9]}, tokens=HALF | {"mine": 3800})["arm"] is None  # saves little


def test_a_lower_loss_wins(tmp_path):
    losses = {"mine": [4, 3, 2, 1], "short-50": [5, 5, 5, 5]}
    Plan("x.py", (), ONE, 4, margin=0.5).save(tmp_path)
    for arm, values in (BASE | losses).items():
        for seed, value in enumerate(values, 1):
            results = results_of("perplexity", value, HALF.get(arm, 4000), greater_is_better=False)
            save(tmp_path, arm, seed, results, {"predictions": [1.0], "references": [1.0]})
    found = Comparison.load(tmp_path).to_dict()["verdict"]
    assert found["arm"] == "mine" and found["line"].startswith("mine: -2.5000 perplexity (4 seeds")


def test_a_baseline_may_win(tmp_path):
    arms = ONE | {"weighted": Arm((), "baseline", 0.5)}
    values = {"mine": [4, 4.1, 3.9, 4], "weighted": [7.9, 8, 8.1, 8]}
    found = means_of(tmp_path, BASE | values, arms, margin=0.5, tokens=HALF).to_dict()
    assert found["verdict"]["arm"] == "weighted" and found["verdict"]["rules"] == 2
    mine = next(arm for arm in found["arms"] if arm["arm"] == "mine")
    assert mine["differences"]["baseline"]["to"] == "weighted"
    assert "worse than weighted (-4.0000 rouge" in mine["conclusion"]
    assert "to baseline: the same for the other baseline" in markdown(found)


# ---- No rule wins ----


def test_nothing_beats_fewer_epochs(tmp_path):
    found = verdict(tmp_path, {"mine": [4, 4.1, 3.9, 4]})
    assert found["line"] == (
        "nothing beats fewer epochs here (4 seeds; none of 1 rule is better than as many positions of all rows by more "
        "than 0.5)"
    )
    assert (found["state"], found["arm"]) == ("lost", None)
    found = verdict(tmp_path, {"mine": [8, 8.1, 7.9, 8], "short-50": [8.99, 9.01, 9, 9]})
    assert found["line"].startswith("nothing beats 50 % of the epochs here (4 seeds; ")
    assert verdict(tmp_path, {"mine": [5.2, 5.3, 5.1, 5.2]})["state"] == "won"
    assert verdict(tmp_path, {"mine": [5.2, 4.9, 5.1, 5]}, margin=0.1)["state"] == "open"


def test_models_that_have_learnt_nothing_have_no_verdict(compare):
    found = compare({"full": [0.8, 0.8], "short-50": [0.7, 0.7], "infobatch": [0.9, 0.9]}, tokens={"infobatch": 2000})
    for seed in (1, 2):
        object.__setattr__(found.runs["full", seed], "is_constant", True)
    assert found.to_dict()["verdict"]["line"].startswith("no conclusion: full gives every row the same answer")


def test_without_a_rule_the_baselines_are_told(tmp_path):
    arms = {name: ARMS[name] for name in ("full", "short-50")}
    assert verdict(tmp_path, {}, arms)["line"] == "no rule has run"
    values = {"short-50": [8.99, 9.01, 9, 9]}
    assert verdict(tmp_path, values, arms)["line"] == "no rule has run; 50 % of the epochs are as good as all"


# ---- Not decided ----


def test_two_seeds_say_how_many_are_needed(tmp_path):
    """Differences 0 and 2: the variance is 2, and a difference of its root needs ten seeds, eight more of 3 arms."""
    values = {"full": [9, 9], "short-50": [5, 5], "mine": [5, 7]}
    found = verdict(tmp_path, values, margin=2**0.5, jobs=2)
    assert (
        found["line"]
        == "not decided: 2 seeds tell nothing below 16 rouge; 10 seeds would tell 1.41421 (53 minutes more)"
    )
    assert (found["state"], found["arm"]) == ("open", None)  # 8 * (400 + 200 + 200) / 2 = 3,200 seconds
    found = means_of(tmp_path, values, ONE, margin=2**0.5, tokens=HALF).to_dict()
    text = markdown(found)
    assert "| mine | short-50 | 2 | 1.4142 | 10 | 4 to > 1,000 | 53 minutes |" in text
    assert "Two seeds give a rough number only. So many seeds tell a true difference of 1.41421 from 0 in 80 %" in text
    assert "How many seeds" in page(json.loads(json.dumps(found)), b"png")


def test_what_can_not_be_planned_is_told(tmp_path):
    values = {"full": [9, 9], "short-50": [5, 5], "mine": [5, 7]}
    assert verdict(tmp_path, values, margin=0.01)["line"].endswith("; 1,000 would not tell 0.01")
    assert verdict(tmp_path, values, margin=None)["line"] == "not decided: no margin is known: give --margin"
    one = {"full": [9], "short-50": [5], "mine": [5]}
    assert "one seed says nothing about others" in verdict(tmp_path, one)["line"]
    alone = verdict(tmp_path, values, tokens=HALF | {"mine": 3000})["line"]
    assert alone == "not decided: no arm with fewer epochs read as much; run again with --budgets auto"


def test_few_test_rows_are_told(tmp_path):
    """200 of 1,000 rows differ, the same with each seed: their mean has a deviation of 1.4 points at any number."""
    Plan("x.py", (), ONE, 2).save(tmp_path)
    row = np.arange(ROWS)
    for arm, right in {"full": row < 900, "short-50": row < 800, "mine": (row >= 100) & (row < 900)}.items():
        for seed in (1, 2):
            save(tmp_path, arm, seed, results_of(value=float(right.mean()), tokens=HALF.get(arm, 4000)), labels(right))
    line = Comparison.load(tmp_path).to_dict()["verdict"]["line"]
    assert line.startswith("not decided: 2 seeds tell nothing below 4")
    assert line.endswith(" points; no number of seeds would tell 0.5 with 1,000 test rows")


# ---- The oracle ----


def test_an_oracle_shows_headroom_and_never_wins(tmp_path):
    arms = ONE | {"oracle": Arm((), "oracle")}
    values = {"mine": [6.9, 7, 7.1, 7], "oracle": [8.9, 9, 9.1, 9]}
    found = means_of(tmp_path, BASE | values, arms, margin=0.5, tokens=HALF).to_dict()
    assert found["headroom"].startswith("headroom: oracle gains +4.0000 rouge (4 seeds, 95 % CI +3.")
    assert found["verdict"]["arm"] == "mine" and found["verdict"]["rules"] == 1
    assert "; 50 % of what the oracle gains" in next(a["conclusion"] for a in found["arms"] if a["arm"] == "mine")
    assert f"**{found['headroom']}.**" in markdown(found) and found["headroom"] in page(found, b"png")
    values["mine"] = [4, 4.1, 3.9, 4]
    found = means_of(tmp_path, BASE | values, arms, margin=0.5, tokens=HALF).to_dict()
    assert "; none of what the oracle gains" in next(a["conclusion"] for a in found["arms"] if a["arm"] == "mine")


def test_without_headroom_no_share_is_told(tmp_path):
    arms = ONE | {"oracle": Arm((), "oracle")}
    values = {"mine": [6.9, 7, 7.1, 7], "oracle": [4, 4.1, 3.9, 4]}
    found = means_of(tmp_path, BASE | values, arms, margin=0.5, tokens=HALF).to_dict()
    assert found["headroom"].startswith("no headroom: even oracle does not beat short-50, -1.0000 rouge (4 seeds")
    assert "oracle" not in next(arm["conclusion"] for arm in found["arms"] if arm["arm"] == "mine")
    values["oracle"] = [3, 7, 4, 8]
    found = means_of(tmp_path, BASE | values, arms, margin=0.5, tokens=HALF).to_dict()
    assert found["headroom"].startswith("headroom not decided: oracle against short-50, +0.5000")
    found = means_of(tmp_path, BASE | values, arms, margin=0.5, tokens=HALF | {"oracle": 3000}).to_dict()
    assert found["headroom"].startswith("headroom not known: no arm with fewer epochs read as much as oracle")
    assert means_of(tmp_path, BASE, ONE, margin=0.5).to_dict()["headroom"] is None


@pytest.mark.parametrize(
    "text, kind", [("oracle=infobatch", "oracle"), ("oracle2=infobatch", "oracle"), ("infobatch", "policy")]
)
def test_an_arm_that_is_called_so_is_an_oracle(text, kind):
    name = text.partition("=")[0]
    assert plan_arms([text], [0.5], 4)[name].kind == kind
