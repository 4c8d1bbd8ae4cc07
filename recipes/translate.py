"""Train a translation model on the rows that still teach, and account for the rest.

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

import datetime
import difflib
import random
import re
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import datasets
import evaluate
import numpy as np
import torch
from babel import Locale, dates, lists, numbers, units
from datasets import Dataset, DatasetDict
from num2words import num2words
from sacrebleu.metrics import BLEU, CHRF
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
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
from transformers.utils import is_torch_bf16_gpu_available

from hf_prune import PruningSeq2SeqTrainer
from hf_prune.recipe.arguments import parse
from hf_prune.recipe.session import Outcome, arguments_of, check_metric, find_checkpoint, finish, loading, run, train
from hf_prune.recipe.splits import CommonArguments, columns_of, find_text, keep_rows, load_splits, tell_cuts


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


FROM_SCRATCH = dict(
    policy="infobatch",  # its weights keep the gradient unbiased
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
    bf16=is_torch_bf16_gpu_available(),
    dataloader_pin_memory=torch.accelerator.is_available(),
    eval_strategy="epoch",
    save_strategy="epoch",
    save_total_limit=2,
    load_best_model_at_end=True,
    metric_for_best_model="bleu",
    predict_with_generate=True,
    generation_num_beams=1,  # validations need comparable translations, not the best ones
    logging_steps=50,
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

BLEU_LANGUAGES = {"zho": "zh", "cmn": "zh", "yue": "zh", "jpn": "ja", "kor": "ko"}  # as sacreBLEU calls them

# ---- The embedded corpus ----

COUNTRIES = (  # German names that take no article
    "AL AR AT AU BE BG BO BR CA CL CN CO CR CZ DE DK EC EE EG ES ET FI FR GH GR HR HU ID IE IL IN IS IT JO JP KE KR LT "
    "LU LV MA MX MY NO NP NZ PA PE PL PT PY RO RU SE SG SI TH TN TZ UG UY VE VN ZA"
).split()
LANGUAGES = "ar bg cs da de el es et fa fi fr he hr hu is it ja ko lt lv nl pl pt ro ru sk sl sv th tr uk vi zh".split()
NAMES = "Anna Ben Clara David Emma Felix Hanna Jonas Laura Maria Martin Paul Peter Sarah Thomas Vera".split()
NOUNS = {  # English/German, nominative; `thing` has no masculine, so that its accusative is the same
    "person": "my brother/mein Bruder|my sister/meine Schwester|our teacher/unsere Lehrerin|her husband/ihr Mann"
    "|his mother/seine Mutter|the doctor/die Ärztin|the young man/der junge Mann|my old friend/mein alter Freund",
    "place": "the museum/das Museum|the library/die Bibliothek|the bank/die Bank|the restaurant/das Restaurant"
    "|the office/das Büro|the market/der Markt|the bakery/die Bäckerei|the pharmacy/die Apotheke",
    "event": "the concert/das Konzert|the meeting/die Besprechung|the course/der Kurs|the exhibition/die Ausstellung"
    "|the lecture/der Vortrag|the film/der Film|the game/das Spiel|the exam/die Prüfung|the wedding/die Hochzeit",
    "vehicle": "the train/der Zug|the bus/der Bus|the ferry/die Fähre|the next train/der nächste Zug",
    "building": "the bridge/die Brücke|the tower/der Turm|the church/die Kirche|the castle/das Schloss|the town hall"
    "/das Rathaus|the lighthouse/der Leuchtturm|the old mill/die alte Mühle",
    "thing": "the ticket/die Karte|the book/das Buch|the lamp/die Lampe|the bicycle/das Fahrrad|the clock/die Uhr"
    "|the picture/das Bild|the camera/die Kamera|the bed/das Bett|the jacket/die Jacke|the shirt/das Hemd",
}
TEMPLATES = """Good morning, {name}!|Guten Morgen, {name}!
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
This is the {ordinal} time.|Das ist das {ordinal} Mal.
{subject} took {ordinal} place.|{subject} belegte den {ordinal}n Platz.
Today is {day}.|Heute ist {day}.
In {month} it often rains in {country}.|Im {month} regnet es in {country} oft.
{subject} wants to visit {countries}.|{subject} will {countries} besuchen.
{subject} is learning {language} in {country}.|{subject} lernt {language} in {country}.
{country} has {people} inhabitants.|{country} hat {people} Einwohner.
Prices in {country} rose by {percent} in {year}.|Die Preise in {country} stiegen im Jahr {year} um {percent}.
The temperature in {country} rose to {heat}.|Die Temperatur in {country} stieg auf {heat}.
The journey from {country} to {country2} takes {while}.|Die Reise von {country} nach {country2} dauert {while}.
{subject} translates from {language} into {language2}.|{subject} übersetzt aus dem {language}en ins {language2}e.
{subject} ran {distance} in {minutes}.|{subject} lief {distance} in {minutes}.
The room is {area} in size.|Das Zimmer ist {area} groß.
{subject} exchanged {price} for {francs}.|{subject} hat {price} gegen {francs} getauscht.
When {name} called, it was {time} in {country}.|Als {name} anrief, war es in {country} {time} Uhr."""


def both(function, *args, **options) -> tuple[str, str]:
    """What a formatter of Babel writes in English and in German."""
    return function(*args, locale="en", **options), function(*args, locale="de", **options)


def fill(kind: str, rng: random.Random) -> tuple[str, str]:
    """A random value for a slot of a template, in English and in German."""

    def words(number, to="cardinal", **options):
        german = num2words(number, lang="de", to=to, **options)
        if to == "currency":
            options["separator"] = " and"
        return num2words(number, lang="en", to=to, **options), german

    def measure(names, low=None, high=None):
        value = rng.choice([rng.randint(2, 99), rng.randint(20, 999) / 10]) if low is None else rng.randint(low, high)
        return both(units.format_unit, value, rng.choice(names.split()), length="long")

    def name(table, code):
        return getattr(Locale("en"), table)[code], getattr(Locale("de"), table)[code]

    day = datetime.date(1950, 1, 1) + datetime.timedelta(rng.randrange(30_000))
    moment = datetime.time(rng.randrange(24), rng.randrange(0, 60, 5))
    wait = rng.randint(2, 50) * datetime.timedelta(**{rng.choice(["minutes", "hours", "days"]): 1})
    if kind == "subject":
        kind = rng.choice(["name", "person"])
    if kind in NOUNS:
        return tuple(rng.choice(NOUNS[kind].split("|")).split("/"))
    return {
        "name": lambda: (rng.choice(NAMES),) * 2,
        "country": lambda: name("territories", rng.choice(COUNTRIES)),
        "countries": lambda: tuple(
            lists.format_list([Locale(lang).territories[code] for code in codes], locale=lang)
            for codes in [rng.sample(COUNTRIES, 3)]
            for lang in ("en", "de")
        ),
        "language": lambda: name("languages", rng.choice(LANGUAGES)),
        "date": lambda: both(dates.format_date, day, format="long"),
        "day": lambda: (dates.format_date(day, "full", "en"), dates.format_date(day, "EEEE, 'der' d. MMMM y", "de")),
        "weekday": lambda: both(dates.format_date, day, format="EEEE"),
        "month": lambda: both(dates.format_date, day, format="MMMM"),
        "time": lambda: both(dates.format_time, moment, format="short"),
        "soon": lambda: both(dates.format_timedelta, wait, add_direction=True),
        "year": lambda: words(rng.randint(1400, 2024), "year"),
        "age": lambda: words(rng.randint(2, 99)),
        "cardinal": lambda: words(rng.randint(2, rng.choice([99, 999, 9999]))),
        "ordinal": lambda: words(rng.randint(1, 99), "ordinal"),
        "dollars": lambda: words(rng.randint(2, 99) + rng.randrange(5, 100, 5) / 100, "currency", currency="USD"),
        "price": lambda: both(numbers.format_currency, rng.randint(100, 200_000) / 100, "EUR"),
        "francs": lambda: both(
            numbers.format_currency, rng.randint(2, 999), "CHF", currency_digits=False, format_type="name"
        ),
        "people": lambda: both(numbers.format_decimal, rng.randrange(1_000_000, 90_000_000, 1000)),
        "percent": lambda: both(numbers.format_percent, rng.randint(1, 60) / 100),
        "while": lambda: measure("duration-hour duration-day duration-week", 2, 30),
        "minutes": lambda: measure("duration-minute", 2, 120),
        "height": lambda: measure("length-meter"),
        "distance": lambda: measure("length-kilometer length-mile"),
        "mass": lambda: measure("mass-kilogram mass-gram mass-pound"),
        "area": lambda: measure("area-square-meter"),
        "heat": lambda: measure("temperature-celsius temperature-fahrenheit", 2, 45),
    }[kind]()


def embedded_corpus(rows: int = 4000, seed: int = 0) -> DatasetDict:
    """English sentences and their translations, from templates that Babel and num2words fill.

    As in real corpora, few patterns make most of the rows, many rows differ from another in one value only, and the
    training split repeats itself. A checksum of the source chooses the split, so no source is in two of them.

    Args:
        rows: Rows of the training split; validation has a twentieth and test a tenth of that.
        seed: Another seed gives other sentences.

    Returns:
        Splits train, validation and test with columns `en` and `de`.
    """
    rng = random.Random(seed)
    templates = [line.split("|") for line in TEMPLATES.splitlines()]
    frequency = [1 / (rank + 8) for rank in range(len(templates))]  # Zipf's law, flattened
    sizes = {"train": rows, "validation": rows // 20, "test": rows // 10}
    splits: dict[str, list[tuple[str, str]]] = {split: [] for split in sizes}
    sides, values = templates[0], {}
    while any(len(splits[split]) < size for split, size in sizes.items()):
        if values and rng.random() < 0.3:  # the sentence before, with another value in one place
            del values[rng.choice(list(values))]
        else:
            sides, values = rng.choices(templates, frequency)[0], {}
        for slot in [part.partition("}")[0] for part in sides[0].split("{")[1:]]:
            while slot not in values or len(set(values.values())) < len(values):
                values[slot] = fill(slot.rstrip("2"), rng)
        texts = [side.format(**{slot: value[i] for slot, value in values.items()}) for i, side in enumerate(sides)]
        source, target = (text[0].upper() + text[1:].replace("\u202f", " ").replace("\xa0", " ") for text in texts)
        bucket = zlib.crc32(source.encode()) % 20
        split = "test" if bucket < 2 else "validation" if bucket == 2 else "train"
        if len(splits[split]) < sizes[split] and (split == "train" or (source, target) not in splits[split]):
            splits[split].append((source, target))
    return DatasetDict(
        {split: Dataset.from_list([{"en": en, "de": de} for en, de in pairs]) for split, pairs in splits.items()}
    )


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

    return load_splits(common, embedded_corpus, prepare, seed)


# ---- Model ----


def new_tokenizer(texts, vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: no character is unknown to it, and each digit is a token."""
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Prepend(" ")])
    split = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    bpe.pre_tokenizer = pre_tokenizers.Sequence(split)
    bpe.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    options = {"special_tokens": ["<pad>", "</s>"], "initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False, **options))
    bpe.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=bpe, model_max_length=max_length, **names)


