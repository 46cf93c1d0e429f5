"""Assembles the vector of a request and turns the models' scores into an answer and its log record; reads and sends nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from driftloop.contracts import MAX_CAUSES, UNSET_US, Message, prediction_id
from driftloop.contracts.serving.v1.scored_pb2 import Scored
from driftloop.contracts.serving.v1.serving_pb2 import Freshness, Prediction, PredictResponse, Reading, Vector
from driftloop.usecase import FieldValue, UseCase
from services.serving.errors import NoUsableScore
from services.serving.routing import LoadedArm, Router
from services.serving.scores import Said, usable
from services.serving.view import Entry

Lookup = Callable[[str], Entry | None]
"""The newest entry of a feature entity's key, or None."""
_logger = logging.getLogger(__name__)


class Assembled(NamedTuple):
    """A vector, and the names of its inputs for which no value was known: they have the stated default."""

    vector: Vector
    defaulted: list[str]


class Asked(NamedTuple):
    """One request, ready to be scored."""

    entity: str
    request_id: str
    assembled: Assembled


class Unusable(NamedTuple):
    """A model that gave no usable answer for some rows, and what it did instead."""

    model_id: str
    role: str
    rows: int
    why: str


class Answered(NamedTuple):
    """Responses and log records, in the order of what was asked, and the models that should not have been released."""

    responses: list[PredictResponse]
    predictions: list[Prediction]
    unusable: list[Unusable]


class Assembly:
    """Puts vectors together in the order that the use case declares; made once, because the declared order never changes."""

    def __init__(self, use_case: UseCase) -> None:
        self._use_case = use_case
        self._digest = use_case.inputs_digest
        self._request = [
            (transform.of, feature.name, feature.numeric)
            for transform, feature in zip(use_case.request_transforms, use_case.request_inputs, strict=True)
        ]
        self._views = [(view, view.name, view.features) for view in use_case.views]

    def keys(self, fields: Mapping[str, FieldValue]) -> list[tuple[str, str]]:
        """View and key of every feature entity that the request refers to; a view whose key field is absent has none."""
        found = [(name, view.key(fields)) for view, name, _ in self._views]
        return [(name, key) for name, key in found if key is not None]

    def assemble(self, fields: Mapping[str, FieldValue], lookup: Lookup) -> Assembled:
        """The vector of a request's fields: request features first, then each view's, missing ones by their default."""
        numbers: list[float] = []
        texts: list[str] = []
        defaulted: list[str] = []
        readings: list[Reading] = []
        for (of, name, numeric), value in zip(self._request, self._use_case.request_values(fields), strict=True):
            (numbers if numeric else texts).append(value)  # type: ignore[arg-type]
            if of not in fields:
                defaulted.append(name)
        for view, view_name, features in self._views:
            key = view.key(fields)
            entry = lookup(key) if key is not None else None
            if entry is None:
                readings.append(Reading(view=view_name, key=key or ""))
            else:
                readings.append(
                    Reading(
                        view=view_name,
                        key=key,
                        found=True,
                        known_at_us=entry.known_at_us,
                        event_time_us=entry.event_time_us,
                        sequence=entry.sequence,
                        update_id=entry.update_id,
                    )
                )
            values = entry.values if entry is not None else (None,) * len(features)
            for feature, found in zip(features, values, strict=True):
                if found is None:
                    defaulted.append(feature.name)
                    found = feature.default
                if feature.numeric:
                    numbers.append(float(found))
                else:
                    texts.append(str(found))
        return Assembled(Vector(inputs_digest=self._digest, numbers=numbers, texts=texts, readings=readings), defaulted)


