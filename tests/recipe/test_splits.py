"""Files and data sets of rows, and their splits."""

import re

import pytest
from datasets import Dataset

from hf_prune.recipe.splits import CommonArguments, load_splits, read_file, read_splits


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


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


@pytest.mark.parametrize("name", ["data[1].csv", "a*.csv", "b?.csv"])
def test_a_name_that_is_a_pattern_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("text,label\na,b\n")
    with pytest.raises(ValueError, match=re.escape(f"{name}: `datasets` reads * ? and [ in a name as a pattern")):
        read_file(name)
    (tmp_path / "pictures [1]").mkdir()
    with pytest.raises(ValueError, match="rename it"):
        read_splits(CommonArguments(dataset_name="pictures [1]"), None)


def test_training_rows_say_which_of_their_file_they_are(tmp_path):
    """Also those that are left when others were held out and drawn from; a key goes with them."""
    path = tmp_path / "train.csv"
    path.write_text("text,label,id\n" + "".join(f"t{i},{i % 2},k{i}\n" for i in range(40)))
    common = CommonArguments(train_file=str(path), max_train_samples=20, history_key="id")
    splits = load_splits(common, None, lambda rows, name: rows.select_columns(["text", *common.carried(rows)]), 0)
    for split in ("train", "validation"):
        rows = splits[split].to_dict()
        assert rows["text"] == [f"t{row}" for row in rows["file_row"]]
        assert rows["id"] == [f"k{row}" for row in rows["file_row"]]
    assert len(splits["train"]) == 20
    with pytest.raises(ValueError, match="history_key='id' is a column that is trained on, or called as one that"):
        common.carried(splits["train"], "id")
    with pytest.raises(ValueError, match="history_key='key': .* has no such column; it has text, label, id"):
        read_splits(CommonArguments(train_file=str(path), history_key="key"), None)


@pytest.mark.parametrize("patience", [0, -1])
def test_a_patience_that_would_end_any_run_at_its_first_validation_is_refused(patience):
    with pytest.raises(ValueError, match=f"early_stopping_patience={patience} must be at least 1"):
        CommonArguments(early_stopping_patience=patience).for_trainer()
