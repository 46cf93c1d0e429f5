"""The gRPC door: hands calls to the handlers and says their errors in gRPC's codes; decides nothing."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc

from driftloop.contracts.serving.v1 import serving_pb2_grpc
from driftloop.contracts.serving.v1.serving_pb2 import (
    DESCRIPTOR,
    GetReleaseRequest,
    GetReleaseResponse,
    PredictBatchRequest,
    PredictBatchResponse,
    PredictRequest,
    PredictResponse,
    WaitForClockRequest,
    WaitForClockResponse,
)
from services.serving.errors import (
    InvalidRequest,
    LogFull,
    NoModelYet,
    NotReady,
    NoUsableScore,
    ServingError,
    StillBehind,
    UnknownUseCase,
)
from services.serving.handlers import Handlers
from services.serving.instruments import ServingInstruments

SERVICE = DESCRIPTOR.services_by_name["PredictionService"].full_name
_CODES: dict[type[ServingError], grpc.StatusCode] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    UnknownUseCase: grpc.StatusCode.NOT_FOUND,
    NotReady: grpc.StatusCode.UNAVAILABLE,
    NoModelYet: grpc.StatusCode.FAILED_PRECONDITION,
    LogFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    NoUsableScore: grpc.StatusCode.INTERNAL,
    StillBehind: grpc.StatusCode.DEADLINE_EXCEEDED,
}
# gRPC carries 8 KiB of trailers and may write a character in three: a text of ASCII cut here always fits.
_DETAILS_CHARACTERS_MAX = 2_000
_TRACEPARENT_CHARACTERS = 55
Context = grpc.aio.ServicerContext[Any, Any]
Answer = TypeVar("Answer")


class PredictionDoor(serving_pb2_grpc.PredictionServiceServicer):
    """`PredictionService` on grpc.aio."""

    def __init__(
        self, handlers: Handlers, instruments: ServingInstruments, answer_margin_s: float, wait_timeout_s: float
    ) -> None:
        self._handlers = handlers
        self._instruments = instruments
        self._margin_s = answer_margin_s
        self._wait_timeout_s = wait_timeout_s

    async def Predict(self, request: PredictRequest, context: Context) -> PredictResponse:
        """See serving.proto."""
        started = time.perf_counter()
        traceparent = _traceparent(context)
        responses = await self._answered(
            context, lambda: self._handlers.predict(request, traceparent, _left_s(context))
        )
        self._instruments.answered("Predict", time.perf_counter() - started, (responses,))
        return responses

    async def PredictBatch(self, request: PredictBatchRequest, context: Context) -> PredictBatchResponse:
        """See serving.proto."""
        started = time.perf_counter()
        traceparent = _traceparent(context)
        response = await self._answered(
            context, lambda: self._handlers.predict_batch(request, traceparent, _left_s(context))
        )
        self._instruments.answered("PredictBatch", time.perf_counter() - started, response.responses)
        return response

    async def GetRelease(self, request: GetReleaseRequest, context: Context) -> GetReleaseResponse:
        """See serving.proto."""
        return await self._answered(context, lambda: self._handlers.get_release(request))

    async def WaitForClock(self, request: WaitForClockRequest, context: Context) -> WaitForClockResponse:
        """See serving.proto."""
        left_s = _left_s(context)
        # The caller's own timer would end the call without a word about what is behind.
        timeout_s = self._wait_timeout_s if left_s is None else max(0.0, left_s - min(self._margin_s, left_s / 10))
        return await self._answered(context, lambda: self._handlers.wait_for_clock(request, timeout_s))

    async def _answered(self, context: Context, handle: Callable[[], Awaitable[Answer]]) -> Answer:
        try:
            return await handle()
        except ServingError as error:
            await self._refuse(context, error)

    async def _refuse(self, context: Context, error: ServingError) -> NoReturn:
        code = _CODES.get(type(error), grpc.StatusCode.INTERNAL)
        self._instruments.refused(code.name)
        trailers: tuple[tuple[str, str], ...] = ()
        if isinstance(error, LogFull):
            trailers = (("grpc-retry-pushback-ms", str(round(error.retry_after_s * 1000))),)
        details = str(error).encode("ascii", "backslashreplace").decode()
        await context.abort(code, details[:_DETAILS_CHARACTERS_MAX], trailers)


def _left_s(context: Context) -> float | None:
    return context.time_remaining()


def _traceparent(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "traceparent" and len(value) == _TRACEPARENT_CHARACTERS:
            return value if isinstance(value, str) else value.decode("ascii", "replace")
    return ""
