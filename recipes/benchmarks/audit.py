"""How many of the rows that an audit lists first are wrong, by run length, beside cleanlab and AUM on the same runs.

    python recipes/benchmarks/audit.py --data data            # runs what is missing, and writes the tables
    python recipes/benchmarks/audit.py trec_symmetric --data data --seeds 1

`--data` is as in regimes.py, which makes most of the rows. The data sets, each with a column `clean` that no run sees:

cifar10n_aggre, cifar10n_worse  5,000 pictures with people's labels, 9 % and 40 % of them wrong
trec_symmetric                  2,000 questions, each with a wrong label with a chance of 30 %, drawn evenly
trec_confused                   the same, with the label that they are most easily taken for
pairs                           8,000 sentence pairs, half of them misaligned, copied or in another language

Runs go from under- to over-trained: the epochs of `AUDITS`. Every row is trained in every epoch. Rankings of one run:

hf_prune  excess loss in its history.parquet, largest first: the order of `hf-prune audit`
cleanlab  its label quality score, by the probabilities that the saved model predicts for its own training rows
AUM       area under the margin (Pleiss et al., 2020): the mean over epochs of the label's logit minus the largest other
          one, lowest first. A run keeps no margins by itself; here each run is asked to.

Pairs have no classes, so neither cleanlab nor AUM. Runs are kept under `--runs` and not made again. Results go to
recipes/results/audit.json, with versions and hardware, and the table to recipes/results/README.md.
"""

import argparse
import json
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from cleanlab.rank import get_label_quality_scores
from datasets import ClassLabel, Dataset, DatasetDict
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from tqdm.auto import tqdm
from transformers import AutoModelForSequenceClassification, AutoTokenizer

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the recipes
import regimes
from comparing import RESULTS, ROWS, write_marked
from label_noise import SHARES, label_quality, precision

from hf_prune.common.markdown import markdown_table
from hf_prune.common.storage import write_text
from hf_prune.compare.result import RESULTS as DONE
from hf_prune.measure import readers
from hf_prune.report.account import surroundings
from hf_prune.report.audit import audit
from hf_prune.report.page import RunReport

SCRIPT = "--script"  # this file runs a recipe that keeps margins


@dataclass(frozen=True)
class Audited:
    """One data set.

    Args:
        make: Makes the splits from the folder of the data sets.
        recipe: Name of the recipe.
        arguments: Arguments of every run, beside its files and its epochs.
        epochs: Lengths of the runs, in epochs.
    """

    make: Callable[[Path], DatasetDict]
    recipe: str
    arguments: str
    epochs: tuple[int, ...]


def confused(rows: Dataset, share: float) -> Dataset:
    """Rows of which a share has the label that its text is most easily taken for; `true_label` and `clean` tell.

    A linear model of the other rows' words says what a text is taken for.
    """
    rng, true, kind = np.random.default_rng(regimes.SEED), np.array(rows["label"]), rows.features["label"]
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression(max_iter=1000))
    chances = cross_val_predict(model, list(rows["text"]), true, cv=5, method="predict_proba")
    classes = np.unique(true)
    chances[np.arange(len(true)), np.searchsorted(classes, true)] = -1
    wrong = rng.random(len(true)) < share
    given = np.where(wrong, classes[chances.argmax(1)], true)
    kind = kind if isinstance(kind, ClassLabel) else None
    rows = rows.rename_column("label", "true_label")
    return rows.add_column("label", given, feature=kind).add_column("clean", given == true)


def confused_trec(data: Path) -> DatasetDict:
    """2,000 questions of TREC, 30 % of them with the label that they are most easily taken for."""
    splits = regimes.parts(regimes.trec(data), 2000, 200)
    return DatasetDict(splits, train=confused(splits["train"], 0.3))


def some_pairs(data: Path) -> DatasetDict:
    """8,000 of the pairs of `regimes.noisy_pairs`."""
    splits = regimes.noisy_pairs(data)
    return DatasetDict(splits, train=splits["train"].select(range(8000)))


PAIRS = f"{regimes.EN_DE} --num_beams 1"
AUDITS = {
    "cifar10n_aggre": Audited(
        partial(regimes.cifar10n, column="aggre_label"),
        "image_classification",
        f"{regimes.CIFAR10} --learning_rate 4e-3",
        (2, 6, 20, 60),
    ),
    "cifar10n_worse": Audited(
        partial(regimes.cifar10n, column="worse_label"),
        "image_classification",
        f"{regimes.CIFAR10} --learning_rate 4e-3",
        (2, 6, 20, 60),
    ),
    "trec_symmetric": Audited(regimes.noisy_trec, "text_classification", regimes.TREC, (2, 4, 10)),
    "trec_confused": Audited(confused_trec, "text_classification", regimes.TREC, (2, 4, 10)),
    "pairs": Audited(some_pairs, "translate", PAIRS, (2, 5, 10)),
}


def command_of(name: str, epochs: int, seed: int, folder: Path) -> list[str]:
    """The command of a run."""
    one = AUDITS[name]
    splits = ("train", "validation", "test")
    files = [part for split in splits for part in (f"--{split}_file", f"{_rows(name) / split}.parquet")]
    every = "--policy uniform --keep 1 --save_strategy no --eval_strategy no --load_best_model_at_end False"
    command = [sys.executable, __file__, SCRIPT, f"recipes/{one.recipe}.py", *files, *shlex.split(one.arguments)]
    command += [*shlex.split(every), "--report_to", "none", "--disable_tqdm", "True"]
    return [*command, "--num_train_epochs", str(epochs), "--seed", str(seed), "--output_dir", str(folder)]


