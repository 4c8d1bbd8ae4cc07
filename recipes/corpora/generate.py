"""Make the embedded corpora of the recipes: the Parquet files beside this script.

    python recipes/corpora/generate.py

Babel and num2words fill templates with numbers, dates, prices, countries and the like. As in real corpora, few patterns
make most of the rows, and the training rows repeat themselves. A checksum of the text chooses a row's split, so no text
is in two of them. The rows depend on the seed and on the versions of Babel and num2words that pyproject.toml pins.
"""

import datetime
import random
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from babel import Locale, dates, lists, numbers, units
from num2words import num2words

FOLDER = Path(__file__).parent

Row = dict[str, str]


def draw_splits(
    draw: Callable[[], Row],
    text: str,
    sizes: dict[str, int],
    tests: int = 2,
    finish: Callable[[Row, str], Row] = lambda row, split: row,
) -> dict[str, list[Row]]:
    """Draw rows until every split is full.

    Args:
        draw: Makes a random row.
        text: The column whose checksum chooses the split; a held-out split has each of its texts once.
        sizes: Rows of the splits train, validation and test.
        tests: Twentieths of all texts that belong to the test split; one more belongs to validation.
        finish: (row, split) -> the row that is kept.
    """
    splits: dict[str, list[Row]] = {split: [] for split in sizes}
    held_out = set()
    while any(len(splits[split]) < size for split, size in sizes.items()):
        row = draw()
        bucket = zlib.crc32(row[text].encode()) % 20
        split = "test" if bucket < tests else "validation" if bucket == tests else "train"
        if len(splits[split]) < sizes[split] and row[text] not in held_out:
            splits[split].append(finish(row, split))
            if split != "train":
                held_out.add(row[text])
    return splits


def weights(count: int, flatness: int) -> list[float]:
    """Zipf's law, flattened: how often each of `count` things is drawn, frequent ones first."""
    return [1 / (rank + flatness) for rank in range(count)]


def plain_spaces(text: str) -> str:
    """The text without the no-break spaces that Babel writes."""
    return text.replace("\u202f", " ").replace("\xa0", " ")


# ---- Sentences to translate ----

GERMAN_COUNTRIES = (  # German names that take no article
    "AL AR AT AU BE BG BO BR CA CL CN CO CR CZ DE DK EC EE EG ES ET FI FR GH GR HR HU ID IE IL IN IS IT JO JP KE KR LT "
    "LU LV MA MX MY NO NP NZ PA PE PL PT PY RO RU SE SG SI TH TN TZ UG UY VE VN ZA"
).split()
GERMAN_LANGUAGES = (
    "ar bg cs da de el es et fa fi fr he hr hu is it ja ko lt lv nl pl pt ro ru sk sl sv th tr uk vi zh".split()
)
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
        "country": lambda: name("territories", rng.choice(GERMAN_COUNTRIES)),
        "countries": lambda: tuple(
            lists.format_list([Locale(lang).territories[code] for code in codes], locale=lang)
            for codes in [rng.sample(GERMAN_COUNTRIES, 3)]
            for lang in ("en", "de")
        ),
        "language": lambda: name("languages", rng.choice(GERMAN_LANGUAGES)),
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


