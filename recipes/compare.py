"""Run a recipe over arms and seeds, and say whether leaving rows out paid.

    python recipes/compare.py recipes/translate.py --arms infobatch ucb "seta:window=0.6 --num_train_epochs 7" \\
        --budgets 0.5 0.7 --seeds 3 --output_dir comparison -- --num_train_epochs 8 --per_device_train_batch_size 32

What follows `--` goes to every run. Beside the arms that are named there are always

full        every row, `--policy uniform:keep=1`
short-B     every row, in B % of the epochs, the learning rate decayed to its end: simply training for less
uniform-B   B % of each epoch, drawn at random

for each budget B. A policy with a field `keep` gets every budget, one whose share follows from the losses is run as it
is, and compared with the short and the uniform arm that read about as much. An arm is a policy, NAME:FIELD=VALUE,...,
and the flags that it alone gets, quoted; `NAME=` before it names it, which two arms of one policy need.

Every arm gets the seeds 1 to `--seeds`, and with a seed the same weights and the same order of rows. The same command
goes on where it was interrupted, inside a run from its last checkpoint; another with further arms or budgets adds them
to what is there. Where an arm left nothing out with its first seed, that is said, and its other seeds run after all
others: Ctrl-C spares them. After each run, comparison.md, .html, .json and .png are written anew from results.json and
predictions.json under OUTPUT_DIR/arms, which is all that must be kept:

    python recipes/compare.py --output_dir comparison

makes them again. hf_prune/compare/intervals.py says how intervals are made; with fewer than five seeds they are wide,
as they must be.
"""

import argparse
import contextlib
import dataclasses
import os
import re
import shlex
import shutil
import sys
import zlib
from pathlib import Path

from tqdm.auto import tqdm

from hf_prune import History, policies
from hf_prune.common.command import Parser, again, interruptible, stage
from hf_prune.common.foreign import file_name, number, of_kind
from hf_prune.common.privacy import hide_arguments, public_arguments
from hf_prune.compare.comparison import (
    ARMS,
    PREDICTIONS,
    RESULTS,
    Arm,
    Comparison,
    Plan,
    RunResult,
    leaves_nothing_out,
    run_folder,
)
from hf_prune.compare.launch import LAUNCHERS, Run, check_script, run_all
from hf_prune.compare.page import markdown, write
from hf_prune.core import FACTS
from hf_prune.report.card import renew_baselines

OURS = ("policy", "seed", "output_dir", "push_to_hub", "hub_token")
CURE = "a recipe ends with results.json in its --output_dir, as those of hf_prune do"
ALL = ("--policy", "uniform:keep=1")


def read_arguments(argv: list[str]) -> tuple[argparse.Namespace, list[str], Parser]:
    """What this command gets, what every run gets, and the parser, to complain with."""
    cut = argv.index("--") if "--" in argv else len(argv)  # argparse's own reading of -- differs between versions
    summary, _, more = __doc__.partition("\n")
    parser = Parser(
        usage="%(prog)s [SCRIPT] [--arms ARM ...] [--FLAG VALUE ...] [-- ARG ...]",
        description=summary,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "script", nargs="?", help="the recipe; without it, what there is in output_dir is compared anew"
    )
    parser.add_argument("--arms", nargs="+", default=[], metavar="ARM", help="policies, each with flags of its own")
    parser.add_argument("--budgets", nargs="+", type=float, default=[0.5], help="shares of the full arm; default 0.5")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each arm; default 3")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, as on one GPU; default 1")
    parser.add_argument("--margin", type=float, help="largest difference that counts as none, in the table's unit")
    parser.add_argument("--launcher", choices=LAUNCHERS, default="python", help="starts the recipe; default python")
    keep = "of ended runs, earlier ones too: all, all but checkpoints (models), or the two files that count (results); "
    keep += "default: models, and earlier runs stay as they are"
    parser.add_argument("--keep", choices=("all", "models", "results"), help=keep)
    parser.add_argument("--output_dir", default="comparison", help="default comparison")
    return parser.parse_args(argv[:cut]), argv[cut + 1 :], parser


# ---- Arms ----


def read_arm(text: str) -> tuple[str, Arm, bool]:
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
    name, policy = re.fullmatch(r"(?:([\w.-]+)=)?(.*)", head).groups()
    try:
        cls = policies.find(policy.partition(":")[0])
        policies.make(policy)
    except (ValueError, TypeError, ImportError) as error:
        raise ValueError(f"--arms {text!r}: {error}") from error
    given = [setting.partition("=")[0].strip() for setting in policy.partition(":")[2].split(",")]
    takes = "keep" in {field.name for field in dataclasses.fields(cls)} and "keep" not in given + flag_names(flags)
    name = file_name(name or policy.partition(":")[0].rpartition(".")[2], f"--arms {shown!r}: the name")
    return name, Arm(("--policy", policy, *flags), "policy"), takes


