"""The in-memory twin of the broker: real partitions and offsets, no network, no clock; real encoding unless speed is all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from driftloop.contracts import MAX_RECORD_BYTES, Message, Record, decode, encode, topics
from driftloop.contracts.codec import Encoded
from driftloop.messaging import interfaces
from driftloop.messaging.dead_letters import Malformed, read_record
from driftloop.messaging.errors import DeliveryFailed, ReadFailed
from driftloop.messaging.outstanding import Outstanding
from driftloop.messaging.partitioner import partition_of

_place_of = lru_cache(maxsize=100_000)(partition_of)  # hashing in Python costs more than the rest of an append


class MemoryBus:
    """Topics of one use case in memory; entities are spread over `spread` partitions.

    `encoded`: every message is kept as a record's bytes, as a broker keeps it. Without, messages are kept as they are, some
    twenty times faster; whoever sends or reads one must not change it afterwards.
    """

    def __init__(self, use_case: str, spread: int, *, encoded: bool = True) -> None:
        self.use_case = use_case
        self.spread = spread
        self._encoded = encoded
        self._counts = {topic.name: topic.partition_count(spread) for topic in topics().values()}
        self._logs: dict[interfaces.TopicPartition, list[Encoded | Message[Any]]] = {
            (topic, partition): [] for topic, count in self._counts.items() for partition in range(count)
        }
        self._starts = dict.fromkeys(self._logs, 0)
        self._committed: dict[tuple[str, interfaces.TopicPartition], int] = {}
        self._grown = threading.Condition()
        self._waiting = 0

    def append(self, message: Message[Any]) -> tuple[int, int]:
        """Writes a message; returns its partition and offset. DeliveryFailed where a broker would refuse it."""
        encoded = encode(message) if self._encoded else None
        size = len(encoded.value) if encoded is not None else message.payload.ByteSize()
        if size > MAX_RECORD_BYTES:
            raise DeliveryFailed(f"message {message.id} for {message.topic} has {size} bytes")
        count = self._counts.get(message.topic)
        partition = message.partition
        if partition is None and count:
            partition = _place_of(message.key.encode(), count) if count > 1 else 0
        if count is None or partition is None or not 0 <= partition < count:
            raise DeliveryFailed(f"message {message.id}: there is no partition {partition} of topic {message.topic}")
        if encoded is not None:
            return partition, self._write((message.topic, partition), encoded)
        read = message if message.partition is None else replace(message, partition=None)
        return partition, self._write((message.topic, partition), read)

    def append_encoded(self, topic: str, encoded: Encoded) -> tuple[int, int]:
        """Writes a record to the partition that its key decides; otherwise as `append`."""
        if len(encoded.value) > MAX_RECORD_BYTES:
            raise DeliveryFailed(f"a record for {topic} has {len(encoded.value)} bytes")
        if not self._encoded:
            return self.append(decode(topic, *encoded))
        count = self._counts.get(topic)
        if count is None:
            raise DeliveryFailed(f"there is no topic {topic}")
        partition = _place_of(encoded.key, count) if count > 1 else 0
        return partition, self._write((topic, partition), encoded)

    def append_raw(self, topic: str, partition: int, encoded: Encoded) -> int:
        """Writes bytes as they are, as any client of a broker can; returns the offset."""
        return self._write((topic, partition), encoded)

    def _write(self, place: interfaces.TopicPartition, stored: Encoded | Message[Any]) -> int:
        with self._grown:
            log = self._logs[place]
            log.append(stored)
            if self._waiting:
                self._grown.notify_all()
            return self._starts[place] + len(log) - 1

    def records(self, topic: str, partition: int, start: int = 0) -> list[Encoded]:
        """What a partition holds from an offset on, as bytes."""
        found = self._stored((topic, partition), start)
        return [stored if isinstance(stored, Encoded) else encode(stored) for stored in found]

    def read(
        self, topic: str, partition: int, start: int = 0, max_records: int | None = None
    ) -> list[Record | Malformed]:
        """What a partition holds from an offset on, as a reader sees it."""
        place = (topic, partition)
        first = max(start, self._starts[place])
        return [
            read_record(topic, partition, offset, stored.key, stored.value, stored.headers, 0)
            if isinstance(stored, Encoded)
            else Record(topic, partition, offset, stored)
            for offset, stored in enumerate(self._stored(place, first, max_records), first)
        ]

    def _stored(
        self, place: interfaces.TopicPartition, start: int, count: int | None = None
    ) -> list[Encoded | Message[Any]]:
        first = max(0, start - self._starts[place])
        return self._logs[place][first : None if count is None else first + count]

    def await_growth(self, is_enough: Callable[[], bool], timeout_s: float) -> None:
        """Returns when something was written that makes `is_enough` true, or after the timeout."""
        with self._grown:
            self._waiting += 1
            try:
                self._grown.wait_for(is_enough, timeout_s)
            finally:
                self._waiting -= 1

    def places(self, names: Collection[str] | None = None) -> list[interfaces.TopicPartition]:
        """Every partition of some topics; of all by default."""
        return [place for place in self._logs if names is None or place[0] in names]

    def start(self, place: interfaces.TopicPartition) -> int:
        """The offset of the oldest record that a partition still holds."""
        return self._starts[place]

    def end(self, place: interfaces.TopicPartition) -> int:
        """The offset behind the newest record of a partition."""
        return self._starts[place] + len(self._logs[place])

    def delete_before(self, offsets: interfaces.Offsets) -> None:
        """Lets go of what lies before an offset of each partition, as retention does."""
        for place, offset in offsets.items():
            count = max(0, min(offset, self.end(place)) - self._starts[place])
            del self._logs[place][:count]
            self._starts[place] += count

    def producer(self) -> MemoryProducer:
        """A producer that writes at once."""
        return MemoryProducer(self)

    def reader(self, names: Sequence[str], group: str | None = None, from_start: bool = True) -> MemoryReader:
        """A reader of all partitions of some topics; a group remembers what it committed."""
        return MemoryReader(self, names, group, from_start)


class MemoryProducer:
    """A `Producer` whose messages are acknowledged before `send` returns."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus
        self._outstanding = Outstanding()
        self._closed = False

    @property
    def queued(self) -> int:
        """See `Producer.queued`."""
        return len(self._outstanding)

    def send(self, message: Message[Any], on_ack: interfaces.OnAck | None = None) -> None:
        """See `Producer.send`."""
        if self._outstanding.failure is not None:
            raise self._outstanding.failure
        if self._closed:
            raise DeliveryFailed(f"message {message.id} came after the producer was closed")
        number = self._outstanding.sent(on_ack)
        try:
            self._bus.append(message)
        except DeliveryFailed as error:
            self._outstanding.answered(number, error)
        else:
            self._outstanding.answered(number, None)

    def send_encoded(self, topic: str, records: Sequence[Encoded], on_ack: interfaces.OnAck) -> int:
        """See `Producer.send_encoded`."""
        if self._closed:
            raise DeliveryFailed(f"{len(records)} records for {topic} came after the producer was closed")
        failure = None
        number = self._outstanding.sent(on_ack, len(records))
        for record in records:
            try:
                self._bus.append_encoded(topic, record)
            except DeliveryFailed as error:
                failure = failure or error
        self._outstanding.answered(number, failure)
        return len(records)

    async def drained(self) -> None:
        """See `Producer.drained`."""
        await self._outstanding.drained()

    def close(self, timeout_s: float) -> None:
        """See `Producer.close`."""
        self._closed = True
        if self._outstanding.failure is not None:
            raise self._outstanding.failure


