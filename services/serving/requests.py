"""Checks a predict request against the use case's schema and reads its fields; never answers it."""

from __future__ import annotations

import math

from driftloop.contracts import from_value
from driftloop.contracts.serving.v1.serving_pb2 import PredictRequest
from driftloop.usecase import Field, FieldValue, UseCase
from services.serving.errors import InvalidRequest, Violation

ID_CHARACTERS_MAX = 256  # of an entity or request id: both travel in every log record of the answer
VIOLATIONS_MAX = 16
NAME_CHARACTERS_MAX = 64
# Years 1 to 9999, as at ingest's door.
TIME_US_MIN, TIME_US_MAX = -62_135_596_800_000_000, 253_402_300_799_999_999
_KINDS = {
    "number": ("number", "integer"),  # an integer is a number; the reverse would round
    "integer": ("integer",),
    "text": ("text",),
    "flag": ("flag",),
    "time": ("time_us",),
}


def read_request(use_case: UseCase, request: PredictRequest, position: int | None = None) -> dict[str, FieldValue]:
    """The request's fields as Python values, those that are absent left out; InvalidRequest names what is wrong.

    Required are all of `use_case.request_fields` that are not optional. Ranges, texts and lengths are held to as at
    ingest's door: a model never sees a value that training could not have seen.
    """
    violations = _name_violations("entity", request.entity) + _name_violations("request_id", request.request_id)
    declared = use_case.request_fields
    fields: dict[str, FieldValue] = {}
    wrong: set[str] = set()
    for name, wire in request.fields.items():
        field = declared.get(name)
        kind = wire.WhichOneof("kind")
        if field is None:
            violations.append(_violation(name, "unknown_field", f"the request has {', '.join(declared)}"))
        elif kind is not None:
            value = from_value(wire)
            broken = _broken(field, kind, value)
            if broken is not None:
                wrong.add(name)
                violations.append(_violation(name, *broken))
            elif value is not None:
                fields[name] = float(value) if field.kind == "number" else value
    for name, field in declared.items():
        if not field.optional and name not in fields and name not in wrong:
            violations.append(_violation(name, "required", f"a {field.kind} is missing"))
    if violations:
        raise InvalidRequest(violations[:VIOLATIONS_MAX], position)
    return fields


def _violation(field: str, rule: str, description: str) -> Violation:
    return Violation(f"fields.{field[:NAME_CHARACTERS_MAX]}", rule, description)


def _name_violations(name: str, text: str) -> list[Violation]:
    if not text:
        return [Violation(name, "required", "must not be empty")]
    if len(text) > ID_CHARACTERS_MAX:
        return [Violation(name, "length", f"has {len(text)} characters, more than {ID_CHARACTERS_MAX}")]
    if not text.isprintable() or text.startswith("~"):
        return [
            Violation(name, "characters", "must be printable and must not begin with '~', which marks control records")
        ]
    return []


def _broken(field: Field, kind: str, value: FieldValue | None) -> tuple[str, str] | None:
    """The rule that a value breaks, and how; None if it breaks none."""
    if kind not in _KINDS[field.kind]:
        return "type", f"is a {kind.removesuffix('_us')}, declared as {field.kind}"
    if isinstance(value, str):
        if len(value) > field.max_length:
            return "length", f"has {len(value)} characters, more than {field.max_length}"
        if field.one_of and value not in field.one_of:
            return "one_of", "is none of the declared texts"
        return None
    if value is None or not math.isfinite(value):
        return "finite", "is no finite number: leave an unknown one out"
    if kind == "time_us" and not TIME_US_MIN <= value <= TIME_US_MAX:
        return "range", f"is {value}: no time between the years 1 and 9999 in microseconds"
    if (field.ge is not None and value < field.ge) or (field.le is not None and value > field.le):
        return "range", f"is {value:g}, outside [{field.ge}, {field.le}]"
    return None
