"""Pages in the machine's own Chromium, without a window and without a network."""

import shutil
from contextlib import contextmanager

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser: pip install playwright")
expect = playwright.expect
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium")


@contextmanager
def chromium():
    """A running Chromium."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser, path, width=1280, height=900, dark=False, **settings):
    """A page of a file; at its end it must have asked for nothing else, and its console must be empty.

    Args:
        browser: From `chromium`.
        path: The file.
        width: Pixels.
        height: Pixels.
        dark: Whether the reader prefers dark pages.
        **settings: Of the context, see Playwright's `new_context`.
    """
    size = {"width": width, "height": height}
    context = browser.new_context(viewport=size, color_scheme="dark" if dark else "light", **settings)
    page, asked, said = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url[:99]))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(path.as_uri())
    yield page
    context.close()
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [path.as_uri()]
    assert said == []
