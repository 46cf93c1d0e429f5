"""What one feature entity holds of a sketched window, and its values at a clock: a sketch per pane; knows no messages.

Values are functions of the events in the panes, however they came in, as those of `WindowEntity` are of its events.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from driftloop.contracts import UNSET_US
from driftloop.usecase import Window
from services.features.entities import Change, FeatureEntity, Part, Values
from services.features.sketches import SketchPlan, WindowSketch


class PanesPlan:
    """A view's windows and what is computed of them; one for all of its entities."""

    def __init__(self, window: Window) -> None:
        assert window.sketch is not None
        self.view = window.name
        self.window = window
        self.ages_us = window.ages_us
        self.pane_us = window.sketch.pane_us
        self.sketch = SketchPlan(window.sketch, window.stats)

    def begin_us(self, clock_us: int, age_us: int) -> int:
        """The first event time, a pane's own, that is in the window of an age at a clock."""
        return int(self.window.edge_us(clock_us, age_us)) + 1


class _Pane:
    """The events of one pane: what they come to, and the newest by (event time, id)."""

    __slots__ = ("newest", "sketch")

    def __init__(self, plan: PanesPlan) -> None:
        self.sketch = WindowSketch(plan.sketch)
        self.newest: tuple[int, str] = (UNSET_US, "")


class _Merged:
    """The panes of one window from `begin_us` on, merged; `oldest_us`: where the oldest of them begins."""

    __slots__ = ("begin_us", "oldest_us", "sketch")

    def __init__(self, plan: PanesPlan, begin_us: int, panes: dict[int, _Pane]) -> None:
        self.begin_us = begin_us
        self.sketch = WindowSketch(plan.sketch)
        held = [at_us for at_us in panes if at_us >= begin_us]
        self.oldest_us = min(held, default=None)
        for at_us in held:
            self.sketch.merge(panes[at_us].sketch)


class PanesEntity(FeatureEntity):
    """The panes of an entity that are in the longest of a view's windows: at most 101 for each, and one more per window."""

    __slots__ = ("_merged", "_panes", "_plan", "event_time_us")

    def __init__(self, plan: PanesPlan) -> None:
        super().__init__(plan.view)
        self._plan = plan
        self._panes: dict[int, _Pane] = {}  # by where they begin
        self._merged: dict[int, _Merged] = {}  # by age
        self.event_time_us = UNSET_US  # the newest event's

    def fold(self, rows: Sequence[int], events: Part) -> tuple[list[Change], int]:
        """Takes some rows' events in, one after the other; returns the changes. None has to leave for want of room: 0."""
        changes: list[Change] = []
        for row in rows:
            self._insert(events.at_us[row], events.ids[row], events.values[row])
            known_at_us = max(self.known_at_us, events.now_us[row])
            changes.append((row, self.event_time_us, known_at_us, self.values_at(known_at_us)))
        return changes, 0

    def _insert(self, at_us: int, event_id: str, value: Any) -> None:
        begin_us = at_us // self._plan.pane_us * self._plan.pane_us
        pane = self._panes.get(begin_us)
        if pane is None:
            pane = self._panes[begin_us] = _Pane(self._plan)
        pane.sketch.add(value)
        pane.newest = max(pane.newest, (at_us, event_id))
        self.event_time_us = max(self.event_time_us, at_us)
        for merged in self._merged.values():
            if begin_us >= merged.begin_us:
                merged.sketch.add(value)
                merged.oldest_us = begin_us if merged.oldest_us is None else min(merged.oldest_us, begin_us)

    def left_by(self, clock_us: int) -> str | None:
        """The id of the newest event that leaves a window between `known_at_us` and a clock."""
        begin_us = self._plan.begin_us
        stretches = [(begin_us(self.known_at_us, age), begin_us(clock_us, age)) for age in self._plan.ages_us]
        left = [
            pane.newest
            for at_us, pane in self._panes.items()
            if any(first_us <= at_us < last_us for first_us, last_us in stretches)
        ]
        return max(left)[1] if left else None

    def values_at(self, clock_us: int) -> Values:
        """The view's values at a clock, which becomes `known_at_us`; None: missing."""
        plan, found, changes_us, begins_us = self._plan, [], [], []
        for age_us in plan.ages_us:
            begin_us, merged = plan.begin_us(clock_us, age_us), self._merged.get(age_us)
            if merged is None or (merged.oldest_us is not None and merged.oldest_us < begin_us):
                merged = self._merged[age_us] = _Merged(plan, begin_us, self._panes)
            merged.begin_us = begin_us
            if merged.oldest_us is not None:
                changes_us.append(int(plan.window.leaves_us(merged.oldest_us, age_us)))
            begins_us.append(begin_us)
            found += merged.sketch.statistics()
        oldest_us = min(begins_us)
        for at_us in [at_us for at_us in self._panes if at_us < oldest_us]:
            del self._panes[at_us]
        self.known_at_us, self.next_change_us = clock_us, min(changes_us, default=None)
        return found

    def snapshot(self) -> list[Any]:
        """State as plain values; what is merged follows from it."""
        panes = [[at_us, *pane.newest, pane.sketch.snapshot()] for at_us, pane in self._panes.items()]
        return [self.known_at_us, self.sequence, self.next_change_us, self.event_time_us, panes]

    def restore(self, state: Sequence[Any]) -> None:
        """Takes a snapshot back."""
        self.known_at_us, self.sequence, self.next_change_us, self.event_time_us, panes = state
        self._merged = {}
        self._panes = {}
        for begin_us, at_us, event_id, sketch in panes:
            pane = self._panes[begin_us] = _Pane(self._plan)
            pane.newest = (at_us, event_id)
            pane.sketch.restore(sketch)
