"""recipes/translate.py: its pairs, its languages, and whole runs from the command line."""

import json
import string

import pytest
import torch
from datasets import Dataset
from recipe_runs import FLAGS_OF, load, run, write_rows

from hf_prune.recipe.splits import CommonArguments, read_file


@pytest.fixture(scope="module")
def translate():
    return load("translate")


@pytest.fixture
def recipe(translate):
    return translate.RecipeArguments


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


# ---- Files ----


@pytest.mark.parametrize("suffix", [".parquet", ".json", ".jsonl", ".csv", ".tsv"])
def test_every_format_gives_the_same_pairs(translate, recipe, tmp_path, suffix):
    rows = [{"en": 'He said "no", twice.', "de": "Er sagte „nein“."}, {"en": "Ten.", "de": "Zehn."}]
    path = tmp_path / f"train{suffix}"
    match suffix:
        case ".parquet":
            Dataset.from_list(rows).to_parquet(path)
        case ".csv":
            Dataset.from_list(rows).to_csv(path)
        case ".tsv":
            path.write_text("en\tde\n" + "".join(f"{row['en']}\t{row['de']}\n" for row in rows), encoding="utf-8")
        case _:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    pairs = translate.read_pairs(read_file(str(path)), recipe(), "it")
    assert pairs.to_list() == [{"source": row["en"], "target": row["de"]} for row in rows]


def test_translation_column_and_codes_with_a_region(translate, recipe):
    rows = Dataset.from_list([{"id": 1, "translation": {"de": "Ja.", "en": "Yes.", "fr": "Oui."}}])
    pairs = translate.read_pairs(rows, recipe(source_lang="fr_XX", target_lang="en"), "it")
    assert pairs.to_list() == [{"source": "Oui.", "target": "Yes."}]


def test_rows_without_text_are_left_out(translate, recipe):
    rows = Dataset.from_dict({"en": ["a", "b", " ", None], "de": ["A", None, "C", "D"]})
    said = []
    assert translate.read_pairs(rows, recipe(), "it", said.append).to_list() == [{"source": "a", "target": "A"}]
    assert said == ["it: 3 of 4 rows are left out, for only those with text in both languages can serve."]
    with pytest.raises(ValueError, match=r"it has no row with text in both languages \(3 rows read\)"):
        translate.read_pairs(rows.select([1, 2, 3]), recipe(), "it")


def test_missing_column_is_named_with_those_there_are(translate, recipe):
    rows = Dataset.from_dict({"english": ["a"], "de": ["A"]})
    with pytest.raises(ValueError, match=r"source_lang='en': it has no such column; it has english, de\."):
        translate.read_pairs(rows, recipe(), "it")


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"test_file": "test.csv"}, r"test\.csv: files need --train_file"),
        ({"train_file": "train.csv", "dataset_name": "wmt14"}, "no --dataset_name beside it"),
        ({"target_lang": "en"}, "both 'en'"),
    ],
)
def test_arguments_that_do_not_go_together(translate, recipe, fields, message):
    with pytest.raises(ValueError, match=message):
        common = CommonArguments(**{name: fields[name] for name in fields if name != "target_lang"})
        translate.load_corpus(common, recipe(target_lang=fields.get("target_lang", "de")), seed=0)


@pytest.mark.parametrize("key", ["source", "target", "en"])
def test_a_key_that_is_called_as_a_column_of_the_recipe_is_refused(translate, recipe, tmp_path, key):
    path = str(tmp_path / "train.parquet")
    Dataset.from_dict({"en": ["a"] * 40, "de": ["b"] * 40} | {key: list(map(str, range(40)))}).to_parquet(path)
    with pytest.raises(ValueError, match=f"history_key='{key}' is a column that is trained on, or called as one"):
        translate.load_corpus(CommonArguments(train_file=path, history_key=key), recipe(), 0)


