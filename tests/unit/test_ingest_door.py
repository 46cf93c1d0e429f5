"""Ingest through its gRPC door: what a caller is answered, and what is on the bus by then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status

from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.ingest.v1 import ingest_pb2 as pb
from tests.unit.ingest_twin import NOON_US, STEP_US, Door, door, orders, wire_event

pytestmark = pytest.mark.timeout(30)


def ingest(open_door: Door, event: Event) -> grpc.aio.UnaryUnaryCall:
    return open_door.stub.Ingest(pb.IngestRequest(event=event), timeout=10)


async def failed(call: grpc.aio.UnaryUnaryCall) -> tuple[grpc.aio.AioRpcError, Status]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    trailers = dict(caught.value.trailing_metadata() or ())
    return caught.value, Status.FromString(trailers["grpc-status-details-bin"])


async def settled(open_door: Door, events_in_flight: int) -> None:
    """Lets the server run until so many events are in flight."""
    while open_door.admission.in_flight != events_in_flight:
        await asyncio.sleep(0)


async def test_an_accepted_event_is_in_the_log_before_the_answer() -> None:
    async with door() as open_door:
        answer = await ingest(open_door, wire_event())
        assert (answer.event_id, answer.outcome, answer.code) == ("a1", pb.OUTCOME_ACCEPTED, 0)
        (message,) = open_door.events()
        assert message.payload == wire_event()
        assert (message.id, message.key, message.source) == ("a1", "order-7", "test")


async def test_no_answer_is_given_before_the_broker_acknowledges() -> None:
    async with door() as open_door:
        open_door.producer.hold = True
        call = ingest(open_door, wire_event())
        await settled(open_door, 1)
        assert not call.done()
        open_door.producer.release()
        assert (await call).outcome == pb.OUTCOME_ACCEPTED


async def test_a_rejected_event_fails_the_call_names_the_fields_and_is_in_dead_letters() -> None:
    async with door() as open_door:
        event = wire_event(price=501.0, shop="east")
        error, status = await failed(ingest(open_door, event))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        bad = BadRequest()
        assert status.details[0].Unpack(bad)
        assert {(v.field, v.reason) for v in bad.field_violations} == {
            ("fields.price", "RANGE"),
            ("fields.shop", "ONE_OF"),
        }
        (letter,) = open_door.written("dead-letters")
        assert (letter.payload.refused_by, letter.payload.event_id, letter.payload.topic) == ("ingest", "a1", "")
        assert set(letter.payload.rule.split(",")) == {"range", "one_of"}
        assert "fields.price" in letter.payload.reason
        assert Event.FromString(letter.payload.value) == event
        assert open_door.events() == []


async def test_a_taken_id_is_already_exists_and_in_dead_letters() -> None:
    async with door() as open_door:
        await ingest(open_door, wire_event())
        error, _ = await failed(ingest(open_door, wire_event(price=13.0)))
        assert error.code() is grpc.StatusCode.ALREADY_EXISTS
        assert [letter.payload.rule for letter in open_door.written("dead-letters")] == ["id_taken"]
        assert len(open_door.events()) == 1


async def test_an_event_over_1_mib_is_refused_by_us_with_its_size_and_kept_in_part() -> None:
    async with door() as open_door:
        event = wire_event(note="n" * 1_048_576)
        error, _ = await failed(ingest(open_door, event))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert str(event.ByteSize()) in (error.details() or "")
        (letter,) = open_door.written("dead-letters")
        assert letter.payload.rule == "size"
        assert 0 < len(letter.payload.value) < event.ByteSize()


async def test_a_dead_letter_is_written_for_an_event_that_is_wrong_in_every_way() -> None:
    async with door() as open_door:
        event = Event(id="x,\n" * 100, type="?", entity="~", event_time_us=-(1 << 62), known_at_us=1 << 62)
        error, _ = await failed(ingest(open_door, event))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        (letter,) = open_door.written("dead-letters")
        assert letter.payload.event_id == ""
        assert letter.causes == ()


async def test_a_rejection_is_answered_only_once_its_dead_letter_is_acknowledged() -> None:
    async with door() as open_door:
        open_door.producer.hold = True
        call = ingest(open_door, wire_event(price=-1.0))
        while not open_door.written("dead-letters"):
            await asyncio.sleep(0)
        assert not call.done()
        open_door.producer.release()
        assert (await failed(call))[0].code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_batch_has_an_outcome_for_each_event_in_order() -> None:
    async with door() as open_door:
        events = [
            wire_event("a1"),
            wire_event("a2", price=-1.0),
            wire_event("a1"),
            wire_event("a1", price=9.0),
            wire_event("a3"),
        ]
        answer = await open_door.stub.IngestBatch(pb.IngestBatchRequest(events=events), timeout=10)
        assert [(r.event_id, r.outcome, r.code) for r in answer.responses] == [
            ("a1", pb.OUTCOME_ACCEPTED, 0),
            ("a2", pb.OUTCOME_REJECTED, 3),
            ("a1", pb.OUTCOME_DUPLICATE, 0),
            ("a1", pb.OUTCOME_REJECTED, 6),
            ("a3", pb.OUTCOME_ACCEPTED, 0),
        ]
        assert [v.field for v in answer.responses[1].violations] == ["fields.price"]
        assert [message.id for message in open_door.events()] == ["a1", "a3"]
        assert len(open_door.written("dead-letters")) == 2


async def test_an_answer_to_a_batch_full_of_faults_is_one_that_every_client_takes() -> None:
    async with door() as open_door:
        faulty = wire_event()
        for number in range(20):
            faulty.fields[f"undeclared_{number}_" + "x" * 40].flag = True
        answer = await open_door.stub.IngestBatch(pb.IngestBatchRequest(events=[faulty] * 3_000), timeout=20)
        assert answer.ByteSize() < 4_194_304
        assert len(answer.responses[0].violations) == 16
        assert all(each.violations for each in answer.responses)


async def test_a_batch_beyond_the_room_is_refused_whole_and_told_when_to_come_back() -> None:
    async with door(in_flight_max=3, batch_events_max=3, retry_after_s=1.25) as open_door:
        open_door.producer.hold = True
        ahead = ingest(open_door, wire_event("a0"))
        await settled(open_door, 1)
        events = [wire_event(f"a{number}") for number in range(1, 4)]
        error, status = await failed(open_door.stub.IngestBatch(pb.IngestBatchRequest(events=events), timeout=10))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        retry = RetryInfo()
        assert status.details[0].Unpack(retry)
        assert retry.retry_delay.ToMilliseconds() == 1250
        assert dict(error.trailing_metadata() or ())["grpc-retry-pushback-ms"] == "1250"
        assert [message.id for message in open_door.events()] == ["a0"]
        open_door.producer.release()
        await ahead
        answer = await open_door.stub.IngestBatch(pb.IngestBatchRequest(events=events), timeout=10)
        assert [each.outcome for each in answer.responses] == [pb.OUTCOME_ACCEPTED] * 3


async def test_a_batch_of_too_many_events_is_invalid() -> None:
    async with door(batch_events_max=2) as open_door:
        events = [wire_event(f"a{number}") for number in range(3)]
        error, _ = await failed(open_door.stub.IngestBatch(pb.IngestBatchRequest(events=events), timeout=10))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_full_queue_to_the_broker_is_resource_exhausted_and_a_retry_gets_in() -> None:
    async with door() as open_door:
        open_door.producer.capacity = 0
        error, _ = await failed(ingest(open_door, wire_event()))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        open_door.producer.capacity = 1
        assert (await ingest(open_door, wire_event())).outcome == pb.OUTCOME_ACCEPTED


async def test_a_retry_of_an_event_in_flight_waits_for_its_outcome() -> None:
    async with door() as open_door:
        open_door.producer.hold = True
        first = ingest(open_door, wire_event())
        await settled(open_door, 1)
        first.cancel()  # a caller that gives up takes nothing with it
        retry = ingest(open_door, wire_event())
        other = ingest(open_door, wire_event(price=13.0))
        open_door.producer.release()
        assert (await retry).outcome == pb.OUTCOME_DUPLICATE
        assert (await failed(other))[0].code() is grpc.StatusCode.ALREADY_EXISTS
        assert len(open_door.events()) == 1


async def test_a_lost_message_is_unavailable_and_asks_for_a_restart() -> None:
    async with door() as open_door:
        open_door.producer.lose = "events"
        error, _ = await failed(ingest(open_door, wire_event()))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "the broker is gone" in str(open_door.intake.failed.result())
        assert (await failed(ingest(open_door, wire_event("a2"))))[0].code() is grpc.StatusCode.UNAVAILABLE


async def test_a_lost_dead_letter_is_no_rejection() -> None:
    async with door() as open_door:
        open_door.producer.lose = "dead-letters"
        error, _ = await failed(ingest(open_door, wire_event(price=-1.0)))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert open_door.intake.failed.done()


async def test_a_stream_answers_in_order_and_ends_with_its_requests() -> None:
    async def requests() -> AsyncIterator[pb.IngestRequest]:
        for number in range(300):
            yield pb.IngestRequest(event=wire_event(f"a{number % 290}", price=-1.0 if number == 7 else 5.0))

    async with door(stream_in_flight_max=10) as open_door:
        answers = [answer async for answer in open_door.stub.IngestStream(requests(), timeout=20)]
        assert [answer.event_id for answer in answers] == [f"a{number % 290}" for number in range(300)]
        assert answers[7].outcome == pb.OUTCOME_REJECTED
        assert {answer.outcome for answer in answers[290:]} - {pb.OUTCOME_ACCEPTED} == {pb.OUTCOME_DUPLICATE}
        assert len(open_door.events()) == 290


async def test_a_stream_is_not_read_further_than_its_bound_while_the_broker_is_silent() -> None:
    taken = 0

    async def requests() -> AsyncIterator[pb.IngestRequest]:
        nonlocal taken
        for number in range(200):
            taken += 1
            yield pb.IngestRequest(event=wire_event(f"a{number}", note="n" * 100_000))

    async with door(stream_in_flight_max=5) as open_door:
        open_door.producer.hold = True
        call = open_door.stub.IngestStream(requests(), timeout=20)
        reading = asyncio.create_task(_all(call))
        await settled(open_door, 5 + 2)  # five queued, one being answered, one read
        held = taken
        assert held < 100
        assert not reading.done()
        open_door.producer.release()
        assert len(await reading) == 200


async def _all(call: grpc.aio.StreamStreamCall) -> list[pb.IngestResponse]:
    return [answer async for answer in call]


async def test_a_stream_waits_out_a_full_queue_and_fails_when_a_message_is_lost() -> None:
    async def requests() -> AsyncIterator[pb.IngestRequest]:
        yield pb.IngestRequest(event=wire_event("a1"))
        yield pb.IngestRequest(event=wire_event("a2"))

    async with door() as open_door:
        open_door.producer.capacity = 0
        reading = asyncio.create_task(_all(open_door.stub.IngestStream(requests(), timeout=10)))
        await asyncio.wait([reading], timeout=0.05)
        assert not reading.done()
        open_door.producer.capacity = 10
        assert [answer.outcome for answer in await reading] == [pb.OUTCOME_ACCEPTED] * 2
        open_door.producer.lose = "events"
        other = open_door.stub.IngestStream(_requests([pb.IngestRequest(event=wire_event("a3"))]), timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _all(other)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def _requests(requests: list[pb.IngestRequest]) -> AsyncIterator[pb.IngestRequest]:
    for request in requests:
        yield request


def advance(open_door: Door, known_at_us: int, use_case: str = "orders") -> grpc.aio.UnaryUnaryCall:
    return open_door.stub.Advance(pb.AdvanceRequest(use_case=use_case, known_at_us=known_at_us), timeout=10)


async def test_advance_answers_once_every_partition_holds_the_watermark_behind_the_events() -> None:
    async with door() as open_door:
        events = [wire_event(f"a{number}") for number in range(20)]
        for number, event in enumerate(events):
            event.entity = f"order-{number}"
        await open_door.stub.IngestBatch(pb.IngestBatchRequest(events=events), timeout=10)
        assert (await advance(open_door, NOON_US + STEP_US)).clock_us == NOON_US + STEP_US
        for partition in range(2):
            records = open_door.bus.records("events", partition)
            assert len(records) > 1
            assert [record.key for record in records if record.key.startswith(b"~")] == [b"~watermark/ingest"]
            assert records[-1].key == b"~watermark/ingest"


async def test_advance_says_what_a_caller_does_wrong() -> None:
    async with door() as open_door:
        await advance(open_door, NOON_US)
        await advance(open_door, NOON_US)
        codes = [
            (await failed(advance(open_door, NOON_US - 1)))[0].code(),
            (await failed(advance(open_door, NOON_US, "parcels")))[0].code(),
        ]
        assert codes == [grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.NOT_FOUND]
    async with door(orders("live")) as open_door:
        assert (await failed(advance(open_door, NOON_US)))[0].code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_live_clock_ticks_by_itself() -> None:
    async with door(orders("live")) as open_door:
        event = wire_event()
        event.known_at_us = 0
        await ingest(open_door, event)
        await open_door.intake.tick()
        (message,) = open_door.events()
        assert message.known_at_us == message.payload.known_at_us == NOON_US
        marks = [m for m in open_door.written("events") if m.is_watermark]
        assert [mark.payload.known_at_us for mark in marks] == [NOON_US, NOON_US]


async def test_a_callers_trace_travels_with_the_event() -> None:
    traceparent = f"00-{'a' * 32}-{'b' * 16}-00"
    async with door() as open_door:
        request = pb.IngestRequest(event=wire_event())
        await open_door.stub.Ingest(request, timeout=10, metadata=(("traceparent", traceparent),))
        assert [message.traceparent for message in open_door.events()] == [traceparent]
