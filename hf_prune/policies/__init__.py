"""The rules, one file each. This folder is the registry: a file's name is its policy's name.

The docstring of a rule's file is its card; `cards` returns all cards, split into parts. A rule imports only the core of
this library. With 100 million rows and 10,000 rows a second, a round of the following rules costs more than 0.1 % of an
epoch (`recipes/results/scale.json`; StaleSB costs most because it ranks all losses):

    competence          0.12 %
    el2n                0.12 %
    epsilon_greedy      0.15 %
    forgetting          0.11 %
    grand               0.14 %
    ies                 0.13 %
    infobatch           0.17 %
    kakurenbo           0.12 %
    large_batch_filter  0.11 %
    loss_trend          0.12 %
    rho_loss            0.15 %
    self_paced          0.11 %
    seta                0.20 %
    stale_sb            0.46 %
    ucb                 0.12 %
    uniform             0.13 %
"""

import ast
import dataclasses
import difflib
import importlib
import inspect
import math
import pkgutil
from types import ModuleType
from typing import Any

from ..core import Policy
from ._cards import HEADINGS, Card, card_of
from ._page import page
from ._static import StaticPolicy

__all__ = ["HEADINGS", "Card", "StaticPolicy", "card_of", "cards", "find", "make", "markdown", "names"]


def names() -> list[str]:
    """Return the names of the built-in policies, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def cards() -> dict[str, Card]:
    """Return the cards of the built-in policies by name, sorted."""
    return {name: card_of(find(name)) for name in names()}


def markdown() -> str:
    """Return the page of the built-in policies, which is the README.md of this folder."""
    return page({name: (card, find(name)()) for name, card in cards().items()})


def __getattr__(name: str) -> type[Policy]:
    """Return a policy's class, for `from hf_prune.policies import InfoBatch`."""
    if name[:1].isupper():
        for policy in map(find, names()):
            if policy.__name__ == name:
                return policy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def find(name: str) -> type[Policy]:
    """Find the policy class in `hf_prune/policies/<name>.py`, or in the user's own module if the name has a dot.

    Args:
        name: A built-in name, a dotted module that defines one policy, or a dotted path to a policy class.

    Raises:
        ValueError: There is no such policy, or the module defines none or several.
    """
    if "." not in name and name not in names():
        near = difflib.get_close_matches(name, names())
        hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise ValueError(
            f"Unknown policy {name!r}. {hint}Available: {', '.join(names())}, or the dotted path of your own module."
        )
    if "." not in name:
        return _only_policy(importlib.import_module(f"{__name__}.{name}"))
    if not all(part.isidentifier() for part in name.split(".")) or name.endswith(".py"):
        raise ValueError(
            f"policy={name!r} is no dotted path of a module: write package.module, as in an import, not a file's name."
        )
    try:
        return _only_policy(importlib.import_module(name))
    except ModuleNotFoundError as error:
        module, _, attribute = name.rpartition(".")
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise
        try:
            policy = getattr(importlib.import_module(module), attribute, None)
        except ModuleNotFoundError as inner:
            raise ValueError(f"policy={name!r}: there is no module {inner.name!r} to import.") from inner
        if not (isinstance(policy, type) and issubclass(policy, Policy)):
            raise ValueError(f"policy={name!r}: {module} has no policy called {attribute!r}.") from None
        return policy


def make(policy: "str | Policy | None") -> Policy | None:
    """Make a policy from an object, a name, or a name with fields such as `"infobatch:ratio=0.3,anneal=0.9"`.

    Raises:
        TypeError: The argument is neither a policy nor a string.
        ValueError: The policy or a field is unknown, or a value is out of range.
    """
    if policy is None or isinstance(policy, Policy):
        return policy
    if not isinstance(policy, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        hint = " Make an object of it: add ()." if isinstance(policy, type) else ""
        raise TypeError(
            f"policy={policy!r} must be a Policy object, a string such as 'infobatch:ratio=0.3', or None.{hint}"
        )
    name, _, settings = policy.partition(":")
    cls = find(name.strip())
    known = {field.name: field for field in dataclasses.fields(cls)}
    values = {}
    for setting in filter(None, settings.split(",")):
        key, equals, text = (part.strip() for part in setting.partition("="))
        if not equals or key not in known:
            raise ValueError(
                f"policy={policy!r}: {setting!r} is not a setting of {name}, which takes "
                f"{', '.join(f'{field}=...' for field in known) or 'none'}."
            )
        if key in values:
            raise ValueError(f"policy={policy!r}: {key} is given twice.")
        try:
            values[key] = _SWITCHES[text.lower()] if known[key].type in (bool, "bool") else _value(text)
        except KeyError:
            raise ValueError(f"policy={policy!r}: {key} is a switch, give true or false, not {text!r}.") from None
    return cls(**values)


_SWITCHES = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return math.inf if text == "inf" else text  # a bare word is a string


def _only_policy(module: ModuleType) -> type[Policy]:
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Policy) and value.__module__ == module.__name__
    ]
    concrete = [policy for policy in found if not inspect.isabstract(policy)]
    if len(concrete) != 1:
        listed = ", ".join(policy.__name__ for policy in concrete) or "none"
        raise ValueError(
            f"Module {module.__name__} must define exactly one policy, but defines {listed}: "
            f"name one as '{module.__name__}.ClassName'."
        )
    return concrete[0]
