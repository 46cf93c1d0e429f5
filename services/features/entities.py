"""What one feature entity holds, and what its values are at a clock; knows no messages.

Values are functions of the events held, in the order of (event time, id), however they came in. The clock of an entity never
goes back.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from driftloop.contracts import UNSET_US
from driftloop.usecase import SECOND_US, FieldValue, Latest, Since, View, Window
from driftloop.usecase.features import HALF_LIVES
from services.features.windows import (
    MAX_ENTRIES_PER_KEY,
    Ints,
    decayed_statistics,
    exact_sum,
    from_units,
    in_units,
    needs_order,
    needs_squares,
    needs_sum,
    sample_variance,
    statistics,
    variance_of,
)

_RUNNING_FROM = 48  # events in a window; fewer are summed and sorted anew, which is as fast and needs no state
_COMPACTED_FROM = 64  # events left behind before their room is given back, then at half of all

Values = list[FieldValue | None]
Change = tuple[int, int, int, Values]
"""What one event made of an entity: its row, the newest event time, and since when which values hold."""


class Part(NamedTuple):
    """What a record holds for one view, a column each: event time, event id, values, and the clock at which it counts.

    `values`: of a window one number or text per event, of latest values a tuple.
    """

    at_us: Sequence[int]
    ids: Sequence[str]
    values: Sequence[Any]
    now_us: Sequence[int]


def too_late(view: View, lateness_us: int, at_us: Ints, now_us: Ints) -> npt.NDArray[np.bool_]:
    """Which events come too late to change any value: beyond the lateness, or older than every window; a column each."""
    if isinstance(view, Window):
        oldest_us = np.minimum.reduce([view.edge_us(now_us, age_us) for age_us in view.ages_us])
    else:
        oldest_us = now_us - view.ages_us[-1]
    late: npt.NDArray[np.bool_] = (at_us < now_us) & ((at_us <= now_us - lateness_us) | (at_us <= oldest_us))
    return late


class FeatureEntity:
    """What every kind of entity says of itself: its view, since when its values hold and where they are from, and their next change."""

    __slots__ = ("expected_us", "known_at_us", "next_change_us", "sequence", "view")

    def __init__(self, view: str) -> None:
        self.view = view
        self.known_at_us = UNSET_US
        self.sequence = UNSET_US
        self.next_change_us: int | None = None
        self.expected_us: int | None = None  # when its owner looks at it again


class LatestEntity(FeatureEntity):
    """The newest event of an entity."""

    __slots__ = ("_age_us", "_at_us", "_id", "_values")

    def __init__(self, view: Latest | Since) -> None:
        super().__init__(view.name)
        self._age_us = view.ages_us[-1]
        self._at_us = UNSET_US
        self._id = ""
        self._values: Values = []

    @property
    def event_time_us(self) -> int:
        """The newest event's time."""
        return self._at_us

    def fold(self, rows: Sequence[int], events: Part) -> tuple[list[Change], int]:
        """Takes some rows' events in, one after the other; returns the changes, and how many changed nothing.

        An event that is older than the one that is held never overwrites it.
        """
        changes: list[Change] = []
        for row in rows:
            at_us, event_id = events.at_us[row], events.ids[row]
            if (at_us, event_id) <= (self._at_us, self._id):
                continue
            self._at_us, self._id, self._values = at_us, event_id, list(events.values[row])
            known_at_us = max(self.known_at_us, events.now_us[row])
            changes.append((row, at_us, known_at_us, self.values_at(known_at_us)))
        return changes, len(rows) - len(changes)

    def left_by(self, clock_us: int) -> str | None:
        """The id of the newest event that stops counting between `known_at_us` and a clock."""
        return self._id if self.known_at_us - self._age_us < self._at_us <= clock_us - self._age_us else None

    def values_at(self, clock_us: int) -> Values:
        """The view's values at a clock, which becomes `known_at_us`; None: missing."""
        self.known_at_us = clock_us
        leaves_us = self._at_us + self._age_us
        self.next_change_us = leaves_us if leaves_us > clock_us else None
        return [None] * len(self._values) if self.next_change_us is None else list(self._values)

    def snapshot(self) -> list[Any]:
        """State as plain values."""
        return [self.known_at_us, self.sequence, self.next_change_us, self._at_us, self._id, list(self._values)]

    def restore(self, state: Sequence[Any]) -> None:
        """Takes a snapshot back."""
        self.known_at_us, self.sequence, self.next_change_us, self._at_us, self._id, values = state
        self._values = list(values)