def check_beginning(arms: dict[str, Arm], arguments: list[str]) -> None:
    """Refuse an arm that can't begin without an earlier run, before others are run.

    Raises:
        ValueError: What its policy says.
    """
    for name, arm in arms.items():
        given, policy = flag_names([*arguments, *arm.flags]), policies.make(arm.flags[1])
        own = {field.name for field in dataclasses.fields(policy)}
        if "history" in given or own & set(given) or policy.needs & FACTS:  # can't be told here
            continue
        try:
            policy.begin(History.empty(1), None)
        except ValueError as error:
            raise ValueError(f"Arm {name}: {error}") from error


def flag_names(arguments: list[str]) -> list[str]:
    flags = [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]
    return [flag.lstrip("-").replace("-", "_") for flag in flags]


def plan_arms(texts: list[str], budgets: list[float], epochs: float) -> dict[str, Arm]:
    """All arms by name.

    Args:
        texts: The arms that are named.
        budgets: Shares of the full arm.
        epochs: Of the full arm.

    Raises:
        ValueError: A budget outside of (0, 1), two arms of one name, or what `read_arm` refuses.
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
        short = (*ALL, "--num_train_epochs", f"{budget * epochs:.4g}")
        add(f"short-{100 * budget:g}", Arm(short, "short", budget))
        add(f"uniform-{100 * budget:g}", Arm(("--policy", f"uniform:keep={budget:g}"), "uniform", budget))
    for name, arm, takes_budget in map(read_arm, texts):
        for budget in budgets if takes_budget else [None]:
            if budget is None:
                add(name, arm)
            else:
                policy = f"{arm.flags[1]}{',' if ':' in arm.flags[1] else ':'}keep={budget:g}"
                add(f"{name}-{100 * budget:g}", Arm(("--policy", policy, *arm.flags[2:]), "policy", budget))
    return arms


def epochs_of(arguments: list[str]) -> float | None:
    """What `--num_train_epochs` is for every run; None where the recipe decides."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--num_train_epochs", type=float)
    return parser.parse_known_args(arguments)[0].num_train_epochs


def join(plan: Plan, earlier: Plan | None, folder: Path) -> Plan:
    """The plan as it may be shown, without paths of this machine, and with the arms of which a run has ended.

    Raises:
        ValueError: The earlier one is of another recipe or other arguments, or has another arm of the same name.
    """
    arms = {name: dataclasses.replace(arm, flags=tuple(public_arguments(arm.flags))) for name, arm in plan.arms.items()}
    typed = [plan.script, *plan.arguments]
    whole = hide_arguments(typed)  # a token may be another one by the next call
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
    folders = [(arm, run_folder(folder, arm, seed)) for arm, seed in earlier.runs()]
    done = {arm for arm, run in folders if (run / RESULTS).exists()}
    begun = done | {arm for arm, run in folders if any(run.glob("checkpoint-*"))}
    for name in begun & set(plan.arms):
        if earlier.arms[name].flags != plan.arms[name].flags:
            was, now = (shlex.join(one.arms[name].flags) for one in (earlier, plan))
            raise ValueError(f"Arm {name} was run with `{was}`, and is now to be `{now}`: give it another name.")
    arms = plan.arms | {name: arm for name, arm in earlier.arms.items() if name in done}
    margin = earlier.margin if plan.margin is None else plan.margin
    most = {name: max(getattr(plan, name), getattr(earlier, name)) for name in ("seeds", "jobs")}
    return dataclasses.replace(plan, arms=arms, margin=margin, **most)


# ---- Runs ----


