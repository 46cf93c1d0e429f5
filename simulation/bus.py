"""Topics in memory: partitions that are only appended to, and readers that take what is new, in one order every time."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from driftloop.contracts import Message, Record, topics
from driftloop.messaging.partitioner import partition_of


class Bus:
    """All topics of one use case. Messages are kept as they are: what an encoder would do is the codec's own test.

    `kept`: topics whose messages stay for whoever asks for them later (all by default).
    """

    def __init__(self, spread: int, kept: Collection[str] | None = None) -> None:
        self._logs: dict[str, list[list[Message[Any]]]] = {
            name: [[] for _ in range(topic.partition_count(spread))] for name, topic in topics().items()
        }
        self._first: dict[tuple[str, int], int] = {}
        self._readers: list[Reader] = []
        self._passing = [] if kept is None else [name for name in self._logs if name not in kept]
        self._partition_of: dict[tuple[str, int], int] = {}

    def publish(self, messages: list[Message[Any]]) -> None:
        """Appends messages to the partitions that they name, or that murmur2 gives their keys."""
        for message in messages:
            log = self._logs[message.topic]
            log[self._partition(message, len(log))].append(message)

    def _partition(self, message: Message[Any], count: int) -> int:
        if message.partition is not None or count == 1:
            return message.partition or 0
        place = (message.key, count)
        if place not in self._partition_of:
            if len(self._partition_of) > 100_000:
                self._partition_of.clear()
            self._partition_of[place] = partition_of(message.key.encode(), count)
        return self._partition_of[place]

    def log(self, topic: str, partition: int = 0) -> list[Message[Any]]:
        """All messages of a partition so far; a record's offset is its index. What `trim` let go is not there."""
        return self._logs[topic][partition]

    def since(self, topic: str, partition: int, offset: int) -> list[Message[Any]]:
        """A partition's messages from an offset on."""
        return self._logs[topic][partition][offset - self._first.get((topic, partition), 0) :]

    def end(self, topic: str, partition: int) -> int:
        """The offset of the next message of a partition."""
        return self._first.get((topic, partition), 0) + len(self._logs[topic][partition])

    def attach(self, reader: Reader) -> None:
        """`trim` waits for this reader."""
        self._readers.append(reader)

    def trim(self) -> None:
        """Lets go of what every reader has read, on topics that are not kept."""
        for topic in self._passing:
            for partition, log in enumerate(self._logs[topic]):
                if not log:
                    continue
                place = (topic, partition)
                read = min((reader.positions.get(place, self.end(*place)) for reader in self._readers), default=0)
                del log[: read - self._first.get(place, 0)]
                self._first[place] = read

    def partitions(self, topic: str) -> int:
        """Number of partitions of a topic."""
        return len(self._logs[topic])


class Reader:
    """Reads some partitions from their start."""

    def __init__(self, bus: Bus, places: list[tuple[str, int]]) -> None:
        self._bus = bus
        self.positions = dict.fromkeys(places, 0)
        bus.attach(self)

    def take(self) -> list[Record]:
        """What is new, partition by partition."""
        records: list[Record] = []
        for (topic, partition), first in self.positions.items():
            if first < self._bus.end(topic, partition):
                fresh = self._bus.since(topic, partition, first)
                records.extend(Record(topic, partition, first + index, message) for index, message in enumerate(fresh))
                self.positions[(topic, partition)] = first + len(fresh)
        return records
