"""How good answers are, and how sure that is; pure, and held to scikit-learn's by tests, which takes seconds to import.

Answers: binary, the probability that the label is true, (rows,); multiclass, probabilities (rows, classes); regression, values
(rows,). Labels are numbers as `UseCase.label_of` gives them, (rows,).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from driftloop.usecase.losses import LEAST_CHANCE, MAX_LOSS, Task, max_loss

Floats = npt.NDArray[np.float64]
_LEAST_PROBABILITY = 1e-6


def row_losses(task: Task, answers: Floats, labels: Floats, scale: float = 1.0) -> Floats:
    """`driftloop.usecase.row_loss` of each row, shape (rows,): the bounded loss that production is judged by."""
    if task == "regression":
        return np.asarray(np.minimum(MAX_LOSS, (answers - labels) ** 2 / scale))
    if task == "binary":
        chances, most = np.where(labels > 0.5, answers, 1.0 - answers), MAX_LOSS
    else:
        chances, most = answers[np.arange(len(labels)), labels.astype(np.int64)], max_loss(task, answers.shape[1])
    return np.asarray(np.minimum(most, -np.log(np.maximum(chances, LEAST_CHANCE))))


def compared_losses(task: Task, answers: Floats, labels: Floats, scale: float = 1.0) -> Floats:
    """The loss of each row by which candidates and gates compare models, shape (rows,).

    As `row_losses`, but log losses are bounded only by probabilities' distance of 1e-6 from 0 and 1: a model that is sure and
    wrong must not be published. Squared errors keep their bound, or a few extreme labels would decide alone.
    """
    if task == "regression":
        return row_losses(task, answers, labels, scale)
    return log_losses(labels, answers)


def log_losses(labels: Floats, probabilities: Floats) -> Floats:
    """Log loss of each row in nats, of binary or multiclass answers; probabilities are held 1e-6 away from 0 and 1."""
    bounded = np.clip(probabilities, _LEAST_PROBABILITY, 1.0 - _LEAST_PROBABILITY)
    if bounded.ndim == 2:
        return np.asarray(-np.log(bounded[np.arange(len(labels)), labels.astype(np.int64)]))
    return np.asarray(-(labels * np.log(bounded) + (1.0 - labels) * np.log1p(-bounded)))


def measures(task: Task, answers: Floats, labels: Floats) -> dict[str, float]:
    """Every measure of a task by its name; what cannot be told from these rows (one class only, one row) is left out.

    Binary and multiclass: accuracy, kappa, roc_auc, pr_auc, log_loss, brier. Regression: mae, rmse, r2.
    """
    if not len(labels):
        return {}
    if task == "regression":
        found = {"mae": mae(labels, answers), "rmse": rmse(labels, answers), "r2": r2(labels, answers)}
    else:
        found = {
            "accuracy": accuracy(labels, answers),
            "kappa": kappa(labels, answers),
            "roc_auc": roc_auc(labels, answers),
            "pr_auc": pr_auc(labels, answers),
            "log_loss": log_loss(labels, answers),
            "brier": brier(labels, answers),
        }
    return {name: value for name, value in found.items() if math.isfinite(value)}


def predicted_classes(probabilities: Floats) -> npt.NDArray[np.int64]:
    """The class that an answer decides for, shape (rows,): the most likely one; binary, 1 above one half."""
    if probabilities.ndim == 2:
        return np.asarray(np.argmax(probabilities, axis=1))
    return (probabilities > 0.5).astype(np.int64)


def accuracy(labels: Floats, probabilities: Floats) -> float:
    """Share of rows whose predicted class is the label."""
    return float(np.mean(predicted_classes(probabilities) == labels))


def kappa(labels: Floats, probabilities: Floats) -> float:
    """Cohen's kappa of predicted classes and labels; NaN where both are of one class only."""
    classes = np.arange(probabilities.shape[1] if probabilities.ndim == 2 else 2)
    predicted = predicted_classes(probabilities)
    agreed = float(np.mean(predicted == labels))
    by_chance = float(
        np.sum(np.mean(predicted[:, None] == classes, axis=0) * np.mean(labels[:, None] == classes, axis=0))
    )
    return (agreed - by_chance) / (1.0 - by_chance) if by_chance < 1.0 else math.nan


