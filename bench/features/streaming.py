"""Streaming aggregation by features and by quixstreams: the same events, windows and statistics, each on the same one core.

Both are started and warm, and held still while the events are written to the broker; the time counts from when they go on to
the value that has the last event in it.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from bench.features.events import NAME, message, peers, spent
from bench.features.processes import ROOT, environment, features_process, started
from bench.ingest.machine import SERVER_CORES, Meter, client_cores
from driftloop.contracts import Encoded, encode, watermark
from driftloop.contracts.features.v1.features_pb2 import FeatureUpdate
from driftloop.messaging import KafkaSettings
from driftloop.usecase import duration_us

PEER_PACKAGE = "quixstreams==3.24.0"
EVENTS_PER_MARK = 5_000  # between two watermarks, as ingest writes them ten times a second at this rate
WARM_UP = 1_000  # events before it is held still
QUIET_CHECKS = 4  # of half a second
PATIENCE_S = 120.0


class Value(NamedTuple):
    """Statistics of one shop in the longest window."""

    place: str
    events: float
    mean: float
    p90: float


Values = dict[str, Value]
_NOTHING = Value("", 0, 0.0, 0.0)


@dataclass(frozen=True)
class Measured:
    """One run: events per second, CPU microseconds of the process per event, and what it found."""

    rate: float
    cpu_us: float
    values: Values


class Streaming:
    """One broker; every run reads topics of its own, which hold the same events."""

    def __init__(self, servers: str, folder: Path, events: int) -> None:
        self._servers = servers
        self._folder = folder
        self._events = events
        self._python = environment(folder, PEER_PACKAGE)
        os.sched_setaffinity(0, client_cores())

    def _producer(self) -> Producer:
        config = KafkaSettings().client_config(self._servers, "bench")
        return Producer(config | {"compression.type": "lz4", "queue.buffering.max.messages": 1_000_000})

    def ours(self, run: str, over: Sequence[str], kind: str) -> Measured:
        """`services.features`: both stages, the offline log and checkpoints included."""
        name = f"{NAME}{run}"
        with features_process(self._servers, self._folder, name, over, kind) as process:
            online = self._folder / name / "state" / "feast" / "online.db"
            records = self._our_records(name)
            return self._measure(
                process.pid, f"{name}.events", records, f"{name}.features", _our_value, warm=lambda: _has_rows(online)
            )

    def _our_records(self, name: str) -> list[Encoded]:
        records = []
        for one in spent(self._events):
            records.append(encode(message(name, one)))
            if (one.number + 1) % EVENTS_PER_MARK == 0:
                records.append(encode(watermark("events", 0, "ingest", one.at_us)))
        return records

    def peer(self, run: str, over: Sequence[str], kind: str) -> Measured:
        """quixstreams, with its state in RocksDB and its changelog."""
        name = f"peer{run}"
        admin = AdminClient({"bootstrap.servers": self._servers})
        wanted = [NewTopic(f"{name}.{kind}", 1, 1) for kind in ("events", "values")]
        for future in admin.create_topics(wanted).values():
            future.result()
        records = [peers(one) for one in spent(self._events)]
        times_ms = [one.at_us // 1000 for one in spent(self._events)]
        seconds = [str(duration_us(each) // 1_000_000) for each in over]
        argv: list[str | Path] = [
            self._python,
            ROOT / "bench" / "features" / "peer.py",
            self._servers,
            f"{name}.events",
        ]
        with started([*argv, f"{name}.values", name, self._folder / name, kind, *seconds], {}, SERVER_CORES) as process:
            longest_ms = duration_us(over[-1]) // 1000

            def read(record: Message) -> Value | None:
                return _peers_value(record, longest_ms)

            return self._measure(process.pid, f"{name}.events", records, f"{name}.values", read, times_ms)

    def _measure(
        self,
        pid: int,
        source: str,
        records: list[Encoded],
        target: str,
        read: Callable[[Message], Value | None],
        times_ms: list[int] | None = None,
        warm: Callable[[], bool] = lambda: True,
    ) -> Measured:
        """Holds the process still while all but the first records are written; timed from when it goes on.

        It ends when the newest values of all shops count every event.
        """
        meter, producer = Meter(pid), self._producer()

        def write(first: int, last: int) -> None:
            for number in range(first, last):
                key, value, headers = records[number]
                producer.produce(source, value, key, 0, None, times_ms[number] if times_ms else 0, headers=headers)
                if number % 1_000 == 0:
                    producer.poll(0)
            assert producer.flush(60) == 0

        write(0, WARM_UP)
        with self._reading(target) as consumer:
            values: Values = {}
            _take(values, consumer, read, 1)
            _wait(warm)
            _idle(meter)
            os.kill(pid, signal.SIGSTOP)
            write(WARM_UP, len(records))
            started_s, used_s = time.perf_counter(), meter.cpu_s()
            os.kill(pid, signal.SIGCONT)
            _take(values, consumer, read, self._events)
            seconds, cpu_s = time.perf_counter() - started_s, meter.cpu_s() - used_s
        count = self._events - WARM_UP
        return Measured(count / seconds, cpu_s / count * 1e6, values)

    @contextmanager
    def _reading(self, topic: str) -> Iterator[Consumer]:
        consumer = Consumer({"bootstrap.servers": self._servers, "group.id": "bench", "enable.auto.commit": False})
        consumer.assign([TopicPartition(topic, 0, 0)])
        try:
            yield consumer
        finally:
            consumer.close()


def _take(values: Values, consumer: Consumer, read: Callable[[Message], Value | None], events: int) -> None:
    """Reads until the newest values count so many events."""
    deadline_s = time.perf_counter() + PATIENCE_S
    counted = sum(each.events for each in values.values())
    while counted < events:
        assert time.perf_counter() < deadline_s, f"{counted} of {events} events after {PATIENCE_S} s"
        for record in consumer.consume(10_000, 0.05):
            assert record.error() is None, record.error()
            if (value := read(record)) is not None:
                counted += value.events - values.get(value.place, _NOTHING).events
                values[value.place] = value


def _wait(condition: Callable[[], bool]) -> None:
    deadline_s = time.perf_counter() + PATIENCE_S
    while not condition():
        assert time.perf_counter() < deadline_s, f"not warm after {PATIENCE_S} s"
        time.sleep(0.1)


def _has_rows(online: Path) -> bool:
    """Whether the online store has a value: then Feast, which takes seconds to load, has been loaded."""
    if not online.exists():
        return False
    with closing(sqlite3.connect(f"file:{online}?mode=ro", uri=True)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return any(connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for (name,) in tables)


def _idle(meter: Meter) -> None:
    """Waits until a process has done nothing for a while: what it loads behind its readiness is no part of its speed."""
    quiet = 0
    while quiet < QUIET_CHECKS:
        used_s = meter.cpu_s()
        time.sleep(0.5)
        quiet = quiet + 1 if meter.cpu_s() - used_s < 0.1 else 0


def _our_value(record: Message) -> Value | None:
    if record.key().startswith(b"~"):
        return None
    update = FeatureUpdate.FromString(record.value())
    count, mean, p90 = (value.number for value in update.values[-3:])
    return Value(update.key.partition("|")[2], count, mean, p90)


def _peers_value(record: Message, longest_ms: int) -> Value | None:
    found = json.loads(record.value())
    if found["end"] - found["start"] != longest_ms:
        return None
    return Value(record.key().decode(), found["count"], found["mean"], found["p90"])
