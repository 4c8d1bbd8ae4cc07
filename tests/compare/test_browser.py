"""The page of a comparison in a real browser, on a desk and on a phone."""

import pytest
from browser import chromium, needs_chromium, opened

from hf_prune.compare.page import write

pytestmark = [needs_chromium, pytest.mark.slow]


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.mark.parametrize("width", [1280, 390])
def test_a_comparison_fits_and_names_its_arms_on_hover(browser, compare, tmp_path, width):
    write(compare({"full": [0.8, 0.81], "short-50": [0.7, 0.72], "infobatch": [0.75, 0.76]}), tmp_path)
    with opened(browser, tmp_path / "comparison.html", width=width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        verdict, table = page.locator(".verdict").first.bounding_box(), page.locator("table").first.bounding_box()
        assert verdict["y"] < table["y"] < page.locator("details").first.bounding_box()["y"]
        assert table["x"] + table["width"] <= width
        assert page.locator("details[open]").count() == 0
        chart = page.locator(".chart")
        chart.focus()
        said = set()
        for _ in range(chart.locator("script").evaluate("(script) => JSON.parse(script.textContent).length")):
            page.keyboard.press("ArrowRight")
            said.add(chart.locator(".tip").inner_text().partition(":")[0])
        assert said == {"full", "short-50", "infobatch"}
