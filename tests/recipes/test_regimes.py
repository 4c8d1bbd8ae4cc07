"""recipes/benchmarks/regimes.py: the faults that it plants, and whether its comparisons can run."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from recipe_runs import load
from transformers import TrainingArguments

from hf_prune.compare.command import read_arguments
from hf_prune.compare.plan import plan_arms
from hf_prune.recipe.arguments import parse
from hf_prune.recipe.splits import CommonArguments


@pytest.fixture(scope="module")
def regimes():
    return load("benchmarks/regimes")


def rows_of(labels, classes=4):
    columns = Features({"text": Value("string"), "label": ClassLabel(num_classes=classes)})
    return Dataset.from_dict({"text": list(map(str, labels)), "label": labels}, features=columns)


def test_a_share_of_labels_is_wrong_and_the_others_are_as_they_were(regimes):
    found = regimes.flip(rows_of([i % 4 for i in range(4000)]), 0.3)
    given, true, clean = (np.array(found[name]) for name in ("label", "true_label", "clean"))
    assert (true == np.arange(4000) % 4).all() and ((given == true) == clean).all()
    assert abs(0.3 - np.mean(~clean)) < 0.03
    moved = np.bincount((given - true)[~clean] % 4, minlength=4)
    assert moved[0] == 0 and moved[1:].min() > 300  # each other class is as likely
    assert isinstance(found.features["label"], ClassLabel)


def test_a_tail_falls_geometrically(regimes):
    """16 of class 0, an eighth of that of the last: 16, 8, 4, 2."""
    found = regimes.tail(rows_of([i % 4 for i in range(100)]), 16, 8)
    assert np.bincount(found["label"]).tolist() == [16, 8, 4, 2] and len(set(found["label"][:4])) > 1


def test_copies_share_a_group(regimes):
    found = regimes.copied(rows_of([0, 1, 2, 3]), 2, 3)
    assert sorted(zip(found["group"], found["label"], strict=True)) == [*[(0, 0)] * 3, *[(1, 1)] * 3, (2, 2), (3, 3)]


def test_parts_are_disjoint_and_complete(regimes):
    found = regimes.parts(rows_of([0] * 20), 10, 4)
    assert [len(found[name]) for name in ("train", "validation", "test")] == [10, 4, 6]


def test_the_digits_are_those_of_the_recipe(regimes):
    splits = regimes.noisy_digits(None)
    assert [len(rows) for rows in splits.values()] == [1000, 100, 697]
    assert abs(0.6 - np.mean(splits["train"]["clean"])) < 0.05 and "clean" not in splits["test"].column_names


@pytest.mark.slow
def test_the_arguments_of_every_run_are_those_of_its_recipe(regimes):
    commands_of = load("benchmarks/comparing").commands_of
    for name, regime in regimes.REGIMES.items():
        recipe = load(regime.recipe)
        (command,) = commands_of(name, regime)
        options, arguments, _ = read_arguments(command[2:])
        budgets = [float(budget) for budget in options.budgets if budget != "auto"] or [0.5]
        for arm in plan_arms(options.arms, budgets, 10, options.baselines).values():
            argv = [*arguments, *arm.flags, "--seed", "1", "--output_dir", "out"]
            training = getattr(recipe, "Seq2SeqTrainingArguments", TrainingArguments)
            types = (CommonArguments, recipe.RecipeArguments, training)
            common, _, args, policy = parse(*types, argv=argv, **recipe.FROM_SCRATCH)
            assert policy is not None and common.train_file == f"regimes/{name}/train.parquet"
            assert not args.load_best_model_at_end or common.early_stopping_patience
