"""Pictures of every row, shrunk to one size and kept on disk, of rows stored in any way."""

import io
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from forms import as_list, as_tensors
from PIL import Image

from hf_prune.common import storage
from hf_prune.data import pixels
from hf_prune.data.features import read_features

WORDS = frozenset({"features"})


def averages(picture, side=32):
    """Area averages of a (channels, height, width) picture whose sides `side` divides, by reshaping."""
    channels, height, width = picture.shape
    blocks = picture.reshape(channels, side, height // side, side, width // side)
    return np.rint(blocks.mean((2, 4))).astype(np.uint8).reshape(-1)


def image_dataset(arrays, **columns):
    features = {"image": datasets.Image(), **{name: datasets.Value("int64") for name in columns}}
    return datasets.Dataset.from_dict(
        {"image": [Image.fromarray(array) for array in arrays], **columns}, features=datasets.Features(features)
    )


def test_pictures_of_every_kind_are_shrunk_alike(pictures, monkeypatch):
    monkeypatch.setattr(pixels, "_PICTURES_AT_A_TIME", 2)
    expected = [averages(picture.transpose(2, 0, 1)) for picture in pictures]
    first = {"pixel_values": [picture.transpose(2, 0, 1) for picture in pictures]}
    forms = [
        image_dataset(pictures),
        image_dataset(pictures).with_format("torch"),
        as_list({"image": [Image.fromarray(picture) for picture in pictures]}),
        as_list({"img": [{"bytes": png_of(picture), "path": None} for picture in pictures]}),
        as_list({"pixel_values": pictures}),
        as_list(first),
        as_tensors(first),
        datasets.Dataset.from_dict(first).cast_column("pixel_values", datasets.Array3D((3, 64, 96), "uint8")),
    ]
    for form in forms:
        features = read_features(form, False, WORDS)
        assert features.texts == ()
        np.testing.assert_array_equal(features.pixels, expected)


def test_greys_of_16_bits_are_not_cut_off(pictures):
    grey = np.arange(64, dtype=np.uint16).reshape(8, 8) << 10
    features = read_features(as_list({"image": [Image.fromarray(grey)]}), False, WORDS)
    np.testing.assert_array_equal(features.pixels.reshape(-1, 8, 8)[0], grey >> 8)


def png_of(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def test_a_transform_is_not_run_for_pictures_and_classes_come_along(pictures):
    dataset = image_dataset(pictures, label=[0, 1, 2, 1, 0])
    dataset.set_transform(lambda batch: {"pixel_values": [torch.rand(3, 8, 8) for _ in batch["image"]]})
    features = read_features(dataset, False, WORDS)
    np.testing.assert_array_equal(features.pixels[4], averages(pictures[4].transpose(2, 0, 1)))
    assert features.classes.tolist() == [0, 1, 2, 1, 0]


def test_files_beside_the_data_set(tmp_path, pictures):
    paths = [tmp_path / f"{row}.png" for row in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        path.write_bytes(png_of(picture))
    dataset = datasets.Dataset.from_dict({"image": [str(path) for path in paths]})
    features = read_features(dataset.cast_column("image", datasets.Image()), False, WORDS)
    np.testing.assert_array_equal(features.pixels, [averages(picture.transpose(2, 0, 1)) for picture in pictures])


def test_the_first_picture_sets_size_and_channels(rng):
    small = rng.integers(0, 256, (20, 28), np.uint8)
    others = [
        small,
        np.full((40, 56, 3), 90, np.uint8),
        np.full((3, 5, 4), 200, np.uint8),
        np.full((33, 41), 7, np.uint8),
    ]
    pixels = read_features(image_dataset(others), False, WORDS).pixels
    assert pixels.shape == (4, 20 * 28)  # grey
    np.testing.assert_array_equal(pixels[0], small.reshape(-1))
    assert [np.unique(row).tolist() for row in pixels[1:]] == [[90], [200], [7]]
    colour = read_features(image_dataset(others[::-1][1:]), False, WORDS).pixels
    assert colour.shape == (3, 3 * 3 * 5)


def test_pictures_that_no_size_divides_keep_their_mean(rng):
    picture = rng.integers(0, 256, (3, 70, 45), np.uint8)
    (pixels,) = read_features([{"pixel_values": picture}], False, WORDS).pixels
    corner = picture[:, 0 : 70 // 32, 0 : 45 // 32].mean((1, 2))
    np.testing.assert_array_equal(pixels.reshape(3, 32, 32)[:, 0, 0], np.rint(corner))
    assert abs(pixels.mean() - picture.mean()) < 3


def test_other_numbers_are_mapped_from_the_least_to_the_greatest():
    rows = [{"pixel_values": np.full((1, 2, 2), value, np.float32)} for value in (-2.0, 0.0, 3.0)]
    assert read_features(rows, False, WORDS).pixels[:, 0].tolist() == [0, 102, 255]
    many = [*rows[:2] * 200, {"pixel_values": np.full((1, 2, 2), 9, np.float32)}, *rows]  # 9 is not in the sample
    assert read_features(many, False, WORDS).pixels[-4, 0] == 255
    assert read_features(rows[1:2], False, WORDS).pixels.tolist() == [[0] * 4]


@pytest.mark.parametrize(
    ("second", "message"), [((1, 4, 4), "has 1 channels, but the first one has 3"), ((2, 3, 4, 4), "2 or 3 dimensions")]
)
def test_a_picture_of_another_kind_is_named(second, message):
    with pytest.raises(ValueError, match=message):
        read_features([{"pixel_values": np.zeros(shape)} for shape in ((3, 4, 4), second)], False, WORDS)


# ---- The file of shrunk pictures ----


def test_pictures_are_shrunk_once(pictures, home, monkeypatch):
    dataset = image_dataset(pictures)
    before = read_features(dataset, False, WORDS).pixels
    (file,) = home.iterdir()
    monkeypatch.setattr(pixels, "Shrink", None)
    np.testing.assert_array_equal(read_features(dataset, False, WORDS).pixels, before)
    with pytest.raises(TypeError):  # another order is another content
        read_features(dataset.select([1, 0, 2, 3, 4]), False, WORDS)
    assert list(home.iterdir()) == [file]


def test_pictures_of_another_size_have_another_file(home):
    for shape in ((1, 2, 8), (1, 4, 4)):
        rows = {"pixel_values": [np.zeros(shape, np.float32)]}
        read_features(datasets.Dataset.from_dict(rows), False, WORDS)
    assert len(list(home.iterdir())) == 2


def test_a_damaged_file_is_made_anew(pictures, home):
    dataset = image_dataset(pictures)
    before = read_features(dataset, False, WORDS).pixels
    (file,) = home.iterdir()
    whole = file.read_bytes()
    for damaged in (whole[:-9], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        file.write_bytes(damaged)
        np.testing.assert_array_equal(read_features(dataset, False, WORDS).pixels, before)
        np.testing.assert_array_equal(storage.load(file)[0]["pixels"], before)


def test_a_disk_that_can_not_be_written_is_told_and_nothing_else(pictures, monkeypatch, caplog):
    def full(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(storage, "save", full)
    assert len(read_features(image_dataset(pictures), False, WORDS).pixels) == 5
    assert "No space left on device" in caplog.text


def test_texts_and_rows_of_other_data_sets_are_not_kept(home, pictures):
    read_features(datasets.Dataset.from_dict({"input_ids": [[5, 2], [1]]}), True, WORDS)
    read_features(as_list({"pixel_values": pictures}), False, WORDS)
    assert not home.exists()


def test_the_folder_without_a_setting(monkeypatch, tmp_path, pictures):
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    read_features(image_dataset(pictures), False, WORDS)
    assert len(list(Path(tmp_path, ".cache", "huggingface", "hf_prune", "features").iterdir())) == 1
