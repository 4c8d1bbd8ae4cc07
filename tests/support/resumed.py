"""A small run that is stopped and goes on, and all that must not depend on it."""

import numpy as np
import torch
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification, TrainerCallback, TrainingArguments, set_seed

from hf_prune import PruningTrainer
from hf_prune.train.collator import ROW

ROWS, EPOCHS = 17, 3


def build(folder, policy="infobatch:ratio=0.6", accumulation=1, order="random", batch=2, **settings):
    """A trainer that dropout makes sensitive to every random draw, and the log of what it does at each step."""
    set_seed(3)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertForSequenceClassification(BertConfig(vocab_size=40, num_labels=3, pad_token_id=0, **sizes))
    rng = np.random.default_rng(0)
    data = Dataset.from_list(
        [
            {"input_ids": rng.integers(1, 40, size=rng.integers(3, 12)).tolist(), "labels": int(rng.integers(3))}
            for _ in range(settings.pop("rows", ROWS))
        ]
    )
    settings = {"save_strategy": "steps", "save_steps": 2, "num_train_epochs": EPOCHS, "learning_rate": 0.01} | settings
    args = TrainingArguments(
        folder,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        logging_steps=1,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        train_sampling_strategy=order,
        **settings,
    )
    log = {}

    class Logged(PruningTrainer):
        def training_step(self, model, inputs, *args, **kwargs):
            if ROW in inputs:
                log.setdefault(self.state.global_step, []).append(inputs[ROW].tolist())
            return super().training_step(model, inputs, *args, **kwargs)

    evaluated = data.select(range(min(4, len(data))))
    trainer = Logged(
        model=model, args=args, train_dataset=data, eval_dataset=evaluated, data_collator=pad, policy=policy
    )
    return trainer, log


def pad(rows):
    padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(row["input_ids"]) for row in rows], batch_first=True)
    labels = torch.tensor([row["labels"] for row in rows])
    return {"input_ids": padded, "attention_mask": (padded != 0).long(), "labels": labels}


def result_of(trainer, log):
    """Everything that must not depend on an interruption."""
    rates = {entry["step"]: entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry}
    epochs = [{k: v for k, v in e.items() if "seconds" not in k} for e in trainer.pruning_report().epochs]
    return {
        "weights": {name: tensor.numpy().tobytes() for name, tensor in trainer.model.state_dict().items()},
        "history": {name: array.tobytes() for name, array in trainer.history.arrays().items()},
        "rates": rates,
        "epochs": epochs,
        "end": (trainer.state.global_step, trainer.state.max_steps, trainer.state.epoch),
        "rows": log,
    }


def assert_same(result, reference):
    rows, expected = result.pop("rows"), dict(reference)
    every = expected.pop("rows")
    assert {step: every[step] for step in rows} == rows
    for name, value in expected.items():
        assert result[name] == value, name


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True
