"""Intervals of paired differences, against closed forms, sacreBLEU and scikit-learn."""

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.significance import PairedTest
from sacrebleu.tokenizers.tokenizer_none import NoneTokenizer
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef

from hf_prune.compare.intervals import (
    RowSums,
    interval,
    proportion_interval,
    resample_rows,
    row_sums,
    score_interval,
    sentence_bootstrap,
)


def t_interval(differences):
    n = len(differences)
    half = stats.t.ppf(0.975, n - 1) * np.std(differences, ddof=1) / n**0.5
    return np.mean(differences) - half, np.mean(differences) + half


def drawn_rows(rows, resamples, seed=0):
    """The rows that `resample_rows` draws."""
    rng = np.random.default_rng(seed)
    return [rng.integers(rows, size=rows) for _ in range(resamples)]


# ---- Seeds ----


def test_of_three_seeds_it_is_that_of_their_extremes():
    """Three equal draws have a chance of 1 / 27 > 0.025; t(0.975, 2) / z * sqrt(3 / 2) = 4.3027 / 1.95996 * 1.22474."""
    low, high = interval(np.array([0.0, 1.0, 5.0]))
    assert (low, high) == pytest.approx((2 - 2.68867 * 2, 2 + 2.68867 * 3), abs=1e-4)


@pytest.mark.parametrize("n", [12, 40])
def test_of_many_seeds_it_is_that_of_t(n):
    differences = np.random.default_rng(n).normal(0.3, 2, size=n)
    low, high = interval(differences)
    expected = t_interval(differences)
    assert high - low == pytest.approx(expected[1] - expected[0], rel=0.06)
    assert (low + high) / 2 == pytest.approx(differences.mean(), abs=0.1 * (high - low))


@pytest.mark.parametrize(("n", "least"), [(2, 0.9), (3, 0.92), (5, 0.93)])
def test_it_holds_the_truth_as_often_as_it_says(n, least):
    rng, trials = np.random.default_rng(0), 300
    found = [interval(rng.normal(1, 3, size=n), seed=trial) for trial in range(trials)]
    assert least <= np.mean([low <= 1 <= high for low, high in found]) <= 0.98


def test_equal_arms_differ_by_nothing():
    assert interval(np.zeros(3), np.zeros((3, 100))) == (0, 0)


@pytest.mark.parametrize("seeds", [1, 2])
def test_equal_differences_without_rows_say_nothing(seeds):
    assert interval(np.ones(seeds)) is None


# ---- Rows ----


def test_of_rows_it_is_that_of_the_paired_binomial_difference():
    """b rows that only the one gets right, c that only the other does: variance (b + c - (b - c)^2 / R) / R^2."""
    truth, rows = ["cat"] * 1000, np.arange(1000)
    one = row_sums("accuracy", {"predictions": np.where(rows < 700, "cat", "dog").tolist(), "references": truth}, {})
    other = row_sums(
        "accuracy",
        {"predictions": np.where((rows < 600) | (rows >= 950), "cat", "dog").tolist(), "references": truth},
        {},
    )
    assert (one.value, other.value) == (0.7, 0.65)
    resampled = resample_rows([one, other])
    low, high = interval(np.array([0.05]), (resampled[0] - resampled[1])[None])
    b, c = 100, 50
    half = stats.norm.ppf(0.975) * (b + c - (b - c) ** 2 / 1000) ** 0.5 / 1000
    assert (low, high) == pytest.approx((0.05 - half, 0.05 + half), abs=0.003)


def test_of_seeds_and_rows_it_is_wider_than_of_either():
    rng = np.random.default_rng(1)
    rows = [
        RowSums(np.stack([rng.random(200) < p, np.ones(200)], axis=1), lambda s: s[:, 0] / s[:, 1]) for p in (0.5, 0.6)
    ]
    by_rows = np.subtract(*resample_rows(rows))
    seeds = np.array([-0.02, 0.0, 0.02]) + rows[0].value - rows[1].value
    both = interval(seeds, by_rows + np.array([-0.02, 0.0, 0.02])[:, None])
    parts = [np.ptp(interval(seeds)), np.ptp(interval(seeds[1:2], by_rows[None]))]
    assert np.ptp(both) > 1.05 * max(parts)
    assert np.ptp(both) < sum(parts)


def test_every_run_is_tested_on_the_same_rows():
    run = row_sums("loss", {"losses": np.random.default_rng(0).random(50).tolist(), "tokens": [3] * 50}, {})
    same, again = resample_rows([run, run], 200)
    assert np.array_equal(same, again) and len(np.unique(same)) > 150
    assert np.array_equal(resample_rows([run], 200)[0], same)


