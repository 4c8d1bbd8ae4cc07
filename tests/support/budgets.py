"""The policies with a budget, set to half of the rows; the folder of the policies says which there are."""

import dataclasses

import numpy as np

from hf_prune import History, policies
from hf_prune.core.features import Features

SPELLED = {"listed": "listed:column=chosen"}  # policies that have to be told something


def spelled(name):
    """A policy's name, with what it has to be told, as its user writes it."""
    return SPELLED.get(name, name)


def needs_scores(name):
    """Whether a policy can't begin without what an earlier run has measured."""
    policy = policies.make(name)
    history = History.empty(3)
    history.features = Features(columns={column: np.ones(3, bool) for column in policy.reads_columns})
    try:
        policy.begin(history, None)
    except ValueError:
        return True
    return False


def _halves():
    found = {"self_paced": "self_paced:start=0.5,ramp=1000"}  # its budget grows
    for name in policies.names():
        fields = {field.name for field in dataclasses.fields(policies.find(name))}
        if "keep" in fields:
            found[name] = f"{name}:keep=0.5" + ",period=1" * ("period" in fields)
    return found | {"uniform, cover": "uniform:keep=0.5,cover=True"}


HALVES = _halves()
FROM_NOTHING = {  # read the losses of their own run alone
    name: text for name, text in HALVES.items() if policies.make(text).needs <= {"loss"} and not needs_scores(text)
}
