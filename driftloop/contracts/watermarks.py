"""The use-case clock of a reader: the minimum watermark over every writer of every input partition; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

UNSET_US = -1


class Watermarks:
    """Tracks watermarks of the expected writers.

    >>> marks = Watermarks({("scores", 0): ["matching/0", "matching/1"]})
    >>> marks.observe("scores", 0, "matching/0", 10), marks.clock_us
    (False, -1)
    >>> marks.observe("scores", 0, "matching/1", 7), marks.clock_us
    (True, 7)
    """

    def __init__(self, expected: Mapping[tuple[str, int], Sequence[str]]) -> None:
        self._marks = {
            (topic, partition, writer): UNSET_US
            for (topic, partition), writers in expected.items()
            for writer in writers
        }
        self.clock_us = UNSET_US

    def observe(self, topic: str, partition: int, writer: str, known_at_us: int) -> bool:
        """Takes one watermark in; True if the clock moved. Older ones (a replay after a crash) and unknown writers change nothing."""
        place = (topic, partition, writer)
        if known_at_us <= self._marks.get(place, known_at_us):
            return False
        self._marks[place] = known_at_us
        newest = min(self._marks.values())
        if newest <= self.clock_us:
            return False
        self.clock_us = newest
        return True

    def behind(self, known_at_us: int) -> list[str]:
        """The inputs that have not reached a time, as "topic/partition by writer", for messages to people."""
        return [
            f"{topic}/{partition} by {writer}"
            for (topic, partition, writer), mark in self._marks.items()
            if mark < known_at_us
        ]

    def snapshot(self) -> list[tuple[str, int, str, int]]:
        """State as plain values."""
        return [(*place, mark) for place, mark in self._marks.items()]

    def restore(self, state: Sequence[tuple[str, int, str, int]]) -> None:
        """Takes a snapshot back; writers that are no longer expected are dropped."""
        for topic, partition, writer, mark in state:
            if (topic, partition, writer) in self._marks:
                self._marks[(topic, partition, writer)] = mark
        self.clock_us = min(self._marks.values())
