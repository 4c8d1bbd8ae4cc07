"""Folders of pictures, checks of pictures, and the inputs that a model gets from them."""

import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import kornia.augmentation as K
import PIL.Image
import torch
from datasets import ClassLabel, Dataset, Image
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from kornia.augmentation.auto.rand_augment.rand_augment import RandAugment, default_policy
from torch import nn
from tqdm.auto import tqdm

from ..data.pixels import eight_bits
from ..records.table import FILE_ROW
from .splits import CommonArguments, number_rows, read_splits

SPLIT_FOLDERS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLIT_FOLDERS |= dict.fromkeys(("validation", "valid", "val", "dev"), "validation")


def read_pictures(
    common: CommonArguments, train_dir: str | None, embedded: Callable[[], Mapping[str, Dataset]]
) -> tuple[dict[str, Dataset], dict[str, str]]:
    """Read what `read_splits` reads, or a folder of pictures.

    Args:
        common: The common flags.
        train_dir: The folder, if there is one.
        embedded: Reads the data of a run without arguments.

    Raises:
        ValueError: A folder is given for a file, data come from two places, or `read_splits` or `read_folder` refuses.
    """
    for flag in ("train_file", "validation_file", "test_file"):
        if (path := getattr(common, flag)) and Path(path).is_dir():
            raise ValueError(
                f"{flag}={path!r} is a folder: give folders of pictures by --train_dir, those of all splits in one "
                "that has folders train, validation and test."
            )
    if not train_dir:
        return read_splits(common, embedded)
    if common.source:
        raise ValueError(f"train_dir={train_dir!r} and {common.source!r} are both to be trained on; give one.")
    return number_rows(read_folder(train_dir), replace(common, dataset_name=train_dir), {})


def read_folder(folder: str) -> dict[str, Dataset]:
    """The splits of a folder: its subfolders if they have the names of splits, else the whole folder is train.

    Returns:
        Rows by split, in the order of their paths, with columns `image` (the files, which stay where they are) and
        `label`, the name of the folder around each. Files that are not pictures are skipped.

    Raises:
        ValueError: There is no such folder, no split train, no folder of pictures in a split, or pictures are
            elsewhere.
    """
    if Path(folder).is_file():
        raise ValueError(f"train_dir={folder!r} is a file: give it by --train_file.")
    if not Path(folder).is_dir():
        raise ValueError(f"train_dir={folder!r} is no folder; name one that has a folder for each class.")
    inside = sorted(path for path in Path(folder).iterdir() if path.is_dir() and not path.name.startswith("."))
    known = {path: SPLIT_FOLDERS.get(path.name.lower(), "") for path in inside}
    roots = {split: path for path, split in known.items()} if inside and all(known.values()) else {"train": folder}
    if all(known.values()) and len(set(known.values())) < len(known):
        raise ValueError(
            f"train_dir={folder!r} has two folders of one split: {', '.join(path.name for path in inside)}."
        )
    if "train" not in roots:
        raise ValueError(f"train_dir={folder!r} has {', '.join(path.name for path in inside)}, and no folder train.")
    return {split: read_classes(Path(root)) for split, root in roots.items()}


def read_classes(root: Path) -> Dataset:
    """The pictures of a folder that has a folder for each class; see `read_folder`."""
    inside = ((path, path.relative_to(root).parts) for path in root.rglob("*"))
    files = sorted(path for path, parts in inside if path.is_file() and not any(part[0] == "." for part in parts))
    pictures = [path for path in files if path.suffix.lower() in ImageFolder.EXTENSIONS]
    cure = f"Put those of {root} into one folder for each class, with no folder in it, or list them in a --train_file"
    if stray := [path for path in pictures if path.parent.parent != root]:
        raise ValueError(f"train_dir: {len(stray)} pictures are in no class, such as {stray[0]}. {cure}.")
    if not pictures:
        raise ValueError(f"train_dir: {root} has no pictures of known suffixes ({len(files)} files). {cure}.")
    if others := [path for path in files if path.suffix.lower() not in ImageFolder.EXTENSIONS]:
        warnings.warn(f"{len(others)} files are passed over as no pictures, such as {others[0]}.", stacklevel=2)
    classes = sorted({path.parent.name for path in pictures})
    number = {name: place for place, name in enumerate(classes)}
    columns = {"image": list(map(str, pictures)), "label": [number[path.parent.name] for path in pictures]}
    return Dataset.from_dict(columns, features=datasets.Features(image=Image(), label=ClassLabel(names=classes)))


