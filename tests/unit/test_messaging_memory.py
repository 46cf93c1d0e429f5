"""The in-memory twin passes what Kafka passes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from driftloop.contracts.codec import Encoded
from driftloop.messaging import MemoryBus, Producer, Reader, ReadFailed
from tests.messaging_conformance import SPREAD, Backend, BusConformance


class _Memory:
    def __init__(self) -> None:
        self._bus = MemoryBus("test", SPREAD)

    def producer(self) -> Producer:
        return self._bus.producer()

    def reader(self, names: list[str], group: str | None = None, from_start: bool = True) -> Reader:
        return self._bus.reader(names, group, from_start)

    def write_raw(self, topic: str, partition: int, key: bytes | None, value: bytes | None) -> None:
        self._bus.append_raw(topic, partition, Encoded(key, value, []))  # type: ignore[arg-type]  # what a client may do


@pytest.fixture
def backend() -> Backend:
    return _Memory()


@pytest.fixture
def restarted() -> Callable[[Reader], None]:
    return lambda reader: reader.close()


class TestMemoryBus(BusConformance):
    pass


def test_an_unknown_topic_cannot_be_read() -> None:
    with pytest.raises(ReadFailed, match="no-such"):
        MemoryBus("test", 1).reader(["no-such"])
