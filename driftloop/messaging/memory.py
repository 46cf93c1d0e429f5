"""The in-memory twin of the broker: real encoding, real partitions and offsets, no network, no clock."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from driftloop.contracts import MAX_RECORD_BYTES, Message, Record, encode, topics
from driftloop.contracts.codec import Encoded
from driftloop.messaging import interfaces
from driftloop.messaging.dead_letters import Malformed, read_record
from driftloop.messaging.errors import DeliveryFailed, ReadFailed
from driftloop.messaging.outstanding import Outstanding
from driftloop.messaging.partitioner import partition_of


class MemoryBus:
    """Topics of one use case in memory; entities are spread over `spread` partitions."""

    def __init__(self, use_case: str, spread: int) -> None:
        self.use_case = use_case
        self.spread = spread
        self._logs: dict[interfaces.TopicPartition, list[Encoded]] = {
            (topic.name, partition): []
            for topic in topics().values()
            for partition in range(topic.partition_count(spread))
        }
        self._counts = {topic.name: topic.partition_count(spread) for topic in topics().values()}
        self._committed: dict[tuple[str, interfaces.TopicPartition], int] = {}
        self._grown = threading.Condition()

    def append(self, message: Message[Any]) -> tuple[int, int]:
        """Writes a message; returns its partition and offset. DeliveryFailed where a broker would refuse it."""
        encoded = encode(message)
        if len(encoded.value) > MAX_RECORD_BYTES:
            raise DeliveryFailed(f"message {message.id} for {message.topic} has {len(encoded.value)} bytes")
        count = self._counts.get(message.topic)
        partition = partition_of(encoded.key, count) if message.partition is None and count else message.partition
        if count is None or partition is None or not 0 <= partition < count:
            raise DeliveryFailed(f"message {message.id}: there is no partition {partition} of topic {message.topic}")
        return partition, self.append_raw(message.topic, partition, encoded)

    def append_raw(self, topic: str, partition: int, encoded: Encoded) -> int:
        """Writes bytes as they are, as any client of a broker can; returns the offset."""
        with self._grown:
            log = self._logs[(topic, partition)]
            log.append(encoded)
            self._grown.notify_all()
            return len(log) - 1

    def records(self, topic: str, partition: int, start: int = 0) -> list[Encoded]:
        """What a partition holds from an offset on."""
        return self._logs[(topic, partition)][start:]

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
        self._places = [place for place in bus._logs if place[0] in set(names)]
        missing = set(names) - {topic for topic, _ in self._places}
        if missing:
            raise ReadFailed(f"there is no topic {', '.join(sorted(missing))}")
        self._next: dict[interfaces.TopicPartition, int] = {}
        for place in self._places:
            start = 0 if from_start else len(bus._logs[place])
            self._next[place] = start if group is None else bus._committed.get((group, place), start)

    def poll(self, timeout_s: float, max_records: int) -> list[Record | Malformed]:
        """See `Reader.poll`."""
        with self._bus._grown:
            self._bus._grown.wait_for(self._behind, timeout_s)
            found: list[Record | Malformed] = []
            for place in self._places:
                start = self._next[place]
                taken = self._bus._logs[place][start : start + max_records - len(found)]
                self._next[place] += len(taken)
                topic, partition = place
                found += [
                    read_record(topic, partition, start + n, e.key, e.value, e.headers, 0) for n, e in enumerate(taken)
                ]
            return found

    def _behind(self) -> bool:
        return any(len(self._bus._logs[place]) > self._next[place] for place in self._places)

    def commit(self, offsets: interfaces.Offsets) -> None:
        """See `Reader.commit`."""
        if self._group is None:
            raise ReadFailed("a reader without a group commits nothing")
        self._bus._committed.update({(self._group, place): offset for place, offset in offsets.items()})

    def seek(self, offsets: Mapping[interfaces.TopicPartition, int]) -> None:
        """See `Reader.seek`."""
        self._next.update(offsets)

    def end_offsets(self) -> dict[interfaces.TopicPartition, int]:
        """See `Reader.end_offsets`."""
        return {place: len(self._bus._logs[place]) for place in self._places}

    def close(self) -> None:
        """See `Reader.close`."""
        self._places = []
