"""A recorded history as columns: what was asked when, with which vector, and when its label became known; decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from driftloop.usecase import LabelRefused, ReplayEvent, ReplayStep, ReplayStretch, UseCase, duration_us, replay_steps
from services.trainer.attempts import TrainingSet
from simulation.vectors import vectors

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]
"""Microseconds, UTC."""
Rows = npt.NDArray[np.int64]
"""Indices of rows of a history, rising."""
NEVER_US = np.iinfo(np.int64).max
UNKNOWN_US = -1


@dataclass(frozen=True)
class Told:
    """Labels that were told more than once, every telling in order of time; most streams have none. Shapes (tellings,)."""

    rows: Rows
    at_us: Times
    labels: Floats


@dataclass(frozen=True)
class History:
    """Every entity that was asked about, sorted by (at_us, entity).

    at_us: declared prediction times, floored to the step; labels: as told last, NaN: never told; known_at_us: when a label was
    first known, −1: never; closed_at_us: when it became known that no label will come, −1: never; all of shape (rows,).
    numbers: float64 (rows, numeric inputs), NaN is missing; texts: object (rows, text inputs), "" is missing.
    """

    use_case: UseCase
    entities: list[str]
    at_us: Times
    labels: Floats
    known_at_us: Times
    closed_at_us: Times
    numbers: Floats
    texts: npt.NDArray[Any]
    retold: Told

    def __len__(self) -> int:
        return len(self.entities)

    @cached_property
    def labelled(self) -> Rows:
        """The rows that have a label in the end."""
        return np.flatnonzero(self.known_at_us != UNKNOWN_US)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Rows by entity."""
        return {entity: row for row, entity in enumerate(self.entities)}

    @cached_property
    def _usable_at_us(self) -> Times:
        """When each row may be trained on by the loop: its label is known and its cohort is whole or mature; (rows,)."""
        if not len(self):
            return np.empty(0, dtype=np.int64)
        cohort_us, matures_us = duration_us(self.use_case.policy.cohort), self.use_case.label.matures_after_us
        known = np.where(self.known_at_us == UNKNOWN_US, NEVER_US, self.known_at_us)
        closed = np.where(self.closed_at_us == UNKNOWN_US, NEVER_US, self.closed_at_us)
        cohorts = self.at_us // cohort_us
        first = np.flatnonzero(np.diff(cohorts, prepend=cohorts[0] - 1))
        resolved = np.maximum.reduceat(np.minimum(known, closed), first)
        end = (cohorts[first] + 1) * cohort_us
        ready = np.maximum(end, np.minimum(resolved, end + matures_us))
        return np.maximum(np.repeat(ready, np.diff(first, append=len(self))), known)

    def mature(self, clock_us: int) -> Rows:
        """The labelled rows of whole cohorts at a clock: those that trainer's assembly would choose."""
        return np.flatnonzero(self._usable_at_us <= clock_us)

    def arrived(self, clock_us: int) -> Rows:
        """The rows whose labels are known at a clock, whole cohorts or not."""
        return np.flatnonzero((self.known_at_us != UNKNOWN_US) & (self.known_at_us <= clock_us))

    def labels_at(self, clock_us: int) -> Floats:
        """Labels as they were told last at a clock, shape (rows,); right for rows whose label was known by then."""
        labels = self.labels
        if len(self.retold.rows):
            labels = labels.copy()
            told = self.retold.at_us <= clock_us
            labels[self.retold.rows[told]] = self.retold.labels[told]
        return labels

    def training_set(self, rows: Rows, clock_us: int) -> TrainingSet:
        """Rows as a training set. ValueError if a label was not known at the clock: no policy may learn from the future."""
        known_at_us = self.known_at_us[rows]
        if np.any(known_at_us == UNKNOWN_US) or np.any(known_at_us > clock_us):
            raise ValueError(f"a row's label was not known at {clock_us}")
        return TrainingSet(
            entities=[self.entities[row] for row in rows.tolist()],
            at_us=self.at_us[rows],
            numbers=self.numbers[rows],
            texts=self.texts[rows],
            labels=self.labels_at(clock_us)[rows],
            known_at_us=known_at_us,
        )


@dataclass
class _Labels:
    """What the events of a stretch say of labels, while they pass by."""

    use_case: UseCase
    told: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    closed: dict[str, int] = field(default_factory=dict)

    def tap(self, steps: Iterable[ReplayStep]) -> Iterator[ReplayStep]:
        on, closing = self.use_case.label.on.name, {event.name for event in self.use_case.label.never}
        for step in steps:
            for event in step.events:
                if event.type == on:
                    self._tell(event)
                elif event.type in closing:
                    self.closed.setdefault(event.entity, event.known_at_us)
            yield step

    def _tell(self, event: ReplayEvent) -> None:
        try:
            label = self.use_case.label_of(event.fields)
        except (LabelRefused, KeyError):  # matching and assembly pass over it, too: the row stays without a label
            return
        before = self.told.setdefault(event.entity, [])
        if not before or before[-1][1] != label:
            before.append((event.known_at_us, label))


def history_of(
    use_case: UseCase, stretch: ReplayStretch, progress: Callable[[ReplayStep], None] | None = None
) -> History:
    """The history of a stretch: vectors as serving would have assembled them, labels when they became known."""
    labels = _Labels(use_case)
    steps = replay_steps(stretch, use_case.step_us, use_case.label.matures_after_us)
    found = vectors(use_case, labels.tap(steps), progress)
    order = np.lexsort((np.array(found.entities, dtype=object).astype(str), found.at_us))
    first = _first_of_each([found.entities[place] for place in order.tolist()])
    order = order[first]
    entities = [found.entities[place] for place in order.tolist()]
    told = [labels.told.get(entity, []) for entity in entities]
    again = [(row, *telling) for row, tellings in enumerate(told) if len(tellings) > 1 for telling in tellings]
    return History(
        use_case=use_case,
        entities=entities,
        at_us=found.at_us[order],
        labels=np.array([tellings[-1][1] if tellings else np.nan for tellings in told]),
        known_at_us=np.array([tellings[0][0] if tellings else UNKNOWN_US for tellings in told], dtype=np.int64),
        closed_at_us=np.array([labels.closed.get(entity, UNKNOWN_US) for entity in entities], dtype=np.int64),
        numbers=found.numbers[order],
        texts=found.texts[order],
        retold=Told(
            rows=np.array([row for row, _, _ in again], dtype=np.int64),
            at_us=np.array([at_us for _, at_us, _ in again], dtype=np.int64),
            labels=np.array([label for _, _, label in again], dtype=np.float64),
        ),
    )


def _first_of_each(entities: list[str]) -> Rows:
    """Places of the first request of every entity: matching keeps the first answer."""
    seen: set[str] = set()
    places = []
    for place, entity in enumerate(entities):
        if entity not in seen:
            seen.add(entity)
            places.append(place)
    return np.array(places, dtype=np.int64)
