"""Messages to and from Kafka records: CloudEvents attributes in headers (binary mode), protobuf as value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache
from itertools import repeat
from typing import NamedTuple

from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Payload

from driftloop.contracts.errors import MalformedRecord
from driftloop.contracts.message import MAX_CAUSES, WATERMARK_KEY_PREFIX, Message, OffsetRange
from driftloop.contracts.registry import MAX_RECORD_BYTES, topics
from driftloop.contracts.time.v1.time_pb2 import Watermark

_WATERMARK: tuple[str, type[Payload]] = (Watermark.DESCRIPTOR.full_name, Watermark)
Headers = Sequence[tuple[str, bytes | None]]


class Encoded(NamedTuple):
    """A Kafka record's parts."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


@lru_cache(maxsize=4096)
def _second(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339(time_us: int) -> str:
    """A time in microseconds as CloudEvents writes it."""
    return f"{_second(time_us // 1_000_000)}.{time_us % 1_000_000:06d}Z"


@lru_cache(maxsize=1024)
def _constant(full_name: str, source: str) -> tuple[tuple[str, bytes], ...]:
    """The headers that do not depend on the time."""
    return (
        ("ce_specversion", b"1.0"),
        ("ce_source", source.encode()),
        ("ce_type", full_name.encode()),
        ("ce_dataschema", b"proto:" + full_name.encode()),
        ("content-type", b"application/protobuf"),
    )


class Envelope:
    """What all records of one writer, type and moment have in common, made once for many of them.

    `full_name` is the payload's; times in microseconds. `ce_knownat` and `ce_eventtime` are integers beside the RFC 3339
    `ce_time`, which is for people.
    """

    __slots__ = ("_shared",)

    def __init__(self, full_name: str, source: str, time_us: int, known_at_us: int) -> None:
        spec_version, source_header, type_header, schema, content = _constant(full_name, source)
        self._shared = [
            spec_version,
            source_header,
            type_header,
            ("ce_time", rfc3339(time_us).encode()),
            ("ce_eventtime", b"%d" % time_us),
            ("ce_knownat", b"%d" % known_at_us),
            schema,
            content,
        ]

    def encode(
        self, key: str, message_id: str, value: bytes, causes: Sequence[str] = (), traceparent: str = ""
    ) -> Encoded:
        """The record of a serialised payload."""
        return self.encode_all(
            [(message_id.encode(), key.encode(), ",".join(causes).encode(), value, traceparent.encode())]
        )[0]

    def encode_all(self, rows: Iterable[tuple[bytes, bytes, bytes, bytes, bytes]]) -> list[Encoded]:
        """The records of serialised payloads, each given as id, key, causes with commas between them, payload and traceparent."""
        shared = self._shared
        records: list[tuple[bytes, bytes, list[tuple[str, bytes]]]] = []
        for message_id, key, causes, value, traceparent in rows:
            headers = [*shared, ("ce_id", message_id), ("ce_subject", key)]
            if causes:
                headers.append(("ce_causes", causes))
            if traceparent:
                headers.append(("traceparent", traceparent))
            records.append((key, value, headers))
        return list(map(tuple.__new__, repeat(Encoded), records))  # to call the class for each costs twice as much


def encode(message: Message) -> Encoded:
    """The record of a message."""
    full_name = message.payload.DESCRIPTOR.full_name
    envelope = Envelope(full_name, message.source, message.time_us, message.known_at_us)
    value = message.payload.SerializeToString()
    encoded = envelope.encode(message.key, message.id, value, message.causes, message.traceparent)
    if message.ranges:
        ranges = ",".join(f"{r.topic}:{r.partition}:{r.first}-{r.last}" for r in message.ranges)
        encoded.headers.append(("ce_causeranges", ranges.encode()))
    return encoded


@cache
def _carried(topic: str) -> tuple[str, type[Payload]]:
    """The full name and the class of a topic's messages."""
    declared = topics()[topic]
    return declared.message, declared.payload_class


def _ranges(text: str) -> tuple[OffsetRange, ...]:
    found = []
    for part in filter(None, text.split(",")):
        topic, partition, offsets = part.split(":")
        first, last = offsets.split("-")
        found.append(OffsetRange(topic, int(partition), int(first), int(last)))
    return tuple(found)


def decode(topic: str, key: bytes | None, value: bytes | None, headers: Headers | None) -> Message:
    """The message of a record read from `topic` (short name); MalformedRecord says which rule the record breaks."""
    if value is None or key is None:
        raise MalformedRecord("empty", "a record needs a key and a value")
    if len(value) > MAX_RECORD_BYTES:
        raise MalformedRecord("size", f"the value has {len(value)} bytes, more than {MAX_RECORD_BYTES}")
    found = dict(headers or ())
    causes: tuple[str, ...] = ()
    ranges: tuple[OffsetRange, ...] = ()
    try:
        ce_id = found["ce_id"].decode()  # type: ignore[union-attr]
        source = found["ce_source"].decode()  # type: ignore[union-attr]
        full_name = found["ce_type"].decode()  # type: ignore[union-attr]
        time_us, known_at_us = int(found["ce_eventtime"] or b""), int(found["ce_knownat"] or b"")
        text = key.decode()
        if named := found.get("ce_causes"):
            causes = tuple(filter(None, named.decode().split(",")))
            if len(causes) > MAX_CAUSES:
                raise MalformedRecord("header", f"{len(causes)} causes, more than {MAX_CAUSES}")
        if spans := found.get("ce_causeranges"):
            ranges = _ranges(spans.decode())
        trace = found.get("traceparent")
        traceparent = trace.decode() if trace else ""
    except KeyError as error:
        raise MalformedRecord("header", f"header {error.args[0]} is missing") from error
    except (ValueError, AttributeError) as error:
        raise MalformedRecord("header", f"a header cannot be read: {error}") from error
    expected, payload_class = _WATERMARK if text.startswith(WATERMARK_KEY_PREFIX) else _carried(topic)
    if full_name != expected:
        raise MalformedRecord("type", f"ce_type is {full_name}, topic {topic} carries {expected}")
    try:
        payload = payload_class.FromString(value)
    except DecodeError as error:
        raise MalformedRecord("payload", f"the value is no {expected}: {error}") from error
    return Message(topic, text, payload, ce_id, source, time_us, known_at_us, causes, ranges, None, traceparent)
