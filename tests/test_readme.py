"""What the pages say is so: code runs, tables and numbers are what the files give, links lead somewhere."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from recipe_runs import load
from transformers import TrainingArguments

from hf_prune import Clock, History, policies
from hf_prune.compare import command
from hf_prune.compare.tables import comparisons_table, regimes_table, runs_table
from hf_prune.policies import make, names
from hf_prune.recipe.splits import CommonArguments
from hf_prune.report.audit import FIRST_WRONG

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "recipes" / "results"
PAGES = {
    name: ROOT / path
    for name, path in {
        "readme": "README.md",
        "recipes": "recipes/README.md",
        "results": "recipes/results/README.md",
        "policies": "hf_prune/policies/README.md",
        "trainer": "hf_prune/train/README.md",
        "contributing": ".github/CONTRIBUTING.md",
        "changelog": "hf_prune/CHANGELOG.md",
    }.items()
}
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in PAGES.items()}
PLAIN = {name: " ".join(text.split()) for name, text in TEXTS.items()}
WORDS = 1600  # of the README, code and tables included
HEADINGS = ["Three lines", "Install", "What it gives", "Find wrong labels", "Which rule, and when none", "Two commands"]
HEADINGS += ["Links"]


def marked(page: str, name: str) -> str:
    """What stands between the two marks called `name` on a page."""
    (found,) = re.findall(rf"<!-- {name} -->\n(.*?)\n<!-- end of {name} -->", TEXTS[page], re.DOTALL)
    return found


def result(name: str):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


# ---- The README's form ----


def test_the_readme_is_short_and_in_order():
    assert len(TEXTS["readme"].split()) <= WORDS
    beginning, *sections = re.split(r"^## ", re.sub(r"```.*?```", "", TEXTS["readme"], flags=re.DOTALL), flags=re.M)
    assert beginning.count("![") == 1 and TEXTS["readme"].count("![") == 2
    headings = [section.partition("\n")[0] for section in sections]
    assert headings == HEADINGS


def test_the_top_of_the_repository_is_short():
    listed = subprocess.run(["git", "ls-tree", "--name-only", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    names = {name for name in listed.stdout.split() if not name.startswith(".")}
    assert names <= {"LICENSE", "README.md", "hf_prune", "pyproject.toml", "recipes", "tests"}


def test_the_script_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", TEXTS["readme"], re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    trained, offered = re.findall(r"\| rows \| ([\d,]+) \| ([\d,]+) \|", capsys.readouterr().out)[0]
    assert int(trained.replace(",", "")) < int(offered.replace(",", "")) == 2400


def test_the_picture_is_drawn_from_its_file():
    picture = load("benchmarks/picture")
    link, terminal = re.findall(r"!\[.*?\]\((.*?)\)", TEXTS["readme"])
    assert "hf-prune" in (ROOT / terminal).read_text(encoding="utf-8")  # made by benchmarks/terminal.py
    committed = ROOT / link
    assert committed == picture.MEASURED.with_suffix(".svg")
    fresh = picture.svg(picture.draw(result("label_noise")))
    texts_of = re.compile(r"<text.*?>(.*?)</text>")
    assert texts_of.findall(committed.read_text(encoding="utf-8")) == texts_of.findall(fresh)
    assert len(texts_of.findall(fresh)) > 15


# ---- Policies ----


def test_the_page_of_the_policies_is_up_to_date():
    command = "hf-prune policies --markdown > hf_prune/policies/README.md"
    assert TEXTS["policies"] == policies.markdown() + "\n", f"Make it anew: {command}"
    assert re.findall(r"^## (\w+)$", TEXTS["policies"].partition("## All policies")[2], re.MULTILINE) == names()


def test_the_command_prints_that_page():
    command = [sys.executable, "-m", "hf_prune.cli", "policies", "--markdown"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=ROOT, check=True)
    assert done.stdout == TEXTS["policies"]


def test_the_policy_that_the_page_writes_works(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?class Hardest.*?)```", TEXTS["policies"], re.DOTALL)
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "hardest.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_package", raising=False)
    policy = make("my_package.hardest:keep=0.5")
    history = History.empty(8)  # rows 0 and 5 never seen, then the two largest losses
    history.record(np.array([1, 2, 3, 4, 6, 7]), np.array([0.2, 0.3, 0.4, 1.0, 3.0, 5.0], np.float32), 0)
    chosen = policy.select(history, Clock(1, 1, 4, 0.25), np.random.default_rng(0)).check(8)
    assert set(chosen.rows.tolist()) == {0, 5, 6, 7}


def test_the_policies_that_the_readme_advises_exist():
    table = TEXTS["readme"].partition("| situation |")[2].partition("\n\n")[0]
    advised = [name for line in table.splitlines()[2:] for name in re.findall(r"`(\w+)[`:]", line.split("|")[2])]
    assert len(advised) > 12
    assert set(advised) - {"max_steps", "scaled_learning_rate"} <= set(names())


def test_the_policies_docstring_says_where_a_round_takes_long():
    shares = {name: measured["overhead"] for name, measured in result("scale")["policies"].items()}
    slow = {name: f"{100 * share:.2f}" for name, share in shares.items() if share > 0.001}
    assert dict(re.findall(r"^    (\w+) +([\d.]+) %$", policies.__doc__, re.MULTILINE)) == slow
    assert max(shares, key=shares.get) == "stale_sb"


# ---- Commands ----

RECIPES = ("translate", "image_classification", "text_classification", "instruct")
SAID = [*TEXTS.values(), command.__doc__, *(load(name).__doc__ for name in (*RECIPES, "compare"))]
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


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_without_arguments_takes_as_long_as_its_recipe_says(name):
    (minutes,) = re.findall(r"under\s(two|three)\sminutes\son\stwo\sCPU\s+cores", load(name).__doc__)
    found = result(f"embedded/{name}")
    assert sum(found["seconds"].values()) < 60 * {"two": 2, "three": 3}[minutes]


# ---- Tables ----


def test_the_runs_without_arguments_are_what_their_files_give():
    files = [RESULTS / "embedded" / f"{name}{end}.json" for name in RECIPES for end in ("", "-all")]
    assert marked("recipes", "runs") == runs_table(files)
    assert sorted(files) == sorted((RESULTS / "embedded").iterdir())


def test_the_comparisons_are_what_their_files_give(monkeypatch):
    monkeypatch.chdir(ROOT / "recipes")
    assert marked("recipes", "comparisons") == comparisons_table(sorted(Path("results").glob("*/comparison.json")))


COMPARISONS = {path.parent.name: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*/comparison.json"))}


def test_the_best_rules_are_what_the_files_give(monkeypatch):
    monkeypatch.chdir(ROOT)
    shown = (
        "noisy_digits",
        "misaligned_pairs",
        "copied_cifar10",
        "rare_cifar10",
        "cifar10n_worse",
        "multi30k",
        "sst2-3",
    )
    files = [Path("recipes", "results", name, "comparison.json") for name in shown]
    assert marked("readme", "regimes") == regimes_table(files)


def test_how_often_a_rule_beats_fewer_epochs_is_counted():
    better, worse, total = set(), 0, 0
    for name, found in COMPARISONS.items():
        sign = 1 if found["quality"]["greater_is_better"] else -1
        rivals = {arm["arm"]: arm["differences"]["short"] for arm in found["arms"] if arm["kind"] == "policy"}
        for arm, rival in rivals.items():
            if rival:
                total += 1
                better |= {(name, arm)} if min(sign * rival["low"], sign * rival["high"]) > 0 else set()
                worse += max(sign * rival["low"], sign * rival["high"]) < 0
    faulty = {"noisy_digits", "misaligned_pairs", "copied_cifar10", "copied_pairs", "rare_cifar10"}
    assert {name for name, _ in better} == faulty
    said = f"Of {total} comparisons on {len(COMPARISONS)} data sets, {len(better)} are significantly better, all with "
    assert f"{said}wrong labels, rare classes or copied rows, and {worse} are significantly worse." in PLAIN["readme"]


def test_what_the_comparisons_tell_in_short():
    arms = {name: {arm["arm"]: arm["differences"] for arm in found["arms"]} for name, found in COMPARISONS.items()}
    random = arms["digits"]["infobatch"]["uniform"]
    assert random["to"] == "uniform-60" and random["high"] < 0
    text = PLAIN["recipes"]
    assert f"`infobatch` is {-random['mean']:.1f} points worse than 60 % of the rows at random" in text
    worst = max(-arms["cifar10n"][f"ucb-{budget}"]["short"]["mean"] for budget in (30, 50, 70))
    assert f"train wrong labels: up to {worst:.0f} points worse than fewer epochs" in text
    quarter = arms["cifar10n"]["infobatch"]["full"]
    assert quarter["low"] < 0 < quarter["high"] and round(100 * quarter["saved"]) == 24  # a quarter
    few = [full for name in ("sst2-1", "sst2-2", "sst2-3") for arm in arms[name].values() if (full := arm["full"])]
    assert all(full["low"] <= 0 <= full["high"] for full in few)
    assert f"(intervals up to {max(max(-full['low'], full['high']) for full in few):.0f} points)" in text
    for name in ("cifar10", "multi30k", "tatoeba", "dolly"):
        sign = 1 if COMPARISONS[name]["quality"]["greater_is_better"] else -1
        rules = [arm for arm in COMPARISONS[name]["arms"] if arm["kind"] == "policy"]
        for full in (rule["differences"]["full"] for rule in rules):
            assert full["saved"] < 0.1 or max(sign * full["low"], sign * full["high"]) < 0, name


@pytest.mark.parametrize(
    "name", ["selection", "scale", "gather", "label_noise", "padding", "advice", "duplicates", "sweep"]
)
def test_a_benchmarks_table_is_what_its_file_gives(name):
    assert marked("results", name) == load(f"benchmarks/{name}").table(result(name))


def test_the_evidence_that_comes_with_the_package_is_what_the_comparisons_give():
    evidence = load("benchmarks/evidence")
    assert evidence.EVIDENCE.read_text(encoding="utf-8") == evidence.text_of(evidence.collect(RESULTS))


# ---- Numbers ----


def test_the_benchmark_says_what_its_file_says():
    found = result("steps")
    cost, fall = found["overhead"], found["tokens"]
    text = PLAIN["results"]
    assert f"takes {cost['ratio']:.3f} of a stock step (median of {cost['pairs']} neighbouring pairs" in text
    assert "quartiles {:.3f} and {:.3f}".format(*cost["ratio_quartiles"]) in text
    assert f"{percent(fall['ratio_of_tokens'], 1)} of the tokens take" in text
    assert f"{percent(fall['ratio_of_seconds'], 1)} of the seconds" in text
    beside = found["assistant"]
    assert f"thread takes {beside['ratio']:.3f} of one without (median of {beside['pairs']} pairs of runs" in text
    assert "quartiles {:.3f} and {:.3f}".format(*beside["ratio_quartiles"]) in text
    assert f"takes {cost['ratio']:.3f} of a `Trainer` step" in PLAIN["readme"]
    shares = (percent(fall[f"ratio_of_{part}"], 1) for part in ("tokens", "seconds"))
    assert "{} of the tokens take {} of the seconds".format(*shares) in PLAIN["readme"]


def test_the_audit_tells_how_many_of_the_first_rows_were_wrong():
    found = json.loads((RESULTS / "audit.json").read_text(encoding="utf-8"))["found"]
    runs = [run for lengths in found.values() for runs in lengths.values() for run in runs]
    first = [100 * run["precision"]["1%"]["hf_prune"] for run in runs if run["judgement"] == "none"]
    assert (int(min(first)), int(max(first))) == FIRST_WRONG
    assert (round(100 * min(run["wrong"] for run in runs)), round(100 * max(run["wrong"] for run in runs))) == (9, 50)


def test_the_label_audit_is_what_its_file_says():
    runs = result("label_noise")["runs"]
    ours, theirs = (np.mean([run["precision"]["1%"][name] for run in runs]) for name in ("hf_prune", "cleanlab"))
    text = PLAIN["readme"]
    assert f"CIFAR-10 with people's labels, {percent(runs[0]['wrong'], 1)} of them wrong" in text
    assert f"of the first 1 % of rows that a run flags, {percent(ours, 1)} have a wrong label" in text
    assert f"(cleanlab on the same run: {percent(theirs, 1)})" in text


def test_the_pages_say_what_padding_costs():
    found = result("padding")
    shares = found["positions"]["multi30k"]["32"]
    ours, random = (percent(shares[order]) for order in ("ours", "random"))
    fewer = percent(1 - shares["random"] / shares["ours"])
    assert f"{ours} of the computed positions are real tokens, in place of {random}" in PLAIN["readme"]
    assert f"need {fewer} fewer positions" in PLAIN["readme"]
    said = f"{ours} of the positions that the model computes are then real tokens, in place of {random}: {fewer} fewer"
    assert said in PLAIN["recipes"]
    means = [f"{np.mean(found['sizes']['embedded, 32'][size]['values']):.1f}" for size in ("8", "50", "100")]
    assert "{} BLEU with 8 batches in a mega-batch, {} with 50, {} with 100".format(*means) in PLAIN["results"]
    longer = found["longer"]["tatoeba"]
    mean = np.mean(longer["values"])
    assert f"reaches {mean:.1f} BLEU in place of {mean - longer['difference']:.1f}" in PLAIN["recipes"]


def test_the_assistants_cost_is_what_its_file_says():
    assistant = result("selection")["policies"]["autoassist"]
    rows = assistant["rows_a_round"]
    scoring, learning = assistant["select"] / rows, assistant["update"] / (assistant["kept"] * rows)
    said = f"scores a row in {1e6 * scoring:.2f} µs and learns from one in {1e6 * learning:.1f} µs"
    assert said in TEXTS["results"]


def test_the_kills_are_what_their_file_says():
    found = json.loads((ROOT / "tests" / "results" / "stress.json").read_text())
    kills, differences = found["kills"], len(found["differences"])
    assert f"of {kills} kills, {differences} left a difference" in PLAIN["trainer"]
    processes = sorted(map(int, found["by_processes"]))
    said = f"{kills} kills at random moments, on {processes[0]} to {processes[-1]} processes: {differences} changed"
    assert said in PLAIN["readme"]


def test_the_oldest_versions_are_the_same_everywhere():
    places = [ROOT / ".ci" / "run", PAGES["contributing"], ROOT / "tests" / "support" / "floor.py"]
    pins = [dict(re.findall(r"(torch|transformers|accelerate)==([\d.]+)", path.read_text())) for path in places]
    assert pins[0] == pins[1] == pins[2] and len(pins[0]) == 3
    floors = dict(re.findall(r'"(\w+)>=([\d.]+)', (ROOT / "pyproject.toml").read_text()))
    for package, pin in pins[0].items():
        assert f"{pin}.0".startswith(floors[package])
        assert f"{package} {floors[package]}" in PLAIN["readme"]


# ---- Links ----


def anchors(text: str) -> set[str]:
    """Those that GitHub gives to the headings of `text`."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_every_link_and_path_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!http)([^)]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link
    if page.name == "CHANGELOG.md":
        return  # names what is no more
    for path in re.findall(r"(?:recipes|tests|hf_prune)/[\w/]+\.(?:py|json|yaml)\b", text):
        assert (ROOT / path).exists() or path.endswith("my_rule.py"), path  # that is to be written
    for path in re.findall(r"`((?:train|measure|records|report|compare|recipe|common)/\w+\.py)`", text):
        assert (ROOT / "hf_prune" / path).exists(), path
