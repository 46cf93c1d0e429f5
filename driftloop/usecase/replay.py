"""What a use case's replay source yields: recorded events and the requests to ask, in use-case time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

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
