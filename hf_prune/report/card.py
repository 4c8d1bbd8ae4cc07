"""A model card: the section on pruning, the baselines, how to reproduce the run, and its scores in the Hub's form.

A trainer (stock, TRL's, sentence-transformers') writes the card, and this module only adds to it. So it loads and saves
the card as a `ModelCard`. A template of our own would drop what the trainer wrote.
"""

import math
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..common.privacy import public, public_arguments
from ..common.storage import write_text
from ..core import BudgetPolicy, Policy
from .account import versions

TAG = "hf_prune"
ARMS = "arms"  # folder in a comparison, with its runs
BASELINES = "baselines.md"  # file in a comparison: its text for the cards of its runs
_NO_BASE = re.compile(r"is a fine-tuned version of \[(None)?\]\(https://huggingface\.co/(None)?\)")
_FROM_SCRATCH = "was trained from scratch"
_BASE = re.compile(rf"{_FROM_SCRATCH}|is a fine-tuned version of \[[^\]]*\]\(https://huggingface\.co/[^)]*\)")
_IDS = {"matthews": "matthews_correlation", "pearson": "pearsonr", "spearman": "spearmanr"}  # names in `evaluate`
_BASELINES = "### Baselines"
_PARENTS = 3  # levels from a run of a comparison, arms/ARM/seed-S, up to the comparison
COMPARISON = "comparison.json"  # file in a comparison: its numbers


def tags_of(policy: Policy) -> list[str]:
    """Tags of a card: the names of the library and of the policy."""
    name = type(policy).__module__.rpartition(".")[2]
    return [TAG, type(policy).__name__.lower() if name == "__main__" else name]


def write_card(
    path: Path,
    sections: Sequence[str] = (),
    metrics: Mapping[str, float] | None = None,
    base: str | None = None,
    **about: str | None,
) -> None:
    """Add to the card that a trainer has written.

    Args:
        path: The card.
        sections: Markdown to add at its end.
        metrics: Scores by name; a value that is not a finite number is left out.
        base: Name of the model that was fine-tuned, if it is not on the Hub. The stock card then says that there was no
            base model, and PEFT's names it as if it were on the Hub.
        **about: `task_type`, `dataset_type`, `dataset_name`, and further fields of `huggingface_hub.EvalResult`.
            Without a task and a data set, the Hub can't place the scores, so none are written.
    """
    from huggingface_hub import EvalResult, ModelCard

    card = ModelCard.load(path)
    data: Any = card.data
    numbers = {
        name: value
        for name, value in (metrics or {}).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }
    data.eval_results = None
    if numbers and about.get("task_type") and about.get("dataset_type"):
        fields: dict[str, Any] = {name: value for name, value in about.items() if value is not None}
        data.model_name = data.get("model_name") or path.absolute().parent.name
        data.eval_results = [
            EvalResult(**fields, metric_type=_IDS.get(name, name), metric_name=name, metric_value=value)
            for name, value in numbers.items()
        ]
    text = _NO_BASE.sub(_FROM_SCRATCH, card.text)  # stock and TRL link to a model without a name
    if base is not None:
        text = _BASE.sub(lambda _: f"is a fine-tuned version of `{base}` (a model that is not on the Hub)", text, 1)
        data.base_model = None
        data.tags = [tag for tag in data.tags or [] if not tag.startswith("base_model:")]
    card.text = "\n\n".join([text.rstrip(), *(section.strip() for section in sections)]) + "\n"
    write_text(path, str(card))


def budget(policy: Policy) -> str:
    """The budget that the user set, in words."""
    if not isinstance(policy, BudgetPolicy):
        return "No budget was set: how much is trained follows from the rule."
    share = policy.budget
    if share.lowest == share.highest:
        return f"The budget was {100 * share.mean:g} % of the {policy.unit} in each round."
    return (
        f"The budget was {100 * share.mean:g} % of the {policy.unit} on average, between {100 * share.lowest:g} % and "
        f"{100 * share.highest:g} % (`{policy.keep}`)."
    )


def baselines(run: str | os.PathLike[str]) -> str:
    """The section on what the run was compared with: the text of its comparison, if it is part of one."""
    run = Path(run).absolute()
    for folder in (run, *run.parents[:_PARENTS]):
        if folder != run and run.relative_to(folder).parts[0] != ARMS:
            continue
        path = folder / BASELINES
        if path.is_file():
            try:
                return f"{_BASELINES}\n\n{path.read_text(encoding='utf-8').strip()}"
            except (OSError, ValueError):
                return f"{_BASELINES}\n\nThe comparison that this run is part of can't be read: {BASELINES} is damaged."
        if (folder / COMPARISON).is_file():
            return (
                f"{_BASELINES}\n\nAn earlier version of hf_prune has compared this run with others: "
                "`hf-prune compare --output_dir FOLDER`, with the folder of the comparison, writes the result here."
            )
    return (
        f"{_BASELINES}\n\nNone was run beside this: what the same model gains from all rows, from fewer epochs "
        "of them or from random rows of the same budget is not known. `hf-prune compare` measures it."
    )


def renew_baselines(run: str | os.PathLike[str]) -> None:
    """Write the section `baselines` of a run's card again, if the run has a card."""
    path = Path(run, "README.md")
    if path.is_file():
        parts = re.split(r"(?=^### )", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        renewed = [f"{baselines(run)}\n\n" if part.startswith(_BASELINES) else part for part in parts]
        write_text(path, "".join(renewed))


def reproduction(policy: Policy, command: str | None, settings: Mapping[str, Any]) -> str:
    """The section on how to train the same model again.

    Args:
        policy: The policy of the run.
        command: The command that started the run; None = code of the user's own.
        settings: Settings of the run by name, such as "seed"; None values are left out.
    """
    kind = type(policy)
    imports = "" if kind.__module__ == "__main__" else f"from {kind.__module__} import {kind.__name__}\n"  # user's own
    if command is None:
        start = (
            "Train the same model on the same rows, with the hyperparameters above and\n\n"
            f"```python\nfrom hf_prune import PruningTrainer\n{imports}\n"
            f"trainer = PruningTrainer(..., policy={public(repr(policy))})\n```"
        )
    else:
        start = f"```bash\n{_public_command(command)}\n```"
    settings = {"versions": ", ".join(f"{name} {found}" for name, found in versions().items()), **settings}
    known = [f"- {name}: {value}" for name, value in settings.items() if value is not None]
    files = (
        "`history.parquet` has a line for each row of the training set, `pruning.json` the numbers of this run, and "
        "with `history.safetensors` another run on these rows can prune from its first epoch "
        "(`PruningTrainer(..., history=...)` takes this repository's name)."
    )
    return "\n".join(["### How to reproduce", "", start, "", *known, "", files])


def _public_command(command: str) -> str:
    """A command as it was typed, without secrets and private paths."""
    try:
        argv = shlex.split(command)
    except ValueError:  # a quotation mark that is never closed
        return public(command)
    shown = public_arguments(argv)
    return command if shown == argv else shlex.join(shown)
