"""Keeps every feature entity's windows and latest values and says what they are from when on; does no I/O.

A value changes when an event changes it or when the clock moves something out of its window. Values do not depend on the
order in which events of one step came in: windows are sorted, sums are exact, ties are broken by event id.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from driftloop.contracts import (
    MAX_CAUSES,
    UNSET_US,
    Message,
    OffsetRange,
    Record,
    Watermarks,
    to_value,
    watermark,
)
from driftloop.contracts.features.v1.features_pb2 import (
    TRIGGER_CLOCK,
    TRIGGER_EVENT,
    FeatureUpdate,
    KeyedEvents,
    Trigger,
    ViewEvents,
)
from driftloop.usecase import FieldValue, UseCase, duration_us
from services.features.entities import Entity, WindowEntity, entity_maker
from services.features.packing import unpacked

SNAPSHOT_VERSION = 2
_PLACES = 1 << 24  # changes that one record of `keyed` may bring about: a sequence is its offset, then a count


class Update(NamedTuple):
    """The values of one feature entity from `known_at_us` on, in the view's declared order; None: missing."""

    key: str
    event_time_us: int
    known_at_us: int
    sequence: int
    id: str
    values: list[FieldValue | None]


@dataclass(frozen=True, slots=True)
class _View:
    """One view, as far as aggregation needs it."""

    make: Callable[[], Entity]
    oldest_us: Callable[[int], int]
    lateness_us: int
    has_numbers: bool


@dataclass(slots=True)
class _Touched:
    """What one record of `keyed` did to an entity: its newest update and what brought it about."""

    entity: Entity
    update: Update
    causes: list[str]
    traceparent: str


