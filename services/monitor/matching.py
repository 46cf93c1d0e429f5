"""Matches late labels to predictions and says when a cohort of them may be judged; judges nothing.

Entities are grouped into cohorts by declared prediction time. A cohort is scored when all of its entities have a label or
have been closed as `never`, or at maturity: labels that come early are a biased sample, whole cohorts are not.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from driftloop.contracts import UNSET_US, KnownTimeBuffer, Message, Record, Watermarks, derive_id, from_wire, watermark
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.monitor.v1.monitor_pb2 import (
    LABEL_STATE_CORRECTED,
    LABEL_STATE_MATCHED,
    LABEL_STATE_NEVER,
    Incident,
    LabelState,
    Score,
)
from driftloop.contracts.serving.v1.serving_pb2 import Prediction
from driftloop.usecase import LabelRefused, UseCase, duration_us, floor_us
from services.monitor.sources import Finding, SourceWatch

SNAPSHOT_VERSION = 1


@dataclass(slots=True)
class _Entity:
    """What is known of one entity so far. `scored_label` is what its score said, once it is written."""

    predicted_for_us: int
    known_at_us: int
    slices: dict[str, str] = field(default_factory=dict)
    prediction: bytes = b""
    label: float | None = None
    label_known_at_us: int = UNSET_US
    label_event_id: str = ""
    never: bool = False
    scored_at_us: int = UNSET_US
    announced_by: str = ""  # the event's id: the cause of a score that rests on nothing else

    @property
    def resolved(self) -> bool:
        return self.label is not None or self.never


class Matching:
    """The heart of the first stage, for one partition of `events` and `predictions`, which are co-partitioned by entity."""

    def __init__(self, use_case: UseCase, partition: int, spread: int, serving_replicas: int) -> None:
        self._use_case = use_case
        self._writer = f"matching/{partition}"
        self._cohort_us = duration_us(use_case.policy.cohort)
        self._keep_us = duration_us(use_case.policy.dedupe_horizon)
        self._watermarks = Watermarks(
            {
                ("events", partition): ["ingest"],
                ("predictions", partition): [f"serving/{replica}" for replica in range(serving_replicas)],
            }
        )
        self._buffer = KnownTimeBuffer()
        self._entities: dict[str, _Entity] = {}
        self._cohorts: dict[int, set[str]] = {}
        self._scored: deque[tuple[int, str]] = deque()  # when which entity was scored, oldest first
        self._sources = SourceWatch(use_case)
        self._closing = {event.name for event in use_case.label.never}

    @property
    def clock_us(self) -> int:
        """The clock that this partition has reached."""
        return self._watermarks.clock_us

    @property
    def pending(self) -> int:
        """Entities that are not scored yet."""
        return sum(len(cohort) for cohort in self._cohorts.values())

    def fold(self, records: list[Record]) -> list[Message[Any]]:
        """Scores of the cohorts that became complete, and the watermark, for a batch of records."""
        out: list[Message[Any]] = []
        for record in records:
            message = record.message
            if not message.is_watermark:
                self._buffer.add(record)
            elif self._watermarks.observe(
                record.topic, record.partition, message.payload.writer, message.payload.known_at_us
            ):
                for due in self._buffer.advance(self.clock_us):
                    self._take(due.message, out)
                for finding in self._sources.silences():
                    out.append(self._incident(finding, self.clock_us, ()))
                self._score_cohorts(out)
                out.append(watermark("scores", 0, self._writer, self.clock_us))
        return out

    def _take(self, message: Message[Any], out: list[Message[Any]]) -> None:
        if isinstance(message.payload, Prediction):
            self._take_prediction(message.payload, message.known_at_us)
        else:
            event: Event = message.payload
            for finding in self._sources.took(event):
                out.append(self._incident(finding, event.known_at_us, (event.id,)))
            self._take_event(event, out)

    def _entity(self, name: str, predicted_for_us: int, known_at_us: int) -> _Entity:
        entity = self._entities.get(name)
        if entity is None:
            entity = self._entities[name] = _Entity(predicted_for_us, known_at_us)
            self._cohorts.setdefault(floor_us(predicted_for_us, self._cohort_us), set()).add(name)
        return entity

    def _take_prediction(self, prediction: Prediction, known_at_us: int) -> None:
        entity = self._entity(prediction.entity, prediction.as_of_us, known_at_us)
        if not entity.prediction and entity.scored_at_us == UNSET_US:  # the first logged answer counts
            entity.prediction = Prediction(
                id=prediction.id,
                as_of_us=prediction.as_of_us,
                model_id=prediction.model_id,
                arm=prediction.arm,
                score=prediction.score,
                class_probabilities=prediction.class_probabilities,
                scores=prediction.scores,
            ).SerializeToString()

    def _take_event(self, event: Event, out: list[Message[Any]]) -> None:
        use_case = self._use_case
        if event.type == use_case.predict.on.name:
            fields = from_wire(event.fields)
            at_us = use_case.prediction_time_us(fields)
            entity = self._entity(event.entity, at_us, event.known_at_us)
            if entity.scored_at_us == UNSET_US:
                self._move(event.entity, entity, at_us)
                entity.slices = {name: str(fields[name]) for name in use_case.slices if name in fields}
                entity.announced_by = entity.announced_by or event.id
        elif event.type == use_case.label.on.name:
            entity = self._entity(event.entity, event.known_at_us, event.known_at_us)
            try:
                label = use_case.label_of(from_wire(event.fields))
            except (LabelRefused, KeyError):  # of a declaration that has changed, or without the label's field
                entity.never = True
                entity.label_event_id = entity.label_event_id or event.id
                return
            changed = event.id != entity.label_event_id and label != entity.label
            if entity.label is None or event.id != entity.label_event_id:
                entity.label, entity.label_known_at_us, entity.label_event_id = label, event.known_at_us, event.id
            if changed and entity.scored_at_us != UNSET_US:
                out.append(self._score(event.entity, entity, LABEL_STATE_CORRECTED, event.known_at_us))
        elif event.type in self._closing:
            entity = self._entity(event.entity, event.known_at_us, event.known_at_us)
            entity.never = True
            entity.label_event_id = entity.label_event_id or event.id

    def _move(self, name: str, entity: _Entity, predicted_for_us: int) -> None:
        before, after = (floor_us(at_us, self._cohort_us) for at_us in (entity.predicted_for_us, predicted_for_us))
        entity.predicted_for_us = predicted_for_us
        if before != after:
            self._cohorts[before].discard(name)
            self._cohorts.setdefault(after, set()).add(name)

    def _score_cohorts(self, out: list[Message[Any]]) -> None:
        clock_us = self.clock_us
        matures_us = self._use_case.label.matures_after_us
        for start_us in sorted(self._cohorts):
            end_us = start_us + self._cohort_us
            if end_us > clock_us:
                break
            names = self._cohorts[start_us]
            if end_us + matures_us <= clock_us or all(self._entities[name].resolved for name in names):
                for name in sorted(names, key=lambda n: (self._entities[n].predicted_for_us, n)):
                    entity = self._entities[name]
                    entity.scored_at_us = clock_us
                    self._scored.append((clock_us, name))
                    out.append(
                        self._score(
                            name, entity, LABEL_STATE_NEVER if entity.label is None else LABEL_STATE_MATCHED, clock_us
                        )
                    )
                del self._cohorts[start_us]
        while self._scored and self._scored[0][0] <= clock_us - self._keep_us:
            del self._entities[self._scored.popleft()[1]]

    def _score(self, name: str, entity: _Entity, state: LabelState, known_at_us: int) -> Message[Score]:
        prediction = Prediction.FromString(entity.prediction)
        payload = Score(
            use_case=self._use_case.name,
            entity=name,
            prediction_id=prediction.id,
            predicted_for_us=entity.predicted_for_us,
            matured_at_us=known_at_us,
            state=state,
            label=entity.label or 0.0,
            label_known_at_us=max(0, entity.label_known_at_us),
            model_id=prediction.model_id,
            arm=prediction.arm,
            as_of_us=prediction.as_of_us,
            scores=prediction.scores,
            slices=entity.slices,
            label_event_id=entity.label_event_id,
            answered=prediction.score,
            answered_class_probabilities=prediction.class_probabilities,
        )
        return Message(
            topic="scores",
            key=name,
            payload=payload,
            id=derive_id(
                "score", self._use_case.name, name, entity.predicted_for_us, int(state), entity.label_event_id
            ),
            source="driftloop/monitor",
            time_us=entity.predicted_for_us,
            known_at_us=known_at_us,
            causes=tuple(filter(None, (prediction.id, entity.label_event_id))) or (entity.announced_by,),
            partition=0,
        )

    def _incident(self, finding: Finding, known_at_us: int, causes: tuple[str, ...]) -> Message[Score]:
        """Tells judging of a fault, through the topic by which it learns of everything else in order of time."""
        field = f"'s {finding.field}" if finding.field else ""
        source = f" of {finding.key}" if finding.key else ""
        state = "is over" if finding.to_us else "begins"
        place = (finding.fault, finding.event_type, finding.field, finding.key, finding.from_us, finding.to_us)
        incident_id = derive_id("incident", self._use_case.name, self._writer, *place)
        incident = Incident(
            use_case=self._use_case.name,
            id=incident_id,
            source="monitor",
            what=f"{finding.event_type}{field}{source}, {finding.fault} {state}: {finding.what}",
            clock_us=known_at_us,
            rule=finding.fault,
            event_type=finding.event_type,
            field=finding.field,
            entity=finding.key,
            stops_training=True,
            from_us=finding.from_us,
            to_us=finding.to_us,
        )
        payload = Score(use_case=self._use_case.name, incident=incident)
        return Message(
            topic="scores",
            key=finding.event_type,
            payload=payload,
            id=derive_id("finding", incident_id),
            source="driftloop/monitor",
            time_us=known_at_us,
            known_at_us=known_at_us,
            causes=causes or (finding.last_id,),
            partition=0,
        )

    def snapshot(self) -> dict[str, Any]:
        """State as plain values."""
        return {
            "version": SNAPSHOT_VERSION,
            "watermarks": self._watermarks.snapshot(),
            "buffer": self._buffer.snapshot(),
            "sources": self._sources.snapshot(),
            "entities": [
                [
                    name,
                    entity.predicted_for_us,
                    entity.known_at_us,
                    dict(entity.slices),
                    entity.prediction,
                    entity.label,
                    entity.label_known_at_us,
                    entity.label_event_id,
                    entity.never,
                    entity.scored_at_us,
                    entity.announced_by,
                ]
                for name, entity in self._entities.items()  # `astuple` copies deeply: ten times as slow
            ],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a snapshot back."""
        self._watermarks.restore(state["watermarks"])
        self._buffer.restore(state["buffer"])
        if "sources" in state:  # absent from checkpoints of before sources were watched
            self._sources.restore(state["sources"])
        self._entities, self._cohorts = {}, {}
        scored: list[tuple[int, str]] = []
        for name, *values in state["entities"]:
            entity = self._entities[name] = _Entity(*values)
            if entity.scored_at_us == UNSET_US:
                self._cohorts.setdefault(floor_us(entity.predicted_for_us, self._cohort_us), set()).add(name)
            else:
                scored.append((entity.scored_at_us, name))
        self._scored = deque(sorted(scored))
