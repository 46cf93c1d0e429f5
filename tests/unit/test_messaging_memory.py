"""The in-memory twin passes what Kafka passes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from driftloop.contracts import MAX_RECORD_BYTES
from driftloop.contracts.codec import Encoded
from driftloop.messaging import DeliveryFailed, MemoryBus, Producer, Reader, ReadFailed
from tests.messaging_conformance import SPREAD, Backend, BusConformance, event


class _Memory:
    def __init__(self, encoded: bool) -> None:
        self._bus = MemoryBus("test", SPREAD, encoded=encoded)

    def producer(self) -> Producer:
        return self._bus.producer()

    def reader(self, names: list[str], group: str | None = None, from_start: bool = True) -> Reader:
        return self._bus.reader(names, group, from_start)

    def write_raw(self, topic: str, partition: int, key: bytes | None, value: bytes | None) -> None:
        self._bus.append_raw(topic, partition, Encoded(key, value, []))  # type: ignore[arg-type]  # what a client may do

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        self._bus.delete_before({(topic, partition): offset})


@pytest.fixture(params=[True, False], ids=["encoded", "as they are"])
def backend(request: pytest.FixtureRequest) -> Backend:
    return _Memory(request.param)


@pytest.fixture
def restarted() -> Callable[[Reader], None]:
    return lambda reader: reader.close()


class TestMemoryBus(BusConformance):
    pass


def test_an_unknown_topic_cannot_be_read() -> None:
    with pytest.raises(ReadFailed, match="no-such"):
        MemoryBus("test", 1).reader(["no-such"])


@pytest.mark.parametrize("encoded", [True, False])
def test_what_was_deleted_is_passed_over_and_offsets_stay(encoded: bool) -> None:
    bus = MemoryBus("test", 1, encoded=encoded)
    for number in range(10):
        bus.append(event(number))
    reader = bus.reader(["events"])
    bus.delete_before({("events", 0): 4})
    assert [record.offset for record in reader.poll(0, 100)] == [4, 5, 6, 7, 8, 9]
    assert bus.append(event(10)) == (0, 10)
    bus.delete_before({("events", 0): 99})
    assert bus.read("events", 0) == []
    assert bus.end(("events", 0)) == 11


@pytest.mark.parametrize("encoded", [True, False])
def test_a_message_that_a_broker_would_refuse_fails_for_whoever_sent_it(encoded: bool) -> None:
    producer = MemoryBus("test", 1, encoded=encoded).producer()
    answers: list[Exception | None] = []
    producer.send(event(1, size=MAX_RECORD_BYTES), answers.append)
    assert isinstance(answers[0], DeliveryFailed)
