"""What a comparison says of runs whose numbers are known."""

import html.parser
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread

from hf_prune.cli import main as hf_prune
from hf_prune.compare.page import _far, markdown, page, table, write
from hf_prune.compare.plan import Arm, Plan
from hf_prune.compare.result import RunResult
from hf_prune.compare.tables import comparisons_table
from hf_prune.compare.verdict import Comparison

ROWS = 1000
ALL = Arm(("--policy", "uniform:keep=1"), "full")
SAME = {"predictions": ["a"] * 3, "references": ["a"] * 3}
ARMS = {
    "full": ALL,
    "short-50": Arm(("--policy", "uniform:keep=1", "--num_train_epochs", "2"), "short", 0.5),
    "uniform-50": Arm(("--policy", "uniform:keep=0.5"), "uniform", 0.5),
    "infobatch": Arm(("--policy", "infobatch"), "policy"),
}
TOKENS = {"full": 4000, "short-50": 2000, "uniform-50": 2100, "infobatch": 2500}


def right_rows(share, seed):
    """Which rows are right: for one seed a smaller share's are among a larger one's."""
    order = np.random.default_rng(seed).permutation(ROWS)
    return order < round(share * ROWS)


def results_of(metric="accuracy", value=0.8, tokens=4000, forward_only=0, earlier=None, curve=(0.5, 0.7), **quality):
    """As a recipe writes them: two evaluations, the second at the end."""
    totals = {"rows": tokens / 10, "padded_tokens": tokens, "rows_rescored": 0, "padded_tokens_rescored": forward_only}
    totals |= {"padding": None, "optimizer_steps": tokens / 100, "seconds_selecting": 1.0, "seconds_rescoring": 2.0}
    pruning = {"totals": totals | {"seconds_training": tokens / 10 - 3}, "earlier_runs": earlier}
    pruning["evaluations"] = [
        {"step": i, "epoch": i, "rows": at / 10, "tokens": at, "seconds": at / 10, f"eval_{metric}": score}
        for i, score in enumerate(curve, 1)
        for at in [tokens * i / len(curve)]
    ]
    quality = {"metric": metric, "value": value, "greater_is_better": metric != "loss", "split": "test"} | quality
    made = {"hardware": {"cpus": 2, "threads": 1, "gpus": []}, "versions": {"torch": "2"}, "commit": "abc"}
    return made | {
        "policy": "P()",
        "parameters": 7,
        "quality": {"rows": ROWS} | quality,
        "scores": {},
        "pruning": pruning,
    }


def save(folder, arm, seed, results, predictions):
    path = folder / "arms" / arm / f"seed-{seed}"
    path.mkdir(parents=True)
    (path / "results.json").write_text(json.dumps(results))
    (path / "predictions.json").write_text(json.dumps(predictions))


def labels(right):
    return {"predictions": np.where(right, "yes", "no").tolist(), "references": ["yes"] * ROWS}


@pytest.fixture
def compare(tmp_path):
    """Make a folder of accuracies by arm and seed, and compare it."""

    def made(accuracies, margin=None, arms=ARMS, seeds=None, **more):
        shutil.rmtree(tmp_path / "arms", ignore_errors=True)
        seeds = seeds or max(map(len, accuracies.values()))
        Plan("recipes/x.py", ("--bf16",), arms, seeds, 1, margin).save(tmp_path)
        for arm, values in accuracies.items():
            for seed, value in enumerate(values, 1):
                right = right_rows(value, seed)
                given = {name: each[arm] for name, each in more.items() if arm in each}
                results = results_of(value=float(right.mean()), **{"tokens": TOKENS.get(arm, 4000)} | given)
                save(tmp_path, arm, seed, results, labels(right))
        return Comparison.load(tmp_path)

    return made


def conclusion(comparison, arm):
    return next(found["conclusion"] for found in comparison.to_dict()["arms"] if found["arm"] == arm)


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


