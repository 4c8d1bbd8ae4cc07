"""recipes/instruct.py: its tokenizer, the losses of held-out rows, and whole runs from the command line."""

import json

import numpy as np
import peft
import pytest
import talks
import torch
from datasets import Dataset
from recipe_runs import FLAGS_OF, load, run, write_rows
from talks import QUIET, losses_alone
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline
from trl import SFTConfig

pytestmark = talks.DEPRECATED


@pytest.fixture(scope="module")
def instruct():
    return load("instruct")


@pytest.fixture
def recipe(instruct):
    return instruct.RecipeArguments


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


# ---- Rows ----


def messages(*texts):
    return [{"role": role, "content": text} for role, text in texts]


def test_a_key_that_is_called_as_a_column_of_the_recipe_is_refused(instruct, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Dataset.from_dict({name: list("abcd") for name in ("instruction", "response", "prompt")}).to_json("rows.jsonl")
    with pytest.raises(ValueError, match="history_key='prompt' is a column that is trained on, or called as one"):
        instruct.main("--train_file rows.jsonl --history_key prompt --output_dir out --report_to none".split())


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


def test_score_is_by_token(instruct):
    found = instruct.score(np.array([1.0, 5.0]), np.array([True, False]), np.array([2, 4]))
    assert found == {"loss": 1.0, "perplexity": pytest.approx(np.e), "exact_match": 0.5}


@torch.no_grad()
def rows_with_greedy_answers(n=11):
    """Tokens and targets, their greedy answers by turns as the model gives them and with another last token."""
    net, rng = talks.model(), np.random.default_rng(0)
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
        model=talks.model(),
        args=args,
        train_dataset=rows,
        processing_class=talks.tokenizer(),
        compute_metrics=lambda outputs: instruct.score(*outputs.predictions, outputs.label_ids),
    )
    output = trainer.predict(rows)
    nats, is_exact = output.predictions
    np.testing.assert_allclose(nats / output.label_ids, losses_alone(talks.model(), rows), rtol=1e-5)
    assert output.label_ids.tolist() == [sum(label != -100 for label in row["labels"]) for row in rows]
    assert is_exact.tolist() == [row % 2 == 0 for row in range(len(rows))]
    assert output.metrics["test_loss"] == pytest.approx(nats.sum() / output.label_ids.sum())


# ---- Whole runs ----

FLAGS = FLAGS_OF["instruct"]

HELD_OUT = 10


@pytest.fixture(scope="module")
def straight(instruct, tmp_path_factory):
    """The folder and the printed text of a short run that nothing interrupted."""
    folder = write_rows("instruct", tmp_path_factory.mktemp("straight"))
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
def test_two_processes_score_every_row_once(instruct, tmp_path):
    write_rows("instruct", tmp_path)
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
    Dataset.from_parquet("train.parquet").select(range(99, -1, -1)).to_parquet("other.parquet")
    Dataset.from_dict({"instruction": ["a " * 64], "response": ["b"]}).to_parquet("long.parquet")
    with pytest.raises(ValueError, match=message):
        instruct.main([*FLAGS, *more, "--output_dir", str(tmp_path / "out")])


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
