"""Decides whether an event keeps to its use case's schema and times; never whether it came before, and never does I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from driftloop.contracts import UNSET_US
from driftloop.contracts.event.v1.event_pb2 import Event, Value
from driftloop.contracts.ingest.v1.ingest_pb2 import Violation
from driftloop.usecase import Field, UseCase, duration_us

ClockMode = Literal["live", "replay"]

# Below 1 MiB: Kafka's clients refuse a message that takes 1,000,000 bytes with its key and headers, which are 5 KB at most.
EVENT_BYTES_MAX = 983_040
ID_CHARACTERS_MAX = 128
ENTITY_CHARACTERS_MAX = 256
SOURCE_CHARACTERS_MAX = 256
# Violations travel in response trailers, of which gRPC carries 8 KiB: the first sixteen, with names cut, always fit.
VIOLATIONS_MAX = 16
NAME_CHARACTERS_MAX = 64
VALUE_CHARACTERS_MAX = 32
# A live clock's stamp makes an event longer that came with a shorter known_at or none: the record holds the stamped one.
STAMP_BYTES = 10
STAMPED_FROM_US = 1 << 49
# Years 1 to 9999: what RFC 3339, and every calendar downstream, can write.
TIME_US_MIN, TIME_US_MAX = -62_135_596_800_000_000, 253_402_300_799_999_999

_KINDS = {
    "number": ("number", "integer"),  # an integer is a number; the reverse would round
    "integer": ("integer",),
    "text": ("text",),
    "flag": ("flag",),
    "time": ("time_us",),
}


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"


def _violation(field: str, rule: str, description: str) -> Violation:
    return Violation(field=_cut(field, NAME_CHARACTERS_MAX + len("fields.")), rule=rule, description=description)


def described(violations: Iterable[Violation]) -> str:
    """Violations as one line for people: each field's path and what is wrong with it."""
    return "; ".join(f"{v.field or 'event'}: {v.description}" for v in violations)


def size_violation(event: Event, bytes_max: int = EVENT_BYTES_MAX) -> Violation | None:
    """What is wrong with the size of an event, if anything; checked first, since every other check costs by size."""
    size = event.ByteSize() + (0 if event.known_at_us >= STAMPED_FROM_US else STAMP_BYTES)
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
class _Rule:
    """A declared field, made ready for checking."""

    declared: Field
    kinds: tuple[str, ...]

    def check(self, name: str, value: Value, kind: str) -> Violation | None:
        declared, place = self.declared, "fields." + name
        if kind not in self.kinds:
            return _violation(place, "type", f"is declared {declared.kind}, the event has {kind}")
        found = getattr(value, kind)
        if kind == "text":
            if declared.one_of and found not in declared.one_of:
                return _violation(
                    place, "one_of", f"is {_cut(found, VALUE_CHARACTERS_MAX)!r}, none of the declared texts"
                )
            if len(found) > declared.max_length:
                return _violation(place, "length", f"has {len(found)} characters, more than {declared.max_length}")
            return None
        if kind == "number" and not math.isfinite(found):
            return _violation(place, "finite", f"is {found}: leave an unknown number out")
        if kind == "time_us" and not TIME_US_MIN <= found <= TIME_US_MAX:
            return _violation(place, "range", f"is {found}: no time between the years 1 and 9999 in microseconds")
        if declared.ge is not None and found < declared.ge:
            return _violation(place, "range", f"is {found}, below {declared.ge}")
        if declared.le is not None and found > declared.le:
            return _violation(place, "range", f"is {found}, above {declared.le}")
        return None


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
        self._future_us = duration_us(use_case.future)
        self._step_us = use_case.step_us
        self._rules: Mapping[str, Mapping[str, _Rule]] = {
            name: {field: _Rule(declared, _KINDS[declared.kind]) for field, declared in event.fields.items()}
            for name, event in use_case.event_types.items()
        }
        self._required = {
            name: tuple(field for field, declared in event.fields.items() if not declared.optional)
            for name, event in use_case.event_types.items()
        }

    def check(self, event: Event, clock_us: int) -> list[Violation]:
        """All that is wrong with an event, at most 16 violations; `clock_us` is the use-case clock, in microseconds."""
        oversized = size_violation(event)
        if oversized is not None:
            return [oversized]
        if event.use_case != self._use_case:
            named = _cut(event.use_case, NAME_CHARACTERS_MAX)
            return [
                _violation(
                    "use_case", "unknown_use_case", f"use case {named!r} is not served here, {self._use_case!r} is"
                )
            ]
        found = name_violations("id", event.id, ID_CHARACTERS_MAX, reserved=",")
        found += name_violations("entity", event.entity, ENTITY_CHARACTERS_MAX)
        if event.entity.startswith("~"):
            found.append(_violation("entity", "characters", "begins with '~', which marks control records"))
        if event.source:
            found += name_violations("source", event.source, SOURCE_CHARACTERS_MAX)
        found += self._times(event, clock_us)
        rules = self._rules.get(event.type)
        if rules is None:
            named = _cut(event.type, NAME_CHARACTERS_MAX)
            found.append(_violation("type", "unknown_type", f"use case {self._use_case} declares no event {named!r}"))
        else:
            self._fields(event, rules, found)
        return found[:VIOLATIONS_MAX]

    def _fields(self, event: Event, rules: Mapping[str, _Rule], found: list[Violation]) -> None:
        present = set()
        for name, value in event.fields.items():
            rule = rules.get(name)
            if rule is None:
                named = _cut(name, NAME_CHARACTERS_MAX)
                found.append(
                    _violation("fields." + name, "unknown_field", f"event {event.type} declares no field {named!r}")
                )
                if len(found) >= VIOLATIONS_MAX:
                    return
                continue
            kind = value.WhichOneof("kind")
            if kind is None:
                continue
            present.add(name)
            violation = rule.check(name, value, kind)
            if violation is not None:
                found.append(violation)
        for name in self._required[event.type]:
            if name not in present:
                found.append(_violation("fields." + name, "required", f"event {event.type} needs field {name!r}"))

    def _times(self, event: Event, clock_us: int) -> list[Violation]:
        found = []
        event_time_us, known_at_us = event.event_time_us, event.known_at_us
        if not 0 < event_time_us <= TIME_US_MAX:
            rule = "required" if event_time_us == 0 else "range"
            found.append(_violation("event_time_us", rule, f"is {event_time_us}: give microseconds since 1970, UTC"))
        if self._mode == "live":
            known_at_us, ahead_us = event_time_us, self._future_us
        else:
            ahead_us = self._step_us + self._future_us
            if not 0 < known_at_us <= TIME_US_MAX:
                rule = "required" if known_at_us == 0 else "range"
                found.append(
                    _violation("known_at_us", rule, f"is {known_at_us}: a replay says when an event could be known")
                )
        if found:
            return found
        if known_at_us < event_time_us:
            found.append(_violation("event_time_us", "order", f"is {event_time_us}, after known_at_us {known_at_us}"))
        if clock_us != UNSET_US:
            place = "event_time_us" if self._mode == "live" else "known_at_us"
            if known_at_us > clock_us + ahead_us:
                found.append(
                    _violation(place, "future", f"is {known_at_us}, more than {ahead_us} µs after the clock {clock_us}")
                )
            if event_time_us < clock_us - self._retention_us:
                description = f"is {event_time_us}, more than {self._retention_us} µs before the clock {clock_us}"
                found.append(_violation("event_time_us", "retention", description))
        return found
