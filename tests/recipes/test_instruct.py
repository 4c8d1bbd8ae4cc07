"""recipes/instruct.py: its corpus, the losses of held-out rows, and whole runs from the command line."""

import json

import numpy as np
import pytest
import test_trl
import torch
from datasets import Dataset
from recipe_runs import load, run, run_forked
from test_trl import QUIET, SFTConfig, losses_alone, peft
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

pytestmark = test_trl.pytestmark


@pytest.fixture(scope="module")
def instruct():
    return load("instruct")


@pytest.fixture(scope="module")
def corpus(instruct):
    return instruct.embedded_corpus()


@pytest.fixture
def recipe(instruct):
    return instruct.RecipeArguments


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


# ---- The embedded corpus ----


def test_corpus_depends_on_the_seed_alone(instruct):
    once, again, other = (instruct.embedded_corpus(rows=100, seed=seed) for seed in (1, 1, 2))
    for split in ("train", "validation", "test"):
        assert once[split].to_list() == again[split].to_list() != other[split].to_list()


def test_corpus_shares_no_instruction_between_splits(corpus):
    found = {split: set(corpus[split]["instruction"]) for split in corpus}
    assert {split: len(corpus[split]) for split in corpus} == {"train": 4000, "validation": 200, "test": 400}
    assert not found["train"] & found["test"]
    assert not found["train"] & found["validation"]
    assert not found["validation"] & found["test"]
    assert len(found["test"]) == 400  # a repeated row would count twice in the score
    assert len(found["train"]) < 3900  # but training data repeat themselves


RESPONSES = {
    "Add 51 to 74.": "125",
    "Write 2606 in words.": "two thousand, six hundred and six",
    'Write "seventy-seven" in digits.': "77",
    "Say these words from last to first: mountain, dragon, night.": "night, dragon, mountain",
    "Put stone, zebra, bread, hammer in alphabetical order.": "bread, hammer, stone, zebra",
    "Name the last of jacket, yellow, garden, island.": "island",
    "Count these words: apple, forest, guitar, uncle.": "4",
    "Write 2026-09-26 as a date in German.": "26. September 2026",
    "Which day comes after Tuesday?": "Wednesday",
    "Name month 9 of the year.": "September",
    "Format 391.36 GBP for a reader of Spanish.": "391,36\xa0GBP",
    "Convert 24 weeks to days.": "168 days",
    "Translate South Africa into Spanish.": "Sudáfrica",
    "Write 0.23 as a percentage.": "23%",
}


def test_corpus_has_these_responses_of_every_kind(instruct, corpus):
    rows = {row["instruction"]: row["response"] for split in corpus.values() for row in split}
    assert {instruction: rows.get(instruction) for instruction in RESPONSES} == RESPONSES
    assert len(RESPONSES) == len(instruct.TASKS.splitlines())


# ---- Rows ----


def messages(*texts):
    return [{"role": role, "content": text} for role, text in texts]


def test_columns_become_messages(instruct, recipe):
    rows = {"q": ["Add.", "Hi! ", ""], "more": ["1 2", None, "3 4"], "a": ["3", "Hi.", "7"], "id": [1, 2, 3]}
    found = instruct.read_rows(Dataset.from_dict(rows), recipe("q", "a", "more"), "it").to_list()
    assert [row["prompt"] for row in found] == [messages(("user", text)) for text in ("Add.\n\n1 2", "Hi!")]
    assert [row["completion"] for row in found] == [messages(("assistant", text)) for text in ("3", "Hi.")]


def test_the_last_message_is_the_response(instruct, recipe):
    talk = messages(
        ("system", "Be brief."), ("user", "Hi!"), ("assistant", "Hi."), ("user", "Bye!"), ("assistant", ".")
    )
    unanswered, empty = talk[:4], []
    said = []
    rows = Dataset.from_list([{"messages": found} for found in (talk, unanswered, empty)])
    assert instruct.read_rows(rows, recipe(), "it", said.append).to_list() == [
        {"prompt": talk[:4], "completion": talk[4:]}
    ]
    whole = "text in every message, two or more, the last one by assistant or gpt"
    assert said == [f"it: 2 of 3 rows are left out, for only those with {whole} can serve."]


