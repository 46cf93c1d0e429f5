"""The gRPC door: hands calls to the handlers and says their errors in gRPC's codes; decides nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc

from driftloop.contracts.serving.v1.serving_pb2 import (
    DESCRIPTOR,
    GetReleaseRequest,
    GetReleaseResponse,
    PredictBatchRequest,
    PredictRequest,
    WaitForClockRequest,
    WaitForClockResponse,
)
from services.serving.errors import (
    DeadlinePassed,
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
    DeadlinePassed: grpc.StatusCode.DEADLINE_EXCEEDED,
    StillBehind: grpc.StatusCode.DEADLINE_EXCEEDED,
}
# gRPC carries 8 KiB of trailers and may write a character in three: a text of ASCII cut here always fits.
_DETAILS_CHARACTERS_MAX = 2_000
_TRACEPARENT_CHARACTERS = 55
Context = grpc.aio.ServicerContext[Any, Any]
Answer = TypeVar("Answer")


class PredictionDoor:
    """`PredictionService` on grpc.aio. Predictions leave as the bytes that the handlers made of them."""

    def __init__(
        self, handlers: Handlers, instruments: ServingInstruments, answer_margin_s: float, wait_timeout_s: float
    ) -> None:
        self._handlers = handlers
        self._instruments = instruments
        self._margin_s = answer_margin_s
        self._wait_timeout_s = wait_timeout_s

    def add_to(self, server: grpc.aio.Server) -> None:
        """Opens the door on a server that has not started."""
        unary = grpc.unary_unary_rpc_method_handler
        methods = {
            "Predict": unary(self.Predict, PredictRequest.FromString),
            "PredictBatch": unary(self.PredictBatch, PredictBatchRequest.FromString),
            "GetRelease": unary(self.GetRelease, GetReleaseRequest.FromString, GetReleaseResponse.SerializeToString),
            "WaitForClock": unary(
                self.WaitForClock, WaitForClockRequest.FromString, WaitForClockResponse.SerializeToString
            ),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))

    async def Predict(self, request: PredictRequest, context: Context) -> bytes:
        """See serving.proto."""
        try:
            return await self._handlers.predict(request, _traceparent(context), context.time_remaining())
        except ServingError as error:
            await self._refuse(context, error)

    async def PredictBatch(self, request: PredictBatchRequest, context: Context) -> bytes:
        """See serving.proto."""
        try:
            return await self._handlers.predict_batch(request, _traceparent(context), context.time_remaining())
        except ServingError as error:
            await self._refuse(context, error)

    async def GetRelease(self, request: GetReleaseRequest, context: Context) -> GetReleaseResponse:
        """See serving.proto."""
        return await self._answered(context, lambda: self._handlers.get_release(request))

    async def WaitForClock(self, request: WaitForClockRequest, context: Context) -> WaitForClockResponse:
        """See serving.proto."""
        left_s = context.time_remaining()
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


def _traceparent(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "traceparent" and len(value) == _TRACEPARENT_CHARACTERS:
            return value if isinstance(value, str) else value.decode("ascii", "replace")
    return ""
