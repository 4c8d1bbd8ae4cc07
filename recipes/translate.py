"""Train a translation model with dynamic data pruning, and report what it saved and what it cost.

Without arguments, it trains a small model from scratch, English to German, on an embedded corpus (numbers, dates,
prices, countries ... in sentences). It downloads nothing and takes under two minutes on two CPU cores:

    accelerate launch recipes/translate.py

Real corpora are files (Parquet, JSON lines, CSV, TSV) or a data set of the Hub, with one column per language, or with a
column `translation` that holds both. On one GPU, or on N GPUs:

    accelerate launch recipes/translate.py --train_file train.parquet --validation_file validation.parquet \
        --test_file test.parquet --source_lang en --target_lang de --model_size small --num_train_epochs 8
    accelerate launch --multi_gpu --num_processes N recipes/translate.py --train_file ...

A pretrained model, with language codes if its tokenizer has them:

    accelerate launch recipes/translate.py --model_name_or_path facebook/nllb-200-distilled-600M \
        --source_lang eng_Latn --target_lang deu_Latn --dataset_name ...

`--policy uniform --keep 1` is the baseline on all rows, `--policy none` the plain Trainer. `--help` lists the
usual flags and what they are for a model from scratch (pretrained: learning rate 5e-5, 3 epochs), `--help-all` all.
The same command again continues an interrupted run from its last checkpoint, and refuses a finished run.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from datasets import DatasetDict
from tokenizers import decoders, processors
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    MarianConfig,
    MarianMTModel,
    PreTrainedTokenizerFast,
    Seq2SeqTrainingArguments,
    set_seed,
)

from hf_prune import PruningSeq2SeqTrainer
from hf_prune.recipe.arguments import parse
from hf_prune.recipe.bleu import TextScorer, new_bleu
from hf_prune.recipe.columns import count_rows, encode_splits, tell_cuts
from hf_prune.recipe.models import loading, shape_of
from hf_prune.recipe.outcome import Outcome, arguments_of, finish
from hf_prune.recipe.pairs import read_pairs, untranslated
from hf_prune.recipe.session import DEFAULTS, Laps, check_metric, find_checkpoint, run, train
from hf_prune.recipe.splits import CommonArguments, load_splits, read_corpus
from hf_prune.recipe.tokenizers import byte_level_bpe, set_languages
from hf_prune.recipe.unlabelled import score


@dataclass
class RecipeArguments:
    """What to translate, and with which model.

    Args:
        source_lang: Column of the source, and its code for tokenizers with language codes (en_XX finds column en).
        target_lang: Column of the target, and its code.
        source_prefix: Text to put before every source, which T5 needs.
        model_size: Size of a model from scratch: tiny, small or base.
        vocab_size: Entries of a tokenizer from scratch, which both languages share.
        max_length: Maximum number of tokens in a sentence; longer sentences are cut.
        num_beams: Beams for the final score and for the saved model; --generation_num_beams is for validations.
    """

    source_lang: str = "en"
    target_lang: str = "de"
    source_prefix: str = ""
    model_size: str = "tiny"
    vocab_size: int = 4000
    max_length: int = 128
    num_beams: int = 4


FROM_SCRATCH = DEFAULTS | dict(
    unit="tokens",  # for policies with a budget: leaving out a short sentence saves little
    output_dir="translate-output",
    num_train_epochs=7,
    per_device_train_batch_size=16,  # a small corpus, grouped by length, needs many steps; chosen on a CPU
    per_device_eval_batch_size=128,
    learning_rate=1e-3,  # at 2e-3, small models ignored the source in some runs on Multi30k
    warmup_steps=0.1,  # share of training; without warmup, layer norms after the residuals diverge
    adam_beta2=0.98,  # Vaswani et al. 2017, section 5.3
    label_smoothing_factor=0.1,  # Vaswani et al. 2017, section 5.4
    train_sampling_strategy="group_by_length",  # otherwise nearly half of the positions are padding
    metric_for_best_model="bleu",
    predict_with_generate=True,
    generation_num_beams=1,  # validations need comparable translations, not the best ones
)
EMBEDDED = dict(
    learning_rate=2e-3,  # the corpus has few different words
)
FINE_TUNING = dict(  # for a pretrained model
    learning_rate=5e-5,
    num_train_epochs=3,
    per_device_train_batch_size=32,
    label_smoothing_factor=0.0,  # the Trainer can't smooth for M2M100 and NLLB
)

SIZES = {  # width, layers on either side, heads, inner width of the feed-forward layers, dropout
    "tiny": (128, 2, 4, 512, 0.1),
    "small": (128, 3, 4, 512, 0.1),
    "base": (512, 6, 8, 2048, 0.1),  # Vaswani et al. 2017, table 3
}


def read_flags(argv: Sequence[str] | None):
    """The common flags, the recipe's, the training arguments and the policy; ValueError for values that don't fit."""
    types = (CommonArguments, RecipeArguments, Seq2SeqTrainingArguments)
    common, *_ = parse(*types, argv=argv, **FROM_SCRATCH)
    special = (FINE_TUNING if common.model_name_or_path else {}) | ({} if common.source else EMBEDDED)
    common, recipe, args, policy = parse(*types, argv=argv, **FROM_SCRATCH | special)
    if recipe.num_beams < 1 or recipe.max_length < 2:
        raise ValueError(
            f"num_beams={recipe.num_beams} must be 1 or more, and max_length={recipe.max_length} 2 or more."
        )
    if not args.predict_with_generate and args.metric_for_best_model in ("bleu", "chrf"):
        raise ValueError(
            f"predict_with_generate=False: validations then have no {args.metric_for_best_model} to choose a model by. "
            "Leave it True, or give --metric_for_best_model loss."
        )
    check_metric(args, ("bleu", "chrf"))
    new_bleu(recipe.target_lang)  # reports a missing tokenizer before hours are spent
    return common, recipe, args, policy


# ---- Data ----


def load_corpus(common: CommonArguments, recipe: RecipeArguments, seed: int, say=print) -> DatasetDict:
    """Splits train, validation and, if there is one, test, with columns `source` and `target`.

    Raises:
        ValueError: Arguments don't go together, or `load_splits` or `read_pairs` refuses something.
    """
    if recipe.source_lang == recipe.target_lang:
        raise ValueError(f"source_lang and target_lang are both {recipe.source_lang!r}; name two languages.")

    def prepare(rows, name):
        taken = ("source", "target", recipe.source_lang, recipe.target_lang, "length")
        return read_pairs(rows, recipe, name, say, common.carried(rows, *taken))

    return load_splits(common, lambda: read_corpus(__file__), prepare, seed, lambda rows: untranslated(rows, recipe))


# ---- Model ----


def new_tokenizer(texts, vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that ends each text with `</s>`."""
    bpe = byte_level_bpe(texts, vocab_size, ["<pad>", "</s>"], begins_with_space=True)
    bpe.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    bpe.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=bpe, model_max_length=max_length, **names)


