"""The flags of a recipe: what is read, what is shown, what is refused and how."""

import dataclasses
import json
import re
import sys

import pytest
from transformers import Seq2SeqTrainingArguments, TrainingArguments

import hf_prune.policies as registry
from hf_prune.policies.infobatch import InfoBatch
from hf_prune.policies.uniform import Uniform
from hf_prune.recipe import arguments as flags
from hf_prune.recipe.arguments import parse


@dataclasses.dataclass
class RecipeArguments:
    """What the recipe asks.

    Args:
        train_file: The file; 100% of it is read,
            and this is its second line.
        source_lang (str): A language: as in en.
        shuffled: Whether it is shuffled.

            A second paragraph.
        sizes: Some sizes.

    Raises:
        ValueError: Never.
    """

    train_file: str | None = None
    source_lang: str = "en"
    shuffled: bool = True
    sizes: list[int] = dataclasses.field(default_factory=lambda: [1, 2])
    own: int = dataclasses.field(default=3, metadata={"help": "Its own help, 5%% of it."})


def read(*argv, **defaults):
    return parse(RecipeArguments, TrainingArguments, argv=argv, **defaults)


def refusal(capsys, *argv, **defaults):
    """The message after which the command line is given up, with status 2."""
    with pytest.raises(SystemExit) as caught:
        read(*argv, **defaults)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return re.sub(r"\s+", " ", error.partition("error: ")[2]).strip()


def belongs(field, policy):
    """What is said where another policy has the field."""
    owners = [name for name in registry.names() if field in flags._names(registry.find(name))]
    noun = "policy" if len(owners) == 1 else "policies"
    return f"--{field} belongs to {noun} {', '.join(owners)}, but --policy is {policy}."


def shown(capsys, *argv, types=(RecipeArguments, TrainingArguments), **defaults):
    """All that `--help-all` says, on one line."""
    return re.sub(r"\s+", " ", helped(capsys, *argv, "--help-all", types=types, **defaults))


def helped(capsys, *argv, types=(RecipeArguments, TrainingArguments), **defaults):
    with pytest.raises(SystemExit) as caught:
        parse(*types, argv=argv, **defaults)
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_instances_come_in_order_and_the_policy_last():
    recipe, args, policy = read("--policy", "infobatch", "--ratio", "0.3", "--source-lang", "fr", "--max_steps", "7")
    assert recipe == RecipeArguments(source_lang="fr")
    assert type(args) is TrainingArguments and args.max_steps == 7
    assert policy == InfoBatch(ratio=0.3)


@pytest.mark.parametrize(
    ("argv", "policy"),
    [
        ([], None),
        (["--policy", "none"], None),
        (["--policy", "uniform"], Uniform()),
        (["--policy=uniform", "--keep", "0.4", "--unit", "tokens"], Uniform(keep=0.4, unit="tokens")),
        (["--policy", "infobatch:ratio=0.3"], InfoBatch(ratio=0.3)),
        (["--policy", "infobatch:ratio=0.3,anneal=0.5", "--ratio", "0.2"], InfoBatch(ratio=0.2, anneal=0.5)),
        (["--policy", "hf_prune.policies.uniform"], Uniform()),
        (["--policy", "hf_prune.policies.uniform.Uniform:keep=0.9"], Uniform(keep=0.9)),
    ],
)
def test_policies(argv, policy):
    assert read(*argv)[-1] == policy