# ---- Metrics ----

LABELS = ["ant", "bee", "cat"]


@pytest.fixture
def labelled():
    """(predictions, references) of 60 rows, of `count` labels."""

    def made(count):
        rng = np.random.default_rng(3)
        share = np.array([6, 3, 1][:count])
        true = rng.choice(LABELS[:count], 60, p=share / share.sum())
        return np.where(rng.random(60) < 0.7, true, rng.choice(LABELS[:count], 60)), true

    return made


def resampled_by(function, predictions, references, count=20):
    return [function(references[rows], predictions[rows]) for rows in drawn_rows(len(references), count)]


@pytest.mark.parametrize(
    ("metric", "count", "label", "function"),
    [
        ("accuracy", 3, None, lambda true, predicted: np.mean(true == predicted)),
        ("f1", 3, None, lambda *x: f1_score(*x, average="macro")),
        ("f1", 2, None, lambda *x: f1_score(*x, average="macro")),
        ("f1", 2, "ant", lambda *x: f1_score(*x, pos_label="ant")),
        ("f1", 2, "bee", lambda *x: f1_score(*x, pos_label="bee")),
        ("f1", 1, "bee", lambda *x: 0.0),
        ("matthews", 2, None, matthews_corrcoef),
        ("matthews", 3, None, matthews_corrcoef),
    ],
)
def test_scores_of_resampled_labels_are_those_of_the_rows(labelled, metric, count, label, function):
    predictions, references = labelled(count)
    value = function(references, predictions)
    found = {"predictions": predictions.tolist(), "references": references.tolist()}
    run = row_sums(metric, found, {"f1_label": label})
    assert run.value == pytest.approx(value)
    np.testing.assert_allclose(resample_rows([run], 20)[0], resampled_by(function, predictions, references))


def test_a_correlation_of_resampled_numbers_is_that_of_the_rows():
    rng = np.random.default_rng(0)
    references = 1000 + rng.random(40)
    predictions = references + rng.random(40)
    run = row_sums("pearson", {"predictions": predictions.tolist(), "references": references.tolist()}, {})
    expected = resampled_by(lambda *x: stats.pearsonr(*x).statistic, predictions, references)
    np.testing.assert_allclose(resample_rows([run], 20)[0], expected)


def test_a_constant_prediction_has_no_correlation():
    assert row_sums("matthews", {"predictions": ["a"] * 4, "references": ["a", "b"] * 2}, {}).value == 0


def test_a_loss_counts_tokens():
    """(2 * 1 + 1 * 3) / (1 + 3)."""
    run = row_sums("loss", {"losses": [2.0, 1.0], "tokens": [1, 3]}, {})
    assert run.value == 1.25
    expected = [
        (2.0 * (r == 0).sum() + 3.0 * (r == 1).sum()) / ((r == 0).sum() + 3 * (r == 1).sum()) for r in drawn_rows(2, 9)
    ]
    np.testing.assert_allclose(resample_rows([run], 9)[0], expected)


def test_an_unknown_metric_has_no_sums():
    assert row_sums("spearman", {"predictions": [1.0], "references": [1.0]}, {}) is None


# ---- BLEU ----

WORDS = "the a man dog cat runs walks over street red blue house with old young".split()
SIGNATURE = {"bleu_signature": "nrefs:1|bs:1000|seed:12345|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"}


def translations(wrong, seed):
    """(references, predictions), in which each word is another with the chance `wrong`."""
    rng = np.random.default_rng(0)
    references = [rng.choice(WORDS, rng.integers(4, 14)).tolist() for _ in range(120)]
    rng = np.random.default_rng(seed)
    predictions = [[rng.choice(WORDS) if rng.random() < wrong else word for word in row] for row in references]
    return [" ".join(row) + " ." for row in references], [" ".join(row) + "." for row in predictions]


def bleu_sums(wrong, seed):
    references, predictions = translations(wrong, seed)
    return row_sums("bleu", {"predictions": predictions, "references": references}, SIGNATURE)


def test_bleu_of_resampled_rows_is_that_of_sacrebleu():
    references, predictions = (np.array(side) for side in translations(0.2, 1))
    run = bleu_sums(0.2, 1)

    def score(true, predicted):
        return BLEU().corpus_score(predicted.tolist(), [true.tolist()]).score

    assert run.value == pytest.approx(score(references, predictions), rel=1e-12)
    np.testing.assert_allclose(resample_rows([run], 15)[0], resampled_by(score, predictions, references, 15))


