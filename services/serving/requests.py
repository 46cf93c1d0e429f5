"""Checks a predict request against the use case's schema and reads its fields; never answers it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

from pydantic_core import SchemaValidator, core_schema

from driftloop.contracts import from_value
from driftloop.contracts.event.v1.event_pb2 import Value
from driftloop.contracts.serving.v1.serving_pb2 import PredictRequest
from driftloop.usecase import Field, FieldValue, UseCase
from services.serving.assembly import Columns
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


class Read(NamedTuple):
    """Requests that were read, by column; of a field that is absent the value is None."""

    columns: Columns
    entities: Sequence[str]
    request_ids: Sequence[str]


class RequestReader:
    """Reads the requests of one use case. Required are all of `use_case.request_fields` that are not optional.

    Ranges, texts and lengths are held to as at ingest's door: a model never sees a value that training could not have seen.
    Good requests are recognised field by field as declared; only where that fails is every rule looked at, and named.
    """

    def __init__(self, use_case: UseCase) -> None:
        self._declared = use_case.request_fields
        self._rules = {name: _Rules(field) for name, field in self._declared.items()}
        self._recognisers = [(name, _recogniser(field)) for name, field in self._declared.items()]

    def read(self, request: PredictRequest) -> dict[str, FieldValue]:
        """The request's fields as Python values, those that are absent left out; InvalidRequest names what is wrong."""
        found = {name: values[0] for name, values in self.read_all((request,), None).columns.items()}
        return {name: value for name, value in found.items() if value is not None}

    def read_all(self, requests: Sequence[PredictRequest], position: int | None) -> Read:
        """Requests by column; InvalidRequest names what is wrong with the first bad one.

        position: of the first request in its batch; None: it is no batch.
        """
        entities = [request.entity for request in requests]
        request_ids = [request.request_id for request in requests]
        columns = self._recognised(requests) if _are_names(entities, request_ids) else None
        if columns is None:
            read = [self._read(each, None if position is None else position + n) for n, each in enumerate(requests)]
            columns = {name: [fields.get(name) for fields in read] for name in self._declared}
        return Read(columns, entities, request_ids)

    def _recognised(self, requests: Sequence[PredictRequest]) -> Columns | None:
        wires = [request.fields for request in requests]
        columns: dict[str, Sequence[FieldValue | None]] = {}
        for name, recognised in self._recognisers:
            values = recognised([wire.get(name, _ABSENT) for wire in wires])
            if values is None:
                return None
            columns[name] = values
        count = len(self._declared)
        return columns if all([len(wire) == count for wire in wires]) else None

    def _read(self, request: PredictRequest, position: int | None) -> dict[str, FieldValue]:
        violations = _name_violations("entity", request.entity) + _name_violations("request_id", request.request_id)
        declared = self._declared
        fields: dict[str, FieldValue] = {}
        wrong: set[str] = set()
        for name, wire in request.fields.items():
            field = declared.get(name)
            kind = wire.WhichOneof("kind")
            if field is None:
                violations.append(_violation(name, "unknown_field", f"the request has {', '.join(declared)}"))
            elif kind is not None:
                value = from_value(wire)
                broken = self._rules[name].broken(kind, value)
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


Recognised = Callable[[Sequence[Value]], Sequence[FieldValue] | None]
"""The values of a field that are all beyond doubt; None: look closer."""
_ABSENT = Value()


def _recogniser(field: Field) -> Recognised:
    """Recognises good values of a field without asking which kind was sent: what is not zero or empty was."""
    if field.kind == "text":
        most, listed = field.max_length, frozenset(field.one_of)
        if field.pattern:
            return lambda wires: None

        def texts(wires: Sequence[Value]) -> Sequence[FieldValue] | None:
            found = [wire.text for wire in wires]
            good = all(found) and max(map(len, found)) <= most and (not listed or listed.issuperset(found))
            return found if good else None

        return texts
    if field.kind == "number":
        least, greatest = _bounds(field, -sys.float_info.max, sys.float_info.max)

        def numbers(wires: Sequence[Value]) -> Sequence[FieldValue] | None:
            found = [wire.number for wire in wires]
            return found if all(found) and all([least <= each <= greatest for each in found]) else None

        return numbers
    if field.kind == "time":
        earliest, latest = _bounds(field, TIME_US_MIN, TIME_US_MAX)

        def times_us(wires: Sequence[Value]) -> Sequence[FieldValue] | None:
            found = [wire.time_us for wire in wires]
            return found if all(found) and earliest <= min(found) and max(found) <= latest else None

        return times_us
    return lambda wires: None  # integers and flags are often 0 or false


def _bounds(field: Field, least: float, greatest: float) -> tuple[float, float]:
    ge, le = field.ge, field.le
    return (least if ge is None else max(least, ge)), (greatest if le is None else min(greatest, le))


def _are_names(*columns: list[str]) -> bool:
    """Whether all are names beyond doubt; what has a '~' anywhere is looked at more closely."""
    texts = list(chain(*columns))
    together = "".join(texts)
    return all(texts) and max(map(len, texts)) <= ID_CHARACTERS_MAX and together.isprintable() and "~" not in together


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


class _Rules:
    """What a field's value must keep to. Expectations that only warn were spoken of when the event came in."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self._rejects = field.otherwise == "reject"
        # Not `re`: this engine takes time in proportion to the text, whatever the pattern.
        pattern = core_schema.str_schema(pattern=rf"^(?:{field.pattern})$", strict=True) if field.pattern else None
        self._pattern = None if pattern is None else SchemaValidator(pattern)

    def broken(self, kind: str, value: FieldValue | None) -> tuple[str, str] | None:
        """The rule that a value breaks, and how; None if it breaks none."""
        field = self._field
        if kind not in _KINDS[field.kind]:
            return "type", f"is a {kind.removesuffix('_us')}, declared as {field.kind}"
        if isinstance(value, str):
            if len(value) > field.max_length:
                return "length", f"has {len(value)} characters, more than {field.max_length}"
            if self._rejects and field.one_of and value not in field.one_of:
                return "one_of", "is none of the declared texts"
            if self._rejects and self._pattern is not None and not self._pattern.isinstance_python(value):
                return "pattern", f"does not match {field.pattern!r}"
            return None
        if value is None or not math.isfinite(value):
            return "finite", "is no finite number: leave an unknown one out"
        if kind == "time_us" and not TIME_US_MIN <= value <= TIME_US_MAX:
            return "range", f"is {value}: no time between the years 1 and 9999 in microseconds"
        least, greatest = _bounds(field, -math.inf, math.inf)
        if self._rejects and not least <= value <= greatest:
            return "range", f"is {value:g}, outside [{field.ge}, {field.le}]"
        return None