def roc_auc(labels: Floats, probabilities: Floats) -> float:
    """Area under the ROC curve; multiclass: the mean over the classes that occur, each against the rest. NaN for one class."""
    areas = [area for area, error in _one_versus_rest(labels, probabilities) if math.isfinite(error)]
    return float(np.mean(areas)) if areas else math.nan


def pr_auc(labels: Floats, probabilities: Floats) -> float:
    """Average precision; multiclass: the mean over the classes that occur, each against the rest. NaN where none does."""
    if probabilities.ndim == 1:
        return average_precision(labels, probabilities)
    found = [average_precision((labels == k).astype(np.float64), probabilities[:, int(k)]) for k in np.unique(labels)]
    return float(np.mean(found)) if found else math.nan


def log_loss(labels: Floats, probabilities: Floats) -> float:
    """Mean of `log_losses`."""
    return float(np.mean(log_losses(labels, probabilities)))


def brier(labels: Floats, probabilities: Floats) -> float:
    """Mean squared distance of probabilities from the truth; multiclass: summed over the classes (Brier, 1950)."""
    if probabilities.ndim == 1:
        return float(np.mean((probabilities - labels) ** 2))
    truth = np.eye(probabilities.shape[1])[labels.astype(np.int64)]
    return float(np.mean(np.sum((probabilities - truth) ** 2, axis=1)))


def mae(labels: Floats, values: Floats) -> float:
    """Mean absolute error, in the label's unit."""
    return float(np.mean(np.abs(labels - values)))


def rmse(labels: Floats, values: Floats) -> float:
    """Root of the mean squared error, in the label's unit."""
    return float(np.sqrt(np.mean((values - labels) ** 2)))


def r2(labels: Floats, values: Floats) -> float:
    """Share of the labels' variance that the values explain; NaN where labels do not vary."""
    spread = float(np.sum((labels - np.mean(labels)) ** 2))
    return 1.0 - float(np.sum((labels - values) ** 2)) / spread if spread > 0.0 else math.nan


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

    The area is Mann and Whitney's U over the pairs; by chance its variance is (n₁ + n₀ + 1) / (12 n₁ n₀). Multiclass: the
    mean over the classes that occur, each against the rest; their errors' mean is an upper bound of its error, however the
    classes depend on each other. (½, inf) where there is one class only.
    """
    found = [(area, error) for area, error in _one_versus_rest(labels, probabilities) if math.isfinite(error)]
    if not found:
        return 0.5, math.inf
    areas, errors = zip(*found, strict=True)
    return math.fsum(areas) / len(found), math.fsum(errors) / len(found)


def rank_correlation(labels: Floats, values: Floats) -> tuple[float, float]:
    """Spearman's rank correlation, and its standard error 1/√(n−1) if there were none; (0, inf) where a side is constant."""
    if len(np.unique(labels)) < 2 or len(np.unique(values)) < 2:
        return 0.0, math.inf
    return float(np.corrcoef(_ranks(labels), _ranks(values))[0, 1]), 1.0 / math.sqrt(len(labels) - 1)


def _one_versus_rest(labels: Floats, probabilities: Floats) -> list[tuple[float, float]]:
    if probabilities.ndim == 1:
        return [_area(labels > 0.5, probabilities)]
    return [_area(labels == k, probabilities[:, k]) for k in range(probabilities.shape[1])]


def _area(positive: npt.NDArray[np.bool_], scores: Floats) -> tuple[float, float]:
    n1, n0 = int(positive.sum()), int((~positive).sum())
    if not n1 or not n0:
        return 0.5, math.inf
    area = (float(_ranks(scores)[positive].sum()) - n1 * (n1 + 1) / 2.0) / (n1 * n0)
    return area, math.sqrt((n1 + n0 + 1) / (12.0 * n1 * n0))


def _ranks(values: Floats) -> Floats:
    """Ranks from 1; ties share the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2.0)[place])
