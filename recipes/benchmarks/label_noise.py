"""How many of the rows that a run calls likely mislabelled are: its ranking beside cleanlab's, against clean labels.

    python recipes/image_classification.py --train_file TRAIN --label_file NOISY --label_column worse_label \
        --validation_file TEST --output_dir RUN
    python recipes/benchmarks/label_noise.py RUN ... --output label_noise.json

A run's own ranking is `excess_loss` in its `history.parquet`, the largest first. cleanlab's is the lowest label
quality score (`cleanlab.rank.get_label_quality_scores`) of the probabilities that the run's saved model predicts for
its own training rows: in-sample, as no second run is made for either. Needs cleanlab (pip install cleanlab).
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas
import torch
from cleanlab.rank import get_label_quality_scores
from datasets import Dataset, Image
from tqdm.auto import tqdm
from transformers import AutoImageProcessor, AutoModelForImageClassification

from hf_prune.common.markdown import markdown_table
from hf_prune.common.storage import write_text
from hf_prune.compare.result import RESULTS
from hf_prune.data.pixels import eight_bits
from hf_prune.recipe.columns import find_column
from hf_prune.recipe.labels import label_texts
from hf_prune.recipe.splits import read_file
from hf_prune.records.table import FILE_ROW, ROWS
from hf_prune.report.account import surroundings

SHARES = (0.01, 0.05, 0.1)  # of the training rows


def read_labels(
    arguments: dict, file_rows: np.ndarray, clean_file: str | None, clean_column: str
) -> tuple[Dataset, np.ndarray, np.ndarray]:
    """The pictures of a run, (N,) str, the labels that it had, and (N,) bool, which of these are wrong.

    Args:
        arguments: Of the run.
        file_rows: (N,) int, which rows of the file it trained on.
        clean_file: File of the true labels; None = that of the run's.
        clean_column: Its column.

    Raises:
        ValueError: The run was not on rows of a file, or a column is missing.
    """
    train, labels, column = arguments["train_file"], arguments["label_file"], arguments["label_column"]
    if train is None:
        raise ValueError("The run must have --train_file: no other one's rows can be told.")
    rows, noisy = read_file(train), read_file(labels or train)
    given = label_texts(noisy, find_column(noisy, "label_column", column, labels or train), labels or train)
    clean, name = read_file(clean_file or labels or train), clean_file or labels or train
    true = label_texts(clean, find_column(clean, "clean_column", clean_column, name), name)
    given, true = np.array(given)[file_rows], np.array(true)[file_rows]
    pictures = rows.select_columns(arguments["image_column"]).rename_columns({arguments["image_column"]: "image"})
    return pictures.cast_column("image", Image()).select(file_rows), given, given != true


@torch.no_grad()
def label_quality(run: Path, rows: Dataset, given: np.ndarray) -> np.ndarray:
    """(N,) float, cleanlab's score of each label by the saved model's probabilities; low = likely wrong."""
    model, processor = AutoModelForImageClassification.from_pretrained(run), AutoImageProcessor.from_pretrained(run)
    model.eval()
    found = []
    for batch in tqdm(rows.iter(256), "Predict", total=-(-len(rows) // 256)):
        pixels = processor([eight_bits(picture).convert("RGB") for picture in batch["image"]], return_tensors="pt")
        found.append(model(**pixels).logits.softmax(-1).numpy())
    labels = np.array([model.config.label2id[name] for name in given])
    return get_label_quality_scores(labels, np.concatenate(found))


def precision(score: np.ndarray, wrong: np.ndarray, share: float) -> float:
    """Share of wrong labels among the `share` of rows of highest score (N,)."""
    first = np.argsort(-score, kind="stable")[: round(share * len(score))]
    return float(wrong[first].mean())


def measure(run: Path, moved: dict[str, str], clean_file: str | None, clean_column: str) -> dict:
    """What a run's rankings find; `moved` says where its files are now, by the flags that named them."""
    results = json.loads((run / RESULTS).read_text(encoding="utf-8"))
    table = pandas.read_parquet(run / ROWS)
    file_rows, excess = table[FILE_ROW].to_numpy(), table["excess_loss"].fillna(-np.inf).to_numpy()
    rows, given, wrong = read_labels(results["arguments"] | moved, file_rows, clean_file, clean_column)
    scores = {"hf_prune": excess, "cleanlab": -label_quality(run, rows, given)}
    lists = {name: table[name].to_numpy() for name in ("never_learnt", "learnt_at_once")}
    return {
        "rows": len(rows),
        "wrong": float(wrong.mean()),
        "precision": {
            f"{share:.0%}": {name: precision(score, wrong, share) for name, score in scores.items()} for share in SHARES
        },
        **{
            name: {"rows": int(found.sum()), "wrong": float(wrong[found].sum() / max(found.sum(), 1))}
            for name, found in lists.items()
        },
        "run": {name: results[name] for name in ("policy", "quality", "parameters", "hardware", "versions")},
    }


def table(found: dict) -> str:
    """The precision of both rankings in Markdown: the mean over the runs, and the smallest and largest."""

    def cell(values):
        low, mean, high = (f"{100 * value:.1f}" for value in (min(values), sum(values) / len(values), max(values)))
        return f"{mean} % ({low}-{high})" if len(values) > 1 else f"{mean} %"

    runs = found["runs"]
    lines = [
        [f"first {share.replace('%', ' %')}"]
        + [cell([run["precision"][share][name] for run in runs]) for name in ("hf_prune", "cleanlab")]
        for share in runs[0]["precision"]
    ]
    for name in ("never_learnt", "learnt_at_once"):
        rows = [run[name]["rows"] for run in runs]
        lines.append([f"`{name}` ({sum(rows) / len(rows):,.0f} rows)", cell([run[name]["wrong"] for run in runs]), ""])
    lines.append([f"all {runs[0]['rows']:,} rows", *[cell([run["wrong"] for run in runs[:1]])] * 2])
    return markdown_table(["rows", "wrong labels by `excess_loss`", "by cleanlab"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "runs", nargs="+", type=Path, help="folders of finished runs of recipes/image_classification.py"
    )
    parser.add_argument(
        "--train_file", help="the runs' training file; needed where its path is shortened in results.json"
    )
    parser.add_argument("--label_file", help="likewise, that of its labels")
    parser.add_argument("--clean_column", default="clean_label", help="column of the true labels")
    parser.add_argument("--clean_file", help="file that has it; without it, that of the runs' labels")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    chosen = parser.parse_args()
    moved = {name: path for name in ("train_file", "label_file") if (path := getattr(chosen, name))}
    runs = [measure(run, moved, chosen.clean_file, chosen.clean_column) for run in chosen.runs]
    found = {"runs": runs} | surroundings(__file__)
    print(table(found))
    if chosen.output:
        write_text(chosen.output, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
