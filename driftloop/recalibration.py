"""What late labels say of a model's scores, applied to them: one arithmetic for who learns it, who answers by it and who replays it.

Platt scaling for probabilities (Platt, 1999), vector scaling for classes (Guo et al., 2017), a shift for numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from driftloop.contracts.monitor.v1.monitor_pb2 import Recalibration, Scaling
from driftloop.usecase import Task

Floats = npt.NDArray[np.float64]
LEAST_CHANCE = 1e-4  # of a score as an input: what is nearer to 0 or 1 has no logit worth scaling
LOGIT_MAX = 30.0


@dataclass(frozen=True, slots=True, eq=False)
class Scalings:
    """Some scalings and their weights: (scalings,), (scalings,) and (scalings, outputs); all finite.

    What the weights leave of 1 goes to the score as it is. Outputs: the classes, multiclass; one otherwise.
    """

    weights: Floats
    slopes: Floats
    intercepts: Floats

    @classmethod
    def of(cls, message: Recalibration) -> Scalings | None:
        """Of a message; None for an empty one: the scores are the answers. ValueError if it is ragged or not finite."""
        if not message.scalings:
            return None
        if len({len(scaling.intercepts) for scaling in message.scalings}) != 1:
            raise ValueError("the scalings of a recalibration have different numbers of intercepts")
        found = cls(
            np.array([scaling.weight for scaling in message.scalings]),
            np.array([scaling.slope for scaling in message.scalings]),
            np.array([list(scaling.intercepts) for scaling in message.scalings]),
        )
        if not all(np.isfinite(part).all() for part in (found.weights, found.slopes, found.intercepts)):
            raise ValueError("a recalibration has numbers that are not finite")
        return found

    @property
    def outputs(self) -> int:
        """Of the models that they are for."""
        return self.intercepts.shape[1]

    def message(self, labels: int) -> Recalibration:
        """As a message; `labels`: how many it has learned from."""
        parts = zip(self.weights.tolist(), self.slopes.tolist(), self.intercepts.tolist(), strict=True)
        return Recalibration(
            scalings=[Scaling(weight=w, slope=slope, intercepts=intercepts) for w, slope, intercepts in parts],
            labels=labels,
        )

    def applied(self, task: Task, scores: Floats) -> Floats:
        """The answers, (rows,) or (rows, classes), to scores of the same shape; for the same row the same to the bit."""
        said = self.each(task, inputs(task, scores))
        weights = self.weights.reshape(-1, *[1] * scores.ndim)
        mean: Floats = (1.0 - self.weights.sum()) * scores + (weights * said).sum(axis=0)
        return mean if task == "regression" else _between(mean, 0.0, 1.0)

    def each(self, task: Task, prepared: Floats) -> Floats:
        """What each scaling makes of scores that `inputs` has prepared: (scalings, rows) or (scalings, rows, classes)."""
        if task == "multiclass":
            scaled = self.slopes[:, None, None] * prepared + self.intercepts[:, None, :]
            scaled = np.exp(scaled - scaled.max(axis=2, keepdims=True))
            return scaled / scaled.sum(axis=2, keepdims=True)
        scaled = self.slopes[:, None] * prepared + self.intercepts
        return scaled if task == "regression" else 1.0 / (1.0 + np.exp(-_between(scaled, -LOGIT_MAX, LOGIT_MAX)))


def inputs(task: Task, scores: Floats) -> Floats:
    """What scalings are linear in: logits of probabilities, logarithms of the classes', numbers as they are."""
    if task == "regression":
        return scores
    bounded = _between(scores, LEAST_CHANCE, 1.0 - LEAST_CHANCE if task == "binary" else 1.0)
    return np.log(bounded / (1.0 - bounded)) if task == "binary" else np.log(bounded)


def _between(values: Floats, least: float, most: float) -> Floats:
    """`np.clip`, which costs several times as much where there are few values."""
    return np.minimum(np.maximum(values, least), most)
