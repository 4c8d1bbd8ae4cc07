"""Train a text classifier with dynamic data pruning, and report what it saved and what it cost.

Without arguments, it trains a small BERT from scratch on an embedded corpus: what kind of thing is a short text in one
of eight languages (a date, a price, a country ...)? Some labels are wrong (the column `true_label` has the right ones).
It downloads nothing and takes under two minutes on two CPU cores:

    accelerate launch recipes/text_classification.py

Real data are files (Parquet, JSON lines, CSV, TSV) or a data set of the Hub, with one text or a pair of texts per row.
Labels are classes, or floats, which the model then predicts as numbers. On one GPU, or on N GPUs:

    accelerate launch recipes/text_classification.py --model_name_or_path answerdotai/ModernBERT-base \
        --train_file train.parquet --validation_file validation.parquet --text_columns sentence1 sentence2
    accelerate launch --multi_gpu --num_processes N recipes/text_classification.py --train_file ...

Classes get accuracy, F1 (of class 1 if there are two classes, else macro) and Matthews' correlation. Numbers get
Pearson's and Spearman's. The first score picks the best checkpoint and is compared, unless `--metric` names another.
`--policy uniform --keep 1` is the baseline on all rows, `--policy none` the plain Trainer. `--help` lists the
usual flags and what they are for a model from scratch (pretrained: learning rate 5e-5, 4 epochs), `--help-all` all.
The same command again continues an interrupted run from its last checkpoint, and refuses a finished run.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from scipy.special import softmax
from tokenizers import processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
    TrainingArguments,
    set_seed,
)

from hf_prune import PruningTrainer
from hf_prune.recipe.arguments import parse
from hf_prune.recipe.columns import count_rows, find_column, find_text, find_texts, keep_rows, tell_cuts
from hf_prune.recipe.labels import ClassArguments, encode_labels, known_classes, read_numbers, warn_if_untaught
from hf_prune.recipe.metrics import LabelScorer
from hf_prune.recipe.models import loading, names_of, shape_of
from hf_prune.recipe.outcome import Outcome, arguments_of, finish
from hf_prune.recipe.session import DEFAULTS, Laps, check_metric, find_checkpoint, run, train
from hf_prune.recipe.splits import CommonArguments, hold_out, limit, read_corpus, read_splits
from hf_prune.recipe.tokenizers import byte_level_bpe
from hf_prune.recipe.unlabelled import is_unlabelled, score, set_apart


@dataclass
class RecipeArguments(ClassArguments):
    """What to classify, and with which model.

    Args:
        text_columns: Columns of the text, or of a pair of texts; without it, columns with known names (sentence1 and
            sentence2, premise and hypothesis, text ...) or the only column of texts.
        label_column: Column of the labels: classes, or floats to predict.
        metric: The main score: accuracy, f1 or matthews for classes, pearson or spearman for numbers; without it,
            accuracy or pearson.
        model_size: Size of a model from scratch: tiny, small or base.
        vocab_size: Entries of a tokenizer from scratch.
        max_length: Maximum number of tokens in a row; longer rows are cut.
    """

    text_columns: list[str] = field(default_factory=list)
    label_column: str = "label"
    metric: str | None = None
    model_size: str = "tiny"
    vocab_size: int = 4000
    max_length: int = 128


FROM_SCRATCH = DEFAULTS | dict(
    unit="tokens",  # for policies with a budget: leaving out a short text saves little
    output_dir="text-classification-output",
    num_train_epochs=10,
    per_device_train_batch_size=8,  # a small corpus, grouped by length, needs many steps; chosen on a CPU
    per_device_eval_batch_size=128,
    learning_rate=7e-4,  # a small model can take it
    warmup_steps=0.1,  # share of training; without warmup, layer norms after the residuals diverge
    weight_decay=0.01,  # Devlin et al. 2019, appendix A.2
    train_sampling_strategy="group_by_length",  # otherwise half of the positions are padding
    metric_for_best_model="accuracy",
)
FINE_TUNING = dict(  # Devlin et al. 2019, appendix A.3: 2e-5 to 5e-5, 2 to 4 epochs
    learning_rate=5e-5,
    num_train_epochs=4,
    per_device_train_batch_size=32,
)

SIZES = {  # width, layers, heads; the feed-forward layers are four times as wide, as in BERT
    "tiny": (128, 2, 2),  # Turc et al. 2019, table 1
    "small": (256, 4, 4),
    "base": (768, 12, 12),  # Devlin et al. 2019
}
TEXTS = ("text", "text_pair")  # names of the columns after reading

# ---- Data ----


def is_whole(row: dict[str, Any]) -> bool:
    """Whether no text of the row is missing, and not all are blank."""
    texts = [row[name] for name in TEXTS if name in row]
    return None not in texts and any(map(str.strip, texts))


def load_texts(
    common: CommonArguments, recipe: RecipeArguments, seed: int, say=print
) -> tuple[DatasetDict, list[str] | None]:
    """Splits train, validation and test, with columns `text`, maybe `text_pair`, and `labels`; or, without, unlabelled.

    Returns:
        The splits, and the names of the classes; None if the labels are floats.

    Raises:
        ValueError: A split has fewer than two rows of text, or `read_splits`, `find_texts`, `read_numbers`,
            `known_classes`, `encode_labels`, `hold_out` or `limit` refuses something.
    """
    splits, names = read_splits(common, lambda: read_corpus(__file__))
    texts = find_texts(splits["train"], recipe.text_columns, recipe.label_column, names["train"])
    label = recipe.label_column
    classes = known_classes(common, splits["train"], label, names["train"])
    for split, rows in list(splits.items()):
        columns = [find_text(rows, "text_columns", text, names[split]) for text in texts]
        if (split == "test" or common.is_scored_alone) and is_unlabelled(rows, label):
            set_apart(splits, split, dict(zip(columns, TEXTS, strict=False)), names[split])
            continue
        found = find_column(rows, "label_column", label, names[split])
        taken = (*columns, found, *TEXTS, "labels", "length")
        rows = rows.select_columns([*columns, found, *common.carried(rows, *taken)])
        read = read_numbers if classes is None else partial(encode_labels, classes=classes)
        rows = read(rows, label, name=names[split]).rename_columns(dict(zip(columns, TEXTS, strict=False)))
        what = f"text in {', '.join(columns)}"
        splits[split] = keep_rows(rows, is_whole, what, names[split], say)
    corpus = limit(hold_out(splits, seed, stratify_by=classes and "labels"), common)
    if classes is not None:
        warn_if_untaught(corpus)
    if few := [split for split, rows in corpus.items() if len(rows) < 2 and "labels" in rows.column_names]:
        raise ValueError(f"Split {few[0]} has one row with text; two are needed, or no score has an interval.")
    return corpus, classes


# ---- Model ----


def new_tokenizer(texts, vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with BERT's special tokens around a text."""
    special = ["[PAD]", "[CLS]", "[SEP]"]
    bpe = byte_level_bpe(texts, vocab_size, special, begins_with_space=True)
    bpe.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, bpe.token_to_id(token)) for token in special[1:]],
    )
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=bpe, model_max_length=max_length, model_input_names=inputs, **names)


