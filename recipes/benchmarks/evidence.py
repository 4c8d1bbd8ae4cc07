"""What advice has gained in the committed comparisons, for `hf-prune advise`.

    python recipes/benchmarks/evidence.py

reads recipes/results/*/comparison.json and padding.json, and writes hf_prune/report/evidence.json, which comes with the
package. A folder counts for what its comparison has: arms with fewer epochs for the topic "epochs", arms of a rule for
the topics of this rule. Wrong labels, duplicates and imbalance count only where regime.json in the folder names them,
because they are properties of its data:

    {"topics": ["wrong labels"]}

A rule pays if it is better than fewer epochs with about as many positions, and the 95 % interval excludes 0. Fewer
epochs and grouping by length pay if they are not significantly worse.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hf_prune.common.foreign import read_json
from hf_prune.common.storage import write_text
from hf_prune.compare.plan import ALL
from hf_prune.report.card import COMPARISON
from hf_prune.report.evidence import RULES
from hf_prune.report.scales import scale_of

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "recipes" / "results"
EVIDENCE = ROOT / "hf_prune" / "report" / "evidence.json"
REGIME = "regime.json"
PLANTED = ("wrong labels", "duplicates", "imbalance")  # topics that data have or have not
DIGITS = 4  # significant, of a number in the file


def topics_of(folder: Path) -> list[str]:
    """The topics that a comparison can be evidence for.

    Raises:
        ValueError: regime.json names a topic that does not exist.
    """
    path = folder / REGIME
    named = read_json(path)["topics"] if path.is_file() else []
    if unknown := sorted(set(named) - set(RULES)):
        raise ValueError(f"{path}: there is no topic {unknown[0]!r}; give some of {', '.join(RULES)}.")
    return [topic for topic in RULES if topic not in PLANTED or topic in named]


def rule_of(arm: dict[str, Any]) -> str:
    """The rule of an arm; class weights are one, and with a policy beside them a rule of no topic."""
    flags = arm["flags"]
    policy = flags[flags.index("--policy") + 1]
    if "--class_weights" not in flags:
        return policy.partition(":")[0]
    return "class_weights" if policy == ALL[1] else f"{policy} with class_weights"


def measurement(found: dict[str, Any], arm: dict[str, Any], rule: str, rival: str) -> dict[str, Any] | None:
    """One entry of the evidence; None if the arm has no such rival, or there is no interval.

    Args:
        found: The comparison.
        arm: The arm.
        rule: Its rule.
        rival: Kind of the arm that it is compared with.
    """
    difference, full = arm["differences"].get(rival), arm["differences"].get("full")
    if difference is None or difference["low"] is None:
        return None
    sign = 1 if found["quality"]["greater_is_better"] else -1
    low, high = sorted((sign * difference["low"], sign * difference["high"]))
    numbers = {"gain": sign * difference["mean"], "low": low, "high": high, "saved": full["saved"] if full else 0.0}
    return {
        "arm": arm["arm"],
        "rule": rule,
        "rival": difference["to"],
        "unit": scale_of(found["quality"]["metric"]).unit,
        "seeds": difference["seeds"],
        **{name: float(f"{value:.{DIGITS}g}") for name, value in numbers.items()},
        "pays": high >= 0 if rival == "full" else low > 0,
    }


def of_comparison(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(topic, entry) for each measurement of a comparison."""
    found, topics = read_json(folder / COMPARISON), topics_of(folder)
    for arm in found["arms"]:
        rule = rule_of(arm)
        if arm["kind"] == "short" and rule != "class_weights":
            entries = [("epochs", measurement(found, arm, "short", "full"))]
        else:
            mine = [topic for topic in topics if rule in RULES[topic]]
            entries = [(topic, measurement(found, arm, rule, "short")) for topic in mine]
        for topic, entry in entries:
            if entry is not None:
                yield topic, {"comparison": folder.name} | entry


def of_padding(path: Path) -> Iterator[dict[str, Any]]:
    """What grouping by length saved, and what it did to the scores after equal rows."""
    found = read_json(path)
    for task, quality in found["quality"].items():
        scale, ours = scale_of(quality["metric"]), quality["ours"]
        sign = -1 if quality["metric"] == "loss" else 1
        low, high = sorted(sign * scale.factor * end for end in ours["interval"])
        given = f"{quality['arguments']} "
        size = next((size for size in ("8", "16") if f"batch_size {size} " in given), "32")  # as recipes fine-tune
        saved = 1 - found["positions"][task][size]["random"] / found["positions"][task][size]["ours"]
        numbers = {"gain": sign * scale.factor * ours["difference"], "low": low, "high": high, "saved": saved}
        entry = {"comparison": task, "arm": "grouped by length", "rule": "group_by_length", "rival": "random order"}
        entry |= {"unit": scale.unit, "seeds": len(ours["values"])}
        yield entry | {name: float(f"{value:.{DIGITS}g}") for name, value in numbers.items()} | {"pays": high >= 0}


def collect(results: Path) -> dict[str, list[dict[str, Any]]]:
    """All evidence by topic."""
    topics: dict[str, list[dict[str, Any]]] = {topic: [] for topic in ("padding", "epochs", *RULES)}
    if (results / "padding.json").is_file():
        topics["padding"] += of_padding(results / "padding.json")
    for path in sorted(results.glob(f"*/{COMPARISON}")):
        for topic, entry in of_comparison(path.parent):
            topics[topic].append(entry)
    return topics


def text_of(topics: dict[str, list[dict[str, Any]]]) -> str:
    """The file, one measurement a line."""
    blocks = []
    for topic, entries in topics.items():
        lines = ",\n".join(f"   {json.dumps(entry)}" for entry in entries)
        blocks.append(f"  {json.dumps(topic)}: [" + (f"\n{lines}\n  ]" if entries else "]"))
    return '{\n "topics": {\n' + ",\n".join(blocks) + "\n }\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the comparisons")
    parser.add_argument("--output", type=Path, default=EVIDENCE, help="file to write")
    chosen = parser.parse_args()
    topics = collect(chosen.results)
    write_text(chosen.output, text_of(topics))
    for topic, entries in topics.items():
        print(f"{topic}: {sum(entry['pays'] for entry in entries)} of {len(entries)} measurements pay")


if __name__ == "__main__":
    main()
