"""What a use case's replay source yields: recorded events and the requests to ask, in use-case time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from driftloop.usecase.durations import floor_us
from driftloop.usecase.schema import FieldValue


@dataclass(frozen=True, slots=True)
class ReplayEvent:
    """A recorded event. Times in microseconds, UTC; absent fields are left out of `fields`."""

    type: str
    id: str
    entity: str
    event_time_us: int
    known_at_us: int
    fields: Mapping[str, FieldValue]


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """A prediction to ask for `entity` in the step that contains `at_us`; its request id is derived from the entity."""

    at_us: int
    entity: str
    fields: Mapping[str, FieldValue]


class ReplayStretch(Protocol):
    """A stretch of recorded history: sorted events and requests, and where a change was injected, if one was."""

    start_us: int
    end_us: int
    injected_at_us: int | None
    rows: int

    def events(self) -> Iterator[ReplayEvent]:
        """Events in order of (known_at, id)."""
        ...

    def requests(self) -> Iterator[ReplayRequest]:
        """Requests in order of (at, entity)."""
        ...


@dataclass(frozen=True, slots=True)
class ReplayStep:
    """What happens between two points of the clock: the requests asked at its start, then the events known by its end."""

    start_us: int
    end_us: int
    requests: list[ReplayRequest]
    events: list[ReplayEvent]


def replay_steps(stretch: ReplayStretch, step_us: int, drain_us: int = 0) -> Iterator[ReplayStep]:
    """The stretch in steps of the clock; `drain_us` of empty steps after its end let the last labels mature."""
    requests, events = stretch.requests(), stretch.events()
    request, event = next(requests, None), next(events, None)
    first_us = floor_us(stretch.start_us, step_us) - step_us
    for start_us, end_us in pairwise(range(first_us, stretch.end_us + drain_us + step_us, step_us)):
        asked, known = [], []
        while request is not None and request.at_us < end_us:
            asked.append(request)
            request = next(requests, None)
        while event is not None and event.known_at_us <= end_us:
            known.append(event)
            event = next(events, None)
        yield ReplayStep(start_us, end_us, asked, known)
