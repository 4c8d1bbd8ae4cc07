"""AutoAssist against Zhang, Yu and Dhillon 2019 and their code, by hand."""

import time

import numpy as np
import pytest
import torch
from scipy import sparse
from texts import matrix_of

from hf_prune import Clock, History
from hf_prune.core.features import Features, count_matrix
from hf_prune.policies._acceptance import accepted
from hf_prune.policies._assistant import inputs, joined, learn, outputs, step, width
from hf_prune.policies.autoassist import AutoAssist

SOURCE = [[1, 2, 2, 0], [1, 3, 0], [2, 4, 5, 0], [1, 0]]  # 0 = EOS
TARGET = [[7, 8, 9], [7, 9], [8, 8, 6, 9], [7, 9]]  # 9 = EOS


def pairs(repeats=1):
    return Features((matrix_of(SOURCE * repeats), matrix_of(TARGET * repeats)))


def pictures(n, rng, classes=2):
    return Features(pixels=rng.integers(0, 256, (n, 6), np.uint8), classes=rng.integers(0, classes, n))


def history_of(features, losses=None, round=0):
    n = features.texts[0].shape[0] if features.texts else len(features.pixels)
    history = History.empty(n)
    history.features = features
    if losses is not None:
        history.record(np.arange(n), np.asarray(losses, np.float32), round)
    return history


