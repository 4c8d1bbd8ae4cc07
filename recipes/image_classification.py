"""Train an image classifier on the rows that still teach, and account for the rest.

Without arguments: a tiny ViT from scratch on the handwritten digits that scikit-learn ships, nothing downloaded, under
two minutes on two CPU cores (its settings were chosen with the 360 test rows in view, so accuracies are a little high):

    accelerate launch recipes/image_classification.py

Real pictures are files (Parquet with pictures inside, or JSON lines, CSV, TSV with their paths), a folder that has one
of pictures for each class, or a data set of the Hub. On one GPU, or on N of them:

    accelerate launch recipes/image_classification.py --train_file cifar10/train.parquet \
        --test_file cifar10/test.parquet --model_size small --rand_augment 2 --num_train_epochs 100
    accelerate launch --multi_gpu --num_processes N recipes/image_classification.py --train_dir pictures \
        --image_size 224 --patch_size 16

With the labels of a second file, row by row, such as those that people gave (CIFAR-10N); test rows keep theirs:

    accelerate launch recipes/image_classification.py --train_file ... --label_file cifar10n/train.parquet \
        --label_column worse_label

A pretrained model, with the picture size that its processor has:

    accelerate launch recipes/image_classification.py --model_name_or_path google/vit-base-patch16-224-in21k ...

`--policy uniform --keep 1` is the baseline on all rows, `--policy none` the plain Trainer; `--help` lists every flag.
The same command again goes on from the last checkpoint of a run that was interrupted, and refuses a finished one; from
a checkpoint within an epoch (--save_strategy steps), what is left of that epoch is cropped and mirrored anew.
"""

import math
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import evaluate
import kornia.augmentation as K
import numpy as np
import PIL.Image
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Image
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from kornia.augmentation.auto.rand_augment import RandAugment
from kornia.augmentation.auto.rand_augment.rand_augment import default_policy
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, top_k_accuracy_score
from sklearn.model_selection import train_test_split
from torch import nn
from tqdm.auto import tqdm
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
    default_data_collator,
    set_seed,
)
from transformers.utils import is_torch_bf16_gpu_available

from hf_prune import PruningTrainer
from hf_prune.data.pixels import eight_bits
from hf_prune.recipe.arguments import parse
from hf_prune.recipe.session import Outcome, arguments_of, check_metric, find_checkpoint, finish, loading, run, train
from hf_prune.recipe.splits import (
    CommonArguments,
    class_names,
    encode_labels,
    find_column,
    hold_out,
    limit,
    number_rows,
    read_file,
    read_splits,
    warn_if_untaught,
)
from hf_prune.records.table import FILE_ROW


@dataclass
class RecipeArguments:
    """Which pictures to tell apart, and with which model.

    Args:
        train_dir: Folder with a folder of pictures for each class; or, above those, folders train, validation and test.
        image_column: Column of the pictures: files, or their paths.
        label_column: Column of the training rows' classes; other splits that lack it have theirs in `label`.
        label_file: File with that column, if it is not in the training file; a row for each training row, in its order.
        model_size: Size of a model from scratch: tiny, small or base.
        image_size: Height and width that a model from scratch sees, in pixels.
        patch_size: Height and width of its patches; a divisor of the image size.
        crop_padding: Black border that training pictures get before a random crop, as a share of their sides; 0 = none.
        flip: Whether to mirror half of the training pictures.
        rand_augment: Operations of RandAugment on each training picture; 0 = none.
    """

    train_dir: str | None = None
    image_column: str = "image"
    label_column: str = "label"
    label_file: str | None = None
    model_size: str = "tiny"
    image_size: int = 32
    patch_size: int = 4
    crop_padding: float = 0.125
    flip: bool = True
    rand_augment: int = 0


