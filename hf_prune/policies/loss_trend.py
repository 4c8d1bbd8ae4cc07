"""LossTrend: pause rows whose loss is low, flat and calm, for longer each time; a reconstruction (Li et al., 2018).

Of a row's last w losses: level m (mean), slope s (least squares), fluctuation f (root mean square of the residuals)

    learned = m < tau and |s| < sigma and f < phi        tau: the median of all levels unless given
    learned -> pause p rounds, then train at least w' visits; learned again -> pause twice as long, at most P rounds

At most a share `max_paused` of the rows, or of each class, pauses at once: lowest m first. See also `time_saved`.

Needs      loss, which the training forward pass gives: no extra pass; classes, if per_class. 4 w + 8 bytes per row:
           notes `losses` (w, N) float32, oldest first, NaN = none; `back` (N,) int32, the round in which a pause ends;
           `pause` (N,) int16, rounds of that pause, 0 = not learned at the last test; `cooling` (N,) int16, visits that
           must still come before the next pause.
Good for   long runs, slow smooth loss curves, learned rows that stay learned.
Not for    under w + warmup epochs; strong dropout or augmentation, whose noise hides the trend.
Defaults   all ours, to be tuned: w = 4, w' = 2, p = 1, P = 4, 30 % of the rows at most, sigma = phi = 0.02 nats; the
           last eighth of training pauses nothing.
Deviates   unknown: it is published that types of rows are pruned for a time by the trend of their losses; window, test,
           pauses, return and guards are not published. The learning-rate adjustment of Li's thesis (2020) is left out.
Reference  J. Li et al., "Data Fine-Pruning: A Simple Way to Accelerate Neural Network Training", NPC 2018, LNCS 11276

Size: each field of `LossTrend` is a hyper-parameter that users tune; no two belong together.
"""

from dataclasses import dataclass

import numpy as np

from ..core import Clock, History, Policy, Selection
from ..core.ranking import first_of_groups, ranked, top


def time_saved(paused: np.ndarray, n: int, monitoring: float = 0.0, rescoring: float = 0.0) -> float:
    """Compute the share of training time saved: 1 - sum_e((N - P_e) + c N + c' P_e) / (E N), training a row = 1.

    Args:
        paused: (E,) P_e, rows paused in each round.
        n: N, rows of the training set.
        monitoring: c, cost per row and round of watching all rows; 0 if training's own losses are used.
        rescoring: c', cost of measuring a paused row again; about 1/3 for a forward pass.
    """
    return float(np.mean(paused)) * (1 - rescoring) / n - monitoring


