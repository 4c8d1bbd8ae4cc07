"""Groups of near-duplicate rows: by hand, against all pairs compared one by one, and of rows stored in any way."""

import re
import sys

import datasets
import numpy as np
import pytest
from forms import as_list, as_tensors
from PIL import Image

from hf_prune.data import _near, duplicates
from hf_prune.data.duplicates import find_groups, share_with_duplicates

FORMS = (as_list, as_tensors, datasets.Dataset.from_dict)
TEN = list(range(1, 11))  # 9 pairs of neighbours


def groups_of(*texts, **options):
    return find_groups(as_list({"input_ids": texts}), **options).tolist()


def jaccard(one, other, ngram=2):
    sets = [{tuple(text[at : at + ngram]) for at in range(max(1, len(text) - ngram + 1))} for text in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def one_by_one(texts, similarity, ngram=2):
    """The rule, of all pairs."""
    groups = list(range(len(texts)))
    for row, text in enumerate(texts):
        leaders = [other for other in range(row) if groups[other] == other]
        near = [other for other in leaders if jaccard(texts[other], text, ngram) >= similarity]
        groups[row] = near[0] if near else row
    return groups


# ---- Texts ----


def test_the_threshold_by_hand():
    """8 of 10 pairs are shared if the last token differs, 7 of 11 if one in the middle does."""
    last, middle = [*TEN[:-1], 99], [*TEN[:4], 99, *TEN[5:]]
    assert groups_of(TEN, last, middle, similarity=0.8) == [0, 0, 2]
    assert groups_of(TEN, last, middle, similarity=0.81) == [0, 1, 2]
    assert groups_of(TEN, last, middle, similarity=0.63) == [0, 0, 0]
    assert groups_of(TEN, middle, similarity=0.8, ngram=1) == [0, 0]  # 9 of 11


def test_words_in_another_order_are_another_text():
    assert groups_of(TEN, TEN[::-1]) == [0, 1]
    assert groups_of(TEN, TEN[::-1], ngram=1) == [0, 0]


def test_equal_rows_are_found_however_short():
    assert groups_of([], [7], [7, 8], [], [7], [8, 7], [7, 8], ngram=5) == [0, 1, 2, 0, 1, 5, 2]
    assert groups_of([7], [7], [7, 8], ngram=10**30) == [0, 0, 2]
    assert groups_of([7], [7, 7], [7, 7, 7], [7, 7], similarity=1) == [0, 1, 2, 1]


def test_no_chain_joins_what_is_not_near():
    """Row 1 is near both others, which are not near each other; row 3 is near row 2, which began a group."""
    chain = [list(range(start, start + 20)) for start in (0, 2, 4, 6)]
    assert jaccard(chain[0], chain[1]) >= 0.8 > jaccard(chain[0], chain[2])
    assert groups_of(*chain) == [0, 0, 2, 2]


@pytest.mark.parametrize(("similarity", "ngram"), [(0.5, 1), (0.65, 2), (0.8, 2), (0.95, 3)])
def test_the_groups_are_those_of_all_pairs(rng, similarity, ngram):
    texts = []
    for _ in range(60):
        base = rng.integers(0, 500, rng.integers(2, 40))
        for _ in range(rng.integers(1, 6)):
            changed = rng.random(len(base)) < rng.choice([0, 0.03, 0.1, 0.3])
            texts.append(np.where(changed, rng.integers(0, 500, len(base)), base).tolist())
    texts = [texts[row] for row in rng.permutation(len(texts))]
    assert groups_of(*texts, similarity=similarity, ngram=ngram) == one_by_one(texts, similarity, ngram)


def test_both_texts_of_a_pair_must_be_near():
    rows = {"input_ids": [TEN, TEN, TEN, TEN[::-1]], "labels": [TEN, TEN, TEN[::-1], TEN]}
    assert find_groups(as_list(rows), True).tolist() == [0, 0, 2, 3]
    assert find_groups(as_list(rows), False).tolist() == [0, 0, 0, 3]
    long, short = list(range(100)), [1, 2, 3]  # together, 99 of 103 pairs are shared; of the targets none
    lopsided = as_list({"input_ids": [long, long], "labels": [short, short[::-1]]})
    assert find_groups(lopsided, True).tolist() == [0, 1]


@pytest.mark.parametrize("form", FORMS)
def test_padding_and_ignored_labels_do_not_count(form):
    rows = {
        "input_ids": [[5, 2, 0], [0, 5, 2], [5, 0, 2], [5, 2, 0]],
        "attention_mask": [[1, 1, 0], [0, 1, 1], [1, 1, 1], [1, 1, 0]],
        "labels": [[3, 4, -100], [-100, 3, 4], [3, 4, -100], [4, 4, -100]],
    }
    assert find_groups(form(rows), True).tolist() == [0, 0, 2, 3]


def test_parts_are_joined_as_they_are_read(rng, monkeypatch):
    texts = [rng.integers(0, 3, length).tolist() for length in rng.integers(0, 4, 50)]
    expected = groups_of(*texts)
    assert len(set(expected)) < 40
    for module in (duplicates, sys.modules["hf_prune.data.features"]):
        monkeypatch.setattr(module, "ROWS_AT_A_TIME", 7)
    monkeypatch.setattr(_near, "_AT_A_TIME", 3)
    monkeypatch.setattr(duplicates, "made_once", lambda name, content, make: make())
    assert groups_of(*texts) == expected
    assert find_groups(datasets.Dataset.from_dict({"input_ids": texts})).tolist() == expected


def test_many_near_rows_cost_few_comparisons(rng):
    """Each of 300 rows differs from row 0 in one place, and from most others in two, which is too much."""
    base = list(range(20))
    near = [[*base[:at], 100 + row, *base[at + 1 :]] for row, at in enumerate(rng.integers(1, 19, 300))]
    assert jaccard(base, near[0]) >= 0.8 > jaccard(near[0], near[1])
    assert set(groups_of(base, *near)) == {0}
    low, high = _near._candidates(np.zeros((1000, 3), np.uint32))
    assert len(low) == len(set(zip(low.tolist(), high.tolist(), strict=True))) < 9 * 1000
    assert (low < high).all()


def test_tokens_that_are_hidden_in_each_other_are_told_apart():
    assert groups_of([1, 23], [12, 3], [1, 2, 3], similarity=1) == [0, 1, 2]
    pairs = {"input_ids": [[1, 2], [1]], "labels": [[3], [2, 3]]}
    assert find_groups(as_list(pairs), True, similarity=1).tolist() == [0, 1]


def test_the_share():
    assert share_with_duplicates(np.array([0, 1, 0, 3])) == 0.5
    assert share_with_duplicates(np.arange(3)) == 0


# ---- Columns of texts ----


@pytest.mark.parametrize("form", [as_list, datasets.Dataset.from_dict])
@pytest.mark.parametrize("similarity", [0.8, 1])
def test_columns_are_read_without_regard_to_case_and_spaces(form, similarity):
    rows = {
        "id": ["a", "b", "c", "d"],
        "en": ["A fine DAY", "a  fine day\n", "A fine day", "a fineday"],
        "de": ["Straße", "STRASSE", "Weg", "Straße"],
    }
    assert find_groups(form(rows), columns="en+de", similarity=similarity).tolist() == [0, 0, 2, 3]
    assert find_groups(form(rows), columns="en", similarity=similarity).tolist() == [0, 0, 0, 3]


@pytest.mark.parametrize("form", [as_list, datasets.Dataset.from_dict])
def test_columns_that_are_no_texts_are_refused(form):
    rows = form({"text": ["a", "b"], "label": [0, 1], "more": ["a", None]})
    with pytest.raises(ValueError, match=r"columns='text\+title': the rows have no 'title', but text, label, more"):
        find_groups(rows, columns="text+title")
    with pytest.raises(ValueError, match="a row has 0 as 'label', which is no text"):
        find_groups(rows, columns="label")
    with pytest.raises(ValueError, match="a row has None as 'more', which is no text"):
        find_groups(rows, columns="more")


@pytest.mark.parametrize("form", [as_list, datasets.Dataset.from_dict])
def test_rows_without_tokens_are_refused_with_the_cure(form):
    with pytest.raises(ValueError, match=r"by 'input_ids' or pictures, but the rows have text\. .*columns='question"):
        find_groups(form({"text": ["a", "b"]}))
    with pytest.raises(ValueError, match="a row is a tuple"):
        find_groups([(1, 2)])
    with pytest.raises(ValueError, match="Row 0 has 'input_ids', but row 1 has text"):
        find_groups([{"input_ids": [1]}, {"text": "a"}])


@pytest.mark.parametrize(("option", "value"), [("similarity", 0.4), ("similarity", 1.1), ("ngram", 0)])
def test_options_out_of_range_are_refused(option, value):
    with pytest.raises(ValueError, match=re.escape(f"find_groups({option}=...) must be")):
        groups_of(TEN, **{option: value})


def test_without_rensa_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(ImportError, match=r"pip install rensa, or hf_prune\[duplicates\]"):
        groups_of(TEN, TEN)
    assert groups_of(TEN, TEN, similarity=1) == [0, 0]


# ---- Pictures ----


def smooth(rng, n, side=32):
    """Smooth random pictures: (n, side, side, 3) uint8."""
    coarse = [Image.fromarray(one) for one in rng.integers(0, 256, (n, 5, 5, 3), np.uint8)]
    return np.stack([np.asarray(one.resize((side, side), Image.Resampling.BICUBIC)) for one in coarse])


def shifted(picture, rng, by):
    """The same picture with noise."""
    return np.clip(picture + rng.normal(0, by, picture.shape), 0, 255).astype(np.uint8)


def test_pictures_with_noise_are_near_and_others_are_not(rng):
    made = smooth(rng, 30)
    pictures = [*made, *(shifted(one, rng, 4) for one in made), *made]
    rows = as_list({"pixel_values": pictures})
    assert find_groups(rows).tolist() == [*range(30)] * 3
    assert find_groups(rows, similarity=1).tolist() == [*range(60), *range(30)]


def test_dull_pictures_are_told_apart_by_what_is_in_them(rng):
    """All pixels lie within 16 of each other, so that any two pictures share 88 % of their light."""
    dull = 120 + smooth(rng, 400, side=8) // 16
    overlaps = _near._overlap(dull[:-1].reshape(399, -1), dull[1:].reshape(399, -1))
    assert overlaps.min() > 0.8
    assert find_groups(as_list({"pixel_values": dull})).tolist() == [*range(400)]


def test_pictures_of_a_data_set_are_those_of_a_list(rng):
    made = smooth(rng, 4, side=48)
    pictures = [Image.fromarray(one) for one in (*made, shifted(made[1], rng, 4), made[2])]
    features = datasets.Features({"image": datasets.Image()})
    stored = datasets.Dataset.from_dict({"image": pictures}, features=features)
    for rows in (stored, as_list({"image": pictures})):
        assert find_groups(rows).tolist() == [0, 1, 2, 3, 1, 2]


def test_what_two_pages_have_written_on_them_tells_them_apart():
    """Nearly white pages share nearly all of their light, and nearly black ones nearly all of their dark."""
    pages = np.full((3, 32, 32), 255, np.uint8)
    pages[0, 4:8, 4:28] = pages[2, 4:8, 4:28] = 0
    pages[1, 20:24, 4:28] = 0
    alike = _near._overlap(pages[[0, 0]].reshape(2, -1), pages[[1, 2]].reshape(2, -1))
    assert alike.tolist() == [0, 1]
    for rows in (pages, 255 - pages):
        assert find_groups(as_list({"image": [Image.fromarray(one) for one in rows]})).tolist() == [0, 1, 0]


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (8, 8), (32, 7)])
def test_pictures_of_any_size(shape, rng):
    pictures = rng.integers(0, 256, (5, *shape), np.uint8)
    rows = as_list({"pixel_values": [*pictures, pictures[3], np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8)]})
    groups = find_groups(rows, similarity=0.999).tolist()
    assert groups == [0, 1, 2, 3, 4, 3, 6, 7]


