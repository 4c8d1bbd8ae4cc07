"""The benchmarks run, at a small size: a new rule, or a new check in training, must not break them."""

import json
import subprocess
import sys

import pytest
from recipe_runs import ROOT, environment

from hf_prune import policies

SMALL = {
    "steps": "--pairs 2 --epochs 1 --hidden 64 --layers 1",
    "selection": "--rows 3000 --text_rows 500 --rounds 2",
    "scale": "--rows 3000 --policies uniform infobatch trusted",
    "gather": "--rows 1000 --repeats 1",
    "duplicates": "--texts 300 --pictures 100",
}


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", SMALL)
def test_it_runs(name, tmp_path):
    script = [sys.executable, str(ROOT / "recipes" / "benchmarks" / f"{name}.py"), "--output", str(tmp_path)]
    more = environment() | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*script, *SMALL[name].split()], cwd=tmp_path, env=more, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
    assert found["versions"] and found["commit"]
    if name == "selection":
        rules = {rule for rule in policies.names() if "columns" not in policies.find(rule)().needs}
        assert set(found["policies"]) == rules >= {"trim", "trusted", "tail"}
