"""Half precision, its scaler and skipped steps, compiled models, recomputed activations, noise and smoothing."""

from itertools import pairwise

import inside
import numpy as np
import pytest
import torch
import transformers as tf
from tiny import TASKS, Collator
from torch.nn import functional as F

from hf_prune import pruned

KEEP, INFOBATCH = "uniform:keep=1.0", "infobatch:ratio=0.5,anneal=1.0"
# the one gave way to the other in transformers 5.23
CHECKPOINTING = next(
    name for name in ("activation_checkpointing", "gradient_checkpointing") if hasattr(tf.TrainingArguments, name)
)


class Told(tf.TrainerCallback):
    """Keeps every step's learning rate, and makes the scale of fp16 overflow at the steps it is told."""

    def __init__(self, overflows=()):
        self.overflows, self.rates = overflows, []

    def on_step_begin(self, args, state, control, **kwargs):
        if self.overflows and state.global_step:
            self.scaler.update(2.0**127 if state.global_step in self.overflows else 2.0**10)

    def on_step_end(self, args, state, control, lr_scheduler=None, **kwargs):
        self.rates.append(lr_scheduler.get_last_lr()[0])


class Half(tf.Trainer):
    """fp16 as on a GPU: under autocast, with PyTorch's own scaler, which accelerate makes for a GPU alone."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)

    def compute_loss_context_manager(self):
        return torch.autocast("cpu", torch.float16)


# accelerate unscales before it clips on a GPU alone, and sees no step that a fused optimizer skips by itself
OF_HALF = dict(cls=Half, max_grad_norm=0.0, optim="adamw_torch")


def train(folder, name, policy=None, cls=tf.Trainer, overflows=(), dropout=0.1, rows=None, **settings):
    """Train on a task of `tiny`, on the stock trainer where there is no policy."""
    task, told = TASKS[name], Told(overflows)
    quiet = dict(use_cpu=True, report_to=[], disable_tqdm=True, logging_steps=1, save_strategy="no", seed=3)
    settings = dict(per_device_train_batch_size=4, num_train_epochs=3, learning_rate=1e-2) | settings
    make, more = (cls, {}) if policy is None else (pruned(cls), dict(policy=policy))
    model = task.model(dropout, spread=0.3)
    collator = Collator(model.prepare_decoder_input_ids_from_labels if task.is_pair else None)
    args = tf.TrainingArguments(str(folder), **quiet | settings)
    rows = task.rows() if rows is None else rows
    ours = make(model=model, args=args, train_dataset=rows, data_collator=collator, callbacks=[told], **more)
    told.scaler = ours.accelerator.scaler
    ours.train()
    return ours, told


def alone(name, rows=None) -> np.ndarray:
    """The model's own loss of each row in a batch of its own, in float32."""
    model = TASKS[name].model(0.0, spread=0.3).eval()
    with torch.no_grad():
        return np.array([model(**Collator()([row])).loss.item() for row in rows or TASKS[name].rows()])


def same(ours, stock):
    for entry, other in zip(ours.state.log_history, stock.state.log_history, strict=True):
        for name in entry.keys() & {"loss", "grad_norm", "learning_rate", "train_loss", "epoch"}:
            assert entry[name] == other[name] or (np.isnan(entry[name]) and np.isnan(other[name])), name
    weights = {name.removeprefix("_orig_mod."): value for name, value in stock.model.state_dict().items()}
    assert all(
        torch.equal(value, weights[name.removeprefix("_orig_mod.")]) for name, value in ours.model.state_dict().items()
    )


# ---- fp16: overflowing steps are skipped ----


@pytest.mark.parametrize("accumulation", [1, 2])
def test_steps_skipped_by_the_scaler_are_the_stock_trainers(tmp_path, accumulation):
    settings = dict(OF_HALF, overflows=(1, 5), gradient_accumulation_steps=accumulation)
    (stock, expected), (ours, told) = (train(tmp_path, "llama", policy, **settings) for policy in (None, KEEP))
    steps = stock.state.global_step
    assert stock.lr_scheduler.last_epoch == steps - 2, "two steps must be skipped"
    assert told.rates == expected.rates
    assert ours.accelerator.scaler.get_scale() == stock.accelerator.scaler.get_scale()
    same(ours, stock)


def test_a_pruned_run_with_skipped_steps_keeps_its_rows_and_its_clock(tmp_path):
    settings = dict(OF_HALF, num_train_epochs=4)
    calm, whole = train(tmp_path, "llama", "uniform:keep=0.5", **settings)
    ours, told = train(tmp_path, "llama", "uniform:keep=0.5", overflows=(2, 4), **settings)
    assert [epoch["rows"] for epoch in ours.pruning_report().epochs] == [12] * 4  # whole steps of 4
    assert ours.state.global_step == ours.state.max_steps == 12
    assert ours.history.last_round.tolist() == calm.history.last_round.tolist()
    assert np.isfinite(ours.history.loss[ours.history.last_round >= 0]).all()
    assert told.rates[:2] == whole.rates[:2]
    assert all(later <= earlier for earlier, later in pairwise(told.rates))
    # Each epoch takes 3 steps for 6 of the full run's 24: two that are skipped leave the clock 4 behind.
    assert whole.rates[-1] == 0.0 and told.rates[-1] == pytest.approx(1e-2 * 4 / 24)


# ---- What is recorded, and what weights do ----

