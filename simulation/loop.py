"""Runs the hearts of all five services on a replayed stretch, fault-free, step by step as the replay does against the real ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from driftloop.contracts import UNSET_US, Message, Record, Watermarks, prediction_id, to_wire, topics, watermark
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.monitor.v1.monitor_pb2 import Release, RetrainRequest
from driftloop.contracts.serving.v1.serving_pb2 import Vector
from driftloop.contracts.trainer.v1.trainer_pb2 import Model as ModelMessage
from driftloop.messaging import MemoryBus, MemoryReader
from driftloop.usecase import SECOND_US, ReplayEvent, ReplayStep, UseCase
from services.features.aggregation import Aggregation
from services.features.rekeying import Rekeying
from services.monitor.judging import Judging
from services.monitor.matching import Matching
from services.serving.asking import Asking
from services.serving.assembly import Assembled, Assembly
from services.serving.errors import InvalidRequest
from services.serving.prediction import Asked, answer, log_record
from services.serving.requests import RequestReader
from services.serving.routing import Model, Router
from services.serving.view import FeatureView
from simulation.settings import GivenServing

SPREAD = 2
MAX_ENTITIES = 1_000_000
_TAKEN_MAX = 1_000_000


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


class Heart(Protocol):
    """What a stage hosts."""

    def fold(self, records: list[Record]) -> list[Message[Any]]:
        """Messages that follow from records."""
        ...


@dataclass(frozen=True)
class _Stage:
    """Hearts by partition, or one for all partitions, and what they read."""

    hearts: Sequence[Heart]
    reader: MemoryReader


class Loop:
    """All hearts on one bus.

    `vectors_only`: no model and no monitor, only the vectors of every request. `vectors`: the vector of an entity's request,
    recorded before; the hearts of features do not run then, serving's clock follows ingest's, and events ask for nothing, because
    no vector of theirs is recorded. `kept`: topics whose messages stay on the bus, all by default; what is on the others leaves
    memory once it is read.
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
        self.bus = MemoryBus(use_case.name, SPREAD, encoded=False)
        self.recorded = Recorded()
        self.answered = 0
        self.before_model = 0
        self._trainer = trainer
        self._vectors = vectors
        self._clock_us = UNSET_US
        self._declared = {event.name: event.fields for event in use_case.events}
        self._closing = {event.name for event in use_case.label.never}
        self._assembly = Assembly(use_case)
        self._requests = RequestReader(use_case)
        serving = GivenServing()
        self._asking = Asking(use_case, int(serving.asking_age_s_max * SECOND_US), serving.asking_events_remembered_max)
        self._view = FeatureView(use_case, MAX_ENTITIES)
        self._view_marks = Watermarks({("features", p): [f"aggregation/{p}"] for p in range(SPREAD)})
        self._release = Release(use_case=use_case.name)
        self._router: Router | None = None
        self._models: dict[str, Model] = {}
        self._passing = [] if kept is None else self.bus.places(topics().keys() - kept)
        places = range(SPREAD)
        self._stages: list[_Stage] = []
        if vectors is None:
            self._stages.append(_Stage([Rekeying(use_case, p, SPREAD) for p in places], self.bus.reader(["events"])))
            self._stages.append(_Stage([Aggregation(use_case, p, SPREAD) for p in places], self.bus.reader(["keyed"])))
        self._monitor: list[_Stage] = []
        if not vectors_only:
            matching = [Matching(use_case, p, SPREAD, 1) for p in places]
            self._monitor.append(_Stage(matching, self.bus.reader(["events", "predictions"])))
            judged = self.bus.reader(["predictions", "scores", "models", "commands", "incidents"])
            self._monitor.append(_Stage([Judging(use_case, SPREAD, 1)], judged))
        self._features = self.bus.reader(["features"])
        self._retrain = self.bus.reader(["retrain"])
        self._releases = self.bus.reader(["releases"])

    def run(self, replay: Iterator[ReplayStep], progress: Callable[[ReplayStep], None] | None = None) -> None:
        """Runs every step to quiescence."""
        for step in replay:
            self.bus.delete_before({place: self.bus.end(place) for place in self._passing})
            self._ask(step)
            events = [self._event(event) for event in step.events]
            if self._vectors is None:
                self._answer_events(events)
            self._publish(events)
            self._publish([watermark("events", p, "ingest", step.end_us) for p in range(SPREAD)])
            if self._vectors is not None:
                self._reach(step.end_us)
            self._settle()
            if progress is not None:
                progress(step)

    def _ask(self, step: ReplayStep) -> None:
        asked = []
        for request in step.requests:
            if self._vectors is not None:
                assembled = Assembled.of(self._vectors(request.entity))
            else:
                assembled = self._assembly.assemble(request.fields, self._view.read_all)
                self.recorded.vectors[request.entity] = assembled.vector
            self.recorded.at_us[request.entity] = step.start_us
            asked.append(Asked(request.entity, prediction_id(self.use_case.name, request.entity, ""), assembled))
        self._answer(asked, self._clock_us)

    def _answer_events(self, events: Sequence[Message[Event]]) -> None:
        """Answers the events that ask for a prediction, each from what was known before their step."""
        for each in self._asking.asked(events, self._clock_us):
            try:
                fields = self._requests.read(each.request)
            except InvalidRequest:  # serving sets such an event aside
                continue
            assembled = self._assembly.assemble(fields, self._view.read_all)
            asked = Asked(each.event.entity, each.request.request_id, assembled)
            self._answer([asked], max(self._clock_us, each.event.known_at_us))

    def _answer(self, asked: Sequence[Asked], as_of_us: int) -> None:
        if not asked:
            return
        if self._router is None or not self._router.arms:
            self.before_model += len(asked)
            return
        answered = answer(self.use_case, self._router, asked, as_of_us)
        self.answered += len(answered.responses)
        self._publish([log_record(prediction, "0") for prediction in answered.predictions])

    def _event(self, event: ReplayEvent) -> Message[Event]:
        label = self.use_case.label
        if event.type == label.on.name:
            self.recorded.labels[event.entity] = (self.use_case.label_of(event.fields), event.known_at_us)
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
            for stage in self._stages:
                moved |= self._feed(stage)
            moved |= self._take_features()
            for stage in self._monitor:
                moved |= self._feed(stage)
            moved |= self._take_retrain()
            self._take_releases()

    def _feed(self, stage: _Stage) -> bool:
        batches: dict[int, list[Record]] = {}
        for record in _taken(stage.reader):
            batches.setdefault(record.partition if len(stage.hearts) > 1 else 0, []).append(record)
        for partition, records in batches.items():
            heart = stage.hearts[partition]
            self._publish(heart.fold(records))
            if isinstance(heart, Rekeying):
                heart.take_accepted()
        return bool(batches)

    def _take_features(self) -> bool:
        records = _taken(self._features)
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
        self._publish([watermark("predictions", p, "serving/0", clock_us) for p in range(SPREAD)])

    def _take_retrain(self) -> bool:
        records = _taken(self._retrain)
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
                self._publish([message])
        return bool(records)

    def _take_releases(self) -> None:
        for record in _taken(self._releases):
            if not record.message.is_watermark:
                self._release = record.message.payload
                self._router = Router(self._release, self._models)

    def _publish(self, messages: Iterable[Message[Any]]) -> None:
        for message in messages:
            self.bus.append(message)

    def messages(self, topic: str) -> list[Message[Any]]:
        """What a topic holds, partition by partition, control records included; all of it where the topic is kept."""
        found = [record for place in self.bus.places([topic]) for record in self.bus.read(*place)]
        return [record.message for record in found if isinstance(record, Record)]

    @property
    def view(self) -> FeatureView:
        """Serving's view of the features."""
        return self._view


def _taken(reader: MemoryReader) -> list[Record]:
    return [record for record in reader.poll(0, _TAKEN_MAX) if isinstance(record, Record)]
