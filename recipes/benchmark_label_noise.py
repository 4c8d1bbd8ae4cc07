"""How many of the rows that a run calls likely mislabelled are: its ranking beside cleanlab's, against clean labels.

    python recipes/image_classification.py --train_file TRAIN --label_file NOISY --label_column worse_label \
        --validation_file TEST --output_dir RUN
    python recipes/benchmark_label_noise.py RUN --clean_column clean_label

The run's own ranking is `excess_loss` in its `history.parquet`, the largest first. cleanlab's is the lowest label
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

from hf_prune.comparison import RESULTS
from hf_prune.data import eight_bits
from hf_prune.export import FILE_ROW, ROWS
from hf_prune.report import surroundings
from hf_prune.splits import find_column, label_texts, read_file
from hf_prune.storage import write_text

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run of recipes/image_classification.py")
    parser.add_argument("--train_file", help="where the run's training file is; without it, where the run found it")
    parser.add_argument("--label_file", help="likewise, that of its labels")
    parser.add_argument("--clean_column", default="clean_label", help="column of the true labels")
    parser.add_argument("--clean_file", help="file that has it; without it, that of the run's labels")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    chosen = parser.parse_args()
    results = json.loads((chosen.run / RESULTS).read_text(encoding="utf-8"))
    moved = {name: path for name in ("train_file", "label_file") if (path := getattr(chosen, name))}
    table, arguments = pandas.read_parquet(chosen.run / ROWS), results["arguments"] | moved
    file_rows = table[FILE_ROW].to_numpy()
    rows, given, wrong = read_labels(arguments, file_rows, chosen.clean_file, chosen.clean_column)
    scores = {
        "hf_prune": table["excess_loss"].fillna(-np.inf).to_numpy(),
        "cleanlab": -label_quality(chosen.run, rows, given),
    }
    found = {
        "rows": len(rows),
        "wrong": float(wrong.mean()),
        "precision": {
            f"{share:.0%}": {name: precision(s, wrong, share) for name, s in scores.items()} for share in SHARES
        },
        "never_learnt": {"rows": int(table["never_learnt"].sum()), "wrong": float(wrong[table["never_learnt"]].mean())},
        "learnt_at_once": {
            "rows": int(table["learnt_at_once"].sum()),
            "wrong": float(wrong[table["learnt_at_once"]].mean()),
        },
        "run": {name: results[name] for name in ("policy", "quality", "parameters", "hardware", "versions")},
    }
    print(f"{found['rows']:,} rows, {found['wrong']:.1%} with a wrong label")
    for share, values in found["precision"].items():
        print(f"first {share}: " + ", ".join(f"{name} {value:.1%}" for name, value in values.items()) + " are wrong")
    if chosen.output:
        write_text(chosen.output, json.dumps(found | surroundings(__file__), indent=2) + "\n")


if __name__ == "__main__":
    main()
