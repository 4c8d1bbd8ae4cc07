"""How many runs at once, and with how many threads each."""

import json
import os
import sys

import pytest

from hf_prune.compare import command, launch
from hf_prune.compare.launch import Run, cores, run_all

TELLS = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(launch, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(launch, "has_accelerator", lambda: False)
    monkeypatch.setattr(command, "has_accelerator", launch.has_accelerator)
    for name in launch._THREADS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "quota, found", [(None, 8), ("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("9000000 100000", 8)]
)
def test_cores_are_those_that_may_be_used(tmp_path, quota, found):
    if quota:
        (tmp_path / "cpu.max").write_text(quota + "\n")
    assert cores() == found


def test_jobs_auto_are_the_cores_unless_there_is_a_gpu(monkeypatch):
    assert command.read_arguments(["--jobs", "auto"])[0].jobs == 8
    assert command.read_arguments([])[0].jobs == 1
    monkeypatch.setattr(command, "has_accelerator", lambda: True)
    assert command.read_arguments(["--jobs", "auto"])[0].jobs == 1


def threads(tmp_path, jobs):
    """What a run is told, by variable."""
    run = Run((sys.executable, "-c", TELLS, str(tmp_path / "told.json")), tmp_path / "log", tmp_path / "told.json")
    assert [status for _, status in run_all([run], jobs)] == [0]
    told = json.loads((tmp_path / "told.json").read_text())
    return {name: told.get(name) for name in launch._THREADS}


@pytest.mark.parametrize("jobs, each", [(1, None), (3, "2"), (8, "1"), (20, "1")])
def test_runs_at_once_share_the_cores(tmp_path, jobs, each):
    assert set(threads(tmp_path, jobs).values()) == {each}


def test_a_number_of_threads_that_is_set_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert threads(tmp_path, 8) == dict.fromkeys(launch._THREADS, None) | {"OMP_NUM_THREADS": "5"}


def test_with_a_gpu_threads_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "has_accelerator", lambda: True)
    assert set(threads(tmp_path, 8).values()) == {None}


def test_a_run_that_is_no_longer_needed_is_not_started(tmp_path):
    runs = [
        Run((sys.executable, "-c", f"open({str(tmp_path / name)!r}, 'w')"), tmp_path / f"{name}.log", tmp_path / name)
        for name in "abcd"
    ]
    ended = set()
    for run, status in run_all(runs, is_needed=lambda run: run.result.name != "c" or not ended):
        ended.add(run.result.name)
        assert status == 0
    assert ended == {"a", "b", "d"} and not (tmp_path / "c").exists()
