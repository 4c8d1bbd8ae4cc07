"""What is a secret, and which paths are those of a machine, wherever they stand in a text."""

import json
import shlex
import sys
import time
from dataclasses import fields
from pathlib import Path, PureWindowsPath

import pytest
from transformers import Seq2SeqTrainingArguments

from hf_prune.common import privacy
from hf_prune.common.command import again
from hf_prune.common.privacy import (
    hide,
    hide_arguments,
    hide_values,
    holds_secret,
    public,
    public_arguments,
    public_value,
    secret_word,
)

TOKEN = "hf_" + "aB3" * 11


@pytest.mark.parametrize(
    ("name", "word"),
    [
        *(("hub_token", "TOKEN"), ("HF_TOKEN", "TOKEN"), ("hub-token", "TOKEN"), ("accessToken", "TOKEN")),
        *(("push_to_hub_token", "TOKEN"), ("use_auth_token", "AUTH"), ("mytoken", "TOKEN"), ("token", "TOKEN")),
        *(("api_key", "KEY"), ("apikey", "KEY"), ("WANDB_API_KEY", "KEY"), ("key", "KEY"), ("private-key", "KEY")),
        *(("password", "PASSWORD"), ("db_passwd", "PASSWD"), ("passphrase", "PASSPHRASE"), ("pwd", "PWD")),
        *(("client_secret", "SECRET"), ("aws_secret_access_key", "SECRET"), ("credentials", "CREDENTIAL")),
        ("Authorization", "AUTH"),
    ],
)
def test_a_secret_is_told_by_its_name(name, word):
    assert secret_word(name) == word
    assert hide_arguments([f"--{name}", "sesame", "--seed", "3"]) == [f"--{name}", word, "--seed", "3"]
    assert hide_arguments([f"--{name}=a, sesame=b", "x"]) == [f"--{name}={word}", "x"]
    assert hide_arguments([f"{name}=sesame", "python", "x.py"]) == [f"{name}={word}", "python", "x.py"]
    assert json.loads(hide(json.dumps({"a": [{name: "sesame"}]}))) == {"a": [{name: word}]}
    assert public_value("model_kwargs", {"a": ({name: "sesame"},)}) == {"a": [{name: word}]}
    assert hide(f"Mine({name.replace('-', '_')}='a, sesame', keep=0.5)").endswith(f"='{word}', keep=0.5)")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("include_num_input_tokens_seen", "all"), ("num_input_tokens_seen", 300), ("max_new_tokens", "32")),
        *(("unit", "tokens"), ("history_key", "id"), ("tokenizer_name", "ann/tiny"), ("label_column", "key")),
        *(("pad_token", "[PAD]"), ("eos_token", "</s>"), ("eos_token_id", "2"), ("special_tokens", "<a>")),
        *(("token_budget", "1e6"), ("num_key_value_heads", "2"), ("use_auth_token", "True"), ("hub_token", None)),
        *(("author", "ann"), ("hub_token", ""), ("tokens", "all"), ("metric_key_prefix", "eval"), ("key", 3)),
        *(("keep", "0.5"), ("token_type_ids", "x"), ("decoder_start_token_id", "x"), ("keep_in_memory", "x")),
    ],
)
def test_a_count_a_switch_or_a_name_that_is_known_is_no_secret(name, value):
    assert secret_word(name, value) is None
    if isinstance(value, str):
        assert hide_arguments([f"--{name}", value, f"--{name}={value}"]) == [f"--{name}", value, f"--{name}={value}"]
        assert not holds_secret(name, value)
    assert public_value("", {name: value}) == {name: value}


def test_of_stocks_arguments_the_tokens_alone_are_secret():
    kinds = {field.name: str(field.type) for field in fields(Seq2SeqTrainingArguments) if secret_word(field.name)}
    assert [name for name, kind in kinds.items() if "str" in kind] == ["hub_token"]  # others are numbers and switches


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (TOKEN, "TOKEN"),
        (f"see {TOKEN}, and go", "see TOKEN, and go"),
        (f"https://ann:{TOKEN}@hub/x", "https://SECRET@hub/x"),
        ("postgresql://ann:sesame@host:5432/db", "postgresql://SECRET@host:5432/db"),
        ("git+https://sesame@github.com/ann/x", "git+https://SECRET@github.com/ann/x"),
        ("https://host/x?token=sesame&page=2", "https://host/x?token=TOKEN&page=2"),
        ("Authorization: Bearer sesame123", "Authorization: Bearer SECRET"),
        ("pretrained=ann/x,token=sesame,dtype=bf16", "pretrained=ann/x,token=TOKEN,dtype=bf16"),
        ("model_args=token=sesame", "model_args=token=TOKEN"),
        ("a=" * 5000 + "token=sesame", "a=" * 5000 + "token=TOKEN"),
        ("a='token=sesame'", "a='token=TOKEN'"),
        ("{'token': 'sesame', 'n': 3}", "{'token': 'TOKEN', 'n': 3}"),
        ("infobatch:ratio=0.5,anneal=0.9", "infobatch:ratio=0.5,anneal=0.9"),
        ("hf_prune", "hf_prune"),
        ("recipes/hf_translate.py", "recipes/hf_translate.py"),
    ],
)
def test_secrets_within_a_text(text, shown):
    assert hide(text) == shown == hide(shown)
    assert holds_secret("run_name", text) == (text != shown)


