"""Features as a process on a real broker: what it emits, logs and keeps when it is killed."""

from __future__ import annotations

import itertools
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from grpc_health.v1 import health_pb2

from driftloop.contracts import Message, Record, watermark
from driftloop.contracts.monitor.v1.monitor_pb2 import RetrainRequest
from driftloop.featurestore.log import OfflineLogReader, view_schema
from driftloop.messaging import MemoryBus
from services.features.aggregation import Aggregation
from services.features.rekeying import Rekeying
from tests.service_world import START_PATIENCE_S, ServiceWorld, free_address
from tests.tiny_usecase import MINUTE_US, START_US, told

pytestmark = pytest.mark.timeout(180)
SPREAD = 2
# For a worker that starts while others fold on the same cores; one that hangs ends itself.
PATIENCE_UNDER_LOAD_S = 300.0


class World(ServiceWorld):
    """Features on a tiny use case."""

    def __init__(self, bootstrap_servers: str, folder: Path) -> None:
        super().__init__("features", bootstrap_servers, folder, SPREAD, ["features"])
        self.sent: list[Message[Any]] = []

    def tell(self, messages: list[Message[Any]], clock_us: int) -> None:
        """Events, and the watermark behind them."""
        marks = [watermark("events", partition, "ingest", clock_us) for partition in range(SPREAD)]
        self.sent += [*messages, *marks]
        self.send([*messages, *marks])

    def reached(self, clock_us: int) -> Callable[[], bool]:
        def enough() -> bool:
            marks = [r for r in self.seen if r.message.is_watermark and r.message.known_at_us >= clock_us]
            return {record.partition for record in marks} == set(range(SPREAD))

        return enough

    def updates(self) -> list[Message[Any]]:
        return [record.message for record in self.seen if not record.message.is_watermark]

    def expected(self) -> list[Message[Any]]:
        """What the hearts say of what was sent, folded in one go without a broker."""
        bus = MemoryBus(self.name, SPREAD)
        producer = bus.producer()
        for message in self.sent:
            producer.send(message)
        for topic, heart in (("events", Rekeying), ("keyed", Aggregation)):
            for partition in range(SPREAD):
                records = [record for record in _all(bus, topic) if record.partition == partition]
                for message in heart(self.use_case, partition, SPREAD).fold(records):
                    producer.send(message)
        return [record.message for record in _all(bus, "features") if not record.message.is_watermark]


def _all(bus: MemoryBus, topic: str) -> list[Record]:
    """Every record of a topic, however many there are."""
    reader = bus.reader([topic])
    batches = iter(lambda: reader.poll(0, 10_000), [])
    return [record for batch in batches for record in batch if isinstance(record, Record)]


@pytest.fixture
def world(kafka_bootstrap_servers: str, tmp_path: Path) -> Iterator[World]:
    found = World(kafka_bootstrap_servers, tmp_path)
    yield found
    found.close()


def _values_at(updates: list[Message[Any]], clock_us: int) -> dict[str, list[Any]]:
    """What a reader sees of each entity at a clock: until it is reached, events come in any order and values pass through."""
    newest = {}
    for message in sorted(updates, key=lambda m: m.payload.sequence):
        if message.known_at_us <= clock_us:
            newest[message.key] = list(message.payload.values)
    return newest


def _trips(name: str, first: int, count: int) -> list[Message[Any]]:
    found = []
    for number in range(first, first + count):
        at_us, line = START_US + number * MINUTE_US, f"line{number % 5}"
        found.append(told(name, "left", f"t{number}", at_us, line=line, delay=number % 13))
        found.append(told(name, "came", f"t{number}", at_us, line=line, delay=number % 17))
    return found


