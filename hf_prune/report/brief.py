"""A run in ten lines, for `print()`, and as a small table, for notebooks."""

from html import escape
from typing import Any

from .entries import scores_of
from .figures import percent

_SUSPECTS = 8  # rows named
_METRICS = 4  # of the last evaluation


def as_text(report: Any) -> str:
    """A report in ten lines at most.

    Args:
        report: A `PruningReport`, or a `RunReport`, which also knows the rows.
    """
    title, *pairs = _facts(report)
    width = max(len(name) for name, _ in pairs)
    return "\n".join([": ".join(title), *(f"{name:{width}}  {text}" for name, text in pairs)])


def as_html(report: Any) -> str:
    """The same as a small table.

    Args:
        report: See `as_text`.
    """
    title, *pairs = _facts(report)
    cell = '<td style="text-align: left">'
    rows = (f"<tr>{cell}{escape(name)}</td>{cell}{escape(text)}</td></tr>" for name, text in pairs)
    return f"<p><b>{escape(title[0])}</b>: <code>{escape(title[1])}</code></p><table>{''.join(rows)}</table>"


def _facts(report: Any) -> list[tuple[str, str]]:
    totals = report.totals()
    facts = [(f"{report.rows:,} rows, {len(report.epochs)} epoch{'s' * (len(report.epochs) != 1)}", report.policy)]
    for name, part in (("rows", "rows"), ("tokens", "tokens"), ("optimizer steps", "optimizer_steps")):
        offered = totals["optimizer_steps_full" if part == "optimizer_steps" else f"{part}_offered"]
        if offered:
            said = f"{totals[part]:,} of {offered:,} trained ({percent(totals[part], offered)})"
            if part == "tokens" and totals["padding"] is not None:
                said += f", {100 * totals['padding']:.1f} % of {totals['padded_tokens']:,} positions were padding"
            facts.append((name, said))
    parts = ("training", "selecting", "rescoring", "evaluating")
    seconds = (f"{part} {totals[f'seconds_{part}']:,.1f}" for part in parts if totals[f"seconds_{part}"])
    facts.append(("seconds", ", ".join(seconds) or "0"))
    for last in report.evaluations()[-1:]:
        shown = [f"{name.removeprefix('eval_')} {value:.4g}" for name, value in scores_of(last).items()][:_METRICS]
        facts.append(("last evaluation", f"{', '.join(shown)} (epoch {last['epoch']:.4g})"))
    if (judgement := getattr(report, "judgement", None)) is not None:
        facts.append(("wrong labels", judgement.said))
        if judgement.is_meaningful and report.dynamics is not None and report.dynamics.never_learnt.any():
            rows = ", ".join(map(str, report.dynamics.hardest(_SUSPECTS).tolist()))
            facts.append(("never learnt", f"{int(report.dynamics.never_learnt.sum()):,} rows, worst first: {rows}"))
    if faults := totals["faults"]:
        facts.append(("faults", f"{faults:,} rows had a loss that was NaN or infinite"))
    if (run := getattr(report, "run", None)) is not None:
        facts.append(("more", f"hf-prune report {run}"))
    return facts