def new_model(size: str, tokenizer: PreTrainedTokenizerFast, **labels) -> BertForSequenceClassification:
    """A BERT with random weights; `labels` go to its configuration; ValueError for an unknown size."""
    width, layers, heads = shape_of(size, SIZES)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=tokenizer.model_max_length,
        pad_token_id=tokenizer.pad_token_id,
        **labels,
    )
    return BertForSequenceClassification(config)


def load_model(common: CommonArguments, recipe: RecipeArguments, rows: Dataset, classes: list[str] | None):
    """The model and its tokenizer, pretrained or from scratch, for these classes or for numbers (None)."""
    labels: dict[str, Any] = {"num_labels": 1, "problem_type": "regression"}
    if classes is not None:
        labels = names_of(classes) | {"problem_type": "single_label_classification"}
    if common.model_name_or_path:
        with loading(common.model_name_or_path):
            tokenizer = AutoTokenizer.from_pretrained(common.model_name_or_path)
            model = AutoModelForSequenceClassification.from_pretrained(
                common.model_name_or_path, ignore_mismatched_sizes=True, **labels
            )
    else:
        every = (text for name in TEXTS if name in rows.column_names for text in rows[name])
        tokenizer = new_tokenizer(every, recipe.vocab_size, recipe.max_length)
        model = new_model(recipe.model_size, tokenizer, **labels)
    return model, tokenizer


# ---- Train ----


