"""A million feature entities in features: bytes of memory for each, and how long a restart takes until it is caught up."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from confluent_kafka import Consumer, Producer, TopicPartition

from bench.features.events import NAME, START_US, Spent, message
from bench.features.processes import features_process
from driftloop.contracts import encode, watermark
from driftloop.messaging import KafkaSettings

REPLAYED = 50_000  # events behind the checkpoint: as many as lie between two of them
_PATIENCE_S = 300.0


@dataclass(frozen=True)
class Recovered:
    """Seconds from the start of the process to the value of the last event; bytes of memory per entity."""

    seconds: float
    bytes_per_key: float


def measure(servers: str, folder: Path, keys: int) -> Recovered:
    """Builds the state by the service itself, kills it once it is checkpointed, sends more events, and starts it again."""
    name = f"{NAME}{keys}keys"
    config = KafkaSettings().client_config(servers, "bench")
    producer = Producer(config | {"compression.type": "lz4", "queue.buffering.max.messages": 1_000_000})

    def send(first: int, last: int) -> int:
        draw, at_us = random.Random(first), START_US
        for number in range(first, last):
            at_us = START_US + number * 1_000
            made = encode(message(name, Spent(number, at_us, f"s{number % keys}", draw.random())))
            producer.produce(f"{name}.events", made.value, made.key, 0, headers=made.headers)
            if number % 5_000 == 4_999 or number + 1 == last:
                mark = encode(watermark("events", 0, "ingest", at_us))
                producer.produce(f"{name}.events", mark.value, mark.key, 0, headers=mark.headers)
                producer.poll(0)
        assert producer.flush(60) == 0
        return at_us

    with features_process(servers, folder, name) as process:
        await_clock(servers, name, send(0, 1))
        time.sleep(12.0)  # until what is loaded behind readiness is there, too
        before = _rss(process.pid)
        await_clock(servers, name, send(1, keys))
        time.sleep(2.0)
        after = _rss(process.pid)
        await_commits(servers, name)
        process.kill()
        process.wait()
    last_us = send(keys, keys + REPLAYED)
    started_s = time.perf_counter()
    with features_process(servers, folder, name):
        await_clock(servers, name, last_us)
        seconds = time.perf_counter() - started_s
    return Recovered(seconds, (after - before) / keys)


def _rss(pid: int) -> int:
    """Bytes of memory of a process, and of processes of its own."""
    process = psutil.Process(pid)
    return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))


def await_commits(servers: str, name: str) -> None:
    """Returns when both stages have committed all that they read: only a durable checkpoint is committed."""
    deadline_s = time.perf_counter() + _PATIENCE_S
    for stage, topic in (("rekeying", "events"), ("aggregation", "keyed")):
        consumer = Consumer({"bootstrap.servers": servers, "group.id": f"{name}-{stage}", "enable.auto.commit": False})
        place = TopicPartition(f"{name}.{topic}", 0)
        try:
            _, end = consumer.get_watermark_offsets(place, timeout=30)
            while consumer.committed([place], timeout=30)[0].offset < end:
                assert time.perf_counter() < deadline_s, f"{name}: {stage} was not checkpointed up to {end}"
                time.sleep(0.2)
        finally:
            consumer.close()


def await_clock(servers: str, name: str, clock_us: int) -> None:
    """Returns when the topic `features` has reached a clock."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "bench", "enable.auto.commit": False})
    place = TopicPartition(f"{name}.features", 0, 0)
    try:
        _, end = consumer.get_watermark_offsets(place, timeout=30)
        place.offset = max(0, end - 10)
        consumer.assign([place])
        deadline_s = time.perf_counter() + _PATIENCE_S
        while True:
            assert time.perf_counter() < deadline_s, f"{name} did not reach {clock_us}"
            for record in consumer.consume(10_000, 0.05):
                assert record.error() is None, record.error()
                key, headers = record.key() or b"", dict(record.headers() or [])
                if key.startswith(b"~") and int(headers["ce_knownat"] or b"") >= clock_us:
                    return
    finally:
        consumer.close()
