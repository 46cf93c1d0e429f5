"""How scalings learn from a block of labels, for each task: what they start from, what a block says of them, what its answers lost; pure.

A step is Newton's on what is kept of earlier blocks, the prior and the new block. Curvatures of the loss are matrices where there are
two parameters, else diagonals. Parameters: the slope first, then the intercepts; numbers have an intercept only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from driftloop.recalibration import LEAST_CHANCE, Floats, Scalings
from driftloop.usecase import Task

PRIOR_LABELS = 8.0  # that speak for the score as it is, in every scaling
CURVATURE_MIN = 0.01  # per label: where a model is sure, nothing else would keep a step short
ERROR_DEVIATIONS_MAX = 5.0  # of a number that count: a change that is larger widens them, a wild label hardly
_TINY = 1e-12


class Learning(ABC):
    """What the scalings of one model's scores have in common as they learn; each task says the rest.

    start: parameters that leave scores as they are; prior: curvature of what speaks for them; variance: of numbers' errors, else 0.
    """

    variance = 0.0

    def __init__(self, start: Floats, prior: Floats) -> None:
        self.start, self.prior = start, prior

    def scalings(self, weights: Floats, parameters: Floats) -> Scalings:
        """Scalings of parameters, (scalings, parameters)."""
        return Scalings(weights, parameters[:, 0], parameters[:, 1:])

    @abstractmethod
    def losses(self, answers: Sequence[Floats], labels: Floats) -> Floats:
        """What each of several answers to the same rows lost, all rows together, in nats; the scores as they are come first."""

    @abstractmethod
    def deviation(self, answers: Floats) -> float:
        """Of the labels, as far as answers leave them open."""

    def stepped(
        self, parameters: Floats, curvature: Floats, kept: float, prepared: Floats, scaled: Floats, labels: Floats
    ) -> tuple[Floats, Floats]:
        """Parameters and curvature after a block, of which share `kept` of what was before is kept.

        prepared, scaled: the block's scores as `driftloop.recalibration.inputs` has them, and what the parameters make of them.
        """
        slopes, grown = self._slopes_and_curvature(prepared, scaled, labels)
        curvature = kept * curvature + (1.0 - kept) * self.prior + grown
        pull = parameters - self.start
        if curvature.ndim == 2:
            return parameters - np.linalg.solve(curvature, slopes + (1.0 - kept) * (self.prior @ pull)), curvature
        return parameters - (slopes + (1.0 - kept) * self.prior * pull) / curvature, curvature

    @abstractmethod
    def _slopes_and_curvature(self, prepared: Floats, scaled: Floats, labels: Floats) -> tuple[Floats, Floats]:
        """Slopes of a block's loss and its curvature."""


class Likelihood(Learning):
    """Of probabilities, which lose by what they said of each label."""

    def losses(self, answers: Sequence[Floats], labels: Floats) -> Floats:
        """Log losses."""
        return np.array([-np.log(np.maximum(self._chances(said, labels), _TINY)).sum() for said in answers])

    def deviation(self, answers: Floats) -> float:
        """Of labels that are drawn as answers say."""
        return max(float((answers * (1.0 - answers)).mean()), LEAST_CHANCE) ** 0.5

    @abstractmethod
    def _chances(self, said: Floats, labels: Floats) -> Floats:
        """What was said of each label."""


class Chance(Likelihood):
    """Of a probability: slope and intercept of its logit."""

    def __init__(self) -> None:
        # A label tells an intercept of a logit 1/4 at the most.
        super().__init__(np.array([1.0, 0.0]), np.diag([PRIOR_LABELS, PRIOR_LABELS / 4.0]))

    def _slopes_and_curvature(self, prepared: Floats, scaled: Floats, labels: Floats) -> tuple[Floats, Floats]:
        design = np.stack([prepared, np.ones(len(labels))], axis=1)
        curvature = design.T @ (design * np.maximum(scaled * (1.0 - scaled), CURVATURE_MIN)[:, None])
        return design.T @ (scaled - labels), curvature

    def _chances(self, said: Floats, labels: Floats) -> Floats:
        return np.where(labels > 0.5, said, 1.0 - said)


class Classes(Likelihood):
    """Of the classes' probabilities: one slope of their logarithms, an intercept for each."""

    def __init__(self, outputs: int) -> None:
        super().__init__(np.array([1.0] + [0.0] * outputs), np.array([PRIOR_LABELS] + [PRIOR_LABELS / 4.0] * outputs))

    def _slopes_and_curvature(self, prepared: Floats, scaled: Floats, labels: Floats) -> tuple[Floats, Floats]:
        off = scaled.copy()
        off[np.arange(len(labels)), labels.astype(int)] -= 1.0
        mean = (scaled * prepared).sum(axis=1)
        spread = ((scaled * prepared * prepared).sum(axis=1) - mean * mean).sum() + CURVATURE_MIN * len(labels)
        own = np.maximum(scaled * (1.0 - scaled), CURVATURE_MIN / 10.0).sum(axis=0)
        return np.concatenate([[(off * prepared).sum()], off.sum(axis=0)]), np.concatenate([[spread], own])

    def _chances(self, said: Floats, labels: Floats) -> Floats:
        chances: Floats = said[np.arange(len(labels)), labels.astype(int)]
        return chances


class Shift(Learning):
    """Of a number: a shift, learned from errors that count up to some deviations, and those follow what is lost."""

    def __init__(self) -> None:
        super().__init__(np.array([0.0]), np.array([PRIOR_LABELS]))

    def scalings(self, weights: Floats, parameters: Floats) -> Scalings:
        """Shifts alone."""
        return Scalings(weights, np.ones(len(parameters)), parameters)

    def losses(self, answers: Sequence[Floats], labels: Floats) -> Floats:
        """Squares of errors, beside the variance that they have lately had at the least, which follows them."""
        squares = np.array([float((self._errors(said, labels, answers[0]) ** 2).mean()) for said in answers])
        least = float(squares.min())
        self.variance = least if not self.variance else 0.9 * self.variance + 0.1 * least
        losses: Floats = squares * len(labels) / (2.0 * max(self.variance, _TINY))
        return losses

    def deviation(self, answers: Floats) -> float:
        """Of the errors."""
        return self.variance**0.5

    def _slopes_and_curvature(self, prepared: Floats, scaled: Floats, labels: Floats) -> tuple[Floats, Floats]:
        return np.array([self._errors(scaled, labels, prepared).sum()]), np.array([float(len(labels))])

    def _errors(self, said: Floats, labels: Floats, scores: Floats) -> Floats:
        """Each held within a few deviations: of what is known of them, or of the scores' own at first."""
        deviation = self.variance**0.5 or 1.5 * float(np.median(np.abs(scores - labels)))
        bound = ERROR_DEVIATIONS_MAX * deviation
        return np.clip(said - labels, -bound, bound)


def learning_of(task: Task, outputs: int) -> Learning:
    """How a task's scores learn; outputs: the classes, multiclass."""
    return Chance() if task == "binary" else Classes(outputs) if task == "multiclass" else Shift()
