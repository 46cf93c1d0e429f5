"""The Kafka door: what any producer writes to `inbox` is taken in by the rules of the other doors, exactly, also after kill -9."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer, Producer, TopicPartition

from driftloop.cli.dead_letters import dead_letters
from driftloop.contracts import Record, rfc3339
from tests.integration.ingest_process import NOON_US, SPREAD, STEP_US, Ingest, event

pytestmark = pytest.mark.timeout(120)
Posted = tuple[bytes | None, list[tuple[str, bytes]]]
NO_HEADERS: list[tuple[str, bytes]] = []


def post(ingest: Ingest, records: Sequence[Posted]) -> None:
    """Writes values with their headers to the inbox, as a plain client does."""
    producer = Producer({"bootstrap.servers": ingest.bootstrap_servers, "partitioner": "murmur2_random"})
    for number, (value, headers) in enumerate(records):
        producer.produce(f"{ingest.name}.inbox", value, f"order-{number % 50}".encode(), headers=headers)
    assert producer.flush(30) == 0


def as_json(number: int, **data: Any) -> dict[str, Any]:
    known_at_us = NOON_US + 1 + number
    attributes = {"specversion": "1.0", "id": f"a{number}", "source": "kafka", "type": "announced"}
    times = {"time": rfc3339(known_at_us), "knownat": known_at_us}
    return (
        attributes
        | times
        | {"subject": f"order-{number % 50}", "data": {"shop": "n", "price": 5, "due": known_at_us} | data}
    )


def accepted(count: int) -> Callable[[list[Record]], bool]:
    return lambda found: len({r.message.id for r in found if not r.message.is_watermark}) >= count


def committed(ingest: Ingest) -> int:
    """Records of the inbox that the group has done with."""
    consumer = Consumer({"bootstrap.servers": ingest.bootstrap_servers, "group.id": f"{ingest.name}.ingest"})
    try:
        places = [TopicPartition(f"{ingest.name}.inbox", partition) for partition in range(SPREAD)]
        return sum(max(0, place.offset) for place in consumer.committed(places, timeout=15))
    finally:
        consumer.close()


def test_every_way_of_writing_an_event_is_read_and_what_is_wrong_is_a_dead_letter_with_its_place(
    start_ingest: Callable[..., Ingest],
) -> None:
    ingest = start_ingest()
    with ingest.client() as client:
        client.advance(NOON_US)
        wire = client.wire(event(1)).SerializeToString()
    binary = as_json(2)
    data = json.dumps(binary.pop("data")).encode()
    headers = [(f"ce_{name}", str(value).encode()) for name, value in binary.items()]
    binary_headers = [*headers, ("content-type", b"application/json")]
    good: list[Posted] = [
        (wire, NO_HEADERS),
        (data, binary_headers),
        (json.dumps(as_json(3)).encode(), NO_HEADERS),
        (json.dumps(as_json(4)).encode(), [("content-type", b"application/cloudevents+json; charset=UTF-8")]),
        (wire, NO_HEADERS),
    ]
    bad: list[Posted] = [
        (None, NO_HEADERS),
        (b"\xff\xff", NO_HEADERS),
        (json.dumps(as_json(5, price=501)).encode(), NO_HEADERS),
        (json.dumps(as_json(6, price=[])).encode(), NO_HEADERS),
        (b"{", [("content-type", b"application/cloudevents+json")]),
        (json.dumps(as_json(4, price=9)).encode(), NO_HEADERS),
        (data, [*binary_headers, ("ce_time", b"9" * 5_000)]),
    ]
    post(ingest, good)
    assert {r.message.id for r in ingest.written("events", accepted(4)) if not r.message.is_watermark} == {
        "a1",
        "a2",
        "a3",
        "a4",
    }
    post(ingest, bad)
    letters = [r.message.payload for r in ingest.written("dead-letters", lambda found: len(found) >= len(bad))]
    rules = ["empty", "malformed", "range", "type", "malformed", "id_taken", "type"]
    assert sorted(letter.rule for letter in letters) == sorted(rules)
    assert {letter.topic for letter in letters} == {"inbox"}
    assert len({(letter.partition, letter.offset) for letter in letters}) == len(bad)
    assert len(ingest.events()) == 4


def test_kill_9_at_any_moment_loses_nothing_and_writes_nothing_twice(
    start_ingest: Callable[..., Ingest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGEST_INBOX_RECORDS_MAX", "100")  # so that a kill finds it at work
    ingest = start_ingest()
    with ingest.client() as client:
        client.advance(NOON_US)
    total, seen = 12_000, 0
    good = [(json.dumps(as_json(number)).encode(), NO_HEADERS) for number in range(total)]
    bad = [(json.dumps(as_json(number, price=501)).encode(), NO_HEADERS) for number in range(total, total + 20)]
    post(ingest, good[: total // 2] + bad + good[total // 2 :])
    for _ in range(4):
        seen = len(ingest.written("events", accepted(min(total, seen + 1))))
        ingest.end(signal.SIGKILL)
        ingest.start()
    ids = [r.message.id for r in ingest.written("events", accepted(total)) if not r.message.is_watermark]
    assert sorted(ids) == sorted(f"a{number}" for number in range(total))
    letters = ingest.written("dead-letters", lambda found: len({r.message.id for r in found}) >= len(bad))
    assert len({r.message.id for r in letters}) == len(bad)
    assert ingest.end(signal.SIGTERM) == 0
    # A synchronous commit follows every batch, so that the last of them may be missing after SIGTERM, and no more.
    assert total + len(bad) - 100 <= committed(ingest) <= total + len(bad)


def test_a_letter_from_the_inbox_is_sent_again_with_its_id_and_time(
    start_ingest: Callable[..., Ingest], monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest = start_ingest()
    with ingest.client() as client:
        client.advance(NOON_US + STEP_US)
    post(ingest, [(json.dumps(as_json(1)).encode(), NO_HEADERS)])
    (letter,) = ingest.written("dead-letters")
    assert letter.message.payload.rule == "known_at"
    options = ["--use-case", ingest.name, "--bootstrap-servers", ingest.bootstrap_servers]
    send_again = ["redrive", *options, "--ingest", ingest.address, "--all"]
    unread = CliRunner().invoke(dead_letters, send_again)
    assert (unread.exit_code, f"no use case {ingest.name!r}" in unread.output) == (2, True), unread.output
    monkeypatch.setenv("DRIFTLOOP_USECASES", str(ingest.declaration.parents[1]))
    again = CliRunner().invoke(dead_letters, send_again)
    assert again.output.splitlines()[-1] == "1 accepted"
    (record,) = ingest.events()
    assert (record.message.id, record.message.time_us) == ("a1", NOON_US + 2)
