"""Topics in memory: partitions that are only appended to, and readers that take what is new, in one order every time."""

from __future__ import annotations

from typing import Any

from driftloop.contracts import Message, Record, topics
from driftloop.messaging.partitioner import partition_of


class Bus:
    """All topics of one use case. Messages are kept as they are: what an encoder would do is the codec's own test."""

    def __init__(self, spread: int) -> None:
        self._logs: dict[str, list[list[Message[Any]]]] = {
            name: [[] for _ in range(topic.partition_count(spread))] for name, topic in topics().items()
        }
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
        """All messages of a partition so far; a record's offset is its index."""
        return self._logs[topic][partition]

    def partitions(self, topic: str) -> int:
        """Number of partitions of a topic."""
        return len(self._logs[topic])


class Reader:
    """Reads some partitions from their start."""

    def __init__(self, bus: Bus, places: list[tuple[str, int]]) -> None:
        self._bus = bus
        self._next = dict.fromkeys(places, 0)

    def take(self) -> list[Record]:
        """What is new, partition by partition."""
        records: list[Record] = []
        for (topic, partition), first in self._next.items():
            log = self._bus.log(topic, partition)
            if first < len(log):
                records.extend(
                    Record(topic, partition, first + index, message) for index, message in enumerate(log[first:])
                )
                self._next[(topic, partition)] = len(log)
        return records
