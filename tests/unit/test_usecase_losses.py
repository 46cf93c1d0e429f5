"""Losses: bounded whatever is answered, one for an answer that knows only the mean, and the same row by row as in columns."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftloop.usecase import MAX_LOSS, Task, label_scale, max_loss, row_loss
from services.trainer.measures import row_losses

chances = st.floats(0.0, 1.0)
values = st.floats(-1e12, 1e12)
scales = st.floats(1e-6, 1e12)
distributions = st.lists(st.floats(0.0, 1.0), min_size=2, max_size=8).filter(lambda p: sum(p) > 0)


@given(chances, st.booleans())
def test_a_binary_loss_is_the_log_loss_up_to_its_bound(chance: float, label: bool) -> None:
    loss = row_loss("binary", chance, float(label))
    said = chance if label else 1.0 - chance
    assert loss == pytest.approx(min(MAX_LOSS, -math.log(said) if said else math.inf), abs=1e-9)
    assert 0.0 <= loss <= MAX_LOSS


@given(distributions, st.data())
def test_a_multiclass_loss_is_the_log_loss_of_the_labels_class_up_to_its_bound(
    weights: list[float], data: st.DataObject
) -> None:
    answer = [weight / sum(weights) for weight in weights]
    label = data.draw(st.integers(0, len(answer) - 1))
    loss = row_loss("multiclass", answer, float(label))
    assert -1e-9 <= loss <= max_loss("multiclass", len(answer))
    assert loss == pytest.approx(
        min(max_loss("multiclass", len(answer)), -math.log(max(answer[label], 1e-12))), abs=1e-9
    )


@given(values, values, scales)
def test_a_regression_loss_is_the_squared_error_in_variances_up_to_its_bound(
    answer: float, label: float, scale: float
) -> None:
    loss = row_loss("regression", answer, label, scale)
    assert loss == pytest.approx(min(MAX_LOSS, (answer - label) ** 2 / scale))
    assert 0.0 <= loss <= MAX_LOSS


@pytest.mark.parametrize("classes", [2, 3, 10, 1_000])
def test_a_model_that_knows_nothing_of_many_classes_stays_well_below_the_bound(classes: int) -> None:
    ignorance = row_loss("multiclass", [1.0 / classes] * classes, 0.0)
    assert ignorance == pytest.approx(math.log(classes))
    assert max_loss("multiclass", classes) - ignorance == pytest.approx(MAX_LOSS - math.log(2))


@given(st.lists(st.tuples(chances, st.booleans()), min_size=1, max_size=20))
def test_binary_losses_in_columns_are_those_of_the_rows(rows: list[tuple[float, bool]]) -> None:
    answers, labels = np.array([a for a, _ in rows]), np.array([float(b) for _, b in rows])
    expected = [row_loss("binary", a, b) for a, b in zip(answers.tolist(), labels.tolist(), strict=True)]
    assert row_losses("binary", answers, labels).tolist() == pytest.approx(expected, rel=1e-12)


@given(st.lists(st.tuples(values, values), min_size=1, max_size=20), scales)
def test_regression_losses_in_columns_are_those_of_the_rows(rows: list[tuple[float, float]], scale: float) -> None:
    answers, labels = (np.array(column) for column in zip(*rows, strict=True))
    expected = [row_loss("regression", a, b, scale) for a, b in rows]
    assert row_losses("regression", answers, labels, scale).tolist() == pytest.approx(expected, rel=1e-12)


@given(st.integers(2, 6), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_multiclass_losses_in_columns_are_those_of_the_rows(classes: int, rows: int, seed: int) -> None:
    draws = np.random.default_rng(seed)
    answers, labels = draws.dirichlet(np.full(classes, 0.05), rows), draws.integers(0, classes, rows).astype(float)
    expected = [row_loss("multiclass", a, b) for a, b in zip(answers.tolist(), labels.tolist(), strict=True)]
    assert row_losses("multiclass", answers, labels).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_column_of_no_rows_has_no_losses(task: Task) -> None:
    assert len(row_losses(task, np.empty(0), np.empty(0))) == 0


def test_always_answering_the_mean_costs_about_one() -> None:
    labels = np.random.default_rng(0).normal(30.0, 7.0, 20_000)
    losses = row_losses("regression", np.full(len(labels), labels.mean()), labels, label_scale(labels.tolist()))
    assert losses.mean() == pytest.approx(1.0, abs=0.1)


def test_a_few_extreme_labels_do_not_set_the_scale() -> None:
    draws = np.random.default_rng(0)
    labels = draws.normal(0.0, 1.0, 5_000)
    plain = label_scale(labels.tolist())
    labels[:20] = 1e6
    assert label_scale(labels.tolist()) == pytest.approx(plain, rel=0.05)


@pytest.mark.parametrize(
    ("labels", "scale"), [([], 1.0), ([5.0] * 300, 1.0), ([0.0] * 999 + [10.0], 10.0**2 * 0.001 * 0.999)]
)
def test_labels_that_hardly_vary_have_a_scale_above_zero(labels: list[float], scale: float) -> None:
    assert label_scale(labels) == pytest.approx(scale)
