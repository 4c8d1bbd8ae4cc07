"""What a card adds to stock's, whichever trainer wrote that; and what of a machine is never shown."""

import math

import pytest
from huggingface_hub import ModelCard
from tiny import TASKS, Collator, trainer
from transformers import Trainer

from hf_prune import pruned
from hf_prune.common.privacy import public, public_arguments
from hf_prune.compare import page
from hf_prune.policies import make
from hf_prune.report.card import (
    BASELINES,
    COMPARISON,
    baselines,
    budget,
    renew_baselines,
    reproduction,
    tags_of,
    write_card,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/data/ann/data/train.csv", "train.csv"),
        ("~/data/train.csv", "train.csv"),
        ("../secret/train.csv", "train.csv"),
        ("data/train.csv", "data/train.csv"),
        ("ann/tiny", "ann/tiny"),
        ("embedded corpus", "embedded corpus"),
    ],
)
def test_a_path_of_this_machine_is_shortened(text, shown):
    assert public(text) == shown


def test_a_command_is_shown_without_paths_and_tokens():
    said = ["recipes/translate.py", "--train_file", "/data/ann/train.csv", "--hub_token", "hf_x", "--seed", "3"]
    shown = "recipes/translate.py --train_file train.csv --hub_token TOKEN --seed 3"
    assert " ".join(public_arguments(said)) == shown
    assert public_arguments(["--output_dir=/data/out", "--hub-token=hf_x"]) == ["--output_dir=out", "--hub-token=TOKEN"]


def test_tags_and_budget_are_the_policys(monkeypatch):
    assert tags_of(make("infobatch")) == ["hf_prune", "infobatch"]
    assert budget(make("uniform:keep=0.35,unit=tokens")) == "The budget was 35 % of the tokens in each round."
    assert budget(make("uniform:keep=0.25->0.75")) == (
        "The budget was 50 % of the rows on average, between 25 % and 75 % (`0.25->0.75`)."
    )
    assert budget(make("infobatch")).startswith("No budget was set")


def card_at(folder, text="# tiny\n", head="---\nlibrary_name: x\nlicense: mit\n---\n"):
    path = folder / "README.md"
    path.write_text(head + text)
    return path


SCORES = {"bleu": 37.5, "matthews": 0.6, "chrf": math.nan, "exact": True, "signature": "nrefs:1"}


def test_scores_stand_where_the_hub_reads_them(tmp_path):
    path = card_at(tmp_path)
    about = {"task_type": "translation", "dataset_type": "multi30k", "dataset_name": "Multi30k", "dataset_split": None}
    write_card(path, ["## One", "## Two\n"], SCORES, **about)
    card = ModelCard.load(path)
    assert (card.data.license, card.data.library_name) == ("mit", "x")  # what stood there stays
    assert card.data.model_name == tmp_path.name
    found = [
        (score.task_type, score.dataset_type, score.metric_type, score.metric_value) for score in card.data.eval_results
    ]
    place = ("translation", "multi30k")
    assert found == [(*place, "bleu", 37.5), (*place, "matthews_correlation", 0.6)]
    assert card.text.split() == ["#", "tiny", "##", "One", "##", "Two"]


@pytest.mark.parametrize("name", ["", "None"])  # stock's and TRL's for a model of no name
def test_a_model_from_scratch_is_no_fine_tuned_version(tmp_path, name):
    said = f"This model is a fine-tuned version of [{name}](https://huggingface.co/{name}) on beans."
    write_card(path := card_at(tmp_path, said))
    assert ModelCard.load(path).text.strip() == "This model was trained from scratch on beans."
    write_card(path := card_at(tmp_path, said), base="mine")
    assert "This model is a fine-tuned version of `mine` (a model that is not on the Hub) on beans." in path.read_text()
    write_card(path := card_at(tmp_path, "It is a fine-tuned version of [ann/it](https://huggingface.co/ann/it)."))
    assert "[ann/it](" in ModelCard.load(path).text


def test_a_base_on_this_machine_is_no_model_of_the_hub(tmp_path):
    """As PEFT writes it."""
    head = "---\nbase_model: /data/ann/base\ntags:\n- base_model:adapter:/data/ann/base\n- lora\n---\n"
    write_card(path := card_at(tmp_path, head=head), base="base")
    data = ModelCard.load(path).data
    assert (data.get("base_model"), data.tags) == (None, ["lora"]) and "/data/ann" not in path.read_text()