def test_predictions_of_another_run_are_refused(compare, tmp_path):
    found = compare({"full": [0.8], "infobatch": [0.8]})
    path = tmp_path / "arms" / "infobatch" / "seed-1"
    (path / "predictions.json").write_text(json.dumps(labels(right_rows(0.7, 1))))
    with pytest.raises(ValueError, match="predictions.json gives accuracy 0.7, but results.json says 0.8"):
        Comparison.load(tmp_path)
    with pytest.raises(ValueError, match="no account of what was trained: compare with --policy uniform:keep=1"):
        (path / "results.json").write_text(json.dumps(found.runs["full", 1].results | {"pruning": None}))
        RunResult.load(path)


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


def test_a_plan_is_read_as_it_was_written(tmp_path):
    plan = Plan("recipes/x.py", ("--bf16",), ARMS, 3, 2, 0.7)
    plan.save(tmp_path)
    assert Plan.load(tmp_path) == plan


# ---- What is written ----


class Page(html.parser.HTMLParser):
    """Cells of the table, texts of the list, and addresses of all that would be loaded."""

    def __init__(self, text):
        super().__init__()
        self.cells, self.items, self.addresses, self.within = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag != "strong":  # stands within an item
            self.within = tag
        if tag == "li":
            self.items.append("")
        self.addresses += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        if self.within == "li":
            self.items[-1] += data
        elif self.within in ("td", "th") and data.strip():
            self.cells.append(data)


def test_page_and_markdown_say_the_same(compare, tmp_path):
    arms = ARMS | {"<b>": Arm(("--policy", "mine"), "policy")}
    found = compare({"full": [0.8, 0.81], "short-50": [0.7, 0.7], "<b>": [0.75, 0.76]}, arms=arms)
    write(found, tmp_path)
    headings, rows = table(found.to_dict())
    text = (tmp_path / "comparison.md").read_text()
    shown = Page((tmp_path / "comparison.html").read_text())
    assert shown.cells == [*headings, *(cell for row in rows for cell in row)]
    assert [f"| {' | '.join(row)} |" in text for row in rows] == [True] * 3
    for line in [*(arm["conclusion"] for arm in found.to_dict()["arms"]), "Parameters: 7. Hardware: 2 CPU cores"]:
        assert f"- {line}" in text.replace("**", "")
        assert any(item.startswith(line) for item in shown.items)
    assert [address[:22] for address in shown.addresses] == ["data:image/png;base64,"]
    assert "python recipes/x.py --bf16 --policy uniform:keep=1 --seed $seed --output_dir" in text
    assert json.loads((tmp_path / "comparison.json").read_text()) == json.loads(json.dumps(found.to_dict()))


def test_several_runs_at_once_are_said_to_take_longer(compare):
    found = compare({"full": [0.8, 0.81]})
    assert "shared the machine" not in markdown(found.to_dict())
    found.plan.jobs = 4
    assert "Up to 4 runs shared the machine: seconds are longer" in markdown(found.to_dict())


def test_the_figure_has_a_line_for_each_arm(compare, tmp_path):
    """Also where an arm was evaluated once, or never."""
    found = compare(
        {"full": [0.8, 0.81], "short-50": [0.7, 0.7], "infobatch": [0.75, 0.76]}, curve={"short-50": (0.4,)}
    )
    for seed in (1, 2):
        found.runs["infobatch", seed].results["pruning"]["evaluations"] = []
    write(found, tmp_path)
    picture = imread(tmp_path / "comparison.png")[..., :3]
    assert picture.shape[1] == 1650
    for color, there in (((26, 26, 26), True), ((140, 140, 140), True), ((138, 79, 191), False)):
        near = (np.abs(picture * 255 - color).max(axis=-1) < 2).sum()
        assert (near > 50) == there


def test_beginnings_far_below_the_ends_are_left_out_of_the_figure():
    """Ends from 93 to 97: down to 85 is shown."""
    late = np.array([10.0, 50, 90, 93]), np.array([10.0, 80, 97])
    assert _far([*late]) == 85
    assert _far([late[0] - 100, late[1] - 100]) == -15  # of losses
    assert _far([np.array([88.0, 93]), np.array([97.0]), np.array([]), np.array([np.nan])]) is None
    assert _far([np.array([90.0, 95]), np.array([91.0, 95])]) is None  # one end
    assert _far([np.array([])]) is None


