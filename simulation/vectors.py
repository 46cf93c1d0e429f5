"""The vector of every request of a stretch, computed in columns; the values that `Loop(vectors_only=True)` records, much faster."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from driftloop.contracts import UNSET_US
from driftloop.usecase import Fields, ReplayEvent, ReplayRequest, ReplayStep, Since, UseCase, View, Window
from driftloop.usecase import duration_us as duration_of
from services.features.history import Reads, ViewEvents, latest_events, since_values, window_values
from services.features.rekeying import SeenIds
from services.features.windows import Floats, Ints

_BUFFERED_MAX = 20_000  # events or requests kept as objects until they are turned into columns
Column = npt.NDArray[Any]
"""(rows,) float64 for a numeric feature, object (str) for a text."""


@dataclass(frozen=True)
class Vectors:
    """The model inputs of requests, in the order in which they were asked.

    `at_us`: start of the step in which each was asked (int64, microseconds). `numbers`: (requests, numeric inputs) float64,
    NaN where unknown. `texts`: (requests, text inputs) object, "" where unknown. Inputs in the use case's order.
    """

    entities: list[str]
    at_us: Ints
    numbers: Floats
    texts: npt.NDArray[Any]


def vectors(
    use_case: UseCase, steps: Iterable[ReplayStep], progress: Callable[[ReplayStep], None] | None = None
) -> Vectors:
    """The vector of every request of contiguous steps; an event seen before is dropped, a late one counts nowhere.

    Keeps columns only: about 60 bytes for an event and a view of it, and what it returns.
    """
    columns = _StretchColumns(use_case)
    with _without_cycle_search():
        for step in steps:
            columns.take(step)
            if progress is not None:
                progress(step)
        return columns.vectors()


@contextmanager
def _without_cycle_search() -> Iterator[None]:
    """No search for cycles meanwhile: a third of the time went into going through a replay's columns for cycles that it never makes."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _StretchColumns:
    """Events and requests as columns. Folds are the steps: a step's requests see the events of the steps before it."""

    def __init__(self, use_case: UseCase) -> None:
        self._use_case = use_case
        self._seen = SeenIds(duration_of(use_case.policy.dedupe_horizon))
        self._views = [_ViewColumns(view, duration_of(use_case.policy.lateness)) for view in use_case.views]
        self._events: dict[str, tuple[list[ReplayEvent], list[int]]] = {
            view.event.name: ([], []) for view in use_case.views
        }
        self._buffered = 0
        self._requests: list[ReplayRequest] = []
        self._request_folds: list[int] = []
        self._request_columns: list[list[Column]] = [[] for _ in use_case.request_inputs]
        self._clocks_us: list[int] = []
        self._clock_us = UNSET_US
        self._entities: list[str] = []
        self._starts_us: list[int] = []

    def take(self, step: ReplayStep) -> None:
        fold = len(self._clocks_us)
        self._clocks_us.append(self._clock_us)
        self._starts_us.append(step.start_us)
        self._requests += step.requests
        self._request_folds += [fold] * len(step.requests)
        is_new, of_type = self._seen.is_new, self._events
        for event in step.events:
            if is_new(event.id, event.known_at_us) and event.type in of_type:
                events, folds = of_type[event.type]
                events.append(event)
                folds.append(fold)
        self._clock_us = step.end_us
        self._seen.forget(step.end_us)
        self._buffered += len(step.events) + len(step.requests)
        if self._buffered > _BUFFERED_MAX:
            self._flush()

    def _flush(self) -> None:
        clocks_us = np.array(self._clocks_us)
        for columns in self._views:
            events, folds = self._events[columns.view.event.name]
            columns.add(events, np.array(folds, dtype=np.int64), clocks_us)
        for events, folds in self._events.values():
            events.clear()
            folds.clear()
        self._buffered = 0
        fields = [request.fields for request in self._requests]
        for columns in self._views:
            columns.ask(fields)
        for transform, feature, chunks in zip(
            self._use_case.request_transforms, self._use_case.request_inputs, self._request_columns, strict=True
        ):
            raw = [found.get(transform.of) for found in fields]
            chunks.append(
                _column(feature.numeric, [None if value is None else transform.compute(value) for value in raw])
            )
        self._entities += [request.entity for request in self._requests]
        self._requests = []

    def vectors(self) -> Vectors:
        self._flush()
        folds = np.array(self._request_folds, dtype=np.int64)
        clocks_us = np.array(self._clocks_us, dtype=np.int64)[folds]
        columns = [np.concatenate(chunks) for chunks in self._request_columns]
        for view in self._views:
            columns += view.read(folds, clocks_us)
        kinds = [(feature.numeric, column) for feature, column in zip(self._use_case.inputs, columns, strict=True)]
        numbers = [column for numeric, column in kinds if numeric]
        texts = [column for numeric, column in kinds if not numeric]
        rows = len(folds)
        return Vectors(
            entities=self._entities,
            at_us=np.array(self._starts_us, dtype=np.int64)[folds],
            numbers=np.stack(numbers, axis=1) if numbers else np.empty((rows, 0)),
            texts=np.stack(texts, axis=1) if texts else np.empty((rows, 0), dtype=object),
        )


