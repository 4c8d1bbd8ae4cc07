"""The short help of a recipe: the chosen policy's flags, then the recipe's own, then the usual ones of training."""

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import Any

from .. import policies

_WIDE, _INDENT = 120, 34  # columns
_USUAL = (  # training arguments that people set; `--help-all` has the others
    *("output_dir", "num_train_epochs", "max_steps", "per_device_train_batch_size", "per_device_eval_batch_size"),
    *(
        "gradient_accumulation_steps",
        "learning_rate",
        "lr_scheduler_type",
        "warmup_steps",
        "weight_decay",
        "max_length",
    ),
    *("seed", "bf16", "eval_strategy", "logging_steps", "report_to", "resume_from_checkpoint", "push_to_hub"),
    *("do_train", "do_predict"),
)


def brief_help(usage: str, groups: Sequence[Any], training: Sequence[Any]) -> str:
    """The text of `--help`.

    Args:
        usage: The first line.
        groups: Dataclasses of flags to show in full, in order, as `parse` makes them for `HfArgumentParser`; each has
            its heading in `_argument_group_name`.
        training: Dataclasses of which only the usual flags are shown.
    """
    lines = [f"usage: {usage}"]
    for group in groups:
        lines += ["", f"{group._argument_group_name}:", *_lines(dataclasses.fields(group))]
    fields = {field.name: field for group in training for field in dataclasses.fields(group)}
    if usual := [fields[name] for name in _USUAL if name in fields]:
        more = len(fields) - len(usual)
        lines += ["", f"training, the usual flags ({more} more: --help-all):", *_lines(usual)]
    names = textwrap.wrap(", ".join([*policies.names(), "none"]), _WIDE - 2)
    lines += ["", "policies (hf-prune policies NAME prints what one does, and what it needs):"]
    return "\n".join([*lines, *(f"  {line}" for line in names)]) + "\n"


def _lines(fields: Sequence[Any]) -> list[str]:
    lines = []
    for field in fields:
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        shown = "" if default is None or default == [] or default is dataclasses.MISSING else f" {_plain(default)}"
        flag = f"  --{field.name}{shown}"
        text = textwrap.wrap(_first_sentence(field.metadata["help"].replace("%%", "%")), _WIDE - _INDENT)
        if len(flag) >= _INDENT - 1:
            lines.append(flag)
            flag = ""
        lines.append(f"{flag:{_INDENT}}{text[0] if text else ''}".rstrip())
        lines += [f"{'':{_INDENT}}{line}" for line in text[1:]]
    return lines


def _plain(default: Any) -> str:
    if isinstance(default, list):
        return " ".join(map(str, default))
    return str(getattr(default, "value", default))


def _first_sentence(text: str) -> str:
    return " ".join(text.split()).partition(". ")[0].rstrip(".")
