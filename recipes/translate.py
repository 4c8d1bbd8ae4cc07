"""Train a translation model on the rows that still teach, and account for the rest.

Without arguments: English to German on an embedded corpus (numbers, dates, prices, countries ... in sentences), a small
model from scratch, nothing downloaded, under three minutes on two CPU cores:

    accelerate launch recipes/translate.py

Real corpora are files (Parquet, JSON lines, CSV, TSV) with a column for each language, or with a column `translation`
that holds both, or a data set of the Hub. On one GPU, or on N of them:

    accelerate launch recipes/translate.py --train_file train.parquet --validation_file validation.parquet \
        --test_file test.parquet --source_lang en --target_lang de --model_size small --num_train_epochs 10
    accelerate launch --multi_gpu --num_processes N recipes/translate.py --train_file ...

A pretrained model, language codes where its tokenizer has them:

    accelerate launch recipes/translate.py --model_name_or_path facebook/nllb-200-distilled-600M \
        --source_lang eng_Latn --target_lang deu_Latn --dataset_name ... --num_train_epochs 3

`--policy uniform --keep 1` is the baseline on all rows, `--policy none` the plain Trainer; `--help` lists every flag.
The same command again goes on from the last checkpoint of a run that was interrupted.
"""

import csv
import datetime
import json
import platform
import random
import shutil
import subprocess
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import datasets
import evaluate
import numpy as np
import torch
from babel import Locale, dates, lists, numbers, units
from datasets import Dataset, DatasetDict, load_dataset
from num2words import num2words
from sacrebleu.metrics import BLEU, CHRF
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    EarlyStoppingCallback,
    MarianConfig,
    MarianMTModel,
    PreTrainedTokenizerFast,
    Seq2SeqTrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import is_torch_bf16_gpu_available

from hf_prune import PruningSeq2SeqTrainer
from hf_prune.cli import parse


@dataclass
class RecipeArguments:
    """What to translate, with which model.

    Args:
        train_file: File to train on (.parquet, .json, .jsonl, .csv, .tsv); without it, the embedded corpus.
        validation_file: File to validate on after each epoch; without it, 5 % of the training rows, at most 1,000.
        test_file: File for the final score; without it, the validation rows give that, too.
        dataset_name: Data set of the Hub instead of files, with a split `train`.
        dataset_config_name: Its configuration.
        source_lang: Column of the source, and its code for a tokenizer that knows languages (en_XX finds column en).
        target_lang: Column of the target, and its code.
        source_prefix: Text put before every source, as T5 wants it.
        model_name_or_path: Model to fine-tune; without it, a model and its tokenizer are made from scratch.
        model_size: Size of a model from scratch: tiny, small or base.
        vocab_size: Entries of a tokenizer from scratch, which both languages share.
        max_length: Tokens of a sentence at most; longer ones are cut.
        num_beams: Beams for the final score and in what is saved. The validations in between use
            --generation_num_beams.
        early_stopping_patience: Stop after so many validations without a better score.
        overwrite_output_dir: Delete the run that output_dir holds, and start afresh.
    """

    train_file: str | None = None
    validation_file: str | None = None
    test_file: str | None = None
    dataset_name: str | None = None
    dataset_config_name: str | None = None
    source_lang: str = "en"
    target_lang: str = "de"
    source_prefix: str = ""
    model_name_or_path: str | None = None
    model_size: str = "tiny"
    vocab_size: int = 4000
    max_length: int = 128
    num_beams: int = 4
    early_stopping_patience: int | None = None
    overwrite_output_dir: bool = False


