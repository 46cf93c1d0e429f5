"""The OpenAPI document of the HTTP door, with the use case's own events as JSON Schemas; no I/O."""

from __future__ import annotations

from typing import Any

from driftloop.contracts.cloudevents import BATCH, JSON, STRUCTURED
from driftloop.usecase import Event, Field, UseCase

_PROBLEM = "application/problem+json"
_TYPES: dict[str, dict[str, Any]] = {
    "number": {"type": "number"},
    "integer": {"type": "integer", "format": "int64"},
    "text": {"type": "string"},
    "flag": {"type": "boolean"},
    "time": {
        "description": "RFC 3339 with a time zone, or whole microseconds since the epoch, UTC",
        "oneOf": [{"type": "string", "format": "date-time"}, {"type": "integer", "format": "int64"}],
    },
}


def document(use_case: UseCase) -> dict[str, Any]:
    """The document, as plain values; OpenAPI 3.1."""
    names = [f"{event.name}_event" for event in use_case.events]
    schemas = {name: _event(event) for name, event in zip(names, use_case.events, strict=True)} | _OWN
    any_event = {"oneOf": [_ref(name) for name in names]}
    if len(names) > 1:
        any_event["discriminator"] = {  # type: ignore[assignment]
            "propertyName": "type",
            "mapping": {event.name: _ref(f"{event.name}_event")["$ref"] for event in use_case.events},
        }
    schemas["Event"] = any_event
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"driftloop ingest: {use_case.name}",
            "version": str(use_case.schema_version),
            "description": "The door for events. An answer is given only after the broker has acknowledged; the same call "
            "again is safe, because an event's id is the producer's.",
        },
        "paths": {
            "/v1/events": {"post": _post_events()},
            "/v1/clock": {"post": _post_clock()},
            "/openapi.json": {"get": _get("This document", {"200": _json("The document", {"type": "object"})})},
            "/healthz": {"get": _get("Whether the process answers", {"200": _json("It does", {"type": "object"})})},
            "/readyz": {
                "get": _get(
                    "Whether events are taken in",
                    {"200": _json("They are", {"type": "object"}), "503": _json("They are not", {"type": "object"})},
                )
            },
        },
        "components": {"schemas": schemas},
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(description: str, schema: dict[str, Any], media: str = JSON, **more: Any) -> dict[str, Any]:
    return {"description": description, "content": {media: {"schema": schema}}, **more}


def _get(summary: str, responses: dict[str, Any]) -> dict[str, Any]:
    return {"summary": summary, "responses": responses}


def _problem(description: str, *, retry: bool = False) -> dict[str, Any]:
    headers = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}
    return _json(description, _ref("Problem"), _PROBLEM, **({"headers": headers} if retry else {}))


_REFUSALS = {
    "408": _problem("The body did not come in time"),
    "413": _problem("More bytes or events than a call may have"),
    "429": _problem("Too much at once, nothing is lost: make the same call again", retry=True),
    "503": _problem("The broker does not answer: make the same call again", retry=True),
}


def _post_events() -> dict[str, Any]:
    headers = [
        {"name": f"ce-{name}", "in": "header", "required": False, "schema": {"type": "string"}, "description": what}
        for name, what in (
            ("specversion", "Binary mode: 1.0"),
            ("id", "Binary mode: the event's id, unique in the use case"),
            ("type", "Binary mode: a declared event type"),
            ("source", "Binary mode: who tells it"),
            ("subject", "Binary mode: the entity"),
            ("time", "Binary mode: when it happened, RFC 3339"),
            ("knownat", "Binary mode, replayed use cases: when it could be known"),
        )
    ]
    return {
        "summary": "Send one event (structured or binary) or a batch",
        "parameters": headers,
        "requestBody": {
            "required": True,
            "content": {
                STRUCTURED: {"schema": _ref("Event")},
                BATCH: {"schema": {"type": "array", "items": _ref("Event")}},
                JSON: {"schema": {"type": "object", "description": "Binary mode: the event's data"}},
            },
        },
        "responses": {
            "200": _json(
                "Accepted, or a duplicate of what was; of a batch, each in its order",
                {"oneOf": [_ref("Outcome"), {"type": "array", "items": _ref("Outcome")}]},
            ),
            "207": _json(
                "A batch of which some were rejected: see each outcome", {"type": "array", "items": _ref("Outcome")}
            ),
            "400": _problem("The event breaks these rules, and is in dead letters; or the body cannot be read"),
            "409": _problem("The id came before with other content; it is in dead letters"),
            "415": _problem("Another media type, or another charset than UTF-8"),
            **_REFUSALS,
        },
    }


