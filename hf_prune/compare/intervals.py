"""All confidence intervals, of 95 % unless another level is given.

interval             a mean difference between two arms, over seeds and, if known, over test rows
proportion_interval  the share of test rows that one run gets right: Wilson's
score_interval       any score of one run: percentiles of scores on resampled rows
sentence_bootstrap   BLEU or chrF of one run, as sacreBLEU resamples its sentences

The first method is our own. It works as follows.

Two arms of a comparison train with the same seeds and are tested on the same rows. The quality is a function of sums
over test rows (for BLEU, n-gram matches and lengths; for a loss, nats and tokens). So the quality on rows drawn with
replacement is the same function of weighted sums. Resample b draws rows once for every run, because all runs are tested
on one test set, and it draws seeds:

    d_b = r_b + k (s_b - d)        d: mean difference over the n seeds, on all rows
                                   r_b: the same on the rows drawn
                                   s_b: the same over n seeds drawn with replacement, on all rows

The interval lies between the quantiles 0.025 and 0.975 of d_b. With k = 1 the seeds' part is too narrow if there are
few seeds: with 3, the bootstrap's interval holds the true difference in 74 % of cases and not in 95 %. Therefore

    k = t(0.975, n - 1) / z(0.975) * sqrt(n / (n - 1))

gives it the width of Student's t (3 seeds: 2.7, 5: 1.6, 10: 1.2, many: 1). In simulations, the interval then holds the
true difference in 92 % of cases (2 seeds), 94 % (3) and 95 % (5) if rows do not matter, and in 94 % or more if they do.
It nearly always holds it if seeds differ mainly in which rows they get right, because both parts count this. One seed
says nothing about other seeds: its interval is over rows alone.

power.py plans with the same two parts how many seeds tell a difference from noise, and when to stop an arm.

BLEU's sums and the score made from them are sacreBLEU's. sacreBLEU's own paired test compares two systems of one run
each and gives a p-value. Here the same statistics are resampled jointly, which gives an interval, over seeds too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri, stdtrit

RESAMPLES = 2000  # in a comparison
_RESAMPLES_OF_ONE = 1000  # for a single run
_MOST_MARKS = 1 << 27  # rows times labels that are in memory at once
_AT_ONCE = 100  # resamples whose row counts are in memory at once


@dataclass(frozen=True)
class RowSums:
    """A quality (a metric's value) that is a function of sums over test rows.

    Args:
        parts: (R, K) float64, what each row adds to each sum.
        score: (B, K) sums -> (B,) quality.
    """

    parts: np.ndarray
    score: Callable[[np.ndarray], np.ndarray]

    @property
    def value(self) -> float:
        """The quality on all rows."""
        return float(self.score(self.parts.sum(axis=0, keepdims=True))[0])


def row_sums(metric: str, found: dict[str, Any], scores: dict[str, Any]) -> RowSums | None:
    """What each row adds to the sums of a quality; None if the metric is not a function of sums known here.

    Args:
        metric: "bleu", "accuracy", "f1", "matthews", "pearson" or "loss".
        found: `predictions` and `references` by row (texts, labels or numbers), or, for "loss", `losses` (mean nats per
            target token) and `tokens` (target tokens); or what `without_texts` makes of these.
        scores: Scores of the run. `bleu_signature` names BLEU's tokenizer; `f1_label` is the label whose F1 counts,
            None if F1 is the mean over all labels that occur.
    """
    if metric == "bleu":
        return RowSums(np.asarray(without_texts(metric, found, scores)["sums"], dtype=float).T, _bleu_score)
    if metric == "loss":
        tokens = np.asarray(found["tokens"], dtype=float)
        nats = np.asarray(found["losses"], dtype=float) * tokens
        return RowSums(np.stack([nats, tokens], axis=1), lambda sums: sums[:, 0] / sums[:, 1])
    maker = _MAKERS.get(metric)
    return maker(found["predictions"], found["references"], scores) if maker else None


def without_texts(metric: str, found: dict[str, Any], scores: dict[str, Any]) -> dict[str, Any]:
    """The numbers and labels that `row_sums` needs from the predictions; the arguments are the same.

    Returns:
        Lists by name. For BLEU: `sums` (10, R) in place of the texts. For the other metrics: what `found` has. Nothing
        if the metric is not a function of sums known here.
    """
    if metric == "bleu":
        sums = found["sums"] if "sums" in found else _bleu_sums(found["predictions"], found["references"], scores)
        return {"sums": sums}
    if metric == "loss":
        return {name: found[name] for name in ("losses", "tokens")}
    return {name: found[name] for name in ("predictions", "references")} if metric in _MAKERS else {}


def _bleu_sums(predictions: Sequence[str], references: Sequence[str], scores: dict[str, Any]) -> list[list[int]]:
    """(10, R): matches and numbers of n-grams, for each n from 1 to 4, and the lengths of the two texts."""
    from sacrebleu.metrics.bleu import BLEU

    signature = dict(part.split(":", 1) for part in scores["bleu_signature"].split("|"))
    # for MeCab, the signature has the version, too: ja-mecab-0.996-IPA
    tokenizer = max((name for name in BLEU.TOKENIZERS if signature["tok"].startswith(name)), key=len)
    counter = BLEU(tokenize=tokenizer, effective_order=True)  # the sums don't depend on it
    counted = [counter.sentence_score(*pair) for pair in zip(predictions, [[text] for text in references], strict=True)]
    return np.array([[*row.counts, *row.totals, row.sys_len, row.ref_len] for row in counted]).T.tolist()


def _bleu_score(sums: np.ndarray) -> np.ndarray:
    from sacrebleu.metrics.bleu import BLEU

    whole = sums.astype(int).tolist()
    return np.array([BLEU.compute_bleu(row[:4], row[4:8], *row[8:], smooth_method="exp").score for row in whole])


def _accuracy(predictions: Sequence[Any], references: Sequence[Any], scores: dict[str, Any]) -> RowSums:
    right = np.asarray(predictions) == np.asarray(references)
    return RowSums(np.stack([right, np.ones(len(right))], axis=1), lambda sums: sums[:, 0] / sums[:, 1])


def _f1(predictions: Sequence[Any], references: Sequence[Any], scores: dict[str, Any]) -> RowSums:
    """The F1 of one label, or the mean over labels."""
    one = scores["f1_label"]
    labels, parts = _by_label(predictions, references, [] if one is None else [one])

    def score(sums: np.ndarray) -> np.ndarray:
        right, predicted, true = np.split(sums, 3, axis=1)
        either = predicted + true
        of_each = 2 * right / np.maximum(either, 1)
        if one is not None:
            return of_each[:, labels.index(one)]
        return of_each.sum(axis=1) / np.count_nonzero(either, axis=1)  # the drawn rows may lack a rare label

    return RowSums(parts, score)


def _matthews(predictions: Sequence[Any], references: Sequence[Any], scores: dict[str, Any]) -> RowSums:
    """For any number of labels, as defined by Gorodkin (2004)."""
    _, parts = _by_label(predictions, references)

    def score(sums: np.ndarray) -> np.ndarray:
        right, predicted, true = np.split(sums, 3, axis=1)
        rows = true.sum(axis=1)
        over = right.sum(axis=1) * rows - (predicted * true).sum(axis=1)
        under = np.sqrt((rows**2 - (predicted**2).sum(axis=1)) * (rows**2 - (true**2).sum(axis=1)))
        return np.divide(over, under, out=np.zeros_like(over), where=under > 0)

    return RowSums(parts, score)


def _pearson(predictions: Sequence[float], references: Sequence[float], scores: dict[str, Any]) -> RowSums:
    x, y = (np.asarray(side, dtype=float) - np.mean(side) for side in (predictions, references))

    def score(sums: np.ndarray) -> np.ndarray:
        xs, ys, xx, yy, xy, rows = sums.T
        over, under = rows * xy - xs * ys, np.sqrt((rows * xx - xs**2) * (rows * yy - ys**2))
        return np.divide(over, under, out=np.zeros_like(over), where=under > 0)

    return RowSums(np.stack([x, y, x * x, y * y, x * y, np.ones(len(x))], axis=1), score)


_MAKERS = {"accuracy": _accuracy, "f1": _f1, "matthews": _matthews, "pearson": _pearson}


def _by_label(
    predictions: Sequence[Any], references: Sequence[Any], more: Sequence[Any] = ()
) -> tuple[list[Any], np.ndarray]:
    """The L labels, and (R, 3 L): for each label whether the row is right, is predicted as it, and is it."""
    labels = sorted({*predictions, *references, *more})
    if len(predictions) * len(labels) > _MOST_MARKS:
        raise ValueError(f"{len(labels):,} labels of {len(predictions):,} rows are too many to be resampled.")
    predicted, true = (np.asarray(side)[:, None] == np.asarray(labels) for side in (predictions, references))
    return labels, np.concatenate([predicted & true, predicted, true], axis=1).astype(float)


def resample_rows(runs: Sequence[RowSums], resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Qualities of runs on rows drawn with replacement, each time the same rows for every run.

    Args:
        runs: Q runs that were tested on the same R rows.
        resamples: B, how often R rows are drawn.
        seed: Seed of the draws.

    Returns:
        (Q, B) float64.
    """
    rng, rows = np.random.default_rng(seed), len(runs[0].parts)
    ends = np.cumsum([run.parts.shape[1] for run in runs])[:-1]
    parts = np.concatenate([run.parts for run in runs], axis=1)
    found = []
    for start in range(0, resamples, _AT_ONCE):
        count = min(_AT_ONCE, resamples - start)
        times = np.array([np.bincount(rng.integers(rows, size=rows), minlength=rows) for _ in range(count)], float)
        sums = np.split(times @ parts, ends, axis=1)
        found.append([run.score(part) for run, part in zip(runs, sums, strict=True)])
    return np.concatenate(found, axis=1)


def interval(
    differences: np.ndarray, resampled: np.ndarray | None = None, level: float = 0.95, seed: int = 1
) -> tuple[float, float] | None:
    """A confidence interval of the mean difference.

    Args:
        differences: (n,) difference between the two arms for each seed, on all rows.
        resampled: (n, B) the same on resamples of the rows; None = the rows are not resampled.
        level: Share of cases in which such an interval should hold the true difference.
        seed: Seed for resampling the seeds; use another than for the rows.

    Returns:
        (low, high). None if rows are not resampled and all differences are equal, as with one seed: they do not show
        how much they vary.
    """
    n, mean = len(differences), differences.mean()
    if resampled is None and np.ptp(differences) == 0:
        return None
    found = np.full(10 * RESAMPLES, mean) if resampled is None else resampled.mean(axis=0)
    tail = (1 + level) / 2
    if n > 1:
        drawn = differences[np.random.default_rng(seed).integers(n, size=(len(found), n))].mean(axis=1)
        found = found + stdtrit(n - 1, tail) / ndtri(tail) * (n / (n - 1)) ** 0.5 * (drawn - mean)
    low, high = np.quantile(found, [1 - tail, tail])
    return float(low), float(high)


def proportion_interval(right: int, rows: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share, such as one run's accuracy; it also holds for few rows and for shares near 0 and 1.

    Args:
        right: Number of rows that count, at most `rows`.
        rows: R, at least 1.
        level: Share of cases in which such an interval should hold the true share.

    Returns:
        (low, high), from 0 to 1.
    """
    from scipy.stats import binomtest  # slow to import

    low, high = binomtest(right, rows).proportion_ci(level, method="wilson")
    return float(low), float(high)


def score_interval(
    score: Callable[[np.ndarray, np.ndarray], float],
    references: np.ndarray,
    predictions: np.ndarray,
    resamples: int = _RESAMPLES_OF_ONE,
    seed: int = 0,
) -> tuple[float, float]:
    """The interval of one run's score: percentiles of the scores on rows drawn with replacement.

    Args:
        score: (references, predictions) -> score.
        references: (R,) labels or numbers, at least two.
        predictions: (R,) predictions of the run.
        resamples: How often R rows are drawn.
        seed: Seed of the draws.

    Returns:
        (low, high); NaN if the score of some draw is NaN.

    Raises:
        ValueError: There are fewer than two rows.
    """
    from scipy.stats import bootstrap

    found = bootstrap(
        (references, predictions),
        score,
        n_resamples=resamples,
        vectorized=False,
        paired=True,
        method="percentile",
        rng=seed,
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def sentence_bootstrap(
    scorer: Any, predictions: Sequence[str], references: Sequence[str], resamples: int = _RESAMPLES_OF_ONE
) -> tuple[float, float, float]:
    """A score of texts, and its mean and spread on sentences drawn with replacement, as sacreBLEU draws them.

    Args:
        scorer: A metric of sacreBLEU such as `BLEU()`; afterwards its signature names the resampling.
        predictions: R texts of the run.
        references: R texts, one for each prediction.
        resamples: How often R sentences are drawn; 1 = not at all.

    Returns:
        The score on all sentences, the mean on those drawn, and half the width of the interval around that mean;
        without draws, the last two are -1.
    """
    found = scorer.corpus_score(predictions, [references], n_bootstrap=resamples)
    return found.score, float(found._mean), float(found._ci)
