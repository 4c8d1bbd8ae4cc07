"""The comparison as its users meet it: a command that runs a recipe over arms and seeds."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from recipe_runs import ROOT, environment

from hf_prune.compare import command
from hf_prune.compare import page as comparison_page

FAKE = str(ROOT / "tests" / "support" / "fake_recipe.py")
EPOCHS = ("--num_train_epochs", "4")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder to work in, and no figures, which take longer than the fake's runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(comparison_page, "figure", lambda comparison, path: Path(path).write_bytes(b""))


def compare(*flags, recipe=EPOCHS, status=0):
    """Run it in this process; what it found."""
    assert command.main([FAKE, *flags, "--output_dir", "out", "--", *recipe]) == status
    return json.loads(Path("out", "comparison.json").read_text())


def log(arm, seed=1):
    return Path("out", "logs", arm, f"seed-{seed}.log")


def begun():
    """How often a run of each arm and seed was begun or gone on with."""
    logs = sorted(Path("out", "logs").rglob("*.log"))
    return {f"{path.parent.name} {path.stem[-1]}": path.read_text().split("\n").index("") for path in logs}


def conclusions(found):
    return {arm["arm"]: arm["conclusion"] for arm in found["arms"]}


# ---- Known answers ----


def test_a_second_full_arm_shows_no_difference_and_a_destroyed_one_worse(capsys):
    arms = ["again=uniform:keep=1", "destroyed=uniform:keep=1 --worse 0.3", "infobatch"]
    found = compare("--arms", *arms, "--seeds", "3", "--jobs", "2")
    said = conclusions(found)
    assert [arm["arm"] for arm in found["arms"]] == [
        "full",
        "short-50",
        "uniform-50",
        "again",
        "destroyed",
        "infobatch",
    ]
    assert said["again"].startswith("again: same quality as full within 0.5 (+0.00 points")
    assert said["destroyed"].startswith("destroyed: worse than full (-29.25 points, 95 % CI -3")
    # the fake's policies train 60 %
    assert "with 40.0 % fewer positions; no baseline read as much" in said["infobatch"]
    assert said["infobatch"].endswith("add --budgets 0.60.")
    assert {len(arm["seeds"]) for arm in found["arms"]} == {3} and found["missing"] == []
    printed = capsys.readouterr()
    assert printed.out.strip() == Path("out", "comparison.md").read_text().strip()
    assert "18/18" in printed.err and "run/s" in printed.err


def test_an_arm_that_differs_by_chance_shows_no_difference():
    found = compare("--arms", "chance=uniform:keep=1 --chance 0.02", "--seeds", "3")
    assert conclusions(found)["chance"].startswith("chance: no significant difference from full (")
    assert "too wide to show the same within 0.5) with as many positions." in conclusions(found)["chance"]


def test_a_loss(capsys):
    found = compare(
        "--arms", "infobatch --worse 0.2", "--seeds", "2", recipe=["--metric", "loss", "--num_train_epochs", "4"]
    )
    assert conclusions(found)["infobatch"].startswith("infobatch: worse than full (+0.2")


# ---- Arms ----


def test_a_policy_of_the_users_own():
    Path("rules_to_compare.py").write_text(
        "from dataclasses import dataclass\nfrom hf_prune.core import BudgetPolicy\n\n"
        "@dataclass(frozen=True)\nclass Mine(BudgetPolicy):\n    def select(self, history, clock, rng): ...\n"
    )
    found = compare("--arms", "rules_to_compare.Mine", "--seeds", "1", "--budgets", "0.6")
    assert [arm["flags"] for arm in found["arms"] if arm["arm"] == "Mine-60"] == [
        ["--policy", "rules_to_compare.Mine:keep=0.6"]
    ]


def test_the_recipes_own_epochs_are_those_of_the_full_arm():
    """The fake has 4; its full arm is run first, and once."""
    found = compare("--seeds", "2", recipe=[])
    short = next(arm for arm in found["arms"] if arm["arm"] == "short-50")
    assert short["flags"][-2:] == ["--num_train_epochs", "2"] and short["positions"]["trained"] == 2000
    assert set(begun().values()) == {1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.py"], "There is no script 'missing.py'"),
        ([], "comparison has no comparison: give the recipe"),
        (["--arms", "ucb", FAKE], "The recipe comes first: .* RECIPE --arms"),
        (["--", "--num_train_epochs", "9"], "The recipe comes first"),
        ([FAKE, "--arms", "ucbb"], "Unknown policy 'ucbb'. Did you mean 'ucb'"),
        ([FAKE, "--arms", "ucb:keep=2"], r"--arms 'ucb:keep=2': UCB\(keep=...\) must be in"),
        ([FAKE, "--arms", "ucb 'x"], "--arms .*: No closing quotation"),
        ([FAKE, "--output_dir", "/dev/null/x"], "--output_dir /dev/null/x can't be made: Not a directory"),
        ([FAKE, "--arms", "ucb", "ucb:period=2"], "Two arms are called ucb-50: name one of them"),
        (
            [FAKE, "--arms", "el2n"],
            "Arm el2n-50: .* chooses by scores of earlier runs, and there are none.*--history 'scores'",
        ),
        ([FAKE, "--arms", "uniform"], "Two arms are called uniform-50"),
        ([FAKE, "--budgets", "50"], "--budgets 50: a budget is a share between 0 and 1"),
        ([FAKE, "--seeds", "0"], "--seeds 0 --jobs 1: give 1 or more"),
        ([FAKE, "--seeds", "100000"], "--seeds must be a whole number from 1 to 33333, got 100000; give another."),
        ([FAKE, "--jobs", "1000000"], "--jobs must be a whole number from 1 to 100000, got 1000000; give another."),
        ([FAKE, "--margin", "-1"], "--margin must be a number from 0 to .*, got -1.0; give another."),
        ([FAKE, "--margin", "nan"], "--margin must be a number from 0 to .*, got nan; give another."),
        ([FAKE, "--jobs", "some"], "--jobs: 'some' is neither a number nor auto"),
        ([FAKE, "--budgets", "auto", "--arms", "ucb"], "--budgets auto leaves ucb without a budget: add one, as in"),
        ([FAKE, "--baselines", "none"], "--baselines: invalid choice: 'none'"),
        ([FAKE, "--arms", "ucb --hub_token hf_x"], "--hub_token is set for every run; leave it out"),
        ([FAKE, "--", "--output-dir", "x"], "--output_dir after --: it can't be the same"),
        ([FAKE, "--", "--seed=3"], "--seed after --: it can't be the same for every run"),
        ([FAKE, "--", "--max_steps", "9"], "--max_steps after --: .* would make all as long"),
    ],
)
def test_what_can_not_work_is_refused_before_it_starts(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert re.search(message, said) and said.count("\n") == 1, said
    assert not Path("comparison").exists()


# ---- Arms that do nothing ----


def order():
    """(arm, seed) of all runs in the order in which they were begun."""
    logs = sorted(Path("out", "logs").rglob("*.log"), key=lambda path: path.stat().st_mtime_ns)
    return [f"{path.parent.name} {path.stem[-1]}" for path in logs]


def test_an_arm_that_prunes_nothing_is_told_and_goes_last(capsys):
    arms = ["--arms", "kakurenbo --share 1", "infobatch", "all=uniform:keep=1.0"]
    found = compare("--seeds", "3", *arms)
    said = capsys.readouterr().err
    assert said.count("pruned nothing") == 1
    assert "Arm kakurenbo pruned nothing with seed 1: it trained as much as full. Its other seeds run last" in said
    rules = ["full", "short-50", "uniform-50", "infobatch", "all"]
    later = [f"{arm} {seed}" for seed in (2, 3) for arm in rules]
    assert order()[6:] == [*later, "kakurenbo 2", "kakurenbo 3"]
    assert all(arm["seeds"] == [1, 2, 3] for arm in found["arms"])


def test_an_arm_that_pruned_nothing_in_an_earlier_command_goes_last_too(capsys):
    arms = ["--arms", "kakurenbo --share 1", "infobatch"]
    compare("--seeds", "1", *arms)
    assert "pruned nothing with seed 1" not in capsys.readouterr().err  # there is no other seed
    compare("--seeds", "2", *arms, "--jobs", "2")
    assert "Arm kakurenbo pruned nothing with seed 1" in capsys.readouterr().err
    assert order()[-1] == "kakurenbo 2"


# ---- Baselines of its own ----


def test_budgets_that_arms_turn_out_to_read_are_added():
    """The fake's infobatch reads 60 %, and ucb half of that: two shares beside the one that is named."""
    arms = ["--arms", "infobatch", "ucb:keep=0.3", "near=ucb:keep=0.58"]
    found = compare("--seeds", "2", "--budgets", "0.8", "auto", *arms)
    flags = {arm["arm"]: arm["flags"] for arm in found["arms"]}
    assert list(flags)[-4:] == ["short-60", "uniform-60", "short-30", "uniform-30"]
    assert flags["short-60"][-2:] == ["--num_train_epochs", "2.4"] and flags["uniform-30"][-1] == "uniform:keep=0.3"
    said = conclusions(found)
    assert "short-60" in said["infobatch"] and "short-60" in said["near"] and "short-30" in said["ucb"]
    assert "add --budgets" not in "".join(said.values())
    assert all(arm["seeds"] == [1, 2] for arm in found["arms"]) and set(begun().values()) == {1}
    assert compare("--seeds", "2", "--budgets", "0.8", "auto", *arms) == found
    assert set(begun().values()) == {1}


