"""Ingest's errors as HTTP answers (RFC 9457 problem details); the only place that knows HTTP's codes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import web

from driftloop.contracts.ingest.v1.ingest_pb2 import Violation
from services.ingest.errors import (
    BatchTooLarge,
    ClockGoesBack,
    ClockIsLive,
    EventRejected,
    IdTaken,
    IngestError,
    NotAcknowledged,
    NotDelivered,
    Overloaded,
    UnknownUseCase,
)

STATUSES: Mapping[type[IngestError], int] = {
    EventRejected: 400,
    IdTaken: 409,
    Overloaded: 429,
    BatchTooLarge: 413,
    UnknownUseCase: 404,
    ClockGoesBack: 409,
    ClockIsLive: 409,
    NotAcknowledged: 503,
    NotDelivered: 503,
}
_TITLES: Mapping[int, str] = {
    400: "The request cannot be taken as it is",
    404: "There is no such thing here",
    405: "The method is not allowed here",
    408: "The body did not come in time",
    409: "It contradicts what is there already",
    413: "Too much for one call",
    415: "The media type is not read here",
    429: "Too much at once: make the same call again",
    503: "The broker does not answer: make the same call again",
}
# An Event's names in the words of CloudEvents.
_NAMES = {"entity": "subject", "event_time_us": "time", "known_at_us": "knownat", "use_case": "usecase"}
_TYPE = "application/problem+json"


def told(violations: Sequence[Violation]) -> list[dict[str, str]]:
    """Violations as JSON, with the names that a CloudEvent's sender knows."""
    return [{"field": _named(v.field), "rule": v.rule, "description": v.description} for v in violations]


def _named(place: str) -> str:
    return "data." + place.removeprefix("fields.") if place.startswith("fields.") else _NAMES.get(place, place)


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> web.Response:
    """A problem of HTTP's own, such as an unknown path."""
    body = {"type": "about:blank", "title": _TITLES.get(status, "The call failed"), "status": status, "detail": detail}
    return web.Response(
        status=status, body=msgspec.json.encode(body | more), content_type=_TYPE, headers=dict(headers or {})
    )


def refusal(error: IngestError) -> web.Response:
    """The answer to a call that ends with `error`."""
    status = STATUSES[type(error)]
    if isinstance(error, EventRejected):
        violations = told(error.violations)
        detail = "; ".join(f"{each['field'] or 'event'}: {each['description']}" for each in violations)
        return problem(status, detail, id=error.event_id, violations=violations)
    if isinstance(error, Overloaded | NotAcknowledged):
        # HTTP counts whole seconds; whoever can wait shorter finds the time in the body.
        retry = {"Retry-After": str(math.ceil(error.retry_after_s))}
        return problem(status, str(error), retry, retry_after_s=error.retry_after_s)
    if isinstance(error, NotDelivered):
        return problem(status, str(error), {"Retry-After": "1"})
    return problem(status, str(error))
