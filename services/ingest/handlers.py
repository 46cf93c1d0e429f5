"""One handler for each call of IngestService, and the live clock's tick: asks the heart, sends, waits for the broker, answers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import grpc
from opentelemetry.trace import SpanKind

from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.ingest.v1 import ingest_pb2 as pb
from driftloop.contracts.ingest.v1.ingest_pb2_grpc import IngestServiceServicer
from driftloop.messaging import DeliveryFailed, QueueFull, Refused, dead_letter
from driftloop.telemetry import span
from services.ingest.admission import Admission, Admitted, Duplicate, NoRoom, OnItsWay, Rejected
from services.ingest.errors import BatchTooLarge, EventRejected, IdTaken, IngestError, NotDelivered, Overloaded
from services.ingest.gateways import Ack, Outbox
from services.ingest.instruments import IngestInstruments
from services.ingest.settings import IngestSettings
from services.ingest.status import code_number, refuse
from services.ingest.validation import ID_CHARACTERS_MAX, TIME_US_MAX, described, name_violations

_SERVICE = "ingest"
_log = logging.getLogger(__name__)
Context = grpc.aio.ServicerContext[Any, Any]


def _writable(at_us: int) -> int:
    return at_us if 0 <= at_us <= TIME_US_MAX else 0


@dataclass(slots=True)
class _Ticket:
    """An event taken in: what to answer once `ack` is done. `again`: decide anew then, it stood behind one of its id."""

    response: pb.IngestResponse
    ack: Ack | None = None
    again: Event | None = None


class IngestHandlers(IngestServiceServicer):
    """`now_us` is wall time in microseconds; it matters to a live clock only.

    `failed` is done with the reason when a message is lost: whether the log has it is then unknown, and only a restart,
    which reads the log, makes the window true again.
    """

    def __init__(
        self,
        use_case: str,
        admission: Admission,
        outbox: Outbox,
        settings: IngestSettings,
        instruments: IngestInstruments,
        now_us: Callable[[], int],
    ) -> None:
        self._use_case = use_case
        self._admission = admission
        self._outbox = outbox
        self._settings = settings
        self._instruments = instruments
        self._now_us = now_us
        self._acks: dict[str, Ack] = {}
        self.failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    async def Ingest(self, request: pb.IngestRequest, context: Context) -> pb.IngestResponse:
        """One event; a rejection fails the call."""
        with self._call("Ingest", context) as traceparent:
            try:
                response = await self._outcome(self._take(request.event, traceparent), traceparent)
                if response.outcome == pb.OUTCOME_REJECTED:
                    taken = response.code == code_number(IdTaken)
                    raise (IdTaken if taken else EventRejected)(response.event_id, response.violations)
            except IngestError as error:
                await self._refuse(context, error)
        return response

    async def IngestBatch(self, request: pb.IngestBatchRequest, context: Context) -> pb.IngestBatchResponse:
        """Many events, an outcome for each, in order. Refused as a whole if there is no room for all of them."""
        with self._call("IngestBatch", context) as traceparent:
            try:
                self._check_room(len(request.events))
                tickets = [self._take(event, traceparent) for event in request.events]
                responses = [await self._outcome(ticket, traceparent) for ticket in tickets]
            except IngestError as error:
                await self._refuse(context, error)
        return pb.IngestBatchResponse(responses=responses)

    async def IngestStream(
        self, request_iterator: AsyncIterator[pb.IngestRequest], context: Context
    ) -> AsyncIterator[pb.IngestResponse]:
        """Events as they come, an outcome for each, in order; reads no further while too many are unanswered."""
        tickets: asyncio.Queue[_Ticket | Exception | None] = asyncio.Queue(self._settings.stream_in_flight_max)
        with self._call("IngestStream", context) as traceparent:
            reading = asyncio.create_task(self._read_stream(request_iterator, tickets, traceparent))
            try:
                while (ticket := await tickets.get()) is not None:
                    if isinstance(ticket, Exception):
                        raise ticket
                    yield await self._outcome(ticket, traceparent)
            except IngestError as error:
                await self._refuse(context, error)
            finally:
                reading.cancel()

    async def Advance(self, request: pb.AdvanceRequest, context: Context) -> pb.AdvanceResponse:
        """Moves a replay's clock; answers once every partition holds the watermark, behind all events taken in before."""
        with self._call("Advance", context):
            try:
                await self._send_all(self._admission.advance(request.use_case, request.known_at_us))
            except IngestError as error:
                await self._refuse(context, error)
        return pb.AdvanceResponse(clock_us=self._admission.clock_us)

    async def tick(self) -> None:
        """Moves a live clock to now. A full queue skips a tick: the next one says more."""
        try:
            await self._send_all(self._admission.tick(self._now_us()))
        except Overloaded as error:
            _log.warning("tick skipped: %s", error)

    def observe(self) -> None:
        """Records what is measured by its state rather than by events."""
        self._instruments.in_flight.set(self._admission.in_flight)
        self._instruments.window_ids.set(self._admission.window_ids)
        if self._admission.clock_us > 0:
            self._instruments.clock.set(self._admission.clock_us / 1e6, {"stage": "ingest"})

    async def _read_stream(
        self,
        requests: AsyncIterator[pb.IngestRequest],
        tickets: asyncio.Queue[_Ticket | Exception | None],
        traceparent: str,
    ) -> None:
        last: Exception | None = None
        try:
            async for request in requests:
                await tickets.put(await self._take_when_room(request.event, traceparent))
        except Exception as error:  # whatever it is belongs to the call, which reads it from the queue
            last = error
        await tickets.put(last)

    async def _take_when_room(self, event: Event, traceparent: str) -> _Ticket:
        while True:
            try:
                return self._take(event, traceparent)
            except Overloaded as error:
                await asyncio.sleep(error.retry_after_s)

    def _check_room(self, events: int) -> None:
        if events > self._settings.batch_events_max:
            raise BatchTooLarge(f"{events} events in one call, more than {self._settings.batch_events_max}")
        if events > self._admission.room:
            raise Overloaded("in_flight", self._settings.retry_after_s)

    def _take(self, event: Event, traceparent: str) -> _Ticket:
        """Decides and sends, without waiting: events get into the log in the order in which they are taken."""
        if self.failed.done():
            raise NotDelivered("the broker lost a message: this process is about to restart")
        decision = self._admission.decide(event, self._now_us(), traceparent)
        response = pb.IngestResponse(event_id=event.id)
        match decision:
            case Admitted(message):
                try:
                    ack = self._send(message, partial(self._settle, event.id, event.type))
                except IngestError:
                    self._admission.settle(event.id, written=False)
                    raise
                self._acks[event.id] = ack
                response.outcome = pb.OUTCOME_ACCEPTED
                return _Ticket(response, ack)
            case OnItsWay():
                return _Ticket(response, self._acks[event.id], again=event)
            case Duplicate():
                self._instruments.duplicate.add(1, {"event_type": event.type})
                response.outcome = pb.OUTCOME_DUPLICATE
                return _Ticket(response)
            case Rejected(violations, id_taken):
                ack = self._send(self._letter(event, violations), self._fail_if_lost)
                self._instruments.rejected.add(1, {"rule": violations[0].rule})
                self._instruments.dead_letters.add(1, {"rule": violations[0].rule})
                response.outcome = pb.OUTCOME_REJECTED
                response.code = code_number(IdTaken if id_taken else EventRejected)
                response.violations.extend(violations)
                return _Ticket(response, ack)
            case NoRoom():
                raise Overloaded("in_flight", self._settings.retry_after_s)

    async def _outcome(self, ticket: _Ticket, traceparent: str) -> pb.IngestResponse:
        while ticket.ack is not None:
            if not ticket.ack.done():
                await asyncio.wait([ticket.ack])
            lost = ticket.ack.result()
            if lost is not None:
                raise NotDelivered(str(lost))
            if ticket.again is None:
                break
            ticket = await self._take_when_room(ticket.again, traceparent)
        return ticket.response

    def _letter(self, event: Event, violations: Sequence[pb.Violation]) -> Any:
        named = not name_violations("id", event.id, ID_CHARACTERS_MAX, reserved=",")
        refused = Refused(
            event.id if named else "",
            event.SerializeToString(),
            ",".join(dict.fromkeys(violation.rule for violation in violations)),
            described(violations),
            _writable(event.event_time_us),
            _writable(event.known_at_us),
        )
        return dead_letter(refused, _SERVICE, self._use_case)

    def _settle(self, event_id: str, event_type: str, lost: Exception | None) -> None:
        del self._acks[event_id]
        self._admission.settle(event_id, written=lost is None)
        self._fail_if_lost(lost)
        if lost is None:
            self._instruments.accepted.add(1, {"event_type": event_type})

    def _fail_if_lost(self, lost: Exception | None) -> None:
        if lost is not None and not self.failed.done():
            self.failed.set_result(lost)

    def _send(self, message: Any, on_settled: Callable[[Exception | None], None]) -> Ack:
        try:
            return self._outbox.send(message, on_settled)
        except QueueFull as error:
            raise Overloaded("producer_queue", error.retry_after_s) from error
        except DeliveryFailed as error:
            self._fail_if_lost(error)
            raise NotDelivered(str(error)) from error

    async def _send_all(self, messages: Sequence[Any]) -> None:
        acks = [self._send(message, self._fail_if_lost) for message in messages]
        await asyncio.wait(acks)
        for ack in acks:
            if (lost := ack.result()) is not None:
                raise NotDelivered(str(lost))
        self._instruments.watermarks.add(len(acks))

    async def _refuse(self, context: Context, error: IngestError) -> NoReturn:
        if isinstance(error, Overloaded):
            self._instruments.refused.add(1, {"bound": error.bound})
        await refuse(context, error)

    @contextmanager
    def _call(self, method: str, context: Context) -> Iterator[str]:
        started_s = time.perf_counter()
        given = next((value for name, value in context.invocation_metadata() or () if name == "traceparent"), "")
        with span(f"ingest.{method}", str(given), kind=SpanKind.SERVER) as current:
            try:
                yield current.traceparent
            finally:
                self._instruments.call_seconds.record(time.perf_counter() - started_s, {"method": method})
