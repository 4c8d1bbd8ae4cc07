"""Two normal components in the logarithms of losses: rows with wrong labels or pairs often form the upper one."""

from dataclasses import dataclass

import numpy as np

FEWEST = 100  # losses to see two components in
_BINS, _STEPS, _VALLEY = 512, 200, 0.5
_MOST = 0.6  # share of the rows: a larger upper component is what the model has not learnt yet
_NEAR_ZERO = 1e-6  # nats, added before the logarithm


@dataclass(frozen=True)
class Mixture:
    """Two normal components of log losses, the lower one first.

    Attributes:
        weight: (2,) float64, their shares of the rows.
        mean: (2,) float64, in log nats.
        spread: (2,) float64, their standard deviations.
    """

    weight: np.ndarray
    mean: np.ndarray
    spread: np.ndarray

    def upper(self, losses: np.ndarray) -> np.ndarray:
        """(N,) float64, the probability that each of (N,) losses in nats belongs to the upper component; NaN = NaN.

        Where the upper component is the wider one, Bayes' rule also gives it the losses far below both. So a loss
        outside the two means counts as the mean beside it: between the means the probability only rises.
        """
        x = np.log(np.maximum(losses.astype(np.float64), 0) + _NEAR_ZERO)
        x = np.minimum(np.maximum(x, self.mean[0]), self.mean[1])
        of_each = _densities(x, self.weight, self.mean, self.spread)
        return of_each[:, 1] / of_each.sum(axis=1)


def fit(losses: np.ndarray) -> Mixture | None:
    """Fit two components to (N,) losses in nats; NaN = not known. Losses below 0 have no logarithm, and are left out.

    Returns:
        The components; None if the fitted density has no valley between them, below half of its lower peak, if more
        than 60 % of the losses are in the upper one, or if there are too few losses.
    """
    logs = np.log(losses[np.isfinite(losses) & (losses >= 0)].astype(np.float64) + _NEAR_ZERO)
    if len(logs) < FEWEST or not np.ptp(logs) > 0:
        return None
    counts, edges = np.histogram(logs, _BINS)  # so that the fit costs the same for any number of rows
    x, n = (edges[1:] + edges[:-1]) / 2, counts.sum()
    weight, mean, spread = np.array([0.8, 0.2]), np.quantile(logs, [0.25, 0.95]), np.full(2, logs.std() / 2)
    least = edges[1] - edges[0]
    for _ in range(_STEPS):  # expectation maximisation
        of_each = _densities(x, weight, mean, spread)
        belongs = counts[:, None] * of_each / np.maximum(of_each.sum(axis=1, keepdims=True), 1e-300)
        size = belongs.sum(axis=0) + 1e-9
        mean = (belongs * x[:, None]).sum(axis=0) / size
        spread = np.sqrt((belongs * (x[:, None] - mean) ** 2).sum(axis=0) / size) + least
        weight = size / n
    order = np.argsort(mean)
    low, high = order
    between = _densities(np.linspace(mean[low], mean[high], 200), weight, mean, spread).sum(axis=1)
    has_valley = between.min() < _VALLEY * min(between[0], between[-1])
    return Mixture(weight[order], mean[order], spread[order]) if has_valley and weight[high] <= _MOST else None


def upper_share(losses: np.ndarray) -> float:
    """Share of the rows in a second component of larger losses (N,), 0 where there is none; NaN = not known."""
    found = fit(losses)
    return 0.0 if found is None else float(found.weight[1])


def _densities(x: np.ndarray, weight: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Return (M, 2): both components at (M,) places, without the constant that they share."""
    return weight / spread * np.exp(-0.5 * ((x[:, None] - mean) / spread) ** 2)
