"""Plain Python fields to wire values: by declaration where there is one, otherwise by their Python types."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from driftloop.contracts import to_value, to_wire
from driftloop.contracts.event.v1.event_pb2 import Value
from driftloop.usecase import Field, FieldValue

PlainValue = FieldValue | datetime | None
"""float, int, str, bool; a datetime with its zone is a time; None and NaN are absent."""

_EPOCH = datetime.fromtimestamp(0, UTC)
_MICROSECOND = timedelta(microseconds=1)


def time_us(at: datetime) -> int:
    """Microseconds since the epoch, exactly; ValueError for a time without a zone."""
    if at.tzinfo is None:
        raise ValueError(f"{at} has no time zone: say datetime.now(UTC) or give microseconds")
    return (at - _EPOCH) // _MICROSECOND


def wire_fields(fields: Mapping[str, PlainValue], declared: Mapping[str, Field]) -> dict[str, Value]:
    """Fields as wire values. `declared` makes an int a float or a time where the schema says so; it may be empty."""
    plain: dict[str, FieldValue] = {}
    wire: dict[str, Value] = {}
    for name, value in fields.items():
        if isinstance(value, datetime):
            wire[name] = to_value(time_us(value), is_time=True)
        elif value is not None:
            plain[name] = value
    return wire | to_wire(plain, declared)
