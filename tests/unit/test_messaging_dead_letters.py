"""What cannot be handled is kept, once, and always fits a record."""

from driftloop.contracts import MAX_RECORD_BYTES, Record, decode, encode
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.message import Message
from driftloop.messaging import Malformed, Origin, Refused, dead_letter, read_record


def _event() -> Message[Event]:
    payload = Event(use_case="flights", id="e1", type="flight_departed", entity="x", known_at_us=5)
    return Message("events", "x", payload, "e1", "test", 4, 5)


def test_a_sound_record_is_read_as_it_was_written() -> None:
    encoded = encode(_event())
    record = read_record("events", 1, 42, encoded.key, encoded.value, encoded.headers, 0)
    assert record == Record("events", 1, 42, _event())


def test_a_broken_record_is_dead_lettered_with_origin_bytes_and_rule() -> None:
    encoded = encode(_event())
    broken = read_record("events", 1, 42, encoded.key, b"\xff\xff", encoded.headers, 1_000)
    assert isinstance(broken, Malformed)
    letter = dead_letter(broken, "features", "flights")
    assert letter.topic == "dead-letters"
    assert (letter.payload.topic, letter.payload.partition, letter.payload.offset) == ("events", 1, 42)
    assert letter.payload.value == b"\xff\xff"
    assert letter.payload.headers["ce_id"] == b"e1"
    assert letter.payload.rule == "payload"
    assert letter.payload.refused_by == "features"


def test_the_same_record_refused_twice_gives_the_same_letter() -> None:
    broken = Malformed("events", 1, 42, b"k", b"v", (), "header", "no id")
    assert dead_letter(broken, "features", "flights").id == dead_letter(broken, "features", "flights").id
    assert dead_letter(broken, "features", "flights").id != dead_letter(broken, "monitor", "flights").id


def test_an_event_refused_at_the_door_is_told_apart_by_its_content() -> None:
    first = dead_letter(Refused("e1", Origin(b"one"), "range", "too large", 1, 2), "ingest", "flights")
    again = dead_letter(Refused("e1", Origin(b"one"), "range", "too large", 1, 2), "ingest", "flights")
    other = dead_letter(Refused("e1", Origin(b"two"), "conflict", "same id, other content", 1, 2), "ingest", "flights")
    assert first.id == again.id != other.id
    assert first.causes == ("e1",)
    assert first.payload.topic == ""


def test_the_letter_of_the_largest_record_is_itself_a_sound_record() -> None:
    headers = tuple((f"h{n}", b"x" * 50_000) for n in range(20))
    broken = Malformed("events", 0, 0, b"k" * 100_000, b"v" * MAX_RECORD_BYTES, headers, "header", "no id")
    letter = dead_letter(broken, "features", "flights")
    encoded = encode(letter)
    assert len(encoded.value) < MAX_RECORD_BYTES
    assert "are kept" in decode("dead-letters", *encoded).payload.reason
