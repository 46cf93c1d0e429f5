"""Packs parts of events into columns, so that what one fold takes for a partition travels as one record; decides nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from driftloop.contracts import MAX_CAUSES, Message, OffsetRange, derive_id
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.features.v1.features_pb2 import KeyedEvents, ValueColumn, ViewEvents
from driftloop.usecase import FieldValue, View

PACK_PARTS_MAX = 5_000  # of a record: a tenth of a second of work for whoever reads it
PACK_CHARACTERS_MAX = (
    200_000  # of the texts of a record: at four bytes each, and with the numbers, it stays below 1 MiB
)
_NAN = math.nan


class Part(NamedTuple):
    """What one view needs of one event. `values`: of the view's `of` fields; None: absent. Times in microseconds."""

    key: str
    source_offset: int
    event_id: str
    event_time_us: int
    known_at_us: int
    values: tuple[FieldValue | None, ...]


class _ViewColumns:
    """`ViewEvents` while it grows."""

    __slots__ = ("event_ids", "event_times_us", "keys", "known_at_us", "offsets", "places", "traceparents", "values")

    def __init__(self) -> None:
        self.keys: dict[str, int] = {}
        self.places: list[int] = []
        self.offsets: list[int] = []
        self.event_ids: list[str] = []
        self.event_times_us: list[int] = []
        self.known_at_us: list[int] = []
        self.values: list[tuple[FieldValue | None, ...]] = []
        self.traceparents: dict[int, str] = {}


class Pack:
    """Parts of events of one partition of `events` on their way to one partition of `keyed`."""

    def __init__(self, use_case: str, views: Sequence[View], source: int, target: int) -> None:
        self._use_case = use_case
        self._source, self._target = source, target
        self._numeric = {view.name: [view.event.fields[name].is_numeric for name in view.of] for view in views}
        self._columns: dict[str, _ViewColumns] = {}
        self._parts = self._characters = 0

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be added."""
        return self._parts >= PACK_PARTS_MAX or self._characters >= PACK_CHARACTERS_MAX

    def add(
        self, view: str, key: str, offset: int, event: Event, values: tuple[FieldValue | None, ...], traceparent: str
    ) -> None:
        """Adds a view's part of the event at an offset; offsets rise, and all parts of an event go into one pack."""
        columns = self._columns.get(view)
        if columns is None:
            columns = self._columns[view] = _ViewColumns()
        if traceparent:
            columns.traceparents[len(columns.places)] = traceparent
        event_id, keys = event.id, columns.keys
        columns.places.append(keys.setdefault(key, len(keys)))
        columns.offsets.append(offset)
        columns.event_ids.append(event_id)
        columns.event_times_us.append(event.event_time_us)
        columns.known_at_us.append(event.known_at_us)
        columns.values.append(values)
        self._parts += 1
        self._characters += len(event_id) + len(key) + sum([len(v) for v in values if isinstance(v, str)])

    def take(self) -> Message[KeyedEvents] | None:
        """The record of what was added since the last call, if anything was."""
        if not self._parts:
            return None
        views, self._columns = self._columns, {}
        self._parts = self._characters = 0
        events = {
            offset: event_id
            for columns in views.values()
            for offset, event_id in zip(columns.offsets, columns.event_ids, strict=True)
        }
        first, last = min(events), max(events)
        few = len(events) <= MAX_CAUSES
        traceparents = [trace for columns in views.values() for trace in columns.traceparents.values()]
        payload = KeyedEvents(
            source_partition=self._source, views=[self._packed(name, columns) for name, columns in views.items()]
        )
        return Message(
            topic="keyed",
            key=f"events/{self._source}",
            payload=payload,
            id=derive_id("keyed", self._use_case, self._source, self._target, first, last),
            source="driftloop/features",
            time_us=max(max(columns.event_times_us) for columns in views.values()),
            known_at_us=max(max(columns.known_at_us) for columns in views.values()),
            causes=tuple(events[offset] for offset in sorted(events)) if few else (),
            ranges=() if few else (OffsetRange("events", self._source, first, last),),
            partition=self._target,
            traceparent=traceparents[0] if traceparents else "",
        )

    def _packed(self, view: str, columns: _ViewColumns) -> ViewEvents:
        by_field = zip(*columns.values, strict=True)
        return ViewEvents(
            view=view,
            keys=columns.keys,
            key=columns.places,
            source_offset=columns.offsets,
            event_id=columns.event_ids,
            event_time_us=columns.event_times_us,
            known_at_us=columns.known_at_us,
            values=[_column(values, numeric) for values, numeric in zip(by_field, self._numeric[view], strict=True)],
            traceparents=columns.traceparents,
        )


def _column(values: Sequence[Any], numeric: bool) -> ValueColumn:
    if numeric:
        return ValueColumn(numbers=[_NAN if value is None else value for value in values])
    return ValueColumn(
        texts=["" if value is None else str(value) for value in values],
        absent=[place for place, value in enumerate(values) if value is None],
    )


def unpacked(events: ViewEvents) -> Iterator[Part]:
    """The parts in a record's columns of one view, in the order of `events`."""
    keys = list(events.keys)
    columns = [_values(column) for column in events.values]
    rows = zip(*columns, strict=True)
    return map(
        Part._make,
        zip(
            [keys[place] for place in events.key],
            events.source_offset,
            events.event_id,
            events.event_time_us,
            events.known_at_us,
            rows,
            strict=True,
        ),
    )


def _values(column: ValueColumn) -> list[FieldValue | None]:
    if column.numbers:
        return [None if number != number else number for number in column.numbers]
    values: list[FieldValue | None] = list(column.texts)
    for place in column.absent:
        values[place] = None
    return values
