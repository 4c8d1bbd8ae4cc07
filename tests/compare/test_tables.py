"""Runs side by side, and comparisons, of numbers worked by hand."""

import json
import shutil

import pytest
from compared import ARMS, changed

from hf_prune.cli import main as hf_prune
from hf_prune.compare.page import write
from hf_prune.compare.plan import Arm
from hf_prune.compare.tables import comparisons_table, find, regimes_table, table
from hf_prune.compare.verdict import Comparison

HEADINGS = ["run", "policy", "epochs", "trained", "of offered", "forward alone", "steps", "seconds", "quality"]


def run_of(tokens: int = 900_000, quality: tuple[str, float | None] = ("bleu", 29.518)) -> dict:
    """4.8 passes over 500 rows, of which half were trained; 12.5 seconds."""
    totals = {"rows": 1200, "rows_offered": 2400, "rows_rescored": 60, "optimizer_steps": 1050}
    totals |= {"tokens": tokens, "tokens_offered": 2 * tokens, "padded_tokens": 1.2 * tokens}
    totals |= {"padding": 1 / 6 if tokens else None}
    return {
        "policy": "Uniform(keep=0.5)",
        "pruning": {"training_rows": 500, "totals": totals},
        "seconds": {"reading": 1.25, "training": 10.0, "testing": 1.25},
        "quality": dict(zip(("metric", "value"), quality, strict=True)),
    }


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]


def test_runs_side_by_side(tmp_path, capsys):
    """A folder goes by its name, another file by its own."""
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "results.json").write_text(json.dumps(run_of()))
    (tmp_path / "pictures.json").write_text(json.dumps(run_of(0, ("accuracy", 0.98765))))
    (tmp_path / "stock.json").write_text(json.dumps(run_of() | {"policy": None, "pruning": None}))
    (tmp_path / "broken.json").write_text(json.dumps(run_of(quality=("loss", None))))
    paths = [tmp_path / "words", *(tmp_path / f"{name}.json" for name in ("pictures", "stock", "broken"))]
    headings, _, *lines = cells(table(paths))
    assert headings == HEADINGS
    words = ["`Uniform(keep=0.5)`", "4.8", "900,000 tokens", "50.0 %", "60 rows", "1,050", "12"]
    assert lines[0] == ["words", *words, "BLEU: 29.52"]
    pictures = ["`Uniform(keep=0.5)`", "4.8", "1,200 rows", "50.0 %", "60 rows", "1,050", "12"]
    assert lines[1] == ["pictures", *pictures, "accuracy in %: 98.77"]
    assert lines[2] == ["stock", "none", *[""] * 5, "12", "BLEU: 29.52"]
    assert lines[3] == ["broken", *words, "loss in nats: diverged"]
    assert hf_prune(["table", *map(str, paths)]) == 0
    assert capsys.readouterr().out.strip() == table(paths)


@pytest.mark.parametrize("content", ["", "[]", '{"scores": {}}'])
def test_a_file_of_other_content_is_named(tmp_path, content):
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(ValueError, match="other.json is no results.json of a recipe"):
        table([tmp_path / "other.json"])


def test_a_folder_without_a_run_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        hf_prune(["table", str(tmp_path)])
    assert "there is no results.json of a run that has ended, and no comparison.json" in capsys.readouterr().err


def test_runs_and_comparisons_do_not_go_together(tmp_path):
    (tmp_path / "comparison.json").write_text("{}")
    (tmp_path / "run.json").write_text("{}")
    assert find(tmp_path) == tmp_path / "comparison.json"
    with pytest.raises(ValueError, match="give runs or comparisons, not both"):
        table([tmp_path, tmp_path / "run.json"])


# ---- Comparisons ----


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


def test_the_best_rule_has_a_line(compare, tmp_path):
    """`infobatch` loses 5 points to fewer epochs and `same` 10; the oracle and random rows are no rules."""
    arms = ARMS | {name: Arm(("--policy", "mine"), "policy") for name in ("same", "alone")}
    arms |= {"oracle": Arm(("--policy", "mine"), "oracle")}
    accuracies = {"full": 0.9, "short-50": 0.8, "infobatch": 0.75, "same": 0.7, "alone": 0.95, "oracle": 0.99}
    tokens = {"full": 2000, "short-50": 1000, "infobatch": 1000, "same": 1000, "alone": 300, "oracle": 1000}
    compare({arm: [share, share + 0.01] for arm, share in accuracies.items()}, arms=arms, tokens=tokens)
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps(Comparison.load(tmp_path).to_dict()))
    heading, _, line = cells(regimes_table([path]))
    assert line[1:6] == ["accuracy in %", "90.50", "80.50", "`infobatch`: 75.50", "50 %"]
    assert line[6].startswith("-5.00 (-") and heading[6] == "rule less fewer epochs"


@pytest.mark.parametrize("make", [comparisons_table, regimes_table])
@pytest.mark.parametrize("content", ["", "[]", '{"arms": [{}]}'])
def test_a_file_that_is_no_comparison_is_named(tmp_path, content, make):
    (tmp_path / "comparison.json").write_text(content)
    with pytest.raises(ValueError, match="comparison.json is no comparison.json of `hf-prune compare`"):
        make([tmp_path / "comparison.json"])


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
