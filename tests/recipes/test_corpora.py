"""recipes/corpora: the embedded corpora, and the script that makes them."""

import sys

import numpy as np
import pytest
from recipe_runs import ROOT, load

from hf_prune.recipe.splits import read_corpus

CORPORA = {  # the column that chooses the split, and the rows of train, validation and test
    "translate": ("en", 4000, 200, 400),
    "text_classification": ("text", 6000, 300, 1000),
    "instruct": ("instruction", 4000, 200, 400),
}
RECIPE_FILES = {name: str(ROOT / "recipes" / f"{name}.py") for name in CORPORA}


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """By recipe and split, the rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        return {
            name: {split: rows.to_list() for split, rows in read_corpus(path).items()}
            for name, path in RECIPE_FILES.items()
        }


@pytest.fixture(scope="module")
def generate():
    """The script, which needs what a user of the recipes does not."""
    for library in ("babel", "num2words"):
        pytest.importorskip(library)
    return load("corpora/generate")


@pytest.mark.parametrize("name", CORPORA)
def test_files_have_the_rows_that_the_script_makes(corpora, generate, name):
    assert corpora[name] == generate.CORPORA[name]()


@pytest.mark.parametrize("name", CORPORA)
def test_rows_depend_on_the_seed_alone(generate, name):
    once, again, other = (generate.CORPORA[name](rows=100, seed=seed) for seed in (1, 1, 2))
    for split in ("train", "validation", "test"):
        assert once[split] == again[split] != other[split]


@pytest.mark.parametrize("name", CORPORA)
def test_no_text_is_in_two_splits(corpora, name):
    column, *sizes = CORPORA[name]
    assert [len(rows) for rows in corpora[name].values()] == sizes
    texts = {split: {row[column] for row in rows} for split, rows in corpora[name].items()}
    assert not texts["train"] & texts["test"]
    assert not texts["train"] & texts["validation"]
    assert not texts["validation"] & texts["test"]
    assert len(texts["test"]) == sizes[-1]  # a repeated row would count twice in the score
    assert len(texts["train"]) < 0.975 * sizes[0]  # but training data repeat themselves


@pytest.mark.parametrize("name", CORPORA)
def test_a_recipe_needs_nothing_of_what_made_its_corpus(monkeypatch, name):
    for library in ("babel", "num2words"):
        monkeypatch.setitem(sys.modules, library, None)
    assert load(name).read_corpus is read_corpus


def test_the_files_are_small():
    files = list((ROOT / "recipes" / "corpora").rglob("*.parquet"))
    assert len(files) == 9 and sum(path.stat().st_size for path in files) < 300_000


# ---- Sentences to translate ----


def test_every_slot_of_every_template_is_filled(corpora, generate):
    texts = [text for rows in corpora["translate"].values() for row in rows for text in row.values()]
    assert all(text.strip() == text and "{" not in text and "  " not in text for text in texts)
    assert all(char.isascii() or char in "äöüÄÖÜßé€’" for text in texts for char in text)
    endings = {side.rpartition("}")[2] for line in generate.TEMPLATES.splitlines() for side in line.split("|")}
    assert not [end for end in endings if not any(text.endswith(end) for text in texts)]


def test_every_language_of_the_sentences_can_be_inflected(generate):
    german = [generate.Locale("de").languages[code] for code in generate.GERMAN_LANGUAGES]
    assert [name for name in german if not name.endswith("sch")] == []  # aus dem {language}en ins {language}e


TRANSLATIONS = {
    "His mother translates from Persian into Croatian.": "Seine Mutter übersetzt aus dem Persischen ins Kroatische.",
    "My brother took eighty-eighth place.": "Mein Bruder belegte den achtundachtzigsten Platz.",
    "Peter has lived in Venezuela for seventy-six years.": "Peter lebt seit sechsundsiebzig Jahren in Venezuela.",
    "The doctor was born on March 16, 1994.": "Die Ärztin wurde am 16. März 1994 geboren.",
    "The shirt costs €927.46.": "Das Hemd kostet 927,46 €.",
    "Martin paid thirty-two dollars and eighty cents for the shirt.": (
        "Martin hat zweiunddreißig Dollar und achtzig Cent für das Hemd bezahlt."
    ),
    "Today is Wednesday, May 29, 1963.": "Heute ist Mittwoch, der 29. Mai 1963.",
    "The doctor wants to visit Estonia, Bulgaria, and China.": "Die Ärztin will Estland, Bulgarien und China besuchen.",
    "The lighthouse is 38.2 meters high.": "Der Leuchtturm ist 38,2 Meter hoch.",
    "Prices in Ireland rose by 51% in sixteen oh-nine.": (
        "Die Preise in Irland stiegen im Jahr sechzehnhundertneun um 51 %."
    ),
    "Vera exchanged €1,427.68 for 228 Swiss francs.": "Vera hat 1.427,68 € gegen 228 Schweizer Franken getauscht.",
    "When Vera called, it was 12:55 AM in Morocco.": "Als Vera anrief, war es in Marokko 00:55 Uhr.",
}


def test_sentences_have_these_translations(corpora):
    pairs = {row["en"]: row["de"] for rows in corpora["translate"].values() for row in rows}
    assert {source: pairs.get(source) for source in TRANSLATIONS} == TRANSLATIONS


# ---- Texts to classify ----


def test_every_kind_of_text_is_written_out(corpora, generate):
    for rows in corpora["text_classification"].values():
        assert {row["label"] for row in rows} == set(generate.KINDS)
    texts = [row["text"] for rows in corpora["text_classification"].values() for row in rows]
    assert all(each == each.strip() and "\xa0" not in each and "\u202f" not in each for each in texts)
    codes = ("duration-", *(f"{kind}-" for kind in generate.KINDS_OF_UNITS))  # what Babel writes without a pattern
    assert not [each for each in texts if any(code in each for code in codes)]


KINDS_OF_TEXTS = {
    "0,2 kilogramme": "mass",
    "duecentotrentatre": "cardinal",
    "57,90 Britische Pfund": "price",
    "Gibraltar-Pfund": "currency",
    "75 metrów sześciennych": "volume",
    "Solomon Islands": "country",
    "12 secondi": "duration",
    "4:35:00": "time",
    "9 kilómetros": "length",
    "martedì 24 luglio 2018": "date",
    "achthunderteinundfünfzigste": "ordinal",
    "Kornisch": "language",
    "1,1 graden Celsius": "temperature",
    "1 kilómetro por hora": "speed",
}


def test_texts_are_of_these_kinds(corpora):
    kinds = {row["text"]: row["label"] for row in corpora["text_classification"]["test"]}
    assert {each: kinds.get(each) for each in KINDS_OF_TEXTS} == KINDS_OF_TEXTS


def share_of_wrong(rows):
    """By `true_label`; and of the texts whose kind anyone can tell."""
    degrees = [row["label"] for row in rows if "°" in row["text"]]
    assert len(degrees) > 10
    assert not [row for row in rows if "°" in row["text"] and row["true_label"] != "temperature"]
    wrong = np.mean([row["label"] != row["true_label"] for row in rows])
    return wrong, np.mean([label != "temperature" for label in degrees])


def test_wrong_labels_are_known_and_in_the_training_rows_alone(corpora, generate):
    corpus = corpora["text_classification"]
    clean, noisy = (generate.text_classification(rows=2000, noise=noise)["train"] for noise in (0, 0.5))
    assert share_of_wrong(corpus["test"]) == share_of_wrong(clean) == (0, 0)
    assert all(0.02 < share < 0.1 for share in share_of_wrong(corpus["train"]))
    assert all(0.3 < share < 0.7 for share in share_of_wrong(noisy))


# ---- Instructions ----


RESPONSES = {
    "Add 51 to 74.": "125",
    "Write 2606 in words.": "two thousand, six hundred and six",
    'Write "seventy-seven" in digits.': "77",
    "Say these words from last to first: mountain, dragon, night.": "night, dragon, mountain",
    "Put stone, zebra, bread, hammer in alphabetical order.": "bread, hammer, stone, zebra",
    "Name the last of jacket, yellow, garden, island.": "island",
    "Count these words: apple, forest, guitar, uncle.": "4",
    "Write 2026-09-26 as a date in German.": "26. September 2026",
    "Which day comes after Tuesday?": "Wednesday",
    "Name month 9 of the year.": "September",
    "Format 391.36 GBP for a reader of Spanish.": "391,36\xa0GBP",
    "Convert 24 weeks to days.": "168 days",
    "Translate South Africa into Spanish.": "Sudáfrica",
    "Write 0.23 as a percentage.": "23%",
}


def test_instructions_of_every_kind_have_these_responses(corpora, generate):
    rows = {row["instruction"]: row["response"] for rows in corpora["instruct"].values() for row in rows}
    assert {instruction: rows.get(instruction) for instruction in RESPONSES} == RESPONSES
    assert len(RESPONSES) == len(generate.TASKS.splitlines())
