"""Take a picture of the first screen of a page, for a README.

    python recipes/benchmarks/screenshot.py recipes/results/page.png noisy_digits/_report.html

It opens the file in the machine's own Chromium, 1,280 pixels wide, in the light. The picture in the page on reports is
of a run of `noisy_digits` (regimes.py makes the rows):

    python recipes/image_classification.py --train_file regimes/noisy_digits/train.parquet \\
        --validation_file regimes/noisy_digits/validation.parquet --test_file regimes/noisy_digits/test.parquet \\
        --architecture resnet --image_size 32 --flip False --crop_padding 0 --learning_rate 2.5e-4 \\
        --num_train_epochs 60 --policy uniform --keep 1 --seed 1 --output_dir noisy_digits
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTH, HEIGHT = 1280, 720  # pixels


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", help="the PNG file")
    parser.add_argument("page", type=Path, help="the HTML file")
    given = parser.parse_args(argv)
    if not given.page.is_file():
        sys.exit(f"{given.page} is not there: train with a policy, or run hf-prune report.")
    if (chromium := shutil.which("chromium")) is None:
        sys.exit("There is no program `chromium`: install it, on Debian by apt-get install chromium.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(given.page.absolute().as_uri())
        page.wait_for_load_state("networkidle")
        page.screenshot(path=given.output)
        browser.close()


if __name__ == "__main__":
    main()
