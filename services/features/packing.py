"""Packs parts of events into columns, so that what one fold takes for a partition travels as one record; decides nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from driftloop.contracts import MAX_CAUSES, Message, OffsetRange, derive_id
from driftloop.contracts.features.v1.features_pb2 import KeyedEvents, ValueColumn, ViewEvents
from driftloop.usecase import FieldValue, View

PACK_PARTS_MAX = 5_000  # of a record: a tenth of a second of work for whoever reads it
PACK_CHARACTERS_MAX = (
    200_000  # of the texts of a record: at four bytes each, and with the numbers, it stays below 1 MiB
)
_NAN = math.nan


class _ViewParts:
    """`ViewEvents` while it grows: rows of place in `keys`, offset, id, event time, known time and values."""

    __slots__ = ("has_text", "keys", "numeric", "rows", "traceparents")

    def __init__(self, numeric: list[bool]) -> None:
        self.numeric = numeric
        self.has_text = not all(numeric)
        self.keys: dict[str, int] = {}
        self.rows: list[tuple[int, int, str, int, int, tuple[FieldValue | None, ...]]] = []
        self.traceparents: dict[int, str] = {}


class Pack:
    """Parts of events of one partition of `events` on their way to one partition of `keyed`."""

    def __init__(self, use_case: str, views: Sequence[View], source: int, target: int) -> None:
        self._use_case = use_case
        self._source, self._target = source, target
        self._numeric = {view.name: [view.event.fields[name].is_numeric for name in view.of] for view in views}
        self._views: dict[str, _ViewParts] = {}
        self._parts = self._characters = 0

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be added."""
        return self._parts >= PACK_PARTS_MAX or self._characters >= PACK_CHARACTERS_MAX

    def add(
        self,
        view: str,
        key: str,
        offset: int,
        event_id: str,
        event_time_us: int,
        known_at_us: int,
        values: tuple[FieldValue | None, ...],
        traceparent: str = "",
    ) -> None:
        """Adds a view's part of the event at an offset; offsets rise, and all parts of an event go into one pack."""
        parts = self._views.get(view)
        if parts is None:
            parts = self._views[view] = _ViewParts(self._numeric[view])
        if traceparent.endswith("01"):  # nobody looks for a trace that is not sampled
            parts.traceparents[len(parts.rows)] = traceparent
        keys = parts.keys
        parts.rows.append((keys.setdefault(key, len(keys)), offset, event_id, event_time_us, known_at_us, values))
        self._parts += 1
        self._characters += len(event_id) + len(key)
        if parts.has_text:
            self._characters += sum([len(value) for value in values if isinstance(value, str)])

    def take(self) -> Message[KeyedEvents] | None:
        """The record of what was added since the last call, if anything was."""
        if not self._parts:
            return None
        views, self._views = self._views, {}
        self._parts = self._characters = 0
        packed = [_packed(name, parts) for name, parts in views.items()]
        first = min(columns.source_offset[0] for columns in packed)
        last = max(columns.source_offset[-1] for columns in packed)
        events = {
            offset: event_id
            for columns in packed
            for offset, event_id in zip(columns.source_offset[: MAX_CAUSES + 1], columns.event_id, strict=False)
        }
        few = len(events) <= MAX_CAUSES
        traceparents = [trace for parts in views.values() for trace in parts.traceparents.values()]
        return Message(
            topic="keyed",
            key=f"events/{self._source}",
            payload=KeyedEvents(source_partition=self._source, views=packed),
            id=derive_id("keyed", self._use_case, self._source, self._target, first, last),
            source="driftloop/features",
            time_us=max(max(columns.event_time_us) for columns in packed),
            known_at_us=max(max(columns.known_at_us) for columns in packed),
            causes=tuple(events[offset] for offset in sorted(events)) if few else (),
            ranges=() if few else (OffsetRange("events", self._source, first, last),),
            partition=self._target,
            traceparent=traceparents[0] if traceparents else "",
        )


def _packed(view: str, parts: _ViewParts) -> ViewEvents:
    places, offsets, event_ids, event_times_us, known_at_us, values = zip(*parts.rows, strict=True)
    by_field = zip(*values, strict=True)
    return ViewEvents(
        view=view,
        keys=parts.keys,
        key=places,
        source_offset=offsets,
        event_id=event_ids,
        event_time_us=event_times_us,
        known_at_us=known_at_us,
        values=[_column(column, numeric) for column, numeric in zip(by_field, parts.numeric, strict=True)],
        traceparents=parts.traceparents,
    )


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
