"""recipes/text_classification.py: its labels, its tokenizer, and whole runs from the command line."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from recipe_runs import FLAGS_OF, load, run, write_rows
from sklearn.metrics import matthews_corrcoef
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from hf_prune.compare.result import RunResult
from hf_prune.recipe.splits import CommonArguments
from hf_prune.report.advice import advise, as_text


@pytest.fixture(scope="module")
def text():
    return load("text_classification")


@pytest.fixture
def recipe(text):
    return text.RecipeArguments


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


# ---- Labels ----


def files(**splits):
    """Parquet files in the working folder, and the flags that name them: split -> columns, or (columns, features)."""
    for split, rows in splits.items():
        (rows if isinstance(rows, Dataset) else Dataset.from_dict(rows)).to_parquet(f"{split}.parquet")
    return CommonArguments(**{f"{split}_file": f"{split}.parquet" for split in splits})


def rows_of(labels, names=None):
    texts = [f"text {i}" for i in range(len(labels))]
    features = names and Features({"text": Value("string"), "label": ClassLabel(names=names)})
    return Dataset.from_dict({"text": texts, "label": labels}, features=features)


@pytest.mark.parametrize(
    "labels, names, classes",
    [
        (["b", "a", "c", "a"], None, ["a", "b", "c"]),
        ([10, 9, 10, 9], None, ["9", "10"]),
        ([True, False, True, False], None, ["False", "True"]),
        ([0, 1, 1, 0], ["pos", "neg", "never"], ["pos", "neg", "never"]),
    ],
)
def test_classes_have_names_and_numbers(text, recipe, labels, names, classes):
    common = files(train=rows_of(labels, names), validation=rows_of(labels[:2], names))
    corpus, found = text.load_texts(common, recipe(), 0)
    assert found == classes
    expected = labels if names else [classes.index(str(label)) for label in labels]
    assert corpus["train"]["labels"][:] == expected
    assert corpus["validation"]["labels"][:] == expected[:2]


def test_labels_of_splits_go_by_their_names(text, recipe):
    common = files(train=rows_of([0, 1, 0], ["x", "y"]), validation=rows_of([0, 1], ["y", "x"]))
    assert text.load_texts(common, recipe(), 0)[0]["validation"]["labels"][:] == [1, 0]


def test_floats_are_numbers_to_predict(text, recipe):
    common = files(train=rows_of([0.5, 3.0, 2.25]), validation=rows_of([1, 2]))
    corpus, classes = text.load_texts(common, recipe(), 0)
    assert classes is None
    assert corpus["train"]["labels"][:] == [0.5, 3.0, 2.25] and corpus["validation"]["labels"][:] == [1, 2]
    assert corpus["validation"].features["labels"] == Value("float32")


@pytest.mark.parametrize(
    "splits, message",
    [
        ({"train": ["a", None, "b"]}, r"row 1 of train\.parquet has no label"),
        ({"train": ["a", "a", "a"]}, r"all 3 rows of train\.parquet have the label 'a'"),
        ({"train": [["a"], ["b"]]}, r"labels of train\.parquet are List\(.*; give one class for each row"),
        ({"train": ["a", "b"], "validation": ["a", "c"]}, r"row 1 of validation\.parquet has the label 'c', which no"),
        (
            {"train": ["a", "a", "b"]},
            r"label_column: 'b' has one training row: .* Give rows to validate on: --validation_file",
        ),
        ({"train": ["a", "a", "b", "b"], "test": []}, r"test\.parquet is empty"),
        ({"train": [0.5, float("nan")]}, r"row 1 of train\.parquet has no label; remove such rows, or"),
        ({"train": [0.0, 1.0, float("nan")]}, r"row 2 of train\.parquet has no label"),  # no warning before it
        ({"train": [0.5, float("inf")]}, r"row 1 of train\.parquet has the label inf"),
        ({"train": [0.5, 1.5], "validation": ["low", "high"]}, r"labels of validation\.parquet are Value\('string'\)"),
    ],
)
def test_labels_that_are_refused(text, recipe, splits, message):
    common = files(**{split: rows_of(labels) for split, labels in splits.items()})
    with pytest.raises(ValueError, match=message):
        text.load_texts(common, recipe(), 0)


def test_label_that_the_names_do_not_cover_is_refused(text, recipe):
    table = rows_of([0, 1, 1], ["x", "y"]).with_format("arrow")[:]
    broken = table.set_column(1, table.schema.field("label"), pa.array([0, 2, 1]))
    pa.parquet.write_table(broken, "train.parquet")
    with pytest.raises(
        ValueError, match=r"label: row 1 of train\.parquet has the label 2, but its classes are 0 \.\.\. 1"
    ):
        text.load_texts(CommonArguments(train_file="train.parquet"), recipe(), 0)


def test_missing_column_is_named_with_those_there_are(text, recipe):
    common = files(train={"text": ["a", "b"], "class": [0, 1]})
    with pytest.raises(
        ValueError, match=r"label_column='label': train\.parquet has no such column; it has text, class\."
    ):
        text.load_texts(common, recipe(), 0)
    common = files(train=rows_of([0, 1]), validation={"sentence": ["a"], "label": [0]})
    with pytest.raises(ValueError, match=r"text_columns='text': validation\.parquet has no such column"):
        text.load_texts(common, recipe(), 0)


def test_test_split_without_labels_gives_no_score(text, recipe):
    common = files(train=rows_of([0, 1, 0]), validation=rows_of([0, 1]), test=rows_of([-1, -1]))
    with pytest.warns(UserWarning, match=r"test\.parquet has no labels; the score is that of the validation rows"):
        corpus = text.load_texts(common, recipe(), 0)[0]
    assert set(corpus) == {"train", "validation", "unlabelled"}
    assert "labels" not in corpus["unlabelled"].column_names and len(corpus["unlabelled"]) == 2


def test_whole_numbers_stored_as_fractions_are_told(text, recipe):
    rows = rows_of([0.0, 1.0, 1.0])
    with pytest.warns(UserWarning, match="labels of .* are whole numbers stored as fractions"):
        assert text.load_texts(files(train=rows, validation=rows), recipe(), 0)[1] is None


def test_rows_without_text_are_left_out(text, recipe):
    rows = Dataset.from_dict({"sentence1": ["a", None, "c"], "sentence2": ["A", "B", ""], "label": ["x", "x", "y"]})
    corpus, _ = text.load_texts(files(train=rows, validation=rows), recipe(), 0)
    assert corpus["train"].to_dict() == {
        "text": ["a", "c"],
        "text_pair": ["A", ""],
        "file_row": [0, 2],
        "labels": [0, 1],
    }
    blank = Dataset.from_dict({"text": ["a", " \n", "", "d"], "label": ["x", "x", "y", "y"]})
    assert text.load_texts(files(train=blank, validation=blank), recipe(), 0)[0]["train"]["text"][:] == ["a", "d"]
    with pytest.raises(ValueError, match="Split validation has one row with text; two are needed"):
        text.load_texts(files(train=rows, validation=rows.select([0, 1])), recipe(), 0)
    common = files(train=rows, validation={"sentence1": [None], "sentence2": ["A"], "label": ["x"]})
    with pytest.raises(ValueError, match=r"validation\.parquet has no row with text in sentence1, sentence2 \(1 rows"):
        text.load_texts(common, recipe(), 0)


def test_held_out_rows_have_the_shares_of_the_classes(text, recipe):
    common = files(train=rows_of([*["often"] * 160, *["seldom"] * 40]))
    first, again, other = (text.load_texts(common, recipe(), seed)[0] for seed in (0, 0, 1))
    for corpus in (first, other):
        assert Counter(corpus["train"]["labels"]) == {0: 152, 1: 38}
        assert Counter(corpus["validation"]["labels"]) == {0: 8, 1: 2}
    assert first["validation"].to_dict() == again["validation"].to_dict() != other["validation"].to_dict()
    few = text.load_texts(files(train=rows_of([*"abcde"] * 4)), recipe(), 0)[0]
    assert sorted(few["validation"]["labels"]) == [0, 1, 2, 3, 4]  # 5 % would be one row


# ---- Tokenizer, model, metric ----


def test_tokenizer_frames_pairs_and_knows_every_character(text):
    tokenizer = text.new_tokenizer(["the 21 houses"], 300, 16)
    encoded = tokenizer("a", "日本")
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    assert tokens[:4] == ["[CLS]", "Ġ", "a", "[SEP]"] and tokens[-1] == "[SEP]" and None not in tokens
    assert encoded["token_type_ids"] == [0] * 4 + [1] * (len(tokens) - 4)
    assert tokenizer.decode(encoded["input_ids"], skip_special_tokens=True) == " a 日本"
    assert len(tokenizer("a " * 50, truncation=True)["input_ids"]) == 16


# ---- Whole runs ----

FLAGS = FLAGS_OF["text_classification"]


def kinds(folder):
    return sorted(set(Dataset.from_parquet(str(folder / "train.parquet"))["label"]))


def read(folder, name="results.json"):
    return json.loads((folder / name).read_text())


@pytest.fixture(scope="module")
def straight(text, tmp_path_factory):
    """The folder and the printed text of a short run that nothing interrupted."""
    folder = write_rows("text_classification", tmp_path_factory.mktemp("straight"))
    status, printed, errors = run("text_classification", folder, *FLAGS)
    assert status == 0, errors
    return folder, printed


@pytest.mark.slow
def test_results_account_for_the_run(straight, text):
    folder, printed = straight
    results = read(folder / "out")
    assert results["policy"] == "InfoBatch(ratio=0.7, anneal=1.0)" and results["arguments"]["seed"] == 3
    assert results["arguments"]["metric_for_best_model"] == "accuracy"
    scores, predictions = results["scores"], read(folder / "out", "predictions.json")
    assert results["quality"] == {
        "metric": "accuracy",
        "value": scores["accuracy"],
        "greater_is_better": True,
        "split": "test",
        "rows": 20,
    }
    test = Dataset.from_parquet(str(folder / "test.parquet"))
    assert predictions["references"] == test["label"][:]
    assert set(predictions["predictions"]) <= set(kinds(folder))
    right = np.array(predictions["predictions"]) == predictions["references"]
    assert scores["accuracy"] == pytest.approx(right.mean())
    assert scores["matthews"] == pytest.approx(matthews_corrcoef(predictions["references"], predictions["predictions"]))
    assert 0 <= scores["accuracy_low"] <= scores["accuracy"] <= scores["accuracy_high"] <= 1
    train = Counter(Dataset.from_parquet(str(folder / "train.parquet"))["label"])
    often = max(train, key=train.get)
    assert scores["accuracy_of_most_frequent_class"] == pytest.approx(np.mean(np.array(test["label"]) == often))
    totals = results["pruning"]["totals"]
    assert totals["rows_offered"] == 480 and totals["rows"] < 480 and 0 < totals["tokens"] < totals["tokens_offered"]
    assert "eval_accuracy" in results["pruning"]["evaluations"][-1]
    assert f"accuracy {scores['accuracy']:.4f}" in printed and f"{totals['rows']:,}" in printed
    assert (folder / "out" / "run.png").read_bytes().startswith(b"\x89PNG")
    assert "## Data pruning" in (folder / "out" / "README.md").read_text()
    facts = results["facts"]
    assert (facts["rows"], facts["classes"]["count"], len(facts["medians"])) == (120, len(train), 4)
    said = as_text(advise(folder / "out")[:1])
    assert said in printed or said.startswith("act      padding")  # which was told above
    rows = Dataset.from_parquet(str(folder / "out" / "history.parquet"))
    assert rows["file_row"][:] == rows["row"][:] == list(range(120))


@pytest.mark.slow
def test_pipeline_gives_the_predictions_that_were_scored(straight, text):
    folder = straight[0]
    test = Dataset.from_parquet(str(folder / "test.parquet"))
    answers = pipeline("text-classification", model=str(folder / "out"), device="cpu")(test["text"][:])
    scored = read(folder / "out", "predictions.json")["predictions"]
    assert [each["label"] for each in answers] == scored
    assert len(set(scored)) > 3
    assert AutoModelForSequenceClassification.from_pretrained(folder / "out").config.label2id == {
        name: i for i, name in enumerate(kinds(folder))
    }


@pytest.mark.slow
def test_two_processes_begin_with_what_a_run_learnt(straight, text):
    flags = [*FLAGS, "--output_dir", "two", "--history", "out", "--per_device_train_batch_size", "4"]
    status, printed, errors = run("text_classification", straight[0], *flags, config="two")
    assert status == 0, errors
    results = read(straight[0] / "two")
    assert results["pruning"]["earlier_runs"]["rows"] == read(straight[0] / "out")["pruning"]["totals"]["rows"]
    assert results["pruning"]["epochs"][0]["rows"] < 120  # it prunes from the first epoch on
    assert printed.count("(test, 20 rows)") == 1
    references = Dataset.from_parquet(str(straight[0] / "test.parquet"))["label"][:]
    assert read(straight[0] / "two", "predictions.json")["references"] == references


@pytest.mark.slow
def test_history_of_other_rows_is_refused(straight, text, tmp_path):
    write_rows("text_classification", tmp_path)
    rows = Dataset.from_parquet("train.parquet")
    rows.select(range(119, -1, -1)).to_parquet("train.parquet")
    with pytest.raises(ValueError, match="is of another data set"):
        text.main([*FLAGS, "--history", str(straight[0] / "out")])


@pytest.fixture
def encoder(text):
    """The folder of a pretrained encoder with a head of other classes."""
    torch.manual_seed(0)
    tokenizer = text.new_tokenizer(["a b c d e f"], 270, 24)
    text.SIZES["mini"] = (16, 1, 2)
    model = text.new_model("mini", tokenizer, id2label={0: "old"}, label2id={"old": 0})
    for part in (model, tokenizer):
        part.save_pretrained("encoder")
    return "encoder"


FEW = "--model_name_or_path encoder --max_steps 3 --eval_strategy steps --eval_steps 1 --save_steps 3 ".split()
FEW += "--save_strategy steps --use_cpu True --disable_tqdm True --report_to none --output_dir out".split()


def test_pairs_are_scored_by_the_metric_that_is_asked_for(text, encoder):
    rng = np.random.default_rng(0)
    words = [" ".join(rng.choice(list("abcdef"), rng.integers(1, 12))) for _ in range(80)]
    rows = Dataset.from_dict({"sentence1": words[:40], "sentence2": words[40:], "label": ["no", "yes"] * 20})
    files(train=rows, validation=rows)
    flags = "--train_file train.parquet --validation_file validation.parquet --metric matthews"
    flags += " --train_sampling_strategy group_by_length --per_device_eval_batch_size 4 --early_stopping_patience 3"
    text.main([*FEW, *flags.split()])
    results = read(Path("out"))
    assert results["quality"]["metric"] == results["arguments"]["metric_for_best_model"] == "matthews"
    assert results["quality"]["split"] == "validation" and results["arguments"]["learning_rate"] == 5e-5
    classify = pipeline("text-classification", model="out", device="cpu")
    pairs = [{"text": row["sentence1"], "text_pair": row["sentence2"]} for row in rows]
    assert [classify(pair)["label"] for pair in pairs] == read(Path("out"), "predictions.json")["predictions"]
    assert read(Path("out"), "predictions.json")["references"] == rows["label"][:]
    assert read(Path("out"), "_begun.json")["learning_rate"] == 5e-5


@pytest.mark.parametrize("key", ["text", "labels", "length"])
def test_a_key_that_is_called_as_a_column_of_the_recipe_is_refused(text, recipe, key):
    rows = Dataset.from_dict({"q": list("abcd"), key: list("efgh"), "label": ["no", "yes"] * 2})
    files(train=rows, validation=rows)
    common = CommonArguments(train_file="train.parquet", validation_file="validation.parquet", history_key=key)
    with pytest.raises(ValueError, match=f"history_key='{key}' is a column that is trained on, or called as one"):
        text.load_texts(common, recipe(text_columns=["q"]), 0)


@pytest.mark.filterwarnings("ignore:.*encountered in")
@pytest.mark.parametrize("labels", [["no", "yes"], [0.5, 1.5]])
def test_a_model_that_has_diverged_has_no_score(text, encoder, labels, capsys):
    """Not that of its first class."""
    rows = Dataset.from_dict({"text": [f"a {letter}" for letter in "abcdef" * 4], "label": labels * 12})
    files(train=rows, validation=rows)
    flags = "--train_file train.parquet --validation_file validation.parquet --learning_rate 1e30 --warmup_steps 0"
    text.main([*FEW, *flags.split(), "--max_grad_norm", "0"])
    run = RunResult.load(Path("out"))
    assert run.has_diverged and run.results["scores"]["loss"] is None
    assert "taken for" not in capsys.readouterr().out


def test_floats_are_predicted(text, encoder):
    words = [letter * (1 + i % 5) for i, letter in enumerate("abcdef" * 5)]
    files(train={"text": words, "label": [len(word) / 5 for word in words]})
    text.main([*FEW, "--train_file", "train.parquet", "--policy", "none"])
    results, predictions = read(Path("out")), read(Path("out"), "predictions.json")
    assert results["quality"]["metric"] == "pearson" and results["pruning"] is None
    assert set(results["scores"]) >= {"pearson", "spearman", "loss", "pearson_low", "pearson_high"}
    assert len(predictions["predictions"]) == 2 and all(0 < value <= 1 for value in predictions["references"])
    config = AutoModelForSequenceClassification.from_pretrained("out").config
    assert config.num_labels == 1 and config.problem_type == "regression"
    assert AutoTokenizer.from_pretrained("out").model_max_length == 24


def test_metric_of_another_kind_is_refused(text):
    files(train=rows_of(["a", "b"] * 20))
    with pytest.raises(ValueError, match=r"metric='pearson' is not known for classes; give one of accuracy, f1, matth"):
        text.main([*FLAGS[6:], "--train_file", "train.parquet", "--metric", "pearson"])
