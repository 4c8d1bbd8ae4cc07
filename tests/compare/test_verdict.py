"""What a comparison says of runs whose numbers are known."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from compared import ARMS, ROWS, conclusion, results_of, save

from hf_prune.compare.page import markdown, table
from hf_prune.compare.plan import Arm, Plan
from hf_prune.compare.verdict import Comparison

SAME = {"predictions": ["a"] * 3, "references": ["a"] * 3}


# ---- Conclusions ----


def test_the_same_arm_under_another_name(compare):
    found = compare({"full": [0.8, 0.82, 0.81], "infobatch": [0.8, 0.82, 0.81]})
    assert conclusion(found, "infobatch") == (
        "infobatch: same quality as full within 0.5 (+0.00 points, 95 % CI +0.00 to +0.00) with 37.5 % fewer "
        "positions; no baseline read as much: add --budgets 0.62."
    )
    assert conclusion(found, "full") == "full: the baseline of the other arms."


def test_a_worse_arm_and_a_better_one(compare):
    accuracies = {"full": [0.8, 0.82, 0.81], "short-50": [0.7, 0.72, 0.71], "infobatch": [0.75, 0.77, 0.76]}
    found = compare(accuracies, tokens={"infobatch": 2100})
    text = conclusion(found, "infobatch")
    assert text.startswith("infobatch: worse than full (-5.00 points, 95 % CI -5.")
    assert "; better than short-50 (+5.00 points, 95 % CI +4." in text
    assert text.endswith(") with 5.0 % more positions.")
    # seeds agree, so what is left is that of rows: 50 of 1,000 differ, others for each of 3 seeds
    half = 100 * 1.96 * (50 - 50**2 / ROWS) ** 0.5 / ROWS / 3**0.5
    low, high = (found.difference("infobatch", "full")[end] for end in ("low", "high"))
    assert (low, high) == pytest.approx((-5 - half, -5 + half), abs=0.1)


def test_an_interval_too_wide_for_the_same(compare):
    found = compare({"full": [0.80, 0.82, 0.81], "infobatch": [0.81, 0.81, 0.815]})
    text = conclusion(found, "infobatch")
    assert text.startswith("infobatch: no significant difference from full (+0.17 points, 95 % CI -")
    assert ", too wide to show the same within 0.5) with 37.5 % fewer positions; no baseline read as much" in text


def test_few_rows_without_a_difference_are_not_called_the_same(tmp_path):
    Plan("recipes/x.py", (), ARMS, 2).save(tmp_path)
    for seed in (1, 2):
        for arm in ("full", "infobatch"):
            save(tmp_path, arm, seed, results_of(value=1.0, rows=3), SAME)
    text = conclusion(Comparison.load(tmp_path), "infobatch")
    assert (
        "no significant difference from full (+0.00 points, 95 % CI +0.00 to +0.00, too few rows to show the same"
        in text
    )


def test_a_run_that_diverged_is_named_and_in_no_number(compare, tmp_path):
    compare({"full": [0.8, 0.81, 0.8], "infobatch": [0.7, 0.71, 0.7]})
    for arm, seed in (("infobatch", 2), ("short-50", 1)):
        shutil.rmtree(tmp_path / "arms" / arm / f"seed-{seed}", ignore_errors=True)
        save(tmp_path, arm, seed, results_of(value=None), {"predictions": [None], "references": ["yes"]})
    found = Comparison.load(tmp_path)
    assert conclusion(found, "infobatch").startswith(
        "infobatch: diverged with 1 of 3 seeds; with the others, worse than full (-10.00 points"
    )
    text = markdown(found.to_dict())
    assert "- Diverged, and in no number: short-50, seed 1; infobatch, seed 2." in text
    assert "short-50, seed 2" in text and "infobatch, seed 2;" not in text.partition("Not run")[2]
    with pytest.raises(ValueError, match="they have diverged"):
        Comparison(found.plan, {key: replace(run, results=results_of(value=None)) for key, run in found.runs.items()})


def test_the_margin_decides_what_is_the_same(compare):
    accuracies = {"full": [0.80, 0.82, 0.81], "infobatch": [0.80, 0.82, 0.809]}
    assert "no significant difference from full" in conclusion(compare(accuracies, margin=0.01), "infobatch")
    assert "same quality as full within 0.4 (" in conclusion(compare(accuracies, margin=0.4), "infobatch")


def test_one_seed_is_said_to_be_one(compare):
    text = conclusion(compare({"full": [0.8], "infobatch": [0.7]}), "infobatch")
    assert text.startswith("infobatch: with one seed, worse than full (-10.00 points, 95 % CI -1")
    assert " over rows only) with 37.5 % fewer" in text


def test_of_a_metric_without_rows_seeds_alone_count(tmp_path):
    Plan("recipes/x.py", (), ARMS, 3).save(tmp_path)
    for seed, values in enumerate([(0.5, 0.50), (0.6, 0.61), (0.4, 0.42)], 1):
        for arm, value in zip(("full", "infobatch"), values, strict=True):
            save(tmp_path, arm, seed, results_of("rouge", value), {"predictions": [1.0], "references": [1.0]})
            if seed == 1 and arm == "infobatch":
                text = conclusion(Comparison.load(tmp_path), "infobatch")
                assert "+0.0000 rouge compared with full (one seed, so no interval)" in text
    found = Comparison.load(tmp_path)
    assert "bootstrap over seeds, widened" in markdown(found.to_dict())
    difference = found.difference("infobatch", "full")
    k = 2.68867  # mean 0.01, extremes 0.01 to either side
    assert (difference["low"], difference["high"]) == pytest.approx((0.01 - k * 0.01, 0.01 + k * 0.01), abs=1e-5)
    assert conclusion(found, "infobatch").endswith(
        "+0.0369) with as many positions; it pruned nothing."
    )  # no margin is known


def test_a_lower_loss_is_better(tmp_path):
    Plan("recipes/x.py", (), ARMS, 2).save(tmp_path)
    tokens = [4] * ROWS
    for seed in (1, 2):
        losses = 1 + np.random.default_rng(seed).random(ROWS) / 100
        for arm, more in (("full", 0.0), ("infobatch", -0.2), ("uniform-50", 0.005)):
            results = results_of("loss", float(losses.mean() + more), curve=(1.5 + more, 1.4 + more))
            save(tmp_path, arm, seed, results, {"losses": (losses + more).tolist(), "tokens": tokens})
    found = Comparison.load(tmp_path)
    assert "better than full (-0.2000 nats, 95 % CI -0.2000 to -0.2000)" in conclusion(found, "infobatch")
    assert "same quality as full within 0.01 (+0.0050 nats" in conclusion(found, "uniform-50")
    assert found.seconds_to_full("infobatch") == ([200.0, 200.0], 2)
    assert found.seconds_to_full("uniform-50") == ([], 2)


def test_models_that_have_learnt_nothing_support_nothing(tmp_path):
    """One answer for all rows is as good under any rule."""
    Plan("x.py", (), {name: ARMS[name] for name in ("full", "infobatch")}, 2).save(tmp_path)
    answers = {"predictions": ["b"] * ROWS, "references": ["a", "b"] * (ROWS // 2)}
    for arm in ("full", "infobatch"):
        for seed in (1, 2):
            save(tmp_path, arm, seed, results_of(value=0.5), answers)
    text = conclusion(Comparison.load(tmp_path), "infobatch")
    assert text == "infobatch: no conclusion, because full gives every row the same answer: it has learnt nothing."


# ---- Numbers ----


def test_all_that_was_read_counts(compare):
    found = compare(
        {"full": [0.8, 0.8], "infobatch": [0.8, 0.8]},
        forward_only={"infobatch": 300},
        earlier={"infobatch": {"runs": 1, "rows": 5, "tokens": 1000, "seconds": 50.0}},
    )
    cost = found.cost("infobatch")
    assert cost == {"trained": 2500, "forward_only": 300, "earlier": 1000, "all": 3800, "steps": 25, "seconds": 300}
    assert found.difference("infobatch", "full")["saved"] == pytest.approx(0.05)
    curve, spread = found.curves("infobatch")
    np.testing.assert_allclose(curve, [[2250, 175, 50], [3500, 300, 70]])
    assert spread.tolist() == [0, 0]
    headings, rows = table(found.to_dict())
    of = dict(zip(headings, rows[1], strict=True))
    assert (of["positions trained"], of["forward only"], of["earlier runs"], of["saved"]) == (
        "2,500",
        "300",
        "1,000",
        "5.0 %",
    )


def test_pictures_are_counted_in_rows(compare):
    found = compare({"full": [0.8, 0.8], "infobatch": [0.8, 0.8]})
    for run in found.runs.values():
        run.results["pruning"]["totals"] |= {"padded_tokens": 0, "rows_rescored": 30}
    found = Comparison(found.plan, found.runs)
    assert found.unit == "rows" and found.cost("infobatch")["all"] == 280
    assert "with 34.9 % fewer rows; " in conclusion(found, "infobatch")
    headings, _ = table(found.to_dict())
    assert "rows trained" in headings and "tokens" not in found.to_dict()["arms"][0]
    assert not any(word in " ".join([*headings, markdown(found.to_dict())]) for word in ("tokens", "positions"))


def test_tokens_trained_stand_beside_the_positions_computed(compare):
    """Positions decide; an older comparison.json, which calls them tokens, is read as it was meant."""
    found = compare({"full": [0.8, 0.8], "infobatch": [0.8, 0.8]})
    assert "tokens trained" not in table(found.to_dict())[0]  # these results do not say
    for (_, seed), run in found.runs.items():
        run.results["pruning"]["totals"]["tokens"] = 1000 + seed
    made = found.to_dict()
    headings, rows = table(made)
    assert headings[headings.index("positions trained") - 1] == "tokens trained"
    assert [row[headings.index("tokens trained")] for row in rows] == ["1,002", "1,002"]  # 1,001.5
    assert "with 37.5 % fewer positions" in conclusion(found, "infobatch")
    assert "Positions are what was computed: tokens and padding." in markdown(made)
    found.runs["full", 1].results["pruning"]["totals"]["tokens"] = 0  # several texts a row, not told apart
    headings, rows = table(found.to_dict())
    assert [row[headings.index("tokens trained")] for row in rows] == ["-", "1,002"]
    for arm in made["arms"]:
        arm["tokens"] = arm.pop("positions")
    headings, rows = table(made)
    assert "tokens trained" not in headings
    assert [row[headings.index("positions trained")] for row in rows] == ["4,000", "2,500"]


def test_differences_are_of_the_seeds_that_both_have(compare):
    found = compare({"full": [0.8, 0.7], "infobatch": [0.8, 0.7, 0.9]})
    assert found.difference("infobatch", "full")["seeds"] == 2
    assert found.difference("infobatch", "full")["mean"] == 0
    assert found.to_dict()["missing"] == ["short-50, seed 1", "uniform-50, seed 1", "short-50, seed 2"] + [
        "uniform-50, seed 2",
        "full, seed 3",
        "short-50, seed 3",
        "uniform-50, seed 3",
    ]
    assert conclusion(compare({"infobatch": [0.8]}), "infobatch") == "infobatch: not yet compared."


def test_an_arm_that_read_far_more_is_not_called_better(compare):
    accuracies = {"full": [0.8, 0.82, 0.81], "short-50": [0.7, 0.72, 0.71], "infobatch": [0.75, 0.77, 0.76]}
    found = compare(accuracies)  # 2,500 tokens beside 2,000
    text = conclusion(found, "infobatch")
    assert "short-50" not in text
    assert text.endswith("; no baseline read as much: add --budgets 0.62.")
    assert "to short" not in table(found.to_dict())[1][2]


def test_an_arm_that_is_planned_is_not_asked_for(compare):
    found = compare({"full": [0.8], "infobatch": [0.8]}, tokens={"infobatch": 2080})
    assert "--budgets" not in conclusion(found, "infobatch")


def test_an_arm_is_measured_by_the_closest_that_read_as_much(compare):
    arms = ARMS | {
        "short-70": Arm(("--policy", "uniform:keep=1"), "short", 0.7),
        "ucb-70": Arm(("--policy", "ucb:keep=0.7"), "policy", 0.7),
    }
    accuracies = dict.fromkeys(["full", "short-50", "uniform-50", "short-70", "ucb-70", "infobatch"], [0.8])
    found = compare(accuracies, arms=arms, tokens={"short-70": 2800, "ucb-70": 2300, "infobatch": 2700})
    assert [found.rival("ucb-70", kind) for kind in ("full", "short", "uniform")] == ["full", None, "uniform-50"]
    assert found.rival("infobatch", "short") == "short-70"
    assert [found.rival("uniform-50", kind) for kind in ("full", "short", "uniform")] == ["full", "short-50", None]
    assert [found.rival("full", kind) for kind in ("full", "short", "uniform")] == [None] * 3


def test_seconds_to_the_quality_of_the_full_arm(compare):
    """Full reaches 0.7 at its end; the policy at its first evaluation with the first seed, never with the second."""
    found = compare({"full": [0.8, 0.8], "infobatch": [0.8, 0.8]})
    found.runs["infobatch", 1].results["pruning"]["evaluations"][0]["eval_accuracy"] = 0.7
    found.runs["infobatch", 2].results["pruning"]["evaluations"][1]["eval_accuracy"] = 0.69
    assert found.seconds_to_full("full") == ([400.0, 400.0], 2)
    assert found.seconds_to_full("infobatch") == ([125.0], 2)
    headings, rows = table(found.to_dict())
    assert rows[1][headings.index("seconds to full's")] == "125.0 (1 of 2)"


def test_a_curve_is_as_long_as_its_shortest_run(compare):
    found = compare({"full": [0.8, 0.8]})
    found.runs["full", 2].results["pruning"]["evaluations"].pop()
    found.runs["full", 2].results["pruning"]["evaluations"][0]["eval_accuracy"] = 0.6
    curve, spread = found.curves("full")
    np.testing.assert_allclose(curve, [[2000, 200, 55]])
    assert spread == pytest.approx([np.std([50, 60], ddof=1)])


# ---- What can't be compared ----


@pytest.mark.parametrize("other", ["rows", "metric"])
def test_runs_tested_by_other_things_are_refused(compare, tmp_path, other):
    compare({"full": [0.8]})
    found = {"predictions": ["yes", *["no"] * 99], "references": ["yes"] * 100}
    if other == "metric":
        results = results_of("matthews", 0.0)
    else:
        results = results_of(value=0.01)
    save(tmp_path, "infobatch", 1, results, found)
    with pytest.raises(ValueError, match="infobatch, seed 1 was tested on other rows, or by another metric"):
        Comparison.load(tmp_path)


def test_a_folder_without_a_comparison(tmp_path):
    with pytest.raises(ValueError, match=r"has no command\.json"):
        Comparison.load(tmp_path)
    Plan("recipes/x.py", (), ARMS).save(tmp_path)
    with pytest.raises(ValueError, match="no run that has ended"):
        Comparison.load(tmp_path)
