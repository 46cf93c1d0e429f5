"""Runs the hearts of all five services on a replayed stretch, fault-free, step by step as the replay does against the real ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from driftloop.contracts import UNSET_US, Message, Watermarks, prediction_id, to_wire, watermark
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.monitor.v1.monitor_pb2 import Release, RetrainRequest
from driftloop.contracts.serving.v1.serving_pb2 import Vector
from driftloop.contracts.trainer.v1.trainer_pb2 import Model as ModelMessage
from driftloop.usecase import ReplayEvent, ReplayStep, UseCase
from services.features.aggregation import Aggregation
from services.features.rekeying import Rekeying
from services.monitor.judging import Judging
from services.monitor.matching import Matching
from services.serving.prediction import Asked, Assembled, Assembly, answer, log_record
from services.serving.routing import Model, Router
from services.serving.view import FeatureView
from simulation.bus import Bus, Reader

SPREAD = 2
MAX_ENTITIES = 1_000_000


class InProcessTrainer(Protocol):
    """Answers a retrain request from what the run has recorded so far."""

    def train(self, request: RetrainRequest, recorded: Recorded) -> tuple[ModelMessage, Model | None]:
        """The answer, and the model if it was published."""
        ...


@dataclass(slots=True)
class Recorded:
    """The vectors asked for so far, answered or not, and the labels known so far, by entity.

    `vectors` stays empty where the loop is given its vectors: who gives them has them.
    """

    at_us: dict[str, int] = field(default_factory=dict)
    vectors: dict[str, Vector] = field(default_factory=dict)
    labels: dict[str, tuple[float, int]] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)


class Loop:
    """All hearts on one bus.

    `vectors_only`: no model and no monitor, only the vectors of every request. `vectors`: the vector of an entity's request,
    recorded before; the hearts of features do not run then, and serving's clock follows ingest's. `kept`: topics whose messages
    stay on the bus, all by default; what is on the others leaves memory once it is read.
    """

    def __init__(
        self,
        use_case: UseCase,
        trainer: InProcessTrainer | None,
        vectors: Callable[[str], Vector] | None = None,
        *,
        vectors_only: bool = False,
        kept: Collection[str] | None = None,
    ) -> None:
        self.use_case = use_case
        self.bus = Bus(SPREAD, kept)
        self.recorded = Recorded()
        self.answered = 0
        self.before_model = 0
        self._trainer = trainer
        self._vectors = vectors
        self._clock_us = UNSET_US
        self._declared = {event.name: event.fields for event in use_case.events}
        self._closing = {event.name for event in use_case.label.never}
        self._assembly = Assembly(use_case)
        self._view = FeatureView(use_case, MAX_ENTITIES)
        self._view_marks = Watermarks({("features", p): [f"aggregation/{p}"] for p in range(SPREAD)})
        self._release = Release(use_case=use_case.name)
        self._router: Router | None = None
        self._models: dict[str, Model] = {}
        places = range(SPREAD)
        self._hearts: list[tuple[Any, Reader]] = []
        if vectors is None:
            self._hearts += [(Rekeying(use_case, p, SPREAD), Reader(self.bus, [("events", p)])) for p in places]
            self._hearts += [(Aggregation(use_case, p, SPREAD), Reader(self.bus, [("keyed", p)])) for p in places]
        self._monitor: list[tuple[Any, Reader]] = []
        if not vectors_only:
            self._monitor = [
                (Matching(use_case, p, SPREAD, 1), Reader(self.bus, [("events", p), ("predictions", p)]))
                for p in places
            ]
            judged = [("predictions", p) for p in places] + [("scores", 0), ("models", 0), ("commands", 0)]
            self._monitor.append((Judging(use_case, SPREAD, 1), Reader(self.bus, judged)))
        self._features = Reader(self.bus, [("features", p) for p in places])
        self._retrain = Reader(self.bus, [("retrain", 0)])
        self._releases = Reader(self.bus, [("releases", 0)])

    def run(self, replay: Iterator[ReplayStep], progress: Callable[[ReplayStep], None] | None = None) -> None:
        """Runs every step to quiescence."""
        for step in replay:
            self._ask(step)
            self.bus.publish([self._event(event) for event in step.events])
            self.bus.publish([watermark("events", p, "ingest", step.end_us) for p in range(SPREAD)])
            if self._vectors is not None:
                self._reach(step.end_us)
            self._settle()
            self.bus.trim()
            if progress is not None:
                progress(step)

    def _ask(self, step: ReplayStep) -> None:
        asked = []
        for request in step.requests:
            if self._vectors is not None:
                assembled = Assembled(self._vectors(request.entity), [])
            else:
                assembled = self._assembly.assemble(request.fields, self._view.read)
                self.recorded.vectors[request.entity] = assembled.vector
            self.recorded.at_us[request.entity] = step.start_us
            asked.append(Asked(request.entity, prediction_id(self.use_case.name, request.entity, ""), assembled))
        if not asked:
            return
        if self._router is None or not self._router.arms:
            self.before_model += len(asked)
            return
        answered = answer(self.use_case, self._router, asked, self._clock_us)
        self.answered += len(answered.responses)
        self.bus.publish([log_record(prediction, "0") for prediction in answered.predictions])

    def _event(self, event: ReplayEvent) -> Message[Event]:
        label = self.use_case.label
        if event.type == label.on.name:
            self.recorded.labels[event.entity] = (float(label.value(event.fields)), event.known_at_us)
        elif event.type in self._closing:
            self.recorded.closed.add(event.entity)
        payload = Event(
            use_case=self.use_case.name,
            id=event.id,
            type=event.type,
            source="replay",
            entity=event.entity,
            event_time_us=event.event_time_us,
            known_at_us=event.known_at_us,
            fields=to_wire(event.fields, self._declared[event.type]),
        )
        return Message("events", event.entity, payload, event.id, "replay", event.event_time_us, event.known_at_us)

    def _settle(self) -> None:
        """Lets every heart take what is new until there is nothing new."""
        moved = True
        while moved:
            moved = False
            for heart, reader in self._hearts:
                moved |= self._feed(heart, reader)
            moved |= self._take_features()
            for heart, reader in self._monitor:
                moved |= self._feed(heart, reader)
            moved |= self._take_retrain()
            self._take_releases()

    def _feed(self, heart: Any, reader: Reader) -> bool:
        records = reader.take()
        if records:
            self.bus.publish(heart.fold(records))
            if isinstance(heart, Rekeying):
                heart.take_accepted()
        return bool(records)

    def _take_features(self) -> bool:
        records = self._features.take()
        for record in records:
            message = record.message
            if not message.is_watermark:
                self._view.apply(message)
            elif self._view_marks.observe(
                "features", record.partition, message.payload.writer, message.payload.known_at_us
            ):
                self._reach(self._view_marks.clock_us)
        return bool(records)

    def _reach(self, clock_us: int) -> None:
        """Serving has come to a clock: it says so behind every answer given before."""
        self._clock_us = clock_us
        self.bus.publish([watermark("predictions", p, "serving/0", clock_us) for p in range(SPREAD)])

    def _take_retrain(self) -> bool:
        records = self._retrain.take()
        for record in records:
            if self._trainer is not None:
                request: RetrainRequest = record.message.payload
                answered, model = self._trainer.train(request, self.recorded)
                if model is not None:
                    self._models[answered.id] = model
                clock_us = request.clock_us
                message = Message(
                    "models", self.use_case.name, answered, answered.id, "driftloop/trainer", clock_us, clock_us
                )
                message.causes = (record.message.id,)
                self.bus.publish([message])
        return bool(records)

    def _take_releases(self) -> None:
        for record in self._releases.take():
            if not record.message.is_watermark:
                self._release = record.message.payload
                self._router = Router(self._release, self._models)

    @property
    def view(self) -> FeatureView:
        """Serving's view of the features."""
        return self._view