def check_pictures(rows: Dataset, name: str) -> None:
    """Read every picture once, as each epoch will: a broken one is found before hours are spent.

    Raises:
        ValueError: Some can't be read; the message names the first ones.
    """
    batches: Any = rows.select_columns("image").with_format("arrow").iter(256)
    with ThreadPoolExecutor() as pool:  # decoding lets other threads run
        flaws = [
            flaw
            for batch in tqdm(batches, f"Check pictures ({name})", total=-(-len(rows) // 256), leave=False)
            for flaw in pool.map(find_flaw, batch["image"].to_pylist())
        ]
    places = rows[FILE_ROW][:] if FILE_ROW in rows.column_names else range(len(rows))
    wrong = [f"row {place}{flaw}" for place, flaw in zip(places, flaws, strict=True) if flaw is not None]
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {len(rows)} pictures of {name} can't be read: {'; '.join(wrong[:5])}. Replace them, or "
            "remove their rows; a path is seen from the working folder."
        )


def find_flaw(picture: dict[str, Any] | None) -> str | None:
    """Where a picture is stored and why it can't be read; None if it can be read."""
    if picture is None:
        return " has none"
    try:
        with PIL.Image.open(picture["path"] if picture["bytes"] is None else BytesIO(picture["bytes"])) as image:
            image.load()
            if image.mode in ("I", "F"):
                return f": its mode is {image.mode}, in which no number stands for white; save it with 8 or 16 bits"
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:  # SyntaxError: a broken PNG
        return f" ({picture['path'] or 'in the file'}): {error}"
    return None


class Inputs:
    """Makes the model's inputs from rows when they are read, in the workers; nothing is stored.

    Args:
        processor: Resizes, scales and normalizes.
        augmentation: Changes training pictures after scaling, and also normalizes them.
    """

    def __init__(self, processor: Any, augmentation: nn.Module | None = None):
        self.processor, self.augmentation = processor, augmentation

    def __call__(self, rows: dict[str, list]) -> dict[str, Any]:
        pictures = [eight_bits(picture).convert("RGB") for picture in rows["image"]]
        options = {} if self.augmentation is None else {"do_normalize": False}
        pixels = self.processor(pictures, return_tensors="pt", **options)["pixel_values"]
        inputs = {"pixel_values": pixels if self.augmentation is None else self.augmentation(pixels)}
        return inputs | {name: rows[name] for name in ("labels",) if name in rows}


class EachAlone(nn.Module):
    """Applies a random operation to each picture of a batch (B, C, H, W) alone, so that each gets its own draw."""

    def __init__(self, operation: nn.Module):
        super().__init__()
        self.operation = operation

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.operation(picture) for picture in pixels.split(1)])


def new_augmentation(
    processor: Any, size: tuple[int, int], crop_padding: float, flip: bool, rand_augment: int
) -> nn.Sequential:
    """Augmentation and normalization of training pictures (B, 3, height, width) with values in [0, 1].

    Args:
        processor: Says how to normalize.
        size: (height, width).
        crop_padding: Black border before a random crop, as a share of the sides; 0 = none.
        flip: Whether to mirror half of the pictures.
        rand_augment: Operations of RandAugment on each picture; 0 = none.

    Raises:
        ValueError: A setting is out of range.
    """
    if not 0 <= crop_padding < 1:
        raise ValueError(f"crop_padding={crop_padding} must be in [0, 1).")
    if not 0 <= rand_augment <= len(default_policy):
        raise ValueError(f"rand_augment={rand_augment} must be in 0 ... {len(default_policy)}.")
    height, width = size
    steps: list[nn.Module] = []
    padding = (round(crop_padding * width), round(crop_padding * height))
    if any(padding):
        steps.append(K.RandomCrop((height, width), padding=padding))
    if flip:
        steps.append(K.RandomHorizontalFlip())
    if rand_augment:
        steps.append(EachAlone(RandAugment(rand_augment, m=9)))  # M = 9 of Cubuk et al. 2020 for ImageNet
    if processor.do_normalize:
        steps.append(K.Normalize(processor.image_mean, processor.image_std))
    return nn.Sequential(*steps)
