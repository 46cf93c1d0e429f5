"""Trainer's hearts on what a simulated run has recorded: assembly by lookup instead of a join, no bundle, no bus."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from driftloop.contracts.monitor.v1.monitor_pb2 import RetrainRequest
from driftloop.contracts.trainer.v1.trainer_pb2 import Model, Stage
from driftloop.scoring.model import ScoringModel
from driftloop.usecase import UseCase, duration_us
from services.trainer.attempts import TrainingSet, TrainingSettings
from services.trainer.fitting import fit_request
from services.trainer.gates import GateSettings
from simulation.loop import Recorded

_NEVER_US = np.iinfo(np.int64).max


def _silent(line: str) -> None:
    del line


class RecordedTrainer:
    """Trains on the whole cohorts whose labels are known at the request's clock, and answers as production would."""

    def __init__(
        self,
        use_case: UseCase,
        settings: TrainingSettings | None = None,
        say: Callable[[str], None] = _silent,
        gates: GateSettings | None = None,
    ) -> None:
        self._use_case = use_case
        self._settings = settings or TrainingSettings()
        self._gates = gates or GateSettings()
        self._say = say
        self.models: dict[str, ScoringModel] = {}

    def rows(self, recorded: Recorded, clock_us: int) -> TrainingSet:
        """The training rows at a clock (microseconds), by prediction time."""
        names = list(recorded.at_us)
        at_us = np.fromiter(recorded.at_us.values(), dtype=np.int64, count=len(names))
        unknown = (np.nan, _NEVER_US)
        told = [recorded.labels.get(name, unknown) for name in names]
        known_at_us = np.array([known_us for _, known_us in told], dtype=np.int64)
        labelled = known_at_us <= clock_us
        resolved = labelled | np.array([name in recorded.closed for name in names], dtype=bool)
        cohort_us = duration_us(self._use_case.policy.cohort)
        starts, cohort = np.unique(at_us // cohort_us, return_inverse=True)
        ends_us = (starts + 1) * cohort_us
        whole = np.bincount(cohort, weights=~resolved, minlength=len(starts)) == 0
        mature = ends_us + self._use_case.label.matures_after_us <= clock_us
        usable = (ends_us <= clock_us) & (whole | mature)
        places = np.flatnonzero(labelled & usable[cohort]).tolist()
        chosen = sorted(places, key=lambda place: (at_us[place], names[place]))
        vectors = [recorded.vectors[names[place]] for place in chosen]
        return TrainingSet(
            entities=[names[place] for place in chosen],
            at_us=at_us[chosen],
            numbers=np.array([list(vector.numbers) for vector in vectors], dtype=np.float64).reshape(
                len(vectors), len(self._use_case.numeric_inputs)
            ),
            texts=np.array([list(vector.texts) for vector in vectors], dtype=object),
            labels=np.array([told[place][0] for place in chosen]),
            known_at_us=known_at_us[chosen],
        )

    def train(self, request: RetrainRequest, recorded: Recorded) -> tuple[Model, ScoringModel | None]:
        """The answer to a request, and the model if it passed the gates."""

        def tell(stage: Stage, detail: str) -> None:
            del stage
            self._say(detail)

        champion = self.models.get(request.champion_id)
        rows = self.rows(recorded, request.clock_us)
        archived = {a.model_id: self.models[a.model_id] for a in request.archive if a.model_id in self.models}
        found = fit_request(
            self._use_case, request, rows, champion, self._settings, self._gates, tell, archived=archived
        )
        if found.published is not None:
            self.models[found.answer.id] = found.published
        return found.answer, found.published
