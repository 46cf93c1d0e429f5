"""Says which updates a stretch of logged events brings about, a view at a time and in columns; does no I/O.

The values are those of `Aggregation`: both are held to the same results. An update is made where an event changes a value, where
the clock moves something out of a window (at that very moment, while the stream says so at its next watermark), and at the
stretch's beginning for what is known by then, so that a stretch stands for itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from driftloop.contracts import from_value
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.usecase import FieldValue, Since, UseCase, View, Window, duration_us, entity_key
from services.features.entities import too_late
from services.features.history import Reads, ViewEvents, latest_events, newest_times, since_values, window_values
from services.features.rekeying import is_value
from services.features.windows import Ints

_KEYS_MAX = 100_000  # key values whose key is remembered: about 30 MB


class LoggedEvents(NamedTuple):
    """Accepted events in the order of (known time, id), a column each."""

    types: Sequence[str]
    ids: Sequence[str]
    at_us: Ints
    known_at_us: Ints
    events: Iterable[Event]


@dataclass(frozen=True)
class ViewParts:
    """What one view needs of events, in the order in which they were known, a column each; `values` are its fields'."""

    view: View
    keys: Sequence[str]
    ids: Sequence[str]  # of windows none: their values do not depend on them
    at_us: Ints
    known_at_us: Ints
    values: Sequence[tuple[FieldValue | None, ...]]


@dataclass(frozen=True)
class Updates:
    """Updates of one view, (updates,) each, by known time: of one entity at one time the last alone.

    `values`: a column per feature, float64 with NaN where missing, or object (str or None).
    """

    keys: npt.NDArray[Any]
    event_time_us: Ints
    known_at_us: Ints
    values: list[npt.NDArray[Any]]

    def __len__(self) -> int:
        return len(self.keys)


def warm_up_us(use_case: UseCase) -> int:
    """How long before a stretch events may have been known and still count in it."""
    return max((view.held_us for view in use_case.views), default=0) + duration_us(use_case.policy.lateness)


def view_parts(use_case: UseCase, logged: LoggedEvents) -> list[ViewParts]:
    """The views' parts of events."""
    readers: dict[str, list[_Reader]] = {}
    for view in use_case.views:
        readers.setdefault(view.event.name, []).append(_Reader(view))
    needed = {
        kind: list(dict.fromkeys(field for reader in of_type for field in (*reader.view.by, *reader.view.of)))
        for kind, of_type in readers.items()
    }
    for kind, of_type in readers.items():
        for reader in of_type:
            reader.place(needed[kind])
    rows: dict[str, list[int]] = {kind: [] for kind in readers}
    columns: dict[str, list[list[FieldValue | None]]] = {kind: [[] for _ in names] for kind, names in needed.items()}
    gathered = {kind: list(zip(names, columns[kind], strict=True)) for kind, names in needed.items()}
    for row, (kind, event) in enumerate(zip(logged.types, logged.events, strict=True)):
        if kind in readers:
            rows[kind].append(row)
            found = event.fields.get
            for name, column in gathered[kind]:
                value = found(name)
                column.append(None if value is None else from_value(value))
    return [reader.parts(logged, rows[kind], columns[kind]) for kind, of_type in readers.items() for reader in of_type]


class _Reader:
    """Gathers one view's part of events."""

    def __init__(self, view: View) -> None:
        self.view = view
        self._is_window = isinstance(view, Window)
        self._known: dict[tuple[FieldValue | None, ...], str] = {}

    def place(self, needed: Sequence[str]) -> None:
        """Says which fields `parts` is given."""
        self._of = [needed.index(name) for name in self.view.of]
        self._by = [needed.index(name) for name in self.view.by]

    def parts(
        self, logged: LoggedEvents, rows: Sequence[int], columns: Sequence[Sequence[FieldValue | None]]
    ) -> ViewParts:
        """The view's part of the events of some rows, whose fields are given a column each."""
        known, key_of = self._known, self._key
        named = zip(*[columns[place] for place in self._by], strict=True)
        keys = [known[each] if each in known else key_of(each) for each in named]
        values = list(zip(*[columns[place] for place in self._of], strict=True)) if self._of else [()] * len(rows)
        if self._is_window:
            taken = [n for n, (key, value) in enumerate(zip(keys, values, strict=True)) if key and is_value(value[0])]
        else:
            taken = [n for n, key in enumerate(keys) if key]
        places = np.array(rows, dtype=np.int64)[taken]
        ids = [] if self._is_window else [logged.ids[row] for row in places.tolist()]
        if len(taken) < len(rows):
            keys, values = [keys[n] for n in taken], [values[n] for n in taken]
        return ViewParts(self.view, keys, ids, logged.at_us[places], logged.known_at_us[places], values)

    def _key(self, named: tuple[FieldValue | None, ...]) -> str:
        """The feature entity's key of some key values, or "" where one is absent."""
        if len(self._known) >= _KEYS_MAX:
            self._known.clear()
        key = "" if None in named else entity_key(self.view.name, [str(value) for value in named])
        self._known[named] = key
        return key