class _ViewColumns:
    """One view's events and the feature entities that requests refer to, as columns."""

    def __init__(self, view: View, lateness_us: int) -> None:
        self.view = view
        self._lateness_us = lateness_us
        self._numbers = _Numbers()
        self._entities: list[Ints] = []
        self._folds: list[Ints] = []
        self._at_us: list[Ints] = []
        self._values: list[list[Column]] = [[] for _ in view.of]
        self._ids: list[str] = []
        self._asked: list[Ints] = []

    def add(self, events: Sequence[ReplayEvent], folds: Ints, clocks_us: Ints) -> None:
        fields = [event.fields for event in events]
        entities = self._entities_of(fields)
        at_us = np.array([event.event_time_us for event in events], dtype=np.int64)
        known_at_us = np.array([event.known_at_us for event in events], dtype=np.int64)
        declared = self.view.event.fields
        values = [_column(declared[name].is_numeric, [found.get(name) for found in fields]) for name in self.view.of]
        now_us = np.maximum(known_at_us, clocks_us[folds])
        counts = (entities >= 0) & (at_us > now_us - self._lateness_us)
        if isinstance(self.view, Window):
            edges_us = [self.view.edge_us(now_us, age_us) for age_us in self.view.ages_us]
            counts &= at_us > np.minimum.reduce(edges_us)
            if values[0].dtype == np.float64:
                counts &= np.isfinite(values[0])
                values[0] += 0.0  # there is one zero
            else:
                counts &= np.array([found.get(self.view.of[0]) is not None for found in fields], dtype=bool)
        else:
            counts &= at_us > now_us - self.view.ages_us[-1]
            self._ids += [events[row].id for row in np.flatnonzero(counts).tolist()]
        self._entities.append(entities[counts])
        self._folds.append(folds[counts])
        self._at_us.append(at_us[counts])
        for chunks, column in zip(self._values, values, strict=True):
            chunks.append(column[counts])

    def ask(self, fields: Sequence[Fields]) -> None:
        self._asked.append(self._entities_of(fields))

    def read(self, folds: Ints, clocks_us: Ints) -> list[Column]:
        """The view's features for every request, in declared order."""
        asked = np.concatenate(self._asked)
        known = np.flatnonzero(asked >= 0)
        # Requests of one step that share an entity are one read.
        steps = int(folds.max(initial=0)) + 1
        reads, rows = np.unique(asked[known] * steps + folds[known], return_inverse=True)
        clock_of_fold = np.zeros(steps, dtype=np.int64)
        clock_of_fold[folds] = clocks_us
        found = self._values_at(Reads(reads // steps, reads % steps, clock_of_fold[reads % steps]))
        columns = []
        for feature, values in zip(self.view.features, found, strict=True):
            column = np.full(len(asked), feature.default, dtype=values.dtype)
            column[known] = values[rows]
            if feature.numeric:
                column[np.isnan(column)] = feature.default
            columns.append(column)
        return columns

    def _values_at(self, reads: Reads) -> list[Column]:
        events = ViewEvents(*(np.concatenate(chunks) for chunks in (self._entities, self._folds, self._at_us)))
        values = [np.concatenate(chunks) for chunks in self._values]
        if isinstance(self.view, Window):
            return list(window_values(self.view, events, values[0], reads).T)
        if isinstance(self.view, Since):
            return [since_values(self.view, events, self._ids, reads)]
        rows = latest_events(events, self._ids, self.view.ages_us[0], reads)
        return [_where_found(rows, column) for column in values]

    def _entities_of(self, fields: Sequence[Fields]) -> Ints:
        columns = [[found.get(name) for found in fields] for name in self.view.by]
        keys: Iterable[Any] = columns[0] if len(columns) == 1 else zip(*columns, strict=True)
        numbers = self._numbers
        return np.array([numbers[key] for key in keys], dtype=np.int64)


class _Numbers(dict[Any, int]):
    """Numbers feature entities by their key values, from 0; −1 where one is absent."""

    def __missing__(self, key: Any) -> int:
        values = key if isinstance(key, tuple) else (key,)
        texts = tuple(str(value) for value in values)
        same = texts if isinstance(key, tuple) else texts[0]
        self[key] = -1 if None in values else self[same] if same != key else len(self)
        return self[key]


def _column(numeric: bool, values: Sequence[Any]) -> Column:
    """Values as a column; NaN or "" where there is none."""
    if numeric:
        return np.array(values, dtype=np.float64)
    column = np.empty(len(values), dtype=object)
    column[:] = ["" if value is None else str(value) for value in values]
    return column


def _where_found(rows: Ints, values: Column) -> Column:
    """`values` at rows; where a row is −1, NaN or ""."""
    missing = np.full(1, np.nan if values.dtype == np.float64 else "", dtype=values.dtype)
    return np.concatenate((values, missing))[rows]
