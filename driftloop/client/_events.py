"""Sends events to ingest: one, many, or a stream of any length."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Protocol, Self

import grpc

from driftloop.client._channel import ClientSettings, metadata, open_channel
from driftloop.client._errors import ClockIsLive, EventRejected, InvalidCall, translated
from driftloop.client._violations import Violation
from driftloop.client._wire import PlainValue, wire_fields
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.ingest.v1 import ingest_pb2 as pb
from driftloop.contracts.ingest.v1.ingest_pb2_grpc import IngestServiceStub
from driftloop.usecase import Field, UseCase

Outcome = Literal["accepted", "duplicate", "rejected"]
_OUTCOMES: dict[int, Outcome] = {
    pb.OUTCOME_ACCEPTED: "accepted",
    pb.OUTCOME_DUPLICATE: "duplicate",
    pb.OUTCOME_REJECTED: "rejected",
}
_RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)


class EventLike(Protocol):
    """What can be sent: `NewEvent`, a use case's `ReplayEvent`, or anything with these attributes. Times in microseconds."""

    @property
    def type(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def entity(self) -> str: ...
    @property
    def event_time_us(self) -> int: ...
    @property
    def known_at_us(self) -> int: ...
    @property
    def fields(self) -> Mapping[str, PlainValue]: ...


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to send. `id` is yours and unique in the use case: sending it twice is one event.

    `known_at_us` only where the use case replays history; a live one stamps it.
    """

    type: str
    id: str
    entity: str
    event_time_us: int
    fields: Mapping[str, PlainValue] = field(default_factory=dict)
    known_at_us: int = 0


@dataclass(frozen=True, slots=True)
class EventOutcome:
    """What became of one event. Duplicate: it had come before, by a retry for instance. Rejected: it is in dead letters."""

    event_id: str
    outcome: Outcome
    violations: tuple[Violation, ...] = ()


def _outcome(response: pb.IngestResponse) -> EventOutcome:
    violations = tuple(Violation(v.field, v.rule, v.description) for v in response.violations)
    return EventOutcome(response.event_id, _OUTCOMES[response.outcome], violations)


class EventsClient:
    """Speaks to ingest on `address` (host:port). With a UseCase rather than its name, fields are sent as they are declared.

    Threads may share it. Every call raises Unreachable if the service does not answer within the deadline.
    """

    def __init__(
        self,
        address: str,
        use_case: UseCase | str,
        source: str = "",
        settings: ClientSettings | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        declared = use_case.event_types if isinstance(use_case, UseCase) else {}
        self._declared: Mapping[str, Mapping[str, Field]] = {name: event.fields for name, event in declared.items()}
        self._use_case = use_case.name if isinstance(use_case, UseCase) else use_case
        self._source = source
        self._settings = settings or ClientSettings()
        self._channel = open_channel(address, self._settings, credentials)
        self._stub = IngestServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trail: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; calls under way are cancelled."""
        self._channel.close()

    def wire(self, event: EventLike) -> Event:
        """The event as it is sent."""
        return Event(
            use_case=self._use_case,
            id=event.id,
            type=event.type,
            source=self._source,
            entity=event.entity,
            event_time_us=event.event_time_us,
            known_at_us=event.known_at_us,
            fields=wire_fields(event.fields, self._declared.get(event.type, {})),
        )

    def send(self, event: EventLike) -> EventOutcome:
        """Sends one event: accepted or duplicate, once the broker has it. Raises EventRejected or IdTaken."""
        request = pb.IngestRequest(event=self.wire(event))
        try:
            return _outcome(self._stub.Ingest(request, timeout=self._settings.deadline_s, metadata=metadata()))
        except grpc.RpcError as error:
            raise translated(error, {grpc.StatusCode.INVALID_ARGUMENT: EventRejected}) from error

    def send_batch(self, events: Iterable[EventLike]) -> list[EventOutcome]:
        """Sends events in as few calls as their number and size allow; an outcome for each, in order.

        A rejected event stops nothing. When a call fails, the outcomes of earlier ones are lost, not their events: sending
        the same events again is safe.
        """
        outcomes: list[EventOutcome] = []
        for batch in self._batches(events):
            request = pb.IngestBatchRequest(events=batch)
            try:
                response = self._stub.IngestBatch(request, timeout=self._settings.deadline_s, metadata=metadata())
            except grpc.RpcError as error:
                raise translated(error) from error
            outcomes.extend(_outcome(each) for each in response.responses)
        return outcomes

    def stream(self, events: Iterable[EventLike]) -> Iterator[EventOutcome]:
        """Sends any number of events over a stream and yields their outcomes, in order; holds `stream_events_max` at most.

        Each stretch of so many events has a call, and a deadline, of its own. What a broken call left unanswered is sent
        again, up to `retries` times in a row without an answer in between.
        """
        remaining = iter(events)
        while stretch := [self.wire(event) for event in itertools.islice(remaining, self._settings.stream_events_max)]:
            yield from self._stretch(stretch)

    def advance(self, known_at_us: int) -> int:
        """Moves the clock of a replay to `known_at_us` and returns it, once every partition knows.

        The same time again is fine. Raises ClockBehind for an earlier one, ClockIsLive where there is nothing to move.
        """
        request = pb.AdvanceRequest(use_case=self._use_case, known_at_us=known_at_us)
        try:
            response = self._stub.Advance(request, timeout=self._settings.deadline_s, metadata=metadata())
        except grpc.RpcError as error:
            raise translated(error, {grpc.StatusCode.FAILED_PRECONDITION: ClockIsLive}) from error
        return int(response.clock_us)

    def _batches(self, events: Iterable[EventLike]) -> Iterator[list[Event]]:
        # Half of what a call may carry: room for the framing, and for an event that makes a batch overshoot.
        room = self._settings.message_bytes_max // 2
        batch: list[Event] = []
        size = 0
        for event in map(self.wire, events):
            event_bytes = event.ByteSize()
            if event_bytes > room:
                raise InvalidCall(f"event {event.id!r} has {event_bytes} bytes", grpc.StatusCode.INVALID_ARGUMENT)
            if batch and (size + event_bytes > room or len(batch) >= self._settings.batch_events_max):
                yield batch
                batch, size = [], 0
            batch.append(event)
            size += event_bytes
        if batch:
            yield batch

    def _stretch(self, events: Sequence[Event]) -> Iterator[EventOutcome]:
        answered, failures = 0, 0
        while answered < len(events):
            requests = (pb.IngestRequest(event=event) for event in events[answered:])
            call = self._stub.IngestStream(requests, timeout=self._settings.deadline_s, metadata=metadata())
            try:
                for response in call:
                    answered, failures = answered + 1, 0
                    yield _outcome(response)
            except grpc.RpcError as error:
                failures += 1
                if error.code() not in _RETRIED or failures > self._settings.retries:
                    raise translated(error) from error
                pause_s = self._settings.backoff_initial_s * self._settings.backoff_multiplier ** (failures - 1)
                time.sleep(min(pause_s, self._settings.backoff_max_s))
            finally:
                call.cancel()
