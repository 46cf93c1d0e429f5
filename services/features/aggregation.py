"""Keeps every feature entity's windows and latest values and says what they are from when on; does no I/O.

A value changes when an event changes it or when the clock moves something out of its window. Values do not depend on the
order in which events of one step came in: windows are sorted, sums are exact, ties are broken by event id.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

from driftloop.contracts import UNSET_US, Message, Record, Watermarks, derive_id, from_value, to_value, watermark
from driftloop.contracts.features.v1.features_pb2 import (
    TRIGGER_CLOCK,
    TRIGGER_EVENT,
    FeatureUpdate,
    KeyedEvent,
    Trigger,
)
from driftloop.usecase import FieldValue, Latest, UseCase, View, Window, duration_us
from services.features.windows import MAX_ENTRIES_PER_KEY, QUANTILES, exact_sum

SNAPSHOT_VERSION = 1


@dataclass(slots=True)
class _Entity:
    """One feature entity: its events by (event time, id) in parallel lists, and when and by what it was last told of.

    `values` holds a number per event for a window, and the tuple of the view's `of` values for a latest value.
    """

    view: View
    times_us: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    known_at_us: int = UNSET_US
    sequence: int = UNSET_US
    next_change_us: int | None = None

    def first_within(self, clock_us: int, age_us: int) -> int:
        """Index of the first event younger than `age_us`."""
        return bisect_right(self.times_us, clock_us - age_us)

    def insert(self, at_us: int, event_id: str, value: Any) -> None:
        """Puts an event in its place."""
        index = bisect_right(self.times_us, at_us)
        while index and self.times_us[index - 1] == at_us and self.ids[index - 1] > event_id:
            index -= 1
        self.times_us.insert(index, at_us)
        self.ids.insert(index, event_id)
        self.values.insert(index, value)

    def drop(self, count: int) -> None:
        """Forgets the oldest events."""
        del self.times_us[:count], self.ids[:count], self.values[:count]


def window_stat(stat: str, values: list[float]) -> float | None:
    """One statistic of a window's values; None where it has no meaning: no values, or a sum too large for a float64.

    Quantiles are nearest-rank. `windows.window_stats` gives the same bits for many windows at once.
    """
    if stat == "count":
        return float(len(values))
    if stat in ("sum", "mean"):
        total = exact_sum(values)
        if stat == "sum":
            return total if math.isfinite(total) else None
        return total / len(values) if values and math.isfinite(total) else None
    if not values:
        return None
    if stat == "min":
        return min(values)
    if stat == "max":
        return max(values)
    return sorted(values)[math.ceil(QUANTILES[stat] * len(values)) - 1]


def view_values(entity: _Entity, clock_us: int) -> list[FieldValue | None]:
    """The view's feature values at a clock, in declared order."""
    view = entity.view
    if isinstance(view, Latest):
        fresh = entity.first_within(clock_us, view.ages_us[0]) < len(entity.times_us)
        return list(entity.values[-1]) if fresh else [None] * len(view.of)
    found: list[FieldValue | None] = []
    if isinstance(view, Window):
        for window_us in view.ages_us:
            inside = entity.values[entity.first_within(clock_us, window_us) :]
            found.extend([window_stat(stat, inside) for stat in view.stats])
    return found


