"""The schema that a use case's events are checked against, as a message: what producers may send, and who reads it; pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf import json_format

from driftloop.contracts.ids import derive_id
from driftloop.contracts.ingest.v1.ingest_pb2 import EventSchema, ExpectationSchema, FieldSchema, Schema
from driftloop.usecase import Event, Field, UseCase
from driftloop.usecase.schema import FieldValue

LABEL, PREDICTION_TIME, REQUEST = "label", "prediction time", "request"
# A value of each kind that functions of an event's fields are tried with, to see which of them they ask for.
_TRIED: Mapping[str, tuple[FieldValue, ...]] = {
    "number": (0.0, 1e9),
    "integer": (0, 1_000_000_000),
    "text": ("", "x"),
    "flag": (False, True),
    "time": (0, 4_000_000_000_000_000),
}


def schema_of(use_case: UseCase) -> Schema:
    """The declared schema. `digest` is of what producers see: who reads a field may change without a new version."""
    schema = Schema(use_case=use_case.name, events=[_event(use_case, event) for event in use_case.events])
    schema.digest = _digest(schema)
    schema.version = use_case.schema_version
    return schema


def _digest(schema: Schema) -> str:
    plain = json_format.MessageToDict(schema, preserving_proto_field_name=True)
    # The order in which things are declared says nothing.
    plain.get("events", []).sort(key=_name)
    for event in plain.get("events", ()):
        event.get("fields", []).sort(key=_name)
        event.get("expectations", []).sort(key=_name)
        for declared in event.get("fields", ()):
            declared.pop("readers", None)
            declared.get("one_of", []).sort()
    return derive_id("schema", json.dumps(plain, sort_keys=True))


def _name(plain: Mapping[str, Any]) -> str:
    return str(plain["name"])


def _event(use_case: UseCase, event: Event) -> EventSchema:
    readers = _readers(use_case, event)
    return EventSchema(
        name=event.name,
        entity=event.entity,
        fields=[_field(name, declared, readers.get(name, [])) for name, declared in event.fields.items()],
        expectations=[ExpectationSchema(name=each.name, otherwise=each.otherwise) for each in event.expectations],
    )


def _field(name: str, declared: Field, readers: list[str]) -> FieldSchema:
    return FieldSchema(
        name=name,
        kind=declared.kind,
        unit=declared.unit,
        optional=declared.optional,
        ge=declared.ge,
        le=declared.le,
        one_of=declared.one_of,
        max_length=declared.max_length if declared.kind == "text" else 0,
        pattern=declared.pattern,
        otherwise=declared.otherwise,
        deprecated=declared.deprecated,
        readers=readers,
    )


def _readers(use_case: UseCase, event: Event) -> dict[str, list[str]]:
    """Who needs which field of an event, in a fixed order."""
    found: dict[str, list[str]] = {}

    def reads(name: str, reader: str) -> None:
        if reader not in found.setdefault(name, []):
            found[name].append(reader)

    if event.name == use_case.label.on.name:
        for name in _asked_for(event, use_case.label.value):
            reads(name, LABEL)
    if event.name == use_case.predict.on.name:
        reads(use_case.predict.at.field, PREDICTION_TIME)
        for name in use_case.request_fields:
            reads(name, REQUEST)
        for name in use_case.slices:
            reads(name, f"slice {name}")
    for view in use_case.views:
        if view.event.name == event.name:
            for name in (*view.by, *view.of):
                reads(name, f"feature {view.name}")
    for expectation in event.expectations:
        for name in _asked_for(event, expectation.holds):
            reads(name, f"expectation {expectation.name}")
    return found


class _Asked(dict[str, Any]):
    """Fields that note which of them are asked for."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.names.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return super().get(name, default)

    def __contains__(self, name: object) -> bool:
        self.names.add(str(name))
        return super().__contains__(name)


def _asked_for(event: Event, function: Callable[[Mapping[str, Any]], object]) -> list[str]:
    """Fields that a function of an event asks for, as two trials show; all of them where it fails on both."""
    asked: set[str] = set()
    failed = 0
    for place in (0, 1):
        fields = _Asked({name: _TRIED[declared.kind][place] for name, declared in event.fields.items()})
        try:
            function(fields)
        except Exception:  # an author's function, tried with values that it may never be given
            failed += 1
        asked |= fields.names
    return [name for name in event.fields if failed == 2 or name in asked]
