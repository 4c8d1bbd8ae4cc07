"""Train a text classifier on the rows that still teach, and account for the rest.

Without arguments: say what kind of thing a short text in one of eight languages is (a date, a price, a country ...), on
an embedded corpus with some wrong labels, a small BERT from scratch, nothing downloaded, under two minutes on two CPU
cores:

    accelerate launch recipes/text_classification.py

Real data are files (Parquet, JSON lines, CSV, TSV) or a data set of the Hub, one text or a pair of texts a row, with
classes or, where the labels are floats, a number to predict. On one GPU, or on N of them:

    accelerate launch recipes/text_classification.py --model_name_or_path answerdotai/ModernBERT-base \
        --train_file train.parquet --validation_file validation.parquet --text_columns sentence1 sentence2
    accelerate launch --multi_gpu --num_processes N recipes/text_classification.py --train_file ...

Classes are scored by accuracy, F1 (of class 1 where there are two, else macro) and Matthews' correlation, numbers by
Pearson's and Spearman's; the first counts, for the best checkpoint and in comparisons, unless `--metric` names another.
`--policy uniform --keep 1` is the baseline on all rows, `--policy none` the plain Trainer; `--help` lists every flag.
The same command again goes on from the last checkpoint of a run that was interrupted, and refuses a finished one.
"""

import datetime
import math
import random
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from babel import Locale, dates, numbers, units
from datasets import Dataset, DatasetDict, Value
from num2words import num2words
from scipy import stats
from scipy.special import softmax
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
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
from transformers.utils import is_torch_bf16_gpu_available

from hf_prune import PruningTrainer
from hf_prune.recipe.arguments import parse
from hf_prune.recipe.session import Outcome, arguments_of, check_metric, find_checkpoint, finish, loading, run, train
from hf_prune.recipe.splits import (
    CommonArguments,
    class_names,
    columns_of,
    encode_labels,
    find_column,
    find_text,
    hold_out,
    keep_rows,
    limit,
    read_splits,
    tell_cuts,
    warn_if_untaught,
)


@dataclass
class RecipeArguments:
    """What to classify, with which model.

    Args:
        text_columns: Columns of the text, or of a pair of texts; without it, known names (sentence1 and sentence2,
            premise and hypothesis, text ...) or the only column of texts.
        label_column: Column of the labels: classes, or floats to predict.
        metric: The score that counts: accuracy, f1 or matthews for classes, pearson or spearman for numbers; without
            it, accuracy or pearson.
        model_size: Size of a model from scratch: tiny, small or base.
        vocab_size: Entries of a tokenizer from scratch.
        max_length: Tokens of a row at most; longer ones are cut.
    """

    text_columns: list[str] = field(default_factory=list)
    label_column: str = "label"
    metric: str | None = None
    model_size: str = "tiny"
    vocab_size: int = 4000
    max_length: int = 128


