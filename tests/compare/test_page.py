"""A comparison as it is shown: Markdown, a page and a figure."""

import html.parser
import json

import numpy as np
from compared import ARMS
from matplotlib.image import imread
from PIL import Image

from hf_prune.compare.page import _far, markdown, page, seeds_table, table, write
from hf_prune.compare.plan import Arm


class Page(html.parser.HTMLParser):
    """Cells of the table, texts of the list, and addresses of all that would be loaded."""

    def __init__(self, text):
        super().__init__()
        self.cells, self.items, self.addresses, self.icons, self.within = [], [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag != "strong":  # stands within an item
            self.within = tag
        if tag == "li":
            self.items.append("")
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset") and tag != "link"]
        self.icons += [value for name, value in attributes if name == "href" and tag == "link"]

    def handle_data(self, data):
        if self.within == "li":
            self.items[-1] += data
        elif self.within in ("td", "th") and data.strip():
            self.cells.append(data)


def test_page_and_markdown_say_the_same(compare, tmp_path):
    arms = ARMS | {"<b>": Arm(("--policy", "mine"), "policy")}
    found = compare({"full": [0.8, 0.81], "short-50": [0.7, 0.7], "<b>": [0.75, 0.76]}, arms=arms)
    write(found, tmp_path)
    headings, rows = table(found.to_dict())
    text = (tmp_path / "comparison.md").read_text()
    shown = Page((tmp_path / "comparison.html").read_text())
    planned, needs = seeds_table(found.to_dict())
    assert shown.cells == [*headings, *(cell for row in rows for cell in row), *planned, *needs[0]]
    assert [f"| {' | '.join(row)} |" in text for row in (*rows, *needs)] == [True] * 4
    for line in [*(arm["conclusion"] for arm in found.to_dict()["arms"]), "Parameters: 7. Hardware: 2 CPU cores"]:
        assert f"- {line}" in text.replace("**", "")
        assert any(item.startswith(line) for item in shown.items)
    assert [address[:22] for address in shown.addresses] == ["data:image/png;base64,"]
    assert "python recipes/x.py --bf16 --policy uniform:keep=1 --seed $seed --output_dir" in text
    assert json.loads((tmp_path / "comparison.json").read_text()) == json.loads(json.dumps(found.to_dict()))


def test_several_runs_at_once_are_said_to_take_longer(compare):
    found = compare({"full": [0.8, 0.81]})
    assert "shared the machine" not in markdown(found.to_dict())
    found.plan.jobs = 4
    assert "Up to 4 runs shared the machine: seconds are longer" in markdown(found.to_dict())


def test_the_figure_has_a_line_for_each_arm(compare, tmp_path):
    """Also where an arm was evaluated once, or never."""
    found = compare(
        {"full": [0.8, 0.81], "short-50": [0.7, 0.7], "infobatch": [0.75, 0.76]}, curve={"short-50": (0.4,)}
    )
    for seed in (1, 2):
        found.runs["infobatch", seed].results["pruning"]["evaluations"] = []
    write(found, tmp_path)
    picture = imread(tmp_path / "comparison.png")[..., :3]
    assert picture.shape[1] == 1650
    for color, there in (((26, 26, 26), True), ((140, 140, 140), True), ((138, 79, 191), False)):
        near = (np.abs(picture * 255 - color).max(axis=-1) < 2).sum()
        assert (near > 50) == there
    with Image.open(tmp_path / "comparison.png") as image:
        assert image.mode == "P"  # small, for it is kept twice


def test_beginnings_far_below_the_ends_are_left_out_of_the_figure():
    """Ends from 93 to 97: down to 85 is shown."""
    late = np.array([10.0, 50, 90, 93]), np.array([10.0, 80, 97])
    assert _far([*late]) == 85
    assert _far([late[0] - 100, late[1] - 100]) == -15  # of losses
    assert _far([np.array([88.0, 93]), np.array([97.0]), np.array([]), np.array([np.nan])]) is None
    assert _far([np.array([90.0, 95]), np.array([91.0, 95])]) is None  # one end
    assert _far([np.array([])]) is None


def test_page_needs_nothing_but_the_numbers(compare):
    found = compare({"full": [0.8, 0.81]}).to_dict()
    assert page(json.loads(json.dumps(found)), b"png") == page(found, b"png")


def test_a_page_and_a_folder_of_others_reach_nothing_outside(compare, tmp_path):
    arms = ARMS | {'<img src=x onerror=y>`$(reboot)`"': Arm(("--policy", "a`b```c", "--token", "sesame"), "policy")}
    found = compare({"full": [0.8, 0.81], list(arms)[-1]: [0.75, 0.76]}, arms=arms)
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / "comparison.png").symlink_to(target)
    write(found, tmp_path)
    assert target.read_text() == "mine" and not (tmp_path / "comparison.png").is_symlink()
    text, shown = (tmp_path / "comparison.html").read_text(), Page((tmp_path / "comparison.html").read_text())
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:;' in text
    assert all(address.startswith("data:image/png;base64,") for address in shown.addresses)
    assert [icon[:19] for icon in shown.icons] == ["data:image/svg+xml,"]
    assert "sesame" not in text + (tmp_path / "comparison.md").read_text() + (tmp_path / "comparison.json").read_text()
    (line,) = [line for line in text.splitlines() if "reboot" in line and "output_dir" in line]
    assert "\\$(reboot)\\`" in line
    markdown_text = (tmp_path / "comparison.md").read_text()
    assert markdown_text.rstrip().endswith("\n``````") and "``````bash" in markdown_text
