"""What the recipes share: names of files, going on, what is printed."""

import json
import re

import pytest
from datasets import ClassLabel, Dataset, DatasetDict
from recipe_runs import load
from tiny import TASKS, trainer
from transformers import Seq2SeqTrainingArguments, Trainer, TrainingArguments

from hf_prune.policies import make
from hf_prune.recipe.arguments import parse
from hf_prune.recipe.session import Outcome, arguments_of, find_checkpoint, finish
from hf_prune.recipe.splits import (
    CommonArguments,
    Patience,
    encode_labels,
    load_splits,
    read_file,
    read_splits,
    tell_cuts,
    warn_if_untaught,
)
from hf_prune.report import card, figures
from hf_prune.train.lock import RunLock

TASK = TASKS["one label"]


def args(folder, **more):
    return TrainingArguments(str(folder), use_cpu=True, report_to=[], **more)


@pytest.fixture
def begun(tmp_path):
    """A folder in which a run of two rows has saved a whole checkpoint."""
    assert find_checkpoint(args(tmp_path), make("uniform"), CommonArguments(max_train_samples=2)) is False
    (tmp_path / "checkpoint-4").mkdir()
    (tmp_path / "checkpoint-4" / "trainer_state.json").write_text('{"global_step": 4}')
    return tmp_path


def test_the_same_settings_go_on(begun, capsys):
    more = CommonArguments(max_train_samples=2)
    assert find_checkpoint(args(begun, num_train_epochs=9), make("uniform"), more) == str(begun / "checkpoint-4")
    assert capsys.readouterr().out == f"Going on from {begun / 'checkpoint-4'}\n"


def test_a_folder_in_which_a_run_trains_is_left_as_it_is(begun):
    lock = RunLock()
    assert lock.take(begun / "_pruning") is None
    before = (begun / "_begun.json").read_bytes()
    with pytest.raises(ValueError, match=f"output_dir='{begun}' is in use: another trainer of this process trains"):
        find_checkpoint(args(begun), make("uniform"), CommonArguments(max_train_samples=3))
    assert (begun / "_begun.json").read_bytes() == before
    lock.release()
    assert find_checkpoint(args(begun), make("uniform"), CommonArguments(max_train_samples=2))


@pytest.mark.parametrize(
    ("policy", "rows", "changed"),
    [("uniform", 3, "max_train_samples 2 -> 3"), (None, 2, "policy .* -> 'None'"), ("uniform:keep=0.5", 2, "policy")],
)
def test_an_unfinished_run_of_other_settings_is_not_gone_on_with(begun, policy, rows, changed):
    with pytest.raises(ValueError, match=rf"holds an unfinished run of other settings \({changed}"):
        find_checkpoint(args(begun), make(policy), CommonArguments(max_train_samples=rows))


def test_another_seed_or_rate_is_another_run(begun):
    for changed in ({"seed": 7}, {"learning_rate": 1e-4}):
        with pytest.raises(ValueError, match=f"other settings \\({next(iter(changed))} "):
            find_checkpoint(args(begun, **changed), make("uniform"), CommonArguments(max_train_samples=2))


@pytest.mark.parametrize("name", ["image_classification", "text_classification", "translate"])
@pytest.mark.parametrize(("metric", "greater"), [("loss", False), (None, True)])
def test_the_best_model_is_that_of_the_metric_that_is_asked_for(name, metric, greater):
    recipe, kind = load(name), Seq2SeqTrainingArguments if name == "translate" else TrainingArguments
    argv = [] if metric is None else ["--metric_for_best_model", metric]
    parsed = parse(CommonArguments, recipe.RecipeArguments, kind, argv=[*argv, "--use_cpu"], **recipe.FROM_SCRATCH)
    assert parsed[2].greater_is_better is greater


def test_predictions_alone_are_refused(capsys):
    with pytest.raises(SystemExit):
        parse(TrainingArguments, argv=["--output_dir", "out", "--use_cpu", "--do_predict"], policy="none")
    assert "--do_predict without --do_train: a run trains, validates and tests" in capsys.readouterr().err
    every = ["--do_train", "--do_eval", "--do_predict"]
    assert parse(TrainingArguments, argv=["--output_dir", "out", "--use_cpu", *every], policy="none")[0].do_predict


SCORES = [0.5, 0.4, 0.6, 0.6, 0.5, 0.7]  # by epoch: patience of 2 ends with the fifth


@pytest.mark.parametrize("policy", ["uniform:keep=0.5", None])
def test_patience_goes_on_where_it_was(tmp_path, policy):
    def run(folder, checkpoint=None):
        settings = {"eval_strategy": "epoch", "save_strategy": "epoch", "metric_for_best_model": "score"}
        settings |= {"load_best_model_at_end": True, "num_train_epochs": 6, "eval_dataset": TASK.rows(4)}
        ours = trainer(folder, TASK.model(), TASK.rows(), policy, callbacks=[Patience(2)], **settings)
        ours.compute_metrics = lambda outputs: {"score": SCORES[round(ours.state.epoch) - 1]}
        ours.train(resume_from_checkpoint=checkpoint)
        return ours.state

    straight = run(tmp_path)
    steps = straight.global_step // 5
    assert straight.epoch == 5 and straight.best_metric == 0.6
    for epoch in range(1, 6):
        state = run(tmp_path / str(epoch), str(tmp_path / f"checkpoint-{epoch * steps}"))
        late = 1 if policy is None and epoch == 5 else 0  # the stock trainer takes a step before it asks
        assert (state.global_step, state.best_metric) == (straight.global_step + late, 0.6), epoch


