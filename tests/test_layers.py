"""A file imports from lower layers alone; nobody pays for a library that was not asked for."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hf_prune
from hf_prune import policies

PACKAGE = Path(hf_prune.__file__).parent
RECIPES = PACKAGE.parent / "recipes"

LAYERS = (
    {
        *("storage", "features", "ranking", "generators", "lock", "paired", "figures", "agreement", "privacy"),
        *("foreign", "files", "grouping", "padding"),
    },
    {"core", "launch", "seal", "command"},
    {"policies", "learner", "trace", "data"},
    {"signals", "recorder", "schedule", "sampler", "report", "dynamics", "keys", "examples"},
    {"tasks", "checkpoint", "beginning", "events", "export", "comparison", "sentences"},
    {"weighting"},
    {"meter"},
    {"run", "rescore", "score", "seams", "hub", "page", "comparison_page", "flags", "tables"},
    {"card"},
    {"sharing", "loading", "rows", "steps", "logs"},
    {"mixin", "cli", "recipe", "splits"},
    {"trainer"},
)
LATE = {"core": {"hub"}}  # imported inside a method, by those who ask for it
# Who imports what stands outside; a library that is not named here is free.
OUTSIDE = {
    "torch": {
        "agreement",
        "generators",
        "signals",
        "tasks",
        "weighting",
        "recorder",
        "schedule",
        "sampler",
        "meter",
        "run",
        "rescore",
        "report",
        "rows",
        "sentences",
        "steps",
        "loading",
        "mixin",
        "cli",
    },
    "transformers": {"mixin", "sharing", "loading", "rows", "trainer", "flags", "recipe", "splits"},
    "accelerate": {"mixin"},
    "datasets": {"splits"},
    "matplotlib": {"figures"},
    "scipy": {"features", "policies", "paired"},
    "pyarrow": {"export", "hub", "files"},
    "huggingface_hub": {"hub", "card"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    """`core` for core.py, `policies` for everything in that folder."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def layer_of(part: str) -> int:
    found = [number for number, parts in enumerate(LAYERS) if part in parts]
    assert found, f"{part} stands in no layer: add it to LAYERS."
    return found[0]


def imports_of(path: Path):
    """(own parts, outside libraries) that a file imports, inside functions too."""
    own, outside = set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            outside |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module or node.level
            up = len(path.relative_to(PACKAGE).parts) if node.level else 0
            if not node.level:
                outside.add(node.module.partition(".")[0])
            elif node.level < up:  # within policies/
                own.add(part_of(path))
            elif node.module:
                own.add(node.module.partition(".")[0])
            else:
                own |= {alias.name for alias in node.names}
    return own, outside


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_lower_layers_only(path):
    part = part_of(path)
    own, outside = imports_of(path)
    assert "hf_prune" not in outside, "import from the package by a dot"
    if part != "__init__":
        own -= LATE.get(part, set())
        assert all(layer_of(other) < layer_of(part) or other == part == "policies" for other in own), own
    for library, parts in OUTSIDE.items():
        assert library not in outside or part in parts, f"{part} may not import {library}"


def test_whoever_may_import_a_library_does():
    found = {library: set() for library in OUTSIDE}
    for path in FILES:
        for library in imports_of(path)[1] & set(OUTSIDE):
            found[library].add(part_of(path))
    assert found == OUTSIDE


def test_imports_are_found(tmp_path):
    assert imports_of(PACKAGE / "core.py") == (
        {"storage", "features", "ranking", "hub"},
        imports_of(PACKAGE / "core.py")[1],
    )
    assert "core" in imports_of(PACKAGE / "policies" / "uniform.py")[0]
    assert "matplotlib" in imports_of(PACKAGE / "figures.py")[1]
    assert "transformers" in imports_of(PACKAGE / "trainer.py")[1]


def loaded_by(code: str) -> set[str]:
    """Top-level modules in a new process that has run `code`."""
    code += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("name", policies.names())
def test_a_policy_leaves_transformers_alone(name):
    loaded = loaded_by(f"import hf_prune.policies.{name}")
    assert {"hf_prune", "numpy"} <= loaded
    assert not loaded & {"transformers", "accelerate", "datasets", "matplotlib"}


def test_the_core_is_numpy():
    loaded = loaded_by("import hf_prune.core, hf_prune.policies")
    assert not loaded & {"torch", "transformers", "accelerate", "datasets", "matplotlib"}


def test_the_package_imports_transformers_when_a_trainer_is_asked_for():
    assert "transformers" not in loaded_by("import hf_prune; hf_prune.Policy")
    loaded = loaded_by("import hf_prune; hf_prune.PruningTrainer")
    assert "transformers" in loaded
    assert "matplotlib" not in loaded


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Pruner'"):
        _ = hf_prune.Pruner


def test_every_public_name_is_there():
    assert {name for name in hf_prune.__all__ if getattr(hf_prune, name) is None} == set()


@pytest.mark.skipif(not RECIPES.is_dir(), reason="the recipes are not part of an installed package")
def test_recipes_do_not_import_each_other():
    """But for benchmarks, which measure recipes and share a clock."""
    recipes = {path.stem: path for path in RECIPES.glob("*.py")}
    for name, path in recipes.items():
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        modules = {node.module or "" for node in tree if isinstance(node, ast.ImportFrom)}
        imported = {module.partition(".")[0] for module in modules} & ({"recipes"} | set(recipes) - {name})
        assert not imported or name.startswith("benchmark")
