"""Records and events that cannot be handled, kept with their bytes, their origin and the rule they broke."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from driftloop.contracts import MAX_RECORD_BYTES, MalformedRecord, Message, Record, decode, derive_id
from driftloop.contracts.codec import Headers
from driftloop.contracts.deadletter.v1.deadletter_pb2 import DeadLetter

TOPIC = "dead-letters"
# A dead letter is a record itself: with more than this of the original, the broker would refuse it.
KEPT_VALUE_BYTES = MAX_RECORD_BYTES * 3 // 4
KEPT_KEY_BYTES = 4_096
KEPT_HEADERS_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Malformed:
    """Bytes on a topic that are no message of it; `appended_at_us` is the broker's time."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    rule: str
    reason: str
    appended_at_us: int = 0


@dataclass(frozen=True, slots=True)
class RawRecord:
    """A record as it lies in a topic (short name), not read yet; `appended_at_us` is the broker's time."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers | None
    appended_at_us: int


@dataclass(frozen=True, slots=True)
class Origin:
    """An event as it came to a door. `topic` (short name), `partition` and `offset` where that is a topic, else empty."""

    value: bytes
    headers: Mapping[str, bytes] = field(default_factory=dict)
    key: bytes = b""
    topic: str = ""
    partition: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Refused:
    """An event refused at a door."""

    event_id: str
    origin: Origin
    rule: str
    reason: str
    time_us: int
    known_at_us: int


def read_record(
    topic: str,
    partition: int,
    offset: int,
    key: bytes | None,
    value: bytes | None,
    headers: Headers | None,
    appended_at_us: int,
) -> Record | Malformed:
    """The record of raw bytes read from `topic` (short name), or what is wrong with them."""
    try:
        return Record(topic, partition, offset, decode(topic, key, value, headers), appended_at_us)
    except MalformedRecord as error:
        kept = tuple((name, content) for name, content in headers or ())
        return Malformed(topic, partition, offset, key, value, kept, error.rule, error.reason, appended_at_us)


def dead_letter(refused: Malformed | Refused, refused_by: str, use_case: str) -> Message[DeadLetter]:
    """The dead letter of a record or an event; the same one gives the same id, however often it is refused."""
    if isinstance(refused, Malformed):
        letter_id = derive_id("dead-letter", use_case, refused_by, refused.topic, refused.partition, refused.offset)
        payload = DeadLetter(topic=refused.topic, partition=refused.partition, offset=refused.offset)
        headers = {name: content or b"" for name, content in refused.headers}
        key, value, time_us, known_at_us = (
            refused.key or b"",
            refused.value or b"",
            refused.appended_at_us,
            refused.appended_at_us,
        )
        causes: tuple[str, ...] = ()
    else:
        origin = refused.origin
        stood = (origin.topic, origin.partition, origin.offset)
        what = stood if origin.topic else (refused.event_id, derive_id(origin.value.hex()))
        letter_id = derive_id("dead-letter", use_case, refused_by, *what)
        payload = DeadLetter(
            event_id=refused.event_id, topic=origin.topic, partition=origin.partition, offset=origin.offset
        )
        headers, key, value = dict(origin.headers), origin.key, origin.value
        time_us, known_at_us = refused.time_us, refused.known_at_us
        causes = (refused.event_id,) if refused.event_id else ()
    reason = refused.reason
    if len(value) > KEPT_VALUE_BYTES:
        reason += f" (of {len(value)} bytes the first {KEPT_VALUE_BYTES} are kept)"
    payload.use_case, payload.id, payload.refused_by = use_case, letter_id, refused_by
    payload.rule, payload.reason = refused.rule, reason
    payload.key, payload.value = key[:KEPT_KEY_BYTES], value[:KEPT_VALUE_BYTES]
    room = KEPT_HEADERS_BYTES
    for name, header in headers.items():
        room -= len(name) + len(header)
        if room < 0:
            break
        payload.headers[name] = header
    return Message(TOPIC, letter_id, payload, letter_id, f"driftloop/{refused_by}", time_us, known_at_us, causes)
