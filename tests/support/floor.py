"""Run the suites that meet torch, transformers and accelerate on the installed versions, and record how they end.

    python -m venv floor && floor/bin/pip install -e ".[dev]"
    floor/bin/pip install torch==2.6.0 transformers==5.3.0 accelerate==1.10.1
    floor/bin/python tests/support/floor.py

The counts, versions and commit go to tests/results/floor.json; the exit status is pytest's.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from hf_prune.report.account import surroundings

TESTS = Path(__file__).parent.parent
SUITES = (
    *("integration/test_parity.py", "integration/test_resume.py", "integration/test_own_loss.py"),
    "integration/test_second_run.py",
    *("train/test_schedule.py", "train/test_rounds.py", "train/test_compat.py", "train/test_trainer.py"),
    "train/test_loading.py",
)


class Counting:
    """Counts the tests by how they ended."""

    def __init__(self):
        self.outcomes = Counter()

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.outcome] += 1


def main() -> int:
    counting = Counting()
    status = pytest.main(["-q", *(str(TESTS / suite) for suite in SUITES)], [counting])
    results = {"suites": SUITES, "outcomes": counting.outcomes, "status": int(status)} | surroundings(__file__)
    (TESTS / "results" / "floor.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