def test_page_needs_nothing_but_the_numbers(compare):
    found = compare({"full": [0.8, 0.81]}).to_dict()
    assert page(json.loads(json.dumps(found)), b"png") == page(found, b"png")


# ---- Side by side ----


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]


def test_comparisons_side_by_side(compare, tmp_path, capsys):
    """Half the data are the budget that is shown; marked is what differs from fewer epochs that read as much."""
    arms = {
        **ARMS,
        "short-20": Arm(("--policy", "uniform:keep=1", "--num_train_epochs", "1"), "short", 0.2),
        "ucb-20": Arm(("--policy", "ucb:keep=0.2"), "policy", 0.2),
        "ucb-50": Arm(("--policy", "ucb:keep=0.5"), "policy", 0.5),
    }
    accuracies = {"full": 0.9, "short-50": 0.8, "uniform-50": 0.85, "infobatch": 0.86, "ucb-50": 0.7, "ucb-20": 0.6}
    accuracies["short-20"] = 0.5
    tokens, paths = {"uniform-50": 2080, "ucb-50": 2000}, []
    for name, chosen in (("first", arms), ("second", ARMS)):
        found = compare({arm: [accuracies[arm]] * 3 for arm in chosen}, arms=chosen, tokens=tokens).to_dict()
        paths.append(tmp_path / name / "comparison.json")
        paths[-1].parent.mkdir()
        paths[-1].write_text(json.dumps(found))
    names, _, first, second = cells(comparisons_table(paths))
    assert names == ["comparison", "seeds", "quality", "all rows", "fewer epochs", "random rows", "rules"]
    scores = ["90.00", "80.00 (50 %)", "85.00 + (48 %)"]
    assert first[1:] == ["3", "accuracy in %", *scores, "`infobatch`: 86.00 ? (38 %)<br>`ucb` at 50 %: 70.00 - (50 %)"]
    assert second[1:] == ["3", "accuracy in %", *scores, "`infobatch`: 86.00 ? (38 %)"]
    assert first[0].startswith("[first](") and first[0].endswith("first/comparison.md)")
    assert hf_prune(["table", *map(str, paths)]) == 0
    assert capsys.readouterr().out.strip() == comparisons_table(paths)


def test_what_is_not_known_is_marked_in_the_table(compare, tmp_path):
    """No arm that read as much, one seed of three, or no seed of the full arm; an arm that saved nothing has it."""
    arms = ARMS | {name: Arm(("--policy", "mine"), "policy") for name in ("same", "lone", "other")}
    accuracies = {"full": 0.9, "short-50": 0.8, "infobatch": 0.8, "same": 0.5, "lone": 0.9, "other": 0.9}
    compare({arm: [share] * 3 for arm, share in accuracies.items()}, arms=arms, tokens={"lone": 2000})
    for arm, seed in (("full", 3), ("lone", 2), ("lone", 3), ("other", 1), ("other", 2)):
        shutil.rmtree(tmp_path / "arms" / arm / f"seed-{seed}")
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps(Comparison.load(tmp_path).to_dict()))
    *_, line = cells(comparisons_table([path]))
    assert line[3:6] == ["90.00, 2 of 3 seeds", "80.00 (50 %)", ""]
    assert line[6].split("<br>") == [
        "`infobatch`: 80.00 ? (38 %)",
        "`same`: 50.00 - (0 %)",
        "`lone`: 90.00 ? (50 %), 1 of 3 seeds",
        "`other`: 90.00, 1 of 3 seeds",
    ]


@pytest.mark.parametrize("content", ["", "[]", '{"arms": [{}]}'])
def test_a_file_that_is_no_comparison_is_named(tmp_path, content):
    (tmp_path / "comparison.json").write_text(content)
    with pytest.raises(ValueError, match="comparison.json is no comparison.json of `hf-prune compare`"):
        comparisons_table([tmp_path / "comparison.json"])