FROM_SCRATCH = dict(
    policy="infobatch",  # its weights keep the gradient unbiased
    output_dir="image-classification-output",
    num_train_epochs=30,
    per_device_train_batch_size=64,
    per_device_eval_batch_size=256,
    learning_rate=1e-3,
    lr_scheduler_type="cosine",
    warmup_steps=0.1,  # share of training
    weight_decay=0.05,  # Touvron et al. 2021 (DeiT), table 9
    bf16=is_torch_bf16_gpu_available(),
    remove_unused_columns=False,  # the model knows no pictures, only what is made of them on the fly
    dataloader_num_workers=4 if torch.accelerator.is_available() else 0,
    dataloader_pin_memory=torch.accelerator.is_available(),
    eval_strategy="epoch",
    save_strategy="epoch",
    save_total_limit=2,
    load_best_model_at_end=True,
    metric_for_best_model="accuracy",
    logging_steps=50,
)
EMBEDDED = dict(  # digits of 8 x 8 pixels
    image_size=8,
    patch_size=2,
    per_device_train_batch_size=32,  # a small data set wants many steps
    learning_rate=2e-3,  # a small model bears it
    num_train_epochs=40,
    flip=False,  # a mirrored 2 is none
)
FINE_TUNING = dict(  # for a model that knows pictures already
    learning_rate=5e-5,
    num_train_epochs=3,
)

SIZES = {  # width, layers, heads, inner width of the feed-forward layers
    "tiny": (64, 3, 4, 128),
    "small": (192, 12, 3, 768),  # Touvron et al. 2021, table 1: DeiT-Ti
    "base": (768, 12, 12, 3072),  # Dosovitskiy et al. 2021, table 1: ViT-B
}

SPLIT_FOLDERS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLIT_FOLDERS |= dict.fromkeys(("validation", "valid", "val", "dev"), "validation")

# ---- Data ----


def embedded_digits(seed: int = 0) -> DatasetDict:
    """The 1,797 handwritten digits of scikit-learn (UCI's optdigits, test part), 8 x 8 pixels, grey.

    Args:
        seed: Chooses which are in which split.

    Returns:
        Splits train (1,297 rows), validation (140) and test (360) with columns `image` and `label`.
    """
    digits = load_digits()
    pictures = np.rint(digits.images * 255 / 16).astype(np.uint8)  # 17 shades
    rows = np.arange(len(pictures))
    rest, test = train_test_split(rows, test_size=360, random_state=seed, stratify=digits.target)
    train, validation = train_test_split(rest, test_size=140, random_state=seed, stratify=digits.target[rest])
    columns = datasets.Features({"image": Image(), "label": ClassLabel(names=list(map(str, digits.target_names)))})

    def split(rows: np.ndarray) -> Dataset:
        return Dataset.from_dict({"image": list(pictures[rows]), "label": digits.target[rows]}, features=columns)

    return DatasetDict(train=split(train), validation=split(validation), test=split(test))


def join_labels(rows: Dataset, recipe: RecipeArguments, name: str) -> Dataset:
    """The rows with the label column of the second file, instead of one that they may have.

    Raises:
        ValueError: It lacks the column, has not as many rows, or another value in a column that both have.
    """
    file = f"label_file={recipe.label_file!r}"
    try:
        labels = read_file(str(recipe.label_file))
    except ValueError as error:
        raise ValueError(f"label_file: {error}") from error
    column = find_column(labels, "label_column", recipe.label_column, str(recipe.label_file))
    if len(labels) != len(rows):
        raise ValueError(f"{file} has {len(labels)} rows, and {name} has {len(rows)}; give one for each, in its order.")
    for shared in sorted(set(rows.column_names) & set(labels.column_names) - {column, recipe.image_column}):
        for row, (one, other) in enumerate(zip(rows[shared][:], labels[shared][:], strict=True)):
            if one != other:
                raise ValueError(
                    f"{file}: row {row} has {shared} {other!r}, but that of {name} has {one!r}; give rows in one order."
                )
    rest = rows.select_columns([other for other in rows.column_names if other != column])
    return datasets.concatenate_datasets([rest, labels.select_columns(column)], axis=1)