# name -> task, settings, how near the recorded losses are to those in float32
CASES = {
    "bf16": ("llama", dict(bf16=True), 3e-2),
    "bf16, pairs": ("t5", dict(bf16=True), 3e-2),
    "fp16": ("llama", OF_HALF, 1e-2),
    "recomputed activations": ("llama", {CHECKPOINTING: True}, 1e-5),
    "smoothed": ("t5", dict(label_smoothing_factor=0.2), 1e-5),
    "smoothed, bf16": ("llama", dict(label_smoothing_factor=0.2, bf16=True), 3e-2),
}


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_a_pruned_run_records_each_rows_own_loss(tmp_path, case, accumulation):
    name, settings, near = CASES[case]
    ours, _ = train(
        tmp_path, name, INFOBATCH, dropout=0.0, learning_rate=0.0, gradient_accumulation_steps=accumulation, **settings
    )
    epochs = ours.pruning_report().epochs
    assert epochs[0]["rows"] == 22 > min(epoch["rows"] for epoch in epochs)
    np.testing.assert_allclose(ours.history.loss, alone(name), rtol=near)
    assert (ours.history.faults == 0).all()


@pytest.mark.parametrize("case", CASES)
def test_weights_act_there_as_in_float32(tmp_path, case):
    """The gradient of a weighted step against that of the weighted sum by hand."""
    name, settings, near = CASES[case]
    seen = []

    class Watched(pruned(settings.get("cls", tf.Trainer))):
        def training_step(self, model, inputs, *args, **kwargs):
            rows = inputs["hf_prune_row"]
            table = inside.steps(self).weights
            weights = None if table is None else table[rows]
            loss = super().training_step(model, inputs, *args, **kwargs)
            scale = 1.0 if self.accelerator.scaler is None else self.accelerator.scaler.get_scale()
            if weights is not None:
                seen.append((rows.tolist(), weights, torch.cat([p.grad.flatten() / scale for p in model.parameters()])))
            return loss

    task = TASKS[name]
    model = task.model(0.0, spread=0.3)
    collator = Collator(model.prepare_decoder_input_ids_from_labels if task.is_pair else None)
    more = {key: value for key, value in settings.items() if key != "cls"}
    quiet = dict(use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="no", seed=3)
    sizes = dict(per_device_train_batch_size=4, num_train_epochs=2, learning_rate=0.0)
    args = tf.TrainingArguments(str(tmp_path), **quiet | sizes | more)
    Watched(model=model, args=args, train_dataset=task.rows(), data_collator=collator, policy=INFOBATCH).train()
    assert any((weights > 1).any() for _, weights, _ in seen)
    smoothing = settings.get("label_smoothing_factor", 0.0)
    plain = task.model(0.0, spread=0.3)
    half = torch.autocast("cpu", torch.bfloat16, enabled="bf16" in settings)
    for rows, weights, gradient in seen:
        batch = collator([task.rows()[row] for row in rows])
        with half:
            logits, labels = plain(**batch).logits.float(), batch["labels"]
        if not task.is_pair:
            logits, labels = logits[:, :-1], labels[:, 1:]
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none", label_smoothing=smoothing)
        losses = losses.view(labels.shape)
        plain.zero_grad()
        ((losses * weights[:, None]).sum() / (labels != -100).sum()).backward()
        expected = torch.cat([p.grad.flatten() for p in plain.parameters()])
        assert (gradient - expected).norm() < 3 * near * expected.norm()


def test_noisy_embeddings_are_trained_on_and_the_noisy_loss_recorded(tmp_path):
    settings = dict(neftune_noise_alpha=5.0)
    stock, _ = train(tmp_path, "llama", **settings)
    ours, _ = train(tmp_path, "llama", KEEP, **settings)
    same(ours, stock)
    noisy, _ = train(tmp_path, "llama", INFOBATCH, dropout=0.0, learning_rate=0.0, **settings)
    exact = alone("llama")
    assert (np.abs(noisy.history.loss - exact) > 1e-6).all()
    assert np.corrcoef(noisy.history.loss, exact)[0, 1] > 0.5
    assert min(epoch["rows"] for epoch in noisy.pruning_report().epochs) < 22


@pytest.mark.parametrize("case", ["bf16, pairs", "fp16", "recomputed activations"])
def test_keeping_every_row_is_the_stock_trainer(tmp_path, case):
    name, settings, _ = CASES[case]
    settings = dict(settings, gradient_accumulation_steps=2)
    same(train(tmp_path, name, KEEP, **settings)[0], train(tmp_path, name, **settings)[0])


# ---- Compiled models ----


@pytest.mark.slow
def test_a_compiled_model_keeps_its_bits_and_is_measured(tmp_path):
    rng = np.random.default_rng(1)
    rows = [{"input_ids": rng.integers(3, 31, 6).tolist()} for _ in range(16)]  # one shape: compiled once
    rows = [row | {"labels": row["input_ids"]} for row in rows]
    settings = dict(rows=rows, torch_compile=True, torch_compile_backend="aot_eager", dataloader_drop_last=True)
    settings |= dict(dropout=0.0, learning_rate=0.0)
    stock, _ = train(tmp_path, "llama", num_train_epochs=1, **settings)
    ours, _ = train(tmp_path, "llama", INFOBATCH, num_train_epochs=2, **settings)
    assert type(ours.model_wrapped).__name__ == "OptimizedModule"
    for name in "loss", "grad_norm":  # nothing is pruned or weighted in the first epoch
        found, expected = ([entry[name] for entry in run.state.log_history[:4]] for run in (ours, stock))
        assert found == expected
    np.testing.assert_allclose(ours.history.loss, alone("llama", rows), rtol=1e-5)
    assert ours.pruning_report().epochs[1]["rows"] < 16
