"""The OpenAPI document of the HTTP door, with each use case's own fields as a JSON Schema; no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from driftloop.contracts.serving.v1.serving_pb2 import (
    ExplainResponse,
    GetReleaseResponse,
    ListModelsResponse,
    PredictBatchResponse,
    PredictResponse,
)
from driftloop.usecase import Field, UseCase

_BASE = "/v1/usecases/{use_case}"
PREDICT, BATCH, EXPLAIN = f"{_BASE}/predict", f"{_BASE}/predict-batch", f"{_BASE}/explain"
RELEASE, MODELS, OPENAPI, READY = f"{_BASE}/release", f"{_BASE}/models", "/openapi.json", "/readyz"
_KINDS: dict[str, dict[str, Any]] = {
    "number": {"type": "number"},
    "integer": {"type": "integer", "format": "int64"},
    "text": {"type": "string"},
    "flag": {"type": "boolean"},
    "time": {
        "description": "RFC 3339 with a time zone, or whole microseconds since 1970, UTC",
        "oneOf": [{"type": "string", "format": "date-time"}, {"type": "integer", "format": "int64"}],
    },
}
_WHY = {
    "400": "The request breaks the schema: `violations` names the fields",
    "404": "The use case, or the prediction, is not known here",
    "408": "The body did not come in time",
    "409": "No model has been released yet, or this one cannot be explained",
    "413": "The body is too large",
    "429": "More than can be answered in time: ask again after Retry-After",
    "503": "Features or the newest release are still being read",
}


def document(use_cases: Sequence[UseCase]) -> dict[str, Any]:
    """OpenAPI 3.1, as plain values. Paths are written out for each use case, because their fields differ."""
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {"Problem": _problem_schema()}
    for use_case in use_cases:
        one = f"{use_case.name}_request"
        schemas[one] = _request(use_case)
        many = {"type": "object", "required": ["requests"], "properties": {"requests": _list(_ref(one))}}
        asked = {"type": "object", "required": ["prediction_id"], "properties": {"prediction_id": {"type": "string"}}}
        for path, summary, body, answer in (
            (PREDICT, "Ask for one prediction", _ref(one), PredictResponse),
            (BATCH, "Ask for many, all or none", many, PredictBatchResponse),
            (EXPLAIN, "What each input contributed to a prediction of this replica", asked, ExplainResponse),
            (RELEASE, "The release that answers", None, GetReleaseResponse),
            (MODELS, "The models that are loaded, and their roles", None, ListModelsResponse),
        ):
            found: dict[str, Any] = {"summary": summary, "responses": _responses(answer.DESCRIPTOR, schemas)}
            if body is not None:
                found["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
            paths[path.replace("{use_case}", use_case.name)] = {"get" if body is None else "post": found}
    paths[READY] = {
        "get": {
            "summary": "Whether every use case is answered",
            "responses": {"200": {"description": "It is"}, "503": {"description": "Not yet"}},
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "driftloop serving", "version": "1"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _request(use_case: UseCase) -> dict[str, Any]:
    fields = use_case.request_fields
    return {
        "type": "object",
        "required": ["entity", "request_id", "fields"],
        "additionalProperties": False,
        "properties": {
            "entity": {"type": "string", "maxLength": 256},
            "request_id": {
                "type": "string",
                "maxLength": 256,
                "description": "Yours; the same one is the same prediction",
            },
            "include_vector": {"type": "boolean"},
            "fields": {
                "type": "object",
                "additionalProperties": False,
                "required": [name for name, field in fields.items() if not field.optional],
                "properties": {name: _field(field) for name, field in fields.items()},
            },
        },
    }


def _field(field: Field) -> dict[str, Any]:
    found = dict(_KINDS[field.kind])
    if field.unit:
        found["description"] = field.unit
    if field.kind == "text":
        found["maxLength"] = field.max_length
        if field.one_of:
            found["enum"] = list(field.one_of)
    elif field.kind in ("number", "integer"):
        found |= {name: bound for name, bound in (("minimum", field.ge), ("maximum", field.le)) if bound is not None}
    return found


def _responses(answer: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    good = {"description": "The answer", "content": {"application/json": {"schema": _message(answer, schemas)}}}
    wrong = {
        status: {"description": why, "content": {"application/problem+json": {"schema": _ref("Problem")}}}
        for status, why in _WHY.items()
    }
    return {"200": good, **wrong}


def _message(described: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """A reference to the schema of a message as proto3's JSON mapping writes it; added to `schemas` if it is new."""
    if described.name not in schemas:
        schemas[described.name] = {}  # a message may hold itself
        schemas[described.name] = {
            "type": "object",
            "properties": {field.name: _answered(field, schemas) for field in described.fields},
        }
    return _ref(described.name)


def _answered(field: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    if field.message_type is not None:
        found = _message(field.message_type, schemas)
    elif field.enum_type is not None:
        found = {"enum": [value.name for value in field.enum_type.values]}
    elif field.type == FieldDescriptor.TYPE_DOUBLE:
        found = {"oneOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}
    elif field.type == FieldDescriptor.TYPE_BOOL:
        found = {"type": "boolean"}
    elif field.type == FieldDescriptor.TYPE_INT32:
        found = {"type": "integer"}
    else:  # texts, and int64, which JSON's numbers cannot hold
        found = {"type": "string"}
    return _list(found) if field.is_repeated else found


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _problem_schema() -> dict[str, Any]:
    text = {"type": "string"}
    violation = {"type": "object", "properties": {"field": text, "rule": text, "description": text}}
    return {
        "type": "object",
        "description": "RFC 9457",
        "required": ["status", "detail"],
        "properties": {"type": text, "status": {"type": "integer"}, "detail": text, "violations": _list(violation)},
    }
