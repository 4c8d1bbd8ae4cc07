"""What the scripts of comparisons share: how a comparison is written down, how it is run, and where its table goes."""

import json
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from datasets import DatasetDict

from hf_prune.common.storage import write_text

ROWS, RESULTS = Path("regimes"), Path("recipes", "results")
EVERY_RUN = "--load_best_model_at_end False --save_strategy no --eval_strategy steps --eval_steps 0.1"
EVERY_RUN += " --disable_tqdm True --report_to none"


@dataclass(frozen=True)
class Scores:
    """Runs that score the rows before any arm is run.

    Args:
        policy: A policy that chooses once.
        seeds: Runs whose scores are averaged.
        epochs: Epochs of each run.
        arguments: Arguments of the recipe, beside its files.
    """

    policy: str
    seeds: int
    epochs: float
    arguments: str


@dataclass(frozen=True)
class Regime:
    """One comparison.

    Args:
        make: Makes the splits from the folder of the data sets; None = the arguments name the data.
        recipe: Name of the recipe.
        arguments: Arguments of every run, beside its files.
        budgets: Shares of the full arm, and "auto" for those that arms turn out to read.
        arms: The oracle and the rules, as `hf-prune compare` reads them.
        baselines: What a user would try first, as `hf-prune compare` reads it.
        seeds: Seeds of each arm.
        jobs: Runs at once, or "auto" for one on each core.
        rows: Name of the rows, if several comparisons have the same; None = the comparison's own name.
        scores: Runs that score the rows for the arms; `scores_of` tells where.
        every_run: More arguments of every run.
        topics: What the rows were chosen for, see `hf_prune.report.evidence`.
    """

    make: Callable[[Path], DatasetDict] | None
    recipe: str
    arguments: str
    budgets: tuple[float | str, ...]
    arms: tuple[str, ...]
    baselines: tuple[str, ...] = ()
    seeds: int = 8
    jobs: str = "auto"
    rows: str | None = None
    scores: tuple[Scores, ...] = ()
    every_run: str = EVERY_RUN
    topics: tuple[str, ...] = ()


def scores_of(rows: str, policy: str) -> Path:
    """The folder of the scores of rows.

    Args:
        rows: Name of the rows.
        policy: The policy that makes the scores.
    """
    return ROWS / f"{rows}-{policy}"


def commands_of(name: str, regime: Regime) -> list[list[str]]:
    """The commands that score the rows, and the one that compares.

    Args:
        name: Name of the comparison.
        regime: The comparison.
    """
    rows, script = regime.rows or name, f"recipes/{regime.recipe}.py"
    splits = ("train", "validation", "test") if regime.make else ()
    files = [part for split in splits for part in (f"--{split}_file", f"{ROWS / rows / split}.parquet")]
    found = []
    for scores in regime.scores:
        command = ["hf-prune", "score", "--policy", scores.policy, "--seeds", str(scores.seeds)]
        command += ["--num_train_epochs", f"{scores.epochs:g}", "--output_dir", str(scores_of(rows, scores.policy))]
        found.append([*command, "--", script, *files, *shlex.split(f"{scores.arguments} {regime.every_run}")])
    command = ["hf-prune", "compare", script, "--arms", *regime.arms]
    command += ["--budgets", *map(str, regime.budgets), "--seeds", str(regime.seeds), "--jobs", regime.jobs]
    command += ["--baselines", *regime.baselines] if regime.baselines else []
    command += ["--keep", "results", "--output_dir", str(RESULTS / name), "--", *files]
    return [*found, command + shlex.split(f"{regime.arguments} {regime.every_run}")]


def make_rows(name: str, regime: Regime, data: Path) -> None:
    """Write the splits to the folder of the rows, if it is missing.

    Args:
        name: Name of the comparison.
        regime: The comparison.
        data: Folder of the data sets.
    """
    folder = ROWS / (regime.rows or name)
    if regime.make and not folder.exists():
        for split, rows in regime.make(data).items():
            rows.to_parquet(folder / f"{split}.parquet")


def compare(name: str, regime: Regime, run: bool) -> None:
    """Print the commands of a comparison; with `run`, run them.

    Args:
        name: Name of the comparison.
        regime: The comparison.
        run: Whether to run them.
    """
    for command in commands_of(name, regime):
        print(shlex.join(command))
        if run:
            subprocess.run(command, check=True)
    if run and regime.topics:
        write_text(RESULTS / name / "regime.json", json.dumps({"topics": regime.topics}) + "\n")


def write_marked(page: Path, name: str, text: str) -> None:
    """Put a text between the two marks of a page.

    Args:
        page: A page in Markdown.
        name: Name of the marks.
        text: What is to stand between them.

    Raises:
        ValueError: The page lacks the marks.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"\n<!-- end of {name} -->")
    if not end:
        raise ValueError(f"{page} has no marks <!-- {name} --> and <!-- end of {name} -->.")
    write_text(page, before + begin + text + end + after)