def test_bleu_counts_the_tokens_that_its_signature_names():
    found = {"predictions": ["我喜欢猫。"] * 2, "references": ["我喜欢狗。"] * 2}
    by_sign, by_word = (row_sums("bleu", found, {"bleu_signature": f"nrefs:1|tok:{tok}"}) for tok in ("zh", "13a"))
    assert by_sign.value > 30 > by_word.value


def test_a_tokenizer_whose_signature_has_its_version_is_known(monkeypatch):
    """MeCab's, which need not be installed here."""
    asked = []
    monkeypatch.setattr("sacrebleu.metrics.bleu._get_tokenizer", lambda name: asked.append(name) or NoneTokenizer)
    for tok in ("ja-mecab-0.996-IPA", "ko-mecab-0.996/ko-0.9.2-KO"):
        row_sums("bleu", {"predictions": ["a"], "references": ["a"]}, {"bleu_signature": f"nrefs:1|tok:{tok}"})
    assert asked == ["ja-mecab", "ko-mecab"]


@pytest.mark.parametrize(("wrong", "significant"), [(0.3, True), (0.2, False)])
def test_an_interval_of_bleu_agrees_with_sacrebleus_paired_test(wrong, significant):
    references, one = translations(0.2, 1)
    _, other = translations(wrong, 2)
    _, scores = PairedTest([("one", one), ("other", other)], {"BLEU": BLEU(references=[references])}, None, "bs", 500)()
    resampled = np.subtract(*resample_rows([bleu_sums(wrong, 2), bleu_sums(0.2, 1)]))
    low, high = interval(resampled.mean(keepdims=True), resampled[None])
    assert (scores["BLEU"][1].p_value < 0.05) == significant == (high < 0 or low > 0)


def test_the_spread_of_bleu_is_that_of_sacrebleus_bootstrap():
    references, predictions = translations(0.2, 1)
    theirs = BLEU(references=[references]).corpus_score(predictions, None, n_bootstrap=1000)
    ours = resample_rows([bleu_sums(0.2, 1)])[0]
    assert np.ptp(np.quantile(ours, [0.025, 0.975])) / 2 == pytest.approx(theirs._ci, rel=0.1)


def test_a_label_that_no_row_drawn_has_is_not_counted_as_missed():
    """As scikit-learn has it, which knows the labels that occur alone."""
    true = np.array(["ant"] * 10 + ["bee"] * 9 + ["cat"])
    run = row_sums("f1", {"predictions": true.tolist(), "references": true.tolist()}, {"f1_label": None})
    assert resample_rows([run], 50)[0].tolist() == [1.0] * 50


# ---- Of one run ----


def test_the_interval_of_a_share_is_wilsons():
    """Its ends are where the share lies z standard errors of a binomial with that end from the share seen."""
    z = stats.norm.ppf(0.975)
    for right, rows in ((7, 10), (50, 1000)):
        ends = proportion_interval(right, rows)
        for end in ends:
            assert abs(right / rows - end) == pytest.approx(z * (end * (1 - end) / rows) ** 0.5)
        assert ends[0] < right / rows < ends[1]
    assert proportion_interval(0, 10)[0] == 0 and proportion_interval(10, 10)[1] == 1
    narrow, wide = (np.ptp(proportion_interval(7, 10, level)) for level in (0.5, 0.99))
    assert narrow < wide


def test_the_interval_of_a_score_is_that_of_its_percentiles():
    """A mean of many values: that of the normal distribution. A seed draws the same rows."""
    values = np.random.default_rng(0).normal(size=400)
    low, high = score_interval(lambda true, predicted: float(np.mean(predicted - true)), np.zeros(400), values, seed=1)
    half = stats.norm.ppf(0.975) * values.std() / 400**0.5
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.2 * half)
    pairs = np.arange(400), np.arange(400)  # drawn together
    assert score_interval(lambda true, predicted: float(np.mean(true == predicted)), *pairs, resamples=50) == (1, 1)
    with pytest.raises(ValueError, match="two or more"):
        score_interval(lambda true, predicted: 1.0, np.zeros(1), np.zeros(1))


def test_the_bootstrap_of_sentences_is_that_of_sacrebleu():
    references, predictions = translations(0.2, 1)
    scorer = BLEU()
    score, mean, half = sentence_bootstrap(scorer, predictions, references, 200)
    assert score == BLEU().corpus_score(predictions, [references]).score
    theirs = BLEU().corpus_score(predictions, [references], n_bootstrap=200)
    assert (mean, half) == (theirs._mean, theirs._ci) and half > 0
    assert "bs:200" in str(scorer.get_signature())
