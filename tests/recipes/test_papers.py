"""recipes/benchmarks/papers.py: its comparisons can run, and its table says what their numbers say."""

import json
import shlex

import pytest
from recipe_runs import ROOT, load
from transformers import TrainingArguments

from hf_prune.compare.command import read_arguments
from hf_prune.compare.plan import flag_names, plan_arms
from hf_prune.recipe.arguments import parse
from hf_prune.recipe.splits import CommonArguments


@pytest.fixture(scope="module")
def papers():
    return load("benchmarks/papers")


def arm(name, quality, rows=100, seconds=10.0, unit="rows", **differences):
    """An arm of comparison.json with the differences to other arms as (to, mean, low, high)."""
    known = {kind: dict(zip(("to", "mean", "low", "high"), one, strict=True)) for kind, one in differences.items()}
    differences = {"full": None, "short": None, "uniform": None} | known
    seeds = list(range(1, len(quality) + 1))
    counts = {unit: {"all": rows}, "seconds": seconds}
    return {"arm": name, "seeds": seeds, "quality": quality, "differences": differences} | counts


def write(folder, name, *arms, jobs=2):
    folder.joinpath(name).mkdir(parents=True)
    found = {"plan": {"jobs": jobs}, "arms": arms}
    folder.joinpath(name, "comparison.json").write_text(json.dumps(found))


def rows_of(papers, folder, text):
    found = {row["claim"]: row for row in papers.measure(folder)["claims"]}
    return next(row for claim, row in found.items() if text in claim)


def test_what_was_not_run_says_so(papers, tmp_path):
    found = papers.measure(tmp_path)
    assert {row["holds"] for row in found["claims"]} == {"not run"}
    lines = papers.table(found).splitlines()
    assert lines[0] == "| claim | setting there | setting here | measured here | holds? |"
    assert lines[-1].endswith("| not run | not run |")
    assert len(lines) == 2 + len(papers.CLAIMS)
    write(tmp_path, "papers_cifar10", arm("full", [60.0]))  # the rule is missing
    assert rows_of(papers, tmp_path, "KAKURENBO")["holds"] == "not run"


@pytest.mark.parametrize(
    ("low", "high", "rows", "holds"),
    [
        (-0.3, 0.4, 70, "yes"),
        (-0.3, 0.4, 79, "no"),  # it saves too little
        (-0.5, 0.1, 70, "not decided"),
        (-0.5, 0.1, 79, "no"),
        (-1.2, -0.5, 70, "no"),
        (None, None, 70, "not decided"),
    ],
)
def test_a_claim_of_equal_quality_at_less_cost(papers, tmp_path, low, high, rows, holds):
    rule = arm("kakurenbo", [59.9] * 8, rows, full=("full", -0.1, low, high), short=("short-70", 0.5, 0.1, 0.9))
    write(tmp_path, "papers_cifar10", arm("full", [60.0] * 8), rule)
    row = rows_of(papers, tmp_path, "KAKURENBO")
    ends = "no interval" if low is None else f"{low:+.2f} to {high:+.2f}"
    assert row["measured"] == (
        f"kakurenbo less full: -0.10 ({ends}); less short-70: +0.50 (+0.10 to +0.90); {100 - rows} % fewer rows"
    )
    assert row["holds"] == holds
    assert row["here"] == "3,200 pictures of CIFAR-10, a ResNet of three blocks, 20 epochs; 8 seeds"


def test_the_table_is_made_of_the_numbers(papers, tmp_path):
    random = arm("uniform-50", [50.0, 51.0, 52.0], 50)
    write(tmp_path, "papers_cifar10", random, arm("ucb-50", [49.0] * 3, 50, uniform=("uniform-50", -2.0, -3.0, -1.0)))
    (line,) = [
        line
        for line in papers.table(papers.measure(tmp_path)).splitlines()
        if "UCB is better" in line and "50 %" in line
    ]
    assert line == (
        "| Dynamic data pruning: UCB is better than random rows at 50 % pruned | CIFAR-10 and CIFAR-100, ResNet-18; "
        "tables by others | 3,200 pictures of CIFAR-10, a ResNet of three blocks, 20 epochs; 3 seeds | "
        "ucb-50 less uniform-50: -2.00 (-3.00 to -1.00) | no |"
    )


@pytest.mark.parametrize(
    ("gains", "holds"), [([1.0, 1.2, 0.8], "yes"), ([-1.0, -1.2, -0.8], "no"), ([1, -1, 0], "not decided")]
)
def test_arms_of_other_cost_are_compared_seed_by_seed(papers, tmp_path, gains, holds):
    random = arm("uniform-50", [50.0 + gain for gain in gains], 50)
    static = arm("el2n-50", [50.0, 50.0, 50.0, 90.0], 80)  # one seed has no partner
    write(tmp_path, "papers_cifar10", random, static)
    row = rows_of(papers, tmp_path, "EL2N at 50 %")
    mean = sum(gains) / 3
    assert row["measured"].startswith(f"uniform-50 less el2n-50: {mean:+.2f} (") and "over seeds" in row["measured"]
    assert row["holds"] == holds


def test_batches_are_compared_across_comparisons(papers, tmp_path):
    for size, quality in ((512, [60.0, 61.0]), (4096, [50.0, 51.2])):
        write(tmp_path, f"papers_batch_{size}", arm("full", quality), arm("filter", quality, full=("full", 0, -1, 1)))
    row = rows_of(papers, tmp_path, "accuracy falls")
    assert row["measured"].startswith("full less full of papers_batch_4096: +9.90 (") and row["holds"] == "yes"
    assert rows_of(papers, tmp_path, "at 4,096 ")["holds"] == "not decided"
    assert rows_of(papers, tmp_path, "at 1,024 ")["holds"] == "not run"


