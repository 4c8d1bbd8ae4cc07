"""Trusted, by hand: the difference of two models' losses, and a share that halves (Wang et al., 2018)."""

import numpy as np
import pytest

from hf_prune import Clock, History
from hf_prune.policies.trusted import Trusted

# Two right pairs, a misaligned one, a copied one, two more right ones.
BASE = [3.0, 2.5, 6.0, 0.2, 4.0, 2.0]
TUNED = [2.0, 1.0, 6.1, 0.2, 2.0, 1.7]  # differences 1, 1.5, -0.1, 0, 2, 0.3


def scores_of(base=BASE, tuned=TUNED):
    history = History.empty(len(base), ("base_loss",))
    base, tuned = np.float32(base), np.float32(tuned)
    history.record(np.arange(len(base)), tuned, 0, base_loss=base)
    return history


def kept(policy, share=0.9, step_rows=1, seed=0, earlier=None, tokens=1):
    history = History.empty(len(BASE))
    history.tokens[:] = tokens
    policy.begin(history, scores_of() if earlier is None else earlier)
    clock = Clock(5, 5, 10, share, step_rows)
    rows = policy.select(history, clock, np.random.default_rng(seed)).rows.tolist()
    if policy.unit == "rows":
        assert policy.forecast(history, clock) == len(rows)
    return rows


def test_misaligned_and_copied_pairs_go_first():
    """Differences in order: rows 4, 1, 0, 5, 3, 2."""
    assert kept(Trusted(floor=2 / 3)) == [0, 1, 4, 5]
    assert kept(Trusted(floor=5 / 6)) == [0, 1, 3, 4, 5]
    assert kept(Trusted(floor=0.5)) == [0, 1, 4]
    assert kept(Trusted(floor=0.01)) == [4]


def test_a_loss_alone_would_keep_one_of_the_two():
    assert np.argsort(BASE)[-1] == 2 and np.argsort(BASE)[0] == 3


@pytest.mark.parametrize(
    ("share", "rows"), [(0.0, 6), (0.1, 5), (0.2, 3), (0.3, 3), (0.4, 2), (0.6, 1), (0.8, 1), (0.99, 1)]
)
def test_the_share_halves_down_to_the_floor(share, rows):
    """Half-life 0.2, floor 1/6: 6 rows, then 6 * 0.5^(t / 0.2), rounded up, until one is left."""
    assert len(kept(Trusted(floor=1 / 6, half_life=0.2), share)) == rows


def test_the_floor_holds_from_the_start_without_a_half_life():
    assert kept(Trusted(floor=0.5, half_life=0), share=0.0) == [0, 1, 4]


def test_whole_steps_and_the_same_rows_whatever_the_seed():
    assert kept(Trusted(floor=0.5), step_rows=4) == [0, 1, 4, 5]
    tied = scores_of([2.0] * 6, [1.0] * 6)
    assert len({tuple(kept(Trusted(floor=0.5), seed=seed, earlier=tied)) for seed in range(9)}) == 1


def test_a_share_of_tokens():
    """Tokens 4 and 10, together 14 of 24: the half is reached with row 1."""
    assert kept(Trusted(floor=0.5, unit="tokens"), tokens=[2, 10, 2, 2, 4, 4]) == [1, 4]


def test_rows_that_a_model_could_not_score_are_kept_first():
    assert kept(Trusted(floor=0.5), earlier=scores_of([*BASE[:2], np.nan, *BASE[3:]])) == [1, 2, 4]
    earlier = scores_of(tuned=[*TUNED[:3], np.nan, *TUNED[4:]])
    assert kept(Trusted(floor=0.5), earlier=earlier) == [1, 3, 4]


def test_the_losses_of_other_models_are_not_those_of_the_run():
    history = History.empty(6)
    Trusted().begin(history, scores_of())
    assert np.isnan(history.loss).all() and list(history.notes) == ["score"]
    np.testing.assert_allclose(history.notes["score"], np.subtract(BASE, TUNED), atol=1e-6)
    assert history.notes["score"].dtype == np.float32


@pytest.mark.parametrize("earlier", [None, History.empty(6), scores_of([np.nan] * 6)])
def test_without_two_losses_it_is_refused_with_the_cure(earlier):
    with pytest.raises(ValueError, match=r"Trusted\(.*hf-prune score --model TUNED --base BASE .*history='scores'"):
        Trusted().begin(History.empty(6), earlier)


@pytest.mark.parametrize(("field", "value"), [("floor", 0), ("floor", 1.5), ("half_life", -1), ("unit", "steps")])
def test_fields_outside_their_range_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"Trusted\({field}=...\) must be .* got '?{value}"):
        Trusted(**{field: value})


def test_a_run_keeps_ever_fewer_rows_and_counts_the_scoring(make):
    scores = make(None).score_rows()
    scores.signals["base_loss"] = scores.loss + np.arange(22, dtype=np.float32)
    scores.facts["cost"]["runs"] = 2
    ours = make("trusted:floor=0.3,half_life=0.25", num_train_epochs=6, history=scores)
    ours.train()
    rows = [epoch["rows"] for epoch in ours.pruning_report().epochs]
    assert rows == [22, 16, 12, 8, 8, 8]  # 22 * 0.5^(4 e / 6), at least 6.6, in whole steps of 4 rows
    assert ours.pruning_report().earlier["runs"] == 2
