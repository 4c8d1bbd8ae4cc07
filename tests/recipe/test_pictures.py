"""Pictures that can't be read, and what a model reads of those that can."""

import numpy as np
import pytest
import torch
from datasets import Dataset, Image
from PIL import Image as Picture
from transformers import ViTImageProcessorPil

from hf_prune.recipe.pictures import Inputs, check_pictures, new_augmentation


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def pictures(labels):
    images = [Picture.new("RGB", (8, 8), (value, value, value)) for value in range(len(labels))]
    return Dataset.from_dict({"image": images, "label": labels}).cast_column("image", Image())


def test_pictures_that_do_not_open_are_named(tmp_path):
    for name in ("a.png", "b.png", "c.png", "d.png"):
        Picture.new("RGB", (64, 64), (7, 7, 7)).save(tmp_path / name)
    (tmp_path / "b.png").write_text("no picture")
    data = (tmp_path / "c.png").read_bytes()
    (tmp_path / "c.png").write_bytes(data[: len(data) // 2])
    rows = Dataset.from_dict({"image": ["a.png", "b.png", "c.png", None, "d.png"]}).cast_column("image", Image())
    with pytest.raises(
        ValueError, match=r"3 of 5 pictures of train can't be read: row 1 \(b\.png\): cannot ident"
    ) as e:
        check_pictures(rows, "train")
    assert "row 2 (c.png): " in str(e.value) and "row 3 has none" in str(e.value)
    check_pictures(rows.select([0, 4]), "train")


def test_greys_of_16_bits_keep_their_brightness_and_unbounded_ones_are_refused(tmp_path):
    grey = np.full((8, 8), 0x8000, np.uint16)
    Picture.fromarray(grey).save(tmp_path / "grey.png")
    Picture.fromarray(grey.astype(np.int32)).save(tmp_path / "whole.tiff")
    Picture.fromarray(grey.astype(np.float32)).save(tmp_path / "real.tiff")
    paths = [str(tmp_path / name) for name in ("grey.png", "whole.tiff", "real.tiff")]
    rows = Dataset.from_dict({"image": paths}).cast_column("image", Image())
    with pytest.raises(ValueError, match=r"2 of 3 .* its mode is I, in which .* its mode is F, in which"):
        check_pictures(rows, "train")
    processor = ViTImageProcessorPil(do_resize=False, do_normalize=False)
    pixels = Inputs(processor)({"image": rows["image"][:1], "labels": [0]})["pixel_values"]
    assert float(pixels.mean()) == pytest.approx(0x80 / 255)


@pytest.fixture
def processor():
    return ViTImageProcessorPil(size={"height": 8, "width": 8})


@pytest.fixture
def noise(rng):
    """64 pictures of 8 x 8 random pixels, and what the model reads of them."""
    arrays = rng.integers(0, 256, (64, 8, 8, 3), dtype=np.uint8)
    inputs = torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 255 * 2 - 1
    return {"image": list(map(Picture.fromarray, arrays)), "labels": [0] * 64}, inputs


CHANGES = {"crop_padding": 0.125, "flip": True, "rand_augment": 0}


def make(processor, noise, **fields):
    torch.manual_seed(0)
    augmentation = new_augmentation(processor, (8, 8), **CHANGES | fields)
    return Inputs(processor, augmentation)(noise[0])["pixel_values"]


def test_inputs_are_scaled_and_normalized(processor, noise):
    made = Inputs(processor)(noise[0])
    assert made["pixel_values"].dtype == torch.float32 and made["labels"] == [0] * 64
    torch.testing.assert_close(made["pixel_values"], noise[1])
    untouched = make(processor, noise, crop_padding=0, flip=False)
    torch.testing.assert_close(untouched, noise[1])


def test_crops_move_pictures_over_a_black_border(processor, noise):
    made = make(processor, noise, crop_padding=0.25, flip=False)
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


def test_half_of_the_pictures_are_mirrored(processor, noise):
    made = make(processor, noise, crop_padding=0)
    mirrored = [torch.allclose(one, other.flip(-1), atol=1e-5) for one, other in zip(made, noise[1], strict=True)]
    same = [torch.allclose(one, other, atol=1e-5) for one, other in zip(made, noise[1], strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True)) and 20 < sum(mirrored) < 44


def test_rand_augment_draws_for_each_picture(processor):
    rows = {"image": [Picture.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))] * 12, "labels": [0] * 12}
    made = make(processor, (rows,), crop_padding=0, flip=False, rand_augment=2)
    kinds = {tuple(one.flatten().round(decimals=4).tolist()) for one in made}
    assert len(kinds) > 6 and made.isfinite().all() and made.shape == (12, 3, 8, 8)


def test_transform_leaves_the_rows_as_they_are(processor):
    rows = pictures([3, 1, 4, 1, 5, 9, 2, 6]).rename_column("label", "labels")
    read = rows.with_transform(Inputs(processor))
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
def test_augmentation_out_of_range(processor, fields, message):
    with pytest.raises(ValueError, match=message):
        new_augmentation(processor, (8, 8), **CHANGES | fields)
