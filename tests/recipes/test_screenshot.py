"""The picture of a page."""

import pytest
from browser import needs_chromium
from PIL import Image
from recipe_runs import load

pytest.importorskip("playwright")


def test_a_page_that_is_not_there(tmp_path):
    with pytest.raises(SystemExit, match=r"no\.html is not there"):
        load("benchmarks/screenshot").main([str(tmp_path / "a.png"), str(tmp_path / "no.html")])


@needs_chromium
@pytest.mark.slow
def test_the_first_screen_of_a_page(tmp_path):
    (tmp_path / "page.html").write_text("<body style='margin:0;background:#123456'><script>document.title='a'</script>")
    screenshot = load("benchmarks/screenshot")
    screenshot.main([str(tmp_path / "a.png"), str(tmp_path / "page.html")])
    picture = Image.open(tmp_path / "a.png").convert("RGB")
    assert picture.size == (screenshot.WIDTH, screenshot.HEIGHT) and picture.getpixel((9, 9)) == (0x12, 0x34, 0x56)
