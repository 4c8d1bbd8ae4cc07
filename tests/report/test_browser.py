"""The pages in a real browser: what people do with them, on a desk and on a phone, in the light and in the dark."""

import csv
import re

import pytest
from browser import chromium, expect, needs_chromium, opened
from explored import CLASSES, EVIL, run_folder

pytestmark = [needs_chromium, pytest.mark.slow]
ROWS, HARD = 450, 45  # the last are never learnt


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run_folder(folder, ROWS).html(folder / "_report.html")
    return folder / "_report.html"


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


def numbers(page):
    """The numbers of the rows that are shown, in order."""
    page.wait_for_selector("#grid > *")
    return [int(text) for text in page.locator("#grid tbody th").all_text_contents()]


def column(page, key):
    place = page.locator("#grid thead th").evaluate_all(
        "(all, key) => all.findIndex((th) => th.dataset.key === key)", key
    )
    return page.locator(f"#grid tbody tr > :nth-child({place + 1})").all_text_contents()


def show(page, list="all"):
    page.select_option("#list", list)
    return numbers(page)


def test_the_first_screen_says_what_the_run_is_and_shows_the_suspects(browser, path):
    with opened(browser, path) as page:
        found = numbers(page)
        assert page.title() == "seed-1 · bleu 99 · hf_prune"
        assert re.match(r"data:image/svg", page.locator("link[rel=icon]").get_attribute("href"))
        header = page.locator("header").inner_text()
        for words in (
            "seed-1",
            "bert-base-uncased",
            "banking77, 450 rows",
            "bleu 99",
            "45 of 450 rows (10.0 %) are likely mislabelled",
            "left out",
        ):
            assert words in header
        assert page.locator(".numbers li").count() == 3
        assert sorted(found) == [*range(1000 + ROWS - HARD, 1000 + ROWS)]
        assert page.locator("#grid tbody tr").nth(2).bounding_box()["y"] < 900  # without scrolling
        assert page.locator(".chart").first.bounding_box()["y"] > page.locator("#grid").bounding_box()["y"]
        assert not page.locator(".list").first.is_visible()
        excess = [float(text) for text in column(page, "excess_loss")]
        assert excess == sorted(excess, reverse=True)


def test_search_filter_and_sort(browser, path):
    with opened(browser, path) as page:
        assert len(show(page)) == 200
        page.fill("#search", "#1007")
        expect(page.locator("#grid tbody tr")).to_have_count(1)
        assert numbers(page) == [1007]
        assert column(page, "text")[0].startswith(EVIL.strip()[:20])  # as text: no element was made of it
        page.fill("#search", "no such words")
        expect(page.locator("#grid tbody tr")).to_have_count(0)
        assert page.locator("#count").inner_text() == "0 of 450 rows"
        page.fill("#search", "")
        expect(page.locator("#grid tbody tr")).to_have_count(200)
        page.select_option("#label", label=CLASSES[0])
        assert set(column(page, "label")) == {CLASSES[0]}
        page.select_option("#predicted", label=CLASSES[1])
        assert numbers(page) and set(column(page, "predicted")) == {CLASSES[1]}
        page.select_option("#label", label="any")
        page.select_option("#predicted", label="any")
        assert len(show(page, "mismatch")) == HARD
        assert all(
            given != predicted
            for given, predicted in zip(column(page, "label"), column(page, "predicted"), strict=True)
        )
        assert show(page, "duplicates") == [1005]  # near row 1002, the first of its group
        show(page)
        for key, is_number in (("mean_loss", True), ("label", False)):
            heading = page.locator(f"#grid th[data-key={key}]")
            for wanted in ("descending", "ascending") if is_number else ("ascending", "descending"):
                heading.locator("button").click()
                assert heading.get_attribute("aria-sort") == wanted
                values = [float(text) if is_number else text for text in column(page, key)]
                assert values == sorted(values, reverse=wanted == "descending")
        page.locator("#grid th[data-key=id] button").click()
        assert numbers(page) == [*range(1000, 1200)]


def test_200_rows_at_first_and_all_on_demand(browser, path):
    with opened(browser, path) as page:
        assert len(show(page)) == 200
        page.click("#more")
        assert len(numbers(page)) == 400
        show(page)
        page.click("#rest")
        expect(page.locator("#grid tbody tr")).to_have_count(450)
        assert not page.locator("#more").is_visible() and not page.locator("#rest").is_visible()


