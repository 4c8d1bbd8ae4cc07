"""A policy that keeps everything, or none at all, is the stock Trainer bit for bit."""

import hashlib
import logging
import random
import re
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import transformers as tf
from tiny import STOCK, TASKS, Collator, Net, Rows, trainer
from torch.utils.data import IterableDataset
from transformers import TrainerCallback

UNIFORM, INFOBATCH = "uniform:keep=1.0", "infobatch:ratio=0"
PAIRS = dict(is_pair=True, predict_with_generate=True, generation_max_length=6)
BY_STEPS = dict(eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=4)
BY_EPOCH = dict(eval_strategy="epoch", save_strategy="epoch")
# the one gave way to the other in transformers 5.23
CHECKPOINTING = next(
    name for name in ("activation_checkpointing", "gradient_checkpointing") if hasattr(tf.TrainingArguments, name)
)
BEST = dict(load_best_model_at_end=True, metric_for_best_model="eval_loss", greater_is_better=False)


# ---- Everything that a run shows ----


class Events(TrainerCallback):
    """Writes down every event and where training stood."""

    def __init__(self):
        self.seen = []


def _event(name: str):
    def happened(self, args, state, control, logs=None, metrics=None, **kwargs):
        where = (state.global_step, state.max_steps, state.num_train_epochs, exactly(state.epoch))
        self.seen.append((name, *where, repr(control), exactly(told(logs or metrics or {}))))

    return happened


for _name in filter(lambda name: name.startswith("on_"), dir(TrainerCallback)):
    setattr(Events, _name, _event(_name))


def told(logs: dict) -> dict:
    """A log without clock times and without what a policy adds."""
    return {k: v for k, v in logs.items() if not k.endswith(("_runtime", "_per_second")) and not k.startswith("prune/")}


