"""Ingest behind its real doors, on an in-memory bus, with acknowledgements that a test may hold back or refuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from driftloop.contracts import Encoded, Message, decode, to_value
from driftloop.contracts.cloudevents import CloudEventsReader
from driftloop.contracts.event.v1.event_pb2 import Event as WireEvent
from driftloop.contracts.ingest.v1.ingest_pb2_grpc import IngestServiceStub
from driftloop.messaging import DeliveryFailed, MemoryBus, OnAck, QueueFull
from driftloop.usecase import DAY_US, Event, Field, Label, Prediction, UseCase, before
from services.ingest.admission import Admission
from services.ingest.handlers import IngestHandlers, add_ingest_service
from services.ingest.http_door import HttpDoor
from services.ingest.instruments import IngestInstruments
from services.ingest.intake import Intake
from services.ingest.settings import IngestSettings

SPREAD = 2
STEP_US = 900_000_000
NOON_US = 1_362_139_200_000_000  # 2013-03-01 12:00 UTC
TEXT_CHARACTERS_MAX = 2_000_000

announced = Event(
    "announced",
    entity="order",
    fields={
        "shop": Field(str, one_of=("north", "south")),
        "note": Field(str, optional=True, max_length=TEXT_CHARACTERS_MAX),
        "price": Field(float, ge=0, le=500),
        "items": Field(int, ge=1, le=99),
        "gift": Field(bool),
        "due": Field("time"),
    },
)
delivered = Event("delivered", entity="order", fields={"late": Field(bool), "minutes": Field(float, optional=True)})


def orders(clock: str = "replay") -> UseCase:
    """A use case with a field of every kind and bound."""
    return UseCase(
        name="orders",
        events=[announced, delivered],
        predict=Prediction(on=announced, at=before("due", "60m")),
        features=[],
        label=Label(on=delivered, value=lambda e: bool(e["late"])),
        clock="live" if clock == "live" else "replay",
        step_us=STEP_US,
        retention="90d",
        future="5m",
    )


def wire_event(event_id: str = "a1", known_at_us: int = NOON_US + 1, **fields: Any) -> WireEvent:
    """A valid `announced`, but for `fields`, which replace or (None) remove fields of it."""
    plain = {"shop": "north", "price": 12.5, "items": 3, "gift": False} | fields
    event = WireEvent(
        use_case="orders",
        id=event_id,
        type="announced",
        source="test",
        entity="order-7",
        event_time_us=known_at_us - 1,
        known_at_us=known_at_us,
        fields={name: to_value(value) for name, value in plain.items() if value is not None},
    )
    if "due" not in fields:
        event.fields["due"].time_us = known_at_us + DAY_US
    return event


class StubbornProducer:
    """Writes to a bus; `hold` keeps acknowledgements back until `release`, `capacity` bounds the records that wait for them."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus
        self._waiting: list[tuple[int, OnAck]] = []
        self._underway = 0
        self.hold = False
        self.lose: str | None = None
        self.capacity = 1_000_000

    @property
    def queued(self) -> int:
        """Records that wait for their acknowledgement."""
        return self._underway + sum(count for count, _ in self._waiting)

    def send(self, message: Message[Any], on_ack: OnAck | None = None) -> None:
        assert on_ack is not None
        if self.queued >= self.capacity:
            raise QueueFull(0.01)
        if self.lose == message.topic:
            on_ack(DeliveryFailed("the broker is gone"))
            return
        self._bus.append(message)
        self._answer(1, on_ack)

    def send_encoded(self, topic: str, records: Sequence[Encoded], on_ack: OnAck) -> int:
        room = self.capacity - self.queued
        if room <= 0:
            raise QueueFull(0.01)
        if self.lose == topic:
            on_ack(DeliveryFailed("the broker is gone"))
            return len(records)
        for record in records[:room]:
            self._bus.append_encoded(topic, record)
        # As with a broker: no answer before the caller knows how many were queued.
        queued = min(room, len(records))
        self._underway += queued
        asyncio.get_running_loop().call_soon(self._arrived, queued, on_ack)
        return queued

    def _arrived(self, count: int, on_ack: OnAck) -> None:
        self._underway -= count
        self._answer(count, on_ack)

    def _answer(self, count: int, on_ack: OnAck) -> None:
        if self.hold:
            self._waiting.append((count, on_ack))
        else:
            on_ack(None)

    def release(self) -> None:
        """Acknowledges what was held back, and everything from now on."""
        self.hold = False
        waiting, self._waiting = self._waiting, []
        for _, on_ack in waiting:
            on_ack(None)

    def poll(self) -> bool:
        """Answers come by themselves."""
        return False

    async def drained(self) -> None:
        """Nothing here waits for it."""

    def close(self, timeout_s: float) -> None:
        """Nothing to close."""


@dataclass
class Door:
    """The running door and what stands behind it."""

    stub: IngestServiceStub
    bus: MemoryBus
    producer: StubbornProducer
    admission: Admission
    intake: Intake
    http: HttpDoor
    address: str
    url: str

    def written(self, topic: str) -> list[Message[Any]]:
        """The messages of a topic, partition by partition."""
        partitions = range(SPREAD) if topic == "events" else range(1)
        return [decode(topic, r.key, r.value, r.headers) for p in partitions for r in self.bus.records(topic, p)]

    def events(self) -> list[Message[Any]]:
        """The events written, watermarks left out."""
        return [message for message in self.written("events") if not message.is_watermark]


@asynccontextmanager
async def door(use_case: UseCase | None = None, now_us: int = NOON_US, **settings: Any) -> AsyncIterator[Door]:
    """Ingest for `use_case` (orders unless given) on a free port."""
    use_case = use_case or orders()
    known = IngestSettings(**settings)
    bus = MemoryBus(use_case.name, SPREAD)
    producer = StubbornProducer(bus)
    admission = Admission(use_case, SPREAD, known.window_ids_max, known.in_flight_max)
    measured = IngestInstruments()
    intake = Intake(use_case.name, admission, producer, known, measured, lambda: now_us)
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", known.call_bytes_max)])
    add_ingest_service(IngestHandlers(intake, admission, known, measured), server)
    port = server.add_insecure_port("127.0.0.1:0")
    http = HttpDoor(use_case, CloudEventsReader(use_case), intake, admission, known, measured)
    http_port = await http.open("127.0.0.1:0")
    await server.start()
    try:
        address, url = f"127.0.0.1:{port}", f"http://127.0.0.1:{http_port}"
        async with grpc.aio.insecure_channel(address) as channel:
            yield Door(IngestServiceStub(channel), bus, producer, admission, intake, http, address, url)
    finally:
        await http.close()
        await server.stop(None)
