"""Whether pruning paid: runs of several arms with the same seeds, put side by side as numbers, sentences and a figure.

A comparison is a folder: `command.json` says what was to be run, `arms/ARM/seed-S/` holds `results.json` and
`predictions.json` of a run that has ended. Everything else is made from these.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..common.foreign import file_name, label, number, of_kind, read_json, setting, why
from ..common.privacy import public_arguments
from ..common.storage import write_text
from ..report.account import NOTHING, keeps_all
from ..report.card import ARMS
from .intervals import RowSums, interval, resample_rows, row_sums

RESULTS, PREDICTIONS = "results.json", "predictions.json"  # of a run; the first is written last
COMMAND = "command.json"
KINDS = ("full", "short", "uniform", "policy")  # of arms; each is compared with those before it
LARGEST = 1e30  # quality
_MOST_RUNS = 100_000
CLOSE = 0.1  # two arms read as much where what they read differs by no more than this share


@dataclass(frozen=True)
class Scale:
    """How a quality is shown.

    Args:
        title: Its name and unit, of a value.
        unit: Of a difference.
        factor: What values are multiplied by.
        digits: Digits behind the point.
        margin: Largest difference, after `factor`, that counts as none unless another is given; None = none does.
    """

    title: str
    unit: str
    factor: float = 1.0
    digits: int = 4
    margin: float | None = None


SCALES = {
    "bleu": Scale("BLEU", "BLEU", digits=2, margin=0.5),
    "accuracy": Scale("accuracy in %", "points", 100, 2, 0.5),
    "f1": Scale("F1 in %", "points", 100, 2, 0.5),
    "matthews": Scale("Matthews correlation in %", "points", 100, 2, 1.0),
    "pearson": Scale("Pearson correlation in %", "points", 100, 2, 0.5),
    "spearman": Scale("Spearman correlation in %", "points", 100, 2, 0.5),
    "loss": Scale("loss in nats", "nats", margin=0.01),
}


def scale_of(metric: str) -> Scale:
    """How a metric is shown."""
    return SCALES.get(metric, Scale(metric, metric))


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Args:
        flags: What the recipe gets beside its own arguments, the seed and the folder.
        kind: One of `KINDS`.
        budget: Share of the full arm's tokens that it is given; None where that follows from the losses.
    """

    flags: tuple[str, ...]
    kind: str
    budget: float | None = None


