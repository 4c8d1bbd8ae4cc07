"""How a run ends: what is printed, and what is written."""

import json

import pytest
from tiny import TASKS, trainer
from transformers import Trainer, TrainingArguments

from hf_prune.recipe.outcome import Outcome, arguments_of, finish
from hf_prune.recipe.splits import CommonArguments
from hf_prune.report import card, figures
from hf_prune.report.advice import advise, as_text

TASK = TASKS["one label"]


# of a surrogate pair: UTF-8 has no bytes for it
HALF = "\ud83d"  # of a surrogate pair: UTF-8 has no bytes for it


def ended(folder, **broken):
    """End a run of which parts can't be written."""
    made = trainer(folder, TASK.model(), TASK.rows(), "uniform:keep=0.5", num_train_epochs=1)
    made.train()
    made.save_model()
    for name, how in broken.items():
        setattr(made, name, how)
    rows = {"predictions": [f"so {HALF}", "x"], "references": ["a", "b"]}
    outcome = Outcome("accuracy", {"accuracy": 0.5}, "test", rows, ["accuracy 0.5000 (test, 2 rows)"], [f"is {HALF} b"])
    arguments = arguments_of(CommonArguments(train_file="/data/ann/x.csv"), made.args)
    finish(made, made.policy, arguments, outcome, {"training": 1.0}, {}, __file__)
    return json.loads((folder / "results.json").read_text())


def test_half_a_character_ends_no_run(tmp_path, capsys):
    assert ended(tmp_path)["quality"]["value"] == 0.5
    assert "is \\ud83d b" in capsys.readouterr().out
    assert json.loads((tmp_path / "predictions.json").read_text())["predictions"] == [f"so {HALF}", "x"]


def test_what_padding_cost_is_told_with_a_flag_of_the_command(tmp_path, capsys):
    found = ended(tmp_path)
    share = found["pruning"]["totals"]["padding"]
    said = f"\n{100 * share:.0f} % of the positions that the model computed in training were padding. "
    assert f"{said}`--train_sampling_strategy group_by_length` puts" in capsys.readouterr().out


def test_a_run_ends_with_advice_and_keeps_what_it_goes_by(tmp_path, capsys):
    facts = ended(tmp_path)["facts"]
    assert {"padding_causes", "lengths", "medians"} <= set(facts)
    printed = capsys.readouterr().out
    lines = advise(tmp_path)
    assert lines == advise(tmp_path / "results.json")
    said = [one for one in lines if one.topic != "padding"][:3]  # padding was told above
    assert f"\nwhat to do about it (all of it: hf-prune advise):\n{as_text(said)}\n" in printed


def test_advice_that_fails_costs_no_scores(tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.setattr("hf_prune.recipe.outcome.advise", lambda found: 1 / 0)
    assert ended(tmp_path)["quality"]["value"] == 0.5
    assert "the advice could not be written (ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("module", "place", "file"),
    [
        (figures, "run_figure", "run.png"),
        (figures, "png", "_report.html"),
        (figures, "new_figure", "run.png"),
        (card, "write_card", "README.md"),
        (Trainer, "create_model_card", "README.md"),
    ],
)
@pytest.mark.parametrize("error", [ImportError, OSError, RuntimeError, KeyError])
def test_what_is_written_for_people_costs_no_scores(tmp_path, monkeypatch, capsys, caplog, module, place, file, error):
    def fail(*args, **kwargs):
        raise error("no")

    monkeypatch.setattr(module, place, fail)
    assert ended(tmp_path)["quality"]["value"] == 0.5
    assert "accuracy 0.5000 (test, 2 rows)" in capsys.readouterr().out
    assert f"{file} could not be written" in caplog.text or "The model card lacks" in caplog.text


def test_results_name_no_path_and_no_secret(tmp_path):
    given = TrainingArguments(
        str(tmp_path), hub_token="sesame", lr_scheduler_kwargs={"path": "/data/ann/x", "token": "y"}
    )
    found = arguments_of(CommonArguments(train_file="C:\\ann\\x.csv", history="~/run"), given)
    assert (found["train_file"], found["history"], found["output_dir"]) == ("x.csv", "run", tmp_path.name)
    assert found["lr_scheduler_kwargs"] == {"path": "x", "token": "TOKEN"}
    assert "sesame" not in str(found) and "/data/ann" not in str(found)
