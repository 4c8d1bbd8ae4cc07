"""EpsilonGreedy against Raju et al. 2021 as re-implemented, by hand."""

import numpy as np
import pytest

from hf_prune import Clock, History
from hf_prune.policies.epsilon_greedy import EpsilonGreedy

MEAN = [0.50, 1.00, 2.00, 0.20, 3.00, 0.80]
OBSERVED = {1: 0.50, 3: 1.20, 4: 1.00}


def at(round, step_rows=1):
    return Clock(round, round, 1000, round / 1000, step_rows)


def history_of(mean, observed=None, round=1):
    """Rows whose average is `mean` since round 0, some of them `observed` anew in `round`."""
    mean = np.asarray(mean, np.float32)
    history = History.empty(len(mean))
    history.record(np.arange(len(mean)), mean, 0)
    history.notes["mean"] = mean
    if observed:
        history.record(np.array(list(observed)), np.array(list(observed.values()), np.float32), round)
    return history


def next_rows(policy, history, round=1, seed=0, step_rows=1):
    policy.update(history, at(round, step_rows), np.random.default_rng(seed))
    return policy.select(history, at(round + 1, step_rows), np.random.default_rng(seed + 1)).rows


def train(policy, losses, rounds, seed=0):
    """(rounds, N) bool, which rows each round trained; every row's loss is always the same."""
    history, trained = History.empty(len(losses)), np.zeros((rounds, len(losses)), bool)
    for round in range(rounds):
        rows = policy.select(history, at(round), np.random.default_rng([seed, round])).rows
        trained[round, rows] = True
        history.record(rows, losses[rows], round)
        policy.update(history, at(round), np.random.default_rng([seed, round, 1]))
    return trained


def longest_wait(trained):
    """Most rounds in a row that left some row out, the last ones included."""
    wait, longest = np.zeros(trained.shape[1], int), 0
    for rows in trained:
        wait = np.where(rows, 0, wait + 1)
        longest = max(longest, wait.max())
    return longest


def test_the_average_weighs_the_new_loss_by_alpha():
    """0.2 * 1 + 0.8 * 0.5 = 0.6; 0.2 * 0.2 + 0.8 * 1.2 = 1.0; 0.2 * 3 + 0.8 * 1 = 1.4; the others stay."""
    history = history_of(MEAN, OBSERVED)
    EpsilonGreedy().update(history, at(1), np.random.default_rng(0))
    np.testing.assert_allclose(history.notes["mean"], [0.50, 0.60, 2.00, 1.00, 1.40, 0.80], atol=1e-6)


def test_two_greedy_rows_and_one_of_the_others_by_equal_chance():
    """K = 3, floor(K / 3) = 1 at random: rows 2 and 4 always, one of 0, 1, 3, 5 each with chance 1/4."""
    policy, draws, visits = EpsilonGreedy(keep=0.5, epsilon=1 / 3, period=1), 2000, np.zeros(6)
    for seed in range(draws):
        rows = next_rows(policy, history_of(MEAN, OBSERVED), seed=seed)
        assert len(set(rows.tolist())) == 3
        visits[rows] += 1
    assert visits[[2, 4]].tolist() == [draws, draws]
    assert (np.abs(visits[[0, 1, 3, 5]] / draws - 0.25) < 4 * np.sqrt(0.25 * 0.75 / draws)).all()


@pytest.mark.parametrize(
    ("epsilon", "greedy"), [(0.0, 100), (0.1, 90), (0.29, 71), (0.999, 1), (1.0, 0)]
)  # 0.29 * 100 is 28.999999999999996 in floating point, but 29 rows
def test_the_random_share_is_floored(epsilon, greedy):
    """Of 100 rows chosen among 200, the `greedy` last ones are sure; the others fall among all that is left."""
    policy, kept = EpsilonGreedy(keep=0.5, epsilon=epsilon, period=1), np.zeros(200)
    for seed in range(60):
        rows = next_rows(policy, history_of(np.arange(200.0)), seed=seed)
        assert len(rows) == 100
        kept[rows] += 1
    assert (kept[200 - greedy :] == 60).all()
    assert (kept[: 200 - greedy] < 60).all()
    assert abs(kept[:100].sum() / 60 - 100 * (100 - greedy) / (200 - greedy)) < 2.5


def test_a_selection_stands_until_its_period_ends():
    policy, rng = EpsilonGreedy(keep=0.3, epsilon=0.5, period=5), np.random.default_rng(0)
    trained = train(policy, rng.random(100, np.float32), 24)
    changed = np.flatnonzero((trained[1:] != trained[:-1]).any(axis=1)) + 1
    assert changed.tolist() == [1, 2, 3, 4, 5, 10, 15, 20]  # ceil(1 / 0.3) = 4 rounds try all rows, at 4 all are known


def test_period_one_chooses_every_round_anew():
    trained = train(EpsilonGreedy(keep=0.5, period=1), np.random.default_rng(0).random(100, np.float32), 10)
    assert (trained[1:] != trained[:-1]).any(axis=1).all()


@pytest.mark.parametrize(("keep", "rounds"), [(0.6, 2), (0.3, 4), (0.1, 10), (1.0, 1)])
def test_every_row_is_tried_within_the_budget_before_the_first_period(keep, rounds):
    """Eight epochs at the default period of ten: never more than the budget, and all rows after ceil(1 / keep)."""
    trained = train(EpsilonGreedy(keep=keep), np.random.default_rng(0).random(100, np.float32), 12)
    assert (trained.sum(axis=1) == round(keep * 100)).all()
    assert trained[:rounds].any(axis=0).all()
    assert trained[:rounds].sum(axis=0).max() <= 1 + (keep * rounds > 1)


