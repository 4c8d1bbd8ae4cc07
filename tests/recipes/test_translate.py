"""recipes/translate.py: its corpus, its metric, and whole runs from the command line."""

import json
import string

import pytest
import torch
from datasets import Dataset
from recipe_runs import load, run, run_and_kill, run_forked
from sacrebleu.metrics import BLEU, CHRF

from hf_prune.recipe.splits import CommonArguments, read_file, read_splits


@pytest.fixture(scope="module")
def translate():
    return load("translate")


@pytest.fixture(scope="module")
def corpus(translate):
    return translate.embedded_corpus()


@pytest.fixture
def recipe(translate):
    return translate.RecipeArguments


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


# ---- The embedded corpus ----


def test_corpus_depends_on_the_seed_alone(translate):
    once, again = (translate.embedded_corpus(rows=100, seed=1) for _ in range(2))
    other = translate.embedded_corpus(rows=100, seed=2)
    for split in ("train", "validation", "test"):
        assert once[split].to_list() == again[split].to_list()
        assert once[split].to_list() != other[split].to_list()


def test_corpus_shares_no_source_between_splits(corpus):
    sources = {split: set(corpus[split]["en"]) for split in corpus}
    assert {split: len(corpus[split]) for split in corpus} == {"train": 4000, "validation": 200, "test": 400}
    assert not sources["train"] & sources["test"]
    assert not sources["train"] & sources["validation"]
    assert not sources["validation"] & sources["test"]
    assert len(sources["test"]) == 400  # a repeated row would count twice in the score
    assert len(sources["train"]) < 3900  # but training data repeat themselves


def test_corpus_fills_every_slot_of_every_template(translate, corpus):
    texts = [text for split in corpus.values() for row in split for text in row.values()]
    assert all(text.strip() == text and "{" not in text and "  " not in text for text in texts)
    assert all(char.isascii() or char in "äöüÄÖÜßé€’" for text in texts for char in text)
    endings = {side.rpartition("}")[2] for line in translate.TEMPLATES.splitlines() for side in line.split("|")}
    assert not [end for end in endings if not any(text.endswith(end) for text in texts)]


def test_every_language_of_the_corpus_can_be_inflected(translate):
    from babel import Locale

    german = [Locale("de").languages[code] for code in translate.LANGUAGES]
    assert [name for name in german if not name.endswith("sch")] == []  # aus dem {language}en ins {language}e


GOLDEN = {
    "His mother translates from Persian into Croatian.": "Seine Mutter übersetzt aus dem Persischen ins Kroatische.",
    "My brother took eighty-eighth place.": "Mein Bruder belegte den achtundachtzigsten Platz.",
    "Peter has lived in Venezuela for seventy-six years.": "Peter lebt seit sechsundsiebzig Jahren in Venezuela.",
    "The doctor was born on March 16, 1994.": "Die Ärztin wurde am 16. März 1994 geboren.",
    "The shirt costs €927.46.": "Das Hemd kostet 927,46 €.",
    "Martin paid thirty-two dollars and eighty cents for the shirt.": (
        "Martin hat zweiunddreißig Dollar und achtzig Cent für das Hemd bezahlt."
    ),
    "Today is Wednesday, May 29, 1963.": "Heute ist Mittwoch, der 29. Mai 1963.",
    "The doctor wants to visit Estonia, Bulgaria, and China.": "Die Ärztin will Estland, Bulgarien und China besuchen.",
    "The lighthouse is 38.2 meters high.": "Der Leuchtturm ist 38,2 Meter hoch.",
    "Prices in Ireland rose by 51% in sixteen oh-nine.": (
        "Die Preise in Irland stiegen im Jahr sechzehnhundertneun um 51 %."
    ),
    "Vera exchanged €1,427.68 for 228 Swiss francs.": "Vera hat 1.427,68 € gegen 228 Schweizer Franken getauscht.",
    "When Vera called, it was 12:55 AM in Morocco.": "Als Vera anrief, war es in Marokko 00:55 Uhr.",
}


def test_corpus_has_these_translations(corpus):
    pairs = {row["en"]: row["de"] for split in corpus.values() for row in split}
    assert {source: pairs.get(source) for source in GOLDEN} == GOLDEN


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


@pytest.mark.parametrize("name, text", [("a.csv", ""), ("a.csv", "en,de\n"), ("a.parquet", "en"), ("a.json", "")])
def test_file_without_rows_is_refused(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"{name} is empty, or can't be read as {name.partition('.')[2]}"):
        read_file(str(path))


@pytest.mark.parametrize(
    "name, text, said",
    [
        ("a.csv", "en;de\nYes.;Ja.\n", r"has one column, called 'en;de'"),
        ("a.csv", "en;de\nYes.;Ja.\nYes, yes, no.;Doch.\n", "can't be read as csv: Error tokenizing data"),
        ("a.tsv", "en,de\nYes.,Ja.\n", "has one column, called 'en,de'"),
    ],
)
def test_columns_that_others_separate_are_told_of(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{said}.*Separate columns by commas in \.csv and by tabs in \.tsv\."):
        read_file(str(tmp_path / name))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".CSV"])
def test_words_that_pandas_takes_for_nothing_are_text(tmp_path, suffix):
    words, between = ["None", "null", "NA", "n/a"], "\t" if suffix == ".tsv" else ","
    lines = [between.join(pair) for pair in zip(["en", *words, ""], ["de", *words, "leer"], strict=True)]
    (tmp_path / f"a{suffix}").write_text("\n".join(lines) + "\n")
    assert read_file(str(tmp_path / f"a{suffix}"))["en"][:] == [*words, None]


