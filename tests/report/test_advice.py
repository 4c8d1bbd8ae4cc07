"""`hf-prune advise` and its function: folders of runs, files alone, other forms, and files that hold something else."""

import json
import shutil

import pytest
import tiny
from datasets import Dataset
from tiny import TASKS

from hf_prune.cli import main
from hf_prune.compare.result import RESULTS
from hf_prune.report import advice as module
from hf_prune.report.advice import advise, as_json, as_markdown, as_text


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run on all rows that was not started by a recipe, and its data."""
    folder, task = tmp_path_factory.mktemp("run"), TASKS["one label"]
    data = Dataset.from_list(task.rows(40))
    settings = {"num_train_epochs": 3, "eval_strategy": "epoch", "eval_dataset": data.select(range(8))}
    trainer = tiny.trainer(folder, task.model(spread=0.3), data, policy="uniform:keep=1", **settings)
    trainer.train()
    trainer.save_model()
    trainer.save_state()
    return folder, data, trainer


def verdicts(found):
    return {one.topic: one.verdict for one in found}


def test_the_name_of_the_file_is_that_of_the_recipes():
    assert module.RESULTS == RESULTS


def test_a_folder_and_a_report_give_the_same(run):
    folder, _, trainer = run
    found = advise(folder)
    assert found == advise(trainer.pruning_report())
    assert len(found) == 7 and verdicts(found)["duplicates"] == "unknown"
    assert verdicts(found)["easy rows"] != "unknown" and verdicts(found)["epochs"] != "unknown"


def test_the_training_set_tells_more(run):
    folder, data, _ = run
    found = verdicts(advise(folder, data))
    assert "unknown" not in (found["duplicates"], found["imbalance"])
    with pytest.raises(ValueError, match="data has 3 rows, but the run was trained on 40: give its training set"):
        advise(folder, data.select(range(3)))


def test_the_log_alone_tells_of_epochs(run, tmp_path):
    (tmp_path / "checkpoint-3").mkdir()
    shutil.copy(run[0] / "trainer_state.json", tmp_path / "checkpoint-3")
    found = verdicts(advise(tmp_path))
    assert found.pop("epochs") == verdicts(advise(run[0]))["epochs"]
    assert set(found.values()) == {"unknown"}


def test_the_page_has_the_first_lines(run):
    folder, _, trainer = run
    trainer.pruning_report().html(folder / "page.html")
    text = " ".join((folder / "page.html").read_text().split())
    lines = [one.line for one in advise(folder) if one.topic != "padding" or not trainer.pruning_report().padding()]
    assert all(line.replace("'", "&#39;") in text for line in lines[:3])


def test_forms(run, tmp_path, capsys):
    folder = run[0]
    found = advise(folder)
    text = as_text(found)
    assert max(map(len, text.splitlines())) <= 100 and text.startswith(found[0].verdict)
    assert main(["advise", str(folder)]) == 0
    assert capsys.readouterr().out == f"{text}\n"
    assert main(["advise", str(folder), "--markdown"]) == 0
    assert capsys.readouterr().out == f"{as_markdown(found)}\n"
    assert main(["advise", str(folder), "--json", "-"]) == 0
    assert capsys.readouterr().out == as_json(found)
    assert main(["advise", str(folder), "--json", str(tmp_path / "a.json")]) == 0
    assert [one["topic"] for one in json.loads((tmp_path / "a.json").read_text())] == [one.topic for one in found]


def test_the_command_reads_a_file_of_rows(run, tmp_path, capsys):
    run[1].select_columns(["input_ids", "labels"]).to_parquet(tmp_path / "rows.parquet")
    assert main(["advise", str(run[0]), "--data", str(tmp_path / "rows.parquet")]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "of the rows equal an earlier one" in text and "classes have" in text


@pytest.mark.parametrize(
    "change",
    [
        {"facts": [1]},
        {"facts": {"upper": {"share": 7}}},
        {"facts": {"upper": {"share": 0.5, "low": 0.4, "high": 0.6}}},  # without medians
        {"facts": {"lengths": [1]}},
        {"facts": {"medians": ["x"]}},
        {"facts": {"classes": {"count": 2, "smallest": 0, "largest": 1}}},
        {"facts": {"at_once": 1e308}},
        {"pruning": {"totals": {"padding": -1}}},
        {"pruning": {"totals": {"padded_tokens": "many"}}},
        {"pruning": {"evaluations": [{"eval_loss": 1}, {"eval_loss": 2}]}},
        {"pruning": {"evaluations": {}}},
        {"pruning": 3},
        {"quality": {"metric": "<script>"}},
        {"quality": 3},
    ],
)
def test_a_file_that_holds_something_else_is_refused_in_one_line(tmp_path, capsys, change):
    (tmp_path / RESULTS).write_text(json.dumps({"pruning": {"totals": {}}, "facts": {"rows": 1}} | change))
    with pytest.raises(SystemExit) as caught:
        main(["advise", str(tmp_path / RESULTS)])
    said = capsys.readouterr().err
    assert caught.value.code == 2 and said.count("\n") == 1 and "no run of a recipe, or damaged" in said


@pytest.mark.parametrize(
    ("name", "text", "cause"),
    [
        (None, "", "holds no results.json, pruning.json or trainer_state.json: give the folder of a run"),
        (RESULTS, "{", "results.json is damaged"),
        (RESULTS, "[]", "results.json is damaged"),
        ("trainer_state.json", '{"log_history": [3]}', "trainer_state.json is damaged"),
        ("pruning.json", "{}", "is not there: give the folder of a run"),
    ],
)
def test_a_folder_without_a_run_is_refused_in_one_line(tmp_path, capsys, name, text, cause):
    if name:
        (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit):
        main(["advise", str(tmp_path)])
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and cause in said