def test_baselines_that_are_asked_for_are_arms():
    found = compare("--seeds", "1", "--baselines", "early_stopping", "class_weighted", "--budgets", "0.75")
    baselines = {arm["arm"]: arm for arm in found["arms"] if arm["kind"] == "baseline"}
    assert {name: " ".join(arm["flags"][2:]) for name, arm in baselines.items()} == {
        "early_stopping": "--early_stopping_patience 3 --load_best_model_at_end True --save_strategy best",
        "class_weighted": "--class_weights balanced",
        "class_weighted-75": "--class_weights balanced --num_train_epochs 3",
    }
    stops = baselines["early_stopping"]["differences"]
    assert stops["full"]["saved"] == 0.25 and stops["short"]["to"] == "short-75" and stops["baseline"] is None


# ---- Decided arms ----


def test_decided_arms_get_no_more_seeds_until_they_are_asked_for(capsys):
    flags = ["--arms", "bad=infobatch --worse 0.3", "--budgets", "0.6", "--seeds", "6"]
    found = compare(*flags, "--stop_decided")
    said = capsys.readouterr().err
    (words,) = re.findall(
        r"Arm bad gets no more seeds: (worse than short-60, 99.9 % CI .* with (?:3|4|5) seeds)\.", said
    )
    assert "Arm full gets no more seeds: no undecided arm needs it." in said
    stopped = {arm["arm"]: arm["stopped"] for arm in found["arms"]}
    assert stopped == {"bad": words} | dict.fromkeys(("full", "short-60", "uniform-60"), "no undecided arm needs it")
    assert found["missing"] == [] and not any(name.endswith(" 6") for name in begun())
    assert "Stopped before the last seed: " in Path("out", "comparison.md").read_text()
    assert found["verdict"]["line"].startswith("nothing beats fewer epochs here (")
    first = begun()
    assert compare(*flags, "--stop_decided") == found and begun() == first
    assert command.main(["--output_dir", "out"]) == 0
    assert json.loads(Path("out", "comparison.json").read_text()) == found
    further = compare(*flags)
    assert all(arm["seeds"] == [1, 2, 3, 4, 5, 6] and "stopped" not in arm for arm in further["arms"])
    assert set(begun().values()) == {1}


