"""How good probabilities are, and how sure that is; pure."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_LEAST_PROBABILITY = 1e-6


def log_losses(labels: Floats, probabilities: Floats) -> Floats:
    """Log loss of each row in nats; probabilities are held 1e-6 away from 0 and 1."""
    bounded = np.clip(probabilities, _LEAST_PROBABILITY, 1.0 - _LEAST_PROBABILITY)
    return np.asarray(-(labels * np.log(bounded) + (1.0 - labels) * np.log1p(-bounded)))


def average_precision(labels: Floats, probabilities: Floats) -> float:
    """Area under the precision-recall curve as a sum of steps, Σ (Rₙ − Rₙ₋₁) Pₙ; NaN where no label is true."""
    order = np.argsort(-probabilities, kind="stable")
    ranked, scores = labels[order], probabilities[order]
    last_of_tie = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    hits = np.cumsum(ranked)[last_of_tie]
    if not len(hits) or hits[-1] == 0:
        return math.nan
    return float(np.sum(np.diff(hits, prepend=0.0) / hits[-1] * hits / (last_of_tie + 1)))


def mean_and_error(values: Floats, clusters: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Mean of the values and its standard error when the values of a cluster are not independent of each other.

    Rows of one hour share their weather, so an error that counts them one by one is too small. The estimator is the
    cluster-robust one for a mean: sqrt(G/(G−1) · Σ_g (Σ_{i∈g} (xᵢ − x̄))²) / n, with G clusters; inf for a single one.
    """
    mean = float(np.mean(values))
    _, member = np.unique(clusters, return_inverse=True)
    sums = np.bincount(member, weights=values - mean)
    if len(sums) < 2:
        return mean, math.inf
    return mean, float(np.sqrt(len(sums) / (len(sums) - 1) * np.sum(sums**2)) / len(values))


def ranking(labels: Floats, probabilities: Floats) -> tuple[float, float]:
    """Area under the ROC curve, and its standard error if the ranking were by chance (then the area is ½).

    The area is Mann and Whitney's U over the pairs; by chance its variance is (n₁ + n₀ + 1) / (12 n₁ n₀). (½, inf) where
    one class is missing.
    """
    positive = labels > 0.5
    n1, n0 = int(positive.sum()), int((~positive).sum())
    if not n1 or not n0:
        return 0.5, math.inf
    _, place, count = np.unique(probabilities, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2.0)[place]  # ties share the mean of their ranks
    area = (float(ranks[positive].sum()) - n1 * (n1 + 1) / 2.0) / (n1 * n0)
    return area, math.sqrt((n1 + n0 + 1) / (12.0 * n1 * n0))
