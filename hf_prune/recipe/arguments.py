"""Flags of a recipe, of its training arguments, and of the policy in `--policy`, parsed into dataclasses."""

import argparse
import dataclasses
import difflib
import inspect
import json
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml
from transformers import HfArgumentParser, TrainingArguments

from .. import policies
from ..common.command import MISTAKES, Parser, stage
from ..core import Policy
from ..core.budget import FORMS, read_budget
from .brief_help import brief_help

NO_POLICY = "none"
_TRAINING = "training"  # heading of the training arguments
_POLICY_HELP = (
    "What chooses the rows of each round: a name below, NAME:FIELD=VALUE,..., the dotted path of a module of yours, "
    f"or {NO_POLICY}."
)

_RANGES = {  # allowed values of training arguments, both ends included
    **dict.fromkeys(
        ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"),
        (1, math.inf, "[1, inf)"),
    ),
    **dict.fromkeys(("learning_rate", "dataloader_num_workers", "weight_decay"), (0, math.inf, "[0, inf)")),
    "label_smoothing_factor": (0, 1, "[0, 1]"),
    "early_stopping_patience": (1, math.inf, "[1, inf)"),
    "seed": (0, 2**32 - 1, "[0, 4294967295]"),
}


class _Parser(Parser, HfArgumentParser):
    """Parses dataclasses with our own error messages."""


class _Brief(argparse.Action):
    """`--help`: the flags that most runs need. `--help-all` is argparse's own help."""

    def __init__(self, *args: Any, say: Callable[[], str], **kwargs: Any):
        super().__init__(*args, nargs=0, default=argparse.SUPPRESS, **kwargs)
        self._say = say

    def __call__(self, parser: argparse.ArgumentParser, *given: Any, **more: Any) -> None:
        sys.stdout.write(self._say())
        parser.exit()


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, and the list of policies line by line."""


def parse(*dataclass_types: type, argv: Sequence[str] | None = None, **defaults: Any) -> tuple[Any, ...]:
    """Parse a command line into dataclasses and the policy that it names.

    `--policy infobatch --ratio 0.3` and `--policy infobatch:ratio=0.3` mean the same. If a value is given more than
    once, the flag wins, then the setting in the policy's string, then `defaults`, then the dataclass's default. The
    first argument may be a JSON or YAML file of `field: value`; its values act like `defaults`.

    Args:
        *dataclass_types: Dataclasses whose fields become flags; a field without `help` in its metadata takes it from
            the class's docstring. One with a class attribute `policy` is told the policy there, and in
            `is_scored_alone` whether nothing is trained.
        argv: The arguments, without the program's name; None = those of this process.
        **defaults: Other defaults by the name of the field, and `policy` (a name, or `"none"`). A policy's field is
            ignored if the chosen policy has no such field.

    Returns:
        An instance of each of `dataclass_types`, in order, then the Policy, or None for `--policy none` and where
            nothing is trained.

    Raises:
        TypeError: A default for a field that no dataclass and no policy has.
        ValueError: Two classes with a field of the same name.
        SystemExit: After `--help` and `--help-all`; with status 2 after a message if the arguments are wrong.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    _check_defaults(defaults, dataclass_types)
    usage = "%(prog)s [FILE] [--policy NAME] [--FLAG VALUE ...]"
    first = Parser(usage=usage, add_help=False, allow_abbrev=False)
    first.add_argument("--policy")
    stage.flags, stage.fields, stage.policy = ["policy"], [], None
    try:
        file = _read_settings(argv.pop(0)) if argv and argv[0].endswith((".json", ".yaml", ".yml")) else {}
        defaults |= file
        spec = str(first.parse_known_args(argv)[0].policy or defaults.get("policy") or NO_POLICY)
        cls, settings = _read_policy(spec)
    except ValueError as error:
        first.error(str(error))

    _check_clashes([*dataclass_types, cls])
    pruning = _flags(cls, "data pruning", defaults | settings, policy=spec)
    flags: list[Any] = [pruning, *(_flags(type_, _title(type_), defaults) for type_ in dataclass_types)]
    parser = _make_parser(flags, usage)
    namespace, unknown = parser.parse_known_args(argv)
    known = [name for group in flags for name in _names(group)]
    stage.flags, stage.fields = known, _names(cls)
    unknown += [f"--{name}" for name in file if name not in known]
    if unknown:
        parser.error(_complaint(unknown, known, spec.partition(":")[0]))
    if wrong := _out_of_range(vars(namespace)):
        parser.error(wrong)
    try:
        built = [_build(type_, namespace) for type_ in (*dataclass_types, cls)]
    except (*MISTAKES, TypeError) as error:  # some of transformers' settings are read as JSON, or from files
        parser.error(_blame(vars(namespace), error))
    is_alone = _scores_alone(parser, namespace)
    policy = None if cls is _NoPolicy or is_alone else built[-1]
    for one in (one for one in built[:-1] if hasattr(type(one), "policy")):
        one.policy, one.is_scored_alone = policy, is_alone
    stage.policy = policy and (repr(policy), spec)
    return (*built[:-1], policy)


