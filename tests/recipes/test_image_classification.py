"""recipes/image_classification.py: its pictures, what is made of them, and whole runs from the command line."""

import json

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Image
from PIL import Image as Picture
from recipe_runs import FLAGS_OF, load, run, run_forked, write_rows

from hf_prune.recipe.splits import CommonArguments
from hf_prune.records.trace import read_trace


@pytest.fixture(scope="module")
def recipe():
    return load("image_classification")


@pytest.fixture(scope="module")
def digits(recipe):
    return recipe.embedded_digits()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def picture(value=0, size=(8, 8)):
    return Picture.new("RGB", size, (value, value, value))


def pictures(labels, **columns):
    rows = {"image": [picture(value % 256) for value in range(len(labels))], "label": labels, **columns}
    return Dataset.from_dict(rows).cast_column("image", Image())


def arguments(recipe, **fields):
    """(CommonArguments, RecipeArguments) with these fields."""
    common = {name: fields.pop(name) for name in list(fields) if hasattr(CommonArguments, name)}
    return CommonArguments(**common), recipe.RecipeArguments(**fields)


# ---- The embedded digits ----


def test_digits_are_those_of_scikit_learn(recipe, digits):
    from sklearn.datasets import load_digits

    assert {split: len(rows) for split, rows in digits.items()} == {"train": 1297, "validation": 140, "test": 360}
    ours = sorted((np.asarray(row["image"]).tobytes(), row["label"]) for rows in digits.values() for row in rows)
    source = load_digits()
    scaled = np.rint(source.images / 16 * 255).astype(np.uint8)
    assert ours == sorted((one.tobytes(), label) for one, label in zip(scaled, source.target, strict=True))
    for rows in digits.values():
        shares = np.bincount(rows["label"]) / len(rows)
        assert shares.min() > 0.09 and shares.max() < 0.11


def test_split_of_the_digits_depends_on_the_seed_alone(recipe, digits):
    assert list(recipe.embedded_digits()["test"]["label"]) == list(digits["test"]["label"])
    assert list(recipe.embedded_digits(seed=1)["test"]["label"]) != list(digits["test"]["label"])


# ---- Files and folders ----


def test_labels_of_a_second_file_train_and_the_test_rows_keep_theirs(recipe, tmp_path):
    names = ["cat", "dog"]
    clean = pictures([0, 1] * 20, index=range(40)).cast_column("label", ClassLabel(names=names))
    clean.to_parquet("train.parquet")
    clean.to_parquet("test.parquet")
    noisy = Dataset.from_dict({"index": range(40), "people": [1, 1, 0, 0] * 10})
    noisy.cast_column("people", ClassLabel(names=names)).to_parquet("people.parquet")
    files = dict(train_file="train.parquet", validation_file="test.parquet", test_file="test.parquet")
    splits, classes = recipe.load_pictures(
        *arguments(recipe, **files, label_file="people.parquet", label_column="people"), seed=0
    )
    assert classes == names
    assert list(splits["train"]["labels"]) == [1, 1, 0, 0] * 10
    assert list(splits["test"]["labels"]) == list(splits["validation"]["labels"]) == [0, 1] * 20
    assert splits["train"].column_names == ["image", "file_row", "labels"]
    assert splits["train"][3]["image"].getpixel((0, 0)) == (3, 3, 3)


def write(folder, name, value, size=(8, 8)):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    picture(value, size).save(folder / name)


@pytest.fixture
def folder(tmp_path):
    """Pictures of several sizes, in folders of two classes within folders of two splits."""
    for split, count in (("train", 20), ("test", 4)):
        for label, value in (("bright", 200), ("dark", 20)):
            for row in range(count):
                write(tmp_path / "pictures", f"{split}/{label}/{row}.png", value + row, (8 + row % 3, 8))
    return tmp_path / "pictures"


def test_image_folder(recipe, folder):
    splits, classes = recipe.load_pictures(*arguments(recipe, train_dir=str(folder)), seed=0)
    assert classes == ["bright", "dark"]
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 38, "validation": 2, "test": 8}
    assert sorted(splits["validation"]["labels"]) == [0, 1]  # as many of either class
    for row in splits["test"]:
        assert (row["image"].getpixel((0, 0))[0] > 100) == (row["labels"] == 0)


