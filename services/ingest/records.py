"""Builds the records of `events` from the bytes that a sender wrote: as `contracts.encode` would, without taking them apart."""

from __future__ import annotations

from driftloop.contracts import Encoded, rfc3339
from driftloop.contracts.event.v1.event_pb2 import Event

_DEFAULT_SOURCE = b"producer"
_TYPE = Event.DESCRIPTOR.full_name.encode()
_SPECVERSION = ("ce_specversion", b"1.0")
_CE_TYPE = ("ce_type", _TYPE)
_DATASCHEMA = ("ce_dataschema", b"proto:" + _TYPE)
_CONTENT_TYPE = ("content-type", b"application/protobuf")
_SECOND_US = 1_000_000


def stamp(known_at_us: int) -> bytes:
    """What is appended to an event's bytes to set `known_at_us`: of a field that comes twice, protobuf takes the last."""
    return Event(known_at_us=known_at_us).SerializeToString()


class RecordWriter:
    """Builds the records of one call. `known_at_us`: of all of them, or None where each has its own."""

    __slots__ = ("_known_at", "_second", "_second_text", "_tracing")

    def __init__(self, traceparent: str = "", known_at_us: int | None = None) -> None:
        self._tracing = [("traceparent", traceparent.encode())] if traceparent else []
        self._known_at = None if known_at_us is None else ("ce_knownat", b"%d" % known_at_us)
        self._second, self._second_text = -1, b""

    def record(
        self, value: bytes, event_id: str, source: str, entity: str, event_time_us: int, known_at_us: int
    ) -> Encoded:
        """The record of an event; times in microseconds."""
        subject = entity.encode()
        second, rest = divmod(event_time_us, _SECOND_US)
        if second != self._second:  # the events of a call lie close together
            self._second, self._second_text = second, rfc3339(second * _SECOND_US)[:19].encode()
        headers = [
            _SPECVERSION,
            ("ce_id", event_id.encode()),
            ("ce_source", source.encode() or _DEFAULT_SOURCE),
            _CE_TYPE,
            ("ce_time", b"%s.%06dZ" % (self._second_text, rest)),
            ("ce_eventtime", b"%d" % event_time_us),
            self._known_at or ("ce_knownat", b"%d" % known_at_us),
            ("ce_subject", subject),
            _DATASCHEMA,
            _CONTENT_TYPE,
        ]
        if self._tracing:
            headers += self._tracing
        return Encoded(subject, value, headers)