def new_model(size: str, tokenizer: PreTrainedTokenizerFast, max_length: int) -> MarianMTModel:
    """A Marian model with random weights, one embedding for source, target and output; ValueError for unknown sizes."""
    if size not in SIZES:
        raise ValueError(f"model_size={size!r} is not known; give one of {', '.join(SIZES)}.")
    width, layers, heads, inner, dropout = SIZES[size]
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


def set_languages(model, tokenizer, source: str, target: str) -> None:
    """Where a tokenizer has language codes, tell it which, and the model which one to begin with.

    Raises:
        ValueError: A code that the tokenizer does not know.
    """
    if getattr(tokenizer, "src_lang", None) is None:
        return
    for side, code in (("source", source), ("target", target)):
        token = next((token for token in (code, f"__{code}__") if token in tokenizer.all_special_tokens), None)
        if token is None:
            near = difflib.get_close_matches(code, tokenizer.all_special_tokens, n=3, cutoff=0.4)
            raise ValueError(f"{side}_lang={code!r}: the tokenizer has no such code; near ones: {', '.join(near)}.")
    tokenizer.src_lang, tokenizer.tgt_lang = source, target
    start = tokenizer.convert_tokens_to_ids(token)
    if tokenizer(text_target="a")["input_ids"][0] == start:
        model.generation_config.forced_bos_token_id = start
    else:  # the first mBART: its targets end with the code, and its decoder starts from it
        model.generation_config.decoder_start_token_id = model.config.decoder_start_token_id = start


