"""What advice has gained in the comparisons of this repository, from a file that comes with the package.

`recipes/benchmarks/evidence.py` makes evidence.json from the committed comparisons. By topic, it lists measurements:
`comparison`, `arm`, `rule`, `rival` (the arm it is compared with), `unit`, `gain` with its 95 % interval `low` to
`high` (positive is better, whatever the metric), `saved` (share of what all rows for all epochs compute), `seeds`, and
`pays`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

SAVES = ("padding", "epochs")  # topics that save compute at equal quality; the others must beat fewer epochs
RULES = {  # rules of each other topic, the first that a user would try at the front
    "wrong labels": ("trim", "self_paced"),
    "duplicates": ("one_of_each", "large_batch_filter"),
    "imbalance": ("class_weights", "class_quota"),
    "easy rows": ("infobatch", "seta", "kakurenbo"),
    "lengths": ("competence",),
}
_FILE = Path(__file__).with_name("evidence.json")
_PAGES = {
    "padding": "recipes/results/README.md#what-does-padding-cost",
    "epochs": "recipes/results/README.md#does-pruning-pay",
}


@dataclass(frozen=True)
class Evidence:
    """Measurements by topic.

    Args:
        topics: Topic -> its measurements, as the module's docstring lists them.
    """

    topics: Mapping[str, Sequence[Mapping[str, Any]]]

    def without(self, comparison: str) -> "Evidence":
        """The same without one comparison, so that advice for its runs can be checked."""
        return Evidence(
            {topic: [one for one in found if one["comparison"] != comparison] for topic, found in self.topics.items()}
        )

    def of(self, topic: str, rule: str | None = None) -> list[Mapping[str, Any]]:
        """The measurements of a topic.

        Args:
            topic: The topic.
            rule: Only those of this rule; None = of all.
        """
        return [one for one in self.topics.get(topic, ()) if rule in (None, one["rule"])]

    def rule(self, topic: str) -> str:
        """The rule of a topic to try: the one that paid most often, or else the first."""
        rules = RULES[topic]
        return max(rules, key=lambda rule: sum(one["pays"] for one in self.of(topic, rule)))

    def fails(self, topic: str, rule: str | None = None) -> bool:
        """Whether it was measured, and never paid.

        Args:
            topic: The topic.
            rule: The rule; None = the topic has none.
        """
        found = self.of(topic, rule)
        return bool(found) and not any(one["pays"] for one in found)

    def told(self, topic: str, rule: str | None = None) -> tuple[str, str | None]:
        """What it gained, in words, and the page of the comparison that shows it best.

        Args:
            topic: The topic.
            rule: The rule; None = the topic has none.

        Returns:
            One sentence, and a path in the repository; None if nothing was measured.
        """
        found = self.of(topic, rule)
        name = f"`{rule}` " if rule else ""
        if not found:
            return f"{name or 'this '}is in no comparison yet: compare before you trust it", None
        paid = sum(one["pays"] for one in found)
        best = max(found, key=lambda one: (one["pays"], one["gain"]))
        page = _PAGES.get(topic, f"recipes/results/{best['comparison']}/comparison.md")
        if topic in SAVES:
            return f"elsewhere not significantly worse in {paid} of {len(found)} measurements", page
        if not paid:
            return f"{name}was better than fewer epochs in 0 of {len(found)} measurements", page
        said = f"{name}was better than fewer epochs in {paid} of {len(found)} measurements"
        return f"{said}, by {best['gain']:.3g} {best['unit']} on {best['comparison']}", page


@cache
def shipped() -> Evidence:
    """The evidence that comes with the package."""
    return Evidence(json.loads(_FILE.read_text(encoding="utf-8"))["topics"])
