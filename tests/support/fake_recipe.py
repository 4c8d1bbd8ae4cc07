"""Stands for a recipe: no training, results as of a known distribution, in a fraction of a second.

Each of 400 test rows has a difficulty, every seed blurs it a little (the same for every arm), and a row is right where
it is easier than the model is good. This grows with the tokens trained and falls by --worse.
"""

import argparse
import json
import math
import random
import sys
import time
from pathlib import Path

ROWS, TOKENS, EPOCHS = 400, 1000, 4

parser = argparse.ArgumentParser(allow_abbrev=False)
parser.add_argument("--policy")
parser.add_argument("--seed", type=int)
parser.add_argument("--output_dir", type=Path)
parser.add_argument("--num_train_epochs", type=float, default=EPOCHS)
parser.add_argument("--metric", default="accuracy")
parser.add_argument("--worse", type=float, default=0)
parser.add_argument("--chance", type=float, default=0, help="a blur of each arm's own")
parser.add_argument("--rescored", type=int, default=0, help="forward-only tokens by epoch")
parser.add_argument("--share", type=float, help="of the tokens that is trained; without it, the policy's")
parser.add_argument("--early_stopping_patience", type=int, help="epochs after which it stops")
parser.add_argument("--class_weights")
parser.add_argument("--load_best_model_at_end")
parser.add_argument("--save_strategy")
parser.add_argument("--fail", type=int, help="a seed")
parser.add_argument("--api_key", help="a secret, as is the password")
parser.add_argument("--password")
parser.add_argument(
    "--wait", type=Path, help="a checkpoint is saved, then nothing more is done until this file is there"
)


def main(args):
    args.output_dir.mkdir(parents=True, exist_ok=True)
    checkpoint = args.output_dir / "checkpoint-1"
    print("goes on" if checkpoint.exists() else "begins", flush=True)
    if args.fail == args.seed:
        sys.exit("out of memory, say")
    checkpoint.mkdir(exist_ok=True)
    (checkpoint / "optimizer.pt").touch()
    while args.wait and not args.wait.exists():
        time.sleep(0.02)

    settings = dict(part.split("=") for part in args.policy.partition(":")[2].split(",") if part)
    each = TOKENS * (args.share or float(settings.get("keep", 0.6)))
    shared, own = random.Random(args.seed), random.Random(f"{args.seed} {args.policy} {args.worse}")
    difficulty = random.Random(0)
    hard = [difficulty.random() + 0.05 * shared.gauss(0, 1) + args.chance * own.gauss(0, 1) for _ in range(ROWS)]

    def goodness(tokens):
        return 0.9 - 0.3 * math.exp(-tokens / TOKENS) - args.worse

    args.num_train_epochs = min(args.num_train_epochs, args.early_stopping_patience or math.inf)
    tokens = each * args.num_train_epochs
    right = [row < goodness(tokens) for row in hard]
    if args.metric == "accuracy":
        found = {"predictions": ["cat" if row else "dog" for row in right], "references": ["cat"] * ROWS}
        value = sum(right) / ROWS
    elif args.metric == "loss":
        found = {"losses": [1 + row - goodness(tokens) for row in hard], "tokens": [1 + row % 7 for row in range(ROWS)]}
        value = sum(map(lambda a, b: a * b, *found.values())) / sum(found["tokens"])
    else:
        found, value = {"predictions": [], "references": []}, sum(right) / ROWS

    evaluations = []
    for epoch in range(1, math.ceil(args.num_train_epochs) + 1):
        seen = each * min(epoch, args.num_train_epochs)
        good = goodness(seen) + 0.01 * shared.gauss(0, 1)
        at = {"step": epoch, "epoch": epoch, "rows": seen / 10, "tokens": seen, "seconds": seen / 100}
        evaluations.append(at | {f"eval_{args.metric}": -good if args.metric == "loss" else good})
    totals = {"rows": tokens / 10, "padded_tokens": tokens, "rows_rescored": 0, "optimizer_steps": tokens / 50}
    totals |= {"padded_tokens_rescored": args.rescored * args.num_train_epochs, "seconds_training": tokens / 100}
    totals |= {"seconds_selecting": 0, "seconds_rescoring": 0}
    quality = {"metric": args.metric, "value": value, "greater_is_better": args.metric != "loss", "split": "test"}
    results = {
        "arguments": {"num_train_epochs": args.num_train_epochs},
        "policy": args.policy,
        "parameters": 10,
        "quality": quality | {"rows": ROWS},
        "scores": {},
        "pruning": {"totals": totals, "earlier_runs": None, "evaluations": evaluations},
        "hardware": {"machine": "x86_64", "cpus": 2, "threads": 1, "gpus": []},
        "versions": {"python": "3.11"},
        "commit": "abc",
    }
    (args.output_dir / "model.safetensors").touch()
    (args.output_dir / "predictions.json").write_text(json.dumps(found))
    (args.output_dir / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(parser.parse_args())
