"""What the README and that of the results say is so: code runs, tables are what the files of the results give."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from recipe_runs import load
from transformers import TrainingArguments

from hf_prune import Clock, History, policies
from hf_prune.compare import command
from hf_prune.compare.tables import comparisons_table, runs_table
from hf_prune.policies import make, names
from hf_prune.recipe.splits import CommonArguments

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "recipes" / "results"
README = (ROOT / "README.md").read_text(encoding="utf-8")
MEASURED = (RESULTS / "README.md").read_text(encoding="utf-8")


def test_the_policy_that_the_readme_writes_works(tmp_path, monkeypatch):
    code, *_ = re.findall(r"```python\n(.*?class Hardest.*?)```", README, re.DOTALL)
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "hardest.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_package", raising=False)
    policy = make("my_package.hardest:keep=0.5")
    history = History.empty(8)  # rows 0 and 5 never seen, then the two largest losses
    history.record(np.array([1, 2, 3, 4, 6, 7]), np.array([0.2, 0.3, 0.4, 1.0, 3.0, 5.0], np.float32), 0)
    chosen = policy.select(history, Clock(1, 1, 4, 0.25), np.random.default_rng(0)).check(8)
    assert set(chosen.rows.tolist()) == {0, 5, 6, 7}


def test_every_policy_stands_in_the_table():
    table = README.partition("| policy | what it trains on")[2].partition("A policy is a name")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == names()


RECIPES = ("translate", "image_classification", "text_classification", "instruct")
SAID = [README, MEASURED, command.__doc__, *(load(name).__doc__ for name in (*RECIPES, "compare"))]
CALLS = [
    (name, before, flags)
    for text in SAID
    for before, name, flags in re.findall(
        rf"([^\n]*)recipes/({'|'.join(RECIPES)})\.py((?: [^\n`]*--\w+[^\n`]*)+)", text.replace("\\\n", " ")
    )
]


@pytest.mark.parametrize(("name", "before", "flags"), CALLS)
def test_flags_of_the_commands_are_those_of_the_recipes(name, before, flags):
    recipe = vars(load(name))
    args = [type_ for type_ in recipe.values() if isinstance(type_, type) and issubclass(type_, TrainingArguments)]
    types = [CommonArguments, recipe["RecipeArguments"], *args, *map(policies.find, names())]
    known = {field.name for type_ in types for field in dataclasses.fields(type_)} | {"policy"}
    if "compare" in before:
        known |= set(vars(command.read_arguments([])[0]))
    assert set(re.findall(r"--(\w+)", flags)) <= known


def test_commands_are_found():
    assert {name for name, _, _ in CALLS} == set(RECIPES) and len(CALLS) > 8


def test_the_runs_without_arguments_are_what_their_files_give():
    (found,) = re.findall(r"<!-- runs -->\n(.*?)\n<!-- end of runs -->", README, re.DOTALL)
    files = [RESULTS / "embedded" / f"{name}{end}.json" for name in RECIPES for end in ("", "-all")]
    assert found == runs_table(files)
    assert sorted(files) == sorted((RESULTS / "embedded").iterdir())


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_without_arguments_takes_as_long_as_its_recipe_says(name):
    (minutes,) = re.findall(r"under\s(two|three)\sminutes\son\stwo\sCPU\s+cores", load(name).__doc__)
    found = json.loads((RESULTS / "embedded" / f"{name}.json").read_text())
    assert sum(found["seconds"].values()) < 60 * {"two": 2, "three": 3}[minutes]


def test_the_comparisons_are_what_their_files_give(monkeypatch):
    monkeypatch.chdir(ROOT)
    (found,) = re.findall(r"<!-- comparisons -->\n(.*?)\n<!-- end of comparisons -->", README, re.DOTALL)
    assert found == comparisons_table(sorted(Path("recipes", "results").glob("*/comparison.json")))


def test_the_benchmark_says_what_its_file_says():
    found = json.loads((RESULTS / "steps.json").read_text())
    cost, fall = found["overhead"], found["tokens"]
    text = " ".join(MEASURED.split())
    assert f"takes {cost['ratio']:.3f} of a stock step (median of {cost['pairs']} neighbouring pairs" in text
    assert "quartiles {:.3f} and {:.3f}".format(*cost["ratio_quartiles"]) in text
    assert f"{fall['ratio_of_tokens']:.1%}".replace("%", " %") + " of the tokens take" in text
    assert f"{fall['ratio_of_seconds']:.1%}".replace("%", " %") + " of the seconds" in text
    beside = found["assistant"]
    assert f"thread takes {beside['ratio']:.3f} of one without (median of {beside['pairs']} pairs of runs" in text
    assert "quartiles {:.3f} and {:.3f}".format(*beside["ratio_quartiles"]) in text


@pytest.mark.parametrize("name", ["selection", "scale", "gather", "label_noise", "padding"])
def test_a_benchmarks_table_is_what_its_file_gives(name):
    found = json.loads((RESULTS / f"{name}.json").read_text())
    (table,) = re.findall(rf"<!-- {name} -->\n(.*?)\n<!-- end of {name} -->", MEASURED, re.DOTALL)
    assert table == load(f"benchmarks/{name}").table(found)


def test_the_readme_says_what_padding_costs():
    shares = json.loads((RESULTS / "padding.json").read_text())["positions"]["multi30k"]["32"]
    text = " ".join(README.split())
    ours, random = (f"{100 * shares[order]:.0f} %" for order in ("ours", "random"))
    assert f"{ours} of the positions that the model computes are real tokens, and not {random}" in text
    assert f"{100 * (1 - shares['random'] / shares['ours']):.0f} % fewer positions for the same rows" in text
    sizes = json.loads((RESULTS / "padding.json").read_text())["sizes"]["embedded, 32"]
    means = [f"{np.mean(sizes[size]['values']):.1f}" for size in ("8", "50", "100")]
    measured = " ".join(MEASURED.split())
    assert "{} BLEU with 8 batches in a mega-batch, {} with 50, {} with 100".format(*means) in measured
    longer = json.loads((RESULTS / "padding.json").read_text())["longer"]["tatoeba"]
    mean = np.mean(longer["values"])
    assert f"comes to {mean:.1f} BLEU and not {mean - longer['difference']:.1f}" in text


def test_the_policies_docstring_says_where_a_round_takes_long():
    found = json.loads((RESULTS / "scale.json").read_text())["policies"]
    shares = {name: measured["overhead"] for name, measured in found.items()}
    slow = {name: f"{100 * share:.2f}" for name, share in shares.items() if share > 0.001}
    assert dict(re.findall(r"^    (\w+) +([\d.]+) %$", policies.__doc__, re.MULTILINE)) == slow
    assert max(shares, key=shares.get) == "stale_sb"


def test_the_assistants_cost_is_what_its_file_says():
    found = json.loads((RESULTS / "selection.json").read_text())
    assistant = found["policies"]["autoassist"]
    rows = assistant["rows_a_round"]
    scoring, learning = assistant["select"] / rows, assistant["update"] / (assistant["kept"] * rows)
    assert f"scores a row in {1e6 * scoring:.2f} µs and learns from one in {1e6 * learning:.1f} µs" in MEASURED


def test_the_kills_are_what_their_file_says():
    found = json.loads((ROOT / "tests" / "results" / "stress.json").read_text())
    assert f"of {found['kills']} kills, {len(found['differences'])} left a difference" in " ".join(README.split())


def test_the_readmes_summary_is_what_the_files_say():
    found = json.loads((RESULTS / "steps.json").read_text())
    cost, fall = found["overhead"]["ratio"], found["tokens"]
    shares = (f"{fall[f'ratio_of_{part}']:.1%}".replace("%", " %") for part in ("tokens", "seconds"))
    text = " ".join(README.split())
    assert "takes {:.3f} of a stock step, and {} of the tokens take {} of the seconds".format(cost, *shares) in text
    ours, theirs = re.findall(r"first 1 % \| ([\d.]+ %).*?\| ([\d.]+ %)", MEASURED)[0]
    assert f"first 1 % on people's labels of CIFAR-10, {ours} have a wrong one" in text
    assert f"(cleanlab's ranking from the same run: {theirs})" in text


def anchors(text: str) -> set[str]:
    """Those that GitHub gives to the headings of `text`."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [ROOT / "README.md", RESULTS / "README.md"], ids=["readme", "results"])
def test_every_link_and_command_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!http)([^)]+)\)", text):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link
    for script in re.findall(r"(recipes/[\w/]+\.py)", text):
        assert (ROOT / script).exists(), script