def updates(parts: ViewParts, lateness_us: int, from_us: int, to_us: int, *, carries: bool = True) -> Updates:
    """The updates that become known from a time until before another.

    `carries`: with the values at the beginning of what became known before it.
    """
    view = parts.view
    at_us, known_us = parts.at_us, parts.known_at_us
    kept = np.flatnonzero(~too_late(view, lateness_us, at_us, known_us))
    at_us, known_us = at_us[kept], known_us[kept]
    rows = kept.tolist()
    values = parts.values if len(rows) == len(parts.values) else [parts.values[row] for row in rows]
    numbered: dict[str, int] = {}
    entities = np.array([numbered.setdefault(parts.keys[row], len(numbered)) for row in rows], dtype=np.int64)
    names = np.array(list(numbered), dtype=object)
    events = ViewEvents(entities, np.arange(len(kept)), at_us)
    reads = _reads(view, entities, at_us, known_us, from_us, to_us, carries)
    if not len(reads.entities):
        empty = np.zeros(0, dtype=np.int64)
        columns = [np.zeros(0, dtype=np.float64 if each.numeric else object) for each in view.features]
        return Updates(np.zeros(0, dtype=object), empty, empty, columns)
    if isinstance(view, Window):
        table = window_values(view, events, _window_column(view, [row[0] for row in values]), reads)
        columns = list(table.T)
    elif isinstance(view, Since):
        columns = [since_values(view, events, [parts.ids[row] for row in rows], reads)]
    else:
        ids = [parts.ids[row] for row in rows]
        newest = latest_events(events, ids, view.ages_us[0], reads)
        columns = [
            _latest_column([row[place] for row in values], newest, f.numeric) for place, f in enumerate(view.features)
        ]
    return Updates(names[reads.entities], newest_times(events, reads), reads.clocks_us, columns)


def _reads(view: View, entities: Ints, at_us: Ints, known_us: Ints, from_us: int, to_us: int, carries: bool) -> Reads:
    """When there is an update, of which entity, and how many events are seen by then; by known time."""
    within = (known_us >= from_us) & (known_us < to_us)
    changed, times_us = [entities[within]], [known_us[within]]
    replaced_us = _replaced_us(entities, at_us, known_us) if isinstance(view, Since) else None
    for age_us in view.ages_us:
        leaves_us: Ints = view.leaves_us(at_us, age_us) if isinstance(view, Window) else at_us + age_us
        leaving = (leaves_us > known_us) & (leaves_us >= from_us) & (leaves_us < to_us)
        if replaced_us is not None:
            leaving &= leaves_us < replaced_us
        changed.append(entities[leaving])
        times_us.append(leaves_us[leaving])
    if carries:
        before = np.unique(entities[known_us < from_us])
        changed.append(before)
        times_us.append(np.full(len(before), from_us))
    entity, clock_us = np.concatenate(changed), np.concatenate(times_us)
    order = np.lexsort((entity, clock_us))
    entity, clock_us = entity[order], clock_us[order]
    first = np.ones(len(entity), dtype=bool)
    first[1:] = (entity[1:] != entity[:-1]) | (clock_us[1:] != clock_us[:-1])
    entity, clock_us = entity[first], clock_us[first]
    return Reads(entity, np.searchsorted(known_us, clock_us, side="right"), clock_us)


def _replaced_us(entities: Ints, at_us: Ints, known_us: Ints) -> Ints:
    """When the next event of the entity became known, if that is as new; from then on the age of this one is no value."""
    order = np.argsort(entities, kind="stable")
    this, following = order[:-1], order[1:]
    replaces = (entities[this] == entities[following]) & (at_us[this] <= at_us[following])
    found = np.full(len(order), np.iinfo(np.int64).max)
    found[this[replaces]] = known_us[following[replaces]]
    return found


def _window_column(view: Window, values: Sequence[Any]) -> npt.NDArray[Any]:
    if view.event.fields[view.of[0]].is_numeric:
        return np.array(values, dtype=np.float64) + 0.0  # there is one zero
    return np.array(values, dtype=object)


def _latest_column(values: Sequence[Any], newest: Ints, numeric: bool) -> npt.NDArray[Any]:
    if numeric:
        column = np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)
        return np.where(newest >= 0, column[newest], np.nan)
    texts = np.array([None if value is None else str(value) for value in values], dtype=object)
    found: npt.NDArray[Any] = texts[newest]
    found[newest < 0] = None
    return found
