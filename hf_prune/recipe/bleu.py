"""BLEU and chrF as sacreBLEU computes them, for every language that it has a tokenizer for; nothing is downloaded."""

import re
from typing import Any

import datasets
import evaluate
import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from ..compare.intervals import sentence_bootstrap

BLEU_LANGUAGES = {"zho": "zh", "cmn": "zh", "yue": "zh", "jpn": "ja", "kor": "ko"}  # as sacreBLEU calls them


class PlainNumbers:
    """Put before a metric of sacreBLEU, which can't average resamples where numpy's floats meet a plain 0."""

    def _compute_score_from_stats(self, stats):
        plain = np.asarray(stats).tolist()
        return super()._compute_score_from_stats(plain)  # pyright: ignore[reportAttributeAccessIssue]


class PlainBLEU(PlainNumbers, BLEU):
    """BLEU of resamples that may have no match."""


class PlainCHRF(PlainNumbers, CHRF):
    """chrF of resamples that may have no match."""


def new_bleu(target_lang: str) -> PlainBLEU:
    """BLEU with the tokenizer of a language, in any of the codes that tokenizers of models have for it.

    Raises:
        ValueError: That tokenizer is not installed.
    """
    language = re.split("[_-]", target_lang.lower())[0]
    try:
        return PlainBLEU(trg_lang=BLEU_LANGUAGES.get(language, language))
    except (RuntimeError, ImportError) as error:
        raise ValueError(f"target_lang={target_lang!r}: {' '.join(str(error).split())}") from error


class SacreBleu(evaluate.Metric):
    """BLEU and chrF as sacreBLEU computes them; nothing is downloaded."""

    def _info(self):
        return evaluate.MetricInfo(
            description="BLEU and chrF with signatures; on request, the mean and half the width of 95 % of resamples.",
            citation="Post (2018), A Call for Clarity in Reporting BLEU Scores, WMT.",
            inputs_description="Texts, not tokenized. target_lang: chooses BLEU's tokenizer. n_bootstrap: resamples.",
            features=datasets.Features({name: datasets.Value("string") for name in ("predictions", "references")}),
        )

    def _compute(self, predictions, references, target_lang="", n_bootstrap=1):
        results = {}
        for name, scorer in (("bleu", new_bleu(target_lang)), ("chrf", PlainCHRF())):
            score, mean, half = sentence_bootstrap(scorer, predictions, references, n_bootstrap)
            results |= {name: score, f"{name}_signature": str(scorer.get_signature())}
            if n_bootstrap > 1:
                results |= {f"{name}_mean": mean, f"{name}_interval": half}
        return results


class TextScorer:
    """BLEU and chrF of the tokens that a model has generated.

    Args:
        tokenizer: Makes texts of them.
        target_lang: Chooses BLEU's own tokenizer.
    """

    def __init__(self, tokenizer: Any, target_lang: str):
        self.tokenizer, self.target_lang = tokenizer, target_lang
        self._metric = SacreBleu(keep_in_memory=True)

    def texts(self, ids: np.ndarray) -> list[str]:
        """The texts of tokens (N, T), which the Trainer fills up with -100."""
        ids = np.where(ids < 0, self.tokenizer.pad_token_id, ids)
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def score(self, predictions: list[str], references: list[str], **options: Any) -> dict[str, Any]:
        """What `SacreBleu` computes; `options` are its own."""
        found = self._metric.compute(
            predictions=predictions, references=references, target_lang=self.target_lang, **options
        )
        return dict(found or {})

    def __call__(self, outputs: Any) -> dict[str, float]:
        """The scores of a validation, as the Trainer's `compute_metrics` gives them."""
        scores = self.score(self.texts(outputs.predictions), self.texts(outputs.label_ids))
        return {name: scores[name] for name in ("bleu", "chrf")}
