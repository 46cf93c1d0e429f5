"""Packs parts of events into columns, so that what one fold takes for a partition travels as one record; decides nothing."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from driftloop.contracts import MAX_CAUSES, Message, OffsetRange, derive_id
from driftloop.contracts.features.v1.features_pb2 import KeyedEvents, ValueColumn, ViewEvents
from driftloop.usecase import FieldValue, View

PACK_PARTS_MAX = 5_000  # of a record: a tenth of a second of work for whoever reads it
PACK_CHARACTERS_MAX = (
    200_000  # of the texts of a record: at four bytes each, and with the numbers, it stays below 1 MiB
)
_NAN = math.nan


class Parts(NamedTuple):
    """A view's parts of some events, a column each: `rows` are the events' places among those that are packed together.

    `values`: a column per field. `characters`: of the texts of each part.
    """

    view: str
    rows: Sequence[int]
    keys: Sequence[str]
    source_offset: Sequence[int]
    event_id: Sequence[str]
    event_time_us: Sequence[int]
    known_at_us: Sequence[int]
    values: Sequence[Sequence[FieldValue | None]]
    traceparents: Sequence[str]
    characters: Sequence[int]

    def cut(self, first: int, last: int) -> Parts:
        """The parts at some places of the columns."""
        if first == 0 and last >= len(self.rows):
            return self
        return Parts(
            self.view,
            self.rows[first:last],
            self.keys[first:last],
            self.source_offset[first:last],
            self.event_id[first:last],
            self.event_time_us[first:last],
            self.known_at_us[first:last],
            [column[first:last] for column in self.values],
            self.traceparents[first:last],
            self.characters[first:last],
        )


class _ViewColumns:
    """`ViewEvents` while it grows."""

    __slots__ = ("columns", "key", "keys", "numeric", "traceparents", "values")

    def __init__(self, numeric: list[bool]) -> None:
        self.numeric = numeric
        self.keys: dict[str, int] = {}
        self.key: list[int] = []
        self.columns: tuple[list[Any], ...] = ([], [], [], [])  # offset, id, event time, known time
        self.values: list[list[FieldValue | None]] = [[] for _ in numeric]
        self.traceparents: dict[int, str] = {}

    def add(self, parts: Parts) -> None:
        """Adds parts behind those that are there."""
        keys, begin = self.keys, len(self.key)
        self.key += [keys.setdefault(key, len(keys)) for key in parts.keys]
        for column, more in zip(self.columns, parts[3:7], strict=True):
            column += more
        for column, more in zip(self.values, parts.values, strict=True):
            column += more
        if any(parts.traceparents):
            for place, traceparent in enumerate(parts.traceparents, begin):
                if traceparent.endswith("01"):  # nobody looks for a trace that is not sampled
                    self.traceparents[place] = traceparent

    def packed(self, view: str) -> ViewEvents:
        """All that was added."""
        offsets, event_ids, event_times_us, known_at_us = self.columns
        return ViewEvents(
            view=view,
            keys=self.keys,
            key=self.key,
            source_offset=offsets,
            event_id=event_ids,
            event_time_us=event_times_us,
            known_at_us=known_at_us,
            values=[_column(column, numeric) for column, numeric in zip(self.values, self.numeric, strict=True)],
            traceparents=self.traceparents,
        )


class Pack:
    """Parts of events of one partition of `events` on their way to one partition of `keyed`."""

    def __init__(self, use_case: str, views: Sequence[View], source: int, target: int) -> None:
        self._use_case = use_case
        self._source, self._target = source, target
        self._numeric = {view.name: [view.event.fields[name].is_numeric for name in view.of] for view in views}
        self._views: dict[str, _ViewColumns] = {}
        self._parts = self._characters = 0

    @property
    def room(self) -> tuple[int, int]:
        """Parts and characters that may still be added."""
        return PACK_PARTS_MAX - self._parts, PACK_CHARACTERS_MAX - self._characters

    def add(self, parts: Parts) -> None:
        """Adds a view's parts of events; offsets rise, and all parts of an event go into one pack."""
        columns = self._views.get(parts.view)
        if columns is None:
            columns = self._views[parts.view] = _ViewColumns(self._numeric[parts.view])
        columns.add(parts)
        self._parts += len(parts.rows)
        self._characters += sum(parts.characters)

    def take(self) -> Message[KeyedEvents] | None:
        """The record of what was added since the last call, if anything was."""
        if not self._parts:
            return None
        views, self._views = self._views, {}
        self._parts = self._characters = 0
        packed = [columns.packed(name) for name, columns in views.items()]
        gathered = [columns.columns for columns in views.values()]
        first = min(offsets[0] for offsets, *_ in gathered)
        last = max(offsets[-1] for offsets, *_ in gathered)
        events = {
            offset: event_id
            for offsets, event_ids, *_ in gathered
            for offset, event_id in zip(offsets[: MAX_CAUSES + 1], event_ids, strict=False)
        }
        few = len(events) <= MAX_CAUSES
        traceparents = [trace for columns in views.values() for trace in columns.traceparents.values()]
        return Message(
            topic="keyed",
            key=f"events/{self._source}",
            payload=KeyedEvents(source_partition=self._source, views=packed),
            id=derive_id("keyed", self._use_case, self._source, self._target, first, last),
            source="driftloop/features",
            time_us=max(max(times_us) for _, _, times_us, _ in gathered),
            known_at_us=max(max(known_us) for *_, known_us in gathered),
            causes=tuple(events[offset] for offset in sorted(events)) if few else (),
            ranges=() if few else (OffsetRange("events", self._source, first, last),),
            partition=self._target,
            traceparent=traceparents[0] if traceparents else "",
        )


