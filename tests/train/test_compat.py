"""Trainer's own insides: every one that is used is named, and a changed one is noticed on import."""

import inspect
import re
from pathlib import Path

import pytest
import tomllib
import transformers
from transformers import Trainer

import hf_prune
from hf_prune import PruningMixin
from hf_prune.train.compat import FIRST, LAST, SEAMS, check_seams

PACKAGE = Path(hf_prune.__file__).parent


def changed(**methods) -> type:
    """A Trainer with other methods; None takes one away."""
    own = {name: getattr(Trainer, name) for name in SEAMS} | methods
    return type("Trainer", (), {name: method for name, method in own.items() if method is not None})


def message(trainer: type) -> str:
    with pytest.raises(ImportError) as caught:
        check_seams(trainer)
    return str(caught.value)


def test_the_installed_trainer_fits():
    check_seams(Trainer)
    check_seams(changed())


def test_both_versions_and_the_cure_are_named():
    said = message(changed(_save_rng_state=None))
    assert (
        f"Trainer._save_rng_state(output_dir), which the installed transformers {transformers.__version__} la" in said
    )
    assert f"tested with transformers {FIRST} to {LAST}: pip install 'transformers>={FIRST},<={LAST}'" in said


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("_run_epoch", lambda self, epoch: None),
        ("_save_checkpoint", lambda self, model, trial, metrics: None),
        ("_save_checkpoint", lambda self, trial, model: None),
        ("_finalize_training", lambda self, trial, samples, start_time: None),
        ("_get_train_sampler", lambda self: None),
        ("_wrap_model", lambda self, model: None),
    ],
    ids=["fewer", "more", "other order", "renamed", "none", "fewer of a called one"],
)
def test_other_parameters_are_noticed(name, method):
    found = ", ".join(list(inspect.signature(method).parameters)[1:])
    assert f"has as {name}({found})." in message(changed(**{name: method}))


def test_what_is_handed_on_may_grow():
    def epoch(self, train_dataloader, steps_in_epoch, num_update_steps_per_epoch, resume_from_checkpoint, epoch,
              epochs_trained, steps_trained_in_current_epoch, something_new): ...  # fmt: skip

    check_seams(changed(_run_epoch=epoch, _maybe_log_save_evaluate=lambda self, anything: None))


def test_every_inside_that_is_used_is_named():
    insides = {name for name, value in inspect.getmembers(Trainer, callable) if re.match("_[a-z]", name)}
    overridden = insides & set(vars(PruningMixin))
    called = set()
    for path in PACKAGE.rglob("*.py"):
        called |= insides & set(re.findall(r"(?:self|trainer|super\(\))\.(_\w+)\(", path.read_text(encoding="utf-8")))
    assert len(overridden) > 5 and len(called) > 5
    assert overridden | called <= set(SEAMS)


def test_the_versions_are_those_of_the_package():
    path = PACKAGE.parent / "pyproject.toml"
    if not path.is_file():
        pytest.skip("an installed package has no pyproject.toml")
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    wanted = next(line for line in project["dependencies"] if line.startswith("transformers"))
    assert FIRST.startswith(wanted.removeprefix("transformers>=").split(",")[0])
    assert f"transformers=={LAST}" in project["optional-dependencies"]["recipes"]
