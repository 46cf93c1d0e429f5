"""Decides whether an event keeps to its use case's schema, expectations and times; never whether it came before, never I/O.

The declared bounds are checked by pydantic's compiled validator, over the values that an event has for its declared fields.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Literal

from pydantic_core import CoreSchema, ErrorDetails, SchemaError, SchemaValidator, ValidationError, core_schema

from driftloop.contracts import UNSET_US
from driftloop.contracts.event.v1.event_pb2 import Event, Value
from driftloop.contracts.ingest.v1.ingest_pb2 import Violation
from driftloop.usecase import Consequence, DeclarationError, Expectation, Field, LabelRefused, UseCase, duration_us
from driftloop.usecase import Event as EventType

ClockMode = Literal["live", "replay"]
Values = tuple[Any, ...]
"""An event's values in the order of its type's declared fields; None where one is absent or of a wrong kind."""

# Below 1 MiB: Kafka's clients refuse a message that takes 1,000,000 bytes with its key and headers, which are 5 KB at most.
EVENT_BYTES_MAX = 983_040
ID_CHARACTERS_MAX = 128
ENTITY_CHARACTERS_MAX = 256
SOURCE_CHARACTERS_MAX = 256
# Violations travel in response trailers, of which gRPC carries 8 KiB: the first sixteen, with names cut, always fit.
VIOLATIONS_MAX = 16
NAME_CHARACTERS_MAX = 64
VALUE_CHARACTERS_MAX = 32
# The stamp of `known_at` is appended to the sender's bytes: a tag and at most ten bytes.
STAMP_BYTES = 11
# Years 1 to 9999: what RFC 3339, and every calendar downstream, can write.
TIME_US_MIN, TIME_US_MAX = -62_135_596_800_000_000, 253_402_300_799_999_999
INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1

_ATTRIBUTES = {"number": "number", "integer": "integer", "text": "text", "flag": "flag", "time": "time_us"}
_RULES = {
    "finite_number": "finite",
    "greater_than_equal": "range",
    "less_than_equal": "range",
    "literal_error": "one_of",
    "string_too_long": "length",
    "string_pattern_mismatch": "pattern",
}


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"


def _violation(field: str, rule: str, description: str) -> Violation:
    return Violation(field=_cut(field, NAME_CHARACTERS_MAX + len("fields.")), rule=rule, description=description)


def described(violations: Iterable[Violation]) -> str:
    """Violations as one line for people: each field's path and what is wrong with it."""
    return "; ".join(f"{v.field or 'event'}: {v.description}" for v in violations)


def size_violation(size: int, bytes_max: int = EVENT_BYTES_MAX - STAMP_BYTES) -> Violation | None:
    """What is wrong with the size of an event, if anything; checked first, since every other check costs by size."""
    if size <= bytes_max:
        return None
    return _violation("", "size", f"has {size} bytes, more than {bytes_max}")


def name_violations(field: str, text: str, characters_max: int, reserved: str = "") -> list[Violation]:
    """What is wrong with a text that identifies something: absent, too long, unprintable or with reserved characters."""
    if not text:
        return [_violation(field, "required", "is missing")]
    if len(text) > characters_max:
        return [_violation(field, "length", f"has {len(text)} characters, more than {characters_max}")]
    if not text.isprintable():
        return [_violation(field, "characters", "has characters that cannot be printed")]
    if any(character in text for character in reserved):
        return [_violation(field, "characters", f"has one of the reserved characters {reserved!r}")]
    return []


@dataclass(frozen=True, slots=True)
class Finding:
    """An expectation that an accepted event does not meet; `window_us`: the stretch by which such findings are reported."""

    event_type: str
    rule: str
    consequence: Consequence
    description: str
    window_us: int
    event_id: str
    known_at_us: int


