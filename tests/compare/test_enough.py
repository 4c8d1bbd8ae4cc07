"""How many seeds arms need, and which arms are decided; qualities without rows, so that seeds alone count."""

import pytest
from compared import ARMS, means_of

from hf_prune.compare.enough import duration, needs, stopped
from hf_prune.compare.plan import Arm
from hf_prune.compare.power import Spread

MINE, YOURS = Arm(("--policy", "mine"), "policy"), Arm(("--policy", "yours"), "policy")
TWO = {name: ARMS[name] for name in ("full", "short-50")} | {"mine": MINE, "yours": YOURS}
HALF = dict.fromkeys(("short-50", "mine", "yours"), 2000)


def test_two_seeds_are_pooled_over_the_arms(tmp_path):
    """Differences 0 and 2, and 0 and 4: variances 2 and 8, pooled 5. A difference of one deviation needs ten seeds."""
    values = {"short-50": [5, 5], "mine": [5, 7], "yours": [5, 9]}
    found = means_of(tmp_path, values, TWO, margin=5**0.5, tokens=HALF, jobs=4)
    mine, yours = needs(found)
    assert mine.spread == yours.spread == Spread(5, 0, 2)
    assert (mine.arm, mine.to, mine.seeds, mine.needed) == ("mine", "short-50", 2, 10)
    assert mine.between == Spread(5, 0, 2).range_needed(5**0.5) and mine.between[0] < 10
    assert mine.seconds == 2 * 8 * 200 / 4  # 200 seconds a run, four at once


def test_from_five_seeds_on_an_arm_has_its_own_spread(tmp_path):
    values = {"short-50": [5] * 5, "mine": [5, 6, 7, 8, 9], "yours": [5, 15]}
    found = means_of(tmp_path, values, TWO, margin=1, tokens=HALF)
    mine, yours = needs(found)
    assert mine.spread == Spread(2.5, 0, 4)
    assert yours.spread == Spread((4 * 2.5 + 50) / 5, 0, 5)


def test_nothing_is_planned_without_a_margin_a_rival_or_two_seeds(tmp_path):
    values = {"short-50": [5, 5], "mine": [5, 7], "yours": [5]}
    assert [need.arm for need in needs(means_of(tmp_path, values, TWO, margin=1, tokens=HALF))] == ["mine"]
    assert needs(means_of(tmp_path, values, TWO, tokens=HALF)) == []
    assert needs(means_of(tmp_path, values, TWO, margin=1, tokens={"short-50": 2000, "mine": 2600})) == []


@pytest.mark.parametrize(
    "differences, margin, seeds, reason",
    [
        # 99.9 %: 31.6 * 0.1 / sqrt(3) = 1.82 to either side
        ([9.9, 10, 10.1], 0.5, 8, "better than short-50, 99.9 % CI +8.1756 to +11.8244 with 3 seeds"),
        ([-9.9, -10, -10.1], 0.5, 8, "worse than short-50, 99.9 % CI -11.8244 to -8.1756 with 3 seeds"),
        ([-0.1, 0, 0.1], 2, 8, "same quality as short-50 within 2, 99.9 % CI -1.8244 to +1.8244 with 3 seeds"),
        ([-0.1, 0, 0.1], 1, 8, None),
        ([10, 12, 14], 0.5, 8, None),  # 95 % would exclude 0
        ([9.9, 10], 0.5, 8, None),  # two seeds may agree by chance
        ([9.9, 10, 10.1], 0.5, 3, None),  # the last look is no look before the last
        ([10, 10, 10], 0.5, 8, None),
        # 95 % by t: 2.571 * 1.095 / sqrt(6) = 1.15; such a difference needs 10 seeds
        ([-1, 1] * 3, 0.5, 8, "8 seeds would decide nothing, even a difference from short-50 of 1.1496 needs 10"),
        ([-1, 1] * 3, 0.5, 10, None),
        ([-1, 1] * 3, 3, 8, None),  # within reach
    ],
)
def test_an_arm_is_decided(tmp_path, differences, margin, seeds, reason):
    arms = {name: TWO[name] for name in ("full", "short-50", "mine")}
    values = {name: [20] * len(differences) for name in ("full", "short-50")}
    values["mine"] = [20 + difference for difference in differences]
    found = means_of(tmp_path, values, arms, margin=margin, tokens=HALF, seeds=seeds)
    rest = dict.fromkeys(("full", "short-50"), "no undecided arm needs it")
    assert stopped(found, found.plan) == ({"mine": reason} | rest if reason else {})


def test_baselines_go_on_that_an_undecided_arm_needs(tmp_path):
    arms = ARMS | {"mine": MINE, "short-20": Arm((), "short", 0.2), "uniform-20": Arm((), "uniform", 0.2)}
    tokens = dict.fromkeys(("short-20", "uniform-20", "mine"), 800)
    tokens |= dict.fromkeys(("short-50", "uniform-50", "infobatch"), 2000)
    values = dict.fromkeys(("full", "short-50", "uniform-50", "short-20", "uniform-20"), [20, 20, 20])
    values |= {"infobatch": [18, 20, 22], "mine": [29.9, 30, 30.1]}
    found = means_of(tmp_path, values, arms, margin=0.5, tokens=tokens, seeds=8)
    assert set(stopped(found, found.plan)) == {"mine", "short-20", "uniform-20"}
    del values["infobatch"]  # whom it will need is not known yet
    found = means_of(tmp_path, values, arms, margin=0.5, tokens=tokens, seeds=8)
    assert set(stopped(found, found.plan)) == {"mine"}


def test_times_are_told_in_words():
    assert [duration(seconds) for seconds in (0.2, 1, 80, 90, 3600, 5 * 3600, 3 * 86400)] == [
        *("1 second", "1 second", "80 seconds", "2 minutes", "60 minutes", "5 hours", "3 days")
    ]
