"""Calls of the clients against servers that fail as real ones do: what is retried, what is not, and within which bounds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status

from driftloop.client import (
    CallFailed,
    ClientError,
    ClientSettings,
    ClockBehind,
    ClockIsLive,
    EventRejected,
    EventsClient,
    IdTaken,
    InvalidCall,
    NewEvent,
    NoModel,
    Prediction,
    PredictionRequest,
    PredictionsClient,
    Unreachable,
    Violation,
)
from driftloop.contracts.ingest.v1 import ingest_pb2
from driftloop.contracts.ingest.v1.ingest_pb2_grpc import IngestServiceServicer, add_IngestServiceServicer_to_server
from driftloop.contracts.serving.v1 import serving_pb2
from driftloop.contracts.serving.v1.serving_pb2_grpc import (
    PredictionServiceServicer,
    add_PredictionServiceServicer_to_server,
)
from driftloop.telemetry import span

pytestmark = pytest.mark.timeout(60)
Code = grpc.StatusCode
QUICK = ClientSettings(deadline_s=10, backoff_initial_s=0.01, backoff_max_s=0.05, reconnect_max_s=0.1)


@dataclass
class Script:
    """What the server answers: these codes first, one a call, then it works. `seen` are the requests that arrived."""

    codes: list[grpc.StatusCode] = field(default_factory=list)
    details: BadRequest | None = None
    break_stream_at: int | None = None
    answer: dict[str, Any] = field(default_factory=lambda: {"score": 0.25})
    seen: list[Any] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    under_way_most: int = 0
    _under_way: int = 0
    _lock: Any = field(default_factory=threading.Lock)

    def play(self, request: Any, context: grpc.ServicerContext) -> None:
        with self._lock:
            self.seen.append(request)
            self.metadata = dict(context.invocation_metadata())
            self._under_way += 1
            self.under_way_most = max(self.under_way_most, self._under_way)
            code = self.codes.pop(0) if self.codes else None
        context.add_callback(self._done)
        if code is None:
            return
        if self.details is not None:
            packed = AnyMessage()
            packed.Pack(self.details)
            status = Status(code=code.value[0], message="as scripted", details=[packed])
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(code, "as scripted")

    def _done(self) -> None:
        with self._lock:
            self._under_way -= 1


class Ingest(IngestServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    def Ingest(self, request: Any, context: Any) -> Any:
        self.script.play(request, context)
        return ingest_pb2.IngestResponse(event_id=request.event.id, outcome=ingest_pb2.OUTCOME_ACCEPTED)

    def IngestBatch(self, request: Any, context: Any) -> Any:
        self.script.play(request, context)
        answers = [
            ingest_pb2.IngestResponse(event_id=event.id, outcome=ingest_pb2.OUTCOME_ACCEPTED)
            for event in request.events
        ]
        return ingest_pb2.IngestBatchResponse(responses=answers)

    def IngestStream(self, request_iterator: Any, context: Any) -> Any:
        for number, request in enumerate(request_iterator):
            if number == self.script.break_stream_at:
                self.script.play(request, context)
            self.script.seen.append(request)
            yield ingest_pb2.IngestResponse(event_id=request.event.id, outcome=ingest_pb2.OUTCOME_ACCEPTED)

    def Advance(self, request: Any, context: Any) -> Any:
        self.script.play(request, context)
        return ingest_pb2.AdvanceResponse(clock_us=request.known_at_us)


class Serving(PredictionServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    def Predict(self, request: Any, context: Any) -> Any:
        self.script.play(request, context)
        freshness = [serving_pb2.Freshness(view="v", found=True, known_at_us=3, event_time_us=2, age_us=1)]
        return serving_pb2.PredictResponse(prediction_id=request.request_id, freshness=freshness, **self.script.answer)

    def PredictBatch(self, request: Any, context: Any) -> Any:
        self.script.play(request, context)
        answers = [serving_pb2.PredictResponse(prediction_id=each.request_id) for each in request.requests]
        return serving_pb2.PredictBatchResponse(responses=answers)

    def WaitForClock(self, request: Any, context: Any) -> Any:
        self.script.play(request, context)
        return serving_pb2.WaitForClockResponse(clock_us=request.clock_us, revision=4, has_champion=True)

    def GetRelease(self, request: Any, context: Any) -> Any:
        self.script.play(request, context)
        return serving_pb2.GetReleaseResponse(release={"use_case": request.use_case, "revision": 4})


def serve(script: Script, address: str = "127.0.0.1:0") -> tuple[grpc.Server, str]:
    server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
    add_IngestServiceServicer_to_server(Ingest(script), server)
    add_PredictionServiceServicer_to_server(Serving(script), server)
    port = server.add_insecure_port(address)
    server.start()
    return server, f"127.0.0.1:{port}"


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def address(script: Script) -> Iterator[str]:
    server, where = serve(script)
    yield where
    server.stop(None).wait(5)


@pytest.fixture
def events(address: str) -> Iterator[EventsClient]:
    with EventsClient(address, "orders", settings=QUICK) as client:
        yield client


@pytest.fixture
def predictions(address: str) -> Iterator[PredictionsClient]:
    with PredictionsClient(address, "orders", settings=QUICK) as client:
        yield client


def event(number: int = 0, **fields: Any) -> NewEvent:
    return NewEvent("announced", f"a{number}", "order-7", 1, fields, 1)


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED])
def test_a_call_that_may_succeed_later_is_made_up_to_four_times_more(
    events: EventsClient, script: Script, code: grpc.StatusCode
) -> None:
    script.codes = [code] * 4
    assert events.send(event()).outcome == "accepted"
    assert len(script.seen) == 5
    script.codes = [code] * 5
    with pytest.raises(Unreachable) as caught:
        events.send(event())
    assert caught.value.code is code
    assert len(script.seen) == 10


@pytest.mark.parametrize("code", [Code.INVALID_ARGUMENT, Code.ALREADY_EXISTS, Code.INTERNAL, Code.OUT_OF_RANGE])
def test_a_call_that_would_fail_again_is_made_once(events: EventsClient, script: Script, code: grpc.StatusCode) -> None:
    script.codes = [code]
    with pytest.raises(ClientError):
        events.send(event())
    assert len(script.seen) == 1


def test_a_retry_carries_the_same_request(predictions: PredictionsClient, script: Script) -> None:
    script.codes = [Code.UNAVAILABLE]
    predictions.predict(PredictionRequest("order-7"))
    first, second = script.seen
    assert first == second
    assert first.request_id


def test_a_batch_larger_than_grpcs_default_buffer_is_retried_too(events: EventsClient, script: Script) -> None:
    script.codes = [Code.UNAVAILABLE]
    outcomes = events.send_batch([event(number, note="n" * 100_000) for number in range(20)])
    assert [outcome.outcome for outcome in outcomes] == ["accepted"] * 20
    assert len(script.seen) == 2


Call = Callable[[EventsClient, PredictionsClient], object]
MEANINGS: list[tuple[Call, grpc.StatusCode, type[ClientError]]] = [
    (lambda e, p: e.send(event()), Code.INVALID_ARGUMENT, EventRejected),
    (lambda e, p: e.send(event()), Code.ALREADY_EXISTS, IdTaken),
    (lambda e, p: e.send(event()), Code.INTERNAL, CallFailed),
    (lambda e, p: e.send_batch([event()]), Code.INVALID_ARGUMENT, InvalidCall),
    (lambda e, p: e.advance(1), Code.OUT_OF_RANGE, ClockBehind),
    (lambda e, p: e.advance(1), Code.FAILED_PRECONDITION, ClockIsLive),
    (lambda e, p: e.advance(1), Code.NOT_FOUND, InvalidCall),
    (lambda e, p: p.predict(PredictionRequest("o")), Code.FAILED_PRECONDITION, NoModel),
    (lambda e, p: p.predict(PredictionRequest("o")), Code.INVALID_ARGUMENT, InvalidCall),
    (lambda e, p: p.predict(PredictionRequest("o")), Code.DEADLINE_EXCEEDED, Unreachable),
    (lambda e, p: p.predict_batch([PredictionRequest("o")]), Code.INVALID_ARGUMENT, InvalidCall),
    (lambda e, p: p.wait_for_clock(1), Code.DEADLINE_EXCEEDED, ClockBehind),
    (lambda e, p: p.release(), Code.NOT_FOUND, InvalidCall),
]


@pytest.mark.parametrize(("call", "code", "error"), MEANINGS)
def test_what_a_code_means_depends_on_the_call(
    events: EventsClient,
    predictions: PredictionsClient,
    script: Script,
    call: Call,
    code: grpc.StatusCode,
    error: type[ClientError],
) -> None:
    script.codes = [code]
    with pytest.raises(ClientError, match="as scripted") as caught:
        call(events, predictions)
    assert type(caught.value) is error


def test_a_rejection_names_its_violations(events: EventsClient, script: Script) -> None:
    script.codes = [Code.INVALID_ARGUMENT]
    violation = BadRequest.FieldViolation(field="fields.price", reason="RANGE", description="is 501, above 500")
    script.details = BadRequest(field_violations=[violation])
    with pytest.raises(EventRejected) as caught:
        events.send(event())
    assert caught.value.violations == (Violation("fields.price", "range", "is 501, above 500"),)


def test_a_batch_goes_in_as_many_calls_as_its_number_and_size_need(address: str, script: Script) -> None:
    settings = ClientSettings(batch_events_max=3, message_bytes_max=4_000)
    with EventsClient(address, "orders", settings=settings) as client:
        outcomes = client.send_batch(event(number, note="n" * (900 if number < 4 else 1)) for number in range(10))
    assert [outcome.event_id for outcome in outcomes] == [f"a{number}" for number in range(10)]
    assert [len(request.events) for request in script.seen] == [2, 3, 3, 2]
    assert all(request.ByteSize() <= 4_000 for request in script.seen)


def test_an_event_that_fits_no_call_is_refused_here(events: EventsClient, script: Script) -> None:
    with pytest.raises(InvalidCall, match="a0"):
        events.send_batch([event(note="n" * 5_000_000)])
    assert script.seen == []


def test_a_stream_that_breaks_goes_on_where_it_was_answered_last(address: str, script: Script) -> None:
    script.break_stream_at, script.codes = 30, [Code.UNAVAILABLE] * 3
    settings = ClientSettings(stream_events_max=70, backoff_initial_s=0.01)
    with EventsClient(address, "orders", settings=settings) as client:
        outcomes = list(client.stream(event(number) for number in range(200)))
    assert [outcome.event_id for outcome in outcomes] == [f"a{number}" for number in range(200)]
    assert script.codes == []


def test_a_stream_that_gets_no_further_gives_up(address: str, script: Script) -> None:
    settings = ClientSettings(retries=2, backoff_initial_s=0.01)
    with EventsClient(address, "orders", settings=settings) as client:
        stuck = client.stream([event(0), event(1)])
        assert next(stuck).event_id == "a0"
        script.break_stream_at, script.codes = 0, [Code.UNAVAILABLE] * 3
        other = client.stream([event(2)])
        with pytest.raises(Unreachable):
            next(other)
        assert script.codes == []


def test_many_calls_are_under_way_at_once_within_the_bound_and_answers_keep_their_order(
    predictions: PredictionsClient, script: Script
) -> None:
    requests = [PredictionRequest("o", request_id=f"r{number}") for number in range(100)]
    script.codes = [Code.FAILED_PRECONDITION]
    answers = list(predictions.predict_many(requests, in_flight_max=8))
    failed = [number for number, answer in enumerate(answers) if isinstance(answer, NoModel)]
    assert len(failed) == 1
    given = [a.prediction_id for a in answers if isinstance(a, Prediction)]
    assert given == [r.request_id for number, r in enumerate(requests) if number not in failed]
    assert 1 < script.under_way_most <= 8


def test_answers_come_as_plain_values(predictions: PredictionsClient) -> None:
    found = predictions.predict(PredictionRequest("o", request_id="r"))
    assert (found.prediction_id, found.score, found.vector) == ("r", 0.25, None)
    assert [(f.view, f.found, f.age_us) for f in found.freshness] == [("v", True, 1)]
    reached = predictions.wait_for_clock(77)
    assert (reached.clock_us, reached.revision, reached.has_champion) == (77, 4, True)
    assert predictions.release().revision == 4
    assert (dict(found.class_probabilities), found.predicted_class) == ({}, None)


def test_an_answer_about_classes_names_them_and_the_likeliest(predictions: PredictionsClient, script: Script) -> None:
    script.answer = {"score": 0.5, "classes": ["a", "b", "c"], "class_probabilities": [0.2, 0.5, 0.3]}
    found = predictions.predict(PredictionRequest("o"))
    assert found.class_probabilities == {"a": 0.2, "b": 0.5, "c": 0.3}
    assert (found.predicted_class, found.score) == ("b", 0.5)


def test_an_answer_that_is_a_number_is_its_value(predictions: PredictionsClient, script: Script) -> None:
    script.answer = {"score": -12.5}
    assert predictions.predict(PredictionRequest("o")).value == -12.5


def test_calls_wait_for_a_server_that_is_not_there_yet_but_not_beyond_the_deadline(script: Script) -> None:
    server, where = serve(script)
    server.stop(None).wait(5)
    with EventsClient(where, "orders", settings=ClientSettings(deadline_s=0.5)) as client:
        started_s = time.monotonic()
        with pytest.raises(Unreachable):
            client.send(event())
        assert 0.4 < time.monotonic() - started_s < 3.0
    with EventsClient(where, "orders", settings=QUICK) as client, ThreadPoolExecutor(1) as threads:
        sent = threads.submit(client.send, event())
        revived, _ = serve(script, where)
        assert sent.result(10).outcome == "accepted"
        revived.stop(None).wait(5)


def test_the_trace_goes_along(events: EventsClient, script: Script) -> None:
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    events.send(event())
    assert "traceparent" not in script.metadata
    with span("replay", traceparent):
        events.send(event())
    assert script.metadata["traceparent"] == traceparent
