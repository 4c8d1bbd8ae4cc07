"""EL2N, and what it shares with GraNd and Forgetting, against Paul et al. 2021, by hand."""

import numpy as np
import pytest

from hf_prune import Clock, History
from hf_prune.policies.el2n import EL2N
from hf_prune.policies.forgetting import Forgetting
from hf_prune.policies.grand import GraNd

# p = (.7, .2, .1), the same, (1/3, 1/3, 1/3), (.98, .01, .01) and y = 0, 1, 2, 0:
# sqrt(.3^2 + .2^2 + .1^2), sqrt(.7^2 + .8^2 + .1^2), sqrt(2/9 + 4/9), sqrt(.02^2 + 2 * .01^2)
SCORES = np.sqrt([0.14, 1.14, 6 / 9, 0.0006])


def begun(policy, scores=None, tokens=None, signal=None):
    """The history of a run of `policy` that begins with these scores of an earlier one, or with its signal."""
    n = len(signal if scores is None else scores)
    history, earlier = History.empty(n), History.empty(n, () if signal is None else (policy.signal,))
    history.tokens[:] = 1 if tokens is None else tokens
    earlier.record(np.arange(n), np.ones(n, np.float32), 4, **{name: signal for name in earlier.signals})
    if scores is not None:
        earlier.notes["score"] = np.asarray(scores, np.float32)
    policy.begin(history, earlier)
    return history


def chosen(policy, scores=None, round=0, seed=0, step_rows=1, **facts):
    clock = Clock(round, round, 10, round / 10, step_rows)
    return policy.select(begun(policy, scores, **facts), clock, np.random.default_rng(seed)).rows.tolist()


def test_the_rows_of_largest_error_stay():
    np.testing.assert_allclose(SCORES, [0.374166, 1.067708, 0.816497, 0.024495], atol=1e-6)
    assert chosen(EL2N(keep=0.5), SCORES) == [1, 2]
    assert chosen(EL2N(keep=0.25), SCORES) == [1]
    assert chosen(EL2N(keep=0.75), SCORES) == [0, 1, 2]


def test_the_budget_is_rounded_up_to_whole_steps_and_to_all_rows_at_most():
    assert chosen(EL2N(keep=0.25), SCORES, step_rows=3) == [0, 1, 2]
    assert chosen(EL2N(keep=0.5), SCORES, step_rows=64) == [0, 1, 2, 3]
    assert chosen(EL2N(keep=0.3), [0.5]) == [0]


def test_a_budget_of_tokens_is_filled_from_the_top():
    """Row 1 has 1 of 10 tokens, row 2 has 3: 0.4 of the tokens are these two, 0.41 need row 0 as well."""
    tokens = [4, 1, 3, 2]
    assert chosen(EL2N(keep=0.4, unit="tokens"), SCORES, tokens=tokens) == [1, 2]
    assert chosen(EL2N(keep=0.41, unit="tokens"), SCORES, tokens=tokens) == [0, 1, 2]


@pytest.mark.parametrize("policy", [EL2N, GraNd, Forgetting])
def test_equal_scores_are_split_once_and_follow_the_classes(policy):
    """Of 600, 300 and 100 rows sorted by class, all of score 0, a half keeps about 300, 150 and 50 in every round."""
    classes = np.repeat([0, 1, 2], [600, 300, 100])
    rounds = [chosen(policy(keep=0.5), np.zeros(1000), round, seed=round) for round in range(4)]
    assert all(rows == rounds[0] for rows in rounds)
    counts = np.bincount(classes[rounds[0]])
    sigma = np.sqrt(500 * 500 / 999 * np.array([0.6 * 0.4, 0.3 * 0.7, 0.1 * 0.9]))  # hypergeometric
    assert (abs(counts - [300, 150, 50]) < 4 * sigma).all()


def test_ties_at_the_border_stay_the_same_in_every_round_too():
    scores = np.r_[np.ones(50), np.zeros(100)]
    for unit in ("rows", "tokens"):
        rounds = [chosen(EL2N(keep=0.5, unit=unit), scores, round, seed=round) for round in range(4)]
        assert all(rows == rounds[0] for rows in rounds)
        assert set(range(50)) < set(rounds[0])
        assert len(rounds[0]) == 75


def test_rows_without_a_score_come_first():
    assert chosen(EL2N(keep=0.5), [np.nan, 0.1, 0.9, np.nan]) == [0, 3]
    assert chosen(EL2N(keep=0.75), [np.nan, 0.1, 0.9, np.nan]) == [0, 2, 3]


def test_nothing_known_keeps_a_random_share():
    rows = EL2N(keep=0.5).select(History.empty(1000), Clock(0, 0, 3, 0.0), np.random.default_rng(0)).rows
    assert len(rows) == 500
    assert 200 < np.count_nonzero(rows < 500) < 300


def test_a_window_leaves_out_the_top():
    """Of ten rows in ascending order, skip = 0.2 leaves out rows 9 and 8, and keep = 0.3 takes 7, 6 and 5."""
    scores = np.arange(10) / 10
    assert chosen(EL2N(keep=0.3, skip=0.2), scores) == [5, 6, 7]
    assert chosen(EL2N(keep=0.3, skip=0.7), scores) == [0, 1, 2]
    assert chosen(EL2N(keep=0.3, skip=0.2, unit="tokens"), scores, tokens=np.ones(10)) == [5, 6, 7]
    assert chosen(EL2N(keep=0.9, skip=0.1), scores) == list(range(9))