FROM_SCRATCH = dict(
    policy="infobatch",  # its weights keep the gradient unbiased, so it is the mildest
    unit="tokens",  # a short sentence left out saves little
    output_dir="translate-output",
    num_train_epochs=12,
    per_device_train_batch_size=64,  # small models on small corpora want many steps
    per_device_eval_batch_size=128,
    learning_rate=2e-3,  # small models bear it
    warmup_steps=0.1,  # a share of training; without it, layer norms after the residuals diverge
    adam_beta2=0.98,  # Vaswani et al. 2017, section 5.3
    label_smoothing_factor=0.1,  # Vaswani et al. 2017, section 5.4
    train_sampling_strategy="group_by_length",  # half of a batch would be padding
    bf16=is_torch_bf16_gpu_available(),
    eval_strategy="epoch",
    save_strategy="epoch",
    save_total_limit=2,
    load_best_model_at_end=True,
    metric_for_best_model="bleu",
    greater_is_better=True,
    predict_with_generate=True,
    generation_num_beams=1,  # a validation in between need not be the best translation, only comparable
    logging_steps=50,
)
FINE_TUNING = dict(learning_rate=5e-5, num_train_epochs=3)  # with a model that knows the languages already

SIZES = {  # d_model, layers on either side, heads, feed-forward, dropout
    "tiny": (128, 2, 4, 512, 0.1),
    "small": (128, 3, 4, 512, 0.1),
    "base": (512, 6, 8, 2048, 0.1),  # Vaswani et al. 2017, table 3
}


# ---- The embedded corpus ----

COUNTRIES = (  # those that German names without an article
    "AL AR AT AU BE BG BO BR CA CL CN CO CR CZ DE DK EC EE EG ES ET FI FR GH GR HR HU ID IE IL IN IS IT JO JP KE KR LT LU "
    "LV MA MX MY NO NP NZ PA PE PL PT PY RO RU SE SG SI TH TN TZ UG UY VE VN ZA"
).split()
LANGUAGES = "ar bg cs da de el es et fa fi fr he hr hu is it ja ko lt lv nl pl pt ro ru sk sl sv th tr uk vi zh".split()
NAMES = "Anna Ben Clara David Emma Felix Hanna Jonas Laura Maria Martin Paul Peter Sarah Thomas Vera".split()
NOUNS = {  # kind: English / German, nominative
    "person": "my brother/mein Bruder, my sister/meine Schwester, our teacher/unsere Lehrerin, her husband/ihr Mann, "
    "his mother/seine Mutter, the doctor/die Ärztin, the young man/der junge Mann, my old friend/mein alter Freund",
    "place": "the museum/das Museum, the library/die Bibliothek, the bank/die Bank, the restaurant/das Restaurant, the "
    "pharmacy/die Apotheke, the office/das Büro, the market/der Markt, the bakery/die Bäckerei, the old castle/das alte "
    "Schloss, the swimming pool/das Schwimmbad",
    "event": "the concert/das Konzert, the meeting/die Besprechung, the course/der Kurs, the exhibition/die Ausstellung, "
    "the lecture/der Vortrag, the film/der Film, the game/das Spiel, the exam/die Prüfung, the wedding/die Hochzeit",
    "vehicle": "the train/der Zug, the bus/der Bus, the ferry/die Fähre, the next train/der nächste Zug",
    "building": "the bridge/die Brücke, the tower/der Turm, the church/die Kirche, the castle/das Schloss, the town "
    "hall/das Rathaus, the lighthouse/der Leuchtturm, the old mill/die alte Mühle",
    "thing": "the ticket/die Karte, the book/das Buch, the lamp/die Lampe, the bicycle/das Fahrrad, the clock/die Uhr, the "
    "picture/das Bild, the camera/die Kamera, the bed/das Bett, the jacket/die Jacke, the shirt/das Hemd",
}
TEMPLATES = """
Good morning, {name}!|Guten Morgen, {name}!
{subject} comes from {country}.|{subject} kommt aus {country}.
{subject} speaks {language} and {language2}.|{subject} spricht {language} und {language2}.
{place} opens at {time}.|{place} öffnet um {time} Uhr.
{thing} costs {price}.|{thing} kostet {price}.
{event} starts on {date}.|{event} beginnt am {date}.
{subject} was born on {date}.|{subject} wurde am {date} geboren.
{vehicle} to {country} leaves at {time}.|{vehicle} nach {country} fährt um {time} Uhr ab.
{vehicle} leaves {soon}.|{vehicle} fährt {soon} ab.
{subject} is {age} years old.|{subject} ist {age} Jahre alt.
{building} was built in {year}.|{building} wurde im Jahr {year} gebaut.
{building} is {height} high.|{building} ist {height} hoch.
{thing} weighs {mass}.|{thing} wiegt {mass}.
{subject} has lived in {country} for {age} years.|{subject} lebt seit {age} Jahren in {country}.
{subject} flies from {country} to {country2} on {date}.|{subject} fliegt am {date} von {country} nach {country2}.
{subject} paid {dollars} for {thing}.|{subject} hat {dollars} für {thing} bezahlt.
{event} takes place every {weekday} at {time}.|{event} findet jeden {weekday} um {time} Uhr statt.
{place} is open from {time} to {time2}.|{place} ist von {time} bis {time2} Uhr geöffnet.
Please turn to page {cardinal}.|Bitte schlagen Sie Seite {cardinal} auf.
The number {written}.|Die Zahl {written}.
This is the {ordinal} time.|Das ist das {ordinal} Mal.
{subject} took {ordinal} place.|{subject} belegte den {ordinal}n Platz.
Today is {day}.|Heute ist {day}.
In {month} it often rains in {country}.|Im {month} regnet es in {country} oft.
{subject} wants to visit {countries}.|{subject} will {countries} besuchen.
{subject} is learning {language}, because {name} comes from {country}.|{subject} lernt {language}, weil {name} aus \
{country} kommt.
{country} has {people} inhabitants.|{country} hat {people} Einwohner.
Prices in {country} rose by {percent} in {year}.|Die Preise in {country} stiegen im Jahr {year} um {percent}.
The temperature in {country} rose to {heat}.|Die Temperatur in {country} stieg auf {heat}.
The journey from {country} to {country2} takes {while}.|Die Reise von {country} nach {country2} dauert {while}.
{subject} translated the letter from {language} into {language2}.|{subject} hat den Brief aus dem {language}en ins \
{language2}e übersetzt.
{subject} ran {distance} in {minutes}.|{subject} lief {distance} in {minutes}.
The bottle holds {volume} and costs {price}.|Die Flasche fasst {volume} und kostet {price}.
The room is {area} in size.|Das Zimmer ist {area} groß.
{subject} exchanged {price} for {francs}.|{subject} hat {price} gegen {francs} getauscht.
When {name} called, it was {time} in {country}.|Als {name} anrief, war es in {country} {time} Uhr.
"""


