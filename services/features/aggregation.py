"""Keeps every feature entity's windows and latest values and says what they are from when on; does no I/O.

A value changes when an event changes it or when the clock moves something out of its window. Values do not depend on the
order in which events of one step came in: windows are sorted, sums are exact, ties are broken by event id.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from driftloop.contracts import (
    MAX_CAUSES,
    UNSET_US,
    Message,
    OffsetRange,
    Record,
    Watermarks,
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
from driftloop.usecase import FieldValue, Latest, Since, UseCase, View, Window, duration_us
from services.features.entities import LatestEntity, Part, SinceEntity, WindowEntity, WindowPlan, too_late
from services.features.packing import latest_values, window_values
from services.features.panes import PanesEntity, PanesPlan

SNAPSHOT_VERSION = 2
_PLACES = 1 << 24  # changes that one record of `keyed` may bring about: a sequence is its offset, then a count


Entity = LatestEntity | WindowEntity | PanesEntity


class Update(NamedTuple):
    """The values of one feature entity from `known_at_us` on, in the view's declared order; None: missing."""

    key: str
    event_time_us: int
    known_at_us: int
    sequence: int
    id: str
    values: list[FieldValue | None]


def entity_maker(view: View) -> Callable[[], Entity]:
    """Makes entities of a view, which hold nothing yet."""
    if isinstance(view, Window):
        if view.sketch is not None:
            return partial(PanesEntity, PanesPlan(view))
        return partial(WindowEntity, WindowPlan(view))
    if isinstance(view, Since):
        return partial(SinceEntity, view)
    assert isinstance(view, Latest)
    return partial(LatestEntity, view)


@dataclass(frozen=True, slots=True)
class _View:
    """One view, as far as aggregation needs it. `shape`: what an entity's state and values depend on, as plain values."""

    declared: View
    make: Callable[[], Entity]
    lateness_us: int
    shape: list[Any]