def test_hidden_folders_hold_no_classes_and_no_split_is_dropped(recipe, folder):
    write(folder, "train/.ipynb_checkpoints/1.png", 0, (8, 8))
    write(folder, "train/dark/.ipynb_checkpoints/1.png", 0, (8, 8))
    splits, classes = recipe.load_pictures(*arguments(recipe, train_dir=str(folder)), seed=0)
    assert classes == ["bright", "dark"] and len(splits["train"]) == 38
    for name in ("val", "valid"):
        write(folder, f"{name}/dark/1.png", 0, (8, 8))
    with pytest.raises(ValueError, match="has two folders of one split: test, train, val, valid"):
        recipe.load_pictures(*arguments(recipe, train_dir=str(folder)), seed=0)


def test_a_folder_of_one_class_and_one_of_none(recipe, folder, tmp_path):
    with pytest.raises(ValueError, match="20 pictures are in no class, such as .*0.png. Put those of"):
        recipe.load_pictures(*arguments(recipe, train_dir=str(folder / "train" / "dark")), seed=0)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match=r"nothing has no pictures of known suffixes \(0 files\). Put those of"):
        recipe.load_pictures(*arguments(recipe, train_dir=str(tmp_path / "nothing")), seed=0)
    for split in ("test", "val"):
        write(tmp_path, f"none/{split}/dark/1.png", 0, (8, 8))
    with pytest.raises(ValueError, match="has test, val, and no folder train"):
        recipe.load_pictures(*arguments(recipe, train_dir=str(tmp_path / "none")), seed=0)


def test_folders_are_classes_whatever_they_are_called(recipe, tmp_path):
    """`train` is a class of COCO; and names of files say nothing."""
    for label in ("bus", "train", "freight train"):
        for row in range(20):
            write(tmp_path / "all", f"{label}/IMG_test_{row}.png", row, (8, 8))
        (tmp_path / "all" / label / "caption.txt").write_text("x")
    (tmp_path / "all" / ".cache").mkdir()
    with pytest.warns(UserWarning, match="3 files are passed over as no pictures, such as .*caption.txt"):
        splits, classes = recipe.load_pictures(*arguments(recipe, train_dir=str(tmp_path / "all")), seed=0)
    assert classes == ["bus", "freight train", "train"]
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 57, "validation": 3}


def test_pictures_in_no_class_are_named(recipe, folder):
    write(folder, "train/dark/deeper/1.png", 0, (8, 8))
    with pytest.raises(ValueError, match="1 pictures are in no class, such as .*deeper/1.png"):
        recipe.load_pictures(*arguments(recipe, train_dir=str(folder)), seed=0)


def test_the_key_is_no_column_that_is_trained_on(recipe, folder):
    files = sorted(folder.glob("train/*/*.png"))
    Dataset.from_dict({"file": list(map(str, files)), "label": [path.parent.name for path in files]}).to_csv("t.csv")
    common, own = arguments(recipe, train_file="t.csv", image_column="file", history_key="label")
    with pytest.raises(ValueError, match="history_key='label' is a column that is trained on"):
        recipe.load_pictures(common, own, seed=0)


