"""Runs side by side, of numbers worked by hand."""

import json

import pytest

from hf_prune.cli import main as hf_prune
from hf_prune.compare.tables import find, table

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
