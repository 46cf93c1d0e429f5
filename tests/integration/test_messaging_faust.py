"""Hearts behind Faust on a real broker: killed, joined and fed nonsense, they lose nothing and repeat nothing new."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer as RawProducer

from deploy.local.topics import create_topics
from driftloop.contracts import Record, derive_id
from driftloop.messaging import KafkaProducer, KafkaReader, QueueFull
from tests.hearts import FileSink, event

pytestmark = pytest.mark.timeout(180)
SPREAD = 2
ROOT = Path(__file__).resolve().parents[2]


class World:
    """A use case of its own on the broker, and the worker processes on it."""

    def __init__(self, bootstrap_servers: str, folder: Path) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.folder = folder
        self.use_case = f"faust{uuid.uuid4().hex[:8]}"
        create_topics(bootstrap_servers, self.use_case, 30, SPREAD)
        self.producer = KafkaProducer(bootstrap_servers, self.use_case, "test")
        self.reader = KafkaReader(bootstrap_servers, self.use_case, ["features", "dead-letters"])
        self.seen: list[Record] = []
        self.workers: list[subprocess.Popen[str]] = []
        self.written = Counter[int]()

    def start(self, replica: int = 0) -> subprocess.Popen[str]:
        with (self.folder / f"worker-{len(self.workers)}.log").open("w") as log:
            worker = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.hosted_tally",
                    self.bootstrap_servers,
                    self.use_case,
                    str(self.folder),
                    str(replica),
                ],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.workers.append(worker)
        return worker

    def ready(self, worker: subprocess.Popen[str]) -> None:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "READY\n", "the worker did not get ready; see its log"

    def write(self, count: int) -> None:
        """Writes `count` more events to each partition."""
        for partition in range(SPREAD):
            for _ in range(count):
                number = self.written[partition]
                self.written[partition] += 1
                while True:
                    try:
                        self.producer.send(event(number, partition, entity=f"x{number % 7}"))
                        break
                    except QueueFull as full:
                        time.sleep(full.retry_after_s)
        asyncio.run(self.producer.drained())

    def expected(self) -> set[str]:
        """Ids that an undisturbed run gives for all that was written."""
        found = set()
        for partition, count in self.written.items():
            counts = Counter[str]()
            for number in range(count):
                entity = f"x{number % 7}"
                counts[entity] += 1
                found.add(derive_id("tally", partition, number, entity, counts[entity]))
        return found

    def read_until(self, enough: Callable[[], bool], timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not enough():
            assert time.monotonic() < deadline, f"{len(self.seen)} records came"
            self.seen += [record for record in self.reader.poll(0.2, 5_000) if isinstance(record, Record)]

    def ids(self) -> set[str]:
        return {record.message.id for record in self.seen if record.topic == "features"}

    def await_rows(self, expected: set[str], timeout_s: float = 60.0) -> None:
        """Waits until the sink shows as many rows as are expected; a longer life must add none."""
        deadline = time.monotonic() + timeout_s
        while len(rows := self.rows()) < len(expected):
            logs = [path.read_text() for path in sorted(self.folder.glob("worker-*.log"))]
            assert time.monotonic() < deadline, f"{len(rows)} of {len(expected)} rows are in the sink: {logs}"
            time.sleep(0.05)

    def rows(self) -> list[str]:
        sink = FileSink(self.folder / "sink")
        return [row for partition in range(SPREAD) for row in sink.named(partition)]

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self.reader.close()
        self.producer.close(10)


@pytest.fixture
def world(kafka_bootstrap_servers: str, tmp_path: Path) -> Iterator[World]:
    found = World(kafka_bootstrap_servers, tmp_path)
    yield found
    found.close()


BUSY = """
import asyncio, time
from driftloop.messaging.faust_worker import stop_on_signals

async def busy():
    stop_on_signals(asyncio.Event(), 0.1)
    print("READY", flush=True)
    while True:
        time.sleep(0.01)

asyncio.run(busy())
"""


def test_a_worker_whose_event_loop_is_busy_ends_within_its_bound_of_a_signal() -> None:
    worker = subprocess.Popen([sys.executable, "-c", BUSY], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "READY\n"
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 1
    finally:
        worker.kill()


def test_killed_at_random_points_the_distinct_outputs_are_those_of_an_undisturbed_run(world: World) -> None:
    drawn = random.Random(11)
    worker = world.start()
    world.ready(worker)
    for _ in range(3):
        world.write(1_500)
        so_far = len(world.ids())
        enough = so_far + drawn.randint(1, 2_000)
        world.read_until(lambda enough=enough: len(world.ids()) >= enough)  # type: ignore[misc]
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        worker = world.start()
    world.ready(worker)
    expected = world.expected()
    world.read_until(lambda: world.ids() >= expected)
    world.await_rows(expected)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(10) == 0
    assert world.ids() == expected
    assert Counter(world.rows()) == Counter(expected), "a sink holds each output once"


def test_after_a_kill_the_worker_is_back_within_the_session(world: World) -> None:
    worker = world.start()
    world.ready(worker)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    world.write(10)
    started_s = time.monotonic()
    world.start()
    world.read_until(lambda: world.ids() == world.expected())
    assert time.monotonic() - started_s < 15


def test_a_malformed_record_is_dead_lettered_and_the_consumer_goes_on(world: World) -> None:
    worker = world.start()
    world.ready(worker)
    raw = RawProducer({"bootstrap.servers": world.bootstrap_servers})
    raw.produce(f"{world.use_case}.events", b"\xff\x00 no message", b"key", 0, headers=[("ce_id", b"broken")])
    raw.produce(f"{world.use_case}.events", None, None, 1)
    assert raw.flush(10) == 0
    world.producer.send(event(0, 0))
    world.producer.send(event(0, 1))
    world.read_until(lambda: len(world.ids()) == 2 and len(world.seen) == 4)
    letters = {(r.message.payload.partition, r.message.payload.rule) for r in world.seen if r.topic == "dead-letters"}
    assert letters == {(0, "header"), (1, "empty")}
    assert worker.poll() is None


def test_a_second_worker_joins_and_leaves_and_nothing_is_lost(world: World) -> None:
    first = world.start(0)
    world.ready(first)
    world.write(500)
    second = world.start(1)
    world.write(500)
    world.ready(second)
    world.write(500)
    world.read_until(lambda: len(world.ids()) == len(world.expected()))
    os.kill(second.pid, signal.SIGKILL)
    second.wait()
    world.write(500)
    expected = world.expected()
    world.read_until(lambda: world.ids() >= expected)
    world.await_rows(expected)
    first.send_signal(signal.SIGTERM)
    assert first.wait(10) == 0
    assert world.ids() == expected
    assert Counter(world.rows()) == Counter(expected)


def test_a_worker_whose_last_checkpoint_fails_ends_as_a_failure(world: World) -> None:
    worker = world.start()
    world.ready(worker)
    world.write(10)
    world.await_rows(world.expected())
    (world.folder / "sink" / "full").touch()
    world.write(10)
    world.read_until(lambda: len(world.ids()) == len(world.expected()))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(15) == 1
    assert "No space left" in (world.folder / "worker-0.log").read_text()


def test_a_worker_that_stops_folding_ends_itself_and_an_idle_one_does_not(world: World) -> None:
    worker = world.start()
    world.ready(worker)
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(6)  # longer than the stall timeout of 4 s, with nothing to do
    world.producer.send(event(0, 0, entity="hang"))
    asyncio.run(world.producer.drained())
    assert worker.wait(40) == 1
    assert "Stalled" in (world.folder / "worker-0.log").read_text()