def trend(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute level, slope and fluctuation, each (N,) float32, of (w, N) losses; NaN = a loss is missing."""
    times = np.arange(len(losses), dtype=np.float32) - np.float32((len(losses) - 1) / 2)
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow gives inf or NaN: not calm
        level = losses.mean(axis=0)
        slope = np.zeros_like(level)
        for time, loss in zip(times, losses, strict=True):
            slope += time / (times @ times) * loss
        squares = np.zeros_like(level)
        for time, loss in zip(times, losses, strict=True):
            squares += (loss - level - time * slope) ** 2
        return level, slope, np.sqrt(squares / np.float32(len(losses)))


@dataclass(frozen=True)
class LossTrend(Policy):
    """Pause the rows whose recent losses are low, flat and calm.

    Args:
        window: w, losses of a row that make its trend, in [2, inf).
        threshold: tau, level in nats below which a row may be learned, in (0, inf); None = the median level.
        slope: sigma, largest change per visit of a flat row, in nats, in (0, inf).
        fluctuation: phi, largest scatter around the trend of a calm row, in nats, in (0, inf).
        pause: p, rounds of a first pause, in [1, 32767].
        longest: P, rounds of the longest pause, in [pause, 32767].
        cooldown: w', visits between two pauses, in [1, 32767].
        max_paused: Largest share of the rows that may pause at once, in [0, 1).
        per_class: Whether that share is also a limit for each class.
        warmup: Number of first rounds without pauses, in [0, inf).
        anneal: Share of training after which nothing is paused, in (0, 1].

    Examples:
        >>> history, policy, rng = History.empty(4), LossTrend(threshold=0.1), np.random.default_rng(0)
        >>> for t in range(4):
        ...     history.record(np.arange(4), np.array([0.05, 2.0 - 0.4 * t, 1.5, t % 2], np.float32), round=t)
        ...     policy.update(history, Clock(t, t, 20, t / 20), rng)
        >>> policy.select(history, Clock(4, 4, 20, 0.2), rng).rows.tolist()
        [1, 2, 3]
    """

    window: int = 4
    threshold: float | None = None
    slope: float = 0.02
    fluctuation: float = 0.02
    pause: int = 1
    longest: int = 4
    cooldown: int = 2
    max_paused: float = 0.3
    per_class: bool = False
    warmup: int = 0
    anneal: float = 0.875

    def __post_init__(self):
        whole = {"window": "[2, inf)", "pause": "[1, 32767]", "longest": "[1, 32767]", "cooldown": "[1, 32767]"}
        for field, interval in (whole | {"warmup": "[0, inf)"}).items():
            self.check_range(field, interval)
        if self.longest < self.pause:
            raise ValueError(f"LossTrend(longest=...) must be at least pause={self.pause}, got {self.longest}.")
        for field in ("slope", "fluctuation") if self.threshold is None else ("threshold", "slope", "fluctuation"):
            self.check_range(field, "(0, inf)")
        self.check_range("max_paused", "[0, 1)")
        self.check_switch("per_class")
        self.check_range("anneal", "(0, 1]")

    @property
    def needs(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return frozenset({"loss", "classes"} if self.per_class else {"loss"})

    def select(self, history: History, clock: Clock, rng: np.random.Generator) -> Selection:
        if "back" not in history.notes or clock.share_after > self.anneal + 1e-9:
            return Selection(np.arange(len(history)))
        return Selection(np.flatnonzero(history.notes["back"] <= clock.round))

    def update(self, history: History, clock: Clock, rng: np.random.Generator) -> None:
        n, notes = len(history), history.notes
        if "back" not in notes:
            notes["losses"] = np.full((self.window, n), np.nan, np.float32)
            notes["back"] = np.zeros(n, np.int32)
            notes["pause"], notes["cooling"] = np.zeros((2, n), np.int16)
        losses, back, pause, cooling = (notes[name] for name in ("losses", "back", "pause", "cooling"))
        measured = history.last_round == clock.round
        for older, newer in zip(losses, [*losses[1:], history.loss], strict=True):
            np.copyto(older, newer, where=measured)
        cooling -= measured & (cooling > 0)
        following = clock.round + 1
        if following < self.warmup:
            return
        level, slope, fluctuation = trend(losses)
        known = np.isfinite(level)
        if not known.any():
            return
        threshold = np.median(level[known]) if self.threshold is None else self.threshold
        learned = (level < threshold) & (np.abs(slope) < self.slope) & (fluctuation < self.fluctuation)
        judged = cooling == 0
        pause[judged & ~learned] = 0
        away, rows = np.flatnonzero(back > following), np.flatnonzero(judged & learned)
        classes = history.features.classes if self.per_class else None
        if classes is not None:
            order = np.concatenate([away, rows[ranked(-level[rows], rng)]])
            admitted = first_of_groups(order, classes, self.max_paused)
            rows = admitted[back[admitted] <= following]
        else:
            rows = rows[top(-level[rows], max(0, int(self.max_paused * n + 1e-9) - len(away)), rng)]
        rounds = np.where(pause[rows] > 0, np.minimum(2 * pause[rows].astype(np.int32), self.longest), self.pause)
        pause[rows], back[rows], cooling[rows] = rounds, following + rounds, self.cooldown
