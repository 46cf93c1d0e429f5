"""The gRPC door: hands calls to the handlers of their use case and says their errors in gRPC's words; decides nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Payload

from driftloop.contracts.serving.v1.serving_pb2 import (
    DESCRIPTOR,
    ExplainRequest,
    ExplainResponse,
    GetReleaseRequest,
    GetReleaseResponse,
    ListModelsRequest,
    ListModelsResponse,
    PredictBatchRequest,
    PredictRequest,
    PredictStreamResponse,
    WaitForClockRequest,
    WaitForClockResponse,
)
from services.serving.admission import overloaded
from services.serving.errors import InvalidRequest, ServingError, Violation
from services.serving.gateways.status import code_of, ending_of, refusal_of, refuse
from services.serving.handlers import Served
from services.serving.instruments import CallInstruments
from services.serving.settings import ServingSettings

SERVICE = DESCRIPTOR.services_by_name["PredictionService"].full_name
_TRACEPARENT_CHARACTERS = 55
_OVERLOADED = ending_of(overloaded())
Context = grpc.aio.ServicerContext[Any, Any]
Answer = TypeVar("Answer")


class PredictionDoor:
    """`PredictionService` on grpc.aio. Predictions leave as the bytes that the handlers made of them."""

    def __init__(self, served: Served, settings: ServingSettings, instruments: CallInstruments) -> None:
        self._served = served
        self._settings = settings
        self._instruments = instruments

    def add_to(self, server: grpc.aio.Server) -> None:
        """Opens the door on a server that has not started."""
        unary = grpc.unary_unary_rpc_method_handler
        methods = {
            "Predict": unary(self.Predict, _reader(PredictRequest)),
            "PredictBatch": unary(self.PredictBatch, _reader(PredictBatchRequest)),
            "PredictStream": grpc.stream_stream_rpc_method_handler(self.PredictStream, _reader(PredictBatchRequest)),
            "Explain": unary(self.Explain, _reader(ExplainRequest), ExplainResponse.SerializeToString),
            "ListModels": unary(self.ListModels, _reader(ListModelsRequest), ListModelsResponse.SerializeToString),
            "GetRelease": unary(self.GetRelease, _reader(GetReleaseRequest), GetReleaseResponse.SerializeToString),
            "WaitForClock": unary(
                self.WaitForClock, _reader(WaitForClockRequest), WaitForClockResponse.SerializeToString
            ),
        }
        unread = grpc.stream_unary_rpc_method_handler(self._turn_away)
        server.add_generic_rpc_handlers((_Methods(methods, self._served, unread),))

    async def Predict(self, request: PredictRequest, context: Context) -> bytes:
        """See serving.proto."""
        try:
            handlers = self._served.by_use_case(request.use_case)
            return await handlers.predict(request, _traceparent(context), context.time_remaining())
        except ServingError as error:
            await self._refuse(context, error)

    async def PredictBatch(self, request: PredictBatchRequest, context: Context) -> bytes:
        """See serving.proto."""
        try:
            return await self._batch(request, _traceparent(context), context.time_remaining(), "PredictBatch")
        except ServingError as error:
            await self._refuse(context, error)

    async def PredictStream(self, requests: AsyncIterator[PredictBatchRequest], context: Context) -> None:
        """See serving.proto. A client that does not read holds up its own stream only: the next message waits for its answer."""
        traceparent = _traceparent(context)
        async for request in requests:
            try:
                answer = await self._batch(request, traceparent, context.time_remaining(), "PredictStream")
            except ServingError as error:
                self._instruments.refused(code_of(error).name)
                answer = PredictStreamResponse(refusal=refusal_of(error)).SerializeToString()
            await context.write(answer)

    async def Explain(self, request: ExplainRequest, context: Context) -> ExplainResponse:
        """See serving.proto."""
        return await self._answered(context, lambda: self._served.by_use_case(request.use_case).explain(request))

    async def ListModels(self, request: ListModelsRequest, context: Context) -> ListModelsResponse:
        """See serving.proto."""
        return await self._answered(context, lambda: self._served.by_use_case(request.use_case).list_models(request))

    async def GetRelease(self, request: GetReleaseRequest, context: Context) -> GetReleaseResponse:
        """See serving.proto."""
        return await self._answered(context, lambda: self._served.by_use_case(request.use_case).get_release(request))

    async def WaitForClock(self, request: WaitForClockRequest, context: Context) -> WaitForClockResponse:
        """See serving.proto."""
        settings, left_s = self._settings, context.time_remaining()
        # The caller's own timer would end the call without a word about what is behind.
        timeout_s = (
            settings.wait_timeout_s if left_s is None else max(0.0, left_s - min(settings.answer_margin_s, left_s / 10))
        )
        return await self._answered(
            context, lambda: self._served.by_use_case(request.use_case).wait_for_clock(request, timeout_s)
        )

    async def _turn_away(self, requests: Any, context: Context) -> NoReturn:
        """Refuses a batch of which nothing was read."""
        self._instruments.refused(_OVERLOADED[0].name)
        await context.abort(*_OVERLOADED)

    async def _batch(self, request: PredictBatchRequest, traceparent: str, left_s: float | None, method: str) -> bytes:
        if not request.requests:
            return b""
        handlers = self._served.by_use_case(request.requests[0].use_case)
        return await handlers.predict_batch(request, traceparent, left_s, method)

    async def _answered(self, context: Context, handle: Callable[[], Awaitable[Answer]]) -> Answer:
        try:
            return await handle()
        except ServingError as error:
            await self._refuse(context, error)

    async def _refuse(self, context: Context, error: ServingError) -> NoReturn:
        self._instruments.refused(code_of(error).name)
        await refuse(context, error)


class _Methods(grpc.GenericRpcHandler):
    """Finds what answers a call, and says that it comes. Of batches that cannot wait nothing is read: to receive and parse one costs as much as to refuse it."""

    def __init__(self, methods: Mapping[str, grpc.RpcMethodHandler[Any, Any]], served: Served, unread: Any) -> None:
        self._methods = {f"/{SERVICE}/{name}": method for name, method in methods.items()}
        self._call = f"/{SERVICE}/Predict"
        self._batch = f"/{SERVICE}/PredictBatch"
        self._served = served
        self._unread = unread

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """See grpc.GenericRpcHandler."""
        method = handler_call_details.method
        if method == self._batch and not self._served.announce_batch():
            return self._unread
        if method == self._call:
            self._served.announce_call()
        return self._methods.get(method)


class Unreadable:
    """Bytes that are no message: left to themselves, gRPC would answer UNKNOWN and log a trace for each."""

    @property
    def use_case(self) -> str:
        """What any handler asks first; InvalidRequest."""
        raise InvalidRequest([Violation("", "encoding", "the bytes of the call are no message of this method")])

    requests = use_case


def _reader(kind: type[Payload]) -> Callable[[bytes], Any]:
    parse = kind.FromString

    def read(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            return Unreadable()

    return read


def _traceparent(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "traceparent" and len(value) == _TRACEPARENT_CHARACTERS:
            return value if isinstance(value, str) else value.decode("ascii", "replace")
    return ""
