"""Events as CloudEvents in JSON (structured, batch, binary), turned into the wire's Event; never whether they are welcome.

What cannot be said in an Event is named as a fault of the event that has it: the others of a batch go on. Times are RFC 3339
texts with a time zone, or whole microseconds since the epoch, UTC. See https://cloudevents.io (version 1.0, JSON format).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from driftloop.contracts.errors import MalformedRecord
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.ingest.v1.ingest_pb2 import Violation
from driftloop.usecase import UseCase
from driftloop.usecase.schema import FieldKind

STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
JSON = "application/json"
# A description says what stands there, within what an answer can carry.
_SHOWN_CHARACTERS_MAX = 64
_DIGITS_MAX = 20  # of 64 bits; Python refuses to make numbers of thousands
_CE, _EVENT = "ce_", Event.DESCRIPTOR.full_name.encode()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# CloudEvents' names of what an Event calls otherwise; `knownat` and `usecase` are extension attributes of driftloop's.
_TEXTS = {"id": "id", "type": "type", "source": "source", "subject": "entity", "usecase": "use_case"}
_TIMES = {"time": "event_time_us", "knownat": "known_at_us"}


class _CloudEvent(msgspec.Struct, gc=False):
    """What an event looks like that needs no closer look."""

    specversion: str
    id: str
    source: str
    type: str
    time: str
    subject: str = ""
    usecase: str = ""
    knownat: str | int = 0
    datacontenttype: str = JSON
    data: dict[str, str | int | float | bool | None] = {}
    data_base64: str = ""


@dataclass(frozen=True, slots=True)
class Translated:
    """Serialised Events in their order, as far as they can be said; `faults` of those that cannot, by position."""

    events: list[bytes]
    faults: Mapping[int, list[Violation]] = field(default_factory=dict)


def time_us(value: str | int) -> int:
    """A time in microseconds since the epoch; ValueError if the text is none, or says no time zone."""
    if isinstance(value, int):
        return value
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("no time zone")
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def is_json(content_type: str) -> bool:
    """Whether a media type is JSON, as `application/json` or `…+json`."""
    media = content_type.partition(";")[0].strip().lower()
    return media == JSON or media.endswith("+json")


class CloudEventsReader:
    """Reads CloudEvents of one use case, whose declared kinds decide what a JSON value becomes.

    A whole number is a number where one is declared, a text a time. What is not declared keeps its own kind, for the schema's
    check to refuse. An event that names no `usecase` is of this one. With a use case's name alone, all keep their own kinds.
    """

    def __init__(self, use_case: UseCase | str) -> None:
        events = use_case.events if isinstance(use_case, UseCase) else ()
        self._use_case = use_case.name if isinstance(use_case, UseCase) else use_case
        self._kinds: Mapping[str, Mapping[str, FieldKind]] = {
            event.name: {name: declared.kind for name, declared in event.fields.items()} for event in events
        }
        self._one = msgspec.json.Decoder(_CloudEvent)
        self._many = msgspec.json.Decoder(list[_CloudEvent])
        self._raw = msgspec.json.Decoder(list[msgspec.Raw])

    def batch(self, body: bytes) -> Translated:
        """The events of a JSON array; MalformedRecord if it is none."""
        try:
            return Translated([self._quick(each) for each in self._many.decode(body)])
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
            # One of them at least is not as it should be, and each is looked at by itself.
            events: list[bytes] = []
            faults: dict[int, list[Violation]] = {}
            for position, raw in enumerate(self.parts(body)):
                one = self.structured(raw)
                events += one.events
                if one.faults:
                    faults[position] = one.faults[0]
            return Translated(events, faults)

    def parts(self, body: bytes) -> Sequence[bytes]:
        """The events of a JSON array as they were written; MalformedRecord if it is none."""
        try:
            return [bytes(raw) for raw in self._raw.decode(body)]
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise MalformedRecord("malformed", f"the body is no JSON array of CloudEvents: {error}") from error

    def structured(self, body: bytes) -> Translated:
        """The event of a JSON object; whatever is wrong with it is a fault."""
        try:
            return Translated([self._quick(self._one.decode(body))])
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
            return self._closely(body)

    def binary(self, attributes: Mapping[str, str], body: bytes) -> Translated:
        """The event whose attributes are told apart from its data, a JSON object; whatever is wrong with it is a fault."""
        given: dict[str, Any] = dict(attributes)
        for name in _TIMES.keys() & given.keys():
            text = given[name]
            if len(text) <= _DIGITS_MAX and text.isdecimal():  # here an event has texts only: microseconds are digits
                given[name] = int(text)
        if body:
            try:
                given["data"] = msgspec.json.decode(body)
            except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
                event, faults = self._sorted_out(given)
                faults.insert(0, Violation(field="data", rule="malformed", description=f"is no JSON: {error}"))
                return Translated([event], {0: faults})
        return _one(*self._sorted_out(given))

    def record(self, value: bytes, headers: Mapping[str, bytes | None]) -> Translated:
        """The event of a Kafka record, or of a dead letter: by its headers, JSON in any of the above modes, or an Event's bytes.

        Without headers, what begins with a brace is a structured event: no Event does.
        """
        content_type = _text(headers.get("content-type"))
        media = content_type.partition(";")[0].strip().lower()
        is_binary = "ce_id" in headers or "ce_specversion" in headers
        if media == STRUCTURED or (not media and not is_binary and value.lstrip()[:1] == b"{"):
            return self.structured(value)
        if is_binary and (is_json(media) or (not media and headers.get("ce_type") != _EVENT)):
            attributes = {name[len(_CE) :]: _text(text) for name, text in headers.items() if name.startswith(_CE)}
            return self.binary({"datacontenttype": content_type or JSON} | attributes, value)
        return Translated([value])

    def _quick(self, given: _CloudEvent) -> bytes:
        """The event, or ValueError or OverflowError for one that needs a closer look."""
        if given.specversion != "1.0" or given.data_base64 or not is_json(given.datacontenttype):
            raise ValueError("unusual")
        event = Event(
            use_case=given.usecase or self._use_case,
            id=given.id,
            type=given.type,
            source=given.source,
            entity=given.subject,
            event_time_us=time_us(given.time),
            known_at_us=time_us(given.knownat),
        )
        kinds, fields = self._kinds.get(given.type, {}), event.fields
        for name, value in given.data.items():
            if value is not None:
                _put(fields, name, value, kinds.get(name))
        return event.SerializeToString()

    def _closely(self, body: bytes) -> Translated:
        try:
            given = msgspec.json.decode(body)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            return _one(b"", [Violation(field="", rule="malformed", description=f"is no JSON: {error}")])
        if not isinstance(given, dict):
            return _one(b"", [Violation(field="", rule="malformed", description="is no JSON object")])
        return _one(*self._sorted_out(given))

    def _sorted_out(self, given: Mapping[str, Any]) -> tuple[bytes, list[Violation]]:
        """As much of an event as can be said, and what cannot."""
        event, faults = Event(use_case=self._use_case), _unusual(given)
        for name, attribute in _TEXTS.items():
            value = given.get(name)
            if value is None:
                continue
            try:
                setattr(event, attribute, value)
            except (TypeError, ValueError):
                faults.append(_fault(attribute, "type", f"is {_shown(value)}, no text"))
        for name, attribute in _TIMES.items():
            value = given.get(name)
            if value is None:
                if name == "time":
                    faults.append(_fault(attribute, "required", "is missing: say when it happened"))
                continue
            try:
                setattr(event, attribute, time_us(value if isinstance(value, str) else _whole(value)))
            except (TypeError, ValueError, OverflowError):
                faults.append(_fault(attribute, "type", f"is {_shown(value)}, no RFC 3339 time with a time zone"))
        data = given.get("data")
        if data is not None and not isinstance(data, dict):
            faults.append(_fault("data", "type", f"is {_shown(data)}, no JSON object"))
            data = None
        kinds = self._kinds.get(event.type, {})
        for name, value in (data or {}).items():
            try:
                if value is not None:
                    _put(event.fields, name, value, kinds.get(name))
            except (TypeError, ValueError, OverflowError):
                description = f"is {_shown(value)}, which is no {kinds.get(name, 'single value')}"
                faults.append(_fault("fields." + name, "type", description))
        return event.SerializeToString(), faults


def _text(header: bytes | None) -> str:
    return (header or b"").decode(errors="replace")


def _one(event: bytes, faults: list[Violation]) -> Translated:
    return Translated([event], {0: faults} if faults else {})


def _put(fields: Any, name: str, value: Any, kind: FieldKind | None) -> None:
    """Sets a field to a JSON value; ValueError, TypeError or OverflowError where it has none that the wire can carry."""
    found = type(value)
    if found is float:
        if kind == "integer" and value.is_integer():  # JSON tells no 3.0 from a 3
            fields[name].integer = int(value)
        else:
            fields[name].number = value
    elif found is str:
        if kind == "time":
            fields[name].time_us = time_us(value)
        else:
            fields[name].text = value
    elif found is bool:
        fields[name].flag = value
    elif found is not int:
        raise TypeError(f"{found.__name__} is no single value")
    elif kind == "number":
        fields[name].number = value
    elif kind == "time":
        fields[name].time_us = value
    else:
        fields[name].integer = value


def _unusual(given: Mapping[str, Any]) -> list[Violation]:
    """What is wrong with how an event is told, whatever it says."""
    faults = []
    version, content_type = given.get("specversion"), given.get("datacontenttype")
    if version is None:
        faults.append(_fault("specversion", "required", "is missing: it is '1.0'"))
    elif version != "1.0":
        faults.append(_fault("specversion", "one_of", f"is {_shown(version)}, not '1.0'"))
    if content_type is not None and not (isinstance(content_type, str) and is_json(content_type)):
        faults.append(_fault("datacontenttype", "one_of", f"is {_shown(content_type)}, no kind of JSON"))
    if given.get("data_base64"):
        faults.append(
            _fault("data_base64", "unknown_field", "cannot be read: give the fields as a JSON object in data")
        )
    return faults


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError("no whole number")
    return value


def _fault(place: str, rule: str, description: str) -> Violation:
    if len(place) > _SHOWN_CHARACTERS_MAX:
        place = place[: _SHOWN_CHARACTERS_MAX - 1] + "…"
    return Violation(field=place, rule=rule, description=description)


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    shown = ascii(value)
    return shown if len(shown) <= _SHOWN_CHARACTERS_MAX else shown[: _SHOWN_CHARACTERS_MAX - 1] + "…"
