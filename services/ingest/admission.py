"""Decides whether an event is new, came before, is on its way or is refused, and owns the use-case clock; no I/O.

The window of remembered ids is advisory: it spares the log most retries. The authority on duplicates are the checkpointed
id sets of features and monitor.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from driftloop.contracts import UNSET_US, Message, watermark
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.ingest.v1.ingest_pb2 import Violation
from driftloop.contracts.time.v1.time_pb2 import Watermark
from driftloop.usecase import UseCase
from services.ingest.errors import ClockGoesBack, ClockIsLive, UnknownUseCase
from services.ingest.validation import TIME_US_MAX, ClockMode, Validator, size_violation

TOPIC = "events"
WRITER = "ingest"
DEFAULT_SOURCE = "producer"


@dataclass(frozen=True, slots=True)
class Admitted:
    """A new event, in flight from now on: write `message`, then call `settle`."""

    message: Message[Event]


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The same id and content came before and is in the log."""


@dataclass(frozen=True, slots=True)
class OnItsWay:
    """An event of the same id is in flight: decide again once it is settled."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Not to be written; `id_taken` if nothing but its id is wrong with it."""

    violations: Sequence[Violation]
    id_taken: bool = False


@dataclass(frozen=True, slots=True)
class NoRoom:
    """As many events are in flight as may be; nothing has changed."""


Decision = Admitted | Duplicate | OnItsWay | Rejected | NoRoom


class Admission:
    """State: the clock, the ids in flight and the window of ids that are in the log.

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
        self._spread = spread
        self._window_ids_max = window_ids_max
        self._in_flight_max = in_flight_max
        self._window: OrderedDict[str, int] = OrderedDict()
        self._in_flight: dict[str, int] = {}

    @property
    def room(self) -> int:
        """How many more events may be in flight."""
        return self._in_flight_max - len(self._in_flight)

    @property
    def in_flight(self) -> int:
        """Events written and not settled."""
        return len(self._in_flight)

    @property
    def window_ids(self) -> int:
        """Ids remembered."""
        return len(self._window)

    def decide(self, event: Event, now_us: int, traceparent: str = "") -> Decision:
        """What becomes of an event that stands at the door. Admitted: the event is stamped and counts as in flight.

        A retry of what is in the log is a duplicate whatever the clock says by then. Otherwise an event that was known at or
        before the clock comes too late: the watermark has promised every reader that there will be none.
        """
        oversized = size_violation(event)
        if oversized is not None:
            return Rejected([oversized])
        digest = self._digest(event)
        if event.id in self._in_flight:
            return OnItsWay()
        seen = self._window.get(event.id)
        if seen == digest and event.use_case == self._use_case:
            return Duplicate()
        violations = self._validator.check(event, self._reference_us(now_us))
        if violations:
            return Rejected(violations)
        if seen is not None:
            taken = Violation(
                field="id", rule="id_taken", description=f"id {event.id!r} came before with other content"
            )
            return Rejected([taken], id_taken=True)
        if self.mode == "replay" and event.known_at_us <= self.clock_us:
            late = f"is {event.known_at_us}, but the clock is already at {self.clock_us}"
            return Rejected([Violation(field="known_at_us", rule="known_at", description=late)])
        if self.room <= 0:
            return NoRoom()
        if self.mode == "live":
            event.known_at_us = max(now_us, self.clock_us + 1)
        self._in_flight[event.id] = digest
        return Admitted(
            Message(
                topic=TOPIC,
                key=event.entity,
                payload=event,
                id=event.id,
                source=event.source or DEFAULT_SOURCE,
                time_us=event.event_time_us,
                known_at_us=event.known_at_us,
                traceparent=traceparent,
            )
        )

    def settle(self, event_id: str, written: bool) -> None:
        """Ends an event's flight: `written` puts its id into the window, otherwise it is as if it had never come."""
        digest = self._in_flight.pop(event_id)
        if written:
            self._remember(event_id, digest)

    def advance(self, use_case: str, known_at_us: int) -> list[Message[Watermark]]:
        """Moves a replay's clock; the watermarks to write, one for each partition, behind every event admitted so far.

        Asking for the time that the clock shows writes them again: a caller cannot know whether the last try arrived.
        Raises ClockIsLive, ClockGoesBack, or UnknownUseCase.
        """
        if use_case != self._use_case:
            raise UnknownUseCase(f"use case {use_case!r} is not served here, {self._use_case!r} is")
        if self.mode == "live":
            raise ClockIsLive(f"use case {use_case} has a live clock: it moves by itself")
        if known_at_us < self.clock_us or not 0 < known_at_us <= TIME_US_MAX:
            raise ClockGoesBack(f"the clock is at {self.clock_us} and cannot go to {known_at_us}")
        return self._move(known_at_us)

    def tick(self, now_us: int) -> list[Message[Watermark]]:
        """Moves a live clock to now, or not at all if the machine's clock went back; the watermarks to write."""
        return self._move(max(now_us, self.clock_us))

    def restore(self, event: Event) -> None:
        """Remembers an event found in the log, oldest first."""
        self._remember(event.id, self._digest(event))

    def restore_clock(self, known_at_us: int) -> None:
        """Takes up a watermark of ours found in the log; the newest of all partitions counts."""
        self.clock_us = max(self.clock_us, known_at_us)

    def _move(self, known_at_us: int) -> list[Message[Watermark]]:
        self.clock_us = known_at_us
        return [watermark(TOPIC, partition, WRITER, known_at_us) for partition in range(self._spread)]

    def _reference_us(self, now_us: int) -> int:
        return max(now_us, self.clock_us) if self.mode == "live" else self.clock_us

    def _digest(self, event: Event) -> int:
        if self.mode == "live" and event.known_at_us:
            stamped, event = event, Event()
            event.CopyFrom(stamped)
            event.known_at_us = 0
        content = event.SerializeToString(deterministic=True)
        return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest())

    def _remember(self, event_id: str, digest: int) -> None:
        self._window[event_id] = digest
        if len(self._window) > self._window_ids_max:
            self._window.popitem(last=False)
