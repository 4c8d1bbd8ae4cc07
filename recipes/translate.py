"""Train a translation model with dynamic data pruning, and report what it saved and what it cost.

Without arguments: English to German on an embedded corpus (numbers, dates, prices, countries ... in sentences), a small
model from scratch, nothing downloaded, under two minutes on two CPU cores:

    accelerate launch recipes/translate.py

Real corpora are files (Parquet, JSON lines, CSV, TSV) or a data set of the Hub, with a column for each language or a
column `translation` that holds both. On one GPU, or on N of them:

    accelerate launch recipes/translate.py --train_file train.parquet --validation_file validation.parquet \
        --test_file test.parquet --source_lang en --target_lang de --model_size small --num_train_epochs 8
    accelerate launch --multi_gpu --num_processes N recipes/translate.py --train_file ...

A pretrained model, with language codes where its tokenizer has them:

    accelerate launch recipes/translate.py --model_name_or_path facebook/nllb-200-distilled-600M \
        --source_lang eng_Latn --target_lang deu_Latn --dataset_name ...

`--policy uniform --keep 1` is the baseline on all rows, `--policy none` the plain Trainer; `--help` lists every flag.
The same command again goes on from the last checkpoint of a run that was interrupted, and refuses a finished one.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset, DatasetDict
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
from hf_prune.recipe.columns import columns_of, count_rows, find_text, keep_rows, tell_cuts
from hf_prune.recipe.models import loading, shape_of
from hf_prune.recipe.outcome import Outcome, arguments_of, finish
from hf_prune.recipe.session import DEFAULTS, Laps, check_metric, find_checkpoint, run, train
from hf_prune.recipe.splits import CommonArguments, load_splits, read_corpus
from hf_prune.recipe.tokenizers import byte_level_bpe, set_languages


@dataclass
class RecipeArguments:
    """What to translate, with which model.

    Args:
        source_lang: Column of the source, and its code for a tokenizer that knows codes (en_XX finds column en).
        target_lang: Column of the target, and its code.
        source_prefix: Text put before every source, as T5 wants it.
        model_size: Size of a model from scratch: tiny, small or base.
        vocab_size: Entries of a tokenizer from scratch, which both languages share.
        max_length: Tokens of a sentence at most; longer ones are cut.
        num_beams: Beams for the final score and of the saved model; --generation_num_beams is for validations.
    """

    source_lang: str = "en"
    target_lang: str = "de"
    source_prefix: str = ""
    model_size: str = "tiny"
    vocab_size: int = 4000
    max_length: int = 128
    num_beams: int = 4


FROM_SCRATCH = DEFAULTS | dict(
    unit="tokens",  # for policies with a budget: a short sentence left out saves little
    output_dir="translate-output",
    num_train_epochs=7,
    per_device_train_batch_size=16,  # a small corpus, grouped by length, wants many steps; chosen on a CPU
    per_device_eval_batch_size=128,
    learning_rate=1e-3,  # at 2e-3, small models never came to look at the source in some runs on Multi30k
    warmup_steps=0.1,  # share of training; layer norms that follow the residuals diverge without
    adam_beta2=0.98,  # Vaswani et al. 2017, section 5.3
    label_smoothing_factor=0.1,  # Vaswani et al. 2017, section 5.4
    train_sampling_strategy="group_by_length",  # else nearly half of what is computed is padding
    metric_for_best_model="bleu",
    predict_with_generate=True,
    generation_num_beams=1,  # validations need comparable translations, not the best ones
)
EMBEDDED = dict(
    learning_rate=2e-3,  # a corpus of few words
)
FINE_TUNING = dict(  # for a model that knows the languages already
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
    new_bleu(recipe.target_lang)  # what it lacks is told before hours are spent
    return common, recipe, args, policy


# ---- Data ----


def read_pairs(rows: Dataset, recipe: RecipeArguments, name: str, say=print, carried: Sequence[str] = ()) -> Dataset:
    """The columns `source`, `target` and `carried` of what `name` names; rows that lack text on a side are left out.

    Raises:
        ValueError: A language that has no column, or one without texts, or no row with text.
    """
    if "translation" in rows.column_names:
        rows = rows.flatten()
    columns = {column.removeprefix("translation."): column for column in rows.column_names}
    found = {}
    for side in ("source", "target"):
        lang = getattr(recipe, f"{side}_lang")
        key = lang if lang in columns else lang.partition("_")[0]
        if key not in columns:
            raise ValueError(f"{side}_lang={lang!r}: {name} has no such column; it has {columns_of(rows)}.")
        found[find_text(rows, f"{side}_lang", columns[key], name)] = side
    pairs = rows.select_columns([*found, *carried]).rename_columns(found)
    return keep_rows(
        pairs,
        lambda row: all(row[side] and row[side].strip() for side in found.values()),
        "text in both languages",
        name,
        say,
    )


def load_corpus(common: CommonArguments, recipe: RecipeArguments, seed: int, say=print) -> DatasetDict:
    """Splits train, validation and, where there is one, test, with columns `source` and `target`.

    Raises:
        ValueError: Arguments that don't go together, or what `load_splits` and `read_pairs` refuse.
    """
    if recipe.source_lang == recipe.target_lang:
        raise ValueError(f"source_lang and target_lang are both {recipe.source_lang!r}; name two languages.")

    def prepare(rows, name):
        taken = ("source", "target", recipe.source_lang, recipe.target_lang, "length")
        return read_pairs(rows, recipe, name, say, common.carried(rows, *taken))

    return load_splits(common, lambda: read_corpus(__file__), prepare, seed)


# ---- Model ----


def new_tokenizer(texts, vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, which ends each text with `</s>`."""
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
        decoder_start_token_id=pad,  # as all Marian models
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
        corpus = load_corpus(common, recipe, args.data_seed or 0, say)  # --seed leaves the rows alone
    model, tokenizer = load_model(common, recipe, args, corpus)

    def encode(rows):
        sources = [recipe.source_prefix + text for text in rows["source"]]
        return tokenizer(sources, text_target=rows["target"], max_length=recipe.max_length, truncation=True)

    encode(corpus["train"][:1])  # a tokenizer whose rows are all in the cache would be saved without its max_length
    with args.main_process_first(desc="tokenize"):
        rows = corpus.map(encode, batched=True, remove_columns=["source", "target"], desc="Tokenize")
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
    outcome = test(trainer, rows, corpus, scorer, recipe)
    laps.end("testing")
    dataset = common.source or "embedded corpus"
    card = {"tasks": "translation", "language": [recipe.source_lang, recipe.target_lang], "dataset": dataset}
    finish(trainer, policy, arguments, outcome, laps, card, __file__)


# ---- Test ----


def test(trainer, rows: DatasetDict, corpus: DatasetDict, scorer: TextScorer, recipe: RecipeArguments) -> Outcome:
    """Translate the test rows, or the validation rows where there are none, and score that."""
    final, args = "test" if "test" in corpus else "validation", trainer.args
    # in order of length, and not shuffled, so that each prediction can be put beside its row
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
