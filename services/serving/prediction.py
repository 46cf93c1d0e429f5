"""Turns the models' scores of assembled inputs into answers and their log records; reads and sends nothing."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import repeat
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from driftloop.contracts import ID_CHARACTERS, MAX_CAUSES, Message, prediction_ids
from driftloop.contracts.serving.v1.scored_pb2 import Scored
from driftloop.contracts.serving.v1.serialized_pb2 import (
    SerializedBatchResponse,
    SerializedPrediction,
    SerializedResponse,
)
from driftloop.contracts.serving.v1.serving_pb2 import Prediction, PredictResponse
from driftloop.usecase import UseCase
from services.serving.assembly import Assembled, Inputs, freshness
from services.serving.errors import NoUsableScore
from services.serving.logged import Logged, causes_of, known_at_us, source_of
from services.serving.routing import LoadedArm, Router
from services.serving.scores import Said, prior, usable
from services.serving.wire import DOUBLE_BYTES, length, lengths, rows_of, tag

_FALLBACK_CHARACTERS_MAX = 256
_double = struct.Struct("<d").pack
_ID_LENGTH = length(ID_CHARACTERS)
_ID, _SCORE = tag(PredictResponse, "prediction_id") + _ID_LENGTH, tag(PredictResponse, "score")
_LOGGED_ID, _LOGGED_SCORE = tag(Prediction, "id") + _ID_LENGTH, tag(Prediction, "score")
_ENTITY, _REQUEST_ID, _VECTOR, _SCORES = (
    tag(Prediction, field) for field in ("entity", "request_id", "vector", "scores")
)
_SCORED_SCORE = tag(Scored, "score")
_logger = logging.getLogger(__name__)


class Asked(NamedTuple):
    """One request, ready to be scored; `with_vector`: its answer shows the vector."""

    entity: str
    request_id: str
    assembled: Assembled
    traceparent: str = ""
    with_vector: bool = False


class Together(NamedTuple):
    """Requests that are scored, answered and logged together, by column: see `Asked`."""

    entities: Sequence[str]
    request_ids: Sequence[str]
    inputs: Inputs
    traceparents: Sequence[str]
    with_vector: Sequence[bool]

    @classmethod
    def of(cls, asked: Sequence[Asked]) -> Together:
        """The columns of some rows."""
        entities, request_ids, assembled, traceparents, with_vector = zip(*asked, strict=True)
        return cls(entities, request_ids, Inputs.of(assembled), traceparents, with_vector)


class Unusable(NamedTuple):
    """A model that gave no usable answer for some rows, and what it did instead."""

    model_id: str
    role: str
    rows: int
    why: str


class Told(NamedTuple):
    """What is told of each row: who answers it, with what, and why it is not who was asked.

    as_said: whether all of it is what the models said, as they said it.
    """

    arms: list[LoadedArm]
    answers: list[Said]
    fallbacks: list[str]
    as_said: bool


class Answered(NamedTuple):
    """Answers as they leave and as they are logged, in the order of what was asked.

    serialized: a `PredictResponse` each; arms: who answered; unusable: models that should not have been released.
    """

    serialized: list[bytes]
    logged: list[Logged]
    arms: list[str]
    unusable: list[Unusable]

    @property
    def responses(self) -> list[PredictResponse]:
        """The answers, read."""
        return [PredictResponse.FromString(answer) for answer in self.serialized]

    @property
    def predictions(self) -> list[Prediction]:
        """The log records' payloads, read."""
        return [Prediction.FromString(answer.payload) for answer in self.logged]


def batch_response(serialized: Sequence[bytes]) -> bytes:
    """Answers as one serialised `PredictBatchResponse`."""
    return SerializedBatchResponse(responses=serialized).SerializeToString()


def answer(use_case: UseCase, router: Router, asked: Sequence[Asked], as_of_us: int) -> Answered:
    """As `answer_together`, row by row."""
    return answer_together(use_case, router, Together.of(asked), as_of_us)