def test_killed_twice_it_emits_what_the_hearts_say_and_logs_every_event_and_value_once(world: World) -> None:
    world.create_topics()
    process = world.start()
    world.await_serving()
    for stretch in range(3):
        first, last_us = stretch * 200, START_US + (stretch + 1) * 200 * MINUTE_US
        trips = _trips(world.name, first, 200)
        world.tell(trips[:200], START_US + (first + 99) * MINUTE_US)
        if stretch < 2:
            world.kill(process)
            process = world.start()
        world.tell(trips[200:], last_us)
    world.read_until(world.reached(last_us))
    assert _values_at(world.updates(), last_us) == _values_at(world.expected(), last_us)

    request = RetrainRequest(use_case=world.name, id="r1", clock_us=last_us)
    world.send([Message("retrain", world.name, request, "r1", "test", last_us, last_us)])
    log = OfflineLogReader(world.store, world.name).await_clock(last_us, 10.0, threading.Event())
    logged = log.events().to_table().to_pydict()
    assert sorted(logged["id"]) == sorted(m.id for m in world.sent if not m.is_watermark)
    tables = [log.updates(view.name, view_schema(view)).to_table().to_pydict() for view in world.use_case.views]
    ids = [update_id for table in tables for update_id in table["update_id"]]
    assert len(ids) == len(set(ids))
    assert {m.id for m in world.updates()} <= set(ids)
    assert len(tables[0]["update_id"]) >= 600, "every event that a window sees has its own values"
    assert world.stop(process) == 0


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("rounds", [1, pytest.param(12, marks=pytest.mark.soak)])
def test_workers_that_join_leave_and_are_killed_under_load_change_no_value(world: World, rounds: int) -> None:
    world.create_topics()
    drawn = random.Random(7)
    told_us = START_US
    done = threading.Event()

    def load() -> None:
        nonlocal told_us
        for first in itertools.count(0, 20):
            told_us = START_US + (first + 20) * MINUTE_US
            world.tell(_trips(world.name, first, 20), told_us)
            if done.wait(0.05):
                return

    first = world.start()
    world.await_serving()
    loading = threading.Thread(target=load)
    loading.start()
    try:
        for _ in range(rounds):
            address = free_address()
            patience = str(PATIENCE_UNDER_LOAD_S)
            second = world.start(
                address, FEATURES_ADDRESS=address, DRIFTLOOP_REPLICA="1", DRIFTLOOP_START_TIMEOUT_S=patience
            )
            world.await_serving(address, patience_s=PATIENCE_UNDER_LOAD_S)
            time.sleep(drawn.uniform(0.0, 2.0))
            assert world.stop(second) == 0
            address = free_address()
            third = world.start(address, FEATURES_ADDRESS=address, DRIFTLOOP_REPLICA="1")
            time.sleep(drawn.uniform(0.0, 6.0))  # anywhere between its first import and its work
            world.kill(third)
            time.sleep(drawn.uniform(0.0, 2.0))
            world.kill(first)
            first = world.start()
            world.await_serving(patience_s=PATIENCE_UNDER_LOAD_S)
    finally:
        done.set()
        loading.join()
    world.read_until(world.reached(told_us), PATIENCE_UNDER_LOAD_S)
    assert _values_at(world.updates(), told_us) == _values_at(world.expected(), told_us)
    request = RetrainRequest(use_case=world.name, id="r1", clock_us=told_us)
    world.send([Message("retrain", world.name, request, "r1", "test", told_us, told_us)])
    log = OfflineLogReader(world.store, world.name).await_clock(told_us, PATIENCE_UNDER_LOAD_S, threading.Event())
    logged = log.events().to_table().to_pydict()
    assert sorted(logged["id"]) == sorted(m.id for m in world.sent if not m.is_watermark)
    tables = [log.updates(view.name, view_schema(view)).to_table().to_pydict() for view in world.use_case.views]
    ids = [update_id for table in tables for update_id in table["update_id"]]
    assert len(ids) == len(set(ids))
    assert {m.id for m in world.updates()} <= set(ids)


@pytest.mark.timeout(600)
def test_current_values_reach_the_online_store_also_after_the_death_of_the_process_that_writes_it(world: World) -> None:
    world.create_topics()
    process = world.start()
    world.await_serving()
    world.tell(_trips(world.name, 0, 50), START_US + 50 * MINUTE_US)
    online = world.folder / "state" / "feast" / "online.db"

    def keys() -> int:
        if not online.exists():
            return 0
        with sqlite3.connect(f"file:{online}?mode=ro", uri=True) as connection:
            tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return sum(
                connection.execute(f'SELECT count(DISTINCT entity_key) FROM "{table}"').fetchone()[0]
                for table in tables
                if table.startswith(world.name)
            )

    world.read_until(lambda: keys() == len({m.key for m in world.updates()}) > 0, START_PATIENCE_S)
    (writer,) = psutil.Process(process.pid).children()
    writer.kill()
    others = [told(world.name, "left", f"o{n}", START_US + 60 * MINUTE_US, line=f"other{n}", delay=1) for n in range(9)]
    world.tell(others, START_US + 61 * MINUTE_US)
    world.read_until(lambda: keys() == len({m.key for m in world.updates()}) >= 9 + 10, START_PATIENCE_S)
    assert process.poll() is None


def test_without_its_topics_it_says_which_and_ends(world: World) -> None:
    process = world.start(FEATURES_TOPICS_TIMEOUT_S="1")
    assert process.wait(20) == 1
    assert f"{world.name}.events" in world.log()
    assert "TopicsMissing" in world.log()


def test_it_waits_for_topics_that_come_late(world: World) -> None:
    world.start()
    assert world.status() == health_pb2.HealthCheckResponse.NOT_SERVING
    world.create_topics()
    world.await_serving()
