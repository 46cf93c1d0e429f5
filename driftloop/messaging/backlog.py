"""What topics held when reading began, and whether all of it has been read; reads nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from driftloop.contracts import Record
from driftloop.messaging.dead_letters import Malformed
from driftloop.messaging.interfaces import TopicPartition


class Backlog:
    """State: of each partition that held something, the end that is still to be reached.

    ranges: as `Reader.offset_ranges` gives them. Partitions that retention has emptied are no part of it: nothing of them can come.
    """

    def __init__(self, ranges: Mapping[TopicPartition, tuple[int, int]]) -> None:
        self._ends = {place: end for place, (first, end) in ranges.items() if end > first}

    def __bool__(self) -> bool:
        return bool(self._ends)

    def __str__(self) -> str:
        return ", ".join(f"{topic}/{partition} up to {end}" for (topic, partition), end in sorted(self._ends.items()))

    def read(self, records: Iterable[Record | Malformed]) -> None:
        """These have been read: partitions whose end they reach are done."""
        for record in records if self._ends else ():
            place = (record.topic, record.partition)
            if record.offset + 1 >= self._ends.get(place, record.offset + 2):
                del self._ends[place]