def _post_clock() -> dict[str, Any]:
    known_at = {"known_at": _TYPES["time"], "usecase": {"type": "string"}}
    asked = {"type": "object", "required": ["known_at"], "properties": known_at}
    clock = {"type": "object", "properties": {"clock": {"type": "string", "format": "date-time"}}}
    return {
        "summary": "Move the clock of a replayed use case",
        "requestBody": {"required": True, "content": {JSON: {"schema": asked}}},
        "responses": {
            "200": _json("Where the clock is, once every partition knows", clock),
            "400": _problem("The body cannot be read"),
            "404": _problem("Another use case is served here"),
            "409": _problem("The clock is live, or beyond that time"),
            **_REFUSALS,
        },
    }


def _event(event: Event) -> dict[str, Any]:
    data = {
        "type": "object",
        "properties": {name: _field(field) for name, field in event.fields.items()},
        "required": [name for name, field in event.fields.items() if not field.optional],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "required": ["specversion", "id", "source", "type", "subject", "time"] + (["data"] if data["required"] else []),
        "properties": {
            "specversion": {"const": "1.0"},
            "id": {"type": "string", "maxLength": 128, "description": "Yours; the same id is the same event"},
            "source": {"type": "string", "maxLength": 256, "description": "Who tells it"},
            "type": {"const": event.name},
            "subject": {"type": "string", "maxLength": 256, "description": f"The {event.entity}"},
            "time": {"type": "string", "format": "date-time", "description": "When it happened"},
            "knownat": _TYPES["time"] | {"description": "When it could be known; only where the use case is replayed"},
            "usecase": {"type": "string", "description": "The use case; the one served here where it is left out"},
            "datacontenttype": {"const": JSON},
            "data": data,
        },
    }


def _field(field: Field) -> dict[str, Any]:
    schema = dict(_TYPES[field.kind])
    if field.otherwise == "reject":  # what only warns is accepted
        bounds = {"minimum": field.ge, "maximum": field.le, "enum": list(field.one_of) or None}
        pattern = f"^(?:{field.pattern})$" if field.pattern else None
        found = {name: value for name, value in (bounds | {"pattern": pattern}).items() if value is not None}
        schema |= {name: value for name, value in found.items() if field.kind != "time"}
    if field.kind == "text":
        schema["maxLength"] = field.max_length
    if field.unit:
        schema["description"] = field.unit
    if field.deprecated:
        schema |= {"deprecated": True, "description": f"deprecated: {field.deprecated}"}
    return schema


_VIOLATIONS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "field": {"type": "string", "description": "data.…, or an attribute; empty: the event"},
            "rule": {"type": "string"},
            "description": {"type": "string"},
        },
    },
}
_OWN: dict[str, dict[str, Any]] = {
    "Outcome": {
        "type": "object",
        "required": ["id", "outcome"],
        "properties": {
            "id": {"type": "string"},
            "outcome": {"enum": ["accepted", "duplicate", "rejected"]},
            "status": {"type": "integer", "description": "Rejected: what it would have been answered alone"},
            "violations": _VIOLATIONS,
        },
    },
    "Problem": {
        "type": "object",
        "description": "RFC 9457",
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "id": {"type": "string"},
            "violations": _VIOLATIONS,
            "retry_after_s": {"type": "number"},
        },
    },
}
