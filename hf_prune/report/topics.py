"""What could be saved or gained in a run, topic by topic, from the plain values of its results.json."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from .. import policies
from ..common.foreign import label, number, of_kind
from . import padding
from .entries import is_number
from .evidence import Evidence
from .judgement import judge
from .scales import SCALES, Scale, scale_of

REAL = 0.93  # share of real tokens that grouping by length leaves in batches of 16 (recipes/results/padding.json)
_SAME_LOSS = SCALES["loss"].margin or 0.0  # nats: a validation loss has much less noise than a score
FIRST = 3  # lines of advice at the end of a report
_AT_ONCE, _IMBALANCE, _SPREAD, _FEW = 0.3, 10, 3, 0.01
_COMMANDS = {  # of rules that take more than their name
    "class_weights": "--class_weights balanced",
    "large_batch_filter": "--policy large_batch_filter --duplicates True",
}
_NUMBERS = ("pearson", "spearman")  # metrics of regression, whose losses are no nats
_SHARES = ("accuracy", "f1", "matthews")  # metrics whose standard error is that of a share of the rows


@dataclass(frozen=True)
class Advice:
    """What was measured in a run, and what to do about it.

    Args:
        topic: "padding", "epochs", "wrong labels", "duplicates", "imbalance", "easy rows" or "lengths".
        verdict: "act", "nothing" (to gain), or "unknown".
        measured: What was measured, in words; if unknown, why.
        numbers: The numbers in it by name; `saves` is the share of the run's compute that the advice would save.
        command: Flags to add to the command; None if there is nothing to do.
        gained: What it gained in the comparisons of this repository, in words; "" if there is nothing to do.
        link: The page that shows it, as a path in the repository; None = there is none.
    """

    topic: str
    verdict: str
    measured: str
    numbers: Mapping[str, float] = field(default_factory=dict[str, float])
    command: str | None = None
    gained: str = ""
    link: str | None = None

    @property
    def line(self) -> str:
        """The advice on one line."""
        if self.verdict == "unknown" or self.command is None:
            return f"{self.topic}: {self.measured}."
        ending = f" ({self.gained}{'' if self.link is None else f'; {self.link}'})"
        what = f"try {self.command}" if self.verdict == "act" else "nothing to gain"
        return f"{self.topic}: {self.measured}: {what}{ending}."


@dataclass(frozen=True)
class Validation:
    """One validation during training.

    Args:
        epoch: When, in epochs.
        quality: The metric in the unit that is shown; a higher value is better.
        error: Its standard error; 0 = not known.
        loss: The loss in nats; None = not known.
        cost: What was trained by then.
    """

    epoch: float
    quality: float
    error: float
    loss: float | None
    cost: float


class Measured:
    """The parts of a results.json that advice goes by, checked; see `advise`.

    Args:
        found: The content of the file, or the parts of it that are known.

    Raises:
        KeyError: Something is missing.
        TypeError: Something is of another type.
        ValueError: Something is out of bounds.
    """

    def __init__(self, found: Mapping[str, Any]):
        pruning = found.get("pruning") or {}
        self.has_rows = bool(pruning)
        self.arguments = of_kind(found.get("arguments") or {}, "arguments", dict)
        self.facts = _checked(found.get("facts"))
        self.has_facts = bool(found.get("facts"))
        totals = of_kind(pruning.get("totals", {}), "totals", dict)
        self.positions = number(totals.get("padded_tokens", 0), "padded_tokens")
        self.padding = totals.get("padding")
        if "padding" not in totals and self.positions and totals["tokens"]:  # an older file
            self.padding = 1 - number(totals["tokens"], "tokens", 0, self.positions) / self.positions
        if self.padding is not None:
            number(self.padding, "padding", 0, 1)
        quality = found.get("quality") or {}
        self.evaluations = of_kind(pruning.get("evaluations", found.get("evaluations", [])), "evaluations", list)
        self.metric = label(quality["metric"], "metric") if quality else self._main_metric()
        self.greater_is_better = quality["greater_is_better"] if quality else self.metric != "loss"

    def _main_metric(self) -> str:
        """The metric of a run of which only the log is known."""
        logged = {name.removeprefix("eval_") for entry in self.evaluations for name in entry}
        return next((name for name in SCALES if name in logged), "loss")

    @property
    def scale(self) -> Scale:
        """How the metric is shown."""
        return scale_of(self.metric)

    @cached_property
    def curve(self) -> "list[Validation]":
        """The validations in order, as far as they have the metric."""
        found = []
        for entry in self.evaluations:
            value, loss = entry.get(f"eval_{self.metric}"), entry.get("eval_loss")
            if not _is_finite(value):
                continue
            cost = entry.get("tokens") or entry.get("rows") or entry["epoch"]
            rows = entry.get("eval_runtime", 0) * entry.get("eval_samples_per_second", 0)
            is_share = self.metric in _SHARES and rows >= 1 and 0 <= abs(value) <= 1
            error = math.sqrt(abs(value) * (1 - abs(value)) / rows) if is_share else 0.0
            sign = self.scale.factor if self.greater_is_better else -self.scale.factor
            epoch, cost = number(entry["epoch"], "epoch"), number(cost, "the cost")
            loss = loss if _is_finite(loss) else None
            found.append(Validation(epoch, sign * value, error * self.scale.factor, loss, cost))
        return sorted(found, key=lambda one: one.epoch)

    @property
    def is_grouped(self) -> bool:
        """Whether rows of like length were put into one batch."""
        return self.arguments.get("train_sampling_strategy") == "group_by_length"


def advice_of(run: Measured, evidence: Evidence) -> list[Advice]:
    """Advice on every topic: first what to act on, the largest saving first, then what is unknown, then the rest.

    Args:
        run: What was measured.
        evidence: What advice has gained elsewhere.
    """
    topics = (_padding, _epochs, _wrong_labels, _duplicates, _imbalance, _easy_rows, _lengths)
    order = ("act", "unknown", "nothing")
    found = [topic(run, evidence) for topic in topics]
    return sorted(found, key=lambda advice: (order.index(advice.verdict), -advice.numbers.get("saves", 0)))


def first(advice: Sequence[Advice], told: Sequence[str] = ()) -> list[Advice]:
    """The advice that matters most, for the end of a report.

    Args:
        advice: From `advice_of`.
        told: Topics that were told already.
    """
    return [one for one in advice if one.topic not in told][:FIRST]


# ---- Topics ----


def _padding(run: Measured, evidence: Evidence) -> Advice:
    share, causes = run.padding, run.facts["padding_causes"]
    if share is None and run.has_rows and not run.positions:
        return Advice("padding", "nothing", "inputs without tokens have no padding")
    if share is None:
        why = "padding and real tokens were not told apart: give an attention_mask"
        return Advice("padding", "unknown", why if run.has_rows else _unmeasured("how much was padding", run))
    said = f"{100 * share:.0f} % of the computed positions were padding"
    numbers = {"share": share, "saves": max(0.0, 1 - (1 - share) / REAL)}
    if share <= padding.WASTE:
        return Advice("padding", "nothing", f"{said}: nothing to gain here", {"share": share})
    if not {"order", "lengths"} & set(causes) or run.is_grouped:
        cures = [padding.CURES[cause] for cause in causes if cause in ("width", "own", "batch")]
        cure = cures[0].rstrip(".") if cures else "grouping by length, which is on, can't lower it"
        return Advice("padding", "nothing", f"{said}. {cure}", numbers | {"saves": 0})
    return _judged("padding", said, "--train_sampling_strategy group_by_length", evidence, numbers)


def _epochs(run: Measured, evidence: Evidence) -> Advice:
    curve = run.curve
    if len(curve) < 2:
        cure = "there were fewer than two validations during training: add --eval_strategy epoch"
        return Advice("epochs", "unknown", f"whether fewer epochs are enough is not known, for {cure}")
    unit, digits, margin = run.scale.unit, run.scale.digits, run.scale.margin or 0.0
    best = max(one.quality for one in curve)
    near = next(one for one in curve if one.quality >= best - max(margin, one.error))
    losses = [one.loss for one in curve if one.loss is not None]
    low = min(losses, default=0.0) + _SAME_LOSS
    settled = next((one.epoch for one in curve if one.loss is not None and one.loss <= low), 0.0)
    epoch, last, noise = max(near.epoch, settled), curve[-1].epoch, max(margin, near.error)
    enough = math.ceil(epoch - 1e-6) if last > 1 else epoch  # a schedule of whole epochs, and a little to be safe
    gained = best - max(one.quality for one in curve if one.epoch <= epoch)
    numbers = {"enough": enough, "epochs": last, "gained": gained, "noise": noise}
    if enough >= last - 1e-6:
        what = "the validation loss fell" if near.epoch < epoch else f"validation gained more than {noise:.{digits}f}"
        return Advice("epochs", "nothing", f"{what} until the last epoch: fewer epochs would lose", numbers)
    costs = [one.cost for one in curve]
    saves = 1 - float(np.interp(enough, [one.epoch for one in curve], costs)) / costs[-1] if costs[-1] else 0.0
    said = (
        f"the last {last - enough:.3g} of {last:.3g} epochs gained {gained:.{digits}f} {unit}, no more than the noise "
        f"of a validation ({noise:.{digits}f}), and no loss; {enough:g} cost {100 * saves:.0f} % less"
    )
    return _judged("epochs", said, f"--num_train_epochs {enough:g}", evidence, numbers | {"saves": saves})


def _wrong_labels(run: Measured, evidence: Evidence) -> Advice:
    topic, upper, found = "wrong labels", run.facts.get("upper"), judge(run.facts)
    if upper is None:
        return Advice(topic, "unknown", _unmeasured("the share of wrong labels or pairs", run))
    if not found.is_meaningful or found.state == "unsure":
        return Advice(topic, "unknown", found.line.removesuffix("."), upper if found.state == "unsure" else {})
    if found.state == "none":
        cure = f"{_command('trim', run)} --noise SHARE prunes as many as you know to be wrong"
        return Advice(topic, "unknown", f"{found.said}: {cure}", upper)
    return _ruled(topic, found.said, evidence, {**upper, "saves": upper["share"]}, run)


def _duplicates(run: Measured, evidence: Evidence) -> Advice:
    topic, repeats = "duplicates", run.facts.get("repeats")
    if repeats is None or not run.facts.get("rows"):
        cure = "hf-prune advise RUN --data TRAIN_FILE counts equal rows"
        return Advice(topic, "unknown", f"they were not looked for: {cure}")
    share = repeats / run.facts["rows"]
    said = f"{100 * share:.1f} % of the rows equal an earlier one (rows that are only alike were not looked for)"
    if share < _FEW:
        return Advice(topic, "nothing", f"{said}: nothing to gain here", {"share": share})
    return _ruled(topic, said, evidence, {"share": share, "saves": share}, run)


def _imbalance(run: Measured, evidence: Evidence) -> Advice:
    topic, classes = "imbalance", run.facts.get("classes")
    if classes is None:
        if "repeats" in run.facts:
            return Advice(topic, "nothing", "the rows have no classes in a column label or labels")
        return Advice(
            topic, "unknown", "the classes were not counted: hf-prune advise RUN --data TRAIN_FILE counts them"
        )
    ratio = classes["largest"] / classes["smallest"]
    said = f"{classes['count']:,} classes have {classes['smallest']:,} to {classes['largest']:,} rows"
    if "learnt" in classes:
        learnt, small = (100 * classes[name] for name in ("learnt", "learnt_of_small"))
        said += f"; of the rarest quarter of classes {small:.0f} % of the rows are learnt, of all {learnt:.0f} %"
    numbers = {"ratio": ratio, "saves": 0.0}
    if ratio < _IMBALANCE:
        return Advice(topic, "nothing", f"{said}: nothing to gain here", numbers)
    return _ruled(topic, said, evidence, numbers, run)


def _easy_rows(run: Measured, evidence: Evidence) -> Advice:
    topic, share = "easy rows", run.facts.get("at_once")
    if run.metric in _NUMBERS:
        return Advice(topic, "nothing", "the rows have numbers to predict, which are never simply learnt")
    if share is None:
        return Advice(topic, "unknown", _unmeasured("the share of rows that are learnt at once", run))
    said = f"{100 * share:.0f} % of the rows were learnt in the first epoch and never lost"
    if share < _AT_ONCE:
        return Advice(topic, "nothing", f"{said}: nothing to gain here", {"share": share})
    numbers = {"share": share, "saves": share / 2}  # such rules prune half of them or so
    return _ruled(topic, said, evidence, numbers, run)


def _lengths(run: Measured, evidence: Evidence) -> Advice:
    topic, lengths = "lengths", run.facts.get("lengths")
    if lengths is None:
        if run.has_rows and not run.positions:
            return Advice(topic, "nothing", "the inputs have no tokens")
        return Advice(topic, "unknown", _unmeasured("how long the rows are", run))
    short, middle, long = lengths
    said = f"80 % of the rows have {short:.0f} to {long:.0f} tokens (median {middle:.0f})"
    numbers = {"short": short, "median": middle, "long": long, "saves": 0.0}
    if long < _SPREAD * max(short, 1):
        return Advice(topic, "nothing", f"{said}: nothing to gain here", numbers)
    gains = len(run.curve) > 1 and run.curve[-1].quality > max(one.quality for one in run.curve[:-1])
    if not gains:
        return Advice(topic, "nothing", f"{said}, but the budget is not short: nothing to gain by their order", numbers)
    return _ruled(topic, f"{said}, and validation still gained at the end", evidence, numbers, run)


# ---- Words ----


def _judged(
    topic: str, said: str, command: str, evidence: Evidence, numbers: Mapping[str, float], rule: str | None = None
) -> Advice:
    """Advice to act, unless it was measured elsewhere and never paid."""
    verdict = "nothing" if evidence.fails(topic, rule) else "act"
    return Advice(topic, verdict, said, numbers, command, *evidence.told(topic, rule))


def _ruled(topic: str, said: str, evidence: Evidence, numbers: Mapping[str, float], run: Measured) -> Advice:
    """The same with the rule of the topic that has the best evidence."""
    rule = evidence.rule(topic)
    return _judged(topic, said, _command(rule, run), evidence, numbers, rule)


def _command(rule: str, run: Measured) -> str:
    """The flags of a rule."""
    if rule in _COMMANDS:
        return _COMMANDS[rule]
    has_classes = "accuracy" in run.facts  # without them, it may need another signal
    fields = {} if has_classes else policies.find(rule).instead
    return " ".join([f"--policy {rule}", *(f"--{name} {value}" for name, value in fields.items())])


def _unmeasured(what: str, run: Measured) -> str:
    """Why something about the rows is not known, and how to get it."""
    why = "the run kept no facts of its rows" if run.has_rows else "the run had no policy"
    if run.has_facts and run.has_rows:
        why = "no row was measured in two epochs"
    return f"{why}, so {what} is not known: train two epochs or more with --policy uniform --keep 1"


# ---- Checks ----


def _is_finite(value: Any) -> bool:
    return is_number(value) and math.isfinite(value)


def _is_lost(value: Any) -> bool:
    """Whether the losses of an epoch were no numbers."""
    return isinstance(value, float) and not math.isfinite(value)


def _checked(found: Any) -> dict[str, Any]:
    """Check the facts of a file; {} if it has none.

    Raises:
        KeyError: Something is missing.
        ValueError: Something is out of bounds.
    """
    facts = dict(of_kind(found or {}, "facts", dict))
    for name in ("padding_causes", "lengths", "medians"):
        if name in facts:
            of_kind(facts[name], name, list)
    facts["padding_causes"] = [cause for cause in facts.get("padding_causes", ["order"]) if cause in padding.CURES]
    for value in facts.get("lengths", ()):
        number(value, "a length")
    if "lengths" in facts and len(facts["lengths"]) != 3:
        raise ValueError("lengths must be three numbers")
    if facts.get("upper") is not None and "medians" not in facts:
        raise ValueError("there are no medians")
    known = [value for value in facts.get("medians", ()) if value is not None and not _is_lost(value)]
    facts["medians"] = [number(value, "a median") for value in known]
    for name in ("at_once", "accuracy", "chance"):
        if facts.get(name) is not None:
            number(facts[name], name, 0, 1)
    if facts.get("band") is not None:
        number(facts["band"], "band")
    for name in ("rows", "repeats", "measured"):
        if facts.get(name) is not None:
            number(facts[name], name, whole=True)
    if facts.get("upper") is not None:
        facts["upper"] = {name: number(facts["upper"][name], name, 0, 1) for name in ("share", "low", "high")}
    if (classes := facts.get("classes")) is not None:
        for name in ("count", "smallest", "largest"):
            number(classes[name], name, 1, whole=True)
        for name in ("learnt", "learnt_of_small"):
            if "learnt" in classes:
                number(classes[name], name, 0, 1)
    return facts