def _rows(name: str) -> Path:
    return ROWS / f"audit-{name}"


def make_rows(name: str, data: Path) -> None:
    """Write the splits to the folder of the rows, if it is missing."""
    if not _rows(name).exists():
        for split, rows in AUDITS[name].make(data).items():
            rows.to_parquet(_rows(name) / f"{split}.parquet")
    if "minilm-3" in AUDITS[name].arguments:
        regimes.three_layers(data)


@torch.no_grad()
def text_quality(run: Path, rows: Dataset, given: np.ndarray) -> np.ndarray:
    """(N,) float, cleanlab's score of each label by the saved model's probabilities; low = likely wrong."""
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(run), AutoTokenizer.from_pretrained(run)
    model.eval()
    found = []
    for batch in tqdm(rows.iter(256), "Predict", total=-(-len(rows) // 256)):
        inputs = tokenizer(list(batch["text"]), truncation=True, max_length=128, padding=True, return_tensors="pt")
        found.append(model(**inputs).logits.softmax(-1).numpy())
    labels = np.array([model.config.label2id[name] for name in given])
    return get_label_quality_scores(labels, np.concatenate(found))


def area_under_margin(report: RunReport) -> np.ndarray | None:
    """(N,) float, the mean margin of each row over the rounds; None if a round kept none."""
    margins = [round.extras().get("margin") for round in report.dynamics.rounds]
    return None if any(one is None for one in margins) else np.nanmean(margins, axis=0)


def measure(run: Path, name: str) -> dict:
    """What the rankings of a run find."""
    report = RunReport.of_folder(run)
    table = report.table()
    rows = Dataset.from_parquet(str(_rows(name) / "train.parquet")).select(table["file_row"].to_numpy())
    wrong = ~np.array(rows["clean"])
    scores = {"hf_prune": np.nan_to_num(table["excess_loss"].to_numpy(), nan=-np.inf)}
    if "label" in table.column_names:
        given = np.array(table["label"].to_pylist())
        quality = label_quality if "image" in rows.column_names else text_quality
        scores["cleanlab"] = -quality(run, rows, given)
        if (margin := area_under_margin(report)) is not None:
            scores["AUM"] = -margin
    listed = audit(report)
    return {
        "wrong": float(wrong.mean()),
        "judgement": report.judgement.state,
        "estimate": report.facts.get("upper"),
        "listed": {"rows": len(listed.rows), "wrong": float(wrong[listed.rows].mean()) if len(listed.rows) else None},
        "precision": {
            f"{share:.0%}": {by: precision(score, wrong, share) for by, score in scores.items()} for share in SHARES
        },
    }


def table(found: dict) -> str:
    """The precision of the rankings in Markdown, a line for each data set and run length; means over the seeds."""
    headings = ["data", "epochs", "judged", "listed"]
    headings += [f"{share}, {by}" for share in ("1 %", "5 %", "10 %") for by in ("hf_prune", "cleanlab", "AUM")]
    lines = []
    for name, lengths in found.items():
        for epochs, runs in lengths.items():
            states = sorted({run["judgement"] for run in runs})
            listed = [run["listed"]["wrong"] for run in runs if run["listed"]["rows"]]
            count = sum(run["listed"]["rows"] for run in runs) / len(runs)
            line = [f"{name} ({100 * runs[0]['wrong']:.0f} % wrong)", epochs, ", ".join(states)]
            line.append(f"{100 * np.mean(listed):.1f} % of {count:,.0f}" if listed else "none")
            for share in runs[0]["precision"]:
                for by in ("hf_prune", "cleanlab", "AUM"):
                    values = [run["precision"][share][by] for run in runs if by in run["precision"][share]]
                    line.append(f"{100 * np.mean(values):.1f} %" if values else "")
            lines.append(line)
    return markdown_table(headings, lines)


def run_script(script: str) -> None:
    """Run a recipe that also keeps the margin of each row, round by round."""
    readers._ChoiceRecipe.extras += ("margin",)
    sys.argv = sys.argv[2:]
    sys.path.insert(0, str(Path(script).resolve().parent))
    runpy.run_path(script, run_name="__main__")


def main() -> None:
    if sys.argv[1:2] == [SCRIPT]:
        return run_script(sys.argv[2])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(AUDITS)} (default: all)")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the data sets")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs", "audit"), help="folder of the runs")
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(AUDITS)):
        parser.error(f"{unknown[0]} is no data set of these: {', '.join(AUDITS)}")
    path = RESULTS / "audit.json"
    found = json.loads(path.read_text(encoding="utf-8"))["found"] if path.is_file() else {}
    for name in given.names or AUDITS:
        make_rows(name, given.data)
        found[name] = {}
        for epochs in AUDITS[name].epochs:
            folders = [given.runs / name / f"{epochs}-{seed}" for seed in range(1, given.seeds + 1)]
            for seed, folder in enumerate(folders, 1):
                if not (folder / DONE).is_file():
                    subprocess.run(command_of(name, epochs, seed, folder), check=True)
            found[name][str(epochs)] = [measure(folder, name) for folder in folders]
        write_text(path, json.dumps({"found": found} | surroundings(__file__), indent=2) + "\n")
        write_marked(RESULTS / "README.md", "audit", table(found))
    print(table(found))


if __name__ == "__main__":
    main()