def test_an_arm_that_is_not_decided_gets_all_seeds():
    found = compare("--arms", "it=infobatch --chance 0.02", "--budgets", "0.6", "--seeds", "3", "--stop_decided")
    assert all(arm["seeds"] == [1, 2, 3] and "stopped" not in arm for arm in found["arms"])


# ---- Going on ----


def test_what_has_ended_is_not_run_again_and_more_is_added():
    compare("--seeds", "1", "--arms", "infobatch")
    first = begun()
    found = compare("--seeds", "2", "--arms", "ucb", "--budgets", "0.7")
    assert {name: begun()[name] for name in first} == first
    assert {arm["arm"]: arm["seeds"] for arm in found["arms"]} == {
        **dict.fromkeys(["full", "short-70", "uniform-70", "ucb-70"], [1, 2]),
        **dict.fromkeys(["short-50", "uniform-50", "infobatch"], [1]),
    }


def test_what_may_be_shared_names_no_path_of_this_machine(tmp_path):
    flags, recipe = (
        ["--arms", f"infobatch --wait={tmp_path}/go"],
        ["--num_train_epochs", "4", "--wait", f"{tmp_path}/go"],
    )
    (tmp_path / "go").touch()
    for _ in range(2):  # the second goes on with it
        compare("--seeds", "1", *flags, recipe=recipe)
    for path in Path("out").glob("*.*"):
        assert str(tmp_path) not in path.read_text() and str(ROOT) not in path.read_text()
    assert "python fake_recipe.py --num_train_epochs 4 --wait go --policy infobatch --wait=go" in (
        Path("out", "comparison.md").read_text()
    )