def packed_by_event(pack: Pack, views: Sequence[Parts]) -> Iterator[Message[KeyedEvents]]:
    """Adds the views' parts of some events, event by event as it were; gives the record of a pack as soon as it is full."""
    taken = [0] * len(views)
    while True:
        left = [parts.cut(first, len(parts.rows)) for parts, first in zip(views, taken, strict=True)]
        room, characters_room = pack.room
        fits = sum(len(parts.rows) for parts in left) < room
        if fits and sum(sum(parts.characters) for parts in left) < characters_room:
            for parts in left:
                if parts.rows:
                    pack.add(parts)
            return
        end = _row_that_fills(left, room, characters_room)
        for number, parts in enumerate(left):
            last = bisect_right(parts.rows, end)
            if last:
                pack.add(parts.cut(0, last))
            taken[number] += last
        message = pack.take()
        assert message is not None
        yield message


def _row_that_fills(views: Sequence[Parts], room: int, characters_room: int) -> int:
    """The row of the event with which a pack is full."""
    rows = np.concatenate([np.asarray(parts.rows, dtype=np.int64) for parts in views])
    characters = np.concatenate([np.asarray(parts.characters, dtype=np.int64) for parts in views])
    order = np.argsort(rows, kind="stable")
    parts_full = room - 1
    characters_full = int(np.searchsorted(np.cumsum(characters[order]), characters_room))
    return int(rows[order[max(0, min(parts_full, characters_full, len(order) - 1))]])


def _column(values: Sequence[Any], numeric: bool) -> ValueColumn:
    if numeric:
        return ValueColumn(numbers=[_NAN if value is None else value for value in values])
    return ValueColumn(
        texts=["" if value is None else str(value) for value in values],
        absent=[place for place, value in enumerate(values) if value is None],
    )


def window_values(column: ValueColumn) -> list[float] | list[str]:
    """What a window takes of the events in a record: there is one zero, and nothing absent."""
    if column.numbers:
        return [number + 0.0 for number in column.numbers]
    return list(column.texts)


def latest_values(events: ViewEvents) -> list[tuple[FieldValue | None, ...]]:
    """The values of each event in a record; None: absent."""
    if not events.values:
        return [()] * len(events.key)
    return list(zip(*map(_values, events.values), strict=True))


def _values(column: ValueColumn) -> list[FieldValue | None]:
    if column.numbers:
        return [None if number != number else number for number in column.numbers]
    values: list[FieldValue | None] = list(column.texts)
    for place in column.absent:
        values[place] = None
    return values