def _both(function: Callable, *args, **options) -> tuple[str, str]:
    """A Babel formatter's answer in English and in German."""
    return function(*args, locale="en", **options), function(*args, locale="de", **options)


def _words(number: float, to: str, **options) -> tuple[str, str]:
    english = num2words(number, lang="en", to=to, **options | ({"separator": " and"} if to == "currency" else {}))
    return english, num2words(number, lang="de", to=to, **options)


def _named(table: str, code: str) -> tuple[str, str]:
    return getattr(Locale("en"), table)[code], getattr(Locale("de"), table)[code]


def _listed(names: list[tuple[str, str]]) -> tuple[str, str]:
    return lists.format_list([name[0] for name in names], locale="en"), lists.format_list([name[1] for name in names], locale="de")


def _day(rng: random.Random) -> datetime.date:
    return datetime.date(1950, 1, 1) + datetime.timedelta(rng.randrange(30_000))


def _full_day(day: datetime.date) -> tuple[str, str]:
    return dates.format_date(day, "full", "en"), dates.format_date(day, "EEEE, 'der' d. MMMM y", "de")


def _measure(rng: random.Random, names: str, low: int = 2, high: int = 0) -> tuple[str, str]:
    """A value of one of the units, whole in [low, high], or with a decimal at times where there is no `high`."""
    value = rng.randint(low, high) if high else rng.choice([rng.randint(2, 99), rng.randint(20, 999) / 10])
    return _both(units.format_unit, value, rng.choice(names.split()), length="long")


