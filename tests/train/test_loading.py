"""Weights that were saved under other names than they have in memory are read back, all of them."""

import pytest
import torch
from tiny import TASKS, trainer

from hf_prune.train.loading import saved_names

SETTINGS = dict(num_train_epochs=3, save_strategy="epoch", eval_strategy="epoch", per_device_train_batch_size=8)


def run(folder, policy="infobatch", spread=0.0, resume=None, **settings):
    """A run of the image task; `spread` gives the model other weights to begin with."""
    task = TASKS["image"]
    rows = task.rows()
    made = trainer(folder, task.model(spread=spread), rows, policy, eval_dataset=rows, **SETTINGS | settings)
    made.train(resume_from_checkpoint=resume)
    return made


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def differing(ours, theirs):
    assert ours.keys() == theirs.keys()
    return [name for name in ours if not torch.equal(ours[name], theirs[name])]


@pytest.mark.parametrize("policy", ["infobatch", None])
def test_a_resumed_run_goes_on_from_every_weight(tmp_path, policy):
    straight = run(tmp_path, policy)
    resumed = run(tmp_path / "other", policy, spread=0.5, resume=str(tmp_path / "checkpoint-3"))
    assert differing(weights(resumed.model), weights(straight.model)) == []


@pytest.mark.parametrize("shard", ["5GB", "2KB"])
def test_the_best_model_is_loaded_whole(tmp_path, monkeypatch, shard):
    task = TASKS["image"]
    cls = type(task.model())
    save = cls.save_pretrained
    monkeypatch.setattr(cls, "save_pretrained", lambda self, *args, **kw: save(self, *args, **kw, max_shard_size=shard))
    made = run(tmp_path, load_best_model_at_end=True, metric_for_best_model="loss", greater_is_better=True)
    assert made.state.best_model_checkpoint.endswith("checkpoint-3")  # the worst: not the last
    best = cls.from_pretrained(tmp_path / "checkpoint-3")
    assert differing(weights(made.model), weights(best)) == []
    assert differing(weights(made.model), weights(cls.from_pretrained(tmp_path / "checkpoint-9"))) != []


def test_names_in_one_file_in_several_and_in_none(tmp_path):
    model = TASKS["image"].model()
    for folder, size in (("one", "5GB"), ("several", "2KB")):
        model.save_pretrained(tmp_path / folder, max_shard_size=size, save_original_format=False)
        assert saved_names(str(tmp_path / folder)) == set(model.state_dict())
    assert not (tmp_path / "several" / "model.safetensors").exists()
    assert saved_names(str(tmp_path)) == set()
