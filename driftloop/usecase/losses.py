"""The loss of one answer against its label, per task: what errors are watched by and releases are decided by; pure.

Binary and multiclass: log loss in nats. Regression: the squared error in variances of the label, so that 1 is the error of
always answering the mean. Every loss is bounded: one row that a model was sure about must be no alarm of its own, and the
bounds by which alarms and promotions are justified suppose a bounded range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

Task = Literal["binary", "multiclass", "regression"]
Answer = float | Sequence[float]
"""Binary: the probability that the label is true. Multiclass: each class's, in declared order. Regression: the value."""

MAX_LOSS = 4.0  # nats, or variances of the label: an error of two standard deviations
LEAST_CHANCE = 1e-12
SUM_TOLERANCE = 1e-3  # of a distribution: graphs compute in single precision, and many classes add up their errors
LOSS_NAMES = {"binary": "log loss", "multiclass": "log loss", "regression": "squared error"}
LOSS_METRICS = {"binary": "log_loss", "multiclass": "log_loss", "regression": "squared_error"}
LOSS_UNITS = {"binary": "nats", "multiclass": "nats", "regression": "label variances"}
_TAIL_SHARE = (
    0.01  # of the labels at either end, which do not count in the scale: a few extremes must not hide all others
)


def row_loss(task: Task, answer: Answer, label: float, scale: float = 1.0) -> float:
    """Loss of an answer for a label as `UseCase.label_of` gives it; at most `max_loss`.

    scale: regression only, the variance of the labels (see `label_scale`), above 0.
    """
    if isinstance(answer, float | int):
        if task == "regression":
            error = answer - label
            return min(MAX_LOSS, error * error / scale)
        chance = answer if label > 0.5 else 1.0 - answer
        return min(MAX_LOSS, -math.log(max(chance, LEAST_CHANCE)))
    chance = answer[int(label)] if label < len(answer) else 0.0  # a class that was declared after the model was made
    return min(max_loss(task, len(answer)), -math.log(max(chance, LEAST_CHANCE)))


def max_loss(task: Task, classes: int = 2) -> float:
    """The bound of a task's loss. With many classes ignorance alone costs more nats, so the bound rises by as many."""
    return MAX_LOSS + math.log(max(classes, 2) / 2) if task == "multiclass" else MAX_LOSS


def label_scale(labels: Sequence[float]) -> float:
    """The variance of labels, each held within the 1 % and 99 % quantiles; above 0.

    Labels with heavy tails have a variance of their few extremes, beside which no other error would be seen. Where nearly all
    labels are alike the plain variance stands, and 1 where there is none.
    """
    ordered = sorted(labels)
    tail = int(len(ordered) * _TAIL_SHARE)
    low, high = (ordered[tail], ordered[-1 - tail]) if ordered else (0.0, 0.0)
    return _variance([min(max(label, low), high) for label in ordered]) or _variance(ordered) or 1.0


def _variance(values: Sequence[float]) -> float:
    if not values:
        return 0.0
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) * (value - mean) for value in values) / len(values)
