"""Python values to and from the wire's typed values."""

from __future__ import annotations

import math
from collections.abc import Mapping

from driftloop.contracts.event.v1.event_pb2 import Value
from driftloop.usecase import Field, FieldValue


def to_value(value: FieldValue | None, *, is_time: bool = False) -> Value:
    """A wire value; None and NaN become the unset value (absent)."""
    if isinstance(value, float):  # first: most values are
        return Value() if math.isnan(value) else Value(number=value)
    if value is None:
        return Value()
    if isinstance(value, bool):
        return Value(flag=value)
    if isinstance(value, int):
        return Value(time_us=value) if is_time else Value(integer=value)
    return Value(text=value)


def from_value(value: Value) -> FieldValue | None:
    """The Python value, or None where it is unset."""
    found = value.number or value.text
    if found:  # only the member that is set can differ from its default, and asking for the kind costs twice as much
        return found
    kind = value.WhichOneof("kind")
    return None if kind is None else getattr(value, kind)


def to_wire(fields: Mapping[str, FieldValue], declared: Mapping[str, Field]) -> dict[str, Value]:
    """Fields as wire values of their declared kinds; what is not declared keeps the kind of its Python type."""
    wire = {}
    for name, value in fields.items():
        field = declared.get(name)
        if field is not None and field.kind == "number" and not isinstance(value, str):
            value = float(value)
        wire[name] = to_value(value, is_time=field is not None and field.kind == "time")
    return wire


def from_wire(fields: Mapping[str, Value]) -> dict[str, FieldValue]:
    """Python values of the fields that are set."""
    found = {}
    for name, value in fields.items():
        kind = value.WhichOneof("kind")
        if kind is not None:
            found[name] = getattr(value, kind)
    return found
