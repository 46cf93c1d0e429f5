"""The use case that follows from what was inferred of a table; `source` writes the same as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from driftloop.tables.columns import Column
from driftloop.tables.inferred import Inferred
from driftloop.usecase import (
    Event,
    Field,
    Label,
    Latest,
    Policy,
    Prediction,
    PredictionTime,
    Request,
    RequestTransform,
    UseCase,
    View,
    Window,
    hour_of,
    weekday_of,
)

ASKED, LABELLED, CLOSED = "asked", "labelled", "closed"
ENTITY = "row"
TRANSFORMS: Mapping[str, Callable[[str], RequestTransform]] = {"hour": hour_of, "weekday": weekday_of}


def use_case_of(inferred: Inferred) -> UseCase:
    """The use case: `asked` announces a row, `labelled` brings its label, `closed` says that none will come."""
    asked = Event(ASKED, ENTITY, asked_fields(inferred))
    labelled = Event(LABELLED, ENTITY, labelled_fields(inferred))
    closed = [Event(CLOSED, ENTITY, {})] if inferred.unlabelled else []
    durations, label_field = inferred.durations, inferred.label_field
    return UseCase(
        name=inferred.name,
        events=[asked, labelled, *closed],
        predict=Prediction(
            on=asked,
            at=PredictionTime(inferred.time_field, before_us=0),
            task=inferred.label.task,
            classes=_classes(inferred),
        ),
        features=[*_request(inferred), *views(inferred, labelled)],
        label=Label(
            on=labelled,
            value=lambda fields: fields[label_field],
            never=closed,
            matures_after=durations.matures_after,
        ),
        slices=list(inferred.slices),
        policy=Policy(**policy_arguments(inferred)),
        clock="replay",
        step_us=durations.step_us,
    )


def asked_fields(inferred: Inferred) -> dict[str, Field]:
    """Fields of the announcing event, in the table's order after the time."""
    return {inferred.time_field: Field("time")} | {column.field: field_of(column) for column in inferred.fields}


def labelled_fields(inferred: Inferred) -> dict[str, Field]:
    """Fields of the event that brings the label: it, and the keys by which it is summed up."""
    kinds: dict[str, type] = {"binary": bool, "multiclass": str, "regression": float}
    label = Field(kinds[inferred.label.task], one_of=_classes(inferred))
    return {inferred.label_field: label} | {column.field: field_of(column) for column in inferred.keys}


def field_of(column: Column) -> Field:
    """A column's field."""
    kinds: dict[str, type | str] = {"number": float, "flag": bool, "category": str, "key": str, "date": "time"}
    return Field(kinds[column.role], optional=column.optional)


def request_features(inferred: Inferred) -> list[str | RequestTransform]:
    """What comes with the request, in the table's order; transforms of the time last."""
    found: list[str | RequestTransform] = []
    for column in inferred.fields:
        if column.role == "date":
            found.extend(TRANSFORMS[which](column.field) for which in column.transforms)
        elif column.is_input:
            found.append(column.field)
    return [*found, *(TRANSFORMS[which](inferred.time_field) for which in inferred.time_transforms)]


def _request(inferred: Inferred) -> list[Request]:
    """None where all that is known of a row is what is known of its keys."""
    features = request_features(inferred)
    return [Request(*features)] if features else []


def views(inferred: Inferred, labelled: Event) -> list[View]:
    """What is known of each key so far: its labels' mean and count, and its newest label."""
    found: list[View] = []
    for column in inferred.keys:
        over, of = inferred.windows[column.field], inferred.label_field
        if inferred.label.task != "multiclass":
            found.append(Window(labelled, by=column.field, of=of, over=over, stats=["mean", "count"]))
        found.append(Latest(labelled, by=column.field, of=of, max_age=over[-1]))
    return found


def policy_arguments(inferred: Inferred) -> dict[str, Any]:
    """The policy's fields that the table decides; those that are as by default are left out."""
    durations, usual = inferred.durations, Policy()
    chosen = {
        "budget": durations.budget,
        "bootstrap_rows": durations.bootstrap_rows,
        "cooldown": durations.cooldown,
        "cohort": durations.cohort,
        "lateness": durations.lateness,
    }
    return {name: value for name, value in chosen.items() if value != getattr(usual, name)}


def _classes(inferred: Inferred) -> tuple[str, ...]:
    return inferred.label.classes if inferred.label.task == "multiclass" else ()