def test_unknown_suffix_and_missing_file(tmp_path):
    with pytest.raises(ValueError, match=r"suffix '.txt' is not known; give one of .parquet"):
        read_file("corpus.txt")
    with pytest.raises(ValueError, match=r"none\.csv: there is no such file"):
        read_file(str(tmp_path / "none.csv"))


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
    for size in (0, 51):
        with pytest.raises(ValueError, match=rf"max_train_samples={size}: give a number from 1 to 50, the train rows"):
            translate.load_corpus(CommonArguments(**common, max_train_samples=size), recipe(), 0)


def test_splits_of_a_data_set_with_two_validations(tmp_path):
    for name, word in (("train", "a"), ("validation_matched", "b"), ("validation_mismatched", "c")):
        Dataset.from_dict({"en": [word]}).to_parquet(tmp_path / "data" / f"{name}-00000-of-00001.parquet")
    found, names = read_splits(CommonArguments(dataset_name=str(tmp_path)), dict)
    assert {split: rows["en"][:] for split, rows in found.items()} == {"train": ["a"], "validation": ["b"]}
    assert names["validation"] == f"split validation of {tmp_path}"


def test_data_set_without_a_train_split_is_refused(tmp_path):
    Dataset.from_dict({"en": ["a"]}).to_parquet(tmp_path / "data" / "half-00000-of-00001.parquet")
    with pytest.raises(ValueError, match="has no split train; it has half"):
        read_splits(CommonArguments(dataset_name=str(tmp_path)), dict)


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


def test_unknown_model_size(translate):
    with pytest.raises(ValueError, match=r"model_size='huge' is not known; give one of tiny, small, base\."):
        translate.new_model("huge", None, 16)


def test_metric_is_sacrebleu(translate):
    predictions, references = ["the cat sat on a mat", "hello there world"], ["the cat sat on the mat", "hello world"]
    scores = translate.SacreBleu(keep_in_memory=True).compute(
        predictions=predictions, references=references, target_lang="de", n_bootstrap=50
    )
    for name, scorer in (("bleu", BLEU()), ("chrf", CHRF())):
        expected = scorer.corpus_score(predictions, [references], n_bootstrap=50)
        assert scores[name] == expected.score
        found = scores[f"{name}_mean"], scores[f"{name}_interval"]
        assert found == pytest.approx((expected._mean, expected._ci), rel=1e-6)
        assert scores[f"{name}_signature"] == str(scorer.get_signature())
    assert "bs:50" in scores["bleu_signature"]


@pytest.mark.parametrize(
    ("code", "tokenizer"),
    [("zh_CN", "zh"), ("zho_Hans", "zh"), ("zh-TW", "zh"), ("deu_Latn", "13a"), ("de_DE", "13a"), ("ZH", "zh")],
)
def test_bleu_takes_the_tokenizer_of_the_language(translate, code, tokenizer):
    scorer = translate.new_bleu(code)
    scorer.corpus_score(["a"], [["a"]])
    assert f"tok:{tokenizer}" in str(scorer.get_signature())


def test_a_tokenizer_that_is_not_installed_is_named(translate):
    with pytest.raises(ValueError, match=r"target_lang='jpn_Jpan': Japanese .* sacrebleu\[ja\]"):
        translate.new_bleu("jpn_Jpan")


def test_metric_of_resamples_without_a_match(translate):
    texts = ["a b c d e f", *["x"] * 9]
    scores = translate.SacreBleu(keep_in_memory=True).compute(
        predictions=texts, references=["a b c d e g", *["y"] * 9], target_lang="de", n_bootstrap=100
    )
    assert scores["bleu_interval"] > 0


def test_metric_without_resampling_has_no_interval(translate):
    scores = translate.SacreBleu(keep_in_memory=True).compute(predictions=["a b c d"], references=["a b c d"])
    assert scores["bleu"] == pytest.approx(100)
    assert not [name for name in scores if "interval" in name]


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

FLAGS = (
    "--train_file train.parquet --validation_file validation.parquet --test_file test.parquet --vocab_size 320 "
    "--max_length 40 --num_train_epochs 3 --per_device_train_batch_size 16 --num_beams 2 --ratio 0.7 --anneal 1 "
    "--logging_steps 1 --use_cpu True --output_dir out --seed 3"
).split()


def prepare(folder, translate):
    for split, rows in translate.embedded_corpus(rows=100, seed=5).items():
        rows.to_parquet(folder / f"{split}.parquet")
    return folder


@pytest.fixture(scope="module")
def straight(translate, tmp_path_factory):
    """The folder and the printed text of a short run that nothing interrupted."""
    folder = prepare(tmp_path_factory.mktemp("straight"), translate)
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
def test_finished_run_is_refused(straight, translate, monkeypatch):
    monkeypatch.chdir(straight[0])
    with pytest.raises(ValueError, match="output_dir='out' holds a finished run"):
        translate.main(FLAGS)


@pytest.mark.slow
def test_killed_run_goes_on_with_the_same_command(straight, translate, tmp_path):
    prepare(tmp_path, translate)
    run_and_kill("translate", tmp_path, *FLAGS)
    assert run_forked("translate", tmp_path, *FLAGS)
    ours, theirs = (json.loads((folder / "out" / "results.json").read_text()) for folder in (tmp_path, straight[0]))
    assert ours["scores"] == theirs["scores"]
    counts = ("epoch", "rows", "tokens", "padded_tokens", "steps")
    ours, theirs = ([[epoch[name] for name in counts] for epoch in r["pruning"]["epochs"]] for r in (ours, theirs))
    assert ours == theirs
    final, expected = (
        json.loads((folder / "out" / "trainer_state.json").read_text())["log_history"]
        for folder in (tmp_path, straight[0])
    )
    assert [log.get("loss") for log in final] == [log.get("loss") for log in expected]


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
