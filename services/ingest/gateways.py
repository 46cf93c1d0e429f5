"""Ingest's I/O with Kafka: messages out, the log's tail and the inbox in; decides nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaException, TopicPartition

from driftloop.contracts import WATERMARK_KEY_PREFIX, Encoded, Message
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.time.v1.time_pb2 import Watermark
from driftloop.messaging import Answers, DeliveryFailed, KafkaSettings, MemoryBus, OnAck, PolledProducer, QueueFull
from services.ingest.admission import TOPIC, WRITER, Admission
from services.ingest.errors import CannotStart

# How soon an answer is noticed: the broker takes about a millisecond, and asking costs microseconds.
_ANSWER_PAUSE_S = 0.001

_READ_S = 0.2
_READ_RECORDS_MAX = 10_000
_SPREAD_EVENLY = 1.25  # how many more records than asked for a tail may have before it is narrowed further
_WATERMARK_KEY = WATERMARK_KEY_PREFIX.encode()


class Outbox:
    """A `Producer` whose answers come on the event loop: while there are any to come, it looks for them by itself.

    A record that comes alone while others are on their way is kept for `gather_s` and leaves with those that come meanwhile, in
    one group; one that nobody is ahead of leaves at once, and so does whatever else is sent, behind what was gathered.
    """

    def __init__(self, producer: PolledProducer, gather_s: float) -> None:
        self._producer = producer
        self._gather_s = gather_s
        self._loop = asyncio.get_running_loop()
        self._answers = Answers(producer, _ANSWER_PAUSE_S)
        self._gathered: list[tuple[Encoded, OnAck]] = []
        self._gathered_topic = ""
        self._gathering: asyncio.TimerHandle | None = None

    @property
    def queued(self) -> int:
        """See `Producer.queued`."""
        return self._producer.queued + len(self._gathered)

    def send(self, message: Message[Any], on_ack: OnAck | None = None) -> None:
        """See `Producer.send`."""
        self._send_gathered()
        self._producer.send(message, on_ack)
        self._answers.expect()

    def send_encoded(self, topic: str, records: Sequence[Encoded], on_ack: OnAck) -> int:
        """See `Producer.send_encoded`."""
        if len(records) == 1 and self._gather_s and self.queued and self._gathered_topic in ("", topic):
            self._gathered.append((records[0], on_ack))
            self._gathered_topic = topic
            if self._gathering is None:
                self._gathering = self._loop.call_later(self._gather_s, self._send_when_gathered)
            return 1
        self._send_gathered()
        queued = self._producer.send_encoded(topic, records, on_ack)
        self._answers.expect()
        return queued

    async def drained(self) -> None:
        """See `Producer.drained`."""
        self._send_gathered()
        await self._producer.drained()

    def look(self) -> None:
        """Tells of the answers and errors that are there."""
        self._answers.look()

    def close(self, timeout_s: float) -> None:
        """See `Producer.close`."""
        self._answers.stop()
        try:
            self._send_gathered()
        except QueueFull as error:
            raise DeliveryFailed(f"{len(self._gathered)} events found no room at the end") from error
        finally:
            if self._gathering is not None:
                self._gathering.cancel()
            self._producer.close(timeout_s)

    def _send_when_gathered(self) -> None:
        self._gathering = None
        try:
            self._send_gathered()
        except QueueFull as error:
            self._gathering = self._loop.call_later(error.retry_after_s, self._send_when_gathered)

    def _send_gathered(self) -> None:
        """Sends what was gathered; QueueFull: not all of it found room, and nothing may overtake what is left."""
        while self._gathered:
            gathered = self._gathered
            told = [on_ack for _, on_ack in gathered]
            try:
                records = [record for record, _ in gathered]
                queued = self._producer.send_encoded(self._gathered_topic, records, partial(_tell, told))
            except DeliveryFailed as error:
                queued = len(told)
                _tell(told, error)
            del told[queued:]
            self._gathered = gathered[queued:]
            self._answers.expect()
        self._gathered_topic = ""


def _tell(told: Sequence[OnAck], lost: Exception | None) -> None:
    for on_ack in told:
        on_ack(lost)


@dataclass(frozen=True, slots=True)
class Logged:
    """A record of `events` as it lies in the log; `appended_at_ms` is the broker's time."""

    partition: int
    appended_at_ms: int
    key: bytes
    value: bytes


Stretches = Mapping[int, tuple[int, int]]
"""First offset and the one behind the last, by partition."""


class Log(Protocol):
    """`events` as far as a start reads it."""

    def bounds(self) -> dict[int, tuple[int, int]]:
        """The stretch that each partition holds."""

    def newest(self, records: int) -> dict[int, int]:
        """Where to begin so that at least so many of the records that were appended last, over all partitions, are read."""

    def read(self, stretches: Stretches) -> Iterator[Logged]:
        """The records of stretches, in order by partition. Raises CannotStart where they do not come in time."""