def test_models_that_have_learnt_nothing_support_nothing(tmp_path):
    """One answer for all rows is as good under any rule."""
    Plan("x.py", (), {name: ARMS[name] for name in ("full", "infobatch")}, 2).save(tmp_path)
    answers = {"predictions": ["b"] * ROWS, "references": ["a", "b"] * (ROWS // 2)}
    for arm in ("full", "infobatch"):
        for seed in (1, 2):
            save(tmp_path, arm, seed, results_of(value=0.5), answers)
    text = conclusion(Comparison.load(tmp_path), "infobatch")
    assert text == "infobatch: no conclusion, because full gives every row the same answer: it has learnt nothing."


# ---- Files of others ----


def changed(path, change):
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


@pytest.mark.parametrize(
    "name", ["../../victim", "..", ".", ".hidden", "/etc", "a/b", "a\\b", "C:x", "a\nb", "", "\ud800"]
)
def test_the_name_of_an_arm_is_no_path(compare, tmp_path, name):
    compare({"full": [0.8]})
    changed(tmp_path / "command.json", lambda plan: plan["arms"].update({name: plan["arms"]["full"]}))
    with pytest.raises(ValueError, match="command.json is not the plan of a comparison, or damaged .*is no name"):
        Comparison.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        *({"seeds": 10**9}, {"seeds": 10**30}, {"seeds": 0}, {"seeds": 1.5}, {"seeds": "3"}, {"seeds": None}),
        *({"seeds": True}, {"jobs": -1}, {"margin": "x"}, {"margin": float("nan")}, {"margin": -1}, {"paths": "x"}),
        *({"margin": empty} for empty in ({}, [], "", False)),
        *({"paths": empty} for empty in ({}, [], "", False)),
        *({"arguments": ["x" * 10_001]}, {"x" * 100_000: 3}),
        *({"script": None}, {"script": ["x"]}, {"arguments": "x"}, {"arguments": [3]}, {"arguments": None}),
        *({"arms": []}, {"arms": {"full": None}}, {"arms": {"full": {}}}, {"more": 3}),
        *({"arms": {"a": {"flags": [], "kind": kind}}} for kind in ("other", None, ["full"])),
        *({"arms": {"a": {"flags": flags, "kind": "full"}}} for flags in ("x", [3], None, {})),
        *({"arms": {"a": {"flags": [], "kind": "full", "budget": budget}}} for budget in (2, -1, "x", float("nan"))),
    ],
)
def test_a_plan_out_of_bounds_is_refused(compare, tmp_path, change):
    compare({"full": [0.8]})
    changed(tmp_path / "command.json", lambda plan: plan.update(change))
    with pytest.raises(ValueError, match="command.json is not the plan of a comparison, or damaged") as refused:
        Comparison.load(tmp_path)
    assert len(str(refused.value)) < 700


@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "3", "null", "{}", '{"arms": 3}', "\xff"])
def test_a_plan_of_something_else_is_refused(compare, tmp_path, content):
    compare({"full": [0.8]})
    (tmp_path / "command.json").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match="command.json is not the plan of a comparison, or damaged"):
        Comparison.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        *(("quality", None), ("quality", []), ("quality.metric", ["accuracy"]), ("quality.metric", "<img src=x>")),
        *(("quality.metric", "a|b"), ("quality.split", "a\nb"), ("quality.value", "0.8"), ("quality.value", 1e300)),
        *(("quality.value", float("inf")), ("quality.rows", 0), ("quality.rows", 1e30), ("quality.rows", "9")),
        *(("quality.greater_is_better", "yes"), ("pruning", [1]), ("pruning.totals", None), ("pruning.totals", {})),
        *(("pruning.totals.padded_tokens", -1), ("pruning.totals.padded_tokens", float("nan"))),
        *(
            ("pruning.totals.optimizer_steps", "x"),
            ("pruning.earlier_runs", [1]),
            ("pruning.earlier_runs", {"rows": "x"}),
        ),
        *(("pruning.evaluations", {}), ("pruning.evaluations", [3]), ("pruning.evaluations", [{}])),
        *(("hardware", None), ("hardware.gpus", 3), ("hardware.gpus", ["<b>"]), ("hardware.cpus", "x")),
        *(("versions", []), ("versions.torch", "a\nb"), ("versions.torch", 2), ("commit", "[x](http://x)")),
        *(("commit", []), ("hardware.cpus", {}), ("hardware.threads", "")),
        *(("parameters", "7"), ("parameters", None), ("scores", 3)),
    ],
    ids=str,
)
def test_results_out_of_bounds_are_refused(compare, tmp_path, change):
    compare({"full": [0.8], "infobatch": [0.7]})
    place, value = change

    def put(found):
        *path, last = place.split(".")
        for name in path:
            found = found[name]
        found[last] = value

    changed(tmp_path / "arms" / "full" / "seed-1" / "results.json", put)
    if change == ("scores", 3):  # which accuracy has no use for
        changed(
            tmp_path / "arms" / "full" / "seed-1" / "results.json", lambda found: found["quality"].update(metric="f1")
        )
    with pytest.raises(ValueError, match="seed-1"):
        Comparison.load(tmp_path)


