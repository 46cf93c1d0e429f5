"""A model in production on a recorded history: it answers row after row and may be replaced between two of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from driftloop.contracts import derive_id
from driftloop.scoring import ScoringModel
from services.trainer.attempts import TrainingSettings
from services.trainer.training import Train, train
from simulation.backtest.importance import importance_of
from simulation.backtest.outcome import Deployed, Event, Fit, Kind, Outcome
from simulation.backtest.quality import Quality
from simulation.history import Floats, History, Rows

AHEAD_ROWS = 4_096  # answered in one call of the model; those that a replacement makes useless cost milliseconds
ROWS_MIN = 50  # fewer labels cannot be split into training and validation
Told = Callable[[int, str], None]
"""Takes the rows answered so far and what is going on, in words."""


@dataclass(frozen=True)
class Setting:
    """What every policy of a backtest shares: the history, the rows that are scored, and the first model."""

    history: History
    quality: Quality
    scored: Rows
    first: ScoringModel
    first_fit: Fit
    first_id: str
    window_rows: int
    seed: int
    training: TrainingSettings
    learn: Train = train

    @property
    def first_row(self) -> int:
        """The first row that is scored."""
        return int(self.scored[0])


class Production:
    """Answers rows by the newest model. `learn` replaces it without gate or trial, as simple policies do."""

    def __init__(self, policy: str, setting: Setting, measure: Callable[[Floats, Floats], Floats], told: Told) -> None:
        self.outcome = Outcome(policy, setting.quality.no_answers(len(setting.history)))
        self.served = setting.first_row
        self.deployed_row = setting.first_row
        self.errors = np.full(len(setting.history), np.nan)
        self._setting, self._measure, self._told = setting, measure, told
        self._model = setting.first
        self._ahead = self.outcome.answers[:0]
        self.outcome.fits.append(setting.first_fit)
        self._event(setting.first_fit.clock_us, "first_model", "the model that every policy starts with")
        self._deploy(setting.first, setting.first_id, setting.first_fit.clock_us)

    def serve(self, end: int) -> None:
        """Answers the rows before `end` that are not answered yet."""
        history = self._setting.history
        while self.served < end:
            if not len(self._ahead):
                rows = slice(self.served, self.served + AHEAD_ROWS)
                self._ahead = self._model.predict(history.numbers[rows], history.texts[rows])
                known = np.isfinite(history.labels[rows])
                self.errors[rows][known] = self._measure(history.labels[rows][known], self._ahead[known])
                self._told(self.served, "")
            count = min(end - self.served, len(self._ahead))
            self.outcome.answers[self.served : self.served + count] = self._ahead[:count]
            self._ahead = self._ahead[count:]
            self.served += count

    def learn(self, clock_us: int, why: str) -> None:
        """Replaces the model by one of the newest rows whose labels are known at a clock."""
        self._event(clock_us, "retrain", why)
        self._told(self.served, "training")
        rows = self._setting.history.arrived(clock_us)[-self._setting.window_rows :]
        try:
            self._fit(rows, clock_us)
        except ValueError as error:  # one class in the window or too few labels: the model in production goes on
            self._event(clock_us, "failed", str(error))

    def _fit(self, rows: Rows, clock_us: int) -> None:
        if len(rows) < ROWS_MIN:
            raise ValueError(f"{len(rows)} labels are too few to train on")
        setting = self._setting
        found = setting.history.training_set(rows, clock_us)
        model_id = derive_id("model", setting.history.use_case.name, self.outcome.policy, clock_us)
        seed = (int(model_id[:8], 16) + setting.seed) % 2**32
        trained = setting.learn(setting.history.use_case, found, 0, None, seed, setting.training, lambda line: None)
        newest_us = int(found.known_at_us.max())
        fit = Fit(clock_us, len(found), newest_us, trained.fitted_rows, trained.row_epochs, published=True)
        self.outcome.fits.append(fit)
        self._event(clock_us, "promotion", f"a model of the newest {len(found)} labels answers at once")
        self._deploy(trained.model, model_id, clock_us)

    def _deploy(self, model: ScoringModel, model_id: str, clock_us: int) -> None:
        self._model, self._ahead = model, self._ahead[:0]
        self.deployed_row = self.served
        importance = importance_of(self._setting.history, self._setting.quality, model, clock_us)
        self.outcome.deployed.append(Deployed(self.served, clock_us, model_id, importance))

    def _event(self, clock_us: int, kind: Kind, why: str) -> None:
        self.outcome.events.append(Event(self.served, clock_us, kind, why))

    def drifted(self, clock_us: int, why: str) -> None:
        """Notes an alarm."""
        self._event(clock_us, "drift", why)