PATHS = ["/data/ann/my data/x.csv", "~/data/x.csv", "~ann/x.csv", "../secret/x.csv", "./secret/x.csv"]
PATHS += ["C:\\Data\\ann\\x.csv", "C:/Data/ann/x.csv", "\\\\server\\share\\x.csv", "file:///data/ann/x.csv"]
PATHS += ["file://localhost/data/ann/x.csv", "file:///C:/Data/ann/x.csv", "sqlite:////data/ann/x.csv"]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_shortened_wherever_it_stands(path):
    assert public(path) == "x.csv"
    assert public_arguments(["--train_file", path, f"--test_file={path}"]) == [
        *("--train_file", "x.csv", "--test_file=x.csv")
    ]
    assert json.loads(public(json.dumps({"a": [path], "n": 3}))) == {"a": ["x.csv"], "n": 3}
    assert public(repr({"a": path})) == "{'a': 'x.csv'}"
    assert public(f"Mine(scores={path!r}, keep=0.5)") == "Mine(scores='x.csv', keep=0.5)"
    if " " not in path:
        assert public(f"ours.mine:scores={path},keep=0.5") == "ours.mine:scores=x.csv,keep=0.5"
        assert public(f"see {path}, or ({path})") == "see x.csv, or (x.csv)"
        assert public(f"{path},{path}") == "x.csv,x.csv"
    assert public_value("f", Path("/data/ann/x.csv")) == public_value("f", PureWindowsPath("C:/a/x.csv")) == "x.csv"


@pytest.mark.parametrize(
    "text",
    [
        *("data/train.csv", "ann/tiny", "embedded corpus", "ours.mine:keep=0.5", "https://host/data/ann/x", "and/or"),
        *("s3://bucket/data/x", "hf://datasets/ann/x", "1/2", "Uniform(keep=0.5, unit='tokens')", "a / b", "~", "3:1"),
        *('{"lr": 0.1}', "{not json", "[CLS]", "a=b=c", "", "2 * 3 ~ 6"),
    ],
)
def test_what_names_no_place_of_this_machine_stays(text):
    assert public(text) == text


def test_a_command_is_told_from_others_but_for_its_secrets():
    typed = shlex.split(f"HF_TOKEN=a python /data/ann/x.py --hub_token b --db https://a:b@h {TOKEN}")
    typed += ["--kw", '{"token": "c"}']
    hidden = hide_arguments(typed)
    assert hidden == hide_arguments(hidden)
    assert hidden[2] == "/data/ann/x.py" and public_arguments(typed)[2] == "x.py"
    other = [part.replace('"c"', '"d"') for part in typed]
    assert hide_arguments(other) == hidden


def test_what_a_command_prints_is_shown_without_what_it_was_given():
    command = ["x.py", "--hub_token", "sesame", "--kw", '{"token": "deep"}', "--password=a b", "KEY=mine", "--n", "3"]
    said = f"KeyError: 'token' in sesame; deep, a b! mine; mines (https://u:p@h) {TOKEN} key=lambda x: 3"
    assert hide_values(said, command) == (
        "KeyError: 'token' in SECRET; SECRET, SECRET! SECRET; mines (https://SECRET@h) TOKEN key=lambda x: 3"
    )


def test_the_command_that_goes_on_is_told_without_secrets(monkeypatch):
    typed = ["--api_key", "sesame", "--hub_token=sesame", "--seed", "3", "--resume_from_checkpoint", "x", "--n", "4"]
    monkeypatch.setattr(sys, "argv", ["x.py", *typed])
    told = again("resume_from_checkpoint")
    assert told.endswith("--api_key KEY --hub_token=TOKEN --seed 3 --n 4")


@pytest.mark.parametrize("part", ["a=", "pad_token=", "key=1,", "a='", "'a': "])
def test_twice_the_text_is_twice_the_work(part, monkeypatch):
    def read_of(text):
        """Characters of names and values that were looked at."""
        read = []

        def look(name, value="x"):
            read.append(len(name) + len(value))
            return secret_word(name, value)

        monkeypatch.setattr(privacy, "secret_word", look)
        hide(text)
        return sum(read)

    assert read_of(part * 1000) <= 2.1 * read_of(part * 500)


@pytest.mark.parametrize("part", ["x", "x.", "x-", "a+", "a=", "bos_", "'a", "aA", "sk-", "://a", "token_"])
def test_a_text_of_any_length_is_soon_read(part):
    long = part * (200_000 // len(part))
    begin = time.perf_counter()
    for text in (long, f"{long}token=sesame"):
        hide(text), public(text), secret_word(text, text)
    assert time.perf_counter() - begin < 5
    assert hide(f"{long} token=sesame").endswith(" token=TOKEN")
