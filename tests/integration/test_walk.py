"""The way of a row's loss, as CONTRIBUTING.md tells it: nine steps at most, in this order, and no file twice."""

import functools
import importlib
import re
from pathlib import Path

import pytest
import tiny

import hf_prune

ROOT = Path(hf_prune.__file__).parents[1]
PAGE = ROOT / ".github" / "CONTRIBUTING.md"
STEP = re.compile(r"^(\d+)\. `(hf_prune/[\w/]+\.py):([\w.]+)`", re.MULTILINE)


def noting(function, number, called):
    @functools.wraps(function)
    def noted(*args, **kwargs):
        called.append(number)
        return function(*args, **kwargs)

    return noted


@pytest.mark.skipif(not PAGE.is_file(), reason="the page is not part of an installed package")
def test_a_loss_goes_the_way_that_is_told(tmp_path, monkeypatch):
    told = [(file, name) for _, file, name in STEP.findall(PAGE.read_text(encoding="utf-8"))]
    files = [file for file, _ in told]
    assert 1 < len(told) <= 9 and len(set(files)) == len(files)
    called = []
    for number, (file, name) in enumerate(told):
        owner = importlib.import_module(file.removesuffix(".py").replace("/", "."))
        *classes, method = name.split(".")
        for cls in classes:
            owner = getattr(owner, cls)
        monkeypatch.setattr(owner, method, noting(getattr(owner, method), number, called))
    task = tiny.TASKS["one label"]
    settings = dict(num_train_epochs=2, per_device_train_batch_size=22)  # one batch a round
    tiny.trainer(tmp_path, task.model(0.0), task.rows(22), "infobatch", **settings).train()
    last = len(told) - 1
    begin, end = (place for place, step in enumerate(called) if step == last)  # the selections of the two rounds
    way = called[begin + 1 : end + 1]
    assert [step for place, step in enumerate(way) if place == 0 or step != way[place - 1]] == [*range(len(told))]
