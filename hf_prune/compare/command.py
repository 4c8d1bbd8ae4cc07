r"""Run a recipe over arms and seeds, and say whether pruning paid.

    hf-prune compare recipes/translate.py --arms infobatch ucb "seta:window=0.6 --num_train_epochs 7" \
        --budgets 0.5 0.7 --seeds 3 --output_dir comparison -- --num_train_epochs 8 --per_device_train_batch_size 32

Everything after `--` goes to every run. These arms are always added to those that you name:

full        every row, `--policy uniform:keep=1`
short-B     every row, in B % of the epochs, the learning rate decayed to its end: fewer epochs
uniform-B   B % of each epoch, drawn at random

for each budget B, and for `--baselines` what you may try first: `early_stopping` (all rows, until three validations in
a row are no better) and `class_weighted` (a loss in which each class counts as much, also with each budget; recipes for
classes have it). A policy with a field `keep` runs with every budget. A policy whose share depends on the losses runs
as it is, and is compared with the short and the uniform arm that read about as much. An arm is a policy,
NAME:FIELD=VALUE,..., followed by flags for this arm alone, all in quotes. `NAME=` in front names the arm; two arms of
one policy need names. `--budgets auto` adds the missing baselines: where an arm read with its first seed what no short
arm reads, a short and a uniform arm with its share. An arm whose name begins with `oracle`, such as
"oracle=POLICY:FIELD=...", chooses by what no rule can know: it shows whether there is headroom, and never wins.

The first line below the heading is the verdict. After two seeds, it says how many seeds would tell the margin from
noise, and how long they take; a table says so for each arm. Two seeds give a rough number. With `--seeds 8
--stop_decided`, 8 is the largest number: an arm gets no more seeds when it is decided against the arm with fewer
epochs, that is, better, worse, the same within the margin, or out of reach of 8 seeds. To look after each seed finds
differences by chance, so these looks use intervals of 99.9 % in place of 95 %, from three seeds on. Baselines that no
undecided arm needs are stopped too. Without the flag, a later command gives stopped arms their other seeds.

Every arm gets the seeds 1 to `--seeds`. With one seed, all arms start from the same weights and the same order of rows.
The same command continues where it was interrupted, inside a run from its last checkpoint. A command with further arms
or budgets adds them to the folder. If an arm pruned nothing with its first seed, you are told, and its other seeds run
last: Ctrl-C skips them. After each run, comparison.md, .html, .json and .png are written again from the small files
under OUTPUT_DIR, which must be kept. This command writes them again later, and the Baselines section in the model cards
of the runs:

    hf-prune compare --output_dir comparison

`--keep results` packs all runs that have ended into one small file, runs.parquet, and removes their folders. That file
is enough to write the comparison again and to continue it. hf_prune/compare/intervals.py says how intervals are made.
With fewer than five seeds they are wide, as they must be.
"""

import argparse
import contextlib
import dataclasses
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..common.command import Parser, again, interruptible, stage
from ..common.foreign import number, of_kind
from ..report.card import renew_baselines
from .enough import RULES, stopped
from .launch import LAUNCHERS, Run, check_script, cores, has_accelerator, run_all
from .measured import CLOSE
from .page import markdown, write
from .plan import ALL, BASELINES, OURS, Arm, Plan, baselines_of, check_beginning, epochs_of, flag_names, join, plan_arms
from .result import PREDICTIONS, RESULTS, prunes_nothing
from .store import check_pyarrow, load_runs, pack, run_folder
from .verdict import Comparison

AUTO = "auto"
_CURE = "a recipe ends with results.json in its --output_dir, as those of hf_prune do"