def test_a_sample_of_the_training_rows_is_the_same_for_every_seed(translate, recipe, tmp_path):
    for split in ("train", "validation"):
        Dataset.from_dict({"en": [f"e{i}" for i in range(50)], "de": ["d"] * 50}).to_parquet(
            tmp_path / f"{split}.parquet"
        )
    common = {f"{split}_file": str(tmp_path / f"{split}.parquet") for split in ("train", "validation")}
    first, other = (
        translate.load_corpus(CommonArguments(**common, max_train_samples=7, max_eval_samples=3), recipe(), seed)
        for seed in (0, 1)
    )
    rows = [int(text[1:]) for text in first["train"]["source"]]
    assert len(set(rows)) == 7 and rows == sorted(rows) != list(range(7)) and len(first["validation"]) == 3
    assert first["train"].to_list() == other["train"].to_list()
    for size in (50, 51):
        assert len(translate.load_corpus(CommonArguments(**common, max_train_samples=size), recipe(), 0)["train"]) == 50
    with pytest.raises(ValueError, match="max_train_samples=0: give a number of train rows, 1 or more"):
        translate.load_corpus(CommonArguments(**common, max_train_samples=0), recipe(), 0)


def test_validation_rows_are_held_out_by_the_seed(translate, recipe, tmp_path):
    path = str(tmp_path / "train.parquet")
    Dataset.from_dict({"en": [f"e{i}" for i in range(50)], "de": [f"d{i}" for i in range(50)]}).to_parquet(path)
    first, again, other = (
        translate.load_corpus(CommonArguments(train_file=path), recipe(), seed) for seed in (0, 0, 1)
    )
    assert {split: len(rows) for split, rows in first.items()} == {"train": 47, "validation": 3}
    assert first["validation"].to_list() == again["validation"].to_list() != other["validation"].to_list()
    assert sorted([*first["train"]["source"], *first["validation"]["source"]]) == sorted(f"e{i}" for i in range(50))


# ---- Tokenizer, model, metric ----


def test_tokenizer_loses_no_text(translate):
    tokenizer = translate.new_tokenizer(["the 21 houses", "die 21 Häuser"], 400, 16)
    for text in ("Übergrößen: 1.234,50 €!", "two  spaces", "日本 🙂"):
        ids = tokenizer(text)["input_ids"]
        assert ids[-1] == tokenizer.eos_token_id and tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.convert_ids_to_tokens(tokenizer("21")["input_ids"]) == ["Ġ", "2", "1", "</s>"]


@pytest.fixture
def multilingual():
    """A model and a tokenizer with the language codes of NLLB, with a token for each letter and random weights."""
    from transformers import M2M100Config, M2M100ForConditionalGeneration, NllbTokenizer

    letters = [letter for char in string.ascii_letters for letter in (char, f"▁{char}")]
    vocab = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "▁", *letters])}
    tokenizer = NllbTokenizer(vocab=vocab, merges=[("▁", char) for char in string.ascii_letters])
    torch.manual_seed(0)
    shape = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in _SHAPE.items()}
    config = M2M100Config(vocab_size=len(tokenizer), d_model=16, max_position_embeddings=64, **shape)
    return M2M100ForConditionalGeneration(config), tokenizer


_SHAPE = {"layers": 1, "attention_heads": 2, "ffn_dim": 16}


def test_language_codes_reach_tokenizer_and_model(translate, multilingual):
    model, tokenizer = multilingual
    translate.set_languages(model, tokenizer, "eng_Latn", "deu_Latn")
    german = tokenizer.convert_tokens_to_ids("deu_Latn")
    encoded = tokenizer("a", text_target="b")
    assert encoded["input_ids"][0] == tokenizer.convert_tokens_to_ids("eng_Latn")
    assert encoded["labels"][0] == model.generation_config.forced_bos_token_id == german


def test_unknown_language_code(translate, multilingual):
    with pytest.raises(ValueError, match=r"target_lang='deu_Lat': the tokenizer has no such code; near ones: deu_Latn"):
        translate.set_languages(*multilingual, "eng_Latn", "deu_Lat")


def test_tokenizer_of_one_pair_needs_no_codes(translate):
    tokenizer = translate.new_tokenizer(["a"], 300, 16)
    model = translate.new_model("tiny", tokenizer, 16)
    translate.set_languages(model, tokenizer, "en", "nonsense")
    assert model.generation_config.forced_bos_token_id is None


# ---- Whole runs ----

FLAGS = FLAGS_OF["translate"]


@pytest.fixture(scope="module")
def straight(translate, tmp_path_factory):
    """The folder and the printed text of a short run that nothing interrupted."""
    folder = write_rows("translate", tmp_path_factory.mktemp("straight"))
    status, text, errors = run("translate", folder, *FLAGS)
    assert status == 0, errors
    return folder, text


