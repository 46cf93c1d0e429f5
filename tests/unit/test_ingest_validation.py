"""What the schema and the clock let through ingest's door, and how every single fault is named."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftloop.contracts import UNSET_US
from driftloop.contracts.event.v1.event_pb2 import Event as WireEvent
from driftloop.usecase import DAY_US, MINUTE_US, Event, Field
from services.ingest.validation import EVENT_BYTES_MAX, VIOLATIONS_MAX, Validator, described
from tests.unit.ingest_twin import NOON_US, STEP_US, announced, delivered, orders, wire_event

VALIDATOR = Validator(orders())
LIVE = Validator(orders("live"))

printable = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=40)
identifiers = printable.filter(lambda text: "," not in text and not text.startswith("~") and text.isprintable())


@st.composite
def valid_events(draw: st.DrawFn) -> WireEvent:
    known_at_us = draw(st.integers(NOON_US + 1, NOON_US + STEP_US))
    event = wire_event(draw(identifiers), known_at_us)
    event.entity = draw(identifiers)
    event.source = draw(st.one_of(st.just(""), identifiers))
    event.event_time_us = draw(st.integers(known_at_us - 90 * DAY_US + STEP_US, known_at_us))
    event.fields["shop"].text = draw(st.sampled_from(["north", "south"]))
    if draw(st.booleans()):
        event.fields["price"].number = draw(st.floats(0, 500))
    else:
        event.fields["price"].integer = draw(st.integers(0, 500))
    event.fields["items"].integer = draw(st.integers(1, 99))
    event.fields["gift"].flag = draw(st.booleans())
    if draw(st.booleans()):
        event.fields["note"].text = draw(st.text(max_size=50))
    else:
        _ = event.fields["note"]  # present and unset: absent
    return event


def faults(event: WireEvent, clock_us: int = NOON_US, validator: Validator = VALIDATOR) -> list[tuple[str, str]]:
    return [(violation.field, violation.rule) for violation in validator.check(event, clock_us)]


@given(valid_events())
def test_an_event_that_keeps_to_its_declaration_is_accepted(event: WireEvent) -> None:
    assert faults(event) == []
    assert faults(event, UNSET_US) == []


Corruption = tuple[str, str, Callable[[WireEvent], object]]


def _set(name: str, kind: str, value: object) -> Callable[[WireEvent], object]:
    return lambda event: setattr(event.fields[name], kind, value)


CORRUPTIONS: dict[str, Corruption] = {
    "another use case": ("use_case", "unknown_use_case", lambda e: setattr(e, "use_case", "parcels")),
    "no use case": ("use_case", "unknown_use_case", lambda e: setattr(e, "use_case", "")),
    "no id": ("id", "required", lambda e: setattr(e, "id", "")),
    "long id": ("id", "length", lambda e: setattr(e, "id", "i" * 129)),
    "unprintable id": ("id", "characters", lambda e: setattr(e, "id", "a\nb")),
    "id with a comma": ("id", "characters", lambda e: setattr(e, "id", "a,b")),
    "no entity": ("entity", "required", lambda e: setattr(e, "entity", "")),
    "long entity": ("entity", "length", lambda e: setattr(e, "entity", "e" * 257)),
    "control record's key": ("entity", "characters", lambda e: setattr(e, "entity", "~watermark/ingest")),
    "unprintable source": ("source", "characters", lambda e: setattr(e, "source", "\x00")),
    "unknown type": ("type", "unknown_type", lambda e: setattr(e, "type", "returned")),
    "no type": ("type", "unknown_type", lambda e: setattr(e, "type", "")),
    "unknown field": ("fields.colour", "unknown_field", _set("colour", "text", "red")),
    "missing field": ("fields.price", "required", lambda e: e.fields.pop("price")),
    "unset field": ("fields.items", "required", lambda e: e.fields["items"].ClearField("kind")),
    "number for text": ("fields.shop", "type", _set("shop", "number", 1.0)),
    "integer for text": ("fields.shop", "type", _set("shop", "integer", 1)),
    "text for number": ("fields.price", "type", _set("price", "text", "12.5")),
    "flag for number": ("fields.price", "type", _set("price", "flag", True)),
    "number for integer": ("fields.items", "type", _set("items", "number", 3.0)),
    "integer for flag": ("fields.gift", "type", _set("gift", "integer", 1)),
    "integer for time": ("fields.due", "type", _set("due", "integer", NOON_US)),
    "NaN": ("fields.price", "finite", _set("price", "number", math.nan)),
    "infinity": ("fields.price", "finite", _set("price", "number", math.inf)),
    "minus infinity": ("fields.price", "finite", _set("price", "number", -math.inf)),
    "below the range": ("fields.price", "range", _set("price", "number", -0.01)),
    "above the range": ("fields.price", "range", _set("price", "number", 500.01)),
    "integer below the range": ("fields.items", "range", _set("items", "integer", 0)),
    "integer above a number's range": ("fields.price", "range", _set("price", "integer", 501)),
    "time beyond calendars": ("fields.due", "range", _set("due", "time_us", 1 << 62)),
    "none of the texts": ("fields.shop", "one_of", _set("shop", "text", "east")),
    "no event time": ("event_time_us", "required", lambda e: setattr(e, "event_time_us", 0)),
    "event time beyond calendars": ("event_time_us", "range", lambda e: setattr(e, "event_time_us", 1 << 62)),
    "event time before 1970": ("event_time_us", "range", lambda e: setattr(e, "event_time_us", -1)),
    "no known time": ("known_at_us", "required", lambda e: setattr(e, "known_at_us", 0)),
    "known time beyond calendars": ("known_at_us", "range", lambda e: setattr(e, "known_at_us", 1 << 62)),
    "happened after it was known": ("event_time_us", "order", lambda e: setattr(e, "event_time_us", e.known_at_us + 1)),
    "far in the future": ("known_at_us", "future", lambda e: setattr(e, "known_at_us", NOON_US + DAY_US)),
    "before the retention": (
        "event_time_us",
        "retention",
        lambda e: setattr(e, "event_time_us", NOON_US - 91 * DAY_US),
    ),
    "over 1 MiB": ("", "size", _set("note", "text", "n" * 1_048_576)),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
@given(event=valid_events())
def test_a_single_fault_is_the_only_one_named(name: str, event: WireEvent) -> None:
    field, rule, corrupt = CORRUPTIONS[name]
    corrupt(event)
    assert faults(event) == [(field, rule)]


def test_a_text_may_be_as_long_as_declared_in_characters() -> None:
    declared = Event("noted", entity="order", fields={"note": Field(str, max_length=5)})
    validator = Validator(replace(orders(), events=[announced, delivered, declared]))
    event = WireEvent(use_case="orders", id="n", type="noted", entity="o", event_time_us=NOON_US, known_at_us=NOON_US)
    event.fields["note"].text = "ééééé"
    assert faults(event, validator=validator) == []
    event.fields["note"].text = "ééééé!"
    assert faults(event, validator=validator) == [("fields.note", "length")]


def test_the_size_bound_counts_the_stamp_that_a_live_event_gets() -> None:
    event = wire_event()
    event.fields["note"].text = ""
    room = EVENT_BYTES_MAX - event.ByteSize()
    event.fields["note"].text = "n" * (room - 20)
    assert not any(rule == "size" for _, rule in faults(event))
    event.fields["note"].text = "n" * room
    assert [rule for _, rule in faults(event)] == ["size"]
    assert str(event.ByteSize()) in VALIDATOR.check(event, NOON_US)[0].description


def test_without_a_clock_no_time_is_far() -> None:
    far = wire_event(known_at_us=NOON_US + 4_000 * DAY_US)
    assert faults(far, UNSET_US) == []
    assert [rule for _, rule in faults(far)] == ["future"]


def test_a_replay_may_know_one_step_and_the_allowance_ahead_of_the_clock() -> None:
    last = NOON_US + STEP_US + 5 * MINUTE_US
    assert faults(wire_event(known_at_us=last)) == []
    assert faults(wire_event(known_at_us=last + 1)) == [("known_at_us", "future")]


def test_a_live_producer_may_be_ahead_of_the_clock_by_the_allowance_and_needs_no_known_time() -> None:
    event = wire_event()
    event.known_at_us = 0
    event.event_time_us = NOON_US + 5 * MINUTE_US
    assert faults(event, NOON_US, LIVE) == []
    event.event_time_us += 1
    assert faults(event, NOON_US, LIVE) == [("event_time_us", "future")]


def test_the_number_of_violations_and_their_texts_are_bounded() -> None:
    event = wire_event()
    for number in range(200):
        event.fields[f"{'f' * 500}{number}"].text = "x"
    violations = VALIDATOR.check(event, NOON_US)
    assert len(violations) == VIOLATIONS_MAX
    assert sum(violation.ByteSize() for violation in violations) < 6_000


def test_violations_are_described_with_their_fields_in_one_line() -> None:
    event = wire_event(price=501.0)
    event.id = ""
    assert described(VALIDATOR.check(event, NOON_US)) == "id: is missing; fields.price: is 501.0, above 500"
