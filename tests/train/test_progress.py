"""What the terminal shows: one bar, and a line for each epoch that fits 100 columns."""

import re

import pytest
import tiny
from tiny import TASKS


def shown(capsys, folder, policy, **settings):
    task = TASKS["one label"]
    trainer = tiny.trainer(folder, task.model(), task.rows(40), policy=policy, disable_tqdm=False, **settings)
    trainer.train()
    out, err = capsys.readouterr()
    return trainer, out.splitlines(), err


def test_each_epoch_has_a_line_that_fits(tmp_path, capsys):
    trainer, out, _ = shown(capsys, tmp_path, "uniform:keep=0.5", num_train_epochs=3)
    lines = [line for line in out if re.match(r"epoch \d", line)]
    assert len(lines) == 3 and max(map(len, lines)) <= 100
    form = r"epoch 2 of 3: kept 50.0 %, padding [\d.]+ %, loss kept [\d.]+, loss left out [\d.]+, \d+ s left"
    assert re.fullmatch(form, lines[1])
    assert lines[-1].endswith(", 0 s left")
    epoch = trainer.pruning_report().epochs[1]
    assert f"padding {100 * epoch['padding'] / epoch['padded_tokens']:.1f} %" in lines[1]


def test_rescoring_and_selecting_are_told_on_the_one_bar(tmp_path, capsys):
    policy = "kakurenbo:by_confidence=True,hide=0.5,threshold=0.34"
    _, out, err = shown(capsys, tmp_path, policy, num_train_epochs=3)
    assert "selecting" in err and "rescoring" in err
    assert "Rescoring" not in err  # a bar of its own
    assert len([line for line in out if line.startswith("epoch ")]) == 3


def test_rounds_within_an_epoch_share_its_line(tmp_path, capsys):
    _, out, _ = shown(capsys, tmp_path, "multistage", num_train_epochs=2)
    assert len([line for line in out if line.startswith("epoch ")]) == 2


@pytest.mark.parametrize("settings", [{"disable_tqdm": True}])
def test_without_a_bar_nothing_is_written(settings, tmp_path, capsys):
    task = TASKS["one label"]
    tiny.trainer(tmp_path, task.model(), task.rows(), policy="uniform:keep=0.5", **settings).train()
    assert "epoch 1 of" not in capsys.readouterr().out
