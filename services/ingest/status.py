"""Ingest's errors as gRPC answers with google.rpc details; the only place that knows gRPC's codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message as Payload
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status

from services.ingest.errors import (
    BatchTooLarge,
    ClockGoesBack,
    ClockIsLive,
    EventRejected,
    IdTaken,
    IngestError,
    NotAcknowledged,
    NotDelivered,
    Overloaded,
    UnknownUseCase,
)

_CODES: Mapping[type[IngestError], grpc.StatusCode] = {
    EventRejected: grpc.StatusCode.INVALID_ARGUMENT,
    IdTaken: grpc.StatusCode.ALREADY_EXISTS,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    BatchTooLarge: grpc.StatusCode.INVALID_ARGUMENT,
    UnknownUseCase: grpc.StatusCode.NOT_FOUND,
    ClockGoesBack: grpc.StatusCode.OUT_OF_RANGE,
    ClockIsLive: grpc.StatusCode.FAILED_PRECONDITION,
    NotAcknowledged: grpc.StatusCode.UNAVAILABLE,
    NotDelivered: grpc.StatusCode.UNAVAILABLE,
}
# gRPC carries 8 KiB of trailers, the message percent-encoded; the details say the same in full.
_MESSAGE_CHARACTERS_MAX = 512


def code_number(error: type[IngestError]) -> int:
    """The google.rpc.Code by which an error is answered."""
    return int(_CODES[error].value[0])


def _details(error: IngestError) -> Payload | None:
    if isinstance(error, EventRejected):
        return BadRequest(
            field_violations=[
                BadRequest.FieldViolation(field=v.field, description=v.description, reason=v.rule.upper())
                for v in error.violations
            ]
        )
    if isinstance(error, Overloaded | NotAcknowledged):
        return RetryInfo(
            retry_delay=Duration(nanos=int(error.retry_after_s % 1 * 1e9), seconds=int(error.retry_after_s))
        )
    return None


async def refuse(context: grpc.aio.ServicerContext[Any, Any], error: IngestError) -> NoReturn:
    """Ends the call with the error's code, message and details."""
    code, message = _CODES[type(error)], str(error)[:_MESSAGE_CHARACTERS_MAX]
    status, trailers = Status(code=code.value[0], message=message), []
    details = _details(error)
    if details is not None:
        packed = AnyMessage()
        packed.Pack(details)
        status.details.append(packed)
    trailers.append(("grpc-status-details-bin", status.SerializeToString()))
    if isinstance(error, Overloaded | NotAcknowledged):
        trailers.append(("grpc-retry-pushback-ms", str(int(error.retry_after_s * 1000))))
    await context.abort(code, message, tuple(trailers))
    raise AssertionError("abort always raises")