@dataclass
class Plan:
    """What a comparison is to run.

    Args:
        script: The recipe.
        arguments: Its own arguments, the same for every run.
        arms: By name.
        seeds: Arms are run with the seeds 1 to this.
        jobs: Most runs at once, now or earlier.
        margin: Largest difference that counts as none, in the unit that is shown; None = that of the metric.
        paths: A checksum of the arguments with paths that are shortened in `arguments`; None = no path is.
    """

    script: str
    arguments: tuple[str, ...]
    arms: dict[str, Arm] = field(default_factory=dict)
    seeds: int = 1
    jobs: int = 1
    margin: float | None = None
    paths: int | None = None

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write it to the folder of the comparison."""
        write_text(Path(folder, COMMAND), json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Plan | None":
        """That of a folder, None where there is none; as it may be shown, whoever wrote it.

        Raises:
            ValueError: The file holds something else.
        """
        path = Path(folder, COMMAND)
        if not path.exists():
            return None
        try:
            found = read_json(path)
            arms = {file_name(name, "the arm"): _arm(arm) for name, arm in found.pop("arms").items()}
            plan = cls(arguments=_flags(found.pop("arguments")), arms=arms, **found)
            of_kind(plan.script, "script", str)
            number(plan.seeds, "seeds", 1, _MOST_RUNS // max(len(arms), 1), whole=True)
            number(plan.jobs, "jobs", 1, _MOST_RUNS, whole=True)
            if plan.margin is not None:
                number(plan.margin, "margin")
            if plan.paths is not None:
                number(plan.paths, "paths", whole=True)
            return plan
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{path} is none of a comparison, or damaged ({why(error)}). Name another folder, or remove that file."
            ) from error

    def runs(self) -> list[tuple[str, int]]:
        """(arm, seed) of every run, all arms of a seed before the next one."""
        return [(name, seed) for seed in range(1, self.seeds + 1) for name in self.arms]


def _arm(found: dict[str, Any]) -> Arm:
    arm = Arm(_flags(found.pop("flags")), **found)
    if arm.kind not in KINDS:
        raise ValueError(f"there is no kind {arm.kind!r:.60} of arms")
    number(0 if arm.budget is None else arm.budget, "budget", 0, 1)
    return arm


def _flags(found: Any) -> tuple[str, ...]:
    return tuple(public_arguments([setting(flag, "an argument") for flag in of_kind(found, "arguments", list)]))


def rule_of(arm: str, budget: float | None) -> str:
    """The name of an arm without its budget: arms of one rule have one colour, and one column."""
    return arm if budget is None else arm.rpartition("-")[0]


def run_folder(folder: str | os.PathLike[str], arm: str, seed: int) -> Path:
    """Where a run of a comparison is."""
    return Path(folder, ARMS, arm, f"seed-{seed}")


@dataclass(frozen=True)
class RunResult:
    """What a comparison takes from a run that has ended.

    Args:
        results: Its results.json.
        rows: Its quality as sums over the test rows; None where the metric is no function of such.
        references: What the test rows are, to see that all runs were tested on the same.
        is_constant: Whether it gives every test row one answer, where the rows have several.
    """

    results: dict[str, Any]
    rows: RowSums | None
    references: Any
    is_constant: bool = False

    @classmethod
    def load(cls, folder: Path) -> "RunResult":
        """Read a run.

        Raises:
            ValueError: It has no account of what was trained, or its predictions are not those of its quality; or the
                files hold something else.
        """
        results = _read(folder / RESULTS)
        if not results.get("pruning"):
            raise ValueError(f"{folder} has no account of what was trained: compare with --policy uniform:keep=1.")
        with _naming(folder / RESULTS):
            check_results(results)
        quality = results["quality"]
        if quality["value"] is None:
            return cls(results, None, None)
        found = _read(folder / PREDICTIONS)
        with _naming(folder / PREDICTIONS):
            rows = row_sums(quality["metric"], found, results["scores"])
            answers = {str(answer) for answer in found.get("predictions", ())}
            truths = {str(truth) for truth in found.get("references") or ()}
        if rows is not None and not np.isclose(rows.value, quality["value"], rtol=1e-4):
            raise ValueError(
                f"{folder}: {PREDICTIONS} gives {quality['metric']} {rows.value:.6g}, but {RESULTS} says "
                f"{quality['value']:.6g}. They are of different runs; remove the folder and run it again."
            )
        references = found.get("references") or found.get("tokens")
        return cls(results, rows, references, is_constant=len(answers) == 1 and len(truths) > 1)

    @property
    def has_diverged(self) -> bool:
        """Whether its quality is no number."""
        return self.results["quality"]["value"] is None

    @property
    def unit(self) -> str:
        """What is counted: "positions" (tokens and padding), or "rows" where the inputs have no tokens."""
        return "positions" if self.results["pruning"]["totals"]["padded_tokens"] else "rows"

    @property
    def _counted(self) -> str:
        """What evaluations and earlier runs call it."""
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
    def tokens(self) -> float | None:
        """Real tokens trained; None where there are none, or they are not told apart from padding."""
        return self.results["pruning"]["totals"].get("tokens") or None

    def curve(self, metric: str) -> np.ndarray:
        """(E, 3): what was trained, the seconds, and the quality at each evaluation, earlier runs charged."""
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


def leaves_nothing_out(run: RunResult, full: RunResult) -> bool:
    """Whether a run has trained as much as one on all rows did, and was not set to."""
    trained, everything = (one.cost()["trained"] for one in (run, full))
    return not keeps_all(str(run.results.get("policy"))) and abs(trained - everything) < NOTHING * everything


class Comparison:
    """The runs of a folder, compared.

    Args:
        plan: What was to be run.
        runs: By arm and seed, those that have ended. Those that have diverged are in no number, but named.

    Raises:
        ValueError: All have diverged, are of different metrics, or were tested on different rows.
    """

    def __init__(self, plan: Plan, runs: dict[tuple[str, int], RunResult]):
        self.diverged = [key for key, run in runs.items() if run.has_diverged]
        runs = {key: run for key, run in runs.items() if not run.has_diverged}
        if not runs:
            raise ValueError("The quality of every run that has ended is no number: they have diverged.")
        self.plan, self.runs = plan, runs
        first = next(iter(runs.values()))
        for (arm, seed), run in runs.items():
            same = ("metric", "greater_is_better", "split", "rows")
            if any(run.results["quality"][name] != first.results["quality"][name] for name in same) or (
                run.references != first.references
            ):
                raise ValueError(f"{arm}, seed {seed} was tested on other rows, or by another metric, than the others.")
        self.metric = first.results["quality"]["metric"]
        self.unit, self.tested = first.unit, first.results["quality"]
        self.scale = scale_of(self.metric)
        self.margin = self.scale.margin if plan.margin is None else plan.margin
        self.sign = 1 if self.tested["greater_is_better"] else -1
        self.by_rows = all(run.rows is not None for run in runs.values())
        if self.by_rows:
            resampled = resample_rows([run.rows for run in runs.values() if run.rows]) * self.scale.factor
            self._resampled = dict(zip(runs, resampled, strict=True))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Comparison":
        """Read the runs of a folder that have ended.

        Raises:
            ValueError: It is no folder of a comparison, no run has ended, or one can't be compared.
        """
        plan = Plan.load(folder)
        if plan is None:
            raise ValueError(f"{folder} has no {COMMAND}, so it is not the folder of a comparison.")
        folders = {key: run_folder(folder, *key) for key in plan.runs()}
        runs = {key: RunResult.load(path) for key, path in folders.items() if (path / RESULTS).exists()}
        if not runs:
            raise ValueError(f"{folder} has no run that has ended.")
        return cls(plan, runs)

    # ---- Numbers ----

    def seeds(self, arm: str) -> list[int]:
        """Seeds with which an arm has ended."""
        return [seed for name, seed in self.runs if name == arm]

    def values(self, arm: str) -> np.ndarray:
        """(n,) quality for each of these seeds, as it is shown."""
        found = [self.runs[arm, seed].results["quality"]["value"] for seed in self.seeds(arm)]
        return np.array(found) * self.scale.factor

    def cost(self, arm: str, seeds: Iterable[int] | None = None) -> dict[str, float]:
        """Means over seeds, of all that have ended or of these, of what `RunResult.cost` has."""
        costs = [self.runs[arm, seed].cost() for seed in seeds or self.seeds(arm)]
        return {name: float(np.mean([cost[name] for cost in costs])) for name in costs[0]}

    def tokens(self, arm: str) -> float | None:
        """Real tokens trained, mean over seeds; None where it is not known of all."""
        found = [self.runs[arm, seed].tokens for seed in self.seeds(arm)]
        return None if None in found else float(np.mean(np.array(found, dtype=float)))

    def difference(self, arm: str, to: str) -> dict[str, Any] | None:
        """How much higher the quality of `arm` is, paired by seeds; None where they have no seed in common.

        Returns:
            `to`, `seeds`, `mean`, `low` and `high` (the 95 % confidence interval; None where nothing can be said), and
            `saved`, the share of what `to` read that `arm` did not.
        """
        seeds = sorted(set(self.seeds(arm)) & set(self.seeds(to)))
        if not seeds:
            return None
        value, other = (dict(zip(self.seeds(name), self.values(name), strict=True)) for name in (arm, to))
        differences, resampled = np.array([value[seed] - other[seed] for seed in seeds]), None
        if self.by_rows:
            resampled = np.array([self._resampled[arm, seed] - self._resampled[to, seed] for seed in seeds])
        low, high = interval(differences, resampled) or (None, None)
        saved = 1 - self.cost(arm, seeds)["all"] / self.cost(to, seeds)["all"]
        mean = float(differences.mean())
        return {"to": to, "seeds": len(seeds), "mean": mean, "low": low, "high": high, "saved": saved}

    def rival(self, arm: str, kind: str) -> str | None:
        """The arm of a kind that an arm is measured by: `full`, or the closest that read as much within a tenth."""
        rivals = [name for name, other in self.plan.arms.items() if other.kind == kind and self.seeds(name)]
        if not rivals or KINDS.index(kind) >= KINDS.index(self.plan.arms[arm].kind):
            return None
        read = self.cost(arm)["all"]
        closest = min(rivals, key=lambda name: abs(self.cost(name)["all"] - read))
        return closest if kind == "full" or abs(1 - read / self.cost(closest)["all"]) <= CLOSE else None

    def seconds_to_full(self, arm: str) -> tuple[list[float], int]:
        """Seconds until a validation was as good as the full arm's last, for the seeds where one was; and all seeds."""
        found, seeds = [], [seed for seed in self.seeds(arm) if ("full", seed) in self.runs]
        for seed in seeds:
            goal, curve = self.runs["full", seed].curve(self.metric), self.runs[arm, seed].curve(self.metric)
            reached = curve[self.sign * curve[:, 2] >= self.sign * goal[-1:, 2]] if len(goal) else goal
            found += [float(reached[0, 1])] if len(reached) else []
        return found, len(seeds)

    def curves(self, arm: str) -> tuple[np.ndarray, np.ndarray]:
        """(E, 3) what was trained, seconds and quality at each evaluation, mean over seeds; (E,) deviation of quality.

        Evaluations are paired by their place; where a seed stopped early, the last ones of the others are left out.
        """
        curves = [self.runs[arm, seed].curve(self.metric) * [1, 1, self.scale.factor] for seed in self.seeds(arm)]
        shortest = min(map(len, curves))
        stacked = np.stack([curve[:shortest] for curve in curves])
        spread = stacked[:, :, 2].std(axis=0, ddof=1) if len(stacked) > 1 else np.zeros(shortest)
        return stacked.mean(axis=0), spread

    # ---- Words ----

    def _verdicts(self, arm: str, differences: dict[str, dict[str, Any] | None]) -> list[str]:
        """What each difference supports, and what to run where nothing but `full` can be compared."""
        known = [self.runs["full", seed].is_constant for seed in self.seeds("full")]
        if known and all(known):
            return ["nothing follows, for full gives every row one answer: it has not learnt to tell them apart"]
        verdicts = [self._verdict(difference) for difference in differences.values() if difference]
        full = differences["full"]
        if self.plan.arms[arm].kind == "policy" and full and abs(full["saved"]) < NOTHING:
            verdicts.append("it left nothing out")
        alone = self.plan.arms[arm].kind == "policy" and not (differences["short"] or differences["uniform"])
        if alone and full and full["saved"] > CLOSE:
            share = 1 - full["saved"]
            planned = [other.budget for other in self.plan.arms.values() if other.kind == "short" and other.budget]
            if not any(abs(1 - share / budget) <= CLOSE for budget in planned):  # else it has not ended yet
                verdicts.append(f"nothing that read as much stands beside it: add --budgets {share:.2f}")
        return verdicts

    def _verdict(self, difference: dict[str, Any]) -> str:
        to, low, high = difference["to"], difference["low"], difference["high"]
        saved, digits = difference["saved"], self.scale.digits
        amount = f"{abs(saved):.1%}".replace("%", " %")
        read = (
            f"as many {self.unit}" if amount == "0.0 %" else f"{amount} {'fewer' if saved > 0 else 'more'} {self.unit}"
        )
        mean = f"{difference['mean']:+.{digits}f} {self.scale.unit}"
        if low is None:
            which = "one seed" if difference["seeds"] == 1 else "every seed"
            return f"{mean} beside {to} with {which}, from which nothing follows, with {read}"
        one = "with the one seed, " if difference["seeds"] == 1 else ""
        numbers = f"{mean}, 95 % CI {low:+.{digits}f} to {high:+.{digits}f}{' over rows alone' if one else ''}"
        worst, best = sorted((self.sign * low, self.sign * high))
        margin, rows = self.margin, self.tested["rows"] * difference["seeds"]
        # an interval without width: no row differs, and by the rule of three 3 / rows of all others may
        enough = margin is None or low < high or 3 * self.scale.factor / rows <= margin
        if margin is not None and max(abs(low), abs(high)) <= margin and enough:
            return f"{one}same quality as {to} within {margin:g} ({numbers}) with {read}"
        if worst > 0 or best < 0:
            return f"{one}{'better' if worst > 0 else 'worse'} than {to} ({numbers}) with {read}"
        flaw = "" if margin is None else f": too {'wide' if enough else 'few rows'} to say the same within {margin:g}"
        return f"{one}no difference seen to {to} ({numbers}{flaw}) with {read}"

    def to_dict(self) -> dict[str, Any]:
        """All numbers and conclusions, of plain values; qualities and differences in the unit that is shown."""
        arms = []
        for name, arm in self.plan.arms.items():
            if not (seeds := self.seeds(name)):
                continue
            rivals = {kind: self.rival(name, kind) for kind in KINDS[:-1]}
            differences = {kind: self.difference(name, to) if to else None for kind, to in rivals.items()}
            verdicts = "; ".join(self._verdicts(name, differences))
            verdicts = verdicts or ("what the others are measured by" if arm.kind == "full" else "not yet compared")
            if lost := sum(arm == name for arm, _ in self.diverged):
                verdicts = f"diverged with {lost} of {lost + len(seeds)} seeds, with the others {verdicts}"
            values, (reached, tried) = self.values(name), self.seconds_to_full(name)
            arms.append(
                {
                    "arm": name,
                    "kind": arm.kind,
                    "budget": arm.budget,
                    "flags": list(arm.flags),
                    "policy": self.runs[name, seeds[0]].results["policy"],
                    "seeds": seeds,
                    "quality": values.tolist(),
                    "mean": float(values.mean()),
                    "standard_deviation": float(values.std(ddof=1)) if len(values) > 1 else None,
                    "differences": differences,
                    self.unit: {key: self.cost(name)[key] for key in ("trained", "forward_only", "earlier", "all")},
                    **({"tokens": self.tokens(name)} if self.unit == "positions" else {}),
                    "steps": self.cost(name)["steps"],
                    "seconds": self.cost(name)["seconds"],
                    "seconds_to_full": float(np.mean(reached)) if reached else None,
                    "seeds_that_reached_full": [len(reached), tried],
                    "conclusion": f"{name}: {verdicts}.",
                }
            )
        diverged = [f"{arm}, seed {seed}" for arm, seed in self.diverged]
        missing = [f"{arm}, seed {seed}" for arm, seed in self.plan.runs() if (arm, seed) not in self.runs]
        missing = [run for run in missing if run not in diverged]
        made = {name: _distinct(run.results[name] for run in self.runs.values()) for name in _SURROUNDINGS}
        quality = {"metric": self.metric, "unit": self.scale.title, "digits": self.scale.digits, "margin": self.margin}
        tested = {name: self.tested[name] for name in ("greater_is_better", "split", "rows")}
        intervals = {"level": 0.95, "over_rows": self.by_rows}
        plan = {name: value for name, value in asdict(self.plan).items() if name not in ("arms", "margin", "paths")}
        return {
            "plan": plan,
            "quality": quality | tested,
            "intervals": intervals,
            "arms": arms,
            "missing": missing,
            "diverged": diverged,
        } | made


