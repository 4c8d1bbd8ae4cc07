"""Test rows without labels, and a saved model that is scored alone."""

import json

import pyarrow.parquet as pq
import pytest
import talks
from datasets import Dataset
from recipe_runs import FLAGS_OF, run_forked, write_rows

from hf_prune.recipe.splits import CommonArguments, read_splits
from hf_prune.recipe.unlabelled import is_unlabelled

LABELS = {"text_classification": "label", "translate": "de", "image_classification": "label"}
SHORT = {"num_train_epochs": "1", "vocab_size": "320"}
ALONE = "--do_predict --model_name_or_path out --test_file test.parquet --use_cpu True --report_to none".split()
OWN = {"translate": ["--num_beams", "2", "--max_length", "40"]}


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


def read(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def flags_of(name):
    flags = list(FLAGS_OF[name])
    flags[flags.index("--num_train_epochs") + 1] = "1"
    return flags


@pytest.mark.slow
@pytest.mark.parametrize("name", LABELS)
def test_rows_without_labels_get_answers_in_a_run_and_from_the_saved_model_alone(name, tmp_path):
    write_rows(name, tmp_path)
    labelled = pq.read_table(tmp_path / "test.parquet")
    pq.write_table(labelled.drop_columns(LABELS[name]), tmp_path / "test.parquet")
    assert run_forked(name, tmp_path, *flags_of(name))
    found, results = read(tmp_path / "out", "predictions.json"), read(tmp_path / "out", "results.json")
    assert len(found["unlabelled"]) == len(labelled) and results["scores"]["split"] == "validation"
    assert len(found["predictions"]) == len(found["references"]) == results["scores"]["rows"] != len(labelled)

    assert run_forked(name, tmp_path, *ALONE, *OWN.get(name, []), "--output_dir", "alone")
    alone, scored = read(tmp_path / "alone", "predictions.json"), read(tmp_path / "alone", "results.json")
    assert alone == {"predictions": found["unlabelled"]}
    assert scored["quality"]["value"] is None and set(scored["scores"]) == {"split", "rows"}
    assert not (tmp_path / "alone" / "model.safetensors").exists() and not list(tmp_path.glob("alone/checkpoint-*"))

    pq.write_table(labelled, tmp_path / "test.parquet")
    assert run_forked(name, tmp_path, *ALONE, *OWN.get(name, []), "--output_dir", "scored")
    scored = read(tmp_path / "scored", "predictions.json")
    assert scored["predictions"] == found["unlabelled"] and len(scored["references"]) == len(labelled)
    quality = read(tmp_path / "scored", "results.json")["quality"]
    assert quality["split"] == "test" and quality["value"] is not None


@pytest.mark.slow
@talks.DEPRECATED
def test_responses_are_scored_by_the_saved_model_alone(tmp_path):
    write_rows("instruct", tmp_path)
    assert run_forked("instruct", tmp_path, *flags_of("instruct"))
    assert run_forked("instruct", tmp_path, *ALONE, "--output_dir", "alone", "--max_length", "64")
    both = [read(tmp_path / folder, "results.json")["scores"] for folder in ("out", "alone")]
    assert both[1]["loss"] == pytest.approx(both[0]["loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("rows", "answer"),
    [({"x": [1]}, True), ({"label": [None, None]}, True), ({"label": [-1]}, True), ({"label": [None, 1]}, False)],
)
def test_rows_without_labels_are_told_by_their_column(rows, answer):
    assert is_unlabelled(Dataset.from_dict(rows), "label") is answer


def test_a_model_alone_needs_no_training_rows_but_test_rows(tmp_path):
    Dataset.from_dict({"text": ["a", "b"]}).to_parquet(tmp_path / "rows.parquet")
    common = CommonArguments(test_file="rows.parquet")
    with pytest.raises(ValueError, match="files need --train_file"):
        read_splits(common, dict)
    common.is_scored_alone = True
    splits, names = read_splits(common, dict)
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 2, "validation": 2, "test": 2}
    assert set(names.values()) == {"rows.parquet"}
    common = CommonArguments(train_file="rows.parquet")
    common.is_scored_alone = True
    with pytest.raises(ValueError, match="files need --test_file"):
        read_splits(common, dict)