def new_model(size: str, tokenizer: PreTrainedTokenizerFast, max_length: int) -> MarianMTModel:
    """A Marian model with random weights, one embedding for source, target and output; ValueError for unknown sizes."""
    width, layers, heads, inner, dropout = shape_of(size, SIZES)
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    shape = {"layers": layers, "attention_heads": heads, "ffn_dim": inner}
    config = MarianConfig(
        **{f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in shape.items()},
        vocab_size=len(tokenizer),
        d_model=width,
        dropout=dropout,
        activation_function="relu",
        scale_embedding=True,
        max_position_embeddings=max_length,
        pad_token_id=pad,
        eos_token_id=eos,
        forced_eos_token_id=eos,
        decoder_start_token_id=pad,  # as in all Marian models
    )
    model = MarianMTModel(config)
    model.generation_config.bad_words_ids = [[pad]]
    return model


def load_model(common: CommonArguments, recipe: RecipeArguments, args: Seq2SeqTrainingArguments, corpus: DatasetDict):
    """The model and its tokenizer: pretrained, or from scratch."""
    if common.model_name_or_path:
        with loading(common.model_name_or_path):
            tokenizer = AutoTokenizer.from_pretrained(common.model_name_or_path)
            model = AutoModelForSeq2SeqLM.from_pretrained(common.model_name_or_path)
        set_languages(model, tokenizer, recipe.source_lang, recipe.target_lang)
        if args.label_smoothing_factor and not hasattr(model, "prepare_decoder_input_ids_from_labels"):
            raise ValueError(f"{type(model).__name__} can't be trained with --label_smoothing_factor; leave it out.")
    else:
        texts = (text for rows in corpus["train"].iter(1000) for side in ("source", "target") for text in rows[side])
        tokenizer = new_tokenizer(texts, recipe.vocab_size, recipe.max_length)
        model = new_model(recipe.model_size, tokenizer, recipe.max_length)
    model.generation_config.max_length = recipe.max_length
    model.generation_config.num_beams = recipe.num_beams
    return model, tokenizer