class SinceEntity(LatestEntity):
    """The time since the newest event of an entity, in steps."""

    __slots__ = ("_every_us",)

    def __init__(self, view: Since) -> None:
        super().__init__(view)
        self._every_us = view.every_us

    def left_by(self, clock_us: int) -> str | None:
        """See `LatestEntity.left_by`: the event whose age has grown."""
        return self._id

    def values_at(self, clock_us: int) -> Values:
        """See `LatestEntity.values_at`."""
        self.known_at_us = clock_us
        age_us = max(0, clock_us - self._at_us) // self._every_us * self._every_us
        if age_us >= self._age_us:
            self.next_change_us = None
            return [None]
        self.next_change_us = self._at_us + age_us + self._every_us
        return [age_us / SECOND_US]


class WindowPlan:
    """What is computed of a view's windows; one for all of its entities."""

    def __init__(self, view: Window) -> None:
        stats = view.stats
        self.view = view.name
        self.ages_us = view.ages_us
        self.stats: tuple[str, ...] = stats
        self.is_tumbling, self.is_decayed = view.kind == "tumbling", view.kind == "decayed"
        self.has_sum, self.has_order = needs_sum(stats), needs_order(stats)
        self.has_squares, self.has_distinct = needs_squares(stats), "distinct" in stats

    def edge_us(self, clock_us: int, age_us: int) -> int:
        """See `Window.edge_us`."""
        return clock_us // age_us * age_us - 1 if self.is_tumbling else clock_us - age_us

    def leaves_us(self, at_us: int, age_us: int) -> int:
        """See `Window.leaves_us`."""
        return (at_us // age_us + 1) * age_us if self.is_tumbling else at_us + age_us

    def of_few(self, values: list[Any]) -> Values:
        """Statistics of values, computed anew."""
        return statistics(
            self.stats,
            len(values),
            exact_sum(values) if self.has_sum else 0.0,
            sorted(values) if self.has_order else (),
            sample_variance(values) if self.has_squares else None,
            len(set(values)) if self.has_distinct else 0,
        )


class _RunningWindow:
    """What the statistics of the values from `first` on need, kept up to date event by event."""

    __slots__ = ("_counts", "_ordered", "_plan", "_squares", "_total", "first")

    def __init__(self, plan: WindowPlan, first: int, values: Sequence[Any]) -> None:
        self._plan = plan
        self._total = self._squares = 0
        self._ordered: list[float] = []
        self._counts: dict[Any, int] = {}
        self.first = first
        for value in values[first:]:
            self._add(value)

    def insert(self, index: int, value: Any) -> None:
        """An event came in at an index."""
        if index < self.first:
            self.first += 1
        else:
            self._add(value)

    def _add(self, value: Any) -> None:
        plan = self._plan
        if plan.has_sum or plan.has_squares:
            units = in_units(value)
            self._total += units
            if plan.has_squares:
                self._squares += units * units
        if plan.has_order:
            insort(self._ordered, value)
        if plan.has_distinct:
            self._counts[value] = self._counts.get(value, 0) + 1

    def move(self, first: int, values: Sequence[Any]) -> None:
        """The events before `first` have left."""
        plan = self._plan
        for value in values[self.first : first]:
            if plan.has_sum or plan.has_squares:
                units = in_units(value)
                self._total -= units
                if plan.has_squares:
                    self._squares -= units * units
            if plan.has_order:
                del self._ordered[bisect_left(self._ordered, value)]
            if plan.has_distinct:
                self._counts[value] -= 1
                if not self._counts[value]:
                    del self._counts[value]
        self.first = first

    def statistics(self, count: int) -> Values:
        """Statistics of the values, of which there are `count`."""
        plan = self._plan
        return statistics(
            plan.stats,
            count,
            from_units(self._total) if plan.has_sum else 0.0,
            self._ordered,
            variance_of(count, self._total, self._squares) if plan.has_squares else None,
            len(self._counts),
        )


class WindowEntity(FeatureEntity):
    """The events of an entity that are in the longest of a view's windows, in parallel lists."""

    __slots__ = ("_begin", "_firsts", "_ids", "_plan", "_running", "_times_us", "_values", "event_time_us")

    def __init__(self, plan: WindowPlan) -> None:
        super().__init__(plan.view)
        self._plan = plan
        self._times_us: list[int] = []
        self._ids: list[str] = []
        self._values: list[Any] = []  # float, or str where only different ones are counted
        self._begin = 0  # what is before it has left the longest window
        self._firsts = [0] * len(plan.ages_us)  # of each window; clocks never go back, so neither do these
        self._running: dict[int, _RunningWindow] | None = None
        self.event_time_us = UNSET_US  # the newest event's

    def fold(self, rows: Sequence[int], events: Part) -> tuple[list[Change], int]:
        """Takes some rows' events in, one after the other; returns the changes, and how many older events had to leave.

        The bound per key is `MAX_ENTRIES_PER_KEY`.
        """
        at_us, ids, values, now_us = events
        changes: list[Change] = []
        overflowed = 0
        known_at_us = self.known_at_us
        for row in rows:
            self._insert(at_us[row], ids[row], values[row])
            if len(self._times_us) - self._begin > MAX_ENTRIES_PER_KEY:
                self._begin += 1
                overflowed += 1
            if now_us[row] > known_at_us:
                known_at_us = now_us[row]
            changes.append((row, self.event_time_us, known_at_us, self.values_at(known_at_us)))
        return changes, overflowed

    def _insert(self, at_us: int, event_id: str, value: FieldValue) -> None:
        times_us, running = self._times_us, self._running
        if at_us > self.event_time_us:
            index = len(times_us)
            times_us.append(at_us)
            self._ids.append(event_id)
            self._values.append(value)
            self.event_time_us = at_us
        else:
            ids, begin = self._ids, self._begin
            index = bisect_right(times_us, at_us, begin)
            while index > begin and times_us[index - 1] == at_us and ids[index - 1] > event_id:
                index -= 1
            times_us.insert(index, at_us)
            ids.insert(index, event_id)
            self._values.insert(index, value)
            self._firsts = [first + 1 if index < first else first for first in self._firsts]
        if running is not None:
            for window in running.values():
                window.insert(index, value)

    def left_by(self, clock_us: int) -> str | None:
        """The id of the newest event that leaves a window between `known_at_us` and a clock."""
        newest = -1
        edge_us = self._plan.edge_us
        for age_us in self._plan.ages_us:
            before = bisect_right(self._times_us, edge_us(self.known_at_us, age_us), self._begin)
            after = bisect_right(self._times_us, edge_us(clock_us, age_us), before)
            if after > before:
                newest = max(newest, after - 1)
        return self._ids[newest] if newest >= 0 else None

    def values_at(self, clock_us: int) -> Values:
        """The view's values at a clock, which becomes `known_at_us`; None: missing."""
        plan, times_us, values, firsts, begin = self._plan, self._times_us, self._values, self._firsts, self._begin
        end = kept = len(times_us)
        found: Values = []
        soonest_us: int | None = None
        for place, age_us in enumerate(plan.ages_us):
            edge_us = clock_us // age_us * age_us - 1 if plan.is_tumbling else clock_us - age_us
            first = max(firsts[place], begin)
            if first < end and times_us[first] <= edge_us:
                first = bisect_right(times_us, edge_us, first)
            firsts[place] = first
            if first < kept:
                kept = first
            if first < end:
                leaves_us = plan.leaves_us(times_us[first], age_us)
                if soonest_us is None or leaves_us < soonest_us:
                    soonest_us = leaves_us
            if plan.is_decayed:
                found += decayed_statistics(plan.stats, age_us // HALF_LIVES, times_us[first:], values[first:])
                continue
            few = self._running is None and end - first < _RUNNING_FROM
            window = None if few else self._window(age_us, first)
            found += plan.of_few(values[first:]) if window is None else window.statistics(end - first)
        self._begin = kept
        self.known_at_us, self.next_change_us = clock_us, soonest_us
        if kept >= _COMPACTED_FROM and kept * 2 >= end:
            self._compact()
        return found

    def _window(self, age_us: int, first: int) -> _RunningWindow | None:
        """The running window of an age, which begins at `first` now, where there are events enough for one."""
        running, size = self._running, len(self._times_us) - first
        window = None if running is None else running.get(age_us)
        if window is None:
            if size < _RUNNING_FROM:
                return None
            window = _RunningWindow(self._plan, first, self._values)
            self._running = {**(running or {}), age_us: window}
        elif size < _RUNNING_FROM // 2:
            self._running = {age: other for age, other in (running or {}).items() if age != age_us} or None
            return None
        window.move(first, self._values)
        return window

    def _compact(self) -> None:
        """Gives back the room of what has left."""
        begin = self._begin
        del self._times_us[:begin], self._ids[:begin], self._values[:begin]
        for window in (self._running or {}).values():
            window.first -= begin
        self._firsts = [first - begin for first in self._firsts]
        self._begin = 0

    def snapshot(self) -> list[Any]:
        """State as plain values."""
        held: tuple[list[Any], ...] = (self._times_us, self._ids, self._values)
        columns = [column[self._begin :] for column in held]
        return [self.known_at_us, self.sequence, self.next_change_us, *columns]

    def restore(self, state: Sequence[Any]) -> None:
        """Takes a snapshot back."""
        self.known_at_us, self.sequence, self.next_change_us, times_us, ids, values = state
        self._times_us, self._ids, self._values = list(times_us), list(ids), list(values)
        self._begin, self._running, self.event_time_us = 0, None, times_us[-1]
        self._firsts = [0] * len(self._plan.ages_us)