def test_a_window_counts_scored_rows_alone_and_never_skips_unknown_ones():
    """Of 5 scored rows, 0.2 is one: row 9. The other five, without a score, stay first."""
    scores = np.r_[np.full(5, np.nan), 0.5, 0.6, 0.7, 0.8, 0.9]
    assert chosen(EL2N(keep=0.6, skip=0.2), scores) == [0, 1, 2, 3, 4, 8]
    assert len(chosen(EL2N(keep=0.5, skip=0.5), np.full(8, np.nan))) == 4  # nothing to skip


def test_the_selection_leaves_the_scores_as_they_are():
    policy = EL2N(keep=0.3, skip=0.2)
    history = begun(policy, SCORES)
    policy.select(history, Clock(0, 0, 3, 0.0), np.random.default_rng(0))
    np.testing.assert_array_equal(history.notes["score"], SCORES.astype(np.float32))


def test_the_signal_of_an_earlier_run_is_taken_where_it_has_no_scores():
    signal = np.array([0.3, 0.9, 0.1, 0.5], np.float32)
    assert chosen(EL2N(keep=0.5), signal=signal) == [1, 3]
    assert chosen(EL2N(keep=0.5), 1 - signal, signal=signal) == [0, 2]


def test_losses_of_the_earlier_run_are_not_inherited():
    history = begun(EL2N(keep=0.5), SCORES)
    assert np.isnan(history.loss).all()
    assert (history.last_round == -1).all()


@pytest.mark.parametrize(("policy", "name"), [(EL2N, "el2n"), (GraNd, "grand"), (Forgetting, "forgetting")])
def test_without_scores_the_cure_is_named(policy, name):
    earlier = History.empty(3)
    earlier.record(np.arange(3), np.ones(3, np.float32), 0)
    for given in (None, earlier):
        with pytest.raises(
            ValueError, match=rf"{policy.__name__}\(keep=0.7.*`hf-prune score --policy {name} .*history='scores'"
        ):
            policy().begin(History.empty(3), given)


@pytest.mark.parametrize(("policy", "signal"), [(EL2N, "el2n"), (GraNd, "grad_norm"), (Forgetting, "correct")])
def test_keeping_everything_is_the_probe(policy, signal):
    assert policy(keep=1).needs == {signal}
    assert policy(keep=0.5).needs == policy().needs == frozenset()
    history = History.empty(5, (signal,))
    policy(keep=1).begin(history, None)
    for step_rows in (1, 4):
        clock = Clock(0, 0, 3, 0.0, step_rows)
        chosen = policy(keep=1).select(history, clock, np.random.default_rng(0))
        assert chosen.rows.tolist() == [0, 1, 2, 3, 4]
        assert chosen.weights is None


def test_the_score_is_the_latest_signal():
    """Row 2 is not measured in round 1 (its loss was not finite), row 3 never: NaN."""
    policy, history = EL2N(keep=1), History.empty(4, ("el2n",))
    for t, (loss, el2n) in enumerate([([1, 1, 1, np.nan], [0.1, 0.2, 0.3, 0.4]), ([1, 1, np.inf, np.nan], [0.5] * 4)]):
        history.record(np.arange(4), np.array(loss, np.float32), t, el2n=np.array(el2n, np.float32))
        policy.update(history, Clock(t, t, 2, t / 2), np.random.default_rng(0))
        before = history.notes["score"].copy()
        history.signals["el2n"] += 1  # what comes later does not reach back
        np.testing.assert_array_equal(history.notes["score"], before)
        history.signals["el2n"] -= 1
    np.testing.assert_allclose(history.notes["score"], [0.5, 0.5, 0.3, np.nan], atol=1e-6)
    assert history.notes["score"].dtype == np.float32


def test_a_pruned_run_keeps_the_scores_that_it_began_with():
    policy = EL2N(keep=0.5)
    history = begun(policy, SCORES)
    history.record(np.array([1, 2]), np.zeros(2, np.float32), 0)
    policy.update(history, Clock(0, 0, 2, 0.0), np.random.default_rng(0))
    np.testing.assert_array_equal(history.notes["score"], SCORES.astype(np.float32))


@pytest.mark.parametrize("policy", [EL2N, GraNd, Forgetting])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keep": 0}, r"keep=...\) must be in \(0, 1\], got 0"),
        ({"keep": 1.1}, r"keep=...\) must be in \(0, 1\], got 1.1"),
        ({"unit": "steps"}, r"unit=...\) must be 'rows' or 'tokens', got 'steps'"),
        ({"skip": -0.1}, r"skip=...\) must be in \[0, 1\), got -0.1"),
        ({"keep": 0.5, "skip": 0.6}, r"skip=...\) must be in \[0, 1 - keep\], got 0.6 with keep=0.5"),
        ({"keep": 1, "skip": 0.1}, r"skip=...\) must be in \[0, 1 - keep\], got 0.1 with keep=1"),
    ],
)
def test_fields_outside_their_range_are_refused(policy, fields, message):
    with pytest.raises(ValueError, match=rf"{policy.__name__}\({message}"):
        policy(**fields)