def answer_together(use_case: UseCase, router: Router, asked: Together, as_of_us: int) -> Answered:
    """Answers by the arm that each entity is routed to; every other arm scores every row too, so that evidence is paired.

    What is no probability, no distribution over the classes, or no finite number is never passed on and never logged: the
    stand-ins of the arm answer, in order, and at last the prior; the answer says why.
    Raises NoUsableScore if none of them can. `scores` of a log record: what each model said, the champion first; an answer is
    what its model said, recalibrated as the release says.
    """
    numbers = np.frombuffer(asked.inputs.matrix_bytes, dtype="<f8").reshape(len(asked.entities), -1)
    texts = asked.inputs.texts
    said: list[tuple[LoadedArm, list[Said | None]]] = []
    unusable: list[Unusable] = []
    for arm in router.arms:
        found, why = _scores(use_case, arm, numbers, texts)
        said.append((arm, found))
        if why:
            unusable.append(Unusable(arm.model_id, arm.role, sum(each is None for each in found), why))
    by_arm = dict(said)
    chosen = router.arms_for(asked.entities)
    answers = [by_arm[arm][row] for row, arm in enumerate(chosen)]
    fallbacks = [""] * len(chosen)
    for row in [row for row, answered in enumerate(answers) if answered is None]:
        fallbacks[row] = _why(chosen[row], unusable)
        chosen[row], answers[row] = _stand_in(use_case, router, chosen[row], by_arm, row, numbers, texts)
        if answers[row] is None:
            raise NoUsableScore("; ".join(f"model {u.model_id} ({u.role}): {u.why}" for u in unusable))
    told = _recalibrated(use_case, Told(chosen, cast(list[Said], answers), fallbacks, not any(fallbacks)))
    return _worded(use_case, router, asked, as_of_us, said, told, unusable)


def _worded(
    use_case: UseCase,
    router: Router,
    asked: Together,
    as_of_us: int,
    said: Sequence[tuple[LoadedArm, list[Said | None]]],
    told: Told,
    unusable: list[Unusable],
) -> Answered:
    """The answers and their log records as bytes, put together column by column: what is the same for all is made once."""
    heads = _heads(use_case.name, tuple(use_case.predict.classes), router, as_of_us)
    logged_heads, answer_heads = zip(*[heads[arm] for arm in told.arms], strict=True)
    entities, request_ids = list(map(str.encode, asked.entities)), list(map(str.encode, asked.request_ids))
    ids = prediction_ids(use_case.name)(entities, request_ids)
    scores = [_double(score) for score, _ in told.answers]
    vectors = asked.inputs.vectors()
    payloads = [
        logged_heads,
        ids,
        repeat(_ENTITY),
        lengths(entities),
        entities,
        repeat(_REQUEST_ID),
        lengths(request_ids),
        request_ids,
        repeat(_LOGGED_SCORE),
        scores,
        repeat(_VECTOR),
        lengths(vectors),
        vectors,
    ]
    parts = [answer_heads, ids, repeat(_SCORE), scores]
    for arm, found in said:
        alone, named = _scored_head(arm.model_id)
        is_answer = len(said) == 1 and told.as_said
        if is_answer and use_case.predict.task != "multiclass":
            payloads += [repeat(alone), scores]
        else:
            payloads.append([b"" if each is None else _scored(alone, named, each) for each in found])
    for column in asked.inputs.views:
        parts.append(
            [packed.fresh if packed.fresh_as_of_us == as_of_us else freshness(packed, as_of_us) for packed in column]
        )
    if any(asked.inputs.defaulted):
        parts.append([SerializedResponse(defaulted=names).SerializeToString() for names in asked.inputs.defaulted])
    if any(told.fallbacks) or any([chances for _, chances in told.answers]):
        extras = [(chances, why) for (_, chances), why in zip(told.answers, told.fallbacks, strict=True)]
        payloads.append(
            [SerializedPrediction(class_probabilities=c, fallback=f).SerializeToString() for c, f in extras]
        )
        parts.append([SerializedResponse(class_probabilities=c, fallback=f).SerializeToString() for c, f in extras])
    if any(asked.with_vector):
        parts.append(
            [
                SerializedResponse(vector=vector).SerializeToString() if wanted else b""
                for wanted, vector in zip(asked.with_vector, vectors, strict=True)
            ]
        )
    encoded = {trace: trace.encode() for trace in set(asked.traceparents)}  # one, of a batch
    traces = [encoded[trace] for trace in asked.traceparents]
    return Answered(
        _joined(parts),
        rows_of(Logged, ids, entities, _causes(asked.inputs), _joined(payloads), traces),
        [arm.name for arm in told.arms],
        unusable,
    )


def _causes(inputs: Inputs) -> list[bytes]:
    """Ids of the feature updates that each vector read, with commas between them."""
    found = [[packed.cause for packed in column] for column in inputs.views]
    if 0 < len(found) <= MAX_CAUSES and all(map(all, found)):
        return list(map(b",".join, zip(*found, strict=True)))
    return [b",".join([packed.cause for packed in each.views if packed.found][:MAX_CAUSES]) for each in inputs.rows()]