def _make_parser(flags: list[Any], usage: str) -> _Parser:
    """The parser of these flags, with a short help and a long one."""
    parser = _Parser(
        flags, usage=usage, formatter_class=_Formatter, epilog=_overview(), allow_abbrev=False, add_help=False
    )
    training = [group for group in flags if group._argument_group_name == _TRAINING]
    brief = [group for group in flags if group not in training]
    usage = usage.replace("%(prog)s", parser.prog)
    parser.add_argument(
        *("-h", "--help"), action=_Brief, say=lambda: brief_help(usage, brief, training), help="the usual flags"
    )
    parser.add_argument("--help-all", "--help_all", action="help", help="all flags, and a line on each policy")
    return parser


def _build(type_: type, given: argparse.Namespace) -> Any:
    return type_(**{name: getattr(given, name) for name in _names(type_)})


def _scores_alone(parser: _Parser, given: argparse.Namespace) -> bool:
    """Whether a saved model is scored and nothing is trained, as in the examples of transformers."""
    is_alone = getattr(given, "do_predict", False) and not given.do_train
    if is_alone and not getattr(given, "model_name_or_path", None):
        parser.error("--do_predict without --do_train scores a saved model: give it by --model_name_or_path.")
    return is_alone


def _blame(given: dict[str, Any], error: BaseException) -> str:
    """The error of arguments that can't be built, after the name of the flag that it is about."""
    text = str(error)
    for name, value in given.items():
        if not isinstance(value, str) or not value:
            continue
        if value.lstrip().startswith("{"):
            try:
                json.loads(value)
            except ValueError as flaw:
                return f"--{name} {value!r} is no JSON: {flaw}"
        if isinstance(error, OSError) and error.filename == value:
            return f"--{name} {value!r}: {error.strerror}"
    return text


def _out_of_range(given: dict[str, Any]) -> str | None:
    """The error of a number that transformers accepts, but later fails with or trains nothing with."""
    for name, (least, most, interval) in _RANGES.items():
        value = given.get(name)
        if isinstance(value, int | float) and not least <= value <= most:
            return f"--{name} {value:g} must be in {interval}."
    if given.get("max_steps", 1) <= 0 and given.get("num_train_epochs", 1) <= 0:
        return f"--num_train_epochs {given['num_train_epochs']:g} must be above 0, or --max_steps."
    return None


@dataclasses.dataclass
class _NoPolicy:
    """Stands for no policy while flags are made."""