def test_other_runs_are_not_taken_for_these(capsys):
    compare("--seeds", "1", "--arms", "it=infobatch")
    for flags, recipe, message in (
        (
            ["--arms", "it=infobatch:ratio=0.3"],
            ["--num_train_epochs", "4"],
            "Arm it was run with `--policy infobatch`, and",
        ),
        ([], ["--num_train_epochs", "5"], "and this is `"),
    ):
        with pytest.raises(SystemExit):
            command.main([FAKE, *flags, "--seeds", "1", "--output_dir", "out", "--", *recipe])
        assert message in capsys.readouterr().err
    assert set(begun().values()) == {1}


def test_a_run_that_was_interrupted_is_not_gone_on_with_under_other_flags(capsys):
    compare("--seeds", "1", "--arms", "it=infobatch")
    run = Path("out", "arms", "it", "seed-1")
    (run / "results.json").unlink()
    (run / "checkpoint-1").mkdir()
    with pytest.raises(SystemExit):
        command.main([FAKE, "--arms", "it=infobatch:ratio=0.3", "--seeds", "1", "--output_dir", "out", "--", *EPOCHS])
    assert "Arm it was run with `--policy infobatch`, and" in capsys.readouterr().err
    compare("--seeds", "1", "--arms", "it=infobatch")
    assert (run / "results.json").exists()


def test_what_was_kept_of_a_run_stays_when_more_are_added():
    compare("--seeds", "1", "--keep", "all")
    checkpoint = Path("out", "arms", "full", "seed-1", "checkpoint-1")
    assert checkpoint.exists()
    compare("--seeds", "1", "--arms", "infobatch")
    assert checkpoint.exists() and not Path("out", "arms", "infobatch", "seed-1", "checkpoint-1").exists()


def test_files_of_one_name_in_two_folders_are_not_compared(tmp_path, capsys):
    compare("--seeds", "1", recipe=["--num_train_epochs", "4", "--wait", str(tmp_path)])
    other = tmp_path / "other" / tmp_path.name
    with pytest.raises(SystemExit):
        command.main(
            [FAKE, "--seeds", "1", "--output_dir", "out", "--", "--num_train_epochs", "4", "--wait", str(other)]
        )
    assert "compares runs with files of the same names in other folders" in " ".join(capsys.readouterr().err.split())
    assert str(tmp_path) not in Path("out", "command.json").read_text()


@pytest.mark.parametrize("name", ["command.json", "arms/full/seed-1/results.json", "arms/full/seed-1/predictions.json"])
def test_a_damaged_file_is_named(name, capsys):
    compare("--seeds", "1")
    for text in ("{", "[1]"):
        Path("out", name).write_text(text)
        with pytest.raises(SystemExit):
            command.main(["--output_dir", "out"])
        assert f"{Path('out', name)} is " in " ".join(capsys.readouterr().err.split())


