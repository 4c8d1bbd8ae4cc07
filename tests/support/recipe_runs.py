"""Recipes as their users meet them: a module to look into, and a command line to run."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import transformers
from datasets import Dataset
from fork_server import run as run_in_fork

from hf_prune.report.page import RunReport

ROOT = Path(__file__).parent.parent.parent

FILES = "--train_file train.parquet --validation_file validation.parquet --test_file test.parquet "
SHORT = " --ratio 0.7 --anneal 1 --logging_steps 1 --use_cpu True --output_dir out --seed 3"
FLAGS_OF = {  # a short run on the rows of write_rows
    "translate": FILES + "--vocab_size 320 --max_length 40 --num_train_epochs 3 --per_device_train_batch_size 16 "
    "--num_beams 2",
    "text_classification": FILES + "--vocab_size 320 --max_length 40 --num_train_epochs 4 "
    "--per_device_train_batch_size 8 --learning_rate 3e-3 --disable_tqdm True --report_to none "
    "--train_sampling_strategy random",  # so few rows, grouped by length, are learnt badly
    "image_classification": "--train_file train.parquet --test_file test.parquet --label_file noisy.csv "
    "--label_column noisy --image_size 8 --rand_augment 1 --flip False --num_train_epochs 3 "
    "--per_device_train_batch_size 16",
    "instruct": FILES + "--vocab_size 400 --max_length 64 --num_train_epochs 3 --per_device_train_batch_size 16 "
    "--report_to none",
}
FLAGS_OF = {name: (flags + SHORT).split() for name, flags in FLAGS_OF.items()}
FIRST = {  # training row
    "text_classification": 240,  # so few others teach this model one or two classes alone
    "instruct": 300,  # none of these fills max_length
}
SIZES = {"translate": (100, 5, 10), "text_classification": (120, 6, 20), "instruct": (100, 5, 10)}


def write_rows(name, folder):
    """The files that a recipe's flags name, with some rows of its embedded data; the folder."""
    if name == "image_classification":
        return write_digits(folder)
    for split, count in zip(("train", "validation", "test"), SIZES[name], strict=True):
        rows = pq.read_table(ROOT / "recipes" / "corpora" / name / f"{split}.parquet")
        first = FIRST.get(name, 0) if split == "train" else 0
        pq.write_table(rows.slice(first, count), folder / f"{split}.parquet")
    return folder


def write_digits(folder):
    """170 rows to train on, with their classes in a second file (a tenth of them wrong), and 41 to test."""
    digits = load("image_classification").embedded_digits()
    for split, count in (("train", 170), ("test", 41)):
        digits[split].select(range(count)).to_parquet(folder / f"{split}.parquet")
    labels = np.array(digits["train"]["label"][:170])
    labels[::10] = (labels[::10] + 1) % 10
    Dataset.from_dict({"noisy": labels}).to_csv(folder / "noisy.csv")
    return folder


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
