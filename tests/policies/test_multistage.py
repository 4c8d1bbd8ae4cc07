"""Multistage filtering against Ouyang et al. 2023, by hand."""

import time

import numpy as np
import pytest
from texts import matrix_of

from hf_prune import Clock, History
from hf_prune.core.features import Features, count_matrix
from hf_prune.policies.multistage import Multistage

A, B, C, D = range(4)
WORDS = [[A, B], [A], [B, C], [C, D], [A, D], [C]]
LABEL = [0, 0, 1, 1, 0, 1]


def history_of(*texts):
    history = History.empty(len(texts[0]))
    history.features = Features(tuple(matrix_of(text) for text in texts))
    return history


def at(round, step_rows=1):
    return Clock(round, round // 16, 3, round / 48, step_rows, 16)


def teach(history, losses, round, policy=None, rows=None):
    rows = np.arange(len(losses)) if rows is None else rows
    history.record(rows, np.asarray(losses, np.float32), round)
    (policy or Multistage()).update(history, at(round), np.random.default_rng(round))
    return history


def taught(*texts):
    """Two rounds on the six rows of the worked example: tau = 1, then the labels."""
    history = teach(history_of(*texts), [1.0] * len(texts[0]), 0)
    return teach(history, [2.0 * hard for hard in LABEL], 1)


def hard_chance(history, rows):
    return 1 / (1 + np.exp(-Multistage().log_odds(history, np.asarray(rows))))


def rows_of(policy, history, round, step_rows=1, seed=0):
    chosen = policy.select(history, at(round, step_rows), np.random.default_rng(seed))
    assert chosen.weights is None
    return chosen.check(len(history), history.offered).rows


def test_naive_bayes_counts_present_and_absent_words():
    """theta0 = (.8, .4, .2, .4), theta1 = (.2, .4, .8, .4), equal priors: {c, d} has odds of 4 * 1 * 4 * 1 = 16."""
    history = taught([*WORDS])
    assert history.notes["learnt"].tolist() == [3, 3]
    counts = history.notes["words/0"]
    np.testing.assert_allclose((counts + 1) / 5, [[0.8, 0.4, 0.2, 0.4], [0.2, 0.4, 0.8, 0.4]])
    history.features = Features((matrix_of([[C, D], [A, C], [B], [A], [C, D, D, C], []]),))
    expected = [0.941176, 0.5, 0.5, 0.058824, 0.941176, 0.5]  # how often a word occurs does not count
    np.testing.assert_allclose(hard_chance(history, range(6)), expected, atol=1e-6)
    np.testing.assert_allclose(hard_chance(history, [3, 0]), [0.058824, 0.941176], atol=1e-6)


def test_the_prior_is_the_share_of_hard_rows():
    """Three easy rows and one hard one, all with the same word: the odds of the prior are 1 / 3.

    The word's shares are 4 / 5 and 2 / 3, so the odds are 1/3 * (2/3) / (4/5) = 5/18.
    """
    history = teach(teach(history_of([[A]] * 4), [1.0] * 4, 0), [0, 0, 0, 2.0], 1)
    np.testing.assert_allclose(np.exp(Multistage().log_odds(history, np.array([0]))), 5 / 18)


def test_both_texts_tell():
    """Twice the same words: twice the log-odds, for the priors are equal."""
    once, twice = taught(WORDS), taught(WORDS, WORDS)
    odds = Multistage().log_odds(once, np.arange(6))
    np.testing.assert_allclose(Multistage().log_odds(twice, np.arange(6)), 2 * odds)


def test_words_that_no_learnt_row_had_tell_nothing():
    history = taught(WORDS)
    wide = teach(history_of([*WORDS, [500]]), [1.0] * 7, 0)
    teach(wide, [2.0 * hard for hard in LABEL], 1)  # the seventh row was not in the round
    np.testing.assert_allclose(hard_chance(wide, range(6)), hard_chance(history, range(6)))
    np.testing.assert_allclose(hard_chance(wide, [6]), 0.5)  # all four words absent: 1/4 * 1 * 4 * 1


def test_the_first_round_sets_the_threshold_and_it_stays():
    history = teach(history_of(WORDS), [1.0, 3.0, np.nan, np.inf, 2.0, 2.0], 0)  # mean of four
    assert history.notes["tau"] == 2.0
    assert set(history.notes) == {"tau"}
    teach(history, [2.0, 2.1, 9.0, 1.9, np.nan, 0.1], 1)
    assert history.notes["tau"] == 2.0
    assert history.notes["learnt"].tolist() == [3, 2]  # a loss equal to tau is easy; a fault teaches nothing
    teach(history, [9.0] * 2, 2)
    assert history.notes["learnt"].tolist() == [3, 4]  # two rows of this round, none of the one before


def test_the_log_loss_is_read_before_learning():
    """After round 1 the rows' odds are those of the worked example; round 2 tests them, and only then counts."""
    history = taught(WORDS)
    assert "log_loss" not in history.notes
    chance = hard_chance(history, range(6))
    right = np.where(LABEL, chance, 1 - chance)
    teach(history, [2.0 * hard for hard in LABEL], 2)
    assert history.notes["log_loss"] == pytest.approx(-np.log(right).mean())
    assert history.notes["learnt"].tolist() == [6, 6]
    teach(history, [2.0 * (not hard) for hard in LABEL], 3)  # once trusted, always
    assert history.notes["log_loss"] == pytest.approx(-np.log(right).mean())
    better = teach(taught(WORDS), [2.0 * (not hard) for hard in LABEL], 2)
    worse = float(better.notes["log_loss"][0])
    teach(better, [2.0 * hard for hard in LABEL], 3)
    assert better.notes["log_loss"][0] < worse


def test_an_unsure_learner_leaves_training_on_all_rows(rng):
    """Labels that no word tells: the log-loss stays at ln 2, and every round trains every row."""
    history = teach(history_of(rng.integers(0, 20, (400, 6)).tolist()), [1.0] * 400, 0)
    for round in range(1, 40):
        teach(history, 2.0 * (rng.random(400) < 0.5), round)
        assert len(rows_of(Multistage(), history, round + 1)) == 400
    assert history.notes["log_loss"] > 0.6
    history.offered = np.arange(5, 9)
    assert rows_of(Multistage(), history, 40).tolist() == [5, 6, 7, 8]
    history.offered = None
    assert len(rows_of(Multistage(log_loss=5.0), history, 40)) < 400


def test_labels_of_one_kind_are_no_knowledge():
    history = teach(history_of(WORDS), [0.1] * 6, 0)
    for round in range(1, 4):
        teach(history, [0.1] * 6, round)
    assert history.notes["learnt"].tolist() == [18, 0]
    assert rows_of(Multistage(log_loss=100.0), history, 4).tolist() == [*range(6)]


def sure(n=30_000):
    """A learner that trusts itself, and n rows: thirds of hard, easy and undecided rows."""
    history = teach(taught(WORDS), [2.0 * hard for hard in LABEL], 2)
    words = [[C, D]] * (n // 3) + [[A]] * (n // 3) + [[A, C]] * (n // 3)
    notes = history.notes
    history = history_of(words)
    history.notes = notes
    return history


def test_hard_and_undecided_rows_are_trained_and_a_share_of_the_others():
    history = sure()
    for epsilon in (0.0, 0.1, 0.7, 1.0):
        rows = rows_of(Multistage(epsilon=epsilon), history, 3)
        hard, easy, undecided = np.bincount(rows // 10_000, minlength=3)
        assert hard == undecided == 10_000
        assert abs(easy - 10_000 * epsilon) <= 4 * np.sqrt(10_000 * epsilon * (1 - epsilon))


def test_every_easy_row_has_its_chance():
    history = sure(300)
    counts = sum(np.bincount(rows_of(Multistage(), history, 3, seed=seed), minlength=300) for seed in range(2000))
    assert (np.abs(counts[100:200] - 200) < 5 * np.sqrt(2000 * 0.1 * 0.9)).all()


def test_whole_steps_among_the_rows_offered():
    history = sure(300)
    history.offered = np.r_[90:200]  # ten hard rows, the others easy
    for step_rows, sizes in ((1, [10]), (16, [16]), (64, [64]), (1000, [110])):
        rows = rows_of(Multistage(epsilon=0.0), history, 3, step_rows)
        assert len(rows) in sizes
        assert set(range(90, 100)) <= set(rows.tolist())
    history.offered = np.r_[100:200]
    assert len(rows_of(Multistage(epsilon=0.0), history, 3)) == 1
    drawn = {tuple(rows_of(Multistage(epsilon=0.0), history, 3, seed=seed)) for seed in range(50)}
    assert len(drawn) > 20


def test_it_prunes_within_one_epoch_what_words_tell(rng):
    """Word 7 makes a row hard. Rows come a sixteenth at a time, each once; two rounds after the first are enough."""
    n = 16 * 400
    words = rng.integers(10, 60, (n, 8))
    hard = rng.random(n) < 0.4
    words[hard, 0] = 7
    history = History.empty(n)
    history.features = Features((count_matrix(words.ravel(), np.arange(0, 8 * n + 1, 8)),))
    kept, policy = [], Multistage()
    for round in range(16):
        history.offered = np.arange(round, n, 16)
        rows = rows_of(policy, history, round)
        kept.append(len(rows) / 400)
        assert hard[rows].sum() >= 0.95 * hard[history.offered].sum()
        teach(history, np.where(hard, 3.0, 1.0)[rows], round, policy, rows)
    assert kept[:3] == [1.0] * 3
    assert all(share < 0.6 for share in kept[3:])


def test_a_round_that_measured_nothing_teaches_nothing():
    history = taught(WORDS)
    before = {name: array.copy() for name, array in history.notes.items()}
    teach(history, [], 2)
    assert history.notes.keys() == before.keys()
    assert all((history.notes[name] == before[name]).all() for name in before)


def test_learning_leaves_the_old_notes_alone():
    """It runs beside the next round, which reads what it was given."""
    history = taught(WORDS)
    old, copies = dict(history.notes), {name: array.copy() for name, array in history.notes.items()}
    teach(history, [2.0] * 6, 2)
    assert all((old[name] == copies[name]).all() for name in old)


def test_one_row_and_rows_without_words():
    history = teach(teach(history_of([[]]), [1.0], 0), [2.0], 1)
    assert rows_of(Multistage(), history, 2).tolist() == [0]
    empty = teach(teach(history_of([[], [], []]), [1.0] * 3, 0), [2.0, 2.0, 0.0], 1)
    np.testing.assert_allclose(hard_chance(empty, range(3)), 2 / 3)


def test_long_data_are_read_in_pieces(monkeypatch):
    whole = Multistage().log_odds(taught(WORDS), np.arange(6))
    monkeypatch.setattr("hf_prune.core.features._ROWS_AT_A_TIME", 2)
    history = taught(WORDS)
    np.testing.assert_allclose(Multistage().log_odds(history, np.arange(6)), whole)
    assert history.notes["learnt"].tolist() == [3, 3]


def test_rows_are_predicted_quickly(rng):
    history = sure(6)
    history.features = Features((count_matrix(rng.integers(0, 4, 400_000), np.arange(0, 400_001, 8)),))
    start = time.process_time()
    Multistage().log_odds(history, np.arange(50_000))
    assert (time.process_time() - start) / 50_000 < 10e-6


def test_pictures_are_refused():
    history = History.empty(2)
    history.features = Features(pixels=np.zeros((2, 4), np.uint8))
    with pytest.raises(ValueError, match="reads words, but the rows have none"):
        Multistage().begin(history, None)


@pytest.mark.parametrize(
    ("field", "value"), [("log_loss", 0.0), ("epsilon", -0.1), ("epsilon", 1.1), ("rounds", 0), ("epsilon", None)]
)
def test_fields_outside_their_range_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"Multistage\({field}=...\) must be in .* got {value}"):
        Multistage(**{field: value})


def test_rounds_cut_the_epoch():
    assert Multistage(rounds=5).rounds_per_epoch == 5
