"""The `hf-prune` command: policies and their cards, comparisons, scores, tables, reports, advice, the environment.

Each part imports its modules when it runs, so `--help` does not wait for torch.
"""

import argparse
import dataclasses
import os
import platform
import re
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from . import policies
from .common.command import Parser, again, interruptible
from .common.storage import write_text
from .compare.launch import FailedRun
from .core import DATA_NEEDS, History, Policy

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but the tab and the end of a line


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `hf-prune` command; `hf-prune --help` says what it does.

    Args:
        argv: The arguments; None = those of this process.

    Returns:
        The exit status: 1 if a run of a script failed.

    Raises:
        SystemExit: After `--help` and `--version`, with status 2 after a message on a mistake, and after Ctrl-C.
    """
    argv, script = list(sys.argv[1:] if argv is None else argv), []
    if argv[:1] == ["compare"]:  # it parses its own flags and the recipe's
        from .compare.command import main as compare

        return compare(argv[1:], "hf-prune compare")
    if argv[:1] == ["score"] and "--" in argv:  # argparse's own reading of -- differs between Python's versions
        cut = argv.index("--")
        argv, script = argv[:cut], argv[cut + 1 :]
    parser = _parser()
    chosen = parser.parse_args(argv)
    with interruptible(_how_to_go_on):
        return _run(chosen, script, parser)


def _parser() -> Parser:
    description = "Look up policies, compare them, score rows for those that choose once, and report on runs."
    parser = Parser(prog="hf-prune", description=description)
    parser.add_argument("--version", action="version", version=f"hf_prune {_installed('hf_prune')}")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("policies", help="list the policies, or print the card of one")
    shown = listing.add_mutually_exclusive_group()
    shown.add_argument("name", nargs="?", help="a policy's name, or the dotted path of a module of yours")
    shown.add_argument("--markdown", action="store_true", help="print the cards of all as a page in Markdown")
    commands.add_parser("compare", help="run a recipe over policies and seeds, and say whether pruning paid")
    _add_score(commands)
    tables = commands.add_parser("table", help="print runs of the recipes, or comparisons, as a Markdown table")
    tables.add_argument("results", nargs="+", help="folders of runs or of comparisons, or their JSON files")
    tables.add_argument("--best", action="store_true", help="show comparisons with their best rule alone")
    report = commands.add_parser("report", help="write the report of a run, ended or not, as a page and PNG files")
    report.add_argument("run", help="folder of the run; _report.html and the folder _report are written into it")
    _add_advise(commands)
    _add_audit(commands)
    commands.add_parser("env", help="print versions, machine and devices, for the report of an issue")
    return parser


def _how_to_go_on() -> str:
    return f"What has ended is kept; this goes on: {again()}"


def _run(chosen: argparse.Namespace, script: Sequence[str], parser: argparse.ArgumentParser) -> int:
    try:
        if chosen.command == "table":
            text = _tabulate(chosen.results, chosen.best)
        elif chosen.command == "report":
            text = _write_report(chosen.run)
        elif chosen.command == "advise":
            text = _advise(chosen)
        elif chosen.command == "audit":
            text = _audit(chosen)
        elif chosen.command == "env":
            text = _environment()
        elif chosen.command == "score":
            text = _score(chosen, script)
        elif chosen.markdown:
            text = policies.markdown()
        else:
            text = _list_policies() if chosen.name is None else _describe_policy(chosen.name)
    except FailedRun as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    if text:  # only the main process of several has one
        sys.stdout.write(_shown_as(text, sys.stdout.encoding) + "\n")
    return 0


def _shown_as(text: str, encoding: str | None) -> str:
    """A text from files that anybody may have written: without commands of terminals, in letters that can be shown."""
    encoding = encoding or "utf-8"
    return _CONTROL.sub("?", text).encode(encoding, "backslashreplace").decode(encoding)


def _add_score(commands: Any) -> None:
    score = commands.add_parser(
        "score",
        help="score a training script's rows: by runs of a policy that chooses once, or by a model's forward passes",
        usage="%(prog)s --policy NAME [--FLAG VALUE ...] -- SCRIPT [ARG ...]\n"
        "       %(prog)s --model PATH [--base PATH] [--data FILE] [--output_dir FOLDER] -- [SCRIPT] [ARG ...]",
        description="With --policy, it runs SCRIPT ARG... --policy NAME:keep=1 --seed S --output_dir OUTPUT_DIR/seed-S "
        "once for each seed. With --model, it runs SCRIPT ARG... --model_name_or_path PATH up to its training, and "
        "measures each row's loss by a forward pass; `accelerate launch -m hf_prune.cli score ...` shares the rows out "
        "to several processes. The same command again goes on where it was.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    by = score.add_mutually_exclusive_group(required=True)
    by.add_argument("--policy", help="a policy that chooses once, such as el2n", default=argparse.SUPPRESS)
    by.add_argument("--model", help="the model whose losses to measure, a folder or a name", default=argparse.SUPPRESS)
    score.add_argument("--output_dir", default="scores", help="folder of the runs and of the scores")
    runs = score.add_argument_group("with --policy", argument_default=argparse.SUPPRESS)
    runs.add_argument("--seeds", type=int, help="runs (default: 3); the paper of EL2N and GraNd averages 10")
    runs.add_argument("--num_train_epochs", type=float, help="epochs of each run (default: the script's own)")
    runs.add_argument("--launcher", choices=("python", "accelerate"), help="starts the script (default: python)")
    passes = score.add_argument_group("with --model", argument_default=argparse.SUPPRESS)
    passes.add_argument("--base", help="a second model, whose losses policy trusted compares with")
    passes.add_argument("--data", help="score all rows of this file: short for --train_file and --validation_file")


def _score(chosen: argparse.Namespace, script: Sequence[str]) -> str:
    given = vars(chosen)
    wrong = ("base", "data") if "policy" in given else ("seeds", "num_train_epochs", "launcher")
    if stray := [f"--{name}" for name in wrong if name in given]:
        raise ValueError(f"{stray[0]} belongs to --{'model' if 'policy' in given else 'policy'}; leave it out.")
    if "model" in given:
        return _score_by_model(given, script)
    from .compare.score import make_scores
    from .recipe.arguments import find_policy

    find_policy(chosen.policy.partition(":")[0].strip())
    options = (given.get("seeds", 3), given.get("num_train_epochs"), given.get("launcher", "python"))
    return make_scores(chosen.policy, script, chosen.output_dir, *options)


def _score_by_model(given: dict[str, Any], script: Sequence[str]) -> str:
    from .compare.forward import score_by_model

    if not script or script[0].startswith("--"):
        from .recipe.models import recipe_for

        script = [recipe_for(given["model"]), *script]
    if "data" in given:
        script = [*script, "--train_file", given["data"], "--validation_file", given["data"]]
    return score_by_model(given["model"], script, given["output_dir"], given.get("base"))


def _tabulate(results: Sequence[str], best: bool) -> str:
    from .compare.tables import table

    return table(results, best)


def _write_report(run: str) -> str:
    from .report.page import REPORT
    from .report.unfinished import report_of

    path = Path(run, REPORT)
    report_of(run).html(path)
    return f"{path}, and its figures in {path.with_suffix('')}"


def _add_advise(commands: Any) -> None:
    advise = commands.add_parser("advise", help="say what could be saved or gained in a run, and by which flags")
    advise.add_argument("run", help="folder of the run, or its results.json")
    advise.add_argument("--data", help="file of the training rows, to count classes and equal rows in")
    form = advise.add_mutually_exclusive_group()
    form.add_argument("--json", metavar="FILE", help="write the advice as JSON; - = print it")
    form.add_argument("--markdown", action="store_true", help="print the advice as a Markdown table")


def _advise(chosen: argparse.Namespace) -> str:
    from .report.advice import advise, as_json, as_markdown, as_text

    data = None
    if chosen.data is not None:
        from .recipe.splits import read_file

        data = read_file(chosen.data)
    found = advise(chosen.run, data)
    if chosen.json not in (None, "-"):
        write_text(chosen.json, as_json(found))
        return chosen.json
    if chosen.json == "-":
        return as_json(found).rstrip()
    return as_markdown(found) if chosen.markdown else as_text(found)


def _add_audit(commands: Any) -> None:
    audit = commands.add_parser("audit", help="list the rows of a run that are likely mislabelled, and leave them out")
    audit.add_argument("run", help="folder of a run with a policy, ended or not")
    audit.add_argument(
        "--only",
        choices=("mislabelled", "duplicates", "unlearnt", "rare", "short"),
        default="mislabelled",
        help="rows that are likely mislabelled (the default), near-duplicates, never learnt, of rare classes, or short",
    )
    audit.add_argument("--top", type=int, metavar="N", help="the first N rows alone (printed: 20; written: all)")
    for form in ("csv", "parquet", "json"):
        audit.add_argument(
            f"--{form}", metavar="FILE", help=f"write these rows and all that is known of them as {form}"
        )
    audit.add_argument(
        "--drop",
        metavar="FILE",
        help="write the list (.csv, .json, .parquet) for a next run: --policy listed --file FILE --drop True",
    )
    audit.add_argument("--before", metavar="RUN", help="folder of the run before, to say what a list has changed")


def _audit(chosen: argparse.Namespace) -> str:
    from .report.audit import FIRST, audit, changes
    from .report.unfinished import report_of

    if chosen.top is not None and chosen.top < 1:
        raise ValueError(f"--top must be 1 or more, got {chosen.top}.")
    report = report_of(chosen.run)
    found = audit(report, chosen.only)
    is_written = any((chosen.csv, chosen.parquet, chosen.json, chosen.drop))
    said = [found.text(FIRST if chosen.top is None or is_written else chosen.top)]
    if chosen.before is not None:
        said.insert(0, changes(report_of(chosen.before), report) + "\n")
    elif report.left_out_by_list is not None:
        said.insert(0, report.left_out_by_list + "\n")
    first = found.first(chosen.top)
    for form in ("csv", "parquet", "json"):
        if (path := getattr(chosen, form)) is not None:
            first.write(path, form)
            said.append(f"{path}: {len(first.rows):,} rows")
    if chosen.drop is not None:
        first.write_drop(chosen.drop)
        flags = f"--policy listed --file {shlex.quote(chosen.drop)} --drop True"
        more = f", and the {len(first.out):,} that this run left out," if len(first.out) else ""
        said.append(f"{chosen.drop}: {len(first.rows):,} rows{more} to leave out, by {flags}")
    return "\n".join(said)


def _environment() -> str:
    """What this library runs on; nothing private."""
    import torch

    packages = "hf_prune transformers torch accelerate datasets trl peft numpy safetensors tokenizers huggingface_hub"
    found = {package: _installed(package) for package in [*packages.split(), "sentence-transformers", "deepspeed"]}
    found |= {"python": platform.python_version(), "platform": platform.platform(), "cpus": str(os.cpu_count())}
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    devices = gpus or [str(torch.accelerator.current_accelerator())] * torch.accelerator.is_available()
    found |= {"CUDA of torch": torch.version.cuda or "none", "devices": ", ".join(devices) or "none but the CPU"}
    return "\n".join(f"- {name}: {what}" for name, what in found.items())


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _list_policies() -> str:
    lines = []
    for name, card in policies.cards().items():
        lines += [name, f"    {card.title}", f"    needs: {', '.join(_needs(policies.find(name)())) or 'nothing'}"]
    return "\n".join(lines)


def _needs(policy: Policy) -> list[str]:
    """What a policy needs, in words."""
    needs = sorted(policy.needs)
    if not policy.needs & DATA_NEEDS:  # otherwise it needs a data set to begin
        try:
            policy.begin(History.empty(1), None)
        except ValueError:
            needs.append("an earlier run's history")
    return needs


def _describe_policy(name: str) -> str:
    from .recipe.arguments import field_texts, find_policy

    cls = find_policy(name)
    texts = field_texts(cls)
    fields = [(f"--{field.name}{_shown(field)}", texts.get(field.name, "")) for field in dataclasses.fields(cls)]
    width = max((len(flag) for flag, _ in fields), default=0)
    lines = [policies.card_of(cls).text]
    if fields:
        lines += ["", "Flags and their defaults"]
    return "\n".join([*lines, *(f"  {flag:{width}}  {text}" for flag, text in fields)])


def _shown(field: dataclasses.Field[Any]) -> str:
    return "" if field.default is dataclasses.MISSING else f" {field.default}"


if __name__ == "__main__":
    sys.exit(main())