class Aggregation:
    """The heart of the second stage, for one partition of `keyed`.

    Every event and every change by the clock makes an update; `updates` has those of the newest fold, by view. The topic gets
    the newest of each entity and record of `keyed`: it is compacted, and the others were replaced before anybody could see them.
    """

    def __init__(self, use_case: UseCase, partition: int, spread: int) -> None:
        self._use_case = use_case.name
        self._partition = partition
        self._writer = f"aggregation/{partition}"
        self._id_prefix = f"{use_case.name}/features/{partition}/"
        lateness_us = duration_us(use_case.policy.lateness)
        self._views = {
            view.name: _View(entity_maker(view), view.oldest_us, lateness_us, view.event.fields[view.of[0]].is_numeric)
            for view in use_case.views
        }
        self._watermarks = Watermarks({("keyed", partition): [f"rekeying/{source}" for source in range(spread)]})
        self._applied: dict[int, int] = {}
        self._entities: dict[str, Entity] = {}
        self._changes: list[tuple[int, str]] = []
        self.updates: dict[str, list[Update]] = {}
        self.late = 0
        self.repeated = 0
        self.overflowed = 0

    @property
    def clock_us(self) -> int:
        """The clock that this partition has reached."""
        return self._watermarks.clock_us

    def __len__(self) -> int:
        return len(self._entities)

    def fold(self, records: list[Record]) -> list[Message[Any]]:
        """Feature updates and watermarks for a batch of records of the partition, in log order."""
        self.updates = {name: [] for name in self._views}
        out: list[Message[Any]] = []
        for record in records:
            if record.message.is_watermark:
                mark = record.message.payload
                if self._watermarks.observe("keyed", self._partition, mark.writer, mark.known_at_us):
                    self._advance(record.offset, out)
            else:
                self._apply(record.offset, record.message.payload, out)
        return out

    def _apply(self, offset: int, events: KeyedEvents, out: list[Message[Any]]) -> None:
        applied = newest = self._applied.get(events.source_partition, UNSET_US)
        touched: dict[str, _Touched] = {}
        sequence = offset * _PLACES
        for columns in events.views:
            self._take(columns, applied, sequence, touched)
            sequence += len(columns.source_offset)
            newest = max(newest, *columns.source_offset[-1:])
        self._applied[events.source_partition] = newest
        for found in touched.values():
            message = self._message(found.entity, found.update, TRIGGER_EVENT)
            message.causes, message.traceparent = tuple(found.causes[-MAX_CAUSES:]), found.traceparent
            if len(found.causes) > MAX_CAUSES:
                message.ranges = (OffsetRange("keyed", self._partition, offset, offset),)
            out.append(message)

    def _take(self, columns: ViewEvents, applied: int, sequence: int, touched: dict[str, _Touched]) -> None:
        """Takes in what one view needs of some events; `sequence` is that of the first."""
        view = self._views.get(columns.view)
        if view is None:
            return
        clock_us, entities = self.clock_us, self._entities
        traceparents = columns.traceparents
        for place, (key, offset, event_id, at_us, known_at_us, values) in enumerate(unpacked(columns)):
            if offset <= applied:
                self.repeated += 1
                continue
            now_us = max(known_at_us, clock_us)
            # What happens now is in every window, so only what is older is looked at.
            if at_us < now_us and (at_us <= now_us - view.lateness_us or at_us <= view.oldest_us(now_us)):
                self.late += 1
                continue
            entity = entities.get(key)
            if entity is None:
                entity = entities[key] = view.make()
            if isinstance(entity, WindowEntity):
                value = values[0] or (0.0 if view.has_numbers else "")  # there is one zero, and nothing absent
                self.overflowed += entity.insert(at_us, event_id, value)
            elif not entity.insert(at_us, event_id, list(values)):
                self.late += 1
                continue
            update = self._update(key, entity, max(entity.known_at_us, now_us), sequence + place)
            held = touched.get(key)
            if held is None:
                held = touched[key] = _Touched(entity, update, [], "")
            held.update = update
            held.causes.append(event_id)
            if place in traceparents:
                held.traceparent = traceparents[place]

    def _advance(self, offset: int, out: list[Message[Any]]) -> None:
        clock_us, changes, sequence = self.clock_us, self._changes, offset * _PLACES
        while changes and changes[0][0] <= clock_us:
            at_us, key = heapq.heappop(changes)
            entity = self._entities.get(key)
            if entity is None or entity.next_change_us != at_us:
                continue
            left = entity.left_by(clock_us)
            message = self._message(entity, self._update(key, entity, clock_us, sequence), TRIGGER_CLOCK)
            sequence += 1
            message.causes = () if left is None else (left,)
            out.append(message)
            if entity.next_change_us is None:
                del self._entities[key]
        out.append(watermark("features", self._partition, self._writer, clock_us))

    def _update(self, key: str, entity: Entity, known_at_us: int, sequence: int) -> Update:
        before_us = entity.next_change_us
        entity.sequence = sequence
        update = self._update_of(key, entity, known_at_us)
        after_us = entity.next_change_us
        if after_us is not None and after_us != before_us:
            heapq.heappush(self._changes, (after_us, key))
        self.updates[entity.view].append(update)
        return update

    def _update_of(self, key: str, entity: Entity, known_at_us: int) -> Update:
        values = entity.values_at(known_at_us)
        sequence = entity.sequence
        return Update(key, entity.event_time_us, known_at_us, sequence, f"{self._id_prefix}{sequence}", values)

    def _message(self, entity: Entity, update: Update, trigger: Trigger) -> Message[FeatureUpdate]:
        payload = FeatureUpdate(
            use_case=self._use_case,
            view=entity.view,
            key=update.key,
            event_time_us=update.event_time_us,
            known_at_us=update.known_at_us,
            values=[to_value(value) for value in update.values],
            sequence=update.sequence,
            trigger=trigger,
        )
        return Message(
            topic="features",
            key=update.key,
            payload=payload,
            id=update.id,
            source="driftloop/features",
            time_us=update.event_time_us,
            known_at_us=update.known_at_us,
            partition=self._partition,
        )

    def current(self) -> list[Message[FeatureUpdate]]:
        """The last update of every entity again: what a store written behind may have missed before a crash."""
        return [
            self._message(entity, self._update_of(key, entity, entity.known_at_us), TRIGGER_EVENT)
            for key, entity in self._entities.items()
        ]

    def snapshot(self) -> dict[str, Any]:
        """State as plain values."""
        return {
            "version": SNAPSHOT_VERSION,
            "watermarks": self._watermarks.snapshot(),
            "applied": list(self._applied.items()),
            "counts": [self.late, self.repeated, self.overflowed],
            "entities": [[key, entity.view, entity.snapshot()] for key, entity in self._entities.items()],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a snapshot back; views that the use case no longer declares are dropped."""
        self._watermarks.restore(state["watermarks"])
        self._applied = dict(state["applied"])
        self.late, self.repeated, self.overflowed = state["counts"]
        self._entities = {}
        for key, name, held in state["entities"]:
            view = self._views.get(name)
            if view is not None:
                entity = self._entities[key] = view.make()
                entity.restore(held)
        self._changes = [
            (entity.next_change_us, key) for key, entity in self._entities.items() if entity.next_change_us is not None
        ]
        heapq.heapify(self._changes)