@pytest.mark.parametrize("now", [0, 50])  # in round 50 the seen rows have waited for five periods
def test_rows_never_seen_come_first_even_before_the_random_share(now):
    history = History.empty(10)
    history.record(np.arange(4), np.array([9, 8, 7, 6], np.float32), 0)
    for seed in range(20):
        rows = next_rows(EpsilonGreedy(keep=0.7, epsilon=0.5), history, round=now, seed=seed)
        assert set(range(4, 10)) <= set(rows.tolist())
        assert len(rows) == 7


def test_a_row_without_a_number_stays_first_and_enters_nothing():
    history = history_of([1.0, 2.0, 3.0, 4.0], {0: np.nan, 1: np.inf})
    history.loss[3], history.last_round[3], history.notes["mean"][3] = np.nan, -1, np.nan
    rows = next_rows(EpsilonGreedy(keep=0.5, epsilon=0, period=1), history)
    np.testing.assert_array_equal(history.notes["mean"], np.array([1, 2, 3, np.nan], np.float32))
    assert rows.tolist() == [2, 3]


def test_with_equal_means_the_classes_of_a_selection_follow_the_data():
    """1000 rows sorted into 4 classes, all with loss 1: 75 of each among 300, hypergeometric."""
    policy, classes, draws = EpsilonGreedy(keep=0.3, period=1), np.repeat(np.arange(4), 250), 200
    counts = np.array(
        [np.bincount(classes[next_rows(policy, history_of(np.ones(1000)), seed=s)], minlength=4) for s in range(draws)]
    )
    spread = np.sqrt(300 * 0.25 * 0.75 * 700 / 999)
    assert (np.abs(counts.mean(axis=0) - 75) < 4 * spread / np.sqrt(draws)).all()


def test_an_earlier_run_tells_what_to_begin_with():
    earlier = History.empty(4)
    earlier.record(np.arange(4), np.array([1, 4, 2, 3], np.float32), 7)
    policy, history = EpsilonGreedy(keep=0.5, epsilon=0, period=10), History.empty(4)
    policy.begin(history, earlier)
    rows = policy.select(history, at(0), np.random.default_rng(0)).rows
    assert rows.tolist() == [1, 3]
    history.record(rows, np.array([0.5, 2.5], np.float32), 0)  # row 1 has come below row 2
    assert next_rows(policy, history, round=0).tolist() == [2, 3]


def test_one_row_is_always_kept():
    policy, history = EpsilonGreedy(keep=0.1), History.empty(1)
    assert policy.select(history, at(0), np.random.default_rng(0)).rows.tolist() == [0]
    history.record(np.array([0]), np.array([1], np.float32), 0)
    assert next_rows(policy, history, round=0).tolist() == [0]


def test_whole_optimizer_steps_are_filled():
    assert len(next_rows(EpsilonGreedy(keep=0.5, period=1), history_of(np.arange(100.0)), step_rows=16)) == 64
    assert len(next_rows(EpsilonGreedy(keep=0.5, period=1), history_of(np.arange(8.0)), step_rows=16)) == 8


def test_a_budget_in_tokens_is_kept_by_both_shares():
    """Of 200 rows of 1 to 9 tokens, half of the tokens: exceeded by less than one row, the 4 best always among them."""
    history = history_of(np.arange(200.0))
    history.tokens[:] = np.random.default_rng(0).integers(1, 10, 200)
    for seed in range(20):
        rows = next_rows(EpsilonGreedy(keep=0.5, unit="tokens", epsilon=0.5, period=1), history, seed=seed)
        assert 0 <= history.tokens[rows].sum() - history.tokens.sum() / 2 < 9
        assert {196, 197, 198, 199} <= set(rows.tolist())


def test_no_row_is_forgotten():
    """Constant losses, 30 % kept, 100 rounds of period 2: passed over 5 times a row waits 10 rounds, and at most three
    selections of 2 rounds more until all that wait have had their turn."""
    losses = np.random.default_rng(0).random(300, np.float32)
    assert longest_wait(train(EpsilonGreedy(keep=0.3, period=2), losses, 100)) <= 5 * 2 + 3 * 2
    unguarded = train(EpsilonGreedy(keep=0.3, period=2, patience=0), losses, 100)
    assert 0.02 < (~unguarded[4:]).all(axis=0).mean() < 0.5


def test_patience_counts_selections():
    """Period 3, patience 2: row 0, trained up to round 2, is passed over for 3 to 5 and 6 to 8, and then taken."""
    policy = EpsilonGreedy(keep=0.5, epsilon=0, period=3, patience=2)
    for now, rows in ((2, [2, 3]), (5, [2, 3]), (8, [0, 3])):
        history = history_of([1.0, 2.0, 3.0, 4.0])
        history.last_round[:] = [2, now, now, now]
        assert next_rows(policy, history, round=now).tolist() == rows


@pytest.mark.parametrize(
    ("field", "value"),
    [("epsilon", -0.1), ("epsilon", 1.1), ("period", 0), ("decay", 0.0), ("decay", 1.1), ("patience", -1), ("keep", 0)],
)
def test_fields_outside_their_range_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"EpsilonGreedy\({field}=...\) must be in .* got {value}"):
        EpsilonGreedy(**{field: value})
