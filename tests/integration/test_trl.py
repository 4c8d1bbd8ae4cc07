"""TRL's trainers: what they train stays theirs, and each row's loss is its own, padded, joined or packed."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from talks import DEPRECATED, QUIET, losses_alone, model, sentence, tokenizer, turns
from tiny import TASKS, trainer

pytest.importorskip("trl", reason="TRL is not installed: pip install trl")
peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install peft")

from transformers import (  # noqa: E402
    LlamaConfig,
    LlamaForSequenceClassification,
    MixtralConfig,
    MixtralForCausalLM,
)
from trl import (  # noqa: E402
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    KTOConfig,
    KTOTrainer,
    RewardConfig,
    RewardTrainer,
    SFTConfig,
    SFTTrainer,
)
from trl.experimental.cpo import CPOConfig, CPOTrainer  # noqa: E402
from trl.experimental.orpo import ORPOConfig, ORPOTrainer  # noqa: E402

from hf_prune import Policy, Selection, pruned  # noqa: E402

pytestmark = DEPRECATED


PAGE = (Path(__file__).parents[2] / "hf_prune" / "train" / "README.md").read_text(encoding="utf-8")


ROWS = {
    "texts": lambda rng: {"text": sentence(rng)},
    "talks": lambda rng: {"messages": turns(rng)},
    "answers": lambda rng: {"prompt": sentence(rng), "completion": " " + sentence(rng)},
    "pairs": lambda rng: {"prompt": sentence(rng), "chosen": " " + sentence(rng), "rejected": " " + sentence(rng)},
}


def rows(kind: str, n: int = 22) -> Dataset:
    rng = np.random.default_rng(1)
    return Dataset.from_list([ROWS[kind](rng) for _ in range(n)])


def lora():
    return peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


def sft(folder, kind="texts", policy=None, adapter=None, **settings):
    """The stock trainer where there is no policy."""
    settings = QUIET | dict(per_device_train_batch_size=4, num_train_epochs=2, learning_rate=1e-2) | settings
    args = SFTConfig(str(folder), **settings)
    make, more = (SFTTrainer, {}) if policy is None else (pruned(SFTTrainer), dict(policy=policy))
    more["peft_config"] = adapter and adapter()
    return make(model=model(), args=args, train_dataset=rows(kind), processing_class=tokenizer(), **more)


# name -> kind of rows, settings
FORMS = {
    "padded": ("texts", {}),
    "joined": ("texts", dict(padding_free=True, max_length=None)),
    "joined and filled up": ("texts", dict(padding_free=True, max_length=None, pad_to_multiple_of=16)),
    "packed": ("texts", dict(packing=True, max_length=20)),
    "packed, wrapped": ("texts", dict(packing=True, packing_strategy="wrapped", max_length=20)),
    "assistant alone": ("talks", dict(assistant_only_loss=True)),
    "assistant alone, joined": ("talks", dict(assistant_only_loss=True, padding_free=True, max_length=None)),
    "completion alone": ("answers", {}),
    "LoRA": ("texts", dict(adapter=lora)),
    "LoRA, joined": ("answers", dict(adapter=lora, padding_free=True, max_length=None)),
}


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("form", FORMS)
def test_each_row_has_its_own_loss(tmp_path, form, accumulation):
    kind, settings = FORMS[form]
    ours = sft(
        tmp_path, kind, "infobatch:ratio=0", learning_rate=0.0, gradient_accumulation_steps=accumulation, **settings
    )
    ours.train()
    data = ours.train_dataset
    expected = np.array(losses_alone(model(), data))
    assert np.diff(np.sort(expected)).min() > 1e-5, "rows that are mixed up would not show"
    np.testing.assert_allclose(ours.history.loss, expected, rtol=0, atol=2e-5)
    assert ours.history.tokens.tolist() == [len(row["input_ids"]) for row in data]
    assert len(data) > 4 and (ours.history.last_round == 1).all() and (ours.history.faults == 0).all()


@pytest.mark.parametrize("form", [*FORMS, "dft", "smoothed"])
def test_keeping_every_row_is_the_stock_trainer(tmp_path, form):
    more = {"dft": dict(loss_type="dft"), "smoothed": dict(label_smoothing_factor=0.1)}
    kind, settings = FORMS.get(form) or ("texts", more[form])
    ends = []
    for policy in None, "uniform:keep=1.0":
        if form == "smoothed":
            with pytest.warns(FutureWarning, match="label_smoothing_factor"):
                ours = sft(tmp_path, kind, policy, gradient_accumulation_steps=2, **settings)
        else:
            ours = sft(tmp_path, kind, policy, gradient_accumulation_steps=2, **settings)
        ours.train()
        skipped = ("train_runtime", "train_samples_per_second", "train_steps_per_second")
        logs = [
            {name: value for name, value in entry.items() if name not in skipped and not name.startswith("prune/")}
            for entry in ours.state.log_history
        ]
        ends.append((logs, ours.state.global_step, {k: v.clone() for k, v in ours.model.state_dict().items()}))
    (stock, steps, weights), (kept, kept_steps, kept_weights) = ends
    assert "entropy" in stock[0] and kept == stock  # TRL's own numbers, too
    assert kept_steps == steps > 1
    assert all(torch.equal(kept_weights[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    ("form", "more", "is_told"), [("padded", {}, True), ("packed, wrapped", {"max_length": 130}, False)]
)
def test_padding_is_told_of_where_rows_are_not_packed(tmp_path, caplog, form, more, is_told):
    """A pack that is not full is padded to the others, which no order of the packs saves."""
    kind, settings = FORMS[form]
    ours = sft(tmp_path, kind, "uniform:keep=1.0", **settings | more)
    with caplog.at_level(logging.WARNING, "hf_prune"):
        ours.train()
    assert ours.pruning_report().totals()["padding"] > 0.2
    assert ("were padding" in caplog.text) == is_told


def test_weights_reach_joined_rows_as_they_do_padded_ones(tmp_path):
    ends = {}
    for form in "padded", "joined":
        ours = sft(tmp_path / form, policy="infobatch:ratio=0.5,anneal=1.0", num_train_epochs=4, **FORMS[form][1])
        ours.train()
        assert any(epoch["rows"] < 22 for epoch in ours.pruning_report().epochs)
        ends[form] = ours
    padded, joined = ends["padded"], ends["joined"]
    assert [e["rows"] for e in padded.pruning_report().epochs] == [e["rows"] for e in joined.pruning_report().epochs]
    assert padded.history.last_round.tolist() == joined.history.last_round.tolist()
    np.testing.assert_allclose(joined.history.loss, padded.history.loss, atol=1e-4)
    for name, value in padded.model.state_dict().items():
        torch.testing.assert_close(joined.model.state_dict()[name], value, atol=1e-4, rtol=0)
    tokens, real = (run.pruning_report().epochs[0]["padded_tokens"] for run in (padded, joined))
    assert tokens > real == joined.history.tokens.sum()


def test_hidden_rows_are_measured_joined_as_they_are_padded(tmp_path):
    policy = "kakurenbo:by_confidence=True,hide=0.5,threshold=0.0"
    padded, joined = (
        sft(tmp_path, policy=policy, learning_rate=0.0, num_train_epochs=3, **FORMS[form][1])
        for form in ("padded", "joined")
    )
    for ours in padded, joined:
        ours.train()
        assert [epoch["rows_rescored"] for epoch in ours.pruning_report().epochs] == [0, 8, 0]  # whole steps of 4
    np.testing.assert_allclose(joined.history.loss, losses_alone(model(), joined.train_dataset), atol=2e-5)
    assert joined.history.last_round.tolist() == padded.history.last_round.tolist()


@pytest.mark.parametrize("adapter", [None, lora])
def test_a_pruned_run_is_saved_with_its_card(tmp_path, adapter):
    settings = dict(save_strategy="epoch", num_train_epochs=3)
    ours = sft(tmp_path, policy="uniform:keep=0.5", adapter=adapter, **settings)
    ours.train()
    assert [epoch["rows"] for epoch in ours.pruning_report().epochs] == [12, 12, 12]  # whole steps of 4
    assert (ours.state.global_step, ours.state.epoch) == (9, 3.0)
    ours.save_model()
    ours.create_model_card(model_name="small", dataset_name="words", tags=["mine"])
    card = (tmp_path / "README.md").read_text()
    assert card.count("## Data pruning") == 1
    assert "- mine" in card and "- hf_prune" in card and "- sft" in card
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-3", "checkpoint-6", "checkpoint-9"}
    assert (tmp_path / "history.safetensors").is_file()
    end = {name: value.clone() for name, value in ours.model.state_dict().items()}
    again = sft(tmp_path, policy="uniform:keep=0.5", adapter=adapter, **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert all(torch.equal(again.model.state_dict()[name], end[name]) for name in end)


def test_a_loss_that_weighs_tokens_is_weighted_by_row_and_said_to_be_another(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "hf_prune"):
        ours = sft(tmp_path, policy="infobatch:ratio=0.5,anneal=1.0", loss_type="dft")
        ours.train()
    assert min(epoch["rows"] for epoch in ours.pruning_report().epochs) < len(ours.train_dataset)
    assert "which the recorded losses leave out" in caplog.text


@pytest.mark.parametrize(("experts", "chosen"), [(2, 1), (16, 8)])
def test_a_mixture_whose_router_is_balanced_is_weighted_to_the_end(tmp_path, monkeypatch, experts, chosen):
    """TRL turns that loss on by itself; it does not fall with the rows'."""
    torch.manual_seed(0)
    sizes = dict(vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
    config = MixtralConfig(**sizes, num_key_value_heads=1, num_local_experts=experts, num_experts_per_tok=chosen)
    mixture = MixtralForCausalLM(config)
    monkeypatch.setitem(globals(), "model", lambda: mixture)
    ours = sft(tmp_path, policy="infobatch:anneal=1.0", num_train_epochs=12)
    ours.train()
    assert ours.aux_loss_enabled and ours.state.epoch == 12
    assert min(epoch["rows"] for epoch in ours.pruning_report().epochs) < len(ours.train_dataset)


@dataclass(frozen=True)
class Curious(Policy):
    """Keeps everything and wants to know `what`."""

    what: str

    @property
    def needs(self):
        return frozenset({"loss", self.what})

    def select(self, history, clock, rng):
        return Selection(np.arange(len(history)))


def test_a_fused_loss_gives_confidence_and_no_more(tmp_path):
    ours = sft(tmp_path, policy=Curious("confidence"))
    ours.train()
    np.testing.assert_allclose(ours.history.signals["confidence"], np.exp(-ours.history.loss), rtol=1e-5)
    with pytest.raises(ValueError, match=r"gives \['confidence', 'loss'\], not \['el2n'\]"):
        sft(tmp_path, policy=Curious("el2n")).train()


# ---- Losses of their own ----


def judge():
    torch.manual_seed(0)
    sizes = dict(vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
    return LlamaForSequenceClassification(LlamaConfig(**sizes, num_labels=1, pad_token_id=0))


def preferences(folder, cls, policy, net=model, columns=("prompt", "chosen", "rejected"), **settings):
    """A trainer of TRL that learns from pairs of answers, and what it takes."""
    own = {"example_loss_func": settings.pop("example_loss_func")} if "example_loss_func" in settings else {}
    settings = dict(per_device_train_batch_size=4, num_train_epochs=2, learning_rate=1e-3, max_length=32) | settings
    args = CONFIGS[cls](str(folder), **QUIET, **settings)
    data = rows("pairs").select_columns(list(columns))
    return pruned(cls)(model=net(), args=args, train_dataset=data, processing_class=tokenizer(), policy=policy, **own)


def reward(folder, policy, **more):
    return preferences(folder, RewardTrainer, policy, judge, ("chosen", "rejected"), **more)


def dpo(folder, policy, **more):
    return preferences(folder, DPOTrainer, policy, precompute_ref_log_probs=True, **more)


def cpo(folder, policy, **more):
    return preferences(folder, CPOTrainer, policy, **more)


def orpo(folder, policy, **more):
    return preferences(folder, ORPOTrainer, policy, **more)


CONFIGS = {RewardTrainer: RewardConfig, DPOTrainer: DPOConfig, CPOTrainer: CPOConfig, ORPOTrainer: ORPOConfig}
MAKERS = [reward, dpo, cpo, orpo]


@pytest.mark.parametrize("make", MAKERS)
def test_a_loss_of_their_own_is_refused_with_the_cure(tmp_path, make):
    with pytest.raises(ValueError, match="needs loss, but the trainer makes a loss of its own out of .*chosen_"):
        make(tmp_path, "infobatch")


@pytest.mark.parametrize("make", MAKERS)
def test_rows_alone_are_pruned_whatever_the_loss(tmp_path, caplog, make):
    with caplog.at_level(logging.WARNING, "hf_prune"):
        ours = make(tmp_path, "uniform:keep=0.5")
    ours.train()
    assert [epoch["rows"] for epoch in ours.pruning_report().epochs] == [12, 12]
    assert "records no losses of Llama" in caplog.text and "example_loss_func" in caplog.text


def page_functions() -> dict:
    (code,) = re.findall(r"```python\n(import torch\n.*?def orpo.*?)```", PAGE, re.DOTALL)
    functions: dict = {}
    exec(code, functions)
    return functions


@pytest.mark.parametrize("make", MAKERS)
def test_they_are_served_by_the_functions_of_the_page(tmp_path, make):
    seen, theirs, losses_of = [], [], page_functions()[make.__name__]

    def losses(outputs, inputs):
        found = losses_of(outputs, inputs)
        seen.append(found.detach())
        return found

    ours = make(tmp_path, "infobatch:ratio=0.5,anneal=1.0", example_loss_func=losses)
    step = ours.training_step
    ours.training_step = lambda *args, **kwargs: theirs.append(step(*args, **kwargs)) or theirs[-1]
    ours.train()
    epochs = ours.pruning_report().epochs
    assert epochs[0]["rows"] == 22 > epochs[1]["rows"]
    for mine, their in zip(seen[: epochs[0]["steps"]], theirs, strict=False):  # unweighted yet
        torch.testing.assert_close(mine.mean(), their, rtol=1e-4, atol=1e-5)
    assert np.isfinite(ours.history.loss).all()


def test_each_pair_of_answers_has_its_own_loss(tmp_path):
    ours = reward(tmp_path, "infobatch:ratio=0.5", example_loss_func=page_functions()["reward"], learning_rate=0.0)
    ours.train()
    net, expected = judge(), []
    for row in ours.train_dataset:
        with torch.no_grad():
            score = [net(input_ids=torch.tensor([row[name]])).logits.item() for name in ("chosen_ids", "rejected_ids")]
        expected.append(np.log1p(np.exp(score[1] - score[0])))
    np.testing.assert_allclose(ours.history.loss, expected, atol=1e-5)


# ---- Rows that make sense in their own company alone ----


def kto(folder, policy, loss_type):
    model().save_pretrained(folder / "model")  # which the reference model is read from
    rng = np.random.default_rng(1)
    data = [{"prompt": sentence(rng), "completion": f" {sentence(rng)}", "label": n % 2 == 0} for n in range(22)]
    settings = dict(loss_type=loss_type, train_sampling_strategy="sequential", per_device_train_batch_size=4)
    args = KTOConfig(str(folder), **QUIET, **settings, num_train_epochs=2, max_length=32)
    source = dict(model=str(folder / "model"), processing_class=tokenizer(), train_dataset=Dataset.from_list(data))
    return pruned(KTOTrainer)(args=args, policy=policy, **source)


@pytest.mark.parametrize("policy", ["uniform:keep=0.5", "infobatch"])
def test_pairs_of_neighbours_are_refused_at_once(tmp_path, policy):
    with pytest.raises(ValueError, match="estimates its KL term from rows that stand beside .*'apo_zero_unpaired'"):
        kto(tmp_path, policy, "kto")


def test_kto_without_its_kl_term_is_pruned(tmp_path):
    ours = kto(tmp_path, "uniform:keep=0.5", "apo_zero_unpaired")
    ours.train()
    assert [epoch["rows"] for epoch in ours.pruning_report().epochs] == [12, 12]
    with pytest.raises(ValueError, match="the trainer makes a loss of its own out of .*completion_ids"):
        kto(tmp_path, "infobatch", "apo_zero_unpaired")


def test_a_sampler_that_repeats_rows_is_refused_at_once(tmp_path):
    settings = dict(per_device_train_batch_size=4, num_generations=2, max_completion_length=4)
    with pytest.raises(ValueError, match="PruningGRPOTrainer has a training sampler of its own.*RepeatSampler"):
        pruned(GRPOTrainer)(
            model=model(),
            reward_funcs=lambda completions, **more: [0.0] * len(completions),
            args=GRPOConfig(str(tmp_path), **QUIET, **settings),
            train_dataset=rows("pairs").select_columns("prompt"),
            processing_class=tokenizer(),
            policy="uniform:keep=0.5",
        )


def test_the_head_that_lora_adapts_is_the_whole_one(tmp_path):
    """grad_norm takes what goes into it, and not what goes into the adapter's last layer."""
    task = TASKS["one label"]
    found = []
    for adapted in (False, True):
        model = task.model(0.0, 0.5)
        if adapted:
            model = peft.get_peft_model(model, peft.LoraConfig(r=3, target_modules=["query", "classifier"]))
        ours = trainer(tmp_path, model, task.rows(), "grand:keep=1", num_train_epochs=1, learning_rate=0.0)
        ours.train()
        found.append(ours.history.signals["grad_norm"])
    np.testing.assert_allclose(*found, rtol=1e-4)