def read_folder(folder: str) -> dict[str, Dataset]:
    """The splits of a folder: the folders in it if they are named so, else all of it is train.

    Returns:
        Rows by split, in the order of their paths, with columns `image` (the files, which stay where they are) and
        `label`, the folder that each lies in. Files that are no pictures are passed over.

    Raises:
        ValueError: There is no such folder, or no split train; or no folder of pictures in a split, or pictures that
            lie elsewhere.
    """
    if Path(folder).is_file():
        raise ValueError(f"train_dir={folder!r} is a file: give it by --train_file.")
    if not Path(folder).is_dir():
        raise ValueError(f"train_dir={folder!r} is no folder; name one that has a folder for each class.")
    inside = sorted(path for path in Path(folder).iterdir() if path.is_dir() and not path.name.startswith("."))
    known = {path: SPLIT_FOLDERS.get(path.name.lower()) for path in inside}
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


def load_pictures(common: CommonArguments, recipe: RecipeArguments, seed: int) -> tuple[DatasetDict, list[str]]:
    """Splits train, validation and, where there is one, test, with columns `image` and `labels`; and the classes.

    Raises:
        ValueError: Arguments that don't go together, a column that is missing or holds no pictures, or what
            `read_splits`, `read_folder`, `join_labels`, `class_names`, `encode_labels`, `hold_out` and `limit` refuse.
    """
    if recipe.image_column == recipe.label_column:
        raise ValueError(f"image_column and label_column are both {recipe.image_column!r}; name two columns.")
    for flag in ("train_file", "validation_file", "test_file"):
        if (path := getattr(common, flag)) and Path(path).is_dir():
            raise ValueError(
                f"{flag}={path!r} is a folder: give folders of pictures by --train_dir, those of all splits in one "
                "that has folders train, validation and test."
            )
    if recipe.train_dir:
        if common.source:
            raise ValueError(
                f"train_dir={recipe.train_dir!r} and {common.source!r} are both to be trained on; give one."
            )
        common = replace(common, dataset_name=recipe.train_dir)
        splits, names = number_rows(read_folder(recipe.train_dir), common, {})
    else:
        splits, names = read_splits(common, embedded_digits)
    if recipe.label_file:
        splits["train"] = join_labels(splits["train"], recipe, names["train"])
    classes = []
    for split, rows in splits.items():
        label = recipe.label_column
        if split != "train" and label not in rows.column_names:
            label = "label"
        image = find_column(rows, "image_column", recipe.image_column, names[split])
        label = find_column(rows, "label_column", label, names[split])
        rows = rows.select_columns([image, label, *common.carried(rows, image, label, "image", "labels")])
        try:
            rows = rows.cast_column(image, Image())
        except (TypeError, ValueError, NotImplementedError) as error:
            kind = rows.features[image]
            raise ValueError(f"image_column={image!r}: {names[split]} has {kind} there, no pictures.") from error
        classes = classes or class_names(rows, label, names[split])
        splits[split] = encode_labels(rows, label, classes, names[split]).rename_columns({image: "image"})
    pictures = limit(hold_out(splits, seed, stratify_by="labels"), common)
    warn_if_untaught(pictures)
    return pictures, classes


def check_pictures(rows: Dataset, name: str) -> None:
    """Read every picture once, as each epoch will: one that does not open is found before hours are spent.

    Raises:
        ValueError: Some do not; names the first ones.
    """
    batches = rows.select_columns("image").with_format("arrow").iter(256)
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
    """Where a picture is stored and why it can't be read; None where it can."""
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


class EachAlone(nn.Module):
    """Applies a random operation to one picture of a batch (B, C, H, W) after the other, so that each draws its own."""

    def __init__(self, operation: nn.Module):
        super().__init__()
        self.operation = operation

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.operation(picture) for picture in pixels.split(1)])


def new_augmentation(recipe: RecipeArguments, processor: Any, height: int, width: int) -> nn.Sequential:
    """What is done to training pictures (B, 3, height, width) of values in [0, 1], and what normalizes them.

    Raises:
        ValueError: A setting out of range.
    """
    if not 0 <= recipe.crop_padding < 1:
        raise ValueError(f"crop_padding={recipe.crop_padding} must be in [0, 1).")
    if not 0 <= recipe.rand_augment <= len(default_policy):
        raise ValueError(f"rand_augment={recipe.rand_augment} must be in 0 ... {len(default_policy)}.")
    steps: list[nn.Module] = []
    padding = (round(recipe.crop_padding * width), round(recipe.crop_padding * height))
    if any(padding):
        steps.append(K.RandomCrop((height, width), padding=padding))
    if recipe.flip:
        steps.append(K.RandomHorizontalFlip())
    if recipe.rand_augment:
        steps.append(EachAlone(RandAugment(recipe.rand_augment, m=9)))  # M = 9 of Cubuk et al. 2020 for ImageNet
    if processor.do_normalize:
        steps.append(K.Normalize(processor.image_mean, processor.image_std))
    return nn.Sequential(*steps)