@pytest.mark.parametrize(
    "predictions",
    [{}, {"predictions": []}, {"predictions": 3, "references": 4}, {"predictions": [[]], "references": [{}]}],
)
def test_predictions_of_something_else_are_refused(compare, tmp_path, predictions):
    compare({"full": [0.8], "infobatch": [0.7]})
    (tmp_path / "arms" / "full" / "seed-1" / "predictions.json").write_text(json.dumps(predictions))
    with pytest.raises(ValueError, match="seed-1/predictions.json was not written by a recipe"):
        Comparison.load(tmp_path)


def test_more_labels_than_can_be_resampled_are_refused(compare, tmp_path):
    compare({"full": [0.8]})
    names = [f"label {number}" for number in range(30_000)]
    predictions = {"predictions": names, "references": names}
    path = tmp_path / "arms" / "full" / "seed-1"
    (path / "predictions.json").write_text(json.dumps(predictions))
    changed(path / "results.json", lambda found: found["quality"].update(metric="matthews", value=1.0))
    with pytest.raises(ValueError, match="30,000 labels of 30,000 rows are too many"):
        Comparison.load(tmp_path)


def test_a_page_and_a_folder_of_others_reach_nothing_outside(compare, tmp_path):
    arms = ARMS | {'<img src=x onerror=y>`$(reboot)`"': Arm(("--policy", "a`b```c", "--token", "sesame"), "policy")}
    found = compare({"full": [0.8, 0.81], list(arms)[-1]: [0.75, 0.76]}, arms=arms)
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / "comparison.png").symlink_to(target)
    write(found, tmp_path)
    assert target.read_text() == "mine" and not (tmp_path / "comparison.png").is_symlink()
    text, shown = (tmp_path / "comparison.html").read_text(), Page((tmp_path / "comparison.html").read_text())
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:;' in text
    assert all(address.startswith("data:image/png;base64,") for address in shown.addresses)
    assert "sesame" not in text + (tmp_path / "comparison.md").read_text() + (tmp_path / "comparison.json").read_text()
    (line,) = [line for line in text.splitlines() if "reboot" in line and "output_dir" in line]
    assert "\\$(reboot)\\`" in line
    markdown_text = (tmp_path / "comparison.md").read_text()
    assert markdown_text.rstrip().endswith("\n``````") and "``````bash" in markdown_text


@pytest.mark.parametrize(
    "change",
    [
        *({"quality": None}, {"arms": 3}, {"arms": [3]}, {"arms": [{}]}, {"plan": {"seeds": "x"}}),
        *({"quality": {"digits": 10**9, "unit": "x"}}, {"quality": {"digits": 2, "unit": "a\n<b>"}}),
    ],
)
def test_a_table_of_something_else_is_refused(compare, tmp_path, change):
    write(compare({"full": [0.8, 0.81], "infobatch": [0.75, 0.76]}), tmp_path)
    changed(tmp_path / "comparison.json", lambda found: found.update(change))
    with pytest.raises(ValueError, match="is no comparison.json of `hf-prune compare`"):
        comparisons_table([tmp_path / "comparison.json"])
