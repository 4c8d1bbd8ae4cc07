"""What pruning costs per step, and whether time falls with tokens: paired runs in one process, ratios, medians.

    python recipes/benchmark.py

Two measurements, each of a causal language model trained from scratch on random tokens:

overhead   blocks of steps of the stock `Trainer` and of `PruningTrainer(policy="uniform:keep=1.0")` in turn, on the
           same batches; the ratio of the medians of their step times. The model has a 32k vocabulary and a body of
           realistic size, and every position is a target.
tokens     whole epochs that keep a share of the tokens against whole epochs that keep them all, in turn; the ratio of
           their seconds beside the ratio of their tokens (padding included).

Times are CPU seconds of the process where it trains on the CPU (what else the machine does then hardly counts), seconds
between synchronised points on a GPU. Results go to `--output`, with versions and hardware.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments, set_seed

from hf_prune import PruningTrainer
from hf_prune.report import surroundings


class Times(TrainerCallback):
    """Seconds of every step and of the whole training."""

    def __init__(self):
        self.steps = []

    def on_train_begin(self, args, state, control, **kwargs):
        self.start = self.mark = now()

    def on_step_end(self, args, state, control, **kwargs):
        self.steps.append(now() - self.mark)
        self.mark = now()

    def on_train_end(self, args, state, control, **kwargs):
        self.whole = now() - self.start


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def train(trainer_class, shape: dict, rows: list[dict], batch: int, folder: Path, **settings) -> tuple[Times, Trainer]:
    """Train a fresh model once."""
    set_seed(0)
    args = TrainingArguments(
        folder,
        per_device_train_batch_size=batch,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        save_strategy="no",
        dataloader_pin_memory=torch.cuda.is_available(),
        **{name: settings.pop(name) for name in ("max_steps", "num_train_epochs") if name in settings},
    )
    times = Times()
    model = LlamaForCausalLM(LlamaConfig(**shape))
    trainer = trainer_class(
        model=model, args=args, train_dataset=rows, data_collator=pad, callbacks=[times], **settings
    )
    trainer.train()
    return times, trainer


def pad(rows: list[dict]) -> dict:
    ids = torch.nn.utils.rnn.pad_sequence([row["input_ids"] for row in rows], batch_first=True, padding_value=-100)
    return {"input_ids": ids.clamp(min=0), "attention_mask": (ids >= 0).long(), "labels": ids}


def random_rows(n: int, shortest: int, longest: int, vocabulary: int) -> list[dict]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(shortest, longest + 1, n)
    return [{"input_ids": torch.from_numpy(rng.integers(1, vocabulary, length))} for length in lengths]


def overhead(folder: Path, blocks: int, steps: int, hidden: int, layers: int) -> dict:
    """Step time of keeping everything over the stock step time."""
    shape = {
        "vocab_size": 32_000,
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": hidden // 64,
    }
    rows, batch = random_rows(4 * (steps + 2), 64, 64, 32_000), 4
    medians: dict[str, list[float]] = {"stock": [], "pruning": []}
    for block in range(blocks):
        arms = [("stock", Trainer, {}), ("pruning", PruningTrainer, {"policy": "uniform:keep=1.0"})]
        for name, trainer_class, settings in arms[:: 1 if block % 2 else -1]:
            times, _ = train(trainer_class, shape, rows, batch, folder, max_steps=steps + 2, **settings)
            medians[name].append(statistics.median(times.steps[2:]))  # the first steps warm up
    ratios = [ours / stock for ours, stock in zip(medians["pruning"], medians["stock"], strict=True)]
    return {
        "model": shape,
        "batch": [batch, 64],
        "blocks": blocks,
        "steps_per_block": steps,
        "seconds_per_step": {name: statistics.median(values) for name, values in medians.items()},
        "ratio": statistics.median(medians["pruning"]) / statistics.median(medians["stock"]),
        "ratio_by_block": ratios,
    }


def tokens(folder: Path, blocks: int, keep: float) -> dict:
    """Seconds of epochs that keep a share of the tokens over those of full ones."""
    shape = {
        "vocab_size": 8_000,
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    }
    rows = random_rows(480, 8, 64, 8_000)
    seconds: dict[float, list[float]] = {1.0: [], keep: []}
    counted = {}
    for block in range(blocks):
        for share in [1.0, keep][:: 1 if block % 2 else -1]:
            policy = f"uniform:keep={share},unit=tokens"
            times, trainer = train(PruningTrainer, shape, rows, 8, folder, num_train_epochs=2, policy=policy)
            seconds[share].append(times.whole)
            counted[share] = trainer.pruning_report().totals()["padded_tokens"]
    return {
        "model": shape,
        "keep": keep,
        "blocks": blocks,
        "seconds": {str(share): statistics.median(values) for share, values in seconds.items()},
        "padded_tokens": {str(share): count for share, count in counted.items()},
        "ratio_of_seconds": statistics.median(seconds[keep]) / statistics.median(seconds[1.0]),
        "ratio_of_tokens": counted[keep] / counted[1.0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmark-output"), help="folder of benchmark.json")
    parser.add_argument("--blocks", type=int, default=5, help="paired blocks")
    parser.add_argument("--steps", type=int, default=12, help="steps of a block")
    parser.add_argument("--hidden", type=int, default=512, help="width of the body whose steps are timed")
    parser.add_argument("--layers", type=int, default=4, help="its layers")
    parser.add_argument("--keep", type=float, default=0.5, help="share of tokens to keep")
    chosen = parser.parse_args()
    results = {
        "overhead": overhead(chosen.output, chosen.blocks, chosen.steps, chosen.hidden, chosen.layers),
        "tokens": tokens(chosen.output, chosen.blocks, chosen.keep),
    } | surroundings(__file__)
    chosen.output.mkdir(parents=True, exist_ok=True)
    Path(chosen.output, "benchmark.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    cost, fall = results["overhead"], results["tokens"]
    print(
        f"keep-everything step over stock step: {cost['ratio']:.4f} (blocks {min(cost['ratio_by_block']):.4f} to "
        f"{max(cost['ratio_by_block']):.4f})"
    )
    print(f"seconds {fall['ratio_of_seconds']:.4f} at {fall['ratio_of_tokens']:.4f} of the tokens")


if __name__ == "__main__":
    main()
