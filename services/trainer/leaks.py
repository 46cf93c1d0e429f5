"""Finds an input that tells the label almost alone: often one that was filled in when the label was known; refuses nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from driftloop.usecase import UseCase
from services.trainer.measures import rank_correlation, ranking

Floats = npt.NDArray[np.float64]
ROWS_MAX = 5_000  # newest: a leak shows in far fewer
ROWS_MIN, KIND_ROWS_MIN = 100, 20  # fewer rows, or fewer of a class, tell nothing alone
VALUES_SHARE_MAX = 0.1  # of the rows: texts with more values than that explain rows by naming them
PRESENT_SHARE_MIN = 0.5  # of the rows that have a number


def told_alone(use_case: UseCase, numbers: Floats, texts: npt.NDArray[Any], labels: Floats) -> tuple[str, float]:
    """The input that tells most of the label, and how much: of the order of labels, or with classes of the rows beyond the most
    frequent class; ("", 0.0) where rows are too few.

    numbers (rows, numeric inputs) with NaN where missing; texts (rows, text inputs). A number tells by its size, in whichever
    direction; a text by the mean label of its values, learned on every second row and tried on the others.
    """
    task = use_case.predict.task
    newest = slice(max(0, len(labels) - ROWS_MAX), None)
    numbers, texts, labels = numbers[newest], texts[newest], labels[newest]
    if len(labels) < ROWS_MIN or (task != "regression" and _rarest(labels) < KIND_ROWS_MIN):
        return "", 0.0
    found = [("", 0.0)]
    for place, name in enumerate(use_case.numeric_inputs):
        values = numbers[:, place]
        present = ~np.isnan(values)
        if int(present.sum()) >= max(ROWS_MIN, PRESENT_SHARE_MIN * len(values)):
            found.append((name, _by_size(task, values[present], labels[present])))
    if task != "regression":
        for place, name in enumerate(use_case.text_inputs):
            found.append((name, _by_value(task, texts[:, place], labels)))
    return max(found, key=lambda one: one[1])


def _rarest(labels: Floats) -> int:
    counts = np.unique(labels, return_counts=True)[1]
    return int(counts.min()) if len(counts) > 1 else 0


def _by_size(task: str, values: Floats, labels: Floats) -> float:
    if task == "regression":
        return abs(rank_correlation(labels, values)[0])
    if task == "binary":
        area = ranking(labels, values)[0]
        return max(area, 1.0 - area)
    edges = np.unique(np.quantile(values, np.linspace(0.0, 1.0, 33)[1:-1]))
    return _explained(np.searchsorted(edges, values), labels)


def _by_value(task: str, values: npt.NDArray[Any], labels: Floats) -> float:
    _, codes = np.unique(values.astype(str), return_inverse=True)
    if int(codes.max()) + 1 > VALUES_SHARE_MAX * len(codes):
        return 0.0
    if task == "multiclass":
        return _explained(codes, labels)
    even, odd = slice(0, None, 2), slice(1, None, 2)
    counts = np.bincount(codes[even], minlength=int(codes.max()) + 1) + 1.0
    means = (np.bincount(codes[even], weights=labels[even], minlength=len(counts)) + labels.mean()) / counts
    return ranking(labels[odd], means[codes[odd]])[0]


def _explained(codes: npt.NDArray[np.int64], labels: Floats) -> float:
    """Share of the rows beyond the most frequent class whose class the codes tell."""
    classes = labels.astype(np.int64)
    table = np.zeros((int(codes.max()) + 1, int(classes.max()) + 1))
    np.add.at(table, (codes[::2], classes[::2]), 1.0)
    hit = float(np.mean(np.argmax(table[codes[1::2]], axis=1) == classes[1::2]))
    usual = float(np.bincount(classes).max()) / len(classes)
    return max(0.0, (hit - usual) / (1.0 - usual)) if usual < 1.0 else 0.0