def exactly(value):
    """Something comparable that differs if a bit differs; NaN equals itself."""
    if isinstance(value, torch.Tensor):
        raw = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(raw.tobytes()).hexdigest()[:16]}"
    if isinstance(value, np.ndarray):
        return exactly(torch.from_numpy(value))
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, dict):
        return {key: exactly(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [exactly(item) for item in value]
    return value if isinstance(value, str | int | None) else type(value).__name__


def generated(prediction) -> dict:
    """A metric of every generated token, or of every logit."""
    numbers = np.nan_to_num(np.asarray(prediction.predictions, np.float64))
    return {"checksum": float((numbers * np.arange(1, numbers.size + 1).reshape(numbers.shape)).sum())}


def run(folder: Path, policy, model, rows, **settings):
    """Train.

    Returns:
        The trainer, and name -> everything that a run leaves behind, comparable.
    """
    batches, events = [], Events()
    model.register_forward_pre_hook(
        lambda module, _, inputs: batches.append((module.training, exactly(inputs))), with_kwargs=True
    )
    ours = trainer(folder, model, rows, policy, callbacks=[events], **settings)
    output = ours.train()
    state = ours.state
    return ours, {
        "batches": batches,
        "logs": [exactly(told(entry)) for entry in state.log_history],
        "events": events.seen,
        "end": (state.global_step, state.max_steps, exactly(state.epoch), state.num_train_epochs, output.global_step),
        "loss": exactly(output.training_loss),
        "flos": exactly(state.total_flos),
        "best": (exactly(state.best_metric), state.best_global_step, Path(state.best_model_checkpoint or "").name),
        "checkpoints": sorted(path.name for path in folder.glob("checkpoint-*")),
        "weights": exactly(model.state_dict()),
        "optimizer": exactly(ours.optimizer.state_dict()),
        "scheduler": exactly({k: v for k, v in ours.lr_scheduler.state_dict().items() if k != "lr_lambdas"}),
        "chance": exactly([torch.get_rng_state(), np.random.get_state(), hash(random.getstate())]),  # noqa: NPY002
    }


def same(ours: dict, stock: dict):
    assert ours.keys() == stock.keys()
    for name in stock:
        assert ours[name] == stock[name], name


# ---- With a policy that keeps every row ----


def arrow(rows: list[dict]) -> datasets.Dataset:
    """With a column that no model takes."""
    return datasets.Dataset.from_list([{**row, "comment": f"row {n}"} for n, row in enumerate(rows)])


def tensors(rows: list[dict]) -> datasets.Dataset:
    return datasets.Dataset.from_list(rows).with_format("torch")


def commented(rows: list[dict]) -> list[dict]:
    return [{**row, "comment": f"row {n}"} for n, row in enumerate(rows)]


# task, form of the data set, settings, policies; 22 rows in batches of 4 are 6 batches, the last of 2
CELLS = {
    "marian, evaluated and generating by epoch": (
        "marian", list, PAIRS | BY_EPOCH | BEST | dict(num_train_epochs=2), [UNIFORM, INFOBATCH],
    ),
    "marian, accumulating, smoothed, two workers": (
        "marian", arrow, PAIRS | dict(gradient_accumulation_steps=4, label_smoothing_factor=0.1, num_train_epochs=2,
                                      dataloader_num_workers=2, lr_scheduler_type="inverse_sqrt"), [UNIFORM, INFOBATCH],
    ),
    "marian, max_steps beyond an epoch": ("marian", Rows, PAIRS | dict(max_steps=8, warmup_steps=0.3), [UNIFORM]),
    "t5, evaluated by steps, best loaded": (
        "t5", arrow, PAIRS | BY_STEPS | BEST | dict(num_train_epochs=1.5, save_total_limit=1), [UNIFORM],
    ),
    "t5, accumulating with a part of a group": (
        "t5", list, PAIRS | dict(gradient_accumulation_steps=4, num_train_epochs=2, lr_scheduler_type="cosine"),
        [UNIFORM],
    ),
    "t5, smoothed, bf16": ("t5", Rows, PAIRS | dict(label_smoothing_factor=0.1, bf16=True), [UNIFORM]),
    "llama, counting tokens": (
        "llama", list, dict(num_train_epochs=2, include_num_input_tokens_seen=True), [UNIFORM, INFOBATCH],
    ),
    "llama, accumulating, epochs and a half": (
        "llama", arrow, dict(gradient_accumulation_steps=4, num_train_epochs=2.5, lr_scheduler_type="cosine",
                             warmup_steps=0.25), [UNIFORM, INFOBATCH],
    ),
    "llama, noisy embeddings": ("llama", Rows, dict(neftune_noise_alpha=5.0, num_train_epochs=2), [UNIFORM]),
    "llama, checkpointed activations": (
        "llama", list, {CHECKPOINTING: True, "num_train_epochs": 1, "bf16": True}, [UNIFORM],
    ),
    "llama, smoothed, accumulating, by steps": (
        "llama", list, BY_STEPS | dict(label_smoothing_factor=0.2, gradient_accumulation_steps=3, num_train_epochs=2,
                                       eval_steps=3, logging_steps=3), [UNIFORM],
    ),
    "llama, a persistent worker, drop_last": (
        "llama", list, dict(dataloader_num_workers=1, dataloader_persistent_workers=True, dataloader_drop_last=True,
                            num_train_epochs=2, lr_scheduler_type="polynomial"), [UNIFORM],
    ),
    "bert, data_seed, evaluated by steps": (
        "one label", arrow, BY_STEPS | BEST | dict(data_seed=11, num_train_epochs=2), [UNIFORM, INFOBATCH],
    ),
    "bert, accumulating, drop_last": (
        "one label", commented, dict(gradient_accumulation_steps=3, dataloader_drop_last=True, num_train_epochs=2,
                                     lr_scheduler_type="constant_with_warmup", warmup_steps=2), [UNIFORM],
    ),
    "bert, max_steps within an epoch": (
        "one label", list, dict(max_steps=2, gradient_accumulation_steps=2, num_train_epochs=1), [UNIFORM, INFOBATCH],
    ),
    "bert, max_steps, epochs with a part of a group": (
        "one label", list, dict(max_steps=5, gradient_accumulation_steps=4, lr_scheduler_type="cosine"), [UNIFORM],
    ),
    "bert, sequential, evaluated at the start": (
        "one label", tensors, BY_EPOCH | dict(eval_on_start=True, logging_strategy="epoch", num_train_epochs=2,
                                              train_sampling_strategy="sequential"), [UNIFORM],
    ),
    "bert, no clipping, other optimizer": (
        "one label", Rows, dict(max_grad_norm=0.0, optim="adafactor", num_train_epochs=1.5), [UNIFORM],
    ),
    "bert, a scheduler that watches the loss": (
        "one label", list, BY_EPOCH | dict(lr_scheduler_type="reduce_lr_on_plateau", num_train_epochs=2), [UNIFORM],
    ),
    "vit, two workers, bf16": (
        "image", list, dict(dataloader_num_workers=2, bf16=True, num_train_epochs=2), [UNIFORM],
    ),
    "vit, accumulating, smoothed, by epoch": (
        "image", arrow, BY_EPOCH | dict(gradient_accumulation_steps=4, label_smoothing_factor=0.1, num_train_epochs=2),
        [UNIFORM, INFOBATCH],
    ),
}  # fmt: skip


@pytest.mark.parametrize("cell", CELLS)
def test_keeping_every_row_is_the_stock_trainer(tmp_path, cell):
    name, form, settings, policies = CELLS[cell]
    task = TASKS[name]

    def measured(policy):
        model, rows = task.model(), task.rows()
        collator = Collator(model.prepare_decoder_input_ids_from_labels if task.is_pair else None)
        evaluation = dict(eval_dataset=rows[:7], compute_metrics=generated) if "eval_strategy" in settings else {}
        folder = tmp_path / policy.replace(":", " ")
        return run(folder, policy, model, form(rows), data_collator=collator, **settings, **evaluation)

    _, stock = measured(STOCK)
    assert stock["end"][0] > 1
    for policy in policies:
        ours, ends = measured(policy)
        same(ends, stock)
        known = np.isfinite(ours.history.loss).sum()
        assert known == len({row for row in range(22) if ours.history.last_round[row] >= 0}) >= 8


def test_an_optimizer_and_a_schedule_of_the_users(tmp_path):
    ends = []
    for policy in STOCK, UNIFORM:
        model = TASKS["llama"].model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: [1.0, 0.5, 2.0, 0.25, 1.5][step])
        settings = dict(optimizers=(optimizer, scheduler), gradient_accumulation_steps=3, num_train_epochs=2)
        ends.append(run(tmp_path / policy[:5], policy, model, TASKS["llama"].rows(), **settings)[1])
    same(*reversed(ends))
    assert [float.fromhex(entry["learning_rate"]) for entry in ends[0]["logs"][:4]] == [0.3, 0.15, 0.6, 0.075]


def test_trained_again(tmp_path):
    ends = []
    for policy in STOCK, UNIFORM:
        model = TASKS["marian"].model()
        settings = dict(is_pair=True, gradient_accumulation_steps=4, num_train_epochs=1.5)
        ours, first = run(tmp_path / policy[:5], policy, model, TASKS["marian"].rows(), **settings)
        ours.args.num_train_epochs = 3
        ours.train()
        again = {"weights": exactly(model.state_dict()), "logs": exactly([told(one) for one in ours.state.log_history])}
        ends.append((first, again))
    (stock, stock_again), (kept, kept_again) = ends
    same(kept, stock)
    same(kept_again, stock_again)
    assert stock_again["weights"] != stock["weights"]


# ---- Without a policy ----


class Stream(IterableDataset):
    """Rows without numbers, and without an end."""

    def __init__(self, rows: list[dict]):
        self.rows = rows

    def __iter__(self):
        while True:
            yield from self.rows


def streamed(rows: list[dict]):
    return arrow(rows).to_iterable_dataset()


def smoothed_by_user(outputs, labels, num_items_in_batch=None):
    """A compute_loss_func."""
    return torch.nn.functional.cross_entropy(outputs["logits"], labels, label_smoothing=0.3)


class LossAlone(tf.BertForSequenceClassification):
    """Keeps its logits for itself."""

    def forward(self, input_ids, attention_mask, labels):
        return {"loss": super().forward(input_ids, attention_mask, labels=labels).loss}


def next_sentence():
    config = TASKS["masked"].model().config
    torch.manual_seed(0)
    return tf.BertForNextSentencePrediction(config)


def loss_alone():
    config = TASKS["one label"].model().config
    torch.manual_seed(0)
    return LossAlone(config)


def two_labels(rows: list[dict]) -> list[dict]:
    return [{**row, "labels": row["labels"] % 2} for row in rows]


def net(gives: type):
    return partial(Net, gives)


# model, form of the data set, settings
PLAIN = {
    "endless rows": (TASKS["one label"].model, Stream, dict(max_steps=9)),
    "rows of datasets": (TASKS["one label"].model, streamed, dict(max_steps=9, gradient_accumulation_steps=2)),
    "a module giving a dict": (net(dict), list, dict(num_train_epochs=2)),
    "a module giving a tuple": (net(tuple), list, dict(num_train_epochs=1.5, gradient_accumulation_steps=4)),
    "a loss of the user's": (
        TASKS["one label"].model, list, dict(num_train_epochs=1, compute_loss_func=smoothed_by_user),
    ),
    "by length": (TASKS["one label"].model, list, dict(train_sampling_strategy="group_by_length", num_train_epochs=2)),
}  # fmt: skip


@pytest.mark.parametrize("case", PLAIN)
def test_no_policy_is_the_stock_trainer(tmp_path, case):
    model, form, settings = PLAIN[case]
    rows = TASKS["one label"].rows()
    _, stock = run(tmp_path / "stock", STOCK, model(), form(rows), **settings)
    ours, ends = run(tmp_path / "ours", None, model(), form(rows), **settings)
    same(ends, stock)
    assert stock["end"][0] > 1
    assert ours.history is None
    assert ours.selection is None


# ---- With a policy, where nothing is known of the loss ----

UNKNOWN = {
    "a module giving a dict": (net(dict), list, {}, r"no losses of Net\. There is no recipe"),
    "a module giving a tuple": (net(tuple), list, {}, r"no losses of Net\. There is no recipe"),
    "a model of another task": (
        next_sentence,
        two_labels,
        {},
        r"no losses of BertForNextSentencePrediction\. There is no recipe",
    ),
    "a model that gives its loss alone": (loss_alone, list, {}, "every batch of LossAlone: The .* returned no logits"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_an_unknown_loss_is_trained_and_not_recorded(tmp_path, caplog, case):
    model, form, settings, warning = UNKNOWN[case]
    rows = form(TASKS["one label"].rows())
    settings = dict(num_train_epochs=2, gradient_accumulation_steps=4) | settings
    _, stock = run(tmp_path / "stock", STOCK, model(), rows, **settings)
    with caplog.at_level(logging.WARNING, "hf_prune"):
        ours, ends = run(tmp_path / "ours", UNIFORM, model(), rows, **settings)
    same(ends, stock)
    assert np.isnan(ours.history.loss).all()
    assert (ours.history.last_round == -1).all()
    assert (ours.history.faults == 0).all()
    assert ours.history.tokens.tolist() == [len(row["input_ids"]) for row in rows]
    assert "prune/loss_p50" not in ours.state.log_history[0]
    said = [record.getMessage() for record in caplog.records if record.name.startswith("hf_prune")]
    (message,) = [message for message in said if "were padding" not in message]
    assert re.search(f"{warning}.*example_loss_func", message)


# ---- By length: another order than the stock trainer's, which draws from the global generator ----


def test_the_order_by_length_is_reproducible_and_whole(tmp_path):
    task = TASKS["marian"]
    rows = [{**row, "row": number} for number, row in enumerate(task.rows(70))]

    def orders(seed):
        read = []

        def collate(batch):
            read.extend(row["row"] for row in batch)
            return Collator()([{name: row[name] for name in ("input_ids", "labels")} for row in batch])

        ours, ends = run(
            tmp_path, UNIFORM, task.model(), rows, is_pair=True, data_collator=collate, remove_unused_columns=False,
            train_sampling_strategy="group_by_length", num_train_epochs=2, data_seed=seed,
        )  # fmt: skip
        assert (ours.history.last_round == 1).all()
        return [read[:70], read[70:]], ends

    (first, second), ends = orders(5)
    longest = max(len(row["input_ids"]) for row in rows)
    for order in first, second:
        assert sorted(order) == list(range(70))
    assert longest in [len(rows[row]["input_ids"]) for row in first[:4]]
    lengths = [len(rows[row]["input_ids"]) for row in first]
    spread = [max(part) - min(part) for part in (lengths[at : at + 4] for at in range(0, 68, 4))]
    assert sum(spread) / len(spread) < 2.5  # of lengths 3 to 9; about 4.5 at random
    assert first != second
    again, repeated = orders(5)
    assert again == [first, second]
    same(repeated, ends)
    assert orders(6)[0][0] != first
