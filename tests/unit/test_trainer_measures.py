"""Measures of answers: they agree with their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from services.trainer.measures import (
    average_precision,
    log_losses,
    mean_and_error,
    measures,
    pr_auc,
    rank_correlation,
    ranking,
    roc_auc,
)

scored = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0])), min_size=1, max_size=40
).filter(lambda rows: any(label for label, _ in rows))


@given(scored)
def test_average_precision_is_scikit_learns(rows: list[tuple[bool, float]]) -> None:
    labels, scores = np.array([float(a) for a, _ in rows]), np.array([b for _, b in rows])
    assert average_precision(labels, scores) == pytest.approx(average_precision_score(labels, scores))


def test_average_precision_without_a_true_label_is_not_a_number() -> None:
    assert math.isnan(average_precision(np.zeros(3), np.ones(3)))


@given(scored.filter(lambda rows: not all(label for label, _ in rows)))
def test_the_area_under_the_roc_curve_is_scikit_learns(rows: list[tuple[bool, float]]) -> None:
    labels, scores = np.array([float(a) for a, _ in rows]), np.array([b for _, b in rows])
    assert ranking(labels, scores)[0] == pytest.approx(roc_auc_score(labels, scores))


def test_chance_ranks_within_its_error() -> None:
    draws = np.random.default_rng(3)
    areas = [ranking((draws.random(200) < 0.3).astype(float), draws.random(200)) for _ in range(400)]
    assert np.std([area for area, _ in areas]) == pytest.approx(np.mean([error for _, error in areas]), rel=0.15)


def test_log_loss_is_scikit_learns_inside_its_bounds_and_finite_at_them() -> None:
    labels, scores = np.array([0.0, 1.0, 1.0]), np.array([0.2, 0.7, 0.5])
    assert float(np.mean(log_losses(labels, scores))) == pytest.approx(log_loss(labels, scores))
    assert np.isfinite(log_losses(np.array([1.0, 0.0]), np.array([0.0, 1.0]))).all()


def test_rows_that_repeat_each_other_in_a_cluster_do_not_count_as_evidence_twice() -> None:
    values = np.random.default_rng(0).normal(size=200)
    _, alone = mean_and_error(values, np.arange(200))
    _, repeated = mean_and_error(np.repeat(values, 5), np.repeat(np.arange(200), 5))
    assert repeated == pytest.approx(alone)
    assert alone == pytest.approx(values.std(ddof=1) / math.sqrt(200))


def test_a_single_cluster_proves_nothing() -> None:
    assert mean_and_error(np.array([1.0, 2.0]), np.array([5, 5])) == (1.5, math.inf)


def answers_of(classes: int, rows: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    labels = draws.integers(0, classes, rows).astype(float)
    logits = draws.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[labels.astype(int)]
    odds = np.exp(logits)
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    return labels, probabilities if classes > 2 else probabilities[:, 1]


def test_measures_of_binary_answers_are_scikit_learns() -> None:
    labels, answers = answers_of(2)
    decided = answers > 0.5
    assert measures("binary", answers, labels) == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(labels, decided),
            "kappa": metrics.cohen_kappa_score(labels, decided),
            "roc_auc": metrics.roc_auc_score(labels, answers),
            "pr_auc": metrics.average_precision_score(labels, answers),
            "log_loss": metrics.log_loss(labels, answers),
            "brier": metrics.brier_score_loss(labels, answers),
        }
    )


def test_measures_of_multiclass_answers_are_scikit_learns() -> None:
    labels, answers = answers_of(4)
    decided = answers.argmax(axis=1)
    assert measures("multiclass", answers, labels) == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(labels, decided),
            "kappa": metrics.cohen_kappa_score(labels, decided),
            "roc_auc": metrics.roc_auc_score(labels, answers, multi_class="ovr", average="macro"),
            "pr_auc": metrics.average_precision_score(np.eye(4)[labels.astype(int)], answers, average="macro"),
            "log_loss": metrics.log_loss(labels, answers),
            "brier": float(np.mean(np.sum((answers - np.eye(4)[labels.astype(int)]) ** 2, axis=1))),
        }
    )


def test_measures_of_values_are_scikit_learns() -> None:
    draws = np.random.default_rng(2)
    labels = draws.normal(10.0, 3.0, 300)
    values = labels + draws.normal(size=300)
    assert measures("regression", values, labels) == pytest.approx(
        {
            "mae": metrics.mean_absolute_error(labels, values),
            "rmse": metrics.root_mean_squared_error(labels, values),
            "r2": metrics.r2_score(labels, values),
        }
    )


def test_what_rows_of_one_class_cannot_tell_is_left_out() -> None:
    assert set(measures("binary", np.array([0.2, 0.4]), np.zeros(2))) == {"accuracy", "log_loss", "brier"}
    assert "roc_auc" not in measures("multiclass", np.full((2, 3), 1 / 3), np.ones(2))
    assert set(measures("regression", np.array([1.0, 2.0]), np.ones(2))) == {"mae", "rmse"}
    assert measures("binary", np.empty(0), np.empty(0)) == {}


def test_a_class_that_never_occurs_does_not_count_in_the_areas() -> None:
    labels, answers = answers_of(3)
    unused = np.column_stack([answers, np.zeros(len(labels))])
    assert roc_auc(labels, unused) == pytest.approx(roc_auc(labels, answers))
    assert pr_auc(labels, unused) == pytest.approx(pr_auc(labels, answers))


def test_chance_ranks_several_classes_and_values_within_its_error() -> None:
    draws = np.random.default_rng(3)
    areas, correlations = [], []
    for _ in range(300):
        labels, answers = draws.integers(0, 4, 200).astype(float), draws.dirichlet(np.ones(4), 200)
        areas.append(ranking(labels, answers))
        correlations.append(rank_correlation(draws.normal(size=200), draws.normal(size=200)))
    assert np.std([area for area, _ in areas]) <= np.mean([error for _, error in areas])
    assert np.std([r for r, _ in correlations]) == pytest.approx(correlations[0][1], rel=0.15)


def test_a_ranking_of_values_is_found_however_they_are_spread() -> None:
    values = np.random.default_rng(1).normal(size=100)
    assert rank_correlation(np.exp(5 * values), values)[0] == pytest.approx(1.0)
    assert rank_correlation(np.ones(100), values) == (0.0, math.inf)