def test_an_arm_that_fails_leaves_the_others_alone(capsys):
    found = compare("--arms", "infobatch --fail 2", "--seeds", "2", status=1)
    assert found["missing"] == ["infobatch, seed 2"]
    assert [len(arm["seeds"]) for arm in found["arms"]] == [2, 2, 2, 1]
    said = capsys.readouterr().err
    assert (
        "begins\nout of memory, say\n`" in said
        and "--seed 2 --output_dir out/arms/infobatch/seed-2` failed with" in said
    )
    assert "Failed: infobatch, seed 2. Their last words" in said
    assert compare("--arms", "infobatch --fail 2", "--seeds", "2", status=1)["missing"] == ["infobatch, seed 2"]
    assert begun()["infobatch 2"] == 4 and set(begun().values()) == {1, 4}  # it alone, two lines each time


def test_an_arm_that_fails_before_budgets_are_known_is_tried_once(capsys):
    flags = ("--arms", "infobatch --fail 1", "ucb:keep=0.5", "--seeds", "2", "--budgets", "auto")
    assert compare(*flags, status=1)["missing"] == ["infobatch, seed 1"]
    said = capsys.readouterr().err
    assert said.count("infobatch, seed 1 failed; the others continue") == 1
    assert said.count("Failed: infobatch, seed 1. ") == 1


def test_a_full_arm_that_fails_first_is_told(capsys):
    with pytest.raises(FileNotFoundError):
        compare("--seeds", "1", recipe=["--fail", "1"], status=1)
    assert "Failed: full, seed 1." in capsys.readouterr().err
    assert list(begun()) == ["full 1"]


@contextlib.contextmanager
def started(*flags, recipe):
    """The command as a process of its own, with what it says to stderr in said.log."""
    command = [sys.executable, str(ROOT / "recipes" / "compare.py"), FAKE, *flags, "--output_dir", "out", "--", *recipe]
    with open("said.log", "w") as said:
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=said)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def wait_for(condition, process):
    deadline = time.time() + 120
    while not condition():
        assert process.poll() is None and time.time() < deadline, Path("said.log").read_text()
        time.sleep(0.02)


@pytest.mark.slow
def test_a_run_that_outlives_a_killed_comparison_is_waited_for():
    recipe = ["--num_train_epochs", "4", "--wait", "go"]
    checkpoints = [Path("out", "arms", arm, "seed-1", "checkpoint-1") for arm in ("full", "short-50")]
    try:
        with started("--seeds", "1", "--jobs", "2", recipe=recipe) as killed:
            wait_for(lambda: all(path.exists() for path in checkpoints), killed)  # both at once
            killed.kill()
            killed.wait()
        with started("--seeds", "1", "--jobs", "2", recipe=recipe) as again:
            wait_for(
                lambda: Path("said.log").read_text().count("is still running, from an earlier command") == 2, again
            )
            Path("go").touch()
            assert again.wait() == 0
    finally:
        Path("go").touch()  # ends what would wait for it
    assert begun() == {"full 1": 1, "short-50 1": 1, "uniform-50 1": 1}


@pytest.mark.slow
def test_a_comparison_that_is_ended_ends_its_runs_and_goes_on():
    recipe = ["--num_train_epochs", "4", "--wait", "go"]
    with started("--seeds", "1", recipe=recipe) as ended:
        wait_for(Path("out", "arms", "full", "seed-1", "checkpoint-1").exists, ended)
    assert ended.returncode == 143
    Path("go").touch()
    compare("--seeds", "1", recipe=recipe)  # waits for a run that still went on
    assert log("full").read_text().split() == ["begins", "goes", "on"]


# ---- What is kept ----


def files(arm="full", seed=1):
    return sorted(path.name for path in Path("out", "arms", arm, f"seed-{seed}").iterdir())