class Inputs:
    """Makes the model's inputs of rows as they are read, in the workers: nothing is stored.

    Args:
        processor: Resizes, scales and normalizes.
        augmentation: What is done to training pictures between scaling and normalizing, which it does, too.
    """

    def __init__(self, processor: Any, augmentation: nn.Module | None = None):
        self.processor, self.augmentation = processor, augmentation

    def __call__(self, rows: dict[str, list]) -> dict[str, Any]:
        pictures = [eight_bits(picture).convert("RGB") for picture in rows["image"]]
        options = {} if self.augmentation is None else {"do_normalize": False}
        pixels = self.processor(pictures, return_tensors="pt", **options)["pixel_values"]
        return {
            "pixel_values": pixels if self.augmentation is None else self.augmentation(pixels),
            "labels": rows["labels"],
        }


# ---- Model ----


def new_model(recipe: RecipeArguments, names: dict[str, Any]) -> ViTForImageClassification:
    """A ViT with random weights; ValueError for unknown sizes, or patches that don't fill the picture."""
    if recipe.model_size not in SIZES:
        raise ValueError(f"model_size={recipe.model_size!r} is not known; give one of {', '.join(SIZES)}.")
    if recipe.patch_size < 1 or recipe.image_size % recipe.patch_size:
        raise ValueError(f"patch_size={recipe.patch_size} is no divisor of image_size={recipe.image_size}.")
    width, layers, heads, inner = SIZES[recipe.model_size]
    config = ViTConfig(
        image_size=recipe.image_size,
        patch_size=recipe.patch_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        initializer_range=width**-0.5,  # keeps the scale of what a layer reads; 0.02 is too small for narrow models
        **names,
    )
    return ViTForImageClassification(config)


# ---- Metric ----


class Accuracy(evaluate.Metric):
    """Accuracy, and that of the best five of more classes, as scikit-learn computes them; nothing is downloaded."""

    def _info(self):
        features = {"predictions": datasets.List(datasets.Value("float32")), "references": datasets.Value("int64")}
        return evaluate.MetricInfo(
            description="Share of rows whose class has the highest score, or one of the five highest.",
            citation="Pedregosa et al. (2011), Scikit-learn: Machine Learning in Python, JMLR 12.",
            inputs_description="predictions: scores of all classes for each row. references: numbers of the classes.",
            features=datasets.Features(features),
        )

    def _compute(self, predictions, references):
        scores = np.asarray(predictions)
        classes = np.arange(scores.shape[1])
        names = ("accuracy", "accuracy_top5") if len(classes) > 5 else ("accuracy",)
        if not np.isfinite(scores).all():
            return dict.fromkeys(names, math.nan)  # the model has diverged, and its first class would be its answer
        found = [accuracy_score(references, scores.argmax(1))]
        if len(classes) > 5:
            found.append(top_k_accuracy_score(references, scores, k=5, labels=classes))
        return {name: float(value) for name, value in zip(names, found, strict=True)}


# ---- The run ----


