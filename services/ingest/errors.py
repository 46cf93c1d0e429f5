"""Why ingest does not accept what it was given, named by what the caller does next; no gRPC codes here.

IngestError
├── EventRejected        correct the event; it is in dead letters
│   └── IdTaken          the id came before with other content: give the new event an id of its own
├── Overloaded           retry the same call after `retry_after_s`
├── NoRoom               the heart's word for it: as many events are in flight as may be, nothing was taken in
├── BatchTooLarge        send fewer events in a call
├── UnknownUseCase       call the ingest that serves that use case
├── ClockGoesBack        the replay is out of step: the clock never goes back
├── ClockIsLive          the clock of a live use case moves by itself
├── NotAcknowledged      retry the same call after `retry_after_s`: the broker is silent, the event is kept for it
├── NotDelivered         retry the same call: whether the broker has the event is not known
└── CannotStart          an operator looks: topics are missing or the address is taken
"""

from __future__ import annotations

from collections.abc import Sequence

from driftloop.contracts.ingest.v1.ingest_pb2 import Violation
from services.ingest.validation import described


class IngestError(Exception):
    """Base of every error of ingest."""


class EventRejected(IngestError):
    """The event breaks these rules; its dead letter is acknowledged."""

    def __init__(self, event_id: str, violations: Sequence[Violation]) -> None:
        super().__init__(described(violations))
        self.event_id = event_id
        self.violations = tuple(violations)


class IdTaken(EventRejected):
    """The id came before with other content."""


class Overloaded(IngestError):
    """A bound is reached and nothing was taken in; `bound` says which, `retry_after_s` when to try again."""

    def __init__(self, bound: str, retry_after_s: float) -> None:
        super().__init__(f"{bound} is at its bound: try again in {retry_after_s} s")
        self.bound = bound
        self.retry_after_s = retry_after_s


class NoRoom(IngestError):
    """As many events are in flight as may be; nothing has changed."""


class NotAcknowledged(IngestError):
    """The broker has not answered in time. The event stays in flight: the same call again waits on for it."""

    def __init__(self, waited_s: float, retry_after_s: float) -> None:
        super().__init__(f"the broker has not acknowledged within {waited_s} s: try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class BatchTooLarge(IngestError):
    """One call carries more events than ingest takes at once."""


class UnknownUseCase(IngestError):
    """This process serves another use case."""


class ClockGoesBack(IngestError):
    """The time asked for is before the clock."""


class ClockIsLive(IngestError):
    """Only a clock in replay mode is moved by callers."""


class NotDelivered(IngestError):
    """The broker has refused a message for good; the process stops and restores itself from the log."""


class CannotStart(IngestError):
    """The process cannot become ready; its supervisor tries again."""
