"""The `hf-prune` command."""

import inspect
import platform
import re
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import hf_prune.policies as registry
from hf_prune import cli
from hf_prune.cli import main


def test_listing_of_policies(capsys):
    assert main(["policies"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == registry.names()
    assert lines[lines.index("infobatch") + 1].strip() == inspect.getdoc(registry.infobatch).splitlines()[0]
    assert lines[lines.index("infobatch") + 2].strip() == "needs: loss"
    assert lines[lines.index("uniform") + 2].strip() == "needs: nothing"
    assert lines[lines.index("el2n") + 2].strip() == "needs: an earlier run's history"


def test_card_of_a_policy(capsys):
    assert main(["policies", "infobatch"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(inspect.getdoc(registry.infobatch))
    assert re.search(r"--ratio 0\.5 +r, share of the below-mean rows", text)


def test_card_of_a_module_of_the_users_own(tmp_path, monkeypatch, capsys):
    (tmp_path / "rules_of_mine.py").write_text(
        '"""Mine: the first rows."""\n'
        "from dataclasses import dataclass\n"
        "from hf_prune import Policy, Selection\n"
        "@dataclass(frozen=True)\n"
        "class First(Policy):\n"
        '    """Keep the first rows.\n\n    Args:\n        many: How many, 10% say.\n    """\n'
        "    many: int\n"
        "    def select(self, history, clock, rng):\n"
        "        return Selection(range(self.many))\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["policies", "rules_of_mine.First"]) == 0
    printed = capsys.readouterr().out
    assert printed == "Mine: the first rows.\n\nFlags and their defaults\n  --many  How many, 10% say.\n"


def test_card_of_an_unknown_policy(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["policies", "infobach"])
    assert caught.value.code == 2
    assert "Did you mean 'infobatch'?" in capsys.readouterr().err


# ---- hf-prune score ----


def test_score_hands_on_what_it_is_given(monkeypatch, capsys):
    monkeypatch.setattr("hf_prune.compare.score.make_scores", lambda *given: str(given))
    assert main(["score", "--policy", "el2n", "--", "train.py", "--seeds", "9", "--", "x"]) == 0
    assert capsys.readouterr().out == "('el2n', ['train.py', '--seeds', '9', '--', 'x'], 'scores', 3, None, 'python')\n"
    flags = ["--seeds", "5", "--output_dir", "here", "--num_train_epochs", "0.5", "--launcher", "accelerate"]
    assert main(["score", "--policy", "grand", *flags, "--", "train.py"]) == 0
    assert capsys.readouterr().out == "('grand', ['train.py'], 'here', 5, 0.5, 'accelerate')\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--policy", "el2n"], "There is no script: put it and its arguments after --"),
        (["--policy", "el2n", "--"], "There is no script: put it and its arguments after --"),
        (["--policy", "el2n", "train.py"], "unrecognized arguments: train.py"),
        (["--policy", "el2n", "--", "no/such.py"], "There is no script 'no/such.py'"),
        (["--policy", "el2n", "--seeds", "0", "--", "x"], "--seeds 0"),
        (["--policy", "uniform", "--", "x"], "--policy uniform chooses anew in every round"),
        (["--policy", "grant", "--", "x"], "Did you mean 'grand'"),
        (["--", "x"], "one of the arguments --policy --model is required"),
    ],
)
def test_score_refuses(argv, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["score", *argv])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_failed_run_is_told_without_a_trace(tmp_path, capsys):
    script = tmp_path / "train.py"
    script.write_text("raise RuntimeError('no rows')")
    assert main(["score", "--policy", "el2n", "--output_dir", str(tmp_path / "scores"), "--", str(script)]) == 1
    assert re.search("RuntimeError: no rows\n`.*` failed with status 1: fix the script", capsys.readouterr().err)


def test_score_explains_itself(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["score", "--help"])
    assert caught.value.code == 0
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "usage: hf-prune score --policy NAME [--FLAG VALUE ...] -- SCRIPT [ARG ...]" in text
    assert "folder of the runs and of the scores (default: scores)" in text


# ---- hf-prune compare ----


def test_compare_is_what_the_recipe_of_its_name_runs(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["compare", "--help"])
    assert caught.value.code == 0
    assert "usage: hf-prune compare [SCRIPT] [--arms ARM ...]" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        main(["compare", "--", "--bf16", "True"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "hf-prune compare: error: The recipe comes first: hf-prune compare RECIPE --arms ARM ... -- ARG ...\n"
    )


# ---- What it runs on ----


def test_the_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"hf_prune {version('hf_prune')}\n"


def test_the_environment_for_an_issue(monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert main(["env"]) == 0
    text = capsys.readouterr().out
    found = dict(line.removeprefix("- ").split(": ", 1) for line in text.splitlines())
    packages = ("hf_prune", "transformers", "torch", "accelerate", "datasets", "trl", "peft", "numpy")
    assert {name: found[name] for name in packages} == {name: version(name) for name in packages}
    assert found["python"] == platform.python_version() and found["platform"] and found["devices"]
    assert "hf_secret" not in text and str(Path.home()) not in text and str(Path.cwd()) not in text


def test_a_package_that_is_missing_is_told():
    assert cli._installed("no-such-package") == "not installed"


@pytest.mark.parametrize("argv", [[], ["policies"], ["compare"], ["score"], ["table"], ["report"], ["advise"], ["env"]])
def test_help_shows_no_doubled_percent(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*argv, "--help"])
    assert caught.value.code == 0
    assert "%%" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("argv", [[], ["compare"], ["score"]])
def test_help_does_not_wait_for_large_libraries(argv):
    code = f"import sys; from hf_prune.cli import main\ntry: main({[*argv, '--help']})\nexcept SystemExit: pass\n"
    code += "print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "hf_prune" in loaded
    assert not loaded & {"torch", "transformers", "accelerate", "datasets", "jinja2", "matplotlib", "pyarrow"}


@pytest.mark.parametrize(
    "argv",
    [
        ["report", "nowhere"],
        ["advise", "nowhere"],
        ["table", "nowhere"],
        ["policies", "./mine.py"],
        ["report", __file__],
        ["none"],
        [],
    ],
)
def test_a_mistake_is_told_in_one_line(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("hf-prune: error: ") and said.count("\n") == 1


def test_ctrl_c_ends_in_a_line(monkeypatch, capsys):
    def interrupt(*given):
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("hf_prune.compare.tables.table", interrupt)
    monkeypatch.setattr("sys.argv", ["/usr/bin/hf-prune", "table", "runs"])
    with pytest.raises(SystemExit) as caught:
        main(["table", "runs"])
    signal.signal(signal.SIGINT, before)
    assert caught.value.code == 130
    assert capsys.readouterr().err == (
        "\nhf-prune: interrupted. What has ended is kept; this goes on: hf-prune table runs\n"
    )
