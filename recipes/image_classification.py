"""Train an image classifier with dynamic data pruning, and report what it saved and what it cost.

Without arguments, it trains a tiny ViT from scratch on scikit-learn's handwritten digits: nothing is downloaded, and it
takes under two minutes on two CPU cores. (Its settings were chosen on the 360 test rows: accuracies are a little high.)

    accelerate launch recipes/image_classification.py

Real pictures come from files (Parquet with pictures inside, or JSON lines, CSV, TSV with their paths), from a folder
that has one folder of pictures per class, or from a data set of the Hub. On one GPU, or on N GPUs:

    accelerate launch recipes/image_classification.py --train_file cifar10/train.parquet \
        --test_file cifar10/test.parquet --model_size small --rand_augment 2 --num_train_epochs 100
    accelerate launch --multi_gpu --num_processes N recipes/image_classification.py --train_dir pictures \
        --image_size 224 --patch_size 16

With the labels of a second file, row by row, such as those that people gave (CIFAR-10N); test rows keep their own:

    accelerate launch recipes/image_classification.py --train_file ... --label_file cifar10n/train.parquet \
        --label_column worse_label

A ResNet in place of the ViT (it halves the sides four times or more: enlarge small pictures by --image_size):

    accelerate launch recipes/image_classification.py --architecture resnet --image_size 64 --train_file ...

A pretrained model, with the picture size of its processor:

    accelerate launch recipes/image_classification.py --model_name_or_path google/vit-base-patch16-224-in21k ...

`--policy uniform --keep 1` is the baseline on all rows, `--policy none` the plain Trainer. `--help` lists the
usual flags and what they are for a model from scratch (pretrained: learning rate 5e-5, 3 epochs), `--help-all` all.
The same command again continues an interrupted run from its last checkpoint, and refuses a finished run. If that
checkpoint lies within an epoch (--save_strategy steps), the rest of the epoch gets new random crops and flips.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    TrainingArguments,
    ViTImageProcessorPil,
    default_data_collator,
    set_seed,
)

from hf_prune import PruningTrainer
from hf_prune.compare.intervals import proportion_interval
from hf_prune.recipe.arguments import parse
from hf_prune.recipe.columns import count_rows, find_column
from hf_prune.recipe.labels import ClassArguments, class_names, encode_labels, join_labels, warn_if_untaught
from hf_prune.recipe.metrics import Accuracy
from hf_prune.recipe.models import loading, names_of, saved_classes
from hf_prune.recipe.outcome import Outcome, arguments_of, finish
from hf_prune.recipe.pictures import Inputs, check_pictures, new_augmentation, read_pictures
from hf_prune.recipe.session import DEFAULTS, Laps, check_metric, find_checkpoint, run, train
from hf_prune.recipe.splits import CommonArguments, hold_out, limit
from hf_prune.recipe.unlabelled import UNLABELLED, is_unlabelled, score, set_apart
from hf_prune.recipe.vision import new_model


@dataclass
class RecipeArguments(ClassArguments):
    """Which pictures to classify, and with which model.

    Args:
        train_dir: Folder with a folder of pictures per class; these may also lie in folders train, validation and test.
        image_column: Column of the pictures: files, or their paths.
        label_column: Column of the training rows' classes; other splits without it are read from `label`.
        label_file: File with that column, if the training file lacks it; one row per training row, in the same order.
        architecture: Kind of a model from scratch: vit or resnet.
        model_size: Size of a model from scratch: tiny, small or base.
        image_size: Height and width of pictures for a model from scratch, in pixels.
        patch_size: Height and width of a ViT's patches, in pixels; a divisor of the image size.
        crop_padding: Black border around training pictures before a random crop, as a share of their sides; 0 = none.
        flip: Whether to mirror half of the training pictures.
        rand_augment: Operations of RandAugment on each training picture; 0 = none.
    """

    train_dir: str | None = None
    image_column: str = "image"
    label_column: str = "label"
    label_file: str | None = None
    architecture: str = "vit"
    model_size: str = "tiny"
    image_size: int = 32
    patch_size: int = 4
    crop_padding: float = 0.125
    flip: bool = True
    rand_augment: int = 0


FROM_SCRATCH = DEFAULTS | dict(
    output_dir="image-classification-output",
    num_train_epochs=30,
    per_device_train_batch_size=64,
    per_device_eval_batch_size=256,
    learning_rate=1e-3,
    lr_scheduler_type="cosine",
    warmup_steps=0.1,  # share of training
    weight_decay=0.05,  # Touvron et al. 2021 (DeiT), table 9
    remove_unused_columns=False,  # the model's inputs are made from the pictures on the fly
    dataloader_num_workers=4 if torch.accelerator.is_available() else 0,
    metric_for_best_model="accuracy",
)
EMBEDDED = dict(  # digits of 8 x 8 pixels
    image_size=8,
    patch_size=2,
    per_device_train_batch_size=32,  # a small data set needs many steps
    learning_rate=2e-3,  # a small model can take it
    num_train_epochs=40,
    flip=False,  # a mirrored 2 is not a 2
)
FINE_TUNING = dict(  # for a pretrained model
    learning_rate=5e-5,
    num_train_epochs=3,
)

# ---- Data ----


def embedded_digits(seed: int = 0) -> DatasetDict:
    """The 1,797 handwritten digits of scikit-learn (UCI's optdigits, test part), 8 x 8 pixels, grey.

    Args:
        seed: Seed that draws the splits.

    Returns:
        Splits train (1,297 rows), validation (140) and test (360) with columns `image` and `label`.
    """
    digits = load_digits()
    pictures = np.rint(digits.images * 255 / 16).astype(np.uint8)  # 17 shades of grey
    rest, test = train_test_split(np.arange(len(pictures)), test_size=360, random_state=seed, stratify=digits.target)
    train, validation = train_test_split(rest, test_size=140, random_state=seed, stratify=digits.target[rest])
    columns = Features({"image": Image(), "label": ClassLabel(names=list(map(str, digits.target_names)))})

    def split(rows: np.ndarray) -> Dataset:
        return Dataset.from_dict({"image": list(pictures[rows]), "label": digits.target[rows]}, features=columns)

    return DatasetDict(train=split(train), validation=split(validation), test=split(test))


def load_pictures(common: CommonArguments, recipe: RecipeArguments, seed: int) -> tuple[DatasetDict, list[str]]:
    """Splits train, validation and, if there is one, test, with columns `image` and `labels`; and the classes.

    Raises:
        ValueError: Arguments don't go together, a column is missing or holds no pictures, or `read_pictures`,
            `join_labels`, `class_names`, `encode_labels`, `hold_out` or `limit` refuses something.
    """
    if recipe.image_column == recipe.label_column:
        raise ValueError(f"image_column and label_column are both {recipe.image_column!r}; name two columns.")
    splits, names = read_pictures(common, recipe.train_dir, embedded_digits)
    if file := recipe.label_file:
        splits["train"] = join_labels(splits["train"], file, recipe.label_column, names["train"], recipe.image_column)
    classes = saved_classes(str(common.model_name_or_path)) or [] if common.is_scored_alone else []
    for split, rows in list(splits.items()):
        image = find_column(rows, "image_column", recipe.image_column, names[split])
        label = recipe.label_column if split == "train" or recipe.label_column in rows.column_names else "label"
        if (split == "test" or common.is_scored_alone) and is_unlabelled(rows, label):
            set_apart(splits, split, {image: "image"}, names[split])
            splits[UNLABELLED] = splits[UNLABELLED].cast_column("image", Image())
            continue
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


# ---- Model ----


def load_model(common: CommonArguments, recipe: RecipeArguments, classes: list[str]):
    """The model and its processor: pretrained, or from scratch."""
    path, names = common.model_name_or_path, names_of(classes)
    if not path:
        processor = ViTImageProcessorPil(size={"height": recipe.image_size, "width": recipe.image_size})
        return new_model(recipe.architecture, recipe.model_size, recipe.image_size, recipe.patch_size, names), processor
    with loading(path):
        processor = AutoImageProcessor.from_pretrained(path)
        model = AutoModelForImageClassification.from_pretrained(path, **names, ignore_mismatched_sizes=True)
    return model, processor


# ---- Train ----


def main(argv: Sequence[str] | None = None) -> None:
    laps = Laps()
    types = (CommonArguments, RecipeArguments, TrainingArguments)
    common, recipe, *_ = parse(*types, argv=argv, **FROM_SCRATCH)
    special = FINE_TUNING if common.model_name_or_path else {}
    special = special | ({} if common.source or recipe.train_dir else EMBEDDED)
    common, recipe, args, policy = parse(*types, argv=argv, **FROM_SCRATCH | special)
    if args.remove_unused_columns:
        raise ValueError(
            "remove_unused_columns=True would remove the pictures, which the model does not know; leave it out."
        )
    arguments = arguments_of(common, recipe, args)
    checkpoint = find_checkpoint(args, policy, common, recipe)
    say = print if args.process_index == 0 else lambda *texts: None
    set_seed(args.seed)
    with args.main_process_first(desc="read the pictures"):
        pictures, classes = load_pictures(common, recipe, args.data_seed or 0)  # --seed does not change the rows
        if args.local_process_index == 0:
            for split, rows in pictures.items():
                check_pictures(rows, split)
    check_metric(args, ("accuracy", "accuracy_top5") if len(classes) > 5 else ("accuracy",))
    model, processor = load_model(common, recipe, classes)
    plain = Inputs(processor)
    high, wide = plain(pictures["train"][:1])["pixel_values"].shape[2:]
    changes = new_augmentation(processor, (high, wide), recipe.crop_padding, recipe.flip, recipe.rand_augment)
    augmented = Inputs(processor, changes)
    rows = {split: data.with_transform(augmented if split == "train" else plain) for split, data in pictures.items()}
    say(f"{count_rows(rows)}; {len(classes)} classes; {model.num_parameters():,} parameters; {high} x {wide} pixels")
    laps.end("reading")

    metric = Accuracy(keep_in_memory=True)
    trainer = PruningTrainer(
        model=model,
        args=args,
        policy=policy,
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        processing_class=processor,
        data_collator=default_data_collator,
        compute_metrics=lambda found: metric.compute(predictions=found.predictions, references=found.label_ids),
        **(common.for_trainer() | recipe.for_trainer(pictures["train"], args)),
    )
    train(trainer, checkpoint)
    laps.end("training")
    outcome = score(
        trainer, rows, lambda: test(trainer, rows, classes), lambda logits: [classes[best] for best in logits.argmax(1)]
    )
    laps.end("testing")
    dataset = common.source or recipe.train_dir or "handwritten digits of scikit-learn"
    card = {"tasks": "image-classification", "dataset": dataset}
    finish(trainer, policy, arguments, outcome, laps, card, __file__)


# ---- Test ----


def test(trainer: PruningTrainer, rows: dict[str, Dataset], classes: list[str]) -> Outcome:
    """Score the test rows, or the validation rows if there are none, and show the most confident mistakes."""
    final = "test" if "test" in rows else "validation"
    output = trainer.predict(rows[final], metric_key_prefix=final)
    probabilities, references = softmax(output.predictions, axis=1), output.label_ids
    predictions = probabilities.argmax(1)
    has_diverged = not np.isfinite(probabilities).all()
    low, high = proportion_interval(np.count_nonzero(predictions == references), len(references))
    low, high = (math.nan, math.nan) if has_diverged else (low, high)
    measured = {name: output.metrics.get(f"{final}_{name}") for name in ("accuracy", "accuracy_top5", "loss")}
    scores = {name: value for name, value in measured.items() if value is not None}
    scores |= {"accuracy_low": low, "accuracy_high": high}
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
    return Outcome("accuracy", scores, final, named, lines, samples)


if __name__ == "__main__":
    run(main)
