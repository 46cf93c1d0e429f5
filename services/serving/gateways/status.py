"""Serving's errors in gRPC's words, google.rpc details included; the only place that knows gRPC's codes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message as Payload
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from driftloop.contracts.serving.v1.serving_pb2 import FieldViolation, Refusal
from services.serving.errors import (
    DeadlinePassed,
    InvalidRequest,
    LogFull,
    ModelNotLoaded,
    NoModelYet,
    NotExplainable,
    NotReady,
    NoUsableScore,
    Overloaded,
    PredictionForgotten,
    ServingError,
    StillBehind,
    UnknownUseCase,
)

DOMAIN = "serving.driftloop"
_CODES: Mapping[type[ServingError], grpc.StatusCode] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    UnknownUseCase: grpc.StatusCode.NOT_FOUND,
    PredictionForgotten: grpc.StatusCode.NOT_FOUND,
    NotReady: grpc.StatusCode.UNAVAILABLE,
    NoModelYet: grpc.StatusCode.FAILED_PRECONDITION,
    ModelNotLoaded: grpc.StatusCode.FAILED_PRECONDITION,
    NotExplainable: grpc.StatusCode.FAILED_PRECONDITION,
    LogFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    NoUsableScore: grpc.StatusCode.INTERNAL,
    DeadlinePassed: grpc.StatusCode.DEADLINE_EXCEEDED,
    StillBehind: grpc.StatusCode.DEADLINE_EXCEEDED,
}
# gRPC carries 8 KiB of trailers: a message of ASCII, of which each character may become three, and details in base64.
_MESSAGE_CHARACTERS_MAX = 1_000
_DETAILS_BYTES_MAX = 3_072


def code_of(error: ServingError) -> grpc.StatusCode:
    """The code by which an error is answered."""
    return _CODES.get(type(error), grpc.StatusCode.INTERNAL)


def retry_after_s(error: ServingError) -> float:
    """After how many seconds it is worth asking again; 0: nobody can say."""
    return error.retry_after_s if isinstance(error, LogFull | Overloaded) else 0.0


def refusal_of(error: ServingError) -> Refusal:
    """The same inside a stream, which goes on."""
    violations = error.violations if isinstance(error, InvalidRequest) else ()
    return Refusal(
        code=code_of(error).value[0],
        message=_message(error),
        violations=[FieldViolation(field=v.field, rule=v.rule, description=v.description) for v in violations],
        retry_after_s=retry_after_s(error),
    )


async def refuse(context: grpc.aio.ServicerContext[Any, Any], error: ServingError) -> NoReturn:
    """Ends a call with the error's code, message and details."""
    await context.abort(*ending_of(error))
    raise AssertionError("abort always raises")


def ending_of(error: ServingError) -> tuple[grpc.StatusCode, str, tuple[tuple[str, str | bytes], ...]]:
    """What `abort` takes to end a call with the error."""
    code, message = code_of(error), _message(error)
    status = Status(code=code.value[0], message=message, details=[_packed(detail) for detail in _details(error)])
    trailers: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", status.SerializeToString())]
    if after_s := retry_after_s(error):
        trailers.append(("grpc-retry-pushback-ms", str(round(after_s * 1000))))
    return code, message, tuple(trailers)


def _message(error: ServingError) -> str:
    return str(error).encode("ascii", "backslashreplace").decode()[:_MESSAGE_CHARACTERS_MAX]


def _details(error: ServingError) -> list[Payload]:
    reason = re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).upper()
    found: list[Payload] = [ErrorInfo(reason=reason, domain=DOMAIN)]
    if isinstance(error, InvalidRequest):
        bad = BadRequest()
        for violation in error.violations:
            described = BadRequest.FieldViolation(
                field=violation.field, description=violation.description, reason=violation.rule.upper()
            )
            if bad.ByteSize() + described.ByteSize() > _DETAILS_BYTES_MAX:
                break
            bad.field_violations.append(described)
        found.append(bad)
    if after_s := retry_after_s(error):
        found.append(RetryInfo(retry_delay=Duration(seconds=int(after_s), nanos=int(after_s % 1 * 1e9))))
    return found


def _packed(detail: Payload) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed
