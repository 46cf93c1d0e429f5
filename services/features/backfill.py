"""Says which updates a stretch of logged events brings about, a view at a time and in columns; does no I/O.

The values are those of `Aggregation`: both are held to the same results. An update is made where an event changes a value, where
the clock moves something out of a window (at that very moment, while the stream says so at its next watermark), and at the
stretch's beginning for what is known by then, so that a stretch stands for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.usecase import FieldValue, Since, UseCase, View, Window, duration_us, entity_key
from services.features.entities import too_late
from services.features.history import Reads, ViewEvents, latest_events, newest_times, since_values, window_values
from services.features.rekeying import fields_of
from services.features.windows import Ints

_KEYS_MAX = 100_000  # key values whose key is remembered: about 30 MB
_PARSED_MAX = 1_000  # events at once: more are no faster, and keep the garbage collector busy


class LoggedEvents(NamedTuple):
    """Accepted events in the order of (known time, id), a column each; `events` are serialised."""

    types: Sequence[str]
    ids: Sequence[str]
    at_us: Ints
    known_at_us: Ints
    events: Sequence[bytes]


@dataclass(frozen=True)
class ViewParts:
    """What one view needs of events, in the order in which they were known, a column each; `values` has one per field.

    A field's column is float64 with NaN where it is absent, or object (str or None).
    """

    view: View
    keys: npt.NDArray[Any]
    ids: npt.NDArray[Any]  # of windows none: their values do not depend on them
    at_us: Ints
    known_at_us: Ints
    values: Sequence[npt.NDArray[Any]]

    def since(self, known_from_us: int) -> ViewParts:
        """Those known from a time on."""
        kept = slice(int(np.searchsorted(self.known_at_us, known_from_us)), None)
        values = [column[kept] for column in self.values]
        return ViewParts(self.view, self.keys[kept], self.ids[kept], self.at_us[kept], self.known_at_us[kept], values)

    def followed_by(self, later: ViewParts) -> ViewParts:
        """Those and others of the same view, none of them known earlier."""
        return ViewParts(
            self.view,
            np.concatenate((self.keys, later.keys)),
            np.concatenate((self.ids, later.ids)),
            np.concatenate((self.at_us, later.at_us)),
            np.concatenate((self.known_at_us, later.known_at_us)),
            [np.concatenate(pair) for pair in zip(self.values, later.values, strict=True)],
        )


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
    types, rows, columns = np.asarray(logged.types, dtype=object), {}, {}
    for kind, names in needed.items():
        rows[kind] = np.flatnonzero(types == kind)
        columns[kind] = _columns([logged.events[row] for row in rows[kind].tolist()], names)
    return [reader.parts(logged, rows[kind], columns[kind]) for kind, of_type in readers.items() for reader in of_type]


def _columns(events: Sequence[bytes], names: Sequence[str]) -> list[list[FieldValue | None]]:
    """Fields of serialised events, a column each; some events at a time, so that few are held as objects."""
    columns: list[list[FieldValue | None]] = [[] for _ in names]
    for first in range(0, len(events), _PARSED_MAX):
        fields = fields_of([*map(Event.FromString, events[first : first + _PARSED_MAX])], names)
        for name, column in zip(names, columns, strict=True):
            column += fields[name]
    return columns


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

    def parts(self, logged: LoggedEvents, rows: Ints, columns: Sequence[Sequence[FieldValue | None]]) -> ViewParts:
        """The view's part of the events of some rows, whose fields are given a column each."""
        known, key_of = self._known, self._key
        named = zip(*[columns[place] for place in self._by], strict=True)
        keys = np.array([known[each] if each in known else key_of(each) for each in named], dtype=object)
        declared = self.view.event.fields
        values = [
            np.array(columns[place], dtype=np.float64 if declared[name].is_numeric else object)
            for place, name in zip(self._of, self.view.of, strict=True)
        ]
        taken = keys != ""
        if self._is_window:
            taken &= np.isfinite(values[0]) if values[0].dtype == np.float64 else values[0] != None  # noqa: E711
        rows = rows[taken]
        ids = [] if self._is_window else [logged.ids[row] for row in rows.tolist()]
        return ViewParts(
            self.view,
            keys[taken],
            np.array(ids, dtype=object),
            logged.at_us[rows],
            logged.known_at_us[rows],
            [column[taken] for column in values],
        )

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
    values = [column[kept] for column in parts.values]
    entities, names = pd.factorize(parts.keys[kept])
    events = ViewEvents(entities, np.arange(len(kept)), at_us)
    reads = _reads(view, entities, at_us, known_us, from_us, to_us, carries)
    if not len(reads.entities):
        empty = np.zeros(0, dtype=np.int64)
        columns = [np.zeros(0, dtype=np.float64 if each.numeric else object) for each in view.features]
        return Updates(np.zeros(0, dtype=object), empty, empty, columns)
    if isinstance(view, Window):
        (column,) = values
        columns = list(window_values(view, events, column + 0.0 if column.dtype == np.float64 else column, reads).T)
    elif isinstance(view, Since):
        columns = [since_values(view, events, parts.ids[kept].tolist(), reads)]
    else:
        newest = latest_events(events, parts.ids[kept].tolist(), view.ages_us[0], reads)
        columns = [_latest_column(column, newest) for column in values]
    order = np.argsort(reads.clocks_us, kind="stable")
    columns = [column[order] for column in columns]
    newest_us = newest_times(events, reads)[order]
    return Updates(names[reads.entities[order]], newest_us, reads.clocks_us[order], columns)


def _reads(view: View, entities: Ints, at_us: Ints, known_us: Ints, from_us: int, to_us: int, carries: bool) -> Reads:
    """When there is an update, of which entity, and how many events are seen by then; by entity, then by known time."""
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
    order = np.lexsort((clock_us, entity))  # what is read of one entity lies together in memory
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


def _latest_column(values: npt.NDArray[Any], newest: Ints) -> npt.NDArray[Any]:
    if values.dtype == np.float64:
        return np.where(newest >= 0, values[newest], np.nan)
    found: npt.NDArray[Any] = values[newest]
    found[newest < 0] = None
    return found
