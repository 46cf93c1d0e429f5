"""What can come of a call, named by what the caller does next.

ClientError
├── InvalidCall        correct the call; `violations` name the fields
│   └── EventRejected  correct the event; it is in dead letters
│       └── IdTaken    give the event an id of its own: its id came before with other content
├── NoModel            wait: no model has been released yet
├── ClockIsLive        do not move it: the use case's clock moves by itself
├── ClockBehind        the clock asked for was not reached in time, or is one that it has passed
├── Unreachable        the service did not answer within the deadline, retries included: try later
└── CallFailed         look at the server's log
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status

from driftloop.client._violations import Violation


class ClientError(Exception):
    """Base of every error of the clients; `code` is gRPC's."""

    def __init__(self, message: str, code: grpc.StatusCode, violations: tuple[Violation, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.violations = violations


class InvalidCall(ClientError):
    """The server will never accept this call as it is."""


class EventRejected(InvalidCall):
    """The event breaks its use case's schema or times, and is kept in dead letters."""


class IdTaken(EventRejected):
    """An event of the same id came before with other content."""


class NoModel(ClientError):
    """No model has been released yet."""


class ClockIsLive(ClientError):
    """Only the clock of a use case in replay mode is moved by callers."""


class ClockBehind(ClientError):
    """The loop has not reached the clock in the time given, or the clock asked for lies before it."""


class Unreachable(ClientError):
    """No answer within the deadline, or the service had no capacity, however often it was asked."""


class CallFailed(ClientError):
    """The server failed in a way that the client can do nothing about."""


_BY_CODE: dict[grpc.StatusCode, type[ClientError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidCall,
    grpc.StatusCode.NOT_FOUND: InvalidCall,
    grpc.StatusCode.ALREADY_EXISTS: IdTaken,
    grpc.StatusCode.FAILED_PRECONDITION: NoModel,
    grpc.StatusCode.OUT_OF_RANGE: ClockBehind,
    grpc.StatusCode.UNAVAILABLE: Unreachable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Unreachable,
    grpc.StatusCode.DEADLINE_EXCEEDED: Unreachable,
    grpc.StatusCode.CANCELLED: Unreachable,  # by the server: more calls came than it can even refuse
}


def _violations(error: grpc.RpcError) -> tuple[Violation, ...]:
    trailers: Iterable[tuple[str, str | bytes]] = error.trailing_metadata() or ()  # type: ignore[assignment]
    packed = next((value for name, value in trailers if name == "grpc-status-details-bin"), b"")
    try:
        for detail in Status.FromString(packed).details:
            bad = BadRequest()
            if detail.Unpack(bad):
                return tuple(Violation(v.field, v.reason.lower(), v.description) for v in bad.field_violations)
    except DecodeError:
        return ()
    return ()


def translated(
    error: grpc.RpcError, meanings: Mapping[grpc.StatusCode, type[ClientError]] | None = None
) -> ClientError:
    """The client's error for gRPC's; `meanings` are the codes that mean something else in this call than in others."""
    code = error.code()
    kind = (meanings or {}).get(code) or _BY_CODE.get(code, CallFailed)
    return kind(f"{code.name}: {error.details()}", code, _violations(error))