def main(argv: list[str] | None = None) -> None:
    begin = time.perf_counter()
    types = (CommonArguments, RecipeArguments, TrainingArguments)
    common, recipe, *_ = parse(*types, argv=argv, **FROM_SCRATCH)
    special = (FINE_TUNING if common.model_name_or_path else {}) | (
        {} if common.source or recipe.train_dir else EMBEDDED
    )
    common, recipe, args, policy = parse(*types, argv=argv, **FROM_SCRATCH | special)
    if args.remove_unused_columns:
        raise ValueError(
            "remove_unused_columns=True would remove the pictures, which the model does not know; leave it out."
        )
    arguments = arguments_of(common, recipe, args)
    checkpoint = find_checkpoint(args, policy, common, recipe)
    say = print if args.process_index == 0 else lambda *texts: None
    set_seed(args.seed)

    # Data
    with args.main_process_first(desc="read the pictures"):
        pictures, classes = load_pictures(common, recipe, args.data_seed or 0)  # --seed leaves the rows alone
        if args.local_process_index == 0:
            for split, rows in pictures.items():
                check_pictures(rows, split)
    final = "test" if "test" in pictures else "validation"
    check_metric(args, ("accuracy", "accuracy_top5") if len(classes) > 5 else ("accuracy",))

    # Model
    names = {"id2label": dict(enumerate(classes)), "label2id": {name: label for label, name in enumerate(classes)}}
    if common.model_name_or_path:
        with loading(common.model_name_or_path):
            processor = AutoImageProcessor.from_pretrained(common.model_name_or_path)
            model = AutoModelForImageClassification.from_pretrained(
                common.model_name_or_path, **names, ignore_mismatched_sizes=True
            )
    else:
        processor = ViTImageProcessorPil(size={"height": recipe.image_size, "width": recipe.image_size})
        model = new_model(recipe, names)
    plain = Inputs(processor)
    shape = plain(pictures["train"][:1])["pixel_values"].shape
    augmented = Inputs(processor, new_augmentation(recipe, processor, *shape[2:]))
    rows = {split: data.with_transform(augmented if split == "train" else plain) for split, data in pictures.items()}
    sizes = ", ".join(f"{len(split):,} {name}" for name, split in rows.items())
    say(f"{sizes} rows; {len(classes)} classes; {model.num_parameters():,} parameters; {shape[2]} x {shape[3]} pixels")
    read = time.perf_counter()

    # Metric
    metric = Accuracy(keep_in_memory=True)

    def compute_metrics(outputs):
        return metric.compute(predictions=outputs.predictions, references=outputs.label_ids)

    # Train
    trainer = PruningTrainer(
        model=model,
        args=args,
        policy=policy,
        history=common.history,
        history_key=common.history_key,
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        processing_class=processor,
        data_collator=default_data_collator,
        compute_metrics=compute_metrics,
        callbacks=common.callbacks(),
    )
    train(trainer, checkpoint)
    trained = time.perf_counter()

    # Test
    output = trainer.predict(rows[final], metric_key_prefix=final)
    probabilities, references = softmax(output.predictions, axis=1), output.label_ids
    predictions = probabilities.argmax(1)
    right = int(np.count_nonzero(predictions == references))
    has_diverged = not np.isfinite(probabilities).all()
    low, high = binomtest(right, len(references)).proportion_ci(method="wilson")
    low, high = (math.nan, math.nan) if has_diverged else (low, high)
    scores = {
        name: output.metrics[f"{final}_{name}"]
        for name in ("accuracy", "accuracy_top5", "loss")
        if f"{final}_{name}" in output.metrics
    }
    scores |= {"accuracy_low": low, "accuracy_high": high}
    seconds = {"reading": read - begin, "training": trained - read, "testing": time.perf_counter() - trained}

    # Report
    lines = [
        f"accuracy {scores['accuracy']:.2%}, 95 % interval {low:.2%} to {high:.2%} "
        f"({final}, {len(references):,} rows, Wilson's)"
    ]
    mistakes = np.flatnonzero((predictions != references) & (not has_diverged))
    surest = mistakes[np.argsort(-probabilities[mistakes, predictions[mistakes]], kind="stable")][:5]
    samples = [
        f"row {row} of {final}: {classes[references[row]]}, taken for {classes[predictions[row]]} "
        f"with {probabilities[row, predictions[row]]:.1%}"
        for row in surest
    ]
    named = {"predictions": predictions, "references": references}
    named = {name: [classes[label] for label in labels] for name, labels in named.items()}
    outcome = Outcome("accuracy", scores, final, named, lines, samples)
    dataset = common.source or recipe.train_dir or "handwritten digits of scikit-learn"
    card = {"tasks": "image-classification", "dataset": dataset}
    finish(trainer, policy, arguments, outcome, seconds, card, __file__)


if __name__ == "__main__":
    run(main)
