"""How good answers are, whatever the task, and what is answered where there is no model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from driftloop.usecase import LOSS_NAMES
from driftloop.usecase.losses import MAX_LOSS, Task, label_scale
from services.trainer.measures import compared_losses, measures, predicted_classes, row_losses
from simulation.history import Floats, History, Rows


@dataclass(frozen=True)
class Quality:
    """Measures answers of one task: (rows,), or (rows, classes) where there are more than two.

    `scale`: the variance of the labels that the first model was trained on, in which squared errors are measured.
    """

    task: Task
    classes: int
    scale: float

    @classmethod
    def of(cls, history: History, first_labels: Floats) -> Quality:
        """Of a history's task; `first_labels`: of the rows that the first model was trained on."""
        declared = history.use_case.predict
        return cls(declared.task, len(declared.classes), label_scale(first_labels.tolist()))

    @property
    def loss_name(self) -> str:
        """What `losses` are, for people."""
        if self.task == "regression":
            return "squared error (in label variances, at most 4)"
        return LOSS_NAMES[self.task]

    def losses(self, labels: Floats, answers: Floats) -> Floats:
        """The loss of each row that policies are compared by, shape (rows,)."""
        return compared_losses(self.task, answers, labels, self.scale)

    def misses(self, labels: Floats, answers: Floats) -> Floats:
        """How wrong each answer is, in [0, 1]: 1 for a wrong class; numbers by their distance, 1 from two deviations on."""
        if self.task == "regression":
            return np.sqrt(row_losses(self.task, answers, labels, self.scale) / MAX_LOSS)
        return (predicted_classes(answers) != labels).astype(np.float64)

    def metrics(self, labels: Floats, answers: Floats) -> dict[str, float]:
        """The metrics of a report; NaN where these rows cannot tell one."""
        found = measures(self.task, answers, labels)
        names = (
            ("mae", "rmse", "r2")
            if self.task == "regression"
            else ("accuracy", "kappa", "roc_auc", "pr_auc", "log_loss", "brier")
        )
        return {name: found.get(name, math.nan) for name in names}

    def no_answers(self, rows: int) -> Floats:
        """Answers of so many rows, all missing."""
        return np.full((rows, self.classes) if self.classes else rows, np.nan)

    def known_rates(self, history: History, rows: Rows) -> Floats:
        """What is answered without a model: the rate, rates or mean of the labels known by each row's prediction time.

        One label of each class is added to those known (Laplace's rule), so that no answer is sure.
        """
        known = history.labelled[np.argsort(history.known_at_us[history.labelled], kind="stable")]
        labels = history.labels[known]
        counts = np.searchsorted(history.known_at_us[known], history.at_us[rows], side="right")
        if self.task == "multiclass":
            told = np.concatenate(
                (np.zeros((1, self.classes)), np.cumsum(np.eye(self.classes)[labels.astype(int)], axis=0))
            )
            return np.asarray((told[counts] + 1.0) / (counts + self.classes)[:, None])
        sums = np.concatenate(([0.0], np.cumsum(labels)))[counts]
        return np.asarray(sums / np.maximum(counts, 1) if self.task == "regression" else (sums + 1.0) / (counts + 2.0))


def missing(answers: Floats) -> npt.NDArray[np.bool_]:
    """The rows that were not answered, (rows,)."""
    return np.isnan(answers if answers.ndim == 1 else answers[:, 0])
