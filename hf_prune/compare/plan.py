"""What a comparison runs: arms (each one way to train), and the seeds that every arm gets."""

import argparse
import dataclasses
import json
import os
import re
import shlex
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import policies
from ..common.foreign import file_name, label, number, of_kind, read_json, setting, why
from ..common.privacy import hide_arguments, public_arguments
from ..common.storage import write_text
from ..core import DATA_NEEDS, History
from ..report.account import keeps_all
from .store import ended, run_folder

COMMAND = "command.json"
KINDS = ("full", "short", "uniform", "baseline", "policy", "oracle")  # kinds of arms
RIVALS = KINDS[:4]  # kinds that arms of later kinds are compared with
ORACLE = "oracle"  # how the name of an arm begins that chooses by what no rule can know
ALL = ("--policy", "uniform:keep=1")
BASELINES = {  # what a user may try before pruning: the flags of the arm, and whether it also runs with every budget
    "early_stopping": (
        ("--early_stopping_patience", "3", "--load_best_model_at_end", "True", "--save_strategy", "best"),
        False,
    ),
    "class_weighted": (("--class_weights", "balanced"), True),
}
OURS = ("policy", "seed", "output_dir", "push_to_hub", "hub_token")  # flags that are set for every run
_MOST_RUNS = 100_000


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to train.

    Args:
        flags: Flags for the recipe, beside its own arguments, the seed and the folder.
        kind: One of `KINDS`.
        budget: Share of the full arm's tokens that it is given; None if that depends on the losses.
        stopped: Why it gets no more seeds; None = it gets all.
    """

    flags: tuple[str, ...]
    kind: str
    budget: float | None = None
    stopped: str | None = None


@dataclasses.dataclass
class Plan:
    """What a comparison is to run.

    Args:
        script: The recipe.
        arguments: Its own arguments, the same for every run.
        arms: The arms by name.
        seeds: Number of seeds; every arm runs with the seeds 1 to this number.
        jobs: Most runs at once, now or earlier.
        margin: Largest difference that counts as the same quality, in the unit that is shown; None = the metric's own.
        paths: A checksum of the arguments with whole paths, because `arguments` has paths without their folders; None =
            there are no such paths.
    """

    script: str
    arguments: tuple[str, ...]
    arms: dict[str, Arm] = dataclasses.field(default_factory=dict)
    seeds: int = 1
    jobs: int = 1
    margin: float | None = None
    paths: int | None = None

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the plan to the folder of the comparison."""
        write_text(Path(folder, COMMAND), json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Plan | None":
        """Read the plan of a folder; everything in it is safe to show, whoever wrote it.

        Returns:
            The plan; None if the folder has none.

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
            plan.check()
            if plan.paths is not None:
                number(plan.paths, "paths", whole=True)
            return plan
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{path} is not the plan of a comparison, or damaged ({why(error)}). Name another folder, or remove "
                "that file."
            ) from error

    def check(self) -> None:
        """Refuse numbers with which the plan could not be read again.

        Raises:
            ValueError: The seeds, the jobs or the margin are out of bounds.
        """
        number(self.seeds, "seeds", 1, _MOST_RUNS // max(len(self.arms), 1), whole=True)
        number(self.jobs, "jobs", 1, _MOST_RUNS, whole=True)
        if self.margin is not None:
            number(self.margin, "margin")

    def runs(self) -> list[tuple[str, int]]:
        """(arm, seed) of every run, all arms of a seed before the next one."""
        return [(name, seed) for seed in range(1, self.seeds + 1) for name in self.arms]

    def ended(self, folder: str | os.PathLike[str]) -> list[tuple[str, int]]:
        """(arm, seed) of every run that has ended in the folder of the comparison, in the order of `runs`."""
        return ended(folder, self.runs())


def _arm(found: dict[str, Any]) -> Arm:
    arm = Arm(_flags(found.pop("flags")), **found)
    if arm.kind not in KINDS:
        raise ValueError(f"there is no kind {arm.kind!r:.60} of arms")
    number(0 if arm.budget is None else arm.budget, "budget", 0, 1)
    label("" if arm.stopped is None else arm.stopped, "stopped")
    return arm


def _flags(found: Any) -> tuple[str, ...]:
    return tuple(public_arguments([setting(flag, "an argument") for flag in of_kind(found, "arguments", list)]))


def rule_of(arm: str, budget: float | None) -> str:
    """The name of an arm without its budget: arms of one rule share a colour and a column.

    Args:
        arm: Name of the arm.
        budget: Its budget; None if it has none.
    """
    return arm if budget is None else arm.rpartition("-")[0]


# ---- From the command line ----


def _read_arm(text: str) -> tuple[str, Arm, bool]:
    """The name of an arm, the arm, and whether it takes a budget.

    Raises:
        ValueError: No such policy, or settings that it refuses.
    """
    try:
        head, *flags = shlex.split(text) or [""]
    except ValueError as error:
        raise ValueError(f"--arms {text!r}: {error}") from error
    shown = shlex.join(hide_arguments([head, *flags]))
    if wrong := [flag for flag in OURS if flag in flag_names(flags)]:
        raise ValueError(f"--arms {shown!r}: --{wrong[0]} is set for every run; leave it out.")
    before, equals, after = head.partition("=")
    name, policy = (before, after) if equals and re.fullmatch(r"[\w.-]+", before) else ("", head)
    try:
        cls = policies.find(policy.partition(":")[0])
        made = policies.make(policy)
    except (ValueError, TypeError, ImportError) as error:
        raise ValueError(f"--arms {text!r}: {error}") from error
    given = [setting.partition("=")[0].strip() for setting in policy.partition(":")[2].split(",")]
    takes = "keep" in {field.name for field in dataclasses.fields(cls)} and "keep" not in given + flag_names(flags)
    name = file_name(name or policy.partition(":")[0].rpartition(".")[2], f"--arms {shown!r}: the name")
    kind = "oracle" if name.startswith(ORACLE) else "baseline" if keeps_all(repr(made)) else "policy"
    return name, Arm(("--policy", policy, *flags), kind), takes


def check_beginning(arms: dict[str, Arm], arguments: list[str]) -> None:
    """Refuse an arm that can't begin without an earlier run, before other arms are run.

    Args:
        arms: The arms by name, from `plan_arms`.
        arguments: Arguments of the recipe, the same for every run.

    Raises:
        ValueError: The policy's own message.
    """
    for name, arm in arms.items():
        given, policy = flag_names([*arguments, *arm.flags]), policies.make(arm.flags[1])
        assert policy is not None
        own = {field.name for field in dataclasses.fields(policy)}
        if "history" in given or own & set(given) or policy.needs & DATA_NEEDS:  # can't be checked here
            continue
        try:
            policy.begin(History.empty(1), None)
        except ValueError as error:
            raise ValueError(f"Arm {name}: {error}") from error


def flag_names(arguments: Sequence[str]) -> list[str]:
    """Names of the flags among these arguments, as dataclasses spell them."""
    flags = [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]
    return [flag.lstrip("-").replace("-", "_") for flag in flags]


def plan_arms(texts: list[str], budgets: list[float], epochs: float, baselines: Sequence[str] = ()) -> dict[str, Arm]:
    """All arms by name.

    Args:
        texts: The arms that are named.
        budgets: Shares of the full arm's tokens.
        epochs: Number of epochs of the full arm.
        baselines: Names in `BASELINES`.

    Raises:
        ValueError: A budget outside of (0, 1), none for a policy that takes one, two arms with the same name, or
            settings that the policy refuses.
    """
    if wrong := [budget for budget in budgets if not 0 < budget < 1]:
        raise ValueError(f"--budgets {wrong[0]:g}: a budget is a share between 0 and 1 of what the full arm reads.")
    budgets, arms = list(dict.fromkeys(budgets)), {}

    def add(name: str, arm: Arm) -> None:
        if name in arms:
            flags = shlex.join(hide_arguments(arm.flags[1:]))
            raise ValueError(f"Two arms are called {name}: name one of them, as in --arms 'NAME={flags}'.")
        arms[name] = arm

    add("full", Arm(ALL, "full"))
    for budget in budgets:
        for name, arm in baselines_of(budget, epochs).items():
            add(name, arm)
    for name in dict.fromkeys(baselines):
        flags, takes_budget = BASELINES[name]
        add(name, Arm((*ALL, *flags), "baseline"))
        for budget in budgets if takes_budget else []:
            short = (*ALL, *flags, "--num_train_epochs", f"{budget * epochs:.4g}")
            add(f"{name}-{100 * budget:g}", Arm(short, "baseline", budget))
    for name, arm, takes_budget in map(_read_arm, texts):
        if takes_budget and not budgets:
            raise ValueError(f"--budgets auto leaves {name} without a budget: add one, as in --budgets 0.5 auto.")
        for budget in budgets if takes_budget else [None]:
            if budget is None:
                add(name, arm)
            else:
                policy = f"{arm.flags[1]}{',' if ':' in arm.flags[1] else ':'}keep={budget:g}"
                add(f"{name}-{100 * budget:g}", Arm(("--policy", policy, *arm.flags[2:]), arm.kind, budget))
    return arms


def baselines_of(budget: float, epochs: float) -> dict[str, Arm]:
    """The two arms by name that every budget gets: fewer epochs of all rows, and random rows.

    Args:
        budget: Share of what the full arm reads.
        epochs: Number of epochs of the full arm.
    """
    short = (*ALL, "--num_train_epochs", f"{budget * epochs:.4g}")
    return {
        f"short-{100 * budget:g}": Arm(short, "short", budget),
        f"uniform-{100 * budget:g}": Arm(("--policy", f"uniform:keep={budget:g}"), "uniform", budget),
    }


def epochs_of(arguments: Sequence[str]) -> float | None:
    """The value of `--num_train_epochs` for every run; None if the recipe decides."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--num_train_epochs", type=float)
    return parser.parse_known_args(arguments)[0].num_train_epochs


