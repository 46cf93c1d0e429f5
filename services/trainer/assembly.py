"""Which entities become training rows, and what their inputs and labels are as known at a clock; no I/O.

Labels that come early are a biased sample (a flight that is cancelled or arrives early is known early), so rows come from
whole cohorts of prediction time: those in which every entity has a label or never will, and those that have matured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from driftloop.contracts import from_wire
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.monitor.v1.monitor_pb2 import Affected
from driftloop.usecase import Feature, Fields, LabelRefused, UseCase, duration_us, floor_us
from services.trainer.attempts import TrainingSet
from services.trainer.errors import DataRefused

Column = npt.NDArray[Any]


@dataclass(frozen=True)
class Examples:
    """Labelled entities of whole cohorts, sorted by (prediction time, entity); `fields` are those of the announcement.

    The counts say what was left out: entities without a label for good, and those of cohorts that are not complete yet.
    """

    entities: list[str]
    at_us: list[int]
    fields: list[Fields]
    labels: list[float]
    known_at_us: list[int]
    never: int
    incomplete: int

    def __len__(self) -> int:
        return len(self.entities)

    def newest(self, rows_max: int) -> Examples:
        """The newest `rows_max` of them."""
        kept = slice(max(0, len(self) - rows_max), None)
        return Examples(
            self.entities[kept],
            self.at_us[kept],
            self.fields[kept],
            self.labels[kept],
            self.known_at_us[kept],
            self.never,
            self.incomplete,
        )


@dataclass(frozen=True, slots=True)
class _Announced:
    at_us: int
    fields: Fields


def event_types(use_case: UseCase) -> list[str]:
    """The types of events that `examples` needs."""
    closing = [event.name for event in use_case.label.never]
    return list(dict.fromkeys([use_case.predict.on.name, use_case.label.on.name, *closing]))


def examples(use_case: UseCase, events: Iterable[Event], clock_us: int) -> Examples:
    """Training examples from accepted events, in any order, as known at the clock; later events are passed over.

    An entity announced again has the prediction time and fields of its newest announcement that was known by that time.
    A label told again counts as last told. An entity both labelled and closed has its label.
    """
    known = sorted((e for e in events if e.known_at_us <= clock_us), key=lambda e: (e.known_at_us, e.id))
    entities: dict[str, _Announced] = {}
    labels: dict[str, tuple[float, int]] = {}
    closed: set[str] = set()
    closing = {event.name for event in use_case.label.never}
    for event in known:
        if event.type == use_case.predict.on.name:
            fields = from_wire(event.fields)
            at_us = use_case.prediction_time_us(fields)
            if event.entity not in entities or event.known_at_us <= at_us:
                entities[event.entity] = _Announced(at_us, fields)
        elif event.type == use_case.label.on.name:
            try:
                labels[event.entity] = (use_case.label_of(from_wire(event.fields)), event.known_at_us)
            except (LabelRefused, KeyError):  # of a declaration that has changed, or without the label's field
                closed.add(event.entity)
        elif event.type in closing:
            closed.add(event.entity)
    return _whole_cohorts(use_case, entities, labels, closed, clock_us)


def _whole_cohorts(
    use_case: UseCase,
    entities: Mapping[str, _Announced],
    labels: Mapping[str, tuple[float, int]],
    closed: set[str],
    clock_us: int,
) -> Examples:
    cohort_us, matures_us = duration_us(use_case.policy.cohort), use_case.label.matures_after_us
    cohorts: dict[int, list[str]] = {}
    for name, entity in entities.items():
        cohorts.setdefault(floor_us(entity.at_us, cohort_us), []).append(name)
    chosen: list[str] = []
    never = incomplete = 0
    for start_us, names in cohorts.items():
        end_us = start_us + cohort_us
        resolved = all(name in labels or name in closed for name in names)
        if end_us <= clock_us and (resolved or end_us + matures_us <= clock_us):
            labelled = [name for name in names if name in labels]
            chosen += labelled
            never += len(names) - len(labelled)
        else:
            incomplete += len(names)
    chosen.sort(key=lambda name: (entities[name].at_us, name))
    return Examples(
        entities=chosen,
        at_us=[entities[name].at_us for name in chosen],
        fields=[entities[name].fields for name in chosen],
        labels=[labels[name][0] for name in chosen],
        known_at_us=[labels[name][1] for name in chosen],
        never=never,
        incomplete=incomplete,
    )


def view_keys(use_case: UseCase, found: Examples) -> dict[str, list[str | None]]:
    """For each view the key of every example, None where one of its fields is absent."""
    return {view.name: [view.key(fields) for fields in found.fields] for view in use_case.views}


def training_set(use_case: UseCase, found: Examples, values: Mapping[str, Column]) -> TrainingSet:
    """Rows in the order of serving's vectors: request features, then each view's; what is missing has its stated default.

    `values`: for each feature of a view a column, shape (rows,), float64 with NaN or object with None where unknown.
    """
    request = [use_case.request_values(fields) for fields in found.fields]
    columns: list[tuple[Feature, Sequence[Any] | Column]] = [
        (feature, [row[place] for row in request]) for place, feature in enumerate(use_case.request_inputs)
    ]
    columns += [(feature, values[feature.name]) for view in use_case.views for feature in view.features]
    numbers = [_filled(feature, column) for feature, column in columns if feature.numeric]
    texts = [_worded(feature, column) for feature, column in columns if not feature.numeric]
    rows = len(found)
    return TrainingSet(
        entities=found.entities,
        at_us=np.array(found.at_us, dtype=np.int64),
        numbers=np.column_stack(numbers) if numbers else np.empty((rows, 0)),
        texts=np.column_stack(texts) if texts else np.empty((rows, 0), dtype=object),
        labels=np.array(found.labels, dtype=np.float64),
        known_at_us=np.array(found.known_at_us, dtype=np.int64),
    )


def without_affected(rows: TrainingSet, affected: Iterable[Affected]) -> tuple[TrainingSet, int]:
    """The rows but for those predicted in stretches that an incident keeps from training, and how many these are.

    They are left out whole, with what is right about them: their label is true, but a model that learned from them would take a
    broken sensor's values for the world's, and one that learned them as missing would rely less on the sensor when it is mended.
    """
    kept = np.ones(len(rows), dtype=bool)
    for stretch in affected:
        kept &= (rows.at_us < stretch.from_us) | (rows.at_us >= stretch.to_us)
    if kept.all():
        return rows, 0
    places = np.flatnonzero(kept)
    found = TrainingSet(
        entities=[rows.entities[place] for place in places.tolist()],
        at_us=rows.at_us[places],
        numbers=rows.numbers[places],
        texts=rows.texts[places],
        labels=rows.labels[places],
        known_at_us=rows.known_at_us[places],
    )
    return found, len(rows) - len(found)


def _filled(feature: Feature, column: Sequence[Any] | Column) -> npt.NDArray[np.float64]:
    numbers = np.asarray(column, dtype=np.float64)
    return np.where(np.isnan(numbers), float(feature.default), numbers)


def _worded(feature: Feature, column: Sequence[Any] | Column) -> Column:
    return np.array([feature.default if value is None else str(value) for value in column], dtype=object)


def validate(use_case: UseCase, rows: TrainingSet, rows_min: int, had_values: Sequence[str]) -> None:
    """DataRefused, with every reason, if the rows do not bear a model.

    `had_values`: numeric inputs that had values when the champion was trained; one without any now means that its source
    is gone or the join is broken, and a model that learned to do without it would hide that.
    """
    reasons = []
    if len(rows) < rows_min:
        reasons.append(f"{len(rows)} rows, at least {rows_min} are needed")
    elif len(np.unique(rows.labels)) < 2:
        classes, label = use_case.predict.classes, float(rows.labels[0])
        reasons.append(f"all {len(rows)} rows have the label {classes[int(label)] if classes else f'{label:g}'}")
    if not np.all(np.isfinite(rows.labels)):
        reasons.append("a label is no finite number")
    empty = set(inputs_without_values(use_case, rows))
    gone = [name for name in had_values if name in empty]
    if gone:
        reasons.append(f"no row has a value of {', '.join(gone)}, which the champion was trained on")
    of_views = {feature.name for view in use_case.views for feature in view.features if feature.numeric}
    varying = {name for place, name in enumerate(use_case.numeric_inputs) if _varies(rows.numbers[:, place])}
    if len(rows) and of_views and not of_views & varying:
        reasons.append("no feature of any view tells two rows apart: the join found nothing")
    if reasons:
        raise DataRefused("; ".join(reasons))


def _varies(column: npt.NDArray[np.float64]) -> bool:
    present = column[~np.isnan(column)]
    return bool(len(present)) and bool(np.any(present != present[0]))


def inputs_without_values(use_case: UseCase, rows: TrainingSet) -> list[str]:
    """Numeric inputs for which no row has a value."""
    missing = np.all(np.isnan(rows.numbers), axis=0)
    return [name for name, is_missing in zip(use_case.numeric_inputs, missing, strict=True) if is_missing]


def dataset_digest(use_case: UseCase, rows: TrainingSet) -> str:
    """SHA-256 of the rows' content: the same rows give the same digest, however their parts were cut."""
    digest = hashlib.sha256(use_case.inputs_digest.encode())
    numbers = np.where(np.isnan(rows.numbers), np.nan, rows.numbers)  # one NaN
    for column in (rows.at_us, numbers, rows.labels, rows.known_at_us):
        digest.update(np.ascontiguousarray(column).tobytes())
    for text in [*rows.entities, *rows.texts.ravel().tolist()]:
        data = str(text).encode()
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.hexdigest()