def test_a_hash_may_differ_in_five_places(rng):
    """Whatever five bits of two hashes differ, two of their seven parts are the same."""
    hashes = rng.random(63) < 0.5
    for _ in range(200):
        other = hashes.copy()
        other[rng.choice(63, 5, replace=False)] ^= True
        parts = [np.array_split(one, _near._PARTS) for one in (hashes, other)]
        assert sum(np.array_equal(*pair) for pair in zip(*parts, strict=True)) >= 2


# ---- Kept on disk ----


def test_groups_are_found_once(home, monkeypatch):
    rows = {"input_ids": [TEN, TEN[::-1], TEN]}
    assert find_groups(as_list(rows)).tolist() == [0, 1, 0]
    (file,) = home.iterdir()
    monkeypatch.setattr(duplicates, "near_texts", lambda *_: 1 / 0)
    for form in FORMS:
        assert find_groups(form(rows)).tolist() == [0, 1, 0]
    for changed in ({"similarity": 0.9}, {"ngram": 3}, {"is_encoder_decoder": False, "similarity": 1}):
        with pytest.raises(ZeroDivisionError):
            find_groups(as_list(rows), **changed)
    with pytest.raises(ZeroDivisionError):
        find_groups(as_list({"input_ids": rows["input_ids"][:2]}))
    file.write_bytes(b"damaged")
    with pytest.raises(ZeroDivisionError):
        find_groups(as_list(rows))


def test_no_randomness_of_the_rows_is_used_up():
    class Noisy:
        def __len__(self):
            return 3

        def __getitem__(self, row):
            np.random.random()  # noqa: NPY002 - what augmentation draws from
            return {"input_ids": TEN}

    state = np.random.get_state()[1].copy()  # noqa: NPY002
    assert find_groups(Noisy()).tolist() == [0, 0, 0]
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