def test_a_comparison_is_made_again_from_its_small_files(capsys):
    compare("--seeds", "2", "--keep", "all")
    assert files() == ["checkpoint-1", "model.safetensors", "predictions.json", "results.json"]
    compare("--seeds", "2", "--keep", "models")
    assert files() == ["model.safetensors", "predictions.json", "results.json"]
    compare("--seeds", "2", "--keep", "results")
    assert not Path("out", "arms").exists()
    assert Path("out", "runs.parquet").exists()
    names = ("comparison.json", "comparison.md", "comparison.html", "comparison.png")
    before = {name: Path("out", name).read_bytes() for name in names}
    for name in names:
        Path("out", name).unlink()
    assert command.main(["--output_dir", "out"]) == 0
    assert {name: Path("out", name).read_bytes() for name in names} == before
    assert command.main(["--output_dir", "out", "--margin", "90"]) == 0
    assert "same quality as full within 90" in Path("out", "comparison.md").read_text()
    assert set(begun().values()) == {1}


def test_runs_that_are_packed_are_not_run_again_and_more_are_added(capsys):
    """The number of epochs, too, is what the packed run of the full arm says."""
    compare(
        "--seeds", "1", "--arms", "infobatch", "--keep", "results", recipe=[]
    )  # 4 epochs, as the full arm's run says
    alone = compare("--seeds", "2", "--arms", "infobatch", "kakurenbo --share 1", recipe=[])
    assert "Arm kakurenbo pruned nothing with seed 1" in capsys.readouterr().err
    assert files("full", 2) == ["model.safetensors", "predictions.json", "results.json"]
    assert not Path("out", "arms", "full", "seed-1").exists() and set(begun().values()) == {1}
    packed = compare("--seeds", "2", "--arms", "infobatch", "kakurenbo --share 1", "--keep", "results", recipe=[])
    assert packed == alone and set(begun().values()) == {1} and not Path("out", "arms").exists()
    assert "Arm infobatch was run with `--policy infobatch`" in refused(capsys, FAKE, "--arms", "infobatch:ratio=0.3")


def test_a_folder_of_former_times_is_packed_without_the_recipe():
    found = compare("--seeds", "1")
    assert command.main(["--output_dir", "out", "--keep", "results"]) == 0
    assert not Path("out", "arms").exists() and Path("out", "runs.parquet").exists()
    assert json.loads(Path("out", "comparison.json").read_text()) == found


def test_runs_are_not_begun_where_they_can_not_be_packed(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert "runs.parquet needs pyarrow: pip install pyarrow" in refused(capsys, FAKE, "--keep", "results")
    assert not Path("out").exists()


# ---- For real ----


@pytest.mark.slow
def test_arms_of_a_seed_begin_with_the_same_weights_and_rows():
    """The losses of the first step, before any update, are those of one model on one batch."""
    corpus = Path("corpus.jsonl")
    words = ["one", "two", "three", "four"]
    lines = [{"en": f"{a} and {b}", "de": f"{b} und {a}"} for a in words for b in words]
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines * 2))
    recipe = f"--train_file {corpus} --validation_file {corpus} --vocab_size 300 --num_train_epochs 2 --max_length 16 "
    recipe += "--logging_steps 1 --report_to none --num_beams 1 --per_device_train_batch_size 8"
    flags = ["--arms", "infobatch --ratio 0.9", "--seeds", "1", "--jobs", "2", "--output_dir", "out"]
    script = str(ROOT / "recipes" / "translate.py")
    command = [sys.executable, str(ROOT / "recipes" / "compare.py"), script, *flags, "--", *recipe.split()]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(Path("out", "comparison.json").read_text())
    assert [arm["arm"] for arm in found["arms"]] == ["full", "short-50", "uniform-50", "infobatch"]
    positions = {arm["arm"]: arm["positions"]["trained"] for arm in found["arms"]}
    assert positions["short-50"] == pytest.approx(0.5 * positions["full"], rel=0.1)
    states = [Path("out", "arms", arm, "seed-1", "trainer_state.json") for arm in ("full", "short-50", "infobatch")]
    logs = [json.loads(path.read_text())["log_history"] for path in states]
    assert len({next(entry["loss"] for entry in log if "loss" in entry) for log in logs}) == 1
    assert len({entry["loss"] for entry in logs[0] if "loss" in entry}) > 1
    assert "same quality" in done.stdout or "no significant difference" in done.stdout or "than full" in done.stdout


