"""A room imports from lower floors alone; nobody pays for a library that was not asked for."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hf_prune
from hf_prune import policies

PACKAGE = Path(hf_prune.__file__).parent
RECIPES = PACKAGE.parent / "recipes"

FLOORS = (
    {"common"},
    {"core"},
    {"policies", "data", "records", "measure"},
    {"report"},
    {"train", "compare"},
    {"recipe"},
    {"cli"},
)
BESIDE = {("records", "data")}  # the first may import the second, though they are on one floor
AGAINST = set()  # (module, module of a room that it may not import): none is to be added
# Who imports what stands outside; a library that is not named here is free.
OUTSIDE = {
    "torch": {
        "cli",
        "common/generators",
        "compare/launch",
        "measure/agreement",
        "measure/graph",
        "measure/meter",
        "measure/models",
        "measure/prediction",
        "measure/readers",
        "measure/recorder",
        "measure/weighting",
        "recipe/labels",
        "recipe/pictures",
        "recipe/session",
        "report/account",
        "train/collator",
        "train/engine",
        "train/loading",
        "train/mixin",
        "train/pruning",
        "train/rates",
        "train/ranks",
        "train/rescore",
        "train/rows",
        "train/sampler",
        "train/schedule",
        "train/scoring",
        "train/sentences",
        "train/steps",
    },
    "transformers": {
        "recipe",
        "train/beginning",
        "train/loading",
        "train/logs",
        "train/loop",
        "train/mixin",
        "train/owned",
        "train/progress",
        "train/pruning",
        "train/rescore",
        "train/rows",
        "train/scoring",
        "train/sharing",
        "train/steps",
        "train/trackers",
        "train/trainer",
        "train/uploads",
    },
    "accelerate": {"train/mixin", "train/pruning", "train/scoring"},
    "datasets": {"recipe", "report/rows"},
    "matplotlib": {"report/figures"},
    "scipy": {"compare/intervals", "compare/power", "core/features", "data/_near", "policies", "recipe/metrics"},
    "pyarrow": {
        "compare/store",
        "data/listing",
        "recipe/files",
        "records/hub",
        "records/table",
        "report/audit",
        "report/rows",
    },
    "huggingface_hub": {"records/hub", "report/card"},
    "rensa": {"data/_near"},
    "cleanlab": {"report/datalab"},
    "pandas": {"report/datalab", "train/trackers"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """`core/history` for core/history.py, `core` for core/__init__.py, "" for that of the package."""
    return "/".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip("/")


NAMES = {name_of(path): path for path in FILES}


def room_of(name: str) -> str:
    return name.partition("/")[0]


def floor_of(name: str) -> int:
    found = [number for number, rooms in enumerate(FLOORS) if room_of(name) in rooms]
    assert found, f"{name} stands in no room: add it to FLOORS."
    return found[0]


def inside_functions(tree: ast.AST) -> set[ast.AST]:
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return {node for function in functions for node in ast.walk(function)}


def imports_of(path: Path, late: bool = True) -> tuple[set[str], set[str]]:
    """(own modules, outside libraries) that a file imports, inside functions too unless `late` is False."""
    own, outside = set(), set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    within = set() if late else inside_functions(tree)
    for node in set(ast.walk(tree)) - within:
        if isinstance(node, ast.Import):
            outside |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module or node.level
            if not node.level:
                outside.add(node.module.partition(".")[0])
                continue
            above = path.relative_to(PACKAGE).parts[: -node.level]
            module = "/".join([*above, *(node.module or "").split(".")]).rstrip("/")
            for alias in node.names:  # a module, or what a module holds
                inner = f"{module}/{alias.name}".lstrip("/")
                own.add(inner if inner in NAMES else module)
    return own, outside


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_lower_floors_only(path):
    name = name_of(path)
    own, outside = imports_of(path)
    assert "hf_prune" not in outside, "import from the package by a dot"
    if name:
        room = room_of(name)
        wrong = {
            other
            for other in own
            if room_of(other) != room
            and not floor_of(other) < floor_of(name)
            and (room, room_of(other)) not in BESIDE
            and (name, other) not in AGAINST
        }
        assert not wrong
        strangers = {other for other in own if room_of(other) != room and "/_" in other}
        assert not strangers, "what another room's __init__.py exports may be imported, not its private modules"
    for library, modules in OUTSIDE.items():
        assert library not in outside or name in modules or room_of(name) in modules, f"{name} may not import {library}"


def test_nobody_imports_a_private_name():
    for name, path in NAMES.items():
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        own = [alias.name for node in nodes if node.level for alias in node.names]
        assert not [imported for imported in own if imported.startswith("_")], name


def test_exceptions_are_needed():
    pairs = {(name, other) for name, path in NAMES.items() for other in imports_of(path)[0]}
    assert AGAINST <= pairs


def test_no_module_waits_for_itself():
    """Nor inside a function."""
    waits = {name: imports_of(path)[0] - {name} for name, path in NAMES.items() if name}
    while free := {name for name, others in waits.items() if not others & set(waits)}:
        waits = {name: others for name, others in waits.items() if name not in free}
    assert not waits


def test_whoever_may_import_a_library_does():
    found = {library: set() for library in OUTSIDE}
    for name, path in NAMES.items():
        for library in imports_of(path)[1] & set(OUTSIDE):
            found[library].add(room_of(name) if room_of(name) in OUTSIDE[library] else name)
    assert found == OUTSIDE


def test_imports_are_found():
    assert {"core/budget", "core/history", "core/ranking", "core/selection"} == imports_of(NAMES["core/policy"])[0]
    assert "core" in imports_of(NAMES["policies/uniform"])[0]
    assert "common/storage" in imports_of(NAMES["records/trace"])[0]
    assert "matplotlib" in imports_of(NAMES["report/figures"])[1]
    assert "jinja2" in imports_of(NAMES["report/document"])[1] - imports_of(NAMES["report/document"], late=False)[1]
    assert "transformers" in imports_of(NAMES["train/trainer"])[1]


def test_every_room_says_what_it_is():
    for room in set.union(*FLOORS) - {"cli"}:
        assert ast.get_docstring(ast.parse(NAMES[room].read_text(encoding="utf-8"))), room


def loaded_by(code: str) -> set[str]:
    """Modules in a new process that has run `code`: those of hf_prune in full, of others the top-level names."""
    code += "\nimport sys; print(*{n if n.startswith('hf_prune.') else n.partition('.')[0] for n in sys.modules})"
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
    loaded = loaded_by("from hf_prune import PruningTrainer")
    assert "transformers" in loaded
    assert "matplotlib" not in loaded
    assert not {name for name in loaded if name.startswith(("hf_prune.compare", "hf_prune.recipe"))}


def test_our_own_code_asks_for_jinja2_late():
    """transformers imports it by itself, so that what is loaded says nothing."""
    assert not [name for name, path in NAMES.items() if "jinja2" in imports_of(path, late=False)[1]]


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Pruner'"):
        _ = hf_prune.Pruner


def test_every_public_name_is_there():
    assert {name for name in hf_prune.__all__ if getattr(hf_prune, name) is None} == set()


@pytest.mark.skipif(not RECIPES.is_dir(), reason="the recipes are not part of an installed package")
def test_recipes_do_not_import_each_other():
    recipes = {path.stem: path for path in RECIPES.glob("*.py")}
    for name, path in recipes.items():
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        modules = {node.module or "" for node in tree if isinstance(node, ast.ImportFrom)}
        imported = {module.partition(".")[0] for module in modules} & ({"recipes"} | set(recipes) - {name})
        assert not imported


# ---- Sizes ----

FILE, CLASS, FUNCTION, CONSTRUCTOR = 400, 350, 60, 7  # lines, lines, lines, arguments
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def lines_of(node: ast.AST) -> int:
    return node.end_lineno - node.lineno + 1


def arguments_of(cls: ast.ClassDef) -> int:
    """How many arguments a class takes: those of its __init__, or the fields of a dataclass."""
    for node in cls.body:
        if isinstance(node, FUNCTIONS) and node.name == "__init__":
            return len(node.args.posonlyargs + node.args.args + node.args.kwonlyargs) - 1
    if "dataclass" not in {
        name.id for decorator in cls.decorator_list for name in ast.walk(decorator) if isinstance(name, ast.Name)
    }:
        return 0
    fields = [ast.unparse(node) for node in cls.body if isinstance(node, ast.AnnAssign)]
    return sum("ClassVar" not in field and "init=False" not in field for field in fields)


def oversized(text: str) -> dict[str, str]:
    """What is larger than it should be in a file, by the name that its docstring must give with a reason."""
    tree, found = ast.parse(text), {}
    if (lines := len(text.splitlines())) > FILE:
        found["file"] = f"{lines} lines"
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS) and lines_of(node) > FUNCTION:
            found[node.name] = f"{lines_of(node)} lines"
        if isinstance(node, ast.ClassDef):
            if lines_of(node) > CLASS:
                found[node.name] = f"{lines_of(node)} lines"
            if (arguments := arguments_of(node)) > CONSTRUCTOR:
                found[node.name] = f"{arguments} arguments"
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_is_large_has_a_reason(path):
    """A paragraph of the file's docstring that begins with "Size:" names it in backticks, and gives the reason."""
    text = path.read_text(encoding="utf-8")
    paragraphs = (ast.get_docstring(ast.parse(text)) or "").split("\n\n")
    excused = {
        name for paragraph in paragraphs if paragraph.startswith("Size:") for name in re.findall(r"`(\w+)`", paragraph)
    }
    large = oversized(text)
    unexcused = {name: size for name, size in large.items() if name not in excused}
    assert not unexcused, (
        f"{name_of(path)} has {unexcused}. The limits are {FILE} lines a file, {CLASS} a class, {FUNCTION} a function, "
        f"{CONSTRUCTOR} arguments a constructor. Split it, or give the reason in a paragraph of the file's docstring "
        f"that begins with 'Size:' and names {', '.join(f'`{name}`' for name in unexcused)} in backticks."
    )
    assert excused <= set(large), f"{excused - set(large)}: a reason for what is not large; take it out of 'Size:'"


def test_sizes_are_measured():
    long = "def long():\n" + "    pass\n" * 60
    many = "@dataclass\nclass Many:\n" + "".join(f"    a{i}: int\n" for i in range(8)) + "    b: ClassVar[int] = 0\n"
    own = f"class Own:\n    def __init__(self, {', '.join('abcdefgh')}):\n        pass\n"
    assert oversized(long + many + own + "#\n" * 400) == {
        "file": "475 lines",
        "long": "61 lines",
        "Many": "8 arguments",
        "Own": "8 arguments",
    }


@pytest.mark.skipif(not RECIPES.is_dir(), reason="the recipes are not part of an installed package")
def test_recipes_are_short():
    assert not [path.name for path in RECIPES.glob("*.py") if len(path.read_text(encoding="utf-8").splitlines()) >= 300]
