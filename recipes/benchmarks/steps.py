"""Cost of pruning per step, and whether time falls with tokens: medians of ratios, paired in one process.

    OMP_NUM_THREADS=1 python recipes/benchmarks/steps.py

Three measurements, each of a causal language model trained from scratch on random tokens:

overhead   one run of `PruningTrainer(policy="uniform:keep=1.0")` in which every second step uses the stock
           `compute_loss`; the median of the ratios of neighbouring steps. The model has a 32k vocabulary and a body of
           realistic size, all rows have one length, and every position is a target.
tokens     epochs that keep a share of the tokens alternate with epochs that keep them all; the ratio of their seconds
           and the ratio of their tokens (padding included).

assistant  runs of `autoassist`, which learns in a thread beside training, alternate with runs that keep everything; the
           ratio of their median steps, all rows of one length.

Times are CPU seconds of the process on a CPU, and seconds between synchronised points on a GPU. For the assistant, with
a thread of its own, they are seconds of the clock. Results go to `--output`, with versions and hardware.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback, TrainingArguments, set_seed

from hf_prune import PruningTrainer
from hf_prune.common.storage import write_text
from hf_prune.report.account import surroundings
from hf_prune.train.collator import ROW


class Times(TrainerCallback):
    """Seconds of every step and of the whole training."""

    def __init__(self, now):
        self.now, self.steps = now, []

    def on_train_begin(self, args, state, control, **kwargs):
        self.start = self.now()

    def on_step_begin(self, args, state, control, **kwargs):
        self.mark = self.now()

    def on_step_end(self, args, state, control, **kwargs):
        self.steps.append(self.now() - self.mark)

    def on_train_end(self, args, state, control, **kwargs):
        self.whole = self.now() - self.start


class EveryOther(PruningTrainer):
    """Leaves every odd step to the stock trainer; the first step of a run must be measured."""

    def training_step(self, model, inputs, *args, **kwargs):
        if self.state.global_step % 2 == 1:
            inputs.pop(ROW)
        return super().training_step(model, inputs, *args, **kwargs)


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def train(trainer_class, shape: dict, rows: list[dict], batch: int, folder: Path, clock=now, **settings):
    """Train a new model once; return its times and the trainer."""
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
    times = Times(clock)
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


def overhead(folder: Path, pairs: int, hidden: int, layers: int) -> dict:
    """Step time when everything is kept, divided by the stock step time."""
    shape = {
        "vocab_size": 32_000,
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": hidden // 64,
    }
    steps = 2 * pairs + 4
    rows, batch = random_rows(4 * steps, 64, 64, 32_000), 4
    times, _ = train(EveryOther, shape, rows, batch, folder, max_steps=steps, policy="uniform:keep=1.0")
    ours, stock = np.reshape(times.steps[4:], (pairs, 2)).T  # the first steps warm up
    low, middle, high = np.quantile(ours / stock, (0.25, 0.5, 0.75)).tolist()
    return {
        "model": shape,
        "batch": [batch, 64],
        "pairs": pairs,
        "seconds_per_step": {"stock": float(np.median(stock)), "pruning": float(np.median(ours))},
        "ratio": middle,
        "ratio_quartiles": [low, high],
    }


def tokens(folder: Path, pairs: int, keep: float) -> dict:
    """Seconds of epochs that keep a share of the tokens, divided by those of full epochs."""
    shape = {
        "vocab_size": 8_000,
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    }
    rows = random_rows(240, 8, 64, 8_000)
    seconds: dict[float, list[float]] = {1.0: [], keep: []}
    counted = {}
    for pair in range(pairs):
        for share in [1.0, keep][:: 1 if pair % 2 else -1]:
            policy = f"uniform:keep={share},unit=tokens"
            times, trainer = train(PruningTrainer, shape, rows, 8, folder, num_train_epochs=1, policy=policy)
            seconds[share].append(times.whole)
            counted[share] = trainer.pruning_report().totals()["padded_tokens"]
    ratios = np.array(seconds[keep]) / np.array(seconds[1.0])
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75)).tolist()
    return {
        "model": shape,
        "keep": keep,
        "pairs": pairs,
        "padded_tokens": {str(share): count for share, count in counted.items()},
        "ratio_of_tokens": counted[keep] / counted[1.0],
        "ratio_of_seconds": middle,
        "ratio_of_seconds_quartiles": [low, high],
    }


def assistant(folder: Path, pairs: int) -> dict:
    """Step time with the assistant's thread, divided by step time without it."""
    shape = {
        "vocab_size": 8_000,
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    }
    rows, policies = random_rows(480, 32, 32, 8_000), ("uniform:keep=1.0", "autoassist")
    seconds: dict[str, list[float]] = {policy: [] for policy in policies}
    for pair in range(pairs):
        for policy in policies[:: 1 if pair % 2 else -1]:
            clock = time.perf_counter
            times, _ = train(PruningTrainer, shape, rows, 8, folder, clock, num_train_epochs=1, policy=policy)
            seconds[policy].append(float(np.median(times.steps)))
    stock, ours = (np.array(seconds[policy]) for policy in policies)
    low, middle, high = np.quantile(ours / stock, (0.25, 0.5, 0.75)).tolist()
    return {"model": shape, "batch": [8, 32], "pairs": pairs, "ratio": middle, "ratio_quartiles": [low, high]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmark-output"), help="folder of steps.json")
    parser.add_argument("--pairs", type=int, default=25, help="pairs of steps for the overhead")
    parser.add_argument("--epochs", type=int, default=12, help="pairs of epochs for the tokens and for the assistant")
    parser.add_argument("--hidden", type=int, default=768, help="width of the body whose steps are timed")
    parser.add_argument("--layers", type=int, default=12, help="its layers")
    parser.add_argument("--keep", type=float, default=0.5, help="share of tokens to keep")
    chosen = parser.parse_args()
    results = {
        "overhead": overhead(chosen.output, chosen.pairs, chosen.hidden, chosen.layers),
        "tokens": tokens(chosen.output, chosen.epochs, chosen.keep),
        "assistant": assistant(chosen.output, chosen.epochs),
    } | surroundings(__file__)
    write_text(Path(chosen.output, "steps.json"), json.dumps(results, indent=2) + "\n")
    cost, fall, beside = results["overhead"], results["tokens"], results["assistant"]
    print(
        "keep-everything step over stock step: {:.4f} (quartiles {:.4f} and {:.4f})".format(
            cost["ratio"], *cost["ratio_quartiles"]
        )
    )
    print(
        "seconds {:.4f} (quartiles {:.4f} and {:.4f}) at {:.4f} of the tokens".format(
            fall["ratio_of_seconds"], *fall["ratio_of_seconds_quartiles"], fall["ratio_of_tokens"]
        )
    )
    print(
        "step beside the assistant over step without: {:.4f} (quartiles {:.4f} and {:.4f})".format(
            beside["ratio"], *beside["ratio_quartiles"]
        )
    )


if __name__ == "__main__":
    main()