# ---- Train ----


def main(argv: Sequence[str] | None = None) -> None:
    laps = Laps()
    common, recipe, args, policy = read_flags(argv)
    arguments = arguments_of(common, recipe, args)
    checkpoint = find_checkpoint(args, policy, common, recipe)
    say = print if args.process_index == 0 else lambda *texts: None
    set_seed(args.seed)
    with args.main_process_first(desc="read the corpus"):
        corpus = load_corpus(common, recipe, args.data_seed or 0, say)  # --seed does not change the rows
    model, tokenizer = load_model(common, recipe, args, corpus)

    def encode(rows):
        sources = [recipe.source_prefix + (text or "") for text in rows["source"]]
        targets = rows.get("target") or [""] * len(sources)  # Trainer needs some, also of rows without translations
        return tokenizer(sources, text_target=targets, max_length=recipe.max_length, truncation=True)

    encode(corpus["train"][:1])  # sets the tokenizer's max_length even if all rows are in the cache
    with args.main_process_first(desc="tokenize"):
        rows = encode_splits(corpus, encode, ("source", "target"))
    say(f"{count_rows(rows)}; {model.num_parameters():,} parameters; vocabulary of {len(tokenizer):,}")
    tell_cuts(rows["train"], recipe.max_length, say)
    laps.end("reading")

    scorer = TextScorer(tokenizer, recipe.target_lang)
    trainer = PruningSeq2SeqTrainer(
        model=model,
        args=args,
        policy=policy,
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
        compute_metrics=scorer if args.predict_with_generate else None,
        **common.for_trainer(),
    )
    train(trainer, checkpoint)
    laps.end("training")
    beams = {"num_beams": recipe.num_beams}
    outcome = score(trainer, rows, lambda: test(trainer, rows, corpus, scorer, recipe), scorer.texts, **beams)
    laps.end("testing")
    dataset = common.source or "embedded corpus"
    card = {"tasks": "translation", "language": [recipe.source_lang, recipe.target_lang], "dataset": dataset}
    finish(trainer, policy, arguments, outcome, laps, card, __file__)


# ---- Test ----


def test(trainer, rows: DatasetDict, corpus: DatasetDict, scorer: TextScorer, recipe: RecipeArguments) -> Outcome:
    """Translate the test rows, or the validation rows if there are none, and score the translations."""
    final, args = "test" if "test" in corpus else "validation", trainer.args
    # in order of length and not shuffled, so that each prediction can be matched to its row
    order = np.argsort([len(ids) for ids in rows[final]["input_ids"]], kind="stable")[::-1]
    args.train_sampling_strategy, args.predict_with_generate, trainer.compute_metrics = "sequential", True, None
    output = trainer.predict(rows[final].select(order), num_beams=recipe.num_beams)
    hypotheses = dict(sorted(zip(order.tolist(), scorer.texts(output.predictions), strict=False)))  # ranks repeat some
    texts = {"predictions": list(hypotheses.values()), "references": list(corpus[final]["target"])}
    scores = scorer.score(**texts, n_bootstrap=1000)
    lines = [
        f"{title} {scores[name]:.2f}, resampled {scores[f'{name}_mean']:.2f} ± {scores[f'{name}_interval']:.2f} "
        f"({final}, {len(order):,} rows, {scores[f'{name}_signature']})"
        for name, title in (("bleu", "BLEU"), ("chrf", "chrF"))
    ]
    samples = []
    for row in random.Random(args.seed).sample(range(len(order)), min(5, len(order))):
        source, reference = (corpus[final][side][row] for side in ("source", "target"))
        samples.append(f"source      {source}\nreference   {reference}\nhypothesis  {hypotheses[row]}")
    return Outcome("bleu", {"num_beams": recipe.num_beams} | scores, final, texts, lines, samples)


if __name__ == "__main__":
    run(main)
