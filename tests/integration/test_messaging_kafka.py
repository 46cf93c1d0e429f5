"""Producer and reader against a real broker pass what the in-memory twin passes, and keep their bounds."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Producer as RawProducer
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from deploy.local.topics import create_topics
from driftloop.messaging import (
    DeliveryFailed,
    KafkaProducer,
    KafkaReader,
    KafkaSettings,
    Producer,
    QueueFull,
    Reader,
    ReadFailed,
    TopicsMissing,
    await_topics,
)
from tests.messaging_conformance import SPREAD, Backend, BusConformance, event

pytestmark = pytest.mark.timeout(40)


class _Kafka:
    def __init__(self, bootstrap_servers: str, use_case: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.use_case = use_case
        self._open: list[KafkaProducer | KafkaReader] = []

    def producer(self) -> Producer:
        producer = KafkaProducer(self.bootstrap_servers, self.use_case, "conformance")
        self._open.append(producer)
        return producer

    def reader(self, names: list[str], group: str | None = None, from_start: bool = True) -> Reader:
        instance = None if group is None else "conformance-0"
        group = None if group is None else f"{self.use_case}-{group}"
        reader = KafkaReader(self.bootstrap_servers, self.use_case, names, group, instance, from_start)
        self._open.append(reader)
        return reader

    def write_raw(self, topic: str, partition: int, key: bytes | None, value: bytes | None) -> None:
        raw = RawProducer({"bootstrap.servers": self.bootstrap_servers})
        raw.produce(f"{self.use_case}.{topic}", value, key, partition)
        assert raw.flush(10) == 0

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers})
        for done in admin.delete_records([TopicPartition(f"{self.use_case}.{topic}", partition, offset)]).values():
            done.result(10)

    def close(self) -> None:
        for opened in self._open:
            if isinstance(opened, KafkaReader):
                opened.close()
            else:
                try:
                    opened.close(10)
                except DeliveryFailed:
                    continue  # the test provoked it


@pytest.fixture
def backend(kafka_bootstrap_servers: str) -> Iterator[Backend]:
    use_case = f"bus{uuid.uuid4().hex[:8]}"
    create_topics(kafka_bootstrap_servers, use_case, 30, SPREAD)
    kafka = _Kafka(kafka_bootstrap_servers, use_case)
    yield kafka
    kafka.close()


@pytest.fixture
def restarted() -> Callable[[Reader], None]:
    return lambda reader: reader.close()


class TestKafka(BusConformance):
    pass


def test_a_full_queue_says_when_to_try_again_and_loses_nothing(kafka_bootstrap_servers: str) -> None:
    use_case = f"full{uuid.uuid4().hex[:8]}"
    create_topics(kafka_bootstrap_servers, use_case, 30, 1)
    producer = KafkaProducer(
        kafka_bootstrap_servers, use_case, "full", KafkaSettings(queue_messages_max=10, linger_ms=50)
    )
    sent, delays_s = 0, []
    while len(delays_s) < 3:
        try:
            producer.send(event(sent))
            sent += 1
        except QueueFull as full:
            delays_s.append(full.retry_after_s)
            time.sleep(full.retry_after_s)
    assert min(delays_s) > 0
    asyncio.run(producer.drained())
    producer.close(10)
    reader = KafkaReader(kafka_bootstrap_servers, use_case, ["events"])
    assert reader.offset_ranges() == {("events", 0): (0, sent)}
    reader.close()


def test_a_broker_that_is_away_fails_the_drain_and_every_later_call() -> None:
    producer = KafkaProducer("127.0.0.1:1", "away", "away", KafkaSettings(delivery_timeout_s=0.5))
    producer.send(event(1))
    with pytest.raises(DeliveryFailed):
        asyncio.run(producer.drained())
    with pytest.raises(DeliveryFailed):
        producer.send(event(2))
    with pytest.raises(DeliveryFailed):
        producer.close(1)


def test_a_lost_message_with_a_listener_is_told_to_it_alone() -> None:
    producer = KafkaProducer("127.0.0.1:1", "away", "away", KafkaSettings(delivery_timeout_s=0.5))
    answers: list[Exception | None] = []
    producer.send(event(1), answers.append)
    asyncio.run(producer.drained())
    assert isinstance(answers[0], DeliveryFailed)


def test_waiting_for_topics_is_bounded_and_names_what_is_missing(kafka_bootstrap_servers: str) -> None:
    use_case = f"wait{uuid.uuid4().hex[:8]}"
    with pytest.raises(TopicsMissing, match=f"{use_case}.events"):
        await_topics(kafka_bootstrap_servers, use_case, ["events"], 0.5)
    create_topics(kafka_bootstrap_servers, use_case, 30, SPREAD)
    assert await_topics(kafka_bootstrap_servers, use_case, ["events", "scores"], 5) == {"events": SPREAD, "scores": 1}


def test_a_reader_of_a_missing_topic_says_so(kafka_bootstrap_servers: str) -> None:
    with pytest.raises(ReadFailed, match="events"):
        KafkaReader(kafka_bootstrap_servers, f"none{uuid.uuid4().hex[:8]}", ["events"])