def read_arguments(argv: Sequence[str], program: str | None = None) -> tuple[argparse.Namespace, list[str], Parser]:
    """Split the arguments into those of this command and those of every run; also return the parser, for errors.

    Args:
        argv: The arguments.
        program: Name of the command, as it is typed; None = the file of this process.
    """
    argv = list(argv)
    cut = argv.index("--") if "--" in argv else len(argv)  # argparse's own reading of -- differs between versions
    summary, _, more = (__doc__ or "").partition("\n")
    parser = Parser(
        prog=program,
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
    budgets = "shares of the full arm, and auto: those that arms turn out to read; default 0.5"
    parser.add_argument("--budgets", nargs="+", type=_budget, default=[0.5], metavar="SHARE", help=budgets)
    parser.add_argument("--baselines", nargs="+", choices=BASELINES, default=[], help="further baselines; default none")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each arm; default 3")
    parser.add_argument("--stop_decided", action="store_true", help="no more seeds for arms that are decided")
    jobs = (
        "runs at once, or auto: one on each CPU core, and one alone where there is a GPU. Without a GPU, runs at once "
    )
    jobs += "share the cores as their threads, unless OMP_NUM_THREADS is set; default 1, as seconds then compare"
    parser.add_argument("--jobs", type=_jobs, default=1, metavar="N", help=jobs)
    parser.add_argument("--margin", type=float, help="largest difference that counts as equal, in the table's unit")
    parser.add_argument("--launcher", choices=LAUNCHERS, default="python", help="starts the recipe; default python")
    keep = "of ended runs, earlier ones too: all, all but checkpoints (models), or runs.parquet alone, one small file "
    keep += "of all runs (results); default: models, and earlier runs stay as they are"
    parser.add_argument("--keep", choices=("all", "models", "results"), help=keep)
    parser.add_argument("--output_dir", default="comparison", help="default comparison")
    options, arguments = parser.parse_args(argv[:cut]), argv[cut + 1 :]
    if options.script is None and (options.arms or arguments):
        parser.error(f"The recipe comes first: {parser.prog} RECIPE --arms ARM ... -- ARG ...")
    return options, arguments, parser


def _budget(text: str) -> float | str:
    return text if text == AUTO else _number(text, float)


def _jobs(text: str) -> int:
    if text != AUTO:
        return _number(text, int)
    return 1 if has_accelerator() else cores()


def _number(text: str, kind: type) -> Any:
    try:
        return kind(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor {AUTO}") from error


def _checked(plan: Plan) -> Plan:
    """The plan.

    Raises:
        ValueError: A number of the command line is out of bounds.
    """
    try:
        plan.check()
    except ValueError as error:
        raise ValueError(f"--{error}; give another.") from error
    return plan


def _run_plan(
    plan: Plan, earlier: Plan | None, folder: Path, options: argparse.Namespace, tried: Sequence[str] = ()
) -> list[str]:
    """Run what has not ended and compare again after each run; return the names of the runs that failed.

    Those of `tried` have failed already, and are not tried again.

    Raises:
        ValueError: The folder can't be made, or `join` refuses the plan.
    """
    joined = _checked(join(plan, earlier, folder))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--output_dir {folder} can't be made: {error.strerror}. Give another.") from error
    joined.save(folder)
    runs, failed, idle, decided, ended_before = {}, [*tried], set(), set(), plan.ended(folder)
    for arm, seed in plan.runs():
        out, words = run_folder(folder, arm, seed), f"{arm}, seed {seed}"
        if words in tried:
            continue
        if (arm, seed) in ended_before:
            if options.keep and out.exists():
                _tidy(out, options.keep)
            continue
        own = (*plan.arguments, *plan.arms[arm].flags, "--seed", str(seed), "--output_dir", str(out))
        command = (*LAUNCHERS[options.launcher], plan.script, *own)
        runs[Run(command, folder / "logs" / arm / f"seed-{seed}.log", out / RESULTS)] = words
    total = len(plan.runs())
    arm_of = {run: words.rpartition(", seed ")[0] for run, words in runs.items()}
    with (
        tqdm(total=total, initial=total - len(runs), desc="Comparing", unit="run") as bar,
        contextlib.closing(
            run_all(runs, options.jobs, lambda run: arm_of[run] in idle, lambda run: arm_of[run] not in decided)
        ) as ended,
    ):
        _tell_idle(plan, folder, idle, bar)
        if options.stop_decided and ended_before:
            _look(plan, folder, options, decided, bar)
        for run, status in ended:
            if status is None:
                bar.write(f"{runs[run]} is still running, from an earlier command; waiting for it.", file=sys.stderr)
                continue
            if failure := run.failure(status, _CURE):
                failed.append(runs[run])
                bar.write(f"{failure}\n{runs[run]} failed; the others continue.", file=sys.stderr)
            bar.update()
            if run.result.exists():
                _tidy(run.result.parent, options.keep or "models")
                _look(plan, folder, options, decided, bar)
                _tell_idle(plan, folder, idle, bar)
        bar.total = bar.n if decided else total
        bar.refresh()
    return failed


def _look(plan: Plan, folder: Path, options: argparse.Namespace, decided: set[str], bar: tqdm) -> None:
    """Compare what has ended; with --stop_decided, name each arm that needs no more seeds, and add it to `decided`."""
    with contextlib.suppress(ValueError):  # a damaged run is reported at the end, when no run waits
        comparison = Comparison.load(folder)
        reasons = stopped(comparison, plan) if options.stop_decided else {}
        for arm, reason in reasons.items():
            comparison.plan.arms[arm] = dataclasses.replace(comparison.plan.arms[arm], stopped=reason)
            if arm not in decided:
                bar.write(f"Arm {arm} gets no more seeds: {reason}.", file=sys.stderr)
        decided.update(reasons)
        comparison.plan.save(folder)
        write(comparison, folder)


def _tell_idle(plan: Plan, folder: Path, idle: set[str], bar: tqdm) -> None:
    """Name each arm that pruned nothing with its first seed, once, and add it to `idle`."""
    if plan.seeds == 1:
        return
    with contextlib.suppress(ValueError):  # a damaged run is reported at the end
        firsts = load_runs(folder, [(arm, 1) for arm in plan.arms if arm not in idle])
        full = firsts.get(("full", 1))
        for (arm, _), run in firsts.items():
            if full and plan.arms[arm].kind == "policy" and prunes_nothing(run, full):
                idle.add(arm)
                bar.write(
                    f"Arm {arm} pruned nothing with seed 1: it trained as much as full. Its other seeds run last; "
                    "press Ctrl-C then to skip them.",
                    file=sys.stderr,
                )


def _tidy(folder: Path, keep: str) -> None:
    """Remove what is not kept from the folder of a run that has ended."""
    for path in folder.iterdir():
        needed = path.name in (RESULTS, PREDICTIONS) if keep == "results" else not path.name.startswith("checkpoint-")
        if needed or keep == "all":
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _compare(options: argparse.Namespace, arguments: list[str]) -> int:
    """Run, compare and report; return the exit status."""
    folder, failed = Path(options.output_dir), []
    if options.keep == "results":
        check_pyarrow()
    earlier = Plan.load(folder)
    if options.script is not None:
        failed = _run_arms(options, arguments, earlier, folder)
    elif earlier is None:
        raise ValueError(f"{folder} has no comparison: give the recipe that is to be run.")
    elif options.margin is not None:
        _checked(dataclasses.replace(earlier, margin=options.margin)).save(folder)
    if failed:
        told = f"Failed: {'; '.join(failed)}. Their last words are above, all in {folder / 'logs'}."
        sys.stderr.write(f"{told}\n")
        plan = Plan.load(folder)
        if plan is None or not plan.ended(folder):
            return 1
    comparison = Comparison.load(folder)
    write(comparison, folder)
    for run in (run_folder(folder, *key) for key in comparison.runs):
        if run.resolve().is_relative_to(folder.resolve()):  # a link may lead to runs of others
            renew_baselines(run)
    if options.keep == "results":
        pack(folder, comparison.plan.runs())
    sys.stdout.write(f"{markdown(comparison.to_dict())}\n")
    return 1 if failed else 0


def _run_arms(options: argparse.Namespace, arguments: list[str], earlier: Plan | None, folder: Path) -> list[str]:
    """Plan the arms and run them; return the names of the runs that failed."""
    check_script([options.script])
    if wrong := [flag for flag in (*OURS, "max_steps") if flag in flag_names(arguments)]:
        raise ValueError(
            f"--{wrong[0]} after --: it can't be the same for every run, or would make all as long; leave it out."
        )
    if options.seeds < 1 or options.jobs < 1:
        raise ValueError(f"--seeds {options.seeds} --jobs {options.jobs}: give 1 or more of each.")
    budgets = [budget for budget in options.budgets if budget != AUTO]
    plan = Plan(options.script, tuple(arguments), {}, options.seeds, options.jobs, options.margin)
    planned = plan_arms(options.arms, budgets, 1, options.baselines)
    check_beginning(planned, arguments)  # before anything runs
    _checked(dataclasses.replace(plan, arms=planned))
    epochs = epochs_of(arguments)
    if epochs is None:  # a run of the full arm shows how many
        first = dataclasses.replace(plan, arms={"full": Arm(ALL, "full")}, seeds=1)
        if failed := _run_plan(first, earlier, folder, options):
            return failed
        said = load_runs(folder, [("full", 1)])["full", 1].results.get("arguments")
        epochs = number(of_kind(said, "arguments", dict).get("num_train_epochs"), "num_train_epochs")
    plan = dataclasses.replace(plan, arms=plan_arms(options.arms, budgets, epochs, options.baselines))
    tried: list[str] = []
    if AUTO in options.budgets:
        tried = _run_plan(dataclasses.replace(plan, seeds=1), Plan.load(folder), folder, options)
        for budget in _budgets_read(plan, folder):
            plan.arms.update(baselines_of(budget, epochs))
    return _run_plan(plan, Plan.load(folder), folder, options, tried)


def _budgets_read(plan: Plan, folder: Path) -> list[float]:
    """The shares of full that rules read with their first seed, where no short arm reads as much within a tenth."""
    runs, found = load_runs(folder, [(arm, 1) for arm in plan.arms]), []
    budgets = [arm.budget for arm in plan.arms.values() if arm.kind == "short" and arm.budget]
    for (name, _), run in runs.items():
        if plan.arms[name].kind in RULES and ("full", 1) in runs:
            share = run.cost()["all"] / runs["full", 1].cost()["all"]
            if share < 1 - CLOSE and all(abs(1 - share / budget) > CLOSE for budget in (*budgets, *found)):
                found.append(max(0.01, round(share, 2)))
    return found


def main(argv: Sequence[str] | None = None, program: str | None = None) -> int:
    """Run, compare and report.

    Args:
        argv: The arguments; None = those of this process.
        program: Name of the command, as it is typed; None = the file of this process.

    Returns:
        The exit status: 1 if a run failed.

    Raises:
        SystemExit: After `--help`, with status 2 after a message where something can't be compared, and after Ctrl-C.
    """
    options, arguments, parser = read_arguments(sys.argv[1:] if argv is None else argv, program)
    sys.path.append(os.getcwd())  # a policy of the user's own may lie there
    with interruptible(lambda: f"The runs that have ended are kept; this goes on: {again()}"):
        try:
            return _compare(options, arguments)
        except (ValueError, OSError, ImportError) as error:
            stage.flags = ("policy", "history", "history_key")  # flags of recipes that policies ask for
            parser.error(str(error))