def test_paths_in_a_file(recipe, folder):
    files = [path for path in sorted(folder.glob("train/*/*.png"))]
    Dataset.from_dict({"file": list(map(str, files)), "label": [path.parent.name for path in files]}).to_csv("t.csv")
    splits, classes = recipe.load_pictures(*arguments(recipe, train_file="t.csv", image_column="file"), seed=0)
    assert classes == ["bright", "dark"] and splits["train"][0]["image"].size[1] == 8


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"train_dir": "none"}, "train_dir='none' is no folder; name one"),
        ({"train_dir": ".", "train_file": "t.parquet"}, r"train_dir='.' and 't.parquet' are both"),
        (
            {"train_file": "t.parquet", "image_column": "img"},
            "image_column='img': t.parquet has no such column; it has",
        ),
        ({"train_file": "t.parquet", "label_column": "fine"}, "label_column='fine': t.parquet has no such column"),
        (
            {"train_file": "t.parquet", "image_column": "row"},
            "image_column='row': t.parquet has .*int64.*, no pictures",
        ),
        ({"train_file": "t.parquet", "image_column": "label"}, "both 'label'; name two columns"),
        ({"train_file": "t.parquet"}, "'2' has one training row"),
        ({"train_file": "t.parquet", "validation_file": "v.parquet"}, "row 1 of v.parquet has the label '7', which no"),
        ({"train_file": "t.parquet", "validation_file": "l.parquet"}, "label_column='label': l.parquet has no such"),
        ({"train_file": "o.parquet"}, "row 0 of o.parquet has the label -1, but its classes are 0 ... 1"),
        ({"train_file": "e.parquet"}, "e.parquet is empty"),
    ],
)
def test_rows_that_can_not_be_used(recipe, fields, message):
    pictures([0, 0, 1, 1, 2], row=range(5)).to_parquet("t.parquet")
    pictures([0, 7]).to_parquet("v.parquet")
    pictures([0, 1]).remove_columns("label").to_parquet("l.parquet")
    pictures([-1, 1]).cast_column("label", ClassLabel(names=["a", "b"])).to_parquet("o.parquet")
    pictures([0]).filter(lambda row: False).to_parquet("e.parquet")
    with pytest.raises(ValueError, match=message):
        recipe.load_pictures(*arguments(recipe, **fields), seed=0)


# ---- Model ----


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"patch_size": 0}, "patch_size=0 is no divisor of image_size=32"),
        ({"image_size": 30}, "patch_size=4 is no divisor of image_size=30"),
        ({"architecture": "cnn"}, "architecture='cnn' is not known; give vit or resnet"),
        ({"architecture": "resnet", "model_size": "huge"}, "model_size='huge' is not known; give one of tiny, small"),
        ({"architecture": "resnet", "image_size": 16}, "image_size=16 is too small for a ResNet of .* give 17 or more"),
        ({"architecture": "resnet", "model_size": "small"}, "image_size=32 is too small .* give 33 or more"),
    ],
)
def test_models_that_can_not_be_made(recipe, fields, message):
    with pytest.raises(ValueError, match=message):
        recipe.load_model(CommonArguments(), recipe.RecipeArguments(**fields), ["a", "b"])


def test_a_resnet_is_made_in_its_size(recipe):
    model, _ = recipe.load_model(CommonArguments(), recipe.RecipeArguments(architecture="resnet"), ["a", "b"])
    assert model.config.model_type == "resnet" and model.config.hidden_sizes == [16, 32, 64]
    fields = {"architecture": "resnet", "model_size": "small", "image_size": 33}
    small, _ = recipe.load_model(CommonArguments(), recipe.RecipeArguments(**fields), ["a"] * 1000)
    assert round(small.num_parameters() / 1e6, 1) == 11.7  # ResNet-18 for ImageNet's 1,000 classes


@pytest.mark.parametrize("size, least", [("tiny", 17), ("small", 33), ("base", 33)])
def test_a_resnet_trains_on_a_batch_of_one_row(recipe, size, least):
    fields = {"architecture": "resnet", "model_size": size, "image_size": least}
    model, _ = recipe.load_model(CommonArguments(), recipe.RecipeArguments(**fields), ["a", "b"])
    model.train()(pixel_values=torch.zeros(1, 3, least, least), labels=torch.tensor([1])).loss.backward()


# ---- Whole runs ----

FLAGS = FLAGS_OF["image_classification"]


@pytest.fixture(scope="module")
def straight(digits, tmp_path_factory):
    """The folder and the printed text of a short run that nothing interrupted."""
    folder = write_rows("image_classification", tmp_path_factory.mktemp("straight"))
    status, text, errors = run("image_classification", folder, *FLAGS)
    assert status == 0, errors
    return folder, text


def results_of(folder):
    return json.loads((folder / "out" / "results.json").read_text())


def predicted(folder, rows):
    """Class names that the saved model gives rows, by the pipeline that a user would take."""
    from transformers import pipeline

    classify = pipeline("image-classification", model=str(folder / "out"), device="cpu")
    return [found[0]["label"] for found in classify(list(rows["image"]), top_k=1)]


