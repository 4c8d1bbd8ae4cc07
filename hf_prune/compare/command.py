r"""Run a recipe over arms and seeds, and say whether pruning paid.

    hf-prune compare recipes/translate.py --arms infobatch ucb "seta:window=0.6 --num_train_epochs 7" \
        --budgets 0.5 0.7 --seeds 3 --output_dir comparison -- --num_train_epochs 8 --per_device_train_batch_size 32

What follows `--` goes to every run. Beside the arms that you name, there are always

full        every row, `--policy uniform:keep=1`
short-B     every row, in B % of the epochs, the learning rate decayed to its end: simply training for less
uniform-B   B % of each epoch, drawn at random

for each budget B. A policy with a field `keep` runs with every budget. One whose share follows from the losses runs as
it is, and is compared with the short and the uniform arm that read about as much. An arm is a policy,
NAME:FIELD=VALUE,..., and the flags that it alone gets, quoted. `NAME=` before it names it; two arms of one policy need
names.

Every arm gets the seeds 1 to `--seeds`. All arms start a seed with the same weights and the same order of rows. The
same command continues where it was interrupted, inside a run from its last checkpoint; another command with further
arms or budgets adds them to what is there. If an arm pruned nothing with its first seed, you are told, and its other
seeds run last: Ctrl-C skips them. After each run, comparison.md, .html, .json and .png are written anew from the small
files under OUTPUT_DIR that must be kept:

    hf-prune compare --output_dir comparison

makes them again, and the Baselines section in the cards of its runs. `--keep results` packs all runs that have ended
into one small file, runs.parquet, which is enough for that and to continue; it removes their folders.
hf_prune/compare/intervals.py says how intervals are made; with fewer than five seeds they are wide, as they must be.
"""

import argparse
import contextlib
import dataclasses
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

from ..common.command import Parser, again, interruptible, stage
from ..common.foreign import number, of_kind
from ..report.card import renew_baselines
from .launch import LAUNCHERS, Run, check_script, run_all
from .page import markdown, write
from .plan import ALL, OURS, Arm, Plan, check_beginning, epochs_of, flag_names, join, plan_arms
from .result import PREDICTIONS, RESULTS, prunes_nothing
from .store import check_pyarrow, load_runs, pack, run_folder
from .verdict import Comparison

_CURE = "a recipe ends with results.json in its --output_dir, as those of hf_prune do"


def read_arguments(argv: Sequence[str], program: str | None = None) -> tuple[argparse.Namespace, list[str], Parser]:
    """What this command gets, what every run gets, and the parser, to complain with.

    Args:
        argv: The arguments.
        program: What is called, as it is typed; None = the file of this process.
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
    parser.add_argument("--budgets", nargs="+", type=float, default=[0.5], help="shares of the full arm; default 0.5")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each arm; default 3")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, as on one GPU; default 1")
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


def _run_plan(plan: Plan, earlier: Plan | None, folder: Path, options: argparse.Namespace) -> list[str]:
    """Run what has not ended, comparing anew after each run; names of the runs that failed.

    Raises:
        ValueError: The folder can't be made, or what `join` refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--output_dir {folder} can't be made: {error.strerror}. Give another.") from error
    join(plan, earlier, folder).save(folder)
    runs, failed, idle, ended_before = {}, [], set(), plan.ended(folder)
    for arm, seed in plan.runs():
        out = run_folder(folder, arm, seed)
        if (arm, seed) in ended_before:
            if options.keep and out.exists():
                _tidy(out, options.keep)
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
        _tell_idle(plan, folder, idle, bar)
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
                with contextlib.suppress(ValueError):  # told at the end, when no run waits
                    write(Comparison.load(folder), folder)
                _tell_idle(plan, folder, idle, bar)
    return failed


def _tell_idle(plan: Plan, folder: Path, idle: set[str], bar: tqdm) -> None:
    """Name each arm once that pruned nothing with its first seed, and add it to `idle`."""
    if plan.seeds == 1:
        return
    with contextlib.suppress(ValueError):  # a damaged run is told at the end
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
    """Remove from the folder of a run that has ended what is not kept."""
    for path in folder.iterdir():
        needed = path.name in (RESULTS, PREDICTIONS) if keep == "results" else not path.name.startswith("checkpoint-")
        if needed or keep == "all":
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _compare(options: argparse.Namespace, arguments: list[str]) -> int:
    """Run, compare and tell; the status to end with."""
    folder, failed = Path(options.output_dir), []
    if options.keep == "results":
        check_pyarrow()
    earlier = Plan.load(folder)
    if options.script is not None:
        failed = _run_arms(options, arguments, earlier, folder)
    elif earlier is None:
        raise ValueError(f"{folder} has no comparison: give the recipe that is to be run.")
    elif options.margin is not None:
        dataclasses.replace(earlier, margin=options.margin).save(folder)
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
        if failed := _run_plan(first, earlier, folder, options):
            return failed
        said = load_runs(folder, [("full", 1)])["full", 1].results.get("arguments")
        epochs = number(of_kind(said, "arguments", dict).get("num_train_epochs"), "num_train_epochs")
    plan = dataclasses.replace(plan, arms=plan_arms(options.arms, options.budgets, epochs))
    return _run_plan(plan, Plan.load(folder), folder, options)


def main(argv: Sequence[str] | None = None, program: str | None = None) -> int:
    """Run, compare and tell.

    Args:
        argv: The arguments; None = those of this process.
        program: What is called, as it is typed; None = the file of this process.

    Returns:
        The status to end with: 1 where a run failed.

    Raises:
        SystemExit: After `--help`, with status 2 after a message where something can't be compared, and after Ctrl-C.
    """
    options, arguments, parser = read_arguments(sys.argv[1:] if argv is None else argv, program)
    sys.path.append(os.getcwd())  # a policy of the user's own may lie there
    with interruptible(lambda: f"The runs that have ended are kept; this goes on: {again()}"):
        try:
            return _compare(options, arguments)
        except (ValueError, OSError, ImportError) as error:
            stage.flags = ("policy", "history", "history_key")  # of recipes, which policies ask for
            parser.error(str(error))
