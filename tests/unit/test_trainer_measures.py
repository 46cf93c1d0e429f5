"""Measures of probabilities: they agree with their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from services.trainer.measures import average_precision, log_losses, mean_and_error, ranking

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
