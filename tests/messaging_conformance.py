"""What every bus must do, on Kafka and in memory alike; the tests of each backend subclass it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import pytest

from driftloop.contracts import Message, Record, encode, topics, watermark
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.messaging import DeliveryFailed, Malformed, Producer, Reader, partition_of

SPREAD = 3
ANSWER_S = 10.0


class Backend(Protocol):
    """One bus under test, with topics of its own."""

    def producer(self) -> Producer: ...
    def reader(self, names: list[str], group: str | None = None, from_start: bool = True) -> Reader: ...
    def write_raw(self, topic: str, partition: int, key: bytes | None, value: bytes | None) -> None: ...
    def delete_before(self, topic: str, partition: int, offset: int) -> None: ...


def event(number: int, entity: str = "", partition: int | None = None, size: int = 0) -> Message[Event]:
    payload = Event(use_case="test", id=f"e{number}", entity=entity or f"entity-{number}", source="x" * size)
    return Message(
        "events", payload.entity, payload, payload.id, "test", number, number, ("cause",), partition=partition
    )


def read(reader: Reader, count: int) -> list[Record | Malformed]:
    """Polls until `count` records have come, or fails."""
    found: list[Record | Malformed] = []
    for _ in range(200):
        found += reader.poll(0.1, 100)
        if len(found) >= count:
            return found
    raise AssertionError(f"only {len(found)} of {count} records came")


def send_all(producer: Producer, messages: list[Message[Any]]) -> None:
    for message in messages:
        producer.send(message)
    asyncio.run(producer.drained())


class BusConformance:
    """The suite; a subclass gives the fixture `backend`."""

    def test_what_was_sent_is_read_as_it_was(self, backend: Backend) -> None:
        producer, reader = backend.producer(), backend.reader(["events"])
        send_all(producer, [event(1, partition=2)])
        (record,) = read(reader, 1)
        assert isinstance(record, Record)
        assert (record.topic, record.partition, record.offset) == ("events", 2, 0)
        sent = event(1)
        assert record.message == sent

    def test_a_key_decides_the_partition_as_in_java(self, backend: Backend) -> None:
        producer, reader = backend.producer(), backend.reader(["events"])
        send_all(producer, [event(n) for n in range(100)])
        found = read(reader, 100)
        assert {r.message.key: r.partition for r in found if isinstance(r, Record)} == {
            f"entity-{n}": partition_of(f"entity-{n}".encode(), SPREAD) for n in range(100)
        }

    def test_a_partition_keeps_the_order_of_sending(self, backend: Backend) -> None:
        producer, reader = backend.producer(), backend.reader(["events"])
        send_all(producer, [event(n, partition=n % 2) for n in range(1_000)])
        found = read(reader, 1_000)
        for partition in (0, 1):
            numbers = [r.message.time_us for r in found if isinstance(r, Record) and r.partition == partition]
            assert numbers == list(range(partition, 1_000, 2))
            offsets = [r.offset for r in found if r.partition == partition]
            assert offsets == list(range(500))

    def test_a_watermark_goes_to_the_partition_it_names(self, backend: Backend) -> None:
        producer, reader = backend.producer(), backend.reader(["events"])
        send_all(producer, [watermark("events", partition, "ingest", 9) for partition in range(SPREAD)])
        found = read(reader, SPREAD)
        assert sorted(record.partition for record in found) == [0, 1, 2]
        assert all(isinstance(record, Record) and record.message.is_watermark for record in found)

    def test_an_acknowledgement_comes_for_every_message(self, backend: Backend) -> None:
        producer = backend.producer()
        answers: list[Exception | None] = []
        for number in range(50):
            producer.send(event(number), answers.append)
        asyncio.run(producer.drained())
        assert answers == [None] * 50

    def test_encoded_records_arrive_as_their_messages_would_and_are_acknowledged_once(self, backend: Backend) -> None:
        producer, reader = backend.producer(), backend.reader(["events"])
        answers: list[Exception | None] = []
        sent = [event(n) for n in range(100)]
        assert producer.send_encoded("events", [encode(message) for message in sent], answers.append) == 100
        asyncio.run(producer.drained())
        assert answers == [None]
        found = [record for record in read(reader, 100) if isinstance(record, Record)]
        assert sorted((r.message for r in found), key=lambda m: m.time_us) == sent
        assert all(r.partition == partition_of(r.message.key.encode(), SPREAD) for r in found)

    def test_encoded_records_that_cannot_be_delivered_fail_their_group(self, backend: Backend) -> None:
        producer = backend.producer()
        answers: list[Exception | None] = []
        too_large = encode(event(2, size=2 << 20))
        producer.send_encoded("events", [encode(event(1)), too_large], answers.append)
        asyncio.run(producer.drained())
        assert [type(answer) for answer in answers] == [DeliveryFailed]

    def test_nothing_sent_is_drained_at_once(self, backend: Backend) -> None:
        asyncio.run(backend.producer().drained())

    def test_a_message_for_a_partition_that_is_not_there_fails_the_drain(self, backend: Backend) -> None:
        producer = backend.producer()
        with pytest.raises(DeliveryFailed):
            send_all(producer, [event(1, partition=SPREAD + 7)])

    def test_closing_sends_what_is_queued_and_refuses_more(self, backend: Backend) -> None:
        producer, reader = backend.producer(), backend.reader(["events"])
        for number in range(10):
            producer.send(event(number))
        producer.close(ANSWER_S)
        producer.close(ANSWER_S)
        assert len(read(reader, 10)) == 10
        with pytest.raises(DeliveryFailed):
            producer.send(event(11))

    def test_bytes_that_are_no_message_are_handed_over_as_malformed_and_the_rest_goes_on(
        self, backend: Backend
    ) -> None:
        producer, reader = backend.producer(), backend.reader(["events"])
        backend.write_raw("events", 0, b"key", b"\xff")
        backend.write_raw("events", 0, None, b"value")
        send_all(producer, [event(3, partition=0)])
        first, second, third = read(reader, 3)
        assert isinstance(first, Malformed)
        assert (first.topic, first.partition, first.offset, first.rule) == ("events", 0, 0, "header")
        assert (first.key, first.value) == (b"key", b"\xff")
        assert isinstance(second, Malformed)
        assert second.rule == "empty"
        assert isinstance(third, Record)
        assert third.offset == 2

    def test_a_reader_from_the_end_sees_only_what_comes_later(self, backend: Backend) -> None:
        producer = backend.producer()
        send_all(producer, [event(1, partition=0)])
        reader = backend.reader(["events"], from_start=False)
        send_all(producer, [event(2, partition=0)])
        (record,) = read(reader, 1)
        assert record.offset == 1

    def test_poll_returns_nothing_where_nothing_is(self, backend: Backend) -> None:
        assert backend.reader(["events"]).poll(0.01, 10) == []

    def test_poll_returns_no_more_than_asked_for(self, backend: Backend) -> None:
        producer, reader = backend.producer(), backend.reader(["events"])
        send_all(producer, [event(n, partition=0) for n in range(25)])
        taken: list[Record | Malformed] = []
        while len(taken) < 25:
            part = reader.poll(1.0, 10)
            assert 0 < len(part) <= 10
            taken += part
        assert [record.offset for record in taken] == list(range(25))

    def test_offset_ranges_name_every_partition_and_what_of_it_is_still_there(self, backend: Backend) -> None:
        producer, reader = backend.producer(), backend.reader(["events", "scores"])
        send_all(producer, [event(n, partition=p) for n, p in ((1, 1), (2, 1), (3, 2), (4, 2))])
        backend.delete_before("events", 1, 2)
        backend.delete_before("events", 2, 1)
        there = {("events", 0): (0, 0), ("events", 1): (2, 2), ("events", 2): (1, 2), ("scores", 0): (0, 0)}
        assert reader.offset_ranges() == there
        assert topics()["scores"].partitions == 1

    def test_what_retention_has_deleted_is_passed_over(self, backend: Backend) -> None:
        producer = backend.producer()
        send_all(producer, [event(n, partition=p) for n, p in ((1, 1), (2, 1), (3, 2), (4, 2))])
        backend.delete_before("events", 1, 2)
        backend.delete_before("events", 2, 1)
        reader = backend.reader(["events"])
        assert [(record.partition, record.offset) for record in read(reader, 1)] == [(2, 1)]
        assert reader.poll(0.2, 10) == []

    def test_seeking_reads_from_there_and_leaves_the_other_partitions(self, backend: Backend) -> None:
        producer, reader = backend.producer(), backend.reader(["events"])
        send_all(producer, [event(n, partition=n % 2) for n in range(10)])
        read(reader, 10)
        reader.seek({("events", 1): 3})
        found = read(reader, 2)
        assert [(record.partition, record.offset) for record in found] == [(1, 3), (1, 4)]
        assert reader.poll(0.2, 10) == []

    def test_a_group_goes_on_where_it_committed(self, backend: Backend, restarted: Callable[[Reader], None]) -> None:
        producer = backend.producer()
        send_all(producer, [event(n, partition=0) for n in range(10)])
        first = backend.reader(["events"], group="g")
        read(first, 10)
        first.commit({("events", 0): 4})
        restarted(first)
        again = backend.reader(["events"], group="g")
        assert [record.offset for record in read(again, 6)] == [4, 5, 6, 7, 8, 9]
        again.close()
