"""Ingest through its HTTP door: CloudEvents in, problems and outcomes out, and what is on the bus by then."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import aiohttp
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from driftloop.contracts import rfc3339
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.ingest.v1 import ingest_pb2 as pb
from tests.unit.ingest_twin import NOON_US, STEP_US, Door, door, orders, wire_event

pytestmark = pytest.mark.timeout(30)
STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"


def cloud_event(event_id: str = "a1", known_at_us: int = NOON_US + 1, **data: Any) -> dict[str, Any]:
    """`wire_event` as a CloudEvent; `data` replaces or (None) removes fields."""
    event = wire_event(event_id, known_at_us)
    due = rfc3339(event.fields["due"].time_us)
    plain = {"shop": "north", "price": 12.5, "items": 3, "gift": False, "due": due} | data
    return {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.entity,
        "time": rfc3339(event.event_time_us),
        "knownat": rfc3339(event.known_at_us),
        "data": {name: value for name, value in plain.items() if value is not None},
    }


async def post(open_door: Door, content: Any, media: str = STRUCTURED, **headers: str) -> tuple[int, Any, Any]:
    """Status, JSON and headers of an answer; `content` is JSON, or a body as it is."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    sent = {"content-type": media} | {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession() as session,
        session.post(open_door.url + "/v1/events", data=body, headers=sent) as answer,
    ):
        return answer.status, await answer.json(content_type=None), answer.headers


async def test_a_structured_event_is_the_event_that_grpc_would_have_brought() -> None:
    async with door() as open_door:
        status, answer, _ = await post(open_door, cloud_event())
        assert (status, answer) == (200, {"id": "a1", "outcome": "accepted"})
        (message,) = open_door.events()
        assert message.payload == wire_event()
        again = await open_door.stub.Ingest(pb.IngestRequest(event=wire_event()), timeout=10)
        assert again.outcome == pb.OUTCOME_DUPLICATE
        status, answer, _ = await post(open_door, cloud_event())
        assert (status, answer) == (200, {"id": "a1", "outcome": "duplicate"})


async def test_a_binary_event_carries_its_attributes_in_headers() -> None:
    async with door() as open_door:
        event = cloud_event()
        data = event.pop("data")
        headers = {f"ce-{name}": value for name, value in event.items()} | {
            "ce-source": "te%73t",
            "ce-knownat": f"{NOON_US + 1}",
        }
        status, answer, _ = await post(open_door, data, "application/json; charset=utf-8", **headers)
        assert (status, answer["outcome"]) == (200, "accepted")
        (message,) = open_door.events()
        assert message.payload == wire_event()


async def test_a_batch_is_answered_event_by_event_in_order() -> None:
    async with door() as open_door:
        await post(open_door, cloud_event("a0"))
        sent = [cloud_event("a0"), cloud_event("a1"), cloud_event("a2", price=501), cloud_event("a0", price=13)]
        status, answer, _ = await post(open_door, sent, BATCH)
        assert status == 207
        assert [(each["id"], each["outcome"]) for each in answer] == [
            ("a0", "duplicate"),
            ("a1", "accepted"),
            ("a2", "rejected"),
            ("a0", "rejected"),
        ]
        assert [each.get("status") for each in answer] == [None, None, 400, 409]
        assert answer[2]["violations"][0]["field"] == "data.price"
        assert [message.id for message in open_door.events()] == ["a0", "a1"]
        letters = [letter.payload for letter in open_door.written("dead-letters")]
        assert [json.loads(letter.value)["data"]["price"] for letter in letters] == [501, 13]
        assert letters[0].headers["content-type"].decode() == STRUCTURED


async def test_what_no_event_can_say_is_refused_by_name_and_the_rest_of_the_batch_goes_on() -> None:
    async with door() as open_door:
        bad: list[tuple[Any, str, str]] = [
            (cloud_event("b0", price=[1]), "data.price", "type"),
            (cloud_event("b1", due="tomorrow"), "data.due", "type"),
            (cloud_event("b2", items=1 << 70), "data.items", "type"),
            (cloud_event("b3") | {"time": "2013-03-01T12:00:00"}, "time", "type"),
            (cloud_event("b4") | {"id": 4}, "id", "type"),
            (cloud_event("b5") | {"data": "x"}, "data", "type"),
            (cloud_event("b6") | {"specversion": "0.3"}, "specversion", "one_of"),
            (cloud_event("b7") | {"datacontenttype": "text/xml"}, "datacontenttype", "one_of"),
            (cloud_event("b8") | {"data_base64": "AAAA"}, "data_base64", "unknown_field"),
            (cloud_event("b9") | {"usecase": "parcels"}, "usecase", "unknown_use_case"),
            ({k: v for k, v in cloud_event("b10").items() if k != "subject"}, "subject", "required"),
            ({k: v for k, v in cloud_event("b11").items() if k != "time"}, "time", "required"),
            ([1], "", "malformed"),
            (cloud_event("b13", colour="red"), "data.colour", "unknown_field"),
            (cloud_event("b14", gift="yes"), "data.gift", "type"),
            (cloud_event("b15", shop=None), "data.shop", "required"),
        ]
        status, answer, _ = await post(open_door, [*(each for each, _, _ in bad), cloud_event("good")], BATCH)
        assert status == 207
        found = [(each["violations"][0]["field"], each["violations"][0]["rule"]) for each in answer[:-1]]
        assert found == [(place, rule) for _, place, rule in bad]
        assert answer[-1] == {"id": "good", "outcome": "accepted"}
        assert len(open_door.written("dead-letters")) == len(bad)
        assert [message.id for message in open_door.events()] == ["good"]


