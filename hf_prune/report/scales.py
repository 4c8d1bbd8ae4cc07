"""How the scores of runs are shown, and which differences between them count as none."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """How a quality is shown.

    Args:
        title: Name and unit of a value.
        unit: Unit of a difference.
        factor: Factor on values.
        digits: Digits after the point.
        margin: Largest difference, after `factor`, that counts as the same quality; None = no difference does.
    """

    title: str
    unit: str
    factor: float = 1.0
    digits: int = 4
    margin: float | None = None


SCALES = {
    "bleu": Scale("BLEU", "BLEU", digits=2, margin=0.5),
    "accuracy": Scale("accuracy in %", "points", 100, 2, 0.5),
    "f1": Scale("F1 in %", "points", 100, 2, 0.5),
    "matthews": Scale("Matthews correlation in %", "points", 100, 2, 1.0),
    "pearson": Scale("Pearson correlation in %", "points", 100, 2, 0.5),
    "spearman": Scale("Spearman correlation in %", "points", 100, 2, 0.5),
    "loss": Scale("loss in nats", "nats", margin=0.01),
}


def scale_of(metric: str) -> Scale:
    """How a metric is shown."""
    return SCALES.get(metric, Scale(metric, metric))
