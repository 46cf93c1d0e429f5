"""Remembers the newest answers of a replica as they were logged, so that one can be explained by its id; bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from driftloop.contracts.serving.v1.serving_pb2 import Prediction


class RecentAnswers:
    """The newest `answers_max` answers at the least; of several with one id the first, which is the one that is judged.

    All answers are remembered and hardly any is asked for: they are kept as they come, together and in bytes, and looked through
    when one is.
    """

    def __init__(self, answers_max: int) -> None:
        self._answers_max = answers_max
        self._together: deque[Sequence[bytes]] = deque()
        self._count = 0

    def add(self, answers: Sequence[bytes]) -> None:
        """Remembers answers, each a serialised `Prediction`, and forgets the oldest."""
        self._together.append(answers)
        self._count += len(answers)
        while self._count - len(self._together[0]) >= self._answers_max:
            self._count -= len(self._together.popleft())

    def read(self, prediction_id: str) -> Prediction | None:
        """The answer as it was logged, or None; looks through ten thousand in a millisecond."""
        wanted = prediction_id.encode()
        for answers in self._together:
            for answer in answers:
                if wanted in answer and (found := Prediction.FromString(answer)).id == prediction_id:
                    return found
        return None
