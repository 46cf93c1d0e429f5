"""Commands that read topics end at what is there: retention may have removed all that was."""

from __future__ import annotations

import asyncio

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from deploy.local.topics import create_topics
from driftloop.cli.history import read_topics
from driftloop.contracts import watermark
from driftloop.messaging import KafkaProducer


def test_a_topic_whose_records_retention_has_removed_is_read_as_empty(
    kafka_bootstrap_servers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_topics(kafka_bootstrap_servers, "removed", 30, 1)
    producer = KafkaProducer(kafka_bootstrap_servers, "removed", "test")
    for topic in ("events", "scores"):
        producer.send(watermark(topic, 0, "test", 1))
    asyncio.run(producer.drained())
    producer.close(5)
    emptied = [TopicPartition("removed.events", 0, 1)]
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap_servers})
    for done in admin.delete_records(emptied).values():
        done.result(30)
    monkeypatch.setattr("driftloop.cli.history.READ_TIMEOUT_S", 5.0)
    found = read_topics(kafka_bootstrap_servers, "removed", ["events", "scores"], control=True)
    assert [record.topic for record in found] == ["scores"]
