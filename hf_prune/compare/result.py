"""The results of a comparison's runs: read from their files, and checked."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..common.foreign import label, number, of_kind, read_json, why
from ..report.account import NOTHING, keeps_all
from .intervals import RowSums, row_sums, without_texts

RESULTS, PREDICTIONS = "results.json", "predictions.json"  # files of a run; the first is written last
LARGEST = 1e30  # largest quality


@dataclass(frozen=True)
class RunResult:
    """What a comparison takes from a run that has ended.

    Args:
        results: The content of its results.json.
        answers: Its predictions as labels and numbers, see `without_texts`.
        rows: Its quality as sums over the test rows; None if the metric is not a function of such sums.
        tested_on: A checksum of the test rows, to see that all runs were tested on the same rows.
        is_constant: Whether it gives the same answer for every test row, although the rows have several.
    """

    results: dict[str, Any]
    answers: dict[str, Any] = field(default_factory=dict)
    rows: RowSums | None = None
    tested_on: str = ""
    is_constant: bool = False

    @classmethod
    def load(cls, folder: Path) -> "RunResult":
        """Read the files that a run has left in its folder.

        Raises:
            ValueError: There is no account of what was trained, the predictions do not give the quality, or the files
                hold something else.
        """
        results = _read(folder / RESULTS)
        if not results.get("pruning"):
            raise ValueError(f"{folder} has no account of what was trained: compare with --policy uniform:keep=1.")
        with _naming(folder / RESULTS):
            check_results(results)
        quality = results["quality"]
        if quality["value"] is None:
            return cls(results)
        found = _read(folder / PREDICTIONS)
        with _naming(folder / PREDICTIONS):
            answers = without_texts(quality["metric"], found, results["scores"])
            rows = row_sums(quality["metric"], answers, results["scores"])
            said = {str(answer) for answer in found.get("predictions", ())}
            truths = {str(truth) for truth in found.get("references") or ()}
            tested_on = json.dumps(found.get("references") or found.get("tokens"))
        run = cls(
            results,
            answers,
            rows,
            hashlib.sha256(tested_on.encode()).hexdigest(),
            is_constant=len(said) == 1 and len(truths) > 1,
        )
        if run.mismatch:
            raise ValueError(
                f"{folder}: {run.mismatch}. They are of different runs; remove the folder and run it again."
            )
        return run

    @property
    def mismatch(self) -> str:
        """What is wrong if its predictions do not give its quality; "" if they do."""
        quality = self.results["quality"]
        if self.rows is None or np.isclose(self.rows.value, quality["value"], rtol=1e-4):
            return ""
        name, value = quality["metric"], quality["value"]
        return f"{PREDICTIONS} gives {name} {self.rows.value:.6g}, but {RESULTS} says {value:.6g}"

    @property
    def has_diverged(self) -> bool:
        """Whether its quality is not a number."""
        return self.results["quality"]["value"] is None

    @property
    def unit(self) -> str:
        """What is counted: "positions" (tokens and padding), or "rows" where the inputs have no tokens."""
        return "positions" if self.results["pruning"]["totals"]["padded_tokens"] else "rows"

    @property
    def _counted(self) -> str:
        """The name of this unit in evaluations and in earlier runs."""
        return "tokens" if self.unit == "positions" else "rows"

    def cost(self) -> dict[str, float]:
        """`trained`, `forward_only` and `earlier` positions or rows, their sum `all`; `steps` and `seconds`."""
        totals, earlier = self.results["pruning"]["totals"], self.results["pruning"]["earlier_runs"] or {}
        counted = "padded_tokens" if self.unit == "positions" else "rows"
        counts = {
            "trained": totals[counted],
            "forward_only": totals[f"{counted}_rescored"],
            "earlier": earlier.get(self._counted, 0),
        }
        seconds = sum(totals[f"seconds_{part}"] for part in ("training", "selecting", "rescoring"))
        more = {"steps": totals["optimizer_steps"], "seconds": seconds + earlier.get("seconds", 0)}
        return counts | {"all": sum(counts.values())} | more

    @property
    def seconds(self) -> float:
        """Seconds of the whole run, with reading and testing; without what earlier runs took."""
        return sum((self.results.get("seconds") or {"training": self.cost()["seconds"]}).values())

    @property
    def tokens(self) -> float | None:
        """Real tokens trained; None if there are none, or if they are not told apart from padding."""
        return self.results["pruning"]["totals"].get("tokens") or None

    def curve(self, metric: str) -> np.ndarray:
        """(E, 3): what was trained, seconds, and quality at each evaluation; the cost of earlier runs is added."""
        earlier = self.results["pruning"]["earlier_runs"] or {}
        return np.array(
            [
                (
                    found[self._counted] + earlier.get(self._counted, 0),
                    found["seconds"] + earlier.get("seconds", 0),
                    found[f"eval_{metric}"],
                )
                for found in self.results["pruning"]["evaluations"]
                if found.get(f"eval_{metric}") is not None
            ]
        ).reshape(-1, 3)


def prunes_nothing(run: RunResult, full: RunResult) -> bool:
    """Whether a run has trained as much as a run on all rows, although it was not set to keep all.

    Args:
        run: The run, which may have pruned.
        full: The run on all rows with the same seed.
    """
    trained, everything = (one.cost()["trained"] for one in (run, full))
    return not keeps_all(str(run.results.get("policy"))) and abs(trained - everything) < NOTHING * everything


def _read(path: Path) -> dict[str, Any]:
    try:
        return of_kind(read_json(path, largest=1 << 31), "it", dict)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}). Remove its folder, and run it again.") from error


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Add the file's name to an error about its content in the block."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(
            f"{path} was not written by a recipe ({why(error)}). Remove its folder, and run it again."
        ) from error


_COUNTED = ("rows", "padded_tokens", "rows_rescored", "padded_tokens_rescored", "optimizer_steps")
_COUNTED += tuple(f"seconds_{part}" for part in ("training", "selecting", "rescoring"))


def check_results(found: dict[str, Any]) -> None:
    """Refuse a results.json with numbers that are missing or out of bounds, or with names that are not mere names.

    Raises:
        KeyError: Something is missing.
        TypeError: Something is of another type.
        ValueError: Something has a wrong form, or is out of bounds.
    """
    quality, pruning = found["quality"], found["pruning"]
    for name in ("metric", "split"):
        label(quality[name], name)
    number(quality["rows"], "rows", 1, whole=True)
    of_kind(quality["greater_is_better"], "greater_is_better", bool)
    if quality["value"] is not None:
        number(quality["value"], "the quality", -LARGEST, LARGEST)
    earlier = pruning["earlier_runs"] or {}
    for counts, needed in ((pruning["totals"], _COUNTED), (earlier, ())):
        for name in dict.fromkeys((*needed, *(name for name, value in counts.items() if value is not None))):
            number(counts[name], name)
    for evaluation in of_kind(pruning["evaluations"], "evaluations", list):
        for name in ("rows", "tokens", "seconds"):
            number(evaluation[name], name)
        if evaluation.get(f"eval_{quality['metric']}") is not None:
            number(evaluation[f"eval_{quality['metric']}"], "an evaluation", -LARGEST, LARGEST)
    for name, value in of_kind(found.get("seconds") or {}, "seconds", dict).items():
        number(value, name)
    number(found["parameters"], "parameters", whole=True)
    for name in ("cpus", "threads"):
        if found["hardware"][name] is not None:  # the system may not tell
            number(found["hardware"][name], name, whole=True)
    commit = [] if found["commit"] is None else [found["commit"]]
    for text in (*found["hardware"]["gpus"], *found["versions"], *found["versions"].values(), *commit):
        label(text, "a name or version")
