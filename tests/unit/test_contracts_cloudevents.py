"""CloudEvents in JSON become the wire's Event, or are named with what is wrong; whatever else comes is one error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.contracts import MalformedRecord, rfc3339, to_wire
from driftloop.contracts.cloudevents import CloudEventsReader, time_us
from driftloop.contracts.event.v1.event_pb2 import Event
from tests.unit.ingest_twin import NOON_US, announced, orders

READER = CloudEventsReader(orders())
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
ATTRIBUTES = ["specversion", "id", "source", "type", "subject", "time", "knownat", "usecase", "data", "datacontenttype"]
ALMOST = st.fixed_dictionaries({"specversion": st.just("1.0"), "type": st.just("announced")}) | st.fixed_dictionaries(
    {}
)
NEARLY_EVENTS = st.builds(
    lambda first, more: first | more, ALMOST, st.dictionaries(st.sampled_from(ATTRIBUTES), ANYTHING, max_size=10)
)
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
DATA = st.fixed_dictionaries(
    {
        "shop": TEXTS,
        "price": st.floats(allow_nan=False, allow_infinity=False),
        "items": st.integers(-(1 << 63), (1 << 63) - 1),
        "gift": st.booleans(),
        "due": st.integers(0, 253_402_300_799_999_999),
    }
)


@given(TEXTS, TEXTS, st.integers(1, 253_402_300_799_999_999), DATA)
def test_what_json_says_is_what_the_wire_says(event_id: str, entity: str, at_us: int, data: dict[str, Any]) -> None:
    told = data | {"due": rfc3339(data["due"])}
    sent = {"specversion": "1.0", "id": event_id, "source": "s", "type": "announced", "subject": entity}
    body = json.dumps(sent | {"time": rfc3339(at_us), "knownat": at_us, "data": told}).encode()
    expected = Event(
        use_case="orders",
        id=event_id,
        source="s",
        type="announced",
        entity=entity,
        event_time_us=at_us,
        known_at_us=at_us,
    )
    for name, value in to_wire(data, announced.fields).items():
        expected.fields[name].CopyFrom(value)
    for read in (READER.structured(body), READER.batch(b"[%s]" % body)):
        assert not read.faults
        assert Event.FromString(read.events[0]) == expected


@settings(max_examples=60)
@given(st.lists(NEARLY_EVENTS | ANYTHING, max_size=4))
def test_every_event_of_a_batch_is_an_event_or_a_fault_and_is_read_as_if_it_came_alone(sent: list[Any]) -> None:
    bodies = [json.dumps(each).encode() for each in sent]
    read = READER.batch(b"[" + b",".join(bodies) + b"]")
    assert len(read.events) == len(sent)
    for position, body in enumerate(bodies):
        alone = READER.structured(body)
        assert Event.FromString(alone.events[0]) == Event.FromString(read.events[position])
        assert alone.faults.get(0) == read.faults.get(position)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_json_are_one_error_of_a_batch_and_one_fault_of_an_event(body: bytes) -> None:
    try:
        json.loads(body.decode())
    except (ValueError, RecursionError):
        with pytest.raises(MalformedRecord):
            READER.batch(body)
        assert READER.structured(body).faults[0][0].rule == "malformed"
    else:
        assert len(READER.structured(body).events) == 1


def test_times_are_exact_to_the_microsecond_and_need_a_time_zone() -> None:
    assert time_us("2013-03-01T12:00:00.000001Z") == NOON_US + 1
    assert time_us("2013-03-01T14:00:00.123456789+02:00") == NOON_US + 123_456
    assert time_us("1969-12-31T23:59:59.999999Z") == -1
    for no_time in ("2013-03-01T12:00:00", "2013-03-01", "noon", ""):
        with pytest.raises(ValueError):  # noqa: PT011 - what it says is Python's
            time_us(no_time)


@given(
    st.dictionaries(
        st.sampled_from(ATTRIBUTES), st.text(st.sampled_from("019"), max_size=6) | st.text(max_size=6), min_size=1
    ),
    st.integers(1, 1_000),
    st.sampled_from([b"{}", b"", b"[1]", b"{", b'{"price": 1}']),
)
def test_whatever_headers_say_is_an_event_or_a_fault(said: dict[str, str], times: int, data: bytes) -> None:
    headers = {f"ce_{name}": (text * times).encode() for name, text in said.items()}
    for read in (
        READER.record(data, {"ce_id": b"a1", "content-type": b"application/json"} | headers),
        READER.binary({name: text * times for name, text in said.items()}, data),
    ):
        event = Event.FromString(read.events[0])
        assert read.faults or (event.event_time_us and event.use_case)


def test_a_time_of_thousands_of_digits_is_a_fault_of_its_event() -> None:
    read = READER.record(b"{}", {"ce_id": b"a1", "ce_specversion": b"1.0", "ce_time": b"9" * 5_000, "ce_knownat": b"7"})
    assert [(fault.field, fault.rule) for fault in read.faults[0]] == [("event_time_us", "type")]
    assert Event.FromString(read.events[0]).known_at_us == 7