def _shape(view: View) -> list[Any]:
    if not isinstance(view, Window):
        return [list(view.of), list(view.ages_us)]
    sketch = view.sketch
    errors = [] if sketch is None else [sketch.pane_us, sketch.quantile_error, sketch.distinct_error, list(view.stats)]
    return [errors, list(view.ages_us), list(view.stats)]


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
        self._views = {view.name: _View(view, entity_maker(view), lateness_us, _shape(view)) for view in use_case.views}
        self._watermarks = Watermarks({("keyed", partition): [f"rekeying/{source}" for source in range(spread)]})
        self._applied: dict[int, int] = {}
        self._entities: dict[str, Entity] = {}
        self._changes: list[tuple[int, str]] = []
        # What a snapshot that was begun has not told yet: entities, and the states of those that have changed since.
        self._untold: dict[str, Entity] = {}
        self._kept: list[list[Any]] = []
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
        sequence = offset * _PLACES
        for columns in events.views:
            self._take(columns, applied, offset, sequence, out)
            sequence += len(columns.source_offset)
            newest = max(newest, *columns.source_offset[-1:])
        self._applied[events.source_partition] = newest

    def _take(self, columns: ViewEvents, applied: int, offset: int, sequence: int, out: list[Message[Any]]) -> None:
        """Takes in what one view needs of some events, entity by entity; `sequence` is that of the first."""
        view = self._views.get(columns.view)
        if view is None:
            return
        entities, updates, prefix, untold = self._entities, self.updates[columns.view], self._id_prefix, self._untold
        part = self._part(view.declared, columns)
        rows_of = self._rows(view, columns, applied, part)
        ids, traceparents = part.ids, columns.traceparents
        for key, rows in zip(columns.keys, rows_of, strict=True):
            if not rows:
                continue
            entity = entities.get(key)
            if entity is None:
                entity = entities[key] = view.make()
            elif untold:
                self._keep(key)
            changes, dropped = entity.fold(rows, part)
            if dropped:
                self._count(entity, dropped)
                if not changes:
                    continue
            for row, event_time_us, known_at_us, values in changes:
                place = sequence + row
                updates.append(Update(key, event_time_us, known_at_us, place, f"{prefix}{place}", values))
            entity.sequence = place
            self._expect(key, entity)
            message = self._message(entity, updates[-1], TRIGGER_EVENT)
            message.causes = tuple([ids[row] for row, *_ in changes[-MAX_CAUSES:]])
            if len(changes) > MAX_CAUSES:
                message.ranges = (OffsetRange("keyed", self._partition, offset, offset),)
            if traceparents:
                traced = [traceparents[row] for row, *_ in changes if row in traceparents]
                message.traceparent = traced[-1] if traced else ""
            out.append(message)

    def _count(self, entity: Entity, dropped: int) -> None:
        if isinstance(entity, WindowEntity):
            self.overflowed += dropped
        else:
            self.late += dropped

    def _expect(self, key: str, entity: Entity) -> None:
        """Sees to it that an entity is looked at when the clock changes it.

        An entity that events have put off is looked at too early, once, and expected anew then: were every event's own time
        remembered, a key would take as much room as it has events within their age.
        """
        due_us, expected_us = entity.next_change_us, entity.expected_us
        if due_us is not None and (expected_us is None or due_us < expected_us):
            entity.expected_us = due_us
            heapq.heappush(self._changes, (due_us, key))

    def _rows(self, view: _View, columns: ViewEvents, applied: int, part: Part) -> list[list[int]]:
        """The rows that count, of each of the columns' keys, in their order; the others are counted."""
        rows: list[list[int]] = [[] for _ in columns.keys]
        places = columns.key
        repeated = bisect_right(columns.source_offset, applied)
        self.repeated += repeated
        late: Sequence[bool] = ()
        if part.at_us != part.now_us:  # what happens now is in every window
            columns_us = np.array(part.at_us, dtype=np.int64), np.array(part.now_us, dtype=np.int64)
            found = too_late(view.declared, view.lateness_us, *columns_us)
            found[:repeated] = False
            if found.any():
                self.late += int(found.sum())
                late = found.tolist()
        for row, place in enumerate(places):
            if row >= repeated and not (late and late[row]):
                rows[place].append(row)
        return rows

    def _part(self, view: View, columns: ViewEvents) -> Part:
        known_us, clock_us = list(columns.known_at_us), self.clock_us
        now_us = known_us if min(known_us, default=clock_us) >= clock_us else [max(us, clock_us) for us in known_us]
        values: Sequence[Any]
        if isinstance(view, Window):
            values = window_values(columns.values[0])
        else:
            values, width = latest_values(columns), len(view.of)
            if len(columns.values) != width:  # keyed before fields of the view were added at its end, or taken away
                values = [(*each, *[None] * width)[:width] for each in values]
        return Part(list(columns.event_time_us), columns.event_id, values, now_us)

    def _advance(self, offset: int, out: list[Message[Any]]) -> None:
        clock_us, changes, sequence = self.clock_us, self._changes, offset * _PLACES
        while changes and changes[0][0] <= clock_us:
            at_us, key = heapq.heappop(changes)
            entity = self._entities.get(key)
            if entity is None or entity.expected_us != at_us:
                continue
            entity.expected_us = None
            if entity.next_change_us != at_us:
                self._expect(key, entity)
                continue
            self._keep(key)
            left = entity.left_by(clock_us)
            entity.sequence = sequence
            update = self._update_of(key, entity, clock_us)
            self._expect(key, entity)
            self.updates[entity.view].append(update)
            message = self._message(entity, update, TRIGGER_CLOCK)
            sequence += 1
            message.causes = () if left is None else (left,)
            out.append(message)
            if entity.next_change_us is None:
                del self._entities[key]
        out.append(watermark("features", self._partition, self._writer, clock_us))

    def _update_of(self, key: str, entity: Entity, known_at_us: int) -> Update:
        values = entity.values_at(known_at_us)
        sequence = entity.sequence
        return Update(key, entity.event_time_us, known_at_us, sequence, f"{self._id_prefix}{sequence}", values)

    def _message(self, entity: Entity, update: Update, trigger: Trigger) -> Message[FeatureUpdate]:
        key, event_time_us, known_at_us, sequence, update_id, values = update
        payload = FeatureUpdate(
            use_case=self._use_case,
            view=entity.view,
            key=key,
            event_time_us=event_time_us,
            known_at_us=known_at_us,
            sequence=sequence,
            trigger=trigger,
        )
        add = payload.values.add
        for value in values:  # in place: `to_value` and a list of them would cost as much as all the rest
            wire = add()
            if isinstance(value, float):
                wire.number = value
            elif value is not None:
                wire.text = str(value)
        return Message(
            "features",
            key,
            payload,
            update_id,
            "driftloop/features",
            event_time_us,
            known_at_us,
            partition=self._partition,
        )

    def __contains__(self, key: str) -> bool:
        return key in self._entities

    def keys(self) -> list[str]:
        """The keys of all entities."""
        return list(self._entities)

    def current(self, keys: Iterable[str]) -> list[Message[FeatureUpdate]]:
        """The last update of some entities again, of those that are still held: what a store written behind may have missed."""
        held = [(key, entity) for key in keys if (entity := self._entities.get(key)) is not None]
        return [
            self._message(entity, self._update_of(key, entity, entity.known_at_us), TRIGGER_EVENT)
            for key, entity in held
        ]

    def snapshot(self) -> dict[str, Any]:
        """State as plain values."""
        return {**self._short(), "entities": [_told(*held) for held in self._entities.items()]}

    def begin_snapshot(self) -> dict[str, Any]:
        """See `Heart.begin_snapshot`: an entity that is about to change is told before it does."""
        return {**self._short(), "entities": self._telling()}

    def _short(self) -> dict[str, Any]:
        return {
            "version": SNAPSHOT_VERSION,
            "watermarks": self._watermarks.snapshot(),
            "applied": list(self._applied.items()),
            "counts": [self.late, self.repeated, self.overflowed],
            "shapes": {name: view.shape for name, view in self._views.items()},
        }

    def _telling(self) -> Iterator[list[Any]]:
        untold: dict[str, Entity] = dict(self._entities)
        kept: list[list[Any]] = []
        self._untold, self._kept = untold, kept

        def telling() -> Iterator[list[Any]]:
            for key in list(untold):
                entity = untold.pop(key, None)
                if entity is not None:
                    yield _told(key, entity)
            yield from kept

        return telling()

    def _keep(self, key: str) -> None:
        """An entity is about to change."""
        entity = self._untold.pop(key, None)
        if entity is not None:
            self._kept.append(_told(key, entity))

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a snapshot back; views that the use case no longer declares are dropped.

        Of a view that is declared otherwise now, what is held is kept where it means the same, and every entity's values are
        said anew at the next watermark.
        """
        self._watermarks.restore(state["watermarks"])
        self._applied = dict(state["applied"])
        self.late, self.repeated, self.overflowed = state["counts"]
        self._entities, self._untold = {}, {}
        shapes = state.get("shapes", {})  # absent from checkpoints of before they were kept
        for key, name, held in state["entities"]:
            view = self._views.get(name)
            if view is not None:
                entity = _restored(view, shapes.get(name, view.shape), held)
                if entity is not None:
                    self._entities[key] = entity
        self._changes = []
        for key, entity in self._entities.items():
            entity.expected_us = entity.next_change_us
            if entity.expected_us is not None:
                self._changes.append((entity.expected_us, key))
        heapq.heapify(self._changes)


def _restored(view: _View, shape: list[Any], held: list[Any]) -> Entity | None:
    """An entity from its state, which a view of some shape had; None where that means nothing to the view of now."""
    entity = view.make()
    if shape == view.shape:
        entity.restore(held)
        return entity
    if isinstance(entity, PanesEntity) and shape[0] != view.shape[0]:
        return None
    if isinstance(view.declared, Latest):
        *others, values = held
        named = dict(zip(shape[0], values, strict=True))
        held = [*others, [named.get(name) for name in view.declared.of]]
    entity.restore(held)
    entity.next_change_us = entity.known_at_us
    return entity


def _told(key: str, entity: Entity) -> list[Any]:
    return [key, entity.view, entity.snapshot()]
