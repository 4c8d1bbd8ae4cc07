"""Whether advice is right: what it says of the full arm's runs of a comparison, and what the comparison then found.

    python recipes/benchmarks/advice.py

goes over recipes/results/*/comparison.json, and writes advice.json and a table between the markers in README.md there.
Advice for a comparison goes by the evidence of the others alone. It is that of most of the full arm's seeds.

It is counted where the comparison has arms that tell. Fewer epochs: the arm with the fewest epochs that has as many as
advised; the advice is right if this arm is not significantly worse than all epochs. If it says that fewer epochs would
lose, it is right if the arm with the most of them is significantly worse. Other topics: right to act if a rule of the
topic is significantly better than fewer epochs, and right about nothing to gain if none is.
"""

import argparse
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from evidence import RESULTS, measurement, of_padding, rule_of

from hf_prune.common.foreign import read_json
from hf_prune.common.markdown import in_words, markdown_table
from hf_prune.common.storage import write_text
from hf_prune.compare.store import load_runs
from hf_prune.report.advice import advise
from hf_prune.report.card import COMPARISON
from hf_prune.report.evidence import RULES, Evidence, shipped
from hf_prune.report.padding import WASTE
from hf_prune.report.topics import Advice

MARKS = re.compile(r"(<!-- advice -->\n).*?(\n<!-- end of advice -->)", re.DOTALL)


def advised(folder: Path, seeds: list[int], evidence: Evidence) -> dict[str, tuple[Advice, int]]:
    """For each topic, the advice of most of the full arm's runs, and by how many of them it is given."""
    runs = load_runs(folder, [("full", seed) for seed in seeds])
    found: dict[str, list[Advice]] = {}
    for run in runs.values():
        for advice in advise(run.results, evidence=evidence.without(folder.name)):
            found.setdefault(advice.topic, []).append(advice)
    chosen = {}
    for topic, given in found.items():
        (verdict, count), *_ = Counter(advice.verdict for advice in given).most_common(1)
        same = [advice for advice in given if advice.verdict == verdict]
        same.sort(key=lambda advice: advice.numbers.get("enough", 0))
        chosen[topic] = same[len(same) // 2], count  # the one in the middle, of those that name a number of epochs
    return chosen


def epochs_found(found: dict[str, Any], advice: Advice) -> tuple[str, bool] | None:
    """What the arms with fewer epochs showed, and whether the advice is right; None if there is no such arm."""
    arms = sorted((arm for arm in found["arms"] if arm["kind"] == "short" and arm["budget"]), key=lambda a: a["budget"])
    if advice.verdict == "act":
        share = advice.numbers["enough"] / advice.numbers["epochs"]
        arms = [arm for arm in arms if arm["budget"] >= share - 0.05]
    told = [entry for arm in arms if (entry := measurement(found, arm, rule_of(arm), "full"))]
    if not told:
        return None
    entry = told[0] if advice.verdict == "act" else told[-1]
    return _said(entry), entry["pays"] == (advice.verdict == "act")


def rules_found(found: dict[str, Any], advice: Advice) -> tuple[str, bool] | None:
    """What the rules of a topic showed, and whether the advice is right; None if there is no such arm."""
    arms = [(arm, rule_of(arm)) for arm in found["arms"] if arm["kind"] != "full"]
    told = [measurement(found, arm, rule, "short") for arm, rule in arms if rule in RULES[advice.topic]]
    told = [entry for entry in told if entry is not None]
    if not told:
        return None
    best = max(told, key=lambda entry: (entry["pays"], entry["gain"]))
    return _said(best), any(entry["pays"] for entry in told) == (advice.verdict == "act")


def padding_found(name: str, advice: Advice) -> tuple[str, bool] | None:
    """What grouping by length showed on the same data, and whether the advice is right; None if it was not tried."""
    if advice.numbers.get("share", 0) <= WASTE:  # little padding, or grouped already
        return None
    told = [entry for entry in of_padding(RESULTS / "padding.json") if entry["comparison"] == name.partition("-")[0]]
    return (_said(told[0]), told[0]["pays"] == (advice.verdict == "act")) if told else None


def _found(found: dict[str, Any], advice: Advice) -> tuple[str, bool] | None:
    return (epochs_found if advice.topic == "epochs" else rules_found)(found, advice)


def _said(entry: dict[str, Any]) -> str:
    numbers = f"{entry['gain']:+.3g} {entry['unit']} ({entry['low']:+.3g} to {entry['high']:+.3g})"
    return f"{entry['arm']}: {numbers} beside {entry['rival']}, {100 * entry['saved']:.0f} % saved"


def check(results: Path, evidence: Evidence) -> dict[str, Any]:
    """Every piece of advice, what was found, and how many are right."""
    lines = []
    for path in sorted(results.glob(f"*/{COMPARISON}")):
        found, name = read_json(path), path.parent.name
        seeds = next(arm["seeds"] for arm in found["arms"] if arm["kind"] == "full")
        for topic, (advice, count) in advised(path.parent, seeds, evidence).items():
            told = None
            if advice.verdict != "unknown":
                told = padding_found(name, advice) if topic == "padding" else _found(found, advice)
            line = {"comparison": name, "topic": topic, "verdict": advice.verdict, "seeds": count, "of": len(seeds)}
            line |= {"advice": advice.measured, "command": advice.command}
            lines.append(line | {"found": told and told[0], "right": told and told[1]})
    counted = [line["right"] for line in lines if line["right"] is not None]
    return {"right": sum(counted), "counted": len(counted), "advice": lines}


def table(found: dict[str, Any]) -> str:
    """The advice that could be checked, in Markdown."""
    lines = []
    for line in found["advice"]:
        if line["right"] is not None:
            what = f"`{line['command']}`" if line["verdict"] == "act" else "nothing to gain"
            seeds = f"{line['seeds']} of {line['of']}"
            right = "yes" if line["right"] else "no"
            lines.append([line["comparison"], line["topic"], what, seeds, in_words(line["found"]), right])
    text = markdown_table(["comparison", "topic", "advice", "seeds", "what compare found", "right?"], lines)
    unchecked = len(found["advice"]) - found["counted"]
    return f"{text}\n\nRight: {found['right']} of {found['counted']}; {unchecked} more could not be checked."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the comparisons")
    chosen = parser.parse_args()
    found = check(chosen.results, shipped())
    write_text(chosen.results / "advice.json", json.dumps(found, indent=1) + "\n")
    page = chosen.results / "README.md"
    if page.is_file():
        text = page.read_text(encoding="utf-8")
        write_text(page, MARKS.sub(lambda marks: f"{marks[1]}{table(found)}{marks[2]}", text))
    print(table(found))


if __name__ == "__main__":
    main()