def translate(rows: int = 4000, seed: int = 0) -> dict[str, list[Row]]:
    """English sentences and their German translations; many differ from another in one value only.

    Args:
        rows: Rows of the training split; validation has a twentieth and test a tenth of that.
        seed: Another seed gives other sentences.

    Returns:
        Rows by split, with columns `en` and `de`.
    """
    rng = random.Random(seed)
    templates = [line.split("|") for line in TEMPLATES.splitlines()]
    frequency = weights(len(templates), 8)
    sides, values = templates[0], {}

    def draw():
        nonlocal sides, values
        if values and rng.random() < 0.3:  # the sentence before, with another value in one place
            del values[rng.choice(list(values))]
        else:
            sides, values = rng.choices(templates, frequency)[0], {}
        for slot in [part.partition("}")[0] for part in sides[0].split("{")[1:]]:
            while slot not in values or len(set(values.values())) < len(values):
                values[slot] = fill(slot.rstrip("2"), rng)
        texts = [side.format(**{slot: value[i] for slot, value in values.items()}) for i, side in enumerate(sides)]
        en, de = (text[0].upper() + plain_spaces(text[1:]) for text in texts)
        return {"en": en, "de": de}

    return draw_splits(draw, "en", {"train": rows, "validation": rows // 20, "test": rows // 10})


# ---- Texts to classify ----

TEXT_LANGUAGES = "en de es fr it pl pt nl".split()
CURRENCIES = "EUR USD GBP CHF PLN JPY".split()
KINDS_OF_UNITS = {
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
    if kind in KINDS_OF_UNITS:
        return units.format_unit(
            value, rng.choice(KINDS_OF_UNITS[kind].split()), rng.choice(["long", "short"]), locale=lang
        )
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


def text_classification(rows: int = 6000, noise: float = 0.05, seed: int = 0) -> dict[str, list[Row]]:
    """Dates, prices, countries ... in eight languages, and what kind of thing each is.

    Some can't be told apart (languages and countries of one name), and some training rows have a wrong label.

    Args:
        rows: Rows of the training split; validation has a twentieth and test a sixth of that.
        noise: Share of training rows with the label of another kind.
        seed: Another seed gives other texts.

    Returns:
        Rows by split, with columns `text`, `label`, and `true_label`, which is another one where the label is wrong.
    """
    rng = random.Random(seed)
    often, spoken = weights(len(KINDS), 4), weights(len(TEXT_LANGUAGES), 4)

    def draw():
        kind, lang = rng.choices(KINDS, often)[0], rng.choices(TEXT_LANGUAGES, spoken)[0]
        return {"text": plain_spaces(write(kind, lang, rng)), "label": kind, "true_label": kind}

    def mislabel(row, split):
        if split == "train" and rng.random() < noise:
            row["label"] = rng.choice([other for other in KINDS if other != row["label"]])
        return row

    sizes = {"train": rows, "validation": rows // 20, "test": rows // 6}
    return draw_splits(draw, "text", sizes, tests=3, finish=mislabel)


# ---- Instructions ----

WORDS = (
    "apple bread cloud door eagle forest garden house island jacket kitchen lemon mountain night orange piano queen "
    "river stone table uncle violin window yellow zebra bridge candle dragon engine flower guitar hammer"
).split()
ASKED_COUNTRIES = (
    "AR AT AU BE BR CA CH CL CN CZ DE DK EG ES FI FR GB GR HU IE IN IS IT JP KE MX NL NO NZ PE PL PT SE TR US ZA"
).split()
ASKED_LANGUAGES = "de es fr it nl pt sv".split()
CONVERSIONS = (  # large, small, how many of the small make a large one
    "length-kilometer length-meter 1000|length-meter length-centimeter 100|mass-kilogram mass-gram 1000"
    "|duration-hour duration-minute 60|duration-minute duration-second 60|duration-day duration-hour 24"
    "|volume-liter volume-milliliter 1000|duration-week duration-day 7"
).split("|")
TASKS = """sum|What is {a} plus {b}?|Add {b} to {a}.
words|Write {number} in words.|Spell out the number {number}.
digits|Write "{spelled}" in digits.|Which number is {spelled}?
reverse|Reverse this list: {list}.|Say these words from last to first: {list}.
sort|Sort these words: {list}.|Put {list} in alphabetical order.
last|What is the last word of this list: {list}?|Name the last of {list}.
count|How many words are in this list: {list}?|Count these words: {list}.
date|Write {iso} as a date in {language}.|How is {iso} written out in {language}?
weekday|Which day comes after {weekday}?|What day is it on the day after {weekday}?
month|Which month has the number {month}?|Name month {month} of the year.
price|Write {amount} {currency} as a price in {language}.|Format {amount} {currency} for a reader of {language}.
unit|Convert {large} to {small}.|How many {small} are {large}?
country|What is {country} called in {language}?|Translate {country} into {language}.
percent|Write {share} as a percentage.|How many percent is {share}?"""


def make_row(kind: str, phrases: list[str], rng: random.Random) -> dict[str, str]:
    """A random instruction of a kind, and the response to it."""
    english = Locale("en")
    weekdays, months = (list(getattr(english, names)["format"]["wide"].values()) for names in ("days", "months"))
    a, b, number = rng.randint(1, 99), rng.randint(1, 99), rng.randint(1, rng.choice([20, 100, 1000, 10_000]))
    words, language, country = (
        rng.sample(WORDS, rng.randint(2, 5)),
        rng.choice(ASKED_LANGUAGES),
        rng.choice(ASKED_COUNTRIES),
    )
    day = datetime.date(1950, 1, 1) + datetime.timedelta(rng.randrange(30_000))
    amount, currency = rng.randint(100, 99_999) / 100, rng.choice(["EUR", "USD", "GBP"])
    large, small, times = rng.choice(CONVERSIONS).split()
    quantity = rng.randint(2, rng.choice([9, 30, 99]))
    slots = {
        "a": a,
        "b": b,
        "number": number,
        "spelled": num2words(number),
        "list": ", ".join(words),
        "iso": day.isoformat(),
        "weekday": weekdays[a % 7],
        "month": a % 12 + 1,
        "amount": f"{amount:.2f}",
        "currency": currency,
        "large": units.format_unit(quantity, large, locale=english),
        "small": units.get_unit_name(small, locale=english),
        "country": english.territories[country],
        "language": english.languages[language],
        "share": b / 100,
    }
    response = {
        "sum": lambda: str(a + b),
        "words": lambda: num2words(number),
        "digits": lambda: str(number),
        "reverse": lambda: ", ".join(words[::-1]),
        "sort": lambda: ", ".join(sorted(words)),
        "last": lambda: words[-1],
        "count": lambda: str(len(words)),
        "date": lambda: dates.format_date(day, "long", language),
        "weekday": lambda: weekdays[(a + 1) % 7],
        "month": lambda: months[a % 12],
        "price": lambda: numbers.format_currency(amount, currency, locale=language),
        "unit": lambda: units.format_unit(quantity * int(times), small, locale=english),
        "country": lambda: Locale(language).territories[country],
        "percent": lambda: numbers.format_percent(b / 100, locale=english),
    }[kind]()
    return {"instruction": rng.choice(phrases).format(**slots), "response": response}


def instruct(rows: int = 4000, seed: int = 0) -> dict[str, list[Row]]:
    """Instructions that a program can answer; some kinds are far harder than others.

    Args:
        rows: Rows of the training split; validation has a twentieth and test a tenth of that.
        seed: Another seed gives other instructions.

    Returns:
        Rows by split, with columns `instruction` and `response`.
    """
    rng = random.Random(seed)
    kinds = [line.split("|") for line in TASKS.splitlines()]
    frequency = weights(len(kinds), 4)

    def draw():
        kind, *phrases = rng.choices(kinds, frequency)[0]
        return make_row(kind, phrases, rng)

    return draw_splits(draw, "instruction", {"train": rows, "validation": rows // 20, "test": rows // 10})


# ---- All of them ----

CORPORA = {"translate": translate, "text_classification": text_classification, "instruct": instruct}


def main() -> None:
    for name, make in CORPORA.items():
        (FOLDER / name).mkdir(exist_ok=True)
        for split, rows in make().items():
            pq.write_table(pa.Table.from_pylist(rows), FOLDER / name / f"{split}.parquet", compression="zstd")


if __name__ == "__main__":
    main()
