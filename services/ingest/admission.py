"""Decides whether an event is new, came before, is on its way or is refused, and owns the use-case clock; no I/O.

The window of remembered ids is advisory: it spares the log most retries. The authority on duplicates are the checkpointed
id sets of features and monitor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from google.protobuf.message import DecodeError

from driftloop.contracts import UNSET_US, Encoded, Message, rfc3339, watermark
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.ingest.v1.ingest_pb2 import Violation
from driftloop.contracts.monitor.v1.monitor_pb2 import Incident
from driftloop.contracts.time.v1.time_pb2 import Watermark
from driftloop.usecase import UseCase
from services.ingest.errors import ClockGoesBack, ClockIsLive, NoRoom, UnknownUseCase
from services.ingest.records import RecordWriter, stamp
from services.ingest.validation import (
    EVENT_BYTES_MAX,
    STAMP_BYTES,
    TIME_US_MAX,
    VIOLATIONS_MAX,
    ClockMode,
    Finding,
    Validator,
    Values,
    is_plain,
    size_violation,
)
from services.ingest.watch import Arrival, Watch

TOPIC = "events"
WRITER = "ingest"
_BYTES_MAX = EVENT_BYTES_MAX - STAMP_BYTES
_NO_FAULTS: Mapping[int, Sequence[Violation]] = {}
_HEAD = attrgetter("use_case", "id", "type", "source", "entity", "event_time_us", "known_at_us", "fields")


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The same id and content came before and is in the log."""

    event_type: str


@dataclass(frozen=True, slots=True)
class OnItsWay:
    """An event of the same id is in flight, in the `Taken` of this number: decide again once that is settled."""

    number: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """Not to be written; `id_taken` if nothing but its id is wrong with it. Times are those that the event gives, or 0."""

    violations: Sequence[Violation]
    id_taken: bool = False
    event_time_us: int = 0
    known_at_us: int = 0


NotAdmitted = Duplicate | OnItsWay | Rejected


