"""BLEU and chrF, beside sacreBLEU itself."""

import pytest
from sacrebleu.metrics import BLEU, CHRF

from hf_prune.recipe.bleu import SacreBleu, new_bleu


def test_metric_is_sacrebleu():
    predictions, references = ["the cat sat on a mat", "hello there world"], ["the cat sat on the mat", "hello world"]
    scores = SacreBleu(keep_in_memory=True).compute(
        predictions=predictions, references=references, target_lang="de", n_bootstrap=50
    )
    for name, scorer in (("bleu", BLEU()), ("chrf", CHRF())):
        expected = scorer.corpus_score(predictions, [references], n_bootstrap=50)
        assert scores[name] == expected.score
        found = scores[f"{name}_mean"], scores[f"{name}_interval"]
        assert found == pytest.approx((expected._mean, expected._ci), rel=1e-6)
        assert scores[f"{name}_signature"] == str(scorer.get_signature())
    assert "bs:50" in scores["bleu_signature"]


@pytest.mark.parametrize(
    ("code", "tokenizer"),
    [("zh_CN", "zh"), ("zho_Hans", "zh"), ("zh-TW", "zh"), ("deu_Latn", "13a"), ("de_DE", "13a"), ("ZH", "zh")],
)
def test_bleu_takes_the_tokenizer_of_the_language(code, tokenizer):
    scorer = new_bleu(code)
    scorer.corpus_score(["a"], [["a"]])
    assert f"tok:{tokenizer}" in str(scorer.get_signature())


def test_a_tokenizer_that_is_not_installed_is_named():
    with pytest.raises(ValueError, match=r"target_lang='jpn_Jpan': Japanese .* sacrebleu\[ja\]"):
        new_bleu("jpn_Jpan")


def test_metric_of_resamples_without_a_match():
    texts = ["a b c d e f", *["x"] * 9]
    scores = SacreBleu(keep_in_memory=True).compute(
        predictions=texts, references=["a b c d e g", *["y"] * 9], target_lang="de", n_bootstrap=100
    )
    assert scores["bleu_interval"] > 0


def test_metric_without_resampling_has_no_interval():
    scores = SacreBleu(keep_in_memory=True).compute(predictions=["a b c d"], references=["a b c d"])
    assert scores["bleu"] == pytest.approx(100)
    assert not [name for name in scores if "interval" in name]