def _bounds(field: Field, *, hard: bool) -> CoreSchema:
    """What pydantic checks of a present value: `hard` what is refused, otherwise what only leads to a finding."""
    mine = hard == (field.otherwise == "reject")
    ge, le = (field.ge, field.le) if mine else (None, None)
    if field.kind == "number":
        return core_schema.float_schema(ge=ge, le=le, allow_inf_nan=not hard, strict=True)
    if field.kind in ("integer", "time"):
        low, high = (TIME_US_MIN, TIME_US_MAX) if field.kind == "time" and hard else (INT64_MIN, INT64_MAX)
        # Whole numbers compared with whole bounds: a float cannot hold every microsecond.
        low = low if ge is None else max(low, math.ceil(ge))
        high = high if le is None else min(high, math.floor(le))
        return core_schema.int_schema(ge=low, le=high, strict=True)
    if field.kind == "flag":
        return core_schema.bool_schema(strict=True)
    longest = field.max_length if hard else None
    if mine and field.one_of:
        return core_schema.literal_schema(list(field.one_of))
    pattern = rf"^(?:{field.pattern})$" if mine and field.pattern else None
    return core_schema.str_schema(max_length=longest, pattern=pattern, strict=True)


def _validator(event: str, fields: Mapping[str, Field], *, hard: bool) -> Callable[[Values], object]:
    schemas: list[CoreSchema] = [core_schema.nullable_schema(_bounds(field, hard=hard)) for field in fields.values()]
    try:
        return SchemaValidator(core_schema.tuple_schema(schemas, strict=True)).validate_python
    except SchemaError as error:
        raise DeclarationError(f"a pattern of event {event} cannot be used: {error}") from error


def _getter(names: tuple[str, ...]) -> Callable[[Any], tuple[Value, ...]]:
    if len(names) > 1:
        return itemgetter(*names)
    return lambda fields: tuple(fields[name] for name in names)


class EventRules:
    """The rules of one event type, made ready for checking; `fields` are an `Event`'s own, of which the caller has no other use."""

    def __init__(self, declared: EventType, label_of: Callable[[Mapping[str, Any]], float] | None = None) -> None:
        self.name = declared.name
        self._label_of = label_of
        self._fields = declared.fields
        self._names = tuple(declared.fields)
        self._width = len(self._names)
        self._attributes = tuple(_ATTRIBUTES[field.kind] for field in declared.fields.values())
        self._get = _getter(self._names)
        self._validate = _validator(self.name, declared.fields, hard=True)
        self._refusing = tuple(e for e in declared.expectations if e.otherwise == "reject")
        self._reporting = tuple(e for e in declared.expectations if e.otherwise != "reject")
        softly = any(field.otherwise != "reject" for field in declared.fields.values())
        self._hint = _validator(self.name, declared.fields, hard=False) if softly else None
        self.has_arrivals = declared.arrivals is not None
        self.is_watched = bool(self._reporting or self._hint or self.has_arrivals)

    def kept(self, fields: Any) -> Values | None:
        """The values of an event's fields if it keeps every rule that could refuse it, else None."""
        values, faults = self.values(fields)
        if faults:
            return None
        try:
            self._validate(values)
        except ValidationError:
            return None
        if self._label_of is not None and self._label_violations(values):
            return None
        return None if self._refusing and self._unmet(self._refusing, values) else values

    def values(self, fields: Any) -> tuple[Values, Sequence[Violation]]:
        """The values of an event's fields, and which fields are unknown, missing or of another kind.

        An integer is a number; the reverse would round. `fields` gets an unset entry for each declared field it lacks.
        """
        entries = self._get(fields)
        # Of a oneof, an attribute that is true is the one that is set: only false ones need a closer look.
        values: Values = tuple(map(getattr, entries, self._attributes))
        if len(fields) > self._width:
            return self._sorted_out(fields)
        if not all(values):
            for entry, attribute, value in zip(entries, self._attributes, values, strict=True):
                if not value and entry.WhichOneof("kind") != attribute:
                    return self._sorted_out(fields)
        return values, ()

    def _sorted_out(self, fields: Any) -> tuple[Values, list[Violation]]:
        found: list[Violation] = []
        if len(fields) > len(self._names):
            for name in fields:
                if name not in self._fields:
                    named = _cut(name, NAME_CHARACTERS_MAX)
                    described_as = f"event {self.name} declares no field {named!r}"
                    found.append(_violation("fields." + name, "unknown_field", described_as))
                    if len(found) >= VIOLATIONS_MAX:
                        break
        values: list[Any] = []
        for name, attribute, field in zip(self._names, self._attributes, self._fields.values(), strict=True):
            value = fields[name]
            kind = value.WhichOneof("kind")
            if kind == attribute:
                values.append(getattr(value, attribute))
            elif kind == "integer" and attribute == "number":
                values.append(float(value.integer))
            else:
                values.append(None)
                if kind is not None:
                    description = f"is declared {field.kind}, the event has {kind}"
                    found.append(_violation("fields." + name, "type", description))
                elif not field.optional:
                    description = f"event {self.name} needs field {name!r}"
                    found.append(_violation("fields." + name, "required", description))
        return tuple(values), found

    def broken(self, values: Values) -> list[Violation]:
        """Which declared bounds and refusing expectations the values do not keep."""
        found = [
            _violation("fields." + name, rule, description)
            for name, rule, description in self._explained(self._validate, values)
        ]
        for expectation, why in self._unmet(self._refusing, values):
            found.append(_violation("", expectation.name, why))
        return found or self._label_violations(values)

    def _label_violations(self, values: Values) -> list[Violation]:
        """What keeps the declared label from being told by fields that are otherwise fine."""
        if self._label_of is None:
            return []
        try:
            self._label_of(self._present(values))
        except LabelRefused as error:
            return [_violation("", "label", str(error))]
        except KeyError:
            return []  # it asks for a field that this event may leave out: no label, as for its readers
        return []

    def _present(self, values: Values) -> dict[str, Any]:
        return {name: value for name, value in zip(self._names, values, strict=True) if value is not None}

    def findings(self, values: Values, event_id: str, known_at_us: int) -> list[Finding]:
        """Which expectations the values of an accepted event do not meet."""
        unmet: list[tuple[str, Consequence, str, int]] = []
        if self._hint is not None:
            for name, rule, description in self._explained(self._hint, values):
                described_as = f"{name} {description}"
                unmet.append((f"{name}_{rule}", self._fields[name].otherwise, described_as, FIELD_WINDOW_US))
        for expectation, why in self._unmet(self._reporting, values):
            unmet.append((expectation.name, expectation.otherwise, why, expectation.window_us))
        return [
            Finding(self.name, rule, consequence, description, window_us, event_id, known_at_us)
            for rule, consequence, description, window_us in unmet
        ]

    def _explained(self, validate: Callable[[Values], object], values: Values) -> list[tuple[str, str, str]]:
        try:
            validate(values)
        except ValidationError as error:
            found = []
            for detail in error.errors(include_url=False):
                name = self._names[int(detail["loc"][0])]
                found.append((name, *_explained(detail, self._fields[name])))
            return found
        return []

    def _unmet(self, expectations: tuple[Expectation, ...], values: Values) -> list[tuple[Expectation, str]]:
        if not expectations:
            return []
        present = self._present(values)
        found = []
        for expectation in expectations:
            try:
                if not expectation.holds(present):
                    found.append((expectation, f"{expectation.name} does not hold"))
            except KeyError:
                continue  # it asks for a field that this event may leave out
            except Exception as error:  # an author's mistake is said with the first event that shows it
                found.append((expectation, f"{expectation.name} cannot be told: {type(error).__name__}: {error}"))
        return found


