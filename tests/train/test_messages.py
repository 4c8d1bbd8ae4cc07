"""What a user is told: mistakes and Ctrl-C in one line, with flags as they are typed; bugs with their traceback."""

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from recipe_runs import ROOT, command, environment, load

from hf_prune import policies
from hf_prune.common import command as words
from hf_prune.common.command import as_typed, interruptible, stage
from hf_prune.recipe.arguments import parse
from hf_prune.recipe.labels import class_names
from hf_prune.recipe.session import run
from hf_prune.recipe.splits import CommonArguments

pytestmark = pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing.*` is deprecated:FutureWarning")

RECIPES = ("text_classification", "translate", "instruct", "image_classification")
ROWS = {
    "text_classification": "text,label\n" + "".join(f"text {i},l{i % 2}\n" for i in range(60)),
    "translate": "en,de\n" + "".join(f"text {i},Text {i}\n" for i in range(60)),
    "instruct": "instruction,response\n" + "".join(f"say {i},number {i}\n" for i in range(60)),
}
SHORT = "--use_cpu --report_to none --num_train_epochs 2 --disable_tqdm True"


@pytest.fixture(scope="module")
def recipes():
    return {name: load(name) for name in RECIPES}


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(words, "stage", stage)
    for name, text in ROWS.items():
        Path(f"{name}.csv").write_text(text)
    Path("pictures", "cat").mkdir(parents=True)
    yield
    stage.flags, stage.fields, stage.policy, stage.output_dir, stage.has_begun = (), (), None, None, False


@pytest.fixture
def told(recipes, monkeypatch, capsys):
    """(name, flags) -> the line that a recipe ends with, where it refuses."""

    def tell(name, flags):
        data = f"--train_file {name}.csv" if name in ROWS and "--dataset_name" not in flags else ""
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *shlex.split(f"{data} {SHORT} --output_dir out {flags}")])
        with pytest.raises(SystemExit) as caught:
            run(recipes[name].main)
        assert caught.value.code == 2
        said = capsys.readouterr().err
        lines = [line for line in said.splitlines() if f"{name}.py: error: " in line]
        assert len(lines) == 1 and "usage: " not in said
        return lines[0].partition("error: ")[2]

    return tell


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("text_classification", "--label_column lable", "--label_column 'lable': text_classification.csv has no such"),
        ("text_classification", "--text_columns body", "--text_columns 'body': text_classification.csv has no such"),
        ("text_classification", "--train_file none.csv", "--train_file: none.csv: there is no such file."),
        ("text_classification", "--validation_file pictures", "--validation_file: pictures is a folder"),
        ("text_classification", "--test_file none.csv", "--test_file: none.csv: there is no such file."),
        ("text_classification", "--dataset_name no/where", "--dataset_name 'no/where' can't be read: "),
        ("text_classification", "--policy infobach", "--policy 'infobach': Unknown policy 'infobach'. Did you mean"),
        ("text_classification", "--policy ./my_rule.py", "--policy './my_rule.py' is no dotted path of a module"),
        ("text_classification", "--policy infobatch --ratio 2", "--ratio: InfoBatch(ratio=...) must be in [0, 1), got"),
        (
            "text_classification",
            "--policy infobatch:ratio=2",
            "--policy 'infobatch:ratio=2': InfoBatch(ratio=...) must",
        ),
        ("text_classification", "--policy uniform --keep 0", "--keep: Uniform(keep=...) must be in (0, 1], got 0.0."),
        ("text_classification", "--policy el2n", "--policy el2n chooses by scores of earlier runs, and there are none"),
        ("text_classification", "--policy el2n", "and give --history 'scores'."),
        ("text_classification", "--policy el2n --history none", "--history 'none': there is no none."),
        (
            "text_classification",
            "--policy ucb --history text_classification.csv",
            "--history 'text_classification.csv'",
        ),
        ("text_classification", "--policy none --history none", "--history: only a policy can use an earlier history;"),
        ("text_classification", "--history_key text", "--history_key 'text' is a column that is trained on"),
        (
            "text_classification",
            "--output_dir translate.csv",
            "--output_dir 'translate.csv' can't be made: File exists.",
        ),
        ("text_classification", "--output_dir translate.csv/out", "--output_dir 'translate.csv/out' can't be made: "),
        ("text_classification", "--resume_from_checkpoint none", "--resume_from_checkpoint 'none': there is no such"),
        (
            "text_classification",
            "--resume_from_checkpoint pictures",
            "--resume_from_checkpoint 'pictures': Can't find a valid checkpoint at pictures.",
        ),
        ("text_classification", "--max_train_samples 0", "--max_train_samples 0: give a number of train rows"),
        (
            "text_classification",
            "--per_device_train_batch_size 99 --dataloader_drop_last True",
            "--dataloader_drop_last True leaves nothing of 57 rows in batches of 99: take a smaller "
            "--per_device_train_batch_size",
        ),
        ("text_classification", "--dataloader_drop_last True", "take a smaller --per_device_eval_batch_size"),
        (
            "text_classification",
            "--per_device_train_batch_size 0",
            "--per_device_train_batch_size 0 must be in [1, inf)",
        ),
        ("text_classification", "--learning_rate=-1", "--learning_rate -1 must be in [0, inf)."),
        ("text_classification", "--num_train_epochs 0", "--num_train_epochs 0 must be above 0, or --max_steps."),
        ("text_classification", "--label_smoothing_factor 3", "--label_smoothing_factor 3 must be in [0, 1]."),
        (
            "text_classification",
            "--model_size huge",
            "--model_size 'huge' is not known; give one of tiny, small, base.",
        ),
        ("text_classification", "--metric bleu", "--metric 'bleu' is not known for classes"),
        (
            "text_classification",
            "--metric_for_best_model f2",
            "--metric_for_best_model 'f2' is not measured; give one of",
        ),
        ("text_classification", "--model_name_or_path none", "--model_name_or_path 'none' is no folder here, and no"),
        ("text_classification", "--model_name_or_path pictures", "--model_name_or_path 'pictures' can't be loaded ("),
        ("text_classification", "--report_to wandb", "--report_to: WandbCallback requires wandb to be installed."),
        ("text_classification", "--lr_scheduler_kwargs {bad", "--lr_scheduler_kwargs '{bad' is no JSON: "),
        ("text_classification", "--lr_scheduler_kwargs '{\"a\": 1}'", "--lr_scheduler_kwargs: linear takes no 'a'."),
        ("text_classification", "--label_names truth", "--label_names: there are no 'truth' in a batch; leave it out."),
        (
            "text_classification",
            "--dataset_config_name x",
            "--dataset_config_name: files and the embedded data have none;",
        ),
        ("text_classification", "--accelerator_config none.json", "--accelerator_config 'none.json': No such file or"),
        (
            "text_classification",
            "--early_stopping_patience 2 --eval_strategy no --load_best_model_at_end False",
            "--early_stopping_patience: there are no validations to stop by; leave out --eval_strategy 'no'.",
        ),
        ("translate", "--source_lang fr", "--source_lang 'fr': translate.csv has no such column; it has en, de."),
        ("translate", "--target_lang en", "--source_lang and --target_lang are both 'en'; name two languages."),
        (
            "translate",
            "--policy kakurenbo",
            "--policy kakurenbo needs correct, which hf_prune can't read from a Marian",
        ),
        (
            "translate",
            "--metric_for_best_model rouge",
            "--metric_for_best_model 'rouge' is not measured; give one of bleu",
        ),
        ("translate", "--model_name_or_path none", "--model_name_or_path 'none' is no folder here"),
        ("instruct", "--response_column answer", "--response_column 'answer': instruct.csv has no such column"),
        (
            "instruct",
            "--lora_rank 4",
            "--lora_rank: adapters are saved without the model they adapt; give --model_name",
        ),
        ("instruct", "--policy kakurenbo", "Give by_confidence=True, with which it does without, or choose one"),
        ("instruct", "--model_name_or_path none", "--model_name_or_path 'none' is no folder here"),
        (
            "image_classification",
            "--train_file pictures",
            "--train_file 'pictures' is a folder: give folders of pictures ",
        ),
        ("image_classification", "--train_file pictures", "by --train_dir"),
        (
            "image_classification",
            "--train_dir translate.csv",
            "--train_dir 'translate.csv' is a file: give it by --train_f",
        ),
        ("image_classification", "--train_dir none", "--train_dir 'none' is no folder; name one that has"),
        ("image_classification", "--train_dir pictures", "--train_dir: pictures has no pictures of known suffixes"),
        ("text_classification", "--seed -1", "--seed -1 must be in [0, 4294967295]."),
        ("text_classification", "--num_train_epochs two", "--num_train_epochs: invalid float value: 'two'"),
        (
            "image_classification",
            "--train_file translate.csv --validation_file pictures",
            "--validation_file 'pictures' is",
        ),
        ("image_classification", "--label_file none.csv", "--label_file: none.csv: there is no such file."),
        (
            "image_classification",
            "--label_column x",
            "--label_column 'x': split train of the embedded data has no such",
        ),
        ("image_classification", "--image_size 9 --patch_size 2", "--patch_size 2 is no divisor of --image_size 9."),
    ],
)
def test_a_mistake_is_told_in_one_line(told, name, flags, message):
    assert message in told(name, flags)


def test_labels_of_several_types_and_with_blanks(told, recipes):
    Path("mixed.jsonl").write_text("".join(json.dumps({"text": "a", "label": i % 2 or "x"}) + "\n" for i in range(60)))
    said = told("text_classification", "--train_file mixed.jsonl")
    assert said.startswith("--label_column label: labels of mixed.jsonl are of several types; give one class")
    Path("blanks.csv").write_text("text, label\n" + "a,pos\nb,neg\n" * 30)
    said = told("text_classification", "--train_file blanks.csv")
    assert "--label_column 'label': blanks.csv has no such column" in said and said.endswith("Did you mean ' label'?")
    Path("blanks.csv").write_text("text,label\n" + "a,pos\nb,neg\nc,pos \n" * 20)
    rows = recipes["text_classification"].read_splits(
        recipes["text_classification"].CommonArguments(train_file="blanks.csv"), None
    )[0]["train"]
    with pytest.warns(UserWarning, match="labels that differ by blanks alone, such as 'pos' with and without"):
        class_names(rows, "label", "blanks.csv")


def test_a_checkpoint_within_the_folder_that_was_named_is_told(told):
    Path("earlier", "checkpoint-8").mkdir(parents=True)
    Path("earlier", "checkpoint-8", "trainer_state.json").write_text("{}")
    said = told("text_classification", "--resume_from_checkpoint earlier")
    assert said.endswith("Can't find a valid checkpoint at earlier. It holds checkpoint-8: name one of them.")


def test_a_model_that_is_cut_is_told(told, recipes):
    tokenizer = recipes["instruct"].new_tokenizer(["a b"], 300)
    recipes["instruct"].new_model("tiny", tokenizer, 64).save_pretrained("model")
    tokenizer.save_pretrained("model")
    whole = Path("model", "model.safetensors").read_bytes()
    Path("model", "model.safetensors").write_bytes(whole[:-99])
    for name in ("instruct", "text_classification"):
        said = told(name, "--model_name_or_path model --max_length 16")
        assert said.startswith("--model_name_or_path 'model' can't be loaded (SafetensorError: ")


@pytest.mark.parametrize("when", [0, 3])
def test_a_bug_keeps_its_traceback_once_training_has_begun(recipes, monkeypatch, capsys, when):
    """Before, a ValueError is what was asked for; an error of another kind is none at any time."""
    rule = "from dataclasses import dataclass\nimport numpy as np\nfrom hf_prune import Policy, Selection\n"
    rule += "@dataclass(frozen=True)\nclass Fails(Policy):\n    def select(self, history, clock, rng):\n"
    rule += f"        if clock.round == {min(when, 1)}:\n            raise ERROR('a bug')\n"
    rule += "        return Selection(np.arange(len(history)))\n"
    monkeypatch.syspath_prepend(str(Path.cwd()))
    flags = f"--train_file text_classification.csv {SHORT} --model_size tiny --save_strategy no --eval_strategy no"
    flags += " --load_best_model_at_end False"
    for error in (ValueError, ZeroDivisionError):
        module = f"fails_{when}_{error.__name__}".lower()
        Path(f"{module}.py").write_text(rule.replace("ERROR", error.__name__))
        argv = ["t.py", *flags.split(), "--output_dir", module, "--policy", f"{module}.Fails"]
        monkeypatch.setattr(sys, "argv", argv)
        is_mistake = when == 0 and error is ValueError
        with pytest.raises(SystemExit if is_mistake else error):
            run(recipes["text_classification"].main)
        if is_mistake:
            assert "t.py: error: a bug\n" in capsys.readouterr().err


# ---- Words ----


def test_flags_are_named_as_they_are_typed():
    stage.flags, stage.fields = ["policy", "history", "history_key", "output_dir", "keep", "seed"], ["keep"]
    stage.policy = ("Uniform(keep=0.5, unit='rows')", "uniform")
    for message, typed in {
        "history='out' is of others": "--history 'out' is of others",
        "history=...: only a policy": "--history: only a policy",
        "give history= of an earlier run": "give --history of an earlier run",
        "Give history_key=, or leave it out.": "Give --history_key, or leave it out.",
        "Name that one by history_key, or": "Name that one by --history_key, or",
        "policy=Uniform(keep=0.5, unit='rows') needs": "--policy uniform needs",
        "Uniform(keep=0.5, unit='rows') chooses": "--policy uniform chooses",
        "settings (policy \"Uniform(keep=0.5, unit='rows')\" -> 'None')": None,
        "Uniform(keep=...) must be in (0, 1], got 2": "--keep: Uniform(keep=...) must be in (0, 1], got 2",
        "Selection(rows=...) must be distinct": None,
        "--output_dir 'x' holds a finished run": None,
        "history_key='a', 'output_dir', a/output_dir": "--history_key 'a', 'output_dir', a/output_dir",
        "the seed of this run": None,
        "two\nlines": "two lines",
    }.items():
        assert as_typed(message) == (typed or message)


@pytest.mark.parametrize("name", RECIPES)
def test_help_of_recipes_shows_no_doubled_percent(recipes, capsys, name):
    with pytest.raises(SystemExit) as caught:
        recipes[name].main(["--help"])
    assert caught.value.code == 0
    assert "%%" not in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("[bc]*.py")), ids=lambda path: path.stem)
def test_help_of_other_scripts_shows_no_doubled_percent(path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as caught:
        load(path.stem).main()
    assert caught.value.code == 0
    assert "%%" not in capsys.readouterr().out


def test_only_policies_that_can_do_with_less_say_so():
    for name in policies.names():
        cls = policies.find(name)
        if cls.instead:
            other = cls(**cls.instead, **({"keep": 1} if name == "forgetting" else {}))
            assert "correct" not in other.needs


# ---- Several processes ----


def test_another_process_speaks_only_where_it_is_left(monkeypatch, capsys):
    waited = []
    monkeypatch.setattr(words.time, "sleep", waited.append)
    monkeypatch.setenv("RANK", "1")
    for refused in (lambda: words.refuse("mine alone"), lambda: parse(CommonArguments, argv=["--policy", "x"])):
        with pytest.raises(SystemExit):
            refused()
        assert waited.pop() and capsys.readouterr().err.startswith("process 1: ")
    with pytest.raises(SystemExit) as caught, interruptible(lambda: "words"):
        raise KeyboardInterrupt
    assert caught.value.code == 130 and capsys.readouterr().err == "" and not waited


@pytest.mark.slow
def test_of_two_processes_one_speaks(tmp_path):
    flags = f"--train_file text_classification.csv {SHORT} --label_column lable"
    call = command("text_classification", *flags.split(), config="two")
    done = subprocess.run(call, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 1  # the launcher's
    assert done.stderr.count("text_classification.py: error: ") == 1
    assert "process 1: " not in done.stderr and 'recipes/text_classification.py", line' not in done.stderr


# ---- Ctrl-C ----


@pytest.fixture
def signals():
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def test_what_a_recipe_says_that_is_interrupted(recipes, monkeypatch, capsys, signals):
    argv = f"--train_file text_classification.csv {SHORT} --model_size tiny --output_dir out --push_to_hub_token hf_x"
    argv = argv.replace("--push_to_hub_token", "--hub_token") + " --resume_from_checkpoint False"
    monkeypatch.setattr(sys, "argv", ["text_classification.py", *argv.split()])

    def interrupted(where):
        def interrupt(*args, **kwargs):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(recipes["text_classification"], where, interrupt)
            with pytest.raises(SystemExit) as caught:
                run(recipes["text_classification"].main)
        assert caught.value.code == 130
        return capsys.readouterr().err.strip().splitlines()[-1]

    start = "text_classification.py: interrupted. "
    assert interrupted("parse").startswith(f"{start}Nothing had begun; this begins: python ")
    said = interrupted("load_texts")
    assert said.startswith(f"{start}No checkpoint had been saved; this begins anew: python ")
    assert "hf_x" not in said and "--hub_token TOKEN" in said and "resume_from_checkpoint" not in said
    Path("out", "checkpoint-4").mkdir(parents=True)
    Path("out", "checkpoint-4", "trainer_state.json").write_text("{}")
    monkeypatch.setattr("hf_prune.recipe.session.last_whole", lambda folder, warn: str(Path(folder, "checkpoint-4")))
    assert interrupted("load_texts").startswith(f"{start}This goes on from {Path('out', 'checkpoint-4')}: python ")


@pytest.mark.slow
def test_ctrl_c_ends_a_recipe_with_the_command_that_goes_on(tmp_path):
    flags = "--train_file text_classification.csv --use_cpu --report_to none --num_train_epochs 500 --output_dir out"
    recipe = str(ROOT / "recipes" / "text_classification.py")
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, recipe, *flags.split()], cwd=tmp_path, env=environment(), stdout=log, stderr=log
        )
    deadline = time.time() + 200
    while not list(tmp_path.glob("out/checkpoint-*/trainer_state.json")) and time.time() < deadline:
        assert process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(100) == 130
    said = (tmp_path / "log").read_text()
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if "interrupted" in line]
    assert len(lines) == 1 and "This goes on from out/checkpoint-" in lines[0]
    assert lines[0].endswith(f": python {recipe} {flags}")


def test_ctrl_c_ends_a_comparison_and_its_runs(tmp_path):
    fake, compare = str(ROOT / "tests" / "support" / "fake_recipe.py"), str(ROOT / "recipes" / "compare.py")
    flags = [fake, "--seeds", "1", "--output_dir", "out", "--", "--num_train_epochs", "4", "--wait", "go"]
    process = subprocess.Popen(
        [sys.executable, compare, *flags], cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.time() + 100
    while not (tmp_path / "out/arms/full/seed-1/checkpoint-1").exists() and time.time() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 130 and "Traceback" not in said
    assert f"compare.py: interrupted. The runs that have ended are kept; this goes on: python {compare} {fake}" in said
    (tmp_path / "go").touch()
    time.sleep(0.5)
    assert not (tmp_path / "out/arms/full/seed-1/results.json").exists()  # the run is gone, and not let go on


def test_ctrl_c_ends_scoring(tmp_path):
    (tmp_path / "script.py").write_text("import time\nopen('begun', 'w').close()\ntime.sleep(100)\n")
    call = [sys.executable, "-m", "hf_prune.cli", "score", "--policy", "el2n", "--", "script.py"]
    process = subprocess.Popen(call, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 100
    while not (tmp_path / "begun").exists() and time.time() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=50)
    assert process.returncode == 130 and "Traceback" not in said
    assert "interrupted. What has ended is kept; this goes on: python -m hf_prune.cli score --policy el2n --" in said