@pytest.mark.slow
def test_results_account_for_the_run(straight):
    folder, text = straight
    results = json.loads((folder / "out" / "results.json").read_text())
    assert results["policy"] == "InfoBatch(ratio=0.7, anneal=1.0)"
    assert results["arguments"]["train_file"] == "train.parquet" and results["arguments"]["seed"] == 3
    scores = results["scores"]
    assert scores["split"] == "test" and scores["rows"] == 10 and "bs:1000" in scores["bleu_signature"]
    assert 0 <= scores["bleu"] <= 100 and 0 <= scores["chrf"] <= 100 and scores["chrf_interval"] >= 0
    totals = results["pruning"]["totals"]
    assert totals["rows_offered"] == 300 and totals["optimizer_steps_full"] == 21
    assert totals["rows"] == sum(epoch["rows"] for epoch in results["pruning"]["epochs"]) < 300
    assert 0 < totals["tokens"] < totals["tokens_offered"] and totals["tokens"] <= totals["padded_tokens"]
    assert {"reading", "training", "selecting", "rescoring", "evaluating", "testing"} == set(results["seconds"])
    assert {"torch", "transformers"} <= set(results["versions"])
    assert scores["bleu_signature"] in text and text.count("hypothesis") == 5
    assert f"{totals['rows']:,}" in text
    assert results["quality"] == {
        "metric": "bleu",
        "value": scores["bleu"],
        "greater_is_better": True,
        "split": "test",
        "rows": 10,
    }
    last = results["pruning"]["evaluations"][-1]
    assert last["tokens"] == totals["padded_tokens"] and last["rows"] == totals["rows"] and "eval_bleu" in last
    assert last["step"] == totals["optimizer_steps"] and 0 < last["seconds"]
    predictions = json.loads((folder / "out" / "predictions.json").read_text())
    assert {name: len(texts) for name, texts in predictions.items()} == {"predictions": 10, "references": 10}
    assert (folder / "out" / "run.png").read_bytes().startswith(b"\x89PNG")
    assert "## Data pruning" in (folder / "out" / "README.md").read_text()


@pytest.mark.slow
def test_saved_model_loads_and_translates(straight):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    model = AutoModelForSeq2SeqLM.from_pretrained(straight[0] / "out")
    tokenizer = AutoTokenizer.from_pretrained(straight[0] / "out")
    assert model.generation_config.num_beams == 2 and model.generation_config.max_length == 40
    ids = model.generate(**tokenizer(["Good morning, Anna!", "Good morning!"], padding=True, return_tensors="pt"))
    assert ids[0, 0] == tokenizer.pad_token_id and (ids == tokenizer.eos_token_id).any(1).all()
    assert all(isinstance(text, str) for text in tokenizer.batch_decode(ids, skip_special_tokens=True))


@pytest.mark.slow
def test_model_with_language_codes_is_fine_tuned_by_two_processes(translate, recipe, multilingual, tmp_path):
    for part in multilingual:
        part.save_pretrained(tmp_path / "base")
    rows = [{"translation": {"eng": f"I see {char}", "deu": f"ich sehe {char}"}} for char in string.ascii_letters]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = "--model_name_or_path base --train_file train.jsonl --source_lang eng_Latn --target_lang deu_Latn "
    flags += "--max_steps 2 --eval_strategy steps --save_strategy steps --eval_steps 1 --save_steps 1 "
    flags += "--early_stopping_patience 1 --max_length 12 --num_beams 2 --policy none --use_cpu True --output_dir out "
    flags += "--per_device_eval_batch_size 1"  # three rows for two processes
    status, text, errors = run("translate", tmp_path, *flags.split(), config="two")
    assert status == 0, errors
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert text.count("hypothesis") == 3  # told once
    predictions = json.loads((tmp_path / "out" / "predictions.json").read_text())
    common = CommonArguments(train_file=str(tmp_path / "train.jsonl"))
    held_out = translate.load_corpus(common, recipe(source_lang="eng_Latn", target_lang="deu_Latn"), seed=0)
    assert sorted(predictions["references"]) == sorted(held_out["validation"]["target"])
    assert results["scores"]["split"] == "validation" and results["scores"]["rows"] == 3
    assert results["arguments"]["learning_rate"] == 5e-5 and results["pruning"] is None
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation["forced_bos_token_id"] == multilingual[1].convert_tokens_to_ids("deu_Latn")