def at(round, step_rows=1):
    return Clock(round, round // 8, 3, round / 24, step_rows, 8)


def taught(policy, history, round=0, seed=0):
    policy.update(history, at(round), np.random.default_rng(seed))
    return history


def text_parameters():
    """w = 1, w' = 0.5, b0 = -0.1, c_x = 0.2, c_y = 0.3 and the words' own a, in the order of the inputs."""
    a, a2 = [0.0, 0.2, -0.1, 0.4, 0.3, 0.5], [0.0] * 6 + [0.6, -0.2, 0.1, 0.0]
    return np.array([*a, *[1.0] * 6, *a2, *[0.5] * 10, 0.2, 0.3, -0.1], np.float32)


# ---- The assistant ----


def test_a_pair_is_scored_by_its_words_their_tfidf_and_its_length():
    """EOS is in every row: tf-idf 0, and still one of the distinct words.

    Row 0: distinct words 1, 2, 0 and 7, 8, 9: (0.2 - 0.1 + 0) / 3 + (-0.2 + 0.1 + 0) / 3 = 0; tf-idf source
    ln(4/3) / 4 + 2 ln(4/2) / 4, target (ln(4/3) + ln(4/2)) / 3 at half weight: 0.581966; lengths 0.06 + 0.09 - 0.1.
    """
    parameters = text_parameters()
    columns = inputs(pairs(), np.arange(4))
    assert width(pairs()) == len(parameters)
    x, y = slice(0, 6), slice(12, 22)
    words = columns[0].times(parameters[x]) + columns[2].times(parameters[y])
    np.testing.assert_allclose(words, [0, 0.1, 0.408333, 0], atol=1e-6)
    tfidf = columns[1].times(parameters[6:12]) + columns[3].times(parameters[22:32])
    np.testing.assert_allclose(tfidf, [0.581966, 0.629913, 1.213008, 0.215762], atol=1e-6)
    np.testing.assert_allclose(columns[4].times(parameters[32:]), [0.05, 0.02, 0.07, 0.0], atol=1e-6)
    expected = [0.631966, 0.749913, 1.691341, 0.215762]
    np.testing.assert_allclose(outputs(columns, parameters), expected, atol=1e-6)
    np.testing.assert_allclose(joined(columns) @ parameters, expected, atol=1e-6)
    history = history_of(pairs())
    history.notes = {"assistant": parameters, "feedback": np.array([1.0, 1.0, 1.0])}
    chance = AutoAssist().chance(history, np.arange(4))
    np.testing.assert_allclose(chance, [0.826468, 0.839580, 0.922200, 0.776866], atol=1e-6)


def test_a_picture_step_is_that_of_the_authors():
    """g = sigma(z) - label; W -= (0.01 / 4) (sum g x + 0.001 W), U[y] likewise over the rows of class y."""
    x = np.array([[1, 2, 1, 0], [2, 0, 0, 1], [0, 4, 0, 1], [1, 1, 1, 0]], np.float32)
    parameters = np.array([0.5, -0.25, 0.1, -0.2], np.float32)
    np.testing.assert_allclose(x @ parameters, [0.1, 0.8, -1.2, 0.35], atol=1e-6)
    step(parameters, x, np.array([0.2, 1.5, 0.4, 2.0]) > 1.0, 0.01, 1e-3)
    np.testing.assert_allclose(parameters, [0.5012699, -0.2539056, 0.0997205, -0.1998026], atol=1e-6)


def test_a_picture_is_its_pixels_and_its_class():
    features = Features(pixels=np.array([[0, 255], [51, 102]], np.uint8), classes=np.array([2, 0]))
    expected = [[-1, 1, 0, 0, 1], [-0.6, -0.2, 1, 0, 0]]
    np.testing.assert_allclose(joined(inputs(features, np.arange(2))), expected, atol=1e-6)
    assert width(features) == 5
    bare = Features(pixels=features.pixels)
    assert joined(inputs(bare, np.array([1]))).shape == (1, width(bare)) == (1, 2)


@pytest.mark.parametrize("form", ["texts", "pictures"])
def test_a_step_is_the_gradient_of_the_logistic_loss(form, rng):
    """Whatever stands in a row several times, or in several rows."""
    features = pairs(4) if form == "texts" else pictures(16, rng)
    x = joined(inputs(features, np.arange(16)))
    start = rng.normal(size=width(features)).astype(np.float32)
    label = rng.random(16) < 0.4
    parameters = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    dense = torch.tensor(x.toarray() if sparse.issparse(x) else x, dtype=torch.float64)
    losses = torch.nn.functional.binary_cross_entropy_with_logits(
        dense @ parameters, torch.tensor(label, dtype=torch.float64), reduction="mean"
    )
    (losses + 0.1 / 2 / 16 * parameters.square().sum()).backward()
    moved = start.copy()
    step(moved, x, label, 0.5, 0.1)
    np.testing.assert_allclose(moved, start - 0.5 * parameters.grad.numpy(), atol=2e-6)


def test_a_batch_is_tested_before_it_is_learnt_from():
    x = np.array([[1.0], [-1.0]], np.float32)
    parameters = np.array([-3.0], np.float32)
    assert learn(parameters, x, np.array([True, False]), 1, 100.0, 0.0) == 0.0
    assert learn(parameters, x, np.array([True, False]), 2, 0.1, 0.0) == 1.0


def test_rows_without_words_have_finite_scores(rng):
    features = Features((matrix_of([[], [1, 2], []]), matrix_of([[3], [], []])))
    z = outputs(inputs(features, np.arange(3)), rng.normal(size=width(features)).astype(np.float32))
    assert np.isfinite(z).all()


# ---- Acceptance ----


@pytest.mark.parametrize(
    ("base", "z", "expected"), [(0.3, -2, 0.383442), (0.3, 0, 0.65), (0.3, 2, 0.916558), (0.5, 0, 0.75)]
)
def test_the_chance_is_b_and_the_rest_by_sigma(base, z, expected):
    """A picture of one pixel at its greatest, 1, with W = z."""
    history = history_of(Features(pixels=np.full((1, 1), 255, np.uint8)))
    history.notes = {"assistant": np.array([z], np.float32), "feedback": np.array([1.0, 1.0, 0.0])}
    np.testing.assert_allclose(AutoAssist(base=base).chance(history, np.zeros(1, np.int64)), expected, atol=1e-6)


@pytest.mark.parametrize("step_rows", [1, 64])
def test_rows_are_accepted_at_their_chances(step_rows):
    """Ten thousand rows at each of three chances; whole steps add less than a step."""
    z = np.repeat([-2.0, 0.0, 2.0], 10_000)
    history = history_of(Features(pixels=np.zeros((30_000, 1), np.uint8), classes=np.repeat([0, 1, 2], 10_000)))
    history.notes = {"assistant": np.array([0, -2, 0, 2], np.float32), "feedback": np.ones(3)}
    policy = AutoAssist(base=0.3)
    np.testing.assert_allclose(policy.chance(history, np.arange(30_000)), 0.3 + 0.7 / (1 + np.exp(-z)), atol=1e-6)
    rows = policy.select(history, at(5, step_rows), np.random.default_rng(0)).check(30_000).rows
    assert len(rows) % step_rows == 0
    for count, chance in zip(np.bincount(rows // 10_000), (0.383442, 0.65, 0.916558), strict=True):
        assert abs(count - 10_000 * chance) < 4 * np.sqrt(10_000 * chance * (1 - chance)) + step_rows


def test_nothing_learnt_accepts_all_texts_and_two_thirds_of_the_pictures(rng):
    everything = AutoAssist().select(history_of(pairs(50)), at(0), np.random.default_rng(0))
    assert everything.rows.tolist() == list(range(200))
    assert everything.weights is None
    kept = len(AutoAssist().select(history_of(pictures(20_000, rng)), at(0), np.random.default_rng(0)).rows)
    assert abs(kept - 13_000) < 4 * np.sqrt(20_000 * 0.65 * 0.35)


def test_texts_warm_up_with_the_accuracy():
    history = history_of(pairs())
    history.notes = {"assistant": np.zeros(width(pairs()), np.float32)}
    for confidence, base in ((0.0, 1.0), (0.3, 0.7), (0.5, 0.5), (0.9, 0.5)):
        history.notes["feedback"] = np.array([1.0, 1.0, confidence])
        np.testing.assert_allclose(AutoAssist().chance(history, np.arange(4)), base + (1 - base) / 2)
    assert AutoAssist(base=0.2).chance(history, np.arange(1)) == pytest.approx(0.2 + 0.8 / 2)


def test_at_least_one_row_and_whole_steps_among_those_offered(rng):
    history = history_of(pictures(50, rng))
    history.notes = {"assistant": np.zeros(8, np.float32), "feedback": np.ones(3)}
    history.offered = np.arange(10, 40)
    for step_rows, sizes in ((1, range(1, 31)), (8, (8, 16, 24, 30)), (64, (30,))):
        for seed in range(20):
            chosen = AutoAssist(base=1e-9).select(history, at(3, step_rows), np.random.default_rng(seed))
            assert len(chosen.check(50, history.offered).rows) in sizes
    history.features = Features(pixels=np.full((50, 6), 255, np.uint8), classes=np.zeros(50, np.int64))
    history.notes["assistant"] = np.full(7, -30, np.float32)  # a chance of about 1e-9 each
    assert len(AutoAssist(base=1e-9).select(history, at(3), np.random.default_rng(0)).rows) == 1


def test_a_step_is_filled_up_in_proportion_to_the_chances():
    """Hardly any row is accepted; of the 100 that fill the step, rows of ten times the chance are ten times as many."""
    chance = np.repeat([1e-6, 1e-5], 10_000)
    likelier = [(accepted(chance, 100, np.random.default_rng(seed)) >= 10_000).sum() for seed in range(50)]
    assert abs(np.mean(likelier) - 100 * 10 / 11) < 4 * np.sqrt(100 / 11 * 10 / 11 / 50)


# ---- Learning ----


def mean_after(sizes_and_sums, decay):
    total = count = 0.0
    for size, sum_ in sizes_and_sums:
        total, count = decay * total + (1 - decay) * sum_, decay * count + (1 - decay) * size
        yield total / count


def test_the_running_mean_has_no_bias_from_its_start(monkeypatch, rng):
    """Batches of 4, 4, 2 rows with the sums 8, 4, 1: 8 / 4, (0.75 * 8 + 4) / (0.75 * 4 + 4), ..."""
    assert list(mean_after([(4, 8), (4, 4), (2, 1)], 0.75)) == pytest.approx([2.0, 1.428571, 1.172414], abs=1e-6)
    monkeypatch.setattr("hf_prune.policies.autoassist._BATCH", 4)
    history, means = history_of(pictures(10, rng)), []
    for round, losses in enumerate(([2.0] * 4, [1.0] * 4, [0.5] * 2)):
        history.record(np.arange(len(losses)), np.array(losses, np.float32), round)
        total, count, _ = taught(AutoAssist(), history, round).notes["feedback"]
        means.append(total / count)
    assert means == pytest.approx([2.0, 1.428571, 1.172414], abs=1e-6)


def test_texts_forget_the_mean_slowly():
    history = history_of(pairs(32), np.full(128, 3.0))
    taught(AutoAssist(), history)
    history.record(np.arange(128), np.full(128, 1.0, np.float32), 1)
    total, count, _ = taught(AutoAssist(), history, 1).notes["feedback"]
    assert total / count == pytest.approx((0.99 * 3 + 1) / 1.99)


def test_one_batch_of_pictures_is_one_step(rng):
    features = pictures(40, rng)
    losses = rng.exponential(size=40).astype(np.float32)
    expected = np.zeros(8, np.float32)
    step(expected, joined(inputs(features, np.arange(40))), losses > losses.mean(), 0.01, 1e-3)
    history = taught(AutoAssist(), history_of(features, losses))
    np.testing.assert_allclose(history.notes["assistant"], expected, atol=1e-7)
    assert history.notes["feedback"][2] == pytest.approx(0.05 * (losses <= losses.mean()).mean())


@pytest.mark.parametrize(("rows", "parts"), [(1, 1), (4, 1), (5, 2), (12, 3), (13, 4), (128, 4)])
def test_a_batch_of_texts_is_cut_into_at_most_four_parts(rows, parts, monkeypatch):
    cuts = []
    monkeypatch.setattr("hf_prune.policies.autoassist.learn", lambda *args: cuts.append(args[3]) or 0.0)
    taught(AutoAssist(), history_of(Features((matrix_of([[1, 2]] * rows),)), np.ones(rows)))
    assert cuts == [parts]


def hard_words(n, rng):
    """Pairs of which those with word 7 in the source, or 8 in the target, are hard; and their losses."""
    source, target = rng.integers(10, 60, (n, 8)), rng.integers(10, 60, (n, 8))
    hard = rng.random(n) < 0.4
    either = rng.random(n) < 0.5
    source[hard & either, 0], target[hard & ~either, 3] = 7, 8
    offsets = np.arange(0, 8 * n + 1, 8)
    texts = (count_matrix(source.ravel(), offsets), count_matrix(target.ravel(), offsets))
    return Features(texts), hard, np.where(hard, 3.0, 1.0) + rng.normal(0, 0.1, n)


def test_it_learns_which_words_are_hard_from_a_part_of_the_rows(rng):
    """Features and losses belong to one row: had they been shuffled, half of the order would be right."""
    features, hard, losses = hard_words(20_000, rng)
    history = history_of(features)
    measured = np.sort(rng.permutation(20_000)[:12_000])
    history.record(measured, losses[measured].astype(np.float32), 0)
    taught(AutoAssist(), history)
    chance = AutoAssist().chance(history, np.arange(20_000))
    unseen = np.setdiff1d(np.arange(20_000), measured)
    ranks = np.argsort(np.argsort(chance[unseen]))
    positives = hard[unseen]
    area = (ranks[positives].mean() - (positives.sum() - 1) / 2) / (~positives).sum()
    assert area > 0.9
    assert chance[hard].mean() > chance[~hard].mean() + 0.02  # L2 holds it back


@pytest.mark.parametrize("sorted_by_class", [False, True])
def test_it_learns_which_pictures_are_hard_in_any_order(sorted_by_class, rng):
    """Class 1 is hard. Rows in row order would be compared with rows of their own class where those stand together."""
    classes = rng.integers(0, 2, 20_000)
    classes = np.sort(classes) if sorted_by_class else classes
    features = Features(pixels=rng.integers(100, 156, (20_000, 6), np.uint8), classes=classes)
    history = history_of(features)
    for round in range(4):
        history.record(np.arange(20_000), (1 + classes + rng.normal(0, 0.1, 20_000)).astype(np.float32), round)
        taught(AutoAssist(), history, round)
    chance = AutoAssist().chance(history, np.arange(20_000))
    assert chance[classes == 1].min() > chance[classes == 0].max() + 0.2


def test_losses_of_other_rounds_and_faults_teach_nothing(rng):
    features = pictures(60, rng)
    losses = rng.exponential(size=60).astype(np.float32)
    plain, disturbed = history_of(features), history_of(features)
    for history in (plain, disturbed):
        history.record(np.arange(40), losses[:40], 1)
    disturbed.record(np.arange(40, 60), losses[40:] + 100, 0)
    disturbed.record(np.arange(5), np.array([np.nan, np.inf, -np.inf, np.nan, np.inf], np.float32), 1)
    for history in (plain, disturbed):
        taught(AutoAssist(), history, 1)
    for name, array in plain.notes.items():
        np.testing.assert_array_equal(array, disturbed.notes[name])


def test_a_round_that_measured_nothing_teaches_nothing():
    assert taught(AutoAssist(), history_of(pairs())).notes == {}


def test_one_row_and_equal_losses(rng):
    """No loss is above the mean of equal ones."""
    for features in (Features((matrix_of([[3]]),)), pictures(1, rng)):
        history = taught(AutoAssist(), history_of(features, [2.0]))
        assert AutoAssist().select(history, at(1), np.random.default_rng(0)).rows.tolist() == [0]
    for loss in (0.1, 0.3, 0.7):
        history = history_of(pictures(2000, rng))
        for round in range(8):
            history.record(np.arange(2000), np.full(2000, loss, np.float32), round)
            taught(AutoAssist(), history, round)
        assert AutoAssist().chance(history, np.arange(2000)).max() < 0.65


def test_learning_writes_nothing_but_notes_and_leaves_the_old_ones_alone(rng):
    """It runs beside the next round, which reads what it was given."""
    history = taught(AutoAssist(), history_of(pictures(50, rng), rng.exponential(size=50)))
    notes, arrays = dict(history.notes), {name: array.copy() for name, array in history.arrays().items()}
    taught(AutoAssist(), history)
    for name, array in history.arrays().items():
        assert (array == arrays[name]).all() != name.startswith("notes/"), name
    for name, array in notes.items():
        np.testing.assert_array_equal(array, arrays[f"notes/{name}"])


def test_long_data_are_read_in_pieces(rng, monkeypatch):
    features, _, losses = hard_words(700, rng)
    history = history_of(features, losses)
    policy = AutoAssist()
    whole = taught(policy, history).notes["assistant"]
    monkeypatch.setattr("hf_prune.policies.autoassist._TEXTS", _texts(chunk=256))
    again = taught(policy, history_of(features, losses))
    np.testing.assert_allclose(again.notes["assistant"], whole, atol=1e-6)
    again.notes["feedback"][2] = 0.6
    pieces = policy.chance(again, np.arange(700))
    monkeypatch.undo()
    np.testing.assert_allclose(policy.chance(again, np.arange(700)), pieces, atol=1e-6)
    assert np.unique(pieces).size > 100


def _texts(chunk):
    from hf_prune.policies import autoassist

    return autoassist._TEXTS._replace(chunk=chunk)


def test_pairs_are_scored_quickly(rng):
    """Some 0.5 us a row; a loop over rows takes a hundred times as long."""
    features, _, losses = hard_words(50_000, rng)
    history = taught(AutoAssist(), history_of(features, losses))
    history.notes["feedback"][2] = 0.9
    start = time.process_time()
    AutoAssist().chance(history, np.arange(50_000))
    assert (time.process_time() - start) / 50_000 < 10e-6


@pytest.mark.parametrize(("field", "value"), [("base", 0.0), ("base", 1.1), ("base", "x"), ("rounds", 0)])
def test_fields_outside_their_range_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"AutoAssist\({field}=...\) must be in .* got {value!r}"):
        AutoAssist(**{field: value})


def test_rounds_cut_the_epoch():
    assert AutoAssist(rounds=5).rounds_per_epoch == 5