@pytest.mark.parametrize("about", [{"task_type": "translation"}, {"dataset_type": "x", "dataset_name": "x"}])
def test_scores_without_a_place_are_left_out(tmp_path, about):
    path = card_at(tmp_path)
    write_card(path, metrics={"bleu": 37.5}, **about)
    assert "model-index" not in path.read_text()


def test_a_run_of_a_comparison_shows_its_rivals(tmp_path, monkeypatch):
    run = tmp_path / "arms" / "infobatch" / "seed-1"
    run.mkdir(parents=True)
    assert "None was run beside this" in baselines(run)
    monkeypatch.setattr("hf_prune.compare.page.table", lambda found: (["arm", "BLEU"], [["full", "37.0"]]))
    (tmp_path / BASELINES).write_text(page.baselines({"arms": [{"conclusion": "full: 37.0 BLEU."}]}))
    assert baselines(run).splitlines()[2:] == [
        "- full: 37.0 BLEU.",
        "",
        "| arm | BLEU |",
        "| --- | ---: |",
        "| full | 37.0 |",
    ]
    assert "None was run beside this" in baselines(tmp_path / "other" / "run")  # lies below it, but is none of its runs


def test_a_comparison_of_an_earlier_version_is_to_be_made_again(tmp_path):
    """It has written no section for the cards of its runs; the command that reads it does, and renews them."""
    run = tmp_path / "arms" / "infobatch" / "seed-1"
    run.mkdir(parents=True)
    (tmp_path / COMPARISON).touch()
    assert "`hf-prune compare --output_dir FOLDER`" in baselines(run)
    assert "None was run beside this" in baselines(tmp_path / "other" / "run")
    (tmp_path / BASELINES).write_text("- full: 37.0 BLEU.")
    assert baselines(run).endswith("- full: 37.0 BLEU.")


def test_a_card_is_renewed_when_its_comparison_has_ended(tmp_path, monkeypatch):
    run = tmp_path / "arms" / "infobatch" / "seed-1"
    run.mkdir(parents=True)
    renew_baselines(run)  # the run has no card
    write_card(path := card_at(run), ["## Data pruning", baselines(run), "### How to reproduce\n\nSo."])
    before = path.read_text()
    monkeypatch.setattr("hf_prune.compare.page.table", lambda found: (["arm", "BLEU"], [["full", "37.0"]]))
    (tmp_path / BASELINES).write_text(page.baselines({"arms": [{"conclusion": "full: 37.0 BLEU."}]}))
    renew_baselines(run)
    start, _, end = path.read_text().partition(baselines(run))
    assert "None was run" in before and before.startswith(start) and before.endswith(end) and "### How to" in end
    assert start.endswith("## Data pruning\n\n")


# ---- Through a trainer ----

TASK = TASKS["one label"]


def trained(folder, **settings):
    made = trainer(folder, TASK.model(), TASK.rows(), "uniform:keep=0.5", eval_dataset=TASK.rows(8), **settings)
    made.train()
    return made


def test_scores_are_those_of_the_last_validation_unless_given(tmp_path):
    made = trained(tmp_path, eval_strategy="epoch", num_train_epochs=2)
    made.create_model_card(dataset="my beans", dataset_tags="beans")
    (score,) = ModelCard.load(tmp_path / "README.md").data.eval_results
    losses = [entry["eval_loss"] for entry in made.state.log_history if "eval_loss" in entry]
    assert (score.metric_type, score.metric_value, score.dataset_split) == ("loss", losses[-1], None)
    assert (score.task_type, score.dataset_type, score.dataset_name) == ("text-classification", "my-beans", "my beans")
    made.create_model_card(
        dataset="/data/ann/beans.csv", metrics={"accuracy": 0.5}, split="test", command="python x.py"
    )
    text = (tmp_path / "README.md").read_text()
    (score,) = ModelCard(text).data.eval_results
    assert (score.metric_type, score.metric_value, score.dataset_split) == ("accuracy", 0.5, "test")
    assert text.count("## Data pruning") == text.count("### How to reproduce") == 1
    assert "```bash\npython x.py\n```" in text and "/data/ann" not in text
    assert any("prune/rows" in entry for entry in made.state.log_history)  # the log itself is left alone