@dataclass(slots=True)
class Taken:
    """What was decided about a call's events, in their order.

    `ids` of all of them ("" where one cannot be read); `others` by position: those that are not admitted. The rest is in
    flight: write `records`, in order, tell what follows (`Admission.sent`), then `settle`. `admitted`: event types by id, in the
    order of `records`. `findings`: what admitted events do not meet; `arrivals` of those whose source is watched.
    """

    number: int
    ids: list[str] = field(default_factory=list)
    others: dict[int, NotAdmitted] = field(default_factory=dict)
    records: list[Encoded] = field(default_factory=list)
    admitted: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move of the clock has to write: first the watermarks, then the incidents."""

    watermarks: list[Message[Watermark]]
    incidents: list[Message[Incident]]


class Admission:
    """State: the clock, the ids in flight, the window of ids that are in the log, and the sources that are watched.

    `spread`: partitions of `events`. `window_ids_max`: ids remembered, oldest forgotten first. `in_flight_max`: events
    written and not yet acknowledged. All times in microseconds; `now_us` matters only to a live clock.
    """

    def __init__(
        self, use_case: UseCase, spread: int, window_ids_max: int, in_flight_max: int, mode: ClockMode | None = None
    ) -> None:
        self.mode: ClockMode = mode or use_case.clock
        self.clock_us = UNSET_US
        self._use_case = use_case.name
        self._validator = Validator(use_case, self.mode)
        self._watch = Watch(use_case)
        self._spread = spread
        self._window_ids_max = window_ids_max
        self._in_flight_max = in_flight_max
        # Digests of content by id: of the window, whose ids stand in `_oldest`, and of what is in flight.
        self._remembered: dict[str, int] = {}
        self._oldest: deque[str] = deque()
        self._in_flight: dict[int, Taken] = {}
        self._events_in_flight = 0
        self._number = 0

    @property
    def room(self) -> int:
        """How many more events may be in flight."""
        return self._in_flight_max - self._events_in_flight

    @property
    def in_flight(self) -> int:
        """Events written and not settled."""
        return self._events_in_flight

    @property
    def window_ids(self) -> int:
        """Ids remembered."""
        return len(self._oldest)

    def take(
        self,
        sent: Sequence[bytes],
        now_us: int,
        traceparent: str = "",
        *,
        redriven: bool = False,
        faults: Mapping[int, Sequence[Violation]] = _NO_FAULTS,
    ) -> Taken:
        """What becomes of events that stand at the door, as their senders serialised them. The admitted count as in flight.

        Their bytes are kept; a live clock's stamp is appended. `redriven`: a dead letter comes again, known from now on.
        `faults`: what a door could not read of an event, by position, for which it is refused.
        A retry of what is in the log is a duplicate whatever the clock says by then. Otherwise an event that was known at or
        before the clock comes too late: the watermark has promised every reader that there will be none. Raises NoRoom,
        and then nothing has changed.
        """
        if len(sent) > self.room:
            raise NoRoom(f"{len(sent)} events, and room for {self.room}")
        self._number += 1
        taken = Taken(self._number)
        is_live, clock_us = self.mode == "live", self.clock_us
        stamp_us = max(now_us, clock_us + 1)
        reference_us = max(now_us, clock_us) if is_live else clock_us
        earliest_us, latest_us = self._validator.bounds_us(reference_us)
        live_stamp = stamp(stamp_us) if is_live else b""
        writer = RecordWriter(traceparent, stamp_us if is_live else None)
        use_case, rules_of, remembered = self._use_case, self._validator.rules, self._remembered
        ids, admitted, records, record = taken.ids, taken.admitted, taken.records, writer.record
        for position, value in enumerate(sent):
            event = _parsed(value)
            if event is None:
                ids.append("")
                taken.others[position] = Rejected([_unreadable(value)])
                continue
            if faults and position in faults:
                ids.append(event.id)
                taken.others[position] = Rejected(
                    faults[position][:VIOLATIONS_MAX], False, event.event_time_us, event.known_at_us
                )
                continue
            if redriven and not is_live:
                event.known_at_us = max(event.known_at_us, clock_us + 1)
                value += stamp(event.known_at_us)
            named, event_id, event_type, source, entity, event_time_us, known_at_us, fields = _HEAD(event)
            ids.append(event_id)
            rules = rules_of.get(event_type)
            values: Values | None = None
            # What is certainly fine is told apart first, and cheaply; `_refusal` says of all others what they are.
            if (
                rules is not None
                and event_id not in remembered
                and named == use_case
                and is_plain(event_id, entity, source)
                and earliest_us <= event_time_us <= (event_time_us if is_live else known_at_us) <= latest_us
                and (is_live or known_at_us > clock_us)
            ):
                values = rules.kept(fields)
            if values is None:
                refusal = self._refusal(event, reference_us, taken)
                if refusal is not None:
                    taken.others[position] = refusal
                    continue
                rules = rules_of[event_type]
                values, _ = rules.values(fields)
            remembered[event_id] = hash((event_type, source, entity, event_time_us, _told_apart(values)))
            admitted[event_id] = event_type
            records.append(record(value + live_stamp, event_id, source, entity, event_time_us, known_at_us))
            if rules is not None and rules.is_watched:
                at_us = stamp_us if is_live else known_at_us
                taken.findings += rules.findings(values, event_id, at_us)
                if rules.has_arrivals:
                    taken.arrivals.append(Arrival(event_type, source, event_id, at_us))
        self._in_flight[taken.number] = taken
        self._events_in_flight += len(admitted)
        return taken

    def sent(self, taken: Taken) -> list[Message[Incident]]:
        """The records of a flight, but for those given back, are on their way to the log: the incidents that follow. Once each."""
        incidents: list[Message[Incident]] = []
        for finding in taken.findings:
            incidents += self._watch.found(finding)
        for arrival in taken.arrivals:
            incidents += self._watch.arrived(arrival)
        return incidents

    def settle(self, taken: Taken, written: bool) -> None:
        """Ends a flight: `written` keeps its ids in the window, otherwise it is as if they had never come."""
        del self._in_flight[taken.number]
        self._events_in_flight -= len(taken.admitted)
        if written:
            self._oldest.extend(taken.admitted)
            self._forget()
        else:
            for event_id in taken.admitted:
                del self._remembered[event_id]

    def give_back(self, taken: Taken, first: int) -> None:
        """Ends the flight of the records from position `first` on, for which there was no room."""
        for event_id in list(taken.admitted)[first:]:
            del taken.admitted[event_id]
            del self._remembered[event_id]
            self._events_in_flight -= 1
        taken.findings = [finding for finding in taken.findings if finding.event_id in taken.admitted]
        taken.arrivals = [arrival for arrival in taken.arrivals if arrival.event_id in taken.admitted]

    def advance(self, use_case: str, known_at_us: int) -> Moved:
        """Moves a replay's clock; what to write then: watermarks for each partition, behind every event admitted so far.

        Asking for the time that the clock shows writes them again: a caller cannot know whether the last try arrived.
        Raises ClockIsLive, ClockGoesBack, or UnknownUseCase.
        """
        if use_case != self._use_case:
            raise UnknownUseCase(f"use case {use_case!r} is not served here, {self._use_case!r} is")
        if self.mode == "live":
            raise ClockIsLive(f"use case {use_case} has a live clock: it moves by itself")
        if known_at_us < self.clock_us or not 0 < known_at_us <= TIME_US_MAX:
            raise ClockGoesBack(f"the clock is at {_said(self.clock_us)} and cannot go to {_said(known_at_us)}")
        return self._move(known_at_us)

    def tick(self, now_us: int) -> Moved:
        """Moves a live clock to now, or not at all if the machine's clock went back; what to write then."""
        return self._move(max(now_us, self.clock_us))

    def restore(self, event: Event) -> None:
        """Remembers an event found in the log, oldest first."""
        if event.id not in self._remembered:
            self._oldest.append(event.id)
        self._remembered[event.id] = self._digest(event)
        self._forget()
        rules = self._validator.rules.get(event.type)
        if rules is not None and rules.has_arrivals:
            arrival = Arrival(event.type, event.source, event.id, event.known_at_us)
            self._watch.arrived(arrival)  # what it tells was told then

    def restore_clock(self, known_at_us: int) -> None:
        """Takes up a watermark of ours found in the log; the newest of all partitions counts."""
        self.clock_us = max(self.clock_us, known_at_us)

    def _refusal(self, event: Event, reference_us: int, taken: Taken) -> NotAdmitted | None:
        """What is to be said of an event that is not admitted; None for one that is."""
        seen = self._remembered.get(event.id)
        if seen is not None:
            for flight in (taken, *self._in_flight.values()):
                if event.id in flight.admitted:
                    return OnItsWay(flight.number)
        if seen is not None and event.use_case == self._use_case and seen == self._digest(event):
            return Duplicate(event.type)
        violations = self._validator.check(event, reference_us)
        if not violations and seen is not None:
            description = f"id {event.id!r} came before with other content"
            violations = [Violation(field="id", rule="id_taken", description=description)]
        elif not violations and self.mode == "replay" and event.known_at_us <= self.clock_us:
            late = f"is {event.known_at_us}, but the clock is already at {self.clock_us}"
            violations, seen = [Violation(field="known_at_us", rule="known_at", description=late)], None
        else:
            seen = None
        if not violations:
            return None
        return Rejected(violations, seen is not None, event.event_time_us, event.known_at_us)

    def _move(self, known_at_us: int) -> Moved:
        self.clock_us = known_at_us
        watermarks = [watermark(TOPIC, partition, WRITER, known_at_us) for partition in range(self._spread)]
        return Moved(watermarks, self._watch.moved(known_at_us))

    def _digest(self, event: Event) -> int:
        """Of what the sender says, however it is serialised; when it became known is left out, a stamp would differ."""
        rules = self._validator.rules.get(event.type)
        values = rules.values(event.fields)[0] if rules is not None else ()
        return hash((event.type, event.source, event.entity, event.event_time_us, _told_apart(values)))

    def _forget(self) -> None:
        while len(self._oldest) > self._window_ids_max:
            del self._remembered[self._oldest.popleft()]


def _told_apart(values: Values) -> Values:
    """Values whose hash is another one for other values: Python's of −1 is that of −2."""
    return values if -1 not in values else (values, *[place for place, value in enumerate(values) if value == -1])


def _said(at_us: int) -> str:
    return rfc3339(at_us) if 0 < at_us <= TIME_US_MAX else f"{at_us} µs"


def _parsed(value: bytes) -> Event | None:
    try:
        return Event.FromString(value) if len(value) <= _BYTES_MAX else None
    except DecodeError:
        return None


def _unreadable(value: bytes) -> Violation:
    oversized = size_violation(len(value))
    return oversized or Violation(field="", rule="malformed", description="is no driftloop.event.v1.Event")