def main(argv: Sequence[str] | None = None) -> None:
    laps = Laps()
    types = (CommonArguments, RecipeArguments, TrainingArguments)
    common, *_ = parse(*types, argv=argv, **FROM_SCRATCH)
    special = FINE_TUNING if common.model_name_or_path else {}
    common, recipe, args, policy = parse(*types, argv=argv, **FROM_SCRATCH | special)
    if recipe.max_length < 1:
        raise ValueError(f"max_length={recipe.max_length}: give a number of tokens, 1 or more.")
    checkpoint = find_checkpoint(args, policy, common, recipe)
    say = print if args.process_index == 0 else lambda *texts: None
    with args.main_process_first(desc="read the texts"):
        corpus, classes = load_texts(common, recipe, args.data_seed or 0, say)  # --seed does not change the rows
    scorer = LabelScorer(classes, recipe.metric)
    args = parse(*types, argv=argv, **FROM_SCRATCH | special | {"metric_for_best_model": scorer.metric})[2]
    check_metric(args, scorer.metrics)
    arguments = arguments_of(common, recipe, args)
    set_seed(args.seed)
    model, tokenizer = load_model(common, recipe, corpus["train"], classes)
    texts = [name for name in TEXTS if name in corpus["train"].column_names]
    length = min(recipe.max_length, tokenizer.model_max_length)

    def encode(rows):
        return tokenizer(*([text or "" for text in rows[name]] for name in texts), max_length=length, truncation=True)

    encode(corpus["train"][:1])  # sets the tokenizer's max_length even if all rows are in the cache
    with args.main_process_first(desc="tokenize"):
        rows = corpus.map(encode, batched=True, remove_columns=texts, desc="Tokenize")
    kind = "numbers" if classes is None else f"{len(classes)} classes"
    say(f"{count_rows(rows)}; {kind}; {model.num_parameters():,} parameters; vocabulary of {len(tokenizer):,}")
    tell_cuts(rows["train"], length, say)
    laps.end("reading")

    trainer = PruningTrainer(
        model=model,
        args=args,
        policy=policy,
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=scorer,
        **(common.for_trainer() | recipe.for_trainer(rows["train"], args)),
    )
    train(trainer, checkpoint)
    laps.end("training")
    outcome = score(trainer, rows, lambda: test(trainer, rows, corpus, scorer), scorer.answers)
    laps.end("testing")
    card = {"tasks": "text-classification", "dataset": common.source or "embedded corpus"}
    card |= {} if common.source else {"language": "en de es fr it pl pt nl".split()}
    finish(trainer, policy, arguments, outcome, laps, card, __file__)


# ---- Test ----


def test(trainer: PruningTrainer, rows: DatasetDict, corpus: DatasetDict, scorer: LabelScorer) -> Outcome:
    """Score the test rows, or the validation rows if there are none, and show the most confident mistakes."""
    final, args, classes = "test" if "test" in corpus else "validation", trainer.args, scorer.classes
    args.train_sampling_strategy = "sequential"  # otherwise these rows are grouped by length, too
    output = trainer.predict(rows[final], metric_key_prefix=final)
    predictions, references = scorer.predict(output.predictions), output.label_ids
    has_diverged = not np.isfinite(output.predictions).all()
    low, high = (math.nan, math.nan) if has_diverged else scorer.interval(references, predictions, args.seed)
    scores = {name: output.metrics[f"{final}_{name}"] for name in (*scorer.metrics, "loss")}
    scores |= {f"{scorer.metric}_low": low, f"{scorer.metric}_high": high}
    words = ", ".join(f"{name} {scores[name]:.4f}" for name in scorer.metrics)
    lines = [f"{words} ({final}, {len(references):,} rows)"]
    lines.append(f"{scorer.metric} {low:.4f} to {high:.4f} in 95 % of 1,000 resamples")
    if classes is None:
        errors = np.abs(predictions - references)
    else:
        often = Counter(rows["train"]["labels"][:]).most_common(1)[0][0]
        scores["f1_label"] = classes[1] if len(classes) == 2 else None  # the class whose F1 counts; None = the mean
        scores["accuracy_of_most_frequent_class"] = float(np.mean(references == often))
        lines.append(f"accuracy of {classes[often]!r} for all: {scores['accuracy_of_most_frequent_class']:.4f}")
        shares = softmax(output.predictions, axis=1)
        errors = np.where(predictions == references, 0, shares[np.arange(len(shares)), predictions])
        predictions, references = ([classes[label] for label in side] for side in (predictions, references))
    samples = []
    errors = np.zeros(len(errors)) if has_diverged else errors
    for row in np.argsort(-errors, kind="stable")[: min(5, np.count_nonzero(errors))].tolist():
        shown = " | ".join(str(corpus[final][text][row]) for text in TEXTS if text in corpus[final].column_names)
        samples.append(f"{shown}\n    is {references[row]}, taken for {predictions[row]}")
    rows_of = {"predictions": np.asarray(predictions).tolist(), "references": np.asarray(references).tolist()}
    return Outcome(scorer.metric, scores, final, rows_of, lines, samples)


if __name__ == "__main__":
    run(main)
