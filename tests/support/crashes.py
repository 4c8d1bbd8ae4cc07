"""A small run whose disk fails it, and what is left of one."""

import tiny

TASK = tiny.TASKS["one label"]


ROWS = 22


def make(folder, policy="infobatch:ratio=0.6", dropout=0.1, **settings):
    settings = {"save_strategy": "steps", "save_steps": 3, "num_train_epochs": 2} | settings
    return tiny.trainer(folder, TASK.model(dropout), TASK.rows(ROWS), policy=policy, **settings)


def end_of(trainer):
    weights = {name: tensor.numpy().tobytes() for name, tensor in trainer.model.state_dict().items()}
    return weights, {name: array.tobytes() for name, array in trainer.history.arrays().items()}


def fail_at(owner, place, how, call=2):
    """Make a method go wrong at its n-th call: `how` is called with the work that it would do."""
    stock, calls = getattr(owner, place), []

    def method(*args, **kwargs):
        calls.append(place)
        return how(lambda: stock(*args, **kwargs)) if len(calls) == call else stock(*args, **kwargs)

    setattr(owner, place, method)
