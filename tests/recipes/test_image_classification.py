"""recipes/image_classification.py: its pictures, what is made of them, and whole runs from the command line."""

import json

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Image
from PIL import Image as Picture
from recipe_runs import load, run, run_forked

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


@pytest.mark.parametrize(
    "labels, message",
    [
        ({"index": [0, 1, 2, 3], "other": [0] * 4}, "label_column='people': l.csv has no such column; it has index, "),
        ({"people": [0, 1, 0]}, r"label_file='l.csv' has 3 rows, and train has 4; give one for each"),
        ({"index": [0, 1, 3, 2], "people": [0] * 4}, "row 2 has index 3, but that of train has 2"),
    ],
)
def test_label_file_of_other_rows_is_refused(recipe, labels, message):
    Dataset.from_dict(labels).to_csv("l.csv")
    rows = pictures([0, 1, 0, 1], index=[0, 1, 2, 3])
    with pytest.raises(ValueError, match=message):
        recipe.join_labels(rows, recipe.RecipeArguments(label_file="l.csv", label_column="people"), "train")


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


def test_pictures_that_do_not_open_are_named(recipe, tmp_path):
    for name in ("a.png", "b.png", "c.png", "d.png"):
        write(tmp_path, name, 7, (64, 64))
    (tmp_path / "b.png").write_text("no picture")
    data = (tmp_path / "c.png").read_bytes()
    (tmp_path / "c.png").write_bytes(data[: len(data) // 2])
    rows = Dataset.from_dict({"image": ["a.png", "b.png", "c.png", None, "d.png"]}).cast_column("image", Image())
    with pytest.raises(
        ValueError, match=r"3 of 5 pictures of train can't be read: row 1 \(b\.png\): cannot ident"
    ) as e:
        recipe.check_pictures(rows, "train")
    assert "row 2 (c.png): " in str(e.value) and "row 3 has none" in str(e.value)
    recipe.check_pictures(rows.select([0, 4]), "train")


def test_greys_of_16_bits_keep_their_brightness_and_unbounded_ones_are_refused(recipe, tmp_path):
    grey = np.full((8, 8), 0x8000, np.uint16)
    Picture.fromarray(grey).save(tmp_path / "grey.png")
    Picture.fromarray(grey.astype(np.int32)).save(tmp_path / "whole.tiff")
    Picture.fromarray(grey.astype(np.float32)).save(tmp_path / "real.tiff")
    paths = [str(tmp_path / name) for name in ("grey.png", "whole.tiff", "real.tiff")]
    rows = Dataset.from_dict({"image": paths}).cast_column("image", Image())
    with pytest.raises(ValueError, match=r"2 of 3 .* its mode is I, in which .* its mode is F, in which"):
        recipe.check_pictures(rows, "train")
    processor = recipe.ViTImageProcessorPil(do_resize=False, do_normalize=False)
    pixels = recipe.Inputs(processor)({"image": rows["image"][:1], "labels": [0]})["pixel_values"]
    assert float(pixels.mean()) == pytest.approx(0x80 / 255)


# ---- What is made of pictures ----


@pytest.fixture
def processor(recipe):
    return recipe.ViTImageProcessorPil(size={"height": 8, "width": 8})


@pytest.fixture
def noise(rng):
    """64 pictures of 8 x 8 random pixels, and what the model reads of them."""
    arrays = rng.integers(0, 256, (64, 8, 8, 3), dtype=np.uint8)
    inputs = torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 255 * 2 - 1
    return {"image": list(map(Picture.fromarray, arrays)), "labels": [0] * 64}, inputs


def make(recipe, processor, noise, **fields):
    torch.manual_seed(0)
    augmentation = recipe.new_augmentation(recipe.RecipeArguments(**fields), processor, 8, 8)
    return recipe.Inputs(processor, augmentation)(noise[0])["pixel_values"]


def test_inputs_are_scaled_and_normalized(recipe, processor, noise):
    made = recipe.Inputs(processor)(noise[0])
    assert made["pixel_values"].dtype == torch.float32 and made["labels"] == [0] * 64
    torch.testing.assert_close(made["pixel_values"], noise[1])
    untouched = make(recipe, processor, noise, crop_padding=0, flip=False)
    torch.testing.assert_close(untouched, noise[1])


def test_crops_move_pictures_over_a_black_border(recipe, processor, noise):
    made = make(recipe, processor, noise, crop_padding=0.25, flip=False)
    padded = torch.nn.functional.pad(noise[1], (2, 2, 2, 2), value=-1.0)
    places = set()
    for one, wide in zip(made, padded, strict=True):
        fits = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if torch.allclose(one, wide[:, top : top + 8, left : left + 8], atol=1e-5)
        ]
        assert len(fits) == 1
        places |= set(fits)
    assert len(places) > 15  # each picture of a batch is moved by itself


def test_half_of_the_pictures_are_mirrored(recipe, processor, noise):
    made = make(recipe, processor, noise, crop_padding=0)
    mirrored = [torch.allclose(one, other.flip(-1), atol=1e-5) for one, other in zip(made, noise[1], strict=True)]
    same = [torch.allclose(one, other, atol=1e-5) for one, other in zip(made, noise[1], strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True)) and 20 < sum(mirrored) < 44


def test_rand_augment_draws_for_each_picture(recipe, processor):
    rows = {"image": [Picture.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))] * 12, "labels": [0] * 12}
    made = make(recipe, processor, (rows,), crop_padding=0, flip=False, rand_augment=2)
    kinds = {tuple(one.flatten().round(decimals=4).tolist()) for one in made}
    assert len(kinds) > 6 and made.isfinite().all() and made.shape == (12, 3, 8, 8)