def test_rows_without_a_prompt_or_a_response(instruct, recipe):
    rows = Dataset.from_dict({"instruction": ["a", "b", " ", "d"], "response": ["A", None, "C", ""]})
    said = []
    assert len(instruct.read_rows(rows, recipe(), "it", said.append)) == 1
    assert said == ["it: 3 of 4 rows are left out, for only those with a prompt and a response can serve."]
    with pytest.raises(ValueError, match=r"it has no row with a prompt and a response \(3 rows read\)"):
        instruct.read_rows(rows.select([1, 2, 3]), recipe(), "it")


def test_a_key_that_is_called_as_a_column_of_the_recipe_is_refused(instruct, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Dataset.from_dict({name: list("abcd") for name in ("instruction", "response", "prompt")}).to_json("rows.jsonl")
    with pytest.raises(ValueError, match="history_key='prompt' is a column that is trained on, or called as one"):
        instruct.main("--train_file rows.jsonl --history_key prompt --output_dir out --report_to none".split())


@pytest.mark.parametrize("flag", ["prompt_column", "response_column", "context_column"])
def test_missing_column_is_named_with_those_there_are(instruct, recipe, flag):
    rows = Dataset.from_dict({"instruction": ["a"], "response": ["A"]})
    with pytest.raises(ValueError, match=rf"{flag}='nothing': it has no such column; it has instruction, response\."):
        instruct.read_rows(rows, recipe(**{flag: "nothing"}), "it")


@pytest.mark.parametrize(
    "found",
    [
        [{"from": "human", "text": "Hi!"}],
        [{"role": None, "content": "Hi!"}],
        "a text",
        [{"role": "user", "content": [{"type": "text", "text": "Hi!"}]}],
    ],
)
def test_messages_of_another_form_are_shown_with_the_one_to_give(instruct, recipe, found):
    rows = Dataset.from_list([{"messages": found}])
    with pytest.raises(ValueError, match=r"messages: it has .* there; a row must be a list of \{'role': 'user'"):
        instruct.read_rows(rows, recipe(), "it")


def test_chats_of_sharegpt(instruct, recipe):
    talks = [[{"from": "human", "value": "1"}, {"from": "gpt", "value": "2", "weight": 1}]]
    talks.append([{"from": "system", "value": ""}, {"from": "user", "value": "3"}, {"from": "gpt", "value": "4"}])
    rows = Dataset.from_list([{"id": i, "conversations": talk} for i, talk in enumerate(talks)])
    assert instruct.read_rows(rows, recipe(), "it").to_list() == [
        {"prompt": messages(("user", "1")), "completion": messages(("assistant", "2"))},
        {"prompt": messages(("user", "3")), "completion": messages(("assistant", "4"))},
    ]


def test_rows_may_begin_with_many_that_have_no_answer(instruct, recipe):
    rows = [{"messages": messages(("user", "Hi!"))}] * 1500 + [
        {"messages": messages(("user", "1"), ("assistant", "2"))}
    ]
    assert len(instruct.read_rows(Dataset.from_list(rows), recipe(), "it", lambda text: None)) == 1


def test_messages_without_text_are_told_apart(instruct, recipe):
    """An empty system turn says nothing; a turn that calls a tool has no text to learn from; blanks are none."""
    said, rows = (
        [],
        [
            messages(("system", ""), ("user", "1"), ("assistant", " 2 ")),
            messages(("user", "1"), ("assistant", None), ("tool", "2"), ("assistant", "3")),
            messages(("user", "1"), ("assistant", "  ")),
            messages(("user", "1"), ("bot", "2")),
        ],
    )
    found = instruct.read_rows(Dataset.from_list([{"messages": row} for row in rows]), recipe(), "it", said.append)
    assert found.to_list() == [{"prompt": messages(("user", "1")), "completion": messages(("assistant", "2"))}]
    (text,) = said
    assert "3 of 4 rows are left out, for only those with text in every message, two or more" in text


def test_a_column_of_numbers_is_refused(instruct, recipe):
    rows = Dataset.from_dict({"instruction": ["1 + 1"], "response": [2]})
    with pytest.raises(ValueError, match=r"response_column='response': it has Value\('int64'\) there, no text"):
        instruct.read_rows(rows, recipe(), "it")


# ---- Tokenizer, model, metric ----


def test_tokenizer_loses_no_text(instruct):
    tokenizer = instruct.new_tokenizer(["the 21 houses"], 400)
    tokenizer.chat_template = instruct.TEMPLATE
    for text in ("Übergrößen: 1.234,50 €!", "two  spaces", "日本 🙂"):
        talk = messages(("user", text), ("assistant", "ja"))
        ids = tokenizer.apply_chat_template(talk, return_dict=True)["input_ids"]
        assert tokenizer.decode(ids) == f"<s><|user|>\n{text}\n<|assistant|>\nja</s>"
        begin = tokenizer.apply_chat_template(talk[:1], add_generation_prompt=True, return_dict=True)["input_ids"]
        assert ids[: len(begin)] == begin
    assert tokenizer.convert_ids_to_tokens(tokenizer("<|user|>21")["input_ids"]) == ["<|user|>", "2", "1"]


def test_unknown_model_size(instruct):
    with pytest.raises(ValueError, match=r"model_size='huge' is not known; give one of tiny, small, base\."):
        instruct.new_model("huge", None, 16)


def test_score_is_by_token(instruct):
    found = instruct.score(np.array([1.0, 5.0]), np.array([True, False]), np.array([2, 4]))
    assert found == {"loss": 1.0, "perplexity": pytest.approx(np.e), "exact_match": 0.5}


@torch.no_grad()
def rows_with_greedy_answers(n=11):
    """Tokens and targets, their greedy answers by turns as the model gives them and with another last token."""
    net, rng = test_trl.model(), np.random.default_rng(0)
    rows = []
    for row in range(n):
        prompt = ids = torch.tensor(rng.integers(6, 31, rng.integers(1, 6)))
        for _ in range(rng.integers(1, 6)):
            ids = torch.cat([ids, net(input_ids=ids[None]).logits[0, -1].argmax()[None]])
        if row % 2:
            ids[-1] = (ids[-1] + 1) % 31
        rows.append({"input_ids": ids.tolist(), "labels": [-100] * len(prompt) + ids[len(prompt) :].tolist()})
    return Dataset.from_list(rows)


@pytest.mark.parametrize("batch", [1, 4, 16])
@pytest.mark.parametrize(
    "form",
    [
        {},
        dict(padding_free=True, max_length=None),
        dict(padding_free=True, max_length=None, pad_to_multiple_of=16),
        dict(packing=True, max_length=24),
    ],
)
def test_held_out_rows_have_their_own_losses(instruct, tmp_path, form, batch):
    rows = rows_with_greedy_answers()
    args = SFTConfig(str(tmp_path), **QUIET, per_device_eval_batch_size=batch, eval_packing=False, **form)
    trainer = instruct.InstructTrainer(
        model=test_trl.model(),
        args=args,
        train_dataset=rows,
        processing_class=test_trl.tokenizer(),
        compute_metrics=lambda outputs: instruct.score(*outputs.predictions, outputs.label_ids),
    )
    output = trainer.predict(rows)
    nats, is_exact = output.predictions
    np.testing.assert_allclose(nats / output.label_ids, losses_alone(test_trl.model(), rows), rtol=1e-5)
    assert output.label_ids.tolist() == [sum(label != -100 for label in row["labels"]) for row in rows]
    assert is_exact.tolist() == [row % 2 == 0 for row in range(len(rows))]
    assert output.metrics["test_loss"] == pytest.approx(nats.sum() / output.label_ids.sum())


# ---- Whole runs ----

FLAGS = (
    "--train_file train.parquet --validation_file validation.parquet --test_file test.parquet --vocab_size 400 "
    "--max_length 64 --num_train_epochs 3 --per_device_train_batch_size 16 --ratio 0.7 --anneal 1 --logging_steps 1 "
    "--use_cpu True --report_to none --output_dir out --seed 3"
).split()
HELD_OUT = 10


def prepare(folder, instruct):
    for split, rows in instruct.embedded_corpus(rows=100, seed=5).items():
        rows.to_parquet(folder / f"{split}.parquet")
    return folder


@pytest.fixture(scope="module")
def straight(instruct, tmp_path_factory):
    """The folder and the printed text of a short run that nothing interrupted."""
    folder = prepare(tmp_path_factory.mktemp("straight"), instruct)
    status, text, errors = run("instruct", folder, *FLAGS)
    assert status == 0, errors
    return folder, text


def results_of(folder):
    return json.loads((folder / "out" / "results.json").read_text())


def check_predictions(folder, net, tokenizer):
    """Every held-out row's loss, beside that of the saved model reading it alone."""
    found = json.loads((folder / "out" / "predictions.json").read_text())
    rows = []
    for row in Dataset.from_parquet(str(folder / "test.parquet"), cache_dir=str(folder / "cache")):
        talk = messages(("user", row["instruction"]), ("assistant", row["response"]))
        ids = tokenizer.apply_chat_template(talk, return_dict=True)["input_ids"]
        begin = tokenizer.apply_chat_template(talk[:1], add_generation_prompt=True, return_dict=True)["input_ids"]
        rows.append({"input_ids": ids, "labels": [-100] * len(begin) + ids[len(begin) :]})
    np.testing.assert_allclose(found["losses"], losses_alone(net.eval(), rows), rtol=1e-4)
    assert found["tokens"] == [sum(label != -100 for label in row["labels"]) for row in rows]
    return np.average(found["losses"], weights=found["tokens"])


@pytest.mark.slow
def test_results_account_for_the_run(straight):
    folder, text = straight
    results = results_of(folder)
    assert results["policy"] == "InfoBatch(ratio=0.7, anneal=1.0)"
    assert results["arguments"]["train_file"] == "train.parquet" and results["arguments"]["seed"] == 3
    net, tokenizer = (auto.from_pretrained(folder / "out") for auto in (AutoModelForCausalLM, AutoTokenizer))
    loss = check_predictions(folder, net, tokenizer)
    quality, scores = results["quality"], results["scores"]
    assert quality.pop("value") == scores["loss"] == pytest.approx(loss)
    assert quality == {"metric": "loss", "greater_is_better": False, "split": "test", "rows": HELD_OUT}
    assert scores["perplexity"] == pytest.approx(np.exp(loss)) and 0 <= scores["exact_match"] <= 1
    assert results["parameters"] == net.num_parameters()
    totals, evaluations = results["pruning"]["totals"], results["pruning"]["evaluations"]
    assert totals["rows_offered"] == 300 and totals["optimizer_steps_full"] == 21
    assert totals["rows"] == sum(epoch["rows"] for epoch in results["pruning"]["epochs"]) < 300
    assert evaluations[-1]["tokens"] == totals["padded_tokens"]
    assert evaluations[-1]["eval_loss"] < evaluations[0]["eval_loss"] < np.log(400)
    assert {"reading", "training", "selecting", "rescoring", "evaluating", "testing"} == set(results["seconds"])
    assert "100 train rows\n" in text and text.count("response  ") == 5 and f"{totals['rows']:,}" in text
    assert (folder / "out" / "run.png").read_bytes().startswith(b"\x89PNG")
    card = (folder / "out" / "README.md").read_text()
    assert card.count("## Data pruning") == 1 and "# Model Card for out" in card and "type: perplexity" in card


@pytest.mark.slow
def test_saved_model_talks(straight):
    talk = pipeline("text-generation", str(straight[0] / "out"), device="cpu")
    answer = talk(messages(("user", "Add 1 to 2.")), max_new_tokens=5, do_sample=False)[0]["generated_text"]
    assert [message["role"] for message in answer] == ["user", "assistant"] and isinstance(answer[1]["content"], str)


@pytest.mark.slow
def test_killed_run_goes_on_with_the_same_command(straight, instruct, tmp_path):
    prepare(tmp_path, instruct)
    assert not run_forked("instruct", tmp_path, *FLAGS, kill_at=9.5)  # in the second epoch
    assert list(tmp_path.glob("out/checkpoint-*")) and not (tmp_path / "out" / "results.json").exists()
    assert run_forked("instruct", tmp_path, *FLAGS)
    ours, theirs = results_of(tmp_path), results_of(straight[0])
    assert ours["scores"] == theirs["scores"]
    ours, theirs = (
        [[epoch[name] for name in ("epoch", "rows", "padded_tokens", "steps")] for epoch in found["pruning"]["epochs"]]
        for found in (ours, theirs)
    )
    assert ours == theirs


@pytest.mark.slow
def test_two_processes_score_every_row_once(instruct, tmp_path):
    prepare(tmp_path, instruct)
    status, text, errors = run("instruct", tmp_path, *FLAGS, "--per_device_eval_batch_size", "3", config="two")
    assert status == 0, errors
    net, tokenizer = (auto.from_pretrained(tmp_path / "out") for auto in (AutoModelForCausalLM, AutoTokenizer))
    results = results_of(tmp_path)
    assert results["scores"]["loss"] == pytest.approx(check_predictions(tmp_path, net, tokenizer))
    assert results["pruning"]["totals"]["optimizer_steps_full"] == 12  # of 32 rows
    assert text.count("100 train rows\n") == 1 and text.count("response  ") == 5


@pytest.mark.slow
def test_adapters_of_a_saved_model(instruct, straight, tmp_path, monkeypatch, capsys):
    """They are trained on the rows of another run, which prune by its History from the first epoch."""
    monkeypatch.chdir(straight[0])
    out = tmp_path / "out"
    more = ["--model_name_or_path", "out", "--lora_rank", "2", "--history", "out", "--num_train_epochs", "1"]
    instruct.main([*FLAGS, *more, "--output_dir", str(out)])
    results = results_of(tmp_path)
    assert results["arguments"]["learning_rate"] == 2e-4
    assert results["pruning"]["totals"]["rows"] < 100  # in one epoch
    net = peft.AutoPeftModelForCausalLM.from_pretrained(out)
    assert net.peft_config["default"].r == 2 and results["parameters"] == net.num_parameters()
    (tmp_path / "test.parquet").symlink_to(straight[0] / "test.parquet")
    loss = check_predictions(tmp_path, net, AutoTokenizer.from_pretrained(out))
    assert results["scores"]["loss"] == pytest.approx(loss) != results_of(straight[0])["scores"]["loss"]
    assert pipeline("text-generation", str(out), device="cpu")("Add", max_new_tokens=2)[0]["generated_text"]
    assert "1 earlier run" in capsys.readouterr().out


@pytest.mark.slow
def test_a_pack_is_a_row(instruct, straight, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(straight[0])
    flags = [*FLAGS, "--packing", "True", "--num_train_epochs", "1", "--output_dir"]
    instruct.main([*flags, str(tmp_path / "out")])
    results = results_of(tmp_path)
    packs = results["pruning"]["training_rows"]
    assert 10 < packs < 60 and f"{packs} train packs of 100 rows" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "out" / "predictions.json").read_text())["losses"]) == HELD_OUT
    with pytest.raises(ValueError, match=rf"This History is of 100 rows, but the training set has {packs}"):
        instruct.main([*flags, str(tmp_path / "again"), "--history", "out"])


