"""nn.DataParallel, which Trainer takes on a machine of several GPUs without a launcher: stood in for on the CPU."""

import logging

import inside
import numpy as np
import pytest
import torch
from tiny import STOCK, TASKS, trainer

pytestmark = pytest.mark.slow  # runs of several processes

DEVICES = 2


class Split(torch.nn.DataParallel):
    """Cuts the batch between devices and joins what comes out, a loss of each, all on the CPU."""

    def __init__(self, module):
        torch.nn.Module.__init__(self)
        self.module = module

    def forward(self, **inputs):
        given = [
            {name: value.chunk(DEVICES)[place] for name, value in inputs.items() if isinstance(value, torch.Tensor)}
            for place in range(DEVICES)
        ]
        parts = [self.module(**(inputs | part)) for part in given]
        return {
            name: torch.cat([torch.atleast_1d(part[name]) for part in parts])
            for name, value in parts[0].items()
            if isinstance(value, torch.Tensor)
        }


@pytest.fixture
def make(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.nn, "DataParallel", Split)

    def made(task, policy, parallel=True, **settings):
        settings = {"per_device_train_batch_size": 2 if parallel else 4, "num_train_epochs": 3} | settings
        found = trainer(tmp_path, TASKS[task].model(0.0, 0.5), TASKS[task].rows(24), policy, **settings)
        found.args._n_gpu = DEVICES if parallel else 1
        found._train_batch_size = found.args.train_batch_size
        return found

    return made


@pytest.mark.parametrize("task", ["one label", "image", "tokens", "llama"])
def test_with_everything_kept_it_trains_the_stock_bits(make, task):
    stock, ours = make(task, STOCK), make(task, "uniform:keep=1.0")
    stock.train()
    ours.train()
    assert isinstance(ours.model_wrapped, Split) and ours.state.global_step == 18
    for name, parameter in stock.model.named_parameters():
        assert torch.equal(parameter, ours.model.get_parameter(name)), name


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("task", ["one label", "image", "tokens", "llama"])
def test_each_row_has_its_loss(make, task, average, accumulation, caplog):
    """And no other terms are seen in the devices' losses."""
    settings = {"learning_rate": 0.0, "gradient_accumulation_steps": accumulation}
    settings["average_tokens_across_devices"] = average
    alone, ours = make(task, "ucb:keep=0.5", False, **settings), make(task, "ucb:keep=0.5", **settings)
    with caplog.at_level(logging.WARNING, "hf_prune"):
        alone.train()
        ours.train()
    assert not [record.message for record in caplog.records if "terms" in record.message]
    np.testing.assert_allclose(ours.history.loss, alone.history.loss, rtol=1e-5)
    assert np.isfinite(ours.history.loss).all()


@pytest.mark.parametrize("task", ["one label", "tokens", "llama"])
def test_each_device_weights_its_rows(make, task):
    """Twice the weight on every row is twice the gradient."""

    def gradients(weight):
        ours = make(task, "infobatch", num_train_epochs=1)
        found, step = [], ours.training_step

        def weighted(model, inputs, *args, **kwargs):
            inside.steps(ours).weights = torch.full((24,), weight)
            model.zero_grad()
            step(model, inputs, *args, **kwargs)
            found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
            model.zero_grad()
            return torch.tensor(0.0)

        ours.training_step = weighted
        ours.train()
        return found

    for once, twice in zip(gradients(1.0), gradients(2.0), strict=True):
        torch.testing.assert_close(2 * once, twice, rtol=1e-3, atol=1e-6)


def test_the_input_of_a_head_is_on_many_devices(make):
    ours = make("one label", "grand:keep=1")
    with pytest.raises(ValueError, match="GPU"):
        ours.train()
