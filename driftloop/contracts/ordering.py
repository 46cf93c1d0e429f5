"""Holds records back until the clock has passed them, then gives them in one order, whatever order they came in; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from driftloop.contracts.codec import decode, encode
from driftloop.contracts.message import Record
from driftloop.contracts.watermarks import UNSET_US


def pack(record: Record) -> list[Any]:
    """A record as plain values, for a snapshot."""
    key, value, headers = encode(record.message)
    return [record.topic, record.partition, record.offset, key, value, [list(header) for header in headers]]


def unpack(state: Sequence[Any]) -> Record:
    """The record of `pack`."""
    topic, partition, offset, key, value, headers = state
    return Record(topic, partition, offset, decode(topic, key, value, [(name, data) for name, data in headers]))


class KnownTimeBuffer:
    """Records in (known_at, id) order behind the clock; the first of several with one id is kept.

    What was known at or before the clock has been given out before: it is a repetition after a crash and is dropped.
    The buffer holds what was known since the clock, so its bound is the input's rate times the distance of watermarks.
    """

    def __init__(self) -> None:
        self._held: dict[str, Record] = {}
        self.clock_us = UNSET_US
        self.repeated = 0

    def add(self, record: Record) -> None:
        """Takes a record in."""
        message = record.message
        if message.known_at_us <= self.clock_us or message.id in self._held:
            self.repeated += 1
        else:
            self._held[message.id] = record

    def advance(self, clock_us: int) -> list[Record]:
        """Moves the clock and gives out what was known by then."""
        self.clock_us = max(self.clock_us, clock_us)
        due = [record for record in self._held.values() if record.message.known_at_us <= self.clock_us]
        due.sort(key=lambda record: (record.message.known_at_us, record.message.id))
        for record in due:
            del self._held[record.message.id]
        return due

    def __len__(self) -> int:
        return len(self._held)

    def snapshot(self) -> dict[str, Any]:
        """State as plain values."""
        return {
            "clock_us": self.clock_us,
            "repeated": self.repeated,
            "held": [pack(record) for record in self._held.values()],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a snapshot back."""
        self.clock_us, self.repeated = state["clock_us"], state["repeated"]
        self._held = {record.message.id: record for record in map(unpack, state["held"])}
