"""Explains answers that were given here, or recorded ones: one at a time, on another thread, so that no call waits for it."""

from __future__ import annotations

import asyncio

from driftloop.contracts.serving.v1.serving_pb2 import ExplainRequest, ExplainResponse, Vector
from driftloop.usecase import Answer, UseCase
from services.serving.errors import (
    InvalidRequest,
    ModelNotLoaded,
    NotExplainable,
    Overloaded,
    PredictionForgotten,
    Violation,
)
from services.serving.explanation import explain, explained, is_explainable
from services.serving.recent import RecentAnswers
from services.serving.releases import ReleaseKeeper
from services.serving.settings import ServingSettings

_RETRY_S = 0.1  # as long as a full queue of them takes


class Explaining:
    """The explanations of one use case: what is asked about is among the recent answers, or given with its vector."""

    def __init__(
        self, use_case: UseCase, settings: ServingSettings, releases: ReleaseKeeper, recent: RecentAnswers
    ) -> None:
        self._use_case = use_case
        self._settings = settings
        self._releases = releases
        self._recent = recent
        self._waiting = 0
        self._turn = asyncio.Lock()

    async def explain(self, request: ExplainRequest) -> ExplainResponse:
        """What each input contributed to an answer; made on another thread, one at a time."""
        model_id, vector, score = request.model_id, request.vector, None
        told: Answer | None = None
        if request.prediction_id:
            found = self._recent.read(request.prediction_id)
            if found is None:
                raise PredictionForgotten(
                    f"prediction {request.prediction_id[:64]} is not among the newest "
                    f"{self._settings.explained_answers_max} answers of this replica: ask with model_id and vector"
                )
            model_id, vector = found.model_id, found.vector
            told = list(found.class_probabilities) or found.score
            score = next((scored.score for scored in found.scores if scored.model_id == model_id), None)
        self._check_vector(vector)
        model = self._releases.models.get(model_id)
        if model is None:
            raise ModelNotLoaded(f"model {model_id[:64]!r} is not loaded here")
        if not is_explainable(model):
            raise NotExplainable(f"the bundle of model {model_id} holds no background to compare a row with")
        if self._waiting >= self._settings.explanations_max:
            raise Overloaded(f"{self._waiting} explanations wait already", _RETRY_S)
        self._waiting += 1
        try:
            async with self._turn:
                made = await asyncio.to_thread(explain, model.scoring, vector.numbers, vector.texts)  # type: ignore[attr-defined]
        finally:
            self._waiting -= 1
        return explained(self._use_case, request.prediction_id, model_id, vector, made, score, told)

    def _check_vector(self, vector: Vector) -> None:
        use_case = self._use_case
        sizes = len(vector.numbers), len(vector.texts)
        if vector.inputs_digest != use_case.inputs_digest or sizes != (
            len(use_case.numeric_inputs),
            len(use_case.text_inputs),
        ):
            raise InvalidRequest([Violation("vector", "inputs", "is no vector of the inputs that are declared now")])
