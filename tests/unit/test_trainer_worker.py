"""Consumption: offsets follow the answers, in order, and nothing is answered twice or forgotten."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from driftloop.contracts import Message, Record
from driftloop.contracts.codec import Encoded
from driftloop.contracts.trainer.v1.trainer_pb2 import Model
from driftloop.messaging import Malformed, MemoryBus
from services.trainer.errors import Stopping, TooManyRequests
from services.trainer.gateways import Outbox, answered_requests
from services.trainer.worker import Consumption, Worker
from tests.trainer_twin import request

WAIT_S = 10.0


class Answering:
    """Answers requests one by one as the test allows, by a message on the bus."""

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus
        self.allowed = threading.Semaphore(0)
        self.begun: list[str] = []
        self.failure: Exception | None = None

    def retrain(self, record: Record) -> Model:
        """See `Handler.retrain`."""
        asked = record.message.payload
        self.begun.append(asked.id)
        assert self.allowed.acquire(timeout=WAIT_S)
        if self.failure is not None:
            raise self.failure
        model = Model(use_case="trips", id=f"m-{asked.id}", request_id=asked.id)
        self.bus.append(Message("models", "trips", model, model.id, "test", 1, 1))
        return model


class Bench:
    """A consumption of a bus, as a process starts it."""

    def __init__(self, bus: MemoryBus, open_requests_max: int = 8) -> None:
        self.bus = bus
        self.answering = Answering(bus)
        self.refused: list[Malformed] = []
        answered = answered_requests(lambda: bus.reader(["models"]), WAIT_S)
        self.worker = Worker(lambda: self.answering, open_requests_max)
        reader = bus.reader(["retrain"], group="trips-trainer")
        self.consumption = Consumption(reader, self.worker, answered, self.refused.append)
        self.worker.start()

    def committed(self) -> int:
        """The offset from which a successor would read."""
        reader = self.bus.reader(["retrain"], group="trips-trainer")
        return next((record.offset for record in reader.poll(0, 1)), len(self.bus.records("retrain", 0)))

    def until(self, reached: Any) -> None:
        """Turns until something is so."""
        for _ in range(1_000):
            if reached():
                return
            self.consumption.turn(0.01)
        raise AssertionError("never so")

    def answers(self) -> list[str]:
        """Ids of the answered requests, in the order of `models`."""
        return [Model.FromString(record.value).request_id for record in self.bus.records("models", 0)]


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus("trips", 1)


def test_offsets_are_committed_only_behind_the_answers(bus: MemoryBus) -> None:
    bus.append(request(1))
    bus.append(request(2))
    bench = Bench(bus)
    bench.until(lambda: bench.answering.begun == ["r1"])
    assert bench.committed() == 0
    bench.answering.allowed.release()
    bench.until(lambda: bench.committed() == 1)
    bench.answering.allowed.release()
    bench.until(lambda: bench.committed() == 2)
    assert bench.answers() == ["r1", "r2"]


def test_answers_that_retention_has_deleted_are_not_waited_for() -> None:
    bus = MemoryBus("trips", 1)
    for number in (1, 2):
        model = Model(use_case="trips", id=f"m{number}", request_id=f"r{number}")
        bus.append(Message("models", "trips", model, model.id, "test", 1, 1))
    bus.delete_before({("models", 0): 1})
    assert answered_requests(lambda: bus.reader(["models"]), WAIT_S) == {"r2"}
    bus.delete_before({("models", 0): 2})
    assert answered_requests(lambda: bus.reader(["models"]), WAIT_S) == set()


def test_a_request_that_is_written_twice_is_answered_once(bus: MemoryBus) -> None:
    bus.append(request(1))
    bus.append(request(1))
    bench = Bench(bus)
    bench.answering.allowed.release(2)
    bench.until(lambda: bench.committed() == 2)
    assert bench.answers() == ["r1"]


def test_a_repeated_request_is_not_committed_before_the_first_is_answered(bus: MemoryBus) -> None:
    bus.append(request(1))
    bus.append(request(1))
    bench = Bench(bus)
    bench.until(lambda: bench.answering.begun == ["r1"])
    for _ in range(5):
        bench.consumption.turn(0.0)
    assert bench.committed() == 0
    bench.answering.allowed.release()
    bench.until(lambda: bench.committed() == 2)


def test_after_a_crash_between_answer_and_commit_the_request_is_not_answered_again(bus: MemoryBus) -> None:
    bus.append(request(1))
    crashed = Bench(bus)
    crashed.until(lambda: crashed.answering.begun == ["r1"])
    crashed.answering.allowed.release()
    assert crashed.worker.stop(WAIT_S)  # answered, but no turn followed that would have committed
    successor = Bench(bus)
    bus.append(request(2))
    successor.answering.allowed.release()
    successor.until(lambda: successor.committed() == 2)
    assert successor.answers() == ["r1", "r2"]


def test_a_record_that_is_no_request_is_refused_and_passed(bus: MemoryBus) -> None:
    bus.append_raw("retrain", 0, Encoded(b"trips", b"\xff", []))
    bench = Bench(bus)
    bench.until(lambda: bench.committed() == 1)
    assert [refused.rule for refused in bench.refused] == ["header"]


def test_a_failure_of_the_worker_stops_the_process_and_leaves_the_request(bus: MemoryBus) -> None:
    bus.append(request(1))
    bench = Bench(bus)
    bench.answering.failure = OSError("no space left")
    bench.answering.allowed.release()
    with pytest.raises(OSError, match="no space left"):
        bench.until(lambda: False)
    assert bench.committed() == 0


def test_a_stop_leaves_the_request_to_the_successor(bus: MemoryBus) -> None:
    bus.append(request(1))
    bench = Bench(bus)
    bench.until(lambda: bench.answering.begun == ["r1"])
    bench.answering.failure = Stopping("r1")
    bench.answering.allowed.release()
    assert bench.worker.stop(WAIT_S)
    bench.consumption.turn(0.0)
    assert (bench.committed(), bench.answers()) == (0, [])


def test_more_open_requests_than_the_bound_stop_the_process(bus: MemoryBus) -> None:
    for number in range(4):
        bus.append(request(number))
    bench = Bench(bus, open_requests_max=2)
    with pytest.raises(TooManyRequests):
        bench.until(lambda: False)
    bench.answering.allowed.release(4)


def test_a_delivered_message_is_on_the_bus_when_deliver_returns(bus: MemoryBus) -> None:
    Outbox(bus.producer(), threading.Event()).deliver(request(5))
    assert len(bus.records("retrain", 0)) == 1