FROM_SCRATCH = dict(
    policy="infobatch",  # its weights keep the gradient unbiased
    unit="tokens",  # for policies with a budget: a short text left out saves little
    output_dir="text-classification-output",
    num_train_epochs=10,
    per_device_train_batch_size=8,  # a small corpus, grouped by length, wants many steps; chosen on a CPU
    per_device_eval_batch_size=128,
    learning_rate=7e-4,  # a small model bears it
    warmup_steps=0.1,  # share of training; layer norms that follow the residuals diverge without
    weight_decay=0.01,  # Devlin et al. 2019, appendix A.2
    train_sampling_strategy="group_by_length",  # else half of what is computed is padding
    bf16=is_torch_bf16_gpu_available(),
    dataloader_pin_memory=torch.accelerator.is_available(),
    eval_strategy="epoch",
    save_strategy="epoch",
    save_total_limit=2,
    load_best_model_at_end=True,
    metric_for_best_model="accuracy",
    logging_steps=50,
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
_FEW = 20  # values, of labels that are more likely classes than numbers
TEXTS = ("text", "text_pair")  # what the columns are called once they are read
KNOWN_TEXTS = (  # the names of GLUE's tasks and of common data sets
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text",),
    ("sentence",),
)

# ---- The embedded corpus ----

LANGUAGES = "en de es fr it pl pt nl".split()
CURRENCIES = "EUR USD GBP CHF PLN JPY".split()
UNITS = {
    "length": "length-meter length-kilometer length-mile length-centimeter length-foot",
    "mass": "mass-kilogram mass-gram mass-pound mass-ounce",
    "speed": "speed-kilometer-per-hour speed-mile-per-hour speed-meter-per-second speed-knot",
    "temperature": "temperature-celsius temperature-fahrenheit temperature-kelvin",
    "volume": "volume-liter volume-gallon volume-milliliter volume-cubic-meter",
}
KINDS = (  # frequent ones first
    *("price", "date", "country", "cardinal", "duration", "language", "length", "time", "ordinal", "currency"),
    *("mass", "temperature", "volume", "speed"),
)


def write(kind: str, lang: str, rng: random.Random) -> str:
    """A random value of a kind, as Babel or num2words writes it in a language."""
    locale = Locale(lang)
    number = rng.randint(2, rng.choice([12, 99, 999]))
    value = rng.choice([number, number / 10])
    day = datetime.date(1950, 1, 1) + datetime.timedelta(rng.randrange(30_000))
    moment = datetime.time(rng.randrange(24), rng.randrange(0, 60, 5))
    wait = number * datetime.timedelta(**{rng.choice(["seconds", "minutes", "hours", "days"]): 1})
    if kind in UNITS:
        return units.format_unit(value, rng.choice(UNITS[kind].split()), rng.choice(["long", "short"]), locale=lang)
    return {
        "price": lambda: numbers.format_currency(
            value, rng.choice(CURRENCIES), locale=lang, format_type=rng.choice(["standard", "name"])
        ),
        "date": lambda: dates.format_date(day, rng.choice(["short", "medium", "long", "full"]), lang),
        "duration": lambda: dates.format_timedelta(wait, locale=lang, format=rng.choice(["long", "short"])),
        "time": lambda: dates.format_time(moment, rng.choice(["short", "medium"]), locale=lang),
        "country": lambda: locale.territories[rng.choice([code for code in locale.territories if code.isalpha()])],
        "language": lambda: locale.languages[rng.choice([code for code in locale.languages if len(code) == 2])],
        "currency": lambda: locale.currencies[rng.choice(list(locale.currencies))],
        "cardinal": lambda: num2words(number, lang=lang),
        "ordinal": lambda: num2words(number, lang=lang, to="ordinal"),
    }[kind]()


def embedded_corpus(rows: int = 6000, noise: float = 0.05, seed: int = 0) -> DatasetDict:
    """Dates, prices, countries ... in eight languages, and what kind of thing each is.

    As in real corpora, few kinds and languages make most of the rows, many rows repeat another, some can't be told
    apart (languages and countries of one name), and some training rows have a wrong label. A checksum of the text
    chooses the split, so no text is in two of them.

    Args:
        rows: Rows of the training split; validation has a twentieth and test a sixth of that.
        noise: Share of training rows with the label of another kind.
        seed: Another seed gives other texts.

    Returns:
        Splits train, validation and test with columns `text` and `label`.
    """
    rng = random.Random(seed)
    often, spoken = ([1 / (rank + 4) for rank in range(len(names))] for names in (KINDS, LANGUAGES))  # Zipf, flattened
    sizes = {"train": rows, "validation": rows // 20, "test": rows // 6}
    splits: dict[str, list[dict[str, str]]] = {split: [] for split in sizes}
    seen = set()
    while any(len(splits[split]) < size for split, size in sizes.items()):
        kind, lang = rng.choices(KINDS, often)[0], rng.choices(LANGUAGES, spoken)[0]
        text = write(kind, lang, rng).replace("\u202f", " ").replace("\xa0", " ")
        bucket = zlib.crc32(text.encode()) % 20
        split = "test" if bucket < 3 else "validation" if bucket == 3 else "train"
        if len(splits[split]) < sizes[split] and (split == "train" or text not in seen):
            seen.add(text)
            if split == "train" and rng.random() < noise:
                kind = rng.choice([other for other in KINDS if other != kind])
            splits[split].append({"text": text, "label": kind})
    return DatasetDict({split: Dataset.from_list(found) for split, found in splits.items()})


# ---- Data ----


def find_texts(rows: Dataset, recipe: RecipeArguments, name: str) -> list[str]:
    """The columns of the text, or of the pair of texts.

    Raises:
        ValueError: A column that is not there or has no text, that of the labels, more than two, or none that is known
            while several could be meant.
    """
    if recipe.text_columns:
        if len(recipe.text_columns) > 2:
            raise ValueError(f"text_columns={recipe.text_columns}: give one column, or two for pairs of texts.")
        if len(set(recipe.text_columns)) < len(recipe.text_columns):
            raise ValueError(f"text_columns={recipe.text_columns}: give two different columns, or one.")
        if recipe.label_column in recipe.text_columns:
            raise ValueError(f"text_columns={recipe.text_columns} has the label_column; name the text alone.")
        return [find_text(rows, "text_columns", column, name) for column in recipe.text_columns]
    for known in KNOWN_TEXTS:
        if set(known) <= set(rows.column_names):
            return list(known)
    others = [column for column in rows.column_names if column != recipe.label_column]
    texts = [column for column in others if rows.features[column] in (Value("string"), Value("large_string"))]
    if len(texts) != 1:
        raise ValueError(
            f"text_columns: {name} has {len(texts)} columns of texts, none by a name that is known; name one or two of "
            f"{columns_of(rows.select_columns(others))}."
        )
    return texts


def read_numbers(rows: Dataset, column: str, name: str) -> Dataset:
    """The rows with the column `labels`, finite float32, in place of `column`.

    Raises:
        ValueError: The labels are no numbers, or one is missing or not finite.
    """
    feature = rows.features[column]
    if not (isinstance(feature, Value) and feature.dtype.startswith(("float", "int"))):
        raise ValueError(f"label_column={column}: labels of {name} are {feature}, but those to train on are floats.")
    labels = np.array(rows[column][:], dtype=np.float32)
    if len(wrong := np.flatnonzero(~np.isfinite(labels))):
        label = labels[wrong[0]]
        what = "no label; remove such rows, or name another column" if np.isnan(label) else f"the label {label}"
        raise ValueError(f"label_column={column}: row {wrong[0]} of {name} has {what}.")
    found = np.unique(labels)
    if feature.dtype.startswith("float") and len(found) <= _FEW and (found == np.rint(found)).all():
        warnings.warn(
            f"label_column={column}: labels of {name} are whole numbers stored as fractions (as CSV has them beside "
            "empty ones): they are taken for numbers to predict. Store them as integers or as text to tell classes "
            "apart.",
            stacklevel=2,
        )
    return rows.remove_columns(column).add_column("labels", labels, feature=Value("float32"))


def is_whole(row: dict[str, Any]) -> bool:
    """Whether none of its texts is missing, and not all are blank."""
    texts = [row[name] for name in TEXTS if name in row]
    return None not in texts and any(map(str.strip, texts))


def load_texts(
    common: CommonArguments, recipe: RecipeArguments, seed: int, say=print
) -> tuple[DatasetDict, list[str] | None]:
    """Splits train, validation and, where it has labels, test, with columns `text`, maybe `text_pair`, and `labels`.

    Returns:
        The splits, and the names of the classes; None where the labels are floats.

    Raises:
        ValueError: A split with fewer than two rows of text, or what `read_splits`, `find_texts`, `read_numbers`,
            `class_names`, `encode_labels`, `hold_out` and `limit` refuse.
    """
    splits, names = read_splits(common, embedded_corpus)
    texts = find_texts(splits["train"], recipe, names["train"])
    label = find_column(splits["train"], "label_column", recipe.label_column, names["train"])
    feature = splits["train"].features[label]
    is_number = isinstance(feature, Value) and feature.dtype.startswith("float")
    classes = None if is_number else class_names(splits["train"], label, names["train"])
    for split, rows in list(splits.items()):
        columns = [find_text(rows, "text_columns", text, names[split]) for text in texts]
        found = find_column(rows, "label_column", label, names[split])
        taken = (*columns, found, *TEXTS, "labels", "length")
        rows = rows.select_columns([*columns, found, *common.carried(rows, *taken)])
        if split == "test" and set(rows[label][:]) <= {-1, None}:  # as those of GLUE, which keeps them to itself
            warnings.warn(f"{names[split]} has no labels; the score is that of the validation rows.", stacklevel=2)
            del splits[split]
            continue
        read = read_numbers if classes is None else partial(encode_labels, classes=classes)
        rows = read(rows, label, name=names[split]).rename_columns(dict(zip(columns, TEXTS, strict=False)))
        what = f"text in {', '.join(columns)}"
        splits[split] = keep_rows(rows, is_whole, what, names[split], say)
    corpus = limit(hold_out(splits, seed, stratify_by=classes and "labels"), common)
    if classes is not None:
        warn_if_untaught(corpus)
    if few := [split for split, rows in corpus.items() if len(rows) < 2]:
        raise ValueError(f"Split {few[0]} has one row with text; two are needed, or no score has an interval.")
    return corpus, classes


# ---- Model ----


def new_tokenizer(texts, vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with BERT's frame: no character is unknown to it, and each digit is a token."""
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Prepend(" ")])
    split = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    bpe.pre_tokenizer = pre_tokenizers.Sequence(split)
    bpe.decoder = decoders.ByteLevel()
    special = ["[PAD]", "[CLS]", "[SEP]"]
    options = {"special_tokens": special, "initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False, **options))
    bpe.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, bpe.token_to_id(token)) for token in special[1:]],
    )
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=bpe, model_max_length=max_length, model_input_names=inputs, **names)