def test_the_card_is_of_the_run_whatever_was_set_since(tmp_path):
    made = trained(tmp_path / "run", num_train_epochs=1)
    made.policy = "ucb:keep=0.2"
    made.model.config._name_or_path = str(tmp_path / "gone")  # a folder of this machine, which is no more
    made.create_model_card()
    text = (tmp_path / "run" / "README.md").read_text()
    assert "by `Uniform(keep=0.5" in text and "The budget was 50 %" in text and "ucb" not in text.lower()
    assert "fine-tuned version of `gone`" in text and str(tmp_path) not in text and "base_model" not in text
    assert "- versions: python " in text and "from hf_prune.policies.uniform import Uniform" in text
    assert made.pruning_report().policy.startswith("Uniform(")


def test_the_plain_trainer_writes_the_stock_card_with_the_scores_it_is_given(tmp_path):
    made = trainer(tmp_path, TASK.model(), TASK.rows(), None, num_train_epochs=1)
    made.train()
    made.create_model_card(dataset="beans", tasks="text-classification")
    assert "pruning" not in (tmp_path / "README.md").read_text()
    made.create_model_card(dataset="beans", tasks="text-classification", metrics={"accuracy": 0.5})
    card = ModelCard.load(tmp_path / "README.md")
    assert "hf_prune" not in card.data.tags and card.data.eval_results[0].metric_value == 0.5


def test_an_unknown_argument_is_no_more_welcome_than_in_stock(tmp_path):
    with pytest.raises(TypeError, match="colour"):
        trained(tmp_path, num_train_epochs=1).create_model_card(colour="blue")


class Carded(Trainer):
    """A trainer whose card takes what TRL's takes."""

    def create_model_card(self, model_name=None, dataset_name=None, tags=None):
        super().create_model_card(model_name=model_name, dataset=dataset_name, tags=tags)


def test_a_card_that_takes_less_than_stocks_is_given_no_more(tmp_path):
    args, data = trainer(tmp_path, TASK.model(), TASK.rows(), num_train_epochs=1).args, TASK.rows()
    made = pruned(Carded)(
        model=TASK.model(), args=args, train_dataset=data, data_collator=Collator(), policy="uniform:keep=0.5"
    )
    made.train()
    made.create_model_card("tiny", dataset="beans", tasks="text-classification", metrics={"accuracy": 0.5})
    card = ModelCard.load(tmp_path / "README.md")
    assert {"hf_prune", "uniform"} <= set(card.data.tags)
    assert card.data.eval_results[0].dataset_name == "beans"
    made.create_model_card(dataset_name="/data/ann/peas", metrics={"accuracy": 0.5})
    assert ModelCard.load(tmp_path / "README.md").data.eval_results[0].dataset_name == "peas"


def test_a_damaged_comparison_costs_no_card(tmp_path):
    run = tmp_path / "arms" / "infobatch" / "seed-1"
    run.mkdir(parents=True)
    (tmp_path / BASELINES).write_bytes(b"\xff\xfe")
    assert "can't be read: baselines.md is damaged" in baselines(run)


def test_conclusions_of_others_stay_words(tmp_path, monkeypatch):
    run = tmp_path / "arms" / "infobatch" / "seed-1"
    run.mkdir(parents=True)
    evil = "x: <img src=y>\n\n# [z](http://z)\n---"
    monkeypatch.setattr("hf_prune.compare.page.table", lambda found: (["arm"], [[evil]]))
    (tmp_path / BASELINES).write_text(page.baselines({"arms": [{"conclusion": evil}]}))
    text = baselines(run)
    assert "<img" not in text and "[z](" not in text.replace("\\[z\\](", "") and "\n#" not in text.replace("### B", "")


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("python x.py --seed 3 \\\n    --name 'a b'", "python x.py --seed 3 \\\n    --name 'a b'"),
        ("HF_TOKEN=sesame python /data/ann/x.py", "HF_TOKEN=TOKEN python x.py"),
        ('python x.py --kw \'{"token": "sesame"}\'', 'python x.py --kw \'{"token": "TOKEN"}\''),
        ("python 'x.py --token=sesame", "python 'x.py --token=TOKEN"),
    ],
)
def test_a_command_of_the_users_own_is_shown_without_its_secrets(command, shown):
    assert f"```bash\n{shown}\n```" in reproduction(make("infobatch"), command, {})