REFUSED = {
    "finished": ([], "output_dir='out' holds a finished run"),
    "other rows": (["--history", "out", "--train_file", "other.parquet"], "history='out' is of another data set"),
    "adapters of nothing": (["--lora_rank", "4"], "lora_rank: .* give --model_name_or_path"),
    "prompts": (["--completion_only_loss", "False"], "completion_only_loss: .* leave it True"),
    "held-out packs": (["--eval_packing", "True"], "eval_packing: .* leave it False"),
    "no response": (["--max_length", "4"], "InstructTrainer left all of its rows out, as too long"),
    "no response held out": (["--validation_file", "long.parquet"], "max_length=64 leaves no row of split validation"),
    "column": (["--prompt_column", "q"], "prompt_column='q': train.parquet has no such column; it has instruction,"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_with_the_cure(instruct, straight, tmp_path, monkeypatch, case):
    more, message = REFUSED[case]
    monkeypatch.chdir(straight[0])
    instruct.embedded_corpus(rows=100, seed=6)["train"].to_parquet("other.parquet")
    Dataset.from_dict({"instruction": ["a " * 64], "response": ["b"]}).to_parquet("long.parquet")
    folder = "out" if case == "finished" else str(tmp_path / "out")
    with pytest.raises(ValueError, match=message):
        instruct.main([*FLAGS, *more, "--output_dir", folder])


@pytest.mark.slow
def test_long_rows_are_cut_or_left_out_and_counted(instruct, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    responses = {"a": "b", "b": "b " * 30, "c " * 30: "b", "d": "b"}
    rows = [{"instruction": prompt, "response": response} for prompt, response in responses.items()]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = "--train_file train.jsonl --validation_file train.jsonl --max_length 24 --num_train_epochs 1 --use_cpu True"
    instruct.main(f"{files} --policy none --output_dir out --report_to none".split())
    text = "3 train rows; 1 more are left out, for their prompt fills max_length; 1 fill max_length=24 and may be cut\n"
    assert text in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["tokens"] == [2, 17, 2]  # each with the end
    assert results_of(tmp_path)["pruning"] is None
