"""Class quotas, by hand."""

import numpy as np
import pytest

from hf_prune import Clock, History
from hf_prune.core.features import Features
from hf_prune.policies.class_quota import ClassQuota, quotas


def at(share=0.5, step_rows=1):
    return Clock(3, 3, 10, share, step_rows)


def history_of(*sizes, signals=()):
    history = History.empty(sum(sizes), signals)
    history.features = Features((), classes=np.repeat(np.arange(len(sizes)), sizes))
    return history


def counts(policy, history, seed=0, **clock):
    rows = policy.select(history, at(**clock), np.random.default_rng(seed)).rows
    return np.bincount(history.features.classes[rows], minlength=history.features.classes.max() + 1).tolist()


@pytest.mark.parametrize(
    ("sizes", "weights", "k", "expected"),
    [
        ([100, 100], [1, 1], 50, [25, 25]),
        ([100, 25, 4], [10, 5, 2], 34, [20, 10, 4]),  # 34 * 10/17, 34 * 5/17, 34 * 2/17
        ([100, 25, 4], [10, 5, 2], 51, [94 / 3, 47 / 3, 4]),  # 30, 15, 6: the third holds 4; 47 by 10 : 5
        ([10, 5], [1, 9], 12, [7, 5]),
        ([10, 5], [1, 1], 99, [10, 5]),
        ([10, 0, 5], [1, 1, 1], 6, [3, 0, 3]),
    ],
)
def test_quotas(sizes, weights, k, expected):
    np.testing.assert_allclose(quotas(np.array(sizes), np.array(weights, float), k), expected)


def test_half_of_a_tail_of_25_to_1():
    """Sizes 100, 25, 4, tau 0.5: roots 10, 5, 2 of 17; 65 rows: 38.2, 19.1, 7.6; class 2 holds 4; 61 by 10 : 5."""
    found = counts(ClassQuota(keep=0.5), history_of(100, 25, 4))
    assert found[2] == 4 and sum(found) == 65
    assert found[0] in (40, 41) and found[1] in (20, 21)
    assert counts(ClassQuota(keep=0.5, tau=0), history_of(100, 25, 4)) == [50, 13, 2]
    assert counts(ClassQuota(keep=0.5, tau=1), history_of(100, 25, 4)) == [36, 25, 4]


def test_the_head_is_drawn_anew_and_every_row_of_a_class_alike():
    history, policy = history_of(30, 3), ClassQuota(keep=0.5)
    visits, draws = np.zeros(33), 1000
    for seed in range(draws):
        visits[policy.select(history, at(), np.random.default_rng(seed)).rows] += 1
    assert (visits[30:] == draws).all()
    share = 14 / 30  # 17 rows in all, 3 of them the tail
    assert (np.abs(visits[:30] / draws - share) < 4 * np.sqrt(share * (1 - share) / draws)).all()


def test_by_recall_the_class_that_fails_gets_more():
    """40 rows a class, recalls 0.75 and 0: weights 40 * 0.25 and 40 * 1, so 8 and 32 of 40."""
    history = history_of(40, 40, signals=("correct",))
    correct = np.zeros(80, np.float32)
    correct[:30] = 1
    history.record(np.arange(80), np.ones(80, np.float32), 2, correct=correct)
    assert counts(ClassQuota(keep=0.5, by="recall"), history) == [8, 32]
    assert counts(ClassQuota(keep=0.5, by="recall", warmup=0.6), history) == [20, 20]


def test_tokens_may_be_the_budget_and_steps_are_filled():
    history = history_of(30, 10)
    history.tokens[:30], history.tokens[30:] = 1, 9
    rows = ClassQuota(keep=0.5, unit="tokens", tau=1).select(history, at(), np.random.default_rng(0)).rows
    assert 60 <= history.tokens[rows].sum() < 70
    assert sum(counts(ClassQuota(keep=0.5), history, step_rows=16)) == 32


@pytest.mark.parametrize(("field", "value"), [("tau", 1.5), ("warmup", -0.1), ("by", "class")])
def test_fields_outside_their_range_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"ClassQuota\({field}=...\) must be .* got {value!r}"):
        ClassQuota(**{field: value})