def test_transform_leaves_the_rows_as_they_are(recipe, processor, digits):
    rows = digits["train"].rename_column("label", "labels")
    read = rows.with_transform(recipe.Inputs(processor))
    one, several = read[5], read.__getitems__([5, 6])
    assert one["pixel_values"].shape == (3, 8, 8) and torch.equal(one["pixel_values"], several[0]["pixel_values"])
    assert one["labels"] == several[0]["labels"] == rows[5]["labels"]
    assert rows[5]["image"].size == (8, 8) and read.column_names == rows.column_names
    places = [data.data.column("image").chunk(0).buffers()[-1].address for data in (read, rows)]
    assert places[0] == places[1]  # no copy


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"crop_padding": 1.5}, r"crop_padding=1.5 must be in \[0, 1\)"),
        ({"rand_augment": -1}, r"rand_augment=-1 must be in 0 \.\.\. "),
        ({"rand_augment": 99}, r"rand_augment=99 must be in 0 \.\.\. "),
    ],
)
def test_augmentation_out_of_range(recipe, processor, fields, message):
    with pytest.raises(ValueError, match=message):
        recipe.new_augmentation(recipe.RecipeArguments(**fields), processor, 8, 8)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"model_size": "huge"}, r"model_size='huge' is not known; give one of tiny, small, base\."),
        ({"patch_size": 0}, "patch_size=0 is no divisor of image_size=32"),
        ({"image_size": 30}, "patch_size=4 is no divisor of image_size=30"),
    ],
)
def test_models_that_can_not_be_made(recipe, fields, message):
    with pytest.raises(ValueError, match=message):
        recipe.new_model(recipe.RecipeArguments(**fields), {})


# ---- Metric ----


def test_accuracy_and_that_of_the_best_five(recipe):
    metric = recipe.Accuracy(keep_in_memory=True)
    scores = np.tile(np.arange(7.0), (4, 1))  # class 6 first, then 5, ...
    assert metric.compute(predictions=scores, references=[6, 6, 2, 1]) == {"accuracy": 0.5, "accuracy_top5": 0.75}
    assert metric.compute(predictions=scores[:, :2], references=[1, 1, 1, 0]) == {"accuracy": 0.75}
    diverged = metric.compute(predictions=scores * np.nan, references=[6, 6, 2, 1])
    assert np.isnan([diverged["accuracy"], diverged["accuracy_top5"]]).all()


# ---- Whole runs ----

FLAGS = (
    "--train_file train.parquet --test_file test.parquet --label_file noisy.csv --label_column noisy --image_size 8 "
    "--rand_augment 1 --flip False --num_train_epochs 3 --per_device_train_batch_size 16 --ratio 0.7 --anneal 1 "
    "--logging_steps 1 --use_cpu True --output_dir out --seed 3"
).split()


def prepare(folder, digits):
    """170 rows to train on, with their classes in a second file (a tenth of them wrong), and 41 to test."""
    for split, count in (("train", 170), ("test", 41)):
        digits[split].select(range(count)).to_parquet(folder / f"{split}.parquet")
    labels = np.array(digits["train"]["label"][:170])
    labels[::10] = (labels[::10] + 1) % 10
    Dataset.from_dict({"noisy": labels}).to_csv(folder / "noisy.csv")
    return folder


@pytest.fixture(scope="module")
def straight(digits, tmp_path_factory):
    """The folder and the printed text of a short run that nothing interrupted."""
    folder = prepare(tmp_path_factory.mktemp("straight"), digits)
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
def test_finished_run_is_refused(straight, recipe, monkeypatch):
    monkeypatch.chdir(straight[0])
    with pytest.raises(ValueError, match="output_dir='out' holds a finished run"):
        recipe.main(FLAGS)


@pytest.mark.slow
def test_killed_run_goes_on_with_the_same_command(straight, digits, tmp_path):
    prepare(tmp_path, digits)
    assert not run_forked("image_classification", tmp_path, *FLAGS, kill_at=14.5)  # in the second epoch
    assert list(tmp_path.glob("out/checkpoint-*")) and not (tmp_path / "out" / "results.json").exists()
    assert run_forked("image_classification", tmp_path, *FLAGS)
    ours, theirs = results_of(tmp_path), results_of(straight[0])
    assert ours["scores"] == theirs["scores"]
    counts = ("epoch", "rows", "steps")
    ours, theirs = ([[epoch[name] for name in counts] for epoch in r["pruning"]["epochs"]] for r in (ours, theirs))
    assert ours == theirs
    logs = [json.loads((at / "out" / "trainer_state.json").read_text()) for at in (tmp_path, straight[0])]
    ours, theirs = ([log.get("loss") for log in state["log_history"]] for state in logs)
    assert ours == theirs


@pytest.mark.slow
def test_two_processes(digits, tmp_path):
    prepare(tmp_path, digits)
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