def join(plan: Plan, earlier: Plan | None, folder: Path) -> Plan:
    """The plan in a form that may be shown, without paths of this machine, and with earlier arms that have ended runs.

    Args:
        plan: The plan as it was typed.
        earlier: The plan that the folder already has; None = none.
        folder: Folder of the comparison.

    Raises:
        ValueError: The earlier plan has another recipe, other arguments, or a different arm with the same name.
    """
    arms = {name: dataclasses.replace(arm, flags=tuple(public_arguments(arm.flags))) for name, arm in plan.arms.items()}
    typed = [plan.script, *plan.arguments]
    whole = hide_arguments(typed)  # a secret token may have changed by the next call
    script, *arguments = public_arguments(whole)
    paths, older = (zlib.crc32(shlex.join(argv).encode()) for argv in (whole, typed))
    paths = None if [script, *arguments] == whole else paths
    plan = dataclasses.replace(plan, script=script, arguments=tuple(arguments), arms=arms, paths=paths)
    if earlier is None:
        return plan
    if (earlier.script, earlier.arguments) != (plan.script, plan.arguments):
        was, now = (shlex.join([one.script, *one.arguments]) for one in (earlier, plan))
        raise ValueError(f"{folder} compares runs of `{was}`, and this is `{now}`. Give another --output_dir.")
    if earlier.paths not in (None, plan.paths, older):
        raise ValueError(
            f"{folder} compares runs with files of the same names in other folders. Give another --output_dir."
        )
    done = {arm for arm, _ in earlier.ended(folder)}
    begun = done | {arm for arm, seed in earlier.runs() if any(run_folder(folder, arm, seed).glob("checkpoint-*"))}
    for name in begun & set(plan.arms):
        if earlier.arms[name].flags != plan.arms[name].flags:
            was, now = (shlex.join(one.arms[name].flags) for one in (earlier, plan))
            raise ValueError(f"Arm {name} was run with `{was}`, and is now to be `{now}`: give it another name.")
    arms = plan.arms | {name: arm for name, arm in earlier.arms.items() if name in done and name not in plan.arms}
    margin = earlier.margin if plan.margin is None else plan.margin
    most = {name: max(getattr(plan, name), getattr(earlier, name)) for name in ("seeds", "jobs")}
    return dataclasses.replace(plan, arms=arms, margin=margin, **most)