def _read_policy(spec: str) -> tuple[type, dict[str, Any]]:
    """The policy class that a string names, and the fields that the string sets."""
    name, _, settings = (part.strip() for part in spec.partition(":"))
    if name == NO_POLICY:
        return _NoPolicy, {}
    try:
        cls = find_policy(name)
        if not settings:
            return cls, {}
        policy = policies.make(spec)
    except (ValueError, TypeError) as error:  # TypeError: a user's own policy with required fields
        text = str(error)
        raise ValueError(text if text.startswith("policy=") else f"policy={spec!r}: {text}") from error
    keys = [setting.partition("=")[0].strip() for setting in settings.split(",") if setting]
    return cls, {key: getattr(policy, key) for key in keys}


def find_policy(name: str) -> type[Policy]:
    """The policy with this name; a user's own module may be installed, or be in the working folder."""
    folder = os.getcwd()
    if "." in name and folder not in sys.path:
        sys.path.append(folder)
    try:
        return policies.find(name)
    except ImportError as error:  # an import inside the user's own module
        raise ValueError(f"policy={name!r} can't be imported: {error}") from error


def _read_settings(path: str) -> dict[str, Any]:
    """The `field: value` mapping in a JSON or YAML file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        settings = json.loads(text) if path.endswith(".json") else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} can't be read: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} must hold one mapping of field to value, not a {type(settings).__name__}.")
    return settings


def _flags(type_: type, title: str, defaults: dict[str, Any], policy: str | None = None) -> type:
    """A dataclass for `HfArgumentParser` with the fields of `type_`, these defaults, and a help text for each.

    Args:
        type_: The dataclass.
        title: Heading of the flags in the help.
        defaults: Defaults by field; other fields keep their own.
        policy: Default of `--policy`; if it is given, that flag is added.
    """
    help_texts = field_texts(type_)
    hints = get_type_hints(type_)
    fields: list[Any] = []
    if policy is not None:
        metadata = {"help": _POLICY_HELP, "metavar": "NAME"}
        fields.append(("policy", str, dataclasses.field(default=policy, metadata=metadata)))
    for field in dataclasses.fields(type_):
        if not field.init:
            continue
        # argparse shows a default only beside a text, and reads a single % as the start of a format
        text = field.metadata.get("help") or help_texts.get(field.name) or " "
        text = re.sub(r"%%|%\(\w+\)s|%", lambda match: "%%" if match[0] == "%" else match[0], text)
        value = {"default": field.default, "default_factory": field.default_factory}
        if field.name in defaults:
            value = _default(defaults[field.name], hints[field.name])
        given = {key: entry for key, entry in value.items() if entry is not dataclasses.MISSING}
        metadata = {**field.metadata, "help": text}
        kinds = set(get_args(hints[field.name]))
        hint = _budget if kinds == {float, str} else _number_or_auto if kinds > {float, str} else hints[field.name]
        fields.append((field.name, hint, dataclasses.field(metadata=metadata, **given)))
    return dataclasses.make_dataclass(type_.__name__, fields, namespace={"_argument_group_name": title}, kw_only=True)


def _title(type_: type) -> str:
    """Heading of the flags of a dataclass: the first line of its docstring, unless they are training arguments."""
    if issubclass(type_, TrainingArguments):
        return _TRAINING
    return (inspect.getdoc(type_) or type_.__name__).partition("\n")[0].rstrip(".")


def _budget(text: str) -> float | str:
    """A share, or a ramp or a cycle of shares."""
    try:
        return float(text)
    except ValueError:
        if read_budget(text) is None:
            raise argparse.ArgumentTypeError(f"invalid float value: {text!r}; {FORMS}.") from None
        return text


def _number_or_auto(text: str) -> float | str:
    """A number, or the word for one that is found in training."""
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid float value: {text!r}; give a number or auto.") from None


def _default(value: Any, hint: Any) -> dict[str, Any]:
    """A default for a field of that type; a default from a file may have another type."""
    union = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kinds = set(union) - {NoneType}
    if value is not None and kinds <= {int, float, str} and kinds != {str} and not isinstance(value, str):
        value = str(value)  # argparse checks a text as if it were typed
    elif value is not None and kinds == {bool} and not isinstance(value, (bool, str)):
        value = str(value)
    elif {get_origin(kind) for kind in kinds} == {list} and not isinstance(value, (list, NoneType)):
        value = [value]
    if isinstance(value, (list, dict, set)):  # a dataclass refuses these as plain defaults
        return {"default_factory": lambda: value}
    return {"default": value}


def field_texts(type_: type) -> dict[str, str]:
    """Text of each field in the `Args:` block of the docstring of the class or a base: one line, first paragraph.

    A parser of Google's style, such as docstring_parser, fails on the docstrings of transformers: some entries have no
    colon, and headings stand among them.
    """
    found: dict[str, str] = {}
    for base in reversed(type_.__mro__):
        lines = inspect.cleandoc(base.__dict__.get("__doc__") or "").splitlines()
        start = next((i for i, line in enumerate(lines) if re.fullmatch(r"(Args|Parameters|Attributes):", line)), None)
        if start is None:
            continue
        indent = None
        name, open_ = "", False
        for line in lines[start + 1 :]:
            depth = len(line) - len(line.lstrip())
            if line.strip() and depth == 0:
                break
            indent = indent or depth
            entry = re.match(r"(\w+) ?(?:\(.*\))?: ?(.*)", line.strip()) if depth == indent else None
            if entry:
                name, open_ = entry.group(1), True
                found[name] = entry.group(2).strip()
            elif not line.strip() and found.get(name):
                open_ = False
            elif open_ and depth > indent:
                found[name] = f"{found[name]} {line.strip()}".strip()
    return found


def _names(type_: type) -> list[str]:
    return [field.name for field in dataclasses.fields(type_) if field.init]


def _check_defaults(defaults: dict[str, Any], dataclass_types: Sequence[type]) -> None:
    known = {"policy"}.union(*map(_names, dataclass_types), *(_names(policies.find(name)) for name in policies.names()))
    for name in defaults:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            raise TypeError(f"parse({name}=...): no dataclass and no policy has a field {name!r}{hint}")


def _check_clashes(types: Sequence[type]) -> None:
    owner = {"policy": "the flag --policy", "help": "the flag --help", "help_all": "the flag --help-all"}
    for type_ in types:
        for name in _names(type_):
            if name in owner:
                raise ValueError(
                    f"{type_.__name__} has a field {name!r}, and so has {owner[name]}: "
                    f"one flag can't set both, rename the field of {type_.__name__}."
                )
            owner[name] = type_.__name__


def _complaint(unknown: Sequence[str], known: Sequence[str], policy: str) -> str:
    """Why the first unknown argument is wrong, and what to write instead."""
    flag = next((argument for argument in unknown if argument.startswith("--")), None)
    if flag is None:
        return f"unexpected argument {unknown[0]!r}; a value follows its flag, as in --policy infobatch."
    flag = flag.partition("=")[0]
    name = flag.removeprefix("--").replace("-", "_")
    owners = [other for other in policies.names() if name in _names(policies.find(other))]
    if owners:
        noun = "policy" if len(owners) == 1 else "policies"
        return f"{flag} belongs to {noun} {', '.join(owners)}, but --policy is {policy}."
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.7)
    hint = f"Did you mean {' or '.join(f'--{other}' for other in near)}?" if near else "See --help."
    return f"unknown flag {flag}. {hint}"


def _overview() -> str:
    """One line for each policy: its name and the first line of its card."""
    cards = policies.cards()
    width = max(map(len, [*cards, NO_POLICY]))
    lines = [f"  {name:{width}}  {card.title}" for name, card in cards.items()]
    lines.append(f"  {NO_POLICY:{width}}  The plain Trainer: every row in every epoch, nothing measured.")
    return "\n".join(["policies:", *lines])