class Aggregation:
    """The heart of the second stage, for one partition of `keyed`."""

    def __init__(self, use_case: UseCase, partition: int, spread: int) -> None:
        self._use_case = use_case
        self._partition = partition
        self._writer = f"aggregation/{partition}"
        self._views = {view.name: view for view in use_case.views}
        self._lateness_us = duration_us(use_case.policy.lateness)
        self._watermarks = Watermarks({("keyed", partition): [f"rekeying/{source}" for source in range(spread)]})
        self._applied: dict[int, tuple[int, int]] = {}
        self._entities: dict[str, _Entity] = {}
        self._changes: list[tuple[int, str]] = []
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
        out: list[Message[Any]] = []
        for record in records:
            message = record.message
            if message.is_watermark:
                mark = message.payload
                if self._watermarks.observe("keyed", self._partition, mark.writer, mark.known_at_us):
                    self._advance(record.offset, out)
            else:
                self._apply(record.offset, message.payload, message.traceparent, out)
        return out

    def _apply(self, offset: int, event: KeyedEvent, traceparent: str, out: list[Message[Any]]) -> None:
        place = (event.source_offset, event.ordinal)
        if place <= self._applied.get(event.source_partition, (UNSET_US, 0)):
            self.repeated += 1
            return
        self._applied[event.source_partition] = place
        view = self._views.get(event.view)
        reach_us = min(view.ages_us[-1], self._lateness_us) if view is not None else 0
        if view is None or event.event_time_us <= max(self.clock_us, event.known_at_us) - reach_us:
            self.late += 1
            return
        values = tuple([from_value(value) for value in event.values])
        if isinstance(view, Window) and (values[0] is None or not math.isfinite(float(values[0]))):
            return
        entity = self._entities.get(event.key)
        if entity is None:
            entity = self._entities[event.key] = _Entity(view)
        if isinstance(view, Latest):
            if entity.times_us and (event.event_time_us, event.event_id) <= (entity.times_us[0], entity.ids[0]):
                self.late += 1  # an older observation never overwrites a newer one
                return
            entity.drop(1)
            entity.insert(event.event_time_us, event.event_id, values)
        else:
            entity.insert(event.event_time_us, event.event_id, float(values[0] or 0.0))
            if len(entity.times_us) > MAX_ENTRIES_PER_KEY:
                entity.drop(1)
                self.overflowed += 1
        known_at_us = max(entity.known_at_us, event.known_at_us, self.clock_us)
        out.append(self._update(event.key, entity, known_at_us, offset, TRIGGER_EVENT, (event.event_id,), traceparent))

    def _advance(self, offset: int, out: list[Message[Any]]) -> None:
        clock_us = self.clock_us
        while self._changes and self._changes[0][0] <= clock_us:
            at_us, key = heapq.heappop(self._changes)
            entity = self._entities.get(key)
            if entity is None or entity.next_change_us != at_us:
                continue
            left = self._leaving(entity, clock_us)
            out.append(self._update(key, entity, clock_us, offset, TRIGGER_CLOCK, left))
            if not entity.times_us:
                del self._entities[key]
        out.append(watermark("features", self._partition, self._writer, clock_us))

    def _leaving(self, entity: _Entity, clock_us: int) -> tuple[str, ...]:
        """The newest event that left a window since the last update: the cause of a change by the clock."""
        gone = [
            (entity.times_us[index], entity.ids[index])
            for age_us in entity.view.ages_us
            for index in range(entity.first_within(entity.known_at_us, age_us), entity.first_within(clock_us, age_us))
        ]
        return (max(gone)[1],) if gone else ()

    def _update(
        self,
        key: str,
        entity: _Entity,
        known_at_us: int,
        offset: int,
        trigger: Trigger,
        causes: tuple[str, ...],
        traceparent: str = "",
    ) -> Message[FeatureUpdate]:
        entity.known_at_us, entity.sequence = known_at_us, offset
        message = self._message(key, entity, trigger)
        message.causes, message.traceparent = causes, traceparent
        entity.drop(entity.first_within(known_at_us, entity.view.ages_us[-1]))
        self._schedule(key, entity, known_at_us)
        return message

    def _message(self, key: str, entity: _Entity, trigger: Trigger) -> Message[FeatureUpdate]:
        event_time_us = entity.times_us[-1] if entity.times_us else 0
        payload = FeatureUpdate(
            use_case=self._use_case.name,
            view=entity.view.name,
            key=key,
            event_time_us=event_time_us,
            known_at_us=entity.known_at_us,
            values=[to_value(value) for value in view_values(entity, entity.known_at_us)],
            sequence=entity.sequence,
            trigger=trigger,
        )
        return Message(
            topic="features",
            key=key,
            payload=payload,
            id=derive_id("feature", self._use_case.name, key, self._partition, entity.sequence),
            source="driftloop/features",
            time_us=event_time_us,
            known_at_us=entity.known_at_us,
            partition=self._partition,
        )

    def _schedule(self, key: str, entity: _Entity, clock_us: int) -> None:
        """Remembers when the clock alone will next change the values: the first entry to leave any window."""
        soonest = None
        for age_us in entity.view.ages_us:
            first = entity.first_within(clock_us, age_us)
            if first < len(entity.times_us):
                leaves_us = entity.times_us[first] + age_us
                soonest = leaves_us if soonest is None else min(soonest, leaves_us)
        if soonest is not None and soonest != entity.next_change_us:
            heapq.heappush(self._changes, (soonest, key))
        entity.next_change_us = soonest

    def current(self) -> list[Message[FeatureUpdate]]:
        """The last update of every entity again: what a store written behind may have missed before a crash."""
        return [self._message(key, entity, TRIGGER_EVENT) for key, entity in self._entities.items()]

    def snapshot(self) -> dict[str, Any]:
        """State as plain values."""
        return {
            "version": SNAPSHOT_VERSION,
            "watermarks": self._watermarks.snapshot(),
            "applied": [[source, *place] for source, place in self._applied.items()],
            "counts": [self.late, self.repeated, self.overflowed],
            "entities": [
                [key, e.view.name, e.times_us[:], e.ids[:], e.values[:], e.known_at_us, e.sequence, e.next_change_us]
                for key, e in self._entities.items()
            ],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a snapshot back; views that the use case no longer declares are dropped."""
        self._watermarks.restore(state["watermarks"])
        self._applied = {source: (offset, ordinal) for source, offset, ordinal in state["applied"]}
        self.late, self.repeated, self.overflowed = state["counts"]
        self._entities, self._changes = {}, []
        for key, view_name, times_us, ids, values, known_at_us, sequence, next_change_us in state["entities"]:
            view = self._views.get(view_name)
            if view is None:
                continue
            held = [tuple(value) for value in values] if isinstance(view, Latest) else list(values)
            entity = _Entity(view, list(times_us), list(ids), held, known_at_us, sequence, next_change_us)
            self._entities[key] = entity
            if next_change_us is not None:
                heapq.heappush(self._changes, (next_change_us, key))
