"""The notebook runs from top to bottom, in a folder of its own, and holds no output."""

import json
import re

import pytest
from recipe_runs import ROOT

NOTEBOOK = ROOT / "recipes" / "audit.ipynb"


@pytest.fixture(scope="module")
def cells():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def test_no_output_is_committed(cells):
    assert not [cell["id"] for cell in cells if cell.get("outputs") or cell.get("execution_count")]
    assert len({cell["id"] for cell in cells}) == len(cells)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_finds_wrong_labels_leaves_them_out_and_trains_again(cells, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    names = {"__name__": "__main__"}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    said = capsys.readouterr().out
    found, all_rows = map(int, re.search(r"(\d+) % of the first 50 rows .* (\d+) % of all rows", said).groups())
    assert found > 10 * all_rows > 0
    left_out = int(re.search(r"A list left out (\d+) of 1,500 rows", said)[1])
    assert left_out == 40 and names["second"].pruning_report().totals()["rows"] == 6 * (1500 - left_out)
    assert names["after"] > 0.7