def test_a_module_of_the_users_own(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_rules.py").write_text(
        '"""Mine: the first rows."""\n'
        "from dataclasses import dataclass\n"
        "import numpy as np\n"
        "from hf_prune import Policy, Selection\n"
        "@dataclass(frozen=True)\n"
        "class First(Policy):\n"
        '    """Keep the first rows.\n\n    Args:\n        many: How many, 10% say.\n    """\n'
        "    many: int\n"
        "    def select(self, history, clock, rng):\n"
        "        return Selection(np.arange(self.many))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    policy = read("--policy", "my_rules.First", "--many", "4")[-1]
    assert type(policy).__name__ == "First" and policy.many == 4
    assert "required: --many" in refusal(capsys, "--policy", "my_rules.First")
    assert "How many, 10% say." in shown(capsys, "--policy", "my_rules.First")


def test_defaults_stand_behind_flags():
    given = {"policy": "infobatch", "ratio": 0.25, "learning_rate": 1e-3, "source_lang": "fr", "sizes": [5]}
    recipe, args, policy = read(**given)
    assert (recipe.source_lang, recipe.sizes, args.learning_rate, policy.ratio) == ("fr", [5], 1e-3, 0.25)
    argv = ["--ratio", "0.1", "--learning_rate", "2e-3", "--source_lang", "de", "--sizes", "7", "8"]
    recipe, args, policy = read(*argv, **given)
    assert (recipe.source_lang, recipe.sizes, args.learning_rate, policy.ratio) == ("de", [7, 8], 2e-3, 0.1)
    assert read("--policy", "infobatch:ratio=0.4", **given)[-1].ratio == 0.4
    assert read("--no_shuffled")[0].shuffled is False
    assert read("--shuffled", shuffled=False)[0].shuffled is True
    assert RecipeArguments() == RecipeArguments(sizes=[1, 2], source_lang="en")  # the class is as it was


def test_a_policys_default_counts_where_the_policy_has_the_field():
    assert read("--policy", "uniform", unit="tokens")[-1] == Uniform(unit="tokens")
    assert read("--policy", "uniform:keep=0.5", unit="tokens")[-1] == Uniform(keep=0.5, unit="tokens")
    assert read("--policy", "uniform:unit=rows", unit="tokens")[-1] == Uniform(unit="rows")
    assert read("--policy", "infobatch", unit="tokens")[-1] == InfoBatch()
    assert read(unit="tokens")[-1] is None


def test_an_unknown_default_is_the_recipes_fault():
    with pytest.raises(TypeError, match=r"parse\(lerning_rate=\.\.\.\).*did you mean learning_rate\?"):
        read(lerning_rate=1)


def test_arguments_of_this_process(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["recipe.py", "--policy", "uniform"])
    assert parse(RecipeArguments) == (RecipeArguments(), Uniform())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--lerning_rate", "1"], "unknown flag --lerning_rate. Did you mean --learning_rate?"),
        (["--lerning-rate=1"], "unknown flag --lerning-rate. Did you mean --learning_rate?"),
        (["--zzz"], "unknown flag --zzz. See --help."),
        (["--learning"], "unknown flag --learning. "),  # no abbreviations
        (["--policy", "uniform", "--ratio", "0.3"], belongs("ratio", "uniform")),
        (["--policy", "uniform:keep=1", "--ratio=1"], belongs("ratio", "uniform")),
        (["--keep", "0.3"], belongs("keep", "none")),
        (
            ["--policy", "uniform", "--keep", "a->b"],
            "--keep: invalid float value: 'a->b'; a ramp is written '0.3->1.0'",
        ),
        (["--policy", "infobatch", "--ratio", "1"], "InfoBatch(ratio=...) must be in [0, 1), got 1.0."),
        (["--policy", "infobatch:ratio=1"], "InfoBatch(ratio=...) must be in [0, 1), got 1."),
        (["--policy", "infobatch:rate=1"], "'rate=1' is not a setting of infobatch, which takes ratio=..., anneal=..."),
        (["--policy", "infobach"], "Unknown policy 'infobach'. Did you mean 'infobatch'?"),
        (["--policy", "no.such.module"], "there is no module 'no' to import."),
        (["--policy"], "--policy: expected one argument"),
        (["--policy", "infobatch", "--ratio", "half"], "--ratio: invalid float value: 'half'"),
        (["--policy", "trim", "--noise", "some"], "--noise: invalid float value: 'some'; give a number or auto."),
        (["--policy", "uniform", "--unit", "bytes"], "--unit: invalid choice: 'bytes'"),
        (["infobatch"], "unexpected argument 'infobatch'; a value follows its flag"),
        (["--save_strategy", "epoch", "--load_best_model_at_end"], "the save and eval strategy to match"),
        (["missing.json"], "missing.json can't be read: "),
    ],
)
def test_refused(capsys, argv, message):
    assert message in refusal(capsys, *argv)


def test_a_budget_may_be_a_number_a_ramp_or_a_cycle():
    for text, keep in (("0.5", 0.5), ("0.3->1.0", "0.3->1.0"), ("0.5~0.3x4", "0.5~0.3x4")):
        typed, named = (
            parse(TrainingArguments, argv=argv)[1]
            for argv in (["--policy", "uniform", "--keep", text], ["--policy", f"uniform:keep={text}"])
        )
        assert typed == named and typed.keep == keep


def test_help_tells_defaults_and_meanings(capsys):
    text = shown(capsys, policy="infobatch", learning_rate=0.125, ratio=0.375)
    assert "The file; 100% of it is read, and this is its second line. (default: None)" in text
    assert "A language: as in en. (default: en)" in text
    assert "Whether it is shuffled. (default: True)" in text and "A second paragraph" not in text
    assert "Its own help, 5% of it. (default: 3)" in text
    assert "(default: 0.125)" in text
    assert "--policy NAME" in text and "(default: infobatch)" in text
    assert re.search(r"--ratio RATIO .* in \[0, 1\)\. \(default: 0\.375\)", text)
    for name in registry.names():
        assert re.search(rf" {name} +{re.escape(registry.card_of(registry.find(name)).title)}", text)
    assert " none " in text and "--keep" not in text
    assert "--keep" in shown(capsys, policy="uniform") and "--ratio" not in shown(capsys)


