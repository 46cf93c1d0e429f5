"""Decides when events that do not meet their use case's expectations are an incident, and how long it lasts; no I/O.

An expectation's findings are told once for each of its windows, a source's silence when it begins and when it ends.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from driftloop.contracts import Message, derive_id
from driftloop.contracts.monitor.v1.monitor_pb2 import Incident
from driftloop.usecase import Arrivals, UseCase, floor_us
from services.ingest.validation import Finding

TOPIC = "incidents"
_SERVICE = "ingest"
FRESHNESS, VOLUME = "freshness", "volume"
SOURCES_MAX = 10_000
"""Sources whose arrivals are watched, 200 bytes each: of more, those that were quiet longest are forgotten."""


class Arrival(NamedTuple):
    """An event of a watched source; `known_at_us` in microseconds."""

    event_type: str
    source: str
    event_id: str
    known_at_us: int


@dataclass(slots=True)
class _Source:
    """What is known of one source of one event type; times in microseconds of the use-case clock."""

    last_us: int
    last_id: str
    window_us: int  # where the window being counted begins
    count: int
    is_whole: bool  # whether the window being counted was watched from its beginning
    quiet_told: bool = False


class Watch:
    """State: the newest window told of for each expectation, and every watched source's last event and count."""

    def __init__(self, use_case: UseCase, sources_max: int = SOURCES_MAX) -> None:
        self._use_case = use_case.name
        self._arrivals: dict[str, Arrivals] = {
            event.name: event.arrivals for event in use_case.events if event.arrivals is not None
        }
        self._sources_max = sources_max
        self._told: dict[tuple[str, str], int] = {}
        self._sources: OrderedDict[tuple[str, str], _Source] = OrderedDict()

    @property
    def sources(self) -> int:
        """Sources that are watched."""
        return len(self._sources)

    def found(self, finding: Finding) -> list[Message[Incident]]:
        """The incident of a finding, unless its window's was told already."""
        from_us = floor_us(finding.known_at_us, finding.window_us)
        place = (finding.event_type, finding.rule)
        if self._told.get(place, -1) >= from_us:
            return []
        self._told[place] = from_us
        what = f"{finding.event_type}: {finding.description} (first in event {finding.event_id})"
        stops = finding.consequence == "stop_training"
        to_us = from_us + finding.window_us
        incident = Incident(
            what=what,
            rule=finding.rule,
            event_type=finding.event_type,
            stops_training=stops,
            from_us=from_us,
            to_us=to_us,
        )
        return [self._message(incident, finding.known_at_us, (finding.event_id,))]

    def arrived(self, arrival: Arrival) -> list[Message[Incident]]:
        """Takes note of an event; the incidents that it ends or, being one too many, begins."""
        event_type, source, event_id, known_at_us = arrival
        expected = self._arrivals[event_type]
        known = self._sources.get((event_type, source))
        if known is None:
            window_us = floor_us(known_at_us, expected.per_us)
            is_whole = window_us == known_at_us
            self._sources[event_type, source] = _Source(known_at_us, event_id, window_us, 1, is_whole)
            if len(self._sources) > self._sources_max:
                self._sources.popitem(last=False)
            return []
        incidents = self._closed(event_type, source, known, floor_us(known_at_us, expected.per_us), known_at_us)
        if known.quiet_told:
            known.quiet_told = False
            incidents.append(self._quiet(event_type, source, known, known_at_us, known_at_us, (event_id,)))
        known.count += 1
        # An event that was known earlier may be sent later.
        if known_at_us >= known.last_us:
            known.last_us, known.last_id = known_at_us, event_id
        self._sources.move_to_end((event_type, source))
        return incidents

    def moved(self, clock_us: int) -> list[Message[Incident]]:
        """The incidents that begin because the clock has reached a time without events."""
        incidents: list[Message[Incident]] = []
        for (event_type, source), known in self._sources.items():
            expected = self._arrivals[event_type]
            incidents += self._closed(event_type, source, known, floor_us(clock_us, expected.per_us), clock_us)
            longest_us = expected.quiet_at_most_us
            if longest_us is not None and not known.quiet_told and clock_us - known.last_us > longest_us:
                known.quiet_told = True
                incidents.append(self._quiet(event_type, source, known, 0, clock_us, (known.last_id,)))
        return incidents

    def _closed(
        self, event_type: str, source: str, known: _Source, window_us: int, clock_us: int
    ) -> list[Message[Incident]]:
        """Goes on to the window that begins at `window_us`; an incident if those before hold too few or too many."""
        expected = self._arrivals[event_type]
        if window_us <= known.window_us:
            return []
        first_us, count, is_whole = known.window_us, known.count, known.is_whole
        known.window_us, known.count, known.is_whole = window_us, 0, True
        incidents = []
        ended_us = first_us + expected.per_us
        too_many = expected.at_most is not None and count > expected.at_most
        too_few = is_whole and count < expected.at_least
        if too_many or too_few:
            incidents.append(self._volume(event_type, source, known, count, first_us, ended_us, clock_us))
        if ended_us < window_us and expected.at_least:
            # Empty windows in a row are one incident: the clock of a replay may jump over thousands.
            incidents.append(self._volume(event_type, source, known, 0, ended_us, window_us, clock_us))
        return incidents

    def _volume(
        self, event_type: str, source: str, known: _Source, count: int, from_us: int, to_us: int, clock_us: int
    ) -> Message[Incident]:
        expected = self._arrivals[event_type]
        bounds = f"at least {expected.at_least}" + (
            f", at most {expected.at_most}" if expected.at_most is not None else ""
        )
        what = (
            f"{event_type}: {count} events of {source or 'an unnamed source'} in {expected.per}, expected are {bounds}"
        )
        return self._told_of(VOLUME, event_type, source, what, from_us, to_us, clock_us, (known.last_id,))

    def _quiet(
        self, event_type: str, source: str, known: _Source, to_us: int, clock_us: int, causes: tuple[str, ...]
    ) -> Message[Incident]:
        expected = self._arrivals[event_type]
        named = source or "an unnamed source"
        what = f"{event_type}: {named} is quiet for longer than {expected.quiet_at_most}"
        if to_us:
            what = f"{event_type}: {named} is heard again"
        return self._told_of(FRESHNESS, event_type, source, what, known.last_us, to_us, clock_us, causes)

    def _told_of(
        self,
        rule: str,
        event_type: str,
        source: str,
        what: str,
        from_us: int,
        to_us: int,
        clock_us: int,
        causes: tuple[str, ...],
    ) -> Message[Incident]:
        stops = self._arrivals[event_type].otherwise == "stop_training"
        incident = Incident(
            what=what,
            rule=rule,
            event_type=event_type,
            event_source=source,
            stops_training=stops,
            from_us=from_us,
            to_us=to_us,
        )
        return self._message(incident, clock_us, causes)

    def _message(self, incident: Incident, clock_us: int, causes: tuple[str, ...]) -> Message[Incident]:
        incident.use_case, incident.source, incident.clock_us = self._use_case, _SERVICE, clock_us
        place = (incident.rule, incident.event_type, incident.event_source, incident.from_us, incident.to_us)
        incident.id = derive_id("incident", self._use_case, _SERVICE, *place)
        return Message(
            TOPIC, self._use_case, incident, incident.id, f"driftloop/{_SERVICE}", clock_us, clock_us, causes
        )