class MemoryReader:
    """A `Reader` of a MemoryBus."""

    def __init__(self, bus: MemoryBus, names: Sequence[str], group: str | None, from_start: bool) -> None:
        self._bus = bus
        self._group = group
        self._places = bus.places(names)
        missing = set(names) - {topic for topic, _ in self._places}
        if missing:
            raise ReadFailed(f"there is no topic {', '.join(sorted(missing))}")
        self._next: dict[interfaces.TopicPartition, int] = {}
        for place in self._places:
            start = 0 if from_start else bus.end(place)
            self._next[place] = start if group is None else bus._committed.get((group, place), start)

    def poll(self, timeout_s: float, max_records: int) -> list[Record | Malformed]:
        """See `Reader.poll`."""
        if timeout_s > 0:
            self._bus.await_growth(self._behind, timeout_s)
        found: list[Record | Malformed] = []
        for place in self._places:
            start = max(self._next[place], self._bus.start(place))
            if self._bus.end(place) > start and len(found) < max_records:
                taken = self._bus.read(*place, start, max_records - len(found))
                self._next[place] = taken[-1].offset + 1
                found += taken
        return found

    def _behind(self) -> bool:
        return any(self._bus.end(place) > max(self._next[place], self._bus.start(place)) for place in self._places)

    def commit(self, offsets: interfaces.Offsets) -> None:
        """See `Reader.commit`."""
        if self._group is None:
            raise ReadFailed("a reader without a group commits nothing")
        self._bus._committed.update({(self._group, place): offset for place, offset in offsets.items()})

    def seek(self, offsets: Mapping[interfaces.TopicPartition, int]) -> None:
        """See `Reader.seek`."""
        self._next.update(offsets)

    def offset_ranges(self) -> dict[interfaces.TopicPartition, tuple[int, int]]:
        """See `Reader.offset_ranges`."""
        return {place: (self._bus.start(place), self._bus.end(place)) for place in self._places}

    def close(self) -> None:
        """See `Reader.close`."""
        self._places = []