def test_files_of_one_name_in_two_folders_are_two(tmp_path):
    """Shown is the name alone."""
    out = args(tmp_path / "out")
    find_checkpoint(out, None, CommonArguments(train_file="/data/one/a.csv"))
    (tmp_path / "out" / "checkpoint-4").mkdir()
    (tmp_path / "out" / "checkpoint-4" / "trainer_state.json").write_text('{"global_step": 4}')
    assert find_checkpoint(out, None, CommonArguments(train_file="/data/one/a.csv"))
    with pytest.raises(ValueError, match=r"train_file 'a.csv \(\w{8}\)' -> 'a.csv \(\w{8}\)'"):
        find_checkpoint(out, None, CommonArguments(train_file="/data/other/a.csv"))
    assert "/data" not in (tmp_path / "out" / "_begun.json").read_text()


def test_a_checkpoint_that_is_named_is_taken(begun, tmp_path):
    named = args(tmp_path / "other", resume_from_checkpoint=str(begun / "checkpoint-4"))
    assert find_checkpoint(named, None) == str(begun / "checkpoint-4")
    assert find_checkpoint(args(begun, resume_from_checkpoint="False"), None) is False
    with pytest.raises(ValueError, match="resume_from_checkpoint='nowhere': there is no such folder"):
        find_checkpoint(args(begun, resume_from_checkpoint="nowhere"), None)


@pytest.mark.parametrize("name", ["data[1].csv", "a*.csv", "b?.csv"])
def test_a_name_that_is_a_pattern_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("text,label\na,b\n")
    with pytest.raises(ValueError, match=re.escape(f"{name}: `datasets` reads * ? and [ in a name as a pattern")):
        read_file(name)
    (tmp_path / "pictures [1]").mkdir()
    with pytest.raises(ValueError, match="rename it"):
        read_splits(CommonArguments(dataset_name="pictures [1]"), None)


def test_many_classes_are_not_all_listed():
    rows = Dataset.from_dict({"label": ["new"], "text": ["a"]})
    with pytest.raises(ValueError, match=r"they have c0, .*, c19 \.\.\. and 480 more\. Correct it"):
        encode_labels(rows, "label", [f"c{i}" for i in range(500)], "it")


def test_rows_that_may_be_cut_are_counted():
    said = []
    texts = [[[1] * length for length in lengths] for lengths in ([3, 8, 2, 2], [3, 7, 8, 2], [1, 1, 1, 1])]
    tell_cuts(Dataset.from_dict({"input_ids": texts[0], "labels": texts[1]}), 8, said.append)
    tell_cuts(Dataset.from_dict({"input_ids": texts[2], "labels": [9, 9, 9, 9]}), 8, said.append)  # classes
    assert said == ["2 of 4 training rows fill max_length=8 and may be cut"]


def test_classes_without_a_training_row_are_told():
    names = ["ant", "bee", "cow"]
    splits = {"train": [0, 2, 0], "validation": [2, 2], "test": [0, 1, 1]}
    rows = {split: Dataset.from_dict({"labels": labels}) for split, labels in splits.items()}
    corpus = DatasetDict(rows).cast_column("labels", ClassLabel(names=names))
    with pytest.warns(UserWarning, match=r"^Split test has classes of which there is no training row: bee\.$") as found:
        warn_if_untaught(corpus)
    assert len(found) == 1


def test_training_rows_say_which_of_their_file_they_are(tmp_path):
    """Also those that are left when others were held out and drawn from; a key goes with them."""
    path = tmp_path / "train.csv"
    path.write_text("text,label,id\n" + "".join(f"t{i},{i % 2},k{i}\n" for i in range(40)))
    common = CommonArguments(train_file=str(path), max_train_samples=20, history_key="id")
    splits = load_splits(common, None, lambda rows, name: rows.select_columns(["text", *common.carried(rows)]), 0)
    for split in ("train", "validation"):
        rows = splits[split].to_dict()
        assert rows["text"] == [f"t{row}" for row in rows["file_row"]]
        assert rows["id"] == [f"k{row}" for row in rows["file_row"]]
    assert len(splits["train"]) == 20
    with pytest.raises(ValueError, match="history_key='id' is a column that is trained on, or called as one that"):
        common.carried(splits["train"], "id")
    with pytest.raises(ValueError, match="history_key='key': .* has no such column; it has text, label, id"):
        read_splits(CommonArguments(train_file=str(path), history_key="key"), None)


# ---- The end ----

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
    arguments = arguments_of(CommonArguments(train_file="/home/ann/x.csv"), made.args)
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
        str(tmp_path), hub_token="sesame", lr_scheduler_kwargs={"path": "/home/ann/x", "token": "y"}
    )
    found = arguments_of(CommonArguments(train_file="C:\\ann\\x.csv", history="~/run"), given)
    assert (found["train_file"], found["history"], found["output_dir"]) == ("x.csv", "run", tmp_path.name)
    assert found["lr_scheduler_kwargs"] == {"path": "x", "token": "TOKEN"}
    assert "sesame" not in str(found) and "/home/ann" not in str(found)
