"""Remembers the newest answers of a replica as they were logged, so that one can be explained by its id; bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from driftloop.contracts.serving.v1.serving_pb2 import Prediction
from services.serving.logged import Logged


class RecentAnswers:
    """The newest `answers_max` answers; of several with one id the first, which is the one that is judged."""

    def __init__(self, answers_max: int) -> None:
        self._answers_max = answers_max
        self._payloads: OrderedDict[str, bytes] = OrderedDict()

    def add(self, answers: Iterable[Logged]) -> None:
        """Remembers answers and forgets the oldest."""
        payloads = self._payloads
        for answer in answers:
            payloads.setdefault(answer.id, answer.payload)
        while len(payloads) > self._answers_max:
            payloads.popitem(last=False)

    def read(self, prediction_id: str) -> Prediction | None:
        """The answer as it was logged, or None."""
        payload = self._payloads.get(prediction_id)
        return None if payload is None else Prediction.FromString(payload)