# ---- Metric ----


class PlainNumbers:
    """Put before a metric of sacreBLEU, which can't average resamples where numpy's floats meet a plain 0."""

    def _compute_score_from_stats(self, stats):
        return super()._compute_score_from_stats(np.asarray(stats).tolist())


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
            score = scorer.corpus_score(predictions, [references], n_bootstrap=n_bootstrap)
            results |= {name: score.score, f"{name}_signature": str(scorer.get_signature())}
            if n_bootstrap > 1:
                results |= {f"{name}_mean": float(score._mean), f"{name}_interval": float(score._ci)}
        return results


# ---- The run ----


def main(argv: list[str] | None = None) -> None:
    begin = time.perf_counter()
    types = (CommonArguments, RecipeArguments, Seq2SeqTrainingArguments)
    common, *_ = parse(*types, argv=argv, **FROM_SCRATCH)
    special = (FINE_TUNING if common.model_name_or_path else {}) | ({} if common.source else EMBEDDED)
    common, recipe, args, policy = parse(*types, argv=argv, **FROM_SCRATCH | special)
    arguments = arguments_of(common, recipe, args)
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
    checkpoint = find_checkpoint(args, policy, common, recipe)
    say = print if args.process_index == 0 else lambda *texts: None
    set_seed(args.seed)

    # Data
    with args.main_process_first(desc="read the corpus"):
        corpus = load_corpus(common, recipe, args.data_seed or 0, say)  # --seed leaves the rows alone
    final = "test" if "test" in corpus else "validation"

    # Model
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

    def encode(rows):
        sources = [recipe.source_prefix + text for text in rows["source"]]
        return tokenizer(sources, text_target=rows["target"], max_length=recipe.max_length, truncation=True)

    with args.main_process_first(desc="tokenize"):
        rows = corpus.map(encode, batched=True, remove_columns=["source", "target"], desc="Tokenize")
    sizes = ", ".join(f"{len(split):,} {name}" for name, split in rows.items())
    say(f"{sizes} rows; {model.num_parameters():,} parameters; vocabulary of {len(tokenizer):,}")
    tell_cuts(rows["train"], recipe.max_length, say)
    read = time.perf_counter()

    # Metric
    metric = SacreBleu(keep_in_memory=True)

    def decode(ids):
        ids = np.where(ids < 0, tokenizer.pad_token_id, ids)  # the Trainer fills up with -100
        return [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def compute_metrics(outputs):
        texts = {"predictions": decode(outputs.predictions), "references": decode(outputs.label_ids)}
        scores = metric.compute(**texts, target_lang=recipe.target_lang)
        return {name: scores[name] for name in ("bleu", "chrf")}

    # Train
    trainer = PruningSeq2SeqTrainer(
        model=model,
        args=args,
        policy=policy,
        history=common.history,
        history_key=common.history_key,
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
        compute_metrics=compute_metrics if args.predict_with_generate else None,
        callbacks=common.callbacks(),
    )
    train(trainer, checkpoint)
    trained = time.perf_counter()

    # Test: in order of length, and not shuffled, so that each prediction can be put beside its row
    order = np.argsort([len(ids) for ids in rows[final]["input_ids"]], kind="stable")[::-1]
    args.train_sampling_strategy, args.predict_with_generate, trainer.compute_metrics = "sequential", True, None
    output = trainer.predict(rows[final].select(order), num_beams=recipe.num_beams)
    hypotheses = dict(sorted(zip(order.tolist(), decode(output.predictions), strict=False)))  # ranks may repeat rows
    texts = {"predictions": list(hypotheses.values()), "references": list(corpus[final]["target"])}
    scores = metric.compute(**texts, target_lang=recipe.target_lang, n_bootstrap=1000)
    seconds = {"reading": read - begin, "training": trained - read, "testing": time.perf_counter() - trained}

    # Report
    lines = [
        f"{title} {scores[name]:.2f}, resampled {scores[f'{name}_mean']:.2f} ± {scores[f'{name}_interval']:.2f} "
        f"({final}, {len(order):,} rows, {scores[f'{name}_signature']})"
        for name, title in (("bleu", "BLEU"), ("chrf", "chrF"))
    ]
    samples = []
    for row in random.Random(args.seed).sample(range(len(order)), min(5, len(order))):
        source, reference = (corpus[final][side][row] for side in ("source", "target"))
        samples.append(f"source      {source}\nreference   {reference}\nhypothesis  {hypotheses[row]}")
    scores = {"num_beams": recipe.num_beams} | scores
    outcome = Outcome("bleu", scores, final, texts, lines, samples)
    dataset = common.source or "embedded corpus"
    card = {"tasks": "translation", "language": [recipe.source_lang, recipe.target_lang], "dataset": dataset}
    finish(trainer, policy, arguments, outcome, seconds, card, __file__)


if __name__ == "__main__":
    run(main)
