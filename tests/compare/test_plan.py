"""The plan of a comparison: its arms, and what may stand in its file."""

import pytest
from compared import ARMS, changed

from hf_prune.compare.plan import Plan, plan_arms
from hf_prune.compare.verdict import Comparison


def test_every_budget_has_its_baselines_and_policies_that_take_one_get_it():
    texts = ["ucb:period=2 --bf16 True", "infobatch", "mine=ucb:keep=0.4", "slow=uniform:keep=1 --learning_rate 1e-5"]
    arms = plan_arms(texts, [0.3, 0.705], 10)
    assert {name: (" ".join(arm.flags), arm.kind, arm.budget) for name, arm in arms.items()} == {
        "full": ("--policy uniform:keep=1", "full", None),
        "short-30": ("--policy uniform:keep=1 --num_train_epochs 3", "short", 0.3),
        "uniform-30": ("--policy uniform:keep=0.3", "uniform", 0.3),
        "short-70.5": ("--policy uniform:keep=1 --num_train_epochs 7.05", "short", 0.705),
        "uniform-70.5": ("--policy uniform:keep=0.705", "uniform", 0.705),
        "ucb-30": ("--policy ucb:period=2,keep=0.3 --bf16 True", "policy", 0.3),
        "ucb-70.5": ("--policy ucb:period=2,keep=0.705 --bf16 True", "policy", 0.705),
        "infobatch": ("--policy infobatch", "policy", None),
        "mine": ("--policy ucb:keep=0.4", "policy", None),
        "slow": ("--policy uniform:keep=1 --learning_rate 1e-5", "baseline", None),  # it prunes nothing
    }


def test_a_plan_is_read_as_it_was_written(tmp_path):
    plan = Plan("recipes/x.py", ("--bf16",), ARMS, 3, 2, 0.7)
    plan.save(tmp_path)
    assert Plan.load(tmp_path) == plan


@pytest.mark.parametrize(
    "name", ["../../victim", "..", ".", ".hidden", "/etc", "a/b", "a\\b", "C:x", "a\nb", "", "\ud800"]
)
def test_the_name_of_an_arm_is_no_path(compare, tmp_path, name):
    compare({"full": [0.8]})
    changed(tmp_path / "command.json", lambda plan: plan["arms"].update({name: plan["arms"]["full"]}))
    with pytest.raises(ValueError, match="command.json is not the plan of a comparison, or damaged .*is no name"):
        Comparison.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        *({"seeds": 10**9}, {"seeds": 10**30}, {"seeds": 0}, {"seeds": 1.5}, {"seeds": "3"}, {"seeds": None}),
        *({"seeds": True}, {"jobs": -1}, {"margin": "x"}, {"margin": float("nan")}, {"margin": -1}, {"paths": "x"}),
        *({"margin": empty} for empty in ({}, [], "", False)),
        *({"paths": empty} for empty in ({}, [], "", False)),
        *({"arguments": ["x" * 10_001]}, {"x" * 100_000: 3}),
        *({"script": None}, {"script": ["x"]}, {"arguments": "x"}, {"arguments": [3]}, {"arguments": None}),
        *({"arms": []}, {"arms": {"full": None}}, {"arms": {"full": {}}}, {"more": 3}),
        *({"arms": {"a": {"flags": [], "kind": kind}}} for kind in ("other", None, ["full"])),
        *({"arms": {"a": {"flags": flags, "kind": "full"}}} for flags in ("x", [3], None, {})),
        *({"arms": {"a": {"flags": [], "kind": "full", "budget": budget}}} for budget in (2, -1, "x", float("nan"))),
    ],
)
def test_a_plan_out_of_bounds_is_refused(compare, tmp_path, change):
    compare({"full": [0.8]})
    changed(tmp_path / "command.json", lambda plan: plan.update(change))
    with pytest.raises(ValueError, match="command.json is not the plan of a comparison, or damaged") as refused:
        Comparison.load(tmp_path)
    assert len(str(refused.value)) < 700


@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "3", "null", "{}", '{"arms": 3}', "\xff"])
def test_a_plan_of_something_else_is_refused(compare, tmp_path, content):
    compare({"full": [0.8]})
    (tmp_path / "command.json").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match="command.json is not the plan of a comparison, or damaged"):
        Comparison.load(tmp_path)
