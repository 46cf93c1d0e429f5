"""What can go wrong in serving, named by what the caller does next.

ServingError
├── InvalidRequest       correct the request: the violations name its fields
├── UnknownUseCase       ask the replica that serves this use case
├── PredictionForgotten  ask with the vector of its log record: this replica remembers the newest answers only
├── ModelNotLoaded       ask the archive: this replica holds the released models only
├── NotExplainable       wait for the next model: this one's bundle holds no background
├── NotReady             retry: this replica is still reading its topics
├── NoModelYet           wait for the first release
├── Overloaded           retry later: more calls wait than can be answered in time
├── LogFull              retry later: answers cannot be logged, so none is given
├── NoUsableScore        report it: no released model gave a usable answer
├── DeadlinePassed       ask again with more time: nothing was predicted
├── StillBehind          wait again: the loop has not reached the asked time
├── CannotStart          stop: free the address or configure another
└── AlreadyRunning       stop: another process owns this replica's spool
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class ServingError(Exception):
    """Base of every error of serving."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong with a request. `rule` is short and stable: "required", "type", "finite", "unknown_field", …"""

    field: str
    rule: str
    description: str


class InvalidRequest(ServingError):
    """The request breaks the use case's schema. `position` is its index in a batch, None for a single call."""

    def __init__(self, violations: Sequence[Violation], position: int | None = None) -> None:
        where = "" if position is None else f"request {position}: "
        super().__init__(where + "; ".join(f"{v.field} ({v.rule}): {v.description}" for v in violations))
        self.violations = tuple(violations)
        self.position = position


class UnknownUseCase(ServingError):
    """This replica serves another use case."""


class PredictionForgotten(ServingError):
    """The prediction is not among the newest that this replica made."""


class ModelNotLoaded(ServingError):
    """The model is none of those that the release keeps loaded here."""


class NotExplainable(ServingError):
    """The model's bundle holds no background to compare a row with."""


class NotReady(ServingError):
    """Features or the newest release are not read yet; an answer now would rest on defaults that need not be."""


class NoModelYet(ServingError):
    """No model has been released yet."""


class Overloaded(ServingError):
    """More calls wait than can be answered in time. `retry_after_s` is a guess in seconds."""

    def __init__(self, reason: str, retry_after_s: float) -> None:
        super().__init__(f"{reason}; retry in {retry_after_s:g} s")
        self.retry_after_s = retry_after_s


class LogFull(ServingError):
    """The prediction log has reached its bound, so the answer is withheld. `retry_after_s` is a guess in seconds."""

    def __init__(self, reason: str, retry_after_s: float) -> None:
        super().__init__(f"{reason}; retry in {retry_after_s:g} s")
        self.retry_after_s = retry_after_s


class NoUsableScore(ServingError):
    """Every model that may answer failed or returned something that is no answer to the task."""


class DeadlinePassed(ServingError):
    """The caller has given up by now: nothing was predicted or logged."""


class StillBehind(ServingError):
    """The asked clock was not reached in time. `behind` says by whom."""

    def __init__(self, behind: Sequence[str]) -> None:
        super().__init__("still behind: " + "; ".join(behind))
        self.behind = tuple(behind)


class CannotStart(ServingError):
    """The door's address is taken."""


class AlreadyRunning(ServingError):
    """Another process holds this replica's spool: give it another DRIFTLOOP_REPLICA or state folder."""