def _written(number: int) -> tuple[str, str]:
    figures, words = _both(numbers.format_decimal, number), _words(number, "cardinal")
    return f"{figures[0]} is written {words[0]}", f"{figures[1]} schreibt man {words[1]}"


def _noun(rng: random.Random, kind: str) -> tuple[str, str]:
    english, _, german = rng.choice(NOUNS[kind].split(", ")).partition("/")
    return english, german


SLOTS: dict[str, Callable[[random.Random], tuple[str, str]]] = {  # kind: a value in English and in German
    "name": lambda rng: (rng.choice(NAMES),) * 2,
    "subject": lambda rng: _noun(rng, "person") if rng.random() < 0.5 else (rng.choice(NAMES),) * 2,
    "place": lambda rng: _noun(rng, "place"),
    "event": lambda rng: _noun(rng, "event"),
    "vehicle": lambda rng: _noun(rng, "vehicle"),
    "building": lambda rng: _noun(rng, "building"),
    "thing": lambda rng: _noun(rng, "thing"),
    "country": lambda rng: _named("territories", rng.choice(COUNTRIES)),
    "countries": lambda rng: _listed([_named("territories", code) for code in rng.sample(COUNTRIES, 3)]),
    "language": lambda rng: _named("languages", rng.choice(LANGUAGES)),
    "date": lambda rng: _both(dates.format_date, _day(rng), format="long"),
    "day": lambda rng: _full_day(_day(rng)),
    "weekday": lambda rng: _both(dates.format_date, _day(rng), format="EEEE"),
    "month": lambda rng: _both(dates.format_date, _day(rng), format="MMMM"),
    "time": lambda rng: _both(
        dates.format_time, datetime.time(rng.randrange(24), rng.randrange(0, 60, 5)), format="short"
    ),
    "soon": lambda rng: _both(
        dates.format_timedelta, rng.randint(2, 50) * datetime.timedelta(**{rng.choice(["minutes", "hours", "days"]): 1}),
        add_direction=True,
    ),
    "year": lambda rng: _words(rng.randint(1400, 2024), "year"),
    "age": lambda rng: _words(rng.randint(2, 99), "cardinal"),
    "cardinal": lambda rng: _words(rng.randint(2, rng.choice([99, 999, 9999])), "cardinal"),
    "ordinal": lambda rng: _words(rng.randint(1, 99), "ordinal"),
    "written": lambda rng: _written(rng.randint(2, 99_999)),
    "dollars": lambda rng: _words(rng.randint(2, 99) + rng.randrange(5, 100, 5) / 100, "currency", currency="USD"),
    "price": lambda rng: _both(numbers.format_currency, rng.randint(100, 200_000) / 100, "EUR"),
    "francs": lambda rng: _both(
        numbers.format_currency, rng.randint(20, 2000), "CHF", format_type="name", currency_digits=False
    ),
    "people": lambda rng: _both(numbers.format_decimal, rng.randrange(1_000_000, 90_000_000, 1000)),
    "percent": lambda rng: _both(numbers.format_percent, rng.randint(1, 60) / 100),
    "while": lambda rng: _measure(rng, "duration-hour duration-day duration-week", 2, 30),
    "minutes": lambda rng: _measure(rng, "duration-minute", 2, 120),
    "height": lambda rng: _measure(rng, "length-meter"),
    "distance": lambda rng: _measure(rng, "length-kilometer length-mile"),
    "mass": lambda rng: _measure(rng, "mass-kilogram mass-gram mass-pound"),
    "volume": lambda rng: _measure(rng, "volume-liter volume-milliliter"),
    "area": lambda rng: _measure(rng, "area-square-meter"),
    "heat": lambda rng: _measure(rng, "temperature-celsius temperature-fahrenheit", 2, 45),
}