@pytest.mark.slow
def test_results_account_for_the_run(straight, digits):
    folder, text = straight
    results = results_of(folder)
    predictions = json.loads((folder / "out" / "predictions.json").read_text())
    test = digits["test"].select(range(41))
    assert predictions["references"] == [str(label) for label in test["label"]]  # the clean ones
    assert predictions["predictions"] == predicted(folder, test)
    right = np.mean(np.array(predictions["predictions"]) == np.array(predictions["references"]))
    scores = results["scores"]
    assert scores["accuracy"] == pytest.approx(right) and scores["accuracy"] <= scores["accuracy_top5"] <= 1
    assert 0 <= scores["accuracy_low"] < right < scores["accuracy_high"] <= 1
    quality = {"metric": "accuracy", "value": scores["accuracy"], "greater_is_better": True}
    assert results["quality"] == quality | {"split": "test", "rows": 41}
    totals = results["pruning"]["totals"]
    assert results["pruning"]["training_rows"] == 160  # 10 held out, one of each class
    assert totals["rows_offered"] == 480 and totals["rows"] < 480 and totals["optimizer_steps_full"] == 30
    assert "eval_accuracy" in results["pruning"]["evaluations"][-1]
    assert f"accuracy {right:.2%}" in text and text.count("taken for") == 5
    assert (folder / "out" / "run.png").read_bytes().startswith(b"\x89PNG")
    assert "image-classification" in (folder / "out" / "README.md").read_text()


@pytest.mark.slow
def test_two_processes(digits, tmp_path):
    write_rows("image_classification", tmp_path)
    status, text, errors = run("image_classification", tmp_path, *FLAGS, config="two")
    assert status == 0, errors
    results, test = results_of(tmp_path), digits["test"].select(range(41))
    assert results["pruning"]["totals"]["optimizer_steps_full"] == 15 and results["quality"]["rows"] == 41
    predictions = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert predictions["references"] == [str(label) for label in test["label"]]
    assert predictions["predictions"] == predicted(tmp_path, test)
    assert text.count("taken for") == 5  # told once
    rounds, flaws = read_trace(tmp_path / "out", 160)
    epochs = [epoch["rows"] for epoch in results["pruning"]["epochs"]]
    assert not flaws and len(rounds) == len(epochs)
    for round, rows in zip(rounds, epochs, strict=True):  # of both processes; repeats fill the last batches
        trained, _, losses = round.read()
        assert rows - 32 < np.count_nonzero(trained) <= rows and np.isfinite(losses[trained]).all()


@pytest.mark.slow
def test_second_run_begins_with_what_the_first_has_learnt(straight, recipe, monkeypatch):
    monkeypatch.chdir(straight[0])
    flags = [*FLAGS, "--output_dir", "second", "--history", "out", "--num_train_epochs", "1"]
    recipe.main(flags)
    results = json.loads((straight[0] / "second" / "results.json").read_text())
    assert results["pruning"]["totals"]["rows"] < 160 and results["pruning"]["earlier_runs"]["runs"] == 1
    others = [*FLAGS, "--output_dir", "third", "--history", "out", "--label_column", "label", "--label_file", "l.csv"]
    Dataset.from_dict({"label": [*range(10)] * 17}).to_csv("l.csv")
    with pytest.raises(ValueError, match="history='out' is of another data set"):
        recipe.main(others)


@pytest.mark.slow
def test_saved_model_is_fine_tuned_on_a_folder(straight, folder, recipe):
    flags = f"--model_name_or_path {straight[0] / 'out'} --train_dir {folder} --policy autoassist --num_train_epochs 1 "
    flags += "--per_device_train_batch_size 8 --use_cpu True --output_dir tuned --report_to none"
    assert run_forked("image_classification", folder.parent, *flags.split())
    results = json.loads((folder.parent / "tuned" / "results.json").read_text())
    assert results["arguments"]["learning_rate"] == 5e-5 and results["quality"]["rows"] == 8
    config = json.loads((folder.parent / "tuned" / "config.json").read_text())
    assert config["id2label"] == {"0": "bright", "1": "dark"} and config["label2id"] == {"bright": 0, "dark": 1}