class KafkaLog:
    """`Log` on Kafka; every call waits for the broker within `timeout_s`."""

    def __init__(self, bootstrap_servers: str, use_case: str, spread: int, settings: KafkaSettings, timeout_s: float):
        self._name = f"{use_case}.{TOPIC}"
        self._spread = spread
        self._timeout_s = timeout_s
        self._settings = settings
        config = settings.client_config(bootstrap_servers, "driftloop-ingest-restore")
        self._consumer = Consumer(
            config
            | {
                "group.id": "driftloop-ingest-restore",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "fetch.wait.max.ms": settings.fetch_wait_ms_max,
                "queued.max.messages.kbytes": settings.read_queue_kbytes_max,
            }
        )

    def close(self) -> None:
        """Ends."""
        self._consumer.close()

    def bounds(self) -> dict[int, tuple[int, int]]:
        """See `Log.bounds`."""
        try:
            return {
                partition: self._consumer.get_watermark_offsets(
                    TopicPartition(self._name, partition), timeout=self._settings.answer_timeout_s
                )
                for partition in range(self._spread)
            }
        except KafkaException as error:
            raise CannotStart(f"the bounds of {TOPIC} are not known: {error.args[0].str()}") from error

    def newest(self, records: int) -> dict[int, int]:
        """See `Log.newest`: found by the time of appending, which is the order in which partitions grew together."""
        bounds = self.bounds()
        now_ms = int(time.time() * 1000)
        too_short_ms, long_enough_ms = 0, 1_000
        starts = self._since(now_ms - long_enough_ms, bounds)
        while _count(starts, bounds) < records and any(starts[p] > oldest for p, (oldest, _) in bounds.items()):
            too_short_ms, long_enough_ms = long_enough_ms, long_enough_ms * 4
            starts = self._since(now_ms - long_enough_ms, bounds)
        while _count(starts, bounds) > records * _SPREAD_EVENLY and long_enough_ms - too_short_ms > 1:
            middle_ms = (too_short_ms + long_enough_ms) // 2
            shorter = self._since(now_ms - middle_ms, bounds)
            if _count(shorter, bounds) < records:
                too_short_ms = middle_ms
            else:
                starts, long_enough_ms = shorter, middle_ms
        return {partition: max(start, bounds[partition][1] - records) for partition, start in starts.items()}

    def _since(self, at_ms: int, bounds: Stretches) -> dict[int, int]:
        asked = [TopicPartition(self._name, partition, max(at_ms, 0)) for partition in bounds]
        try:
            found = self._consumer.offsets_for_times(asked, timeout=self._settings.answer_timeout_s)
        except KafkaException as error:
            raise CannotStart(f"the newest records of {TOPIC} are not known: {error.args[0].str()}") from error
        return {place.partition: place.offset if place.offset >= 0 else bounds[place.partition][1] for place in found}

    def read(self, stretches: Stretches) -> Iterator[Logged]:
        """See `Log.read`."""
        deadline = time.monotonic() + self._timeout_s
        left = {partition for partition, (start, end) in stretches.items() if start < end}
        self._consumer.assign([TopicPartition(self._name, partition, stretches[partition][0]) for partition in left])
        while left:
            if time.monotonic() > deadline:
                raise CannotStart(f"the tail of {TOPIC} was not read in time: partitions {sorted(left)} are left")
            for record in self._consumer.consume(_READ_RECORDS_MAX, _READ_S):
                if (error := record.error()) is not None:
                    if error.fatal():
                        raise CannotStart(f"the tail of {TOPIC} cannot be read: {error.str()}")
                    continue
                partition, offset = record.partition(), record.offset()
                assert partition is not None
                assert offset is not None
                end = stretches[partition][1]
                if offset < end:
                    yield Logged(partition, record.timestamp()[1], record.key() or b"", record.value() or b"")
                if offset >= end - 1:
                    left.discard(partition)


def _count(starts: Mapping[int, int], bounds: Stretches) -> int:
    return sum(end - max(starts[partition], start) for partition, (start, end) in bounds.items())


def restore(admission: Admission, log: Log, records_max: int) -> int:
    """Brings an admission to where the log says it was; returns the number of events remembered. Blocks.

    The ids are those of the newest `records_max` records over all partitions, in the order of their appending. It reads
    further back only where a partition's share holds no watermark of ours: a clock taken from too early a watermark would
    let events in that every reader believes complete.
    """
    bounds, starts = log.bounds(), log.newest(records_max)
    stretches = {p: (max(starts[p], oldest), end) for p, (oldest, end) in bounds.items() if end > oldest}
    events: list[tuple[int, Event]] = []
    is_tail = True
    while stretches:
        clocked = set()
        for record in log.read(stretches):
            if record.key.startswith(_WATERMARK_KEY):
                mark = Watermark.FromString(record.value)
                if mark.writer == WRITER:
                    admission.restore_clock(mark.known_at_us)
                    clocked.add(record.partition)
            elif is_tail:
                events.append((record.appended_at_ms, Event.FromString(record.value)))
        is_tail = False
        stretches = {
            p: (max(bounds[p][0], start - records_max), start)
            for p, (start, _) in stretches.items()
            if p not in clocked and start > bounds[p][0]
        }
    for _, event in sorted(events, key=lambda logged: logged[0]):
        admission.restore(event)
    return len(events)


class MemoryLog:
    """`Log` on a MemoryBus, whose partitions know no time: the newest of each are read."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus

    def bounds(self) -> dict[int, tuple[int, int]]:
        """See `Log.bounds`."""
        return {place[1]: (self._bus.start(place), self._bus.end(place)) for place in self._bus.places([TOPIC])}

    def newest(self, records: int) -> dict[int, int]:
        """See `Log.newest`."""
        return {partition: max(start, end - records) for partition, (start, end) in self.bounds().items()}

    def read(self, stretches: Stretches) -> Iterator[Logged]:
        """See `Log.read`."""
        for partition, (start, end) in stretches.items():
            for record in self._bus.records(TOPIC, partition, start)[: end - start]:
                yield Logged(partition, 0, record.key, record.value)
