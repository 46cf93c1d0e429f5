"""Trainer's hearts on what a simulated run has recorded: assembly by lookup instead of a join, no bundle, no bus."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np

from driftloop.contracts import derive_id
from driftloop.contracts.monitor.v1.monitor_pb2 import RetrainRequest
from driftloop.contracts.trainer.v1.trainer_pb2 import OUTCOME_PUBLISHED, Model
from driftloop.scoring.model import ScoringModel
from driftloop.usecase import UseCase, duration_us, floor_us
from services.trainer.training import TrainingSet, TrainingSettings, train
from simulation.loop import Recorded


def _silent(line: str) -> None:
    del line


class RecordedTrainer:
    """Trains on the whole cohorts whose labels are known at the request's clock; publishes every model that it trains."""

    def __init__(
        self, use_case: UseCase, settings: TrainingSettings | None = None, say: Callable[[str], None] = _silent
    ) -> None:
        self._use_case = use_case
        self._settings = settings or TrainingSettings()
        self._say = say
        self.models: dict[str, ScoringModel] = {}

    def rows(self, recorded: Recorded, clock_us: int) -> TrainingSet:
        """The training rows at a clock (microseconds), by prediction time."""
        policy, label = self._use_case.policy, self._use_case.label
        cohort_us = duration_us(policy.cohort)
        cohorts: dict[int, list[str]] = defaultdict(list)
        for entity, at_us in recorded.at_us.items():
            cohorts[floor_us(at_us, cohort_us)].append(entity)
        known = {entity for entity, (_, known_us) in recorded.labels.items() if known_us <= clock_us}
        chosen: list[str] = []
        for start_us in sorted(cohorts):
            end_us = start_us + cohort_us
            entities = cohorts[start_us]
            resolved = all(entity in known or entity in recorded.closed for entity in entities)
            if end_us <= clock_us and (resolved or end_us + label.matures_after_us <= clock_us):
                chosen += sorted((e for e in entities if e in known), key=lambda e: (recorded.at_us[e], e))
        chosen.sort(key=lambda entity: (recorded.at_us[entity], entity))
        vectors = [recorded.vectors[entity] for entity in chosen]
        return TrainingSet(
            entities=chosen,
            at_us=np.array([recorded.at_us[entity] for entity in chosen], dtype=np.int64),
            numbers=np.array([list(vector.numbers) for vector in vectors], dtype=np.float64),
            texts=np.array([list(vector.texts) for vector in vectors], dtype=object),
            labels=np.array([recorded.labels[entity][0] for entity in chosen]),
            known_at_us=np.array([recorded.labels[entity][1] for entity in chosen], dtype=np.int64),
        )

    def train(self, request: RetrainRequest, recorded: Recorded) -> tuple[Model, ScoringModel | None]:
        """The answer to a request, and the model."""
        champion = self.models.get(request.champion_id)
        rows = self.rows(recorded, request.clock_us)
        trained = train(self._use_case, rows, request.since_us, champion, request.seed, self._settings, self._say)
        model_id = derive_id("model", self._use_case.name, request.id)
        self.models[model_id] = trained.model
        answer = Model(
            use_case=self._use_case.name,
            id=model_id,
            request_id=request.id,
            outcome=OUTCOME_PUBLISHED,
            because=trained.chosen,
            model_digest=trained.model_digest,
            inputs_digest=self._use_case.inputs_digest,
            trained_rows=trained.trained_rows,
            row_epochs=trained.row_epochs,
            clock_us=request.clock_us,
            since_us=request.since_us,
            metrics=trained.metrics,
        )
        return answer, trained.model
