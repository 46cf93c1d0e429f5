"""One function per call and per message of serving: hands each to what answers, takes in or explains."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, islice

from opentelemetry.trace import SpanKind

from driftloop.contracts import UNSET_US, Message, Record
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.features.v1.features_pb2 import FeatureUpdate
from driftloop.contracts.monitor.v1.monitor_pb2 import Release
from driftloop.contracts.serving.v1.serving_pb2 import (
    ExplainRequest,
    ExplainResponse,
    GetReleaseRequest,
    GetReleaseResponse,
    ListModelsRequest,
    ListModelsResponse,
    PredictBatchRequest,
    PredictRequest,
    WaitForClockRequest,
    WaitForClockResponse,
)
from driftloop.messaging import Malformed, Origin, Producer, Refused, dead_letter
from driftloop.telemetry import SpanHandle, span
from driftloop.usecase import SECOND_US, UseCase
from services.serving.admission import Admission
from services.serving.answering import Answering
from services.serving.asking import Asking, EventAsked
from services.serving.assembly import Inputs, Lookup, joined
from services.serving.clock import LoopClock
from services.serving.errors import (
    InvalidRequest,
    LogFull,
    NoModelYet,
    NoUsableScore,
    StillBehind,
    UnknownUseCase,
    Violation,
)
from services.serving.explaining import Explaining
from services.serving.gateways.log import PredictionLog
from services.serving.gateways.online import OnlineLookup
from services.serving.gateways.watermarks import WatermarkWriter
from services.serving.gathering import Gathering
from services.serving.instruments import ServingInstruments
from services.serving.prediction import Together, batch_response
from services.serving.releases import ReleaseKeeper
from services.serving.requests import Read
from services.serving.settings import ServingSettings
from services.serving.view import FeatureView

_ASKED_IN_TURN = 64  # events: two milliseconds; then calls have their turn
_LINKS_MAX = 16  # feature updates that the span of a batch names
_logger = logging.getLogger(__name__)


class Served:
    """The handlers of every use case that is served here."""

    def __init__(self, handlers: Mapping[str, Handlers]) -> None:
        self._handlers = dict(handlers)

    def announce_call(self) -> None:
        """A call is on its way, of whichever use case."""
        for handlers in self._handlers.values():
            handlers.announce_call()

    def announce_batch(self) -> bool:
        """A batch is on its way, of whichever use case: whether it may wait. False: it is Overloaded.

        Each use case has a queue of its own, so that one that floods does not have another's batches refused; which it is
        stands in what is not read yet. So False where no queue has room; else the batch finds out when it is read.
        """
        return any([handlers.announce_batch() for handlers in self._handlers.values()])

    def by_use_case(self, use_case: str) -> Handlers:
        """Those of a use case; UnknownUseCase if there are none."""
        found = self._handlers.get(use_case)
        if found is None:
            served = ", ".join(repr(name) for name in self._handlers)
            raise UnknownUseCase(f"use case {use_case[:64]!r} is not served here, {served} is")
        return found


@dataclass(slots=True)
class _Call:
    """A call whose requests are read, waiting for those that it is answered with; `answered`: an answer for each request."""

    read: Read
    with_vector: Sequence[bool]
    lookup: Lookup
    traced: SpanHandle
    answered: asyncio.Future[list[bytes]]


class Handlers:
    """What one replica knows, and what it does with calls and messages. Everything runs on the event loop's thread."""

    def __init__(
        self,
        use_case: UseCase,
        settings: ServingSettings,
        view: FeatureView,
        clock: LoopClock,
        releases: ReleaseKeeper,
        log: PredictionLog,
        watermarks: WatermarkWriter,
        online: OnlineLookup,
        producer: Producer,
        instruments: ServingInstruments,
    ) -> None:
        self._use_case = use_case
        self._settings = settings
        self._view = view
        self._clock = clock
        self._releases = releases
        self._watermarks = watermarks
        self._online = online
        self._producer = producer
        self._instruments = instruments
        self._answering = Answering(use_case, settings, view, clock, releases, log, online, instruments)
        self._explaining = Explaining(use_case, settings, releases, self._answering.recent)
        self._asking = Asking(
            use_case, int(settings.asking_age_s_max * SECOND_US), settings.asking_events_remembered_max
        )
        self._moved = releases.moved
        self._loop = asyncio.get_running_loop()
        self._gathering = Gathering(self._answer_calls, settings.gathered_calls_max)
        self._admission = Admission(settings.waiting_requests_max, settings.together_requests_max)
        self._batches: list[_Call] = []

    def ready(self) -> None:
        """What the topics held at the start is read and applied: calls are answered from now on."""
        self._answering.ready = True
        if self._clock.clock_us != UNSET_US:
            self._watermarks.reach(self._clock.clock_us)

    def announce_call(self) -> None:
        """A call is on its way, nothing of it is read."""
        self._gathering.announce()

    def announce_batch(self) -> bool:
        """A batch is on its way, nothing of it is read: whether it may wait. False: it is Overloaded."""
        return self._admission.announce()

    async def predict(self, request: PredictRequest, traceparent: str, left_s: float | None) -> bytes:
        """Answers one request with a serialised PredictResponse; raises a ServingError where there is no answer.

        Calls that come close together are scored and logged together.
        """
        started_s = time.perf_counter()
        with span("serving.Predict", traceparent) as traced:
            read = self._answering.read((request,), left_s, None)
            lookup = await self._answering.lookup(read.columns, left_s)
            call = _Call(read, (request.include_vector,), lookup, traced, self._loop.create_future())
            self._gathering.add(call)
            answered = await call.answered
        self._instruments.took("Predict", time.perf_counter() - started_s)
        return answered[0]

    async def predict_batch(
        self, request: PredictBatchRequest, traceparent: str, left_s: float | None, method: str = "PredictBatch"
    ) -> bytes:
        """Answers every request of a batch with a serialised PredictBatchResponse, or none.

        Batches that wait are scored and logged together, each with the answers that it would have had alone.
        """
        started_s = time.perf_counter()
        most, rows = self._settings.batch_requests_max, len(request.requests)
        if rows > most:
            raise InvalidRequest([Violation("requests", "size", f"{rows} requests in a call, more than {most}")])
        if method != "PredictBatch":  # a stream holds itself up: its next message waits for this one's answer
            answer = await self._answer_batch(
                request, traceparent, left_s, method, lambda call: self._answer_calls([call])
            )
        else:
            async with self._admission.turn(rows) as waited_s:
                left_s = None if left_s is None else left_s - waited_s
                answer = await self._answer_batch(request, traceparent, left_s, method, self._join)
        self._instruments.took(method, time.perf_counter() - started_s)
        return answer

    async def explain(self, request: ExplainRequest) -> ExplainResponse:
        """What each input contributed to an answer."""
        self._answering.check_use_case(request.use_case)
        return await self._explaining.explain(request)

    async def list_models(self, request: ListModelsRequest) -> ListModelsResponse:
        """The models of the newest applied release, loaded here or refused."""
        self._answering.check_use_case(request.use_case)
        return self._releases.listing()

    async def get_release(self, request: GetReleaseRequest) -> GetReleaseResponse:
        """The release that answers here; without one if none was applied."""
        self._answering.check_use_case(request.use_case)
        return GetReleaseResponse(release=self._releases.answering)

    async def wait_for_clock(self, request: WaitForClockRequest, timeout_s: float) -> WaitForClockResponse:
        """Returns once the loop has come to a clock; StillBehind after `timeout_s`."""
        self._answering.check_use_case(request.use_case)
        clock = self._clock
        try:
            async with asyncio.timeout(timeout_s), self._moved:
                await self._moved.wait_for(lambda: not clock.behind(request.clock_us))
        except TimeoutError as error:
            raise StillBehind(clock.behind(request.clock_us) or ["nothing: it came at the last moment"]) from error
        return WaitForClockResponse(
            clock_us=clock.clock_us, revision=clock.applied_revision, has_champion=self._releases.router is not None
        )

    async def records(self, batch: Sequence[Record | Malformed]) -> None:
        """Takes a batch of `features` and `releases` in, each record by its own function."""
        moved = False
        for record in batch:
            if isinstance(record, Malformed):
                self.malformed(record)
            elif record.message.is_watermark:
                moved |= self.watermark(record)
            elif record.topic == "features":
                self.feature_update(record.message)
            else:
                self.release(record.message)
        self._instruments.read(self._clock.clock_us, self._view)
        if moved:
            async with self._moved:
                self._moved.notify_all()

    def feature_update(self, message: Message[FeatureUpdate]) -> None:
        """The newest values of a feature entity."""
        was_complete = self._view.complete
        # What is read again after a start was traced when it was new.
        trace = message.traceparent if message.traceparent.endswith("01") else ""
        if trace and self._answering.ready:
            with span("serving.FeatureUpdate", trace, kind=SpanKind.CONSUMER) as traced:
                trace = traced.traceparent
        self._view.apply(message, trace)
        if was_complete and not self._view.complete:
            _logger.info("the view has reached %d entities: what it drops is looked up in Feast", len(self._view))
            self._online.open_ahead()

    def watermark(self, record: Record) -> bool:
        """How far features, or judging, have come; whether that moved a clock."""
        before_us = self._clock.clock_us
        moved = self._clock.observe(record.partition, record.message)
        if self._answering.ready and self._clock.clock_us != before_us:
            self._watermarks.reach(self._clock.clock_us)
        return moved

    async def events(self, batch: Sequence[Record | Malformed]) -> None:
        """Predicts for those events that ask for it; returns when the answers are in the log.

        Without a model an event is passed over, as a caller would be refused; where the log is full it waits.
        """
        for record in batch:
            if isinstance(record, Malformed):
                self.malformed(record)
        messages = [r.message for r in batch if isinstance(r, Record) and not r.message.is_watermark]
        asked = self._asking.asked(messages, self._clock.clock_us)
        for start in range(0, len(asked), _ASKED_IN_TURN):
            await self._answer_events(asked[start : start + _ASKED_IN_TURN])
            await asyncio.sleep(0)  # calls have their turn
        for outcome, count in self._asking.passed_over.items():
            self._instruments.asking(outcome, count)
        self._asking.passed_over.clear()

    async def _answer_events(self, events: list[EventAsked]) -> None:
        """Answers events together; each alone where one of them has no answer."""
        while True:
            requests = [each.request for each in events]
            try:
                read = self._answering.read(requests, None, None)
                lookup = await self._answering.lookup(read.columns, None)
                inputs = self._answering.assembled(read.columns, len(requests), lookup)
                traces, shown = [each.traceparent for each in events], [False] * len(events)
                known_at_us = max(each.event.known_at_us for each in events)
                self._answering.answer(Together(*read[1:], inputs, traces, shown), known_at_us)
            except LogFull as error:
                await asyncio.sleep(error.retry_after_s)
                continue
            except NoModelYet:
                return self._instruments.asking("no_model", len(events))
            except (InvalidRequest, NoUsableScore) as error:
                if len(events) > 1:
                    for each in events:
                        await self._answer_events([each])
                    return None
                return self._unanswered(events[0].event, error)
            return self._instruments.asking("answered", len(events))

    def _unanswered(self, event: Event, error: InvalidRequest | NoUsableScore) -> None:
        """An event that asks and gets no answer: set aside, so that somebody may see why."""
        rule = "request" if isinstance(error, InvalidRequest) else "no_usable_score"
        _logger.warning("event %s asks for a prediction and gets none: %s", event.id, error)
        self._instruments.asking(rule, 1)
        refused = Refused(
            event.id, Origin(event.SerializeToString()), rule, str(error), event.event_time_us, event.known_at_us
        )
        self._producer.send(dead_letter(refused, "serving", self._use_case.name))

    def release(self, message: Message[Release]) -> None:
        """Who answers from now on; applied behind the calls."""
        self._releases.read(message)

    def malformed(self, record: Malformed) -> None:
        """Bytes that are no message: set aside."""
        _logger.warning("%s/%d at %d is no message: %s", record.topic, record.partition, record.offset, record.reason)
        self._instruments.dead_letter(record.rule)
        self._producer.send(dead_letter(record, "serving", self._use_case.name))

    async def _answer_batch(
        self,
        request: PredictBatchRequest,
        traceparent: str,
        left_s: float | None,
        method: str,
        hand_over: Callable[[_Call], None],
    ) -> bytes:
        """Reads a batch and returns its answers, serialised, once they are given to the call that is handed over."""
        with span(f"serving.{method}", traceparent) as traced:
            requests = list(request.requests)  # protobuf makes a message's Python object anew each time it is looked at
            read = self._answering.read(requests, left_s, 0)
            if not requests:
                return b""
            lookup = await self._answering.lookup(read.columns, left_s)
            shown = [request.include_vector for request in requests]
            call = _Call(read, shown, lookup, traced, self._loop.create_future())
            hand_over(call)
            return batch_response(await call.answered)

    def _join(self, call: _Call) -> None:
        """Has a batch answered with those that were let through with it: they are woken before what is scheduled here."""
        if not self._batches:
            self._loop.call_soon(self._answer_batches)
        self._batches.append(call)

    def _answer_batches(self) -> None:
        batches, self._batches = self._batches, []
        self._answer_calls(batches)

    def _answer_calls(self, gathered: list[_Call]) -> None:
        """Answers calls together, but for those that were given up."""
        calls = [call for call in gathered if not call.answered.done()]
        if not calls:
            return
        try:
            answers = self._answering.answer(self._asked(calls)).serialized
        except NoUsableScore as error:
            if len(calls) == 1:
                calls[0].answered.set_exception(error)
                return
            # Only those fail that no model can answer.
            for call in calls:
                self._answer_calls([call])
        except Exception as error:
            for call in calls:
                call.answered.set_exception(error)
        else:
            given = iter(answers)
            for call in calls:
                call.answered.set_result([*islice(given, len(call.read.entities))])

    def _asked(self, calls: Sequence[_Call]) -> Together:
        """What calls ask, in order; the inputs of those that read alike are put together at once."""
        traces = [[call.traced.traceparent] * len(call.read.entities) for call in calls]
        return Together(
            joined([call.read.entities for call in calls]),
            joined([call.read.request_ids for call in calls]),
            Inputs.joined([self._inputs(list(group)) for _, group in groupby(calls, lambda call: call.lookup)]),
            joined(traces),
            joined([call.with_vector for call in calls]),
        )

    def _inputs(self, alike: Sequence[_Call]) -> Inputs:
        """The inputs of calls with one look-up; each call's trace learns what was read for it."""
        read, rows = [call.read for call in alike], [len(call.read.entities) for call in alike]
        columns = {name: joined([each.columns[name] for each in read]) for name in read[0].columns}
        inputs = self._answering.assembled(columns, sum(rows), alike[0].lookup)
        for call, stop in zip(alike, accumulate(rows), strict=True):
            if call.traced.is_recorded:
                own = inputs.part(stop - len(call.read.entities), stop)
                call.traced.link(own.traceparents[:_LINKS_MAX])
        return inputs