# ---- Folders of others, and what is not to be told ----


def refused(capsys, *argv):
    with pytest.raises(SystemExit) as ended:
        command.main([*argv, "--output_dir", "out"])
    assert ended.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_a_folder_of_somebodys_leads_to_no_other(capsys):
    compare("--seeds", "1")
    victim = Path("victim", "seed-1")
    shutil.copytree(Path("out", "arms", "full", "seed-1"), victim)
    (victim / "README.md").write_text("### Baselines\n\nmine")
    plan = json.loads(Path("out", "command.json").read_text())
    plan["arms"]["../../victim"] = plan["arms"]["full"]
    Path("out", "command.json").write_text(json.dumps(plan))
    assert "'../../victim' is no name" in refused(capsys)
    del plan["arms"]["../../victim"]
    Path("out", "command.json").write_text(json.dumps(plan))
    shutil.rmtree(Path("out", "arms", "full"))
    Path("out", "arms", "full").symlink_to(Path("victim").absolute())
    assert command.main(["--output_dir", "out"]) == 0
    assert (victim / "README.md").read_text() == "### Baselines\n\nmine"


def test_seeds_without_number_are_refused_at_once(capsys):
    compare("--seeds", "1")
    plan = json.loads(Path("out", "command.json").read_text())
    Path("out", "command.json").write_text(json.dumps(plan | {"seeds": 1e9}))
    assert "seeds must be a whole number from 1 to" in refused(capsys)
    Path("out", "command.json").write_text(json.dumps(plan | {"seeds": 10**9}))
    assert "seeds must be a whole number from 1 to" in refused(capsys)


def test_a_margin_that_is_none_leaves_a_comparison_as_it_is(capsys):
    compare("--seeds", "1")
    plan = Path("out", "command.json").read_text()
    assert "--margin must be a number from 0" in refused(capsys, "--margin", "inf")
    assert Path("out", "command.json").read_text() == plan


@pytest.mark.parametrize("name", ["..", ".x"])
def test_an_arm_is_not_called_as_a_path_is(capsys, name):
    assert "is no" in refused(capsys, FAKE, "--arms", f"{name}=infobatch")


def test_a_secret_of_a_comparison_is_neither_kept_nor_told(capsys):
    flags = ["--num_train_epochs", "4", "--metric", "accuracy", "--api_key", "sesame"]
    arm = "infobatch --password sesame --fail 1"
    compare("--seeds", "1", "--arms", arm, recipe=flags, status=1)
    found = compare("--seeds", "1", "--arms", arm, recipe=[*flags[:-1], "poppy"], status=1)
    assert "sesame" not in json.dumps(found) and "poppy" not in json.dumps(found)
    compare("--seeds", "1", "--arms", "x=infobatch --password sesame", recipe=flags)
    said = capsys.readouterr()
    told = said.out + said.err + "".join(path.read_text() for path in Path("out").rglob("*.*") if path.is_file())
    assert "sesame" not in told and "--api_key KEY" in told and "--password PASSWORD" in told
    two = ["--arms", "infobatch --password sesame", "infobatch --password poppy"]
    message = refused(capsys, FAKE, *two)
    assert "Two arms are called infobatch" in message and "sesame" not in message and "poppy" not in message
    assert "sesame" not in refused(capsys, FAKE, "--arms", "infobatch --hub_token sesame")


def test_an_older_folder_with_a_secret_goes_on_and_forgets_it(capsys):
    flags = ["--num_train_epochs", "4", "--metric", "accuracy", "--api_key", "sesame"]
    compare("--seeds", "1", recipe=flags)
    path = Path("out", "command.json")
    plan = json.loads(path.read_text())
    path.write_text(json.dumps(plan | {"arguments": flags, "paths": None}))
    compare("--seeds", "1", recipe=flags)
    assert "sesame" not in path.read_text()
