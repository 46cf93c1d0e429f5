"""Reads a request's fields from plain JSON values, by their declared kinds; what they may be is checked as for any request."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from driftloop.contracts.event.v1.event_pb2 import Value
from driftloop.contracts.serving.v1.serving_pb2 import PredictRequest
from driftloop.usecase import Field
from services.serving.errors import InvalidRequest, Violation

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INT64 = 1 << 63


class One(Protocol):
    """A request as it came."""

    entity: str
    request_id: str
    fields: dict[str, Any]
    include_vector: bool


class Spoken:
    """Requests of one use case in JSON: numbers, texts and truths as they are, times in RFC 3339 or microseconds."""

    def __init__(self, declared: Mapping[str, Field]) -> None:
        self._declared = declared

    def request(self, use_case: str, one: One, position: int | None) -> PredictRequest:
        """The request; InvalidRequest if a value cannot be one of any kind. A field that is null is left out."""
        fields: dict[str, Value] = {}
        for name, given in one.fields.items():
            if given is None:
                continue
            field = self._declared.get(name)
            try:
                fields[name] = _value(given, "" if field is None else field.kind)
            except (ValueError, OverflowError) as error:
                wrong = Violation(f"fields.{name[:64]}", "type", str(error))
                raise InvalidRequest([wrong], position) from error
        return PredictRequest(
            use_case=use_case,
            entity=one.entity,
            request_id=one.request_id,
            fields=fields,
            include_vector=one.include_vector,
        )


def _value(given: Any, kind: str) -> Value:
    if isinstance(given, bool):
        return Value(flag=given)
    if kind == "time":
        return Value(time_us=_time_us(given))
    if isinstance(given, int) and kind != "number":
        if not -_INT64 <= given < _INT64:
            raise ValueError("is an integer of more than 64 bits")
        return Value(integer=given)
    if isinstance(given, int | float):
        return Value(number=float(given))
    if isinstance(given, str):
        return Value(text=given)
    raise ValueError(f"is {type(given).__name__}: a number, a text, true or false is expected")


def _time_us(given: Any) -> int:
    if isinstance(given, int):
        if not -_INT64 <= given < _INT64:
            raise ValueError("is no time in microseconds")
        return given
    if isinstance(given, str):
        found = datetime.fromisoformat(given)
        if found.tzinfo is None:
            raise ValueError(f"{given!r} has no time zone")
        since = found - _EPOCH
        return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    raise ValueError("is no time: RFC 3339 with a time zone, or whole microseconds since 1970")
