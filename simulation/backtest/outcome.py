"""What a policy did on a history: its answers, its fits and what happened when; says nothing about how good that was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Kind = Literal[
    "first_model", "drift", "input_drift", "retrain", "shadow", "canary", "promotion", "rejected", "rollback", "kept",
    "waits", "not_now", "failed", "incident", "recalibrated",
]  # fmt: skip


@dataclass(frozen=True)
class Event:
    """Something that happened just before `row` was predicted; `at_us` in microseconds, `why` in words."""

    row: int
    at_us: int
    kind: Kind
    why: str


@dataclass(frozen=True)
class Fit:
    """One request for a model and what it cost. Times in microseconds; `newest_label_us`: when its last label became known.

    rows: of the training set; fitted_rows: of all its fits, candidates and refit; row_epochs: the same times their epochs.
    """

    clock_us: int
    rows: int
    newest_label_us: int
    fitted_rows: int
    row_epochs: int
    published: bool


@dataclass(frozen=True)
class Deployed:
    """A model in production from `row` on, and by how much the loss grows when the values of an input are shuffled."""

    row: int
    at_us: int
    model_id: str
    importance: dict[str, float]


@dataclass
class Outcome:
    """A policy's run. `answers`: of every row, (rows,) or (rows, classes); NaN where no model answered."""

    policy: str
    answers: Floats
    events: list[Event] = field(default_factory=list)
    fits: list[Fit] = field(default_factory=list)
    deployed: list[Deployed] = field(default_factory=list)
    seconds: float = 0.0

    def count(self, *kinds: Kind) -> int:
        """How many events are of these kinds."""
        return sum(event.kind in kinds for event in self.events)

    @property
    def retrains(self) -> int:
        """Models that were fitted after the first."""
        return max(0, len(self.fits) - 1)

    @property
    def fitted_rows(self) -> int:
        """Rows of all fits."""
        return sum(fit.fitted_rows for fit in self.fits)

    @property
    def row_epochs(self) -> int:
        """Rows times epochs of all fits."""
        return sum(fit.row_epochs for fit in self.fits)
