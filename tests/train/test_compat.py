"""Private members of Trainer that we rely on: every one is named, and a changed one is noticed on import."""

import ast
import inspect
import re
from pathlib import Path

import pytest
import tomllib
import transformers
from accelerate import Accelerator
from torch.optim.lr_scheduler import LRScheduler
from transformers import Trainer

import hf_prune
from hf_prune import PruningMixin
from hf_prune.train.compat import ATTRIBUTES, FIRST, LAST, MEMBERS, OPTIONAL, check_members

PACKAGE = Path(hf_prune.__file__).parent
PRIVATE = re.compile("_[a-z]")


def changed(**methods) -> type:
    """A Trainer with other methods; None takes one away."""
    own = {name: method for name, method in vars(Trainer).items() if inspect.isfunction(method)} | methods
    return type("Trainer", (), {name: method for name, method in own.items() if method is not None})


def message(*classes: type) -> str:
    with pytest.raises(ImportError) as caught:
        check_members(*classes)
    return str(caught.value)


def test_the_installed_trainer_fits():
    check_members(Trainer, Accelerator, LRScheduler)
    check_members(changed())


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

    check_members(changed(_run_epoch=epoch))


def test_an_attribute_that_is_gone_is_noticed():
    def keeps_no_count(self, anything):
        return self.state.global_step

    without = changed(_maybe_log_save_evaluate=keeps_no_count, _inner_training_loop=keeps_no_count)
    said = message(without)
    assert said.startswith("hf_prune counts on Trainer._globalstep_last_logged, which the installed transformers ")
    other = type("Accelerator", (), {"__module__": "accelerate.accelerator", "prepare": keeps_no_count})
    assert "counts on Accelerator._dataloaders, which the installed accelerate " in message(Trainer, other)


@pytest.mark.parametrize("cls", [Trainer, Accelerator, LRScheduler])
def test_attributes_are_those_of_objects(cls):
    """What is named as an attribute is no method: that belongs to MEMBERS, with its parameters."""
    assert not [name for name in ATTRIBUTES[cls.__name__] if hasattr(cls, name)]


def test_every_private_method_is_named():
    insides = {name for name, value in inspect.getmembers(Trainer, callable) if PRIVATE.match(name)}
    overridden = insides & set(vars(PruningMixin))
    called = set()
    for path in PACKAGE.rglob("*.py"):
        called |= insides & set(re.findall(r"(?:self|trainer|super\(\))\.(_\w+)\(", path.read_text(encoding="utf-8")))
    assert len(overridden) > 5 and len(called) > 5
    assert overridden | called <= set(MEMBERS)


def names_of(path: Path) -> tuple[set[str], set[str]]:
    """Private names that a file reads of objects, and those that it gives to its own."""
    read, own = set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            is_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            (own if is_self and isinstance(node.ctx, ast.Store) else read).add(node.attr)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            own |= {target.id for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
            read |= {arg.value for arg in node.args[1:2] if isinstance(arg, ast.Constant)}
        elif isinstance(node, ast.Dict | ast.Subscript):  # of what is put into an object's __dict__
            keys = node.keys if isinstance(node, ast.Dict) else [node.slice]
            own |= {key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    return {name for name in read if PRIVATE.match(name)}, {name for name in own if PRIVATE.match(name)}


ELSEWHERE = {
    "_fields",  # of a NamedTuple, which names it so lest it be taken for a field
    *("_mean", "_ci"),  # of sacrebleu's scores, which have no other way to the interval
}


def test_every_private_name_of_an_object_of_others_is_named():
    """Read anywhere in the package, and given to nothing there: it is somebody else's."""
    found = [names_of(path) for path in PACKAGE.rglob("*.py")]
    read, own = (set().union(*names) for names in zip(*found, strict=True))
    named = set(MEMBERS) | set(OPTIONAL) | {name for names in ATTRIBUTES.values() for name in names}
    assert len(read - own) > 5
    assert read - own <= named | ELSEWHERE


def test_every_name_is_used():
    source = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py") if path.name != "compat.py")
    attributes = [name for names in ATTRIBUTES.values() for name in names]
    assert not [name for name in (*MEMBERS, *attributes, *OPTIONAL) if not re.search(rf"\b{name}\b", source)]


def test_the_versions_are_those_of_the_package():
    path = PACKAGE.parent / "pyproject.toml"
    if not path.is_file():
        pytest.skip("an installed package has no pyproject.toml")
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    wanted = next(line for line in project["dependencies"] if line.startswith("transformers"))
    assert FIRST.startswith(wanted.removeprefix("transformers>=").split(",")[0])
    assert f"transformers=={LAST}" in project["optional-dependencies"]["recipes"]
