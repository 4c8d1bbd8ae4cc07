"""Writes a page as one file: its template with style and scripts inside, a title and an icon of its own.

The Content-Security-Policy allows the page's own script by its hash, and nothing that needs a network. The scripts are
our own plain JavaScript. Libraries for grids and charts weigh 0.3 to 4 MB in every file, must be kept up to date, and
some need inline code that this policy forbids; the search, the sort and the hover here take some 350 lines.
"""

import base64
import hashlib
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from ..common.storage import storable
from .theme import DARK, LIGHT


def document(room: str, template: str, title: str, styles: Sequence[str], scripts: Sequence[str], **values: Any) -> str:
    """A page as text.

    Args:
        room: The package with the folder `templates`; those of this room are found too.
        template: Its file. It uses `head`, `style`, `script`, `light`, `dark` and `values`.
        title: What a tab of the browser shows.
        styles: Files of CSS, in order.
        scripts: Files of JavaScript, in order, and code after them.
        **values: What else the template shows.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = ChoiceLoader([PackageLoader(room), PackageLoader("hf_prune.report")])
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)

    def joined(names: Sequence[str]) -> str:
        return "\n".join(loader.get_source(environment, name)[0] for name in names)

    script = joined(scripts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    head = environment.get_template("head.html").render(title=title, icon=_icon(title), script_hash=f"sha256-{digest}")
    return environment.get_template(template).render(
        head=Markup(head), style=Markup(joined(styles)), script=Markup(script), light=LIGHT, dark=DARK, **values
    )


def _icon(title: str) -> str:
    """A tab's icon as a data URI: the first letter on a colour that comes from the whole title."""
    letter = next((letter for letter in title.upper() if letter.isascii() and letter.isalnum()), "P")
    hue = int.from_bytes(hashlib.sha256(storable(title).encode()).digest()[:2], "big") % 360
    return "data:image/svg+xml," + quote(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'>"
        f"<rect width='32' height='32' rx='7' fill='hsl({hue} 60% 38%)'/>"
        "<text x='16' y='23' text-anchor='middle' font-family='sans-serif' font-size='21' font-weight='700' "
        f"fill='white'>{letter}</text></svg>"
    )