def _read(path: Path) -> dict[str, Any]:
    try:
        return of_kind(read_json(path, largest=1 << 31), "it", dict)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}). Remove its folder, and run it again.") from error


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say which file holds what the block can't use."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"{path} is none of a recipe ({why(error)}). Remove its folder, and run it again.") from error


_COUNTED = ("rows", "padded_tokens", "rows_rescored", "padded_tokens_rescored", "optimizer_steps")
_COUNTED += tuple(f"seconds_{part}" for part in ("training", "selecting", "rescoring"))


def check_results(found: dict[str, Any]) -> None:
    """Refuse a results.json whose numbers are none or out of bounds, or whose names are more than names.

    Raises:
        KeyError: Something is missing.
        TypeError: Something is of another type.
        ValueError: Something is of another kind, or out of bounds.
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
    number(found["parameters"], "parameters", whole=True)
    for name in ("cpus", "threads"):
        if found["hardware"][name] is not None:  # the system may not tell
            number(found["hardware"][name], name, whole=True)
    commit = [] if found["commit"] is None else [found["commit"]]
    for text in (*found["hardware"]["gpus"], *found["versions"], *found["versions"].values(), *commit):
        label(text, "a name or version")


_SURROUNDINGS = ("parameters", "hardware", "versions", "commit")


def _distinct(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found
