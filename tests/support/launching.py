"""Runs under accelerate, of several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import transformers
from packaging.version import Version

HERE = Path(__file__).parent


PROCESSES = {"two": 2, "four": 4, "fsdp2": 2, "zero2": 2, "zero3": 2}


SCRIPTS = dict.fromkeys(("fsdp2", "zero2", "zero3"), "sharded.py")


def launch(config: str, folder: Path) -> list[dict]:
    """What every process ended with."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", HERE / "configs" / f"{config}.yaml"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    script = HERE / SCRIPTS.get(config, "launched.py")
    done = subprocess.run([*command, script, folder], capture_output=True, text=True, timeout=280, env=env)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(PROCESSES[config])]


can_resume = pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.18"), reason="this Trainer can't load an optimizer for CPU DDP"
)
