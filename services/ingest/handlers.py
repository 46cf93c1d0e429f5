"""One handler for each call of IngestService, and the live clock's tick; what is decided, the intake and its heart decide."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, NoReturn

import grpc
from opentelemetry.trace import SpanKind

from driftloop.contracts.ingest.v1 import ingest_pb2 as pb
from driftloop.telemetry import given_traceparent, span
from services.ingest.admission import Admission, Duplicate, Rejected
from services.ingest.errors import EventRejected, IdTaken, IngestError, Overloaded
from services.ingest.instruments import IngestInstruments
from services.ingest.intake import Begun, Intake, Outcomes, Sent
from services.ingest.settings import IngestSettings
from services.ingest.status import code_number, refuse

Context = grpc.aio.ServicerContext[Any, Any]
# Clients of most languages take no answer of more than 4 MiB: past this an event is told its first violation only.
_VIOLATIONS_BYTES_MAX = 1 << 20


def add_ingest_service(handlers: IngestHandlers, server: grpc.aio.Server) -> None:
    """Adds IngestService to a server: as the generated code does, but events are left as their senders serialised them."""
    request, batch = pb.SerializedRequest.FromString, pb.SerializedBatch.FromString
    one, many = pb.IngestResponse.SerializeToString, pb.IngestBatchResponse.SerializeToString
    methods = {
        "Ingest": grpc.unary_unary_rpc_method_handler(handlers.Ingest, request, one),
        "IngestBatch": grpc.unary_unary_rpc_method_handler(handlers.IngestBatch, batch, many),
        "IngestStream": grpc.stream_stream_rpc_method_handler(handlers.IngestStream, request, one),
        "IngestBatchStream": grpc.stream_stream_rpc_method_handler(handlers.IngestBatchStream, batch, many),
        "Advance": grpc.unary_unary_rpc_method_handler(
            handlers.Advance, pb.AdvanceRequest.FromString, pb.AdvanceResponse.SerializeToString
        ),
    }
    name = pb.DESCRIPTOR.services_by_name["IngestService"].full_name
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))


def _response(event_id: str, other: Duplicate | Rejected | None) -> dict[str, Any]:
    if other is None:
        return {"event_id": event_id, "outcome": pb.OUTCOME_ACCEPTED}
    if isinstance(other, Duplicate):
        return {"event_id": event_id, "outcome": pb.OUTCOME_DUPLICATE}
    code = code_number(IdTaken if other.id_taken else EventRejected)
    return {"event_id": event_id, "outcome": pb.OUTCOME_REJECTED, "code": code, "violations": other.violations}


def _batch_response(outcomes: Outcomes) -> pb.IngestBatchResponse:
    others = outcomes.others
    if not others:  # from plain dictionaries: half the cost of messages
        accepted = pb.OUTCOME_ACCEPTED
        return pb.IngestBatchResponse(responses=[{"event_id": i, "outcome": accepted} for i in outcomes.ids])
    responses, room = [], _VIOLATIONS_BYTES_MAX
    for position, event_id in enumerate(outcomes.ids):
        response = _response(event_id, others.get(position))
        if "violations" in response:
            room -= sum(violation.ByteSize() for violation in response["violations"])
            if room < 0:
                response["violations"] = response["violations"][:1]
        responses.append(response)
    return pb.IngestBatchResponse(responses=responses)


def _only_response(outcomes: Outcomes) -> pb.IngestResponse:
    return pb.IngestResponse(**_response(outcomes.ids[0], outcomes.others.get(0)))


class IngestHandlers:
    """The calls of IngestService, given an intake that other doors may share."""

    def __init__(
        self, intake: Intake, admission: Admission, settings: IngestSettings, instruments: IngestInstruments
    ) -> None:
        self._intake = intake
        self._admission = admission
        self._settings = settings
        self._instruments = instruments

    async def Ingest(self, request: pb.SerializedRequest, context: Context) -> pb.IngestResponse:
        """One event; a rejection fails the call."""
        with self._call("Ingest", context) as traceparent:
            try:
                outcomes = await self._intake.submit(Sent([request.event], traceparent, request.redrive_of))
                rejected = outcomes.others.get(0)
                if isinstance(rejected, Rejected):
                    raise (IdTaken if rejected.id_taken else EventRejected)(outcomes.ids[0], rejected.violations)
            except IngestError as error:
                await self._refuse(context, error)
        return _only_response(outcomes)

    async def IngestBatch(self, request: pb.SerializedBatch, context: Context) -> pb.IngestBatchResponse:
        """Many events, an outcome for each, in order. Refused as a whole if there is no room for all of them."""
        with self._call("IngestBatch", context) as traceparent:
            try:
                outcomes = await self._intake.submit(Sent(request.events, traceparent))
            except IngestError as error:
                await self._refuse(context, error)
        return _batch_response(outcomes)

    async def IngestStream(
        self, request_iterator: AsyncIterator[pb.SerializedRequest], context: Context
    ) -> AsyncIterator[pb.IngestResponse]:
        """Events as they come, an outcome for each, in order; reads no further while too many are unanswered."""
        bound = self._settings.stream_in_flight_max
        with self._call("IngestStream", context) as traceparent:
            sent = ([request.event] async for request in request_iterator)
            async for outcomes in self._streamed(sent, bound, traceparent, context):
                yield _only_response(outcomes)

    async def IngestBatchStream(
        self, request_iterator: AsyncIterator[pb.SerializedBatch], context: Context
    ) -> AsyncIterator[pb.IngestBatchResponse]:
        """Batches as they come, their outcomes in order; reads no further while too many are unanswered."""
        bound = self._settings.stream_batches_in_flight_max
        with self._call("IngestBatchStream", context) as traceparent:
            sent = (request.events async for request in request_iterator)
            async for outcomes in self._streamed(sent, bound, traceparent, context):
                yield _batch_response(outcomes)

    async def Advance(self, request: pb.AdvanceRequest, context: Context) -> pb.AdvanceResponse:
        """Moves a replay's clock; answers once every partition holds the watermark, behind all events taken in before."""
        with self._call("Advance", context):
            try:
                await self._intake.advance(request.use_case, request.known_at_us)
            except IngestError as error:
                await self._refuse(context, error)
        return pb.AdvanceResponse(clock_us=self._admission.clock_us)

    async def _streamed(
        self, sent: AsyncIterator[Sequence[bytes]], bound: int, traceparent: str, context: Context
    ) -> AsyncIterator[Outcomes]:
        begun: asyncio.Queue[Begun | Exception | None] = asyncio.Queue(bound)
        reading = asyncio.create_task(self._read(sent, begun, traceparent))
        try:
            while (each := await begun.get()) is not None:
                if isinstance(each, Exception):
                    raise each
                yield await self._intake.finish(each)
        except IngestError as error:
            await self._refuse(context, error)
        finally:
            reading.cancel()

    async def _read(
        self, sent: AsyncIterator[Sequence[bytes]], begun: asyncio.Queue[Begun | Exception | None], traceparent: str
    ) -> None:
        last: Exception | None = None
        try:
            async for events in sent:
                await begun.put(await self._intake.begin_when_room(Sent(events, traceparent)))
        except Exception as error:  # whatever it is belongs to the call, which reads it from the queue
            last = error
        await begun.put(last)

    async def _refuse(self, context: Context, error: IngestError) -> NoReturn:
        if isinstance(error, Overloaded):
            self._instruments.refused.add(1, {"bound": error.bound})
        await refuse(context, error)

    def _call(self, method: str, context: Context) -> _Call:
        given = next((value for name, value in context.invocation_metadata() or () if name == "traceparent"), "")
        return _Call(self._instruments, method, given_traceparent(str(given)))


class _Call:
    """Measures a call, in a span; gives the traceparent of what it writes. A class: a generator costs a lone event 5 µs."""

    __slots__ = ("_instruments", "_method", "_span", "_started_s")

    def __init__(self, instruments: IngestInstruments, method: str, traceparent: str) -> None:
        self._instruments = instruments
        self._method = method
        self._started_s = time.perf_counter()
        self._span = span(f"ingest.{method}", traceparent, kind=SpanKind.SERVER)

    def __enter__(self) -> str:
        return self._span.__enter__().traceparent

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trail: TracebackType | None
    ) -> None:
        self._instruments.call_seconds.record(time.perf_counter() - self._started_s, {"method": self._method})
        self._span.__exit__(kind, error, trail)