def answer(
    use_case: UseCase, router: Router, asked: Sequence[Asked], as_of_us: int, with_vector: Sequence[bool] = ()
) -> Answered:
    """Answers by the arm that each entity is routed to; every other arm scores every row too, so that evidence is paired.

    What is no probability, no distribution over the classes, or no finite number is never passed on and never logged: the
    stand-ins of the arm answer, in order.
    Raises NoUsableScore if none of them can. `scores` of a log record: the champion first.
    """
    numbers = np.array([one.assembled.vector.numbers for one in asked], dtype=np.float64).reshape(len(asked), -1)
    texts = [list(one.assembled.vector.texts) for one in asked]
    classes = use_case.predict.classes
    scores: dict[str, list[Said | None]] = {}
    unusable: list[Unusable] = []
    for arm in router.arms:
        found, why = _scores(use_case, arm, numbers, texts)
        scores[arm.model_id] = found
        if why:
            unusable.append(Unusable(arm.model_id, arm.role, sum(said is None for said in found), why))
    responses: list[PredictResponse] = []
    predictions: list[Prediction] = []
    for row, one in enumerate(asked):
        routed = router.arm_for(one.entity)
        chosen, said = next(
            (
                (other, found_said)
                for other in (routed, *router.stand_ins(routed))
                if (found_said := scores[other.model_id][row]) is not None
            ),
            (None, None),
        )
        if chosen is None or said is None:
            raise NoUsableScore("; ".join(f"model {u.model_id} ({u.role}): {u.why}" for u in unusable))
        vector, defaulted = one.assembled
        found_id = prediction_id(use_case.name, one.entity, one.request_id)
        predictions.append(
            Prediction(
                use_case=use_case.name,
                id=found_id,
                entity=one.entity,
                request_id=one.request_id,
                as_of_us=as_of_us,
                model_id=chosen.model_id,
                arm=chosen.role,
                score=said.score,
                scores=[
                    Scored(model_id=a.model_id, score=each.score, class_probabilities=each.class_probabilities)
                    for a in router.arms
                    if (each := scores[a.model_id][row]) is not None
                ],
                vector=vector,
                revision=router.revision,
                class_probabilities=said.class_probabilities,
            )
        )
        responses.append(
            PredictResponse(
                prediction_id=found_id,
                model_id=chosen.model_id,
                arm=chosen.role,
                score=said.score,
                as_of_us=as_of_us,
                freshness=[_freshness(reading, as_of_us) for reading in vector.readings],
                defaulted=defaulted,
                vector=vector if with_vector and with_vector[row] else None,
                class_probabilities=said.class_probabilities,
                classes=classes,
            )
        )
    return Answered(responses, predictions, unusable)


def log_record(prediction: Prediction, replica: str, traceparent: str = "") -> Message[Prediction]:
    """The message of an answer on `predictions`; everything but the trace follows from the payload.

    It is known just after `as_of_us`: the replica's watermark of that very time is written before the answers given at it,
    and promises that nothing known at or before it follows.
    """
    causes = [reading.update_id for reading in prediction.vector.readings if reading.found][:MAX_CAUSES]
    return Message(
        topic="predictions",
        key=prediction.entity,
        payload=prediction,
        id=prediction.id,
        source=f"driftloop/serving/{replica}",
        time_us=prediction.as_of_us,
        known_at_us=prediction.as_of_us + 1,
        causes=tuple(causes),
        traceparent=traceparent,
    )


def _freshness(reading: Reading, as_of_us: int) -> Freshness:
    if not reading.found:
        return Freshness(view=reading.view)
    age_us = max(0, as_of_us - reading.known_at_us) if as_of_us != UNSET_US else 0
    return Freshness(
        view=reading.view,
        found=True,
        known_at_us=reading.known_at_us,
        event_time_us=reading.event_time_us,
        age_us=age_us,
    )


def _scores(
    use_case: UseCase, arm: LoadedArm, numbers: npt.NDArray[np.float64], texts: list[list[str]]
) -> tuple[list[Said | None], str]:
    """The arm's answer per row, None where it gave none that is usable, and why; "" if all are usable."""
    try:
        found = np.asarray(arm.model.predict(numbers, texts), dtype=np.float64)
    except Exception as error:  # whatever a model raises is its own failure, and must not become the other arms'
        _logger.debug("model %s raised", arm.model_id, exc_info=True)
        return [None] * len(texts), f"raised {type(error).__name__}: {error}"
    return usable(use_case.predict, found, len(texts))