def run_plan(plan: Plan, earlier: Plan | None, folder: Path, options: argparse.Namespace) -> list[str]:
    """Run what has not ended, comparing anew after each run; names of the runs that failed.

    Raises:
        ValueError: The folder can't be made, or what `join` refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--output_dir {folder} can't be made: {error.strerror}. Give another.") from error
    join(plan, earlier, folder).save(folder)
    runs, failed, idle = {}, [], set()
    for arm, seed in plan.runs():
        out = run_folder(folder, arm, seed)
        if (out / RESULTS).exists():
            if options.keep:
                tidy(out, options.keep)
            continue
        own = (*plan.arguments, *plan.arms[arm].flags, "--seed", str(seed), "--output_dir", str(out))
        command = (*LAUNCHERS[options.launcher], plan.script, *own)
        runs[Run(command, folder / "logs" / arm / f"seed-{seed}.log", out / RESULTS)] = f"{arm}, seed {seed}"
    total = len(plan.runs())
    arm_of = {run: words.rpartition(", seed ")[0] for run, words in runs.items()}
    with (
        tqdm(total=total, initial=total - len(runs), desc="Comparing", unit="run") as bar,
        contextlib.closing(run_all(runs, options.jobs, lambda run: arm_of[run] in idle)) as ended,
    ):
        tell_idle(plan, folder, idle, bar)
        for run, status in ended:
            if status is None:
                bar.write(f"{runs[run]} still goes on, from an earlier command; waiting for it.", file=sys.stderr)
                continue
            if failure := run.failure(status, CURE):
                failed.append(runs[run])
                bar.write(f"{failure}\n{runs[run]} failed; the others go on.", file=sys.stderr)
            bar.update()
            if run.result.exists():
                tidy(run.result.parent, options.keep or "models")
                with contextlib.suppress(ValueError):  # told at the end, when no run waits
                    write(Comparison.load(folder), folder)
                tell_idle(plan, folder, idle, bar)
    return failed


def tell_idle(plan: Plan, folder: Path, idle: set[str], bar: tqdm) -> None:
    """Say of arms that have left nothing out with their first seed that they have, once, and add them to `idle`."""
    firsts = {arm: run_folder(folder, arm, 1) for arm in plan.arms}
    ended = {arm: path for arm, path in firsts.items() if (path / RESULTS).exists()}
    if plan.seeds == 1 or "full" not in ended:
        return
    with contextlib.suppress(ValueError):  # a damaged run is told at the end
        full = RunResult.load(ended["full"])
        for arm in ended.keys() - idle:
            if plan.arms[arm].kind == "policy" and leaves_nothing_out(RunResult.load(ended[arm]), full):
                idle.add(arm)
                bar.write(
                    f"Arm {arm} left nothing out with seed 1: it trained what full trains. Its other seeds are run "
                    "last; Ctrl-C then spares them.",
                    file=sys.stderr,
                )


def tidy(folder: Path, keep: str) -> None:
    """Remove from the folder of a run that has ended what is not kept."""
    for path in folder.iterdir():
        needed = path.name in (RESULTS, PREDICTIONS) if keep == "results" else not path.name.startswith("checkpoint-")
        if needed or keep == "all":
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def compare(options: argparse.Namespace, arguments: list[str]) -> int:
    """Run, compare and tell; the status to end with."""
    folder, failed = Path(options.output_dir), []
    earlier = Plan.load(folder)
    if options.script is None and (options.arms or arguments):
        raise ValueError("The recipe comes first: compare.py RECIPE --arms ARM ... -- ARG ...")
    if options.script is not None:
        failed = run_arms(options, arguments, earlier, folder)
    elif earlier is None:
        raise ValueError(f"{folder} has no comparison: give the recipe that is to be run.")
    elif options.margin is not None:
        dataclasses.replace(earlier, margin=options.margin).save(folder)
    if failed:
        print(f"Failed: {'; '.join(failed)}. Their last words are above, all in {folder / 'logs'}.", file=sys.stderr)
    if not failed or any(folder.glob(f"{ARMS}/*/*/{RESULTS}")):
        comparison = Comparison.load(folder)
        write(comparison, folder)
        for run in (run_folder(folder, *key) for key in comparison.runs):
            if run.resolve().is_relative_to(folder.resolve()):  # a link may lead to runs of others
                renew_baselines(run)
        print(markdown(comparison.to_dict()))
    return 1 if failed else 0


def run_arms(options: argparse.Namespace, arguments: list[str], earlier: Plan | None, folder: Path) -> list[str]:
    """Plan the arms and run them; names of the runs that failed."""
    check_script([options.script])
    if wrong := [flag for flag in (*OURS, "max_steps") if flag in flag_names(arguments)]:
        raise ValueError(
            f"--{wrong[0]} after --: it can't be the same for every run, or would make all as long; leave it out."
        )
    if options.seeds < 1 or options.jobs < 1:
        raise ValueError(f"--seeds {options.seeds} --jobs {options.jobs}: give 1 or more of each.")
    check_beginning(plan_arms(options.arms, options.budgets, epochs=1), arguments)  # before anything is run
    plan = Plan(options.script, tuple(arguments), {}, options.seeds, options.jobs, options.margin)
    epochs = epochs_of(arguments)
    if epochs is None:  # a run of the full arm knows
        first = dataclasses.replace(plan, arms={"full": Arm(ALL, "full")}, seeds=1)
        if failed := run_plan(first, earlier, folder, options):
            return failed
        said = RunResult.load(run_folder(folder, "full", 1)).results.get("arguments")
        epochs = number(of_kind(said, "arguments", dict).get("num_train_epochs"), "num_train_epochs")
    plan = dataclasses.replace(plan, arms=plan_arms(options.arms, options.budgets, epochs))
    return run_plan(plan, Plan.load(folder), folder, options)


def main(argv: list[str] | None = None) -> int:
    options, arguments, parser = read_arguments(list(sys.argv[1:] if argv is None else argv))
    sys.path.append(os.getcwd())  # a policy of the user's own may lie there
    with interruptible(lambda: f"The runs that have ended are kept; this goes on: {again()}"):
        try:
            return compare(options, arguments)
        except (ValueError, OSError, ImportError) as error:
            stage.flags = ("policy", "history", "history_key")  # of recipes, which policies ask for
            parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