FIELD_WINDOW_US = duration_us("1h")
"""By what stretch findings about a field's own bounds are reported."""


def _explained(detail: ErrorDetails, field: Field) -> tuple[str, str]:
    """Rule and description of one of pydantic's errors, in the words of the declaration."""
    rule, value = _RULES[detail["type"]], detail["input"]
    if rule == "finite":
        return rule, f"is {value}: leave an unknown number out"
    if rule == "one_of":
        return rule, f"is {_cut(value, VALUE_CHARACTERS_MAX)!r}, none of the declared texts"
    if rule == "length":
        return rule, f"has {len(value)} characters, more than {field.max_length}"
    if rule == "pattern":
        return rule, f"is {_cut(value, VALUE_CHARACTERS_MAX)!r}, which does not match {field.pattern!r}"
    if field.kind == "time" and not TIME_US_MIN <= value <= TIME_US_MAX:
        return rule, f"is {value}: no time between the years 1 and 9999 in microseconds"
    below = detail["type"] == "greater_than_equal"
    return rule, f"is {value}, {'below' if below else 'above'} {field.ge if below else field.le}"


class Validator:
    """Checks events of one use case. `mode`: whose clock rules hold; the use case's own unless given.

    Replay: the event says when it could be known, at the latest one step and `future` after the clock, and it happened no
    later. Live: ingest stamps `known_at`, and the clock that is passed in is now; a producer's own clock may be ahead of it
    by `future`. Both: what happened more than `retention` before the clock is refused. No clock yet (UNSET_US): no bounds.
    """

    def __init__(self, use_case: UseCase, mode: ClockMode | None = None) -> None:
        self._use_case = use_case.name
        self._mode = mode or use_case.clock
        self._retention_us = duration_us(use_case.retention)
        self._ahead_us = duration_us(use_case.future) + (use_case.step_us if self._mode == "replay" else 0)
        self.rules: Mapping[str, EventRules] = {
            name: EventRules(event, use_case.label_of if event == use_case.label.on else None)
            for name, event in use_case.event_types.items()
        }

    def bounds_us(self, clock_us: int) -> tuple[int, int]:
        """The earliest event time and the latest time (live: event time, replay: known time) that are let in at a clock."""
        if clock_us == UNSET_US:
            return 1, TIME_US_MAX
        return max(1, clock_us - self._retention_us), min(TIME_US_MAX, clock_us + self._ahead_us)

    def check(self, event: Event, clock_us: int) -> list[Violation]:
        """All that is wrong with an event, at most 16 violations; `clock_us` is the use-case clock, in microseconds."""
        oversized = size_violation(event.ByteSize())
        if oversized is not None:
            return [oversized]
        found = self.envelope_violations(event, clock_us)
        if event.use_case == self._use_case and (rules := self.rules.get(event.type)) is not None:
            values, faults = rules.values(event.fields)
            broken = rules.broken(values)
            found += [*faults, *(violation for violation in broken if not (faults and violation.rule == "label"))]
        return found[:VIOLATIONS_MAX]

    def envelope_violations(self, event: Event, clock_us: int) -> list[Violation]:
        """What is wrong with everything but an event's fields."""
        if event.use_case != self._use_case:
            named = _cut(event.use_case, NAME_CHARACTERS_MAX)
            description = f"use case {named!r} is not served here, {self._use_case!r} is"
            return [_violation("use_case", "unknown_use_case", description)]
        found = name_violations("id", event.id, ID_CHARACTERS_MAX, reserved=",")
        found += name_violations("entity", event.entity, ENTITY_CHARACTERS_MAX)
        if event.entity.startswith("~"):
            found.append(_violation("entity", "characters", "begins with '~', which marks control records"))
        if event.source:
            found += name_violations("source", event.source, SOURCE_CHARACTERS_MAX)
        found += self._times(event, clock_us)
        if event.type not in self.rules:
            named = _cut(event.type, NAME_CHARACTERS_MAX)
            found.append(_violation("type", "unknown_type", f"use case {self._use_case} declares no event {named!r}"))
        return found

    def _times(self, event: Event, clock_us: int) -> list[Violation]:
        found = []
        event_time_us, known_at_us = event.event_time_us, event.known_at_us
        if not 0 < event_time_us <= TIME_US_MAX:
            rule = "required" if event_time_us == 0 else "range"
            found.append(_violation("event_time_us", rule, f"is {event_time_us}: give microseconds since 1970, UTC"))
        if self._mode == "live":
            known_at_us = event_time_us
        elif not 0 < known_at_us <= TIME_US_MAX:
            rule = "required" if known_at_us == 0 else "range"
            description = f"is {known_at_us}: a replay says when an event could be known"
            found.append(_violation("known_at_us", rule, description))
        if found:
            return found
        if known_at_us < event_time_us:
            found.append(_violation("event_time_us", "order", f"is {event_time_us}, after known_at_us {known_at_us}"))
        earliest_us, latest_us = self.bounds_us(clock_us)
        if known_at_us > latest_us:
            place = "event_time_us" if self._mode == "live" else "known_at_us"
            description = f"is {known_at_us}, more than {self._ahead_us} µs after the clock {clock_us}"
            found.append(_violation(place, "future", description))
        if event_time_us < earliest_us:
            description = f"is {event_time_us}, more than {self._retention_us} µs before the clock {clock_us}"
            found.append(_violation("event_time_us", "retention", description))
        return found


def is_plain(event_id: str, entity: str, source: str) -> bool:
    """Whether nothing is wrong with these three; what is, `Validator.check` says."""
    return (
        0 < len(event_id) <= ID_CHARACTERS_MAX
        and event_id.isprintable()
        and "," not in event_id
        and 0 < len(entity) <= ENTITY_CHARACTERS_MAX
        and entity.isprintable()
        and entity[0] != "~"
        and len(source) <= SOURCE_CHARACTERS_MAX
        and source.isprintable()
    )
