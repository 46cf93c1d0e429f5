"""What a run looks like from outside: every record that the broker took, in the order in which it took them, and what callers know."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from driftloop.artifacts import ArtifactStore
from driftloop.contracts import Message, Record
from driftloop.messaging import partition_of
from driftloop.usecase import UseCase
from simulation.caller import Told
from simulation.hosted.machine import SPREAD
from simulation.trips import Trips


@dataclass
class Observed:
    """Grows with the run. `fresh`: records since the invariants were last checked; `first`: of each id the first record."""

    use_case: UseCase
    stretch: Trips
    store: ArtifactStore
    told: Told
    clock_us: int = -1
    """The end of the newest step that the loop has followed to."""
    fresh: list[Record] = field(default_factory=list)
    first: dict[tuple[str, str], Record] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    """Ids of all messages."""
    causes_missing: dict[str, str] = field(default_factory=dict)
    """Ids that were named as causes and are not there (yet: partitions do not wait for each other), and by what."""
    broken_marks: list[str] = field(default_factory=list)
    marks: dict[tuple[str, int, str], int] = field(default_factory=dict)
    sizes: dict[str, dict[str, int]] = field(default_factory=dict)
    """Of each heart what it holds, counted in its newest checkpoint."""
    _by_topic: defaultdict[str, list[Message[Any]]] = field(default_factory=lambda: defaultdict(list))

    def take(self, record: Record) -> None:
        """A record that the broker took."""
        message = record.message
        self.fresh.append(record)
        if message.is_watermark:
            place = (record.topic, record.partition, message.payload.writer)
            self.marks[place] = max(self.marks.get(place, -1), message.payload.known_at_us)
            return
        key = (record.topic, message.id)
        if key in self.first:
            return
        self.first[key] = record
        self._by_topic[record.topic].append(message)
        self._check_mark(record)
        self.seen.add(message.id)
        self.causes_missing.pop(message.id, None)
        if record.topic != "dead-letters":  # which name what was refused
            for cause in message.causes:
                if cause not in self.seen:
                    self.causes_missing.setdefault(cause, f"{where(record)} {message.id}")

    def _check_mark(self, record: Record) -> None:
        """A watermark promises that nothing new with an earlier known time follows it on its partition."""
        for (topic, partition, writer), mark in self.marks.items():
            late = (topic, partition) == (record.topic, record.partition) and record.message.known_at_us <= mark
            if late and topic in PROMISED and _is_by(writer, record.message):
                self.broken_marks.append(
                    f"{where(record)} {record.message.id}: known at {record.message.known_at_us}, "
                    f"{writer} had promised that nothing up to {mark} follows"
                )

    def of(self, topic: str) -> list[Message[Any]]:
        """The messages of a topic in the order of their first appearance, each id once."""
        return self._by_topic[topic]

    def has(self, topic: str, message_id: str) -> bool:
        """Whether a topic holds an id."""
        return (topic, message_id) in self.first

    def ids(self) -> Mapping[str, set[str]]:
        """Ids by topic."""
        return {topic: {message.id for message in messages} for topic, messages in self._by_topic.items()}


PROMISED = ("events", "features", "predictions", "scores")
"""Topics on which a writer's watermark promises that no new id follows. Not `keyed`: after a crash the same events are packed
anew, under other ids. Not `releases`: answers of trainer and commands have no place in time."""


def _is_by(writer: str, message: Message[Any]) -> bool:
    """Whether a message is of the writer of a watermark; the writers of one partition are told apart by what they say."""
    stage, _, number = writer.partition("/")
    if stage == "matching":
        return partition_of(message.key.encode(), SPREAD) == int(number)
    return True


def where(record: Record) -> str:
    """A record's place, for people."""
    return f"{record.topic}/{record.partition}@{record.offset}"