async def test_json_says_numbers_and_times_as_people_do() -> None:
    async with door() as open_door:
        sent = cloud_event(price=12, items=3.0, due=NOON_US + 5, note=None)
        sent["time"] = "2013-03-01T13:00:00+01:00"
        assert (await post(open_door, sent))[0] == 200
        (message,) = open_door.events()
        fields = message.payload.fields
        assert (fields["price"].number, fields["items"].integer, fields["due"].time_us) == (12.0, 3, NOON_US + 5)
        assert message.payload.event_time_us == NOON_US


async def test_an_event_sent_alone_is_answered_by_its_own_problem() -> None:
    async with door() as open_door:
        status, answer, headers = await post(open_door, cloud_event(price=501))
        assert (status, headers["content-type"]) == (400, "application/problem+json")
        assert answer["violations"] == [{"field": "data.price", "rule": "range", "description": "is 501.0, above 500"}]
        await post(open_door, cloud_event())
        assert (await post(open_door, cloud_event(price=13)))[0] == 409
        rules = [letter.payload.rule for letter in open_door.written("dead-letters")]
        assert rules == ["range", "id_taken"]


async def test_nothing_is_answered_before_the_broker_acknowledges() -> None:
    async with door() as open_door:
        open_door.producer.hold = True
        call = asyncio.create_task(post(open_door, cloud_event()))
        while open_door.admission.in_flight != 1:
            await asyncio.sleep(0)
        assert not call.done()
        open_door.producer.release()
        assert (await call)[0] == 200


async def test_too_much_at_once_is_429_with_a_delay_and_what_was_accepted_is_kept() -> None:
    async with door(in_flight_max=2, batch_events_max=2, retry_after_s=0.25) as open_door:
        open_door.producer.hold = True
        taken = asyncio.create_task(post(open_door, [cloud_event("a1"), cloud_event("a2")], BATCH))
        while open_door.admission.in_flight != 2:
            await asyncio.sleep(0)
        status, answer, headers = await post(open_door, cloud_event("a3"))
        assert (status, headers["retry-after"], answer["retry_after_s"]) == (429, "1", 0.25)
        open_door.producer.release()
        assert [each["outcome"] for each in (await taken)[1]] == ["accepted", "accepted"]
        assert (await post(open_door, cloud_event("a3")))[1]["outcome"] == "accepted"


async def test_more_calls_than_are_served_at_once_are_429() -> None:
    async with door(calls_max=1) as open_door:
        open_door.producer.hold = True
        taken = asyncio.create_task(post(open_door, cloud_event("a1")))
        while open_door.admission.in_flight != 1:
            await asyncio.sleep(0)
        assert (await post(open_door, cloud_event("a2")))[0] == 429
        open_door.producer.release()
        assert (await taken)[0] == 200


async def test_a_silent_broker_is_503_and_the_event_is_kept_for_it() -> None:
    async with door(acknowledge_timeout_s=0.01) as open_door:
        open_door.producer.hold = True
        status, _, headers = await post(open_door, cloud_event())
        assert (status, headers["retry-after"]) == (503, "1")
        open_door.producer.release()
        assert (await post(open_door, cloud_event()))[1]["outcome"] in ("accepted", "duplicate")
        assert len(open_door.events()) == 1


async def test_every_caller_of_a_silent_broker_is_told_so() -> None:
    async with door(acknowledge_timeout_s=0.02) as open_door:
        open_door.producer.hold = True
        waiting = [asyncio.create_task(post(open_door, cloud_event(f"a{n}"))) for n in range(3)]
        statuses = [(await waiting[0])[0]]
        waiting += [asyncio.create_task(post(open_door, cloud_event("b")))]
        statuses += [(await call)[0] for call in waiting[1:]]
        assert statuses == [503] * 4
        open_door.producer.release()
        assert (await post(open_door, cloud_event("c")))[1]["outcome"] == "accepted"