def _joined(columns: Sequence[Iterable[bytes]]) -> list[bytes]:
    """The bytes of each row; some columns repeat for ever."""
    return list(map(b"".join, zip(*columns, strict=False)))


@lru_cache(maxsize=2)  # no more: a router keeps its models
def _heads(
    use_case: str, classes: tuple[str, ...], router: Router, as_of_us: int
) -> dict[LoadedArm, tuple[bytes, bytes]]:
    """What all log records, and all answers, of an arm at a clock have in common, up to the id that follows."""
    found = {}
    for arm in (*router.arms, *router.standby, router.prior):
        logged = SerializedPrediction(
            use_case=use_case,
            as_of_us=as_of_us,
            model_id=arm.model_id,
            arm=arm.name,
            revision=router.revision,
        )
        answer = SerializedResponse(model_id=arm.model_id, arm=arm.name, as_of_us=as_of_us, classes=classes)
        found[arm] = logged.SerializeToString() + _LOGGED_ID, answer.SerializeToString() + _ID
    return found


@lru_cache(maxsize=64)
def _scored_head(model_id: str) -> tuple[bytes, bytes]:
    """What stands before the score of a model in a log record that tells a score alone, and what in any."""
    named = Scored(model_id=model_id).SerializeToString() + _SCORED_SCORE
    return _SCORES + length(len(named) + DOUBLE_BYTES) + named, named


def _scored(alone: bytes, named: bytes, said: Said) -> bytes:
    score, chances = said
    if not chances:
        return alone + _double(score)
    found = named + _double(score) + Scored(class_probabilities=chances).SerializeToString()
    return _SCORES + length(len(found)) + found


def log_record(prediction: Prediction, replica: str, traceparent: str = "") -> Message[Prediction]:
    """The message of an answer on `predictions`; everything but the trace follows from the payload."""
    return Message(
        topic="predictions",
        key=prediction.entity,
        payload=prediction,
        id=prediction.id,
        source=source_of(replica),
        time_us=prediction.as_of_us,
        known_at_us=known_at_us(prediction.as_of_us),
        causes=tuple(causes_of(prediction)),
        traceparent=traceparent,
    )


def _stand_in(
    use_case: UseCase,
    router: Router,
    routed: LoadedArm,
    said: dict[LoadedArm, list[Said | None]],
    row: int,
    numbers: npt.NDArray[np.float64],
    texts: Sequence[Sequence[str]],
) -> tuple[LoadedArm, Said | None]:
    """Who answers a row instead, and what; the prior, with None where it is not known either."""
    for other in router.stand_ins(routed):
        if other not in said:  # a standby, which is not asked before it is needed
            said[other] = _scores(use_case, other, numbers, texts)[0]
        if (answered := said[other][row]) is not None:
            return other, answered
    return router.prior, prior(use_case.predict, routed.model)


def _recalibrated(use_case: UseCase, told: Told) -> Told:
    """The answers as the release's recalibrations have them, each of its own model's."""
    task, outputs, answers = use_case.predict.task, max(1, len(use_case.predict.classes)), list(told.answers)
    recalibrations = {arm: arm.recalibration for arm in set(told.arms) if arm.recalibration is not None}
    for arm, scalings in recalibrations.items():
        if scalings.outputs != outputs:  # of before the classes were declared otherwise
            continue
        rows = [row for row, answered_by in enumerate(told.arms) if answered_by is arm]
        scores = np.array([answers[row].class_probabilities or answers[row].score for row in rows], dtype=np.float64)
        for row, moved in zip(rows, scalings.applied(task, scores).tolist(), strict=True):
            answers[row] = Said(max(moved), moved) if task == "multiclass" else Said(moved, ())
    return told if not recalibrations else told._replace(answers=answers, as_said=False)


def _why(arm: LoadedArm, unusable: Sequence[Unusable]) -> str:
    found = next((each.why for each in unusable if each.model_id == arm.model_id), "gave no usable answer")
    return f"model {arm.model_id} {found}"[:_FALLBACK_CHARACTERS_MAX]


def _scores(
    use_case: UseCase, arm: LoadedArm, numbers: npt.NDArray[np.float64], texts: Sequence[Sequence[str]]
) -> tuple[list[Said | None], str]:
    """The arm's answer per row, None where it gave none that is usable, and why; "" if all are usable."""
    try:
        found = np.asarray(arm.model.predict(numbers, texts), dtype=np.float64)
    except Exception as error:  # whatever a model raises is its own failure, and must not become the other arms'
        _logger.debug("model %s raised", arm.model_id, exc_info=True)
        return [None] * len(texts), f"raised {type(error).__name__}: {error}"
    return usable(use_case.predict, found, len(texts))
