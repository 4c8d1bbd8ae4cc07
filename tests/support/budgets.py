"""The policies with a budget, set to half of the rows; the folder of the policies says which there are."""

import dataclasses

from hf_prune import History, policies


def needs_scores(name):
    """Whether a policy can't begin without what an earlier run has measured."""
    policy = policies.make(name)
    try:
        policy.begin(History.empty(3), None)
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
