"""PEFT's virtual tokens stand before every row: its loss and its tokens stay the row's own."""

import numpy as np
import pytest
import torch
from tiny import TASKS, Collator, trainer

peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install peft")

pytestmark = pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing.*` is deprecated:FutureWarning")
KINDS = {
    "prompt tuning": lambda **settings: peft.PromptTuningConfig(**settings),
    "p-tuning": lambda **settings: peft.PromptEncoderConfig(**settings, encoder_hidden_size=8),
    "prefix tuning": lambda **settings: peft.PrefixTuningConfig(**settings),
}
MODELS = {
    "llama": "CAUSAL_LM",
    "gpt2": "CAUSAL_LM",
    "one label": "SEQ_CLS",
    "answer": "QUESTION_ANS",
    "t5": "SEQ_2_SEQ_LM",
    "bart": "SEQ_2_SEQ_LM",
}


def tuned(name: str, kind: str, dropout: float = 0.0):
    torch.manual_seed(0)
    config = KINDS[kind](task_type=MODELS[name], num_virtual_tokens=4)
    return peft.get_peft_model(TASKS[name].model(dropout, spread=0.2), config)


@pytest.mark.parametrize("policy", ["infobatch:anneal=1.0", "self_paced"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_each_row_is_recorded_as_the_tuned_model_has_it(tmp_path, name, kind, policy):
    rows, model = TASKS[name].rows(8), tuned(name, kind)
    model.eval()
    with torch.no_grad():
        expected = [model(**Collator()([row])).loss.item() for row in rows]
    settings = dict(num_train_epochs=1, learning_rate=0.0, is_pair=TASKS[name].is_pair)
    ours = trainer(tmp_path, model, rows, policy, **settings)
    ours.train()
    history = ours.history
    seen = ~np.isnan(history.loss)  # self-paced learning begins with few
    assert seen.any()
    np.testing.assert_allclose(history.loss[seen], np.array(expected)[seen], rtol=1e-4)
    decoded = [len(row["labels"]) if TASKS[name].is_pair else 0 for row in rows]
    masks = [row.get("attention_mask", row["input_ids"]) for row in rows]
    shown = [np.count_nonzero(mask) + more for mask, more in zip(masks, decoded, strict=True)]
    assert history.tokens[seen].tolist() == np.array(shown)[seen].tolist()


@pytest.mark.parametrize("policy", ["infobatch:anneal=1.0", "self_paced"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_causal_model_trains_to_the_end(tmp_path, kind, policy):
    ours = trainer(tmp_path, tuned("llama", kind, 0.1), TASKS["llama"].rows(), policy, num_train_epochs=4)
    ours.train()
    assert np.isfinite(ours.history.loss).all() and not ours.history.faults.any()
    assert 0 < ours.state.global_step < 4 * 6


def test_what_weighs_its_prompt_is_not_read(tmp_path, caplog):
    prompt = dict(cpt_token_ids=[3, 4, 5, 6], cpt_mask=[1] * 4, cpt_tokens_type_mask=[1, 2, 3, 4])
    model = peft.get_peft_model(TASKS["llama"].model(0.0), peft.CPTConfig(task_type="CAUSAL_LM", **prompt))
    ours = trainer(tmp_path, model, TASKS["llama"].rows(8), "self_paced", num_train_epochs=1)
    ours.train()
    assert "CPT of PEFT makes a loss of its own" in caplog.text
    assert np.isfinite(ours.history.loss).any()