def new_model(size: str, tokenizer: PreTrainedTokenizerFast, **labels) -> BertForSequenceClassification:
    """A BERT with random weights; `labels` go to its configuration; ValueError for unknown sizes."""
    if size not in SIZES:
        raise ValueError(f"model_size={size!r} is not known; give one of {', '.join(SIZES)}.")
    width, layers, heads = SIZES[size]
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


# ---- Metric ----


def correlation(measure: Callable, references: np.ndarray, predictions: np.ndarray) -> float:
    """Pearson's or Spearman's correlation; 0 where either side is constant, which has none."""
    return measure(references, predictions).statistic if np.ptp(references) and np.ptp(predictions) else 0.0


def metrics_for(classes: list[str] | None) -> dict[str, Callable]:
    """By name: (references (N,), predictions (N,)) -> score, higher is better; the first is the one that counts.

    Args:
        classes: Their names; None for numbers.
    """
    if classes is None:
        return {"pearson": partial(correlation, stats.pearsonr), "spearman": partial(correlation, stats.spearmanr)}
    f1 = partial(f1_score, average="binary" if len(classes) == 2 else "macro", zero_division=0)
    return {"accuracy": accuracy_score, "f1": f1, "matthews": matthews_corrcoef}


# ---- The run ----


def main(argv: list[str] | None = None) -> None:
    begin = time.perf_counter()
    types = (CommonArguments, RecipeArguments, TrainingArguments)
    common, *_ = parse(*types, argv=argv, **FROM_SCRATCH)
    special = FINE_TUNING if common.model_name_or_path else {}
    common, recipe, args, policy = parse(*types, argv=argv, **FROM_SCRATCH | special)
    if recipe.max_length < 1:
        raise ValueError(f"max_length={recipe.max_length}: give a number of tokens, 1 or more.")
    checkpoint = find_checkpoint(args, policy, common, recipe)
    say = print if args.process_index == 0 else lambda *texts: None

    # Data
    with args.main_process_first(desc="read the texts"):
        corpus, classes = load_texts(common, recipe, args.data_seed or 0, say)  # --seed leaves the rows alone
    final = "test" if "test" in corpus else "validation"
    metrics = metrics_for(classes)
    metric = recipe.metric or next(iter(metrics))
    if metric not in metrics:
        kind = "numbers" if classes is None else "classes"
        raise ValueError(f"metric={metric!r} is not known for {kind}; give one of {', '.join(metrics)}.")
    args = parse(*types, argv=argv, **FROM_SCRATCH | special | {"metric_for_best_model": metric})[2]
    check_metric(args, metrics)
    arguments = arguments_of(common, recipe, args)
    set_seed(args.seed)
    texts = [name for name in TEXTS if name in corpus["train"].column_names]

    # Model
    if classes is None:
        labels = {"num_labels": 1, "problem_type": "regression"}
    else:
        labels = {"id2label": dict(enumerate(classes)), "label2id": {name: i for i, name in enumerate(classes)}}
        labels |= {"problem_type": "single_label_classification"}
    if common.model_name_or_path:
        with loading(common.model_name_or_path):
            tokenizer = AutoTokenizer.from_pretrained(common.model_name_or_path)
            model = AutoModelForSequenceClassification.from_pretrained(
                common.model_name_or_path, ignore_mismatched_sizes=True, **labels
            )
    else:
        every = (text for name in texts for text in corpus["train"][name])
        tokenizer = new_tokenizer(every, recipe.vocab_size, recipe.max_length)
        model = new_model(recipe.model_size, tokenizer, **labels)

    length = min(recipe.max_length, tokenizer.model_max_length)

    def encode(rows):
        return tokenizer(*(rows[name] for name in texts), max_length=length, truncation=True)

    with args.main_process_first(desc="tokenize"):
        rows = corpus.map(encode, batched=True, remove_columns=texts, desc="Tokenize")
    sizes = ", ".join(f"{len(split):,} {name}" for name, split in rows.items())
    kind = "numbers" if classes is None else f"{len(classes)} classes"
    say(f"{sizes} rows; {kind}; {model.num_parameters():,} parameters; vocabulary of {len(tokenizer):,}")
    tell_cuts(rows["train"], length, say)
    read = time.perf_counter()

    # Metric
    def predict(logits):
        return logits[:, 0] if classes is None else logits.argmax(1)

    def compute_metrics(outputs):
        if not np.isfinite(outputs.predictions).all():
            return dict.fromkeys(metrics, math.nan)  # the model has diverged, and its first class would be its answer
        predictions = predict(outputs.predictions)
        return {name: float(score(outputs.label_ids, predictions)) for name, score in metrics.items()}

    # Train
    trainer = PruningTrainer(
        model=model,
        args=args,
        policy=policy,
        history=common.history,
        history_key=common.history_key,
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=compute_metrics,
        callbacks=common.callbacks(),
    )
    train(trainer, checkpoint)
    trained = time.perf_counter()

    # Test
    args.train_sampling_strategy = "sequential"  # else these rows are grouped by length, too
    output = trainer.predict(rows[final], metric_key_prefix=final)
    predictions, references = predict(output.predictions), output.label_ids
    has_diverged = not np.isfinite(output.predictions).all()
    low = high = math.nan
    if not has_diverged:
        resampled = stats.bootstrap(
            (references, predictions),
            metrics[metric],
            n_resamples=1000,
            vectorized=False,
            paired=True,
            method="percentile",
            rng=args.seed,
        )
        low, high = map(float, resampled.confidence_interval)
    scores = {name: output.metrics[f"{final}_{name}"] for name in (*metrics, "loss")}
    scores |= {f"{metric}_low": low, f"{metric}_high": high}
    seconds = {"reading": read - begin, "training": trained - read, "testing": time.perf_counter() - trained}

    # Report
    lines = [", ".join(f"{name} {scores[name]:.4f}" for name in metrics) + f" ({final}, {len(references):,} rows)"]
    lines.append(f"{metric} {low:.4f} to {high:.4f} in 95 % of 1,000 resamples")
    if classes is None:
        errors = np.abs(predictions - references)
    else:
        often = Counter(rows["train"]["labels"][:]).most_common(1)[0][0]
        scores["f1_label"] = classes[1] if len(classes) == 2 else None  # the class that F1 is of; None = their mean
        scores["accuracy_of_most_frequent_class"] = float(np.mean(references == often))
        lines.append(f"accuracy of {classes[often]!r} for all: {scores['accuracy_of_most_frequent_class']:.4f}")
        shares = softmax(output.predictions, axis=1)
        errors = np.where(predictions == references, 0, shares[np.arange(len(shares)), predictions])
        predictions, references = ([classes[label] for label in side] for side in (predictions, references))
    samples = []
    errors = np.zeros(len(errors)) if has_diverged else errors
    for row in np.argsort(-errors, kind="stable")[: min(5, np.count_nonzero(errors))].tolist():
        shown = " | ".join(str(corpus[final][text][row]) for text in texts)
        samples.append(f"{shown}\n    is {references[row]}, taken for {predictions[row]}")
    rows_of = {"predictions": np.asarray(predictions).tolist(), "references": np.asarray(references).tolist()}
    outcome = Outcome(metric, scores, final, rows_of, lines, samples)
    card = {"tasks": "text-classification", "dataset": common.source or "embedded corpus"}
    card |= {} if common.source else {"language": LANGUAGES}
    finish(trainer, policy, arguments, outcome, seconds, card, __file__)


if __name__ == "__main__":
    run(main)