def test_copy_and_download_take_the_selection_or_all_that_match(browser, path, tmp_path):
    with opened(browser, path, permissions=["clipboard-read", "clipboard-write"]) as page:
        found = numbers(page)
        page.click("#copy")
        expect(page.locator("#count")).to_contain_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == "\n".join(map(str, found))
        for place in (1, 3):
            page.locator("#grid input").nth(place).check()
        assert "2 selected" in page.locator("#count").inner_text()
        page.click("#copy")
        expect(page.locator("#count")).to_contain_text("Copied 2")
        assert page.evaluate("navigator.clipboard.readText()") == f"{found[1]}\n{found[3]}"
        show(page)
        page.fill("#search", "#1007")
        expect(page.locator("#grid tbody tr")).to_have_count(1)
        page.locator("#every").check()
        with page.expect_download() as download:
            page.click("#download")
        download.value.save_as(tmp_path / "rows.csv")
        with open(tmp_path / "rows.csv", newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        assert [int(line["file_row"]) for line in lines] == sorted([found[1], found[3], 1007], key=[*found, 1007].index)
        assert lines[2]["text"].startswith(EVIL.strip()) and lines[2]["label"].removeprefix("'") in CLASSES
        assert float(lines[0]["wrong_probability"]) > 0.9  # by the losses of the rounds
        page.fill("#search", "")
        expect(page.locator("#grid tbody tr")).to_have_count(200)
        page.locator("#every").check()
        with page.expect_download() as download:
            page.click("#download")
        download.value.save_as(tmp_path / "rows.csv")
        with open(tmp_path / "rows.csv", newline="", encoding="utf-8") as file:
            labels = {line["label"] for line in csv.DictReader(file)}
        assert labels == {*CLASSES[:-1], "'=exchange"}  # a spreadsheet runs no formula


def test_cards_show_pictures_texts_and_losses(browser, path):
    with opened(browser, path) as page:
        numbers(page)
        assert page.locator("#grid td img").count() == 5
        page.click("#view")
        cards = page.locator("#grid li")
        assert cards.count() >= HARD and page.locator("#grid table").count() == 0
        assert page.locator("#grid li img").count() == 5
        assert cards.first.locator("svg title").text_content().startswith("Losses by epoch: 1: ")
        assert "predicted: " in cards.first.inner_text() and "P(wrong) 0.9" in cards.first.inner_text()
        boxes = [box.bounding_box() for box in page.locator("#grid li .head span").all()]
        for box, card in zip(boxes, [card for card in page.locator("#grid li").all() for _ in range(2)], strict=True):
            frame = card.bounding_box()
            assert frame["x"] <= box["x"] and box["x"] + box["width"] <= frame["x"] + frame["width"]
        page.click("#view")
        assert page.locator("#grid table").count() == 1


def test_keys_are_enough(browser, path):
    with opened(browser, path) as page:
        numbers(page)
        page.locator("#grid input").first.focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Space")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowUp")
        assert page.evaluate("document.activeElement.ariaLabel") == f"select row {numbers(page)[1]}"
        assert page.locator("#grid input:checked").count() == 1
        page.locator("#grid th[data-key=text] button").focus()
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.closest('th').dataset.key") == "text"
        named = "(all) => all.map((it) => !it.checkVisibility() || it.labels?.length || it.ariaLabel || it.textContent)"
        assert all(page.locator("button, input, select").evaluate_all(named))


def test_charts_tell_values_and_the_map_leads_to_rows(browser, path):
    with opened(browser, path) as page:
        numbers(page)
        charts = {
            title: page.locator(f"section:has(h2:text-is('{title}')) .chart")
            for title in ("Share kept and learning rate", "Losses of trained and left-out rows", "Map of the data set")
        }
        for title, words in {
            "Share kept and learning rate": "Share kept",
            "Losses of trained and left-out rows": "trained: loss ",
        }.items():
            chart = charts[title]
            chart.focus()
            page.keyboard.press("ArrowRight")
            assert words in chart.locator(".tip").inner_text()
        chart = charts["Map of the data set"]
        spots = chart.locator("script").evaluate("(script) => JSON.parse(script.textContent)")
        assert ROWS - 9 < len(spots) <= ROWS  # a few were measured once
        x, y, row = min(spots, key=lambda spot: spot[1])  # the highest lies alone
        chart.scroll_into_view_if_needed()
        box = chart.bounding_box()
        page.mouse.move(box["x"] + x / 1e3 * box["width"], box["y"] + y / 1e3 * box["height"])
        assert chart.locator(".tip").inner_text().startswith(f"row {1000 + row}, ")
        page.mouse.down()
        page.mouse.up()
        assert numbers(page) == [1000 + row]
        assert page.evaluate("document.activeElement.ariaLabel") == f"select row {1000 + row}"


def test_an_address_leads_to_a_row(browser, path):
    with opened(browser, path) as page:
        numbers(page)
        page.evaluate("location.hash = '#row-1007'")
        expect(page.locator("#grid tbody tr")).to_have_count(1)
        assert numbers(page) == [1007]


def test_dark_and_narrow(browser, path):
    background = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, path, dark=True) as page:
        numbers(page)
        assert page.evaluate(background) == "rgb(22, 25, 29)"
        shown = page.locator(".chart img").first.evaluate("(image) => image.currentSrc")
    with opened(browser, path, width=390, height=844) as page:
        page.wait_for_selector("#grid li")
        assert page.evaluate(background) == "rgb(255, 255, 255)"
        assert page.locator(".chart img").first.evaluate("(image) => image.currentSrc") != shown
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        page.click("#view")
        assert page.evaluate("document.documentElement.scrollWidth") == 390  # the table scrolls within


def test_without_scripts_the_suspects_are_cards(browser, path):
    with opened(browser, path, java_script_enabled=False) as page:
        assert not page.locator("#rows").is_visible()
        assert page.locator("[data-list=mislabelled] li").count() == HARD
        assert "row 1449" in page.locator("[data-list=mislabelled]").inner_text()


def test_50_000_rows_fit_into_3_megabytes(browser, tmp_path):
    run_folder(tmp_path, 50_000, 10).html(tmp_path / "_report.html")
    assert (tmp_path / "_report.html").stat().st_size < 3e6
    with opened(browser, tmp_path / "_report.html") as page:
        assert len(show(page)) == 200
        page.fill("#search", "#50999")
        expect(page.locator("#grid tbody tr")).to_have_count(1)
