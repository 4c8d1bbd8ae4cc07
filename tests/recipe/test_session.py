"""What the recipes share: names of files, going on, what is printed."""

import pytest
from recipe_runs import load
from tiny import TASKS, trainer
from transformers import Seq2SeqTrainingArguments, TrainingArguments

from hf_prune.policies import make
from hf_prune.recipe.arguments import parse
from hf_prune.recipe.session import find_checkpoint
from hf_prune.recipe.splits import CommonArguments, Patience
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


def test_predictions_alone_need_a_saved_model_and_no_policy(capsys):
    types, alone = (CommonArguments, TrainingArguments), ["--output_dir", "out", "--use_cpu", "--do_predict"]
    with pytest.raises(SystemExit):
        parse(*types, argv=alone, policy="infobatch")
    assert "--do_predict without --do_train scores a saved model: give it by --model_name" in capsys.readouterr().err
    common, args, policy = parse(*types, argv=[*alone, "--model_name_or_path", "saved"], policy="infobatch")
    assert common.is_scored_alone and args.do_predict and policy is None
    every = ["--output_dir", "out", "--use_cpu", "--do_train", "--do_eval", "--do_predict"]
    common, args, policy = parse(*types, argv=every, policy="infobatch")
    assert not common.is_scored_alone and args.do_predict and policy is not None


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