@pytest.mark.parametrize(
    ("jobs", "said", "holds"), [(1, "20 % fewer seconds", "no"), (2, "35 % fewer positions", "yes")]
)
def test_seconds_count_only_where_runs_were_alone(papers, tmp_path, jobs, said, holds):
    full = arm("full", [30.0] * 2, unit="positions")
    rule = arm("autoassist", [30.0] * 2, 65, 9.0, "positions", full=("full", 0.0, -0.1, 0.1))
    write(tmp_path, "papers_multi30k", full, rule)
    alone = [arm("full", [30.0], unit="positions"), arm("autoassist", [30.0], 65, 8.0, "positions")]
    write(tmp_path, "timed/papers_multi30k", *alone, jobs=jobs)
    row = rows_of(papers, tmp_path, "same BLEU")
    assert row["measured"].endswith(said) and row["holds"] == holds


def test_every_arm_of_a_claim_is_run(papers):
    for claim in papers.CLAIMS:
        for name, one in (key for part in claim.parts for key in (part.arm, part.to)):
            regime = papers.PAPERS[name]
            budgets = [budget for budget in regime.budgets if budget != "auto"]
            assert one in plan_arms(list(regime.arms), budgets, 10), claim.text
            if any(part.of_time for part in claim.parts):
                timed = papers.PAPERS[f"timed/{name}"]
                assert one in plan_arms(list(timed.arms), [*timed.budgets], 10) and timed.jobs == "1"


def regimes_of(papers):
    return papers.PAPERS | papers.FULL_SIZE


def parse_run(recipe, argv):
    """The arguments of a run as its recipe reads them."""
    argv = [*argv, "--seed", "1", "--output_dir", "out"]
    if hasattr(recipe, "read_flags"):
        return recipe.read_flags(argv)
    types = (CommonArguments, recipe.RecipeArguments, TrainingArguments)
    return parse(*types, argv=argv, **recipe.FROM_SCRATCH)


@pytest.mark.slow
def test_the_arguments_of_every_run_are_those_of_its_recipe(papers):
    """Of every comparison, the papers' own sizes included, and of the runs that score rows."""
    scored = 0
    for name, regime in regimes_of(papers).items():
        recipe = load(regime.recipe)
        *scoring, comparing = papers.commands_of(name, regime)
        options, arguments, _ = read_arguments(comparing[2:])
        assert options.script == f"recipes/{regime.recipe}.py" and options.keep == "results"
        runs = [(arguments, one.flags) for one in plan_arms(options.arms, [0.5], 10, options.baselines).values()]
        for command in scoring:
            cut = command.index("--")
            assert command[cut + 1] == options.script
            runs.append((command[cut + 2 :], ("--policy", f"{command[3]}:keep=1")))
        for given, flags in runs:
            common, _, args, policy = parse_run(recipe, [*given, *flags])
            assert policy is not None and (common.train_file or common.dataset_name)
            assert args.num_train_epochs >= 5 or given is not arguments
        scored += len(scoring)
    assert scored == 2 + 4 + 4  # the four sizes of a batch read the same scores


def test_batches_are_whole_and_as_large_as_said(papers):
    for size in papers.BATCHES:
        for name in (f"papers_batch_{size}", f"cifar10_batch_{size}"):
            flags = shlex.split(regimes_of(papers)[name].arguments)
            value = dict(zip(flags[::2], flags[1::2], strict=True))
            at_once = [
                int(value[f"--{flag}"]) for flag in ("per_device_train_batch_size", "gradient_accumulation_steps")
            ]
            assert at_once[0] * at_once[1] == size
        assert 16_384 % size == 16_384 * 3 // 4 % size == 0


def test_scores_are_made_before_they_are_read(papers):
    made = set()
    for name, regime in regimes_of(papers).items():
        *scoring, comparing = papers.commands_of(name, regime)
        made |= {command[command.index("--output_dir") + 1] for command in scoring}
        read = {text.rpartition("--history ")[2] for text in regime.arms if "--history" in text}
        assert read <= made, name
        assert "seed" not in flag_names(comparing[comparing.index("--") + 1 :])


def test_the_table_goes_to_the_page_and_the_numbers_beside_it(papers, tmp_path, monkeypatch):
    monkeypatch.setattr(papers, "RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["papers.py", "--table"])
    page = tmp_path / "README.md"
    page.write_text("# Results\n")
    with pytest.raises(ValueError, match="has no marks <!-- papers -->"):
        papers.main()
    page.write_text("before\n<!-- papers -->\nold\n<!-- end of papers -->\nafter\n")
    papers.main()
    found = json.loads((tmp_path / "papers.json").read_text())
    expected = f"before\n<!-- papers -->\n{papers.table(found)}\n<!-- end of papers -->\nafter\n"
    assert page.read_text() == expected


def test_a_comparison_that_does_not_exist_is_refused(papers, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["papers.py", "papers_cifar"])
    with pytest.raises(SystemExit):
        papers.main()
    assert "There is no comparison 'papers_cifar'; there are papers_cifar10," in capsys.readouterr().err


def test_the_page_has_the_table(papers):
    page = (ROOT / "recipes" / "results" / "README.md").read_text("utf-8")
    found = papers.measure(ROOT / "recipes" / "results")
    assert f"<!-- papers -->\n{papers.table(found)}\n<!-- end of papers -->" in page, "run papers.py --table"
    assert json.loads((ROOT / "recipes" / "results" / "papers.json").read_text()) == json.loads(json.dumps(found))