async def test_bodies_that_are_not_what_they_say_are_refused() -> None:
    async with door(call_bytes_max=1_100_000, batch_events_max=2) as open_door:
        assert (await post(open_door, b"[1", BATCH))[0] == 400
        assert (await post(open_door, {"no": "array"}, BATCH))[0] == 400
        assert (await post(open_door, b"[" * 100_000, BATCH))[0] == 400
        assert (await post(open_door, b"[" * 100_000))[0] == 400
        assert (await post(open_door, b"x" * 1_100_001))[0] == 413
        assert (await post(open_door, gzip.compress(b" " * 20_000_000), content_encoding="gzip"))[0] == 413
        assert (await post(open_door, [cloud_event(f"a{n}") for n in range(3)], BATCH))[0] == 413
        assert (await post(open_door, cloud_event(), "application/json"))[0] == 415
        assert (await post(open_door, cloud_event(), STRUCTURED + "; charset=latin-1"))[0] == 415
        assert open_door.events() == []


async def test_an_event_over_the_size_is_refused_by_its_size() -> None:
    async with door() as open_door:
        status, answer, _ = await post(open_door, cloud_event(note="n" * 1_048_576))
        assert (status, answer["violations"][0]["rule"]) == (400, "size")


async def test_the_clock_of_a_replay_moves_and_says_no() -> None:
    async with door() as open_door, aiohttp.ClientSession(open_door.url) as session:
        for asked, status in (
            ({"known_at": "2013-03-01T12:00:00Z"}, 200),
            ({"known_at": NOON_US + STEP_US}, 200),
            ({"known_at": NOON_US}, 409),
            ({"known_at": NOON_US, "usecase": "parcels"}, 404),
            ({"known_at": "noon"}, 400),
            ({}, 400),
        ):
            async with session.post("/v1/clock", json=asked) as answer:
                assert answer.status == status, asked
        assert open_door.admission.clock_us == NOON_US + STEP_US


async def test_health_says_whether_events_are_taken_and_what_is_not_there_is_a_problem() -> None:
    async with door() as open_door, aiohttp.ClientSession(open_door.url) as session:
        found = []
        for is_ready in (False, True):
            open_door.http.is_ready = is_ready
            for path in ("/healthz", "/readyz"):
                async with session.get(path) as answer:
                    found.append(answer.status)
        assert found == [200, 503, 200, 200]
        async with session.get("/v2/events") as answer:
            assert (answer.status, answer.content_type) == (404, "application/problem+json")
        async with session.get("/v1/events") as answer:
            assert (answer.status, answer.headers["allow"]) == (405, "POST")


async def test_the_openapi_document_describes_the_events_that_are_accepted_and_no_others() -> None:
    async with door() as open_door, aiohttp.ClientSession(open_door.url) as session:
        async with session.get("/openapi.json") as answer:
            document = await answer.json()
        served = {path for path in document["paths"]}
        assert served == {"/v1/events", "/v1/clock", "/openapi.json", "/healthz", "/readyz"}
        schema = document | {"$ref": "#/components/schemas/Event"}
        validate(document)
        check = Draft202012Validator(schema)
        for sent in (cloud_event("a1"), cloud_event("a2", price=501), cloud_event("a3", shop=None)):
            status, _, _ = await post(open_door, sent)
            assert check.is_valid(sent) == (status == 200), sent


async def test_events_of_both_doors_are_one_stream_of_ids() -> None:
    async with door(orders("live")) as open_door:
        event = cloud_event()
        del event["knownat"]
        assert (await post(open_door, event))[1]["outcome"] == "accepted"
        sent = Event()
        sent.CopyFrom(wire_event())
        answer = await open_door.stub.IngestBatch(pb.IngestBatchRequest(events=[sent]), timeout=10)
        assert [each.outcome for each in answer.responses] == [pb.OUTCOME_DUPLICATE]


async def test_a_large_batch_of_refused_events_is_answered_soon() -> None:
    """Each has a dead letter with the event as it was written, for which the batch is not read again."""
    async with door(call_bytes_max=8_388_608) as open_door, asyncio.timeout(15):
        sent = [cloud_event(f"a{n}", price=501, note="x" * 1_000) for n in range(5_000)]
        status, answer, _ = await post(open_door, sent, BATCH)
        assert status == 207
        assert {each["outcome"] for each in answer} == {"rejected"}
        letters = [letter.payload for letter in open_door.written("dead-letters")]
        assert [json.loads(letter.value)["id"] for letter in letters] == [each["id"] for each in answer]


@pytest.mark.parametrize("line", [b"ce-source: \xff\xfe", b"ce-time: " + b"9" * 5_000, b"traceparent: \xff"])
async def test_headers_that_say_nothing_readable_are_a_refusal_and_no_failure(line: bytes) -> None:
    async with door() as open_door:
        port = int(open_door.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        lines = [
            b"POST /v1/events HTTP/1.1",
            b"host: ingest",
            b"ce-specversion: 1.0",
            b"ce-id: a1",
            b"ce-type: announced",
        ]
        lines += [line, b"content-type: application/json", b"content-length: 2", b"connection: close", b"", b"{}"]
        writer.write(b"\r\n".join(lines))
        try:
            answer = await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()
        assert answer.startswith(b"HTTP/1.1 400")
        assert (await post(open_door, cloud_event()))[0] == 200