def test_the_short_help_begins_with_the_policy_and_leaves_out_what_few_runs_need(capsys):
    text = helped(capsys, "--policy", "infobatch:ratio=0.25", "-h", learning_rate=0.125)
    lines = text.splitlines()
    assert len(lines) < 120 and max(map(len, lines)) <= 120
    begins = [text.index(part) for part in ("data pruning:", "--ratio 0.25", "What the recipe asks:", "training, the")]
    assert begins == sorted(begins)
    assert "--own 3                         Its own help, 5% of it\n" in text
    assert "--sizes 1 2 " in text and "--train_file   " in text and "--learning_rate 0.125" in text
    assert "--train-file" not in text and "--adam_beta1" not in text and "--keep" not in text
    assert "--adam_beta1" in shown(capsys) and "data pruning:" in shown(capsys)
    hidden = int(re.search(r"\((\d+) more: --help-all\)", text)[1])
    usual = text.partition("training, the")[2].partition("policies (")[0].count("\n  --")
    assert hidden + usual == len([field for field in dataclasses.fields(TrainingArguments) if field.init])
    names = re.sub(r"\s+", " ", text.partition("policies (")[2])
    assert all(f" {name}," in names for name in registry.names()) and names.endswith(" none ")


@pytest.mark.parametrize("types", [(TrainingArguments,), (RecipeArguments, Seq2SeqTrainingArguments)])
@pytest.mark.parametrize("name", registry.names())
def test_every_policy_has_a_command_line(capsys, name, types):
    text = shown(capsys, "--policy", name, types=types)
    for field in dataclasses.fields(registry.find(name)):
        assert f"--{field.name} " in text
        assert flags.field_texts(registry.find(name)).get(field.name), f"{field.name} is not in the docstring's Args"


def test_training_arguments_without_help_take_their_docstrings(capsys):
    documented = {field.name for field in dataclasses.fields(TrainingArguments) if not field.metadata.get("help")}
    texts = flags.field_texts(TrainingArguments)
    assert documented <= set(texts) or not documented, documented - set(texts)
    assert texts["num_train_epochs"].startswith("Total number of training epochs to perform (if not an integer")


def test_a_field_of_two_classes_is_a_mistake_of_the_author():
    @dataclasses.dataclass
    class Clash:
        """Clashes."""

        seed: int = 0

    @dataclasses.dataclass
    class Named:
        """Clashes with the flag that parse adds."""

        policy: str = ""

    with pytest.raises(ValueError, match=r"TrainingArguments has a field 'seed', and so has Clash.*rename the field"):
        parse(Clash, TrainingArguments, argv=[])
    with pytest.raises(ValueError, match="Named has a field 'policy', and so has the flag --policy"):
        parse(Named, argv=[])


@pytest.mark.parametrize("suffix", ["json", "yaml", "yml"])
def test_a_file_of_settings(tmp_path, suffix):
    path = tmp_path / f"run.{suffix}"
    settings = {"policy": "uniform", "keep": 0.5, "learning_rate": "1e-3", "sizes": [4], "shuffled": False}
    path.write_text(json.dumps(settings))
    recipe, args, policy = read(str(path), policy="infobatch", source_lang="fr")
    assert (recipe.sizes, recipe.shuffled, recipe.source_lang, args.learning_rate) == ([4], False, "fr", 1e-3)
    assert policy == Uniform(keep=0.5)
    assert read(str(path), "--keep", "0.25")[-1] == Uniform(keep=0.25)


def test_one_value_of_a_file_is_a_list_of_one(tmp_path):
    (tmp_path / "run.yaml").write_text("sizes: 4\nlabel_names: labels\npolicy: null\n")
    recipe, args, policy = read(str(tmp_path / "run.yaml"))
    assert (recipe.sizes, args.label_names, policy) == ([4], ["labels"], None)


@pytest.mark.parametrize(
    ("text", "argv", "message"),
    [
        ('{"seed": 1.5}', [], "--seed: invalid int value: '1.5'"),
        ('{"policy": "uniform", "keep": [1]}', [], "--keep: invalid float value: '[1]'"),
        ('{"shuffled": 3}', [], "--shuffled: "),
        ('{"polic": "uniform"}', [], "unknown flag --polic. Did you mean --policy?"),
        (
            '{"policy": "uniform", "keep": 0.5}',
            ["--policy", "infobatch"],
            belongs("keep", "infobatch"),
        ),
        ("[1]", [], "must hold one mapping of field to value, not a list."),
        ("{", [], "run.json can't be read: "),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, capsys, text, argv, message):
    path = tmp_path / "run.json"
    path.write_text(text)
    assert message in refusal(capsys, str(path), *argv)