def embedded_corpus(rows: int = 4000, seed: int = 0) -> DatasetDict:
    """English sentences with their German translations, from templates that Babel and num2words fill.

    As in real corpora, some patterns are far more frequent than others, and many sentences differ from another in one
    value only. A checksum of the source chooses the split, so that no source is in two of them; the training split may
    repeat itself.

    Args:
        rows: Rows of the training split; validation has a twentieth and test a tenth of them.
        seed: Another seed gives other sentences.

    Returns:
        Splits train, validation and test with columns `en` and `de`.
    """
    rng = random.Random(seed)
    templates = [line.split("|") for line in TEMPLATES.strip().splitlines()]
    frequency = [1 / (rank + 8) for rank in range(len(templates))]  # nearly Zipf's law
    sizes = {"train": rows, "validation": rows // 20, "test": rows // 10}
    splits: dict[str, list[tuple[str, str]]] = {split: [] for split in sizes}
    sides, values = templates[0], {}
    while any(len(splits[split]) < size for split, size in sizes.items()):
        if values and rng.random() < 0.3:  # the sentence before with another value in one place
            del values[rng.choice(list(values))]
        else:
            sides, values = rng.choices(templates, frequency)[0], {}
        for slot in [part.partition("}")[0] for part in sides[0].split("{")[1:]]:
            while slot not in values or len(set(values.values())) < len(values):
                values[slot] = SLOTS[slot.rstrip("2")](rng)
        texts = [side.format(**{slot: value[i] for slot, value in values.items()}) for i, side in enumerate(sides)]
        texts = [" ".join(text.split()) for text in texts]  # Babel writes narrow and unbreakable spaces, too
        source, target = (text[0].upper() + text[1:] for text in texts)
        bucket = zlib.crc32(source.encode()) % 20
        split = "test" if bucket < 2 else "validation" if bucket == 2 else "train"
        if len(splits[split]) < sizes[split] and (split == "train" or (source, target) not in splits[split]):
            splits[split].append((source, target))
    return DatasetDict(
        {split: Dataset.from_dict(dict(zip(("en", "de"), zip(*pairs)))) for split, pairs in splits.items()}
    )


# ---- Data ----

READERS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv"}


def read_file(path: str) -> Dataset:
    """All rows of a file.

    Raises:
        ValueError: Unknown suffix, an empty file, or one that can't be read as what its suffix says.
    """
    file = Path(path)
    if file.suffix not in READERS:
        raise ValueError(f"{path}: unknown suffix {file.suffix!r}; give one of {', '.join(READERS)}.")
    if file.is_file() and not file.stat().st_size:
        raise ValueError(f"{path} is empty; give a file with a row for each pair of sentences.")
    options = {"sep": "\t", "quoting": csv.QUOTE_NONE} if file.suffix == ".tsv" else {}
    try:
        return load_dataset(READERS[file.suffix], data_files=path, split="train", **options)
    except DatasetGenerationError as error:
        raise ValueError(f"{path} can't be read as {READERS[file.suffix]}: {error.__cause__ or error}") from error


def read_pairs(rows: Dataset, recipe: RecipeArguments, name: str) -> Dataset:
    """The columns `source` and `target` of a data set, rows without text on either side left out.

    Args:
        rows: A column for each language, or one `translation` of mappings from language to text.
        recipe: Names the languages.
        name: Names the data set in messages.

    Raises:
        ValueError: A language without a column, or no row with text.
    """
    if "translation" in rows.column_names:
        rows = rows.flatten()
    columns = {column.removeprefix("translation."): column for column in rows.column_names}
    found = {}
    for side in ("source", "target"):
        lang = getattr(recipe, f"{side}_lang")
        key = lang if lang in columns else lang.partition("_")[0]
        if key not in columns:
            raise ValueError(f"{side}_lang={lang!r}: {name} has no column of this name; it has {', '.join(columns)}.")
        found[side] = rows[columns[key]]
    pairs = Dataset.from_dict(
        {side: [text if isinstance(text, str) else "" for text in texts] for side, texts in found.items()}
    )
    pairs = pairs.filter(lambda source, target: bool(source.strip() and target.strip()), input_columns=list(found))
    if not len(pairs):
        raise ValueError(f"{name} has no row with text in both languages ({len(rows)} rows read).")
    return pairs
