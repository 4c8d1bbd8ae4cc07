"""Recipes as their users meet them: a module to look into, and a command line to run."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import transformers
from fork_server import run as run_in_fork

from hf_prune.report.page import RunReport

ROOT = Path(__file__).parent.parent.parent


def load(name):
    """The module of a recipe or of a benchmark, which finds its neighbours as a script does."""
    path = ROOT / "recipes" / f"{name}.py"
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def command(name, *flags, config=None):
    """The command line of a recipe under accelerate: one process, or as a file of tests/support/configs says."""
    processes = (
        ["--config_file", ROOT / "tests" / "support" / "configs" / f"{config}.yaml"]
        if config
        else ["--num_processes", "1"]
    )
    recipe = ROOT / "recipes" / f"{name}.py"
    return [sys.executable, "-m", "accelerate.commands.launch", *map(str, processes), str(recipe), *flags]


def environment():
    return os.environ | {"PYTHONPATH": str(ROOT), "HF_HOME": "home", "OMP_NUM_THREADS": "1"}


def run(name, folder, *flags, config=None):
    """Run a recipe in a folder; its status, and what it printed to stdout and stderr."""
    call = command(name, *flags, config=config)
    done = subprocess.run(call, cwd=folder, env=environment(), capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def run_and_kill(name, folder, *flags, output_dir="out"):
    """Run a recipe in a folder until it has saved a checkpoint, and kill it."""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command(name, *flags), cwd=folder, env=environment(), stdout=log, stderr=log, start_new_session=True
        )
    deadline = time.time() + 300
    while not list(folder.glob(f"{output_dir}/checkpoint-*/trainer_state.json")) and time.time() < deadline:
        time.sleep(0.05)
        assert process.poll() is None, (folder / "log").read_text()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / output_dir / "results.json").exists()


def run_forked(name, folder, *flags, kill_at=None):
    """Whether a recipe in a folder came to its end, in a process that need not import all anew, and draws nothing."""
    return run_in_fork(_run_here, name, folder, flags, kill_at=kill_at)


def _run_here(name, folder, flags):
    transformers.logging.set_verbosity_error()
    os.chdir(folder)
    os.environ["HF_HOME"] = str(folder)
    RunReport.html = RunReport.figure = lambda *args: None  # figures have tests of their own, and take seconds
    load(name).main(list(flags))
